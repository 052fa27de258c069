package cluster

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// EnsurePod creates the runner's pod. A pod that exists under the name is
// accepted, in whatever phase, when it is on the same node for the same record.
func (c *Cluster) EnsurePod(ctx context.Context, spec supervisor.PodSpec) error {
	want := c.Manifest(spec)
	pods := c.client.CoreV1().Pods(c.opts.Namespace)
	_, err := pods.Create(ctx, want, metav1.CreateOptions{})
	switch {
	case err == nil:
		return nil
	case !apierrors.IsAlreadyExists(err):
		return fmt.Errorf("create pod %s: %w", want.Name, err)
	}
	have, err := pods.Get(ctx, want.Name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read the existing pod %s: %w", want.Name, err)
	}
	switch {
	case have.Spec.NodeName != want.Spec.NodeName:
		return fmt.Errorf("%w: pod %s is on node %q, want %q", supervisor.ErrConflict, want.Name, have.Spec.NodeName, want.Spec.NodeName)
	case have.Annotations[AnnotationAuthorized] != string(spec.Authorized):
		return fmt.Errorf("%w: pod %s is for record %q, want %q", supervisor.ErrConflict, want.Name, have.Annotations[AnnotationAuthorized], spec.Authorized)
	}
	return nil
}

// Pod says how the runner's pod is. A pod that is being deleted is what its
// phase says until the API server no longer has it.
func (c *Cluster) Pod(ctx context.Context, name runner.Name) (runner.Pod, error) {
	pod, err := c.client.CoreV1().Pods(c.opts.Namespace).Get(ctx, string(name), metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return runner.Pod{Name: string(name), Phase: runner.PodGone}, nil
	case err != nil:
		return runner.Pod{}, fmt.Errorf("read pod %s: %w", name, err)
	}
	found := podOf(pod)
	switch found.Phase {
	case runner.PodPending, runner.PodRunning, runner.PodSucceeded, runner.PodFailed:
		return found, nil
	}
	return runner.Pod{}, fmt.Errorf("read pod %s: the cluster does not know its phase (%q)", name, pod.Status.Phase)
}

func podOf(pod *corev1.Pod) runner.Pod {
	return runner.Pod{
		Name: pod.Name, UID: string(pod.UID), NodeName: pod.Spec.NodeName,
		Phase: runner.PodPhase(pod.Status.Phase), Reason: reasonOf(pod), Deleting: pod.DeletionTimestamp != nil,
	}
}

// podPage is how many pods are asked for at once.
const podPage = 500

// Pods lists the pods that carry the labels of this pool's runners. A phase that
// the cluster does not know stays as it is: the pod exists.
func (c *Cluster) Pods(ctx context.Context) ([]runner.Pod, error) {
	opts := metav1.ListOptions{LabelSelector: labels.SelectorFromSet(c.labels()).String(), Limit: podPage}
	var out []runner.Pod
	for {
		page, err := c.client.CoreV1().Pods(c.opts.Namespace).List(ctx, opts)
		if err != nil {
			return nil, fmt.Errorf("list runner pods: %w", err)
		}
		for i := range page.Items {
			out = append(out, podOf(&page.Items[i]))
		}
		if page.Continue == "" {
			return out, nil
		}
		opts.Continue = page.Continue
	}
}

var machineWord = regexp.MustCompile(`\A[A-Za-z0-9]{1,64}\z`)

// reasonOf is the first machine word that explains the phase: the pod's own
// (Evicted, DeadlineExceeded), then who disrupted it (DeletionByTaintManager),
// then a container's (OOMKilled, Error, ImagePullBackOff). Free text is never
// taken.
// https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions
func reasonOf(pod *corev1.Pod) string {
	candidates := []string{pod.Status.Reason}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue {
			candidates = append(candidates, c.Reason)
		}
	}
	// Of containers that wait, the init containers come first: the others wait
	// for them. That one merely waits its turn explains least.
	var waiting, turn []string
	for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for _, s := range list {
			if w := s.State.Waiting; w != nil && (w.Reason == "PodInitializing" || w.Reason == "ContainerCreating") {
				turn = append(turn, w.Reason)
			} else if w != nil {
				waiting = append(waiting, w.Reason)
			}
		}
	}
	for _, list := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		for _, s := range list {
			if t := s.State.Terminated; t != nil && t.ExitCode != 0 {
				candidates = append(candidates, t.Reason)
			}
		}
	}
	for _, c := range slices.Concat(candidates, waiting, turn) {
		if machineWord.MatchString(c) {
			return c
		}
	}
	return ""
}

// DeletePod deletes the pod by name: names are never used twice. Grace is
// rounded up to whole seconds; 0 removes the object at once.
func (c *Cluster) DeletePod(ctx context.Context, name runner.Name, grace time.Duration) error {
	err := c.client.CoreV1().Pods(c.opts.Namespace).Delete(ctx, string(name), metav1.DeleteOptions{
		GracePeriodSeconds: new(seconds(grace)),
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete pod %s: %w", name, err)
	}
	return nil
}

func seconds(d time.Duration) int64 {
	return int64((max(d, 0) + time.Second - 1) / time.Second)
}
