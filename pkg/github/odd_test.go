package github_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/runnerward/runnerward/pkg/github"
	"github.com/runnerward/runnerward/pkg/runner"
	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// A run can be run again, and approved again, while we ask about it.
func TestARunThatIsRunAgainMeanwhileStaysUnknown(t *testing.T) {
	w := newWorld(t)
	run := w.deploy(t)
	var once sync.Once
	w.answers("/approvals", func(rw http.ResponseWriter, r *http.Request) {
		once.Do(func() {
			err := w.sim.Cancel(run.ID)
			if _, again := w.sim.Rerun(run.ID, "dev"); again != nil || err != nil {
				t.Errorf("Cancel() = %v, Rerun() = %v", err, again)
			}
			approve(t, w, run, "approver")
		})
		w.sim.ServeHTTP(rw, r)
	})
	f, fresh, err := w.client(t, w.config()).Facts(t.Context(), offer(run), nil)
	if err == nil || !strings.Contains(err.Error(), "run again meanwhile") || fresh != nil {
		t.Errorf("Facts() = %+v, %+v, %v, want that nothing is known", f.Approvals, fresh, err)
	}
}

func TestWhoPushedATagThatAnotherEventRunsOn(t *testing.T) {
	const activity, branch = "/activity", "/git/ref/heads/v1.2.3"
	twin := func(w *world) { w.sim.PushBranch("clinical-platform", "v1.2.3", headSHA, "dev") }
	entry := func(ref, after string) string {
		return `[{"ref":"` + ref + `","after":"` + after + `","activity_type":"branch_creation","actor":{"id":77,"login":"mallory"}}]`
	}
	for _, test := range []struct {
		name, path string
		answer     http.HandlerFunc
		ref        string
		pusher     string
		fails      bool
		set        func(*world)
	}{
		{"the activity shows it", "/nothing", nil, "refs/tags/v1.2.3", "outsider", false, nil},
		{"the activity shows no tags", activity, body(200, `[]`), "refs/tags/v1.2.3", "", false, nil},
		{"the activity shows another commit", activity, body(200, entry("refs/tags/v1.2.3", workflowSHA)), "refs/tags/v1.2.3", "", false, nil},
		{"the activity shows a branch", activity, body(200, entry("refs/heads/v1.2.3", headSHA)), "refs/tags/v1.2.3", "", false, nil},
		{"there is no activity", activity, body(404, `{}`), "refs/tags/v1.2.3", "", false, nil},
		{"the activity may not be read", activity, body(403, `{}`), "", "", true, nil},
		{"a branch has the name of the tag", branch, nil, "", "", false, twin},
		{"the branch is unknown", branch, body(500, `{}`), "", "", true, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.sim.PushTag("clinical-platform", "v1.2.3", headSHA, "outsider")
			if test.set != nil {
				test.set(w)
			}
			run := w.deploy(t, func(s *simgithub.RunSpec) { s.Event = "workflow_dispatch" })
			if test.answer != nil {
				w.answers(test.path, test.answer)
			}
			f, _, err := w.client(t, w.config()).Facts(t.Context(), offer(run), nil)
			pusher := ""
			if f.TagPusher != nil {
				pusher = f.TagPusher.Login
			}
			if test.fails != (err != nil) || f.Ref != test.ref || pusher != test.pusher {
				t.Errorf("ref %q pushed by %q, %v, want %q by %q", f.Ref, pusher, err, test.ref, test.pusher)
			}
		})
	}
}

