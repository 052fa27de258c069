package cluster_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/runnerward/runnerward/pkg/cluster"
	"github.com/runnerward/runnerward/pkg/runner"
	simcluster "github.com/runnerward/runnerward/pkg/sim/cluster"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

func TestOptionsThatCannotWorkAreRefused(t *testing.T) {
	for name, change := range map[string]func(*cluster.Options){
		"no namespace":                  func(o *cluster.Options) { o.Namespace = "" },
		"no service account":            func(o *cluster.Options) { o.ServiceAccount = "" },
		"no labels select every node":   func(o *cluster.Options) { o.NodeLabels = nil },
		"a CPU that is no quantity":     func(o *cluster.Options) { o.CPU = "two" },
		"memory of zero":                func(o *cluster.Options) { o.Memory = "0" },
		"a label that cannot be":        func(o *cluster.Options) { o.NodeLabels = map[string]string{"a b": "c"} },
		"a scale set that is no label":  func(o *cluster.Options) { o.ScaleSet = "a b" },
		"an organization that is none":  func(o *cluster.Options) { o.Organization = "a/b" },
		"a taint without effect":        func(o *cluster.Options) { o.Taint.Effect = "" },
		"a slack that ends pods sooner": func(o *cluster.Options) { o.PodTTLSlack = -1 },
	} {
		o := options()
		change(&o)
		if o.Validate() == nil {
			t.Errorf("%s: Validate() = nil, want an error", name)
		}
	}
	if err := options().Validate(); err != nil {
		t.Errorf("Validate() = %v, want nil", err)
	}
}

func TestNodesAreThePoolsWithEveryField(t *testing.T) {
	both(t, func(t *testing.T, w world) {
		nodes, err := w.Nodes(t.Context())
		must(t, "Nodes", err)
		if len(nodes) != 1 {
			t.Fatalf("Nodes() has %d nodes, want 1", len(nodes))
		}
		n := nodes[0]
		if n.Name != "node-1" || n.UID != string(w.node.UID) || n.BootID != "boot-1" || n.MachineID != "machine-1" ||
			n.ProviderID != "aws:///eu-west-1a/i-0123456789abcdef0" || n.InternalIP != "10.0.0.7" ||
			n.OSImage != "Bottlerocket OS 1.57.0 (aws-k8s-1.35)" || n.KubeletVersion != "v1.35.1" ||
			!n.Ready || n.Cordoned || n.ClaimedBy != "" || n.Labels["pool"] != "prod" ||
			!slices.Equal(n.Taints, []runner.Taint{poolTaint}) || !n.CreatedAt.Equal(w.node.CreationTimestamp.Time) {
			t.Errorf("Nodes()[0] = %+v", n)
		}
	})
}

func TestAClaimIsMarkedThreeWaysAndRepeats(t *testing.T) {
	both(t, func(t *testing.T, w world) {
		must(t, "claim", w.ClaimNode(t.Context(), w.host(), "runner-a"))
		must(t, "claim again", w.ClaimNode(t.Context(), w.host(), "runner-a"))
		nodes, err := w.Nodes(t.Context())
		must(t, "Nodes", err)
		want := []runner.Taint{poolTaint, {Key: "runnerward.io/claimed", Value: "runner-a", Effect: "NoSchedule"}}
		if n := nodes[0]; !n.Cordoned || n.ClaimedBy != "runner-a" || !slices.Equal(n.Taints, want) {
			t.Errorf("claimed node = %+v", n)
		}
		if err := w.ClaimNode(t.Context(), w.host(), "runner-b"); !errors.Is(err, supervisor.ErrConflict) {
			t.Errorf("claim for another runner = %v, want ErrConflict", err)
		}
		updates := 0
		for _, r := range w.sim.Requests() {
			if r.Verb == "update" {
				updates++
			}
		}
		if updates != 1 {
			t.Errorf("%d updates were sent, want 1", updates)
		}
	})
}

