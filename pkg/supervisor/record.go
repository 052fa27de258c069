package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
	"go.uber.org/zap"
)

const (
	// heartbeatAfter of silence a heartbeat is written.
	heartbeatAfter = time.Hour
	// gapAfter of silence the log has to explain itself. The verifier allows
	// 90 minutes.
	gapAfter = 80 * time.Minute
	// clockSlack is how far the clock may step back unnoticed, as when it is
	// slewed. Beyond it nothing is recorded until the clock is right again.
	clockSlack = 5 * time.Second
	// clockJump is how far wall and monotonic clock may drift apart.
	clockJump = time.Minute
)

// errClock says that the clock cannot be trusted.
var errClock = errors.New("the clock cannot be trusted: mend it and restart")

// locked runs f with the turn to read and change the state.
func (s *Supervisor) locked(ctx context.Context, f func() error) error {
	select {
	case <-s.turn:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { s.turn <- struct{}{} }()
	return f()
}

// record writes one event; a fact that the log already holds is a success.
func (s *Supervisor) record(ctx context.Context, e runner.Event) error {
	_, err := s.recordFrom(ctx, func(*runner.State) (runner.Event, error) { return e, nil })
	if errors.Is(err, runner.ErrRecorded) {
		return nil
	}
	return err
}

// recordFrom builds an event from the state and writes it before anybody else
// can change the state. Then it tells the settle loop to look again.
func (s *Supervisor) recordFrom(ctx context.Context, build func(*runner.State) (runner.Event, error)) (rec runner.Record, err error) {
	err = s.locked(ctx, func() error {
		defer s.publishLocked()
		away := s.recover(ctx)
		if away != nil && !errors.Is(away, ErrAway) {
			return away
		}
		e, err := build(s.state)
		if err != nil {
			return err
		}
		if away != nil && !runner.Spoolable(e.Kind()) {
			return away
		}
		if err := s.explainSilence(ctx, e); err != nil {
			return err
		}
		rec, err = s.append(ctx, e)
		return err
	})
	if err == nil {
		s.wake()
	}
	return rec, err
}

// append is the one place where events become records. It holds the turn.
func (s *Supervisor) append(ctx context.Context, e runner.Event) (runner.Record, error) {
	at, err := s.stamp()
	if err != nil {
		return runner.Record{}, err
	}
	if err := s.newYear(ctx, at, e); err != nil {
		return runner.Record{}, err
	}
	if err := s.state.Check(e, at); err != nil {
		return runner.Record{}, err
	}
	switch e.(type) {
	case runner.Authorized, runner.Claimed, runner.Released, runner.Started:
		// Ending goes on by any clock and whatever is wrong; beginning does not.
		if problem := s.clockProblem(s.state.LastAt); problem != "" {
			return runner.Record{}, fmt.Errorf("%s: %w", problem, errClock)
		}
		if why := append(closed(s.Queue.Health(), s.state.Strays), s.pool.problems(time.Now())...); len(why) > 0 {
			return runner.Record{}, fmt.Errorf("%s: %w", why[0], errClosed)
		}
	}
	return s.write(ctx, at, e)
}

func (s *Supervisor) write(ctx context.Context, at time.Time, e runner.Event) (runner.Record, error) {
	rec, err := s.Ledger.Append(ctx, at, e)
	if err != nil {
		s.lost(err)
		return runner.Record{}, fmt.Errorf("append %s: %w", e.Kind(), err)
	}
	s.noteAway()
	return rec, s.fold(rec)
}

// newYear ends a year of the log and begins the next, before anything else is
// recorded in it. A silence is explained in the year that it began in: a crash
// after the end of that year would leave it unexplained.
func (s *Supervisor) newYear(ctx context.Context, at time.Time, next runner.Event) error {
	if _, gap := next.(runner.Gap); gap && s.state.Closed == nil {
		return nil
	}
	for {
		e, err := s.Ledger.NewYear(ctx, at)
		if err != nil || e == nil {
			return err
		}
		if _, err := s.write(ctx, at, e); err != nil {
			return err
		}
	}
}

// stamp is now, never before the last record.
func (s *Supervisor) stamp() (time.Time, error) {
	now := time.Now().UTC().Round(0)
	behind := s.state.LastAt.Sub(now)
	switch {
	case behind <= 0:
		return now, nil
	case behind <= clockSlack:
		return s.state.LastAt, nil
	}
	return time.Time{}, fmt.Errorf("the clock is %s behind the last record: %w", behind.Round(time.Second), errClock)
}

// clockProblem says why the clock cannot be trusted, empty if it can: it is
// behind the log, it jumped while this process ran, or GitHub has another time.
func (s *Supervisor) clockProblem(lastAt time.Time) string {
	now := time.Now()
	if behind := lastAt.Sub(now); behind > clockSlack {
		return fmt.Sprintf("the clock is %s behind the last record", behind.Round(time.Second))
	}
	// Sub of two readings of one process goes by the monotonic clock; without
	// it by the wall.
	ran, shown := now.Sub(s.started), now.Round(0).Sub(s.started.Round(0))
	if jump := shown - ran; jump.Abs() > clockJump {
		return fmt.Sprintf("the clock jumped by %s since this process started", jump.Round(time.Second))
	}
	return s.skewProblem()
}

// lost remembers that the log may be longer than we know.
func (s *Supervisor) lost(err error) {
	s.unsure = err
	if errors.Is(err, ErrFenced) {
		select {
		case s.fatal <- err:
		default:
		}
	}
}

// recover finds out what became of an append whose answer was an error. While
// records wait in the spool it does not ask the store: the settle loop does.
func (s *Supervisor) recover(ctx context.Context) error {
	if s.unsure == nil || errors.Is(s.unsure, ErrAway) {
		return s.unsure
	}
	return s.mend(ctx)
}

// mend brings the log and the state in step, and what waits in the spool into
// the store.
func (s *Supervisor) mend(ctx context.Context) error {
	records, err := s.Ledger.Recover(ctx)
	for _, rec := range records {
		if err := s.fold(rec); err != nil {
			return err
		}
	}
	if err != nil {
		s.lost(err)
		return fmt.Errorf("recover the log: %w", err)
	}
	s.unsure = nil
	if err := s.tell(ctx); err != nil {
		s.lost(err)
		return fmt.Errorf("recover the log: %w", err)
	}
	return nil
}

// fold takes a durable record into the state. That the log holds what the
// state refuses cannot happen while Check precedes Append; if it does, nothing
// this process believes is worth acting on.
func (s *Supervisor) fold(rec runner.Record) error {
	if err := s.state.Apply(rec); err != nil {
		err = fmt.Errorf("record %d is in the log and may not be: %w", rec.Index, err)
		select {
		case s.fatal <- err:
		default:
		}
		return err
	}
	s.Logger.Info("recorded", zap.Uint64("index", rec.Index), zap.String("kind", string(rec.Event.Kind())),
		zap.String("chain", string(rec.Event.Chain())), zap.String("digest", string(rec.Digest)))
	s.announce(rec)
	if s.OnRecord != nil {
		s.OnRecord(rec, s.state)
	}
	return nil
}

// explainSilence writes a gap record before the first record after a silence.
func (s *Supervisor) explainSilence(ctx context.Context, next runner.Event) error {
	if _, isGap := next.(runner.Gap); isGap || s.state.Size == 0 {
		return nil
	}
	now, err := s.stamp()
	if err != nil {
		return err
	}
	if now.Sub(s.state.LastAt) <= gapAfter {
		return nil
	}
	_, err = s.append(ctx, runner.Gap{Since: s.state.LastAt, Until: now})
	return err
}

// heartbeat writes that the log is alive when nothing else was written.
func (s *Supervisor) heartbeat(ctx context.Context) error {
	var due bool
	err := s.locked(ctx, func() error {
		due = time.Since(s.state.LastAt) >= heartbeatAfter
		return nil
	})
	if err != nil || !due {
		return err
	}
	_, err = s.recordFrom(ctx, func(st *runner.State) (runner.Event, error) {
		beat := runner.Heartbeat{}
		for _, r := range st.Runners {
			if r.Sealed == nil {
				beat.OpenRunners++
			}
		}
		for _, j := range st.Jobs {
			if j.Concluded == nil && j.Denied == nil {
				beat.OpenJobs++
			}
		}
		return beat, nil
	})
	return err
}

// decide asks the policy and stores its input beside the answer. An error
// means that there is no verdict; the caller fails closed.
func (s *Supervisor) decide(ctx context.Context, q runner.Question) (runner.Decision, error) {
	q.Schema, q.Pool, q.Now = runner.QuestionSchema, s.Pool, time.Now().UTC().Round(0)
	if err := runner.Validate(q); err != nil {
		return runner.Decision{}, fmt.Errorf("the facts do not have the shape of facts: %w", err)
	}
	input, err := json.Marshal(q)
	if err != nil {
		return runner.Decision{}, fmt.Errorf("encode the policy input: %w", err)
	}
	digest, err := s.Ledger.PutBlob(ctx, input)
	if err != nil {
		return runner.Decision{}, fmt.Errorf("store the policy input: %w", err)
	}
	reasons, err := s.Policy.Evaluate(ctx, q, q.Now)
	if err != nil {
		return runner.Decision{}, fmt.Errorf("evaluate the policy: %w", err)
	}
	if reasons == nil {
		reasons = []string{}
	}
	return runner.Decision{Policy: s.Policy.Digest(), Input: digest, EvaluatedAt: q.Now, Reasons: reasons}, nil
}
