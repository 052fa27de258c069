package api

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"

	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
	simcluster "github.com/runnerward/runnerward/pkg/sim/cluster"
	"github.com/runnerward/runnerward/pkg/sim/stage"
	"github.com/runnerward/runnerward/pkg/sim/world"
	"github.com/runnerward/runnerward/test/kube/kubelet"
)

// theatre is a release of the chart in the real cluster, with simulators of
// GitHub and AWS, whose instances are hosts of the real cluster.
type theatre struct {
	*stage.Stage
	release *release
	fleet   *kubelet.Fleet
	// admission is where the daemon that was started last listens to agents.
	admission string
	// first runs in the next pod before its agent does.
	first atomic.Pointer[func(context.Context, simcluster.Container)]
	// witnesses are nil where the release has none.
	witnesses *witnesses
}

// newTheatre installs the chart into the namespace and lets hosts join, each with
// a stand-in kubelet. change and witnesses may be nil.
func newTheatre(t *testing.T, namespace string, change func(*world.Options), w *witnesses) *theatre {
	t.Helper()
	fleet, err := kubelet.NewFleet(t.Context(), planeOf(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := fleet.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	th := newTheatreWith(t, namespace, stage.Options{World: func(o *world.Options) {
		o.Join = func(in simaws.Instance) { fleet.Join(world.Node(in)) }
		o.Leave = func(in simaws.Instance) { fleet.Leave(in.PrivateDNS) }
		o.JobLog = func(pod, line string) { t.Logf("%s: %s", pod, line) }
		if change != nil {
			change(o)
		}
	}}, w)
	th.fleet = fleet
	fleet.Serve(th.container)
	return th
}

// newTheatreWith installs the chart into the namespace. Who joins and leaves is
// the options'.
func newTheatreWith(t *testing.T, namespace string, opts stage.Options, w *witnesses) *theatre {
	t.Helper()
	p := planeOf(t)
	opts.Dir, opts.Binary, opts.Kubeconfig = t.TempDir(), program(t, "runnerward"), p.Kubeconfig("", "replaced once the account exists")
	th := &theatre{witnesses: w}
	var err error
	if th.Stage, err = stage.New(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := th.Close(); err != nil {
			t.Error(err)
		}
	})
	th.release = newRelease(t, namespace, func(v map[string]any) {
		v["admissionCA"] = string(th.CA.PEM)
		v["config"].(map[string]any)["supervisor"] = map[string]any{"leaderElection": map[string]any{"enabled": true}}
		if w != nil {
			withWitness(w.namespace)(v)
		}
	})
	th.release.install(t)
	if err := os.WriteFile(th.File("kubeconfig"), th.release.kubeconfig(t), 0o600); err != nil {
		t.Fatal(err)
	}
	return th
}

// daemon starts one that signs in as the chart's account, and waits until it
// can deploy. change may be nil.
func (th *theatre) daemon(t *testing.T, name string, change func(stage.Config)) *stage.Daemon {
	t.Helper()
	d, err := th.NewDaemon(name, func(c stage.Config) {
		c.Set("cluster.namespace", th.release.namespace)
		// Patient, for a busy machine: what befalls a leader is leader_test.go's.
		c.Set("supervisor.leaderElection", map[string]any{"enabled": true, "leaseDuration": "1m", "renewDeadline": "40s", "retryPeriod": "2s"})
		if th.witnesses != nil {
			th.witnesses.configure(t, th, c)
		}
		if change != nil {
			change(c)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if log, err := os.ReadFile(d.Log); t.Failed() && err == nil {
			t.Logf("%s's log:\n%s", name, log)
		}
	})
	th.admission = "https://" + d.Admission
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	if err := d.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d
}

// program builds one of ours. A second time takes no time: the build cache has it.
func program(t *testing.T, name string) string {
	t.Helper()
	planeOf(t)
	file := filepath.Join(t.TempDir(), name)
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", file, "github.com/runnerward/runnerward/cmd/"+name).CombinedOutput()
	if err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	return file
}
