package github_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/ghapp"
	"github.com/runnerward/runnerward/pkg/github"
	"github.com/runnerward/runnerward/pkg/runner"
	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// facts gathers facts as a daemon does that remembers nothing yet.
func facts(t *testing.T, c *github.Client, job runner.Offered, known ...runner.Reviewed) runner.Facts {
	t.Helper()
	f, _, err := c.Facts(t.Context(), job, known)
	if err != nil {
		t.Fatalf("Facts() = %v", err)
	}
	return f
}

func approve(t *testing.T, w *world, run simgithub.Run, login string) {
	t.Helper()
	if err := w.sim.Approve(run.ID, login); err != nil {
		t.Fatalf("Approve() = %v", err)
	}
}

func TestFactsOfAnApprovedDeploy(t *testing.T) {
	w := newWorld(t)
	run := w.deploy(t)
	approve(t, w, run, "approver")
	before := time.Now()
	f := facts(t, w.client(t, w.config()), offer(run))
	if err := runner.Validate(f); err != nil {
		t.Errorf("Validate() = %v", err)
	}
	if f.FetchedAt.Before(before) || len(f.Approvals) != 1 || f.Approvals[0].SeenAt.Before(before) || !f.Approvals[0].NotBefore.IsZero() {
		t.Errorf("times of %+v are not those of this look", f.Approvals)
	}
	dev := runner.Person{ID: w.sim.AddUser("dev"), Login: "dev", Type: "User"}
	env := f.Environment.ID
	want := runner.Facts{
		FetchedAt: f.FetchedAt, ServerURL: w.server.URL, Repository: "acme/clinical-platform", RepositoryID: run.RepositoryID,
		OwnerID: 65, RunID: run.ID, RunAttempt: 1, CheckRunID: run.CheckRunID, Event: "push", Ref: "refs/tags/v1.2.3",
		HeadSHA: headSHA, WorkflowPath: ".github/workflows/release.yml", TagPusher: &dev, PullAuthors: []runner.Person{},
		JobWorkflow: runner.Workflow{Ref: workflow, SHA: workflowSHA}, ReferencedWorkflows: []runner.Workflow{{Ref: workflow, SHA: workflowSHA}}, Actor: dev, TriggeringActor: dev, HeadAuthor: &dev,
		Environment: &runner.Environment{
			ID: env, Name: "production", HasReviewers: new(true), ReviewerTeams: []string{"prod-approvers", "on-call"},
			ReviewersAllTeams: new(true), PreventSelfReview: new(false),
		},
		Approvals: []runner.Approval{{
			By:    runner.Person{ID: w.sim.AddUser("approver"), Login: "approver", Type: "User"},
			State: "approved", EnvironmentID: env, Environment: "production", Team: "prod-approvers", InTeam: new(true),
			Source: "rest", SeenAt: f.Approvals[0].SeenAt,
		}},
		Group: &runner.Group{
			ID: f.Group.ID, Name: "hipaa-prod", Visibility: "selected", AllowsPublic: new(false),
			RestrictedToWorkflows: new(true), SelectedWorkflows: []string{workflow}, RepositoryIDs: []int64{run.RepositoryID},
		},
	}
	if !reflect.DeepEqual(f, want) {
		t.Errorf("Facts() = %+v\nwant %+v", f, want)
	}
}

