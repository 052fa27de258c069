package simaws

import (
	"fmt"
	"slices"
	"time"
)

// The lifecycle of a group's member:
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-lifecycle.html
const (
	lifecyclePending     = "Pending"
	lifecycleInService   = "InService"
	lifecycleTerminating = "Terminating"
	lifecycleWait        = "Terminating:Wait"
	lifecycleProceed     = "Terminating:Proceed"
	lifecycleRetained    = "Terminating:Retained"

	lifecycleWarmedPending = "Warmed:Pending"
	lifecycleWarmed        = "Warmed:Running"
)

// Group is an Auto Scaling group with what its launch template says.
type Group struct {
	Name                          string
	Min, Max, Desired             int
	SubnetIDs                     []string // one zone each
	ImageID, ImageName            string
	ImageOwnerAlias, ImageOwnerID string
	InstanceType                  string
	Tags                          map[string]string // of every instance
	HTTPTokens                    string            // "required" or "optional"
	HopLimit                      int
	BootMode                      string // the instances' current boot mode, such as "uefi"
	Profile                       string // ARN of the instance profile
	// TerminateHook is how long a termination lifecycle hook holds a member in
	// Terminating:Wait, running for EC2. EKS puts such a hook on node groups.
	TerminateHook time.Duration
	// HookAbandons is the hook's result when its time is over, ABANDON instead of
	// CONTINUE; Retains the instance lifecycle policy that then keeps the member
	// in Terminating:Retained, where it runs until it is ended explicitly.
	HookAbandons, Retains bool
	ProtectsNew           bool     // NewInstancesProtectedFromScaleIn
	Suspended             []string // processes, such as Launch or AZRebalance
	Pool                  *WarmPool
}

// group is a group with what is about to happen to it.
type group struct {
	Group
	createdAt time.Time
	launches  []time.Time // when members that are missing will be launched
	checks    []time.Time // when the health of its members is looked at
}

// activity is one scaling activity.
type activity struct {
	id, group, instance string
	kind                activityKind
	description, cause  string
	startedAt, endedAt  time.Time
}

type activityKind int

const (
	launchActivity activityKind = iota
	terminateActivity
)

// AddGroup makes a group and launches its instances. A group of that name
// must not exist.
func (s *Server) AddGroup(g Group) {
	s.mu.Lock()
	defer s.release()
	now := time.Now()
	added := &group{Group: g, createdAt: now}
	for range g.Desired {
		added.launches = append(added.launches, now)
	}
	for _, id := range g.SubnetIDs {
		s.subnet(id)
	}
	s.groups = append(s.groups, added)
	s.advance(now)
}

// AddInstance launches an instance that belongs to no group, as RunInstances
// with this launch template would, and returns its id.
func (s *Server) AddInstance(template Group) string {
	s.mu.Lock()
	defer s.release()
	now := time.Now()
	s.advance(now)
	in := s.launch(template, false, now)
	if in.Subnet != "" {
		s.subnet(in.Subnet)
	}
	s.advance(now)
	return in.ID
}

// Detach takes a member out of its group, which launches another: what
// DetachInstances does without decrement.
func (s *Server) Detach(instanceID string) error {
	s.mu.Lock()
	defer s.release()
	now := time.Now()
	s.advance(now)
	in := s.find(instanceID)
	if in == nil || in.Group == "" {
		return fmt.Errorf("detach %s: not a member of a group", instanceID)
	}
	g := s.group(in.Group)
	in.Group, in.lifecycle = "", ""
	s.reconcile(g, now)
	s.advance(now)
	return nil
}

func (s *Server) group(name string) *group {
	for _, g := range s.groups {
		if g.Name == name {
			return g
		}
	}
	return nil
}

func (s *Server) members(g *group) []*instance {
	var out []*instance
	for _, in := range s.instances {
		if in.Group == g.Name {
			out = append(out, in)
		}
	}
	return out
}

func (in *instance) leaving() bool {
	switch in.lifecycle {
	case lifecycleTerminating, lifecycleWait, lifecycleProceed, lifecycleRetained:
		return true
	}
	return false
}

