package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
	"go.uber.org/zap"
)

// Rebuff is the refusal of somebody who asked in a runner's name: an
// [ErrTokenRejected], or an [ErrConflict] for what is final.
type Rebuff struct {
	// Cause is empty where it could not be found out: that the answer is no is
	// certain, and why is not. It is then recorded by a later question, if at all.
	Cause runner.RebuffCause
	// Caller is who the cluster vouches for, nil when it does for nobody.
	Caller *runner.Caller
	Err    error
}

func (r *Rebuff) Error() string { return r.Err.Error() }
func (r *Rebuff) Unwrap() error { return r.Err }

// causeUnknownRunner is of metrics only: a name that the log does not know has
// no chain to be recorded on, and whoever asks chooses it.
const causeUnknownRunner runner.RebuffCause = "unknown-runner"

// rebuff turns away a caller whom the cluster vouches for.
func rebuff(kind error, cause runner.RebuffCause, pod runner.PodIdentity, format string, args ...any) error {
	return &Rebuff{Cause: cause, Caller: new(pod.Caller()), Err: fmt.Errorf("%w: %w", kind, fmt.Errorf(format, args...))}
}

// entitled says whether the config may go to this pod, which has the runner's
// name. Who the pod is comes before what it asks for.
func entitled(r *runner.Runner, pod runner.PodIdentity) error {
	host := r.Claimed.Event.Host
	_, ended := r.Ended()
	switch {
	case r.Bound != nil && r.Bound.Event.PodUID != pod.PodUID:
		return rebuff(ErrConflict, runner.RebuffSecondPod, pod, "another pod is bound")
	case r.Bound == nil && (pod.NodeName != host.NodeName || pod.NodeUID != host.NodeUID):
		return rebuff(ErrConflict, runner.RebuffOtherNode, pod, "the pod is not on the claimed host")
	case ended:
		return rebuff(ErrConflict, runner.RebuffRunnerOver, pod, "the runner is over")
	case r.Released != nil:
		return rebuff(ErrConflict, runner.RebuffReplay, pod, "the config was handed out already")
	}
	return nil
}

// rebuffs wait to be recorded by the settle loop, so that no answer at a gate
// waits for the ledger or depends on it. There is at most one for each gate and
// cause of an open runner. They are in memory only: what a crash loses is
// recorded when it is asked again. It is safe for concurrent use.
type rebuffs struct {
	mu      sync.Mutex
	waiting []runner.Rebuffed
}

// add says whether the rebuff was not waiting yet.
func (q *rebuffs) add(e runner.Rebuffed) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if slices.ContainsFunc(q.waiting, func(o runner.Rebuffed) bool { return sameRebuff(o, e) }) {
		return false
	}
	q.waiting = append(q.waiting, e)
	return true
}

func (q *rebuffs) list() []runner.Rebuffed {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.waiting)
}

func (q *rebuffs) drop(e runner.Rebuffed) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = slices.DeleteFunc(q.waiting, func(o runner.Rebuffed) bool { return sameRebuff(o, e) })
}

func sameRebuff(a, b runner.Rebuffed) bool {
	return a.Runner == b.Runner && a.Gate == b.Gate && a.Cause == b.Cause
}

// noteRebuff counts a refusal at a gate and sees to its record. It never waits,
// and an answer other than a refusal is none of its business: what is unknown is
// not a refusal.
func (s *Supervisor) noteRebuff(g runner.Gate, name runner.Name, r *runner.Runner, err error) {
	no, refused := errors.AsType[*Rebuff](err)
	if !refused {
		return
	}
	if s.OnRebuff != nil {
		s.OnRebuff(g, no.Cause)
	}
	if r == nil || no.Cause == "" || r.Sealed != nil || r.RebuffedFor(g, no.Cause) != nil {
		return
	}
	e := runner.Rebuffed{Runner: name, Gate: g, Cause: no.Cause}
	if no.Caller != nil {
		e.Caller = new(no.Caller.Recordable())
	}
	if s.rebuffs.add(e) {
		s.wake()
	}
}

// recordRebuffs writes what waits. While the log's store is away they go on
// waiting: nothing ends because of them, so the spool is not for them.
func (s *Supervisor) recordRebuffs(ctx context.Context, _ runner.Task) (bool, error) {
	progress := false
	for _, e := range s.rebuffs.list() {
		err := s.recordRebuff(ctx, e)
		if violation, ok := errors.AsType[*runner.Violation](err); ok && violation.Invariant != 8 {
			// Sealed meanwhile, or a caller that the cluster names only in part.
			s.Logger.Error("somebody was turned away and it cannot be recorded", append(rebuffFields(e), zap.Error(violation))...)
		} else if err != nil && !errors.Is(err, runner.ErrRecorded) {
			return progress, fmt.Errorf("record who was turned away: %w", err)
		}
		s.rebuffs.drop(e)
		progress = progress || err == nil
	}
	return progress, nil
}

func (s *Supervisor) recordRebuff(ctx context.Context, e runner.Rebuffed) error {
	if _, err := s.recordFrom(ctx, func(*runner.State) (runner.Event, error) { return e, nil }); err != nil {
		return err
	}
	s.Logger.Warn("somebody was turned away at a runner's gate", rebuffFields(e)...)
	return nil
}

// rebuffWarnings are what on-call is told of who was turned away. The runner's
// own pod that comes too late is none of it: pods are slow at times.
func (v RunnerView) rebuffWarnings() (out []string) {
	for _, r := range v.Rebuffed {
		if r.Cause != runner.RebuffRunnerOver {
			out = append(out, fmt.Sprintf("runner %s: somebody was turned away at gate %s (%s) at %s, see runnerward explain %s",
				v.Name, r.Gate, r.Cause, r.Since.UTC().Format(time.RFC3339), v.Name))
		}
	}
	return out
}

func rebuffFields(e runner.Rebuffed) []zap.Field {
	fields := []zap.Field{zap.String("runner", string(e.Runner)), zap.String("gate", string(e.Gate)), zap.String("cause", string(e.Cause))}
	if c := e.Caller; c != nil {
		fields = append(fields, zap.String("namespace", c.Namespace), zap.String("account", c.ServiceAccount),
			zap.String("pod", c.PodUID), zap.String("node", c.NodeName))
	}
	return fields
}
