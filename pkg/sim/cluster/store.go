package simcluster

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// kind is a resource that is served, with the verbs it is served for.
type kind struct {
	group, resource, kind string
	namespaced            bool
	verbs                 []string
	object, list          func() runtime.Object
}

func kinds() []kind {
	return []kind{
		{"", "nodes", "Node", false, []string{"get", "list", "watch", "update", "delete"},
			func() runtime.Object { return &corev1.Node{} }, func() runtime.Object { return &corev1.NodeList{} }},
		{"", "pods", "Pod", true, []string{"get", "list", "watch", "create", "update", "delete"},
			func() runtime.Object { return &corev1.Pod{} }, func() runtime.Object { return &corev1.PodList{} }},
		{"events.k8s.io", "events", "Event", true, []string{"get", "list", "watch", "create", "update"},
			func() runtime.Object { return &eventsv1.Event{} }, func() runtime.Object { return &eventsv1.EventList{} }},
		{"coordination.k8s.io", "leases", "Lease", true, []string{"get", "create", "update"},
			func() runtime.Object { return &coordinationv1.Lease{} }, nil},
		{"authentication.k8s.io", "tokenreviews", "TokenReview", false, []string{"create"},
			func() runtime.Object { return &authv1.TokenReview{} }, nil},
	}
}

func kindOf(group, resource string) (kind, bool) {
	all := kinds()
	i := slices.IndexFunc(all, func(k kind) bool { return k.group == group && k.resource == resource })
	if i < 0 {
		return kind{}, false
	}
	return all[i], true
}

func (k kind) gr() schema.GroupResource {
	return schema.GroupResource{Group: k.group, Resource: k.resource}
}
func (k kind) gk() schema.GroupKind { return schema.GroupKind{Group: k.group, Kind: k.kind} }
func (k kind) gvk() schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: k.group, Version: "v1", Kind: k.kind}
}

// request is one API call, however it came.
type request struct {
	verb, group, resource, subresource string
	namespace, name                    string
	object                             runtime.Object
	options                            internalversion.ListOptions // of list and watch
	delete                             metav1.DeleteOptions
}

func key(namespace, name string) string { return namespace + "/" + name }

func accessor(obj runtime.Object) metav1.Object {
	// Every kind in the store embeds ObjectMeta.
	return obj.(metav1.Object)
}

func nameOf(obj runtime.Object) string { return accessor(obj).GetName() }

// serve answers one call, with its faults, and logs it.
func (c *Cluster) serve(r request) (runtime.Object, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fault := c.take(r)
	if fault != nil && !fault.After {
		c.log(r, fault.Err)
		return nil, fault.Err
	}
	obj, err := c.do(r)
	if err == nil && r.verb != "get" && r.verb != "list" {
		c.notify()
	}
	if fault != nil {
		obj, err = nil, fault.Err
	}
	c.log(r, err)
	return obj, err
}

// permit says what every call is asked first, and completes the options of a
// list or watch.
func (c *Cluster) permit(r *request) (kind, error) {
	k, ok := kindOf(r.group, r.resource)
	if !ok || r.subresource != "" {
		return k, apierrors.NewGenericServerResponse(http.StatusNotFound, r.verb, schema.GroupResource{Group: r.group, Resource: r.resource}, r.name, "", 0, true)
	}
	if !slices.Contains(k.verbs, r.verb) {
		return k, apierrors.NewMethodNotSupported(k.gr(), r.verb)
	}
	if err := c.authorize(k, *r); err != nil {
		return k, err
	}
	if r.verb == "list" || r.verb == "watch" {
		return k, c.listOptions(k, r)
	}
	return k, nil
}

func (c *Cluster) do(r request) (runtime.Object, error) {
	k, err := c.permit(&r)
	if err != nil {
		return nil, err
	}
	switch r.verb {
	case "get":
		obj, ok := c.objects[k.resource][key(r.namespace, r.name)]
		if !ok {
			return nil, apierrors.NewNotFound(k.gr(), r.name)
		}
		return obj.DeepCopyObject(), nil
	case "list":
		return c.list(k, r)
	case "create":
		if review, ok := r.object.(*authv1.TokenReview); ok {
			return c.review(review), nil
		}
		return c.create(r)
	case "update":
		return c.update(k, r)
	}
	return c.remove(k, r)
}

// authorize gives the caller what the chart's Role and ClusterRole give: all
// of this namespace, and events on nodes in default.
func (c *Cluster) authorize(k kind, r request) error {
	if !k.namespaced || r.namespace == c.opts.Namespace || k.resource == "events" && r.namespace == metav1.NamespaceDefault {
		return nil
	}
	return apierrors.NewForbidden(k.gr(), r.name, fmt.Errorf("user cannot %s resource %q in the namespace %q", r.verb, r.resource, r.namespace))
}

