package api

import (
	"context"
	"testing"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/runnerward/runnerward/pkg/cluster"
	"github.com/runnerward/runnerward/pkg/runner"
	simcluster "github.com/runnerward/runnerward/pkg/sim/cluster"
	"github.com/runnerward/runnerward/pkg/sim/world"
	"github.com/runnerward/runnerward/pkg/supervisor"
	"github.com/runnerward/runnerward/test/kube/kubelet"
)

// adapter is pkg/cluster in front of the real API server, for pods of this
// namespace, which has the runners' account.
func adapter(t *testing.T, namespace string) *cluster.Cluster {
	t.Helper()
	return adapterOf(t, admin(t), namespace, nil)
}

func adapterOf(t *testing.T, client kubernetes.Interface, namespace string, change func(*cluster.Options)) *cluster.Cluster {
	t.Helper()
	opts := cluster.Options{
		Namespace: namespace, ServiceAccount: world.ServiceAccount,
		NodeLabels: map[string]string{world.PoolLabelKey: namespace}, Taint: runner.Taint{Key: "workload", Value: "hipaa-runner", Effect: "NoSchedule"},
		RunnerImage:  "ghcr.io/actions/actions-runner@sha256:1111111111111111111111111111111111111111111111111111111111111111",
		AgentImage:   "ghcr.io/runnerward/runnerward-agent@sha256:2222222222222222222222222222222222222222222222222222222222222222",
		AdmissionURL: "https://runnerward-admission." + namespace + ".svc:8443",
		CPU:          "2", Memory: "4Gi", PodTTLSlack: 5 * time.Minute, Cluster: "test", ScaleSet: "hipaa-prod",
	}
	if change != nil {
		change(&opts)
	}
	c, err := cluster.New(client, opts, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// runnersNamespace is a namespace with the runners' account and nothing else.
func runnersNamespace(t *testing.T) string {
	t.Helper()
	name := namespace(t, "restricted")
	makeAccount(t, name, world.ServiceAccount)
	return name
}

func makeAccount(t *testing.T, namespace, name string) {
	t.Helper()
	_, err := admin(t).CoreV1().ServiceAccounts(namespace).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// authorized is the record that pods of these tests are for.
var authorized = runner.DigestOf([]byte("authorized"))

// podSpec is a runner's pod on this node.
func podSpec(name runner.Name, node string) supervisor.PodSpec {
	return supervisor.PodSpec{
		Runner: name, NodeName: node, Authorized: authorized, Cause: "0f5f2a5c-7c7d-4d5e-9f57-7d1f6f6f0001",
		Repository: world.Org + "/" + world.Repository, RunID: 42, RunAttempt: 1, JobTTL: time.Hour,
	}
}

// join lets a node join with a kubelet's rights, for as long as the test goes.
// Its kubelet runs nothing until the test has it run.
func join(t *testing.T, name, pool string) *kubelet.Kubelet {
	t.Helper()
	content, err := planeOf(t).NodeKubeconfig(name)
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(content)
	if err != nil {
		t.Fatal(err)
	}
	k, err := kubelet.Join(t.Context(), kubelet.Options{Config: config, Node: simcluster.NodeSpec{
		Name: name, ProviderID: "aws:///us-east-1a/i-" + name, InternalIP: "10.0.9.9",
		Labels:  map[string]string{world.PoolLabelKey: pool},
		Taints:  []corev1.Taint{{Key: "workload", Value: "hipaa-runner", Effect: corev1.TaintEffectNoSchedule}},
		OSImage: "Bottlerocket OS 1.57.0 (aws-k8s-1.35)", KubeletVersion: "v1.35.2-eks-1a2b3c4", BootID: "boot-" + name, MachineID: "machine-" + name,
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { forget(t, name) })
	return k
}

// forget deletes a node, if it is still there.
func forget(t *testing.T, name string) {
	t.Helper()
	err := admin(t).CoreV1().Nodes().Delete(context.WithoutCancel(t.Context()), name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Error(err)
	}
}
