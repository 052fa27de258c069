package api

import (
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/runnerward/runnerward/pkg/runner"
)

// dryPod is the API server's verdict on a pod, which it does not keep.
func dryPod(t *testing.T, pod *corev1.Pod) (*corev1.Pod, error) {
	t.Helper()
	return admin(t).CoreV1().Pods(pod.Namespace).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
}

// refusedBy says that Pod Security refused a pod for this control.
func refusedBy(err error, control string) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "violates PodSecurity") && strings.Contains(err.Error(), control)
}

// TestEveryProtectionOfARunnersPodIsNeeded takes the pod's protections away one
// by one: the restricted standard has to refuse what is left, so that a daemon
// that forgets one cannot make a pod.
// https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
func TestEveryProtectionOfARunnersPodIsNeeded(t *testing.T) {
	t.Parallel()
	ns := runnersNamespace(t)
	c := adapter(t, ns)
	whole := c.Manifest(podSpec("runner-a", "some-node"))
	got, err := dryPod(t, whole)
	if err != nil {
		t.Fatal(err)
	}
	if got.Status.QOSClass != corev1.PodQOSGuaranteed {
		t.Errorf("the pod's QoS class is %s, want %s", got.Status.QOSClass, corev1.PodQOSGuaranteed)
	}
	each := func(pod *corev1.Pod, change func(*corev1.SecurityContext)) {
		for i := range pod.Spec.Containers {
			change(pod.Spec.Containers[i].SecurityContext)
		}
	}
	inits := func(pod *corev1.Pod, change func(*corev1.SecurityContext)) {
		for i := range pod.Spec.InitContainers {
			change(pod.Spec.InitContainers[i].SecurityContext)
		}
	}
	for _, tt := range []struct {
		name, control string
		spoil         func(*corev1.Pod)
	}{
		{"escalation is not forbidden", "allowPrivilegeEscalation", func(p *corev1.Pod) {
			each(p, func(sc *corev1.SecurityContext) { sc.AllowPrivilegeEscalation = nil })
		}},
		{"escalation is not forbidden to the init container", "allowPrivilegeEscalation", func(p *corev1.Pod) {
			inits(p, func(sc *corev1.SecurityContext) { sc.AllowPrivilegeEscalation = nil })
		}},
		{"privileged", "privileged", func(p *corev1.Pod) {
			each(p, func(sc *corev1.SecurityContext) { sc.Privileged, sc.AllowPrivilegeEscalation = new(true), nil })
		}},
		{"capabilities are kept", "unrestricted capabilities", func(p *corev1.Pod) {
			each(p, func(sc *corev1.SecurityContext) { sc.Capabilities = nil })
		}},
		{"capabilities are kept in the init container", "unrestricted capabilities", func(p *corev1.Pod) {
			inits(p, func(sc *corev1.SecurityContext) { sc.Capabilities = nil })
		}},
		{"a capability is added", "unrestricted capabilities", func(p *corev1.Pod) {
			each(p, func(sc *corev1.SecurityContext) { sc.Capabilities.Add = []corev1.Capability{"NET_RAW"} })
		}},
		{"root is allowed", "runAsNonRoot", func(p *corev1.Pod) {
			p.Spec.SecurityContext.RunAsNonRoot = nil
			each(p, func(sc *corev1.SecurityContext) { sc.RunAsNonRoot = nil })
		}},
		{"root is allowed in one container", "runAsNonRoot", func(p *corev1.Pod) {
			each(p, func(sc *corev1.SecurityContext) { sc.RunAsNonRoot = new(false) })
		}},
		{"root", "runAsUser=0", func(p *corev1.Pod) { p.Spec.SecurityContext.RunAsUser = new(int64(0)) }},
		{"no seccomp profile", "seccompProfile", func(p *corev1.Pod) { p.Spec.SecurityContext.SeccompProfile = nil }},
		{"unconfined", "seccompProfile", func(p *corev1.Pod) {
			p.Spec.SecurityContext.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined}
		}},
		{"the host's network", "host namespaces", func(p *corev1.Pod) { p.Spec.HostNetwork = true }},
		{"the host's processes", "host namespaces", func(p *corev1.Pod) { p.Spec.HostPID = true }},
		{"the host's IPC", "host namespaces", func(p *corev1.Pod) { p.Spec.HostIPC = true }},
		{"a folder of the host", "hostPath", func(p *corev1.Pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}})
		}},
		{"a port of the host", "hostPort", func(p *corev1.Pod) {
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 80}}
		}},
		{"a sysctl", "sysctls", func(p *corev1.Pod) {
			p.Spec.SecurityContext.Sysctls = []corev1.Sysctl{{Name: "kernel.msgmax", Value: "1"}}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pod := whole.DeepCopy()
			tt.spoil(pod)
			if _, err := dryPod(t, pod); !refusedBy(err, tt.control) {
				t.Errorf("the API server says %v, want a violation of %s", err, tt.control)
			}
		})
	}
	// And the supervisor sees the refusal as an error, not as a pod.
	spoiled := c.Manifest(podSpec("runner-b", "some-node"))
	spoiled.Spec.HostPID = true
	if _, err := admin(t).CoreV1().Pods(ns).Create(t.Context(), spoiled, metav1.CreateOptions{}); err == nil {
		t.Error("the spoiled pod was made")
	}
	if pod, err := c.Pod(t.Context(), "runner-b"); err != nil || pod.Phase != runner.PodGone {
		t.Errorf("Pod = %+v, %v, want none", pod, err)
	}
}

