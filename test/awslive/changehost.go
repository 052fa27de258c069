package awslive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// stateTerminated is EC2's name of the end.
const stateTerminated = "terminated"

// ending is the end of one host as it is watched.
type ending struct {
	*suite
	id       string
	volumes  []string // before the end
	before   []string // the members that served before the end
	began    time.Time
	activity string

	last                             string // what was seen last
	asked, terminated, gone, refills bool
}

// endHost protects the member that the settings name, ends it as the daemon
// does, and watches it until EC2 no longer lists it. It is looked at again right
// before, because somebody may have claimed it meanwhile.
func (l *suite) endHost(ctx context.Context) error {
	id := l.Hosts.EndInstance
	now, err := l.driver.Describe(ctx, []string{id})
	if err != nil {
		return err
	}
	l.members[id] = now[id]
	if err := errors.Join(l.guard(id), l.unused(ctx, id)); err != nil {
		return err
	}
	e := &ending{suite: l, id: id, volumes: now[id].Volumes}
	if e.before, _, err = l.membersOf(ctx); err != nil {
		return err
	}
	if !l.learn(rowScaling, "protect a member", l.driver.Protect(ctx, id), "%s is protected from scale-in", id) {
		return nil
	}
	if err := e.end(ctx); err != nil {
		l.made("scale-in protection of "+id, "aws autoscaling set-instance-protection --auto-scaling-group-name %s --instance-ids %s --no-protected-from-scale-in", l.Hosts.Group, id)
		return nil
	}
	if err := e.watch(ctx, l.Hosts.EndBy, e.look); err != nil {
		l.answer(rowTimes, "the end of "+id, Unknown, "after %s: terminated %t, volumes gone %t, group refilled %t: %v", l.Hosts.EndBy, e.terminated, e.gone, e.refills, err)
		l.made("perhaps instance "+id, "aws ec2 terminate-instances --instance-ids %s", id)
		return nil
	}
	e.cause(ctx)
	if l.Hosts.AgeOutBy == 0 {
		l.answer(rowTimes, "aging out of "+id, Skipped, "hosts.ageOutBy is 0s")
		return nil
	}
	if err := e.watch(ctx, l.Hosts.AgeOutBy, e.agedOut); err != nil {
		l.answer(rowTimes, "aging out of "+id, Unknown, "EC2 still lists it after %s: %v", l.Hosts.AgeOutBy, err)
	}
	return nil
}

// end asks for the end, once, with the host protected: scale-in protection does
// not cover a request.
func (e *ending) end(ctx context.Context) error {
	e.began = time.Now()
	receipt, err := e.driver.Terminate(ctx, e.id, supervisor.TerminateOptions{})
	for _, q := range receipt.Requests {
		e.answer(rowTrail, "request "+q.RequestID, Skipped, "look it up in CloudTrail: %s at %s by key %s of %s, answer %q", q.Call, q.At.Format(time.RFC3339), q.AccessKeyID, q.Session, q.Code)
	}
	if !e.learn(rowScaling, "end a protected member", err, "accepted as activity %s", receipt.ActivityID) {
		return err
	}
	e.activity = receipt.ActivityID
	e.measure(rowTimes, "the group's answer to the end", time.Since(e.began))
	return nil
}

