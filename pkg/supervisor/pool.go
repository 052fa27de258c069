package supervisor

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

const (
	// preflightEvery is how often the pool of hosts is looked at, preflightRetry
	// how soon again after the look failed.
	preflightEvery = 2 * time.Minute
	preflightRetry = 15 * time.Second
	// preflightGrace is how long the last look is believed while none succeeds.
	preflightGrace = 10 * time.Minute
)

// poolLooks remember what was last seen of the pool of hosts.
type poolLooks struct {
	mu      sync.Mutex
	last    HostsPool
	at      time.Time // of the last success, zero before
	problem string    // of the newest look, empty when it succeeded
	tried   chan struct{}
	once    sync.Once
}

func newPoolLooks() *poolLooks { return &poolLooks{tried: make(chan struct{})} }

func (p *poolLooks) saw(pool HostsPool, err error, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.once.Do(func() { close(p.tried) })
	if err != nil {
		p.problem = err.Error()
		return
	}
	p.last, p.at, p.problem = pool, now, ""
}

// fresh says that the pool need not be looked at again yet.
func (p *poolLooks) fresh(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.problem == "" && !p.at.IsZero() && now.Sub(p.at) < preflightEvery
}

func (p *poolLooks) view() HostsPool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// inService are the instances that the groups say can serve, none when that was
// not seen lately.
func (p *poolLooks) inService(now time.Time) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	for _, g := range p.last.Groups {
		if now.Sub(p.at) < 2*preflightEvery {
			out = append(out, g.InService...)
		}
	}
	return out
}

// problems are what forbids new work. A pool that was never seen, or not for
// too long, may be anything.
func (p *poolLooks) problems(now time.Time) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.at.IsZero() && p.problem == "":
		return []string{"the groups of hosts were not looked at yet"}
	case p.at.IsZero():
		return []string{"the groups of hosts cannot be looked at: " + p.problem}
	case now.Sub(p.at) > preflightGrace:
		return []string{fmt.Sprintf("the groups of hosts were last looked at %s ago: %s", now.Sub(p.at).Round(time.Second), p.problem)}
	}
	return p.last.Problems
}

// preflight looks at the pool that hosts come from. A look that panics has failed
// like any other: the start waits for the first.
func (s *Supervisor) preflight(ctx context.Context, _ runner.Task) (bool, error) {
	if s.pool.fresh(time.Now()) {
		return false, nil
	}
	var pool HostsPool
	_, err := s.survive(func() (_ bool, err error) {
		pool, err = s.Hosts.Preflight(ctx)
		return false, err
	})
	s.pool.saw(pool, err, time.Now())
	return false, err
}

// demand is how many hosts are wanted besides those in use, nil when the size of
// the pool is not ours to change.
func (s *Supervisor) demand(ctx context.Context) (d *Demand, err error) {
	if !s.Limits.Scales() {
		return nil, nil
	}
	err = s.locked(ctx, func() error {
		d = &Demand{Ready: s.state.Ready(time.Now(), s.Limits), Used: s.state.InUse(), Unfit: s.replaced()}
		return nil
	})
	return d, err
}

// scale has hosts launched before a job needs them. Where nothing new may begin
// none is launched.
func (s *Supervisor) scale(ctx context.Context, _ runner.Task) (bool, error) {
	if s.capacity() == 0 {
		return false, nil
	}
	d, err := s.demand(ctx)
	if err != nil || d == nil {
		return false, err
	}
	// That jobs wait may be over since another daemon took over, and nothing but a
	// number bounds what two of them start.
	if d.Ready > 0 {
		if err := s.alone(ctx); err != nil {
			return false, err
		}
	}
	if err := s.Hosts.Ensure(ctx, *d); err != nil {
		return false, fmt.Errorf("start hosts ahead: %w", err)
	}
	return false, nil
}
