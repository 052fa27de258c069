package hosts

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eks"
	ekstypes "github.com/aws/aws-sdk-go-v2/service/eks/types"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// Nodegroup is the managed node group of EKS that the pool's Auto Scaling groups
// are of, and what its nodes must be.
type Nodegroup struct {
	Cluster, Name string
	Labels        map[string]string
	Taint         runner.Taint
}

func (n Nodegroup) String() string { return "node group " + n.Name + " of cluster " + n.Cluster }

// FindGroups are the Auto Scaling groups of a node group, in order of their
// names, never none without an error. It needs eks:DescribeNodegroup.
func FindGroups(ctx context.Context, cfg aws.Config, n Nodegroup) ([]string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, defaultCallTimeout, fmt.Errorf("no answer within %s", defaultCallTimeout))
	defer cancel()
	found, err := describeNodegroup(ctx, eks.NewFromConfig(cfg), n)
	if err != nil {
		return nil, because(ctx, err)
	}
	groups := groupsOf(found)
	if len(groups) == 0 {
		return nil, fmt.Errorf("%s has no Auto Scaling group (its status is %s): wait until it is ACTIVE, or name another", n, found.Status)
	}
	return groups, nil
}

// describeNodegroup uses https://docs.aws.amazon.com/eks/latest/APIReference/API_DescribeNodegroup.html
func describeNodegroup(ctx context.Context, client *eks.Client, n Nodegroup) (*ekstypes.Nodegroup, error) {
	out, err := client.DescribeNodegroup(ctx, &eks.DescribeNodegroupInput{ClusterName: &n.Cluster, NodegroupName: &n.Name})
	switch {
	case err != nil:
		return nil, fmt.Errorf("describe %s: %w", n, err)
	case out.Nodegroup == nil:
		return nil, fmt.Errorf("describe %s: EKS answered with nothing", n)
	}
	return out.Nodegroup, nil
}

func groupsOf(g *ekstypes.Nodegroup) []string {
	var names []string
	if g.Resources != nil {
		for _, group := range g.Resources.AutoScalingGroups {
			names = append(names, aws.ToString(group.Name))
		}
	}
	slices.Sort(names)
	return names
}

// inspectNodegroup: a node group that makes other nodes than are vetted, or that
// was made anew with another Auto Scaling group, brings no host that could serve.
// An error means that it is not known.
func (a *AutoScaling) inspectNodegroup(ctx context.Context) (inspection, error) {
	var out inspection
	n := a.opt.Nodegroup
	if n == nil {
		return out, nil
	}
	callCtx, cancel := a.call(ctx)
	defer cancel()
	g, err := describeNodegroup(callCtx, a.eks, *n)
	if _, missing := errors.AsType[*ekstypes.ResourceNotFoundException](err); missing {
		out.refuse("does not exist in %s: correct hosts.nodegroup or hosts.region", a.opt.Region)
		return out, nil
	}
	if err != nil {
		return out, because(callCtx, err)
	}
	// While it is updated EKS replaces hosts, those with a job too.
	if g.Status != ekstypes.NodegroupStatusActive {
		out.refuse("is %s: new work waits until it is ACTIVE", g.Status)
	}
	if !strings.HasPrefix(string(g.AmiType), "BOTTLEROCKET_") {
		out.refuse("has the AMI type %s: choose one of Bottlerocket", g.AmiType)
	}
	for _, key := range slices.Sorted(maps.Keys(n.Labels)) {
		if got, labelled := g.Labels[key]; !reserved(key) && (!labelled || got != n.Labels[key]) {
			out.refuse("does not label its nodes %s=%s: aws eks update-nodegroup-config --labels, or correct cluster.nodeLabels", key, n.Labels[key])
		}
	}
	if !slices.ContainsFunc(g.Taints, func(t ekstypes.Taint) bool { return taintOf(t) == n.Taint }) {
		out.refuse("does not taint its nodes %s=%s:%s: aws eks update-nodegroup-config --taints, or correct cluster.taint", n.Taint.Key, n.Taint.Value, n.Taint.Effect)
	}
	if has, want := groupsOf(g), slices.Sorted(slices.Values(a.opt.Groups)); !slices.Equal(has, want) {
		out.refuse("has the Auto Scaling groups %q, and hosts are looked for in %q: correct hosts.groups, or restart the daemon if it was made anew", has, want)
	}
	return out, nil
}

// reserved says that kubelet or EKS sets the label, so that the node group does
// not list it; hosts are vetted for it all the same.
// https://kubernetes.io/docs/reference/labels-annotations-taints/
func reserved(label string) bool {
	domain, _, _ := strings.Cut(label, "/")
	return slices.ContainsFunc([]string{"kubernetes.io", "k8s.io", "eks.amazonaws.com"}, func(of string) bool {
		return domain == of || strings.HasSuffix(domain, "."+of)
	})
}

// taintOf is a taint as nodes bear it: EKS spells the effects in its own way.
// https://docs.aws.amazon.com/eks/latest/APIReference/API_Taint.html
func taintOf(t ekstypes.Taint) runner.Taint {
	effects := map[ekstypes.TaintEffect]string{
		ekstypes.TaintEffectNoSchedule: "NoSchedule", ekstypes.TaintEffectNoExecute: "NoExecute", ekstypes.TaintEffectPreferNoSchedule: "PreferNoSchedule",
	}
	return runner.Taint{Key: aws.ToString(t.Key), Value: aws.ToString(t.Value), Effect: effects[t.Effect]}
}

// add takes over what was found out about one thing.
func (i inspection) add(pool *supervisor.HostsPool, about string) {
	for _, what := range i.problems {
		pool.Problems = append(pool.Problems, about+" "+what)
	}
	for _, what := range i.notes {
		pool.Notes = append(pool.Notes, about+" "+what)
	}
}