// watch looks until it is done, for so long.
func (e *ending) watch(ctx context.Context, by time.Duration, look func(context.Context) (done bool, err error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, by, errors.New("the time is over"))
	defer cancel()
	tick := time.NewTicker(e.Hosts.Poll)
	defer tick.Stop()
	for {
		switch done, err := look(ctx); {
		case done:
			return nil
		case err != nil && ctx.Err() == nil:
			e.say("note    a look failed, the next follows: %v", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// look is one look at instance, group, volumes and replacement.
func (e *ending) look(ctx context.Context) (done bool, err error) {
	found, err := e.driver.Describe(ctx, []string{e.id})
	if err != nil {
		return false, err
	}
	in, listed := found[e.id]
	if !listed && !e.terminated {
		return false, fmt.Errorf("EC2 does not list %s, which was not seen terminated", e.id)
	}
	lifecycle, err := e.lifecycle(ctx)
	if err != nil {
		return false, err
	}
	e.saw(in, lifecycle)
	if err := e.askAgain(ctx, in, lifecycle); err != nil {
		return false, err
	}
	if !e.terminated && in.State == stateTerminated {
		e.terminated = true
		e.measure(rowTimes, "from the request to terminated", time.Since(e.began))
	}
	if e.terminated && !e.gone {
		gone, err := e.driver.VolumesGone(ctx, e.volumes)
		if err != nil {
			return false, err
		}
		if e.gone = len(gone) == len(e.volumes); e.gone {
			e.measure(rowTimes, fmt.Sprintf("from the request until its %d volumes are gone", len(e.volumes)), time.Since(e.began))
		}
	}
	if !e.refills {
		now, _, err := e.membersOf(ctx)
		if err != nil {
			return false, err
		}
		e.refills = len(now) >= len(e.before) && slices.ContainsFunc(now, func(id string) bool { return !slices.Contains(e.before, id) })
		if e.refills {
			e.measure(rowTimes, "from the request until a new member is InService", time.Since(e.began))
		}
	}
	return e.terminated && e.gone && e.refills, nil
}

// saw prints what changed.
func (e *ending) saw(in runner.Instance, lifecycle string) {
	seen := fmt.Sprintf("%s, %s in its group, reason %s", orNone(in.State), orNone(lifecycle), orNone(in.StateReason))
	if seen != e.last {
		e.last = seen
		e.measure(rowTimes, "from the request to "+seen, time.Since(e.began))
	}
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// askAgain asks once more when the end is on its way: a daemon that was started
// again does so, and nothing must be requested twice.
func (e *ending) askAgain(ctx context.Context, in runner.Instance, lifecycle string) error {
	if e.asked || in.State == "running" && !strings.HasPrefix(lifecycle, "Terminating") {
		return nil
	}
	receipt, err := e.driver.Terminate(ctx, e.id, supervisor.TerminateOptions{})
	if err != nil {
		return err
	}
	e.asked = true
	e.holds(rowScaling, "ask again", len(receipt.Requests) == 0 && receipt.ActivityID == e.activity,
		"%d more requests, activity %s found by its description", len(receipt.Requests), orNone(receipt.ActivityID))
	return nil
}

// lifecycle is the group's word for the member, empty when it has forgotten it.
func (e *ending) lifecycle(ctx context.Context) (string, error) {
	out, err := e.groups.DescribeAutoScalingInstances(ctx, &autoscaling.DescribeAutoScalingInstancesInput{InstanceIds: []string{e.id}})
	if err != nil {
		return "", fmt.Errorf("ask for the lifecycle state: %w", err)
	}
	if len(out.AutoScalingInstances) == 0 {
		return "", nil
	}
	return aws.ToString(out.AutoScalingInstances[0].LifecycleState), nil
}

// cause prints the activity in Auto Scaling's own words.
func (e *ending) cause(ctx context.Context) {
	out, err := e.groups.DescribeScalingActivities(ctx, &autoscaling.DescribeScalingActivitiesInput{
		AutoScalingGroupName: &e.Hosts.Group, ActivityIds: []string{e.activity},
	})
	if err != nil || len(out.Activities) != 1 {
		e.answer(rowScaling, "the activity", Unknown, "activity %s: %v", e.activity, err)
		return
	}
	a := out.Activities[0]
	e.holds(rowScaling, "the activity", strings.Contains(aws.ToString(a.Description), e.id), "%s (%s): %s", aws.ToString(a.Description), a.StatusCode, aws.ToString(a.Cause))
}

func (e *ending) agedOut(ctx context.Context) (bool, error) {
	found, err := e.driver.Describe(ctx, []string{e.id})
	if err != nil {
		return false, err
	}
	if _, listed := found[e.id]; listed {
		return false, nil
	}
	e.measure(rowTimes, "from the request until EC2 no longer lists it", time.Since(e.began))
	return true, nil
}
