package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/runnerward/runnerward/pkg/hosts"
	"github.com/runnerward/runnerward/pkg/runner"
	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
	simkarpenter "github.com/runnerward/runnerward/pkg/sim/karpenter"
	"github.com/runnerward/runnerward/test/kube/plane"
)

// karpenterBench is a cluster with Karpenter's definitions and its stand-in.
type karpenterBench struct {
	t     *testing.T
	plane *plane.Plane
	admin dynamic.Interface
	core  kubernetes.Interface
	cloud *ec2
	token string
}

// newKarpenterBench takes Karpenter's own controllers, or the stand-in.
func newKarpenterBench(t *testing.T, p *plane.Plane, own bool) *karpenterBench {
	t.Helper()
	b := &karpenterBench{t: t, plane: p}
	var errs [2]error
	b.admin, errs[0] = dynamic.NewForConfig(p.Admin)
	b.core, errs[1] = p.Client()
	b.must(errors.Join(errs[:]...))
	texts, err := simkarpenter.Definitions()
	b.must(err)
	for _, text := range texts {
		crd := &unstructured.Unstructured{}
		b.must(yaml.Unmarshal(text, &crd.Object))
		_, err := b.admin.Resource(crdResource).Create(t.Context(), crd, metav1.CreateOptions{})
		b.must(err)
	}
	b.until("the definitions are served", func() bool {
		for _, of := range []schema.GroupVersionResource{claimResource, classResource} {
			if _, err := b.admin.Resource(of).List(t.Context(), metav1.ListOptions{}); err != nil {
				return false
			}
		}
		return true
	})
	class := b.nodeClass()
	b.cloud = newEC2(b.core, class)
	if own {
		b.own()
		return b
	}
	karpenter := simkarpenter.NewController(b.admin, b.core, b.cloud, simkarpenter.Options{Cluster: "hipaa-prod-east"})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		karpenter.Run(ctx, 200*time.Millisecond)
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return b
}

func (b *karpenterBench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *karpenterBench) until(what string, ok func() bool) {
	b.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if ok() {
			return
		}
		select {
		case <-b.t.Context().Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
	b.t.Fatalf("not within a minute: %s", what)
}

// nodeClass makes the one of docs/install.md, with the status that Karpenter gives it.
func (b *karpenterBench) nodeClass() *unstructured.Unstructured {
	b.t.Helper()
	doc, err := os.ReadFile("../../../docs/install.md")
	b.must(err)
	_, rest, found := bytes.Cut(doc, []byte("```yaml\napiVersion: karpenter.k8s.aws/v1\n"))
	text, _, ended := bytes.Cut(rest, []byte("```"))
	if !found || !ended {
		b.t.Fatal("docs/install.md has no EC2NodeClass")
	}
	class := &unstructured.Unstructured{}
	b.must(yaml.Unmarshal(append([]byte("apiVersion: karpenter.k8s.aws/v1\n"), text...), &class.Object))
	made, err := b.admin.Resource(classResource).Create(b.t.Context(), class, metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict})
	b.must(err)
	made.Object["status"] = map[string]any{
		"instanceProfile": "hipaa-prod-runners", "subnets": []any{map[string]any{"id": hostSubnet, "zone": "us-east-1a"}},
		"conditions": []any{map[string]any{
			"type": "Ready", "status": "True", "reason": "Ready", "message": "", "observedGeneration": made.GetGeneration(),
			"lastTransitionTime": time.Now().UTC().Format(time.RFC3339),
		}},
	}
	made, err = b.admin.Resource(classResource).UpdateStatus(b.t.Context(), made, metav1.UpdateOptions{})
	b.must(err)
	return made
}

