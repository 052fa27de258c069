//go:build linux

package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Gateway is the address of the machine on its bridge, where whatever hosts and
// pods have to reach listens.
const Gateway = "10.0.0.1"

// Machine describes a host.
type Machine struct {
	Name, Address string // of the node; the address is in 10.0.0.0/16
	ProviderID    string
	System        string // PRETTY_NAME of its os-release
	Labels        map[string]string
	// Taint is KEY=VALUE:EFFECT as kubelets take it.
	Taint      string
	Kubeconfig []byte
	// CAFile holds the PEM that clients of the kubelet's API are signed with.
	CAFile string
}

// Host is one that was switched on.
type Host struct {
	Machine
	// Dir has its files; log/ those of kubelet, runtime and pods.
	Dir string

	bin, tree, port string
	cmd             *exec.Cmd
	ended           chan struct{}
}

// run runs a command that says nothing unless it fails.
func run(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// MakeNetwork makes the bridge that hosts are connected to.
func MakeNetwork(ctx context.Context) error {
	for _, args := range [][]string{
		{"link", "add", "vpc", "type", "bridge"}, {"addr", "add", Gateway + "/16", "dev", "vpc"}, {"link", "set", "vpc", "up"},
	} {
		if err := run(ctx, "ip", args...); err != nil {
			return fmt.Errorf("make the network: %w", err)
		}
	}
	return nil
}

// pods is the range of the addresses of a host's pods.
func (m Machine) pods() (string, error) {
	ip := net.ParseIP(m.Address).To4()
	if ip == nil {
		return "", fmt.Errorf("the address %q of host %s is not of IPv4", m.Address, m.Name)
	}
	return fmt.Sprintf("10.244.%d.0/24", ip[3]), nil
}

// Boot switches a host on. bin is the folder that test/kube/build.sh filled, tree
// the folder test/kube, dir a new folder for what the host has on its disk. It
// does not wait for the node.
func Boot(ctx context.Context, bin, tree, dir string, m Machine) (*Host, error) {
	pods, err := m.pods()
	if err != nil {
		return nil, err
	}
	if err := m.configure(dir, bin, pods); err != nil {
		return nil, fmt.Errorf("configure host %s: %w", m.Name, err)
	}
	if err := run(ctx, "ip", "route", "replace", pods, "via", m.Address, "dev", "vpc"); err != nil {
		return nil, err
	}
	network, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return nil, err
	}
	defer network.Close()
	log, err := os.Create(filepath.Join(dir, "log", "host.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	port := "vpc" + strings.ReplaceAll(strings.TrimPrefix(m.Address, "10.0."), ".", "-")
	h := &Host{Machine: m, Dir: dir, bin: bin, tree: tree, port: port, ended: make(chan struct{})}
	h.cmd = exec.Command(filepath.Join(tree, "sandbox.sh"), filepath.Join(tree, "node", "host.sh"), dir, bin, m.Address, Gateway, port)
	h.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "SANDBOX_HOSTNAME=" + m.Name}
	h.cmd.Stdout, h.cmd.Stderr, h.cmd.ExtraFiles = log, log, []*os.File{network}
	// A group of its own, so that both what makes the namespaces and what waits
	// for their end are hit.
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := h.cmd.Start(); err != nil {
		return nil, fmt.Errorf("switch host %s on: %w", m.Name, err)
	}
	go func() {
		_ = h.cmd.Wait() // how it ended is in its log
		close(h.ended)
	}()
	return h, nil
}

// Off ends the host at once: kubelet, runtime and every container get SIGKILL
// from the kernel, and nobody says goodbye to anybody. It returns when the
// host's end of the cable is gone, which outlives the last process.
func (h *Host) Off(ctx context.Context) error {
	select {
	case <-h.ended:
	default:
		if err := syscall.Kill(-h.cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("switch host %s off: %w", h.Name, err)
		}
		<-h.ended
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := net.InterfaceByName(h.port); err != nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("host %s does not end: %w", h.Name, context.Cause(ctx))
		}
	}
}

