package supervisor

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/runner"
)

// TestNewsAreNeverPassedOver: a job that waits for its news has them read again,
// and what nobody has read yet stays to be read.
func TestNewsAreNeverPassedOver(t *testing.T) {
	at := func(minutes int) *time.Time {
		return new(time.Date(2026, 3, 2, 9, minutes, 0, 0, time.UTC))
	}
	for name, tc := range map[string]struct{ heard, from, want *time.Time }{
		"never read":  {nil, at(5), nil},
		"read since":  {at(9), at(5), at(5)},
		"read before": {at(2), at(5), at(2)},
	} {
		t.Run(name, func(t *testing.T) {
			var s Supervisor
			s.heard.Store(tc.heard)
			s.hearAgain(*tc.from)
			got := s.heard.Load()
			if (got == nil) != (tc.want == nil) || got != nil && !got.Equal(*tc.want) {
				t.Errorf("read up to %v, want %v", got, tc.want)
			}
		})
	}
}

// TestUnreadableNewsAreToldOfForADay: by the next look GitHub lists them no more.
func TestUnreadableNewsAreToldOfForADay(t *testing.T) {
	at := time.Date(2026, 3, 2, 21, 0, 0, 0, time.UTC)
	u := (*unheard)(nil).and("delivery 7", at)
	if got := u.warning(at.Add(12 * time.Hour)); !strings.Contains(got, "2026-03-02T21:00:00Z") || !strings.Contains(got, "delivery 7") {
		t.Errorf("the next morning: %q, want when and what", got)
	}
	if got := u.warning(at.Add(24 * time.Hour)); got != "" {
		t.Errorf("a day later: %q, want nothing", got)
	}
	if got := (*unheard)(nil).warning(at); got != "" {
		t.Errorf("without any: %q, want nothing", got)
	}
}

// gibberish is a GitHub that tells the App something unreadable, at this time.
type gibberish struct {
	GitHub
	at    time.Time
	since []time.Time // of every look
	clear bool        // it can be read now
}

func (g *gibberish) News(_ context.Context, since time.Time) ([]runner.Event, error) {
	g.since = append(g.since, since)
	if g.clear || g.at.Before(since) {
		return nil, nil
	}
	return nil, fmt.Errorf("delivery 7: %w", ErrUnreadable)
}

// TestUnreadableNewsAreReadAgainAndNotForgotten: a later look passes them by. Now
// and then one goes back to them, until they are understood.
func TestUnreadableNewsAreReadAgainAndNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := &gibberish{at: time.Now()}
		s := &Supervisor{Options: Options{GitHub: hub, Logger: zap.NewNop()}, hearing: make(chan struct{}, 1)}
		lookFor := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); <-time.After(time.Minute) {
				if _, err := s.hear(t.Context(), runner.Task{}); err != nil {
					t.Fatal(err)
				}
			}
		}
		lookFor(65 * time.Minute)
		told := s.unheard.Load().warning(time.Now())
		if !strings.Contains(told, hub.at.UTC().Format(time.RFC3339)) {
			t.Errorf("told %q, want since when", told)
		}
		back := 0
		for _, since := range hub.since[20:] {
			if !hub.at.Before(since) {
				back++
			}
		}
		if back < 4 || back > 5 {
			t.Errorf("%d of %d looks went back to it, want one in ten minutes", back, len(hub.since[20:]))
		}
		hub.clear = true
		lookFor(11 * time.Minute)
		if got := s.unheard.Load().warning(time.Now()); got != "" {
			t.Errorf("told %q after it was understood, want nothing", got)
		}
	})
}
