package main

import (
	"bufio"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/admission"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

const (
	role = "AGENT_TEST_ROLE" // set: this process is the agent, not a test
	jit  = "CANARYJITCONFIG"
)

// TestMain makes the test binary the agent, or the stock runner, when it is
// started as one.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv(role) == "":
		os.Exit(m.Run())
	case len(os.Args) > 1 && os.Args[1] == "fake-runner":
		os.Exit(fakeRunner(os.Args[2]))
	default:
		main()
	}
}

// fakeRunner does what the stock runner does as far as the agent can see.
func fakeRunner(mode string) int {
	switch mode {
	case "report":
		_ = json.NewEncoder(os.Stdout).Encode(map[string][]string{"env": os.Environ(), "argv": os.Args})
		return 42
	case "wait":
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
		fmt.Println("waiting")
		fmt.Println("got", <-signals)
		return 7
	case "die":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "orphan":
		out, err := exec.Command("sh", "-c", "true & echo $!").Output()
		orphan, parseErr := strconv.Atoi(strings.TrimSpace(string(out)))
		if err != nil || parseErr != nil {
			return 98
		}
		// It is a zombie, and there, until the agent reaps it.
		for syscall.Kill(orphan, 0) == nil {
			runtime.Gosched()
		}
		return 5
	case "job":
		// The runner starts a hook with bash -e and takes its exit code.
		hook := exec.Command("bash", "-e", os.Getenv("ACTIONS_RUNNER_HOOK_JOB_STARTED"))
		hook.Stdout, hook.Stderr = os.Stdout, os.Stderr
		if err := hook.Run(); err != nil {
			fmt.Println("hook failed:", err)
			return 9
		}
		fmt.Println("the job runs")
		return 0
	}
	return 99
}

// gate releases one runner and answers starts as its test says.
type gate struct {
	claimErr error
	asked    chan string                 // the job token of each start
	answer   chan supervisor.StartAnswer // to it
	hosts    chan supervisor.HostClaim   // what a witness presented
}

func (g *gate) Claim(context.Context, runner.Name, string) (supervisor.ClaimAnswer, error) {
	if g.claimErr != nil {
		return supervisor.ClaimAnswer{}, g.claimErr
	}
	return supervisor.ClaimAnswer{JITConfig: supervisor.NewSecret(jit), Bound: bound()}, nil
}

func (g *gate) Start(ctx context.Context, _ runner.Name, _, job string) (supervisor.StartAnswer, error) {
	select {
	case g.asked <- job:
	case <-ctx.Done():
		return supervisor.StartAnswer{}, context.Cause(ctx)
	}
	select {
	case a := <-g.answer:
		return a, nil
	case <-ctx.Done():
		return supervisor.StartAnswer{}, context.Cause(ctx)
	}
}

func (g *gate) Host(ctx context.Context, token string, claim supervisor.HostClaim) (runner.HostIdentity, error) {
	select {
	case g.hosts <- claim:
		return runner.HostIdentity{Document: runner.DigestOf(claim.Document)}, nil
	case <-ctx.Done():
		return runner.HostIdentity{}, context.Cause(ctx)
	}
}

func bound() runner.Digest { return runner.DigestOf([]byte("bound")) }

// pod is an installed agent with a supervisor to ask and GitHub's token
// endpoint, over TLS on loopback.
type pod struct {
	dir, agent string
	gate       *gate
	env        []string
}

func newPod(t *testing.T, claimErr error) *pod {
	t.Helper()
	p := &pod{dir: t.TempDir(), gate: &gate{
		claimErr: claimErr, asked: make(chan string), answer: make(chan supervisor.StartAnswer), hosts: make(chan supervisor.HostClaim),
	}}
	supervised := httptest.NewTLSServer(admission.NewHandler(p.gate, zap.NewNop(), admission.Limits{}))
	t.Cleanup(supervised.Close)
	tokens := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "bearer request-token" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(w, `{"value":"token-for-%s"}`, r.URL.Query().Get("audience"))
	}))
	t.Cleanup(tokens.Close)
	p.write(t, "token", []byte("pod-token"))
	p.write(t, "ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: supervised.Certificate().Raw}))
	p.write(t, "github.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tokens.Certificate().Raw}))
	p.env = append(os.Environ(), role+"=agent",
		"RUNNERWARD_URL="+supervised.URL, "RUNNERWARD_RUNNER=hipaa-prod-7k2m",
		"RUNNERWARD_TOKEN_FILE="+p.path("token"), "RUNNERWARD_CA_FILE="+p.path("ca.pem"),
		"RUNNERWARD_BOUND_FILE="+p.path("bound"), "SSL_CERT_FILE="+p.path("github.pem"),
		"ACTIONS_ID_TOKEN_REQUEST_URL="+tokens.URL+"?v=1", "ACTIONS_ID_TOKEN_REQUEST_TOKEN=request-token")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	install := p.command(t, self, "install", p.dir)
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("install: %v: %s", err, out)
	}
	p.agent = p.path("runnerward-agent")
	return p
}

