package endtoend

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/runnerward/runnerward/pkg/runner"
	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/sim/world"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// why says whether the status names this as speaking against a deploy.
func (b *bench) why(part string) bool {
	v := b.view()
	return !v.CanDeploy && slices.ContainsFunc(v.Why, func(s string) bool { return strings.Contains(s, part) })
}

// TestAGroupThatReusesHostsTakesNoWork: nothing is registered, the status says
// why, and once the group is mended the job runs.
func TestAGroupThatReusesHostsTakesNoWork(t *testing.T) {
	pool := &simaws.WarmPool{MinSize: 1, Reuse: true}
	run(t, options{at: -1, group: func(g *simaws.Group) { g.Pool = pool }}, func(t *testing.T, b *bench) {
		b.until("the status names the pool", time.Minute, func() bool { return b.why("returns used hosts to its warm pool") })
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", time.Second), "carol")
		pause(t.Context(), 8*time.Minute)
		if n := b.count("POST", "generatejitconfig"); n != 0 || len(b.state().Runners) != 0 {
			t.Errorf("%d JIT configs and %d runners were made, want none", n, len(b.state().Runners))
		}
		if j := b.state().Jobs[runner.JobID(deploy.JobID)]; j != nil && (j.Authorized != nil || j.Denied != nil) {
			t.Errorf("the job was decided while the group was to be mended: %s", j.Phase())
		}
		b.world.AWS.MendWarmPool(world.NodeGroup)
		b.until("sealed", 30*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })
	})
}

// TestGroupsThatCannotBeLookedAtTakeNoWorkAfterAWhile: never seen, nothing
// begins; not seen lately, deploys go on for ten minutes.
func TestGroupsThatCannotBeLookedAtTakeNoWorkAfterAWhile(t *testing.T) {
	away := simaws.Fault{Action: "DescribeAutoScalingGroups", Kind: simaws.Unauthorized, Count: 1 << 20}
	run(t, options{at: -1, hosts: 4}, func(t *testing.T, b *bench) {
		b.until("ready", 10*time.Minute, func() bool { return b.view().CanDeploy })
		b.world.AWS.Inject(away)
		pause(t.Context(), 5*time.Minute)
		early := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", time.Second), "carol")
		b.until("a deploy within the grace is sealed", 5*time.Minute, func() bool { return b.sealed(early.JobID) != nil })
		b.until("the status names the groups", 10*time.Minute, func() bool { return b.why("the groups of hosts were last looked at") })
		b.kill()
		b.start()
		b.until("a new daemon believes nothing", 2*time.Minute, func() bool { return b.why("the groups of hosts cannot be looked at") })
		late := b.dispatch(world.Deploy("v1.0.1", "bob", "bob", time.Second), "carol")
		pause(t.Context(), 5*time.Minute)
		if n := len(b.state().Runners); n != 1 {
			t.Errorf("%d runners, want the first alone", n)
		}
		b.world.AWS.ClearFaults()
		b.until("sealed once the groups are seen again", 20*time.Minute, func() bool { return b.sealed(late.JobID) != nil })
	})
}

// TestEscalationEndsAHostThatItsGroupHolds: a lifecycle hook holds it for two
// days. EC2 is asked directly after five minutes, and the record lists both.
func TestEscalationEndsAHostThatItsGroupHolds(t *testing.T) {
	run(t, options{at: -1, group: func(g *simaws.Group) { g.TerminateHook = 48 * time.Hour }}, func(t *testing.T, b *bench) {
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", time.Second), "carol")
		b.until("sealed", 15*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })
		r := b.sealed(deploy.JobID)
		gone := r.Terminated.Event
		var calls []string
		for _, q := range gone.Requests {
			calls = append(calls, q.Call)
			if q.RequestID == "" || q.AccessKeyID != world.AccessKeyID {
				t.Errorf("request %+v, want its id and key %s", q, world.AccessKeyID)
			}
		}
		if want := []string{"autoscaling:TerminateInstanceInAutoScalingGroup", "ec2:TerminateInstances"}; !slices.Equal(calls, want) {
			t.Errorf("requests = %v, want %v", calls, want)
		}
		if gone.ActivityID == "" || gone.ReasonCode != "Client.UserInitiatedShutdown" || gone.Omitted != 0 {
			t.Errorf("terminated = %+v, want the group's activity and EC2's reason", gone)
		}
		if waited := gone.Requests[1].At.Sub(r.Teardown.At); waited < 5*time.Minute || waited > 6*time.Minute {
			t.Errorf("EC2 was asked %s after the teardown record, want 5m", waited)
		}
		if h := r.Claimed.Event.Host; h.VPC == "" || len(h.NetworkInterfaces) != 1 || h.Profile != world.Profile || h.PrivateIP == "" {
			t.Errorf("host = %+v, want all that CloudTrail and flow logs name it by", h)
		}
		if r.Overdue != nil {
			t.Error("the teardown was overdue although it was escalated")
		}
	})
}

