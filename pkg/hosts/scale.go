package hosts

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/supervisor"
)

const lifecycleInService = "InService"

// Protect keeps the group from ending the instance when it shrinks or balances
// its zones. It covers neither a failed health check nor a request by hand.
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-instance-protection.html
//
// It is safe to repeat. An instance that its group is ending, or keeps in a warm
// pool, is supervisor.ErrConflict: it will not serve.
func (a *AutoScaling) Protect(ctx context.Context, id string) error {
	if err := a.protect(ctx, id); err != nil {
		return fmt.Errorf("protect %.40s: %w", id, err)
	}
	return nil
}

func (a *AutoScaling) protect(ctx context.Context, id string) error {
	if err := wellFormed(instanceID, []string{id}); err != nil {
		return err
	}
	members, err := a.members(ctx, []string{id})
	if err != nil {
		return err
	}
	if len(members) == 0 {
		return errors.New("Auto Scaling does not list it") // which may be stale
	}
	group, lifecycle := aws.ToString(members[0].AutoScalingGroupName), aws.ToString(members[0].LifecycleState)
	switch {
	case !slices.Contains(a.opt.Groups, group):
		return fmt.Errorf("%w: %.255s", ErrForeignGroup, group)
	case lifecycle != lifecycleInService:
		return fmt.Errorf("%w: it is %.64s in group %.255s", supervisor.ErrConflict, lifecycle, group)
	case aws.ToBool(members[0].ProtectedFromScaleIn):
		return nil
	}
	callCtx, cancel := a.call(ctx)
	defer cancel()
	_, err = a.groups.SetInstanceProtection(callCtx, &autoscaling.SetInstanceProtectionInput{
		AutoScalingGroupName: aws.String(group), InstanceIds: []string{id}, ProtectedFromScaleIn: aws.Bool(true),
	})
	return because(callCtx, err)
}

// Ensure raises the desired capacity of the groups, in their order, until so
// many unclaimed hosts are there or on their way. It never lowers it and never
// goes above a group's maximum size. What a group refuses the next one is asked
// for; the errors come joined.
func (a *AutoScaling) Ensure(ctx context.Context, d supervisor.Demand) error {
	groups, err := a.describeGroups(ctx)
	if err != nil {
		return fmt.Errorf("ensure %d hosts: %w", d.Ready, err)
	}
	missing := d.Ready - unclaimed(groups, d.Used)
	var problems []error
	for _, name := range a.opt.Groups {
		i := slices.IndexFunc(groups, func(g types.AutoScalingGroup) bool { return aws.ToString(g.AutoScalingGroupName) == name })
		if i < 0 {
			continue
		}
		desired := sizeOf(groups[i].DesiredCapacity)
		more := min(missing, sizeOf(groups[i].MaxSize)-desired)
		if more <= 0 {
			continue
		}
		if err := a.setDesired(ctx, name, desired+more); err != nil {
			problems = append(problems, fmt.Errorf("raise the desired capacity of %s to %d: %w", name, desired+more, err))
			continue
		}
		a.opt.Logger.Info("group raised", zap.String("group", name), zap.Int("from", desired), zap.Int("to", desired+more))
		missing -= more
	}
	return errors.Join(problems...)
}

func (a *AutoScaling) setDesired(ctx context.Context, group string, n int) error {
	callCtx, cancel := a.call(ctx)
	defer cancel()
	_, err := a.groups.SetDesiredCapacity(callCtx, &autoscaling.SetDesiredCapacityInput{
		AutoScalingGroupName: aws.String(group), DesiredCapacity: aws.Int32(int32(n)), HonorCooldown: aws.Bool(false),
	})
	return because(callCtx, err)
}

// unclaimed counts hosts that serve nobody: members that stay and are not in
// use, and those that the groups have still to launch.
func unclaimed(groups []types.AutoScalingGroup, used []string) int {
	n := 0
	for _, g := range groups {
		stay := 0
		for _, in := range g.Instances {
			if !stays(string(in.LifecycleState)) {
				continue
			}
			stay++
			if !slices.Contains(used, aws.ToString(in.InstanceId)) {
				n++
			}
		}
		n += max(sizeOf(g.DesiredCapacity)-stay, 0)
	}
	return n
}

// stays says that the group counts the member and does not end it: a member in
// standby, in quarantine or whose root volume is being replaced serves nobody.
func stays(lifecycle string) bool {
	return lifecycle == lifecycleInService || strings.HasPrefix(lifecycle, "Pending")
}

// mayShrink says that the group can lose this member for good: it stays at or
// above its minimum size, and enough hosts are left for what is wanted.
func (a *AutoScaling) mayShrink(ctx context.Context, group string, d *supervisor.Demand) bool {
	if d == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	groups, err := a.describeGroups(ctx)
	if err != nil {
		a.opt.Logger.Warn("end a host without making its group smaller", zap.Error(err))
		return false
	}
	i := slices.IndexFunc(groups, func(g types.AutoScalingGroup) bool { return aws.ToString(g.AutoScalingGroupName) == group })
	return i >= 0 && sizeOf(groups[i].DesiredCapacity) > sizeOf(groups[i].MinSize) && unclaimed(groups, d.Used) >= d.Ready
}
