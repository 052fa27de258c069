//go:build linux

package node

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	corev1 "k8s.io/api/core/v1"

	"github.com/runnerward/runnerward/pkg/runner"
	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/sim/world"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// patience bounds a scenario. Nothing takes that long but on a busy machine.
const patience = 2 * time.Minute

// deploy starts an approved run of this workflow whose step runs this script.
// direct, if any, is told of the job before it is approved.
func (b *bench) deploy(t *testing.T, workflow, script string, direct func(job string)) simgithub.Run {
	t.Helper()
	b.vetted(t, 1)
	b.releases++
	spec := world.Deploy(fmt.Sprintf("v2.0.%d", b.releases), "bob", "bob", time.Second)
	spec.JobWorkflowRef, spec.Script = workflow, script
	run, err := b.World.GitHub.Dispatch(spec)
	if err != nil {
		t.Fatal(err)
	}
	if direct != nil {
		direct(run.JobID)
	}
	if err := b.World.GitHub.Approve(run.ID, "carol"); err != nil {
		t.Fatal(err)
	}
	return run
}

// vetted waits until so many hosts are ready: a job that finds none asks again
// after ever longer pauses.
func (b *bench) vetted(t *testing.T, want int) {
	t.Helper()
	err := b.Until(t.Context(), fmt.Sprintf("%d hosts are vetted", want), patience, func() (bool, error) {
		v, err := b.Ask(t.Context())
		if err != nil {
			return false, nil
		}
		have := 0
		for _, h := range v.Hosts {
			if h.Vetted {
				have++
			}
		}
		return have >= want, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// runnerOf waits until a runner that was made for the job is in this phase.
func (b *bench) runnerOf(t *testing.T, run simgithub.Run, phase runner.Kind) supervisor.RunnerView {
	t.Helper()
	r, err := b.Runner(t.Context(), fmt.Sprintf("the runner of job %s is %s", run.JobID, phase), patience, func(r supervisor.RunnerView) bool {
		return r.Cause == runner.JobID(run.JobID) && r.Phase == phase
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// sealed waits for the end of the runner that was made for the job.
func (b *bench) sealed(t *testing.T, run simgithub.Run, outcome string, says ...string) {
	t.Helper()
	b.over(t, b.runnerOf(t, run, runner.KindSealed), run, outcome, says...)
}

// over verifies the ledger once a runner is sealed that the run's job reached.
// Explain must say all of these, and that the host is gone; it is.
func (b *bench) over(t *testing.T, r supervisor.RunnerView, run simgithub.Run, outcome string, says ...string) {
	t.Helper()
	if r.Outcome != outcome {
		t.Errorf("the runner's outcome is %q, want %q", r.Outcome, outcome)
	}
	if found := processes(t, r.Name); len(found) > 0 {
		t.Errorf("%d processes of the sealed runner are alive", len(found))
	}
	if err := b.Gone(r); err != nil {
		t.Error(err)
	}
	if err := b.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	text := b.explain(t, run)
	for _, want := range append(says, "host terminated", r.Instance) {
		if !strings.Contains(text, want) {
			t.Errorf("explain does not say %q:\n%s", want, text)
		}
	}
}

// explain is what the auditor's tool says of the run.
func (b *bench) explain(t *testing.T, run simgithub.Run) string {
	t.Helper()
	url := fmt.Sprintf("%s/%s/%s/actions/runs/%d", b.GitHubURL, world.Org, world.Repository, run.ID)
	out, code, err := b.CLI(t.Context(), "explain", "--ledger", b.File("ledger"), "--root", b.File("root.json"), url)
	if err != nil || code != 0 {
		t.Errorf("explain exits %d, %v:\n%s", code, err, out)
	}
	return string(out)
}

// concluded checks what GitHub itself says of the job.
func (b *bench) concluded(t *testing.T, run simgithub.Run, conclusion string, stepsRan bool) {
	t.Helper()
	job, _ := b.World.GitHub.Job(run.JobID)
	if job.Conclusion != conclusion || job.StepsRan != stepsRan {
		t.Errorf("GitHub says the job ended %q, steps ran: %t; want %q, %t", job.Conclusion, job.StepsRan, conclusion, stepsRan)
	}
}

// podLog is what a container says, as "kubectl logs --follow" shows it.
type podLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *podLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *podLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// follow reads the log of a runner's container from its first line on, until it
// ends or the context does.
func (b *bench) follow(ctx context.Context, pod runner.Name) *podLog {
	l := &podLog{}
	go func() {
		for ctx.Err() == nil {
			stream, err := b.client.CoreV1().Pods(world.Namespace).GetLogs(string(pod), &corev1.PodLogOptions{Container: "runner", Follow: true}).Stream(ctx)
			if err == nil {
				_, _ = io.Copy(l, stream) // the host may go away below it
				_ = stream.Close()
				return
			}
			select {
			case <-time.After(20 * time.Millisecond): // pod or container wait to be made
			case <-ctx.Done():
			}
		}
	}()
	return l
}

// says waits until the log does.
func (b *bench) says(t *testing.T, l *podLog, text string) {
	t.Helper()
	err := b.Until(t.Context(), fmt.Sprintf("the runner says %q", text), patience, func() (bool, error) {
		return strings.Contains(l.String(), text), nil
	})
	if err != nil {
		t.Fatalf("%v; it says:\n%s", err, l)
	}
}

// warned waits until the status tells on-call so.
func (b *bench) warned(t *testing.T, text string) {
	t.Helper()
	b.until(t, "the status warns: "+text, func() bool {
		v, err := b.Ask(t.Context())
		return err == nil && slices.ContainsFunc(v.Warnings, func(w string) bool { return strings.Contains(w, text) })
	})
}

// running starts a deploy and waits until its step says READY.
func (b *bench) running(t *testing.T, script string) (simgithub.Run, supervisor.RunnerView, *podLog) {
	t.Helper()
	run := b.deploy(t, world.DeployWorkflow, script, nil)
	log := b.follow(t.Context(), b.made(t, run).Name)
	b.says(t, log, "READY")
	return run, b.runnerOf(t, run, runner.KindStarted), log
}

// made waits until there is a runner for the job.
func (b *bench) made(t *testing.T, run simgithub.Run) supervisor.RunnerView {
	t.Helper()
	r, err := b.Runner(t.Context(), "a runner is made for job "+run.JobID, patience, func(r supervisor.RunnerView) bool {
		return r.Cause == runner.JobID(run.JobID)
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// terminate ends an instance as somebody at the console does.
func (b *bench) terminate(t *testing.T, instance string) {
	t.Helper()
	client := ec2.New(ec2.Options{
		Region: world.Region, BaseEndpoint: aws.String(b.AWSURL), HTTPClient: b.Client,
		Credentials: credentials.NewStaticCredentialsProvider(world.AccessKeyID, world.SecretKey, ""),
	})
	if _, err := client.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{instance}}); err != nil {
		t.Fatal(err)
	}
}

// process is one of a runner's pod, as the machine around the hosts sees it.
type process struct {
	pid     string
	environ map[string]string
}

// processes are those of the pod that have the agent's environment.
func processes(t *testing.T, pod runner.Name) []process {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	var out []process
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(content, []byte("RUNNERWARD_RUNNER="+pod+"\x00")) {
			continue // it has ended, or is another's
		}
		p := process{pid: filepath.Base(filepath.Dir(file)), environ: map[string]string{}}
		for entry := range strings.SplitSeq(string(content), "\x00") {
			name, value, _ := strings.Cut(entry, "=")
			p.environ[name] = value
		}
		out = append(out, p)
	}
	return out
}
