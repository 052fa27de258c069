package helm

import (
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/runnerward/runnerward/pkg/agent"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// TestTheWitnessIsConfined reads the template itself, whose security settings
// are literal: no value of the chart can loosen them.
func TestTheWitnessIsConfined(t *testing.T) {
	docs := documents(t, string(plain(read(t, "templates", "hostwitness.yaml"))))
	ns, ok := docs["Namespace /x"].(*corev1.Namespace)
	if !ok || ns.Labels["pod-security.kubernetes.io/enforce"] != "privileged" {
		t.Errorf("namespace = %+v, want one that allows hostNetwork", ns)
	}
	if sa, ok := docs["ServiceAccount x/x"].(*corev1.ServiceAccount); !ok || sa.AutomountServiceAccountToken == nil || *sa.AutomountServiceAccountToken {
		t.Errorf("the witness's account = %+v, want one whose token is not mounted", sa)
	}
	d, ok := docs["DaemonSet x/x-witness"].(*appsv1.DaemonSet)
	if !ok {
		t.Fatalf("documents = %v, want a DaemonSet", docs)
	}
	checkWitness(t, d)
	if len(docs) != 4 {
		t.Errorf("%d documents, want namespace, account, authority and DaemonSet: the witness has no role", len(docs))
	}
}

// checkWitness holds the witness to the restricted Pod Security Standard in
// everything but hostNetwork.
// https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
func checkWitness(t *testing.T, d *appsv1.DaemonSet) {
	t.Helper()
	pod := d.Spec.Template.Spec
	if !pod.HostNetwork || pod.HostPID || pod.HostIPC || pod.DNSPolicy != corev1.DNSClusterFirstWithHostNet {
		t.Errorf("host network %t, pid %t, ipc %t, DNS %s: want the network alone, and the cluster's DNS", pod.HostNetwork, pod.HostPID, pod.HostIPC, pod.DNSPolicy)
	}
	if pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken || pod.SecurityContext == nil ||
		!*pod.SecurityContext.RunAsNonRoot || pod.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("pod = %+v, want no token of its account, no root, and seccomp", pod)
	}
	if len(pod.Containers) != 1 || len(pod.InitContainers) != 0 {
		t.Fatalf("%d containers, want the witness alone", len(pod.Containers))
	}
	c := pod.Containers[0]
	if sc := c.SecurityContext; sc == nil || !*sc.RunAsNonRoot || !*sc.ReadOnlyRootFilesystem || *sc.AllowPrivilegeEscalation || sc.Privileged != nil ||
		len(sc.Capabilities.Add) != 0 || !slices.Equal(sc.Capabilities.Drop, []corev1.Capability{"ALL"}) {
		t.Errorf("security context = %+v, want nothing that the witness does not need", sc)
	}
	if !slices.Equal(slices.Concat(c.Command, c.Args), []string{"/runnerward-agent", "host"}) || len(c.Ports) != 0 {
		t.Errorf("command = %q %q, ports %v, want the agent as witness, listening nowhere", c.Command, c.Args, c.Ports)
	}
	checkWitnessFiles(t, pod)
}

// checkWitnessFiles wants the agent's variables to name what is mounted.
func checkWitnessFiles(t *testing.T, pod corev1.PodSpec) {
	t.Helper()
	c := pod.Containers[0]
	if len(pod.Volumes) != 1 || pod.Volumes[0].Projected == nil || len(c.VolumeMounts) != 1 || !c.VolumeMounts[0].ReadOnly {
		t.Fatalf("volumes = %+v, mounts = %+v, want one projected volume, read-only", pod.Volumes, c.VolumeMounts)
	}
	var files []string
	for _, s := range pod.Volumes[0].Projected.Sources {
		switch {
		case s.ServiceAccountToken != nil:
			files = append(files, s.ServiceAccountToken.Path)
			if s.ServiceAccountToken.Audience != supervisor.HostAudience || *s.ServiceAccountToken.ExpirationSeconds > 3600 {
				t.Errorf("token = %+v, want the audience %s for an hour at most", s.ServiceAccountToken, supervisor.HostAudience)
			}
		case s.ConfigMap != nil:
			files = append(files, s.ConfigMap.Items[0].Path)
		default:
			t.Errorf("source %+v is neither token nor authority", s)
		}
	}
	env := map[string]string{}
	for _, e := range c.Env {
		env[e.Name] = e.Value
	}
	dir := c.VolumeMounts[0].MountPath + "/"
	if len(env) != 3 || env[agent.EnvURL] == "" || env[agent.EnvTokenFile] != dir+files[0] || env[agent.EnvCAFile] != dir+files[1] {
		t.Errorf("environment = %v, files = %q in %s, want the agent's three variables to name them", env, files, dir)
	}
}
