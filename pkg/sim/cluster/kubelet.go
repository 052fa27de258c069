package simcluster

import (
	"context"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// OOMKilled as a container's answer says that the kernel killed it for its
// memory: the pod shows exit code 137 and the reason OOMKilled.
const OOMKilled = -137

// ContainerFunc runs as a pod's main container. It ends soon after its context
// does (SIGKILL), and may end on its own after Stop closed (SIGTERM). The
// result is the exit code, or [OOMKilled].
type ContainerFunc func(ctx context.Context, ct Container) (exitCode int)

// Container is what a pod's main container sees.
type Container struct {
	Pod *corev1.Pod
	Env map[string]string
	// Files are the contents of mounted ConfigMap keys and first tokens by path.
	Files map[string]string
	// Token reads a projected token. It is renewed at 80 % of its life, as
	// the kubelet does.
	Token func(path string) (string, error)
	// Stop closes when the kubelet sends SIGTERM.
	Stop <-chan struct{}
}

// Run is the kubelets of all nodes and the controllers that remove lost nodes
// and orphaned pods. It returns the context's cause after every container has
// ended; containers of live pods are killed then. One Run at a time.
func (c *Cluster) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	signal(c.wake)
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.wake:
			c.sync(ctx, &wg)
		}
	}
}

// sync starts what the state asks for and nobody does yet.
func (c *Cluster) sync(ctx context.Context, wg *sync.WaitGroup) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, loss := range c.losses {
		wg.Go(func() { c.later(ctx, c.opts.NodeLoss, func() { c.dropNode(loss) }) })
	}
	c.losses = nil
	for _, lost := range c.trouble.silences {
		wg.Go(func() { c.later(ctx, notReadyAfter, func() { c.missNode(lost) }) })
		wg.Go(func() { c.later(ctx, notReadyAfter+takenAfter, func() { c.takePods(lost) }) })
	}
	c.trouble.silences = nil
	for _, obj := range c.objects["pods"] {
		pod := obj.(*corev1.Pod)
		node, ok := c.objects["nodes"][key("", pod.Spec.NodeName)]
		switch {
		case pod.Spec.NodeName == "":
		case !ok && !c.orphans[pod.UID]:
			// pkg/controller/podgc deletes pods bound to a node that does not exist.
			c.orphans[pod.UID] = true
			wg.Go(func() { c.later(ctx, c.opts.PodGC, func() { c.collect(pod) }) })
		case pod.Namespace != c.opts.Namespace: // a daemon's, which nobody runs here
		case !ok, c.dead[accessor(node).GetUID()], c.trouble.silent[accessor(node).GetUID()], c.changed[pod.UID] != nil, terminal(pod):
		default:
			changed := make(chan struct{}, 1)
			c.changed[pod.UID] = changed
			w := &worker{c: c, pod: pod.DeepCopy(), node: node.(*corev1.Node).DeepCopy(), changed: changed}
			wg.Go(func() { w.run(ctx) })
		}
	}
}

// later does something under the lock, unless the context ends first.
func (c *Cluster) later(ctx context.Context, d time.Duration, do func()) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
		c.mu.Lock()
		defer c.mu.Unlock()
		do()
		c.notify()
	}
}

func (c *Cluster) dropNode(loss types.NamespacedName) {
	obj, ok := c.objects["nodes"][key("", loss.Name)]
	switch {
	case !ok || string(accessor(obj).GetUID()) != loss.Namespace:
	case len(accessor(obj).GetFinalizers()) > 0:
		c.hold("nodes", obj)
	default:
		c.drop("nodes", key("", loss.Name))
	}
}

// collect removes the pod if it still is an orphan.
func (c *Cluster) collect(pod *corev1.Pod) {
	delete(c.orphans, pod.UID)
	if _, back := c.objects["nodes"][key("", pod.Spec.NodeName)]; back {
		return
	}
	c.erase(pod)
}

func (c *Cluster) erase(pod *corev1.Pod) {
	id := key(pod.Namespace, pod.Name)
	if obj, ok := c.objects["pods"][id]; ok && accessor(obj).GetUID() == pod.UID {
		c.drop("pods", id)
	}
}

// worker is one kubelet's care for one pod.
type worker struct {
	c       *Cluster
	pod     *corev1.Pod
	node    *corev1.Node
	changed chan struct{}
}

func (w *worker) run(ctx context.Context) {
	defer w.forget()
	// A kubelet that comes back finds the containers of its former life dead,
	// and restartPolicy Never keeps them so.
	if w.pod.Status.Phase == corev1.PodRunning {
		w.finish("", 137, "")
		return
	}
	if reason := w.refuse(); reason != "" {
		w.finish(reason, 0, "")
		return
	}
	if !w.pull(ctx) {
		return
	}
	ct, ok := w.prepare(ctx)
	if !ok {
		return
	}
	stop := make(chan struct{})
	ct.Stop = stop
	kill, cancel := context.WithCancel(ctx)
	defer cancel()
	exit := make(chan int, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { exit <- w.container(kill, ct) })
	w.watch(ctx, cancel, stop, exit)
}

func (w *worker) container(ctx context.Context, ct Container) int {
	if w.c.opts.Container == nil {
		return 0
	}
	return w.c.opts.Container(ctx, ct)
}

func (w *worker) forget() {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	delete(w.c.changed, w.pod.UID)
	delete(w.c.trouble.fates, w.pod.UID)
	signal(w.c.wake)
}

