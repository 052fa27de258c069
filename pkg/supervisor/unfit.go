package supervisor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
	"go.uber.org/zap"
)

// bootGrace is how long a host that passes no checks counts as one that is about
// to. A node boots and joins within some minutes; a check that fails for longer
// does not mend itself.
const bootGrace = 10 * time.Minute

// notJoined is what is wrong with an instance whose kubelet never joined.
const notJoined = "no node with the pool's label runs on it"

// unfits remember the hosts that serve nobody and could serve nobody. They know
// only what this process saw: after a restart the grace begins anew. It is safe
// for concurrent use.
type unfits struct {
	mu  sync.Mutex
	all map[string]unfit
}

// unfit is a host that was of no use at every look since then.
type unfit struct {
	instance, node string // node is empty where there is none
	why            string
	since          time.Time
	over           bool // seen after the grace too
}

func newUnfits() *unfits { return &unfits{all: map[string]unfit{}} }

// saw takes one look: these hosts, and no others, are of no use now. It returns
// those whose grace has ended with this look.
func (u *unfits) saw(failing []unfit, now time.Time) []unfit {
	u.mu.Lock()
	defer u.mu.Unlock()
	next, ended := map[string]unfit{}, []unfit{}
	for _, f := range failing {
		last, known := u.all[f.instance]
		if f.since = now; known {
			f.since = last.since
		}
		f.over = now.Sub(f.since) >= bootGrace
		if f.over && !last.over {
			ended = append(ended, f)
		}
		next[f.instance] = f
	}
	u.all = next
	return ended
}

// list are the hosts whose grace is over, longest first.
func (u *unfits) list() []unfit {
	u.mu.Lock()
	defer u.mu.Unlock()
	var out []unfit
	for _, f := range u.all {
		if f.over {
			out = append(out, f)
		}
	}
	slices.SortFunc(out, func(a, b unfit) int { return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.instance, b.instance)) })
	return out
}

// warning is what on-call is told. The host is not ours to end: it may be what
// shows why the others fail.
func (f unfit) warning() string {
	where := f.instance
	if f.node != "" && f.node != f.instance {
		where += " (" + f.node + ")"
	}
	return fmt.Sprintf("host %s has been of no use since %s (%s) and does not count as ready: mend what fails, or end it",
		where, f.since.UTC().Format(time.RFC3339), f.why)
}

// unfitOf are the hosts that serve nobody and pass not all checks, and the
// instances in service that are in no node. It needs the turn.
func (s *Supervisor) unfitOf(hosts []runner.Host, now time.Time) []unfit {
	var out []unfit
	joined := s.state.InUse()
	for _, h := range hosts {
		joined = append(joined, h.InstanceID)
		if _, used := s.state.UsedBy(h); used || runner.Vetted(h.Checks) {
			continue
		}
		var failing []string
		for _, c := range h.Checks {
			if c.Verdict != runner.Pass {
				failing = append(failing, fmt.Sprintf("%s: %s", c.Name, c.Verdict))
			}
		}
		out = append(out, unfit{instance: h.InstanceID, node: h.NodeName, why: strings.Join(failing, ", ")})
	}
	for _, id := range s.pool.inService(now) {
		if !slices.Contains(joined, id) {
			out = append(out, unfit{instance: id, why: notJoined})
		}
	}
	return out
}

// noteUnfit books one survey. It needs the turn.
func (s *Supervisor) noteUnfit(hosts []runner.Host, now time.Time) {
	for _, f := range s.unfit.saw(s.unfitOf(hosts, now), now) {
		s.Logger.Warn("a host is of no use", zap.String("instance", f.instance), zap.String("node", f.node), zap.String("why", f.why))
	}
}

// replaced are the instances in whose place others are started. Where a check
// fails on every host those are of no use either: each wave of at most so many as
// are wanted comes a grace after the one before, the groups' maximum sizes bound
// them all, and the warnings of the first wave are there before the second.
func (s *Supervisor) replaced() []string {
	var out []string
	for _, f := range s.unfit.list() {
		out = append(out, f.instance)
	}
	return out
}
