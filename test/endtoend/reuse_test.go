package endtoend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/runnerward/runnerward/pkg/runner"
	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/sim/world"
)

// uses counts, at the kubelets and not in the log, which runner pods ran on
// which node. A node's name is its address, which no two instances share.
type uses struct {
	mu   sync.Mutex
	pods map[string]map[string]bool
}

func (u *uses) ran(pod, node string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.pods == nil {
		u.pods = map[string]map[string]bool{}
	}
	if u.pods[node] == nil {
		u.pods[node] = map[string]bool{}
	}
	u.pods[node][pod] = true
}

// count is how many hosts ran something, and the most runners that one ran.
func (u *uses) count() (hosts, most int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, pods := range u.pods {
		most = max(most, len(pods))
	}
	return len(u.pods), most
}

// once fails the test if any host ran two runners, or if its record says so.
func (b *bench) once(u *uses, what string) {
	b.t.Helper()
	hosts, most := u.count()
	b.t.Logf("%s: %d hosts ran a runner, the most on one host is %d", what, hosts, most)
	if hosts == 0 || most != 1 {
		b.t.Errorf("%s: %d runners on one host, want 1", what, most)
	}
	b.singleUse(what)
}

// settled waits until every runner is sealed, and looks at the end once more.
func (b *bench) settled(limit time.Duration) {
	b.t.Helper()
	b.poll("every host is gone and every runner sealed", limit, 10*time.Second, func() bool {
		return len(b.state().Runners) > 0 && b.quiet()
	})
}

// keepAlive spoils every request to end a host until the faults are cleared.
func (b *bench) keepAlive(kind simaws.FaultKind) {
	for _, action := range []string{"TerminateInstanceInAutoScalingGroup", "TerminateInstances"} {
		b.world.AWS.Inject(simaws.Fault{Action: action, Kind: kind, Count: 1 << 20})
	}
}

// deployAll sends so many deploys, one after the other, each once the one before
// has its host.
func (b *bench) deployAll(n int) {
	b.t.Helper()
	for i := range n {
		deploy := b.dispatch(world.Deploy(fmt.Sprintf("v1.0.%d", i), "bob", "bob", 10*time.Second), "carol")
		b.poll("the job is over", time.Hour, 5*time.Second, func() bool {
			job, _ := b.world.GitHub.Job(deploy.JobID)
			return job.Conclusion != ""
		})
	}
}

// TestAHostWhoseEndIsRefusedOrNeverComesIsNeverUsedAgain: for half an hour
// nothing ends a host, neither by its group nor directly. Deploys go on with
// what is left.
func TestAHostWhoseEndIsRefusedOrNeverComesIsNeverUsedAgain(t *testing.T) {
	for name, kind := range map[string]simaws.FaultKind{
		"terminate refused": simaws.Unauthorized, "terminate accepted and never happening": simaws.Ignored,
		"a scaling activity in progress for ever": simaws.InProgress, "terminate throttled": simaws.Throttle,
	} {
		t.Run(name, func(t *testing.T) {
			u := &uses{}
			run(t, options{at: -1, hosts: 5, onPod: u.ran}, func(t *testing.T, b *bench) {
				b.keepAlive(kind)
				b.deployAll(3)
				pause(t.Context(), 30*time.Minute)
				alive := 0
				for _, r := range b.state().Runners {
					if in, _ := b.world.AWS.Instance(r.Claimed.Event.Host.InstanceID); in.State == "running" {
						alive++
					}
					if r.Terminated != nil {
						t.Errorf("host %s is recorded as terminated and runs", r.Claimed.Event.Host.InstanceID)
					}
				}
				if alive != 3 {
					t.Errorf("%d used hosts run, want 3: the fault does not bite", alive)
				}
				b.world.AWS.ClearFaults()
				b.settled(3 * time.Hour)
				b.once(u, name)
			})
		})
	}
}

// lose takes a host away in some way.
type lose func(ctx context.Context, b *bench, instance, node string) error

func replaced(_ context.Context, b *bench, instance, _ string) error {
	return b.world.AWS.Replace(instance)
}

func nodeDeleted(ctx context.Context, b *bench, _, node string) error {
	return b.world.Cluster.Client().CoreV1().Nodes().Delete(ctx, node, metav1.DeleteOptions{})
}

func nodeRegisteredAgain(ctx context.Context, b *bench, instance, node string) error {
	return errors.Join(nodeDeleted(ctx, b, instance, node), b.world.Rejoin(instance))
}

