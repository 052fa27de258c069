package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
