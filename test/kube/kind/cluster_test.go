package kind

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/runnerward/runnerward/pkg/sim/world"
)

const (
	// clusterName and network are what kind and docker know ours by.
	clusterName = "runnerward"
	network     = "runnerward"
	controller  = clusterName + "-control-plane"
	firstWorker = clusterName + "-worker"

	// The network of the nodes is the subnet of the simulated VPC, so that a
	// node has the address that EC2 tells of its instance. kind's own choice of
	// addresses is kept apart from those of instances.
	subnet   = "10.0.0.0/16"
	gateway  = "10.0.0.1"
	freeOnes = "10.0.255.0/24"

	ownImage = "runnerward.test/node:current"
)

// cluster is a kind cluster and what it runs on.
type cluster struct {
	shell
	image string // of its nodes, empty before the start for the one built here
	own   bool   // it is that one, which has no pod network, and so is docker
	// networked and made say what there is of ours on the user's own docker: what
	// was there before has the same name and is left alone.
	networked, made bool
	docker          *exec.Cmd
	rest            *rest.Config
	client          kubernetes.Interface
}

// start finds docker, or starts one whose data ends with this run, and makes the
// network.
func (c *cluster) start(ctx context.Context) error {
	if c.image == "" {
		c.image, c.own = ownImage, true
		if err := c.startDocker(ctx); err != nil {
			return err
		}
		if err := c.importImage(ctx); err != nil {
			return err
		}
	}
	_, err := c.run(ctx, "docker", "network", "create", "--subnet", subnet, "--ip-range", freeOnes, "--gateway", gateway, network)
	c.networked = err == nil
	return err
}

// startDocker starts a daemon in the sandbox. Debian's own containerd and runc
// go with it, not those that the nodes have.
func (c *cluster) startDocker(ctx context.Context) error {
	clamp, err := c.find("runc-clamp")
	if err != nil {
		return err
	}
	log, err := os.Create(c.file("dockerd.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	c.docker = exec.Command("/usr/sbin/dockerd", "--data-root", c.file("docker"), "--exec-root", "/run/docker", "--pidfile", "/run/docker.pid",
		"--host", "unix:///run/docker.sock", "--storage-driver", "overlay2", "--add-runtime", "clamp="+clamp, "--default-runtime", "clamp")
	c.docker.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "RUNC=/usr/sbin/runc"}
	c.docker.Stdout, c.docker.Stderr = log, log
	if err := c.docker.Start(); err != nil {
		return fmt.Errorf("start dockerd: %w", err)
	}
	c.env = append(c.env, "DOCKER_HOST=unix:///run/docker.sock", "DOCKER_BUILDKIT=0")
	return until(ctx, "dockerd answers (see dockerd.log)", 30*time.Second, func(ctx context.Context) (bool, error) {
		_, err := c.run(ctx, "docker", "version")
		return err == nil, err
	})
}

// importImage reads the node image that test/kube/node-image.sh made.
func (c *cluster) importImage(ctx context.Context) error {
	_, err := c.run(ctx, "bash", "-euo", "pipefail", "-c", `zstd -dcq <"$1" | docker import --change "ENV container=docker" \
		--change 'ENTRYPOINT ["/usr/local/bin/entrypoint","/sbin/init"]' - "$2"`, "sh", filepath.Join(c.bin, "node.tar.zst"), c.image)
	return err
}

// create makes the control plane and the first host. The cluster is not ready
// when it returns: our own image has no pod network.
func (c *cluster) create(ctx context.Context, first host) error {
	if err := os.WriteFile(c.file("os-release"), []byte(osRelease), 0o644); err != nil {
		return err
	}
	unit, err := c.writeUnit(first)
	if err != nil {
		return err
	}
	config := c.file("cluster.yaml")
	if err := os.WriteFile(config, []byte(c.config(first, unit)), 0o600); err != nil {
		return err
	}
	clusters, err := c.run(ctx, "kind", "get", "clusters")
	if err != nil {
		return err
	}
	if slices.Contains(strings.Fields(clusters), clusterName) {
		return fmt.Errorf("there is a kind cluster called %s: delete it with \"kind delete cluster --name %[1]s\" if it is of no use", clusterName)
	}
	c.made = true
	if _, err := c.run(ctx, "kind", "create", "cluster", "--name", clusterName, "--image", c.image, "--config", config,
		"--kubeconfig", c.file("kubeconfig"), "--wait", "0s", "--retain"); err != nil {
		return err
	}
	if c.rest, err = clientcmd.BuildConfigFromFlags("", c.file("kubeconfig")); err != nil {
		return err
	}
	c.rest.QPS, c.rest.Burst, c.rest.WarningHandler = 50, 100, rest.NoWarnings{}
	if c.client, err = kubernetes.NewForConfig(c.rest); err != nil {
		return err
	}
	return c.plug(ctx, controller, controller)
}

