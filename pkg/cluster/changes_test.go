package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
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

// TestACopyThatIsNeverBelievedIsAProblem: its watch is open, and says nothing of
// what we wrote.
func TestACopyThatIsNeverBelievedIsAProblem(t *testing.T) {
	follow(t, func(t *testing.T, f *followed) {
		f.sim.Mute(true)
		must(t, "claim", f.ClaimNode(t.Context(), f.host(), "runner-a"))
		for _, open := range []bool{true, false} {
			if w := f.Health().Watches[0]; w.Open != open || (w.Problem == "") != open {
				t.Errorf("the watch of nodes is %+v, want open to be %t", w, open)
			}
			advance(time.Minute)
		}
		f.sim.Mute(false)
		f.settle()
		if w := f.Health().Watches[0]; !w.Open || w.Problem != "" {
			t.Errorf("the watch of nodes is %+v after it caught up, want it open", w)
		}
	})
}