func TestOnlyWhatNobodyWaitsForIsMoot(t *testing.T) {
	asked := runner.Asked{Repository: "acme/clinical-platform", RunID: 9000000001, Environment: "Production", Delivery: "g", AskedAt: time.Now()}
	const waits = `[{"environment":{"id":1,"name":"production"}}]`
	for _, test := range []struct {
		name    string
		status  int
		pending http.HandlerFunc
		moot    bool
	}{
		{"not found, and nothing is pending", 404, body(200, `[]`), true},
		{"a conflict, and nothing is pending", 409, body(200, `[]`), true},
		{"unprocessable, and another environment is pending", 422, body(200, `[{"environment":{"id":2,"name":"staging"}}]`), true},
		{"not found, but it is pending", 404, body(200, waits), false},
		{"unprocessable, but it is pending", 422, body(200, waits), false},
		{"not found, and what is pending is unknown", 404, body(500, `{}`), false},
		{"not found, and what is pending is odd", 404, body(200, `[{}]`), false},
		{"forbidden", 403, body(200, `[]`), false},
		{"a failure", 500, body(200, `[]`), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.answers("/deployment_protection_rule", body(test.status, `{}`))
			w.answers("/pending_deployments", test.pending)
			err := w.client(t, w.config()).Answer(t.Context(), asked, "rejected", "no")
			if err == nil || errors.Is(err, supervisor.ErrMoot) != test.moot {
				t.Errorf("Answer() = %v, want moot: %v", err, test.moot)
			}
		})
	}
	w := newWorld(t)
	if err := w.client(t, w.config()).Answer(t.Context(), asked, "pending", "x"); err == nil || len(w.sim.Requests()) != 0 {
		t.Errorf("Answer() with a state that is none = %v after %d requests, want an error and none", err, len(w.sim.Requests()))
	}
}

// deliveryJSON is an entry of the list, or with a payload a delivery.
func deliveryJSON(id int64, guid string, payload map[string]any) map[string]any {
	d := map[string]any{
		"id": id, "guid": guid, "delivered_at": time.Now().UTC(), "event": "deployment_review", "action": "approved", "installation_id": 99,
	}
	if payload != nil {
		d["request"] = map[string]any{"payload": payload}
	}
	return d
}

func reviewJSON(edit func(map[string]any)) map[string]any {
	org := map[string]any{"id": 65, "login": "ACME"}
	p := map[string]any{
		"action": "approved", "organization": org, "installation": map[string]any{"id": 99},
		"repository":   map[string]any{"id": 1, "full_name": "acme/clinical-platform", "owner": org},
		"approver":     map[string]any{"id": 3, "login": "ann", "type": "User"},
		"workflow_run": map[string]any{"id": 4, "run_attempt": 2}, "comment": "free text",
		"workflow_job_runs": []any{
			map[string]any{"id": 5, "environment": "PRODUCTION"}, map[string]any{"id": 6, "environment": "staging"},
		},
	}
	edit(p)
	return p
}

func jsonOf(t *testing.T, v any) http.HandlerFunc {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return body(200, string(b))
}

