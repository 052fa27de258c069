// Package simcluster is a pretend Kubernetes cluster for tests and the demo: an
// API server's store with its admission, a kubelet for every node, the
// token signer and the controllers that clean up after lost nodes.
//
// It is stateful and refuses what a real API server refuses. It is reached
// through [Cluster.Client] in this process, or through [Cluster.Handler] by
// any Kubernetes client over HTTP; both see the same store and rules. Lists
// are whole; watches follow the store from a bounded history.
//
// All waiting is on channels and timers, so that it runs inside
// testing/synctest.
package simcluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	cryptorand "crypto/rand"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// Options configure a [Cluster].
type Options struct {
	// Namespace is the only one that exists besides default, and enforces
	// the restricted Pod Security Standard.
	Namespace string
	// ServiceAccounts exist in the namespace.
	ServiceAccounts []string
	// ConfigMaps exist in the namespace: name to key to content.
	ConfigMaps map[string]map[string]string
	// Token is the bearer token that [Cluster.Handler] asks for.
	Token string
	// Issuer is the iss claim of service-account tokens.
	Issuer string
	// Seed makes UIDs repeatable.
	Seed uint64
	// Container runs in place of a pod's main container and returns its exit
	// code, or [OOMKilled]. Nil exits with 0 at once.
	Container ContainerFunc
	// NodeLoss is how long after an instance died its node object goes,
	// and PodGC how long pods outlive their node object. Both are 1 s when
	// 0; the real ones take a minute or so and 40 s.
	NodeLoss, PodGC time.Duration
	// NoWatchList refuses sendInitialEvents, as servers do whose feature gate
	// WatchList is off.
	NoWatchList bool
}

// Cluster is the pretend cluster. It is safe for concurrent use.
type Cluster struct {
	opts   Options
	key    *ecdsa.PrivateKey
	client *fake.Clientset
	wake   chan struct{} // holds at most one: something changed

	mu       sync.Mutex
	rng      *rand.Rand
	version  int64
	objects  map[string]map[string]runtime.Object // resource, then namespace/name
	dead     map[types.UID]bool                   // nodes whose instance is gone
	losses   []types.NamespacedName               // nodes for the cloud controller; Namespace holds the UID
	changed  map[types.UID]chan struct{}          // a pod's worker, while it has one
	orphans  map[types.UID]bool                   // pods that the garbage collector waits for
	trouble  troubles
	faults   []*Fault
	requests []Request
	history  []change // ordered by version
	// compacted is the version up to which the history is forgotten.
	compacted int64
	watches   map[*openWatch]bool
	muted     bool
}

// New makes an empty cluster with a fresh signing key.
func New(opts Options) (*Cluster, error) {
	if opts.Namespace == "" {
		return nil, fmt.Errorf("simulated cluster: no namespace")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), cryptorand.Reader)
	if err != nil {
		return nil, fmt.Errorf("simulated cluster: make the signing key: %w", err)
	}
	if opts.Issuer == "" {
		opts.Issuer = "https://oidc.cluster.invalid"
	}
	if opts.NodeLoss == 0 {
		opts.NodeLoss = time.Second
	}
	if opts.PodGC == 0 {
		opts.PodGC = time.Second
	}
	c := &Cluster{
		opts: opts, key: key, wake: make(chan struct{}, 1),
		rng:     rand.New(rand.NewPCG(opts.Seed, opts.Seed)),
		objects: map[string]map[string]runtime.Object{},
		version: 1, // etcd's first revision; 0 is the version of nothing
		dead:    map[types.UID]bool{}, orphans: map[types.UID]bool{},
		changed: map[types.UID]chan struct{}{}, watches: map[*openWatch]bool{},
		trouble: newTroubles(),
	}
	for _, k := range kinds() {
		c.objects[k.resource] = map[string]runtime.Object{}
	}
	c.client = fake.NewSimpleClientset()
	c.client.PrependReactor("*", "*", c.react)
	c.client.PrependWatchReactor("*", c.reactWatch)
	return c, nil
}

// Client is the cluster in this process, with cluster-admin's rights.
func (c *Cluster) Client() kubernetes.Interface { return c.client }

