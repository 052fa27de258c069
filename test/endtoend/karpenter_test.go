package endtoend

import (
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/runnerward/runnerward/pkg/hosts"
	"github.com/runnerward/runnerward/pkg/runner"
	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
	simkarpenter "github.com/runnerward/runnerward/pkg/sim/karpenter"
	"github.com/runnerward/runnerward/pkg/sim/world"
)

func asItIs(*hosts.KarpenterOptions) {}

func oneWarm(l *runner.Limits) { l.Warm = 1 }

const (
	askedKarpenter = "karpenter.sh/nodeclaims:delete"
	askedEC2       = "ec2:TerminateInstances"
)

// claims is somebody else's client of NodeClaims. done must be called in the end.
func (b *bench) claims() (api dynamic.ResourceInterface, done func()) {
	b.t.Helper()
	transport := &http.Transport{DialContext: b.kube.DialContext}
	client, err := dynamic.NewForConfig(&rest.Config{Host: "http://cluster.sim", BearerToken: clusterToken, QPS: -1, Transport: transport})
	if err != nil {
		b.t.Fatal(err)
	}
	gvr := schema.GroupVersionResource{Group: "karpenter.sh", Version: "v1", Resource: "nodeclaims"}
	return client.Resource(gvr), transport.CloseIdleConnections
}

func (b *bench) listClaims() []unstructured.Unstructured {
	b.t.Helper()
	api, done := b.claims()
	defer done()
	list, err := api.List(b.t.Context(), metav1.ListOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	return list.Items
}

func (b *bench) deleteClaim(name string) {
	api, done := b.claims()
	defer done()
	if err := api.Delete(b.t.Context(), name, metav1.DeleteOptions{}); err != nil {
		b.t.Error(err)
	}
}

// created counts the NodeClaims that the daemon made.
func (b *bench) created() (n int) {
	for _, r := range b.world.Karpenter.API.Requests() {
		if r.Verb == "create" && r.Resource == "nodeclaims" && !r.DryRun && r.Code == http.StatusOK {
			n++
		}
	}
	return n
}

func calls(requests []runner.Request) []string {
	var out []string
	for _, q := range requests {
		out = append(out, q.Call)
	}
	return out
}

// TestADeployOnAHostOfKarpenter: nothing runs before a job waits, one NodeClaim is
// made for it, vetted, used and deleted, and its end is EC2's word. The
// audit trails of the cluster can name it.
func TestADeployOnAHostOfKarpenter(t *testing.T) {
	run(t, options{at: -1, karpenter: asItIs}, func(t *testing.T, b *bench) {
		pause(t.Context(), 5*time.Minute)
		if v := b.view(); b.created() != 0 || !v.CanDeploy {
			t.Errorf("%d NodeClaims before anything waits, status %q, want none and nothing against a deploy", b.created(), v.Why)
		}
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", time.Minute), "carol")
		b.until("started", 10*time.Minute, func() bool { return b.phase(runner.KindStarted) != nil })
		live := b.listClaims()
		if len(live) != 1 {
			t.Fatalf("%d NodeClaims for one job, want 1", len(live))
		}
		claim := live[0]
		b.until("sealed", 30*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })
		r := b.sealed(deploy.JobID)
		gone, host := r.Terminated.Event, r.Claimed.Event.Host
		if host.NodeClaim != claim.GetName() || host.ProviderID != nested(claim, "status", "providerID") {
			t.Errorf("host = %+v, want it of %s", host, claim.GetName())
		}
		if !slices.Equal(calls(gone.Requests), []string{askedKarpenter}) || gone.Requests[0].RequestID == "" || gone.ActivityID != string(claim.GetUID()) {
			t.Errorf("requests = %+v of activity %s, want one to delete %s that the cluster's audit log names", gone.Requests, gone.ActivityID, claim.GetUID())
		}
		if last := gone.States[len(gone.States)-1].State; last != "terminated" || !gone.NodeGone {
			t.Errorf("terminated = %+v, want EC2 to have said so", gone)
		}
		b.until("its NodeClaim is gone", 5*time.Minute, func() bool { return len(b.listClaims()) == 0 })
		if n := b.running(); n != 0 || b.created() != 1 {
			t.Errorf("%d hosts run after %d NodeClaims, want none after one", n, b.created())
		}
		for _, r := range b.world.AWS.Requests() {
			if r.Action == "TerminateInstances" {
				t.Error("EC2 was asked to end a host that Karpenter ended")
			}
		}
	})
}

func nested(obj unstructured.Unstructured, path ...string) string {
	s, _, _ := unstructured.NestedString(obj.Object, path...)
	return s
}

