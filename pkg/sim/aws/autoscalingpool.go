package simaws

import (
	"encoding/xml"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// WarmPool is a group's warm pool:
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-warm-pools.html
type WarmPool struct {
	MinSize int
	// Reuse returns members to the pool on scale in instead of ending them.
	Reuse bool
}

// setDesired: the limits are those of the group's sizes. The reference says
// only that the call fails; the wording is that of answers seen in the field.
// https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_SetDesiredCapacity.html
func (s *Server) setDesired(c call, _ FaultKind, now time.Time) (any, error) {
	if err := required(c.form, "DesiredCapacity"); err != nil {
		return nil, err
	}
	if _, _, err := flag(c.form, "HonorCooldown"); err != nil {
		return nil, err
	}
	g := s.group(c.form.Get("AutoScalingGroupName"))
	n, err := strconv.Atoi(c.form.Get("DesiredCapacity"))
	switch {
	case g == nil:
		return nil, validation("AutoScalingGroup name not found - null")
	case err != nil:
		return nil, validation("Value '%s' at 'desiredCapacity' is not a number", c.form.Get("DesiredCapacity"))
	case n > g.Max:
		return nil, validation("New SetDesiredCapacity value %d is above max value %d for the AutoScalingGroup.", n, g.Max)
	case n < g.Min:
		return nil, validation("New SetDesiredCapacity value %d is below min value %d for the AutoScalingGroup.", n, g.Min)
	}
	g.Desired = n
	for s.surplus(g) > 0 && s.scaleIn(g, now) != nil {
	}
	s.reconcile(g, now)
	return respond(c, nil), nil // it has no result element
}

// surplus is how many members a group has beyond its desired capacity.
func (s *Server) surplus(g *group) int {
	have := len(g.launches)
	for _, in := range s.members(g) {
		if in.counts() {
			have++
		}
	}
	return have - g.Desired
}

// scaleIn ends one member that is not protected, or returns it to a warm pool
// that reuses; nil when all are protected: "if all instances in an Auto Scaling
// group are protected from termination during scale-in events and a scale-in
// event occurs, its desired capacity is decremented. However, the Auto Scaling
// group can't terminate the required number of instances",
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-instance-protection.html
func (s *Server) scaleIn(g *group, at time.Time) *instance {
	in := s.unprotected(g)
	if in == nil {
		return nil
	}
	if g.Pool != nil && g.Pool.Reuse {
		in.lifecycle = lifecycleWarmed
		return in
	}
	s.retire(g, in, at, "At %s instance %s was selected for termination.")
	return in
}

func (s *Server) unprotected(g *group) *instance {
	for _, in := range s.members(g) {
		if in.lifecycle == lifecycleInService && !in.scaleIn {
			return in
		}
	}
	return nil
}

// ScaleIn lowers the group's desired capacity by one, as a scaling policy
// would, and returns the member that was ended or returned to the warm pool;
// empty when all were protected.
func (s *Server) ScaleIn(name string) (string, error) {
	return s.bySystem(name, func(g *group, now time.Time) *instance {
		if g.Desired > g.Min {
			g.Desired--
		}
		return s.scaleIn(g, now)
	})
}

// Rebalance is the process AZRebalance, which "launches new instances before
// terminating the old ones" and respects scale-in protection:
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/auto-scaling-benefits.html
// It returns the member that it ended, empty when all were protected.
func (s *Server) Rebalance(name string) (string, error) {
	return s.bySystem(name, func(g *group, now time.Time) *instance {
		in := s.unprotected(g)
		if in == nil || slices.Contains(g.Suspended, "AZRebalance") {
			return nil
		}
		s.launch(g.Group, true, now)
		s.retire(g, in, now, "At %s instance %s was taken out of service in response to a difference in the number of instances per availability zone.")
		return in
	})
}

// Replace makes the group replace a member as unhealthy. Scale-in protection
// does not cover that: "instance scale-in protection does not protect ...
// health check replacement if the instance fails health checks".
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-instance-protection.html
func (s *Server) Replace(instanceID string) error {
	s.mu.Lock()
	defer s.release()
	now := time.Now()
	s.advance(now)
	in := s.find(instanceID)
	if in == nil || in.Group == "" || in.leaving() {
		return fmt.Errorf("replace %s: not a member that stays", instanceID)
	}
	s.retire(s.group(in.Group), in, now, "At %s an instance %s was taken out of service in response to a health check.")
	s.advance(now)
	return nil
}

func (s *Server) bySystem(name string, do func(*group, time.Time) *instance) (string, error) {
	s.mu.Lock()
	defer s.release()
	now := time.Now()
	s.advance(now)
	g := s.group(name)
	if g == nil {
		return "", fmt.Errorf("no group %s", name)
	}
	in := do(g, now)
	s.advance(now)
	if in == nil {
		return "", nil
	}
	return in.ID, nil
}

// AddWarmed launches an instance into the group's warm pool, where it runs
// until the group takes it. It returns the instance's id.
func (s *Server) AddWarmed(name string) (string, error) {
	return s.bySystem(name, func(g *group, now time.Time) *instance {
		if g.Pool == nil {
			return nil
		}
		in := s.launch(g.Group, true, now)
		in.lifecycle = lifecycleWarmedPending
		return in
	})
}

// MendWarmPool sets the pool's reuse policy to the default, as PutWarmPool does.
func (s *Server) MendWarmPool(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.group(name); g != nil && g.Pool != nil {
		g.Pool = &WarmPool{MinSize: g.Pool.MinSize}
	}
}

// describeWarmPool has no configuration for a group without a warm pool.
// https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_DescribeWarmPool.html
func (s *Server) describeWarmPool(c call, _ FaultKind, _ time.Time) (any, error) {
	g := s.group(c.form.Get("AutoScalingGroupName"))
	if g == nil {
		return nil, validation("AutoScalingGroup name not found - AutoScalingGroup '%s' not found", c.form.Get("AutoScalingGroupName"))
	}
	result := describeWarmPoolResult{Config: warmPoolOf(g)}
	for _, in := range s.members(g) {
		if in.warmed() {
			result.Instances.Member = append(result.Instances.Member, memberXML(in))
		}
	}
	return respond(c, result), nil
}

func warmPoolOf(g *group) *warmPoolXML {
	if g.Pool == nil {
		return nil
	}
	return &warmPoolXML{MinSize: g.Pool.MinSize, State: "Running", Reuse: g.Pool.Reuse}
}

// describeHooks: https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_DescribeLifecycleHooks.html
func (s *Server) describeHooks(c call, _ FaultKind, _ time.Time) (any, error) {
	g := s.group(c.form.Get("AutoScalingGroupName"))
	if g == nil {
		return nil, validation("AutoScalingGroup name not found - AutoScalingGroup '%s' not found", c.form.Get("AutoScalingGroupName"))
	}
	result := describeHooksResult{}
	if g.TerminateHook > 0 {
		outcome := "CONTINUE"
		if g.HookAbandons {
			outcome = "ABANDON"
		}
		result.Hooks.Member = []hookXML{{
			Name: "Terminate-LC-Hook", Group: g.Name, Transition: "autoscaling:EC2_INSTANCE_TERMINATING",
			Heartbeat: int(g.TerminateHook / time.Second), Result: outcome,
		}}
	}
	return respond(c, result), nil
}

type describeWarmPoolResult struct {
	XMLName   xml.Name            `xml:"DescribeWarmPoolResult"`
	Config    *warmPoolXML        `xml:"WarmPoolConfiguration"`
	Instances members[memberItem] `xml:"Instances"`
}

type warmPoolXML struct {
	MinSize int    `xml:"MinSize"`
	State   string `xml:"PoolState"`
	Reuse   bool   `xml:"InstanceReusePolicy>ReuseOnScaleIn"`
}

type describeHooksResult struct {
	XMLName xml.Name         `xml:"DescribeLifecycleHooksResult"`
	Hooks   members[hookXML] `xml:"LifecycleHooks"`
}

type hookXML struct {
	Name       string `xml:"LifecycleHookName"`
	Group      string `xml:"AutoScalingGroupName"`
	Transition string `xml:"LifecycleTransition"`
	Heartbeat  int    `xml:"HeartbeatTimeout"`
	Result     string `xml:"DefaultResult"`
}

type suspendedXML struct {
	Name   string `xml:"ProcessName"`
	Reason string `xml:"SuspensionReason"`
}

// lifecyclePolicyXML: https://docs.aws.amazon.com/autoscaling/ec2/userguide/instance-lifecycle-policy.html
type lifecyclePolicyXML struct {
	Abandon string `xml:"RetentionTriggers>TerminateHookAbandon"`
}

func (in *instance) warmed() bool { return strings.HasPrefix(in.lifecycle, "Warmed:") }

// counts says that the member counts towards the desired capacity.
func (in *instance) counts() bool { return !in.leaving() && !in.warmed() }
