package hosts

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/smithy-go"
	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// The calls that end a host, as IAM names them.
const (
	callGroup = "autoscaling:TerminateInstanceInAutoScalingGroup"
	callEC2   = "ec2:TerminateInstances"
)

// glance bounds a question whose answer an end can do without.
const glance = 3 * time.Second

// Terminate asks for the end of the instance. It is safe to repeat.
//
//	member of one of our groups, leaving   nothing to ask
//	member of one of our groups, in a      ec2:TerminateInstances: the group's own
//	warm pool                              call cannot be made there
//	member of one of our groups            TerminateInstanceInAutoScalingGroup
//	member of another group, or tagged so  ErrForeignGroup
//	member of no group, ending             nothing to ask
//	member of no group, alive              ec2:TerminateInstances, once a
//	                                       group whose tag it bears denies it
//	member of no group, not listed         error: it is unknown whether it ended
//
// With Force the group is not asked: hooks, drains and activities in progress
// have had their time. Foreign groups are refused all the same.
//
// The group's desired capacity is decremented only with a Demand that the rest
// of the hosts already meets; otherwise the group refills itself. A success
// means that the request was accepted, not that the instance ended; and an
// instance whose end was accepted and never came is asked for again by the next
// call. The receipt is valid beside an error: it lists the requests made.
func (a *AutoScaling) Terminate(ctx context.Context, id string, opt supervisor.TerminateOptions) (supervisor.TerminateReceipt, error) {
	var receipt supervisor.TerminateReceipt
	err := a.terminate(ctx, id, opt, &receipt)
	receipt.Requests = a.named(ctx, receipt.Requests)
	if err != nil {
		return receipt, fmt.Errorf("terminate %.40s: %w", id, err)
	}
	return receipt, nil
}

func (a *AutoScaling) terminate(ctx context.Context, id string, opt supervisor.TerminateOptions, receipt *supervisor.TerminateReceipt) error {
	if err := wellFormed(instanceID, []string{id}); err != nil {
		return err
	}
	look, cancel := ctx, context.CancelFunc(func() {})
	if opt.Force {
		look, cancel = context.WithTimeout(ctx, glance)
	}
	members, err := a.members(look, []string{id})
	cancel()
	if err != nil && !opt.Force {
		return err
	}
	if len(members) == 0 {
		// Also when Auto Scaling is away and the end is forced: then the tag
		// that the group wrote says whose the instance is.
		return a.terminateOutside(ctx, id, opt, receipt)
	}
	group, lifecycle := aws.ToString(members[0].AutoScalingGroupName), aws.ToString(members[0].LifecycleState)
	switch {
	case !slices.Contains(a.opt.Groups, group):
		return fmt.Errorf("%w: %.255s", ErrForeignGroup, group)
	case opt.Force || strings.HasPrefix(lifecycle, "Warmed:"):
		return a.terminateDirectly(ctx, id, receipt)
	case departing(lifecycle):
		receipt.ActivityID = a.activityOf(ctx, group, id)
		return nil
	}
	if a.mayShrink(ctx, group, opt.Demand) {
		err := a.terminateMember(ctx, id, true, receipt)
		// Somebody else made the group smaller, or raised its minimum, meanwhile.
		if code(err) != "ValidationError" {
			return err
		}
	}
	return a.terminateMember(ctx, id, false, receipt)
}

// terminateMember goes through the group, which drains the node by its
// lifecycle hook and, unless it is to get smaller, launches a replacement.
func (a *AutoScaling) terminateMember(ctx context.Context, id string, shrink bool, receipt *supervisor.TerminateReceipt) error {
	callCtx, cancel := a.call(ctx)
	defer cancel()
	callCtx, trail := follow(callCtx, callGroup)
	out, err := a.groups.TerminateInstanceInAutoScalingGroup(callCtx, &autoscaling.TerminateInstanceInAutoScalingGroupInput{
		InstanceId:                     aws.String(id),
		ShouldDecrementDesiredCapacity: aws.Bool(shrink),
	})
	receipt.Requests = append(receipt.Requests, trail.made()...)
	if err == nil {
		if out.Activity != nil {
			receipt.ActivityID = aws.ToString(out.Activity.ActivityId)
		}
		return nil
	}
	err = because(callCtx, err)
	// An earlier request may have been heard although its answer was lost,
	// and the group refuses what it is doing already. EC2 knows.
	if in, lookErr := a.look(ctx, id); lookErr == nil && ending(in.State) {
		return nil
	}
	return err
}

