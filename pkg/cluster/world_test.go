package cluster_test

import (
	"context"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/runnerward/runnerward/pkg/cluster"
	"github.com/runnerward/runnerward/pkg/runner"
	simcluster "github.com/runnerward/runnerward/pkg/sim/cluster"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

const namespace = "gha-runners"

var poolTaint = runner.Taint{Key: "workload", Value: "runner", Effect: "NoSchedule"}

func options() cluster.Options {
	return cluster.Options{
		Namespace: namespace, ServiceAccount: "runner",
		WitnessNamespace: "witness", WitnessServiceAccount: "host",
		NodeLabels: map[string]string{"pool": "prod"}, Taint: poolTaint,
		RunnerImage: "runner.invalid/runner@sha256:aa", AgentImage: "runner.invalid/agent@sha256:bb",
		AdmissionURL: "https://runnerward.runnerward:8443", AdmissionCAConfigMap: "runnerward-ca",
		CPU: "2", Memory: "4Gi", ImagePullSecrets: []string{"registry"}, PodTTLSlack: 5 * time.Minute,
		Cluster: "prod-eu", ScaleSet: "prod-deploy", Organization: "acme", AWSRole: "arn:aws:iam::123456789012:role/runner", EventQueue: 4,
	}
}

func podSpec(name runner.Name) supervisor.PodSpec {
	return supervisor.PodSpec{
		Runner: name, NodeName: "node-1", Authorized: runner.DigestOf([]byte("authorized")),
		Cause: "0f5f2a5c-7c7d-4d5e-9f57-7d1f6f6f0001", Repository: "acme/shop", RunID: 42, RunAttempt: 2, JobTTL: time.Hour,
	}
}

// world is the adapter in front of a pretend cluster with one pool node and a
// node that is not of the pool.
type world struct {
	*cluster.Cluster
	sim    *simcluster.Cluster
	client kubernetes.Interface
	node   *corev1.Node
}

func (w world) host() runner.Host {
	return runner.Host{NodeName: w.node.Name, NodeUID: string(w.node.UID), BootID: w.node.Status.NodeInfo.BootID}
}

func newWorld(t *testing.T, container simcluster.ContainerFunc, connect func(*testing.T, *simcluster.Cluster) kubernetes.Interface, change ...func(*cluster.Options)) world {
	t.Helper()
	sim, err := simcluster.New(simcluster.Options{
		Namespace: namespace, ServiceAccounts: []string{"runner", "other"}, Token: "s3cret", Seed: 7, Container: container,
		ConfigMaps: map[string]map[string]string{"runnerward-ca": {"ca.crt": "PEM"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sim.AddNode(simcluster.NodeSpec{Name: "other-pool"}); err != nil {
		t.Fatal(err)
	}
	node, err := sim.AddNode(simcluster.NodeSpec{
		Name: "node-1", ProviderID: "aws:///eu-west-1a/i-0123456789abcdef0", InternalIP: "10.0.0.7",
		Labels: map[string]string{"pool": "prod"}, Taints: []corev1.Taint{{Key: "workload", Value: "runner", Effect: "NoSchedule"}},
		OSImage: "Bottlerocket OS 1.57.0 (aws-k8s-1.35)", KubeletVersion: "v1.35.1", BootID: "boot-1", MachineID: "machine-1",
	})
	if err != nil {
		t.Fatal(err)
	}
	client := connect(t, sim)
	opts := options()
	for _, f := range change {
		f(&opts)
	}
	c, err := cluster.New(client, opts, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	return world{c, sim, client, node}
}

func inProcess(_ *testing.T, sim *simcluster.Cluster) kubernetes.Interface { return sim.Client() }

func overTLS(t *testing.T, sim *simcluster.Cluster) kubernetes.Interface {
	t.Helper()
	return countedTLS(nil)(t, sim)
}

func countedTLS(requests *cluster.Requests) func(*testing.T, *simcluster.Cluster) kubernetes.Interface {
	return func(t *testing.T, sim *simcluster.Cluster) kubernetes.Interface { return dialTLS(t, sim, requests) }
}

func dialTLS(t *testing.T, sim *simcluster.Cluster, requests *cluster.Requests) kubernetes.Interface {
	t.Helper()
	server := httptest.NewTLSServer(sim.Handler())
	t.Cleanup(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	cfg, err := sim.Kubeconfig(server.URL, ca)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(file, cfg, 0o600); err != nil {
		t.Fatal(err)
	}
	client, err := cluster.NewClient(file, requests)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// both runs a test against the store in this process and over TLS with
// client-go's real REST client.
func both(t *testing.T, test func(*testing.T, world)) {
	t.Run("in process", func(t *testing.T) { test(t, newWorld(t, nil, inProcess)) })
	t.Run("over TLS", func(t *testing.T) { test(t, newWorld(t, nil, overTLS)) })
}

func (w world) pod(t *testing.T, name runner.Name) *corev1.Pod {
	t.Helper()
	pod, err := w.client.CoreV1().Pods(namespace).Get(t.Context(), string(name), metav1.GetOptions{})
	if err != nil {
		t.Fatalf("get pod %s: %v", name, err)
	}
	return pod
}

func (w world) phase(t *testing.T, name runner.Name) runner.Pod {
	t.Helper()
	pod, err := w.Pod(context.WithoutCancel(t.Context()), name)
	if err != nil {
		t.Fatalf("Pod(%s): %v", name, err)
	}
	return pod
}

func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// advance lets time pass in a synctest bubble.
func advance(d time.Duration) { <-time.After(d) }

// brief is a context for a call that would otherwise be repeated for long:
// client-go sends a GET again, up to ten times, when its connection broke.
func brief(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}
