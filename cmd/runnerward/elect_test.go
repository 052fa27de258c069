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
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/config"
)

// TestAStandbyOpensNothing: it is alive and says what it waits for, agents are
// turned away, and there is neither a ledger nor a key when it has
// ended, which is no failure.
func TestAStandbyOpensNothing(t *testing.T) {
	dir := t.TempDir()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	prepare(t, dir, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	t.Chdir(dir)
	cfg, err := config.Load("good.yaml", nil) // its cluster answers nothing
	if err != nil {
		t.Fatal(err)
	}
	cfg.Status.Admins, cfg.Supervisor.LeaderElection.Enabled = []string{"oncall"}, true
	admission, status, err := listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- serveOn(ctx, cfg, zap.NewNop(), admission, status) }()
	client := oncall(t, dir)
	get := func(path string) string {
		resp, err := client.Get("https://" + status.Addr().String() + path)
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return err.Error()
		}
		return resp.Status + " " + string(body)
	}
	for path, want := range map[string]string{
		"/livez":               "200 OK ok\n",
		"/readyz":              "503 Service Unavailable [-]standby failed: the lease was never read: read the lease gha-runners/runnerward: ",
		"/statusz?format=json": `"standingBy": true`,
		"/metrics":             "runnerward_leader 0",
	} {
		got, end := "", time.Now().Add(30*time.Second)
		for got = get(path); !strings.Contains(got, want) && time.Now().Before(end); got = get(path) {
			<-time.After(20 * time.Millisecond)
		}
		if !strings.Contains(got, want) {
			t.Errorf("GET %s = %s, want %q", path, got, want)
		}
	}
	if taken, err := net.Listen("tcp", admission.Addr().String()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("another may listen where a standby will: %v, %v", taken, err)
	}
	if answer, err := client.Get("https://" + admission.Addr().String()); err == nil {
		_ = answer.Body.Close()
		t.Errorf("a standby answers agents: %s", answer.Status)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("serveOn = %v, want an orderly end", err)
	}
	for _, made := range []string{"ledger", "keys", "root.json"} {
		if _, err := os.Stat(filepath.Join(dir, made)); !os.IsNotExist(err) {
			t.Errorf("%s is there: %v", made, err)
		}
	}
}
