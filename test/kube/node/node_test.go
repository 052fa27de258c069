//go:build linux

package node

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/runnerward/runnerward/pkg/cluster"
	"github.com/runnerward/runnerward/pkg/runner"
	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/sim/stage"
	"github.com/runnerward/runnerward/pkg/sim/world"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// TestNode plays on one cluster, one after another: starting it is the most of
// the time.
func TestNode(t *testing.T) {
	if os.Getenv(binaries) == "" {
		t.Skip("needs a kubelet and a container runtime: make test-node")
	}
	began := time.Now()
	b := newBench(t)
	t.Logf("the cluster, six hosts and the daemon are ready after %s", time.Since(began).Round(100*time.Millisecond))
	var lost, choked, rebooted broken
	for _, scenario := range []struct {
		name string
		play func(*testing.T)
	}{
		{"hosts that lie are refused", b.liars},
		// The cluster takes a minute to give a lost pod up, and GitHub its time to
		// give a silent runner up; others play meanwhile.
		{"a host is lost in the middle of a job", func(t *testing.T) { lost = b.loseHost(t) }},
		{"a whole runner takes too much memory", func(t *testing.T) { choked = b.choke(t) }},
		{"a host reboots in the middle of a job", func(t *testing.T) { rebooted = b.reboot(t) }},
		{"a job runs and is sealed", b.runs},
		{"a job is refused at its hook", b.refused},
		{"a pod is deleted in the middle of its job", b.deleted},
		{"a step takes too much memory", b.greedyStep},
		{"the daemon is killed in the middle of a job", b.killed},
		{"the choked runner's job is sealed", func(t *testing.T) { b.brokenIsSealed(t, choked, "completed, pod OOMKilled", "pod Failed OOMKilled") }},
		{"the rebooted host's job is sealed", func(t *testing.T) { b.brokenIsSealed(t, rebooted, "completed, pod Unknown", "pod Failed Unknown") }},
		{"the lost host's job is sealed", func(t *testing.T) { b.brokenIsSealed(t, lost, string(runner.CauseHostEnded), "host-ended") }},
		{"an image cannot be pulled", b.missingImage},
		{"hosts that lie served nobody", b.liars},
	} {
		began := time.Now()
		t.Run(scenario.name, scenario.play)
		t.Logf("%s: %s", scenario.name, time.Since(began).Round(100*time.Millisecond))
	}
}

// The outcomes of runners as the status shows them.
const (
	completed = string(runner.OutcomeCompleted)
	refused   = string(runner.OutcomeRefused)
)