// Whatever one delivery lacks is named, with the delivery; the good ones count.
func TestOddDeliveriesAreNamedAndTheOthersCount(t *testing.T) {
	without := func(keys ...string) func(map[string]any) {
		return func(p map[string]any) {
			for _, k := range keys[:len(keys)-1] {
				p = p[k].(map[string]any)
			}
			delete(p, keys[len(keys)-1])
		}
	}
	set := func(key string, v any) func(map[string]any) { return func(p map[string]any) { p[key] = v } }
	for _, test := range []struct {
		name string
		edit func(map[string]any)
		says string // empty: it is not about us
	}{
		{"no action", without("action"), "no action"},
		{"no repository", without("repository"), "no repository"},
		{"a repository without its owner", without("repository", "owner"), "no repository"},
		{"no organization", without("organization"), "no organization"},
		{"no installation", without("installation"), "no installation"},
		{"no approver", without("approver"), "no approver"},
		{"an approver without an id", set("approver", map[string]any{"login": "ann"}), "no approver"},
		{"an approver whose id is text", set("approver", map[string]any{"login": "ann", "id": "3"}), "approver.id is of another type"},
		{"an approver of free text", set("approver", map[string]any{"login": "Jane Doe", "id": 3}), "login"},
		{"no run", without("workflow_run"), "no workflow_run.id"},
		{"a run without its attempt", without("workflow_run", "run_attempt"), "no workflow_run.run_attempt"},
		{"no jobs", without("workflow_job_runs"), "no workflow_job_runs"},
		{"a job without its environment", set("workflow_job_runs", []any{map[string]any{"id": 5}}), "no workflow_job_runs.environment"},
		{"a job without its id", set("workflow_job_runs", []any{map[string]any{"environment": "production"}}), "no workflow_job_runs.id"},
		{"another action after all", set("action", "requested"), ""},
		{"another organization", set("organization", map[string]any{"id": 1, "login": "evil"}), ""},
		{"another installation", set("installation", map[string]any{"id": 98}), ""},
		{"another environment", set("workflow_job_runs", []any{map[string]any{"id": 5, "environment": "staging"}}), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			w, c := asApp(t)
			w.answers("/app/hook/deliveries", jsonOf(t, []any{deliveryJSON(42, "odd", nil), deliveryJSON(41, "good", nil)}))
			w.answers("/app/hook/deliveries/41", jsonOf(t, deliveryJSON(41, "good", reviewJSON(func(map[string]any) {}))))
			w.answers("/app/hook/deliveries/42", jsonOf(t, deliveryJSON(42, "odd", reviewJSON(test.edit))))
			news, err := c.News(t.Context(), longAgo())
			if len(news) != 1 || news[0].(runner.Reviewed).Delivery != "good" || len(news[0].(runner.Reviewed).Jobs) != 1 {
				t.Errorf("News() = %+v, want the good one", news)
			}
			if test.says == "" && err != nil || test.says != "" && (err == nil || !strings.Contains(err.Error(), "read delivery 42") || !strings.Contains(err.Error(), test.says)) {
				t.Errorf("News() = %v, want delivery 42 and %q", err, test.says)
			}
		})
	}
}

func TestOddEntriesOfTheListOfDeliveries(t *testing.T) {
	w, c := asApp(t)
	entry := func(id int64, guid string, edit func(map[string]any)) map[string]any {
		d := deliveryJSON(id, guid, nil)
		edit(d)
		return d
	}
	asIs := func(map[string]any) {}
	w.answers("/app/hook/deliveries", jsonOf(t, []any{
		"not an object",
		entry(49, "a", func(d map[string]any) { d["id"] = "text" }),
		entry(48, "b", func(d map[string]any) { delete(d, "installation_id") }),
		entry(47, "", asIs),
		entry(46, "c", func(d map[string]any) { d["installation_id"] = 98 }),
		entry(45, "d", func(d map[string]any) { d["event"], d["action"] = "push", nil }),
		entry(44, "e", func(d map[string]any) { d["event"], d["guid"] = "push", nil }),
		entry(43, "good", asIs), // a redelivery
		entry(41, "good", asIs),
		entry(40, "old", func(d map[string]any) { d["delivered_at"] = time.Now().Add(-100 * time.Hour) }),
	}))
	w.answers("/app/hook/deliveries/41", jsonOf(t, deliveryJSON(41, "good", reviewJSON(asIs))))
	news, err := c.News(t.Context(), longAgo())
	if len(news) != 1 {
		t.Errorf("News() = %+v, want one", news)
	}
	for _, says := range []string{"read delivery 0: the answer could not be understood: no id", "read delivery 48: the answer could not be understood: no installation_id", "read delivery 47: the answer could not be understood: no guid"} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("News() = %v, want %q", err, says)
		}
	}
	if err != nil && strings.Count(err.Error(), "read delivery") != 4 {
		t.Errorf("News() = %v, want four problems", err)
	}
}

