package cluster

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
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
// The API server is asked each time.
func (c *Cluster) EnsurePod(ctx context.Context, spec supervisor.PodSpec) error {
	want := c.Manifest(spec)
	// Whatever comes of the call, that it was gone before says nothing any more.
	c.gone.keep(spec.Runner, "")
	api := c.client.CoreV1().Pods(c.opts.Namespace)
	made, err := api.Create(ctx, want, metav1.CreateOptions{})
	switch {
	case err == nil:
		c.podUIDs.keep(spec.Runner, string(made.UID))
		// Until the copy has the pod it is read from the API server.
		c.pods.owe(made.ResourceVersion)
		return nil
	case !apierrors.IsAlreadyExists(err):
		return fmt.Errorf("create pod %s: %w", want.Name, err)
	}
	have, err := api.Get(ctx, want.Name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read the existing pod %s: %w", want.Name, err)
	}
	if err := same(have, want); err != nil {
		return err
	}
	c.podUIDs.keep(spec.Runner, string(have.UID))
	return nil
}

// same says whether the pod is on the node and for the record that it should be.
func same(have, want *corev1.Pod) error {
	switch record, wanted := have.Annotations[AnnotationAuthorized], want.Annotations[AnnotationAuthorized]; {
	case have.Spec.NodeName != want.Spec.NodeName:
		return fmt.Errorf("%w: pod %s is on node %q, want %q", supervisor.ErrConflict, want.Name, have.Spec.NodeName, want.Spec.NodeName)
	case record != wanted:
		return fmt.Errorf("%w: pod %s is for record %q, want %q", supervisor.ErrConflict, want.Name, record, wanted)
	}
	return nil
}

// cachedPod is the runner's pod in a copy that may be believed. That none is
// there says nothing.
func (c *Cluster) cachedPod(name runner.Name) (*corev1.Pod, bool) {
	if c.pods.fresh() != nil {
		return nil, false
	}
	obj, _, err := c.pods.informer.GetStore().GetByKey(c.opts.Namespace + "/" + string(name))
	pod, ok := obj.(*corev1.Pod)
	return pod, ok && err == nil && c.gone.of(name) != string(pod.UID)
}

// Pod says how the runner's pod is. A pod that is being deleted is what its
// phase says until the API server no longer has it. What the copy shows is an
// answer: a phase that has ended never begins again, and one that has not is
// looked at again. That a pod is gone only the API server says, once, and it is
// asked about a pod that we have asked it to delete.
func (c *Cluster) Pod(ctx context.Context, name runner.Name) (runner.Pod, error) {
	if pod, ok := c.cachedPod(name); ok && c.deleted.of(name) != string(pod.UID) {
		return known(pod)
	} else if !ok && c.stillGone(name) {
		return runner.Pod{Name: string(name), Phase: runner.PodGone}, nil
	}
	return c.PodNow(ctx, name)
}

// PodNow says how the runner's pod is, as the API server has it.
func (c *Cluster) PodNow(ctx context.Context, name runner.Name) (runner.Pod, error) {
	pod, err := c.client.CoreV1().Pods(c.opts.Namespace).Get(ctx, string(name), metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		// The copy may show it for a moment yet, and must not be believed.
		c.gone.keep(name, cmp.Or(c.podUIDs.of(name), neverSeen))
		return runner.Pod{Name: string(name), Phase: runner.PodGone}, nil
	case err != nil:
		return runner.Pod{}, fmt.Errorf("read pod %s: %w", name, err)
	}
	return known(pod)
}

// neverSeen stands for the UID of a pod that was gone when it was first asked for.
const neverSeen = "-"

// stillGone says that the API server was asked and had the pod no more, and that
// none has come under its name since.
func (c *Cluster) stillGone(name runner.Name) bool {
	return c.gone.of(name) == cmp.Or(c.podUIDs.of(name), neverSeen) && c.pods.fresh() == nil
}

func known(pod *corev1.Pod) (runner.Pod, error) {
	found := podOf(pod)
	switch found.Phase {
	case runner.PodPending, runner.PodRunning, runner.PodSucceeded, runner.PodFailed:
		return found, nil
	}
	return runner.Pod{}, fmt.Errorf("read pod %s: the cluster does not know its phase (%q)", pod.Name, pod.Status.Phase)
}

func podOf(pod *corev1.Pod) runner.Pod {
	return runner.Pod{
		Name: pod.Name, UID: string(pod.UID), NodeName: pod.Spec.NodeName,
		Authorized: runner.Digest(pod.Annotations[AnnotationAuthorized]),
		Phase:      runner.PodPhase(pod.Status.Phase), Reason: reasonOf(pod), Deleting: pod.DeletionTimestamp != nil,
	}
}

// Pods are the pods that carry the labels of this pool's runners, by name: from
// the copy when it may be believed, else from the API server. A pod that was
// seen gone is not among them, even if the copy still has it. A phase that the
// cluster does not know stays as it is: the pod exists.
func (c *Cluster) Pods(ctx context.Context) ([]runner.Pod, error) {
	if c.pods.fresh() != nil {
		return c.listPods(ctx)
	}
	var out []runner.Pod
	for _, obj := range c.pods.informer.GetStore().List() {
		if pod, ok := obj.(*corev1.Pod); ok && c.gone.of(runner.Name(pod.Name)) != string(pod.UID) {
			out = append(out, podOf(pod))
		}
	}
	slices.SortFunc(out, func(a, b runner.Pod) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func (c *Cluster) listPods(ctx context.Context) ([]runner.Pod, error) {
	opts := metav1.ListOptions{LabelSelector: c.podSelector(), Limit: pageSize}
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

func (c *Cluster) podSelector() string { return labels.SelectorFromSet(c.marks()).String() }

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
	c.deleted.keep(name, c.podUIDs.of(name))
	return nil
}

func seconds(d time.Duration) int64 {
	return int64((max(d, 0) + time.Second - 1) / time.Second)
}
