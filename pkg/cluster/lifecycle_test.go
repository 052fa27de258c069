package cluster_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/runnerward/runnerward/pkg/cluster"
	"github.com/runnerward/runnerward/pkg/runner"
	simcluster "github.com/runnerward/runnerward/pkg/sim/cluster"
)

// lifecycle runs the pretend kubelet in a bubble, with the runner's pod on its node.
func lifecycle(t *testing.T, container simcluster.ContainerFunc, test func(*testing.T, world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, container, inProcess)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.sim.Run(ctx) }()
		must(t, "claim", w.ClaimNode(ctx, w.host(), "runner-a"))
		must(t, "create", w.EnsurePod(ctx, podSpec("runner-a")))
		synctest.Wait()
		test(t, w)
		cancel()
		<-done
	})
}

func (w world) want(t *testing.T, phase runner.PodPhase, reason string) {
	t.Helper()
	synctest.Wait()
	if pod := w.phase(t, "runner-a"); pod.Phase != phase || pod.Reason != reason {
		t.Errorf("pod is %s %q, want %s %q", pod.Phase, pod.Reason, phase, reason)
	}
}

func untilKilled(ctx context.Context, _ simcluster.Container) int {
	<-ctx.Done()
	return 137
}

func untilStopped(ctx context.Context, ct simcluster.Container) int {
	select {
	case <-ct.Stop:
	case <-ctx.Done():
		return 137
	}
	return 0
}

func TestExitCodesBecomePhasesAndReasons(t *testing.T) {
	for _, c := range []struct {
		name   string
		code   int
		phase  runner.PodPhase
		reason string
	}{
		{"success", 0, runner.PodSucceeded, ""},
		{"failure", 7, runner.PodFailed, "Error"},
		{"out of memory", simcluster.OOMKilled, runner.PodFailed, "OOMKilled"},
	} {
		t.Run(c.name, func(t *testing.T) {
			lifecycle(t, func(context.Context, simcluster.Container) int { return c.code }, func(t *testing.T, w world) {
				w.want(t, c.phase, c.reason)
				must(t, "create again", w.EnsurePod(t.Context(), podSpec("runner-a")))
				// A terminal pod has nothing to wait for.
				must(t, "delete", w.DeletePod(t.Context(), "runner-a", 30*time.Second))
				w.want(t, runner.PodGone, "")
			})
		})
	}
}

