package simcluster

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Reasons of the condition DisruptionTarget.
// https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions
const (
	PreemptionByScheduler  = "PreemptionByScheduler"
	DeletionByTaintManager = "DeletionByTaintManager"
	EvictionByEvictionAPI  = "EvictionByEvictionAPI"
	TerminationByKubelet   = "TerminationByKubelet"
)

const (
	// notReadyAfter is how long a kubelet may be silent before its node shows
	// it: --node-monitor-grace-period of kube-controller-manager, 50 s since 1.32.
	notReadyAfter = 50 * time.Second
	// takenAfter is how long pods tolerate a node that does not answer, by the
	// DefaultTolerationSeconds admission plugin; see defaults.
	takenAfter = 300 * time.Second
	// firstBackOff and maxBackOff bound the wait between two pulls of an image
	// (pkg/kubelet/kubelet.go, imageBackOffPeriod and MaxImageBackOff).
	firstBackOff, maxBackOff = 10 * time.Second, 300 * time.Second
)

// troubles are what goes wrong with pods and nodes. The cluster's lock guards it.
type troubles struct {
	pulls    map[string]string // image: the kubelet's reason for not having it
	fates    map[types.UID]fate
	silent   map[types.UID]bool     // nodes whose kubelet cannot be heard
	silences []types.NamespacedName // those of which nobody has noticed yet; Namespace holds the UID
}

func newTroubles() troubles {
	return troubles{pulls: map[string]string{}, fates: map[types.UID]fate{}, silent: map[types.UID]bool{}}
}

// fate is how a pod's container ends, whatever it was doing.
type fate struct {
	code              int
	reason, condition string
}

// FailPull makes containers with this image wait for it for this reason, such
// as ErrImagePull, InvalidImageName or CreateContainerConfigError, until
// [Cluster.MendPull]. Pods that run go on.
func (c *Cluster) FailPull(image, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trouble.pulls[image] = reason
}

// MendPull makes the image available. Pods that wait start with their next try.
func (c *Cluster) MendPull(image string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.trouble.pulls, image)
}

// EndContainer ends the first process of a pod's container now, with this exit
// code or [OOMKilled]. It says whether the pod has a kubelet that does so.
func (c *Cluster) EndContainer(pod string, code int) bool {
	return c.doom(pod, fate{code: code})
}

// Evict is the kubelet under pressure: the pod is killed at once and its object
// stays, failed (pkg/kubelet/eviction/eviction_manager.go).
func (c *Cluster) Evict(pod string) bool {
	return c.doom(pod, fate{code: 137, reason: "Evicted", condition: TerminationByKubelet})
}

func (c *Cluster) doom(name string, f fate) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	obj, ok := c.objects["pods"][key(c.opts.Namespace, name)]
	if !ok || c.changed[accessor(obj).GetUID()] == nil {
		return false
	}
	c.trouble.fates[accessor(obj).GetUID()] = f
	c.notify()
	return true
}

// Disrupt is a part of the control plane that takes a pod away: it says why in
// the condition DisruptionTarget and deletes the pod with the pod's own grace
// (pkg/registry/core/pod/storage/eviction.go, pkg/controller/tainteviction,
// pkg/scheduler/framework/preemption).
func (c *Cluster) Disrupt(pod, reason string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	obj, ok := c.objects["pods"][key(c.opts.Namespace, pod)]
	if !ok {
		return false
	}
	c.disrupt(obj.(*corev1.Pod), reason)
	c.notify()
	return true
}

func (c *Cluster) disrupt(pod *corev1.Pod, reason string) {
	pod = pod.DeepCopy()
	pod.Status.Conditions = append(pod.Status.Conditions, disruptionTarget(reason))
	c.put("pods", pod)
	if marked, still := terminating(pod, nil); still {
		c.put("pods", marked)
		return
	}
	c.erase(pod)
}

func disruptionTarget(reason string) corev1.PodCondition {
	return corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: reason, LastTransitionTime: metav1.Now()}
}