func (p *pod) path(name string) string { return filepath.Join(p.dir, name) }

func (p *pod) write(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(p.path(name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// command is killed with the test, so that a blocked agent outlives nothing.
func (p *pod) command(t *testing.T, path string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = p.env
	return cmd
}

// start starts the agent and gives its output line by line.
func (p *pod) start(t *testing.T, args ...string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := p.command(t, p.agent, args...)
	return cmd, start(t, cmd)
}

func start(t *testing.T, cmd *exec.Cmd) *bufio.Scanner {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return bufio.NewScanner(out)
}

// until reads up to the line that contains want, and all to the end if want is
// empty.
func until(t *testing.T, lines *bufio.Scanner, want string) string {
	t.Helper()
	var read strings.Builder
	for lines.Scan() {
		fmt.Fprintln(&read, lines.Text())
		if want != "" && strings.Contains(lines.Text(), want) {
			return read.String()
		}
	}
	if want != "" {
		t.Fatalf("output ended without %q: %s", want, read.String())
	}
	return read.String()
}

// runAgent runs the agent to its end.
func (p *pod) runAgent(t *testing.T, args ...string) (output string, code int) {
	t.Helper()
	out, err := p.command(t, p.agent, args...).CombinedOutput()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatal(err)
	}
	return string(out), exitCode(err)
}

func exitCode(err error) int {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	return 0
}

func TestRunPassesTheCredentialInTheEnvironmentAlone(t *testing.T) {
	p := newPod(t, nil)
	p.env = append(p.env, "RUNNERWARD_OTHER=x")
	out, code := p.runAgent(t, "run", "--", p.agent, "fake-runner", "report")
	if code != 42 {
		t.Fatalf("exit code = %d, want the runner's 42: %s", code, out)
	}
	_, document, _ := strings.Cut(out, "\n{")
	var got struct{ Env, Argv []string }
	if err := json.NewDecoder(strings.NewReader("{" + document)).Decode(&got); err != nil {
		t.Fatalf("decode %s: %v", out, err)
	}
	env := strings.Join(got.Env, "\n") + "\n"
	for _, want := range []string{
		"ACTIONS_RUNNER_INPUT_JITCONFIG=" + jit,
		"ACTIONS_RUNNER_HOOK_JOB_STARTED=" + p.path("job-started.sh"),
		"RUNNERWARD_BOUND_FILE=" + p.path("bound"),
		"RUNNERWARD_TOKEN_FILE=" + p.path("token"),
	} {
		if !strings.Contains(env, want+"\n") {
			t.Errorf("the runner's environment lacks %s", want)
		}
	}
	if strings.Contains(env, "RUNNERWARD_OTHER") {
		t.Error("the runner's environment has RUNNERWARD_OTHER")
	}
	if strings.Contains(strings.Join(got.Argv, " "), jit) {
		t.Errorf("argv = %q shows the JIT config", got.Argv)
	}
}

func TestRunForwardsSignals(t *testing.T) {
	p := newPod(t, nil)
	cmd, lines := p.start(t, "run", "--", p.agent, "fake-runner", "wait")
	until(t, lines, "waiting")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	until(t, lines, "got terminated")
	until(t, lines, "")
	if code := exitCode(cmd.Wait()); code != 7 {
		t.Errorf("exit code = %d, want the runner's 7", code)
	}
}

func TestExitCodes(t *testing.T) {
	p := newPod(t, nil)
	for what, tt := range map[string]struct {
		args []string
		want int
	}{
		"no subcommand":            {nil, 2},
		"an unknown subcommand":    {[]string{"gate"}, 2},
		"an unknown flag":          {[]string{"-x"}, 2},
		"a hook without a script":  {[]string{"hook"}, 2},
		"run without a command":    {[]string{"run", "--"}, 2},
		"run without dashes":       {[]string{"run", "true"}, 2},
		"install without a folder": {[]string{"install"}, 2},
		"install into nowhere":     {[]string{"install", p.path("missing")}, 1},
		"a command that is absent": {[]string{"run", "--", p.path("missing")}, 1},
		"a runner that was killed": {[]string{"run", "--", p.agent, "fake-runner", "die"}, 137},
		"a runner with an orphan":  {[]string{"run", "--", p.agent, "fake-runner", "orphan"}, 5},
		"version":                  {[]string{"version"}, 0},
	} {
		t.Run(what, func(t *testing.T) {
			if out, code := p.runAgent(t, tt.args...); code != tt.want {
				t.Errorf("exit code = %d, want %d: %s", code, tt.want, out)
			}
		})
	}
	refused := newPod(t, supervisor.ErrConflict)
	if out, code := refused.runAgent(t, "run", "--", p.agent, "fake-runner", "report"); code != exitRefused || strings.Contains(out, jit) {
		t.Errorf("refused pod: exit code = %d, want %d: %s", code, exitRefused, out)
	}
	p.env = append(p.env, "RUNNERWARD_URL=")
	if out, code := p.runAgent(t, "run", "--", "true"); code != exitUsage || !strings.Contains(out, "RUNNERWARD_URL is not set") {
		t.Errorf("without a URL: exit code = %d, want %d: %s", code, exitUsage, out)
	}
}

// The whole way: claim, runner, hook's script, agent, GitHub's token, start.
func TestAJobStartsOnlyWhenItsHookIsAllowed(t *testing.T) {
	p := newPod(t, nil)
	cmd, lines := p.start(t, "run", "--", p.agent, "fake-runner", "job")
	want := "token-for-" + bound().Audience()
	if got := <-p.gate.asked; got != want {
		t.Errorf("job token = %s, want %s", got, want)
	}
	p.gate.answer <- supervisor.StartAnswer{Verdict: supervisor.StartPending}
	until(t, lines, "Waiting")
	<-p.gate.asked
	p.gate.answer <- supervisor.StartAnswer{Verdict: supervisor.StartAllowed, Record: bound()}
	if out := until(t, lines, ""); !strings.Contains(out, "the job runs") {
		t.Errorf("output = %s, want the job to run", out)
	}
	if code := exitCode(cmd.Wait()); code != 0 {
		t.Errorf("exit code = %d, want 0", code)
	}
}

// When a pod is deleted, run.sh sends SIGINT to its whole process group.
func TestTheHookSurvivesSignalsWhileItWaits(t *testing.T) {
	p := newPod(t, nil)
	said := p.hear(t)
	p.write(t, "bound", []byte(bound()))
	cmd := p.command(t, "bash", "-e", p.path("job-started.sh"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	lines := start(t, cmd)
	<-p.gate.asked // the hook asks, so its signals are set up
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		if err := syscall.Kill(-cmd.Process.Pid, s); err != nil {
			t.Fatal(err)
		}
	}
	p.gate.answer <- supervisor.StartAnswer{Verdict: supervisor.StartPending}
	<-p.gate.asked // after the signals, it asks again
	p.gate.answer <- supervisor.StartAnswer{Verdict: supervisor.StartAllowed, Record: bound()}
	until(t, lines, "")
	if err := cmd.Wait(); err != nil {
		t.Errorf("hook = %v, want it to end when it is allowed", err)
	}
	if got := <-said; got != "allowed\n" {
		t.Errorf("run heard %q, want that the hook was allowed", got)
	}
}

func TestARefusedHookBlocksAndIgnoresSignals(t *testing.T) {
	for what, prepare := range map[string]func(*testing.T, *pod, *bufio.Scanner){
		"refused by policy": func(t *testing.T, p *pod, lines *bufio.Scanner) {
			<-p.gate.asked
			p.gate.answer <- supervisor.StartAnswer{Verdict: supervisor.StartRefused, Reasons: []string{"run.attempt"}}
			until(t, lines, "run.attempt")
		},
		"not configured": func(t *testing.T, _ *pod, lines *bufio.Scanner) { until(t, lines, "cannot be asked") },
	} {
		t.Run(what, func(t *testing.T) {
			p := newPod(t, nil)
			said := p.hear(t)
			p.write(t, "bound", []byte(bound()))
			if what == "not configured" {
				p.env = append(p.env, "RUNNERWARD_RUNNER=")
			}
			cmd, lines := p.start(t, "hook", strconv.Itoa(os.Getpid()))
			prepare(t, p, lines)
			wantIgnored(t, cmd.Process.Pid, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
			for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
				if err := cmd.Process.Signal(s); err != nil {
					t.Fatalf("signal %s: %v", s, err)
				}
			}
			if out := until(t, lines, ""); out != "" {
				t.Errorf("the blocked hook went on: %s", out)
			}
			exit, ok := errors.AsType[*exec.ExitError](cmd.Wait())
			if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Errorf("hook ended with %v, want nothing but SIGKILL to end it", exit)
			}
			if got := <-said; got != "" {
				t.Errorf("run heard %q of a hook that was killed", got)
			}
		})
	}
}

// wantIgnored reads SigIgn of proc_pid_status(5).
func wantIgnored(t *testing.T, pid int, signals ...syscall.Signal) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "SigIgn:\t")
	line, _, _ := strings.Cut(rest, "\n")
	mask, err := strconv.ParseUint(line, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range signals {
		if mask&(1<<(s-1)) == 0 {
			t.Errorf("%s is not ignored (SigIgn %s)", s, line)
		}
	}
}
