package hosts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// What is written on NodeClaims of ours. Karpenter copies a NodeClaim's labels to
// its node; no kubelet may set labels of kubernetes.io for itself, so these are
// of our own domain.
const (
	LabelPool      = "runnerward.io/pool"
	LabelManagedBy = "runnerward.io/managed-by"
	managedBy      = "runnerward"
)

// Karpenter's names, of sigs.k8s.io/karpenter v1.15.0, pkg/apis/v1, and
// github.com/aws/karpenter-provider-aws v1.15.1, pkg/apis/v1.
const (
	// NodeFinalizer is on every node of Karpenter's until its machine is gone.
	NodeFinalizer = "karpenter.sh/termination"

	groupKarpenter  = "karpenter.sh"
	groupNodeClass  = "karpenter.k8s.aws"
	kindNodeClass   = "EC2NodeClass"
	capacityType    = "karpenter.sh/capacity-type"
	doNotDisrupt    = "karpenter.sh/do-not-disrupt"
	doNotRepair     = "karpenter.sh/do-not-repair"
	tagNodeClass    = "karpenter.k8s.aws/ec2nodeclass"
	tagNodeClaim    = "karpenter.sh/nodeclaim"
	conditionLaunch = "Launched"
	conditionJoin   = "Registered"
	conditionReady  = "Initialized"
)

var (
	nodeClaims  = schema.GroupVersionResource{Group: groupKarpenter, Version: "v1", Resource: "nodeclaims"}
	nodeClasses = schema.GroupVersionResource{Group: groupNodeClass, Version: "v1", Resource: "ec2nodeclasses"}
	coreNodes   = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
)

