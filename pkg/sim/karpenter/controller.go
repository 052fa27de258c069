package simkarpenter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
)

// Names of core, pkg/apis/v1/labels.go and taints.go, and of aws, pkg/apis/v1/labels.go.
const (
	Finalizer          = "karpenter.sh/termination"
	TaintUnregistered  = "karpenter.sh/unregistered"
	taintDisrupted     = "karpenter.sh/disrupted"
	labelRegistered    = "karpenter.sh/registered"
	labelInitialized   = "karpenter.sh/initialized"
	labelNodePool      = "karpenter.sh/nodepool"
	doNotDisrupt       = "karpenter.sh/do-not-disrupt"
	terminationTime    = "karpenter.sh/nodeclaim-termination-timestamp"
	annotationTagged   = "karpenter.k8s.aws/tagged"
	tagNodeClaim       = "karpenter.sh/nodeclaim"
	tagNodeClass       = "karpenter.k8s.aws/ec2nodeclass"
	tagClusterName     = "eks:eks-cluster-name"
	launchTimeout      = 5 * time.Minute  // core, lifecycle/liveness.go
	registrationWithin = 15 * time.Minute // core, lifecycle/liveness.go
	minDrainTime       = 5 * time.Second  // core, node/termination/controller.go
	collectEvery       = 2 * time.Minute  // core, nodeclaim/garbagecollection/controller.go
	orphanAge          = 30 * time.Second // aws, nodeclaim/garbagecollection/controller.go
)

var (
	claims  = schema.GroupVersionResource{Group: "karpenter.sh", Version: "v1", Resource: "nodeclaims"}
	classes = schema.GroupVersionResource{Group: "karpenter.k8s.aws", Version: "v1", Resource: "ec2nodeclasses"}
)

// ErrNoCapacity as the answer to a launch makes Karpenter delete the claim.
var ErrNoCapacity = errors.New("InsufficientCapacity")

// Launch is what a machine is launched with. Labels and taints are in its user
// data: the kubelet registers its node with them.
type Launch struct {
	NodeClass    string
	InstanceType string // empty when the claim does not say
	Tags, Labels map[string]string
	Taints       []corev1.Taint
}

// Machine is an instance that EC2 lists, and has not terminated.
type Machine struct {
	ID, ProviderID, ImageID, InstanceType, Zone string
	LaunchedAt                                  time.Time
	Ending                                      bool // it is shutting down
	Tags                                        map[string]string
}

// Cloud is EC2 as far as Karpenter uses it. It is safe for concurrent use.
type Cloud interface {
	// Launch starts a machine, or says [ErrNoCapacity].
	Launch(Launch) (Machine, error)
	Machines() []Machine
	Terminate(id string) error
	Tag(id string, tags map[string]string) error
}

// Controller is Karpenter. One Run at a time.
type Controller struct {
	claims  dynamic.ResourceInterface
	classes dynamic.ResourceInterface
	core    kubernetes.Interface
	cloud   Cloud
	opt     Options
	down    atomic.Bool

	launched  map[types.UID]Machine // of claims that may not say so yet
	collected time.Time
}

// Options configure a [Controller].
type Options struct {
	// Cluster is the name that machines are tagged with.
	Cluster string
	// Namespace is where pods are looked for when a node is drained; empty for all.
	Namespace string
}

// NewController makes a Karpenter.
func NewController(api dynamic.Interface, core kubernetes.Interface, cloud Cloud, opt Options) *Controller {
	return &Controller{
		claims: api.Resource(claims), classes: api.Resource(classes), core: core, cloud: cloud, opt: opt, launched: map[types.UID]Machine{},
	}
}

// SetDown stops the controller as if its pods had no node to run on, or lets it
// go on.
func (c *Controller) SetDown(down bool) { c.down.Store(down) }

// Run looks at everything once in every interval until the context ends. Whatever
// fails is tried again at the next look, as a controller does.
func (c *Controller) Run(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !c.down.Load() {
			_ = c.Sync(ctx)
		}
	}
}

// Sync is one look.
func (c *Controller) Sync(ctx context.Context) error {
	list, err := c.claims.List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	var problems []error
	for i := range list.Items {
		problems = append(problems, c.reconcile(ctx, &claim{obj: &list.Items[i]}))
	}
	problems = append(problems, c.drainNodes(ctx))
	if time.Since(c.collected) >= collectEvery {
		c.collected = time.Now()
		problems = append(problems, c.collect(ctx))
	}
	return errors.Join(problems...)
}

