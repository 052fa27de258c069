package supervisor

import (
	"context"
	"sync"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

// ClaimAnswer is what a bound pod receives. Bound is the digest of its bound
// record: the audience for which the job must ask GitHub to sign.
type ClaimAnswer struct {
	JITConfig Secret
	Bound     runner.Digest
}

// StartVerdict answers the job-started hook.
type StartVerdict string

// The verdicts of the start gate. Pending means "ask again, do not return":
// the hook blocks until it is allowed or killed.
const (
	StartAllowed StartVerdict = "allowed"
	StartRefused StartVerdict = "refused"
	StartPending StartVerdict = "pending"
)

// StartAnswer is what the job-started hook is told.
type StartAnswer struct {
	Verdict StartVerdict
	Reasons []string
	// Record is the digest of the started record when allowed.
	Record runner.Digest
}

// gates lets one caller at a time through for each runner, and remembers since
// when a job waits at the start gate.
type gates struct {
	mu    sync.Mutex
	inUse map[runner.Name]chan struct{}
	since map[runner.Name]time.Time
	asked map[runner.Name]time.Time
}

func newGates() *gates {
	return &gates{inUse: map[runner.Name]chan struct{}{}, since: map[runner.Name]time.Time{}, asked: map[runner.Name]time.Time{}}
}

// enter waits for the runner's gate; leave must be called after a nil error.
func (g *gates) enter(ctx context.Context, name runner.Name) (leave func(), err error) {
	for {
		g.mu.Lock()
		busy := g.inUse[name]
		if busy == nil {
			done := make(chan struct{})
			g.inUse[name] = done
			g.mu.Unlock()
			return func() {
				g.mu.Lock()
				delete(g.inUse, name)
				g.mu.Unlock()
				close(done)
			}, nil
		}
		g.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// waitingSince is when this runner's hook first asked without an answer.
func (g *gates) waitingSince(name runner.Name, now time.Time) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.since[name]; !ok {
		g.since[name] = now
	}
	return g.since[name]
}

// restart lets the time of every hook that waits begin anew: nobody could
// answer it.
func (g *gates) restart() {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.since)
}

// ask remembers that the runner's hook asked to start a job.
func (g *gates) ask(name runner.Name, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked[name] = now
}

// askedSince says that the hook asked after recent, or that it is before
// listening: until then it may have asked while nobody could answer.
func (g *gates) askedSince(name runner.Name, listening, recent time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return time.Now().Before(listening) || g.asked[name].After(recent)
}

// forget drops what is known of a runner that is over.
func (g *gates) forget(name runner.Name) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.since, name)
	delete(g.asked, name)
}
