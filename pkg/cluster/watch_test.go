package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/runnerward/runnerward/pkg/cluster"
	"github.com/runnerward/runnerward/pkg/runner"
	simcluster "github.com/runnerward/runnerward/pkg/sim/cluster"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// followed is a world whose cluster is watched, and what was told of changes.
type followed struct {
	world
	mu   sync.Mutex
	told []supervisor.Change
}

// follow runs the adapter in a bubble until its copies are believed.
func follow(t *testing.T, test func(*testing.T, *followed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &followed{}
		f.world = newWorld(t, nil, inProcess, func(o *cluster.Options) {
			o.OnChange = func(ch supervisor.Change) {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.told = append(f.told, ch)
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- f.Run(ctx) }()
		f.settle()
		test(t, f)
		cancel()
		began := time.Now()
		if err := <-ended; !errors.Is(err, context.Canceled) || time.Since(began) > 0 {
			t.Errorf("Run = %v after %s, want its context's end at once", err, time.Since(began))
		}
		synctest.Wait()
		if n := f.sim.Watches(); n != 0 {
			t.Errorf("%d watches are open after Run has ended", n)
		}
	})
}

// settle waits until a watch that was just opened is believed.
func (f *followed) settle() {
	advance(5 * time.Second)
	synctest.Wait()
}

// changes are those told since the last time.
func (f *followed) changes() (names []runner.Name, nodes bool) {
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, ch := range f.told {
		names, nodes = append(names, ch.Runners...), nodes || ch.Nodes
	}
	f.told = nil
	return names, nodes
}

// asked is how often the API server was asked while f ran.
func (f *followed) asked(do func()) int {
	before := len(f.sim.Requests())
	do()
	return len(f.sim.Requests()) - before
}

// cut breaks all watches and lets nobody list or watch until mend is called.
func (f *followed) cut() {
	for _, verb := range []string{"watch", "list"} {
		f.sim.Inject(simcluster.Fault{Verb: verb, Count: 1 << 30})
	}
	f.sim.BreakWatches()
	synctest.Wait()
}

func (f *followed) mend() {
	f.sim.Mend()
	advance(time.Minute) // the reflector waits for up to half a minute before it tries again
	f.settle()
}

func (f *followed) oneNode(t *testing.T) runner.Node {
	t.Helper()
	nodes, err := f.Nodes(t.Context())
	must(t, "Nodes", err)
	if len(nodes) != 1 {
		t.Fatalf("Nodes() has %d nodes, want 1", len(nodes))
	}
	return nodes[0]
}

// update changes the node as others do.
func (f *followed) update(t *testing.T, change func(*corev1.Node)) {
	t.Helper()
	nodes := f.client.CoreV1().Nodes()
	n, err := nodes.Get(t.Context(), "node-1", metav1.GetOptions{})
	must(t, "get", err)
	change(n)
	_, err = nodes.Update(t.Context(), n, metav1.UpdateOptions{})
	must(t, "update", err)
}

func cordon(n *corev1.Node) { n.Spec.Unschedulable = true }

func TestWhatIsWatchedIsNotAskedFor(t *testing.T) {
	follow(t, func(t *testing.T, f *followed) {
		must(t, "create", f.EnsurePod(t.Context(), podSpec("runner-a")))
		must(t, "claim", f.ClaimNode(t.Context(), f.host(), "runner-a"))
		synctest.Wait()
		n := f.asked(func() {
			if node := f.oneNode(t); node.ClaimedBy != "runner-a" || !node.Cordoned || node.OSImage == "" {
				t.Errorf("Nodes()[0] = %+v, want the claimed one", node)
			}
			pods, err := f.Pods(t.Context())
			if err != nil || len(pods) != 1 || pods[0].Name != "runner-a" {
				t.Errorf("Pods() = %v, %v", pods, err)
			}
			if pod := f.phase(t, "runner-a"); pod.Phase != runner.PodPending || pod.NodeName != "node-1" {
				t.Errorf("Pod() = %+v", pod)
			}
			// What was done and still shows is not done again.
			must(t, "create again", f.EnsurePod(t.Context(), podSpec("runner-a")))
			must(t, "claim again", f.ClaimNode(t.Context(), f.host(), "runner-a"))
		})
		if n != 0 {
			t.Errorf("%d calls were made, want none", n)
		}
		for what, ask := range map[string]func() error{
			"a pod that is gone": func() error { _, err := f.Pod(t.Context(), "runner-b"); return err },
			"a node that is there": func() error {
				_, err := f.NodeGone(t.Context(), "node-1", string(f.node.UID))
				return err
			},
			"a claim for another": func() error {
				if err := f.ClaimNode(t.Context(), f.host(), "runner-b"); !errors.Is(err, supervisor.ErrConflict) {
					return fmt.Errorf("ClaimNode = %v, want ErrConflict", err)
				}
				return nil
			},
		} {
			if n := f.asked(func() { must(t, what, ask()) }); n != 1 {
				t.Errorf("%s: %d calls were made, want 1", what, n)
			}
		}
	})
}

func TestNothingIsBelievedBeforeItWasListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil, inProcess)
		w.sim.Inject(simcluster.Fault{Verb: "list", Count: 1000})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		advance(time.Minute)
		_, errNodes := w.Nodes(t.Context())
		_, errPods := w.Pods(t.Context())
		if errNodes == nil || errPods == nil {
			t.Errorf("Nodes, Pods = %v, %v before any list, want errors", errNodes, errPods)
		}
		cancel()
		<-ended
	})
}