// reconcile is core, nodeclaim/lifecycle/controller.go, Reconcile.
func (c *Controller) reconcile(ctx context.Context, n *claim) error {
	if ref := n.text("spec", "nodeClassRef", "kind"); ref != "EC2NodeClass" {
		return nil // another provider's: core, utils/nodeclaim, IsManaged
	}
	if n.obj.GetDeletionTimestamp() != nil {
		return c.finalize(ctx, n)
	}
	if !slices.Contains(n.obj.GetFinalizers(), Finalizer) {
		// Nothing is launched that the finalizer would not hold.
		return c.patch(ctx, n, "", map[string]any{"metadata": map[string]any{
			"resourceVersion": n.obj.GetResourceVersion(), "finalizers": append(n.obj.GetFinalizers(), Finalizer),
		}})
	}
	before := n.obj.DeepCopy()
	gone, err := c.launch(ctx, n)
	if gone || err != nil && n.status("Launched") == "" {
		return err
	}
	err = errors.Join(err, c.register(ctx, n), c.initialize(ctx, n))
	if saveErr := c.save(ctx, n, before); saveErr != nil {
		return errors.Join(err, saveErr)
	}
	return errors.Join(err, c.live(ctx, n), c.tag(ctx, n))
}

// launch is core, nodeclaim/lifecycle/launch.go, and aws, cloudprovider.go, Create.
// gone says that the claim was deleted: for want of capacity, or of a node class
// that is ready, Karpenter does not try twice.
func (c *Controller) launch(ctx context.Context, n *claim) (gone bool, err error) {
	if n.status("Launched") == "True" {
		return false, nil
	}
	class, err := c.classes.Get(ctx, n.text("spec", "nodeClassRef", "name"), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return true, c.end(ctx, n) // "a failure to resolve the NodeClass as an ICE"
	}
	if err != nil {
		return false, err
	}
	switch ready := (&claim{obj: class}).condition("Ready"); {
	case ready["status"] == "False":
		return true, c.end(ctx, n)
	case ready["status"] != "True":
		n.set("Launched", "Unknown", "NodeClassReadinessUnknown", "NodeClass is in Ready=Unknown")
		return false, nil
	}
	m, known := c.launched[n.obj.GetUID()] // a launch whose record was lost is not repeated
	if !known {
		m, err = c.cloud.Launch(Order(n.obj, class, c.opt.Cluster))
	}
	switch {
	case errors.Is(err, ErrNoCapacity):
		return true, c.end(ctx, n)
	case err != nil:
		n.set("Launched", "Unknown", "LaunchFailed", err.Error())
		return false, nil
	}
	c.launched[n.obj.GetUID()] = m
	for key, value := range map[string]any{"providerID": m.ProviderID, "imageID": m.ImageID} {
		n.put(value, "status", key)
	}
	labels := map[string]string{
		corev1.LabelInstanceTypeStable: m.InstanceType, corev1.LabelTopologyZone: m.Zone, "karpenter.sh/capacity-type": "on-demand",
		tagNodeClass: class.GetName(),
	}
	maps.Copy(labels, n.obj.GetLabels()) // "user-defined labels trump"
	n.obj.SetLabels(labels)
	n.set("Launched", "True", "Launched", "")
	return false, nil
}

// Order is what the AWS provider launches a machine of this NodeClaim with: aws,
// pkg/utils/utils.go, GetTags, and the user data of pkg/providers/amifamily/bootstrap.
// The kubelet may set no label of kubernetes.io for itself (resolver.go,
// RejectForbiddenLabels).
func Order(nodeClaim, class *unstructured.Unstructured, cluster string) Launch {
	n := &claim{obj: nodeClaim}
	tags, _, _ := unstructured.NestedStringMap(class.Object, "spec", "tags")
	if tags == nil {
		tags = map[string]string{}
	}
	maps.Copy(tags, map[string]string{
		"kubernetes.io/cluster/" + cluster: "owned", labelNodePool: n.obj.GetLabels()[labelNodePool],
		tagClusterName: cluster, tagNodeClass: class.GetName(),
	})
	labels := maps.Clone(n.obj.GetLabels())
	maps.DeleteFunc(labels, func(key, _ string) bool {
		domain, _, _ := strings.Cut(key, "/")
		return strings.HasSuffix(domain, "kubernetes.io") || strings.HasSuffix(domain, "k8s.io")
	})
	order := Launch{NodeClass: class.GetName(), Tags: tags, Labels: labels}
	order.Taints = append(n.taints("taints"), n.taints("startupTaints")...)
	order.Taints = append(order.Taints, corev1.Taint{Key: TaintUnregistered, Effect: corev1.TaintEffectNoExecute})
	requirements, _, _ := unstructured.NestedSlice(n.obj.Object, "spec", "requirements")
	for _, r := range requirements {
		r, _ := r.(map[string]any)
		if values, _ := r["values"].([]any); r["key"] == corev1.LabelInstanceTypeStable && r["operator"] == "In" && len(values) > 0 {
			order.InstanceType, _ = values[0].(string)
		}
	}
	return order
}

