package foreignrunner_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/sim/memnet"
	"github.com/runnerward/runnerward/test/foreignrunner"
)

const (
	base = "http://github.sim"
	pat  = "ghp_foreign"
	sets = "/rest/_apis/runtime/runnerscalesets"
)

// world is a simulator with a scale set whose session is open.
type world struct {
	t     *testing.T
	sim   *simgithub.Server
	http  *http.Client
	admin string
	queue string
	token string // of the queue
}

func bubble(t *testing.T, cfg simgithub.Config, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := memnet.Listen()
		cfg.BaseURL, cfg.Org, cfg.Token = base, "acme", pat
		sim := simgithub.New(cfg)
		stop := l.Serve(sim)
		transport := l.Transport()
		defer func() {
			sim.Close()
			transport.CloseIdleConnections()
			stop()
		}()
		sim.AddUser("alice")
		sim.AddRepository("shop")
		sim.AddGroup(simgithub.Group{Name: "prod", Visibility: "all"})
		w := &world{t: t, sim: sim, http: &http.Client{Transport: transport}}
		w.open()
		f(t, w)
	})
}

// open makes the scale set and its session.
func (w *world) open() {
	w.t.Helper()
	reg := w.call("POST", "/api/v3/orgs/acme/actions/runners/registration-token", "Bearer "+pat, nil)
	svc := w.call("POST", "/api/v3/actions/runner-registration", "RemoteAuth "+reg["token"].(string),
		map[string]any{"url": base + "/acme", "runner_event": "register"})
	w.admin = "Bearer " + svc["token"].(string)
	w.call("POST", sets, w.admin, map[string]any{
		"name": "prod", "runnerGroupId": 2, "labels": []map[string]any{{"type": "System", "name": "prod"}},
	})
	session := w.call("POST", sets+"/1/sessions", w.admin, map[string]any{"ownerName": "test"})
	w.queue, w.token = session["messageQueueUrl"].(string), session["messageQueueAccessToken"].(string)
}

// call sends JSON and returns the answer, which must be no refusal.
func (w *world) call(method, path, authorization string, in any) map[string]any {
	w.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		w.t.Fatal(err)
	}
	if strings.HasPrefix(path, "/") {
		path = base + path
	}
	req, err := http.NewRequestWithContext(w.t.Context(), method, path, bytes.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", authorization)
	req.Header.Set("X-ScaleSetMaxCapacity", "5")
	resp, err := w.http.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode > 299 {
		w.t.Fatalf("%s %s: status %d: %s, %v", method, path, resp.StatusCode, text, err)
	}
	var out map[string]any
	_ = json.Unmarshal(text, &out) // an empty answer has nothing
	return out
}

