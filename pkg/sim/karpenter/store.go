package simkarpenter

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// API keeps Karpenter's resources. It is safe for concurrent use.
type API struct {
	token string
	defs  []*definition

	mu       sync.Mutex
	rng      *rand.Rand
	version  int64
	objects  map[string]map[string]*unstructured.Unstructured // resource, then name
	denied   map[string]bool                                  // verb resource
	failing  error
	requests []Request
}

// Request is a call of the API.
type Request struct {
	Verb, Resource, Name string
	DryRun               bool
	Code                 int // of the answer
}

// NewAPI makes an empty API for callers that bear this token.
func NewAPI(token string, seed uint64) (*API, error) {
	defs, err := definitions()
	if err != nil {
		return nil, err
	}
	a := &API{
		token: token, defs: defs, rng: rand.New(rand.NewPCG(seed, 1)),
		objects: map[string]map[string]*unstructured.Unstructured{}, denied: map[string]bool{},
	}
	for _, d := range defs {
		a.objects[d.resource] = map[string]*unstructured.Unstructured{}
	}
	return a, nil
}

// Deny takes a right away from every caller, or gives it back.
func (a *API) Deny(verb, resource string, on bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.denied[verb+" "+resource] = on
}

// Fail answers everything with this error, nil with what it should.
func (a *API) Fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failing = err
}

// Requests are the calls so far.
func (a *API) Requests() []Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.requests)
}

// Apply makes an object, and gives it its status as its controller would.
func (a *API) Apply(obj *unstructured.Unstructured) error {
	i := slices.IndexFunc(a.defs, func(d *definition) bool { return d.gvk == obj.GroupVersionKind() })
	if i < 0 {
		return fmt.Errorf("apply %s: there is no such resource", obj.GroupVersionKind())
	}
	d := a.defs[i]
	body, err := json.Marshal(obj.Object)
	if err != nil {
		return fmt.Errorf("apply %s: %w", obj.GetName(), err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, err := a.create(d, call{resource: d.resource, name: obj.GetName(), strict: true, body: body}); err != nil {
		return fmt.Errorf("apply %s: %w", obj.GetName(), err)
	}
	made := a.objects[d.resource][obj.GetName()].DeepCopy()
	made.Object["status"] = obj.Object["status"]
	_, err = a.update(d, call{resource: d.resource, name: obj.GetName(), subresource: "status"}, a.objects[d.resource][obj.GetName()], made)
	return err
}

// call is one request, decoded.
type call struct {
	verb, resource, subresource, name string
	strict, dryRun                    bool
	labels                            labels.Selector
	body                              []byte
	delete                            metav1.DeleteOptions
}

func (a *API) serve(c call) (any, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	out, err := a.do(c)
	code := http.StatusOK
	if s, ok := errors.AsType[*apierrors.StatusError](err); ok {
		code = int(s.Status().Code)
	}
	a.requests = append(a.requests, Request{c.verb, c.resource, c.name, c.dryRun, code})
	return out, err
}

func (a *API) do(c call) (any, error) {
	i := slices.IndexFunc(a.defs, func(d *definition) bool { return d.resource == c.resource })
	d := a.defs[max(i, 0)]
	obj := a.objects[d.resource][c.name]
	switch {
	case a.failing != nil:
		return nil, a.failing
	case i < 0:
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: c.resource}, c.name)
	case a.denied[c.verb+" "+c.resource]:
		return nil, apierrors.NewForbidden(d.gr(), c.name, fmt.Errorf("user cannot %s resource %q in API group %q at the cluster scope", c.verb, c.resource, d.gvk.Group))
	case c.verb == "list":
		return a.list(d, c), nil
	case c.verb == "create":
		return a.create(d, c)
	case obj == nil:
		return nil, apierrors.NewNotFound(d.gr(), c.name)
	case c.verb == "get":
		return obj.DeepCopy(), nil
	case c.verb == "delete":
		return a.remove(d, c, obj)
	}
	next, err := changed(d, c, obj)
	if err != nil {
		return nil, err
	}
	return a.update(d, c, obj, next)
}

