package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	authv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
	"sigs.k8s.io/yaml"

	"github.com/runnerward/runnerward/pkg/sim/world"
)

// release is the chart, installed by helm into a namespace of its own.
type release struct {
	namespace string
	// daemon is the daemon's account, as requests name it.
	daemon string
	values map[string]any
	file   string
}

// account is the name of the daemon's service account: the release's.
const account = "runnerward"

const chart = "../../../helm/runnerward"

// newRelease says what is to be installed into the namespace, with these values
// beyond those that follow from it.
func newRelease(t *testing.T, namespace string, change func(values map[string]any)) *release {
	t.Helper()
	r := &release{
		namespace: namespace, daemon: "system:serviceaccount:" + namespace + ":" + account,
		file: filepath.Join(t.TempDir(), "values.yaml"),
		values: map[string]any{"config": map[string]any{"cluster": map[string]any{
			"namespace": namespace, "admissionURL": "https://runnerward-admission." + namespace + ".svc:8443",
		}}},
	}
	if change != nil {
		change(r.values)
	}
	content, err := yaml.Marshal(r.values)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return r
}

// withWitness also installs the hosts' witness, into this namespace.
func withWitness(namespace string) func(map[string]any) {
	return func(v map[string]any) {
		if v["admissionCA"] == nil {
			v["admissionCA"] = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"
		}
		v["hostWitness"] = map[string]any{"enabled": true, "namespace": namespace, "createNamespace": false, "from": []any{
			map[string]any{"ipBlock": map[string]any{"cidr": "10.20.0.0/20"}},
		}}
		v["config"].(map[string]any)["hosts"] = map[string]any{"identity": map[string]any{
			"namespace": namespace, "certificatesFile": "/run/runnerward/aws/certificates.pem",
		}}
	}
}

// helm runs the real one as an operator would, with a home of its own.
func (r *release) helm(t *testing.T, verb string, args ...string) string {
	t.Helper()
	args = append([]string{verb, account, chart, "--namespace", r.namespace, "--values", r.file}, args...)
	cmd := exec.CommandContext(t.Context(), binary(t, "helm"), args...)
	cmd.Env = []string{"HOME=" + t.TempDir(), "KUBECONFIG=" + planeOf(t).AdminKubeconfig()}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("helm %s: %v\n%s", verb, err, stderr.Bytes())
	}
	return string(out)
}

// install applies the chart. It does not wait: no node takes the daemon's pod,
// whose place the test takes. Cluster-scoped objects go with the test.
func (r *release) install(t *testing.T) {
	t.Helper()
	r.helm(t, "install")
	t.Cleanup(func() {
		// Not by helm, whose context has ended by now.
		ctx, c := context.WithoutCancel(t.Context()), admin(t)
		name := r.namespace + "-" + account
		if err := errors.Join(
			c.RbacV1().ClusterRoleBindings().Delete(ctx, name, metav1.DeleteOptions{}),
			c.RbacV1().ClusterRoles().Delete(ctx, name, metav1.DeleteOptions{}),
			c.RbacV1().RoleBindings("default").Delete(ctx, name+"-node-events", metav1.DeleteOptions{}),
			c.RbacV1().Roles("default").Delete(ctx, name+"-node-events", metav1.DeleteOptions{}),
		); err != nil {
			t.Error(err)
		}
	})
}

// kubeconfig signs in as the daemon's account, with a token of an hour.
func (r *release) kubeconfig(t *testing.T) []byte {
	t.Helper()
	return planeOf(t).Kubeconfig("", token(t, r.namespace, account, authv1.TokenRequestSpec{}))
}

// token asks for one of this account, as an administrator may.
func token(t *testing.T, namespace, account string, spec authv1.TokenRequestSpec) string {
	t.Helper()
	answer, err := admin(t).CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), account, &authv1.TokenRequest{Spec: spec}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return answer.Status.Token
}

// objects are the documents of YAML.
func objects(t *testing.T, text string) (all []*unstructured.Unstructured) {
	t.Helper()
	documents := utilyaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096)
	for {
		o := &unstructured.Unstructured{}
		err := documents.Decode(&o.Object)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(o.Object) > 0 {
			all = append(all, o)
		}
	}
}

// dryRun is the API server's verdict on an object: what it would store. It
// validates, admits and prunes as for real, and refuses unknown fields.
// https://kubernetes.io/docs/reference/using-api/api-concepts/#dry-run
func dryRun(t *testing.T, o *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	t.Helper()
	p := planeOf(t)
	client, err := dynamic.NewForConfig(p.Admin)
	if err != nil {
		t.Fatal(err)
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(admin(t).Discovery()))
	kind := o.GroupVersionKind()
	mapping, err := mapper.RESTMapping(schema.GroupKind{Group: kind.Group, Kind: kind.Kind}, kind.Version)
	if err != nil {
		return nil, err
	}
	var objects dynamic.ResourceInterface = client.Resource(mapping.Resource)
	if o.GetNamespace() != "" {
		objects = client.Resource(mapping.Resource).Namespace(o.GetNamespace())
	}
	return objects.Create(t.Context(), o, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict})
}

func TestTheChartIsAcceptedAndInstalled(t *testing.T) {
	t.Parallel()
	namespace := namespace(t, "restricted")
	witness := namespace + "-witness"
	r := newRelease(t, namespace, func(v map[string]any) {
		withWitness(witness)(v)
		// Of a pool that has no hosts: those of other tests are not for its witnesses.
		v["config"].(map[string]any)["cluster"].(map[string]any)["nodeLabels"] = []any{map[string]any{"key": world.PoolLabelKey, "value": "none"}}
	})
	makeNamespace(t, witness, "privileged")
	rendered := objects(t, r.helm(t, "template"))
	if len(rendered) < 15 {
		t.Fatalf("helm rendered %d objects, want the chart", len(rendered))
	}
	for _, o := range rendered {
		if _, err := dryRun(t, o); err != nil {
			t.Errorf("%s %s/%s: %v", o.GetKind(), o.GetNamespace(), o.GetName(), err)
		}
	}
	r.install(t)
	c := admin(t)
	// What the controllers make of the templates: a pod for the daemon, which
	// waits for a volume and for a node, and none for the witness without hosts.
	until(t, "the Deployment has its pod", patience, func() (bool, error) {
		pods, err := c.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=supervisor"})
		return err == nil && len(pods.Items) == 1, err
	})
	for _, name := range []string{account, world.ServiceAccount} {
		if _, err := c.CoreV1().ServiceAccounts(namespace).Get(t.Context(), name, metav1.GetOptions{}); err != nil {
			t.Error(err)
		}
	}
	set, err := c.AppsV1().DaemonSets(witness).Get(t.Context(), account+"-witness", metav1.GetOptions{})
	if err != nil || set.Status.DesiredNumberScheduled != 0 {
		t.Errorf("witness = %v, %v, want a DaemonSet that waits for hosts", set, err)
	}
	ca, err := c.CoreV1().ConfigMaps(namespace).Get(t.Context(), account+"-admission-ca", metav1.GetOptions{})
	if err != nil || !strings.HasPrefix(ca.Data["ca.crt"], "-----BEGIN CERTIFICATE-----") {
		t.Errorf("the admission authority = %v, %v", ca, err)
	}
}