// TestTerminationProtectionIsTheRunnersProblem: somebody switched it on, and the
// group does not end the host either. The status says what to switch off.
func TestTerminationProtectionIsTheRunnersProblem(t *testing.T) {
	run(t, options{at: -1, onRecord: func(b *bench, rec runner.Record) {
		if e, ok := rec.Event.(runner.Claimed); ok {
			if err := b.world.AWS.Protect(e.Host.InstanceID, true); err != nil {
				b.t.Error(err)
			}
		}
	}}, func(t *testing.T, b *bench) {
		b.world.AWS.Inject(simaws.Fault{Action: "TerminateInstanceInAutoScalingGroup", Kind: simaws.Ignored, Count: 1 << 20})
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", time.Second), "carol")
		b.until("the runner's problem names it", 20*time.Minute, func() bool {
			v := b.view()
			return len(v.Runners) == 1 && strings.Contains(v.Runners[0].Problem, "switch disableApiTermination off")
		})
		id := b.view().Runners[0].Instance
		if err := b.world.AWS.Protect(id, false); err != nil {
			t.Fatal(err)
		}
		b.until("sealed once it is off", 20*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })
		requests := b.sealed(deploy.JobID).Terminated.Event.Requests
		if !slices.ContainsFunc(requests, func(q runner.Request) bool { return q.Code == "OperationNotPermitted" }) {
			t.Errorf("requests = %+v, want the refusals among them", requests)
		}
	})
}

// TestAJobIsNotTakenByZoneRebalancing: the group balances and shrinks while the
// job runs. The host in use stays; a host that was lost to the group's health
// check instead is seen gone without a request of ours.
func TestAJobIsNotTakenByZoneRebalancing(t *testing.T) {
	run(t, options{at: -1, hosts: 3}, func(t *testing.T, b *bench) {
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 5*time.Minute), "carol")
		b.until("started", 10*time.Minute, func() bool { return b.phase(runner.KindStarted) != nil })
		host := b.phase(runner.KindStarted).Claimed.Event.Host.InstanceID
		for range 6 {
			for _, take := range []func(string) (string, error){b.world.AWS.Rebalance, b.world.AWS.ScaleIn} {
				if id, err := take(world.NodeGroup); err != nil || id == host {
					t.Errorf("the group took %s, %v: the host of a running job", id, err)
				}
			}
			pause(t.Context(), 20*time.Second)
		}
		b.until("sealed", 20*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })
		if job, _ := b.world.GitHub.Job(deploy.JobID); job.Conclusion != "success" {
			t.Errorf("GitHub says %s, want success", job.Conclusion)
		}
	})
	run(t, options{at: -1, hosts: 3}, func(t *testing.T, b *bench) {
		b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 5*time.Minute), "carol")
		b.until("started", 10*time.Minute, func() bool { return b.phase(runner.KindStarted) != nil })
		if err := b.world.AWS.Replace(b.phase(runner.KindStarted).Claimed.Event.Host.InstanceID); err != nil {
			t.Fatal(err)
		}
		b.settled(time.Hour)
		gone := b.phase(runner.KindSealed).Terminated.Event
		if n := len(gone.States); n == 0 || gone.States[n-1].State != "terminated" || len(gone.Requests) != 0 || gone.ActivityID == "" {
			t.Errorf("terminated = %+v, want it seen terminated, by the group's activity, and nothing asked for", gone)
		}
	})
}

