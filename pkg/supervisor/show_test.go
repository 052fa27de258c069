package supervisor

import (
	"fmt"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

// busy is a supervisor with this many runners on hosts of theirs.
func busy(n int) *Supervisor {
	s := waiting(late{})
	s.Logger, s.lanes, s.sight = nil, newLanes(time.Second), newSightings()
	s.Limits.MaxRunners = 2 * n
	for i := range n {
		job, name := runner.JobID(fmt.Sprintf("job-%d", i)), runner.Name(fmt.Sprintf("runner-%d", i))
		s.state.Jobs[job] = &runner.Job{Authorized: &runner.Of[runner.Authorized]{At: time.Now()}, Runner: name}
		s.state.Runners[name] = &runner.Runner{Claimed: runner.Of[runner.Claimed]{At: time.Now(), Event: runner.Claimed{Runner: name, Cause: job}}}
	}
	return s
}

// TestListsAreMadeAsOftenAsTheyCost, and whoever looks finds them up to date,
// without waiting for a record that is being written.
func TestListsAreMadeAsOftenAsTheyCost(t *testing.T) {
	s := busy(1)
	s.publish()
	s.rows.took = time.Hour // a long list
	delete(s.state.Runners, "runner-0")
	s.publish()
	shows := func(runners, capacity int) {
		t.Helper()
		if v := s.view.Load(); len(v.Runners) != runners || v.Capacity != capacity {
			t.Errorf("the view has %d runners and room for %d, want %d and %d", len(v.Runners), v.Capacity, runners, capacity)
		}
	}
	shows(1, 2)
	<-s.turn
	s.refresh()
	shows(1, 2)
	s.turn <- struct{}{}
	s.refresh()
	shows(0, 2)
	if s.rows.stale.Load() {
		t.Error("the lists are said to be behind")
	}
}

// BenchmarkPublish is what every record costs besides its writing, with one
// runner and with five hundred.
func BenchmarkPublish(b *testing.B) {
	for _, n := range []int{1, 500} {
		s := busy(n)
		b.Run(fmt.Sprintf("runners=%d", n), func(b *testing.B) {
			for b.Loop() {
				s.publish()
			}
		})
		b.Run(fmt.Sprintf("runners=%d/each-list-anew", n), func(b *testing.B) {
			for b.Loop() {
				s.rows.took = 0
				s.publish()
			}
		})
	}
}

// BenchmarkPlan is what a look at the work costs.
func BenchmarkPlan(b *testing.B) {
	for _, n := range []int{1, 500} {
		s := busy(n)
		b.Run(fmt.Sprintf("runners=%d", n), func(b *testing.B) {
			for b.Loop() {
				s.state.Next(time.Now(), s.Limits)
			}
		})
	}
}