// refuse is the kubelet's own admission (pkg/kubelet/lifecycle/predicate.go).
// A pod that is bound by name skips the scheduler, so NoSchedule taints do not
// stop it; NoExecute taints and node affinity do.
func (w *worker) refuse() string {
	spec := w.pod.Spec
	for k, v := range spec.NodeSelector {
		if w.node.Labels[k] != v {
			return "NodeAffinity"
		}
	}
	if a := spec.Affinity; a != nil && a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		terms := a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
		if !slices.ContainsFunc(terms, w.matches) {
			return "NodeAffinity"
		}
	}
	for _, taint := range w.node.Spec.Taints {
		tolerated := slices.ContainsFunc(spec.Tolerations, func(t corev1.Toleration) bool {
			return (t.Key == "" || t.Key == taint.Key) && (t.Effect == "" || t.Effect == taint.Effect) &&
				(t.Operator == corev1.TolerationOpExists || t.Value == taint.Value)
		})
		if taint.Effect == corev1.TaintEffectNoExecute && !tolerated {
			return "TaintToleration"
		}
	}
	return ""
}

// matches knows the operator In, on fields and labels; any other matches nothing.
func (w *worker) matches(term corev1.NodeSelectorTerm) bool {
	for _, r := range term.MatchFields {
		if r.Key != metav1.ObjectNameField || r.Operator != corev1.NodeSelectorOpIn || !slices.Contains(r.Values, w.node.Name) {
			return false
		}
	}
	for _, r := range term.MatchExpressions {
		if r.Operator != corev1.NodeSelectorOpIn || !slices.Contains(r.Values, w.node.Labels[r.Key]) {
			return false
		}
	}
	return len(term.MatchFields)+len(term.MatchExpressions) > 0
}

// watch waits for the container's end and for everything that brings it about.
func (w *worker) watch(ctx context.Context, kill context.CancelFunc, stop chan struct{}, exit <-chan int) {
	var (
		stopping bool
		reason   string
		killAt   time.Time
	)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	if d := w.pod.Spec.ActiveDeadlineSeconds; d != nil {
		timer.Reset(time.Duration(*d) * time.Second)
	} else {
		timer.Stop()
	}
	end := func(grace time.Duration) {
		if at := time.Now().Add(grace); killAt.IsZero() || at.Before(killAt) {
			killAt = at
			timer.Reset(grace)
		}
		if !stopping {
			stopping = true
			close(stop)
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case code := <-exit:
			w.finish(reason, code, "")
			return
		case <-timer.C:
			if stopping {
				kill()
				continue
			}
			reason = "DeadlineExceeded"
			end(time.Duration(*w.pod.Spec.TerminationGracePeriodSeconds) * time.Second)
		case <-w.changed:
			if f, doomed := w.fate(); doomed {
				kill()
				w.finish(f.reason, f.code, f.condition)
				return
			}
			alive, grace := w.look()
			switch {
			case !alive:
				kill()
			case grace != nil:
				end(time.Duration(*grace) * time.Second)
			}
		}
	}
}

// look says whether the pod and its instance are still there, and the grace
// once the pod is being deleted. A kubelet that is cut off sees neither the
// deletion nor that the pod is gone.
func (w *worker) look() (alive bool, grace *int64) {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	obj, ok := w.c.objects["pods"][key(w.pod.Namespace, w.pod.Name)]
	switch {
	case w.c.dead[w.node.UID]:
		return false, nil
	case w.c.trouble.silent[w.node.UID]:
		return true, nil
	case !ok, accessor(obj).GetUID() != w.pod.UID:
		return false, nil
	}
	return true, accessor(obj).GetDeletionGracePeriodSeconds()
}

// setStatus writes the status as the kubelet does; a dead one writes nothing.
// It says whether the pod is still there.
func (w *worker) setStatus(change func(*corev1.PodStatus)) (pod *corev1.Pod, ok bool) {
	obj, ok := w.c.objects["pods"][key(w.pod.Namespace, w.pod.Name)]
	if !ok || accessor(obj).GetUID() != w.pod.UID || w.c.dead[w.node.UID] || w.c.trouble.silent[w.node.UID] {
		return nil, false
	}
	pod = obj.(*corev1.Pod).DeepCopy()
	change(&pod.Status)
	w.c.put("pods", pod)
	return pod, true
}

// finish reports the end. A reason is the kubelet's own verdict on the pod, a
// condition why it disrupted it; empty for none. A pod that is being deleted goes
// now.
func (w *worker) finish(reason string, code int, condition string) {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	state := &corev1.ContainerStateTerminated{ExitCode: int32(code), Reason: "Completed", FinishedAt: metav1.Now()}
	phase := corev1.PodSucceeded
	switch {
	case code == OOMKilled:
		state.ExitCode, state.Reason = 137, "OOMKilled"
	case code != 0:
		state.Reason = "Error"
	}
	if code != 0 || reason != "" {
		phase = corev1.PodFailed
	}
	pod, ok := w.setStatus(func(st *corev1.PodStatus) {
		st.Phase, st.Reason = phase, reason
		if condition != "" {
			st.Conditions = append(st.Conditions, disruptionTarget(condition))
		}
		if st.StartTime != nil {
			st.ContainerStatuses = []corev1.ContainerStatus{{
				Name: w.pod.Spec.Containers[0].Name, State: corev1.ContainerState{Terminated: state},
			}}
		}
	})
	if ok && pod.DeletionTimestamp != nil {
		w.c.erase(pod)
	}
	w.c.notify()
}
