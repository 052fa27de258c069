package cluster

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// TestStrippingLosesNothingThatIsRead fills whatever a field can hold, so that a
// field that nodeOf, podOf or same begins to read is missed here.
func TestStrippingLosesNothingThatIsRead(t *testing.T) {
	node, pod := &corev1.Node{}, &corev1.Pod{}
	fill(reflect.ValueOf(node).Elem(), 0)
	fill(reflect.ValueOf(pod).Elem(), 0)
	node.Status.Conditions[0] = corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "x", LastHeartbeatTime: metav1.Now()}
	node.Status.Addresses[0].Type = corev1.NodeInternalIP
	node.Annotations = map[string]string{ClaimedBy: "runner-a", "other": "x"}
	pod.Annotations = map[string]string{AnnotationAuthorized: "record", "other": "x"}
	node.DeletionTimestamp, node.Spec.Unschedulable = nil, false // cordoned, it would be both

	kept, err := strip(node)
	if err != nil {
		t.Fatal(err)
	}
	less := kept.(*corev1.Node)
	if got, want := nodeOf(less), nodeOf(node); !reflect.DeepEqual(got, want) || !want.Ready || want.Cordoned || want.InternalIP == "" {
		t.Errorf("stripped, the node is\n%+v, want\n%+v", got, want)
	}
	if claimedBy(less) != "runner-a" || len(less.Status.Images) > 0 || len(less.ManagedFields) > 0 || len(less.Annotations) != 1 {
		t.Errorf("stripped, the node is %+v", less)
	}
	node.DeletionTimestamp = new(metav1.Now())
	if kept, err = strip(node); err != nil || !nodeOf(kept.(*corev1.Node)).Cordoned {
		t.Errorf("stripped, a node that is being deleted takes runners (%v)", err)
	}

	waiting := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: "long"}}
	ended := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 7, Reason: "Error", Message: "long"}}
	for _, status := range []corev1.PodStatus{
		{Phase: corev1.PodPending, InitContainerStatuses: []corev1.ContainerStatus{{Name: "c", State: waiting}}},
		{Phase: corev1.PodFailed, ContainerStatuses: []corev1.ContainerStatus{{Name: "c", State: ended}}},
		{Phase: corev1.PodFailed, Reason: "Evicted", Message: "long"},
		{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{
			{Type: corev1.PodReady, Status: corev1.ConditionTrue},
			{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "DeletionByTaintManager", Message: "long"},
		}},
	} {
		pod.Status = status
		if kept, err = strip(pod); err != nil {
			t.Fatal(err)
		}
		less := kept.(*corev1.Pod)
		if got, want := podOf(less), podOf(pod); got != want || want.Reason == "" {
			t.Errorf("stripped, the pod is\n%+v, want\n%+v", got, want)
		}
		if err := same(less, pod); err != nil || !reflect.DeepEqual(less.Labels, pod.Labels) {
			t.Errorf("stripped, the pod is another: %v", err)
		}
		if !reflect.DeepEqual(less.Spec, corev1.PodSpec{NodeName: "x"}) || len(less.ManagedFields) > 0 || len(less.Annotations) != 1 {
			t.Errorf("stripped, the pod is %+v, want no more than what is read", less)
		}
	}
	pod.Status.InitContainerStatuses = nil
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "EvictionByEvictionAPI", Message: "long"}}
	if kept, err = strip(pod); err != nil || podOf(kept.(*corev1.Pod)).Reason != "EvictionByEvictionAPI" {
		t.Errorf("stripped, the evicted pod is %+v (%v)", podOf(kept.(*corev1.Pod)), err)
	}
	if obj, err := strip(cache.DeletedFinalStateUnknown{Key: "k"}); err != nil || obj.(cache.DeletedFinalStateUnknown).Key != "k" {
		t.Errorf("strip(a tombstone) = %v, %v, want it unchanged", obj, err)
	}
}

// fill sets every field to something that is not its zero value.
func fill(v reflect.Value, depth int) {
	if depth > 6 || !v.CanSet() {
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(7)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth+1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), depth+1)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		if v.Type().Key().Kind() == reflect.String && v.Type().Elem().Kind() == reflect.String {
			v.SetMapIndex(reflect.ValueOf("key").Convert(v.Type().Key()), reflect.ValueOf("x").Convert(v.Type().Elem()))
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[metav1.Time]() {
			v.Set(reflect.ValueOf(metav1.NewTime(time.Unix(1_700_000_000, 0))))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i), depth+1)
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	var m memory[string]
	for i := range 3 * memorySize {
		m.keep(strings.Repeat("x", i), "uid")
		m.keep(strings.Repeat("x", i), "again")
	}
	if len(m.uids) != memorySize || len(m.order) != memorySize || m.of("") != "" || m.of(strings.Repeat("x", 3*memorySize-1)) != "again" {
		t.Errorf("%d names are remembered, the first as %q, want %d and the first forgotten", len(m.uids), m.of(""), memorySize)
	}
}

// transport answers nothing until the request's context ends.
type transport struct{}

func (transport) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, context.Cause(r.Context())
}

func TestCallsAreBoundedAndWatchesAreNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for path, want := range map[string]time.Duration{"/api/v1/nodes": callTimeout, "/api/v1/nodes?watch=true": time.Hour} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			began := time.Now()
			_, err := bounded{transport{}}.RoundTrip(httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil))
			if took := time.Since(began); err == nil || took != want {
				t.Errorf("GET %s = %v after %s, want an error after %s", path, err, took, want)
			}
			cancel()
		}
	})
}

type answering func(*http.Request) (*http.Response, error)

func (f answering) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestCallsAreCountedByVerbAndResource(t *testing.T) {
	var q Requests
	code := http.StatusOK
	wrapped := q.Wrap(answering(func(*http.Request) (*http.Response, error) {
		if code == 0 {
			return nil, errors.New("refused")
		}
		return &http.Response{StatusCode: code, Body: io.NopCloser(strings.NewReader(""))}, nil
	}))
	for _, c := range []struct {
		method, path   string
		code           int
		verb, resource string
	}{
		{"GET", "/api/v1/nodes", 200, "list", "nodes"},
		{"GET", "/api/v1/nodes?watch=1", 200, "watch", "nodes"},
		{"GET", "/api/v1/nodes/a", 404, "get", "nodes"},
		{"PUT", "/api/v1/nodes/a", 409, "update", "nodes"},
		{"DELETE", "/api/v1/namespaces/n/pods/a", 0, "delete", "pods"},
		{"POST", "/api/v1/namespaces/n/pods", 201, "create", "pods"},
		{"PATCH", "/apis/events.k8s.io/v1/namespaces/n/events/e", 200, "patch", "events"},
		{"POST", "/apis/authentication.k8s.io/v1/tokenreviews", 201, "create", "tokenreviews"},
		{"GET", "/api/v1/namespaces/n", 200, "get", "namespaces"},
		{"GET", "/version", 200, "get", ""},
	} {
		code = c.code
		before := q.Counts()
		_, _ = wrapped.RoundTrip(httptest.NewRequest(c.method, c.path, nil))
		found := false
		for _, n := range q.Counts() {
			found = found || n.Verb == c.verb && n.Resource == c.resource && n.Code == c.code && n.Count == 1
		}
		if !found || len(q.Counts()) != len(before)+1 {
			t.Errorf("%s %s was counted as none of %v, want %s %s %d", c.method, c.path, q.Counts(), c.verb, c.resource, c.code)
		}
	}
	if (*Requests)(nil).Counts() != nil {
		t.Error("nobody has counted calls")
	}
}
