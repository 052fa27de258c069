package api

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
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
	"github.com/runnerward/runnerward/pkg/supervisor"
	"github.com/runnerward/runnerward/test/kube/plane"
)

const runners = "gha-runners"

// adapter is pkg/cluster before a real API server, with a node of the pool and
// another, and without kubelets.
func adapter(t *testing.T, p *plane.Plane, onChange func(supervisor.Change)) (*cluster.Cluster, kubernetes.Interface) {
	t.Helper()
	admin, err := p.Client()
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	core := admin.CoreV1()
	if _, err := core.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: runners}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := core.ServiceAccounts(runners).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "runner"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, pool := range map[string]string{"node-1": "prod", "other": "other"} {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"pool": pool}}}
		if _, err := core.Nodes().Create(ctx, node, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	requests := &cluster.Requests{}
	client, err := cluster.NewClient(p.AdminKubeconfig(), requests)
	if err != nil {
		t.Fatal(err)
	}
	c, err := cluster.New(client, cluster.Options{
		Namespace: runners, NodeLabels: map[string]string{"pool": "prod"}, Taint: runner.Taint{Key: "workload", Value: "runner", Effect: "NoSchedule"},
		ServiceAccount: "runner", RunnerImage: "runner.invalid/runner:1", AgentImage: "runner.invalid/agent:1",
		AdmissionURL: "https://runnerward.runnerward:8443", CPU: "1", Memory: "1Gi", Cluster: "test", ScaleSet: "prod", Organization: "acme",
		OnChange: onChange, Requests: requests,
	}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	return c, admin
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
		<-time.After(20 * time.Millisecond)
	}
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
	p := start(t)
	var told atomic.Int64
	c, admin := adapter(t, p, func(supervisor.Change) { told.Add(1) })
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
	until(t, "the nodes are read without asking", func() bool { return free(func() { nodes() }) })
	list := nodes()
	if len(list) != 1 || list[0].Name != "node-1" {
		t.Fatalf("Nodes() = %+v, want node-1", list)
	}
	host := runner.Host{NodeName: "node-1", NodeUID: list[0].UID}
	if err := c.ClaimNode(ctx, host, "runner-a"); err != nil {
		t.Fatal(err)
	}
	if n := nodes()[0]; n.ClaimedBy != "runner-a" || !n.Cordoned {
		t.Errorf("Nodes()[0] = %+v right after the claim, want it claimed", n)
	}
	spec := supervisor.PodSpec{Runner: "runner-a", NodeName: "node-1", Authorized: runner.DigestOf([]byte("a")), Cause: "job", JobTTL: time.Hour}
	if err := c.EnsurePod(ctx, spec); err != nil {
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
	until(t, "claim, pod and reads cost nothing any more", func() bool {
		return free(func() {
			if err := c.ClaimNode(ctx, host, "runner-a"); err != nil {
				t.Fatal(err)
			}
			if err := c.EnsurePod(ctx, spec); err != nil {
				t.Fatal(err)
			}
			phase()
			nodes()
		})
	})
	before := told.Load()
	zero := int64(0)
	if err := admin.CoreV1().Pods(runners).Delete(ctx, "runner-a", metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		t.Fatal(err)
	}
	until(t, "the pod is gone", func() bool { return phase() == runner.PodGone })
	until(t, "that is told", func() bool { return told.Load() > before })
	c.Event("runner-a", "node-1", "Terminated", "the test ends it")
	for namespace, object := range map[string]string{runners: "runner-a", metav1.NamespaceDefault: "node-1"} {
		until(t, "the event about "+object, func() bool {
			list, err := admin.EventsV1().Events(namespace).List(ctx, metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range list.Items {
				if e.Reason == "Terminated" && e.Regarding.Name == object && e.Regarding.UID != "" {
					return true
				}
			}
			return false
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
	p := start(t)
	_, real := adapter(t, p, nil)
	sim, err := simcluster.New(simcluster.Options{Namespace: runners, ServiceAccounts: []string{"runner"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, pool := range map[string]string{"node-1": "prod", "other": "other"} {
		if _, err := sim.AddNode(simcluster.NodeSpec{Name: name, Labels: map[string]string{"pool": pool}}); err != nil {
			t.Fatal(err)
		}
	}
	yes, no, newer := new(true), new(false), metav1.ResourceVersionMatchNotOlderThan
	future := strconv.Itoa(1_000_000_000)
	cases := map[string]metav1.ListOptions{
		"from nowhere":                       {},
		"from any, with bookmarks":           {ResourceVersion: "0", AllowWatchBookmarks: true},
		"the state":                          {SendInitialEvents: yes, ResourceVersionMatch: newer, AllowWatchBookmarks: true},
		"the state, without bookmarks":       {SendInitialEvents: yes, ResourceVersionMatch: newer},
		"no state":                           {SendInitialEvents: no, ResourceVersionMatch: newer, AllowWatchBookmarks: true},
		"by field":                           {FieldSelector: "metadata.name=other"},
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
			opts.LabelSelector = "pool=prod"
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
		"any version": {ResourceVersion: "0"}, "a version to come": {ResourceVersion: future}, "a version that is none": {ResourceVersion: "new"},
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
	event := func(client kubernetes.Interface) string { return seriesOf(t, client) }
	if got, want := event(sim.Client()), event(real); got != want {
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
	patience := time.Second
	if opts.ResourceVersion != "" && opts.ResourceVersion != "0" {
		patience = 5 * time.Second
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
func seriesOf(t *testing.T, client kubernetes.Interface) string {
	t.Helper()
	events := client.EventsV1().Events(metav1.NamespaceDefault)
	made, err := events.Create(t.Context(), &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "node-1-", Namespace: metav1.NamespaceDefault},
		EventTime:  metav1.NowMicro(), ReportingController: "runnerward.io/supervisor", ReportingInstance: "test",
		Action: "Tested", Reason: "Tested", Note: "note", Type: corev1.EventTypeNormal,
		Regarding: corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: "node-1"},
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