// react serves a call of the fake clientset from the strict store; nothing
// reaches client-go's own lenient tracker.
func (c *Cluster) react(action clienttesting.Action) (bool, runtime.Object, error) {
	r := request{
		verb: action.GetVerb(), group: action.GetResource().Group, resource: action.GetResource().Resource,
		subresource: action.GetSubresource(), namespace: action.GetNamespace(),
	}
	switch a := action.(type) {
	case clienttesting.GetActionImpl:
		r.name = a.Name
	case clienttesting.ListActionImpl:
		r.options = optionsOf(a.ListOptions, a.ListRestrictions.Labels, a.ListRestrictions.Fields)
	case clienttesting.CreateActionImpl:
		r.object = a.Object
	case clienttesting.UpdateActionImpl:
		r.object = a.Object
		r.name = nameOf(a.Object)
	case clienttesting.DeleteActionImpl:
		r.name, r.delete = a.Name, a.DeleteOptions
	}
	obj, err := c.serve(r)
	return true, obj, err
}

// reactWatch is react for watches.
func (c *Cluster) reactWatch(action clienttesting.Action) (bool, watch.Interface, error) {
	r := request{
		verb: "watch", group: action.GetResource().Group, resource: action.GetResource().Resource,
		subresource: action.GetSubresource(), namespace: action.GetNamespace(),
	}
	if a, ok := action.(clienttesting.WatchActionImpl); ok {
		r.options = optionsOf(a.ListOptions, a.WatchRestrictions.Labels, a.WatchRestrictions.Fields)
	}
	w, err := c.serveWatch(r)
	return true, w, err
}

// optionsOf are the options of a list or watch as the API server has them.
func optionsOf(o metav1.ListOptions, byLabel labels.Selector, byField fields.Selector) internalversion.ListOptions {
	return internalversion.ListOptions{
		LabelSelector: byLabel, FieldSelector: byField, ResourceVersion: o.ResourceVersion, ResourceVersionMatch: o.ResourceVersionMatch,
		SendInitialEvents: o.SendInitialEvents, AllowWatchBookmarks: o.AllowWatchBookmarks, TimeoutSeconds: o.TimeoutSeconds,
		Continue: o.Continue, Limit: o.Limit,
	}
}

// NodeSpec describes a node that joins. Only Name is needed.
type NodeSpec struct {
	Name, ProviderID, InternalIP string
	Labels                       map[string]string
	Taints                       []corev1.Taint
	OSImage, KubeletVersion      string
	BootID, MachineID            string
	NotReady                     bool
}

// AddNode lets a node join as its kubelet registers it, and returns the object.
// A node of the same name must have been deleted before.
func (c *Cluster) AddNode(spec NodeSpec) (*corev1.Node, error) {
	ready := corev1.ConditionTrue
	if spec.NotReady {
		ready = corev1.ConditionFalse
	}
	labels := map[string]string{corev1.LabelHostname: spec.Name, corev1.LabelOSStable: "linux", corev1.LabelArchStable: "amd64"}
	maps.Copy(labels, spec.Labels)
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: spec.Name, Labels: labels},
		Spec:       corev1.NodeSpec{ProviderID: spec.ProviderID, Taints: spec.Taints},
		Status: corev1.NodeStatus{
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}},
			NodeInfo: corev1.NodeSystemInfo{
				OSImage: spec.OSImage, KubeletVersion: spec.KubeletVersion, BootID: spec.BootID, MachineID: spec.MachineID,
				OperatingSystem: "linux", Architecture: "amd64",
			},
		},
	}
	if spec.InternalIP != "" {
		node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: spec.InternalIP}}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	obj, err := c.create(request{verb: "create", resource: "nodes", object: node})
	if err != nil {
		return nil, err
	}
	c.notify()
	return obj.(*corev1.Node), nil
}

// RemoveNode is what the cluster sees when the node's instance dies: its
// containers stop at once without a word, and the node object, then the pods
// on it, are removed by controllers a moment later, while [Cluster.Run] runs.
// It reports whether there was such a node.
func (c *Cluster) RemoveNode(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	obj, ok := c.objects["nodes"][key("", name)]
	if !ok {
		return false
	}
	node := obj.(*corev1.Node).DeepCopy()
	if c.dead[node.UID] {
		return true
	}
	c.dead[node.UID] = true
	for i := range node.Status.Conditions {
		if node.Status.Conditions[i].Type == corev1.NodeReady {
			node.Status.Conditions[i].Status = corev1.ConditionUnknown
		}
	}
	c.put("nodes", node)
	c.losses = append(c.losses, types.NamespacedName{Namespace: string(node.UID), Name: name})
	c.notify()
	return true
}

// notify wakes the kubelets. The caller holds the lock.
func (c *Cluster) notify() {
	for _, ch := range c.changed {
		signal(ch)
	}
	signal(c.wake)
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

func (c *Cluster) newUID() types.UID {
	a, b := c.rng.Uint64(), c.rng.Uint64()
	return types.UID(fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x", uint32(a>>32), uint16(a>>16), a&0xfff, b>>52, b&0xffffffffffff))
}
