package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/certs"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/status"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// desk is a status endpoint with a made-up supervisor behind it.
type desk struct {
	*authority
	url, port string

	mu    sync.Mutex
	view  supervisor.View
	calls []string
	fails error
}

func (d *desk) View() supervisor.View {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.view
}

func (d *desk) Freeze(_ context.Context, by, reason string) error {
	return d.did("freeze " + by + " " + reason)
}
func (d *desk) Unfreeze(_ context.Context, by string) error { return d.did("unfreeze " + by) }

func (d *desk) did(what string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = append(d.calls, what)
	return d.fails
}

// failing makes every later call fail and returns the calls so far.
func (d *desk) failing(err error) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fails = err
	return slices.Clone(d.calls)
}

// newDesk serves this view; oncall may freeze.
func newDesk(t *testing.T, view supervisor.View) *desk {
	t.Helper()
	d := &desk{authority: newAuthority(t, t.TempDir()), view: view}
	d.issue(t, "server", "localhost")
	d.issue(t, "oncall", "oncall")
	d.issue(t, "visitor", "visitor")
	tlsConfig, err := status.TLSConfig(certs.Files{
		Cert: d.file("server.crt"), Key: d.file("server.key"), ClientCA: d.file("ca.crt"),
	}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	server := status.New(status.Options{
		Source: d, Control: d, Admins: []string{"oncall"}, Logger: zap.NewNop(), TLS: tlsConfig,
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, d.port, err = net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d.url = "https://localhost:" + d.port
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve = %v, want nil", err)
		}
	})
	return d
}

// call asks the desk, trusting its authority.
func (d *desk) call(t *testing.T, args ...string) result {
	t.Helper()
	return call(t, append(args, "--url", d.url, "--ca", d.file("ca.crt"))...)
}

func (d *desk) as(t *testing.T, who string, args ...string) result {
	t.Helper()
	return d.call(t, append(args, "--cert", d.file(who+".crt"), "--key", d.file(who+".key"))...)
}

func noon() time.Time { return time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC) }

func ready() supervisor.View {
	return supervisor.View{
		Now: noon(), CanDeploy: true, Capacity: 4, Max: 4,
		Checks: []supervisor.HealthCheck{{Name: "queue", OK: true, Detail: "polled 4s ago"}},
		Ledger: supervisor.LedgerView{Size: 1234, LastAt: noon().Add(-90 * time.Second)},
	}
}

// troubled has one of everything that can be shown.
func troubled() supervisor.View {
	v := ready()
	v.CanDeploy, v.Capacity, v.Why = false, 0, []string{"admission is frozen", "1 host is overdue for teardown"}
	v.Frozen = &supervisor.FreezeView{By: "cert:oncall", Reason: "CVE-2026-0001", Since: noon().Add(-7 * time.Minute)}
	v.Checks = append(v.Checks, supervisor.HealthCheck{Name: "posture", Detail: "the runner group is open to all repositories"})
	v.Ledger.LastError = "no space left on device"
	v.Jobs = []supervisor.JobView{
		{ID: "6a0f-1", Repository: "hipaa-app-org/clinical-platform", RunID: 901, Phase: runner.KindStarted,
			Since: noon().Add(-192 * time.Second), Runner: "rw-7c4kq"},
		{ID: "6a0f-3", Repository: "hipaa-app-org/billing", RunID: 903, Phase: runner.KindDenied,
			Since: noon().Add(-time.Hour), Reasons: []string{"approval-missing", "workflow-unpinned"}},
	}
	v.Runners = []supervisor.RunnerView{{Name: "rw-old", Phase: runner.KindTeardown, Since: noon().Add(-20 * time.Minute),
		Instance: "i-0ccccccccccccccc3", Outcome: "completed", Overdue: true,
		Pending: []runner.Stage{runner.StageInstance, runner.StageVolumes}, Problem: "terminate: UnauthorizedOperation"}}
	v.Hosts = []supervisor.HostView{
		{Node: "ip-10-0-1-5", Instance: "i-0aaaaaaaaaaaaaaa1", Vetted: true},
		{Node: "ip-10-0-1-9", Instance: "i-0eeeeeeeeeeeeeee5",
			Failing: []runner.Check{{Name: "host.imdsv2", Verdict: runner.Fail}, {Name: "image.owner", Verdict: runner.Unknown}}},
	}
	return v
}

