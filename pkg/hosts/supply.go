package hosts

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/supervisor"
)

// launchGrace is how long what a group has still to bring into service counts as
// a host on its way. For want of capacity a group tries again and again, and a
// launch hook may hold an instance for two days:
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/lifecycle-hooks-overview.html
const launchGrace = 10 * time.Minute

// launches remember since when each group has lacked members without bringing
// one into service. It is safe for concurrent use. After a restart the grace
// begins anew.
type launches struct {
	mu  sync.Mutex
	all map[string]launching
}

type launching struct {
	serving []string  // in service at the last look
	since   time.Time // zero while none is lacking
}

// late is how long the group has lacked members and brought none into service;
// 0 within the grace.
func (l *launches) late(g types.AutoScalingGroup, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	name := aws.ToString(g.AutoScalingGroupName)
	last, next := l.all[name], launching{serving: inService(g)}
	came := slices.ContainsFunc(next.serving, func(id string) bool { return !slices.Contains(last.serving, id) })
	switch {
	case arriving(g) == 0:
	case last.since.IsZero() || came:
		next.since = now
	default:
		next.since = last.since
	}
	if l.all == nil {
		l.all = map[string]launching{}
	}
	l.all[name] = next
	if waited := now.Sub(next.since); !next.since.IsZero() && waited >= launchGrace {
		return waited
	}
	return 0
}

// supply is what the groups have for those who are still to come.
type supply struct {
	// ready counts hosts that serve nobody: members in service that are neither
	// in use nor unfit, and those on their way.
	ready int
	// late are the groups that bring none into service, with why that is known.
	late map[string]string
	// unfit are the members in service that do not count for that.
	unfit []string
}

func (a *AutoScaling) supply(groups []types.AutoScalingGroup, d supervisor.Demand) supply {
	s := supply{late: map[string]string{}}
	for _, g := range groups {
		for _, id := range inService(g) {
			switch {
			case slices.Contains(d.Used, id):
			case slices.Contains(d.Unfit, id):
				s.unfit = append(s.unfit, id)
			default:
				s.ready++
			}
		}
		if why := a.lateness(g); why != "" {
			s.late[aws.ToString(g.AutoScalingGroupName)] = why
			continue
		}
		s.ready += arriving(g)
	}
	return s
}

// shortage says why so many hosts fewer than wanted are there, none when all are
// in use: that passes.
func (s supply) shortage(missing int) []error {
	var out []error
	for _, group := range slices.Sorted(maps.Keys(s.late)) {
		out = append(out, fmt.Errorf("group %s %s", group, s.late[group]))
	}
	if len(s.unfit) > 0 {
		out = append(out, fmt.Errorf("%d hosts too few may be launched, and hosts that fail their checks take up room: "+
			"end them or raise a group's maximum size: %s", missing, strings.Join(s.unfit, ", ")))
	}
	return out
}

// lateness says that the group brings no member into service although it lacks
// some, empty when it does.
func (a *AutoScaling) lateness(g types.AutoScalingGroup) string {
	waited := a.launches.late(g, time.Now())
	if waited == 0 {
		return ""
	}
	return fmt.Sprintf("lacks %d of %d hosts and has brought none into service for %s: "+
		"aws autoscaling describe-scaling-activities --auto-scaling-group-name %s says why",
		arriving(g), sizeOf(g.DesiredCapacity), waited.Round(time.Second), aws.ToString(g.AutoScalingGroupName))
}

// inService are the group's members that can serve. One in standby, in
// quarantine or whose root volume is being replaced serves nobody.
func inService(g types.AutoScalingGroup) []string {
	var out []string
	for _, in := range g.Instances {
		if string(in.LifecycleState) == lifecycleInService {
			out = append(out, aws.ToString(in.InstanceId))
		}
	}
	return out
}

// arriving is how many members the group has still to bring into service.
func arriving(g types.AutoScalingGroup) int {
	pending := 0
	for _, in := range g.Instances {
		if strings.HasPrefix(string(in.LifecycleState), "Pending") {
			pending++
		}
	}
	return max(sizeOf(g.DesiredCapacity)-len(inService(g)), pending)
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
	return i >= 0 && sizeOf(groups[i].DesiredCapacity) > sizeOf(groups[i].MinSize) && a.supply(groups, *d).ready >= d.Ready
}