// own starts Karpenter's controllers, which test/kube/build.sh built, as a process.
// The AWS provider's part is the simulated cloud's.
func (b *karpenterBench) own() {
	b.t.Helper()
	binary := filepath.Join(os.Getenv(binaries), "karpenter")
	texts, err := exec.CommandContext(b.t.Context(), binary, "crds").Output()
	if err != nil {
		b.t.Fatalf("Karpenter's controllers cannot be run: %v (test/kube/build.sh api)", err)
	}
	for text := range bytes.SplitSeq(texts, []byte("\n---\n")) {
		crd := &unstructured.Unstructured{}
		b.must(yaml.Unmarshal(text, &crd.Object))
		if len(crd.Object) == 0 {
			continue
		}
		if _, err := b.admin.Resource(crdResource).Create(b.t.Context(), crd, metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
			b.must(err)
		}
	}
	cloud := httptest.NewServer(b.cloud)
	b.t.Cleanup(cloud.Close)
	var log bytes.Buffer
	cmd := exec.Command(binary)
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.Env = append(os.Environ(), "KUBECONFIG="+b.plane.AdminKubeconfig(), "KARPENTER_CLOUD="+cloud.URL,
		"DISABLE_LEADER_ELECTION=true", "METRICS_PORT=0", "HEALTH_PROBE_PORT=0")
	b.must(cmd.Start())
	b.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // and then says that it was killed
		if b.t.Failed() {
			b.t.Logf("Karpenter says:\n%s", log.String())
		}
	})
}

// account is the daemon's, with the rights that the chart's ClusterRole gives it;
// those on Karpenter's resources are the driver's alone.
func (b *karpenterBench) account(karpenter bool) (token string) {
	b.t.Helper()
	ctx := b.t.Context()
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: daemonAccount}, Rules: chartRules(b.t)}
	if !karpenter {
		role.Rules = slices.DeleteFunc(role.Rules, func(r rbacv1.PolicyRule) bool { return strings.HasPrefix(r.APIGroups[0], "karpenter.") })
	}
	_, err := b.core.RbacV1().ClusterRoles().Create(ctx, role, metav1.CreateOptions{})
	b.must(err)
	_, err = b.core.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: daemonAccount},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: daemonAccount},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "default", Name: daemonAccount}},
	}, metav1.CreateOptions{})
	b.must(err)
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: daemonAccount}}
	_, err = b.core.CoreV1().ServiceAccounts("default").Create(ctx, account, metav1.CreateOptions{})
	b.must(err)
	got, err := b.core.CoreV1().ServiceAccounts("default").CreateToken(ctx, daemonAccount, &authv1.TokenRequest{}, metav1.CreateOptions{})
	b.must(err)
	b.token = got.Status.Token
	return b.token
}

var action = regexp.MustCompile(`\{\{-?[^}]*\}\}`)

// chartRules are those of the chart's ClusterRole, whatever its conditions.
func chartRules(t *testing.T) []rbacv1.PolicyRule {
	t.Helper()
	text, err := os.ReadFile("../../../helm/runnerward/templates/rbac.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for doc := range strings.SplitSeq(string(text), "\n---\n") {
		var lines []string
		for line := range strings.Lines(doc) {
			if !strings.HasPrefix(strings.TrimSpace(line), "{{") {
				lines = append(lines, action.ReplaceAllString(line, "x"))
			}
		}
		var role rbacv1.ClusterRole
		if err := yaml.Unmarshal([]byte(strings.Join(lines, "")), &role); err == nil && role.Kind == "ClusterRole" {
			return role.Rules
		}
	}
	t.Fatal("the chart has no ClusterRole")
	return nil
}

func (b *karpenterBench) driver(token string, change func(*hosts.KarpenterOptions)) *hosts.Karpenter {
	b.t.Helper()
	api, err := hosts.NewNodeClaims(&rest.Config{Host: b.plane.URL, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{CAData: b.plane.CA}})
	b.must(err)
	made := 0
	opt := hosts.KarpenterOptions{
		Region: "us-east-1", Pool: karpenterPool, NodeClass: karpenterClass, Max: 2, RegisterBy: 10 * time.Minute, TerminationGracePeriod: 3 * time.Hour,
		NewName:       func() string { made++; return fmt.Sprintf("%s-%d-%d", karpenterPool, time.Now().UnixNano(), made) },
		Requirements:  []hosts.Requirement{{Key: corev1.LabelArchStable, Operator: "In", Values: []string{"amd64"}}},
		StartupTaints: []runner.Taint{},
		Rules: runner.VetRules{
			Provider: "aws", NodeClaims: true, Labels: map[string]string{poolLabel: karpenterPool},
			Taint:   runner.Taint{Key: "workload", Value: "hipaa-runner", Effect: "NoSchedule"},
			Subnets: []string{hostSubnet}, Profiles: []string{hostProfile}, ImageNames: []string{"bottlerocket-aws-k8s-"},
			InstanceTags: map[string]string{"Compliance": "HIPAA", "Boundary": "production"},
		},
	}
	if change != nil {
		change(&opt)
	}
	driver, err := hosts.NewKarpenter(aws.Config{
		Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", ""),
		HTTPClient: &http.Client{Transport: straight{b.cloud.sim}}, BaseEndpoint: aws.String("https://aws.example"),
	}, api, opt)
	b.must(err)
	return driver
}

