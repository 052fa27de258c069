package api

import (
	"slices"
	"strings"
	"testing"
	"time"

	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/runnerward/runnerward/pkg/runner"
	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/sim/world"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// TestDeploys plays deploys with the production binary, which signs in as the
// chart's account, and then holds what it asked the API server for against
// what the chart grants.
func TestDeploys(t *testing.T) {
	t.Parallel()
	// A job whose host is lost is over when its lease is.
	ns := namespace(t, "restricted")
	th := newTheatre(t, ns, func(o *world.Options) {
		o.GitHubServer = func(c *simgithub.Config) { c.LeaseTTL = 20 * time.Second }
	}, newWitnesses(t, ns+"-witness"))
	d := th.daemon(t, "runnerward", nil)
	lost := th.loseHost(t)
	t.Run("approved is sealed", th.approved)
	t.Run("self-approved is denied before a pod exists", th.selfApproved)
	t.Run("branch-pinned is refused at the hook", th.refused)
	t.Run("no other token claims a runner", th.claims)
	t.Run("a lost host is recorded", func(t *testing.T) { th.lostIsSealed(t, lost) })
	t.Run("what came again is counted", th.counted)
	t.Run("witnesses vouched for the hosts", th.vouched)
	if err := d.End(); err != nil {
		t.Error(err)
	}
	if err := th.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	t.Run("the account used exactly its rights", func(t *testing.T) { proveRights(t, th.release) })
	t.Run("the account can do nothing else", func(t *testing.T) { proveLimits(t, th.release) })
	t.Run("runners asked the cluster for nothing", func(t *testing.T) {
		user := "system:serviceaccount:" + th.release.namespace + ":" + world.ServiceAccount
		if n := len(requests(t, user)); n > 0 {
			t.Errorf("%s made %d requests, want none", user, n)
		}
		if rights := granted(t, th.release.namespace, world.ServiceAccount); len(rights) > 0 {
			t.Errorf("%s was granted %v", user, rights)
		}
	})
	t.Run("witnesses asked the cluster for nothing", func(t *testing.T) {
		user := "system:serviceaccount:" + th.witnesses.namespace + ":" + witnessAccount
		if n := len(requests(t, user)); n > 0 {
			t.Errorf("%s made %d requests, want none", user, n)
		}
		if rights := granted(t, th.witnesses.namespace, witnessAccount); len(rights) > 0 {
			t.Errorf("%s was granted %v", user, rights)
		}
	})
}

// deploy has a run approved by this person.
func (th *theatre) deploy(t *testing.T, spec simgithub.RunSpec, approver string) simgithub.Run {
	t.Helper()
	run, err := th.Deploy(spec, approver)
	if err != nil {
		t.Fatal(err)
	}
	return run
}

// gone checks with the API server that nothing of a runner is left.
func (th *theatre) gone(t *testing.T, r supervisor.RunnerView) {
	t.Helper()
	pods, err := admin(t).CoreV1().Pods(th.release.namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=" + string(r.Name)})
	if err != nil || len(pods.Items) > 0 {
		t.Errorf("the pod of a sealed runner: %d, %v, want none", len(pods.Items), err)
	}
	nodes, err := admin(t).CoreV1().Nodes().List(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=" + r.Node})
	if err != nil || len(nodes.Items) > 0 {
		t.Errorf("the node of a sealed runner: %d, %v, want none", len(nodes.Items), err)
	}
	if err := th.Gone(r); err != nil {
		t.Error(err)
	}
}

func (th *theatre) approved(t *testing.T) {
	run := th.deploy(t, world.Deploy("v3.0.0", "bob", "bob", time.Second), "carol")
	r, err := th.Ends(t.Context(), run, patience)
	if err != nil {
		t.Fatal(err)
	}
	th.gone(t, r)
}

func (th *theatre) selfApproved(t *testing.T) {
	run, _, err := th.SelfApproved(t.Context(), "v3.0.1", patience)
	if err != nil {
		t.Fatal(err)
	}
	pods, err := admin(t).CoreV1().Pods(th.release.namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=runner"})
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range pods.Items {
		if pod.Annotations["runnerward.io/cause-job"] == run.JobID {
			t.Errorf("pod %s was made for a denied job", pod.Name)
		}
	}
}

func (th *theatre) refused(t *testing.T) {
	in, err := th.BranchPinned(t.Context(), "v3.0.2", "v3.0.3", patience)
	if err != nil {
		t.Fatal(err)
	}
	th.gone(t, in.Runner)
	if _, err := th.Recovers(t.Context(), in, patience); err != nil {
		t.Error(err)
	}
}

// loseHost cuts the power of a host whose job runs.
func (th *theatre) loseHost(t *testing.T) supervisor.RunnerView {
	t.Helper()
	run := th.deploy(t, world.Deploy("v3.0.4", "bob", "bob", time.Hour), "carol")
	busy, err := th.Runner(t.Context(), "the job runs", patience, func(r supervisor.RunnerView) bool {
		return r.Job == runner.JobID(run.JobID) && r.Phase == runner.KindStarted
	})
	if err != nil {
		t.Fatal(err)
	}
	th.flap(t, busy)
	if !th.fleet.Cut(busy.Node) {
		t.Fatalf("there is no host %s", busy.Node)
	}
	if err := th.World.AWS.Replace(busy.Instance); err != nil {
		t.Fatal(err)
	}
	return busy
}

// flap has the kubelet of a host in use say twice that it is not ready, which
// on-call is to see as one event that came twice.
func (th *theatre) flap(t *testing.T, busy supervisor.RunnerView) {
	t.Helper()
	for range 2 {
		for _, ready := range []bool{false, true} {
			if err := th.fleet.Kubelet(busy.Node).Report(t.Context(), ready); err != nil {
				t.Fatal(err)
			}
			until(t, "the warning comes and goes with the host", patience, func() (bool, error) {
				v, err := th.Ask(t.Context())
				warned := slices.ContainsFunc(v.Warnings, func(w string) bool { return strings.Contains(w, busy.Node) })
				return err == nil && warned != ready, err
			})
		}
	}
}

// counted waits for the daemon to write how often that came.
func (th *theatre) counted(t *testing.T) {
	for _, namespace := range []string{th.release.namespace, metav1.NamespaceDefault} {
		until(t, "events that came again are counted", gcPatience, func() (bool, error) {
			events, err := admin(t).EventsV1().Events(namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "reason=HostSilent"})
			if err != nil {
				return false, err
			}
			return slices.ContainsFunc(events.Items, func(e eventsv1.Event) bool { return e.Series != nil && e.Series.Count >= 2 }), nil
		})
	}
}

// gcPatience is how long the real garbage collector may take to delete the pod
// of a node that is gone: 40 s, looking every 20 s (pkg/controller/podgc).
const gcPatience = 90 * time.Second

func (th *theatre) lostIsSealed(t *testing.T, lost supervisor.RunnerView) {
	r, err := th.Runner(t.Context(), "the lost host's runner is sealed", gcPatience, func(r supervisor.RunnerView) bool {
		return r.Name == lost.Name && r.Phase == runner.KindSealed
	})
	if err != nil {
		t.Fatal(err)
	}
	th.gone(t, r)
	if job, _ := th.World.GitHub.Job(string(lost.Job)); job.Conclusion != "failure" {
		t.Errorf("the job of the lost host ended %q, want failure", job.Conclusion)
	}
}