func TestStatusAnswersOnCall(t *testing.T) {
	calm := newDesk(t, ready()).call(t, "status")
	calm.want(t, exitOK)
	golden(t, "status-ready", calm.out)
	d := newDesk(t, troubled())
	alarm := d.call(t, "status")
	alarm.want(t, exitNotReady, "runnerward: no deploy can run now")
	golden(t, "status-troubled", alarm.out)
	inJSON := d.call(t, "status", "-o", "json")
	inJSON.want(t, exitNotReady)
	var view supervisor.View
	if err := json.Unmarshal([]byte(inJSON.out), &view); err != nil || view.CanDeploy || len(view.Jobs) != 2 {
		t.Errorf("json = %+v, %v, want the view", view, err)
	}
	standby := supervisor.View{Now: noon(), StandingBy: true, Leader: "runnerward-1_x", Why: []string{"this daemon stands by; ask the one that leads, runnerward-1_x"}}
	newDesk(t, standby).call(t, "status").want(t, exitNotReady, "Can we deploy now? Only the leader knows.", "ask the one that leads, runnerward-1_x")
	leader := ready()
	leader.Leader = "runnerward-0_y"
	newDesk(t, leader).call(t, "status").want(t, exitOK, "Can we deploy now? Yes.", "runnerward-0_y leads.")
	d.call(t, "status", "-o", "yaml").want(t, exitUsage, `--output "yaml" is neither text nor json`)
}

func TestAnAdministratorFreezesAndUnfreezes(t *testing.T) {
	d := newDesk(t, ready())
	d.as(t, "oncall", "freeze", "CVE-2026-1234").want(t, exitOK, "frozen: no job is admitted until 'runnerward unfreeze'")
	d.as(t, "oncall", "unfreeze").want(t, exitOK, "no longer frozen: jobs are admitted again")
	want := []string{"freeze cert:oncall CVE-2026-1234", "unfreeze cert:oncall"}
	if got := d.failing(errors.New("append frozen: no space left on device")); !slices.Equal(got, want) {
		t.Errorf("calls = %q, want %q", got, want)
	}
	d.as(t, "oncall", "freeze", "again").want(t, exitFailed, "503", "it may or may not be in the ledger", "no space left on device")
}

func TestNobodyElseFreezes(t *testing.T) {
	d, stranger := newDesk(t, ready()), newAuthority(t, t.TempDir())
	stranger.issue(t, "oncall", "oncall")
	d.call(t, "freeze", "x").want(t, exitUsage, "an administrator's client certificate is needed: --cert and --key missing")
	d.call(t, "unfreeze", "--cert", d.file("oncall.crt")).want(t, exitUsage, "--key missing")
	d.as(t, "visitor", "freeze", "x").want(t, exitFailed, `403 Forbidden: the certificate of "visitor" is genuine but not an administrator's`)
	d.call(t, "freeze", "x", "--cert", stranger.file("oncall.crt"), "--key", stranger.file("oncall.key")).want(t, exitFailed,
		"401 Unauthorized: present a client certificate of the configured client authority")
	d.as(t, "oncall", "freeze", "two words").want(t, exitFailed, "400 Bad Request: the reason must be one word")
	d.as(t, "oncall", "freeze").want(t, exitUsage, "runnerward freeze wants one word as the reason")
	d.call(t, "freeze", "x", "--cert", "missing.crt", "--key", "missing.key").want(t, exitUsage, "--cert and --key: open missing.crt")
	if got := d.failing(nil); got != nil {
		t.Errorf("calls = %q, want none", got)
	}
}

func TestADaemonThatCannotBeAskedSaysWhatToDo(t *testing.T) {
	d := newDesk(t, ready())
	for _, wrong := range []string{"http://127.0.0.1:9443", "127.0.0.1:9443", "https://", "https://:9443", ""} {
		call(t, "status", "--url", wrong).want(t, exitUsage, "is not https://HOST[:PORT]")
	}
	call(t, "status", "--url", d.url).want(t, exitFailed,
		"certificate signed by unknown authority: give --ca, the PEM file of the authority that signed the daemon's certificate")
	call(t, "status", "--url", d.url, "--ca", "missing.crt").want(t, exitUsage, "--ca: open missing.crt")
	call(t, "status", "--url", d.url, "--ca", "serve.go").want(t, exitUsage, "--ca serve.go holds no certificate")
	call(t, "status", "--url", "https://127.0.0.1:1", "--ca", d.file("ca.crt")).want(t, exitFailed,
		"ask the daemon at https://127.0.0.1:1", "connection refused", "is the daemon running")
	call(t, "status", "--url", "https://127.0.0.1:"+d.port, "--ca", d.file("ca.crt")).want(t, exitFailed,
		"give --url with a name that the daemon's certificate (status.certFile) is for")
	call(t, "status", "--url", d.url+"/elsewhere", "--ca", d.file("ca.crt")).want(t, exitFailed, "404")
}
