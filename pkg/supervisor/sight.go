package supervisor

import (
	"slices"
	"sync"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

// sightings remember what was seen of instances that are ending, for the
// terminated record. That an instance was seen ending at all is a record of its
// own, so that a restart does not lose it.
type sightings struct {
	mu  sync.Mutex
	all map[runner.Name]*sighting
}

type sighting struct {
	states   []runner.Transition
	reason   string
	activity string
	requests []runner.Request
	omitted  int
	pending  []runner.Stage
	// protected: the group may not end the host of its own accord.
	protected bool
	// deregistered: the registration was seen gone after the pod was.
	deregistered bool
	pod          podSight
	// lease is how GitHub refuses to remove the registration.
	lease lease
}

// lease is the wait for GitHub to let go of a job whose runner is gone: it does
// about ten minutes after the runner last said that it lives.
type lease struct {
	wait time.Duration
	next time.Time // when it is worth asking again
}

// leaseWait bounds the time between two attempts to remove a registration whose
// job GitHub says is still running.
const leaseWait = time.Minute

// held says that it is too early to ask again.
func (s *sightings) held(name runner.Name, now time.Time) (yes bool) {
	s.with(name, func(g *sighting) { yes = now.Before(g.lease.next) })
	return yes
}

// refused notes that GitHub holds the registration; the next attempt comes
// after twice the wait before, beginning with first.
func (s *sightings) refused(name runner.Name, now time.Time, first time.Duration) {
	s.with(name, func(g *sighting) {
		g.lease.wait = min(max(2*g.lease.wait, first), leaseWait)
		g.lease.next = now.Add(g.lease.wait)
	})
}

func newSightings() *sightings { return &sightings{all: map[runner.Name]*sighting{}} }

func (s *sightings) with(name runner.Name, f func(*sighting)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all[name] == nil {
		s.all[name] = &sighting{}
	}
	f(s.all[name])
}

// ending says that the instance was seen on its way out, so that there is
// nothing more to ask for. A request alone does not count: it may have had no
// effect.
func (s *sightings) ending(name runner.Name) (yes bool) {
	s.with(name, func(g *sighting) {
		yes = slices.ContainsFunc(g.states, func(t runner.Transition) bool {
			return t.State == "shutting-down" || t.State == "terminated"
		})
	})
	return yes
}

// maxRequests bounds how many requests a record lists: the first and the last.
const maxRequests = 32

// asked remembers the requests that were made.
func (s *sightings) asked(name runner.Name, receipt TerminateReceipt) {
	s.with(name, func(g *sighting) {
		if receipt.ActivityID != "" {
			g.activity = receipt.ActivityID
		}
		for _, q := range receipt.Requests {
			if len(g.requests) == maxRequests {
				g.requests = slices.Delete(g.requests, maxRequests/2, maxRequests/2+1)
				g.omitted++
			}
			g.requests = append(g.requests, q.Recordable())
		}
	})
}

func (s *sightings) saw(name runner.Name, in runner.Instance, at time.Time) {
	s.with(name, func(g *sighting) {
		if in.StateReason != "" {
			g.reason = in.StateReason
		}
		if n := len(g.states); in.State != "" && (n == 0 || g.states[n-1].State != in.State) {
			g.states = append(g.states, runner.Transition{State: in.State, At: at})
		}
	})
}

// of is a copy of what was seen.
func (s *sightings) of(name runner.Name) (seen sighting) {
	s.with(name, func(g *sighting) {
		seen = *g
		seen.states, seen.requests = slices.Clone(g.states), slices.Clone(g.requests)
	})
	return seen
}

func (s *sightings) protected(name runner.Name) (yes bool) {
	s.with(name, func(g *sighting) { yes = g.protected })
	return yes
}

func (s *sightings) deregistered(name runner.Name) (yes bool) {
	s.with(name, func(g *sighting) { yes = g.deregistered })
	return yes
}

func (s *sightings) pending(name runner.Name, stages []runner.Stage) {
	s.with(name, func(g *sighting) { g.pending = stages })
}

func (s *sightings) stages(name runner.Name) []runner.Stage {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.all[name]; g != nil {
		return g.pending
	}
	return nil
}

func (s *sightings) forget(name runner.Name) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, name)
}
