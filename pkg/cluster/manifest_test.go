package cluster_test

import (
	"flag"
	"os"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	simcluster "github.com/runnerward/runnerward/pkg/sim/cluster"
)

var (
	update        = flag.Bool("update", false, "rewrite testdata/pod.golden.yaml")
	createOptions = metav1.CreateOptions{}
)

func TestThePodIsTheGoldenOne(t *testing.T) {
	w := newWorld(t, nil, inProcess)
	got, err := yaml.Marshal(w.Manifest(podSpec("runner-a")))
	must(t, "marshal", err)
	const file = "testdata/pod.golden.yaml"
	if *update {
		must(t, "write", os.WriteFile(file, got, 0o644))
	}
	want, err := os.ReadFile(file)
	must(t, "read", err)
	if string(got) != string(want) {
		t.Errorf("the manifest differs from %s (rewrite it with -update):\n%s", file, got)
	}
}

func TestThePodIsRestrictedAndGuaranteed(t *testing.T) {
	w := newWorld(t, nil, inProcess)
	pod := w.Manifest(podSpec("runner-a"))
	if v := simcluster.Restricted(pod); len(v) > 0 {
		t.Errorf("the pod violates the restricted standard: %q", v)
	}
	for _, ct := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			request, limit := ct.Resources.Requests[name], ct.Resources.Limits[name]
			if request.IsZero() || request.Cmp(limit) != 0 {
				t.Errorf("%s %s: requests %s, limits %s, want equal", ct.Name, name, &request, &limit)
			}
		}
	}
	if s := pod.Spec; s.AutomountServiceAccountToken == nil || *s.AutomountServiceAccountToken || *s.ActiveDeadlineSeconds != 3900 {
		t.Errorf("automount %v, deadline %d, want false and 3900", s.AutomountServiceAccountToken, *s.ActiveDeadlineSeconds)
	}
}

// The pretend cluster must be able to refuse, or the tests above prove nothing.
func TestTheClusterRefusesWhatTheStandardForbids(t *testing.T) {
	for name, weaken := range map[string]func(*corev1.Pod){
		"host network":       func(p *corev1.Pod) { p.Spec.HostNetwork = true },
		"privileged":         func(p *corev1.Pod) { p.Spec.Containers[0].SecurityContext.Privileged = new(true) },
		"no seccomp profile": func(p *corev1.Pod) { p.Spec.SecurityContext.SeccompProfile = nil },
		"root by omission":   func(p *corev1.Pod) { p.Spec.Containers[0].SecurityContext.RunAsNonRoot = new(false) },
		"a capability":       func(p *corev1.Pod) { p.Spec.InitContainers[0].SecurityContext.Capabilities = nil },
		"escalation":         func(p *corev1.Pod) { p.Spec.Containers[0].SecurityContext.AllowPrivilegeEscalation = nil },
		"a host path": func(p *corev1.Pod) {
			p.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}
		},
		"an SELinux type":         func(p *corev1.Pod) { p.Spec.SecurityContext.SELinuxOptions = &corev1.SELinuxOptions{Type: "super_t"} },
		"an account that is none": func(p *corev1.Pod) { p.Spec.ServiceAccountName = "nobody" },
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, w world) {
				pod := w.Manifest(podSpec("runner-a"))
				weaken(pod)
				if _, err := w.client.CoreV1().Pods(namespace).Create(t.Context(), pod, createOptions); !apierrors.IsForbidden(err) {
					t.Errorf("create = %v, want 403", err)
				}
			})
		})
	}
}

func TestTheClusterIsStrict(t *testing.T) {
	both(t, func(t *testing.T, w world) {
		ctx := t.Context()
		must(t, "EnsurePod", w.EnsurePod(ctx, podSpec("runner-a")))
		pod := w.pod(t, "runner-a")
		pods := w.client.CoreV1().Pods(namespace)
		moved := pod.DeepCopy()
		moved.Spec.NodeName = "other-pool"
		if _, err := pods.Update(ctx, moved, metav1.UpdateOptions{}); !apierrors.IsInvalid(err) {
			t.Errorf("move to another node = %v, want 422", err)
		}
		if _, err := pods.Create(ctx, pod, createOptions); !apierrors.IsBadRequest(err) {
			t.Errorf("create with a resource version = %v, want 400", err)
		}
		short := w.Manifest(podSpec("runner-b"))
		short.Spec.Volumes[1].Projected.Sources[0].ServiceAccountToken.ExpirationSeconds = new(int64(60))
		if _, err := pods.Create(ctx, short, createOptions); !apierrors.IsInvalid(err) {
			t.Errorf("create with a token of a minute = %v, want 422", err)
		}
		stale := w.node.DeepCopy()
		stale.ResourceVersion = "1"
		if _, err := w.client.CoreV1().Nodes().Update(ctx, stale, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
			t.Errorf("update of a stale node = %v, want 409", err)
		}
		if _, err := w.client.CoreV1().Pods("kube-system").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("list in another namespace = %v, want 403", err)
		}
		if _, err := w.client.CoreV1().Secrets(namespace).List(ctx, metav1.ListOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("list what is not served = %v, want 404", err)
		}
		if err := pods.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); !apierrors.IsMethodNotSupported(err) {
			t.Errorf("delete all pods = %v, want 405", err)
		}
	})
}