func (c *Cluster) list(k kind, r request) (runtime.Object, error) {
	version, err := fromVersion(r)
	switch {
	case err != nil:
		return nil, err
	case version > c.version:
		return nil, tooLarge(version, c.version)
	case r.options.ResourceVersionMatch == metav1.ResourceVersionMatchExact && version != c.version:
		return nil, tooOld(version, c.version)
	}
	list := k.list()
	if err := meta.SetList(list, c.selected(k, r)); err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	list.(metav1.ListInterface).SetResourceVersion(strconv.FormatInt(c.version, 10))
	return list, nil
}

// selected are copies of the objects that the request is for, in the order of
// their keys, as the API server lists.
func (c *Cluster) selected(k kind, r request) []runtime.Object {
	var found []runtime.Object
	for _, obj := range c.objects[k.resource] {
		if r.selects(k.namespaced, obj) {
			found = append(found, obj.DeepCopyObject())
		}
	}
	slices.SortFunc(found, func(a, b runtime.Object) int { return strings.Compare(nameOf(a), nameOf(b)) })
	return found
}

// fields are those by which objects are selected here, a part of the real ones.
func (k kind) fields() []string {
	switch k.resource {
	case "nodes":
		return []string{"metadata.name"}
	case "pods":
		return []string{"metadata.name", "metadata.namespace", "spec.nodeName", "status.phase"}
	}
	return []string{"metadata.name", "metadata.namespace"}
}

func fieldsOf(obj runtime.Object) fields.Set {
	set := fields.Set{"metadata.name": nameOf(obj), "metadata.namespace": accessor(obj).GetNamespace()}
	if pod, ok := obj.(*corev1.Pod); ok {
		set["spec.nodeName"], set["status.phase"] = pod.Spec.NodeName, string(pod.Status.Phase)
	}
	return set
}

func (c *Cluster) create(r request) (runtime.Object, error) {
	k, _ := kindOf(r.group, r.resource)
	obj := r.object.DeepCopyObject()
	m := accessor(obj)
	switch {
	case m.GetNamespace() != "" && m.GetNamespace() != r.namespace:
		return nil, apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	case m.GetResourceVersion() != "":
		return nil, apierrors.NewBadRequest("resourceVersion should not be set on objects to be created")
	}
	m.SetNamespace(r.namespace)
	if m.GetName() == "" && m.GetGenerateName() != "" {
		m.SetName(fmt.Sprintf("%s%05x", m.GetGenerateName(), c.rng.Uint32()&0xfffff))
	}
	if err := c.admit(k, obj); err != nil {
		return nil, err
	}
	if _, exists := c.objects[k.resource][key(r.namespace, m.GetName())]; exists {
		return nil, apierrors.NewAlreadyExists(k.gr(), m.GetName())
	}
	m.SetUID(c.newUID())
	m.SetCreationTimestamp(metav1.NewTime(time.Now().Truncate(time.Second)))
	m.SetDeletionTimestamp(nil)
	c.put(k.resource, obj)
	return obj.DeepCopyObject(), nil
}

func (c *Cluster) update(k kind, r request) (runtime.Object, error) {
	old, ok := c.objects[k.resource][key(r.namespace, r.name)]
	if !ok {
		return nil, apierrors.NewNotFound(k.gr(), r.name)
	}
	obj := r.object.DeepCopyObject()
	was, m := accessor(old), accessor(obj)
	version := m.GetResourceVersion()
	switch {
	case m.GetName() != r.name:
		return nil, apierrors.NewBadRequest("the name of the object does not match the name on the URL")
	case m.GetUID() != "" && m.GetUID() != was.GetUID():
		return nil, apierrors.NewConflict(k.gr(), r.name, fmt.Errorf("Precondition failed: UID in precondition: %s, UID in object meta: %s", m.GetUID(), was.GetUID()))
	case version == "" && k.resource == "leases":
		// Leases may not be updated unconditionally (coordination/lease/strategy.go).
		return nil, invalid(k, r.name, "metadata.resourceVersion", "must be specified for an update")
	case version != "" && version != was.GetResourceVersion():
		return nil, apierrors.NewConflict(k.gr(), r.name, errors.New("the object has been modified; please apply your changes to the latest version and try again"))
	}
	m.SetNamespace(r.namespace)
	m.SetUID(was.GetUID())
	m.SetCreationTimestamp(was.GetCreationTimestamp())
	m.SetDeletionTimestamp(was.GetDeletionTimestamp())
	m.SetDeletionGracePeriodSeconds(was.GetDeletionGracePeriodSeconds())
	if err := immutable(k, old, obj); err != nil {
		return nil, err
	}
	m.SetResourceVersion(was.GetResourceVersion())
	obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	if held(was) && len(m.GetFinalizers()) == 0 {
		c.drop(k.resource, key(r.namespace, r.name))
		return obj.DeepCopyObject(), nil
	}
	// An update that changes nothing writes nothing.
	if !equality.Semantic.DeepEqual(old, obj) {
		c.put(k.resource, obj)
	}
	return obj.DeepCopyObject(), nil
}

