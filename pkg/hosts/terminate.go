package hosts

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/smithy-go"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// Terminate asks for the end of the instance. It is safe to repeat.
//
//	member of one of our groups, leaving   nothing to ask
//	member of one of our groups            TerminateInstanceInAutoScalingGroup
//	member of another group, or tagged so  ErrForeignGroup
//	member of no group, ending             nothing to ask
//	member of no group, alive              ec2:TerminateInstances, once a
//	                                       group whose tag it bears denies it
//	member of no group, not listed         error: it is unknown whether it ended
//
// The group's desired capacity is never decremented: the group refills itself,
// and at its minimum size it would refuse. A success means that the request
// was accepted, not that the instance ended; and an instance whose end was
// accepted and never came is asked for again by the next call.
func (a *AutoScaling) Terminate(ctx context.Context, id string) (supervisor.TerminateReceipt, error) {
	receipt, err := a.terminate(ctx, id)
	if err != nil {
		return supervisor.TerminateReceipt{}, fmt.Errorf("terminate %.40s: %w", id, err)
	}
	return receipt, nil
}

func (a *AutoScaling) terminate(ctx context.Context, id string) (supervisor.TerminateReceipt, error) {
	if err := wellFormed(instanceID, []string{id}); err != nil {
		return supervisor.TerminateReceipt{}, err
	}
	members, err := a.members(ctx, []string{id})
	if err != nil {
		return supervisor.TerminateReceipt{}, err
	}
	if len(members) == 0 {
		return a.terminateOutside(ctx, id)
	}
	group := aws.ToString(members[0].AutoScalingGroupName)
	switch {
	case !slices.Contains(a.opt.Groups, group):
		return supervisor.TerminateReceipt{}, fmt.Errorf("%w: %.255s", ErrForeignGroup, group)
	case departing(aws.ToString(members[0].LifecycleState)):
		return supervisor.TerminateReceipt{}, nil
	}
	return a.terminateMember(ctx, id)
}

// terminateMember goes through the group, which drains the node by its
// lifecycle hook and launches a replacement at once.
func (a *AutoScaling) terminateMember(ctx context.Context, id string) (supervisor.TerminateReceipt, error) {
	callCtx, cancel := a.call(ctx)
	defer cancel()
	out, err := a.groups.TerminateInstanceInAutoScalingGroup(callCtx, &autoscaling.TerminateInstanceInAutoScalingGroupInput{
		InstanceId:                     aws.String(id),
		ShouldDecrementDesiredCapacity: aws.Bool(false),
	})
	if err == nil {
		receipt := supervisor.TerminateReceipt{}
		receipt.RequestID, _ = awsmiddleware.GetRequestIDMetadata(out.ResultMetadata)
		if out.Activity != nil {
			receipt.ActivityID = aws.ToString(out.Activity.ActivityId)
		}
		return receipt, nil
	}
	err = because(callCtx, err)
	// An earlier request may have been heard although its answer was lost,
	// and the group refuses what it is doing already. EC2 knows.
	if in, lookErr := a.look(ctx, id); lookErr == nil && ending(in.State) {
		return supervisor.TerminateReceipt{RequestID: requestID(err)}, nil
	}
	return supervisor.TerminateReceipt{}, err
}

// terminateOutside ends an instance that no group claims: it was detached, or
// its group has forgotten it because it is gone.
func (a *AutoScaling) terminateOutside(ctx context.Context, id string) (supervisor.TerminateReceipt, error) {
	in, err := a.look(ctx, id)
	group, tagged := in.Tags[tagGroup]
	switch {
	case err != nil:
		return supervisor.TerminateReceipt{}, err
	case in.ID == "":
		return supervisor.TerminateReceipt{}, errors.New("neither Auto Scaling nor EC2 lists it")
	case ending(in.State):
		return supervisor.TerminateReceipt{}, nil
	case tagged && !slices.Contains(a.opt.Groups, group):
		// The list of members can be stale, the tag is older than any request.
		return supervisor.TerminateReceipt{}, fmt.Errorf("%w: %.255s", ErrForeignGroup, group)
	case tagged:
		// A member that the list left out must not be ended behind its
		// group's back; the group itself has the last word.
		receipt, err := a.terminateMember(ctx, id)
		if e, ok := errors.AsType[smithy.APIError](err); !ok || e.ErrorCode() != "ValidationError" {
			return receipt, err
		}
	}
	callCtx, cancel := a.call(ctx)
	defer cancel()
	out, err := a.ec2.TerminateInstances(callCtx, &ec2.TerminateInstancesInput{InstanceIds: []string{id}})
	if err != nil {
		return supervisor.TerminateReceipt{}, because(callCtx, err)
	}
	receipt := supervisor.TerminateReceipt{}
	receipt.RequestID, _ = awsmiddleware.GetRequestIDMetadata(out.ResultMetadata)
	return receipt, nil
}

// look is the instance as EC2 shows it, zero when EC2 does not list it.
func (a *AutoScaling) look(ctx context.Context, id string) (runner.Instance, error) {
	found := map[string]runner.Instance{}
	if err := a.describeChunk(ctx, []string{id}, found); err != nil {
		return runner.Instance{}, fmt.Errorf("look at the instance: %w", err)
	}
	return found[id], nil
}

// requestID is the id of a request that was answered with an error, if any.
func requestID(err error) string {
	if e, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		return e.ServiceRequestID()
	}
	return ""
}

// departing says that the group is already ending the member. One that is
// retained after a failed hook runs until it is ended explicitly:
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-lifecycle.html
func departing(lifecycle string) bool {
	return strings.HasPrefix(lifecycle, "Terminating") && lifecycle != "Terminating:Retained"
}