// No secret and nothing of an answer comes out, whatever GitHub answers.
func TestNothingSecretAndNothingOfAnAnswerComesOut(t *testing.T) {
	const canary = "canary7b1d"
	hostile := []struct {
		name   string
		answer http.HandlerFunc
	}{
		{"text", body(200, canary)},
		{"a document", body(200, `{"message":"`+canary+`","id":"`+canary+`"}`)},
		{"a list", body(200, `[{"id":"`+canary+`","state":"`+canary+`"}]`)},
		{"a redirect", body(302, canary, "Location", "https://"+canary+".example/"+canary)},
		{"a redirect here", body(301, canary, "Location", "/api/v3/"+canary)},
	}
	for _, status := range []int{400, 401, 403, 404, 409, 422, 429, 500, 503} {
		hostile = append(hostile, struct {
			name   string
			answer http.HandlerFunc
		}{fmt.Sprint(status), body(status, `{"message":"`+canary+`","documentation_url":"https://`+canary+`"}`,
			"X-RateLimit-Resource", canary, "X-GitHub-Request-Id", canary, "Retry-After", canary, "Link", "<"+canary+">")})
	}
	key, pem := appKey(t)
	for _, h := range hostile {
		for _, who := range []string{"App", "App that cannot sign in", "token"} {
			t.Run(h.name+" to "+who, func(t *testing.T) {
				w := newWorld(t, func(c *simgithub.Config) {
					c.AppClientID, c.AppInstallationID, c.AppKey = "Iv1.x", 99, &key.PublicKey
				})
				secrets := &secretsSeen{all: []string{canary, token, strings.Split(pem.Reveal(), "\n")[1]}}
				w.answers("", func(rw http.ResponseWriter, r *http.Request) {
					secrets.add(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
					if who == "App" && strings.HasSuffix(r.URL.Path, "/access_tokens") {
						w.sim.ServeHTTP(rw, r)
						return
					}
					h.answer(rw, r)
				})
				core, logs := observer.New(zapcore.DebugLevel)
				cfg := w.config()
				cfg.SAMLNames = true
				if who != "token" {
					cfg.Token, cfg.App = supervisor.Secret{}, w.app(t, pem)
				}
				c, err := github.New(cfg, zap.New(core))
				if err != nil {
					t.Fatal(err)
				}
				for _, said := range everything(t, c) {
					secrets.check(t, said)
				}
				for _, entry := range logs.All() {
					secrets.check(t, fmt.Sprint(entry.Message, entry.ContextMap()))
				}
				if len(secrets.all) < 4 {
					t.Errorf("%d secrets seen, want the credential among them", len(secrets.all))
				}
			})
		}
	}
}

// everything asks all that a client can be asked, and returns all that it says.
func everything(t *testing.T, c *github.Client) []string {
	t.Helper()
	job := runner.Offered{Job: "j", Repository: "acme/clinical-platform", RunID: 1, WorkflowRef: workflow, Labels: []string{"self-hosted"}, MessageID: 1}
	asked := runner.Asked{Repository: job.Repository, RunID: 1, Environment: "production", Delivery: "g", AskedAt: time.Now()}
	_, _, facts := c.Facts(t.Context(), job, nil)
	_, deployment := c.DeploymentFacts(t.Context(), asked)
	_, news := c.News(t.Context(), longAgo())
	_, runners := c.Runners(t.Context())
	_, rivals := c.Boundary(t.Context())
	var said []string
	for _, err := range []error{
		facts, deployment, news, runners, rivals, c.Answer(t.Context(), asked, "approved", "x"), c.CancelRun(t.Context(), job.Repository, 1, true),
	} {
		said = append(said, fmt.Sprintf("%v %+v %#v", err, err, err))
	}
	health, err := json.Marshal(c.Health())
	if err != nil {
		t.Fatal(err)
	}
	return append(said, string(health), fmt.Sprintf("%+v", c.Health()))
}

// secretsSeen are what may not come out. It is safe for concurrent use.
type secretsSeen struct {
	mu  sync.Mutex
	all []string
}

func (s *secretsSeen) add(secret string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if secret != "" {
		s.all = append(s.all, secret)
	}
}

func (s *secretsSeen) check(t *testing.T, said string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, secret := range s.all {
		if strings.Contains(said, secret) {
			t.Errorf("%q holds %q", said, secret)
		}
	}
}