// immutable keeps what an update of the main resource may not change: status,
// and nearly all of a spec.
func immutable(k kind, old, obj runtime.Object) error {
	switch obj := obj.(type) {
	case *corev1.Pod:
		was := old.(*corev1.Pod)
		obj.Status = was.Status
		if !equality.Semantic.DeepEqual(was.Spec, obj.Spec) {
			return invalid(k, obj.Name, "spec", "pod updates may not change fields other than images, activeDeadlineSeconds, tolerations and terminationGracePeriodSeconds")
		}
	case *corev1.Node:
		was := old.(*corev1.Node)
		obj.Status = was.Status
		if was.Spec.ProviderID != "" && obj.Spec.ProviderID != was.Spec.ProviderID {
			return invalid(k, obj.Name, "spec.providerID", "node updates may not change providerID except from \"\" to valid")
		}
	case *coordinationv1.Lease:
		if errs := validateLease(obj); len(errs) > 0 {
			return apierrors.NewInvalid(k.gk(), obj.Name, errs)
		}
	case *eventsv1.Event:
		return immutableEvent(k, old.(*eventsv1.Event), obj)
	}
	return nil
}

// remove deletes an object. A bound pod that is not terminal goes gracefully:
// it is marked, and gone when its kubelet says so (pod/strategy.go,
// CheckGracefulDelete). Grace 0 removes the object at once.
func (c *Cluster) remove(k kind, r request) (runtime.Object, error) {
	id := key(r.namespace, r.name)
	obj, ok := c.objects[k.resource][id]
	if !ok {
		return nil, apierrors.NewNotFound(k.gr(), r.name)
	}
	m := accessor(obj)
	if p := r.delete.Preconditions; p != nil {
		if p.UID != nil && *p.UID != m.GetUID() {
			return nil, apierrors.NewConflict(k.gr(), r.name, fmt.Errorf("Precondition failed: UID in precondition: %s, UID in object meta: %s", *p.UID, m.GetUID()))
		}
		if p.ResourceVersion != nil && *p.ResourceVersion != m.GetResourceVersion() {
			return nil, apierrors.NewConflict(k.gr(), r.name, fmt.Errorf("Precondition failed: ResourceVersion in precondition: %s, ResourceVersion in object meta: %s", *p.ResourceVersion, m.GetResourceVersion()))
		}
	}
	if pod, ok := obj.(*corev1.Pod); ok {
		if marked, still := terminating(pod, r.delete.GracePeriodSeconds); still {
			c.put(k.resource, marked)
			return marked, nil
		}
	}
	if len(m.GetFinalizers()) > 0 {
		return c.hold(k.resource, obj), nil
	}
	c.drop(k.resource, id)
	return &metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusSuccess}, nil
}

// hold marks an object that its finalizers keep: it goes with the last of them.
// https://kubernetes.io/docs/concepts/overview/working-with-objects/finalizers/
func (c *Cluster) hold(resource string, obj runtime.Object) runtime.Object {
	if held(accessor(obj)) {
		return obj.DeepCopyObject()
	}
	obj = obj.DeepCopyObject()
	accessor(obj).SetDeletionTimestamp(new(metav1.NewTime(time.Now().Truncate(time.Second))))
	accessor(obj).SetDeletionGracePeriodSeconds(new(int64(0)))
	c.put(resource, obj)
	return obj
}

// held says that an object is gone but for its finalizers.
func held(m metav1.Object) bool {
	grace := m.GetDeletionGracePeriodSeconds()
	return m.GetDeletionTimestamp() != nil && grace != nil && *grace == 0
}

// terminating marks the pod for graceful deletion; still is false when it can
// go at once. A second deletion can only shorten the grace of the first.
func terminating(pod *corev1.Pod, asked *int64) (marked *corev1.Pod, still bool) {
	grace := *pod.Spec.TerminationGracePeriodSeconds
	if asked != nil {
		grace = *asked
	}
	if terminal(pod) || pod.Spec.NodeName == "" || grace <= 0 {
		return nil, false
	}
	pod = pod.DeepCopy()
	if pod.DeletionTimestamp == nil || grace < *pod.DeletionGracePeriodSeconds {
		pod.DeletionTimestamp = new(metav1.NewTime(time.Now().Add(time.Duration(grace) * time.Second).Truncate(time.Second)))
		pod.DeletionGracePeriodSeconds = new(grace)
	}
	return pod, true
}

func terminal(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}
