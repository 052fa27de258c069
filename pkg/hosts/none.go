package hosts

import (
	"context"
	"fmt"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

var _ supervisor.Hosts = None{}

// None is the driver where no cloud owns the hosts, such as kind on a laptop.
// Nothing can be described and nothing ended: the host stays cordoned for
// ever, and the caller records its final state as "cordoned", which says that
// it was never observed gone.
type None struct{}

// Describe knows no instance.
func (None) Describe(context.Context, []string) (map[string]runner.Instance, error) {
	return map[string]runner.Instance{}, nil
}

// Terminate does nothing and gives an empty receipt: there is no request that
// an audit trail could hold. It is not an error, because to repeat it would
// not help; the claimed node's cordon is all the end such a host has.
func (None) Terminate(context.Context, string, supervisor.TerminateOptions) (supervisor.TerminateReceipt, error) {
	return supervisor.TerminateReceipt{}, nil
}

// Protect does nothing: nobody but the owner of the machine ends it.
func (None) Protect(context.Context, string) error { return nil }

// Ensure does nothing: no cloud can be asked for more hosts.
func (None) Ensure(context.Context, supervisor.Demand) error { return nil }

// Preflight has no group to look at and nothing to say against the hosts.
func (None) Preflight(context.Context) (supervisor.HostsPool, error) {
	return supervisor.HostsPool{}, nil
}

// VolumesGone has nothing to say for no volumes, and an error for any: without
// a cloud nobody can tell that a volume is gone.
func (None) VolumesGone(_ context.Context, ids []string) ([]string, error) {
	if len(ids) > 0 {
		return nil, fmt.Errorf("look for volumes %v: there is no cloud to ask", ids)
	}
	return nil, nil
}