func TestFactsOfOtherDeploys(t *testing.T) {
	w := newWorld(t)
	c := w.client(t, w.config())
	t.Run("approved by the one who started it", func(t *testing.T) {
		run := w.deploy(t)
		approve(t, w, run, "dev")
		f := facts(t, c, offer(run))
		if len(f.Approvals) != 1 || f.Approvals[0].By.ID != f.Actor.ID {
			t.Errorf("approvals = %+v, want that of %+v", f.Approvals, f.Actor)
		}
	})
	t.Run("approved by a reviewer of a team that may not", func(t *testing.T) {
		run := w.deploy(t)
		approve(t, w, run, "outsider")
		f := facts(t, c, offer(run))
		if len(f.Approvals) != 1 || f.Approvals[0].InTeam == nil || *f.Approvals[0].InTeam || f.Approvals[0].Team != "" {
			t.Errorf("approvals = %+v, want one that is in no team", f.Approvals)
		}
	})
	t.Run("bypassed by an administrator", func(t *testing.T) {
		run := w.deploy(t)
		if err := w.sim.Bypass(run.ID); err != nil {
			t.Fatal(err)
		}
		f := facts(t, c, offer(run))
		if f.Approvals == nil || len(f.Approvals) != 0 || !*f.Environment.HasReviewers {
			t.Errorf("approvals = %+v, want none, and reviewers that should have", f.Approvals)
		}
	})
	t.Run("run again: the approval of the first attempt is spent", func(t *testing.T) {
		run := w.deploy(t)
		approve(t, w, run, "approver")
		_, known, err := c.Facts(t.Context(), offer(run), nil)
		if err != nil || len(known) != 1 || known[0].RunAttempt != 1 {
			t.Fatalf("Facts() saw %+v, %v, want one review of attempt 1", known, err)
		}
		if err := w.sim.Cancel(run.ID); err != nil {
			t.Fatal(err)
		}
		again, err := w.sim.Rerun(run.ID, "approver")
		if err != nil {
			t.Fatal(err)
		}
		f := facts(t, c, offer(again), known...)
		if f.RunAttempt != 2 || len(f.Approvals) != 0 || f.TriggeringActor.Login != "approver" || f.Actor.Login != "dev" {
			t.Errorf("Facts() = %+v, want attempt 2 of approver without approvals", f)
		}
		// A memory that was not there cannot say which attempt it belongs to.
		f = facts(t, c, offer(again))
		if len(f.Approvals) != 1 || f.Approvals[0].State != "unattributed" {
			t.Errorf("approvals = %+v, want one that is unattributed", f.Approvals)
		}
	})
	t.Run("of a branch, by an author without an account", func(t *testing.T) {
		run := w.deploy(t, func(s *simgithub.RunSpec) { s.Tag = "" })
		w.answers("/commits/"+headSHA, body(200, `{"sha":"`+headSHA+`","author":null}`))
		f := facts(t, c, offer(run))
		if f.Ref != "refs/heads/main" || f.HeadAuthor != nil {
			t.Errorf("ref %q author %+v, want refs/heads/main and nobody", f.Ref, f.HeadAuthor)
		}
	})
	t.Run("of a workflow that the run does not refer to", func(t *testing.T) {
		o := offer(w.deploy(t))
		o.WorkflowRef = "evil/w/.github/workflows/d.yml@refs/tags/v1"
		f := facts(t, c, o)
		if f.JobWorkflow.Ref != o.WorkflowRef || f.JobWorkflow.SHA != "" {
			t.Errorf("job workflow = %+v, want no commit", f.JobWorkflow)
		}
	})
}

