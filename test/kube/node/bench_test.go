//go:build linux

package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
	"github.com/runnerward/runnerward/pkg/sim/stage"
	"github.com/runnerward/runnerward/pkg/sim/world"
	"github.com/runnerward/runnerward/test/kube/plane"
)

// binaries names the folder that test/kube/build.sh filled.
const binaries = "RUNNERWARD_KUBE"

// lease is how long GitHub waits for a silent runner: it is asked for here, and
// the stand-in renews ten times in its life.
const lease = 8 * time.Second

// bench is a world with real hosts and a daemon in it.
type bench struct {
	*stage.Stage
	t      *testing.T
	plane  *plane.Plane
	client kubernetes.Interface
	fleet  *fleet
	daemon *stage.Daemon
	dir    string
	images map[string]string
	// releases counts the tags that were pushed.
	releases int
}

// ubuntu is what the first host says it runs.
const ubuntu = "Ubuntu 24.04.3 LTS"

// legacy is a group of the pool that somebody moved to another image.
const legacy = "hipaa-prod-legacy"

func newBench(t *testing.T) *bench {
	t.Helper()
	bin, err := filepath.Abs(os.Getenv(binaries))
	if err != nil {
		t.Fatal(err)
	}
	tree, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv("RUNNERWARD_SANDBOX") != "inside" {
		t.Fatal("this makes bridges and hosts: run it in test/kube/sandbox.sh, as 'make test-node' does")
	}
	dir := t.TempDir()
	b := &bench{t: t, dir: dir, images: map[string]string{}}
	t.Cleanup(func() {
		if t.Failed() {
			b.keep() // the last thing before the folder goes
		}
	})
	for _, name := range []string{"agent", "runner"} {
		content, err := os.ReadFile(filepath.Join(bin, "images", name+".name"))
		if err != nil {
			t.Fatalf("the images are missing: %v (test/kube/build.sh node)", err)
		}
		b.images[name] = strings.TrimSpace(string(content))
	}
	if err := MakeNetwork(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.startPlane(bin, filepath.Join(dir, "plane"))
	b.fleet = &fleet{
		bin: bin, tree: tree, dir: filepath.Join(dir, "hosts"), plane: b.plane, client: b.client, hosts: map[string]*Host{},
		system: func(n int) string {
			if n == 0 {
				return ubuntu
			}
			return bottlerocket
		},
	}
	t.Cleanup(func() { b.fleet.close(t) })
	b.startStage(filepath.Join(dir, "stage"), filepath.Join(filepath.Dir(bin), "runnerward"))
	return b
}

// keep copies the logs to where they outlive the test.
func (b *bench) keep() {
	to := os.Getenv("RUNNERWARD_KEEP")
	if to == "" {
		return
	}
	for _, what := range []string{"stage/*.log", "plane/log", "hosts/*/log"} {
		found, _ := filepath.Glob(filepath.Join(b.dir, what)) // the patterns are good
		for _, from := range found {
			target := filepath.Join(to, filepath.Dir(strings.TrimPrefix(from, b.dir)))
			if err := errors.Join(os.MkdirAll(target, 0o755), run(context.Background(), "cp", "-a", from, target)); err != nil {
				b.t.Log(err)
			}
		}
	}
	b.t.Logf("the logs are in %s", to)
}

func (b *bench) startPlane(bin, dir string) {
	b.t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		b.t.Fatal(err)
	}
	var err error
	b.plane, err = plane.Start(b.t.Context(), plane.Options{
		Bin: bin, Dir: dir, Address: Gateway,
		// A lost node is seen lost after seconds.
		Controllers: []string{"--node-monitor-period=1s", "--node-monitor-grace-period=6s"},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if err := b.plane.Stop(); err != nil {
			b.t.Error(err)
		}
	})
	if b.client, err = b.plane.Client(); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) startStage(dir, binary string) {
	t := b.t
	t.Helper()
	kubeconfig, err := os.ReadFile(b.plane.AdminKubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	b.Stage, err = stage.New(t.Context(), stage.Options{
		Dir: dir, Binary: binary, Address: Gateway, Kubeconfig: kubeconfig,
		World: func(o *world.Options) {
			o.Join, o.Leave, o.Lease, o.Hosts = b.fleet.join, b.fleet.leave, lease, 5
			o.Boot = 100 * time.Millisecond // the kubelet takes its time itself
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	b.World.AWS.AddGroup(simaws.Group{
		Name: legacy, Min: 1, Max: 1, Desired: 1, SubnetIDs: []string{world.Subnet},
		ImageID: "ami-0d0c0b0a090807060", ImageName: "amazon-eks-node-al2023-x86_64-standard-1.35-v20260901",
		ImageOwnerAlias: "amazon", ImageOwnerID: "602401143452", InstanceType: "m6i.large", Tags: map[string]string{"Compliance": "HIPAA"},
		HTTPTokens: "required", HopLimit: 1, BootMode: "uefi", Profile: world.Profile,
	})
	b.populate()
	b.nodesReady(6)
	b.serve(t, "runnerward", nil)
}

// populate makes what the chart installs.
func (b *bench) populate() {
	ctx, t := b.t.Context(), b.t
	t.Helper()
	_, err := b.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: world.Namespace, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.client.CoreV1().ServiceAccounts(world.Namespace).Create(ctx, &corev1.ServiceAccount{
		ObjectMeta: metav1.ObjectMeta{Name: world.ServiceAccount},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.client.CoreV1().ConfigMaps(world.Namespace).Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: world.CAConfigMap}, Data: map[string]string{"ca.crt": string(b.CA.PEM)},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func (b *bench) nodesReady(want int) {
	b.t.Helper()
	b.until(b.t, fmt.Sprintf("%d nodes are ready", want), func() bool {
		nodes, err := b.client.CoreV1().Nodes().List(b.t.Context(), metav1.ListOptions{})
		if err != nil {
			return false
		}
		ready := 0
		for _, n := range nodes.Items {
			if isReady(n) {
				ready++
			}
		}
		return ready >= want
	})
}

func isReady(n corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// until polls a condition.
func (b *bench) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	if err := b.Until(t.Context(), what, patience, func() (bool, error) { return ok(), nil }); err != nil {
		t.Fatal(err)
	}
}

// serve starts another daemon on the stage's ledger, once the one before ended.
func (b *bench) serve(t *testing.T, name string, change func(stage.Config)) {
	t.Helper()
	if b.daemon != nil {
		if err := b.daemon.End(); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	b.daemon, err = b.NewDaemon(name, func(c stage.Config) {
		c.Set("cluster.runnerImage", b.images["runner"])
		c.Set("cluster.agentImage", b.images["agent"])
		c.Set("cluster.cpu", "250m")
		c.Set("cluster.memory", "64Mi")
		c.Set("hosts.groups", []string{world.NodeGroup, legacy})
		if change != nil {
			change(c)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	b.begin(t)
}

// begin starts the daemon, again or for the first time.
func (b *bench) begin(t *testing.T) {
	t.Helper()
	if err := errors.Join(b.daemon.Start(), b.daemon.Ready(t.Context())); err != nil {
		t.Fatal(err)
	}
}