// live is core, nodeclaim/lifecycle/liveness.go.
func (c *Controller) live(ctx context.Context, n *claim) error {
	if n.status("Registered") == "True" {
		return nil
	}
	if n.status("Launched") != "True" && n.since("Launched") >= launchTimeout || n.since("Registered") >= registrationWithin {
		return c.end(ctx, n)
	}
	return nil
}

// tag is aws, controllers/nodeclaim/tagging/controller.go.
func (c *Controller) tag(ctx context.Context, n *claim) error {
	node := n.text("status", "nodeName")
	if node == "" || n.obj.GetAnnotations()[annotationTagged] == "true" {
		return nil
	}
	id := n.instance()
	if err := c.cloud.Tag(id, map[string]string{"Name": node, tagNodeClaim: n.obj.GetName(), tagClusterName: c.opt.Cluster}); err != nil {
		return err
	}
	return c.patch(ctx, n, "", map[string]any{"metadata": map[string]any{"annotations": map[string]any{annotationTagged: "true"}}})
}

// collect is core, nodeclaim/garbagecollection/controller.go (claims without a
// machine) and aws, nodeclaim/garbagecollection/controller.go (machines without a
// claim).
func (c *Controller) collect(ctx context.Context) error {
	machines := c.cloud.Machines()
	list, err := c.claims.List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	var problems []error
	for i := range list.Items {
		n := &claim{obj: &list.Items[i]}
		there := slices.ContainsFunc(machines, func(m Machine) bool { return m.ProviderID == n.text("status", "providerID") && !m.Ending })
		if there || n.status("Registered") != "True" || n.obj.GetDeletionTimestamp() != nil {
			continue
		}
		node, err := c.nodeOf(ctx, n)
		if err == nil && (node == nil || !isReady(node)) { // "we know that the kubelet process is still running"
			err = c.end(ctx, n)
		}
		problems = append(problems, err)
	}
	for _, m := range machines {
		claimed := slices.ContainsFunc(list.Items, func(o unstructured.Unstructured) bool {
			return (&claim{obj: &o}).text("status", "providerID") == m.ProviderID
		})
		_, ours := m.Tags[tagNodeClass]
		if ours && !claimed && !m.Ending && time.Since(m.LaunchedAt) > orphanAge {
			problems = append(problems, c.cloud.Terminate(m.ID))
		}
	}
	return errors.Join(problems...)
}

func (c *Controller) machine(providerID string) (Machine, bool) {
	for _, m := range c.cloud.Machines() {
		if m.ProviderID == providerID {
			return m, true
		}
	}
	return Machine{}, false
}

func (c *Controller) end(ctx context.Context, n *claim) error {
	err := c.claims.Delete(ctx, n.obj.GetName(), metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// patch sends a merge patch, to the object or its status.
func (c *Controller) patch(ctx context.Context, n *claim, subresource string, change map[string]any) error {
	body, err := json.Marshal(change)
	if err != nil {
		return err
	}
	var sub []string
	if subresource != "" {
		sub = []string{subresource}
	}
	if _, err := c.claims.Patch(ctx, n.obj.GetName(), types.MergePatchType, body, metav1.PatchOptions{}, sub...); err != nil {
		return fmt.Errorf("patch NodeClaim %s: %w", n.obj.GetName(), err)
	}
	return nil
}

// save writes what a look changed: first labels, then the status.
func (c *Controller) save(ctx context.Context, n *claim, before *unstructured.Unstructured) error {
	if !maps.Equal(n.obj.GetLabels(), before.GetLabels()) {
		if err := c.patch(ctx, n, "", map[string]any{"metadata": map[string]any{"labels": n.obj.GetLabels()}}); err != nil {
			return err
		}
	}
	return c.saveStatus(ctx, n)
}

func (c *Controller) saveStatus(ctx context.Context, n *claim) error {
	if !n.changed {
		return nil
	}
	n.changed = false
	return c.patch(ctx, n, "status", map[string]any{"status": n.obj.Object["status"]})
}