// TestFactsOfOddAnswers replaces one answer of an otherwise good deploy.
func TestFactsOfOddAnswers(t *testing.T) {
	const pushed = "/git/ref/tags/v1.2.3"
	good := func(f runner.Facts) bool { return true }
	tests := []struct {
		name, suffix string
		answer       http.HandlerFunc
		want         func(runner.Facts) bool // nil: an error
	}{
		{"the run is not found", "/actions/runs/", body(404, `{"message":"Not Found"}`), nil},
		{"the run is empty", "/attempts/1", body(200, ``), nil},
		{"the run is of another repository", "/clinical-platform", body(200, `{"id":1,"full_name":"acme/clinical-platform","owner":{"id":65,"login":"acme"}}`), nil},
		{"the repository has another name", "/clinical-platform", body(200, `{"id":500000001,"full_name":"acme/other","owner":{"id":65,"login":"acme"}}`), nil},
		{"the environment is not found", "/environments/production", body(404, `{}`), nil},
		{"the environment has an unknown reviewer", "/environments/production", body(200, `{"id":70001,"name":"production","protection_rules":[{"type":"required_reviewers","reviewers":[{"type":null,"reviewer":null},{"type":"Robot"}]}]}`),
			func(f runner.Facts) bool {
				return *f.Environment.HasReviewers && f.Environment.ReviewersAllTeams == nil && f.Environment.PreventSelfReview == nil
			}},
		{"the approvals are HTML", "/approvals", body(200, `<html>`), nil},
		{"the approvals are of another environment", "/approvals", body(200, `[{"state":"approved","user":{"id":1,"login":"x"},"environments":[{"id":1,"name":"production"}]}]`),
			func(f runner.Facts) bool { return len(f.Approvals) == 0 }},
		{"a team cannot be asked", "/memberships/approver", body(500, `{}`), nil},
		{"a membership is pending", "/memberships/approver", body(200, `{"state":"pending"}`), func(f runner.Facts) bool { return !*f.Approvals[0].InTeam }},
		{"a membership says nothing", "/memberships/approver", body(200, `{}`), nil},
		{"the tag names another commit", pushed, body(200, `{"object":{"type":"commit","sha":"`+workflowSHA+`"}}`), func(f runner.Facts) bool { return f.Ref == "refs/heads/v1.2.3" }},
		{"the tag does not exist", pushed, body(404, `{}`), func(f runner.Facts) bool { return f.Ref == "refs/heads/v1.2.3" }},
		{"the tag is unknown", pushed, body(500, `{}`), nil},
		{"the tag names a tree", pushed, body(200, `{"object":{"type":"tree","sha":"`+headSHA+`"}}`), func(f runner.Facts) bool { return f.Ref == "refs/heads/v1.2.3" }},
		{"the group says little", "/runner-groups", body(200, `{"runner_groups":[{"id":3,"name":"hipaa-prod"}]}`),
			func(f runner.Facts) bool {
				return f.Group.AllowsPublic == nil && f.Group.RestrictedToWorkflows == nil && f.Group.Visibility == ""
			}},
		{"the group inherits public repositories", "/runner-groups", body(200, `{"runner_groups":[{"id":3,"name":"hipaa-prod","allows_public_repositories":false,"inherited_allows_public_repositories":true}]}`),
			func(f runner.Facts) bool { return *f.Group.AllowsPublic }},
		{"no group has the name", "/runner-groups", body(200, `{"runner_groups":[]}`), nil},
		{"two groups have the name", "/runner-groups", body(200, `{"runner_groups":[{"id":3,"name":"hipaa-prod"},{"id":4,"name":"hipaa-prod"}]}`), nil},
		{"the list of groups is missing", "/runner-groups", body(200, `{}`), nil},
		{"two jobs could be ours", "/attempts/1/jobs", body(200, `{"jobs":[`+jobJSON(1, "queued")+`,`+jobJSON(2, "in_progress")+`]}`),
			func(f runner.Facts) bool { return f.CheckRunID == 0 }},
		{"one job is over", "/attempts/1/jobs", body(200, `{"jobs":[`+jobJSON(1, "completed")+`,`+jobJSON(2, "in_progress")+`]}`),
			func(f runner.Facts) bool { return f.CheckRunID == 2 }},
		{"the commit is another", "/commits/" + headSHA, body(200, `{"sha":"x","author":null}`), nil},
		{"an actor's login is free text", "/attempts/1", nil, nil},
		{"the server redirects to another host", "/runner-groups", body(302, ``, "Location", "https://evil.example/"), nil},
		{"nothing is odd", "/nothing", nil, good},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			run := w.deploy(t)
			approve(t, w, run, "approver")
			switch {
			case strings.HasSuffix(test.suffix, "/runs/"):
				test.suffix += strconv.FormatInt(run.ID, 10)
			case test.answer == nil && test.want == nil:
				test.answer = func(rw http.ResponseWriter, r *http.Request) {
					rec := &replacer{ResponseWriter: rw, old: `"login":"dev"`, new: `"login":"Jane Doe"`}
					w.sim.ServeHTTP(rec, r)
				}
			case test.answer == nil:
				test.answer = http.NotFound
			}
			w.answers(test.suffix, test.answer)
			f, _, err := w.client(t, w.config()).Facts(t.Context(), offer(run), nil)
			switch {
			case test.want == nil && err == nil:
				t.Errorf("Facts() = %+v, want an error", f)
			case test.want != nil && (err != nil || !test.want(f)):
				t.Errorf("Facts() = %+v, %v", f, err)
			}
		})
	}
}