// dispatch starts a run and lets the scale set have its job.
func (w *world) dispatch() simgithub.Run {
	w.t.Helper()
	run, err := w.sim.Dispatch(simgithub.RunSpec{
		Repository: "shop", Tag: "v1.0.0", HeadSHA: strings.Repeat("a", 40), Actor: "alice", Environment: "production",
		Labels: []string{"prod"}, IDToken: true, Duration: 90 * time.Second,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if m := w.call("GET", w.queue, "Bearer "+w.token, nil); !strings.Contains(m["body"].(string), "JobAssigned") {
		w.t.Fatalf("the scale set's message is %v, want the job", m)
	}
	return run
}

func (w *world) jit(name string) string {
	w.t.Helper()
	return w.call("POST", sets+"/1/generatejitconfig", w.admin, map[string]any{"name": name})["encodedJITConfig"].(string)
}

// connect is a runner with an open session.
func (w *world) connect(jit string) *foreignrunner.Runner {
	w.t.Helper()
	r, err := foreignrunner.Configure(w.http, jit)
	if err != nil {
		w.t.Fatalf("Configure() = %v", err)
	}
	if err := errors.Join(r.Authenticate(w.t.Context()), r.CreateSession(w.t.Context())); err != nil {
		w.t.Fatalf("connect %s: %v", r.Name(), err)
	}
	return r
}

// offer is what the runner's next message offers.
func (w *world) offer(r *foreignrunner.Runner) *foreignrunner.Offer {
	w.t.Helper()
	m, err := r.GetMessage(w.t.Context(), "Online")
	if err != nil {
		w.t.Fatalf("GetMessage() = %v", err)
	}
	o, err := m.Offer()
	if err != nil || !o.ShouldAcknowledge {
		w.t.Fatalf("Offer() = %+v, %v", o, err)
	}
	return o
}

func (w *world) acquire(r *foreignrunner.Runner) *foreignrunner.Job {
	w.t.Helper()
	o := w.offer(r)
	if err := r.Acknowledge(w.t.Context(), o); err != nil {
		w.t.Fatalf("Acknowledge() = %v", err)
	}
	j, err := r.Acquire(w.t.Context(), o)
	if err != nil {
		w.t.Fatalf("Acquire() = %v", err)
	}
	return j
}

func (w *world) rest(run simgithub.Run) map[string]any {
	w.t.Helper()
	return w.call("GET", fmt.Sprintf("/api/v3/repos/acme/shop/actions/jobs/%d", run.CheckRunID), "Bearer "+pat, nil)
}

func TestAForeignRunnerRunsAJob(t *testing.T) {
	for _, c := range []struct{ result, conclusion string }{
		{"succeeded", "success"}, {"succeededWithIssues", "success"}, {"failed", "failure"}, {"canceled", "cancelled"},
		{"cancelled", "cancelled"}, {"skipped", "skipped"}, {"abandoned", "failure"},
	} {
		t.Run(c.result, func(t *testing.T) {
			bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
				run := w.dispatch()
				r := w.connect(w.jit("r1"))
				j := w.acquire(r)
				w.work(r, j, run)
				if err := r.Complete(t.Context(), j, c.result); err != nil {
					t.Fatalf("Complete(%s) = %v", c.result, err)
				}
				if got := w.rest(run); got["status"] != "completed" || got["conclusion"] != c.conclusion || got["runner_name"] != "r1" {
					t.Errorf("job = %v %v of %v, want completed %s", got["status"], got["conclusion"], got["runner_name"], c.conclusion)
				}
				if err := r.DeleteSession(t.Context()); err != nil {
					t.Errorf("DeleteSession() = %v", err)
				}
				if left := w.sim.Runners(); len(left) != 0 {
					t.Errorf("Runners() = %+v, want the ephemeral one gone", left)
				}
				if _, err := r.Renew(t.Context(), j); !errors.Is(err, foreignrunner.ErrJobNotFound) {
					t.Errorf("Renew() of the job that is over = %v, want %v", err, foreignrunner.ErrJobNotFound)
				}
			})
		})
	}
}

// work does what is between acquisition and completion.
func (w *world) work(r *foreignrunner.Runner, j *foreignrunner.Job, run simgithub.Run) {
	t := w.t
	t.Helper()
	if j.ID != run.JobID || j.Environment != "production" || j.GitHub["repository"] != "acme/shop" || j.GitHub["run_attempt"] != "1" ||
		j.Variables["system.github.job"].Value != "deploy" || !j.Variables["system.github.token"].IsSecret {
		t.Errorf("job = %+v", j)
	}
	if len(j.Steps) != 2 || !strings.Contains(j.Steps[0].Script, "sleep 90") || j.Steps[1].Condition != "always()" {
		t.Fatalf("steps = %+v", j.Steps)
	}
	if event, isMap := j.GitHub["event"].(map[string]any); !isMap || event["ref"] != "refs/tags/v1.0.0" {
		t.Errorf("event = %v", j.GitHub["event"])
	}
	until, err := r.Renew(t.Context(), j)
	if err != nil || time.Until(until) != 10*time.Minute {
		t.Errorf("Renew() = %v from now, %v, want 10 min", time.Until(until), err)
	}
	token, err := r.IDToken(t.Context(), j, "ward")
	if err != nil {
		t.Fatalf("IDToken() = %v", err)
	}
	if claims := claimsOf(t, token); claims["aud"] != "ward" || claims["environment"] != "production" || claims["check_run_id"] != fmt.Sprint(run.CheckRunID) {
		t.Errorf("claims = %v", claims)
	}
	for i, updates := range updatesOf(j) {
		if err := r.UpdateSteps(t.Context(), j, i+1, updates...); err != nil {
			t.Errorf("UpdateSteps() = %v", err)
		}
	}
	if err := r.UploadLog(t.Context(), j, "deploying\n"); err != nil {
		t.Errorf("UploadLog() = %v", err)
	}
	wantSteps(t, w.rest(run)["steps"])
	// The token of the job is an installation's, and ends with the job.
	w.call("GET", "/api/v3/repos/acme/shop", "Bearer "+j.Variables["system.github.token"].Value, nil)
}