func TestAClaimOutlivesTheLossOfItsAnnotation(t *testing.T) {
	both(t, func(t *testing.T, w world) {
		must(t, "claim", w.ClaimNode(t.Context(), w.host(), "runner-a"))
		nodes := w.client.CoreV1().Nodes()
		n, err := nodes.Get(t.Context(), "node-1", metav1.GetOptions{})
		must(t, "get", err)
		n.Annotations, n.Spec.Unschedulable = nil, false
		_, err = nodes.Update(t.Context(), n, metav1.UpdateOptions{})
		must(t, "update", err)
		if err := w.ClaimNode(t.Context(), w.host(), "runner-b"); !errors.Is(err, supervisor.ErrConflict) {
			t.Errorf("claim for another runner = %v, want ErrConflict", err)
		}
		must(t, "claim repairs", w.ClaimNode(t.Context(), w.host(), "runner-a"))
		again, err := w.Nodes(t.Context())
		must(t, "Nodes", err)
		if !again[0].Cordoned || again[0].ClaimedBy != "runner-a" || len(again[0].Taints) != 2 {
			t.Errorf("repaired node = %+v", again[0])
		}
	})
}

func TestOfTwoClaimsOneWins(t *testing.T) {
	both(t, func(t *testing.T, w world) {
		var wg sync.WaitGroup
		errs := make([]error, 6)
		for i := range errs {
			wg.Go(func() { errs[i] = w.ClaimNode(t.Context(), w.host(), runner.Name("runner-"+string(rune('a'+i)))) })
		}
		wg.Wait()
		won := 0
		for _, err := range errs {
			switch {
			case err == nil:
				won++
			case !errors.Is(err, supervisor.ErrConflict):
				t.Errorf("the loser got %v, want ErrConflict", err)
			}
		}
		if won != 1 {
			t.Errorf("%d claims won, want 1", won)
		}
	})
}

// TestOnlyTheHostOfTheRecordIsClaimed: the log says which boot of which node, and
// the node may have been booted anew, or be about to go, since.
func TestOnlyTheHostOfTheRecordIsClaimed(t *testing.T) {
	both(t, func(t *testing.T, w world) {
		rebooted := w.host()
		rebooted.BootID = "an earlier boot"
		if err := w.ClaimNode(t.Context(), rebooted, "runner-a"); !errors.Is(err, supervisor.ErrConflict) {
			t.Errorf("claim of an earlier boot = %v, want ErrConflict", err)
		}
		nodes := w.client.CoreV1().Nodes()
		node, err := nodes.Get(t.Context(), "node-1", metav1.GetOptions{})
		must(t, "get", err)
		node.Finalizers = []string{"karpenter.sh/termination"}
		_, err = nodes.Update(t.Context(), node, metav1.UpdateOptions{})
		must(t, "hold", err)
		must(t, "delete", nodes.Delete(t.Context(), "node-1", metav1.DeleteOptions{}))
		if err := w.ClaimNode(t.Context(), w.host(), "runner-a"); !errors.Is(err, supervisor.ErrConflict) {
			t.Errorf("claim of a node that is being deleted = %v, want ErrConflict", err)
		}
		node, err = nodes.Get(t.Context(), "node-1", metav1.GetOptions{})
		must(t, "get", err)
		if node.Annotations[cluster.ClaimedBy] != "" {
			t.Errorf("the node was claimed for %q", node.Annotations[cluster.ClaimedBy])
		}
	})
}

func TestAnotherNodeUnderTheNameIsAConflict(t *testing.T) {
	both(t, func(t *testing.T, w world) {
		other := w.host()
		other.NodeUID = "00000000-0000-4000-8000-000000000000"
		if err := w.ClaimNode(t.Context(), other, "runner-a"); !errors.Is(err, supervisor.ErrConflict) {
			t.Errorf("claim with another UID = %v, want ErrConflict", err)
		}
		gone := runner.Host{NodeName: "nowhere", NodeUID: other.NodeUID}
		if err := w.ClaimNode(t.Context(), gone, "runner-a"); !errors.Is(err, supervisor.ErrConflict) {
			t.Errorf("claim of no node = %v, want ErrConflict", err)
		}
		must(t, "delete with another UID", w.DeleteNode(t.Context(), "node-1", other.NodeUID))
		if gone, err := w.NodeGone(t.Context(), "node-1", string(w.node.UID)); gone || err != nil {
			t.Errorf("NodeGone after a deletion of another UID = %t, %v, want false", gone, err)
		}
		if gone, err := w.NodeGone(t.Context(), "node-1", other.NodeUID); !gone || err != nil {
			t.Errorf("NodeGone(another UID) = %t, %v, want true", gone, err)
		}
		must(t, "delete", w.DeleteNode(t.Context(), "node-1", string(w.node.UID)))
		must(t, "delete again", w.DeleteNode(t.Context(), "node-1", string(w.node.UID)))
		if gone, err := w.NodeGone(t.Context(), "node-1", string(w.node.UID)); !gone || err != nil {
			t.Errorf("NodeGone = %t, %v, want true", gone, err)
		}
	})
}