// podOf is the pod that a rendered Deployment or DaemonSet makes.
func podOf(t *testing.T, rendered []*unstructured.Unstructured, kind, name string) *corev1.Pod {
	t.Helper()
	i := slices.IndexFunc(rendered, func(o *unstructured.Unstructured) bool { return o.GetKind() == kind && o.GetName() == name })
	if i < 0 {
		t.Fatalf("the chart has no %s %s", kind, name)
	}
	// Both kinds have their template in the same place.
	var d appsv1.DaemonSet
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(rendered[i].Object, &d); err != nil {
		t.Fatal(err)
	}
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: strings.ToLower(kind), Namespace: rendered[i].GetNamespace(), Labels: d.Spec.Template.Labels,
	}, Spec: d.Spec.Template.Spec}
}

func TestTheChartsPodsFitTheirNamespaces(t *testing.T) {
	t.Parallel()
	ns := namespace(t, "restricted")
	privileged, baseline := ns+"-witness", ns+"-baseline"
	makeNamespace(t, privileged, "privileged")
	makeNamespace(t, baseline, "baseline")
	r := newRelease(t, ns, withWitness(privileged))
	rendered := objects(t, r.helm(t, "template"))
	daemon, witness := podOf(t, rendered, "Deployment", account), podOf(t, rendered, "DaemonSet", account+"-witness")
	for _, name := range []string{ns, privileged, baseline} {
		makeAccount(t, name, daemon.Spec.ServiceAccountName)
		makeAccount(t, name, witness.Spec.ServiceAccountName)
	}
	if _, err := dryPod(t, daemon); err != nil {
		t.Errorf("the daemon's pod under restricted: %v", err)
	}
	if _, err := dryPod(t, witness); err != nil {
		t.Errorf("the witness in its namespace: %v", err)
	}
	// hostNetwork is why the witness has a namespace of its own; nothing else
	// about it is special.
	for _, name := range []string{ns, baseline} {
		pod := witness.DeepCopy()
		pod.Namespace = name
		if _, err := dryPod(t, pod); !refusedBy(err, "host namespaces") {
			t.Errorf("the witness in %s: %v, want a violation of host namespaces", name, err)
		}
		pod.Spec.HostNetwork = false
		if _, err := dryPod(t, pod); err != nil {
			t.Errorf("the witness without hostNetwork in %s: %v", name, err)
		}
	}
}