func (b *karpenterBench) claims() []unstructured.Unstructured {
	b.t.Helper()
	list, err := b.admin.Resource(claimResource).List(b.t.Context(), metav1.ListOptions{})
	b.must(err)
	return list.Items
}

func (b *karpenterBench) claim() *unstructured.Unstructured {
	b.t.Helper()
	list := b.claims()
	if len(list) != 1 {
		b.t.Fatalf("%d NodeClaims, want 1", len(list))
	}
	return &list[0]
}

// stateOf is the driver's view of the only host, empty before there is one.
func (b *karpenterBench) stateOf(driver *hosts.Karpenter) runner.NodeClaimState {
	for _, in := range b.cloud.sim.Instances() {
		found, err := driver.Describe(b.t.Context(), []string{in.ID})
		if err == nil && found[in.ID].NodeClaim != nil {
			return found[in.ID].NodeClaim.State
		}
	}
	return ""
}

// undisturbed makes a pod on the host as the daemon's: it may not be disrupted.
func (b *karpenterBench) undisturbed(claim *unstructured.Unstructured) (name string) {
	b.t.Helper()
	node, _, _ := unstructured.NestedString(claim.Object, "status", "nodeName")
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "runner", Annotations: map[string]string{"karpenter.sh/do-not-disrupt": "true"}},
		Spec: corev1.PodSpec{
			NodeName: node, Containers: []corev1.Container{{Name: "runner", Image: "runner.invalid/runner"}},
			Tolerations: []corev1.Toleration{{Key: "workload", Operator: corev1.TolerationOpExists}},
		},
	}
	b.until("the default account is there", func() bool {
		_, err := b.core.CoreV1().Pods("default").Create(b.t.Context(), pod, metav1.CreateOptions{})
		return err == nil
	})
	return pod.Name
}

func (b *karpenterBench) tainted(claim *unstructured.Unstructured, taint string) bool {
	name, _, _ := unstructured.NestedString(claim.Object, "status", "nodeName")
	node, err := b.core.CoreV1().Nodes().Get(b.t.Context(), name, metav1.GetOptions{})
	return err == nil && slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == taint })
}

// checkAudit compares the rights on Karpenter's resources with what was asked for.
func (b *karpenterBench) checkAudit(p *plane.Plane) {
	b.t.Helper()
	log, err := p.Audit()
	b.must(err)
	asked := map[string]bool{}
	for _, r := range log {
		if r.User.Username != "system:serviceaccount:default:"+daemonAccount {
			continue
		}
		if r.ResponseStatus.Code == http.StatusForbidden {
			b.t.Errorf("refused: %s %s %s", r.Verb, r.ObjectRef.Resource, r.ObjectRef.Name)
		}
		if strings.HasPrefix(r.ObjectRef.APIGroup, "karpenter.") {
			asked[r.ObjectRef.Resource+" "+r.Verb] = true
		}
	}
	for _, rule := range chartRules(b.t) {
		for _, verb := range rule.Verbs {
			if right := rule.Resources[0] + " " + verb; strings.HasPrefix(rule.APIGroups[0], "karpenter.") && !asked[right] {
				b.t.Errorf("the right to %s was never used", right)
			}
		}
	}
}

// ec2 is the simulated cloud, whose machines join this cluster as nodes.
type ec2 struct {
	sim    *simaws.Server
	core   kubernetes.Interface
	class  *unstructured.Unstructured
	orders chan simkarpenter.Launch
}