func (a *API) list(d *definition, c call) *unstructured.UnstructuredList {
	out := &unstructured.UnstructuredList{Items: []unstructured.Unstructured{}}
	out.SetGroupVersionKind(d.gvk.GroupVersion().WithKind(d.gvk.Kind + "List"))
	out.SetResourceVersion(strconv.FormatInt(a.version, 10))
	for _, obj := range a.objects[d.resource] {
		if c.labels == nil || c.labels.Matches(labels.Set(obj.GetLabels())) {
			out.Items = append(out.Items, *obj.DeepCopy())
		}
	}
	slices.SortFunc(out.Items, func(x, y unstructured.Unstructured) int { return strings.Compare(x.GetName(), y.GetName()) })
	return out
}

// decode takes the object of a request: fields that the definition does not know
// fail a strict call and are dropped otherwise.
func decode(d *definition, c call, body []byte) (*unstructured.Unstructured, error) {
	obj := &unstructured.Unstructured{}
	if err := json.Unmarshal(body, &obj.Object); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if got := obj.GroupVersionKind(); got != d.gvk {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the object is a %s, want a %s", got, d.gvk))
	}
	var unknown []string
	for _, part := range []string{"spec", "status"} {
		if v, ok := obj.Object[part]; ok {
			unknown = append(unknown, settle(child(d.schema, "properties", part), v, part)...)
		}
	}
	if len(unknown) > 0 && c.strict {
		slices.Sort(unknown)
		return nil, apierrors.NewBadRequest(fmt.Sprintf("strict decoding error: unknown field %q", unknown[0]))
	}
	return obj, nil
}

func (a *API) create(d *definition, c call) (any, error) {
	obj, err := decode(d, c, c.body)
	if err != nil {
		return nil, err
	}
	// Status has an endpoint of its own, and what is sent elsewhere is ignored.
	delete(obj.Object, "status")
	if err := meta(d, obj); err != nil {
		return nil, err
	}
	if err := d.check("spec", obj.Object, nil); err != nil {
		return nil, err
	}
	if _, exists := a.objects[d.resource][obj.GetName()]; exists {
		return nil, apierrors.NewAlreadyExists(d.gr(), obj.GetName())
	}
	obj.SetUID(types.UID(fmt.Sprintf("%08x-0000-4000-8000-%012x", a.rng.Uint32(), a.rng.Uint64()>>16)))
	obj.SetCreationTimestamp(metav1.NewTime(time.Now().Truncate(time.Second)))
	obj.SetDeletionTimestamp(nil)
	obj.SetGeneration(1)
	if !c.dryRun {
		a.put(d, obj)
	}
	return obj.DeepCopy(), nil
}

func meta(d *definition, obj *unstructured.Unstructured) error {
	errs := validation.ValidateLabels(obj.GetLabels(), field.NewPath("metadata", "labels"))
	if problems := utilvalidation.IsDNS1123Subdomain(obj.GetName()); len(problems) > 0 {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), obj.GetName(), problems[0]))
	}
	if len(errs) > 0 {
		return apierrors.NewInvalid(d.gvk.GroupKind(), obj.GetName(), errs)
	}
	return nil
}

func (a *API) put(d *definition, obj *unstructured.Unstructured) {
	a.version++
	obj.SetResourceVersion(strconv.FormatInt(a.version, 10))
	a.objects[d.resource][obj.GetName()] = obj.DeepCopy()
}

// changed is the object as the request wants it.
func changed(d *definition, c call, obj *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	if c.verb == "update" {
		return decode(d, c, c.body)
	}
	var patch any
	if err := json.Unmarshal(c.body, &patch); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	now, err := json.Marshal(merge(clone(obj.Object), patch))
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	return decode(d, c, now)
}