// running counts instances that cost money.
func (b *bench) running() (n int) {
	for _, in := range b.world.AWS.Instances() {
		if in.State == "running" || in.State == "pending" {
			n++
		}
	}
	return n
}

// TestAHostBootsWhileTheDeploymentWaits: the pool is empty. The host is there
// when the wait timer ends, and the pool is empty again after the deploy.
func TestAHostBootsWhileTheDeploymentWaits(t *testing.T) {
	started := map[bool]time.Duration{}
	for _, ahead := range []bool{false, true} {
		lim := func(l *runner.Limits) {
			if l.Warm, l.PrelaunchFor = 0, time.Nanosecond; ahead { // so short that nothing is ever awaited
				l.PrelaunchFor = time.Hour
			}
		}
		empty := func(g *simaws.Group) { g.Min, g.Desired = 0, 0 }
		run(t, options{at: -1, group: empty, limits: lim}, func(t *testing.T, b *bench) {
			b.environment(func(e *simgithub.Environment) {
				e.ProtectionApps, e.WaitTimer = []string{"runnerward"}, 10*time.Minute
			})
			pause(t.Context(), 5*time.Minute)
			if n := b.running(); n != 0 {
				t.Errorf("%d hosts run while nothing waits, want none", n)
			}
			if v := b.view(); !v.CanDeploy {
				t.Errorf("the status says that nobody can deploy, for %q: a host is started for who does", v.Why)
			}
			deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 10*time.Second), "carol")
			began := time.Now()
			pause(t.Context(), 9*time.Minute)
			if n := b.running(); (n == 1) != ahead {
				t.Errorf("%d hosts run before the timer ends, started ahead %t", n, ahead)
			}
			b.until("started", 10*time.Minute, func() bool { return b.phase(runner.KindStarted) != nil })
			started[ahead] = b.phase(runner.KindStarted).Started.At.Sub(began)
			b.until("sealed", 20*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })
			pause(t.Context(), 3*time.Minute)
			if n := b.running(); n != 0 {
				t.Errorf("%d hosts run after the deploy, want none: nobody needs one", n)
			}
		})
	}
	t.Logf("from the trigger to the start of the job, timer 10m: %s, with the host started ahead %s", started[false], started[true])
	if saved := started[false] - started[true]; saved < 30*time.Second {
		t.Errorf("starting ahead saved %s, want at least the boot of 40s less a look", saved)
	}
}

// TestWarmHostsAreKeptReady: two hosts wait at all times, whatever is in use.
func TestWarmHostsAreKeptReady(t *testing.T) {
	lim := func(l *runner.Limits) { l.Warm = 2 }
	run(t, options{at: -1, limits: lim, group: func(g *simaws.Group) { g.Min, g.Desired = 0, 0 }}, func(t *testing.T, b *bench) {
		waiting := func() (n int) {
			for _, h := range b.view().Hosts {
				if h.Vetted {
					n++
				}
			}
			return n
		}
		b.until("two hosts wait", 5*time.Minute, func() bool { return waiting() == 2 })
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 4*time.Minute), "carol")
		b.until("two wait beside the one in use", 6*time.Minute, func() bool { return b.phase(runner.KindStarted) != nil && waiting() == 2 })
		b.until("sealed", 20*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })
		pause(t.Context(), 5*time.Minute)
		if n := b.running(); n != 2 {
			t.Errorf("%d hosts run in the end, want the two warm ones", n)
		}
	})
}