// nodeClaim is what we write and read of a NodeClaim (pkg/apis/v1/nodeclaim.go).
type nodeClaim struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`
	Spec              nodeClaimSpec   `json:"spec"`
	Status            nodeClaimStatus `json:"status,omitzero"`
}

type nodeClaimSpec struct {
	Taints                 []corev1.Taint `json:"taints,omitempty"`
	StartupTaints          []corev1.Taint `json:"startupTaints,omitempty"`
	Requirements           []Requirement  `json:"requirements"`
	NodeClassRef           nodeClassRef   `json:"nodeClassRef"`
	TerminationGracePeriod string         `json:"terminationGracePeriod,omitempty"`
	ExpireAfter            string         `json:"expireAfter,omitempty"`
}

// Requirement is a choice of machines by a well-known label.
type Requirement struct {
	Key      string   `json:"key"`
	Operator string   `json:"operator"`
	Values   []string `json:"values,omitempty"`
}

type nodeClassRef struct {
	Group string `json:"group"`
	Kind  string `json:"kind"`
	Name  string `json:"name"`
}

type nodeClaimStatus struct {
	NodeName   string             `json:"nodeName,omitempty"`
	ProviderID string             `json:"providerID,omitempty"`
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

func condition(list []metav1.Condition, kind string) metav1.Condition {
	for _, c := range list {
		if c.Type == kind {
			return c
		}
	}
	return metav1.Condition{Type: kind, Status: metav1.ConditionUnknown}
}

func (c *nodeClaim) is(kind string) bool {
	return condition(c.Status.Conditions, kind).Status == metav1.ConditionTrue
}

// instance is the EC2 instance of the claim, empty before it is launched.
func (c *nodeClaim) instance() string {
	id := c.Status.ProviderID[strings.LastIndexByte(c.Status.ProviderID, '/')+1:]
	if !instanceID.MatchString(id) {
		return ""
	}
	return id
}

func (c *nodeClaim) state() runner.NodeClaimState {
	switch {
	case c.DeletionTimestamp != nil:
		return runner.NodeClaimDeleting
	case c.is(conditionReady):
		return runner.NodeClaimReady
	}
	return runner.NodeClaimStarting
}

func claimOf(claims []nodeClaim, instance string) *nodeClaim {
	i := slices.IndexFunc(claims, func(c nodeClaim) bool { return instance != "" && c.instance() == instance })
	if i < 0 {
		return nil
	}
	return &claims[i]
}

func protected(annotations map[string]string) bool { return annotations[doNotDisrupt] == "true" }

// NewNodeClaims makes the client that [NewKarpenter] takes. Its requests leave
// the id by which the cluster's audit log knows them.
func NewNodeClaims(cfg *rest.Config) (dynamic.Interface, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return audited{next} })
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make the client of NodeClaims: %w", err)
	}
	return client, nil
}

// audited notes requests to the API server on the trail of their context.
// https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/ names a request by
// the id that the header Audit-ID carries (k8s.io/apiserver, WithAuditInit).
type audited struct{ next http.RoundTripper }

func (a audited) RoundTrip(req *http.Request) (*http.Response, error) {
	t, followed := req.Context().Value(trailKey{}).(*trail)
	if !followed {
		return a.next.RoundTrip(req)
	}
	q := runner.Request{Call: t.call, At: time.Now().UTC().Round(0), Code: "NoAnswer"}
	resp, err := a.next.RoundTrip(req)
	if err == nil {
		q.RequestID, q.Code = resp.Header.Get("Audit-Id"), ""
		if resp.StatusCode >= http.StatusBadRequest {
			q.Code = fmt.Sprintf("HTTP%d", resp.StatusCode)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.requests = append(t.requests, q)
	return resp, err
}

// claims are the NodeClaims of the pool, as the API server has them now.
func (k *Karpenter) claims(ctx context.Context) ([]nodeClaim, error) {
	ctx, cancel := k.call(ctx)
	defer cancel()
	list, err := k.api.Resource(nodeClaims).List(ctx, metav1.ListOptions{LabelSelector: LabelPool + "=" + k.opt.Pool})
	if err != nil {
		return nil, fmt.Errorf("list the pool's NodeClaims: %w", because(ctx, err))
	}
	out := make([]nodeClaim, len(list.Items))
	for i, item := range list.Items {
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(item.Object, &out[i]); err != nil {
			return nil, fmt.Errorf("read NodeClaim %.100s: %w", item.GetName(), err)
		}
	}
	return out, nil
}

// wanted is a NodeClaim as the pool needs it. Its spec can never be changed, so
// all that a host must have is in it from the start:
//
//   - expireAfter Never: the default of 720h ends a host whatever runs on it.
//   - The pool's taint is on the node before it is ready for any pod.
//   - Labels that only kubelet or Karpenter may set are left to them.
func (k *Karpenter) wanted() *nodeClaim {
	c := &nodeClaim{
		TypeMeta: metav1.TypeMeta{APIVersion: groupKarpenter + "/v1", Kind: "NodeClaim"},
		ObjectMeta: metav1.ObjectMeta{
			Name: k.opt.NewName(), Labels: map[string]string{LabelPool: k.opt.Pool, LabelManagedBy: managedBy},
			Annotations: map[string]string{doNotDisrupt: "true", doNotRepair: "true"},
		},
		Spec: nodeClaimSpec{
			Taints: []corev1.Taint{taintFor(k.opt.Rules.Taint)}, Requirements: k.opt.Requirements,
			NodeClassRef:           nodeClassRef{groupNodeClass, kindNodeClass, k.opt.NodeClass},
			TerminationGracePeriod: fmt.Sprintf("%ds", int64(k.opt.TerminationGracePeriod/time.Second)), ExpireAfter: "Never",
		},
	}
	for _, t := range k.opt.StartupTaints {
		c.Spec.StartupTaints = append(c.Spec.StartupTaints, taintFor(t))
	}
	maps.Copy(c.Labels, k.opt.Rules.Labels)
	maps.DeleteFunc(c.Labels, func(key, _ string) bool { return reserved(key) })
	// Karpenter would choose the cheapest, which AWS takes away when it likes.
	if !slices.ContainsFunc(c.Spec.Requirements, func(r Requirement) bool { return r.Key == capacityType }) {
		c.Spec.Requirements = append(slices.Clone(c.Spec.Requirements), Requirement{Key: capacityType, Operator: "In", Values: []string{"on-demand"}})
	}
	return c
}

func taintFor(t runner.Taint) corev1.Taint {
	return corev1.Taint{Key: t.Key, Value: t.Value, Effect: corev1.TaintEffect(t.Effect)}
}

// create asks for one host; with dryRun the API server only says whether it would.
func (k *Karpenter) create(ctx context.Context, c *nodeClaim, dryRun bool) error {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(c)
	if err != nil {
		return fmt.Errorf("write a NodeClaim: %w", err)
	}
	delete(content, "status")
	opts := metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict}
	if dryRun {
		opts.DryRun = []string{metav1.DryRunAll}
	}
	ctx, cancel := k.call(ctx)
	defer cancel()
	_, err = k.api.Resource(nodeClaims).Create(ctx, &unstructured.Unstructured{Object: content}, opts)
	return because(ctx, err)
}

// delete asks Karpenter to end the claim's machine. A claim that is gone, or is
// a new one under its name, needs no asking.
func (k *Karpenter) delete(ctx context.Context, c *nodeClaim) error {
	return k.deleteIf(ctx, c, metav1.Preconditions{UID: &c.UID})
}

// deleteAsSeen deletes the claim only if it is as it was read: it may have become
// a node since, and that a host of somebody's job.
func (k *Karpenter) deleteAsSeen(ctx context.Context, c *nodeClaim) error {
	return k.deleteIf(ctx, c, metav1.Preconditions{UID: &c.UID, ResourceVersion: &c.ResourceVersion})
}

func (k *Karpenter) deleteIf(ctx context.Context, c *nodeClaim, still metav1.Preconditions) error {
	ctx, cancel := k.call(ctx)
	defer cancel()
	err := k.api.Resource(nodeClaims).Delete(ctx, c.Name, metav1.DeleteOptions{Preconditions: &still})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return because(ctx, err)
}

// annotate protects the claim, if it still is the one that was read.
func (k *Karpenter) annotate(ctx context.Context, c *nodeClaim) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": c.UID, "annotations": map[string]string{doNotDisrupt: "true", doNotRepair: "true"},
	}})
	if err != nil {
		return fmt.Errorf("write a patch: %w", err)
	}
	ctx, cancel := k.call(ctx)
	defer cancel()
	if _, err = k.api.Resource(nodeClaims).Patch(ctx, c.Name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("annotate NodeClaim %s: %w", c.Name, because(ctx, err))
	}
	return nil
}

// protectNode annotates the node. One that is gone, or runs on another machine,
// is a host that will not serve.
func (k *Karpenter) protectNode(ctx context.Context, name, providerID string) error {
	if name == "" {
		return errors.New("its NodeClaim names no node yet")
	}
	ctx, cancel := k.call(ctx)
	defer cancel()
	api := k.api.Resource(coreNodes)
	node, err := api.Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%w: node %s is gone", supervisor.ErrConflict, name)
	case err != nil:
		return fmt.Errorf("read node %s: %w", name, because(ctx, err))
	}
	if on, _, _ := unstructured.NestedString(node.Object, "spec", "providerID"); on != providerID {
		return fmt.Errorf("%w: node %s runs on %.100s", supervisor.ErrConflict, name, on)
	}
	annotations := node.GetAnnotations()
	if protected(annotations) {
		return nil
	}
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[doNotDisrupt], annotations[doNotRepair] = "true", "true"
	node.SetAnnotations(annotations)
	// The resource version that was read guards it; a conflict is tried again.
	if _, err := api.Update(ctx, node, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("annotate node %s: %w", name, because(ctx, err))
	}
	return nil
}