// liars: one host of the pool says that it runs Ubuntu, where EC2's image is
// Bottlerocket's; another says that it runs Bottlerocket, where EC2's is not.
func (b *bench) liars(t *testing.T) {
	v, err := b.Ask(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{ubuntu: "node.osImage", legacy: "image.allowed"}
	for _, in := range b.World.AWS.Instances() {
		i := slices.IndexFunc(v.Hosts, func(h supervisor.HostView) bool { return h.Instance == in.ID })
		if i < 0 || v.Hosts[i].Vetted {
			continue
		}
		node, err := b.client.CoreV1().Nodes().Get(t.Context(), in.PrivateDNS, metav1.GetOptions{})
		if err != nil || !isReady(*node) {
			continue // it boots, or ends
		}
		says, failing := node.Status.NodeInfo.OSImage, v.Hosts[i].Failing
		for _, lie := range []string{says, in.Group} {
			if want[lie] == "" {
				continue
			}
			if len(failing) == 1 && failing[0] == (runner.Check{Name: want[lie], Verdict: runner.Fail}) {
				delete(want, lie)
			}
			if by := node.Annotations[cluster.ClaimedBy]; by != "" {
				t.Errorf("the host of group %s that says it runs %s was claimed for %s", in.Group, says, by)
			}
		}
	}
	if len(want) > 0 {
		t.Errorf("these are not refused for what they are: %v; the hosts are %+v", want, v.Hosts)
	}
}

// broken is a job of which GitHub will hear no more.
type broken struct {
	run    simgithub.Run
	runner supervisor.RunnerView
}

// loseHost takes the power from a host, and then its instance away.
func (b *bench) loseHost(t *testing.T) (lost broken) {
	lost.run, lost.runner, _ = b.running(t, "echo READY; sleep 600")
	if err := b.fleet.host(lost.runner.Instance).Off(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.until(t, "the lost node is not ready", func() bool {
		n, err := b.client.CoreV1().Nodes().Get(t.Context(), lost.runner.Node, metav1.GetOptions{})
		return err == nil && !isReady(*n)
	})
	b.warned(t, "its kubelet has said nothing")
	if r := b.made(t, lost.run); r.Phase != runner.KindStarted {
		t.Errorf("the runner of a node that is only not ready is %s, want it left alone", r.Phase)
	}
	b.terminate(t, lost.runner.Instance)
	return lost
}

// choke takes memory that is no process's, so that the kernel has to kill them
// all, the agent too.
func (b *bench) choke(t *testing.T) (choked broken) {
	choked.run, choked.runner, _ = b.running(t, "echo READY; dd if=/dev/zero of=/dev/shm/full bs=1M count=64; echo DEPLOYED")
	return choked
}

// reboot: the kubelet comes back, with another boot id, and finds a pod that it
// does not run again.
func (b *bench) reboot(t *testing.T) (rebooted broken) {
	rebooted.run, rebooted.runner, _ = b.running(t, "echo READY; sleep 600")
	before := b.bootID(rebooted.runner.Node)
	b.fleet.reboot(t, rebooted.runner.Instance)
	b.until(t, "the node has another boot id", func() bool {
		after := b.bootID(rebooted.runner.Node)
		return before != "" && after != "" && after != before
	})
	return rebooted
}

// bootID is what the kubelet says, empty while the node cannot be read.
func (b *bench) bootID(node string) string {
	n, err := b.client.CoreV1().Nodes().Get(b.t.Context(), node, metav1.GetOptions{})
	if err != nil {
		return ""
	}
	return n.Status.NodeInfo.BootID
}

func (b *bench) brokenIsSealed(t *testing.T, j broken, outcome, says string) {
	if j.run.ID == 0 {
		t.Fatal("it did not begin")
	}
	r := b.runnerOf(t, j.run, runner.KindSealed)
	if len(r.Rebuffed) > 0 {
		t.Errorf("somebody asked for the runner again: %+v", r.Rebuffed)
	}
	b.over(t, r, j.run, outcome, "result failed", says)
	b.concluded(t, j.run, "failure", true)
}

// refused: the runner that was made for an approved job is given to a job of a
// workflow on a branch, as GitHub may. The approved one gets another host.
func (b *bench) refused(t *testing.T) {
	b.vetted(t, 2)
	good := b.deploy(t, world.DeployWorkflow, "echo DEPLOYED", func(job string) { b.Director.HoldBack(job, true) })
	idle := b.runnerOf(t, good, runner.KindReleased)
	log := b.follow(t.Context(), idle.Name)
	bad := b.deploy(t, world.BranchWorkflow, "echo DEPLOYED", func(job string) { b.Director.Pair(job, string(idle.Name)) })
	b.says(t, log, "workflow-not-tag-pinned")
	b.Director.HoldBack(good.JobID, false)
	r, err := b.Runner(t.Context(), "the runner is sealed", patience, func(r supervisor.RunnerView) bool {
		return r.Name == idle.Name && r.Phase == runner.KindSealed
	})
	if err != nil {
		t.Fatal(err)
	}
	b.over(t, r, bad, refused, "workflow-not-tag-pinned")
	// Its run was cancelled and its runner told to end; either may come first.
	if job, _ := b.World.GitHub.Job(bad.JobID); job.StepsRan || job.Conclusion != "cancelled" && job.Conclusion != "failure" {
		t.Errorf("GitHub says the refused job ended %q, steps ran: %t", job.Conclusion, job.StepsRan)
	}
	for _, text := range []string{"DEPLOYED", "cleaning up"} {
		if strings.Contains(log.String(), text) {
			t.Errorf("a step of the refused job ran:\n%s", log)
		}
	}
	second, err := b.Sealed(t.Context(), good.JobID, patience)
	if err != nil {
		t.Fatal(err)
	}
	b.over(t, second, good, completed)
	b.concluded(t, good, "success", true)
	if second.Instance == r.Instance {
		t.Errorf("the approved job ran on %s, which had received the refused one", r.Instance)
	}
}

// deleted: the stock runner makes a failed job of a SIGTERM, and runs nothing
// after it.
func (b *bench) deleted(t *testing.T) {
	run, r, log := b.running(t, "echo READY; sleep 600; echo DEPLOYED")
	if err := b.client.CoreV1().Pods(world.Namespace).Delete(t.Context(), string(r.Name), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r = b.runnerOf(t, run, runner.KindSealed)
	if r.Outcome != completed && r.Outcome != "completed, pod Error" { // the pod may be gone before anybody looks
		t.Errorf("the runner's outcome is %q, want it completed", r.Outcome)
	}
	b.over(t, r, run, r.Outcome, "result failed")
	b.concluded(t, run, "failure", true)
	for _, text := range []string{"DEPLOYED", "cleaning up"} {
		if strings.Contains(log.String(), text) {
			t.Errorf("a step went on after the pod was deleted:\n%s", log)
		}
	}
}

// groupVersion2 says that the kernel kills a whole container for its memory,
// as kubelets ask it to where they can.
func groupVersion2() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

// greedyStep: with version 1 of control groups only the process dies, and the
// runner reports its step.
func (b *bench) greedyStep(t *testing.T) {
	run, _, log := b.running(t, "echo READY; tail /dev/zero; echo DEPLOYED")
	if groupVersion2() {
		b.sealed(t, run, "completed, pod OOMKilled", "pod Failed OOMKilled")
	} else {
		b.sealed(t, run, completed, "result failed", "pod Succeeded")
		if !strings.Contains(log.String(), "exit status 137") {
			t.Errorf("the step's end is not in the log:\n%s", log)
		}
	}
	b.concluded(t, run, "failure", true)
	if strings.Contains(log.String(), "DEPLOYED") {
		t.Errorf("the step went on:\n%s", log)
	}
}

// killed: the job needs no daemon, and the next one needs nothing but the ledger.
func (b *bench) killed(t *testing.T) {
	run, _, _ := b.running(t, fmt.Sprintf("echo READY; sleep %.1f; echo DEPLOYED", (stage.SessionTTL+2*time.Second).Seconds()))
	if err := b.daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	b.until(t, "the job is over, and GitHub's session with the killed daemon", func() bool {
		job, _ := b.World.GitHub.Job(run.JobID)
		return job.Status == "completed"
	})
	b.begin(t)
	b.sealed(t, run, completed, "result succeeded")
	b.concluded(t, run, "success", true)
}

// missingImage starts a daemon with another runner image and, once the kubelet
// says that it cannot pull that, one that waits no longer.
func (b *bench) missingImage(t *testing.T) {
	missing := func(c stage.Config) {
		c.Set("cluster.runnerImage", "ghcr.io/actions/actions-runner@sha256:"+strings.Repeat("1", 64))
		c.Set("limits.maxAttempts", 1)
	}
	b.serve(t, "missing-image", missing)
	run := b.deploy(t, world.DeployWorkflow, "echo DEPLOYED", nil)
	r := b.made(t, run)
	b.until(t, "the kubelet says why", func() bool {
		pod, err := b.client.CoreV1().Pods(world.Namespace).Get(t.Context(), string(r.Name), metav1.GetOptions{})
		if err != nil || len(pod.Status.ContainerStatuses) == 0 {
			return false
		}
		waiting := pod.Status.ContainerStatuses[0].State.Waiting
		return waiting != nil && (waiting.Reason == "ErrImagePull" || waiting.Reason == "ImagePullBackOff")
	})
	b.warned(t, "the pod does not start: ")
	b.serve(t, "impatient", func(c stage.Config) {
		missing(c)
		c.Set("limits.bindBy", "1s")
	})
	r = b.runnerOf(t, run, runner.KindSealed)
	if !strings.HasPrefix(r.Outcome, "never-bound, pod ") {
		t.Errorf("the runner's outcome is %q, want never-bound for its pod", r.Outcome)
	}
	if err := errors.Join(b.Gone(r), b.Verify(t.Context())); err != nil {
		t.Error(err)
	}
	if text := b.explain(t, run); !strings.Contains(text, "hosts that failed it  1") || !strings.Contains(text, "allowed, not started") {
		t.Errorf("explain does not say how it went:\n%s", text)
	}
	v, err := b.Ask(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(v.Jobs, func(j supervisor.JobView) bool { return j.ID == runner.JobID(run.JobID) }); i < 0 || !strings.Contains(v.Jobs[i].Problem, "given up") {
		t.Errorf("the status does not say that the job is given up: %+v", v.Jobs)
	}
}
