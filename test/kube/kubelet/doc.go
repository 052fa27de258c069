// Package kubelet is a kubelet without containers, for tests against a real API
// server: it joins as a node with a node's own rights, and runs a function in
// place of each pod's main container, with the files that a real kubelet would
// mount. Its tokens are real ones.
//
// It does not judge pods, probe them or limit them: make test-node does that
// with the real one.
package kubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	simcluster "github.com/runnerward/runnerward/pkg/sim/cluster"
)

// Options configure a [Kubelet].
type Options struct {
	// Config signs in as system:node:NAME of the group system:nodes.
	Config *rest.Config
	Node   simcluster.NodeSpec
	// Container runs in place of each pod's main container.
	Container simcluster.ContainerFunc
	// Heartbeat is how often the lease is renewed; 10 s when 0, a quarter of
	// nodeLeaseDurationSeconds as in pkg/kubelet/kubelet.go.
	Heartbeat time.Duration
}

// Kubelet is a node that has joined. Its methods are safe for concurrent use.
type Kubelet struct {
	opts   Options
	client kubernetes.Interface
	node   *corev1.Node
}

// Join registers the node as registerWithApiserver in
// pkg/kubelet/kubelet_node_status.go does: one create with labels, taints and
// provider id, then a patch of the status.
// Labels outside of kubernetes.io are the kubelet's to set, those of
// node-restriction.kubernetes.io are not:
// https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction
func Join(ctx context.Context, opts Options) (*Kubelet, error) {
	if opts.Heartbeat == 0 {
		opts.Heartbeat = 10 * time.Second
	}
	client, err := kubernetes.NewForConfig(opts.Config)
	if err != nil {
		return nil, err
	}
	k := &Kubelet{opts: opts, client: client}
	spec := opts.Node
	labels := map[string]string{corev1.LabelHostname: spec.Name, corev1.LabelOSStable: "linux", corev1.LabelArchStable: "amd64"}
	maps.Copy(labels, spec.Labels)
	node, err := client.CoreV1().Nodes().Create(ctx, &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: spec.Name, Labels: labels},
		Spec:       corev1.NodeSpec{ProviderID: spec.ProviderID, Taints: spec.Taints},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("register node %s: %w", spec.Name, err)
	}
	k.node = node
	if err := k.Report(ctx, !spec.NotReady); err != nil {
		return nil, err
	}
	if k.node, err = client.CoreV1().Nodes().Get(ctx, spec.Name, metav1.GetOptions{}); err != nil {
		return nil, fmt.Errorf("read node %s: %w", spec.Name, err)
	}
	return k, k.renew(ctx)
}

// Report tells the API server that the node is ready, or not. It is a patch,
// because controllers write to nodes too.
func (k *Kubelet) Report(ctx context.Context, ready bool) error {
	patch, err := json.Marshal(map[string]any{"status": k.status(ready)})
	if err != nil {
		return err
	}
	_, err = k.client.CoreV1().Nodes().Patch(ctx, k.node.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		return fmt.Errorf("report the status of node %s: %w", k.node.Name, err)
	}
	return nil
}

func (k *Kubelet) status(ready bool) corev1.NodeStatus {
	spec, now := k.opts.Node, metav1.Now()
	condition := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", LastHeartbeatTime: now, LastTransitionTime: now}
	if !ready {
		condition.Status, condition.Reason = corev1.ConditionFalse, "KubeletNotReady"
	}
	st := corev1.NodeStatus{
		Conditions: []corev1.NodeCondition{condition},
		Capacity: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("8"), corev1.ResourceMemory: resource.MustParse("32Gi"), corev1.ResourcePods: resource.MustParse("58"),
		},
		NodeInfo: corev1.NodeSystemInfo{
			OSImage: spec.OSImage, KubeletVersion: spec.KubeletVersion, BootID: spec.BootID, MachineID: spec.MachineID,
			OperatingSystem: "linux", Architecture: "amd64", ContainerRuntimeVersion: "containerd://2.1.4+bottlerocket",
		},
	}
	st.Allocatable = st.Capacity
	if spec.InternalIP != "" {
		st.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: spec.InternalIP}}
	}
	return st
}

