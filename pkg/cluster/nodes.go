package cluster

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// pageSize bounds one list answer.
const pageSize = 500

// Nodes are the nodes that carry the pool's labels, by name: from the copy when
// it may be believed, else from the API server. A node in the copy may have
// ended or been taken a moment ago; whoever claims it finds out.
func (c *Cluster) Nodes(ctx context.Context) ([]runner.Node, error) {
	if c.nodes.fresh() != nil {
		return c.NodesNow(ctx)
	}
	var nodes []runner.Node
	for _, obj := range c.nodes.informer.GetStore().List() {
		if n, ok := obj.(*corev1.Node); ok {
			nodes = append(nodes, nodeOf(n))
		}
	}
	slices.SortFunc(nodes, func(a, b runner.Node) int { return strings.Compare(a.Name, b.Name) })
	return nodes, nil
}

// NodesNow are the nodes that carry the pool's labels, as the API server has them.
func (c *Cluster) NodesNow(ctx context.Context) ([]runner.Node, error) {
	opts := metav1.ListOptions{LabelSelector: c.nodeSelector(), Limit: pageSize}
	var nodes []runner.Node
	for {
		list, err := c.client.CoreV1().Nodes().List(ctx, opts)
		if err != nil {
			return nil, fmt.Errorf("list the pool's nodes: %w", err)
		}
		for i := range list.Items {
			nodes = append(nodes, nodeOf(&list.Items[i]))
		}
		if list.Continue == "" {
			return nodes, nil
		}
		opts.Continue = list.Continue
	}
}

// NodeNow is the node of this name, as the API server has it, whatever its
// labels; false says that there is none.
func (c *Cluster) NodeNow(ctx context.Context, name string) (runner.Node, bool, error) {
	node, err := c.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return runner.Node{}, false, nil
	case err != nil:
		return runner.Node{}, false, fmt.Errorf("read node %s: %w", name, err)
	}
	return nodeOf(node), true, nil
}

func (c *Cluster) nodeSelector() string { return labels.Set(c.opts.NodeLabels).String() }

func nodeOf(n *corev1.Node) runner.Node {
	node := runner.Node{
		Name: n.Name, UID: string(n.UID),
		BootID: n.Status.NodeInfo.BootID, MachineID: n.Status.NodeInfo.MachineID,
		ProviderID: n.Spec.ProviderID,
		OSImage:    n.Status.NodeInfo.OSImage, KubeletVersion: n.Status.NodeInfo.KubeletVersion,
		Labels:    maps.Clone(n.Labels),
		Cordoned:  n.Spec.Unschedulable,
		ClaimedBy: claimedBy(n),
		CreatedAt: n.CreationTimestamp.Time,
	}
	for _, a := range n.Status.Addresses {
		// Dual-stack nodes list one address per family, the primary first.
		if a.Type == corev1.NodeInternalIP && node.InternalIP == "" {
			node.InternalIP = a.Address
		}
	}
	for _, t := range n.Spec.Taints {
		node.Taints = append(node.Taints, runner.Taint{Key: t.Key, Value: t.Value, Effect: string(t.Effect)})
	}
	for _, cond := range n.Status.Conditions {
		if cond.Type == corev1.NodeReady {
			node.Ready = cond.Status == corev1.ConditionTrue
		}
	}
	// A node that is being deleted takes nobody any more. It may be for long, while
	// it is drained, and its kubelet speaks on.
	if n.DeletionTimestamp != nil {
		node.Cordoned = true
	}
	return node
}

// claimedBy is the runner that the node was claimed for. The taint counts as
// much as the annotation: losing one of them must not free the node.
func claimedBy(n *corev1.Node) runner.Name {
	if name := n.Annotations[ClaimedBy]; name != "" {
		return runner.Name(name)
	}
	for _, t := range n.Spec.Taints {
		if t.Key == ClaimedTaint {
			return runner.Name(t.Value)
		}
	}
	return ""
}

func claimTaint(name runner.Name) corev1.Taint {
	return corev1.Taint{Key: ClaimedTaint, Value: string(name), Effect: corev1.TaintEffectNoSchedule}
}

// claimAttempts bounds how often one ClaimNode reads the node again. Kubelets
// and controllers write to nodes too; that alone must not cost a host.
const claimAttempts = 3

// ClaimNode cordons, taints and annotates the node in one update that is
// guarded by the resource version just read. A node that is gone or going, was
// booted anew, or is a new one under the old name, is a conflict: the host of the
// record is no more.
// When the update loses to another writer the node is read again: only a claim
// for another runner is a conflict, a heartbeat is not. The copy of the nodes
// never decides it: it only spares a claim that was made here already from being
// read again while the copy shows all its marks.
func (c *Cluster) ClaimNode(ctx context.Context, host runner.Host, name runner.Name) error {
	if c.claimStands(host, name) {
		return nil
	}
	var err error
	for range claimAttempts {
		if err = c.claim(ctx, host, name); !apierrors.IsConflict(err) {
			break
		}
	}
	if err == nil {
		c.claims.keep(name, host.NodeUID)
	}
	return err
}