// TestABrokenWatchLeavesNothingStale breaks the watches in each way, changes the
// world, and asks. Where the API server cannot be asked either, that is the answer.
func TestABrokenWatchLeavesNothingStale(t *testing.T) {
	ways := map[string]func(*followed){
		"ended and not to be had again": func(f *followed) { f.cut() },
		"silent for long": func(f *followed) {
			f.sim.Mute(true)
			advance(4 * time.Minute)
		},
		"only just back": func(f *followed) {
			f.sim.BreakWatches()
			synctest.Wait()
			f.sim.Mute(true) // what was missed is still on its way
		},
	}
	for name, breakIt := range ways {
		t.Run(name, func(t *testing.T) {
			follow(t, func(t *testing.T, f *followed) {
				must(t, "create", f.EnsurePod(t.Context(), podSpec("runner-a")))
				f.settle()
				breakIt(f)
				f.sim.Mend()
				f.update(t, cordon)
				if !f.oneNode(t).Cordoned {
					t.Error("Nodes() shows the node as it was")
				}
				must(t, "kill", f.client.CoreV1().Pods(namespace).Delete(t.Context(), "runner-a", metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}))
				if pod := f.phase(t, "runner-a"); pod.Phase != runner.PodGone {
					t.Errorf("Pod() = %+v, want Gone", pod)
				}
				if pods, err := f.Pods(t.Context()); err != nil || len(pods) != 0 {
					t.Errorf("Pods() = %v, %v, want none", pods, err)
				}
				f.sim.Inject(simcluster.Fault{Count: 1000})
				_, errNodes := f.Nodes(t.Context())
				_, errPods := f.Pods(t.Context())
				if _, errPod := f.Pod(t.Context(), "runner-a"); errNodes == nil || errPods == nil || errPod == nil {
					t.Errorf("Nodes, Pods, Pod = %v, %v, %v while nobody answers, want errors", errNodes, errPods, errPod)
				}
				f.sim.Mend()
				f.sim.Mute(false)
			})
		})
	}
}

func TestWhatWasJustWrittenIsRead(t *testing.T) {
	follow(t, func(t *testing.T, f *followed) {
		f.sim.Mute(true) // the copy hears of nothing
		must(t, "create", f.EnsurePod(t.Context(), podSpec("runner-a")))
		if pod := f.phase(t, "runner-a"); pod.Phase != runner.PodPending {
			t.Errorf("Pod() = %+v after its creation, want Pending", pod)
		}
		if pods, err := f.Pods(t.Context()); err != nil || len(pods) != 1 {
			t.Errorf("Pods() = %v, %v after a creation, want one", pods, err)
		}
		must(t, "claim", f.ClaimNode(t.Context(), f.host(), "runner-a"))
		if n := f.oneNode(t); n.ClaimedBy != "runner-a" || !n.Cordoned {
			t.Errorf("Nodes()[0] = %+v after the claim, want it claimed", n)
		}
		f.sim.Mute(false)
		f.settle()
		f.sim.Mute(true)
		must(t, "kill", f.DeletePod(t.Context(), "runner-a", 0))
		if pod := f.phase(t, "runner-a"); pod.Phase != runner.PodGone {
			t.Errorf("Pod() = %+v after it was killed, want Gone", pod)
		}
		// It would be taken for a pod that outlived its runner.
		if pods, err := f.Pods(t.Context()); err != nil || len(pods) != 0 {
			t.Errorf("Pods() = %v, %v after the pod was seen gone, want none", pods, err)
		}
		f.sim.Mute(false)
	})
}

// TestAPodThatWasGoneMayCome: the answer to its creation is lost, and the copy
// has not heard of it.
func TestAPodThatWasGoneMayCome(t *testing.T) {
	follow(t, func(t *testing.T, f *followed) {
		for range 2 {
			if pod := f.phase(t, "runner-a"); pod.Phase != runner.PodGone {
				t.Errorf("Pod() = %+v, want Gone", pod)
			}
		}
		f.sim.Mute(true)
		f.sim.Inject(simcluster.Fault{Verb: "create", Resource: "pods", After: true, Err: simcluster.TimedOut()})
		if f.EnsurePod(t.Context(), podSpec("runner-a")) == nil {
			t.Error("EnsurePod = nil with a lost answer, want an error")
		}
		if pod := f.phase(t, "runner-a"); pod.Phase != runner.PodPending {
			t.Errorf("Pod() = %+v, want Pending", pod)
		}
		f.sim.Mute(false)
	})
}