// Node is the object that was registered, with the status that was reported first.
func (k *Kubelet) Node() *corev1.Node { return k.node.DeepCopy() }

// Client is the kubelet's own, with its rights.
func (k *Kubelet) Client() kubernetes.Interface { return k.client }

// renewTries is maxUpdateRetries in component-helpers/apimachinery/lease/controller.go.
const renewTries = 5

// renew makes or renews the node's lease, the heartbeat of
// https://kubernetes.io/docs/concepts/architecture/leases/#node-heart-beats
// That of a former node of the name may be on its way out.
func (k *Kubelet) renew(ctx context.Context) (err error) {
	for range renewTries {
		if err = k.tryRenew(ctx); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

func (k *Kubelet) tryRenew(ctx context.Context) error {
	leases := k.client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	lease, err := leases.Get(ctx, k.node.Name, metav1.GetOptions{})
	if err == nil {
		lease.Spec.RenewTime = new(metav1.NowMicro())
		_, err = leases.Update(ctx, lease, metav1.UpdateOptions{})
		return err
	}
	_, err = leases.Create(ctx, &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: k.node.Name, Namespace: corev1.NamespaceNodeLease, OwnerReferences: []metav1.OwnerReference{
			{APIVersion: "v1", Kind: "Node", Name: k.node.Name, UID: k.node.UID},
		}},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &k.node.Name, LeaseDurationSeconds: new(int32(40)), RenewTime: new(metav1.NowMicro())},
	}, metav1.CreateOptions{})
	return err
}

// Run cares for the node's pods until the context ends, which is as if the
// host's power was cut: containers are killed and nothing is reported any more.
// It returns the context's cause when every container has ended.
func (k *Kubelet) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	pods := &pods{k: k, wg: &wg, workers: map[types.UID]*worker{}}
	// The node authorizer lets a kubelet see the pods of its own node only.
	// https://kubernetes.io/docs/reference/access-authn-authz/node/
	source := cache.NewListWatchFromClient(k.client.CoreV1().RESTClient(), "pods", corev1.NamespaceAll,
		fields.OneTermEqualSelector("spec.nodeName", k.node.Name))
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{ListerWatcher: source, ObjectType: &corev1.Pod{}, Handler: cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { pods.see(ctx, obj.(*corev1.Pod)) },
		UpdateFunc: func(_, obj any) { pods.see(ctx, obj.(*corev1.Pod)) },
		DeleteFunc: func(obj any) {
			if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = gone.Obj
			}
			pods.lose(obj.(*corev1.Pod))
		},
	}})
	wg.Go(func() { informer.RunWithContext(ctx) })
	tick := time.NewTicker(k.opts.Heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
			// Kubelets go on when one fails; the next one counts.
			_ = k.renew(ctx)
		}
	}
}

// pods are the pods of the node and who cares for each.
type pods struct {
	k  *Kubelet
	wg *sync.WaitGroup

	mu      sync.Mutex
	workers map[types.UID]*worker
}

// see is told of a pod that is new or changed.
func (p *pods) see(ctx context.Context, pod *corev1.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w, ok := p.workers[pod.UID]
	if !ok {
		if terminal(pod) && pod.DeletionTimestamp == nil {
			return
		}
		w = &worker{k: p.k, pod: pod, news: make(chan *corev1.Pod, 1)}
		p.workers[pod.UID] = w
		p.wg.Go(func() { w.run(ctx) })
	}
	w.tell(pod)
}

// lose is told of a pod that is no more.
func (p *pods) lose(pod *corev1.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w, ok := p.workers[pod.UID]; ok {
		w.tell(nil)
		delete(p.workers, pod.UID)
	}
}

func terminal(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}
