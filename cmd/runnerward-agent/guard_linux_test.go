package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/runnerward/runnerward/pkg/supervisor"
)

// worker is what the runner does with a hook, as far as matters here: when it
// has ended, steps with if: always() run, whatever became of it. It waits to
// be told so, for ten seconds at most, so that a runner that should be dead
// shows.
const worker = `
sleep 1000 &
%s bash -e "$ACTIONS_RUNNER_HOOK_JOB_STARTED" &
wait $! && echo the job runs
read -t 10 -r <> %q
echo ran > %q
kill $(jobs -p)
`

// startWorker starts the agent with a worker whose hook gets this environment
// on top.
func (p *pod) startWorker(t *testing.T, hookEnv string, clone uintptr) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	if err := syscall.Mkfifo(p.path("go-on"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.write(t, "run.sh", fmt.Appendf(nil, worker, hookEnv, p.path("go-on"), p.path("always")))
	cmd := p.command(t, p.agent, "run", "--", "bash", p.path("run.sh"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: clone, Setpgid: true}
	lines := start(t, cmd)
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }) // what a failed test leaves
	return cmd, lines
}

// wantKilled reads the output to its end, which is the end of every process
// that holds it.
func (p *pod) wantKilled(t *testing.T, cmd *exec.Cmd, lines *bufio.Scanner) {
	t.Helper()
	ended := make(chan string, 1)
	go func() { ended <- until(t, lines, "") }()
	var out string
	select {
	case out = <-ended:
	case <-p.gate.asked:
		t.Fatal("the hook goes on asking after it was killed")
	}
	if code := exitCode(cmd.Wait()); code != exitRefused || !strings.Contains(out, "its job-started hook ended without being allowed") {
		t.Errorf("exit code = %d, want %d and why: %s", code, exitRefused, out)
	}
	if _, err := os.Stat(p.path("always")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a step ran after the hook was killed (%v)", err)
	}
}

// hookProcesses finds the hook's script and its agent below a process.
func hookProcesses(t *testing.T, below int) (script, agent int) {
	t.Helper()
	for _, pid := range descendants(below) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			t.Fatal(err)
		}
		argv := strings.Split(string(bytes.TrimRight(b, "\x00")), "\x00")
		switch {
		case strings.HasSuffix(argv[len(argv)-1], "/job-started.sh"):
			script = pid
		case len(argv) == 3 && argv[1] == "hook":
			agent = pid
		}
	}
	if script == 0 || agent == 0 {
		t.Fatalf("script is process %d, agent %d; want both", script, agent)
	}
	return script, agent
}

func kill(t *testing.T, pid int, signals ...syscall.Signal) {
	t.Helper()
	for _, s := range signals {
		if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Fatalf("kill %d with %s: %v", pid, s, err)
		}
	}
}

// escalation is how a worker ends a step: actions/runner ProcessInvoker.cs.
var escalation = []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL}

func TestACancelledHookTakesItsRunnerAlong(t *testing.T) {
	for what, end := range map[string]func(t *testing.T, script, agent int){
		"script":           func(t *testing.T, script, _ int) { kill(t, script, escalation...) },
		"agent":            func(t *testing.T, _, agent int) { kill(t, agent, escalation...) },
		"script and agent": func(t *testing.T, script, agent int) { kill(t, script, escalation...); kill(t, agent, escalation...) },
		"agent and script": func(t *testing.T, script, agent int) { kill(t, agent, escalation...); kill(t, script, escalation...) },
	} {
		t.Run(what, func(t *testing.T) {
			p := newPod(t, nil)
			cmd, lines := p.startWorker(t, "", 0)
			<-p.gate.asked
			p.gate.answer <- supervisor.StartAnswer{Verdict: supervisor.StartPending}
			until(t, lines, "Waiting")
			script, agent := hookProcesses(t, cmd.Process.Pid)
			end(t, script, agent)
			p.wantKilled(t, cmd, lines)
		})
	}
}

func TestACancelledHookTakesItsRunnerAlongWhateverItWaitedFor(t *testing.T) {
	t.Run("refused", func(t *testing.T) {
		p := newPod(t, nil)
		cmd, lines := p.startWorker(t, "", 0)
		<-p.gate.asked
		p.gate.answer <- supervisor.StartAnswer{Verdict: supervisor.StartRefused, Reasons: []string{"run.attempt"}}
		until(t, lines, "run.attempt")
		script, _ := hookProcesses(t, cmd.Process.Pid)
		kill(t, script, escalation...)
		p.wantKilled(t, cmd, lines)
	})
	t.Run("not configured", func(t *testing.T) {
		p := newPod(t, nil)
		cmd, lines := p.startWorker(t, "RUNNERWARD_URL=", 0)
		until(t, lines, "cannot be asked")
		script, _ := hookProcesses(t, cmd.Process.Pid)
		kill(t, script, escalation...)
		p.wantKilled(t, cmd, lines)
	})
	t.Run("after the pod was told to end", func(t *testing.T) {
		p := newPod(t, nil)
		cmd, lines := p.startWorker(t, "trap '' TERM;", 0)
		<-p.gate.asked
		// The runner ignores it, as one whose listener hangs would.
		kill(t, cmd.Process.Pid, syscall.SIGTERM)
		p.gate.answer <- supervisor.StartAnswer{Verdict: supervisor.StartPending}
		until(t, lines, "Waiting")
		script, _ := hookProcesses(t, cmd.Process.Pid)
		kill(t, script, escalation...)
		p.wantKilled(t, cmd, lines)
	})
}

// In a container run is process 1 of a namespace, where kill(2) of -1 reaches
// every process but itself.
func TestTheFirstProcessOfAContainerKillsTheRest(t *testing.T) {
	namespace := uintptr(syscall.CLONE_NEWPID)
	if os.Getuid() != 0 {
		namespace |= syscall.CLONE_NEWUSER
	}
	probe := exec.CommandContext(t.Context(), "true")
	probe.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespace}
	if err := probe.Run(); err != nil {
		t.Skipf("no namespace of processes may be made here: %v", err)
	}
	p := newPod(t, nil)
	cmd, lines := p.startWorker(t, "", namespace)
	<-p.gate.asked
	script, _ := hookProcesses(t, cmd.Process.Pid)
	kill(t, script, escalation...)
	p.wantKilled(t, cmd, lines)
}

func TestAnAllowedHookLeavesTheRunnerAlone(t *testing.T) {
	p := newPod(t, nil)
	cmd, lines := p.startWorker(t, "", 0)
	<-p.gate.asked
	script, agent := hookProcesses(t, cmd.Process.Pid)
	p.gate.answer <- supervisor.StartAnswer{Verdict: supervisor.StartAllowed, Record: bound()}
	until(t, lines, "the job runs")
	kill(t, agent, syscall.SIGKILL)
	kill(t, script, syscall.SIGKILL)
	goOn, err := os.OpenFile(p.path("go-on"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer goOn.Close()
	if _, err := io.WriteString(goOn, "\n"); err != nil {
		t.Fatal(err)
	}
	out := until(t, lines, "")
	if code := exitCode(cmd.Wait()); code != 0 {
		t.Errorf("exit code = %d, want 0: %s", code, out)
	}
	if _, err := os.Stat(p.path("always")); err != nil {
		t.Errorf("the job did not go on: %v", err)
	}
}
