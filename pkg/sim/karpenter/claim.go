package simkarpenter

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// claim is a NodeClaim, or another object with conditions, while it is looked at.
type claim struct {
	obj     *unstructured.Unstructured
	changed bool // the status
}

func (n *claim) text(path ...string) string {
	s, _, _ := unstructured.NestedString(n.obj.Object, path...)
	return s
}

func (n *claim) put(value any, path ...string) {
	n.changed = true
	_ = unstructured.SetNestedField(n.obj.Object, value, path...) // only a path through a list can fail
}

func (n *claim) instance() string {
	id := n.text("status", "providerID")
	return id[strings.LastIndexByte(id, '/')+1:]
}

func (n *claim) conditions() []any {
	list, _, _ := unstructured.NestedSlice(n.obj.Object, "status", "conditions")
	return list
}

// condition is nil when there is none of this type.
func (n *claim) condition(kind string) map[string]any {
	for _, c := range n.conditions() {
		if c, ok := c.(map[string]any); ok && c["type"] == kind {
			return c
		}
	}
	return nil
}

func (n *claim) status(kind string) string {
	s, _ := n.condition(kind)["status"].(string)
	return s
}

// since is how long the condition has been what it is, 0 when there is none.
func (n *claim) since(kind string) time.Duration {
	text, _ := n.condition(kind)["lastTransitionTime"].(string)
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return 0
	}
	return time.Since(at)
}

// set changes a condition. The time moves with the status alone
// (github.com/awslabs/operatorpkg, status/condition_set.go).
func (n *claim) set(kind, status, reason, message string) {
	was := n.condition(kind)
	if was != nil && was["status"] == status && was["reason"] == reason && was["message"] == message {
		return
	}
	at, _ := was["lastTransitionTime"].(string)
	if was == nil || was["status"] != status {
		at = time.Now().UTC().Truncate(time.Second).Format(time.RFC3339)
	}
	if reason == "" {
		reason = kind
	}
	next := map[string]any{
		"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": at,
		"observedGeneration": n.obj.GetGeneration(),
	}
	list := []any{}
	for _, c := range n.conditions() {
		if c, ok := c.(map[string]any); ok && c["type"] != kind {
			list = append(list, c)
		}
	}
	n.put(append(list, next), "status", "conditions")
}

func (n *claim) taints(field string) []corev1.Taint {
	list, _, _ := unstructured.NestedSlice(n.obj.Object, "spec", field)
	var out []corev1.Taint
	for _, t := range list {
		t, _ := t.(map[string]any)
		key, _ := t["key"].(string)
		value, _ := t["value"].(string)
		effect, _ := t["effect"].(string)
		out = append(out, corev1.Taint{Key: key, Value: value, Effect: corev1.TaintEffect(effect)})
	}
	return out
}