func TestNowIsAskedForEachTime(t *testing.T) {
	follow(t, func(t *testing.T, f *followed) {
		must(t, "create", f.EnsurePod(t.Context(), podSpec("runner-a")))
		f.settle()
		f.sim.Mute(true)
		f.update(t, cordon)
		if n := f.asked(func() {
			nodes, err := f.NodesNow(t.Context())
			if err != nil || len(nodes) != 1 || !nodes[0].Cordoned {
				t.Errorf("NodesNow() = %v, %v, want the cordoned one", nodes, err)
			}
			if pod, err := f.PodNow(t.Context(), "runner-a"); err != nil || pod.Phase != runner.PodPending {
				t.Errorf("PodNow() = %v, %v, want Pending", pod, err)
			}
		}); n != 2 {
			t.Errorf("%d calls were made, want 2", n)
		}
		f.sim.Mute(false)
	})
}

func TestAPodIsGoneOnlyWhenTheAPIServerSaysSo(t *testing.T) {
	follow(t, func(t *testing.T, f *followed) {
		must(t, "create", f.EnsurePod(t.Context(), podSpec("runner-a")))
		f.settle()
		// A pod without our labels is not in the copy.
		pods := f.client.CoreV1().Pods(namespace)
		pod := f.pod(t, "runner-a")
		pod.Labels = nil
		_, err := pods.Update(t.Context(), pod, metav1.UpdateOptions{})
		must(t, "update", err)
		synctest.Wait()
		if got := f.phase(t, "runner-a"); got.Phase != runner.PodPending {
			t.Errorf("Pod() = %+v, want Pending", got)
		}
		f.sim.Inject(simcluster.Fault{Verb: "get", Resource: "pods", Count: 1})
		if _, err := f.Pod(t.Context(), "runner-a"); err == nil {
			t.Error("Pod() = nil while the API server does not answer, want an error")
		}
	})
}

func TestDeletionsThatWereMissed(t *testing.T) {
	follow(t, func(t *testing.T, f *followed) {
		must(t, "claim", f.ClaimNode(t.Context(), f.host(), "runner-a"))
		must(t, "create", f.EnsurePod(t.Context(), podSpec("runner-a")))
		f.settle()
		f.changes()
		f.cut()
		must(t, "kill", f.client.CoreV1().Pods(namespace).Delete(t.Context(), "runner-a", metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}))
		must(t, "delete", f.client.CoreV1().Nodes().Delete(t.Context(), "node-1", metav1.DeleteOptions{}))
		f.sim.Compact() // the deletions themselves will never be told
		f.mend()
		if names, nodes := f.changes(); !slices.Contains(names, "runner-a") || !nodes {
			t.Errorf("told of runners %v and nodes %t, want runner-a and nodes", names, nodes)
		}
		n := f.asked(func() {
			nodes, errNodes := f.Nodes(t.Context())
			pods, errPods := f.Pods(t.Context())
			if errNodes != nil || errPods != nil || len(nodes)+len(pods) != 0 {
				t.Errorf("Nodes, Pods = %v %v, %v %v, want none", nodes, errNodes, pods, errPods)
			}
		})
		if n != 0 {
			t.Errorf("%d calls were made, want none: the cluster is watched again", n)
		}
	})
}

func TestAnotherNodeUnderTheNameIsAnotherNode(t *testing.T) {
	for name, gap := range map[string]bool{"watched": false, "in a gap": true} {
		t.Run(name, func(t *testing.T) {
			follow(t, func(t *testing.T, f *followed) {
				must(t, "claim", f.ClaimNode(t.Context(), f.host(), "runner-a"))
				f.settle()
				f.changes()
				if gap {
					f.cut()
				}
				must(t, "delete", f.client.CoreV1().Nodes().Delete(t.Context(), "node-1", metav1.DeleteOptions{}))
				again, err := f.sim.AddNode(simcluster.NodeSpec{Name: "node-1", Labels: map[string]string{"pool": "prod"}})
				must(t, "AddNode", err)
				if gap {
					f.sim.Compact()
					f.mend()
				}
				f.settle()
				if names, nodes := f.changes(); !slices.Contains(names, "runner-a") || !nodes {
					t.Errorf("told of runners %v and nodes %t, want runner-a and nodes", names, nodes)
				}
				if n := f.oneNode(t); n.UID != string(again.UID) || n.ClaimedBy != "" || n.Cordoned {
					t.Errorf("Nodes()[0] = %+v, want the new node, unclaimed", n)
				}
				if err := f.ClaimNode(t.Context(), f.host(), "runner-a"); !errors.Is(err, supervisor.ErrConflict) {
					t.Errorf("ClaimNode of the old node = %v, want ErrConflict", err)
				}
			})
		})
	}
}