// TestANodeIsFoundByNameWithoutItsLabels: a job must not end because somebody
// took them away.
func TestANodeIsFoundByNameWithoutItsLabels(t *testing.T) {
	both(t, func(t *testing.T, w world) {
		api := w.sim.Client().CoreV1().Nodes()
		bare, err := api.Get(t.Context(), "node-1", metav1.GetOptions{})
		must(t, "read the node", err)
		bare.Labels = nil
		_, err = api.Update(t.Context(), bare, metav1.UpdateOptions{})
		must(t, "take its labels", err)
		if nodes, err := w.NodesNow(t.Context()); len(nodes) != 0 || err != nil {
			t.Errorf("NodesNow = %+v, %v, want none", nodes, err)
		}
		if node, there, err := w.NodeNow(t.Context(), "node-1"); !there || !node.Ready || node.UID != string(w.node.UID) || err != nil {
			t.Errorf("NodeNow = %+v, %t, %v, want the node, ready", node, there, err)
		}
		if node, there, err := w.NodeNow(t.Context(), "nowhere"); there || err != nil {
			t.Errorf("NodeNow(nowhere) = %+v, %t, %v, want none", node, there, err)
		}
	})
}

func TestAWriteThatIsNoClaimDoesNotCostTheHost(t *testing.T) {
	both(t, func(t *testing.T, w world) {
		conflict := apierrors.NewConflict(schema.GroupResource{Resource: "nodes"}, "node-1", errors.New("modified"))
		w.sim.Inject(simcluster.Fault{Verb: "update", Resource: "nodes", Count: 2, Err: conflict})
		must(t, "claim after two heartbeats", w.ClaimNode(t.Context(), w.host(), "runner-a"))
	})
}

func TestAFailedQuestionIsNeverANo(t *testing.T) {
	faults := map[string]error{"unavailable": simcluster.Unavailable(), "timeout": simcluster.TimedOut(), "dropped": simcluster.Dropped()}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, w world) {
				w.sim.Inject(simcluster.Fault{Count: 1000, Err: fault})
				_, errNodes := w.Nodes(brief(t))
				_, errPod := w.Pod(brief(t), "runner-a")
				_, errGone := w.NodeGone(brief(t), "node-1", "u")
				_, errReview := w.Review(brief(t), "t", "a")
				for i, err := range []error{
					errNodes, errPod, errGone, errReview, w.ClaimNode(brief(t), w.host(), "runner-a"), w.EnsurePod(brief(t), podSpec("runner-a")),
					w.DeletePod(brief(t), "runner-a", 0), w.DeleteNode(brief(t), "node-1", "u"),
				} {
					if err == nil || errors.Is(err, supervisor.ErrConflict) || errors.Is(err, supervisor.ErrTokenRejected) {
						t.Errorf("call %d = %v, want an error that says unknown", i, err)
					}
				}
			})
		})
	}
}