// TestAPodIsExplainedByTheWordThatSaysMost reads statuses as kubelets and
// controllers write them.
func TestAPodIsExplainedByTheWordThatSaysMost(t *testing.T) {
	waiting := func(name, reason string) corev1.ContainerStatus {
		return corev1.ContainerStatus{Name: name, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}}
	}
	ended := func(reason string, code int32) corev1.ContainerStatus {
		return corev1.ContainerStatus{Name: "runner", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: reason, ExitCode: code}}}
	}
	target := func(status corev1.ConditionStatus, reason string) corev1.PodCondition {
		return corev1.PodCondition{Type: corev1.DisruptionTarget, Status: status, Reason: reason}
	}
	list := func(s ...corev1.ContainerStatus) []corev1.ContainerStatus { return s }
	for want, statuses := range map[string][]corev1.PodStatus{
		"": {
			{Phase: corev1.PodRunning, ContainerStatuses: list(corev1.ContainerStatus{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}})},
			{Phase: corev1.PodSucceeded, ContainerStatuses: list(ended("Completed", 0))},
			{Phase: corev1.PodFailed, Reason: "The node was low on memory"}, // not a machine's word
			{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{target(corev1.ConditionFalse, "PreemptionByScheduler")}},
		},
		// The init container's image: the runner's container waits for its turn.
		"ImagePullBackOff": {{Phase: corev1.PodPending, InitContainerStatuses: list(waiting("agent", "ImagePullBackOff")), ContainerStatuses: list(waiting("runner", "PodInitializing"))}},
		"ErrImagePull":     {{Phase: corev1.PodPending, InitContainerStatuses: list(ended("Completed", 0)), ContainerStatuses: list(waiting("runner", "ErrImagePull"))}},
		"PodInitializing":  {{Phase: corev1.PodPending, InitContainerStatuses: list(corev1.ContainerStatus{}), ContainerStatuses: list(waiting("runner", "PodInitializing"))}},
		"OOMKilled":        {{Phase: corev1.PodFailed, ContainerStatuses: list(ended("OOMKilled", 137))}},
		"StartError":       {{Phase: corev1.PodFailed, InitContainerStatuses: list(ended("StartError", 128)), ContainerStatuses: list(waiting("runner", "PodInitializing"))}},
		"Evicted":          {{Phase: corev1.PodFailed, Reason: "Evicted", Conditions: []corev1.PodCondition{target(corev1.ConditionTrue, "TerminationByKubelet")}, ContainerStatuses: list(ended("Error", 137))}},
		"DeletionByTaintManager": {
			{Phase: corev1.PodFailed, Conditions: []corev1.PodCondition{target(corev1.ConditionTrue, "DeletionByTaintManager")}, ContainerStatuses: list(ended("Error", 143))},
			{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{target(corev1.ConditionTrue, "DeletionByTaintManager")}},
		},
	} {
		for _, st := range statuses {
			client := fake.NewSimpleClientset(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "runner-a", Namespace: namespace}, Status: st})
			c, err := cluster.New(client, options(), zap.NewNop())
			must(t, "New", err)
			pod, err := c.Pod(t.Context(), "runner-a")
			must(t, "Pod", err)
			if pod.Reason != want || pod.Phase != runner.PodPhase(st.Phase) || pod.Deleting {
				t.Errorf("%+v: %s %q, want %q", st, pod.Phase, pod.Reason, want)
			}
		}
	}
}

func TestAKubeletThatIsCutOffHoldsItsPod(t *testing.T) {
	ended := make(chan struct{})
	container := func(ctx context.Context, ct simcluster.Container) int {
		defer close(ended)
		return untilKilled(ctx, ct)
	}
	lifecycle(t, container, func(t *testing.T, w world) {
		if !w.sim.SilenceNode("node-1") {
			t.Fatal("SilenceNode(node-1) = false, want true")
		}
		advance(51 * time.Second)
		nodes, err := w.Nodes(t.Context())
		must(t, "Nodes", err)
		if len(nodes) != 1 || nodes[0].Ready {
			t.Errorf("Nodes() = %+v, want one that is not ready", nodes)
		}
		advance(300 * time.Second)
		if pod := w.phase(t, "runner-a"); pod.Phase != runner.PodRunning || pod.Reason != "DeletionByTaintManager" || !pod.Deleting {
			t.Errorf("pod is %+v, want it running and being taken away", pod)
		}
		must(t, "delete by force", w.DeletePod(t.Context(), "runner-a", 0))
		w.want(t, runner.PodGone, "")
		select {
		case <-ended:
			t.Error("the container ended, though nobody could tell its kubelet")
		default:
		}
		w.sim.RemoveNode("node-1") // its machine ends
		<-ended
	})
}

func TestAnImageThatCannotBePulledShowsAndMends(t *testing.T) {
	lifecycle(t, untilStopped, func(t *testing.T, w world) {
		w.want(t, runner.PodRunning, "")
		for image, c := range map[string]struct{ reason, then string }{
			options().AgentImage:  {"ErrImagePull", "ImagePullBackOff"},
			options().RunnerImage: {"InvalidImageName", "InvalidImageName"},
		} {
			w.sim.FailPull(image, c.reason)
			spec := podSpec("runner-b")
			must(t, "create", w.EnsurePod(t.Context(), spec))
			synctest.Wait()
			if pod := w.phase(t, "runner-b"); pod.Phase != runner.PodPending || pod.Reason != c.reason {
				t.Errorf("pod is %+v, want Pending, %s", pod, c.reason)
			}
			advance(2 * time.Second)
			if pod := w.phase(t, "runner-b"); pod.Phase != runner.PodPending || pod.Reason != c.then {
				t.Errorf("pod is %+v, want Pending, %s", pod, c.then)
			}
			w.sim.MendPull(image)
			advance(time.Minute)
			if pod := w.phase(t, "runner-b"); pod.Phase != runner.PodRunning {
				t.Errorf("pod is %+v once the image is there, want Running", pod)
			}
			must(t, "delete", w.DeletePod(t.Context(), "runner-b", 0))
			synctest.Wait()
		}
	})
}