// TestAHostThatIsTakenAwayIsNeverUsedAgain takes it at every phase of its use,
// as soon as the phase is on record. There are fewer hosts than jobs and none
// can be ended, so that for ten minutes a host that came back is there to take:
// running, in service, and its node as good as new.
func TestAHostThatIsTakenAwayIsNeverUsedAgain(t *testing.T) {
	for what, take := range map[string]lose{
		"instance replaced by the group": replaced, "node object deleted by a third party": nodeDeleted,
		"node registered again with the same name": nodeRegisteredAgain,
	} {
		for _, phase := range []runner.Kind{runner.KindClaimed, runner.KindBound, runner.KindReleased, runner.KindStarted, runner.KindTeardown} {
			t.Run(what+" when "+string(phase), func(t *testing.T) {
				u, taken := &uses{}, make(chan error, 1)
				first := sync.Once{}
				seize := func(b *bench, rec runner.Record) {
					if rec.Event.Kind() != phase {
						return
					}
					first.Do(func() {
						chain := rec.Event.Chain()
						go func() { taken <- b.seize(chain, take) }()
					})
				}
				run(t, options{at: -1, hosts: 2, onPod: u.ran, onRecord: seize}, func(t *testing.T, b *bench) {
					b.keepAlive(simaws.Unauthorized)
					for i := range 3 {
						b.dispatch(world.Deploy(fmt.Sprintf("v1.0.%d", i), "bob", "bob", 10*time.Second), "carol")
					}
					pause(t.Context(), 10*time.Minute)
					b.world.AWS.ClearFaults()
					b.poll("all jobs are over", time.Hour, 5*time.Second, func() bool {
						return !slices.ContainsFunc(b.world.GitHub.Jobs(), func(j simgithub.JobState) bool { return j.Conclusion == "" })
					})
					b.settled(3 * time.Hour)
					select {
					case err := <-taken:
						if err != nil {
							t.Errorf("the host was not taken: %v", err)
						}
					default:
						t.Error("the host was not taken")
					}
					b.once(u, what+" when "+string(phase))
				})
			})
		}
	}
}

// seize takes the host of the runner with this chain.
func (b *bench) seize(chain runner.Chain, take lose) error {
	for name, r := range b.state().Runners {
		if h := r.Claimed.Event.Host; runner.RunnerChain(name) == chain {
			return take(b.t.Context(), b, h.InstanceID, h.NodeName)
		}
	}
	return fmt.Errorf("no runner has chain %s", chain)
}

// TestAWarmHostThatIsTakenAwayBeforeItsClaimServesNobodyTwice: between two looks
// at the pool the node is another object, or the instance another machine.
func TestAWarmHostThatIsTakenAwayBeforeItsClaimServesNobodyTwice(t *testing.T) {
	for what, take := range map[string]lose{"replaced": replaced, "node deleted": nodeDeleted, "node registered again": nodeRegisteredAgain} {
		t.Run(what, func(t *testing.T) {
			u := &uses{}
			run(t, options{at: -1, hosts: 3, onPod: u.ran}, func(t *testing.T, b *bench) {
				b.until("hosts wait", 10*time.Minute, func() bool { return len(b.view().Hosts) == 3 })
				for _, h := range b.view().Hosts[:2] {
					if err := take(t.Context(), b, h.Instance, h.Node); err != nil {
						t.Fatal(err)
					}
				}
				b.deployAll(3)
				b.settled(3 * time.Hour)
				b.once(u, "warm host "+what)
			})
		})
	}
}

// TestCrashAtEveryStepNeverUsesAHostTwice: the daemon dies before or after each
// operation of two deploys, while the first request to end a host is refused
// and the node of a used host registers again and again under its old name. By
// default every fifteenth step; see [share].
func TestCrashAtEveryStepNeverUsesAHostTwice(t *testing.T) {
	every, first := share(t, 15)
	for i, f := range flavours {
		if !f.crash {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			steps, hosts := 0, 0
			for at := (i + first) % every; ; at += every {
				u, fired := &uses{}, ""
				ok := t.Run(fmt.Sprint(at), func(t *testing.T) {
					run(t, options{at: at, flavour: f, hosts: 4, onPod: u.ran}, func(t *testing.T, b *bench) { fired = b.hauntedDeploys(u) })
				})
				if !ok {
					t.Fatalf("step %d (%s), %s", at, fired, f.name)
				}
				n, _ := u.count()
				hosts += n
				if fired == "" {
					break
				}
				steps++
			}
			t.Logf("%s: %d steps, %d hosts ran a runner, none ran two", f.name, steps, hosts)
			if steps*every < 60 {
				t.Errorf("only %d steps: the crashes do not reach the daemon", steps)
			}
		})
	}
}

// hauntedDeploys runs two deploys whose used nodes come back, and says at which
// operation the daemon died.
func (b *bench) hauntedDeploys(u *uses) string {
	b.t.Helper()
	b.world.AWS.Inject(simaws.Fault{Action: "TerminateInstanceInAutoScalingGroup", Kind: simaws.Unauthorized, Count: 2})
	ctx, stop := context.WithCancel(b.t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for pause(ctx, 7*time.Second) {
			b.haunt(ctx, u)
		}
	}()
	b.deployAll(2)
	stop()
	<-ended
	b.settled(3 * time.Hour)
	b.faults.mu.Lock()
	fired := b.faults.fired
	b.faults.mu.Unlock()
	if _, most := u.count(); most != 1 {
		b.t.Errorf("after %q: %d runners on one host, want 1", fired, most)
	}
	b.singleUse(fired)
	return fired
}

// haunt registers the node of every used host again whose instance still runs
// and whose pod is gone.
func (b *bench) haunt(ctx context.Context, u *uses) {
	api := b.world.Cluster.Client().CoreV1()
	pods, err := api.Pods(world.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return
	}
	busy := map[string]bool{}
	for _, p := range pods.Items {
		busy[p.Spec.NodeName] = true
	}
	for _, in := range b.world.AWS.Instances() {
		u.mu.Lock()
		used := len(u.pods[in.PrivateDNS]) > 0
		u.mu.Unlock()
		if !used || busy[in.PrivateDNS] || in.State != "running" {
			continue
		}
		if api.Nodes().Delete(ctx, in.PrivateDNS, metav1.DeleteOptions{}) == nil {
			_ = b.world.Rejoin(in.ID) // it may have ended meanwhile
		}
	}
}