func TestAfterGoneTheClusterIsListedAnew(t *testing.T) {
	follow(t, func(t *testing.T, f *followed) {
		before := f.Health().Watches[0]
		f.sim.Inject(simcluster.Fault{Verb: "watch", Count: 2, Err: apierrors.NewTooManyRequests("busy", 1)})
		f.sim.BreakWatches()
		synctest.Wait()
		f.update(t, cordon)
		f.sim.Compact()
		f.mend()
		after := f.Health().Watches[0]
		if after.Lists != before.Lists+1 || after.Failures < 2 || !after.Open {
			t.Errorf("the watch went from %+v to %+v, want one more list, failures, and open", before, after)
		}
		if n := f.asked(func() {
			if !f.oneNode(t).Cordoned {
				t.Error("Nodes() shows the node as it was")
			}
		}); n != 0 {
			t.Errorf("%d calls were made, want none", n)
		}
	})
}

func TestHealthSaysHowTheClusterIsFollowed(t *testing.T) {
	follow(t, func(t *testing.T, f *followed) {
		for _, w := range f.Health().Watches {
			if !w.Open || w.Problem != "" || w.Lists != 1 || w.Failures != 0 {
				t.Errorf("watch of %s = %+v, want open, listed once", w.What, w)
			}
		}
		f.cut()
		advance(time.Minute)
		for _, w := range f.Health().Watches {
			if w.Open || w.Failures == 0 || time.Since(w.Since) < time.Minute || !strings.Contains(w.Problem, "apiserver not ready") {
				t.Errorf("watch of %s = %+v, want it broken for a minute and why", w.What, w)
			}
		}
		f.mend()
		for _, w := range f.Health().Watches {
			if !w.Open || w.Problem != "" {
				t.Errorf("watch of %s = %+v, want open", w.What, w)
			}
		}
	})
}

func TestChangesAreToldAtOnceAndNotTooOften(t *testing.T) {
	follow(t, func(t *testing.T, f *followed) {
		f.changes()
		began := time.Now()
		must(t, "create", f.EnsurePod(t.Context(), podSpec("runner-a")))
		if names, _ := f.changes(); !slices.Equal(names, []runner.Name{"runner-a"}) || time.Since(began) != 0 {
			t.Errorf("told of %v after %s, want runner-a at once", names, time.Since(began))
		}
		for i := range 100 {
			advance(10 * time.Millisecond)
			f.update(t, func(n *corev1.Node) { n.Labels["beat"] = fmt.Sprint(i) })
		}
		advance(time.Second)
		f.mu.Lock()
		if n := len(f.told); n < 2 || n > 6 {
			t.Errorf("100 changes in a second were told %d times, want 2 to 6", n)
		}
		f.mu.Unlock()
		f.changes()
		// A heartbeat changes nothing that anybody reads.
		f.update(t, func(n *corev1.Node) { n.Annotations = map[string]string{"heartbeat": "now"} })
		f.settle()
		if names, nodes := f.changes(); len(names) > 0 || nodes {
			t.Errorf("told of %v and nodes %t after a heartbeat, want nothing", names, nodes)
		}
	})
}

// TestTheClusterIsFollowedOverTLS has client-go's real client watch and counts
// what it sends.
func TestTheClusterIsFollowedOverTLS(t *testing.T) {
	requests := &cluster.Requests{}
	w := newWorld(t, nil, countedTLS(requests), func(o *cluster.Options) { o.Requests = requests })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = w.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	must(t, "create", w.EnsurePod(ctx, podSpec("runner-a")))
	count := func(verb, resource string) (n int64) {
		for _, r := range w.Health().Requests {
			if r.Verb == verb && r.Resource == resource {
				n += r.Count
			}
		}
		return n
	}
	// Believed: a read that costs no call.
	deadline := time.Now().Add(20 * time.Second)
	for {
		gets := count("get", "pods")
		if pod := w.phase(t, "runner-a"); pod.Phase == runner.PodPending && count("get", "pods") == gets {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the copy of the pods is not believed within 20 s")
		}
		advance(10 * time.Millisecond)
	}
	for call, want := range map[[2]string]int64{
		{"create", "pods"}: 1, {"watch", "pods"}: 1, {"watch", "nodes"}: 1, {"list", "nodes"}: 1, {"list", "pods"}: 1,
	} {
		if got := count(call[0], call[1]); got != want {
			t.Errorf("%d calls to %s %s, want %d", got, call[0], call[1], want)
		}
	}
}