// TestKarpenterIsDownWhileAHostEnds: EC2 is asked after five minutes, the node's
// finalizer does not hold the seal up, and the NodeClaim goes once Karpenter is
// back.
func TestKarpenterIsDownWhileAHostEnds(t *testing.T) {
	run(t, options{at: -1, karpenter: asItIs}, func(t *testing.T, b *bench) {
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", time.Minute), "carol")
		b.until("started", 10*time.Minute, func() bool { return b.phase(runner.KindStarted) != nil })
		b.world.Karpenter.Controller.SetDown(true)
		b.until("sealed", 20*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })
		r := b.sealed(deploy.JobID)
		gone := r.Terminated.Event
		if !slices.Equal(calls(gone.Requests), []string{askedKarpenter, askedEC2}) || !gone.NodeGone {
			t.Errorf("terminated = %+v, want Karpenter asked, then EC2, and the node gone", gone)
		}
		if waited := gone.Requests[1].At.Sub(r.Teardown.At); waited < 5*time.Minute || waited > 6*time.Minute {
			t.Errorf("EC2 was asked %s after the teardown record, want 5m", waited)
		}
		if q := gone.Requests[1]; q.AccessKeyID != world.AccessKeyID || q.Session == "" {
			t.Errorf("request = %+v, want who made it", q)
		}
		if left := b.listClaims(); len(left) != 1 || left[0].GetDeletionTimestamp() == nil {
			t.Errorf("NodeClaims = %v, want the one that Karpenter's finalizer keeps", left)
		}
		if r.Overdue != nil {
			t.Error("the teardown was overdue although it was escalated")
		}
		b.world.Karpenter.Controller.SetDown(false)
		b.until("the NodeClaim is gone", 5*time.Minute, func() bool { return len(b.listClaims()) == 0 })
	})
}

// TestNodeClaimsThatCannotBeReadKeepNoHostAlive: the NodeClaims cannot be read at
// all. EC2 is asked once the escalation is due, on the word of its own tags.
func TestNodeClaimsThatCannotBeReadKeepNoHostAlive(t *testing.T) {
	run(t, options{at: -1, karpenter: asItIs}, func(t *testing.T, b *bench) {
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", time.Minute), "carol")
		b.until("started", 10*time.Minute, func() bool { return b.phase(runner.KindStarted) != nil })
		b.world.Karpenter.API.Deny("list", "nodeclaims", true)
		b.until("EC2 is asked", 20*time.Minute, func() bool {
			return slices.ContainsFunc(b.world.AWS.Requests(), func(r simaws.Request) bool { return r.Action == "TerminateInstances" })
		})
		b.world.Karpenter.API.Deny("list", "nodeclaims", false)
		b.until("sealed", 20*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })
	})
}

// TestAHostThatNeverJoinsIsReplaced, with a bound: no more machines than may be
// at once, and longer and longer between two of them.
func TestAHostThatNeverJoinsIsReplaced(t *testing.T) {
	atMostTwo := func(o *hosts.KarpenterOptions) { o.Max = 2 }
	run(t, options{at: -1, karpenter: atMostTwo, limits: oneWarm}, func(t *testing.T, b *bench) {
		b.world.Karpenter.KeepFromJoining(true)
		most := 0
		for range 120 {
			most = max(most, b.running())
			pause(t.Context(), 30*time.Second)
		}
		if n := b.created(); n < 4 || n > 12 || most > 2 {
			t.Errorf("%d NodeClaims within the hour and %d machines at once, want a handful and at most two", n, most)
		}
		if v := b.view(); !slices.ContainsFunc(append(v.Warnings, v.Why...), func(w string) bool { return strings.Contains(w, "became no node") }) {
			t.Errorf("status = %q, %q, want it to say that NodeClaims come to nothing", v.Why, v.Warnings)
		}
		b.world.Karpenter.KeepFromJoining(false)
		b.until("a host waits once hosts join", 40*time.Minute, func() bool { return b.view().CanDeploy })
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", time.Second), "carol")
		b.until("sealed", 40*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })
		b.until("the warm host is all that is left", 30*time.Minute, func() bool { return len(b.listClaims()) == 1 && b.running() == 1 })
	})
}

// TestNoCapacity: Karpenter deletes such a claim at once. The next ones come later
// and later, and the first that is launched ends that.
func TestNoCapacity(t *testing.T) {
	run(t, options{at: -1, karpenter: asItIs, limits: oneWarm}, func(t *testing.T, b *bench) {
		b.world.Karpenter.Refuse(simkarpenter.ErrNoCapacity)
		pause(t.Context(), time.Hour)
		if n := b.created(); n < 5 || n > 20 {
			t.Errorf("%d NodeClaims within the hour, want a few", n)
		}
		b.world.Karpenter.Refuse(nil)
		b.until("a host waits", 15*time.Minute, func() bool { return b.view().CanDeploy })
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", time.Second), "carol")
		b.until("sealed", 30*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })
	})
}

