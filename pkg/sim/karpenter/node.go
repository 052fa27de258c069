package simkarpenter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// nodeOf is the node on the claim's machine, nil when there is none.
func (c *Controller) nodeOf(ctx context.Context, n *claim) (*corev1.Node, error) {
	list, err := c.core.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for i, node := range list.Items {
		if id := n.text("status", "providerID"); id != "" && node.Spec.ProviderID == id {
			return &list.Items[i], nil
		}
	}
	return nil, nil
}

func isReady(node *corev1.Node) bool {
	return slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// register is core, nodeclaim/lifecycle/registration.go: the node gets the claim's
// labels, annotations and taints, the finalizer and an owner, and loses the taint
// with which it joined.
func (c *Controller) register(ctx context.Context, n *claim) error {
	if n.status("Launched") != "True" || n.status("Registered") == "True" {
		return nil
	}
	node, err := c.nodeOf(ctx, n)
	if err != nil {
		return err
	}
	if node == nil {
		n.set("Registered", "Unknown", "NodeNotFound", "Node not registered with cluster")
		return nil
	}
	if !slices.Contains(node.Finalizers, Finalizer) {
		node.Finalizers = append(node.Finalizers, Finalizer)
	}
	node.OwnerReferences = []metav1.OwnerReference{{
		APIVersion: "karpenter.sh/v1", Kind: "NodeClaim", Name: n.obj.GetName(), UID: n.obj.GetUID(), BlockOwnerDeletion: new(true),
	}}
	node.Spec.Taints = slices.DeleteFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == TaintUnregistered })
	for _, t := range append(n.taints("taints"), n.taints("startupTaints")...) {
		if !slices.ContainsFunc(node.Spec.Taints, func(has corev1.Taint) bool { return has.MatchTaint(&t) }) {
			node.Spec.Taints = append(node.Spec.Taints, t)
		}
	}
	node.Annotations = with(node.Annotations, n.obj.GetAnnotations())
	node.Labels = with(node.Labels, n.obj.GetLabels())
	node.Labels[labelRegistered] = "true"
	if _, err := c.core.CoreV1().Nodes().Update(ctx, node, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("register node %s: %w", node.Name, err)
	}
	n.put(node.Name, "status", "nodeName")
	n.set("Registered", "True", "", "")
	return nil
}

func with(have, more map[string]string) map[string]string {
	out := map[string]string{}
	maps.Copy(out, have)
	maps.Copy(out, more)
	return out
}

// initialize is core, nodeclaim/lifecycle/initialization.go.
func (c *Controller) initialize(ctx context.Context, n *claim) error {
	if n.status("Registered") != "True" || n.status("Initialized") == "True" {
		return nil
	}
	node, err := c.nodeOf(ctx, n)
	startup := n.taints("startupTaints")
	switch {
	case err != nil:
		return err
	case node == nil:
		n.set("Initialized", "Unknown", "NodeNotFound", "Node not registered with cluster")
	case !isReady(node):
		n.set("Initialized", "Unknown", "NodeNotReady", "Node status is NotReady")
	case slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool {
		return slices.ContainsFunc(startup, func(s corev1.Taint) bool { return s.MatchTaint(&t) })
	}):
		n.set("Initialized", "Unknown", "StartupTaintsExist", "a StartupTaint still exists")
	default:
		node.Labels[labelInitialized] = "true"
		if _, err := c.core.CoreV1().Nodes().Update(ctx, node, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("initialize node %s: %w", node.Name, err)
		}
		n.set("Initialized", "True", "", "")
	}
	return nil
}

// finalize is core, nodeclaim/lifecycle/controller.go, finalize: the nodes first,
// then the machine, then the finalizer, once EC2 no longer lists the machine.
func (c *Controller) finalize(ctx context.Context, n *claim) error {
	if !slices.Contains(n.obj.GetFinalizers(), Finalizer) {
		return nil
	}
	grace, err := time.ParseDuration(n.text("spec", "terminationGracePeriod"))
	if at := n.obj.GetAnnotations()[terminationTime]; err == nil && at == "" {
		return c.patch(ctx, n, "", map[string]any{"metadata": map[string]any{"annotations": map[string]any{
			terminationTime: n.obj.GetDeletionTimestamp().Add(grace).UTC().Format(time.RFC3339),
		}}})
	}
	if n.status("Registered") == "True" {
		node, err := c.nodeOf(ctx, n)
		if err != nil {
			return err
		}
		if node != nil {
			if node.DeletionTimestamp == nil {
				return c.core.CoreV1().Nodes().Delete(ctx, node.Name, metav1.DeleteOptions{})
			}
			return nil // until drainNodes has let it go
		}
	}
	if m, there := c.machine(n.text("status", "providerID")); there {
		return c.terminate(ctx, n, m)
	}
	rest := slices.DeleteFunc(n.obj.GetFinalizers(), func(f string) bool { return f == Finalizer })
	return c.patch(ctx, n, "", map[string]any{"metadata": map[string]any{"resourceVersion": n.obj.GetResourceVersion(), "finalizers": rest}})
}

