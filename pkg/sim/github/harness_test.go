package simgithub_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/actions/scaleset"
	"github.com/hashicorp/go-retryablehttp"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/sim/memnet"
)

const (
	sha1   = "1111111111111111111111111111111111111111"
	sha2   = "2222222222222222222222222222222222222222"
	deploy = "acme/workflows/.github/workflows/deploy.yml@refs/tags/v1.0.0"
	pat    = "ghp_test"
)

// world is a simulator behind an in-memory network, with a client of each kind.
type world struct {
	t     *testing.T
	sim   *simgithub.Server
	http  *http.Client
	admin *scaleset.Client
	group int64
	set   *scaleset.RunnerScaleSet
}

// bubble runs f with a fresh world in a synctest bubble.
func bubble(t *testing.T, cfg simgithub.Config, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := memnet.Listen()
		if cfg.BaseURL == "" {
			cfg.BaseURL = "http://ghes.test"
		}
		cfg.Org, cfg.OrgID, cfg.Token = "acme", 65, pat
		sim := simgithub.New(cfg)
		conform(t, sim)
		stop := l.Serve(sim)
		transport := l.Transport()
		w := &world{t: t, sim: sim, http: &http.Client{Transport: transport}}
		defer func() {
			conformWebhooks(t, sim)
			sim.Close()
			transport.CloseIdleConnections()
			stop()
		}()
		w.admin = w.client()
		seedWorld(sim)
		w.group = sim.AddGroup(simgithub.Group{
			Name: "prod", Visibility: "selected", Repositories: []string{"shop"},
			RestrictedToWorkflows: true, Workflows: []string{deploy},
		})
		set, err := w.admin.CreateRunnerScaleSet(t.Context(), &scaleset.RunnerScaleSet{
			Name: "prod-set", RunnerGroupID: int(w.group), RunnerSetting: scaleset.RunnerSetting{DisableUpdate: true},
		})
		if err != nil {
			t.Fatalf("CreateRunnerScaleSet() = %v", err)
		}
		w.set = set
		f(t, w)
	})
}

func seedWorld(sim *simgithub.Server) {
	for _, u := range []string{"alice", "bob", "carol", "mallory"} {
		sim.AddUser(u)
	}
	sim.AddTeam("deployers", "alice", "bob", "carol")
	sim.AddRepository("shop")
	sim.SetWorkflowTag(deploy, sha2)
	sim.SetEnvironment("shop", simgithub.Environment{
		Name: "production", ReviewerTeams: []string{"deployers"}, PreventSelfReview: true,
		Policies: []simgithub.BranchPolicy{{Name: "v*", Type: "tag"}},
	})
}

// client is the official client over the world's network. Its retries are off
// for refusals that the tests look at.
func (w *world) client() *scaleset.Client {
	w.t.Helper()
	rc := retryablehttp.NewClient()
	rc.HTTPClient = &http.Client{Transport: w.http.Transport.(*http.Transport).Clone(), Timeout: 10 * time.Minute}
	w.t.Cleanup(rc.HTTPClient.CloseIdleConnections)
	rc.RetryMax = 0
	c, err := scaleset.NewClientWithPersonalAccessToken(scaleset.NewClientWithPersonalAccessTokenConfig{
		GitHubConfigURL: "http://ghes.test/acme", PersonalAccessToken: pat,
	}, scaleset.WithRetryableHTTPClint(rc))
	if err != nil {
		w.t.Fatalf("NewClientWithPersonalAccessToken() = %v", err)
	}
	return c
}

func (w *world) session() *scaleset.MessageSessionClient {
	w.t.Helper()
	c, err := w.client().MessageSessionClient(w.t.Context(), w.set.ID, "host-1")
	if err != nil {
		w.t.Fatalf("MessageSessionClient() = %v", err)
	}
	return c
}

// poll returns the next message, which must be there.
func (w *world) poll(c *scaleset.MessageSessionClient, last, capacity int) *scaleset.RunnerScaleSetMessage {
	w.t.Helper()
	m, err := c.GetMessage(w.t.Context(), last, capacity)
	if err != nil || m == nil {
		w.t.Fatalf("GetMessage(%d, %d) = %v, %v, want a message", last, capacity, m, err)
	}
	return m
}