func (c *Cluster) claimStands(host runner.Host, name runner.Name) bool {
	if c.claims.of(name) != host.NodeUID || c.nodes.fresh() != nil {
		return false
	}
	node, ok := c.cachedNode(host.NodeName)
	return ok && still(node, host) == nil && !mark(node.DeepCopy(), name)
}

// still says why the node is not the host of the record any more, nil when it is.
func still(node *corev1.Node, host runner.Host) error {
	switch boot := node.Status.NodeInfo.BootID; {
	case string(node.UID) != host.NodeUID:
		return fmt.Errorf("%w: node %s has uid %s, want %s", supervisor.ErrConflict, host.NodeName, node.UID, host.NodeUID)
	case boot != host.BootID:
		return fmt.Errorf("%w: node %s was booted anew: its boot id is %.64q, want %q", supervisor.ErrConflict, host.NodeName, boot, host.BootID)
	case node.DeletionTimestamp != nil:
		return fmt.Errorf("%w: node %s is being deleted", supervisor.ErrConflict, host.NodeName)
	}
	return nil
}

func (c *Cluster) cachedNode(name string) (*corev1.Node, bool) {
	obj, _, err := c.nodes.informer.GetStore().GetByKey(name)
	node, ok := obj.(*corev1.Node)
	return node, ok && err == nil
}

func (c *Cluster) claim(ctx context.Context, host runner.Host, name runner.Name) error {
	node, err := c.client.CoreV1().Nodes().Get(ctx, host.NodeName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%w: node %s is gone", supervisor.ErrConflict, host.NodeName)
	case err != nil:
		return fmt.Errorf("read node %s: %w", host.NodeName, err)
	}
	if err := still(node, host); err != nil {
		return err
	}
	if by := claimedBy(node); by != "" && by != name {
		return fmt.Errorf("%w: node %s was claimed for %s", supervisor.ErrConflict, host.NodeName, by)
	}
	if !mark(node, name) {
		return nil
	}
	updated, err := c.client.CoreV1().Nodes().Update(ctx, node, metav1.UpdateOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%w: node %s is gone", supervisor.ErrConflict, host.NodeName)
	case err != nil:
		return fmt.Errorf("claim node %s: %w", host.NodeName, err)
	}
	// Until the copy shows the claim the nodes are listed.
	c.nodes.owe(updated.ResourceVersion)
	return nil
}

// mark puts every sign of the claim on the node and says whether one was missing.
func mark(node *corev1.Node, name runner.Name) bool {
	missing := !node.Spec.Unschedulable || node.Annotations[ClaimedBy] != string(name)
	node.Spec.Unschedulable = true
	if node.Annotations == nil {
		node.Annotations = map[string]string{}
	}
	node.Annotations[ClaimedBy] = string(name)
	want := claimTaint(name)
	for _, t := range node.Spec.Taints {
		if t.Key == want.Key && t.Value == want.Value && t.Effect == want.Effect {
			return missing
		}
	}
	node.Spec.Taints = append(node.Spec.Taints, want)
	return true
}

// releaseAfter is how long whoever put a finalizer on a node may take to remove
// it once the node is being deleted.
const releaseAfter = time.Minute

// DeleteNode deletes the node object if it still has this UID. It is called once
// the node's machine is gone. A finalizer of Options.NodeFinalizers has nothing
// left to wait for then: it is removed if nobody does, because its controller may
// be down.
func (c *Cluster) DeleteNode(ctx context.Context, name, uid string) error {
	err := c.client.CoreV1().Nodes().Delete(ctx, name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: new(types.UID(uid))},
	})
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case apierrors.IsConflict(err):
		// The precondition failed: the node of this UID is gone already.
		return nil
	case err != nil:
		return fmt.Errorf("delete node %s: %w", name, err)
	case len(c.opts.NodeFinalizers) > 0:
		return c.releaseNode(ctx, name, uid)
	}
	return nil
}

func (c *Cluster) releaseNode(ctx context.Context, name, uid string) error {
	node, err := c.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("read node %s: %w", name, err)
	case string(node.UID) != uid || node.DeletionTimestamp == nil || time.Since(node.DeletionTimestamp.Time) < releaseAfter:
		return nil
	}
	rest := slices.DeleteFunc(slices.Clone(node.Finalizers), func(f string) bool { return slices.Contains(c.opts.NodeFinalizers, f) })
	if len(rest) == len(node.Finalizers) {
		return nil
	}
	node.Finalizers = rest
	// The resource version that was read guards it.
	if _, err := c.client.CoreV1().Nodes().Update(ctx, node, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("release node %s: %w", name, err)
	}
	return nil
}

// NodeGone says whether no node of this name and UID exists. It is evidence, and
// always asks the API server.
func (c *Cluster) NodeGone(ctx context.Context, name, uid string) (bool, error) {
	node, there, err := c.NodeNow(ctx, name)
	if err != nil {
		return false, err
	}
	return !there || node.UID != uid, nil
}