// reconcile plans launches up to the desired capacity: "Amazon EC2 Auto
// Scaling launches instances to replace the ones that are terminated", API
// reference of TerminateInstanceInAutoScalingGroup.
func (s *Server) reconcile(g *group, at time.Time) {
	have := len(g.launches)
	for _, in := range s.members(g) {
		if in.counts() {
			have++
		}
	}
	// A suspended process does not run: API reference of SuspendProcesses.
	for range g.Desired - have {
		if slices.Contains(g.Suspended, "Launch") {
			return
		}
		g.launches = append(g.launches, at.Add(s.cfg.RefillDelay))
	}
}

// nextLaunch and nextCheck are zero when nothing is planned. Plans are made in
// the order of time, with one delay each, so the first is the earliest.
func (g *group) nextLaunch() time.Time { return first(g.launches) }
func (g *group) nextCheck() time.Time  { return first(g.checks) }

func first(plan []time.Time) time.Time {
	if len(plan) == 0 {
		return time.Time{}
	}
	return plan[0]
}

func (s *Server) refill(g *group, at time.Time) {
	g.launches = g.launches[1:]
	in := s.launch(g.Group, true, at)
	s.begin(&activity{
		group: g.Name, instance: in.ID, kind: launchActivity, startedAt: at,
		description: "Launching a new EC2 instance: " + in.ID,
		cause: fmt.Sprintf("At %s an instance was launched in response to a difference between desired and actual capacity.",
			at.UTC().Format(time.RFC3339)),
	})
}

// healthCheck finds members that somebody ended behind the group's back:
// "instances that are not running are unhealthy and replaced",
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/healthcheck.html
func (s *Server) healthCheck(g *group, at time.Time) {
	g.checks = g.checks[1:]
	for _, in := range s.members(g) {
		if in.leaving() && in.lifecycle != lifecycleRetained || in.State == statePending || in.State == stateRunning {
			continue
		}
		in.lifecycle = lifecycleTerminating
		s.begin(&activity{
			group: g.Name, instance: in.ID, kind: terminateActivity, startedAt: at,
			description: "Terminating EC2 instance: " + in.ID,
			cause: fmt.Sprintf("At %s an instance was taken out of service in response to an EC2 health check indicating it has been terminated or stopped.",
				at.UTC().Format(time.RFC3339)),
		})
		if in.State == stateTerminated {
			s.leave(in, at)
		}
	}
	s.reconcile(g, at)
}

// userRequest is the cause of an activity that somebody asked for.
const userRequest = "At %s instance %s was taken out of service in response to a user request."

// retire ends a member through its group and says which activity does it.
func (s *Server) retire(g *group, in *instance, at time.Time, cause string) *activity {
	in.lifecycle = lifecycleTerminating
	in.endAt = at
	if g.TerminateHook > 0 {
		in.lifecycle = lifecycleWait
		in.endAt = at.Add(g.TerminateHook)
	}
	a := ended(g, in, at, cause)
	s.begin(a)
	s.reconcile(g, at)
	return a
}

func ended(g *group, in *instance, at time.Time, cause string) *activity {
	return &activity{
		group: g.Name, instance: in.ID, kind: terminateActivity, startedAt: at,
		description: "Terminating EC2 instance: " + in.ID,
		cause:       fmt.Sprintf(cause, at.UTC().Format(time.RFC3339), in.ID),
	}
}

// leave takes a terminated member out of its group, once the group knows.
func (s *Server) leave(in *instance, at time.Time) {
	if in.Group == "" || !in.leaving() {
		return
	}
	in.Group, in.lifecycle = "", ""
	s.finish(in.ID, terminateActivity, at)
}

func (s *Server) begin(a *activity) {
	a.id = s.uuid()
	s.activities = append(s.activities, a)
}

func (s *Server) finish(instanceID string, kind activityKind, at time.Time) {
	for _, a := range s.activities {
		if a.instance == instanceID && a.kind == kind && a.endedAt.IsZero() {
			a.endedAt = at
		}
	}
}
