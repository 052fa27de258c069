package simcluster

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// AddDaemonPod puts a running pod of a DaemonSet with hostNetwork on the node,
// as the DaemonSet controller does in a namespace that allows privileged pods.
// The cluster's own namespace does not: restricted and even baseline Pod
// Security refuse hostNetwork.
// https://kubernetes.io/docs/concepts/security/pod-security-standards/#baseline
//
// Nothing runs in it: whoever acts for it mints its token with [Cluster.Mint].
// It goes with its node.
func (c *Cluster) AddDaemonPod(namespace, account, node string) (*corev1.Pod, error) {
	if namespace == c.opts.Namespace {
		return nil, fmt.Errorf(`add a daemon pod: violates PodSecurity "restricted:latest": host namespaces (hostNetwork=true)`)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.objects["nodes"][key("", node)]; !ok {
		return nil, fmt.Errorf("add a daemon pod: node %s does not exist", node)
	}
	uid := c.newUID()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: account + "-" + string(uid[:5]), UID: uid, CreationTimestamp: metav1.Now(),
		},
		Spec:   corev1.PodSpec{NodeName: node, ServiceAccountName: account, HostNetwork: true},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
	c.put("pods", pod)
	c.notify()
	return pod.DeepCopy(), nil
}
