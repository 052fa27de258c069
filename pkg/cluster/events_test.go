package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	simcluster "github.com/runnerward/runnerward/pkg/sim/cluster"
)

func (w world) events(t *testing.T, ns string) []eventsv1.Event {
	t.Helper()
	list, err := w.client.EventsV1().Events(ns).List(context.WithoutCancel(t.Context()), metav1.ListOptions{})
	must(t, "list events", err)
	return list.Items
}

func TestEventsReachThePodAndTheNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil, inProcess)
		must(t, "EnsurePod", w.EnsurePod(t.Context(), podSpec("runner-a")))
		uid := w.pod(t, "runner-a").UID
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = w.Run(ctx) }()
		w.Event("runner-a", "node-1", "Refused", strings.Repeat("é", 600))
		synctest.Wait()
		cancel()
		pods, nodes := w.events(t, namespace), w.events(t, metav1.NamespaceDefault)
		if len(pods) != 1 || len(nodes) != 1 {
			t.Fatalf("%d events on pods and %d on nodes, want 1 and 1", len(pods), len(nodes))
		}
		if e := pods[0]; e.Regarding.Kind != "Pod" || e.Regarding.Name != "runner-a" || e.Regarding.UID != uid ||
			e.Reason != "Refused" || e.Type != "Warning" || len(e.Note) != 1024 || e.ReportingController != "runnerward.io/supervisor" {
			t.Errorf("event on the pod = %+v", e)
		}
		if e := nodes[0]; e.Regarding.Kind != "Node" || e.Regarding.Name != "node-1" || e.Regarding.UID != w.node.UID {
			t.Errorf("event on the node = %+v", e)
		}
		if n := w.DroppedEvents(); n != 0 {
			t.Errorf("DroppedEvents() = %d, want 0", n)
		}
	})
}

func TestAFullEventQueueDropsAndCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil, inProcess)
		for i := range 10 { // the queue holds 4, and nobody sends
			w.Event("", "node-1", "Claimed", fmt.Sprint("note ", i))
		}
		if n := w.DroppedEvents(); n != 6 {
			t.Errorf("DroppedEvents() = %d, want 6", n)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		synctest.Wait()
		cause := errors.New("shut down")
		cancel(cause)
		if err := <-done; !errors.Is(err, cause) {
			t.Errorf("Run = %v, want the cause", err)
		}
		if n := len(w.events(t, metav1.NamespaceDefault)); n != 4 {
			t.Errorf("%d events were sent, want 4", n)
		}
	})
}

func TestAnEventThatTheClusterRefusesIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil, inProcess)
		w.sim.Inject(simcluster.Fault{Verb: "create", Resource: "events"})
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = w.Run(ctx) }()
		w.Event("", "node-1", "Claimed", "note")
		w.Event("", "node-1", "Claimed", "note")
		synctest.Wait()
		cancel()
		if n, sent := w.DroppedEvents(), len(w.events(t, metav1.NamespaceDefault)); n != 1 || sent != 1 {
			t.Errorf("dropped %d and sent %d events, want 1 and 1", n, sent)
		}
	})
}

// TestWhatIsSaidAgainIsCounted repeats events: the API expects one with a series.
// https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/
func TestWhatIsSaidAgainIsCounted(t *testing.T) {
	follow(t, func(t *testing.T, f *followed) {
		began := time.Now()
		n := f.asked(func() {
			for range 50 {
				f.Event("", "node-1", "StrayPod", "again")
				synctest.Wait()
				advance(time.Second)
			}
			advance(time.Minute)
			synctest.Wait()
		})
		if n != 2 {
			t.Errorf("50 repetitions took %d calls, want one for the event and one for their number", n)
		}
		events := f.events(t, metav1.NamespaceDefault)
		if len(events) != 1 || events[0].Series == nil || events[0].Series.Count != 50 || !events[0].EventTime.Time.Equal(began) {
			t.Fatalf("events = %+v, want one of a series of 50", events)
		}
		if last := events[0].Series.LastObservedTime.Sub(began); last != 49*time.Second {
			t.Errorf("the series was last seen after %s, want 49s", last)
		}
		f.Event("", "node-1", "StrayPod", "another note is another event")
		f.settle()
		if n := len(f.events(t, metav1.NamespaceDefault)); n != 2 {
			t.Errorf("%d events after another note, want 2", n)
		}
		advance(7 * time.Minute)
		f.Event("", "node-1", "StrayPod", "again")
		f.settle()
		if n := len(f.events(t, metav1.NamespaceDefault)); n != 3 {
			t.Errorf("%d events after the series had ended, want 3", n)
		}
	})
}

func TestEventsNameObjectsWithoutAsking(t *testing.T) {
	follow(t, func(t *testing.T, f *followed) {
		must(t, "create", f.EnsurePod(t.Context(), podSpec("runner-a")))
		uid := f.pod(t, "runner-a").UID
		tell := func(reason string) {
			t.Helper()
			n := f.asked(func() {
				f.Event("runner-a", "node-1", reason, "note")
				synctest.Wait()
			})
			pods, nodes := f.events(t, namespace), f.events(t, metav1.NamespaceDefault)
			if n != 2 || pods[len(pods)-1].Regarding.UID != uid || nodes[len(nodes)-1].Regarding.UID != f.node.UID {
				t.Errorf("%s took %d calls and is about %q and %q, want 2, the pod and the node",
					reason, n, pods[len(pods)-1].Regarding.UID, nodes[len(nodes)-1].Regarding.UID)
			}
		}
		tell("Bound")
		must(t, "kill", f.DeletePod(t.Context(), "runner-a", 0))
		must(t, "delete", f.DeleteNode(t.Context(), "node-1", string(f.node.UID)))
		f.settle()
		tell("Terminated") // about objects that are gone
	})
}

// TestAnEventThatWasDeletedIsShownAgain: what goes on is not hidden because
// somebody cleared the events.
func TestAnEventThatWasDeletedIsShownAgain(t *testing.T) {
	follow(t, func(t *testing.T, f *followed) {
		f.Event("", "node-1", "StrayPod", "again")
		f.settle()
		gone := apierrors.NewNotFound(schema.GroupResource{Group: "events.k8s.io", Resource: "events"}, "node-1-x")
		f.sim.Inject(simcluster.Fault{Verb: "update", Resource: "events", Count: 1, Err: gone})
		for range 2 {
			f.Event("", "node-1", "StrayPod", "again")
			advance(time.Minute)
			f.settle()
		}
		if n := len(f.events(t, metav1.NamespaceDefault)); n != 2 {
			t.Errorf("%d events were made, want another after the first was gone", n)
		}
	})
}
