package hosts

import (
	"context"
	"errors"
	"fmt"
	"slices"

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
// goes above a group's maximum size. A group that brings nobody into service is
// not raised: it has more to launch than it can. What a group refuses the next
// one is asked for; the errors come joined, and among them what keeps the demand
// from being met.
func (a *AutoScaling) Ensure(ctx context.Context, d supervisor.Demand) error {
	groups, err := a.describeGroups(ctx)
	if err != nil {
		return fmt.Errorf("ensure %d hosts: %w", d.Ready, err)
	}
	have := a.supply(groups, d)
	missing := d.Ready - have.ready
	var problems []error
	for _, name := range a.opt.Groups {
		i := slices.IndexFunc(groups, func(g types.AutoScalingGroup) bool { return aws.ToString(g.AutoScalingGroupName) == name })
		if i < 0 || have.late[name] != "" {
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
		a.opt.Logger.Info("group raised", zap.String("group", name), zap.Int("from", desired), zap.Int("to", desired+more),
			zap.Strings("unfit", have.unfit))
		missing -= more
	}
	if missing > 0 {
		problems = append(problems, have.shortage(missing)...)
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