// SilenceNode cuts a node's kubelet off from the API server for good, and from
// nothing else: its containers run on, unseen, and no deletion reaches them.
// While [Cluster.Run] runs, the node shows as not ready after a while, and later
// its pods are taken away as far as the API server can (pkg/controller/nodelifecycle
// and tainteviction; with kube-controller-manager 1.37.2 the node was Unknown
// after 52 s, and its pods bore the condition and a deletion time). The real one
// takes no pods while all nodes of a zone are silent; here it always does.
// It says whether there is such a node.
func (c *Cluster) SilenceNode(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	obj, ok := c.objects["nodes"][key("", name)]
	if !ok {
		return false
	}
	uid := accessor(obj).GetUID()
	c.trouble.silent[uid] = true
	c.trouble.silences = append(c.trouble.silences, types.NamespacedName{Namespace: string(uid), Name: name})
	c.notify()
	return true
}

// missNode is the node lifecycle controller, which has not heard of the node.
func (c *Cluster) missNode(lost types.NamespacedName) {
	obj, ok := c.objects["nodes"][key("", lost.Name)]
	if !ok || string(accessor(obj).GetUID()) != lost.Namespace {
		return
	}
	node := obj.(*corev1.Node).DeepCopy()
	for i := range node.Status.Conditions {
		if node.Status.Conditions[i].Type == corev1.NodeReady {
			node.Status.Conditions[i].Status, node.Status.Conditions[i].Reason = corev1.ConditionUnknown, "NodeStatusUnknown"
		}
	}
	c.put("nodes", node)
}

// takePods is the taint manager, when the pods' toleration is over.
func (c *Cluster) takePods(lost types.NamespacedName) {
	for _, obj := range c.objects["pods"] {
		pod := obj.(*corev1.Pod)
		if pod.Namespace == c.opts.Namespace && pod.Spec.NodeName == lost.Name && pod.DeletionTimestamp == nil && !terminal(pod) {
			c.disrupt(pod, DeletionByTaintManager)
		}
	}
}

// fate is what the kubelet is to do to the pod's container, if anything.
func (w *worker) fate() (fate, bool) {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	f, doomed := w.c.trouble.fates[w.pod.UID]
	return f, doomed
}

// pull waits for the images of the pod's containers, init containers first, and
// shows meanwhile what a kubelet shows: the failure, then that it is waiting
// longer and longer before the next try. False says that the pod or its kubelet
// has gone.
func (w *worker) pull(ctx context.Context) bool {
	for backOff := firstBackOff; ; backOff = min(2*backOff, maxBackOff) {
		reason := w.tryPull()
		if reason == "" {
			return true
		}
		if !w.idle(ctx, time.Second) {
			return false
		}
		if reason == "ErrImagePull" {
			w.showWaiting("ImagePullBackOff")
		}
		if !w.idle(ctx, backOff) {
			return false
		}
	}
}

// tryPull shows the first container whose image cannot be had, and returns why.
func (w *worker) tryPull() string {
	w.c.mu.Lock()
	reason := ""
	for _, ct := range allContainers(w.pod) {
		if reason = w.c.trouble.pulls[ct.Image]; reason != "" {
			break
		}
	}
	w.c.mu.Unlock()
	if reason != "" {
		w.showWaiting(reason)
	}
	return reason
}

// showWaiting reports the first container without its image as waiting for this
// reason. The main container is initializing while an init container waits
// (pkg/kubelet/kubelet_pods.go, convertToAPIContainerStatuses).
func (w *worker) showWaiting(reason string) {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	status := func(name, reason string) corev1.ContainerStatus {
		return corev1.ContainerStatus{Name: name, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}}
	}
	main := w.pod.Spec.Containers[0]
	w.setStatus(func(st *corev1.PodStatus) {
		st.InitContainerStatuses, st.ContainerStatuses = nil, nil
		for _, ct := range w.pod.Spec.InitContainers {
			if w.c.trouble.pulls[ct.Image] != "" {
				st.InitContainerStatuses = []corev1.ContainerStatus{status(ct.Name, reason)}
				st.ContainerStatuses = []corev1.ContainerStatus{status(main.Name, "PodInitializing")}
				return
			}
		}
		st.ContainerStatuses = []corev1.ContainerStatus{status(main.Name, reason)}
	})
}

// idle waits, with nothing running, unless the pod goes: a deletion has nothing
// to wait for then.
func (w *worker) idle(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case <-w.changed:
			alive, grace := w.look()
			if alive && grace == nil {
				continue
			}
			if alive {
				w.c.mu.Lock()
				w.c.erase(w.pod)
				w.c.notify()
				w.c.mu.Unlock()
			}
			return false
		}
	}
}
