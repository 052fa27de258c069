package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/runnerward/runnerward/pkg/config"
	"github.com/runnerward/runnerward/pkg/lease"
	"github.com/runnerward/runnerward/pkg/status"
)

// beside is the configuration of good.yaml with its ledger in S3, as serve
// loads it.
func beside(t *testing.T, dir string, at config.S3) *config.Config {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	prepare(t, dir, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	t.Chdir(dir)
	cfg, err := config.Load("good.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Ledger.Dir, cfg.Ledger.S3, cfg.Ledger.SpoolDir = "", at, filepath.Join(dir, "spool")
	cfg.Status.Admins = []string{"oncall"}
	return cfg
}

// TestADaemonWhoseLogIsAwayLivesAndSaysWhy: a probe that took the wait for a
// hang would end the daemon, over and over, for as long as the outage lasts.
func TestADaemonWhoseLogIsAwayLivesAndSaysWhy(t *testing.T) {
	dir, c := t.TempDir(), newCloud(t)
	down := answering(t, http.StatusTooManyRequests, "application/xml", "<Error><Code>TooManyRequests</Code></Error>")
	c.at.Endpoint, c.at.CAFile = down.URL, caOf(t, down)
	cfg := beside(t, dir, c.at)
	statusListener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	admissionListener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	waits := make(chan struct{}, 1)
	core, _ := observer.New(zap.ErrorLevel)
	logger := zap.New(core, zap.Hooks(func(zapcore.Entry) error {
		select {
		case waits <- struct{}{}:
		default:
		}
		return nil
	}))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- serveOn(ctx, cfg, logger, admissionListener, statusListener) }()
	<-waits
	client := oncall(t, dir)
	ask := func(method, path, want string, code int) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "https://"+statusListener.Addr().String()+path, strings.NewReader(`{"reason":"x"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != code || !strings.Contains(string(body), want) {
			t.Errorf("%s %s = %d %s, want %d and %q", method, path, resp.StatusCode, body, code, want)
		}
	}
	const why = "waiting for the log's store or its keys: ledger.s3: "
	ask("GET", "/livez", "ok\n", 200)
	ask("GET", "/readyz", "[-]start failed: "+why, 503)
	ask("GET", "/statusz?format=json", `"the daemon starts: `+why, 200)
	ask("GET", "/statusz?format=html", "Can we deploy now? No", 200)
	ask("GET", "/metrics", `runnerward_ready{check="start"} 0`, 200)
	ask("GET", "/metrics", "runnerward_ledger_failing 1", 200)
	ask("POST", "/v1/freeze", "nothing was recorded: the daemon starts", 503)
	cancel()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "ledger.s3: ") {
		t.Errorf("serveOn = %v, want why it never came up", err)
	}
	for _, ln := range []net.Listener{statusListener, admissionListener} {
		if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept after the end = %v, want a closed listener", err)
		}
	}
}

// oncall has the client certificate of that name in this folder.
func oncall(t *testing.T, dir string) *http.Client {
	t.Helper()
	at := clientFlags{url: "https://localhost", ca: filepath.Join(dir, "ca.crt"),
		cert: filepath.Join(dir, "oncall.crt"), key: filepath.Join(dir, "oncall.key")}
	client, err := at.client()
	if err != nil {
		t.Fatal(err)
	}
	transport := client.Transport.(*http.Transport)
	transport.TLSClientConfig.ServerName = "localhost"
	t.Cleanup(transport.CloseIdleConnections)
	return client
}

// TestTheFrontStepsAside, without the endpoint being served anew.
func TestTheFrontStepsAside(t *testing.T) {
	f := &front{}
	f.goesOn("reading")
	if v := f.View(); v.CanDeploy || len(v.Why) != 1 || v.Why[0] != "the daemon starts: reading" || v.Ledger.LastError != "" {
		t.Errorf("View of a start that goes on = %+v", v)
	}
	if err := f.Unfreeze(t.Context(), "cert:oncall"); !errors.Is(err, status.ErrUntouched) {
		t.Errorf("Unfreeze before there is anything = %v, want ErrUntouched", err)
	}
	behind := &desk{view: ready()}
	f.stands(behind)
	if v := f.View(); !v.CanDeploy || v.Ledger.Size != ready().Ledger.Size {
		t.Errorf("View = %+v, want what stands behind", v)
	}
	if err := errors.Join(f.Freeze(t.Context(), "cert:oncall", "x"), f.Unfreeze(t.Context(), "cert:oncall")); err != nil {
		t.Error(err)
	}
	if calls := behind.failing(nil); !slices.Equal(calls, []string{"freeze cert:oncall x", "unfreeze cert:oncall"}) {
		t.Errorf("it was asked %q", calls)
	}
}

// TestTheFrontOfAnElectedDaemon says who leads at every point of its life.
func TestTheFrontOfAnElectedDaemon(t *testing.T) {
	at := lease.State{}
	f := &front{election: func() lease.State { return at }, patience: 15 * time.Second}
	f.goesOn("reading")
	for _, tc := range []struct {
		name      string
		state     lease.State
		ready     bool
		detail    string
		untouched string
	}{
		{"nothing is known", lease.State{Problem: "connection refused"}, false, "the lease was never read: connection refused", "and nobody leads"},
		{"another leads", lease.State{Leader: "b", SeenAt: time.Now()}, true, "ready to take over from b", "ask the one that leads, b"},
		{"nobody leads", lease.State{SeenAt: time.Now()}, true, "nobody leads; taking over", "and nobody leads"},
		{"one try failed", lease.State{Leader: "b", SeenAt: time.Now().Add(-4 * time.Second), Problem: "x"}, true, "ready to take over from b", "leads, b"},
		{"the lease is out of sight", lease.State{Leader: "b", SeenAt: time.Now().Add(-time.Minute), Problem: "x"}, false, "the lease was last read 1m0s ago: x", "leads, b"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			at = tc.state
			v := f.View()
			if v.Leading || !v.StandingBy || v.CanDeploy || v.Leader != tc.state.Leader || len(v.Checks) != 1 ||
				v.Checks[0].OK != tc.ready || v.Checks[0].Detail != tc.detail {
				t.Errorf("View = %+v, want %q and ready %t", v, tc.detail, tc.ready)
			}
			if err := f.Freeze(t.Context(), "cert:oncall", "x"); !errors.Is(err, status.ErrUntouched) || !strings.Contains(err.Error(), tc.untouched) {
				t.Errorf("Freeze = %v, want it untouched and %q", err, tc.untouched)
			}
		})
	}
	at = lease.State{Leader: "a", Leading: true, SeenAt: time.Now()}
	if v := f.View(); !v.Leading || v.StandingBy || v.Why[0] != "the daemon starts: reading" {
		t.Errorf("View of a leader that starts = %+v", v)
	}
	f.stands(&desk{view: ready()})
	if v := f.View(); !v.Leading || v.Leader != "a" || !v.CanDeploy {
		t.Errorf("View of the leader = %+v", v)
	}
	at = lease.State{Leader: "b", SeenAt: time.Now()}
	if v := f.View(); v.Leading || v.Leader != "b" {
		t.Errorf("View of one that lost the lease = %+v, want b to lead", v)
	}
}