func TestWorkThatWasDoneButReportedFailedRepeats(t *testing.T) {
	both(t, func(t *testing.T, w world) {
		lost := func(verb, resource string, call func() error) {
			t.Helper()
			w.sim.Inject(simcluster.Fault{Verb: verb, Resource: resource, After: true, Err: simcluster.TimedOut()})
			if call() == nil {
				t.Errorf("%s %s with a lost answer = nil, want an error", verb, resource)
			}
			must(t, "repeat "+verb+" "+resource, call())
		}
		lost("update", "nodes", func() error { return w.ClaimNode(t.Context(), w.host(), "runner-a") })
		lost("create", "pods", func() error { return w.EnsurePod(t.Context(), podSpec("runner-a")) })
		lost("delete", "pods", func() error { return w.DeletePod(t.Context(), "runner-a", 0) })
		lost("delete", "nodes", func() error { return w.DeleteNode(t.Context(), "node-1", string(w.node.UID)) })
	})
}

func TestAPodIsTheRunnersOrAConflict(t *testing.T) {
	both(t, func(t *testing.T, w world) {
		spec := podSpec("runner-a")
		if pod := w.phase(t, "runner-a"); pod.Phase != runner.PodGone {
			t.Errorf("before: %+v, want Gone", pod)
		}
		must(t, "create", w.EnsurePod(t.Context(), spec))
		must(t, "create again", w.EnsurePod(t.Context(), spec))
		pod := w.phase(t, "runner-a")
		if pod.Phase != runner.PodPending || pod.NodeName != "node-1" || pod.UID == "" || pod.Reason != "" {
			t.Errorf("after: %+v", pod)
		}
		other := spec
		other.NodeName = "other-pool"
		if err := w.EnsurePod(t.Context(), other); !errors.Is(err, supervisor.ErrConflict) {
			t.Errorf("on another node = %v, want ErrConflict", err)
		}
		other = spec
		other.Authorized = runner.DigestOf([]byte("another"))
		if err := w.EnsurePod(t.Context(), other); !errors.Is(err, supervisor.ErrConflict) {
			t.Errorf("for another record = %v, want ErrConflict", err)
		}
		// No kubelet runs: a graceful deletion leaves the pod, grace 0 does not.
		must(t, "delete", w.DeletePod(t.Context(), "runner-a", time.Minute))
		if pod := w.phase(t, "runner-a"); pod.Phase != runner.PodPending {
			t.Errorf("while deleting: %+v, want Pending", pod)
		}
		must(t, "kill", w.DeletePod(t.Context(), "runner-a", 0))
		must(t, "kill again", w.DeletePod(t.Context(), "runner-a", 0))
		if pod := w.phase(t, "runner-a"); pod.Phase != runner.PodGone {
			t.Errorf("killed: %+v, want Gone", pod)
		}
	})
}

func TestPodsAreThoseWithOurLabels(t *testing.T) {
	both(t, func(t *testing.T, w world) {
		must(t, "claim", w.ClaimNode(t.Context(), w.host(), "runner-a"))
		must(t, "create", w.EnsurePod(t.Context(), podSpec("runner-a")))
		// Whoever can make pods can give them our labels, and any name.
		stray := w.Manifest(podSpec("runner-b"))
		stray.Name = "not-ours"
		if _, err := w.client.CoreV1().Pods(namespace).Create(t.Context(), stray, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		// One that an earlier version made has fewer labels.
		older := w.Manifest(podSpec("runner-d"))
		for _, label := range []string{"actions-ephemeral-runner", "actions.github.com/scale-set-namespace", "actions.github.com/organization"} {
			delete(older.Labels, label)
		}
		if _, err := w.client.CoreV1().Pods(namespace).Create(t.Context(), older, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		other := w.Manifest(podSpec("runner-c"))
		other.Name, other.Labels = "another", map[string]string{"app.kubernetes.io/name": "another"}
		if _, err := w.client.CoreV1().Pods(namespace).Create(t.Context(), other, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		pods, err := w.Pods(t.Context())
		must(t, "list", err)
		names := map[string]string{}
		for _, pod := range pods {
			names[pod.Name] = pod.NodeName
			if pod.UID == "" {
				t.Errorf("pod %s has no UID", pod.Name)
			}
		}
		if len(names) != 3 || names["runner-a"] != "node-1" || names["not-ours"] == "" || names["runner-d"] == "" {
			t.Errorf("Pods() = %v, want runner-a on node-1, runner-d and not-ours", names)
		}
	})
}
