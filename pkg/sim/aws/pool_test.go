package simaws

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// grouped is a group with a hook and a warm pool, two members running.
func grouped(t *testing.T, change func(*Group)) (*Server, []Instance) {
	t.Helper()
	s, g := New(config()), pool()
	g.Pool = &WarmPool{MinSize: 1}
	if change != nil {
		change(&g)
	}
	s.AddGroup(g)
	pass(t, 30*time.Second)
	return s, s.Instances()
}

func (s *Server) lifecycleOf(id string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find(id).lifecycle
}

func TestSizesAndProtectionHaveTheirLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, in := grouped(t, nil)
		warmed, err := s.AddWarmed("pool")
		if err != nil {
			t.Fatal(err)
		}
		pass(t, 30*time.Second)
		fifty := []string{"AutoScalingGroupName", "pool", "ProtectedFromScaleIn", "true"}
		for i := range 51 {
			fifty = append(fifty, "InstanceIds.member."+strconv.Itoa(i+1), in[0].ID)
		}
		size := func(n string) []string {
			return scalingParams("SetDesiredCapacity", "AutoScalingGroupName", "pool", "DesiredCapacity", n)
		}
		protect := func(id string) []string {
			return scalingParams("SetInstanceProtection", "AutoScalingGroupName", "pool", "ProtectedFromScaleIn", "true", "InstanceIds.member.1", id)
		}
		for name, tc := range map[string]struct {
			params []string
			code   string
			says   string
		}{
			"above the maximum":       {size("5"), "ValidationError", "New SetDesiredCapacity value 5 is above max value 4"},
			"below the minimum":       {size("1"), "ValidationError", "New SetDesiredCapacity value 1 is below min value 2"},
			"no number":               {size("two"), "ValidationError", "desiredCapacity"},
			"no size":                 {scalingParams("SetDesiredCapacity", "AutoScalingGroupName", "pool"), "ValidationError", "must not be null"},
			"size of no group":        {scalingParams("SetDesiredCapacity", "AutoScalingGroupName", "x", "DesiredCapacity", "2"), "ValidationError", "not found"},
			"protect more than fifty": {scalingParams("SetInstanceProtection", fifty...), "LimitExceeded", "50"},
			"protect in a warm pool":  {protect(warmed), "ValidationError", "is not in InService"},
			"protect a stranger":      {protect("i-0ffffffffffffffff"), "ValidationError", "is not part of Auto Scaling group pool"},
			"end in a warm pool":      {scalingParams("TerminateInstanceInAutoScalingGroup", "InstanceId", warmed, "ShouldDecrementDesiredCapacity", "false"), "ValidationError", "in a warm pool"},
			"pool of no group":        {scalingParams("DescribeWarmPool", "AutoScalingGroupName", "x"), "ValidationError", "not found"},
			"hooks of no group":       {scalingParams("DescribeLifecycleHooks", "AutoScalingGroupName", "x"), "ValidationError", "not found"},
		} {
			if got := do(t, s, "autoscaling", tc.params...); got.code != tc.code || !strings.Contains(got.body, tc.says) {
				t.Errorf("%s: answer = %d %s %.300s, want %s that says %q", name, got.status, got.code, got.body, tc.code, tc.says)
			}
		}
		if got := do(t, s, "autoscaling", size("4")...); got.status != 200 {
			t.Errorf("size 4 = %d %s, want 200", got.status, got.code)
		}
		pass(t, time.Minute)
		if n := len(s.Instances()); n != 5 { // two, one warmed, two more
			t.Errorf("%d instances, want 5", n)
		}
		if got := do(t, s, "ec2", ec2Params("DescribeSubnets", "SubnetId.1", "subnet-none")...); got.code != "InvalidSubnetID.NotFound" {
			t.Errorf("an unknown subnet = %s, want InvalidSubnetID.NotFound", got.code)
		}
	})
}

