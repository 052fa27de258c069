package kind

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
	"github.com/runnerward/runnerward/pkg/sim/world"
)

// host is an instance as a node of the cluster.
type host struct {
	node, container   string
	address, provider string
}

func hostOf(in simaws.Instance) host {
	return host{node: in.PrivateDNS, container: in.ID, address: in.PrivateIP, provider: in.ProviderID()}
}

// registration is what makes the kubelet report the instance: kubeadm's
// nodeRegistration, which is what EKS's bootstrap sets too.
func (h host) registration() string {
	type arg struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	text, err := json.Marshal(map[string]any{
		"name": h.node, "criSocket": "unix:///run/containerd/containerd.sock",
		"taints": []map[string]string{{"key": "workload", "value": "hipaa-runner", "effect": "NoSchedule"}},
		"kubeletExtraArgs": []arg{
			{"node-ip", h.address}, {"provider-id", h.provider}, {"node-labels", world.PoolLabelKey + "=" + world.PoolLabelValue},
		},
	})
	if err != nil {
		panic(err) // of strings
	}
	return string(text)
}

// unit is done before the host's kubelet starts. The address is that of its
// instance, which kind cannot be told; a container that was started with it has it
// already. And the host gets a boot id of its own: containers of one machine see
// that of the machine, and a host with one that served is not used again.
func (h host) unit() string {
	return fmt.Sprintf(`[Service]
ExecStartPre=/bin/sh -c 'ip address replace %s/16 dev eth0'
ExecStartPre=/bin/sh -c '[ -e /run/boot-id ] || { cat /proc/sys/kernel/random/uuid >/run/boot-id && mount --bind /run/boot-id /proc/sys/kernel/random/boot_id; }'
`, h.address)
}

// writeUnit keeps it where the container mounts it from.
func (c *cluster) writeUnit(h host) (file string, err error) {
	file = c.file(h.container + ".conf")
	return file, os.WriteFile(file, []byte(h.unit()), 0o644)
}

const unitFile = "/etc/systemd/system/kubelet.service.d/05-host.conf"

// fleet turns instances into nodes. An instance that is launched becomes a new
// container of the node image that joins with kubeadm, and one that is
// terminated loses it, disk and all, and its Node object, which is the part of
// AWS's cloud controller.
type fleet struct {
	*cluster
	first  string // the instance whose node kind made
	opened chan struct{}
	work   sync.WaitGroup

	mu       sync.Mutex
	booted   map[string]chan struct{} // by instance, closed when it is up or given up
	joining  []string                 // kubeadm's arguments
	problems []error
}

func newFleet(c *cluster) *fleet {
	return &fleet{cluster: c, opened: make(chan struct{}), booted: map[string]chan struct{}{}}
}

// hooks are told of instances; they return at once. What they begin ends with
// the context.
func (f *fleet) hooks(ctx context.Context) (join, leave func(simaws.Instance)) {
	return func(in simaws.Instance) {
			up := make(chan struct{})
			f.mu.Lock()
			f.booted[in.ID] = up
			f.mu.Unlock()
			f.work.Go(func() {
				defer close(up)
				select {
				case <-f.opened:
					f.note(f.boot(ctx, in))
				case <-ctx.Done():
				}
			})
		}, func(in simaws.Instance) {
			f.mu.Lock()
			up := f.booted[in.ID]
			f.mu.Unlock()
			f.work.Go(func() {
				<-up
				f.note(f.remove(ctx, hostOf(in)))
			})
		}
}

func (f *fleet) note(err error) {
	if err == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.problems = append(f.problems, err)
}

// trouble is why the world is not as it should be, nil if it is.
func (f *fleet) trouble() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return errors.Join(f.problems...)
}

// open lets hosts join.
func (f *fleet) open(ctx context.Context) error {
	command, err := f.in(ctx, controller, "kubeadm", "token", "create", "--print-join-command")
	if err != nil {
		return err
	}
	f.joining = strings.Fields(command)
	close(f.opened)
	return nil
}

// boot is an instance's start, from its image to a node that is ready.
func (f *fleet) boot(ctx context.Context, in simaws.Instance) error {
	h := hostOf(in)
	if in.ID == f.first {
		if _, err := f.run(ctx, "docker", "rename", firstWorker, h.container); err != nil {
			return err
		}
	} else if err := f.launch(ctx, h); err != nil {
		return fmt.Errorf("launch %s: %w", in.ID, err)
	}
	// A host has its images before it joins, as with a volume of Bottlerocket's.
	for _, load := range [][]string{importAgent, importRunner} {
		if _, err := f.in(ctx, h.container, load...); err != nil {
			return fmt.Errorf("give %s its images: %w", in.ID, err)
		}
	}
	if in.ID != f.first {
		if _, err := f.in(ctx, h.container, "kubeadm", "join", "--config", "/kind/join.yaml"); err != nil {
			return fmt.Errorf("join %s: %w", in.ID, err)
		}
	}
	return f.plug(ctx, h.container, h.node)
}

