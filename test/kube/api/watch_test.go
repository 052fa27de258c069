package api

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"github.com/runnerward/runnerward/pkg/cluster"
	"github.com/runnerward/runnerward/pkg/runner"
	simcluster "github.com/runnerward/runnerward/pkg/sim/cluster"
	"github.com/runnerward/runnerward/pkg/sim/world"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// watched is pkg/cluster before the real API server, counting its calls, with one
// node of its pool, which has no kubelet.
func watched(t *testing.T, onChange func(supervisor.Change)) (c *cluster.Cluster, namespace, node string) {
	t.Helper()
	namespace = runnersNamespace(t)
	node = namespace + "-1"
	made := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node, Labels: map[string]string{world.PoolLabelKey: namespace}}}
	if _, err := admin(t).CoreV1().Nodes().Create(t.Context(), made, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { forget(t, node) })
	requests := &cluster.Requests{}
	client, err := cluster.NewClient(planeOf(t).AdminKubeconfig(), requests)
	if err != nil {
		t.Fatal(err)
	}
	return adapterOf(t, client, namespace, func(o *cluster.Options) { o.OnChange, o.Requests = onChange, requests }), namespace, node
}

// asked is how often the API server was asked in all.
func asked(c *cluster.Cluster) (n int64) {
	for _, r := range c.Health().Requests {
		n += r.Count
	}
	return n
}

// TestARealClusterIsFollowed has the informers watch a real API server: reads
// cost no call, what we wrote is read, and changes are told.
func TestARealClusterIsFollowed(t *testing.T) {
	var told atomic.Int64
	c, runners, name := watched(t, func(supervisor.Change) { told.Add(1) })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = c.Run(ctx) }()
	free := func(read func()) bool {
		before := asked(c)
		read()
		return asked(c) == before
	}
	nodes := func() []runner.Node {
		t.Helper()
		list, err := c.Nodes(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	until(t, "the nodes are read without asking", time.Minute, func() (bool, error) { return free(func() { nodes() }), nil })
	list := nodes()
	if len(list) != 1 || list[0].Name != name {
		t.Fatalf("Nodes() = %+v, want %s", list, name)
	}
	host := runner.Host{NodeName: name, NodeUID: list[0].UID, BootID: list[0].BootID}
	if err := c.ClaimNode(ctx, host, "runner-a"); err != nil {
		t.Fatal(err)
	}
	if n := nodes()[0]; n.ClaimedBy != "runner-a" || !n.Cordoned {
		t.Errorf("Nodes()[0] = %+v right after the claim, want it claimed", n)
	}
	if err := c.EnsurePod(ctx, podSpec("runner-a", name)); err != nil {
		t.Fatal(err)
	}
	phase := func() runner.PodPhase {
		t.Helper()
		pod, err := c.Pod(ctx, "runner-a")
		if err != nil {
			t.Fatal(err)
		}
		return pod.Phase
	}
	if got := phase(); got != runner.PodPending {
		t.Errorf("Pod() is %s right after its creation, want Pending", got)
	}
	until(t, "claim and reads cost nothing any more", time.Minute, func() (bool, error) {
		return free(func() {
			if err := c.ClaimNode(ctx, host, "runner-a"); err != nil {
				t.Fatal(err)
			}
			phase()
			nodes()
		}), nil
	})
	before := told.Load()
	if err := admin(t).CoreV1().Pods(runners).Delete(ctx, "runner-a", metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}); err != nil {
		t.Fatal(err)
	}
	until(t, "the pod is gone", time.Minute, func() (bool, error) { return phase() == runner.PodGone, nil })
	until(t, "that is told", time.Minute, func() (bool, error) { return told.Load() > before, nil })
	c.Event("runner-a", name, "Terminated", "the test ends it")
	for namespace, object := range map[string]string{runners: "runner-a", metav1.NamespaceDefault: name} {
		until(t, "the event about "+object, time.Minute, func() (bool, error) {
			list, err := admin(t).EventsV1().Events(namespace).List(ctx, metav1.ListOptions{})
			if err != nil {
				return false, err
			}
			return slices.ContainsFunc(list.Items, func(e eventsv1.Event) bool {
				return e.Reason == "Terminated" && e.Regarding.Name == object && e.Regarding.UID != ""
			}), nil
		})
	}
	for _, w := range c.Health().Watches {
		if !w.Open || w.Lists != 1 || w.Failures != 0 {
			t.Errorf("watch of %s = %+v, want open, listed once", w.What, w)
		}
	}
	cancel()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("Run goes on after its context has ended")
	}
}