// config is kind's. Patches of lists replace them, so the arguments of the
// kubelet are all here.
func (c *cluster) config(first host, unit string) string {
	kubelet := "failSwapOn: false"
	if c.own {
		// The image says why. A kubelet that finds version 1 of control groups
		// ends unless it is told not to.
		kubelet += "\n  failCgroupV1: false\n  cgroupDriver: cgroupfs"
	}
	return fmt.Sprintf(`kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
networking: {disableDefaultCNI: %t, kubeProxyMode: nftables}
kubeadmConfigPatches:
- |
  kind: KubeletConfiguration
  %s
nodes:
- role: control-plane
  extraMounts:
  - &images {hostPath: %s, containerPath: /images, readOnly: true}
- role: worker
  kubeadmConfigPatches:
  - |
    kind: JoinConfiguration
    nodeRegistration: %s
  extraMounts:
  - *images
  - {hostPath: %s, containerPath: /usr/lib/os-release, readOnly: true}
  - {hostPath: %s, containerPath: %s, readOnly: true}
`, c.own, kubelet, c.file("images"), first.registration(), c.file("os-release"), unit, unitFile)
}

// in runs a program in a node's container.
func (c *cluster) in(ctx context.Context, container string, args ...string) (string, error) {
	return c.run(ctx, append([]string{"docker", "exec", container}, args...)...)
}

// write makes a file in a node's container.
func (c *cluster) write(ctx context.Context, container, file, content string) error {
	_, err := c.feed(ctx, strings.NewReader(content), "docker", "exec", "-i", container, "sh", "-euc", `mkdir -p "$(dirname "$1")"; cat >"$1"`, "sh", file)
	return err
}

// end ends what was started. Of docker's data nothing is kept.
func (c *cluster) end(ctx context.Context) error {
	if !c.own {
		var err, networkErr error
		if c.made {
			_, err = c.run(ctx, "kind", "delete", "cluster", "--name", clusterName)
		}
		if c.networked {
			_, networkErr = c.run(ctx, "docker", "network", "rm", network)
		}
		return errors.Join(err, networkErr)
	}
	if c.docker == nil || c.docker.Process == nil {
		return nil
	}
	containers, err := c.run(ctx, "docker", "ps", "-aq")
	if err == nil && containers != "" {
		_, err = c.run(ctx, append([]string{"docker", "rm", "--force", "--volumes"}, strings.Fields(containers)...)...)
	}
	err = errors.Join(err, c.docker.Process.Signal(syscall.SIGTERM))
	_ = c.docker.Wait() // it was told to end
	return errors.Join(err, os.RemoveAll(c.file("docker")))
}

// dump keeps what explains a failure, for whoever reads the test's output.
func (c *cluster) dump(ctx context.Context) string {
	var out strings.Builder
	for _, args := range [][]string{
		{"docker", "ps", "-a", "--format", "{{.Names}} {{.Status}}"},
		{"kubectl", "get", "nodes", "-o", "wide"},
		{"kubectl", "get", "pods", "-A", "-o", "wide"},
		{"kubectl", "-n", world.Namespace, "get", "events", "--sort-by=.lastTimestamp"},
		{"kubectl", "-n", world.Namespace, "logs", "-l", "app.kubernetes.io/component=supervisor", "--tail=80", "--prefix", "--pod-running-timeout=1s"},
		{"kubectl", "-n", world.Namespace, "logs", "-l", "app.kubernetes.io/component=supervisor", "--previous", "--tail=40", "--prefix", "--pod-running-timeout=1s"},
		{"kubectl", "-n", world.Namespace, "logs", "-l", "app.kubernetes.io/component=runner", "--tail=40", "--prefix"},
	} {
		bounded, cancel := context.WithTimeout(ctx, 15*time.Second)
		said, err := c.run(bounded, args...)
		cancel()
		if err != nil {
			said += err.Error()
		}
		fmt.Fprintf(&out, "--- %s\n%s\n", strings.Join(args, " "), said)
	}
	return out.String()
}

// podNetwork is the file that gives a node's pods their addresses.
func podNetwork(cidr string) string {
	return fmt.Sprintf(`{"cniVersion":"1.0.0","name":"ptp","plugins":[
{"type":"ptp","ipMasq":true,"ipam":{"type":"host-local","dataDir":"/run/cni-ipam-state","ranges":[[{"subnet":%q}]],"routes":[{"dst":"0.0.0.0/0"}]}},
{"type":"portmap","capabilities":{"portMappings":true}}]}
`, cidr)
}

const cniFile = "/etc/cni/net.d/10-ptp.conflist"

// osRelease is what the kubelets of hosts report as their system.
const osRelease = `NAME=Bottlerocket
ID=bottlerocket
VERSION="1.57.0 (aws-k8s-1.37)"
PRETTY_NAME="Bottlerocket OS 1.57.0 (aws-k8s-1.37)"
VARIANT_ID=aws-k8s-1.37
VERSION_ID=1.57.0
`
