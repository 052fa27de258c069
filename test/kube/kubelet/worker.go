package kubelet

import (
	"context"
	"encoding/json"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	simcluster "github.com/runnerward/runnerward/pkg/sim/cluster"
)

// worker is the care for one pod.
type worker struct {
	k   *Kubelet
	pod *corev1.Pod
	// news holds the newest version that nobody looked at yet, nil when the pod
	// is gone.
	news chan *corev1.Pod
}

// tell replaces news that nobody looked at. The caller is the only teller.
func (w *worker) tell(pod *corev1.Pod) {
	select {
	case <-w.news:
	default:
	}
	w.news <- pod
}

func (w *worker) run(ctx context.Context) {
	ct, ok := w.prepare(ctx)
	if !ok {
		return
	}
	stop, exit := make(chan struct{}), make(chan int, 1)
	ct.Stop = stop
	kill, cancel := context.WithCancel(ctx)
	go func() { exit <- w.container(kill, ct) }()
	code, reason := w.watch(kill, cancel, stop, exit)
	cancel()
	if ctx.Err() == nil {
		w.finish(ctx, code, reason)
	}
}

func (w *worker) container(ctx context.Context, ct simcluster.Container) int {
	if w.k.opts.Container == nil {
		return 0
	}
	return w.k.opts.Container(ctx, ct)
}

// retry is how soon a kubelet tries again what kept a pod from starting. The
// node authorizer learns of a new pod a moment after its kubelet, and refuses
// the pod's objects until then.
const retry = 100 * time.Millisecond

// prepare mounts the volumes and reports the pod running; init containers are
// taken to succeed. A pod whose volumes cannot be mounted waits in
// ContainerCreating until it is deleted: then ok is false.
func (w *worker) prepare(ctx context.Context) (ct simcluster.Container, ok bool) {
	main := w.pod.Spec.Containers[0]
	tick := time.NewTicker(retry)
	defer tick.Stop()
	for waiting := false; ; {
		ct, err := Mount(ctx, w.k.client, w.pod)
		if err == nil {
			now := metav1.Now()
			pod, ok := w.report(ctx, corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &now, ContainerStatuses: []corev1.ContainerStatus{{
				Name: main.Name, Image: main.Image, Ready: true, Started: new(true), State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
			}}})
			ct.Pod = pod
			return ct, ok
		}
		if !waiting {
			w.report(ctx, corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{
				Name: main.Name, Image: main.Image, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}},
			}}})
			waiting = true
		}
		select {
		case <-ctx.Done():
			return ct, false
		case <-tick.C:
		case pod := <-w.news:
			if pod == nil {
				return ct, false
			}
			if w.pod = pod; pod.DeletionTimestamp != nil {
				w.remove(ctx)
				return ct, false
			}
		}
	}
}

// watch waits for the container's end and for all that brings it about:
// deletion with its grace, and the pod's own deadline.
func (w *worker) watch(ctx context.Context, kill context.CancelFunc, stop chan struct{}, exit <-chan int) (code int, reason string) {
	var stopping bool
	var killAt, deadline <-chan time.Time
	if d := w.pod.Spec.ActiveDeadlineSeconds; d != nil {
		timer := time.NewTimer(time.Duration(*d) * time.Second)
		defer timer.Stop()
		deadline = timer.C
	}
	end := func(seconds int64) {
		// A second deletion may shorten the grace.
		killAt = time.After(time.Duration(seconds) * time.Second)
		if !stopping {
			stopping = true
			close(stop)
		}
	}
	for {
		select {
		case code := <-exit:
			return code, reason
		case <-killAt:
			kill()
		case <-deadline:
			reason = "DeadlineExceeded"
			end(*w.pod.Spec.TerminationGracePeriodSeconds)
		case pod := <-w.news:
			switch {
			case pod == nil:
				kill()
			case pod.DeletionTimestamp != nil:
				w.pod = pod
				end(*pod.DeletionGracePeriodSeconds)
			}
		}
	}
}

// finish reports the end. A pod that is being deleted goes now.
func (w *worker) finish(ctx context.Context, code int, reason string) {
	state := &corev1.ContainerStateTerminated{ExitCode: int32(code), Reason: "Completed", FinishedAt: metav1.Now()}
	phase := corev1.PodSucceeded
	switch {
	case code == simcluster.OOMKilled:
		state.ExitCode, state.Reason = 137, "OOMKilled"
	case code != 0:
		state.Reason = "Error"
	}
	if code != 0 || reason != "" {
		phase = corev1.PodFailed
	}
	main := w.pod.Spec.Containers[0]
	pod, ok := w.report(ctx, corev1.PodStatus{Phase: phase, Reason: reason, ContainerStatuses: []corev1.ContainerStatus{{
		Name: main.Name, Image: main.Image, State: corev1.ContainerState{Terminated: state},
	}}})
	if ok && pod.DeletionTimestamp != nil {
		w.remove(ctx)
	}
}

// report patches the status as pkg/kubelet/status/status_manager.go does: by
// the subresource, for this UID only. It tries until the API server took it,
// the pod is gone or the host is.
func (w *worker) report(ctx context.Context, status corev1.PodStatus) (pod *corev1.Pod, ok bool) {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": w.pod.UID}, "status": status})
	if err != nil {
		panic(err) // a status of ours
	}
	for ctx.Err() == nil {
		pod, err = w.k.client.CoreV1().Pods(w.pod.Namespace).Patch(ctx, w.pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
		switch {
		case err == nil:
			return pod, true
		case apierrors.IsNotFound(err), apierrors.IsConflict(err), apierrors.IsInvalid(err):
			return nil, false
		}
		pause(ctx)
	}
	return nil, false
}

// remove ends a graceful deletion, which only the kubelet may.
func (w *worker) remove(ctx context.Context) {
	for ctx.Err() == nil {
		err := w.k.client.CoreV1().Pods(w.pod.Namespace).Delete(ctx, w.pod.Name, metav1.DeleteOptions{
			GracePeriodSeconds: new(int64(0)), Preconditions: &metav1.Preconditions{UID: &w.pod.UID},
		})
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return
		}
		pause(ctx)
	}
}

func pause(ctx context.Context) {
	timer := time.NewTimer(retry)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
