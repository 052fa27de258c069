package supervisor

import (
	"context"
	"fmt"
	"strings"
	"testing"
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
	u := &unheard{at, "delivery 7"}
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

// gibberish is a GitHub that told the App, once, something unreadable.
type gibberish struct {
	GitHub
	asked int
}

func (g *gibberish) News(context.Context, time.Time) ([]runner.Event, error) {
	if g.asked++; g.asked > 1 {
		return nil, nil
	}
	return nil, fmt.Errorf("delivery 7: %w", ErrUnreadable)
}

func TestALaterLookDoesNotTakeTheWarningBack(t *testing.T) {
	s := &Supervisor{Options: Options{GitHub: &gibberish{}, Logger: zap.NewNop()}, hearing: make(chan struct{}, 1)}
	for range 2 {
		if _, err := s.hear(t.Context(), runner.Task{}); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.unheard.Load().warning(time.Now()); got == "" {
		t.Error("nothing is told, want the warning kept")
	}
}