// terminate is aws, providers/instance/instance.go, Delete.
func (c *Controller) terminate(ctx context.Context, n *claim, m Machine) error {
	n.set("InstanceTerminating", "True", "", "")
	err := c.saveStatus(ctx, n)
	if !m.Ending {
		err = errors.Join(err, c.cloud.Terminate(m.ID))
	}
	return err
}

// drainNodes is core, node/termination/controller.go: a node that is being deleted
// is tainted, drained, and its machine ended before its finalizer goes. Deleting
// the node deletes its claim.
func (c *Controller) drainNodes(ctx context.Context) error {
	nodes, err := c.core.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	list, err := c.claims.List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	var problems []error
	for i := range nodes.Items {
		node := &nodes.Items[i]
		if node.DeletionTimestamp == nil || !slices.Contains(node.Finalizers, Finalizer) {
			continue
		}
		var of *claim
		for j := range list.Items {
			if n := (&claim{obj: &list.Items[j]}); n.text("status", "providerID") == node.Spec.ProviderID {
				of = n
			}
		}
		problems = append(problems, c.drainNode(ctx, node, of))
	}
	return errors.Join(problems...)
}

func (c *Controller) drainNode(ctx context.Context, node *corev1.Node, n *claim) error {
	if n != nil && n.obj.GetDeletionTimestamp() == nil {
		if err := c.end(ctx, n); err != nil {
			return err
		}
	}
	m, there := c.machine(node.Spec.ProviderID)
	if !isReady(node) && !there {
		return c.release(ctx, node)
	}
	if !slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == taintDisrupted }) {
		node.Spec.Taints = append(node.Spec.Taints, corev1.Taint{Key: taintDisrupted, Effect: corev1.TaintEffectNoSchedule})
		_, err := c.core.CoreV1().Nodes().Update(ctx, node, metav1.UpdateOptions{})
		return err
	}
	var deadline time.Time
	if n != nil {
		deadline, _ = time.Parse(time.RFC3339, n.obj.GetAnnotations()[terminationTime])
	}
	if waiting, err := c.evict(ctx, node, deadline); err != nil || waiting {
		return err
	}
	if n == nil {
		return c.release(ctx, node)
	}
	if n.status("Drained") != "True" {
		if n.set("Drained", "Unknown", "Draining", "Draining"); n.since("Drained") >= minDrainTime {
			n.set("Drained", "True", "", "")
		}
		return c.saveStatus(ctx, n)
	}
	if there {
		return c.terminate(ctx, n, m)
	}
	return c.release(ctx, node)
}

// evict is core, node/termination/terminator/terminator.go, Drain: pods that may
// not be disrupted, or are protected by a budget, are waited for until the
// deadline less the time that they are to have. No pods here have a budget.
func (c *Controller) evict(ctx context.Context, node *corev1.Node, deadline time.Time) (waiting bool, err error) {
	pods, err := c.core.CoreV1().Pods(c.opt.Namespace).List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + node.Name})
	if err != nil {
		return false, err
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		over := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
		tolerates := slices.ContainsFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool {
			return (t.Key == "" || t.Key == taintDisrupted) && t.Operator == corev1.TolerationOpExists
		})
		if over || tolerates {
			continue
		}
		waiting = true
		grace := time.Duration(*pod.Spec.TerminationGracePeriodSeconds) * time.Second
		forced := !deadline.IsZero() && time.Now().After(deadline.Add(-grace))
		if pod.DeletionTimestamp == nil && (forced || pod.Annotations[doNotDisrupt] != "true") {
			err = errors.Join(err, c.core.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{}))
		}
	}
	return waiting, err
}

func (c *Controller) release(ctx context.Context, node *corev1.Node) error {
	node.Finalizers = slices.DeleteFunc(node.Finalizers, func(f string) bool { return f == Finalizer })
	_, err := c.core.CoreV1().Nodes().Update(ctx, node, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