// merge is https://www.rfc-editor.org/rfc/rfc7386#section-2
func merge(target, patch any) any {
	changes, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	out, ok := target.(map[string]any)
	if !ok {
		out = map[string]any{}
	}
	for key, v := range changes {
		if v == nil {
			delete(out, key)
			continue
		}
		out[key] = merge(out[key], v)
	}
	return out
}

// update changes either the object or its status, never both.
func (a *API) update(d *definition, c call, old, next *unstructured.Unstructured) (any, error) {
	switch {
	case next.GetUID() != "" && next.GetUID() != old.GetUID():
		return nil, apierrors.NewConflict(d.gr(), c.name, fmt.Errorf("Precondition failed: UID in precondition: %s, UID in object meta: %s", next.GetUID(), old.GetUID()))
	case next.GetResourceVersion() == "" && c.verb == "update":
		return nil, apierrors.NewInvalid(d.gvk.GroupKind(), c.name, field.ErrorList{field.Invalid(field.NewPath("metadata", "resourceVersion"), 0, "must be specified for an update")})
	case next.GetResourceVersion() != old.GetResourceVersion():
		return nil, apierrors.NewConflict(d.gr(), c.name, errors.New("the object has been modified; please apply your changes to the latest version and try again"))
	}
	obj := old.DeepCopy()
	if c.subresource == "status" {
		obj.Object["status"] = next.Object["status"]
		if err := d.check("status", obj.Object, nil); err != nil {
			return nil, err
		}
	} else {
		if err := d.check("spec", next.Object, old.Object); err != nil {
			return nil, err
		}
		if err := meta(d, next); err != nil {
			return nil, err
		}
		if !equality.Semantic.DeepEqual(obj.Object["spec"], next.Object["spec"]) {
			obj.SetGeneration(old.GetGeneration() + 1)
		}
		obj.Object["spec"] = next.Object["spec"]
		obj.SetLabels(next.GetLabels())
		obj.SetAnnotations(next.GetAnnotations())
		obj.SetOwnerReferences(next.GetOwnerReferences())
		obj.SetFinalizers(next.GetFinalizers())
	}
	if !c.dryRun && !equality.Semantic.DeepEqual(obj, old) {
		a.put(d, obj)
	}
	// An object that is being deleted goes with its last finalizer.
	// https://kubernetes.io/docs/concepts/overview/working-with-objects/finalizers/
	if !c.dryRun && obj.GetDeletionTimestamp() != nil && len(obj.GetFinalizers()) == 0 {
		delete(a.objects[d.resource], c.name)
	}
	return obj.DeepCopy(), nil
}

func (a *API) remove(d *definition, c call, obj *unstructured.Unstructured) (any, error) {
	if p := c.delete.Preconditions; p != nil && p.UID != nil && *p.UID != obj.GetUID() {
		return nil, apierrors.NewConflict(d.gr(), c.name, fmt.Errorf("Precondition failed: UID in precondition: %s, UID in object meta: %s", *p.UID, obj.GetUID()))
	}
	// https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/delete-options/
	if p := c.delete.Preconditions; p != nil && p.ResourceVersion != nil && *p.ResourceVersion != obj.GetResourceVersion() {
		return nil, apierrors.NewConflict(d.gr(), c.name, fmt.Errorf("Precondition failed: ResourceVersion in precondition: %s, ResourceVersion in object meta: %s", *p.ResourceVersion, obj.GetResourceVersion()))
	}
	switch {
	case c.dryRun:
	case len(obj.GetFinalizers()) == 0:
		delete(a.objects[d.resource], c.name)
	case obj.GetDeletionTimestamp() == nil:
		obj = obj.DeepCopy()
		obj.SetDeletionTimestamp(new(metav1.NewTime(time.Now().Truncate(time.Second))))
		obj.SetDeletionGracePeriodSeconds(new(int64(0)))
		// The generation moves on (k8s.io/apiserver, rest.BeforeDelete).
		obj.SetGeneration(obj.GetGeneration() + 1)
		a.put(d, obj)
		return obj.DeepCopy(), nil
	default:
		return obj.DeepCopy(), nil
	}
	return &metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusSuccess}, nil
}