func newEC2(core kubernetes.Interface, class *unstructured.Unstructured) *ec2 {
	e := &ec2{core: core, class: class, orders: make(chan simkarpenter.Launch, 16)}
	e.sim = simaws.New(simaws.Config{
		Region: "us-east-1", AccountID: "111122223333", AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "secret",
		LaunchTime: time.Second, ShuttingDown: time.Second, OnLaunch: e.join,
	})
	return e
}

// ServeHTTP is the cloud of Karpenter's own controllers (test/kube/karpenter). The
// AWS provider tags a machine with its NodeClaim by a controller of its own, which
// is done here at the launch.
func (e *ec2) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var answer any
	body, err := io.ReadAll(r.Body)
	switch r.URL.Path {
	case "/launch":
		nodeClaim := &unstructured.Unstructured{}
		if err = errors.Join(err, json.Unmarshal(body, &nodeClaim.Object)); err == nil {
			order := simkarpenter.Order(nodeClaim, e.class, "hipaa-prod-east")
			order.Tags["karpenter.sh/nodeclaim"] = nodeClaim.GetName()
			answer, err = e.Launch(order)
		}
	case "/machines":
		answer = e.Machines()
	case "/terminate":
		var id string
		if err = errors.Join(err, json.Unmarshal(body, &id)); err == nil {
			err = e.Terminate(id)
		}
	}
	if err == nil {
		body, err = json.Marshal(answer)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(body)
}

// join registers a machine as its kubelet would, in the order of their launches.
func (e *ec2) join(in simaws.Instance) {
	order := <-e.orders
	order.Labels[corev1.LabelHostname] = in.PrivateDNS
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: in.PrivateDNS, Labels: order.Labels},
		Spec:       corev1.NodeSpec{ProviderID: in.ProviderID(), Taints: order.Taints},
	}
	nodes := e.core.CoreV1().Nodes()
	_, err := nodes.Create(context.Background(), node, metav1.CreateOptions{})
	if err == nil {
		// A patch, as kubelets send it: controllers write to the new node too.
		ready := []byte(`{"status":{"conditions":[{"type":"Ready","status":"True"}]}}`)
		_, err = nodes.PatchStatus(context.Background(), node.Name, ready)
	}
	if err != nil {
		panic(fmt.Sprintf("instance %s cannot join: %v", in.ID, err)) // a mistake of the test
	}
}

func (e *ec2) Launch(order simkarpenter.Launch) (simkarpenter.Machine, error) {
	e.orders <- order
	id := e.sim.AddInstance(simaws.Group{
		SubnetIDs: []string{hostSubnet}, ImageID: "ami-0123456789abcdef0", ImageName: "bottlerocket-aws-k8s-1.35-x86_64-v1.57.0-abcdef01",
		ImageOwnerAlias: "amazon", ImageOwnerID: "092701018921", InstanceType: "m6i.large", Tags: order.Tags,
		HTTPTokens: "required", HopLimit: 1, BootMode: "uefi", Profile: hostProfile,
	})
	for _, m := range e.Machines() {
		if m.ID == id {
			return m, nil
		}
	}
	return simkarpenter.Machine{}, errors.New("launched, and not listed")
}

func (e *ec2) Machines() []simkarpenter.Machine {
	var out []simkarpenter.Machine
	for _, in := range e.sim.Instances() {
		if in.State != "terminated" {
			out = append(out, simkarpenter.Machine{
				ID: in.ID, ProviderID: in.ProviderID(), ImageID: in.ImageID, InstanceType: in.InstanceType, Zone: in.Zone,
				LaunchedAt: in.LaunchedAt, Ending: in.State == "shutting-down", Tags: in.Tags,
			})
		}
	}
	return out
}

func (e *ec2) Terminate(id string) error                   { return e.sim.Terminate(id) }
func (e *ec2) Tag(id string, tags map[string]string) error { return e.sim.Tag(id, tags) }

// straight carries requests to a handler of this process.
type straight struct{ handler http.Handler }

func (s straight) RoundTrip(out *http.Request) (*http.Response, error) {
	in := out.Clone(out.Context())
	if in.Host == "" {
		in.Host = out.URL.Host
	}
	if in.Body == nil {
		in.Body = io.NopCloser(bytes.NewReader(nil))
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, in)
	return w.Result(), nil
}
