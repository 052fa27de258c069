package supervisor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
	"go.uber.org/zap"
)

// While the log's store is away, records of endings wait in the spool: they
// are durable on the daemon's own disk, have their place and digest, and hosts
// are ended on the strength of them. Nothing begins on the strength of them,
// and no message is acknowledged.

// errUntold says that a process before this one kept records in the spool and
// ended before it could record so.
var errUntold = errors.New("records were in the spool and no record says so yet")

// goesOn says whether a task is done while the log is away: the ends of hosts
// whose teardown is on record always, and with a spool all that ends a runner.
// Deadlines that run out because we may not answer, such as that of a pod
// waiting for its registration, are not the runner's fault and wait.
func goesOn(t runner.Task, spooled bool) bool {
	switch {
	case t.Kind == runner.TaskTeardown:
		return true
	case !spooled:
		return false
	}
	switch t.Kind {
	case runner.TaskWatch:
		return true
	case runner.TaskCancel:
		return t.Runner != "" // a denial is given to GitHub when it is in the store
	case runner.TaskRetire:
		switch t.Cause {
		case runner.CauseJobDeadline, runner.CauseHookMissing, runner.CauseIdle, runner.CauseSurplus:
			return true
		}
	}
	return false
}

// sure says that all of the state is in the store, so that something may begin
// on the strength of it. Every answer of [Supervisor.Claim] and
// [Supervisor.Start] that lets something begin comes after it.
func (s *Supervisor) sure(ctx context.Context) error {
	return s.locked(ctx, func() error { return s.recover(ctx) })
}

// aloneWithin bounds how long the question of [Supervisor.alone] may take:
// whoever writes to the log waits for it.
const aloneWithin = 5 * time.Second

// alone says that nobody else has written to the log since we did. It comes
// right before an act that rests on what the log does not say: that a runner is
// idle, that a run is still the one that was denied. A daemon that was stopped,
// or cut off from its lease, and has not noticed that another took over, finds
// out here and not by the act. An act that rests on what the log does say needs
// no such question: no later record takes it back, and doing it twice is harmless.
//
// What ends something goes on unless the answer is [ErrFenced], so it does while
// the log is away.
func (s *Supervisor) alone(ctx context.Context) error {
	return s.locked(ctx, func() error {
		if err := s.recover(ctx); err != nil {
			return err
		}
		bounded, cancel := context.WithTimeout(ctx, aloneWithin)
		defer cancel()
		err := s.Ledger.Alone(bounded)
		if errors.Is(err, ErrFenced) {
			s.lost(err)
		}
		if err != nil {
			return fmt.Errorf("ask the log whether another daemon writes to it: %w", err)
		}
		return nil
	})
}

// drain is the settle loop's way to recover. The store is asked less and less
// often: each time holds up everything else for as long as it does not answer.
func (s *Supervisor) drain(ctx context.Context) error {
	if s.unsure == nil || errors.Is(s.unsure, ErrAway) && time.Now().Before(s.drainAt) {
		return s.unsure
	}
	before := s.Ledger.Spool().Waiting
	err := s.mend(ctx)
	if waiting := s.Ledger.Spool().Waiting; waiting > 0 && waiting >= before {
		s.drainAt = time.Now().Add(min(s.Tick<<min(s.drains, 10), maxBackoff))
		s.drains++
		return err
	}
	s.drainAt, s.drains = time.Time{}, 0
	return err
}

// noteAway remembers that what was just appended is on the daemon's own disk
// only.
func (s *Supervisor) noteAway() {
	if kept := s.Ledger.Spool(); kept.Waiting > 0 {
		s.lost(fmt.Errorf("%w: %w", ErrAway, kept.Problem))
	}
}

// tell records which records waited in the spool. Their files stay until it
// has, so that a crash loses no word of it.
func (s *Supervisor) tell(ctx context.Context) error {
	kept := s.Ledger.Spool()
	if kept.Kept == 0 {
		return nil
	}
	e := runner.Spooled{First: kept.First, Last: kept.Last, Count: uint64(kept.Kept), Since: kept.Since}
	if err := s.explainSilence(ctx, e); err != nil {
		return err
	}
	var err error
	if e.Until, err = s.stamp(); err != nil {
		return err
	}
	if _, err := s.append(ctx, e); err != nil && !errors.Is(err, runner.ErrRecorded) {
		return err
	}
	s.gate.restart()
	s.Logger.Info("the log's store is back", zap.Int("spooled", kept.Kept), zap.Time("since", kept.Since))
	return nil
}

// late says that a released runner has had all the time that there is to start
// a job, the hook's included. While our log is away no hook gets an answer, so
// one that asks is never late; and then its time begins anew.
func (s *Supervisor) late(ctx context.Context, r *runner.Runner) (late bool, err error) {
	err = s.locked(ctx, func() error {
		now := time.Now()
		late = now.Sub(s.state.Answerable(r.Released.At)) > s.Limits.IdleTTL+s.Limits.HookGrace
		if errors.Is(s.unsure, ErrAway) && s.gate.askedSince(r.Name(), s.started.Add(s.Limits.HookGrace), now.Add(-s.Limits.HookGrace)) {
			late = false
		}
		return nil
	})
	return late, err
}

// showAway says how the log is.
func (s *Supervisor) showAway(v *LedgerView) {
	if s.unsure == nil {
		return
	}
	v.LastError = s.unsure.Error()
	if !errors.Is(s.unsure, ErrAway) {
		return
	}
	kept := s.Ledger.Spool()
	v.Away, v.Spooled, v.SpooledSince = true, kept.Waiting, kept.Since
	v.LastError = fmt.Sprintf("the log's store is away, %d records wait in the spool since %s: %v",
		kept.Waiting, kept.Since.UTC().Format(time.RFC3339), kept.Problem)
}
