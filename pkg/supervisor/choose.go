package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

// claimLook is how many hosts a claim asks the cloud about before it asks about
// all the others: one is wanted, and of hundreds that are ready nearly any will do.
const claimLook = 16

// choose finds a host for the job among the ready nodes that never served.
func (s *Supervisor) choose(ctx context.Context, id runner.JobID) (host runner.Host, err error) {
	nodes, err := s.nodes(ctx)
	if err != nil {
		return host, err
	}
	if err := s.locked(ctx, func() error {
		nodes = slices.DeleteFunc(nodes, func(n runner.Node) bool {
			_, used := s.state.UsedBy(runner.Host{NodeUID: n.UID, BootID: n.BootID})
			return used || !n.Ready
		})
		return nil
	}); err != nil {
		return host, err
	}
	first := min(claimLook, len(nodes))
	for _, some := range [][]runner.Node{nodes[:first], nodes[first:]} {
		hosts, err := s.hostsOf(ctx, some)
		if err != nil {
			return host, err
		}
		err = s.locked(ctx, func() (err error) {
			host, err = s.claimable(s.state, id, hosts)
			return err
		})
		if !errors.Is(err, errNoHost) || len(nodes) <= first {
			return host, err
		}
	}
	return host, errNoHost
}

// claimable is the first of these hosts that may serve the job. The caller
// holds the turn.
func (s *Supervisor) claimable(st *runner.State, id runner.JobID, hosts []runner.Host) (runner.Host, error) {
	// The plan that asked for this may be older than another claim.
	if tasks, _ := st.Next(time.Now(), s.Limits); !slices.Contains(tasks, runner.Task{Kind: runner.TaskClaim, Job: id}) {
		return runner.Host{}, runner.ErrRecorded
	}
	for _, h := range hosts {
		if _, used := st.UsedBy(h); !used && runner.Vetted(h.Checks) && runner.Validate(h) == nil {
			return h, nil
		}
	}
	return runner.Host{}, errNoHost
}

// inventory lists the nodes of the pool as hosts with their checks, oldest
// first, so that a warm host is used before a new one.
func (s *Supervisor) inventory(ctx context.Context) ([]runner.Host, error) {
	nodes, err := s.nodes(ctx)
	if err != nil {
		return nil, err
	}
	return s.hostsOf(ctx, nodes)
}

// nodes lists those of the pool, oldest first.
func (s *Supervisor) nodes(ctx context.Context) ([]runner.Node, error) {
	nodes, err := s.Cluster.Nodes(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the pool's nodes: %w", err)
	}
	slices.SortFunc(nodes, func(a, b runner.Node) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return nodes, nil
}

// hostsOf are these nodes as hosts, with what the cloud says of them now.
func (s *Supervisor) hostsOf(ctx context.Context, nodes []runner.Node) ([]runner.Host, error) {
	var ids []string
	for _, n := range nodes {
		if id, ok := n.InstanceID(); ok {
			ids = append(ids, id)
		}
	}
	instances, err := s.Hosts.Describe(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("describe the pool's instances: %w", err)
	}
	hosts := make([]runner.Host, 0, len(nodes))
	for _, n := range nodes {
		var known *runner.Instance
		if id, ok := n.InstanceID(); ok {
			if in, listed := instances[id]; listed {
				known = &in
			}
		}
		hosts = append(hosts, s.identified(runner.HostOf(n, known, s.Rules)))
	}
	return hosts, nil
}
