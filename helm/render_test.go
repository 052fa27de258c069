package helm

import (
	"maps"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
)

// render runs helm as an operator would and returns its output.
func render(t *testing.T, args ...string) (string, error) {
	t.Helper()
	helm, err := exec.LookPath("helm")
	if err != nil {
		t.Skip("no helm binary on the PATH")
	}
	cmd := exec.CommandContext(t.Context(), helm, append([]string{"template", "runnerward", chart,
		"--namespace", "gha-runners", "--kube-version", "1.35.0"}, args...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// documents decodes what was rendered, strictly, by kind and name.
func documents(t *testing.T, rendered string) map[string]runtime.Object {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, appsv1.AddToScheme, rbacv1.AddToScheme, networkingv1.AddToScheme, policyv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	all := map[string]runtime.Object{}
	for doc := range strings.SplitSeq(rendered, "\n---\n") {
		var head struct {
			Kind       string
			APIVersion string `yaml:"apiVersion"`
			Metadata   struct{ Name, Namespace string }
		}
		if err := yaml.Unmarshal([]byte(doc), &head); err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		if head.Kind == "" {
			continue
		}
		id := head.Kind + " " + head.Metadata.Namespace + "/" + head.Metadata.Name
		if _, twice := all[id]; twice {
			t.Errorf("%s is rendered twice", id)
		}
		if head.APIVersion == "monitoring.coreos.com/v1" {
			all[id] = nil
			continue
		}
		obj, _, err := decoder.Decode([]byte(doc), nil, nil)
		if err != nil {
			t.Errorf("%s: %v in\n%s", id, err, doc)
		}
		all[id] = obj
	}
	return all
}

func TestRenderedByDefault(t *testing.T) {
	out, err := render(t)
	if err != nil {
		t.Fatalf("helm template: %v\n%s", err, out)
	}
	docs := documents(t, out)
	want := []string{
		"ClusterRole /gha-runners-runnerward", "ClusterRoleBinding /gha-runners-runnerward",
		"ConfigMap gha-runners/runnerward", "Deployment gha-runners/runnerward",
		"NetworkPolicy gha-runners/runnerward", "NetworkPolicy gha-runners/runnerward-runners",
		"PersistentVolumeClaim gha-runners/runnerward-ledger", "PodDisruptionBudget gha-runners/runnerward", "PodDisruptionBudget gha-runners/runnerward-runners",
		"Role default/gha-runners-runnerward-node-events", "Role gha-runners/runnerward",
		"RoleBinding default/gha-runners-runnerward-node-events", "RoleBinding gha-runners/runnerward",
		"Service gha-runners/runnerward-admission", "Service gha-runners/runnerward-status",
		"ServiceAccount gha-runners/hipaa-prod-runner", "ServiceAccount gha-runners/runnerward",
	}
	if got := slices.Sorted(maps.Keys(docs)); !slices.Equal(got, want) {
		t.Errorf("rendered %q, want %q", got, want)
	}
	d, ok := docs["Deployment gha-runners/runnerward"].(*appsv1.Deployment)
	if !ok {
		t.Fatal("no Deployment")
	}
	checkDaemon(t, d)
	checkAgreement(t, docs, "runnerward")
	if sa, ok := docs["ServiceAccount gha-runners/hipaa-prod-runner"].(*corev1.ServiceAccount); !ok || sa.AutomountServiceAccountToken == nil || *sa.AutomountServiceAccountToken {
		t.Errorf("the runners' account mounts its token")
	}
	// What runner pods carry selects the policy that nobody may call them under.
	policy, ok := docs["NetworkPolicy gha-runners/runnerward-runners"].(*networkingv1.NetworkPolicy)
	labels := map[string]string{"app.kubernetes.io/component": "runner", "app.kubernetes.io/part-of": "runnerward"}
	if !ok || len(policy.Spec.Ingress) != 0 || len(policy.Spec.PolicyTypes) != 2 || !reflect.DeepEqual(policy.Spec.PodSelector.MatchLabels, labels) {
		t.Errorf("the runners' network policy = %+v, want no ingress for pods labelled %v", policy, labels)
	}
	// A percentage, or maxUnavailable, counts nothing where pods have no controller.
	budget, ok := docs["PodDisruptionBudget gha-runners/runnerward-runners"].(*policyv1.PodDisruptionBudget)
	if !ok || budget.Spec.MaxUnavailable != nil || budget.Spec.MinAvailable == nil || budget.Spec.MinAvailable.IntValue() < 1000 ||
		!reflect.DeepEqual(budget.Spec.Selector.MatchLabels, labels) {
		t.Errorf("the runners' disruption budget = %+v, want more pods labelled %v than there are", budget, labels)
	}
}

// checkDaemon wants one writer of the ledger.
func checkDaemon(t *testing.T, d *appsv1.Deployment) {
	t.Helper()
	if d.Spec.Replicas == nil || *d.Spec.Replicas != 1 || d.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType {
		t.Errorf("replicas %v, strategy %s, want 1 and Recreate: two pods would fight for the ledger", d.Spec.Replicas, d.Spec.Strategy.Type)
	}
	checkPod(t, d.Spec.Template)
}

// checkPod holds the daemon's pod to the restricted Pod Security Standard.
// https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
func checkPod(t *testing.T, template corev1.PodTemplateSpec) {
	t.Helper()
	pod := template.Spec
	if len(pod.Containers) != 1 || len(pod.InitContainers) != 0 || pod.HostNetwork || pod.HostPID {
		t.Fatalf("the pod has %d containers, want the daemon alone", len(pod.Containers))
	}
	c := pod.Containers[0]
	if got, want := slices.Concat(c.Command, c.Args), []string{"runnerward", "serve", "--config", "/etc/runnerward/config.yaml"}; !slices.Equal(got, want) {
		t.Errorf("command = %q, want %q", got, want)
	}
	sc := c.SecurityContext
	if sc == nil || !*sc.RunAsNonRoot || !*sc.ReadOnlyRootFilesystem || *sc.AllowPrivilegeEscalation || sc.Privileged != nil ||
		len(sc.Capabilities.Add) != 0 || !slices.Equal(sc.Capabilities.Drop, []corev1.Capability{"ALL"}) ||
		sc.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("security context = %+v, want restricted", sc)
	}
	for _, want := range []struct {
		path  string
		probe *corev1.Probe
	}{{"/livez", c.StartupProbe}, {"/livez", c.LivenessProbe}, {"/readyz", c.ReadinessProbe}} {
		if p := want.probe; p == nil || p.HTTPGet == nil || p.HTTPGet.Path != want.path ||
			p.HTTPGet.Scheme != corev1.URISchemeHTTPS || p.HTTPGet.Port.StrVal != "status" {
			t.Errorf("probe = %+v, want %s over HTTPS on the status port", p, want.path)
		}
	}
	// The group reads Secrets (0440) and writes the volume. Always instead of
	// OnRootMismatch would make the signing keys group-writable.
	if ps := pod.SecurityContext; ps == nil || ps.FSGroup == nil || ps.FSGroupChangePolicy == nil || *ps.FSGroupChangePolicy != corev1.FSGroupChangeOnRootMismatch {
		t.Errorf("pod security context = %+v, want an fsGroup applied on root mismatch only", ps)
	}
	mounted := map[string]bool{}
	for _, m := range c.VolumeMounts {
		mounted[m.Name] = true
		if writable := m.Name == "ledger" || m.Name == "tmp"; m.ReadOnly == writable {
			t.Errorf("volume %s: read-only %t", m.Name, m.ReadOnly)
		}
	}
	for _, v := range pod.Volumes {
		if v.HostPath != nil || !mounted[v.Name] {
			t.Errorf("volume %s is a host path or not mounted", v.Name)
		}
		if v.Secret != nil && (v.Secret.DefaultMode == nil || *v.Secret.DefaultMode != 0o440) {
			t.Errorf("secret %s has mode %v, want 0440", v.Name, v.Secret.DefaultMode)
		}
	}
	if c.TerminationMessagePolicy != corev1.TerminationMessageFallbackToLogsOnError || template.Annotations["checksum/config"] == "" {
		t.Errorf("no termination message from the log, or no checksum of the configuration")
	}
}

func TestRenderedInFull(t *testing.T) {
	out, err := render(t, "--values", "testdata/full-values.yaml")
	if err != nil {
		t.Fatalf("helm template: %v\n%s", err, out)
	}
	docs := documents(t, out)
	w, ok := docs["DaemonSet runnerward-witness/rw-witness"].(*appsv1.DaemonSet)
	if !ok {
		t.Fatal("no witness")
	}
	checkWitness(t, w)
	if got := w.Spec.Template.Spec; got.NodeSelector["stonebridge.io/runner-pool"] != "hipaa-prod" || len(got.Tolerations) != 1 || got.Tolerations[0].Value != "hipaa-runner" {
		t.Errorf("the witness runs on %v and tolerates %v, want the pool's hosts", got.NodeSelector, got.Tolerations)
	}
	for _, id := range []string{"Namespace /runnerward-witness", "ConfigMap runnerward-witness/rw-admission-ca", "ServiceMonitor gha-runners/rw", "ConfigMap gha-runners/rw-admission-ca", "ServiceAccount gha-runners/supervisor"} {
		if _, ok := docs[id]; !ok {
			t.Errorf("%s is not rendered", id)
		}
	}
	d, ok := docs["Deployment gha-runners/rw"].(*appsv1.Deployment)
	if !ok {
		t.Fatal("no Deployment")
	}
	checkDaemon(t, d)
	checkAgreement(t, docs, "rw")
	if got := d.Spec.Template.Spec.Containers[0].Image; !strings.HasPrefix(got, "registry.example/runnerward@sha256:") {
		t.Errorf("image = %s, want it by digest", got)
	}
}

// With the App's key in KMS there is no Secret of GitHub to mount.
func TestHelmTakesAKeyInKMSInPlaceOfTheSecret(t *testing.T) {
	out, err := render(t, "--set", "secrets.github=,config.github.app.privateKeyFile=,config.github.app.privateKeyKMS=alias/runnerward-app")
	if err != nil {
		t.Errorf("helm template = %v, %.300s, want it rendered", err, out)
	}
}

func TestHelmRefusesWhatTheSchemaForbids(t *testing.T) {
	for _, tc := range []struct{ name, set, says string }{
		{"a misspelt key", "imgae.tag=v1", "imgae"},
		{"a misspelt key further down", "persistence.sizee=1Gi", "sizee"},
		{"replicas by another name", "replicaCount=2", "replicaCount"},
		{"no replica", "replicas=0", "replicas"},
		{"a crowd", "replicas=4", "replicas"},
		{"a privileged daemon", "securityContext.allowPrivilegeEscalation=true", "allowPrivilegeEscalation"},
		{"a port as a word", "ports.status=https", "status"},
		{"an empty configuration", "config=null", "config"},
		{"keys opened to the group at every mount", "podSecurityContext.fsGroupChangePolicy=Always", "fsGroupChangePolicy"},
		{"signing keys from a Secret, where the daemon cannot write", "secrets.signingKeys=keys", "signingKeys"},
		{"no GitHub secret", "secrets.github=", "privateKeyFile"},
		{"a private key as a value", "admissionCA=-----BEGIN PRIVATE KEY-----", "admissionCA"},
		{"both monitors", "metrics.serviceMonitor.enabled=true,metrics.podMonitor.enabled=true", "metrics"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, err := render(t, "--set", tc.set)
			if err == nil || !strings.Contains(out, "don't meet the specifications of the schema") || !strings.Contains(out, tc.says) {
				t.Errorf("helm template --set %s = %v, %.300s, want a refusal that names %s", tc.set, err, out, tc.says)
			}
		})
	}
}

// TestOnlyWithKarpenterMayNodeClaimsBeMade: the right is given with the driver.
func TestOnlyWithKarpenterMayNodeClaimsBeMade(t *testing.T) {
	for driver, want := range map[string]bool{"autoscaling": false, "none": false, "karpenter": true} {
		out, err := render(t, "--set", "config.hosts.driver="+driver)
		if err != nil {
			t.Fatalf("helm template: %v\n%s", err, out)
		}
		role, ok := documents(t, out)["ClusterRole /gha-runners-runnerward"].(*rbacv1.ClusterRole)
		if !ok {
			t.Fatal("no ClusterRole")
		}
		if got := slices.ContainsFunc(role.Rules, func(r rbacv1.PolicyRule) bool { return slices.Contains(r.Resources, "nodeclaims") }); got != want {
			t.Errorf("driver %s: NodeClaims may be made: %t, want %t", driver, got, want)
		}
	}
}