// replacer changes a word of an answer.
type replacer struct {
	http.ResponseWriter
	old, new string
}

func (r *replacer) Write(b []byte) (int, error) {
	r.Header().Del("Content-Length")
	_, err := r.ResponseWriter.Write([]byte(strings.ReplaceAll(string(b), r.old, r.new)))
	return len(b), err
}

func jobJSON(id int, status string) string {
	return `{"run_id":9000000001,"status":"` + status + `","check_run_url":"https://x/check-runs/` + strconv.Itoa(id) +
		`","labels":["hipaa-prod","Self-Hosted"],"runner_group_name":null}`
}

func TestAnnotatedTagsAndPages(t *testing.T) {
	w := newWorld(t)
	run := w.deploy(t)
	if _, err := w.sim.AnnotateTag("clinical-platform", "v1.2.3", "dev", "release"); err != nil {
		t.Fatal(err)
	}
	w.answers("/repositories", func(rw http.ResponseWriter, r *http.Request) {
		if r.FormValue("page") == "1" {
			body(200, `{"repositories":[{"id":1},{"id":2}]}`, "Link", `<https://x/y?page=2>; rel="next"`)(rw, r)
			return
		}
		body(200, `{"repositories":[{"id":3}]}`)(rw, r)
	})
	c := w.client(t, w.config())
	f := facts(t, c, offer(run))
	if f.Ref != "refs/tags/v1.2.3" || !reflect.DeepEqual(f.Group.RepositoryIDs, []int64{1, 2, 3}) {
		t.Errorf("ref %q, repositories %v, want the tag and three", f.Ref, f.Group.RepositoryIDs)
	}
	w.answers("/repositories", body(200, `{"repositories":[{"id":1}]}`, "Link", `<https://x/y?page=2>; rel="next"`))
	if _, _, err := c.Facts(t.Context(), offer(run), nil); err == nil || !strings.Contains(err.Error(), "pages") {
		t.Errorf("Facts() over endless pages = %v, want an error", err)
	}
}

func TestErrorsSayWhatAndNothingMore(t *testing.T) {
	const canary = "ghs_canary0123456789"
	tests := []struct {
		name   string
		answer http.HandlerFunc
		says   string
		is     error
	}{
		{"a primary rate limit", body(403, `{"message":"`+canary+`"}`, "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "1"), "HTTP 403: rate limited", github.ErrRateLimited},
		{"a secondary rate limit", body(403, `{"message":"`+canary+`"}`, "Retry-After", "30"), "rate limited for 30s", github.ErrRateLimited},
		{"too many requests", body(429, canary), "HTTP 429: rate limited", github.ErrRateLimited},
		{"a refusal", body(403, `{"message":"`+canary+`"}`), "HTTP 403: GitHub answered with an error", nil},
		{"a failure", body(500, canary), "HTTP 500", nil},
		{"text", body(200, canary), "could not be understood", nil},
		{"a dropped connection", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "no answer", nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			run := w.deploy(t)
			w.answers("/environments/production", test.answer)
			w.answers("/cancel", test.answer)
			c := w.client(t, w.config())
			_, _, err := c.Facts(t.Context(), offer(run), nil)
			if err == nil || !strings.Contains(err.Error(), test.says) || !strings.HasPrefix(err.Error(), "read environment: ") && !errors.Is(err, github.ErrRateLimited) || test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("Facts() = %v, want an error that says %q", err, test.says)
			}
			for _, err := range []error{err, c.CancelRun(t.Context(), run.Repository, run.ID, false)} {
				if err != nil && (strings.Contains(err.Error(), "canary") || strings.Contains(err.Error(), "http")) {
					t.Errorf("error %q repeats the answer, the token or a URL", err)
				}
			}
		})
	}
}

