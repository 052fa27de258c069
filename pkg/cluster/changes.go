package cluster

import (
	"context"
	"reflect"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

const (
	// changePause is the least time between two calls of OnChange: a pod that
	// flaps, or whoever makes pods with our labels, must not keep us busy.
	changePause = 250 * time.Millisecond
	// maxChanged bounds how many runners one call names; the others are looked
	// at with the next tick.
	maxChanged = 256
)

// changes gathers what changed until it is told. It is safe for concurrent use.
type changes struct {
	mu   sync.Mutex
	next supervisor.Change
	some chan struct{} // holds at most one
}

func newChanges() *changes { return &changes{some: make(chan struct{}, 1)} }

func (ch *changes) note(name runner.Name, nodes bool) {
	ch.mu.Lock()
	ch.next.Nodes = ch.next.Nodes || nodes
	if name != "" && len(ch.next.Runners) < maxChanged && !slices.Contains(ch.next.Runners, name) {
		ch.next.Runners = append(ch.next.Runners, name)
	}
	ch.mu.Unlock()
	select {
	case ch.some <- struct{}{}:
	default:
	}
}

// tell calls f with what changed, the first time at once, until the context ends.
func (ch *changes) tell(ctx context.Context, f func(supervisor.Change)) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		select {
		case <-ctx.Done():
			return
		case <-ch.some:
		}
		ch.mu.Lock()
		next := ch.next
		ch.next = supervisor.Change{}
		ch.mu.Unlock()
		f(next)
		timer.Reset(changePause)
	}
}

// podHandler tells of pods whose state for the supervisor changed.
func (c *Cluster) podHandler() cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) {
			if pod, ok := obj.(*corev1.Pod); ok {
				c.podUIDs.keep(runner.Name(pod.Name), string(pod.UID))
				c.changes.note(runner.Name(pod.Name), false)
			}
		},
		UpdateFunc: func(before, after any) {
			old, ok := before.(*corev1.Pod)
			pod, ok2 := after.(*corev1.Pod)
			if ok && ok2 && podOf(old) != podOf(pod) {
				c.podUIDs.keep(runner.Name(pod.Name), string(pod.UID))
				c.changes.note(runner.Name(pod.Name), false)
			}
		},
		DeleteFunc: func(obj any) {
			if pod, ok := last[*corev1.Pod](obj); ok {
				c.changes.note(runner.Name(pod.Name), false)
			}
		},
	}
}

// nodeHandler tells of nodes that changed in more than their heartbeat. The
// runner of a node that is gone, or was replaced under its name, is named.
func (c *Cluster) nodeHandler() cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) {
			if node, ok := obj.(*corev1.Node); ok {
				c.nodeUIDs.keep(node.Name, string(node.UID))
				c.changes.note("", true)
			}
		},
		UpdateFunc: func(before, after any) {
			old, ok := before.(*corev1.Node)
			node, ok2 := after.(*corev1.Node)
			switch {
			case !ok || !ok2:
			case old.UID != node.UID:
				// A list after a gap shows the new node alone.
				c.nodeUIDs.keep(node.Name, string(node.UID))
				c.changes.note(claimedBy(old), true)
			case !reflect.DeepEqual(nodeOf(old), nodeOf(node)):
				c.changes.note("", true)
			}
		},
		DeleteFunc: func(obj any) {
			if node, ok := last[*corev1.Node](obj); ok {
				c.changes.note(claimedBy(node), true)
			}
		},
	}
}

// last is the last known state of what was deleted. Where the deletion itself
// was missed it comes wrapped, and may be old.
func last[T any](obj any) (T, bool) {
	if unknown, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = unknown.Obj
	}
	o, ok := obj.(T)
	return o, ok
}
