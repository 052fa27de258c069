package simcluster

import (
	"sort"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// historySize is how many changes a watch can go back. The API server's watch
// cache keeps between 100 and 100,000 changes of each resource
// (apiserver/pkg/storage/cacher/watch_cache_history.go), etcd what is younger
// than its compaction.
const historySize = 2000

// change is one write. old is nil for a creation, new for a deletion. The
// objects are in the store or were, and are never changed.
type change struct {
	version  int64
	resource string
	old, new runtime.Object
}

// put stores the object under a new resource version. The caller holds the lock.
func (c *Cluster) put(resource string, obj runtime.Object) {
	c.version++
	m := accessor(obj)
	m.SetResourceVersion(strconv.FormatInt(c.version, 10))
	// The store and clients never share memory, and typed clients see no kind.
	obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	id := key(m.GetNamespace(), m.GetName())
	old, stored := c.objects[resource][id], obj.DeepCopyObject()
	c.objects[resource][id] = stored
	c.remember(change{version: c.version, resource: resource, old: old, new: stored})
}

// drop removes an object. A deletion is a write with a version of its own
// (apiserver/pkg/storage/etcd3/watcher.go, transform). The caller holds the lock.
func (c *Cluster) drop(resource, id string) {
	old, ok := c.objects[resource][id]
	if !ok {
		return
	}
	c.version++
	delete(c.objects[resource], id)
	c.remember(change{version: c.version, resource: resource, old: old})
}

func (c *Cluster) remember(ch change) {
	c.history = append(c.history, ch)
	if over := len(c.history) - historySize; over > 0 {
		c.compact(c.history[over-1].version)
	}
	for w := range c.watches {
		signal(w.wake)
	}
}

// compact forgets all changes up to this version.
func (c *Cluster) compact(upTo int64) {
	c.history = append([]change(nil), c.since(upTo)...)
	c.compacted = upTo
}

// since are the changes after this version.
func (c *Cluster) since(version int64) []change {
	return c.history[sort.Search(len(c.history), func(i int) bool { return c.history[i].version > version }):]
}

// selects says that a request that lists or watches is for this object.
func (r request) selects(namespaced bool, obj runtime.Object) bool {
	if obj == nil {
		return false
	}
	m := accessor(obj)
	byLabel, byField := r.options.LabelSelector, r.options.FieldSelector
	return (!namespaced || m.GetNamespace() == r.namespace) &&
		(byLabel == nil || byLabel.Matches(labels.Set(m.GetLabels()))) && (byField == nil || byField.Matches(fieldsOf(obj)))
}

// bookmark is an object of the kind that holds nothing but a resource version.
// https://kubernetes.io/docs/reference/using-api/api-concepts/#watch-bookmarks
func (k kind) bookmark(version int64, initial bool) runtime.Object {
	obj := k.object()
	m := accessor(obj)
	m.SetResourceVersion(strconv.FormatInt(version, 10))
	if initial {
		m.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	return obj
}