// TestWhatTheSystemTakes: it spares protected members, and health replacement
// spares none.
func TestWhatTheSystemTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, in := grouped(t, func(g *Group) { g.Min, g.ProtectsNew = 0, true })
		for name, take := range map[string]func(string) (string, error){"rebalance": s.Rebalance, "scale in": s.ScaleIn} {
			if id, err := take("pool"); err != nil || id != "" {
				t.Errorf("%s took %q, %v, want nothing: all are protected", name, id, err)
			}
		}
		if err := s.Replace(in[0].ID); err != nil {
			t.Fatal(err)
		}
		pass(t, 2*time.Minute)
		if now, _ := s.Instance(in[0].ID); now.State != stateTerminated {
			t.Errorf("an unhealthy member is %s, want terminated although protected", now.State)
		}
		if err := s.Replace(in[0].ID); err == nil {
			t.Error("a member that left was replaced again")
		}
		if _, err := s.ScaleIn("none"); err == nil {
			t.Error("a group that is not was made smaller")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s, in := grouped(t, func(g *Group) { g.Min, g.Pool.Reuse = 0, true })
		id, err := s.ScaleIn("pool")
		if err != nil || s.lifecycleOf(id) != lifecycleWarmed {
			t.Errorf("scale in left %s %s, %v, want it in the pool that reuses", id, s.lifecycleOf(id), err)
		}
		rebalanced, err := s.Rebalance("pool")
		if ids := []string{in[0].ID, in[1].ID}; err != nil || rebalanced == id || !slices.Contains(ids, rebalanced) {
			t.Errorf("rebalance took %s, %v, want the other member", rebalanced, err)
		}
		s.MendWarmPool("pool")
		if got := do(t, s, "autoscaling", scalingParams("DescribeWarmPool", "AutoScalingGroupName", "pool")...); !strings.Contains(got.body, "<ReuseOnScaleIn>false<") || !strings.Contains(got.body, id) {
			t.Errorf("the pool = %s, want it mended, with %s in it", got.body, id)
		}
	})
}

// TestARetainedInstanceRunsUntilItIsEnded, through its group or by EC2.
func TestARetainedInstanceRunsUntilItIsEnded(t *testing.T) {
	for name, end := range map[string]func(id string) []string{
		"autoscaling": func(id string) []string {
			return scalingParams("TerminateInstanceInAutoScalingGroup", "InstanceId", id, "ShouldDecrementDesiredCapacity", "false")
		},
		"ec2": func(id string) []string { return ec2Params("TerminateInstances", "InstanceId.1", id) },
	} {
		synctest.Test(t, func(t *testing.T) {
			s, in := grouped(t, func(g *Group) { g.TerminateHook, g.HookAbandons, g.Retains = time.Minute, true, true })
			if err := s.Replace(in[0].ID); err != nil {
				t.Fatal(err)
			}
			pass(t, time.Hour)
			if now, _ := s.Instance(in[0].ID); now.State != stateRunning || s.lifecycleOf(in[0].ID) != lifecycleRetained {
				t.Errorf("%s: the instance is %s, %s, want it running and retained", name, now.State, s.lifecycleOf(in[0].ID))
			}
			if n := len(s.Instances()); n != 3 {
				t.Errorf("%s: %d instances were launched, want 3: a retained one is not counted", name, n)
			}
			if got := do(t, s, name, end(in[0].ID)...); got.status != 200 {
				t.Errorf("%s: ending it = %d %s, want 200", name, got.status, got.code)
			}
			pass(t, 5*time.Minute)
			if now, _ := s.Instance(in[0].ID); now.State != stateTerminated || now.Group != "" {
				t.Errorf("%s: the instance is %s in group %q, want it terminated and out", name, now.State, now.Group)
			}
		})
	}
}

func TestASuspendedLaunchRefillsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, in := grouped(t, func(g *Group) { g.Suspended = []string{"Launch"} })
		if err := s.Replace(in[0].ID); err != nil {
			t.Fatal(err)
		}
		pass(t, time.Hour)
		if n := len(s.Instances()); n != 2 {
			t.Errorf("%d instances, want 2: launching is suspended", n)
		}
	})
}
