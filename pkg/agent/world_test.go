package agent_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/admission"
	"github.com/runnerward/runnerward/pkg/agent"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/sim/memnet"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

const (
	name   = runner.Name("hipaa-prod-7k2m")
	jit    = "CANARYJITCONFIG"
	secret = "request-token" // ACTIONS_ID_TOKEN_REQUEST_TOKEN
)

// world is a supervisor behind the real admission handler, and GitHub's token
// endpoint, both without a network so that time can be simulated.
type world struct {
	dir    string
	bound  runner.Digest
	record runner.Digest
	out    *lockedBuffer
	line   *memnet.Listener // stands for the Unix socket

	mu          sync.Mutex
	podToken    string  // the only one that the cluster vouches for
	claims      []error // what the next claims fail with, nil answers
	claimed     int
	starts      []supervisor.StartAnswer // the next answers, the last one for ever
	startErr    error
	hosts       []supervisor.HostClaim // that witnesses presented
	hostErr     error
	presented   []string  // job tokens that reached the gate
	inProgress  time.Time // GitHub refuses tokens before
	issued      int
	life        time.Duration
	revoked     int           // the number of a token that is not accepted
	shortest    time.Duration // what a presented token had left to live at least
	said        []string      // by hooks, to the Run that there is none of
	unreachable int           // requests to the supervisor that fail from now on
	foreign     int           // requests that something else answers
}

