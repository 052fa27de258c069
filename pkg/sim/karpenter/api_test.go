package simkarpenter_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	simkarpenter "github.com/runnerward/runnerward/pkg/sim/karpenter"
)

const path = "/apis/karpenter.sh/v1/nodeclaims"

// claim is a NodeClaim with this spec besides what every one must have.
func claim(name, spec string) string {
	return fmt.Sprintf(`{"apiVersion":"karpenter.sh/v1","kind":"NodeClaim","metadata":{"name":%q,"labels":{"pool":"a"}},
		"spec":{"nodeClassRef":{"group":"karpenter.k8s.aws","kind":"EC2NodeClass","name":"c"},"requirements":[]%s}}`, name, spec)
}

// exchange sends one request and returns the status and body of the answer.
func exchange(t *testing.T, h http.Handler, method, target, body string) (int, string) {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer token")
	if method == http.MethodPatch {
		r.Header.Set("Content-Type", "application/merge-patch+json")
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	b, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, string(b)
}

func newAPI(t *testing.T) http.Handler {
	t.Helper()
	api, err := simkarpenter.NewAPI("token", 1)
	if err != nil {
		t.Fatal(err)
	}
	return api.Handler(http.NotFoundHandler())
}

// TestTheAPIRefusesWhatTheDefinitionsRefuse. A real API server is asked about some
// of these in test/kube/api.
func TestTheAPIRefusesWhatTheDefinitionsRefuse(t *testing.T) {
	h := newAPI(t)
	requirement := func(r string) string {
		return strings.Replace(claim("x", ""), `"requirements":[]`, `"requirements":[`+r+`]`, 1)
	}
	for name, tc := range map[string]struct {
		query, body string
		code        int
		says        string
	}{
		"a good one":                {"", claim("good", ""), 201, "720h"},
		"a name that is none":       {"", claim("Good", ""), 422, "lowercase RFC 1123"},
		"an unknown field, strict":  {"?fieldValidation=Strict", claim("x", `,"expires":"1h"`), 400, `unknown field \"spec.expires\"`},
		"a number for a text":       {"", claim("x", `,"expireAfter":5`), 422, "must be a string"},
		"a duration that is none":   {"", claim("x", `,"terminationGracePeriod":"3 hours"`), 422, "regular expression"},
		"an effect that is none":    {"", claim("x", `,"taints":[{"key":"a","effect":"Never"}]`), 422, "allowed values"},
		"no node class":             {"", `{"apiVersion":"karpenter.sh/v1","kind":"NodeClaim","metadata":{"name":"x"},"spec":{"requirements":[]}}`, 422, "nodeClassRef"},
		"no spec":                   {"", `{"apiVersion":"karpenter.sh/v1","kind":"NodeClaim","metadata":{"name":"x"}}`, 422, "Required value"},
		"another kind":              {"", `{"apiVersion":"karpenter.sh/v1","kind":"NodePool","metadata":{"name":"x"}}`, 400, "NodePool"},
		"an operator that is none":  {"", requirement(`{"key":"a","operator":"Is"}`), 422, "allowed values"},
		"In without values":         {"", requirement(`{"key":"a","operator":"In"}`), 422, "must have a value defined"},
		"Gt with a word":            {"", requirement(`{"key":"a","operator":"Gt","values":["many"]}`), 422, "single positive integer"},
		"a label of Karpenter's":    {"", requirement(`{"key":"karpenter.sh/registered","operator":"Exists"}`), 422, `label domain \"karpenter.sh\" is restricted`},
		"a label of AWS'":           {"", requirement(`{"key":"karpenter.k8s.aws/mood","operator":"Exists"}`), 422, `label domain \"karpenter.k8s.aws\" is restricted`},
		"one that is allowed":       {"?dryRun=All", requirement(`{"key":"karpenter.k8s.aws/instance-family","operator":"In","values":["m6i"]}`), 201, "m6i"},
		"the host name":             {"", requirement(`{"key":"kubernetes.io/hostname","operator":"Exists"}`), 422, "is restricted"},
		"a node class without name": {"", strings.Replace(claim("x", ""), `"name":"c"`, `"name":""`, 1), 422, "name may not be empty"},
	} {
		if code, body := exchange(t, h, http.MethodPost, path+tc.query, tc.body); code != tc.code || !strings.Contains(body, tc.says) {
			t.Errorf("%s: %d %s, want %d %s", name, code, body, tc.code, tc.says)
		}
	}
	if code, _ := exchange(t, h, http.MethodPost, path, claim("good", "")); code != 409 {
		t.Errorf("the same again: %d, want 409", code)
	}
	if code, _ := exchange(t, h, http.MethodGet, path+"/x", ""); code != 404 {
		t.Errorf("after a dry run: %d, want that nothing was kept", code)
	}
}

// TestTheAPIKeepsObjectsAsAnAPIServerDoes: defaults, pruning, immutability, status
// apart, finalizers, preconditions.
func TestTheAPIKeepsObjectsAsAnAPIServerDoes(t *testing.T) {
	h := newAPI(t)
	get := func(name string) *unstructured.Unstructured {
		t.Helper()
		code, body := exchange(t, h, http.MethodGet, path+"/"+name, "")
		obj := &unstructured.Unstructured{}
		if err := obj.UnmarshalJSON([]byte(body)); err != nil || code != 200 {
			t.Fatalf("get %s: %d, %v", name, code, err)
		}
		return obj
	}
	want := func(what string, code int, method, target, body string) {
		t.Helper()
		if got, answer := exchange(t, h, method, target, body); got != code {
			t.Errorf("%s: %d %s, want %d", what, got, answer, code)
		}
	}
	want("create", 201, http.MethodPost, path, strings.Replace(claim("a", `,"unknown":1`), `"spec"`, `"status":{"nodeName":"forged"},"spec"`, 1))
	obj := get("a")
	spec, _, _ := unstructured.NestedMap(obj.Object, "spec")
	if spec["expireAfter"] != "720h" || spec["unknown"] != nil || obj.Object["status"] != nil || obj.GetGeneration() != 1 {
		t.Errorf("created %v, want defaults, and neither unknown fields nor a status", obj.Object)
	}
	want("change the spec", 422, http.MethodPatch, path+"/a", `{"spec":{"expireAfter":"Never"}}`)
	want("add a finalizer, and a status beside it", 200, http.MethodPatch, path+"/a", `{"metadata":{"finalizers":["x/y"]},"status":{"nodeName":"n"}}`)
	want("set the status, and a label beside it", 200, http.MethodPatch, path+"/a/status", `{"metadata":{"labels":{"l":"m"}},"status":{"nodeName":"n"}}`)
	obj = get("a")
	if name, _, _ := unstructured.NestedString(obj.Object, "status", "nodeName"); name != "n" || obj.GetLabels()["l"] != "" || obj.GetGeneration() != 1 {
		t.Errorf("patched to %v, want the status from its own endpoint, and no label from there", obj.Object)
	}
	want("a status that the definition refuses", 422, http.MethodPatch, path+"/a/status", `{"status":{"conditions":[{"type":"Ready"}]}}`)
	want("patch another object of the name", 409, http.MethodPatch, path+"/a", `{"metadata":{"uid":"other"}}`)
	want("patch an old version", 409, http.MethodPatch, path+"/a", `{"metadata":{"resourceVersion":"1","labels":{"l":"m"}}}`)
	want("delete another object of the name", 409, http.MethodDelete, path+"/a", `{"preconditions":{"uid":"other"}}`)
	want("delete", 200, http.MethodDelete, path+"/a", `{"preconditions":{"uid":"`+string(obj.GetUID())+`"}}`)
	if obj = get("a"); obj.GetDeletionTimestamp() == nil {
		t.Error("a finalizer keeps it, and it is not marked")
	}
	want("the last finalizer goes", 200, http.MethodPatch, path+"/a", `{"metadata":{"finalizers":null}}`)
	want("and the object with it", 404, http.MethodGet, path+"/a", "")
	want("create anew", 201, http.MethodPost, path, claim("b", ""))
	want("delete what nothing keeps", 200, http.MethodDelete, path+"/b", "")
	want("it is gone", 404, http.MethodDelete, path+"/b", "")
	want("watch", 405, http.MethodGet, path+"?watch=true", "")
}

func TestTheAPIKnowsItsCallers(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	w := httptest.NewRecorder()
	newAPI(t).ServeHTTP(w, r)
	if w.Code != http.StatusUnauthorized || w.Header().Get("Audit-Id") == "" {
		t.Errorf("without a token: %d, audit id %q, want 401 and an id", w.Code, w.Header().Get("Audit-Id"))
	}
}
