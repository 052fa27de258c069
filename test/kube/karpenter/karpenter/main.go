// Command karpenter is Karpenter's own controllers, as operators run them, with a
// cloud that a test serves over HTTP in place of AWS: what Karpenter does of its
// own accord is real, what AWS does is the test's simulator.
//
//	KARPENTER_CLOUD   the cloud's URL: POST /launch, GET /machines, POST /terminate
//	KUBECONFIG        the cluster
//
// With the argument crds it prints Karpenter's definitions instead.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/awslabs/operatorpkg/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/karpenter/pkg/apis"
	v1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
	"sigs.k8s.io/karpenter/pkg/controllers"
	"sigs.k8s.io/karpenter/pkg/controllers/state"
	"sigs.k8s.io/karpenter/pkg/operator"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "crds" {
		for _, crd := range [][]byte{apis.NodePoolCRD, apis.NodeClaimCRD, apis.NodeOverlayCRD, apis.CapacityBufferCRD} {
			fmt.Printf("---\n%s\n", crd)
		}
		return
	}
	group := schema.GroupVersion{Group: "karpenter.k8s.aws", Version: "v1"}
	metav1.AddToGroupVersion(scheme.Scheme, group)
	scheme.Scheme.AddKnownTypes(group, &EC2NodeClass{}, &EC2NodeClassList{})
	ctx, op := operator.NewOperator()
	provider := &cloud{url: os.Getenv("KARPENTER_CLOUD"), client: &http.Client{Timeout: 10 * time.Second}}
	cluster := state.NewCluster(op.Clock, op.GetClient(), provider)
	op.WithControllers(ctx, controllers.NewControllers(
		ctx, op.Manager, op.Clock, op.GetClient(), op.EventRecorder, provider, provider, cluster, op.InstanceTypeStore,
	)...).Start(ctx)
}

// EC2NodeClass is as much of the AWS provider's as its controllers would need here.
type EC2NodeClass struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec struct {
		Tags map[string]string `json:"tags,omitempty"`
	} `json:"spec"`
	Status struct {
		Conditions []status.Condition `json:"conditions,omitempty"`
	} `json:"status,omitempty"`
}

// EC2NodeClassList is a list of them.
type EC2NodeClassList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []EC2NodeClass `json:"items"`
}

// copied is a deep copy by way of JSON.
func copied[T any](in *T) *T {
	out := new(T)
	raw, err := json.Marshal(in)
	if err == nil {
		err = json.Unmarshal(raw, out)
	}
	if err != nil {
		panic(err) // the types hold nothing that JSON does not
	}
	return out
}

// DeepCopyObject implements [runtime.Object].
func (in *EC2NodeClass) DeepCopyObject() runtime.Object { return copied(in) }

// DeepCopyObject implements [runtime.Object].
func (in *EC2NodeClassList) DeepCopyObject() runtime.Object { return copied(in) }

// StatusConditions, GetConditions and SetConditions implement status.Object.
func (in *EC2NodeClass) StatusConditions(opts ...status.ForOption) status.ConditionSet {
	return status.NewReadyConditions().For(in, opts...)
}

func (in *EC2NodeClass) GetConditions() []status.Condition  { return in.Status.Conditions }
func (in *EC2NodeClass) SetConditions(c []status.Condition) { in.Status.Conditions = c }

// machine is what the test's cloud tells of an instance.
type machine struct {
	ID, ProviderID, ImageID, InstanceType, Zone string
	LaunchedAt                                  time.Time
	Ending                                      bool
	Labels                                      map[string]string
}

// cloud implements [cloudprovider.CloudProvider].
type cloud struct {
	url    string
	client *http.Client
}

func (c *cloud) ask(ctx context.Context, method, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, answer)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer, out)
}

func claimOf(m machine) *v1.NodeClaim {
	nc := &v1.NodeClaim{}
	nc.CreationTimestamp = metav1.NewTime(m.LaunchedAt)
	nc.Labels = map[string]string{
		corev1.LabelInstanceTypeStable: m.InstanceType, corev1.LabelTopologyZone: m.Zone, v1.CapacityTypeLabelKey: v1.CapacityTypeOnDemand,
	}
	nc.Status.ProviderID, nc.Status.ImageID = m.ProviderID, m.ImageID
	nc.Status.Capacity = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("8Gi")}
	nc.Status.Allocatable = nc.Status.Capacity
	if m.Ending {
		nc.DeletionTimestamp = new(metav1.Now())
	}
	return nc
}

func (c *cloud) Create(ctx context.Context, nc *v1.NodeClaim) (*v1.NodeClaim, error) {
	var m machine
	if err := c.ask(ctx, http.MethodPost, "/launch", nc, &m); err != nil {
		return nil, err
	}
	return claimOf(m), nil
}

func (c *cloud) Delete(ctx context.Context, nc *v1.NodeClaim) error {
	found, err := c.find(ctx, nc.Status.ProviderID)
	if err != nil || found.Ending {
		return err
	}
	return c.ask(ctx, http.MethodPost, "/terminate", found.ID, nil)
}

func (c *cloud) machines(ctx context.Context) (out []machine, err error) {
	return out, c.ask(ctx, http.MethodGet, "/machines", nil, &out)
}

func (c *cloud) find(ctx context.Context, providerID string) (machine, error) {
	list, err := c.machines(ctx)
	if err != nil {
		return machine{}, err
	}
	for _, m := range list {
		if m.ProviderID == providerID {
			return m, nil
		}
	}
	return machine{}, cloudprovider.NewNodeClaimNotFoundError(errors.New("no such machine"))
}

func (c *cloud) Get(ctx context.Context, providerID string) (*v1.NodeClaim, error) {
	m, err := c.find(ctx, providerID)
	if err != nil {
		return nil, err
	}
	return claimOf(m), nil
}

func (c *cloud) List(ctx context.Context) (out []*v1.NodeClaim, err error) {
	list, err := c.machines(ctx)
	for _, m := range list {
		out = append(out, claimOf(m))
	}
	return out, err
}

// No NodePool asks for types, and no policy repairs.
func (c *cloud) GetInstanceTypes(context.Context, *v1.NodePool) ([]*cloudprovider.InstanceType, error) {
	return nil, nil
}
func (c *cloud) IsDrifted(context.Context, *v1.NodeClaim) (cloudprovider.DriftReason, error) {
	return "", nil
}
func (c *cloud) RepairPolicies() []cloudprovider.RepairPolicy { return nil }
func (c *cloud) Name() string                                 { return "test" }
func (c *cloud) GetSupportedNodeClasses() []status.Object     { return []status.Object{&EC2NodeClass{}} }