// launch starts a container as kind does: pkg/cluster/internal/providers/docker.
func (f *fleet) launch(ctx context.Context, h host) error {
	unit, err := f.writeUnit(h)
	if err != nil {
		return err
	}
	_, err = f.run(ctx, "docker", "run", "--name", h.container, "--hostname", h.node, "--network", network, "--ip", h.address,
		"--label", "io.x-k8s.kind.cluster="+clusterName, "--label", "io.x-k8s.kind.role=worker",
		"--privileged", "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined",
		"--tmpfs", "/tmp", "--tmpfs", "/run", "--volume", "/var", "--volume", "/lib/modules:/lib/modules:ro",
		"--volume", f.file("os-release")+":/usr/lib/os-release:ro", "--volume", f.file("images")+":/images:ro", "--volume", unit+":"+unitFile+":ro",
		"--detach", "--tty", "--init=false", "--cgroupns=private", f.image)
	if err != nil {
		return err
	}
	if err := f.write(ctx, h.container, "/kind/join.yaml", f.joinConfig(h)); err != nil {
		return err
	}
	return until(ctx, h.container+" runs containerd", 30*time.Second, func(ctx context.Context) (bool, error) {
		_, err := f.in(ctx, h.container, "ctr", "version")
		return err == nil, err
	})
}

// joinConfig says what the printed command does. Preflight would look for
// modules of the machine's kernel.
func (f *fleet) joinConfig(h host) string {
	value := func(flag string) string { return f.joining[slices.Index(f.joining, flag)+1] }
	return fmt.Sprintf(`apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
discovery: {bootstrapToken: {apiServerEndpoint: %q, token: %q, caCertHashes: [%q]}}
nodeRegistration: %s
skipPhases: [preflight]
`, value("join"), value("--token"), value("--discovery-token-ca-cert-hash"), h.registration())
}

// plug connects a node's pods, where the image brings no pod network.
func (c *cluster) plug(ctx context.Context, container, name string) error {
	var cidr, at string
	err := until(ctx, "node "+name+" is there and has addresses for pods", 60*time.Second, func(ctx context.Context) (bool, error) {
		node, err := c.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		cidr = node.Spec.PodCIDR
		for _, a := range node.Status.Addresses {
			if a.Type == "InternalIP" {
				at = a.Address
			}
		}
		return cidr != "" && at != "", nil
	})
	if err != nil || !c.own {
		return err
	}
	if err := c.write(ctx, container, cniFile, podNetwork(cidr)); err != nil || container == controller {
		return err
	}
	control, err := c.client.CoreV1().Nodes().Get(ctx, controller, metav1.GetOptions{})
	if err != nil {
		return err
	}
	// Only pods on the control plane are called from elsewhere: the daemon and DNS.
	if _, err := c.in(ctx, controller, "ip", "route", "replace", cidr, "via", at); err != nil {
		return err
	}
	_, err = c.in(ctx, container, "ip", "route", "replace", control.Spec.PodCIDR, "via", control.Status.Addresses[0].Address)
	return err
}

// remove is an instance's end.
func (f *fleet) remove(ctx context.Context, h host) error {
	_, err := f.run(ctx, "docker", "rm", "--force", "--volumes", h.container)
	deleted := f.client.CoreV1().Nodes().Delete(ctx, h.node, metav1.DeleteOptions{})
	if apierrors.IsNotFound(deleted) {
		deleted = nil
	}
	return errors.Join(err, deleted)
}

// ready waits for this many nodes of the pool.
func (f *fleet) ready(ctx context.Context, want int) error {
	return until(ctx, fmt.Sprintf("%d hosts are ready", want), 120*time.Second, func(ctx context.Context) (bool, error) {
		if err := f.trouble(); err != nil {
			return false, err
		}
		nodes, err := f.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: world.PoolLabelKey})
		if err != nil {
			return false, err
		}
		have := 0
		for _, n := range nodes.Items {
			for _, c := range n.Status.Conditions {
				if c.Type == "Ready" && c.Status == "True" {
					have++
				}
			}
		}
		return have >= want, nil
	})
}