// TestTheSimulatedWatchAnswersAsTheRealOne puts the same questions to both.
func TestTheSimulatedWatchAnswersAsTheRealOne(t *testing.T) {
	_, runners, node := watched(t, nil)
	real := admin(t)
	sim, err := simcluster.New(simcluster.Options{Namespace: runners, ServiceAccounts: []string{world.ServiceAccount}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sim.AddNode(simcluster.NodeSpec{Name: node, Labels: map[string]string{world.PoolLabelKey: runners}}); err != nil {
		t.Fatal(err)
	}
	// "Any" is what the API server's cache has, which may be behind.
	until(t, "the API server's cache has the node", patience, func() (bool, error) {
		list, err := real.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{ResourceVersion: "0", LabelSelector: world.PoolLabelKey + "=" + runners})
		return err == nil && len(list.Items) == 1, err
	})
	yes, no, newer := new(true), new(false), metav1.ResourceVersionMatchNotOlderThan
	future := strconv.Itoa(1_000_000_000)
	cases := map[string]metav1.ListOptions{
		"from nowhere":                       {},
		"from any, with bookmarks":           {ResourceVersion: "0", AllowWatchBookmarks: true},
		"the state":                          {SendInitialEvents: yes, ResourceVersionMatch: newer, AllowWatchBookmarks: true},
		"the state, without bookmarks":       {SendInitialEvents: yes, ResourceVersionMatch: newer},
		"no state":                           {SendInitialEvents: no, ResourceVersionMatch: newer, AllowWatchBookmarks: true},
		"by field":                           {FieldSelector: "metadata.name=" + node},
		"a version to come":                  {ResourceVersion: future},
		"a state to come":                    {ResourceVersion: future, SendInitialEvents: yes, ResourceVersionMatch: newer, AllowWatchBookmarks: true},
		"initial events without a match":     {SendInitialEvents: yes},
		"initial events at an exact version": {SendInitialEvents: yes, ResourceVersion: "1", ResourceVersionMatch: metav1.ResourceVersionMatchExact},
		"a match without initial events":     {ResourceVersion: "1", ResourceVersionMatch: newer},
		"a version that is none":             {ResourceVersion: "new"},
	}
	var asking sync.WaitGroup
	for name, opts := range cases {
		if opts.FieldSelector == "" {
			opts.LabelSelector = world.PoolLabelKey + "=" + runners
		}
		asking.Go(func() {
			want, got := firstWords(t, real, opts), firstWords(t, sim.Client(), opts)
			if got != want {
				t.Errorf("%s: the simulator says %s, the API server %s", name, got, want)
			}
		})
	}
	asking.Wait()
	for name, opts := range map[string]metav1.ListOptions{
		"any version": {ResourceVersion: "0"}, "a version that is none": {ResourceVersion: "new"},
		"a match without a version": {ResourceVersionMatch: newer}, "initial events": {SendInitialEvents: yes, ResourceVersionMatch: newer, ResourceVersion: "0"},
		"a field that is none": {FieldSelector: "spec.color=red"},
	} {
		list := func(client kubernetes.Interface) string {
			_, err := client.CoreV1().Nodes().List(t.Context(), opts)
			return string(apierrors.ReasonForError(err))
		}
		if got, want := list(sim.Client()), list(real); got != want {
			t.Errorf("list %s: the simulator says %q, the API server %q", name, got, want)
		}
	}
	if got, want := seriesOf(t, sim.Client(), node), seriesOf(t, real, node); got != want {
		t.Errorf("changes of an event: the simulator says %s, the API server %s", got, want)
	}
}

// firstWords is what a watch of nodes says at once: the refusal, or the first
// events. For a version to come the API server waits for 3 s. Nodes change in a
// real cluster; that is not compared.
func firstWords(t *testing.T, client kubernetes.Interface, opts metav1.ListOptions) string {
	t.Helper()
	w, err := client.CoreV1().Nodes().Watch(t.Context(), opts)
	if err != nil {
		return "refused: " + string(apierrors.ReasonForError(err))
	}
	defer w.Stop()
	patience := 3 * time.Second
	if opts.ResourceVersion != "" && opts.ResourceVersion != "0" {
		patience = 10 * time.Second
	}
	out, limit := "", time.After(patience)
	for {
		select {
		case e, ok := <-w.ResultChan():
			switch {
			case !ok:
				return out + " end"
			case e.Type == watch.Error:
				return out + " ERROR " + string(apierrors.ReasonForError(apierrors.FromObject(e.Object)))
			case e.Type == watch.Modified:
				continue // the node controller at work
			}
			m, err := meta.Accessor(e.Object)
			if err != nil {
				return out + err.Error()
			}
			out += fmt.Sprintf(" %s %s", e.Type, m.GetName())
			if m.GetAnnotations()[metav1.InitialEventsAnnotationKey] == "true" {
				return out + "end of state"
			}
		case <-limit:
			return out
		}
	}
}

// seriesOf makes an event, counts it, and tries to change its note.
func seriesOf(t *testing.T, client kubernetes.Interface, node string) string {
	t.Helper()
	events := client.EventsV1().Events(metav1.NamespaceDefault)
	made, err := events.Create(t.Context(), &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{GenerateName: node + "-", Namespace: metav1.NamespaceDefault},
		EventTime:  metav1.NowMicro(), ReportingController: "runnerward.io/supervisor", ReportingInstance: "test",
		Action: "Tested", Reason: "Tested", Note: "note", Type: corev1.EventTypeNormal,
		Regarding: corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: node},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	try := func(change func(*eventsv1.Event)) string {
		e := made.DeepCopy()
		e.ResourceVersion = ""
		change(e)
		_, err := events.Update(t.Context(), e, metav1.UpdateOptions{})
		return string(apierrors.ReasonForError(err))
	}
	return fmt.Sprintf("series %q, series of one %q, another note %q",
		try(func(e *eventsv1.Event) {
			e.Series = &eventsv1.EventSeries{Count: 2, LastObservedTime: metav1.NowMicro()}
		}),
		try(func(e *eventsv1.Event) {
			e.Series = &eventsv1.EventSeries{Count: 1, LastObservedTime: metav1.NowMicro()}
		}),
		try(func(e *eventsv1.Event) { e.Note = "another" }))
}