// updatesOf are the updates of a job without a hook: the runner's own step, and
// those of the workflow under their ids.
func updatesOf(j *foreignrunner.Job) [][]foreignrunner.Update {
	at := "2026-01-02T03:04:05.678Z"
	set := foreignrunner.Update{ExternalID: "11111111-1111-4111-8111-111111111111", Number: 1, Name: "Set up job", Status: foreignrunner.StatusInProgress, StartedAt: &at}
	run := foreignrunner.Update{ExternalID: j.Steps[0].ID, Number: 2, Name: j.Steps[0].Name, Status: foreignrunner.StatusPending}
	always := foreignrunner.Update{ExternalID: j.Steps[1].ID, Number: 3, Name: j.Steps[1].Name, Status: foreignrunner.StatusPending}
	first := []foreignrunner.Update{set, run, always}
	set.Status, set.Conclusion, set.CompletedAt = foreignrunner.StatusCompleted, foreignrunner.ConclusionSuccess, &at
	run.Status, run.StartedAt = foreignrunner.StatusInProgress, &at
	always.Status, always.Conclusion = foreignrunner.StatusCompleted, foreignrunner.ConclusionSkipped
	return [][]foreignrunner.Update{first, {set, run, always}}
}

func wantSteps(t *testing.T, got any) {
	t.Helper()
	want := []struct {
		name, status string
		conclusion   any
	}{{"Set up job", "completed", "success"}, {"Run deploy", "in_progress", nil}, {"Clean up", "completed", "skipped"}}
	steps, _ := got.([]any)
	if len(steps) != len(want) {
		t.Fatalf("steps = %v, want %v", got, want)
	}
	for i, w := range want {
		st := steps[i].(map[string]any)
		conclusion, has := st["conclusion"]
		if st["number"] != float64(i+1) || st["name"] != w.name || st["status"] != w.status || !has || conclusion != w.conclusion {
			t.Errorf("step %d = %v, want %v", i+1, st, w)
		}
	}
}

func claimsOf(t *testing.T, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

func TestAStepThatOnlyTheRunnerHasIsNoneOfTheWorkflow(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		run := w.dispatch()
		r := w.connect(w.jit("r1"))
		j := w.acquire(r)
		ran := func() (hook, steps bool) {
			state, known := w.sim.Job(run.JobID)
			if !known {
				t.Fatal("the job is unknown")
			}
			return state.HookSucceeded, state.StepsRan
		}
		own := foreignrunner.Update{ExternalID: "11111111-1111-4111-8111-111111111111", Status: foreignrunner.StatusCompleted, Conclusion: foreignrunner.ConclusionSuccess}
		for i, c := range []struct {
			number      int
			name, id    string
			hook, steps bool
		}{
			{1, "Set up job", "", false, false}, {2, "Set up runner", "", true, false}, {3, "Initialize containers", "", true, false},
			{4, "renamed", j.Steps[0].ID, true, true},
		} {
			own.Number, own.Name = c.number, c.name
			if c.id != "" {
				own.ExternalID = c.id
			}
			if err := r.UpdateSteps(t.Context(), j, i+1, own); err != nil {
				t.Fatal(err)
			}
			if hook, steps := ran(); hook != c.hook || steps != c.steps {
				t.Errorf("after %s: hook %t, steps %t, want %t, %t", c.name, hook, steps, c.hook, c.steps)
			}
		}
	})
}
