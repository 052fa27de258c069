package cluster

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/runnerward/runnerward/pkg/runner"
)

// The limits of events.k8s.io/v1.
// https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/
const (
	maxNote   = 1024
	maxReason = 128
)

// eventTimeout bounds the calls for one event.
const eventTimeout = 10 * time.Second

type notice struct {
	pod, podUID   string
	node, nodeUID string
	reason, note  string
	at            time.Time
}

type queue struct {
	notices chan notice
	dropped *atomic.Int64
}

func newQueue(size int) queue {
	return queue{notices: make(chan notice, size), dropped: new(atomic.Int64)}
}

// Event queues an event for the pod and for the node; either may be empty. It
// never blocks: when the queue is full the event is dropped and counted. What is
// said again within some minutes is counted in the event that is there.
// Events are for people; the ledger is the record.
func (c *Cluster) Event(name runner.Name, node, reason, note string) {
	n := notice{
		pod: string(name), podUID: c.podUIDs.of(name), node: node, nodeUID: c.nodeUIDs.of(node),
		reason: cut(reason, maxReason), note: cut(note, maxNote), at: time.Now(),
	}
	select {
	case c.events.notices <- n:
	default:
		c.events.dropped.Add(1)
	}
}

// DroppedEvents is how many events were never sent, because the queue was full
// or the API server did not take them.
func (c *Cluster) DroppedEvents() int64 { return c.events.dropped.Load() }

// sendEvents sends queued events until the context ends, and returns its cause.
func (c *Cluster) sendEvents(ctx context.Context) error {
	told := series{}
	tick := time.NewTicker(seriesEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case n := <-c.events.notices:
			c.send(ctx, told, n)
		case <-tick.C:
			for _, e := range told.due(time.Now()) {
				c.count(ctx, told, e)
			}
		}
	}
}

func (c *Cluster) send(ctx context.Context, told series, n notice) {
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	for _, ref := range c.regarding(ctx, n) {
		if told.again(keyOf(n, ref), n.at) {
			continue
		}
		made, err := c.create(ctx, n, ref)
		if err != nil {
			c.notSent(n.reason, ref.Name, err)
			continue
		}
		told.first(keyOf(n, ref), made, n.at)
	}
}

func (c *Cluster) notSent(reason, object string, err error) {
	c.events.dropped.Add(1)
	c.logger.Debug("event not sent", zap.String("reason", reason), zap.String("object", object), zap.Error(err))
}

// count writes how often an event came. One that is no more (the API server
// keeps events for an hour, and anybody may delete one) is made anew when it
// comes again.
func (c *Cluster) count(ctx context.Context, told series, e *toldEvent) {
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	event := e.event.DeepCopy()
	// Whoever changed it meanwhile: the count is ours.
	event.ResourceVersion = ""
	event.Series = &eventsv1.EventSeries{Count: e.count, LastObservedTime: metav1.NewMicroTime(e.last)}
	_, err := c.client.EventsV1().Events(event.Namespace).Update(ctx, event, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		told.forget(e)
	}
	if err != nil {
		c.notSent(event.Reason, event.Regarding.Name, err)
	}
	told.written(e)
}

// regarding names the objects. kubectl describe finds events by UID. Those that
// the copies never had are looked up; an object that is gone still gets its
// event, without a UID if need be.
func (c *Cluster) regarding(ctx context.Context, n notice) []corev1.ObjectReference {
	var refs []corev1.ObjectReference
	if n.pod != "" {
		ref := corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: c.opts.Namespace, Name: n.pod, UID: types.UID(n.podUID)}
		if ref.UID == "" {
			if pod, err := c.client.CoreV1().Pods(c.opts.Namespace).Get(ctx, ref.Name, metav1.GetOptions{}); err == nil {
				ref.UID = pod.UID
			}
		}
		refs = append(refs, ref)
	}
	if n.node != "" {
		ref := corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: n.node, UID: types.UID(n.nodeUID)}
		if ref.UID == "" {
			if node, err := c.client.CoreV1().Nodes().Get(ctx, ref.Name, metav1.GetOptions{}); err == nil {
				ref.UID = node.UID
			}
		}
		refs = append(refs, ref)
	}
	return refs
}

func (c *Cluster) create(ctx context.Context, n notice, ref corev1.ObjectReference) (*eventsv1.Event, error) {
	// The API server takes events on cluster-scoped objects only in the
	// default namespace.
	namespace := ref.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	made, err := c.client.EventsV1().Events(namespace).Create(ctx, &eventsv1.Event{
		ObjectMeta:          metav1.ObjectMeta{GenerateName: ref.Name + "-", Namespace: namespace},
		EventTime:           metav1.NewMicroTime(n.at),
		ReportingController: c.opts.EventSource,
		ReportingInstance:   c.opts.EventInstance,
		Action:              n.reason,
		Reason:              n.reason,
		Regarding:           ref,
		Note:                n.note,
		Type:                severity(n.reason),
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("create an event: %w", err)
	}
	return made, nil
}

// cut shortens s to at most limit bytes of valid UTF-8.
func cut(s string, limit int) string {
	return strings.ToValidUTF8(s[:min(len(s), limit)], "")
}

// severity marks what somebody should look at.
func severity(reason string) string {
	switch reason {
	case "Refused", "Retired", "TeardownOverdue", "StrayPod", "Rebuffed", "PodTrouble", "HostSilent":
		return corev1.EventTypeWarning
	}
	return corev1.EventTypeNormal
}
