package supervisor

import (
	"fmt"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

// TestTheFirstAndTheLastRequestsAreKept: an end that is refused for hours makes
// thousands, and a record stays small.
func TestTheFirstAndTheLastRequestsAreKept(t *testing.T) {
	const made = 5000
	s := newSightings()
	for i := range made {
		s.asked("r1", TerminateReceipt{Requests: []runner.Request{{Call: "ec2:TerminateInstances", RequestID: fmt.Sprint("req-", i)}}})
	}
	seen := s.of("r1")
	if n := len(seen.requests); n != maxRequests || seen.omitted != made-maxRequests {
		t.Fatalf("%d requests listed and %d omitted, want %d and the rest", n, seen.omitted, maxRequests)
	}
	if first, last := seen.requests[0].RequestID, seen.requests[maxRequests-1].RequestID; first != "req-0" || last != "req-4999" {
		t.Errorf("listed from %s to %s, want the first and the last", first, last)
	}
	gone := runner.Terminated{Runner: "r1", InstanceID: "i-1", States: []runner.Transition{}, VolumesGone: []string{}, Requests: seen.requests, Omitted: seen.omitted}
	if err := runner.Validate(gone); err != nil {
		t.Errorf("the record would be refused: %v", err)
	}
}

func TestThePoolIsBelievedForAWhile(t *testing.T) {
	start := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	away := fmt.Errorf("throttled")
	type look struct {
		after time.Duration
		pool  HostsPool
		err   error
	}
	for name, tc := range map[string]struct {
		looks []look
		at    time.Duration
		want  []string
	}{
		"never tried":           {nil, 0, []string{"the groups of hosts were not looked at yet"}},
		"never seen":            {[]look{{0, HostsPool{}, away}}, time.Hour, []string{"the groups of hosts cannot be looked at: throttled"}},
		"seen":                  {[]look{{0, HostsPool{}, nil}}, time.Minute, nil},
		"seen with a problem":   {[]look{{0, HostsPool{Problems: []string{"reuses"}}, nil}}, time.Minute, []string{"reuses"}},
		"mended":                {[]look{{0, HostsPool{Problems: []string{"reuses"}}, nil}, {time.Minute, HostsPool{}, nil}}, time.Minute, nil},
		"away within the grace": {[]look{{0, HostsPool{}, nil}, {2 * time.Minute, HostsPool{}, away}}, 10 * time.Minute, nil},
		"away for too long": {[]look{{0, HostsPool{}, nil}, {2 * time.Minute, HostsPool{}, away}}, 10*time.Minute + time.Second,
			[]string{"the groups of hosts were last looked at 10m1s ago: throttled"}},
		"back again": {[]look{{0, HostsPool{}, nil}, {2 * time.Minute, HostsPool{}, away}, {11 * time.Minute, HostsPool{}, nil}}, 12 * time.Minute, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPoolLooks()
			for _, l := range tc.looks {
				p.saw(l.pool, l.err, start.Add(l.after))
			}
			if got := p.problems(start.Add(tc.at)); fmt.Sprint(got) != fmt.Sprint(tc.want) {
				t.Errorf("problems = %q, want %q", got, tc.want)
			}
		})
	}
}