// TestAHostOfNoUseIsReplaced: an instance that never joins, and one whose node
// somebody cordoned, serve nobody and stay. Ten minutes later another host is
// ready in their place, the status names them, and no more are started.
func TestAHostOfNoUseIsReplaced(t *testing.T) {
	for name, spoil := range map[string]func(b *bench, in simaws.Instance) error{
		"never joined": func(b *bench, in simaws.Instance) error {
			b.world.Cluster.RemoveNode(in.PrivateDNS)
			return nil
		},
		"cordoned": func(b *bench, in simaws.Instance) error {
			nodes := b.world.Cluster.Client().CoreV1().Nodes()
			node, err := nodes.Get(b.t.Context(), in.PrivateDNS, metav1.GetOptions{})
			if err != nil {
				return err
			}
			node.Spec.Unschedulable = true
			_, err = nodes.Update(b.t.Context(), node, metav1.UpdateOptions{})
			return err
		},
	} {
		lim := func(l *runner.Limits) { l.Warm = 1 }
		run(t, options{at: -1, limits: lim, group: func(g *simaws.Group) { g.Min, g.Desired, g.Max = 0, 0, 6 }}, func(t *testing.T, b *bench) {
			ready := func() bool {
				return slices.ContainsFunc(b.view().Hosts, func(h supervisor.HostView) bool { return h.Vetted })
			}
			b.until(name+": a host waits", 5*time.Minute, ready)
			in := b.world.AWS.Instances()[0]
			if err := spoil(b, in); err != nil {
				t.Fatal(err)
			}
			pause(t.Context(), 9*time.Minute)
			if n := b.running(); n != 1 {
				t.Errorf("%s: %d hosts run within the grace, want one", name, n)
			}
			b.until(name+": another host waits", 8*time.Minute, ready)
			if v := b.view(); !slices.ContainsFunc(v.Warnings, func(w string) bool { return strings.Contains(w, in.ID) }) {
				t.Errorf("%s: warnings = %q, want %s among them", name, v.Warnings, in.ID)
			}
			deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", time.Second), "carol")
			b.until(name+": sealed", 20*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })
			pause(t.Context(), 30*time.Minute)
			if n := b.running(); n != 2 {
				t.Errorf("%s: %d hosts run in the end, want the warm one and the one of no use", name, n)
			}
		})
	}
}

// TestNoPodBeforeItsHostIsProtected: protection is refused for a while. The pod
// waits for it; and a host that its group takes meanwhile is given up at once.
func TestNoPodBeforeItsHostIsProtected(t *testing.T) {
	run(t, options{at: -1}, func(t *testing.T, b *bench) {
		b.world.AWS.Inject(simaws.Fault{Action: "SetInstanceProtection", Kind: simaws.Unauthorized, Count: 5})
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", time.Second), "carol")
		b.until("sealed", 20*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })
		var protected, created time.Time
		refused := 0
		for _, r := range b.world.AWS.Requests() {
			switch {
			case r.Action != "SetInstanceProtection":
			case r.Code != "":
				refused++
			case protected.IsZero():
				protected = r.At
			}
		}
		for _, r := range b.world.Cluster.Requests() {
			if r.Verb == "create" && r.Resource == "pods" && created.IsZero() {
				created = r.Time
			}
		}
		if refused != 5 || protected.IsZero() || created.Before(protected) {
			t.Errorf("%d refusals, protected at %s, pod created at %s, want five and the pod last", refused, protected, created)
		}
	})
	taken := atomic.Bool{}
	run(t, options{at: -1, hosts: 3, group: func(g *simaws.Group) { g.TerminateHook = 10 * time.Minute },
		onRecord: func(b *bench, rec runner.Record) {
			if e, ok := rec.Event.(runner.Claimed); ok && taken.CompareAndSwap(false, true) {
				if err := b.world.AWS.Replace(e.Host.InstanceID); err != nil {
					b.t.Error(err)
				}
			}
		}}, func(t *testing.T, b *bench) {
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", time.Second), "carol")
		b.until("the deploy is sealed on another host", 10*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })
		lost := b.ended(runner.OutcomeRetired)
		if lost == nil || lost.Retired.Event.Cause != runner.CauseHostLost || lost.Bound != nil || lost.Retired.At.Sub(lost.Claimed.At) > time.Minute {
			t.Errorf("the runner on the host that was taken = %+v, want it given up as lost within the minute", lost)
		}
	})
}
