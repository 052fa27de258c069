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

// choose finds a host for the job among the ready nodes that never served. The
// nodes may be known from a copy that is some minutes late, and the record of the
// claim is signed: so what it says of the host's node is read from the API server
// once more, when there is a host to claim.
func (s *Supervisor) choose(ctx context.Context, id runner.JobID) (host runner.Host, err error) {
	nodes, err := s.nodes(ctx)
	if err != nil {
		return host, err
	}
	if nodes, err = s.unused(ctx, nodes); err != nil {
		return host, err
	}
	first := min(claimLook, len(nodes))
	for _, some := range [][]runner.Node{nodes[:first], nodes[first:]} {
		instances, err := s.describe(ctx, some)
		if err != nil {
			return host, err
		}
		host, err = s.chooseNow(ctx, id, s.hostsOf(some, instances), instances)
		if !errors.Is(err, errNoHost) || len(nodes) <= first {
			return host, err
		}
	}
	return host, errNoHost
}

// chooseNow is the first of these hosts that may be claimed as the API server has
// its node now. One that may not is passed over: it was drained or rebooted, or is
// gone, and the copy does not know it yet.
func (s *Supervisor) chooseNow(ctx context.Context, id runner.JobID, hosts []runner.Host, instances map[string]runner.Instance) (runner.Host, error) {
	for {
		found, err := s.firstOf(ctx, id, hosts)
		if err != nil {
			return runner.Host{}, err
		}
		node, there, err := s.Cluster.NodeNow(ctx, found.NodeName)
		if err != nil {
			return runner.Host{}, fmt.Errorf("look at the node to claim: %w", err)
		}
		if there && node.Ready {
			host, err := s.firstOf(ctx, id, s.hostsOf([]runner.Node{node}, instances))
			if !errors.Is(err, errNoHost) {
				return host, err
			}
		}
		hosts = slices.DeleteFunc(hosts, func(h runner.Host) bool { return h.NodeName == found.NodeName })
	}
}

// unused are the ready ones of these nodes that the log does not know as hosts.
func (s *Supervisor) unused(ctx context.Context, nodes []runner.Node) ([]runner.Node, error) {
	err := s.locked(ctx, func() error {
		nodes = slices.DeleteFunc(nodes, func(n runner.Node) bool {
			_, used := s.state.UsedBy(runner.Host{NodeUID: n.UID, BootID: n.BootID})
			return used || !n.Ready
		})
		return nil
	})
	return nodes, err
}

func (s *Supervisor) firstOf(ctx context.Context, id runner.JobID, hosts []runner.Host) (host runner.Host, err error) {
	err = s.locked(ctx, func() (err error) {
		host, err = s.claimable(s.state, id, hosts)
		return err
	})
	return host, err
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
	instances, err := s.describe(ctx, nodes)
	if err != nil {
		return nil, err
	}
	return s.hostsOf(nodes, instances), nil
}

// nodes lists those of the pool, oldest first.
func (s *Supervisor) nodes(ctx context.Context) ([]runner.Node, error) {
	nodes, err := s.Cluster.Nodes(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the pool's nodes: %w", err)
	}
	slices.SortFunc(nodes, older)
	return nodes, nil
}

func older(a, b runner.Node) int { return a.CreatedAt.Compare(b.CreatedAt) }

// describe asks the cloud for the instances of these nodes, by id.
func (s *Supervisor) describe(ctx context.Context, nodes []runner.Node) (map[string]runner.Instance, error) {
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
	return instances, nil
}

// hostsOf are these nodes as hosts, on the instances that were described.
func (s *Supervisor) hostsOf(nodes []runner.Node, instances map[string]runner.Instance) []runner.Host {
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
	return hosts
}
