package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

// behind is a cluster whose copy of the nodes is behind; it counts what it is asked.
type behind struct {
	late
	copied []runner.Node
	asked  *[]string
}

func (c behind) Nodes(context.Context) ([]runner.Node, error) { return slices.Clone(c.copied), nil }

func (c behind) NodeNow(ctx context.Context, name string) (runner.Node, bool, error) {
	*c.asked = append(*c.asked, name)
	return c.late.NodeNow(ctx, name)
}

// offCloud is the cloud of hosts that are none's.
type offCloud struct{ Hosts }

func (offCloud) Describe(context.Context, []string) (map[string]runner.Instance, error) {
	return nil, nil
}

// waiting is a supervisor for which a job waits.
func waiting(cluster Cluster) *Supervisor {
	s := at(cluster)
	s.Hosts, s.witnesses = offCloud{}, newWitnesses()
	s.Rules = runner.VetRules{Provider: "none", Labels: map[string]string{"pool": "ours"}, Taint: runner.Taint{Key: "only", Value: "ours", Effect: "NoSchedule"}}
	s.Limits = runner.Limits{MaxRunners: 9, MaxAttempts: 3, AuthorizedFor: time.Hour}
	s.state.Jobs["job-1"] = &runner.Job{Authorized: &runner.Of[runner.Authorized]{At: time.Now()}}
	return s
}

// nodes are ready ones of the pool, the oldest first.
func ready(n int) (nodes []runner.Node) {
	for i := range n {
		nodes = append(nodes, runner.Node{
			Name: fmt.Sprintf("node-%d", i), UID: fmt.Sprintf("uid-%d", i), BootID: fmt.Sprintf("boot-%d", i), Ready: true,
			Labels: map[string]string{"pool": "ours"}, Taints: []runner.Taint{{Key: "only", Value: "ours", Effect: "NoSchedule"}},
			CreatedAt: time.Unix(int64(i), 0),
		})
	}
	return nodes
}

// TestAHostIsClaimedAsItIsNow: the record of a claim is signed, and what is known
// of the nodes may be minutes old.
func TestAHostIsClaimedAsItIsNow(t *testing.T) {
	changed := func(change func(*runner.Node)) []runner.Node {
		nodes := ready(2)
		change(&nodes[0])
		return nodes
	}
	for name, c := range map[string]struct {
		now  []runner.Node
		err  error
		want string // the host's UID, and its boot id
		wrap error
	}{
		"it is as it was":              {now: ready(2), want: "uid-0 boot-0"},
		"it is gone":                   {now: ready(2)[1:], want: "uid-1 boot-1"},
		"it was cordoned":              {now: changed(func(n *runner.Node) { n.Cordoned = true }), want: "uid-1 boot-1"},
		"it is no longer ready":        {now: changed(func(n *runner.Node) { n.Ready = false }), want: "uid-1 boot-1"},
		"somebody has claimed it":      {now: changed(func(n *runner.Node) { n.ClaimedBy = "r7" }), want: "uid-1 boot-1"},
		"it lost the pool's label":     {now: changed(func(n *runner.Node) { n.Labels = nil }), want: "uid-1 boot-1"},
		"it lost the pool's taint":     {now: changed(func(n *runner.Node) { n.Taints = nil }), want: "uid-1 boot-1"},
		"it was booted again":          {now: changed(func(n *runner.Node) { n.BootID = "boot-9" }), want: "uid-0 boot-9"},
		"another has its name":         {now: changed(func(n *runner.Node) { n.UID = "uid-9" }), want: "uid-9 boot-0"},
		"one that served has its name": {now: changed(func(n *runner.Node) { n.UID = "served" }), want: "uid-1 boot-1"},
		"all are gone":                 {wrap: errNoHost},
		"nobody can say":               {err: errDown, wrap: errDown},
	} {
		var asked []string
		s := waiting(behind{late{nodes: c.now, err: c.err}, ready(2), &asked})
		s.state.Hosts["node/served"] = "r0"
		host, err := s.choose(t.Context(), "job-1")
		if got := host.NodeUID + " " + host.BootID; !errors.Is(err, c.wrap) || c.wrap == nil && got != c.want {
			t.Errorf("%s: %s, %v, want %s and %v", name, got, err, c.want, c.wrap)
		}
	}
}

// TestAClaimLooksAtOneHost: what it costs the API server does not grow with the pool.
func TestAClaimLooksAtOneHost(t *testing.T) {
	var asked []string
	nodes := ready(500)
	s := waiting(behind{late{nodes: nodes}, nodes, &asked})
	host, err := s.choose(t.Context(), "job-1")
	if err != nil || host.NodeName != "node-0" || !slices.Equal(asked, []string{"node-0"}) {
		t.Errorf("choose = %s, %v, asked of %v, want node-0 alone", host.NodeName, err, asked)
	}
}