func TestTheContainerSeesItsIdentityAndFiles(t *testing.T) {
	seen := make(chan simcluster.Container, 1)
	hold := func(ctx context.Context, ct simcluster.Container) int {
		seen <- ct
		return untilStopped(ctx, ct)
	}
	lifecycle(t, hold, func(t *testing.T, w world) {
		w.want(t, runner.PodRunning, "")
		ct := <-seen
		for name, want := range map[string]string{
			"RUNNERWARD_RUNNER": "runner-a", "RUNNERWARD_AUDIENCE": audience, "RUNNERWARD_URL": "https://runnerward.runnerward:8443",
			"POD_NAME": "runner-a", "NODE_NAME": "node-1", "POD_UID": string(w.pod(t, "runner-a").UID),
		} {
			if got := ct.Env[name]; got != want {
				t.Errorf("%s = %q, want %q", name, got, want)
			}
		}
		if got := ct.Files[ct.Env["RUNNERWARD_CA_FILE"]]; got != "PEM" {
			t.Errorf("the CA file holds %q, want PEM", got)
		}
		first, err := ct.Token(ct.Env["RUNNERWARD_TOKEN_FILE"])
		must(t, "token", err)
		advance(50 * time.Minute)
		second, err := ct.Token(ct.Env["RUNNERWARD_TOKEN_FILE"])
		must(t, "token", err)
		if first == second {
			t.Error("the token was not renewed after 80 % of an hour")
		}
		if id, err := w.Review(t.Context(), second, audience); err != nil || id.NodeUID != string(w.node.UID) {
			t.Errorf("Review = %+v, %v", id, err)
		}
	})
}

func TestDeletionStopsThenKills(t *testing.T) {
	lifecycle(t, untilStopped, func(t *testing.T, w world) {
		must(t, "delete", w.DeletePod(t.Context(), "runner-a", 30*time.Second))
		w.want(t, runner.PodGone, "")
	})
	lifecycle(t, untilKilled, func(t *testing.T, w world) {
		must(t, "delete", w.DeletePod(t.Context(), "runner-a", 30*time.Second))
		advance(29 * time.Second)
		w.want(t, runner.PodRunning, "")
		advance(2 * time.Second)
		w.want(t, runner.PodGone, "")
	})
}

func TestTheDeadlineEndsThePod(t *testing.T) {
	lifecycle(t, untilStopped, func(t *testing.T, w world) {
		advance(time.Hour + 5*time.Minute - time.Second)
		w.want(t, runner.PodRunning, "")
		advance(2 * time.Second)
		w.want(t, runner.PodFailed, "DeadlineExceeded")
	})
}

func TestALostNodeTakesItsPodsWithIt(t *testing.T) {
	ended := make(chan struct{})
	container := func(ctx context.Context, ct simcluster.Container) int {
		defer close(ended)
		return untilKilled(ctx, ct)
	}
	lifecycle(t, container, func(t *testing.T, w world) {
		if !w.sim.RemoveNode("node-1") {
			t.Fatal("RemoveNode(node-1) = false, want true")
		}
		<-ended
		w.want(t, runner.PodRunning, "") // a dead kubelet reports nothing
		nodes, err := w.Nodes(t.Context())
		must(t, "Nodes", err)
		if len(nodes) != 1 || nodes[0].Ready {
			t.Errorf("Nodes() = %+v, want one that is not ready", nodes)
		}
		advance(1500 * time.Millisecond)
		if gone, err := w.NodeGone(t.Context(), "node-1", string(w.node.UID)); !gone || err != nil {
			t.Errorf("NodeGone = %t, %v, want true", gone, err)
		}
		advance(time.Second)
		w.want(t, runner.PodGone, "")
	})
}

