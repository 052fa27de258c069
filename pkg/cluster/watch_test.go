package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
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
			if pod := f.phase(t, "runner-a"); pod.Phase != runner.PodPending || pod.NodeName != "node-1" || pod.Authorized != podSpec("runner-a").Authorized {
				t.Errorf("Pod() = %+v", pod)
			}
			// What was done and still shows is not done again.
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
