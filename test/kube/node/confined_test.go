//go:build linux

package node

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/runnerward/runnerward/pkg/sim/world"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// confinement is what the job's step finds out about its place, and tries.
const confinement = `
grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status
cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max
try() {
  what=$1; shift
  if "$@" 2>/dev/null; then echo "$what ALLOWED"; else echo "$what refused"; fi
}
try "a mount" mount -t tmpfs none /tmp
try "a user namespace" unshare -U true
try "a change of the agent" rm -f /runnerward/runnerward-agent
try "a change of the hook" cp /bin/true /runnerward/job-started.sh
try "a change of the mode of the agent's folder" mkdir /runnerward/more
try "a token of the cluster's" ls /var/run/secrets/kubernetes.io
try "a setting of the kernel" sh -c 'echo 1 >/proc/sys/vm/overcommit_memory'
`

func confined() []string {
	return []string{
		"Uid:\t1001\t1001\t1001\t1001\n", "CapEff:\t0000000000000000\n", "CapBnd:\t0000000000000000\n", "NoNewPrivs:\t1\n", "Seccomp:\t2\n",
		"67108864\n", "a mount refused\n", "a user namespace refused\n", "a change of the agent refused\n", "a change of the hook refused\n",
		"a change of the mode of the agent's folder refused\n", "a token of the cluster's refused\n", "a setting of the kernel refused\n",
	}
}

// runs is the ordinary case, looked at from inside and from outside.
func (b *bench) runs(t *testing.T) {
	run, r, log := b.running(t, confinement+"echo READY\nuntil [ -e /tmp/go ]; do sleep 0.05; done\necho DEPLOYED")
	for _, want := range confined() {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the step does not find %q:\n%s", want, log)
		}
	}
	found := processes(t, r.Name)
	if len(found) == 0 {
		t.Fatal("no process of the pod is found")
	}
	b.secretIsKept(t, r, found)
	b.tokenIsOfNoUse(t, found[0])
	if err := os.WriteFile("/proc/"+found[0].pid+"/root/tmp/go", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	b.sealed(t, run, completed, "result succeeded", "pod Succeeded", "node.osImage", "assurance L1")
	b.concluded(t, run, "success", true)
	for _, want := range []string{"Allowed. The evidence is sha256:", "DEPLOYED", "cleaning up"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
	}
}

// secretIsKept: the JIT config is in the environment of the runner application
// and nowhere else.
func (b *bench) secretIsKept(t *testing.T, r supervisor.RunnerView, found []process) {
	t.Helper()
	var jit string
	for _, p := range found {
		if v := p.environ["ACTIONS_RUNNER_INPUT_JITCONFIG"]; v != "" {
			jit = v
		}
	}
	if len(jit) < 1000 {
		t.Fatalf("the runner application was started with a JIT config of %d bytes", len(jit))
	}
	secret := []byte(jit)
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range lines {
		if content, err := os.ReadFile(file); err == nil && bytes.Contains(content, secret[:100]) {
			t.Errorf("the JIT config is among the arguments in %s", file)
		}
	}
	pod, err := b.client.CoreV1().Pods(world.Namespace).Get(t.Context(), string(r.Name), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if text, err := json.Marshal(pod); err != nil || bytes.Contains(text, secret[:100]) {
		t.Errorf("the JIT config is in the pod: %v", err)
	}
	if !b.contains(t, "plane/etcd", []byte(r.Name)) {
		t.Error("the pod's name is not found in etcd's files, so nothing would be")
	}
	for _, dir := range []string{"plane/etcd", "plane/log", "stage/ledger", "stage/runnerward.log", "hosts/" + r.Instance + "/log"} {
		if b.contains(t, dir, secret[:100]) {
			t.Errorf("the JIT config is in %s", dir)
		}
	}
}

// contains says whether a file below has these bytes.
func (b *bench) contains(t *testing.T, dir string, what []byte) (yes bool) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(b.dir, dir), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		yes = yes || bytes.Contains(content, what)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return yes
}

// tokenIsOfNoUse: the pod's own token is for the daemon, and the API server
// does not know who shows it.
func (b *bench) tokenIsOfNoUse(t *testing.T, p process) {
	t.Helper()
	// The link beside it is the pod's user's, whom a sticky folder lets nobody follow.
	file := p.environ["RUNNERWARD_TOKEN_FILE"]
	token, err := os.ReadFile(filepath.Join("/proc", p.pid, "root", filepath.Dir(file), "..data", filepath.Base(file)))
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(b.plane.Kubeconfig("", strings.TrimSpace(string(token))))
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Pods(world.Namespace).List(t.Context(), metav1.ListOptions{}); !apierrors.IsUnauthorized(err) {
		t.Errorf("the API server answers the pod's token with %v, want that it does not know it", err)
	}
}