func TestAMissingConfigMapKeepsThePodPending(t *testing.T) {
	lifecycle(t, untilStopped, func(t *testing.T, w world) {
		pod := w.Manifest(podSpec("runner-b"))
		pod.Spec.Volumes[1].Projected.Sources[1].ConfigMap.Name = "nowhere"
		_, err := w.client.CoreV1().Pods(namespace).Create(t.Context(), pod, createOptions)
		must(t, "create", err)
		synctest.Wait()
		if got := w.phase(t, "runner-b"); got.Phase != runner.PodPending || got.Reason != "ContainerCreating" {
			t.Errorf("pod is %+v, want Pending ContainerCreating", got)
		}
		must(t, "delete", w.DeletePod(t.Context(), "runner-b", 30*time.Second))
		synctest.Wait()
		if got := w.phase(t, "runner-b"); got.Phase != runner.PodGone {
			t.Errorf("pod is %+v, want Gone", got)
		}
	})
}

func TestTheKubeletRefusesAPodThatIsForAnotherNode(t *testing.T) {
	lifecycle(t, untilStopped, func(t *testing.T, w world) {
		pod := w.Manifest(podSpec("runner-b"))
		pod.Spec.NodeName = "other-pool" // the affinity still names node-1
		_, err := w.client.CoreV1().Pods(namespace).Create(t.Context(), pod, createOptions)
		must(t, "create", err)
		synctest.Wait()
		if got := w.phase(t, "runner-b"); got.Phase != runner.PodFailed || got.Reason != "NodeAffinity" {
			t.Errorf("pod is %+v, want Failed NodeAffinity", got)
		}
	})
}

// TestANodeWhoseFinalizerNobodyRemoves: its machine is gone, and whoever put the
// finalizer there is down. Within a minute that is theirs to remove, and a
// finalizer of anybody else always is.
func TestANodeWhoseFinalizerNobodyRemoves(t *testing.T) {
	for name, tc := range map[string]struct {
		finalizers []string
		ours       []string
		gone       bool
	}{
		"one that was named":       {[]string{"karpenter.sh/termination"}, []string{"karpenter.sh/termination"}, true},
		"one of somebody else too": {[]string{"karpenter.sh/termination", "example.com/held"}, []string{"karpenter.sh/termination"}, false},
		"none was named":           {[]string{"karpenter.sh/termination"}, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil, inProcess)
				opts := options()
				opts.NodeFinalizers = tc.ours
				c, err := cluster.New(w.client, opts, zap.NewNop())
				if err != nil {
					t.Fatal(err)
				}
				node := w.node.DeepCopy()
				node.Finalizers = tc.finalizers
				if _, err := w.client.CoreV1().Nodes().Update(t.Context(), node, metav1.UpdateOptions{}); err != nil {
					t.Fatal(err)
				}
				gone := func() bool {
					must(t, "delete", c.DeleteNode(t.Context(), node.Name, string(node.UID)))
					gone, err := c.NodeGone(t.Context(), node.Name, string(node.UID))
					must(t, "look", err)
					return gone
				}
				if gone() || gone() {
					t.Error("the node is gone at once, want its finalizer to be its owner's to remove")
				}
				must(t, "delete the one before", c.DeleteNode(t.Context(), node.Name, "00000000-0000-4000-8000-000000000000"))
				<-time.After(61 * time.Second)
				if got := gone(); got != tc.gone {
					t.Errorf("gone after a minute: %t, want %t", got, tc.gone)
				}
			})
		})
	}
}