func TestFactsEndsWithItsTimeout(t *testing.T) {
	w := newWorld(t)
	run := w.deploy(t)
	w.answers("/approvals", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	cfg := w.config()
	cfg.Timeout = 100 * time.Millisecond
	if _, _, err := w.client(t, cfg).Facts(t.Context(), offer(run), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Facts() = %v, want a deadline", err)
	}
}

func TestCancelRun(t *testing.T) {
	w := newWorld(t)
	run := w.deploy(t)
	c := w.client(t, w.config())
	for range 2 { // the second time it is over, which GitHub answers with 409
		if err := c.CancelRun(t.Context(), run.Repository, run.ID, false); err != nil {
			t.Errorf("CancelRun() = %v, want nil", err)
		}
	}
	if j, _ := w.sim.Job(run.JobID); j.Conclusion != "cancelled" {
		t.Errorf("the job is %+v, want it cancelled", j)
	}
	if err := c.CancelRun(t.Context(), run.Repository, 1, false); err == nil {
		t.Error("CancelRun() of an unknown run = nil, want an error")
	}
}

func TestForcedCancelDoesNotWaitForADeadRunner(t *testing.T) {
	w := newWorld(t)
	run := w.deploy(t)
	if err := w.client(t, w.config()).CancelRun(t.Context(), run.Repository, run.ID, true); err != nil {
		t.Fatalf("CancelRun(force) = %v, want nil", err)
	}
	var asked []string
	for _, r := range w.sim.Requests() {
		if _, verb, ok := strings.Cut(r.Path, "/actions/runs/"); ok && r.Method == http.MethodPost {
			asked = append(asked, verb)
		}
	}
	id := fmt.Sprint(run.ID)
	if want := []string{id + "/cancel", id + "/force-cancel"}; !slices.Equal(asked, want) {
		t.Errorf("asked for %v, want %v", asked, want)
	}
}

func TestInstallationTokensAreMadeOnceAndKept(t *testing.T) {
	key, pem := appKey(t)
	w := newWorld(t, func(c *simgithub.Config) {
		c.Token, c.AppClientID, c.AppInstallationID, c.AppKey = "", "Iv1.x", 99, &key.PublicKey
	})
	run := w.deploy(t)
	cfg := w.config()
	cfg.Token, cfg.App = supervisor.Secret{}, w.app(t, pem)
	c := w.client(t, cfg)
	for range 2 {
		facts(t, c, offer(run))
	}
	made := 0
	for _, r := range w.sim.Requests() {
		if strings.HasSuffix(r.Path, "/access_tokens") {
			made++
		}
	}
	if made != 1 {
		t.Errorf("%d tokens made, want 1", made)
	}
	w.answers("/access_tokens", body(201, `{"token":"ghs_x","expires_at":"2020-01-01T00:00:00Z"}`))
	cfg.App = w.app(t, pem)
	if _, _, err := w.client(t, cfg).Facts(t.Context(), offer(run), nil); err == nil {
		t.Error("Facts() with a token that the simulator did not make = nil, want an error")
	}
}

func TestConfigValidate(t *testing.T) {
	w := newWorld(t)
	for name, edit := range map[string]func(*github.Config){
		"url":            func(c *github.Config) { c.URL = "github.com" },
		"org":            func(c *github.Config) { c.Org = "" },
		"environment":    func(c *github.Config) { c.Environment = "" },
		"no credentials": func(c *github.Config) { c.Token = supervisor.Secret{} },
		"only one":       func(c *github.Config) { c.App = &ghapp.App{} },
	} {
		cfg := w.config()
		edit(&cfg)
		if _, err := github.New(cfg, nil); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("New() = %v, want an error about %q", err, name)
		}
	}
}
