package hosts

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"

	"github.com/runnerward/runnerward/pkg/supervisor"
)

// Preflight looks at the groups for what would break the promise of one job to
// one host, or keep hosts from coming and going at all.
func (a *AutoScaling) Preflight(ctx context.Context) (supervisor.HostsPool, error) {
	pool := supervisor.HostsPool{}
	groups, err := a.describeGroups(ctx)
	if err != nil {
		return pool, fmt.Errorf("preflight: %w", err)
	}
	a.identify(ctx, "")
	for _, name := range a.opt.Groups {
		i := slices.IndexFunc(groups, func(g types.AutoScalingGroup) bool { return aws.ToString(g.AutoScalingGroupName) == name })
		if i < 0 {
			pool.Problems = append(pool.Problems, fmt.Sprintf("group %s does not exist in %s: correct hosts.groups or hosts.region", name, a.opt.Region))
			continue
		}
		look, err := a.inspect(ctx, groups[i])
		if err != nil {
			return supervisor.HostsPool{}, fmt.Errorf("preflight of group %s: %w", name, err)
		}
		pool.Groups = append(pool.Groups, supervisor.GroupView{
			Name: name, Min: sizeOf(groups[i].MinSize), Desired: sizeOf(groups[i].DesiredCapacity), Max: sizeOf(groups[i].MaxSize),
			InService: inService(groups[i]),
		})
		look.add(&pool, "group "+name)
	}
	look, err := a.inspectNodegroup(ctx)
	if err != nil {
		return supervisor.HostsPool{}, fmt.Errorf("preflight: %w", err)
	}
	if a.opt.Nodegroup != nil {
		look.add(&pool, a.opt.Nodegroup.String())
	}
	return pool, nil
}

func sizeOf(n *int32) int { return int(aws.ToInt32(n)) }

// inspection is what is to be said of one group.
type inspection struct{ problems, notes []string }

func (i *inspection) refuse(format string, args ...any) {
	i.problems = append(i.problems, fmt.Sprintf(format, args...))
}

func (i *inspection) note(format string, args ...any) {
	i.notes = append(i.notes, fmt.Sprintf(format, args...))
}

func (a *AutoScaling) inspect(ctx context.Context, g types.AutoScalingGroup) (inspection, error) {
	var out inspection
	if g.MaxSize == nil || *g.MaxSize <= 0 {
		out.refuse("may have no instance: raise its maximum size")
	}
	// Status is set while the group is being deleted: API reference of AutoScalingGroup.
	if status := aws.ToString(g.Status); status != "" {
		out.refuse("is not to stay (%s): name another group", status)
	}
	if late := a.lateness(g); late != "" {
		out.note("%s", late)
	}
	a.inspectProcesses(&out, g)
	if err := a.inspectWarmPool(ctx, &out, g); err != nil {
		return out, err
	}
	return out, a.inspectHooks(ctx, &out, g)
}

// inspectProcesses: a group that may not launch never refills, one that may not
// terminate keeps used hosts.
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/as-suspend-resume-processes.html
func (a *AutoScaling) inspectProcesses(out *inspection, g types.AutoScalingGroup) {
	suspended := func(process string) bool {
		return slices.ContainsFunc(g.SuspendedProcesses, func(p types.SuspendedProcess) bool { return aws.ToString(p.ProcessName) == process })
	}
	for _, process := range []string{"Launch", "Terminate"} {
		if suspended(process) {
			out.refuse("has its process %s suspended: aws autoscaling resume-processes --scaling-processes %s", process, process)
		}
	}
	zones := len(g.AvailabilityZones)
	if zones > 1 && !suspended("AZRebalance") {
		out.note("rebalances over %d zones: hosts in use are protected from it, warm ones may be replaced", zones)
	}
	if aws.ToBool(g.NewInstancesProtectedFromScaleIn) {
		out.note("protects new instances from scale in: hosts that nobody uses stay when it shrinks")
	}
	if aws.ToBool(g.CapacityRebalance) {
		out.note("replaces instances at risk (capacity rebalancing): that ends a host under its job")
	}
	if aws.ToInt32(g.MaxInstanceLifetime) > 0 {
		out.note("ends instances after %d s (maximum instance lifetime): protection does not cover that", *g.MaxInstanceLifetime)
	}
}

// inspectWarmPool: an instance that goes back to a warm pool would come again
// as if it were new, with what its job left behind.
func (a *AutoScaling) inspectWarmPool(ctx context.Context, out *inspection, g types.AutoScalingGroup) error {
	if g.WarmPoolConfiguration == nil {
		return nil
	}
	callCtx, cancel := a.call(ctx)
	defer cancel()
	pool, err := a.groups.DescribeWarmPool(callCtx, &autoscaling.DescribeWarmPoolInput{AutoScalingGroupName: g.AutoScalingGroupName})
	if err != nil {
		return fmt.Errorf("describe the warm pool: %w", because(callCtx, err))
	}
	cfg := pool.WarmPoolConfiguration
	switch {
	case cfg == nil: // deleted meanwhile
	case cfg.InstanceReusePolicy != nil && aws.ToBool(cfg.InstanceReusePolicy.ReuseOnScaleIn):
		out.refuse("returns used hosts to its warm pool: set InstanceReusePolicy.ReuseOnScaleIn to false")
	default:
		out.note("has a warm pool: its instances serve once the group puts them InService")
	}
	return nil
}

// inspectHooks: with a policy to retain, a termination hook that fails leaves
// an instance that runs for ever, which the group no longer counts. A policy
// without such a hook has no effect yet and is refused all the same: EKS adds a
// hook to a node group by itself.
func (a *AutoScaling) inspectHooks(ctx context.Context, out *inspection, g types.AutoScalingGroup) error {
	p := g.InstanceLifecyclePolicy
	if p != nil && p.RetentionTriggers != nil && p.RetentionTriggers.TerminateHookAbandon == types.RetentionActionRetain {
		out.refuse("keeps instances whose termination hook failed (Terminating:Retained): set TerminateHookAbandon to terminate")
	}
	callCtx, cancel := a.call(ctx)
	defer cancel()
	hooks, err := a.groups.DescribeLifecycleHooks(callCtx, &autoscaling.DescribeLifecycleHooksInput{AutoScalingGroupName: g.AutoScalingGroupName})
	if err != nil {
		return fmt.Errorf("describe lifecycle hooks: %w", because(callCtx, err))
	}
	for _, h := range hooks.LifecycleHooks {
		if strings.HasSuffix(aws.ToString(h.LifecycleTransition), "EC2_INSTANCE_TERMINATING") {
			out.note("holds ending instances for up to %d s each heartbeat (hook %s): limits.escalateAfter goes around it",
				aws.ToInt32(h.HeartbeatTimeout), aws.ToString(h.LifecycleHookName))
		}
	}
	return nil
}

// describeGroups are our groups as Auto Scaling shows them; one that does not
// exist is left out.
func (a *AutoScaling) describeGroups(ctx context.Context) ([]types.AutoScalingGroup, error) {
	var out []types.AutoScalingGroup
	pages := autoscaling.NewDescribeAutoScalingGroupsPaginator(a.groups,
		&autoscaling.DescribeAutoScalingGroupsInput{AutoScalingGroupNames: a.opt.Groups})
	for pages.HasMorePages() {
		page, err := nextPage(ctx, &a.machines, pages.NextPage)
		if err != nil {
			return nil, fmt.Errorf("describe groups: %w", err)
		}
		out = append(out, page.AutoScalingGroups...)
	}
	return out, nil
}
