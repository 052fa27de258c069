package cluster

import (
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// memorySize bounds what is remembered of pods and nodes that were; far more
// runners than a pool has at once.
const memorySize = 1024

// memory keeps a UID for each of the names that were last given to it. Names
// of runners are never used twice. It is safe for concurrent use.
type memory[K ~string] struct {
	mu    sync.Mutex
	uids  map[K]string
	order []K
}

func (m *memory[K]) keep(name K, uid string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.uids == nil {
		m.uids = map[K]string{}
	}
	if _, known := m.uids[name]; !known {
		if len(m.order) == memorySize {
			delete(m.uids, m.order[0])
			m.order = m.order[1:]
		}
		m.order = append(m.order, name)
	}
	m.uids[name] = uid
}

// of is the UID last kept under the name, empty when it is not remembered.
func (m *memory[K]) of(name K) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.uids[name]
}

// strip leaves of a pod or node what nodeOf, podOf, same and mark read. A node
// lists all its images, and every object who manages which field.
func strip(obj any) (any, error) {
	switch o := obj.(type) {
	case *corev1.Node:
		kept := &corev1.Node{
			ObjectMeta: metaOf(&o.ObjectMeta, ClaimedBy),
			Spec:       corev1.NodeSpec{ProviderID: o.Spec.ProviderID, Unschedulable: o.Spec.Unschedulable, Taints: o.Spec.Taints},
			Status: corev1.NodeStatus{Addresses: o.Status.Addresses, NodeInfo: corev1.NodeSystemInfo{
				BootID: o.Status.NodeInfo.BootID, MachineID: o.Status.NodeInfo.MachineID,
				OSImage: o.Status.NodeInfo.OSImage, KubeletVersion: o.Status.NodeInfo.KubeletVersion,
			}},
		}
		for _, cond := range o.Status.Conditions {
			if cond.Type == corev1.NodeReady {
				// Without the heartbeat's time, which is no change.
				kept.Status.Conditions = append(kept.Status.Conditions, corev1.NodeCondition{Type: cond.Type, Status: cond.Status})
			}
		}
		return kept, nil
	case *corev1.Pod:
		kept := &corev1.Pod{
			ObjectMeta: metaOf(&o.ObjectMeta, AnnotationAuthorized),
			Spec:       corev1.PodSpec{NodeName: o.Spec.NodeName},
			Status: corev1.PodStatus{
				Phase: o.Status.Phase, Reason: o.Status.Reason,
				ContainerStatuses: statesOf(o.Status.ContainerStatuses), InitContainerStatuses: statesOf(o.Status.InitContainerStatuses),
			},
		}
		for _, cond := range o.Status.Conditions {
			if cond.Type == corev1.DisruptionTarget {
				kept.Status.Conditions = append(kept.Status.Conditions, corev1.PodCondition{Type: cond.Type, Status: cond.Status, Reason: cond.Reason})
			}
		}
		return kept, nil
	}
	// The last known state of something deleted was stripped when it came.
	return obj, nil
}

func metaOf(m *metav1.ObjectMeta, annotation string) metav1.ObjectMeta {
	kept := metav1.ObjectMeta{
		Name: m.Name, Namespace: m.Namespace, UID: m.UID, ResourceVersion: m.ResourceVersion, Labels: m.Labels,
		CreationTimestamp: m.CreationTimestamp, DeletionTimestamp: m.DeletionTimestamp,
	}
	if value, ok := m.Annotations[annotation]; ok {
		kept.Annotations = map[string]string{annotation: value}
	}
	return kept
}

func statesOf(list []corev1.ContainerStatus) []corev1.ContainerStatus {
	var kept []corev1.ContainerStatus
	for _, s := range list {
		out := corev1.ContainerStatus{Name: s.Name}
		if t := s.State.Terminated; t != nil {
			out.State.Terminated = &corev1.ContainerStateTerminated{ExitCode: t.ExitCode, Reason: t.Reason}
		}
		if w := s.State.Waiting; w != nil {
			out.State.Waiting = &corev1.ContainerStateWaiting{Reason: w.Reason}
		}
		kept = append(kept, out)
	}
	return kept
}
