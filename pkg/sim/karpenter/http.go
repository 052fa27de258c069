package simkarpenter

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	simcluster "github.com/runnerward/runnerward/pkg/sim/cluster"
)

// Handler serves Karpenter's resources, and what callers may do with them, as
// parts of the API of the cluster next. Callers bear the API's token.
// https://kubernetes.io/docs/reference/using-api/api-concepts/
func (a *API) Handler(next http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", next)
	for _, d := range a.defs {
		base := "/apis/" + d.gvk.Group + "/" + d.gvk.Version + "/" + d.resource
		for _, path := range []string{base, base + "/{name}", base + "/{name}/{subresource}"} {
			mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { a.resource(w, r, d) })
		}
	}
	mux.HandleFunc("POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews", a.review)
	return mux
}

func (a *API) known(r *http.Request) bool {
	want := []byte("Bearer " + a.token)
	return a.token != "" && subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), want) == 1
}

func (a *API) resource(w http.ResponseWriter, r *http.Request, d *definition) {
	w.Header().Set("Audit-Id", a.audit())
	if !a.known(r) {
		simcluster.WriteError(w, apierrors.NewUnauthorized("Unauthorized"))
		return
	}
	c, err := a.decodeCall(r, d)
	if err != nil {
		simcluster.WriteError(w, err)
		return
	}
	out, err := a.serve(c)
	if _, ok := errors.AsType[*apierrors.StatusError](err); err != nil && !ok {
		panic(http.ErrAbortHandler) // closes the connection without an answer
	}
	if err != nil {
		simcluster.WriteError(w, err)
		return
	}
	code := http.StatusOK
	if c.verb == "create" {
		code = http.StatusCreated
	}
	simcluster.WriteJSON(w, code, out)
}

// audit is an id as audit logs name requests by.
func (a *API) audit() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return fmt.Sprintf("%08x-0000-4000-8000-%012x", a.rng.Uint32(), a.rng.Uint64()>>16)
}

func (a *API) decodeCall(r *http.Request, d *definition) (call, error) {
	q := r.URL.Query()
	c := call{
		resource: d.resource, name: r.PathValue("name"), subresource: r.PathValue("subresource"),
		strict: q.Get("fieldValidation") == metav1.FieldValidationStrict, dryRun: slices.Contains(q["dryRun"], metav1.DryRunAll),
	}
	var err error
	if c.labels, err = labels.Parse(q.Get("labelSelector")); err != nil {
		return c, apierrors.NewBadRequest(err.Error())
	}
	if c.body, err = io.ReadAll(http.MaxBytesReader(nil, r.Body, 3<<20)); err != nil {
		return c, apierrors.NewRequestEntityTooLargeError(err.Error())
	}
	verbs := map[string]string{http.MethodGet: "get", http.MethodPut: "update", http.MethodPatch: "patch", http.MethodDelete: "delete"}
	if c.name == "" {
		verbs = map[string]string{http.MethodGet: "list", http.MethodPost: "create"}
	}
	c.verb = verbs[r.Method]
	switch {
	case c.verb == "" || q.Get("watch") != "" || c.subresource != "" && (c.subresource != "status" || c.verb == "delete"):
		return c, apierrors.NewMethodNotSupported(schema.GroupResource{Group: d.gvk.Group, Resource: d.resource}, r.Method)
	case c.verb == "patch" && r.Header.Get("Content-Type") != string(types.MergePatchType):
		// Strategic merge patches are for built-in types only.
		return c, apierrors.NewGenericServerResponse(http.StatusUnsupportedMediaType, "patch", schema.GroupResource{Group: d.gvk.Group, Resource: d.resource}, c.name, "", 0, true)
	case c.verb == "delete" && len(c.body) > 0:
		if err := json.Unmarshal(c.body, &c.delete); err != nil {
			return c, apierrors.NewBadRequest(err.Error())
		}
		c.dryRun = c.dryRun || slices.Contains(c.delete.DryRun, metav1.DryRunAll)
	}
	return c, nil
}

// review is https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/self-subject-access-review-v1/
func (a *API) review(w http.ResponseWriter, r *http.Request) {
	if !a.known(r) {
		simcluster.WriteError(w, apierrors.NewUnauthorized("Unauthorized"))
		return
	}
	var doc map[string]any
	if err := json.NewDecoder(r.Body).Decode(&doc); err != nil {
		simcluster.WriteError(w, apierrors.NewBadRequest(err.Error()))
		return
	}
	asked := child(doc, "spec", "resourceAttributes")
	verb, _ := asked["verb"].(string)
	resource, _ := asked["resource"].(string)
	a.mu.Lock()
	defer a.mu.Unlock()
	doc["status"] = map[string]any{"allowed": !a.denied[verb+" "+resource]}
	simcluster.WriteJSON(w, http.StatusCreated, doc)
}