// terminateOutside ends an instance that no group claims: it was detached, or
// its group has forgotten it because it is gone.
func (a *AutoScaling) terminateOutside(ctx context.Context, id string, opt supervisor.TerminateOptions, receipt *supervisor.TerminateReceipt) error {
	in, err := a.look(ctx, id)
	group, tagged := in.Tags[tagGroup]
	switch {
	case err != nil:
		return err
	case in.ID == "":
		return errors.New("neither Auto Scaling nor EC2 lists it")
	case ending(in.State):
		if slices.Contains(a.opt.Groups, group) {
			receipt.ActivityID = a.activityOf(ctx, group, id)
		}
		return nil
	case tagged && !slices.Contains(a.opt.Groups, group):
		// The list of members can be stale, the tag is older than any request.
		return fmt.Errorf("%w: %.255s", ErrForeignGroup, group)
	case tagged && !opt.Force:
		// A member that the list left out must not be ended behind its
		// group's back; the group itself has the last word.
		if err := a.terminateMember(ctx, id, false, receipt); code(err) != "ValidationError" {
			return err
		}
	}
	return a.terminateDirectly(ctx, id, receipt)
}

// terminateDirectly asks EC2. Of a group's member the group learns by its
// health check, and launches another.
func (m *machines) terminateDirectly(ctx context.Context, id string, receipt *supervisor.TerminateReceipt) error {
	callCtx, cancel := m.call(ctx)
	defer cancel()
	callCtx, trail := follow(callCtx, callEC2)
	_, err := m.ec2.TerminateInstances(callCtx, &ec2.TerminateInstancesInput{InstanceIds: []string{id}})
	receipt.Requests = append(receipt.Requests, trail.made()...)
	if code(err) == "OperationNotPermitted" {
		// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_ChangingDisableAPITermination.html
		return fmt.Errorf("somebody has protected it from termination: switch disableApiTermination off "+
			"(aws ec2 modify-instance-attribute --instance-id %s --no-disable-api-termination): %w", id, err)
	}
	return because(callCtx, err)
}

// code is the service's name of an error, empty if it did not answer with one.
func code(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	return ""
}

// activityOf is the scaling activity by which the group ends an instance that
// we did not ask it to end, or whose answer was lost; empty when it is not
// found. Then it is not looked for again for [missesFor]: every step of a teardown
// comes by here, and the call is throttled. An activity names its instance in its
// description only:
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-verify-scaling-activity.html
func (a *AutoScaling) activityOf(ctx context.Context, group, id string) string {
	if known, ok := a.activities.get(id, time.Now()); ok {
		return known
	}
	found, err := a.findActivity(ctx, group, id)
	if err != nil {
		a.opt.Logger.Warn("the activity that ends a host is unknown", zap.String("instance", id), zap.Error(err))
	}
	if found == "" {
		a.activities.keep(id, "", time.Now(), missesFor)
	} else {
		a.activities.set(id, found, time.Now())
	}
	return found
}

func (a *AutoScaling) findActivity(ctx context.Context, group, id string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	out, err := a.groups.DescribeScalingActivities(ctx, &autoscaling.DescribeScalingActivitiesInput{AutoScalingGroupName: aws.String(group)})
	if err != nil {
		return "", fmt.Errorf("describe scaling activities: %w", err)
	}
	for _, act := range out.Activities { // newest first
		if what := aws.ToString(act.Description); strings.HasPrefix(what, "Terminating EC2 instance") && strings.Contains(what, id) {
			return aws.ToString(act.ActivityId), nil
		}
	}
	return "", nil
}

// look is the instance as EC2 shows it, zero when EC2 does not list it.
func (m *machines) look(ctx context.Context, id string) (runner.Instance, error) {
	found := map[string]runner.Instance{}
	if err := m.describeChunk(ctx, []string{id}, found); err != nil {
		return runner.Instance{}, fmt.Errorf("look at the instance: %w", err)
	}
	return found[id], nil
}

// departing says that the group is already ending the member. One that is
// retained after a failed hook runs until it is ended explicitly:
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-lifecycle.html
func departing(lifecycle string) bool {
	return strings.HasPrefix(lifecycle, "Terminating") && lifecycle != "Terminating:Retained"
}
