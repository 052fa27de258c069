package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
	"go.uber.org/zap"
)

const (
	// newsKept is how far back GitHub lists what it told an App: three days.
	// https://docs.github.com/en/webhooks/testing-and-troubleshooting-webhooks/viewing-webhook-deliveries
	newsKept = 72 * time.Hour
	// newsOverlap is asked for again each time: a delivery is listed once it
	// was made, which can be minutes after its own time.
	newsOverlap = 10 * time.Minute
	// newsPatience is how long after a job was offered the news of its approval
	// may come: GitHub sends both at the same moment.
	newsPatience = time.Minute
)

// unheard is news that could not be understood. They are behind the next look,
// and whoever waits for their effect asks the next morning.
type unheard struct {
	at, tried time.Time // first and last
	why       string
}

const (
	// unheardShown is how long the status tells of such news.
	unheardShown = 24 * time.Hour
	// unheardAgain is how often all that GitHub still lists is read again for
	// them: what spoiled them may have been on the way. It costs the list alone.
	unheardAgain = 10 * time.Minute
)

func (u *unheard) again(now time.Time) bool { return u != nil && now.Sub(u.tried) >= unheardAgain }

// and is what is told after another look.
func (u *unheard) and(why string, now time.Time) *unheard {
	if u == nil || u.why != why {
		return &unheard{now, now, why}
	}
	return &unheard{u.at, now, why}
}

// warning is what to tell of it, empty when that is over.
func (u *unheard) warning(now time.Time) string {
	if u == nil || now.Sub(u.at) >= unheardShown {
		return ""
	}
	return fmt.Sprintf("what GitHub told the App by webhook, read at %s: %s", u.at.UTC().Format(time.RFC3339), u.why)
}

// errNewsPending says that an approval stands in GitHub's list, and that the
// news for which attempt it was given may still come.
var errNewsPending = errors.New("the webhook that names the approval's attempt has not come yet")

// hear makes durable what GitHub told our App by webhook. It is asked for, not
// waited for: the daemon needs no door to the internet, and a restart loses
// nothing that GitHub still lists.
func (s *Supervisor) hear(ctx context.Context, _ runner.Task) (bool, error) {
	select {
	case s.hearing <- struct{}{}: // one at a time, so that events are recorded in their order
		defer func() { <-s.hearing }()
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	began := time.Now()
	since, before := began.Add(-newsKept), s.unheard.Load()
	heard := s.heard.Load()
	all := heard == nil || before.again(began)
	if !all {
		since = heard.Add(-newsOverlap)
	}
	events, err := s.GitHub.News(ctx, since)
	for _, e := range events {
		if err := s.note(ctx, e); err != nil {
			return false, fmt.Errorf("record what GitHub told the App: %w", err)
		}
	}
	switch {
	case err == nil && all:
		s.unheard.Store(nil) // it was understood after all, or is listed no more
	case err == nil:
	case errors.Is(err, ErrUnreadable):
		// Waiting for it would keep everything else waiting too. What it told of,
		// an approval perhaps, stays without effect.
		s.unheard.Store(before.and(err.Error(), began))
		s.Logger.Error("GitHub told the App something that cannot be understood", zap.Error(err))
	default:
		return false, fmt.Errorf("read what GitHub told the App: %w", err)
	}
	s.heard.Store(&began)
	return false, nil
}

// hearAbout reads the news that may concern a job before it is decided on. That
// they cannot be read is no reason to wait: then the list of reviews alone says
// what it can.
func (s *Supervisor) hearAbout(ctx context.Context, job *runner.Job) {
	if heard := s.heard.Load(); s.NewsEvery <= 0 || heard != nil && heard.After(job.Offered.At) {
		return
	}
	if _, err := s.hear(ctx, runner.Task{}); err != nil {
		s.Logger.Warn("decide without news", zap.Error(err))
	}
}

// hearAgain has the news read again from that time on. It only ever goes back:
// what was not read yet must not be passed over.
func (s *Supervisor) hearAgain(from time.Time) {
	if heard := s.heard.Load(); heard != nil && heard.After(from) {
		s.heard.CompareAndSwap(heard, &from)
	}
}

// note records one piece of news if it is about this pool. News that cannot be
// true of the log stays without effect, as in [Supervisor.Observe].
func (s *Supervisor) note(ctx context.Context, e runner.Event) error {
	var repository string
	switch e := e.(type) {
	case runner.Reviewed:
		repository = e.Repository
	case runner.Asked:
		if !s.AnswerDeployments {
			return nil
		}
		repository = e.Repository
	}
	if !slices.ContainsFunc(s.Pool.Repositories, func(r runner.Repository) bool { return strings.EqualFold(r.Name, repository) }) {
		return nil
	}
	err := s.record(ctx, e)
	if violation, ok := errors.AsType[*runner.Violation](err); ok && violation.Invariant != 8 {
		s.Logger.Error("what GitHub told the App contradicts the log", zap.String("kind", string(e.Kind())), zap.Error(err))
		return nil
	}
	return err
}