func newWorld(t *testing.T) *world {
	w := &world{
		dir: t.TempDir(), bound: runner.DigestOf([]byte("bound")), record: runner.DigestOf([]byte("started")),
		out: &lockedBuffer{}, line: memnet.Listen(), podToken: "pod-token-1", life: 5 * time.Minute, shortest: time.Hour,
	}
	w.write(t, "token", w.podToken+"\n", 0o600)
	w.write(t, "job-started.sh", "#!/bin/bash\n", 0o500)
	if err := os.Mkdir(filepath.Join(w.dir, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) write(t *testing.T, name, content string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(w.path(name), []byte(content), mode); err != nil {
		t.Error(err)
	}
}

func (w *world) config() agent.Config {
	supervised := transport{w, admission.NewHandler(w, zap.NewNop(), admission.Limits{})}
	return agent.Config{
		URL: "https://admission.example:8443", Runner: name, TokenFile: w.path("token"),
		BoundFile: w.path("run/bound"), HookScript: w.path("job-started.sh"),
		Client: &http.Client{Transport: supervised},
		GitHub: &http.Client{Transport: transport{nil, http.HandlerFunc(w.serveTokens)}},
		Out:    w.out,
		Listen: func() (net.Listener, error) { return w.line, nil },
		Dial:   w.dial,
	}
}

func (w *world) dial(ctx context.Context) (net.Conn, error) { return w.line.DialContext(ctx, "", "") }

func (w *world) agent(t *testing.T) *agent.Agent {
	t.Helper()
	a, err := agent.New(w.config())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// jobEnv is the hook's environment in a job that may ask for tokens.
func jobEnv(name string) string {
	return map[string]string{
		"ACTIONS_ID_TOKEN_REQUEST_URL":   "https://tokens.example/id?api-version=2.0",
		"ACTIONS_ID_TOKEN_REQUEST_TOKEN": secret,
	}[name]
}

func noEnv(string) string { return "" }

func (w *world) review(pod string) error {
	if pod != w.podToken {
		return supervisor.ErrTokenRejected
	}
	return nil
}

func (w *world) Claim(_ context.Context, n runner.Name, pod string) (supervisor.ClaimAnswer, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.claimed++
	if err := w.review(pod); err != nil {
		return supervisor.ClaimAnswer{}, err
	}
	if len(w.claims) > 0 {
		err := w.claims[0]
		w.claims = w.claims[1:]
		if err != nil {
			return supervisor.ClaimAnswer{}, err
		}
	}
	if n != name {
		return supervisor.ClaimAnswer{}, supervisor.ErrConflict
	}
	return supervisor.ClaimAnswer{JITConfig: supervisor.NewSecret(jit), Bound: w.bound}, nil
}

func (w *world) Start(_ context.Context, _ runner.Name, pod, job string) (supervisor.StartAnswer, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.review(pod); err != nil {
		return supervisor.StartAnswer{}, err
	}
	w.presented = append(w.presented, job)
	if w.startErr != nil {
		return supervisor.StartAnswer{}, w.startErr
	}
	if job != "" {
		claims := readToken(job)
		w.shortest = min(w.shortest, time.Until(time.Unix(claims.ExpiresAt, 0)))
		if claims.ID == w.revoked || claims.Audience != w.bound.Audience() || time.Now().Unix() >= claims.ExpiresAt {
			return supervisor.StartAnswer{}, fmt.Errorf("token for %s: %w", claims.Audience, supervisor.ErrTokenRejected)
		}
	}
	answer := w.starts[0]
	if len(w.starts) > 1 {
		w.starts = w.starts[1:]
	}
	return answer, nil
}

func (w *world) Host(_ context.Context, token string, claim supervisor.HostClaim) (runner.HostIdentity, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.review(token); err != nil {
		return runner.HostIdentity{}, err
	}
	w.hosts = append(w.hosts, claim)
	if w.hostErr != nil {
		return runner.HostIdentity{}, w.hostErr
	}
	return runner.HostIdentity{Document: runner.DigestOf(claim.Document)}, nil
}

func (w *world) tokens() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.presented...)
}

type tokenClaims struct {
	Audience  string `json:"aud"`
	IssuedAt  int64  `json:"iat"`
	ExpiresAt int64  `json:"exp"`
	ID        int    `json:"jti"`
}

func readToken(token string) (c tokenClaims) {
	parts := strings.Split(token, ".")
	if len(parts) == 3 {
		b, _ := base64.RawURLEncoding.DecodeString(parts[1])
		_ = json.Unmarshal(b, &c)
	}
	return c
}

// serveTokens is the endpoint of
// https://docs.github.com/en/actions/reference/security/oidc#methods-for-requesting-the-oidc-token
// It keeps the query that it came with and refuses a job that is not in
// progress yet (actions/runner src/Runner.Worker/JobRunner.cs waits for that).
// Its tokens are 300 s good, as in the documentation's sample.
func (w *world) serveTokens(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case r.Method != http.MethodGet, r.URL.Query().Get("api-version") != "2.0":
		rw.WriteHeader(http.StatusNotFound)
	case !strings.EqualFold(r.Header.Get("Authorization"), "bearer "+secret):
		rw.WriteHeader(http.StatusUnauthorized)
	case time.Now().Before(w.inProgress):
		rw.WriteHeader(http.StatusBadRequest)
	default:
		w.issued++
		now := time.Now()
		payload, _ := json.Marshal(tokenClaims{r.URL.Query().Get("audience"), now.Unix(), now.Add(w.life).Unix(), w.issued})
		token := "e30." + base64.RawURLEncoding.EncodeToString(payload) + ".c2ln"
		_ = json.NewEncoder(rw).Encode(map[string]string{"value": token})
	}
}

// transport brings requests to a handler without a socket.
type transport struct {
	faults  *world
	handler http.Handler
}

func (t transport) RoundTrip(req *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	if t.faults.down() {
		return nil, errors.New("connection refused")
	}
	if t.faults.mistaken() {
		http.Error(rec, `{"error":"not found"}`, http.StatusNotFound)
		return rec.Result(), nil
	}
	in := httptest.NewRequestWithContext(req.Context(), req.Method, req.URL.RequestURI(), req.Body)
	in.Header = req.Header.Clone()
	t.handler.ServeHTTP(rec, in)
	return rec.Result(), nil
}

func (w *world) down() bool { return w.take(func() *int { return &w.unreachable }) }

func (w *world) mistaken() bool { return w.take(func() *int { return &w.foreign }) }

func (w *world) take(budget func() *int) bool {
	if w == nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	left := budget()
	if *left == 0 {
		return false
	}
	*left--
	return true
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
