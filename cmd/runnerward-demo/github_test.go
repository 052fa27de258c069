package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
)

// served starts the command and returns its URL and a client that trusts it and
// reaches it under any name.
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
	var address string
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if b, err := os.ReadFile(ready); err == nil && bytes.HasSuffix(b, []byte("\n")) {
			if words := strings.Fields(string(b)); len(words) == 2 {
				url, address = words[0], words[1]
				break
			}
			t.Fatalf("the ready file says %q, want a URL and an address", b)
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
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}
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
		{[]string{"--lease", "0s"}, "--lease 0s is no time"},
		{[]string{"--idle-reap", "-1s"}, "not negative"},
		{[]string{"--listen", "0.0.0.0:8443", "--control-token", "x"}, "give --url"},
		{[]string{"--url", "github.sim"}, "scheme://host"},
		{[]string{"--url", "https://github.sim/base"}, "scheme://host"},
		{[]string{"--job-still-running-status", "500"}, "neither 400 nor 409"},
		{[]string{"--webhook-events", "push"}, "not simulated"},
	} {
		var out, complained bytes.Buffer
		if code := run(t.Context(), append([]string{"github", "--dir", t.TempDir()}, test.args...), &out, &complained); code != 2 || !strings.Contains(complained.String(), test.says) {
			t.Errorf("github %v = %d %q, want 2 and %q", test.args, code, complained.String(), test.says)
		}
	}
}

// TestTheSimulatedGitHubAnswersUnderItsOwnName listens on every address and hands
// out the URL that it was told.
func TestTheSimulatedGitHubAnswersUnderItsOwnName(t *testing.T) {
	url, _, client := served(t, "--listen", "0.0.0.0:0", "--control-token", "sesame", "--url", "https://github.internal")
	if url != "https://github.internal" {
		t.Fatalf("it is served as %s", url)
	}
	resp, err := client.Get(url + "/oidc/.well-known/openid-configuration") // the certificate is for this name
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(b), `"issuer":"https://github.internal/oidc"`) {
		t.Errorf("the issuer's document is %s, %v", b, err)
	}
}

func TestTheFlagsReachTheSimulator(t *testing.T) {
	args := strings.Fields("--org-id 7 --enterprise corp --enterprise-id 8 --ghes --shuffle-jobs --strict-redelivery --job-still-running-status 409 " +
		"--runner-pkcs1 --rate-limit 9 --seed 3 --poll-hold 1s --session-ttl 2s --admin-token-ttl 3s --queue-token-ttl 4s --oidc-token-ttl 5s " +
		"--assign-timeout 6s --lease 7s --idle-reap 8s --webhook-url https://hook.example --webhook-status 200 --webhook-events deployment_review")
	var o gitHubOptions
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	o.register(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	if err := o.check(flags.Args()); err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%+v", o.config)
	for _, want := range strings.Fields("OrgID:7 Enterprise:corp EnterpriseID:8 GHES:true ShuffleJobs:true StrictRedelivery:true JobStillRunningStatus:409 " +
		"PKCS1Runners:true RateLimit:9 Seed:3 PollHold:1s SessionTTL:2s AdminTokenTTL:3s QueueTokenTTL:4s OIDCTokenTTL:5s AssignTimeout:6s " +
		"LeaseTTL:7s IdleReap:8s URL:https://hook.example StatusCode:200 Events:[deployment_review]") {
		if !strings.Contains(got, want) {
			t.Errorf("the configuration is %s, want %s", got, want)
		}
	}
}

// TestTheSimulatorsDocumentationIsComplete finds every flag, control call and
// fault in docs/simulator.md.
func TestTheSimulatorsDocumentationIsComplete(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "simulator.md"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	var o gitHubOptions
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	o.register(flags)
	flags.VisitAll(func(f *flag.Flag) {
		if !strings.Contains(text, "`--"+f.Name+"`") {
			t.Errorf("--%s is not documented", f.Name)
		}
	})
	for _, f := range simgithub.Menu() {
		if !strings.Contains(text, "`"+string(f.Kind)+"`") {
			t.Errorf("the fault %s is not documented", f.Kind)
		}
	}
	for _, c := range simgithub.Controls() {
		// The verbs of a run share one cell: `POST runs/{run}/approve`, `/reject`.
		if last := c.Path[strings.LastIndex(c.Path, "/")+1:]; !strings.Contains(text, "`"+c.Method+" "+c.Path+"`") &&
			!(strings.HasPrefix(c.Path, "runs/{run}/") && strings.Contains(text, "`/"+last+"`")) {
			t.Errorf("%s %s is not documented", c.Method, c.Path)
		}
	}
}
