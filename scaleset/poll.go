package scaleset

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	upstream "github.com/actions/scaleset"
	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/supervisor"
)

// observer records a message durably before it returns nil.
type observer func(context.Context, supervisor.Message) error

// answeredFailures is after how many failed answers in a row a fresh session
// is tried. Sessions have been seen stuck with empty answers
// (actions/actions-runner-controller#4285).
const answeredFailures = 5

// errCut ends a poll that was to be short.
var errCut = errors.New("poll cut short")

// Run implements supervisor.Queue. Everything that touches the session happens
// in the calling goroutine.
func (s *ScaleSet) Run(ctx context.Context, capacity func() int, observe func(context.Context, supervisor.Message) error) error {
	defer s.setSession(sessionNone)
	var parent *upstream.Client
	for failures := 0; ctx.Err() == nil; {
		var ses *session
		var err error
		if parent == nil {
			parent, err = s.cfg.client("listener", sessionTimeout, sessionRetries, s.id())
		}
		if err == nil {
			ses, err = s.openSession(ctx, parent)
		}
		if err == nil {
			s.setSession(sessionOpen)
			s.log.Info("listening")
			err = s.serve(ctx, ses, &failures, capacity, observe)
			ses.close(ctx, s)
		}
		if ctx.Err() != nil {
			break
		}
		failures++
		s.failing(err, failures)
		if unusable(err) {
			parent = nil
		}
		s.beforeReopening(ctx, err, failures)
	}
	return context.Cause(ctx)
}

// beforeReopening does what the failure asks for before a session is opened
// again, and waits.
func (s *ScaleSet) beforeReopening(ctx context.Context, err error, failures int) {
	if errors.Is(err, errSessionConflict) {
		// A conflict lasts until the other process closes its session or the
		// server lets it expire; the time is not documented.
		s.setSession(sessionConflict)
		pause(ctx, between(s.cfg.Timings.ConflictMin, s.cfg.Timings.ConflictMax))
		return
	}
	s.setSession(sessionNone)
	if errors.Is(err, errScaleSetNotFound) {
		// GitHub deletes scale sets that nobody listened to for seven days.
		// The group is looked up again before one is made.
		if err := s.Ensure(ctx); err != nil {
			s.failing(err, failures)
		}
	}
	s.backOff(ctx, failures)
}

// serve polls one session until it is lost or the context ends, and returns
// why. failures counts those in a row, over all sessions.
func (s *ScaleSet) serve(ctx context.Context, ses *session, failures *int, capacity func() int, observe observer) error {
	last, answered := 0, time.Time{} // the first poll is not cut either
	for ctx.Err() == nil {
		cut := time.Since(answered) < s.cfg.Timings.Unanswered
		msg, err := s.poll(ctx, ses, last, capacity(), cut)
		switch {
		case errors.Is(err, errCut):
			continue
		case err == nil:
			answered = time.Now()
			if last, err = s.handle(ctx, ses, msg, last, observe); err == nil {
				s.polled()
				*failures = 0
				continue
			}
		}
		if ctx.Err() != nil {
			break
		}
		if ses.ended(err) {
			return err
		}
		*failures++
		s.failing(err, *failures)
		s.backOff(ctx, *failures)
		if *failures%answeredFailures == 0 && statusOf(err) != 0 {
			return err
		}
	}
	return context.Cause(ctx)
}

// poll asks once for a message; nil means that there is none. The client's
// poll is bounded even when nobody answers.
func (s *ScaleSet) poll(ctx context.Context, ses *session, last, capacity int, cut bool) (*upstream.RunnerScaleSetMessage, error) {
	hold, why := s.cfg.Timings.Poll, context.DeadlineExceeded
	if s.cfg.PollFor != nil && cut {
		if d := s.cfg.PollFor(); d > 0 && d < hold {
			hold, why = d, errCut
		}
	}
	pollCtx, cancel := context.WithTimeoutCause(ctx, hold, why)
	defer cancel()
	msg, err := call(ses, "poll", func(c *upstream.MessageSessionClient) (*upstream.RunnerScaleSetMessage, error) {
		return c.GetMessage(pollCtx, last, max(capacity, 0))
	})
	switch {
	case err == nil:
		return msg, nil
	case statusOf(err) == 0 && !ses.ended(err) && context.Cause(pollCtx) == errCut:
		return nil, errCut
	case statusOf(err) == http.StatusBadRequest || statusOf(err) == http.StatusNotFound:
		// An expired session answers 400, a session or scale set that is gone
		// 404; opening the next one tells which.
		return nil, &Error{Op: "poll", Status: statusOf(err), Cause: errSessionLost}
	}
	return nil, err
}

// handle records what a message says, takes the jobs that it offers, and only
// then acknowledges it. It returns the id of the last acknowledged message.
//
// A crash or failure anywhere before the acknowledgement brings the message
// again, and observe must then find nothing new in it.
func (s *ScaleSet) handle(ctx context.Context, ses *session, msg *upstream.RunnerScaleSetMessage, last int, observe observer) (int, error) {
	if msg == nil {
		s.handled(0)
		return last, nil
	}
	m, skipped := convert(msg)
	s.count(msg.Statistics)
	if err := observe(ctx, m); err != nil {
		return last, &Error{Op: "record message", Cause: err}
	}
	// What is durable is acknowledged even when the context just ended.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Timings.Close)
	defer cancel()
	if err := s.acquire(ctx, ses, msg.JobAvailableMessages); err != nil {
		return last, err
	}
	_, err := call(ses, "acknowledge message", func(c *upstream.MessageSessionClient) (struct{}, error) {
		return struct{}{}, c.DeleteMessage(ctx, msg.MessageID)
	})
	// A 404 says that an earlier attempt, whose answer was lost, succeeded.
	if err != nil && (statusOf(err) != http.StatusNotFound || ses.ended(err)) {
		return last, err
	}
	for _, err := range skipped {
		s.skip(msg.MessageID, err)
	}
	s.handled(msg.MessageID)
	return max(last, msg.MessageID), nil
}

// acquire takes the jobs that GitHub offers but has not assigned; GitHub
// Enterprise Server does that (actions/scaleset#75), github.com assigns by
// itself. All of them are taken, as the server counted them against the
// capacity of the poll; nothing runs before it is authorized.
func (s *ScaleSet) acquire(ctx context.Context, ses *session, available []*upstream.JobAvailable) error {
	if len(available) == 0 {
		return nil
	}
	ids := make([]int64, 0, len(available))
	for _, job := range available {
		ids = append(ids, job.RunnerRequestID)
	}
	got, err := call(ses, "acquire jobs", func(c *upstream.MessageSessionClient) ([]int64, error) {
		return c.AcquireJobs(ctx, ids)
	})
	if err != nil {
		return err
	}
	s.log.Info("acquired jobs", zap.Int("offered", len(ids)), zap.Int("acquired", len(got)))
	return nil
}

// backOff waits longer with every failure in a row.
func (s *ScaleSet) backOff(ctx context.Context, failures int) {
	t := s.cfg.Timings
	d := t.BackoffMax
	if shift := failures - 1; shift < 16 {
		d = min(t.BackoffMin<<shift, t.BackoffMax)
	}
	pause(ctx, between(d/2, d))
}

// between is a random duration, so that many daemons do not call in step.
func between(low, high time.Duration) time.Duration {
	return low + rand.N(high-low+1)
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