// TestSomebodyDeletesTheNodeClaimUnderAJob. With a grace that outlasts the job
// Karpenter waits for it, and the host is not taken for a silent one meanwhile;
// with a shorter grace the job is lost. Either way the host ends and the record is
// whole.
func TestSomebodyDeletesTheNodeClaimUnderAJob(t *testing.T) {
	for name, tc := range map[string]struct {
		grace      time.Duration
		conclusion string
	}{
		"the grace outlasts the job": {2 * time.Hour, "success"},
		"the grace is short":         {2 * time.Minute, "failure"},
	} {
		short := func(o *hosts.KarpenterOptions) { o.TerminationGracePeriod = tc.grace }
		run(t, options{at: -1, karpenter: short}, func(t *testing.T, b *bench) {
			deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 25*time.Minute), "carol")
			b.until("started", 10*time.Minute, func() bool { return b.phase(runner.KindStarted) != nil })
			b.deleteClaim(b.phase(runner.KindStarted).Claimed.Event.Host.NodeClaim)
			b.until(name+": sealed", time.Hour, func() bool { return b.sealed(deploy.JobID) != nil })
			job, _ := b.world.GitHub.Job(deploy.JobID)
			gone := b.sealed(deploy.JobID).Terminated.Event
			if job.Conclusion != tc.conclusion || !gone.PodGone || !gone.NodeGone || gone.States[len(gone.States)-1].State != "terminated" {
				t.Errorf("%s: GitHub says %s, want %s; terminated = %+v", name, job.Conclusion, tc.conclusion, gone)
			}
			if len(gone.Requests) != 0 {
				t.Errorf("%s: requests = %+v, want none: somebody else asked", name, gone.Requests)
			}
			b.until(name+": nothing is left", 10*time.Minute, func() bool { return len(b.listClaims()) == 0 && b.running() == 0 })
		})
	}
}

// TestANodeClaimThatIsTakenBeforeItsPod: the host is given up as lost before
// anything runs on it, and the job gets another one.
func TestANodeClaimThatIsTakenBeforeItsPod(t *testing.T) {
	taken := atomic.Bool{}
	run(t, options{at: -1, karpenter: asItIs, onRecord: func(b *bench, rec runner.Record) {
		if e, ok := rec.Event.(runner.Claimed); ok && taken.CompareAndSwap(false, true) {
			b.deleteClaim(e.Host.NodeClaim)
		}
	}}, func(t *testing.T, b *bench) {
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", time.Second), "carol")
		b.until("sealed on another host", 20*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })
		lost := b.ended(runner.OutcomeRetired)
		if lost == nil || lost.Retired.Event.Cause != runner.CauseHostLost || lost.Bound != nil {
			t.Errorf("the runner on the host that was taken = %+v, want it given up as lost", lost)
		}
	})
}

// TestNoRightToMakeNodeClaimsTakesNoWork: the status says what to mend, and no
// NodeClaim is made.
func TestNoRightToMakeNodeClaimsTakesNoWork(t *testing.T) {
	run(t, options{at: -1, karpenter: asItIs}, func(t *testing.T, b *bench) {
		b.world.Karpenter.API.Deny("create", "nodeclaims", true)
		b.until("the status names the right", 5*time.Minute, func() bool { return b.why("may not create nodeclaims.karpenter.sh") })
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", time.Second), "carol")
		pause(t.Context(), 4*time.Minute)
		if n := len(b.state().Runners); n != 0 || b.created() != 0 {
			t.Errorf("%d runners, %d NodeClaims, want none", n, b.created())
		}
		b.world.Karpenter.API.Deny("create", "nodeclaims", false)
		b.until("sealed", 30*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })
	})
}

// TestTroubleAtEveryCallForAHostOfKarpenter: each kind of call fails, with and
// without effect, and the daemon dies around it. Nothing is launched twice for one
// job, and nothing is left.
func TestTroubleAtEveryCallForAHostOfKarpenter(t *testing.T) {
	for _, f := range flavours {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			for _, op := range []string{"preflight", "ensure hosts", "describe instances", "protect", "terminate", "volumes gone?", "delete node"} {
				for at := range 2 {
					run(t, options{at: at, flavour: f, only: op, karpenter: asItIs}, func(t *testing.T, b *bench) {
						if fired := b.oneDeploy(); fired != op && (at == 0 || fired != "") {
							t.Errorf("%q went wrong, want %q", fired, op)
						}
						b.until(op+": nothing is left", 10*time.Minute, func() bool { return len(b.listClaims()) == 0 && b.running() == 0 })
						if n := b.created(); n != 1 {
							t.Errorf("%s %s: %d NodeClaims were made for one job", op, f.name, n)
						}
					})
				}
			}
		})
	}
}
