package hosts_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/runnerward/runnerward/pkg/hosts"
	"github.com/runnerward/runnerward/pkg/runner"
	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
)

// wanted is the node group as the daemon's configuration has it. The labels of
// EKS and kubelet are not listed by the node group.
func wanted() hosts.Nodegroup {
	return hosts.Nodegroup{
		Cluster: "hipaa-prod-east", Name: "hipaa-prod-runners",
		Labels: map[string]string{"runner-pool": "hipaa-prod", "kubernetes.io/os": "linux", "node.kubernetes.io/instance-type": "m6i.large", "eks.amazonaws.com/nodegroup": "hipaa-prod-runners"},
		Taint:  runner.Taint{Key: "workload", Value: "hipaa-runner", Effect: "NoSchedule"},
	}
}

// nodegroup is a node group that fits.
func nodegroup() simaws.Nodegroup {
	return simaws.Nodegroup{
		Cluster: "hipaa-prod-east", Name: "hipaa-prod-runners", Group: groupName, AMIType: "BOTTLEROCKET_x86_64_FIPS",
		Labels: map[string]string{"runner-pool": "hipaa-prod", "more": "is no harm"},
		Taints: []simaws.NodegroupTaint{{Effect: "NO_EXECUTE", Key: "more"}, {Effect: "NO_SCHEDULE", Key: "workload", Value: "hipaa-runner"}},
	}
}

// overNodegroup is a driver of the world's group that is of this node group.
func (w world) overNodegroup(t *testing.T, n simaws.Nodegroup) *hosts.AutoScaling {
	t.Helper()
	w.sim.AddNodegroup(n)
	return w.with(t, nil, func(_ *aws.Config, o *hosts.Options) { o.Nodegroup = new(wanted()) })
}

func TestANodegroupThatMakesOtherHostsIsAProblem(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*simaws.Nodegroup)
		says   string // empty if it is no problem
	}{
		"fits":                 {func(*simaws.Nodegroup) {}, ""},
		"is updated":           {func(n *simaws.Nodegroup) { n.Status = "UPDATING" }, "is UPDATING: new work waits"},
		"is degraded":          {func(n *simaws.Nodegroup) { n.Status = "DEGRADED" }, "is DEGRADED"},
		"another system":       {func(n *simaws.Nodegroup) { n.AMIType = "AL2023_x86_64_STANDARD" }, "AMI type AL2023_x86_64_STANDARD"},
		"another label":        {func(n *simaws.Nodegroup) { n.Labels["runner-pool"] = "test" }, "does not label its nodes runner-pool=hipaa-prod"},
		"no label":             {func(n *simaws.Nodegroup) { n.Labels = nil }, "does not label its nodes runner-pool=hipaa-prod"},
		"no taint":             {func(n *simaws.Nodegroup) { n.Taints = n.Taints[:1] }, "does not taint its nodes workload=hipaa-runner:NoSchedule"},
		"a taint of no weight": {func(n *simaws.Nodegroup) { n.Taints[1].Effect = "PREFER_NO_SCHEDULE" }, "does not taint its nodes"},
		"another group":        {func(n *simaws.Nodegroup) { n.Group = "made-anew" }, `has the Auto Scaling groups ["made-anew"]`},
		"of another name":      {func(n *simaws.Nodegroup) { n.Name = "other" }, "does not exist in us-east-1: correct hosts.nodegroup"},
		"of another cluster":   {func(n *simaws.Nodegroup) { n.Cluster = "other" }, "does not exist in us-east-1: correct hosts.nodegroup"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := nodegroup()
				tc.change(&n)
				w := newWorld(t, nil)
				g := testGroup()
				g.Name = "made-anew"
				w.sim.AddGroup(g)
				pool, err := w.overNodegroup(t, n).Preflight(t.Context())
				problems := strings.Join(pool.Problems, "\n")
				if err != nil || (problems == "") != (tc.says == "") || !strings.Contains(problems, tc.says) {
					t.Errorf("Preflight = %q, %v, want %q", problems, err, tc.says)
				}
				if tc.says != "" && !strings.HasPrefix(problems, "node group hipaa-prod-runners of cluster hipaa-prod-east ") {
					t.Errorf("%q does not say which node group", problems)
				}
			})
		})
	}
}

// TestANodegroupThatCannotBeLookedAtIsUnknown: never a pool without problems.
func TestANodegroupThatCannotBeLookedAtIsUnknown(t *testing.T) {
	for kind, attempts := range map[simaws.FaultKind]int{simaws.Throttle: 3, simaws.Unavailable: 3, simaws.Unauthorized: 1, simaws.Hang: 1} {
		t.Run(string(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				driver := w.overNodegroup(t, nodegroup())
				w.sim.Inject(simaws.Fault{Action: "DescribeNodegroup", Kind: kind, Count: attempts})
				if pool, err := driver.Preflight(t.Context()); err == nil || len(pool.Groups) > 0 {
					t.Errorf("Preflight = %+v, %v, want an error", pool, err)
				}
				if pool, err := driver.Preflight(t.Context()); err != nil || len(pool.Groups) != 1 || len(pool.Problems) > 0 {
					t.Errorf("Preflight afterwards = %+v, %v, want the group", pool, err)
				}
			})
		})
	}
}

func TestGroupsAreFoundByTheirNodegroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		if got, err := hosts.FindGroups(t.Context(), awsConfig(w.sim), wanted()); err == nil || !strings.Contains(err.Error(), "No cluster found") {
			t.Errorf("FindGroups of no cluster = %q, %v", got, err)
		}
		w.sim.AddNodegroup(nodegroup())
		if got, err := hosts.FindGroups(t.Context(), awsConfig(w.sim), wanted()); err != nil || !slices.Equal(got, []string{groupName}) {
			t.Errorf("FindGroups = %q, %v, want %s", got, err, groupName)
		}
		w.sim.Deny("eks:DescribeNodegroup", true)
		if got, err := hosts.FindGroups(t.Context(), awsConfig(w.sim), wanted()); err == nil || len(got) > 0 {
			t.Errorf("FindGroups without the right = %q, %v", got, err)
		}
	})
}

// TestWithoutANodegroupEKSIsNotAsked: the right is not needed then.
func TestWithoutANodegroupEKSIsNotAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		if _, err := w.driver.Preflight(t.Context()); err != nil {
			t.Fatal(err)
		}
		services := map[string]bool{}
		for _, r := range w.sim.Requests() {
			services[r.Service] = true
		}
		if services["eks"] {
			t.Errorf("asked %v", slices.Sorted(maps.Keys(services)))
		}
	})
}
