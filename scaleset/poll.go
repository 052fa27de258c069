package scaleset

import (
	"context"
	"errors"
	"fmt"
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
			parent, err = s.cfg.client(s.tap, "listener", sessionTimeout, s.id())
		}
		if err == nil {
			ses, err = s.openSession(ctx, parent)
		}
		if err == nil {
			s.setSession(sessionOpen)
			s.log.Info("listening")
			s.watchDrift(ctx, true)
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
	s.aside = time.Time{}
	for ctx.Err() == nil {
		if !s.aside.IsZero() && time.Since(s.aside) >= offeredAnew {
			return &Error{Op: "acquire jobs", Cause: errAside}
		}
		cut := time.Since(answered) < s.cfg.Timings.Unanswered
		msg, skipped, err := s.poll(ctx, ses, last, capacity(), cut)
		switch {
		case errors.Is(err, errCut):
			continue
		case err == nil && msg != nil && msg.MessageID <= last:
			// It was acknowledged and comes again. Asking at once would be a storm.
			err = &Error{Op: "poll", Status: http.StatusOK, Cause: errAgain}
		case err == nil:
			answered = time.Now()
			if last, err = s.handle(ctx, ses, msg, skipped, last, observe); err == nil {
				s.polled()
				*failures = 0
				s.watchDrift(ctx, false)
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
// poll is bounded even when nobody answers. The second result is what of the
// message cannot be read.
func (s *ScaleSet) poll(ctx context.Context, ses *session, last, capacity int, cut bool) (*upstream.RunnerScaleSetMessage, []error, error) {
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
	raw := s.tap.took()
	switch {
	case err == nil:
		return msg, nil, nil
	case statusOf(err) == 0 && !ses.ended(err) && context.Cause(pollCtx) == errCut:
		return nil, nil, errCut
	case statusOf(err) == http.StatusBadRequest || statusOf(err) == http.StatusNotFound:
		// An expired session answers 400, a session or scale set that is gone
		// 404; opening the next one tells which.
		return nil, nil, &Error{Op: "poll", Status: statusOf(err), Cause: errSessionLost}
	case errors.Is(err, errMalformed):
		if msg, skipped, unreadable := salvage(raw); unreadable == nil {
			return msg, skipped, nil
		}
	}
	return nil, nil, err
}

// handle records what a message says, takes the jobs that it offers, and only
// then acknowledges it. It returns the id of the last acknowledged message.
//
// A crash or failure anywhere before the acknowledgement brings the message
// again, and observe must then find nothing new in it.
func (s *ScaleSet) handle(ctx context.Context, ses *session, msg *upstream.RunnerScaleSetMessage, unread []error, last int, observe observer) (int, error) {
	if msg == nil {
		s.handled(0)
		return last, nil
	}
	m, skipped := convert(msg)
	skipped = append(unread, skipped...)
	s.count(msg.Statistics)
	if err := observe(ctx, m); err != nil {
		return last, &Error{Op: "record message", Cause: err}
	}
	// What is durable is acknowledged even when the context just ended.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Timings.Close)
	defer cancel()
	if err := s.acquire(ctx, ses, msg.JobAvailableMessages); err != nil {
		if !s.hopeless(msg.MessageID, err, ses) {
			return last, err
		}
		s.aside = time.Now()
		skipped = append(skipped, fmt.Errorf("GitHub will not let us take %d jobs: %w", len(msg.JobAvailableMessages), err))
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

// acquireTries is how often jobs that GitHub refuses to hand over are asked for
// before their message is put aside: what stands behind it must not wait for
// ever. A job that is not acquired stays with GitHub, which offers it again to
// the next session, at the latest: that one is opened offeredAnew later.
const (
	acquireTries = 3
	offeredAnew  = 10 * time.Minute
)

// hopeless says that acquiring fails for good: refused, not failing, several
// times in a row.
func (s *ScaleSet) hopeless(message int, err error, ses *session) bool {
	if status := statusOf(err); ses.ended(err) || status < 400 || status >= 500 || status == http.StatusTooManyRequests {
		return false
	}
	if s.stuck.id != message {
		s.stuck = stuckMessage{id: message}
	}
	s.stuck.times++
	return s.stuck.times >= acquireTries
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
	if got == nil { // not even none: what GitHub did is unknown
		return &Error{Op: "acquire jobs", Cause: errEmpty}
	}
	s.log.Info("acquired jobs", zap.Int("offered", len(ids)), zap.Int("acquired", len(got)))
	return nil
}

// backOff waits longer with every failure in a row, and never less than the
// server asked for.
func (s *ScaleSet) backOff(ctx context.Context, failures int) {
	t := s.cfg.Timings
	d := t.BackoffMax
	if shift := failures - 1; shift < 16 {
		d = min(t.BackoffMin<<shift, t.BackoffMax)
	}
	for d = between(d/2, d); d > 0 && ctx.Err() == nil; d = s.tap.patience() {
		pause(ctx, max(d, s.tap.patience()))
	}
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