// take polls and acknowledges.
func (w *world) take(c *scaleset.MessageSessionClient, capacity int) *scaleset.RunnerScaleSetMessage {
	w.t.Helper()
	m := w.poll(c, 0, capacity)
	if err := c.DeleteMessage(w.t.Context(), m.MessageID); err != nil {
		w.t.Fatalf("DeleteMessage(%d) = %v", m.MessageID, err)
	}
	return m
}

func (w *world) spec() simgithub.RunSpec {
	return simgithub.RunSpec{
		Repository: "shop", Tag: "v1.2.3", HeadSHA: sha1, Actor: "alice", JobWorkflowRef: deploy,
		Labels: []string{"prod-set"}, Group: "prod", IDToken: true, Duration: time.Minute,
	}
}

func (w *world) dispatch(change func(*simgithub.RunSpec)) simgithub.Run {
	w.t.Helper()
	s := w.spec()
	if change != nil {
		change(&s)
	}
	r, err := w.sim.Dispatch(s)
	if err != nil {
		w.t.Fatalf("Dispatch() = %v", err)
	}
	return r
}

func (w *world) jit(name string) (id int, config string) {
	w.t.Helper()
	c, err := w.admin.GenerateJitRunnerConfig(w.t.Context(), &scaleset.RunnerScaleSetJitRunnerSetting{Name: name}, w.set.ID)
	if err != nil {
		w.t.Fatalf("GenerateJitRunnerConfig(%s) = %v", name, err)
	}
	return c.Runner.ID, c.EncodedJITConfig
}

// start runs a runner in the background; the function waits for its end.
func (w *world) start(ctx context.Context, jit string, hook func(context.Context, map[string]string) error) (wait func() int) {
	code := make(chan int, 1)
	go func() { code <- simgithub.Runner{Client: w.http}.Run(ctx, jit, hook) }()
	synctest.Wait()
	return func() int { return <-code }
}

func (w *world) job(id string) simgithub.JobState {
	w.t.Helper()
	j, ok := w.sim.Job(id)
	if !ok {
		w.t.Fatalf("Job(%s) is unknown", id)
	}
	return j
}

// raw sends a request with this Authorization header and returns the status
// and the decoded body.
func (w *world) raw(method, path, authorization string, body any) (int, http.Header, map[string]any) {
	w.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		w.t.Fatal(err)
	}
	if body == nil {
		b = nil
	}
	url := path
	if strings.HasPrefix(path, "/") {
		url = "http://ghes.test" + path
	}
	req, err := http.NewRequestWithContext(w.t.Context(), method, url, bytes.NewReader(b))
	if err != nil {
		w.t.Fatal(err)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := w.http.Do(req)
	if err != nil {
		return 0, nil, map[string]any{"error": err.Error()}
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	var doc map[string]any
	_ = json.Unmarshal(got, &doc) // lists and pages stay nil
	return resp.StatusCode, resp.Header, doc
}

// adminToken goes through the bootstrap by hand.
func (w *world) adminToken() string {
	w.t.Helper()
	status, _, reg := w.raw("POST", "/api/v3/orgs/acme/actions/runners/registration-token", "Bearer "+pat, nil)
	if status != http.StatusCreated {
		w.t.Fatalf("registration-token: status %d, want 201", status)
	}
	status, _, svc := w.raw("POST", "/api/v3/actions/runner-registration", "RemoteAuth "+reg["token"].(string),
		map[string]any{"url": "http://ghes.test/acme", "runner_event": "register"})
	if status != http.StatusOK {
		w.t.Fatalf("runner-registration: status %d, want 200", status)
	}
	return svc["token"].(string)
}

func wantNear(t *testing.T, what string, got, want time.Duration) {
	t.Helper()
	if got < want || got > want+time.Second {
		t.Errorf("%s took %v, want %v", what, got, want)
	}
}

func kinds(m *scaleset.RunnerScaleSetMessage) string {
	var out []string
	add := func(name string, n int) {
		for range n {
			out = append(out, name)
		}
	}
	add("available", len(m.JobAvailableMessages))
	add("assigned", len(m.JobAssignedMessages))
	add("started", len(m.JobStartedMessages))
	add("completed", len(m.JobCompletedMessages))
	slices.Sort(out)
	return strings.Join(out, ",")
}

// sleep lets the bubble's time pass.
func sleep(d time.Duration) { <-time.After(d) }
