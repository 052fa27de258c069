package world

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
	simcluster "github.com/runnerward/runnerward/pkg/sim/cluster"
	simkarpenter "github.com/runnerward/runnerward/pkg/sim/karpenter"
	"github.com/runnerward/runnerward/pkg/sim/memnet"
)

const (
	// NodeClass is the pool's EC2NodeClass.
	NodeClass = "hipaa-prod-runners"
	// EKSCluster is what Karpenter tags its machines with.
	EKSCluster = "hipaa-prod-east"

	karpenterEvery = time.Second
)

// Karpenter launches the hosts of a world that has no Auto Scaling group.
type Karpenter struct {
	API        *simkarpenter.API
	Controller *simkarpenter.Controller

	line     *memnet.Listener
	carry    *http.Transport
	world    *World
	template simaws.Group

	mu      sync.Mutex
	orders  map[string]simkarpenter.Launch // by instance
	refusal error
	strayed bool
}

// newKarpenter puts one beside the world's cluster, with a node class that is
// ready.
func newKarpenter(w *World, template simaws.Group) (*Karpenter, error) {
	k := &Karpenter{world: w, template: template, line: memnet.Listen(), orders: map[string]simkarpenter.Launch{}}
	k.carry = k.line.Transport()
	var err error
	if k.API, err = simkarpenter.NewAPI(w.opts.ClusterToken, w.opts.Seed); err != nil {
		return nil, fmt.Errorf("make Karpenter's API: %w", err)
	}
	api, err := dynamic.NewForConfig(&rest.Config{
		Host: "http://cluster.sim", BearerToken: w.opts.ClusterToken, Transport: k.carry, QPS: -1,
	})
	if err != nil {
		return nil, fmt.Errorf("make Karpenter's client: %w", err)
	}
	k.Controller = simkarpenter.NewController(api, w.Cluster.Client(), k, simkarpenter.Options{Cluster: EKSCluster, Namespace: Namespace})
	return k, k.API.Apply(nodeClass(template))
}

// nodeClass is the pool's as its controller leaves it.
func nodeClass(template simaws.Group) *unstructured.Unstructured {
	tags := map[string]any{}
	for key, value := range template.Tags {
		tags[key] = value
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "karpenter.k8s.aws/v1", "kind": "EC2NodeClass", "metadata": map[string]any{"name": NodeClass},
		"spec": map[string]any{
			"amiSelectorTerms": []any{map[string]any{"alias": "bottlerocket@v1.57.0"}}, "instanceProfile": "hipaa-prod-runners",
			"subnetSelectorTerms":        []any{map[string]any{"id": Subnet}},
			"securityGroupSelectorTerms": []any{map[string]any{"tags": map[string]any{"aws:eks:cluster-name": EKSCluster}}},
			"tags":                       tags,
		},
		"status": map[string]any{
			"instanceProfile": "hipaa-prod-runners", "subnets": []any{map[string]any{"id": Subnet, "zone": "us-east-1a"}},
			"amis": []any{map[string]any{"id": template.ImageID, "name": template.ImageName, "requirements": []any{
				map[string]any{"key": "kubernetes.io/arch", "operator": "In", "values": []any{"amd64"}}}}},
			"conditions": []any{map[string]any{
				"type": "Ready", "status": "True", "reason": "Ready", "message": "", "observedGeneration": int64(1),
				"lastTransitionTime": time.Now().UTC().Format(time.RFC3339),
			}},
		},
	}}
}

// Handler is the API of the cluster with Karpenter's resources.
func (k *Karpenter) Handler() http.Handler { return k.API.Handler(k.world.Cluster.Handler()) }

// run serves the controller until the context ends.
func (k *Karpenter) run(ctx context.Context) {
	stop := k.line.Serve(k.Handler())
	k.Controller.Run(ctx, karpenterEvery)
	k.carry.CloseIdleConnections()
	stop()
}

// Refuse has every launch fail with this error, nil none.
func (k *Karpenter) Refuse(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refusal = err
}

// KeepFromJoining has kubelets of new machines never reach the cluster.
func (k *Karpenter) KeepFromJoining(on bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.strayed = on
}

// Launch implements [simkarpenter.Cloud], as the other methods do. The kubelet
// finds its order only if the world's machines take a while to boot.
func (k *Karpenter) Launch(order simkarpenter.Launch) (simkarpenter.Machine, error) {
	if err := k.refused(); err != nil {
		return simkarpenter.Machine{}, err
	}
	template := k.template
	template.Tags = maps.Clone(order.Tags)
	if order.InstanceType != "" {
		template.InstanceType = order.InstanceType
	}
	// Not under the lock: it may boot another machine, which asks for its order.
	id := k.world.AWS.AddInstance(template)
	k.keep(id, order)
	for _, m := range k.Machines() {
		if m.ID == id {
			return m, nil
		}
	}
	return simkarpenter.Machine{}, errors.New("launched, and not listed")
}

func (k *Karpenter) refused() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.refusal
}

func (k *Karpenter) keep(id string, order simkarpenter.Launch) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.orders[id] = order
}

// Machines are those in the states that Karpenter asks EC2 for.
func (k *Karpenter) Machines() []simkarpenter.Machine {
	var out []simkarpenter.Machine
	for _, in := range k.world.AWS.Instances() {
		if !slices.Contains([]string{"pending", "running", "shutting-down"}, in.State) {
			continue
		}
		out = append(out, simkarpenter.Machine{
			ID: in.ID, ProviderID: in.ProviderID(), ImageID: in.ImageID, InstanceType: in.InstanceType, Zone: in.Zone,
			LaunchedAt: in.LaunchedAt, Ending: in.State == "shutting-down", Tags: in.Tags,
		})
	}
	return out
}

// Terminate ends a machine with Karpenter's own rights.
func (k *Karpenter) Terminate(id string) error { return k.world.AWS.Terminate(id) }

// Tag tags a machine.
func (k *Karpenter) Tag(id string, tags map[string]string) error { return k.world.AWS.Tag(id, tags) }

// userData is what the kubelet of an instance registers its node with; join is
// false for one that never does.
func (k *Karpenter) userData(id string) (labels map[string]string, taints []corev1.Taint, join bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	order, known := k.orders[id]
	return order.Labels, order.Taints, known && !k.strayed
}

// joinFrom registers the node of an instance that Karpenter launched.
func (w *World) joinFrom(spec simcluster.NodeSpec, id string) (simcluster.NodeSpec, bool) {
	if w.Karpenter == nil {
		return spec, true
	}
	labels, taints, join := w.Karpenter.userData(id)
	delete(spec.Labels, PoolLabelKey) // its NodeClaim has it, or it has none
	maps.Copy(spec.Labels, labels)
	spec.Taints = taints
	return spec, join
}
