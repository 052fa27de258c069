package supervisor

import (
	"testing"
	"time"
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
