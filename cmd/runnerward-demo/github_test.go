package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// served starts the command and returns its address and a client that trusts it.
func served(t *testing.T, args ...string) (url, dir string, client *http.Client) {
	t.Helper()
	dir = t.TempDir()
	ready := filepath.Join(dir, "ready")
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan int, 1)
	var said, complained bytes.Buffer
	go func() {
		ended <- run(ctx, append([]string{"github", "--listen", "127.0.0.1:0", "--dir", dir, "--ready-file", ready}, args...), &said, &complained)
	}()
	t.Cleanup(func() {
		cancel()
		if code := <-ended; code != 0 {
			t.Errorf("the command ended with %d: %s", code, complained.String())
		}
	})
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if b, err := os.ReadFile(ready); err == nil && bytes.HasSuffix(b, []byte("\n")) {
			url = strings.TrimSpace(string(b))
			break
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatal("it does not get ready")
		}
	}
	pool := x509.NewCertPool()
	if pem, err := os.ReadFile(filepath.Join(dir, "ca.crt")); err == nil {
		pool.AppendCertsFromPEM(pem)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(transport.CloseIdleConnections)
	return url, dir, &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

func TestTheSimulatedGitHubIsServedAlone(t *testing.T) {
	url, dir, client := served(t, "--org", "acme", "--control-token", "sesame")
	ask := func(method, path, token, body string) (int, string) {
		req, err := http.NewRequest(method, url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	token, err := os.ReadFile(filepath.Join(dir, "token"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"token", "app.pem"} {
		if info, err := os.Stat(filepath.Join(dir, file)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v, want it private", file, info, err)
		}
	}
	if code, body := ask("GET", "/api/v3/orgs/acme", strings.TrimSpace(string(token)), ""); code != 200 {
		t.Errorf("the REST API answers %d %s", code, body)
	}
	if code, _ := ask("POST", "/_sim/users", "wrong", `{"login":"alice"}`); code != 401 {
		t.Errorf("the control API answers %d without its token, want 401", code)
	}
	if code, body := ask("POST", "/_sim/users", "sesame", `{"login":"alice"}`); code != 200 {
		t.Errorf("the control API answers %d %s", code, body)
	}
}

func TestGitHubCommandRefusesMisuse(t *testing.T) {
	for _, test := range []struct {
		args []string
		says string
	}{
		{[]string{"--listen", "0.0.0.0:8443"}, "--control-token"},
		{[]string{"--listen", "nowhere"}, "HOST:PORT"},
		{[]string{"--assign", "best"}, "random nor oldest"},
		{[]string{"extra"}, "unexpected argument"},
		{[]string{"--poll-hold", "50"}, "poll-hold"},
	} {
		var out, complained bytes.Buffer
		if code := run(t.Context(), append([]string{"github", "--dir", t.TempDir()}, test.args...), &out, &complained); code != 2 || !strings.Contains(complained.String(), test.says) {
			t.Errorf("github %v = %d %q, want 2 and %q", test.args, code, complained.String(), test.says)
		}
	}
}
