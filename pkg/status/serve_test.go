package status_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/certs"
	"github.com/runnerward/runnerward/pkg/status"
)

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// served starts Serve over a certificate called server.
func served(t *testing.T, ctx context.Context, a *authority, ln net.Listener) <-chan error {
	t.Helper()
	a.issue(t, "server", "localhost")
	config, err := status.TLSConfig(certs.Files{Cert: a.file("server.crt"), Key: a.file("server.key")}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	s := status.New(status.Options{Source: &source{view: healthy()}, Logger: zap.NewNop(), TLS: config})
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	return done
}

func TestServeAnswersUntilItsContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w := &world{authority: newAuthority(t)}
	ln := listen(t)
	w.url = "https://" + ln.Addr().String()
	done := served(t, ctx, w.authority, ln)
	if got := w.get(t, "/livez"); got.code != 200 || got.body != "ok\n" {
		t.Errorf("GET /livez = %d %q, want 200 ok", got.code, got.body)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve = %v, want nil after its context ended", err)
	}
	if conn, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		conn.Close()
		t.Errorf("the listener still accepts after Serve returned")
	}
}

func TestServeReportsItsDeath(t *testing.T) {
	ln := listen(t)
	ln.Close()
	err := <-served(t, t.Context(), newAuthority(t), ln)
	if !errors.Is(err, net.ErrClosed) || !strings.HasPrefix(err.Error(), "serve status: ") {
		t.Errorf("Serve over a dead listener = %v, want the reason", err)
	}
}

func TestServeRefusesToServeWithoutTLS(t *testing.T) {
	s := status.New(status.Options{Source: &source{}, Logger: zap.NewNop()})
	ln := listen(t)
	if err := s.Serve(t.Context(), ln); err == nil || !strings.Contains(err.Error(), "no TLS configuration") {
		t.Errorf("Serve without TLS = %v, want a refusal", err)
	}
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Serve = %v, want a closed listener", err)
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	w := start(t, healthy())
	client := w.client()
	config := client.Transport.(*http.Transport).TLSClientConfig
	config.MinVersion, config.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if resp, err := client.Get(w.url + "/livez"); err == nil {
		resp.Body.Close()
		t.Errorf("GET /livez over TLS 1.1 = %d, want no connection", resp.StatusCode)
	}
	for limit, want := range map[uint16]uint16{tls.VersionTLS12: tls.VersionTLS12, 0: tls.VersionTLS13} {
		config.MaxVersion = limit
		resp, err := client.Get(w.url + "/livez")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.TLS.Version != want {
			t.Errorf("TLS version with at most %x = %x, want %x", limit, resp.TLS.Version, want)
		}
	}
}

func TestAnAuthorityThatIsTakenOutIsNoLongerBelieved(t *testing.T) {
	w := start(t, healthy(), "oncall")
	client := w.client(w.issue(t, "oncall", "oncall"))
	if got := w.do(t, client, http.MethodPost, "/v1/unfreeze", "", "Content-Type", asJSON); got.code != 200 {
		t.Fatalf("POST /v1/unfreeze = %d, want 200", got.code)
	}
	next, err := os.ReadFile(newAuthority(t).file("ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.file("ca.pem"), append(next, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	got := w.do(t, client, http.MethodPost, "/v1/unfreeze", "", "Content-Type", asJSON)
	if got.code != 401 || len(w.lever.calls) != 1 {
		t.Errorf("POST /v1/unfreeze after rotation = %d, %d calls, want 401 and no second call", got.code, len(w.lever.calls))
	}
}

func TestAPageInFlightSurvivesShutdown(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	a := newAuthority(t)
	a.issue(t, "server", "localhost")
	config, err := status.TLSConfig(a.server(), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	slow := &slowLever{entered: make(chan struct{}), leave: make(chan struct{})}
	s := status.New(status.Options{Source: &source{view: healthy()}, Control: slow, Admins: []string{"oncall"}, Logger: zap.NewNop(), TLS: config})
	ln := listen(t)
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()

	w := &world{authority: a, url: "https://" + ln.Addr().String()}
	client := w.client(a.issue(t, "oncall", "oncall"))
	type result struct {
		body string
		err  error
	}
	answered := make(chan result, 1)
	go func() {
		resp, err := client.Post(w.url+"/v1/unfreeze", asJSON, http.NoBody)
		if err != nil {
			answered <- result{err: err}
			return
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		answered <- result{string(b), err}
	}()
	<-slow.entered
	cancel()
	for { // until the shutdown has begun
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			break
		}
		conn.Close()
	}
	close(slow.leave)
	if got := <-answered; got.err != nil || !strings.Contains(got.body, `"ok": true`) {
		t.Errorf("POST /v1/unfreeze during shutdown = %q, %v, want its answer", got.body, got.err)
	}
	if err := <-done; err != nil {
		t.Errorf("Serve = %v, want nil", err)
	}
}

// slowLever holds Unfreeze until it may leave.
type slowLever struct {
	lever
	entered, leave chan struct{}
}

func (l *slowLever) Unfreeze(ctx context.Context, _ string) error {
	close(l.entered)
	<-l.leave
	return ctx.Err()
}
