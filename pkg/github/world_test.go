package github_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/ghapp"
	"github.com/runnerward/runnerward/pkg/github"
	"github.com/runnerward/runnerward/pkg/runner"
	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

const (
	token       = "ghp_canary0123456789"
	headSHA     = "0123456789abcdef0123456789abcdef01234567"
	workflowSHA = "89abcdef0123456789abcdef0123456789abcdef"
	workflow    = "acme/compliance/.github/workflows/deploy-prod.yml@refs/tags/v1.0.0"
)

// world is a simulated GitHub over TLS; single answers can be replaced.
type world struct {
	sim    *simgithub.Server
	server *httptest.Server
	// repository and group are the ids of those that deploy.
	repository, group int64

	mu  sync.Mutex
	odd map[string]http.HandlerFunc // by suffix of the path
}

func newWorld(t *testing.T, edit ...func(*simgithub.Config)) *world {
	t.Helper()
	w := &world{odd: map[string]http.HandlerFunc{}}
	w.server = httptest.NewUnstartedServer(w)
	cfg := simgithub.Config{
		BaseURL: "https://" + w.server.Listener.Addr().String(), Org: "acme", OrgID: 65, Token: token,
	}
	for _, e := range edit {
		e(&cfg)
	}
	w.sim = simgithub.New(cfg)
	w.server.StartTLS()
	t.Cleanup(w.server.Close)

	w.repository = w.sim.AddRepository("clinical-platform")
	w.sim.AddRepository("compliance")
	for _, login := range []string{"dev", "approver", "outsider"} {
		w.sim.AddUser(login)
	}
	w.sim.AddTeam("prod-approvers", "approver", "dev")
	w.sim.AddTeam("on-call", "outsider")
	w.sim.SetEnvironment("clinical-platform", simgithub.Environment{
		Name: "production", ReviewerTeams: []string{"prod-approvers", "on-call"}, CanAdminsBypass: true,
	})
	w.group = w.sim.AddGroup(simgithub.Group{
		Name: "hipaa-prod", Visibility: "selected", Repositories: []string{"clinical-platform"},
		RestrictedToWorkflows: true, Workflows: []string{workflow},
	})
	w.sim.SetWorkflowTag(workflow, workflowSHA)
	return w
}

func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	var odd http.HandlerFunc
	for suffix, h := range w.odd {
		if strings.HasSuffix(r.URL.Path, suffix) {
			odd = h
		}
	}
	w.mu.Unlock()
	if odd != nil {
		odd(rw, r)
		return
	}
	w.sim.ServeHTTP(rw, r)
}

func (w *world) answers(suffix string, h http.HandlerFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.odd[suffix] = h
}

func body(status int, text string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(text))
	}
}

func (w *world) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(w.server.Certificate())
	return pool
}

func (w *world) config() github.Config {
	return github.Config{
		URL: w.server.URL, Org: "acme", RootCAs: w.roots(), Token: supervisor.NewSecret(token),
		Environment: "production", ApproverTeams: []string{"prod-approvers"}, Group: "hipaa-prod", Repositories: []runner.Repository{{Name: "acme/clinical-platform", ID: w.repository}},
		Labels: []string{"self-hosted", "hipaa-prod"}, RunnerScaleSetName: "hipaa-prod",
	}
}

func (w *world) client(t *testing.T, cfg github.Config) *github.Client {
	t.Helper()
	c, err := github.New(cfg, zap.NewNop())
	if err != nil {
		t.Fatalf("New() = %v", err)
	}
	return c
}

// deploy dispatches a run of the deploy workflow.
func (w *world) deploy(t *testing.T, edit ...func(*simgithub.RunSpec)) simgithub.Run {
	t.Helper()
	spec := simgithub.RunSpec{
		Repository: "clinical-platform", Tag: "v1.2.3", HeadSHA: headSHA, Actor: "dev",
		WorkflowPath: ".github/workflows/release.yml", JobWorkflowRef: workflow, Environment: "production",
		Labels: []string{"self-hosted", "hipaa-prod"}, Group: "hipaa-prod", IDToken: true,
	}
	for _, e := range edit {
		e(&spec)
	}
	run, err := w.sim.Dispatch(spec)
	if err != nil {
		t.Fatalf("Dispatch() = %v", err)
	}
	return run
}

func offer(run simgithub.Run) runner.Offered {
	return runner.Offered{
		Job: runner.JobID(run.JobID), Repository: run.Repository, RunID: run.ID, WorkflowRef: workflow,
		EventName: "push", Labels: []string{"self-hosted", "hipaa-prod"}, MessageID: 1,
	}
}

// app signs in as the App whose key this is.
func (w *world) app(t *testing.T, pem supervisor.Secret) *ghapp.App {
	t.Helper()
	key, err := ghapp.ParseKey([]byte(pem.Reveal()))
	if err != nil {
		t.Fatal(err)
	}
	api, err := ghapp.APIBase(w.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	app, err := ghapp.New(ghapp.Config{
		API: api, ClientID: "Iv1.x", InstallationID: 99, Key: key,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.roots()}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return app
}

// appKey makes an RSA key, as GitHub hands it out for an App.
func appKey(t *testing.T) (*rsa.PrivateKey, supervisor.Secret) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der := x509.MarshalPKCS1PrivateKey(key)
	return key, supervisor.NewSecret(string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: der})))
}
