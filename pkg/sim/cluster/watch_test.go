package simcluster_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	simcluster "github.com/runnerward/runnerward/pkg/sim/cluster"
)

func newSim(t *testing.T, change ...func(*simcluster.Options)) *simcluster.Cluster {
	t.Helper()
	opts := simcluster.Options{Namespace: "runners", ServiceAccounts: []string{"runner"}, Token: "s3cret", Seed: 7}
	for _, f := range change {
		f(&opts)
	}
	sim, err := simcluster.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return sim
}

func node(t *testing.T, sim *simcluster.Cluster, name, pool string) *corev1.Node {
	t.Helper()
	n, err := sim.AddNode(simcluster.NodeSpec{Name: name, Labels: map[string]string{"pool": pool}})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// relabel moves the node to another pool.
func relabel(t *testing.T, sim *simcluster.Cluster, name, pool string) *corev1.Node {
	t.Helper()
	nodes := sim.Client().CoreV1().Nodes()
	n, err := nodes.Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n.Labels["pool"] = pool
	if n, err = nodes.Update(t.Context(), n, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	return n
}

func deleteNode(t *testing.T, sim *simcluster.Cluster, name string) {
	t.Helper()
	if err := sim.Client().CoreV1().Nodes().Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, sim *simcluster.Cluster, opts metav1.ListOptions) watch.Interface {
	t.Helper()
	w, err := sim.Client().CoreV1().Nodes().Watch(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	return w
}

// said is what a watch has to say now, as words. Once it is over that is "end".
func said(w watch.Interface) []string {
	var out []string
	for {
		synctest.Wait()
		select {
		case e, ok := <-w.ResultChan():
			if !ok {
				return append(out, "end")
			}
			out = append(out, word(e))
		default:
			return out
		}
	}
}

func word(e watch.Event) string {
	if e.Type == watch.Error {
		status := apierrors.FromObject(e.Object).(*apierrors.StatusError).ErrStatus
		return fmt.Sprintf("ERROR %d %s", status.Code, status.Reason)
	}
	m, err := meta.Accessor(e.Object)
	if err != nil {
		return err.Error()
	}
	if e.Type == watch.Bookmark {
		if m.GetAnnotations()[metav1.InitialEventsAnnotationKey] == "true" {
			return "BOOKMARK end of state"
		}
		return "BOOKMARK"
	}
	return fmt.Sprintf("%s %s %s", e.Type, m.GetName(), m.GetLabels()["pool"])
}

func same(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: the watch said %q, want %q", what, got, want)
	}
}

func TestAWatchFollowsItsSelector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := newSim(t)
		w := open(t, sim, metav1.ListOptions{LabelSelector: "pool=a", ResourceVersion: node(t, sim, "old", "a").ResourceVersion})
		node(t, sim, "one", "a")
		node(t, sim, "two", "b")
		same(t, "creations", said(w), "ADDED one a")
		relabel(t, sim, "two", "a")
		moved := relabel(t, sim, "one", "b")
		// What leaves the selector is deleted, as it last matched, at the version
		// of the change.
		synctest.Wait()
		if e := <-w.ResultChan(); word(e) != "ADDED two a" {
			t.Errorf("the watch said %q, want ADDED two a", word(e))
		}
		synctest.Wait()
		e := <-w.ResultChan()
		if m, err := meta.Accessor(e.Object); err != nil || word(e) != "DELETED one a" || m.GetResourceVersion() != moved.ResourceVersion {
			t.Errorf("the watch said %q at %s (%v), want DELETED one a at %s", word(e), m.GetResourceVersion(), err, moved.ResourceVersion)
		}
		relabel(t, sim, "one", "c")
		sim.RemoveNode("two")
		same(t, "a change that matches", said(w), "MODIFIED two a")
		deleteNode(t, sim, "two")
		deleteNode(t, sim, "one")
		same(t, "deletions", said(w), "DELETED two a")
	})
}

func TestAWatchBeginsWhereItIsAskedTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := newSim(t)
		first := node(t, sim, "one", "a")
		second := node(t, sim, "two", "a")
		future := strconv.Itoa(1_000_000)
		yes, no := new(true), new(false)
		for name, c := range map[string]struct {
			opts metav1.ListOptions
			want []string
		}{
			"after a version":              {metav1.ListOptions{ResourceVersion: first.ResourceVersion}, []string{"ADDED two a"}},
			"after the newest":             {metav1.ListOptions{ResourceVersion: second.ResourceVersion}, nil},
			"a version that is yet to be":  {metav1.ListOptions{ResourceVersion: future}, nil},
			"from nowhere: the state":      {metav1.ListOptions{}, []string{"ADDED one a", "ADDED two a"}},
			"from any: the state":          {metav1.ListOptions{ResourceVersion: "0", AllowWatchBookmarks: true}, []string{"ADDED one a", "ADDED two a", "BOOKMARK end of state"}},
			"by field":                     {metav1.ListOptions{ResourceVersion: "0", FieldSelector: "metadata.name=two"}, []string{"ADDED two a"}},
			"the state as it is asked for": {metav1.ListOptions{SendInitialEvents: yes, AllowWatchBookmarks: true, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan}, []string{"ADDED one a", "ADDED two a", "BOOKMARK end of state"}},
			"no state":                     {metav1.ListOptions{SendInitialEvents: no, AllowWatchBookmarks: true, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan}, nil},
			"a state that is yet to be":    {metav1.ListOptions{SendInitialEvents: yes, ResourceVersion: future, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan}, []string{"ERROR 504 Timeout", "end"}},
		} {
			w := open(t, sim, c.opts)
			same(t, name, said(w), c.want...)
			w.Stop()
		}
		synctest.Wait()
		if n := sim.Watches(); n != 0 {
			t.Errorf("%d watches are open after all were stopped", n)
		}
	})
}

func TestOptionsThatTheAPIServerRefuses(t *testing.T) {
	yes := new(true)
	newer := metav1.ResourceVersionMatchNotOlderThan
	for name, c := range map[string]struct {
		off  bool
		opts metav1.ListOptions
		list bool
	}{
		"initial events without a match":        {false, metav1.ListOptions{SendInitialEvents: yes}, false},
		"initial events at an exact version":    {false, metav1.ListOptions{SendInitialEvents: yes, ResourceVersionMatch: metav1.ResourceVersionMatchExact}, false},
		"a match without initial events":        {false, metav1.ListOptions{ResourceVersion: "1", ResourceVersionMatch: newer}, false},
		"initial events where the gate is shut": {true, metav1.ListOptions{SendInitialEvents: yes, ResourceVersionMatch: newer}, false},
		"a list with initial events":            {false, metav1.ListOptions{SendInitialEvents: yes}, true},
		"a list with a match and no version":    {false, metav1.ListOptions{ResourceVersionMatch: newer}, true},
	} {
		sim := newSim(t, func(o *simcluster.Options) { o.NoWatchList = c.off })
		nodes := sim.Client().CoreV1().Nodes()
		var err error
		if c.list {
			_, err = nodes.List(t.Context(), c.opts)
		} else {
			_, err = nodes.Watch(t.Context(), c.opts)
		}
		if !apierrors.IsInvalid(err) {
			t.Errorf("%s = %v, want 422", name, err)
		}
	}
	nodes := newSim(t).Client().CoreV1().Nodes()
	_, errList := nodes.List(t.Context(), metav1.ListOptions{ResourceVersion: "new"})
	_, errWatch := nodes.Watch(t.Context(), metav1.ListOptions{ResourceVersion: "new"})
	if status, ok := errors.AsType[*apierrors.StatusError](errWatch); !ok || status.ErrStatus.Code != http.StatusInternalServerError || status.ErrStatus.Reason != "" {
		t.Errorf("a watch from a version that is none = %v, want 500 without a reason", errWatch)
	}
	_, errField := nodes.List(t.Context(), metav1.ListOptions{FieldSelector: "spec.color=red"})
	for _, err := range []error{errList, errField} {
		if !apierrors.IsBadRequest(err) {
			t.Errorf("a list of a version or field that is none = %v, want 400", err)
		}
	}
}

func TestBookmarksAndTheEndOfAWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := newSim(t)
		from := node(t, sim, "one", "a").ResourceVersion
		marked := open(t, sim, metav1.ListOptions{ResourceVersion: from, AllowWatchBookmarks: true, TimeoutSeconds: new(int64(150))})
		plain := open(t, sim, metav1.ListOptions{ResourceVersion: from, TimeoutSeconds: new(int64(150))})
		<-time.After(61 * time.Second)
		same(t, "after a minute", said(marked), "BOOKMARK")
		<-time.After(60 * time.Second)
		same(t, "after two", said(marked), "BOOKMARK")
		<-time.After(28 * time.Second) // 149 s in all: 1 s before the end
		same(t, "just before the end", said(marked), "BOOKMARK")
		<-time.After(2 * time.Second)
		same(t, "at the end", said(marked), "end")
		same(t, "without bookmarks", said(plain), "end")
	})
}

func TestChangesThatAreForgottenAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := newSim(t)
		from := node(t, sim, "one", "a").ResourceVersion
		live := open(t, sim, metav1.ListOptions{ResourceVersion: from})
		slow := open(t, sim, metav1.ListOptions{ResourceVersion: from})
		relabel(t, sim, "one", "b")
		same(t, "before", said(live), "MODIFIED one b")
		sim.Compact()
		w := open(t, sim, metav1.ListOptions{ResourceVersion: from})
		same(t, "from a forgotten version", said(w), "ERROR 410 Expired", "end")
		relabel(t, sim, "one", "c")
		same(t, "an open watch", said(live), "MODIFIED one c")
		same(t, "a reader that is slow", said(slow), "MODIFIED one b", "MODIFIED one c")
		relabel(t, sim, "one", "hand")
		synctest.Wait()
		for i := range 2100 {
			relabel(t, sim, "one", strconv.Itoa(i))
		}
		same(t, "a reader that is slower than the history", said(slow), "MODIFIED one hand", "ERROR 410 Expired", "end")
	})
}

func TestFaultsOfWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := newSim(t)
		from := node(t, sim, "one", "a").ResourceVersion
		w := open(t, sim, metav1.ListOptions{ResourceVersion: from, AllowWatchBookmarks: true})
		sim.Mute(true)
		relabel(t, sim, "one", "b")
		<-time.After(10 * time.Minute)
		same(t, "mute", said(w))
		sim.Mute(false)
		same(t, "no longer mute", said(w), "MODIFIED one b")
		sim.BreakWatches()
		same(t, "broken", said(w), "end")
		sim.Inject(simcluster.Fault{Verb: "watch", Resource: "nodes"})
		if _, err := sim.Client().CoreV1().Nodes().Watch(t.Context(), metav1.ListOptions{}); !apierrors.IsServiceUnavailable(err) {
			t.Errorf("Watch with a fault = %v, want 503", err)
		}
	})
}

// TestAWatchOverHTTP reads the stream as it goes over the wire.
func TestAWatchOverHTTP(t *testing.T) {
	sim := newSim(t)
	server := httptest.NewServer(sim.Handler())
	defer server.Close()
	node(t, sim, "one", "a")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/api/v1/nodes?watch=1&labelSelector=pool%3Da&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer s3cret")
	resp, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for _, want := range []string{"ADDED Node one", "BOOKMARK Node ", "MODIFIED Node one", "DELETED Node one"} {
		switch {
		case strings.HasPrefix(want, "MODIFIED"):
			sim.RemoveNode("one")
		case strings.HasPrefix(want, "DELETED"):
			relabel(t, sim, "one", "b")
		}
		if !lines.Scan() {
			t.Fatalf("the stream ended before %s: %v", want, lines.Err())
		}
		var e struct {
			Type   string
			Object struct {
				Kind     string
				Metadata metav1.ObjectMeta
			}
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%s %s %s", e.Type, e.Object.Kind, e.Object.Metadata.Name); got != want {
			t.Errorf("the stream says %q, want %q", got, want)
		}
	}
	cancel()
	for sim.Watches() > 0 {
		select {
		case <-t.Context().Done():
			t.Fatal("the watch of a reader that is gone stays open")
		case <-time.After(time.Millisecond):
		}
	}
}

// TestClientGoFollowsWithEitherProtocol has client-go's reflector stream its
// initial list, as it does by default, and list where the server refuses that.
func TestClientGoFollowsWithEitherProtocol(t *testing.T) {
	for _, off := range []bool{false, true} {
		t.Run(fmt.Sprintf("refused=%t", off), func(t *testing.T) {
			sim := newSim(t, func(o *simcluster.Options) { o.NoWatchList = off })
			server := httptest.NewServer(sim.Handler())
			defer server.Close()
			client, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL, BearerToken: "s3cret", ContentConfig: rest.ContentConfig{ContentType: "application/json"}})
			if err != nil {
				t.Fatal(err)
			}
			node(t, sim, "one", "a")
			store := cache.NewStore(cache.MetaNamespaceKeyFunc)
			lw := cache.NewListWatchFromClient(client.CoreV1().RESTClient(), "nodes", "", fields.Everything())
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				cache.NewReflector(lw, &corev1.Node{}, store, 0).RunWithContext(ctx)
			}()
			defer func() { cancel(); <-done }()
			until(t, "the state", func() bool { return len(store.List()) == 1 })
			node(t, sim, "two", "a")
			until(t, "a change", func() bool { return len(store.List()) == 2 })
			listed := slices.ContainsFunc(sim.Requests(), func(r simcluster.Request) bool { return r.Verb == "list" })
			if listed != off {
				t.Errorf("the reflector listed: %t, want %t", listed, off)
			}
		})
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}