// Reboot switches the host off and on again, with what its disk has: the same
// machine with another boot id.
func (h *Host) Reboot(ctx context.Context) (*Host, error) {
	if err := h.Off(ctx); err != nil {
		return nil, err
	}
	return Boot(ctx, h.bin, h.tree, h.Dir, h.Machine)
}

// configure writes the files of a host.
func (m Machine) configure(dir, bin, pods string) error {
	var problems []error
	for _, sub := range []string{"etc/cni", "lib", "log"} {
		problems = append(problems, os.MkdirAll(filepath.Join(dir, sub), 0o755))
	}
	etc := filepath.Join(dir, "etc")
	labels := make([]string, 0, len(m.Labels))
	for key, value := range m.Labels {
		labels = append(labels, key+"="+value)
	}
	key, effect, ok := strings.Cut(m.Taint, ":")
	key, value, hasValue := strings.Cut(key, "=")
	if !ok || !hasValue {
		return fmt.Errorf("the taint %q is not KEY=VALUE:EFFECT", m.Taint)
	}
	for name, content := range map[string]string{
		"os-release":      fmt.Sprintf("NAME=%q\nPRETTY_NAME=%q\n", strings.Fields(m.System)[0], m.System),
		"machine-id":      randomHex(16) + "\n",
		"boot_id":         newBootID() + "\n",
		"resolv.conf":     "",
		"kubeconfig":      string(m.Kubeconfig),
		"containerd.toml": fmt.Sprintf(containerdConfig, bin, etc, bin),
		"cni/10.conflist": fmt.Sprintf(networkConfig, pods),
		"kubelet.yaml":    fmt.Sprintf(kubeletConfig, m.Address, m.CAFile, m.ProviderID, key, value, effect),
		"kubelet.args": fmt.Sprintf("--config=%s --kubeconfig=%s --hostname-override=%s --node-ip=%s --node-labels=%s",
			filepath.Join(etc, "kubelet.yaml"), filepath.Join(etc, "kubeconfig"), m.Name, m.Address, strings.Join(labels, ",")),
	} {
		problems = append(problems, os.WriteFile(filepath.Join(etc, name), []byte(content), 0o600))
	}
	return errors.Join(problems...)
}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: crypto/rand documents it
	return fmt.Sprintf("%x", b)
}

// newBootID is one as the kernel's, which all of these hosts share.
func newBootID() string {
	h := randomHex(16)
	return h[:8] + "-" + h[8:12] + "-4" + h[13:16] + "-8" + h[17:20] + "-" + h[20:]
}

// containerdConfig: a machine without CAP_SYS_RESOURCE cannot lower scores
// below its own, and not every kernel has AppArmor or huge pages.
const containerdConfig = `version = 3
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "registry.k8s.io/pause:3.10.2"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true
  disable_apparmor = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["%s"]
    conf_dir = "%s/cni"
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = "runc"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        BinaryName = "%s/runc"
        SystemdCgroup = false
`

// networkConfig: pods have addresses of their host's range, to which the
// machine has a route, as in a VPC.
const networkConfig = `{"cniVersion": "1.0.0", "name": "vpc", "plugins": [{"type": "ptp", "ipam": {
  "type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": %q}]], "routes": [{"dst": "0.0.0.0/0"}]
}}]}
`

// kubeletConfig: the machine's disks and its swap are not for the kubelet to
// judge; leases are short, so that a lost node is seen soon.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: %[1]s
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: %[2]q}}
authorization: {mode: Webhook}
providerID: %[3]q
registerWithTaints: [{key: %[4]q, value: %[5]q, effect: %[6]q}]
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
resolvConf: ""
localStorageCapacityIsolation: false
evictionHard: {nodefs.available: "0%%", nodefs.inodesFree: "0%%", imagefs.available: "0%%"}
imageGCHighThresholdPercent: 100
nodeStatusUpdateFrequency: 2s
nodeLeaseDurationSeconds: 8
`
