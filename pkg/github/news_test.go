package github_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/github"
	"github.com/runnerward/runnerward/pkg/runner"
	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// asApp is a world that knows our App, and a client that signs in as it.
func asApp(t *testing.T, edit ...func(*github.Config)) (*world, *github.Client) {
	t.Helper()
	key, pem := appKey(t)
	w := newWorld(t, func(c *simgithub.Config) {
		c.Token, c.AppClientID, c.AppInstallationID, c.AppKey = "", "Iv1.x", 99, &key.PublicKey
	})
	cfg := w.config()
	cfg.Token, cfg.App, cfg.InstallationID, cfg.Workflows = supervisor.Secret{}, w.app(t, pem), 99, []string{workflow}
	for _, e := range edit {
		e(&cfg)
	}
	return w, w.client(t, cfg)
}

// roundTripper is a connection to GitHub that needs none.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// staticApp is signed in already.
type staticApp struct{}

func (staticApp) JWT(context.Context) (string, error)   { return "jwt", nil }
func (staticApp) Token(context.Context) (string, error) { return "token", nil }
func (staticApp) Drop(string)                           {}

func longAgo() time.Time { return time.Now().Add(-72 * time.Hour) }

func TestNewsAreReviewsWithTheirAttempt(t *testing.T) {
	w, c := asApp(t)
	first := w.deploy(t)
	approve(t, w, first, "approver")
	if err := w.sim.Cancel(first.ID); err != nil {
		t.Fatal(err)
	}
	second, err := w.sim.Rerun(first.ID, "approver")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.sim.Reject(second.ID, "outsider"); err != nil {
		t.Fatal(err)
	}
	news, err := c.News(t.Context(), longAgo())
	if err != nil || len(news) != 2 {
		t.Fatalf("News() = %+v, %v, want two reviews", news, err)
	}
	a, b := news[0].(runner.Reviewed), news[1].(runner.Reviewed)
	if a.RunAttempt != 1 || a.State != "approved" || a.By.Login != "approver" || a.By.ID == 0 || len(a.Jobs) != 1 || a.Jobs[0] != first.CheckRunID {
		t.Errorf("the first is %+v, want the approval of attempt 1", a)
	}
	if b.RunAttempt != 2 || b.State != "rejected" || b.By.Login != "outsider" || b.Delivery == a.Delivery || b.Jobs[0] != second.CheckRunID {
		t.Errorf("the second is %+v, want the rejection of attempt 2", b)
	}
	// What was told once is told again, because the log may not have taken it,
	// and is not fetched again, however often it is listed.
	before := len(w.sim.Requests())
	if again, err := c.News(t.Context(), longAgo()); err != nil || !reflect.DeepEqual(again, news) {
		t.Errorf("News() again = %+v, %v, want %+v", again, err, news)
	}
	if n := len(w.sim.Requests()) - before; n != 1 {
		t.Errorf("%d requests for no news, want 1", n)
	}
	f := facts(t, c, offer(first), a, b)
	if f.RunAttempt != 2 || len(f.Approvals) != 1 || f.Approvals[0].State != "rejected" || f.Approvals[0].Source != "webhook" {
		t.Errorf("approvals = %+v, want the rejection of this attempt", f.Approvals)
	}
}

func TestNewsComeInPages(t *testing.T) {
	w, c := asApp(t)
	const runs = 130
	for range runs {
		approve(t, w, w.deploy(t), "approver")
	}
	news, err := c.News(t.Context(), longAgo())
	if err != nil || len(news) != runs {
		t.Fatalf("News() = %d, %v, want %d", len(news), err, runs)
	}
	for i := 1; i < runs; i++ {
		if news[i-1].(runner.Reviewed).RunID >= news[i].(runner.Reviewed).RunID {
			t.Fatal("the news are not in the order in which they happened")
		}
	}
}

func TestADeliveryThatCannotBeReadDoesNotHoldUpTheOthers(t *testing.T) {
	w, c := asApp(t)
	approve(t, w, w.deploy(t), "approver")
	approve(t, w, w.deploy(t), "approver")
	w.answers("/app/hook/deliveries/2", body(200, `{"id":2}`))
	news, err := c.News(t.Context(), longAgo())
	if err == nil || !strings.Contains(err.Error(), "read delivery 2") || len(news) != 1 {
		t.Errorf("News() = %d, %v, want the other one and an error that names the bad one", len(news), err)
	}
	w.answers("/app/hook/deliveries/2", w.sim.ServeHTTP)
	if news, err = c.News(t.Context(), longAgo()); err != nil || len(news) != 2 {
		t.Errorf("News() afterwards = %d, %v, want the one that was missing too", len(news), err)
	}
}

// A delivery that is never understood is given up: that it is missing is told,
// and nothing else waits for it.
func TestADeliveryThatIsNeverUnderstoodIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listed := `[{"id":2,"guid":"g2","delivered_at":"2000-01-01T00:00:00Z","event":"deployment_review","action":"approved","installation_id":99}]`
		transport := roundTripper(func(r *http.Request) (*http.Response, error) {
			text := listed
			if strings.HasSuffix(r.URL.Path, "/deliveries/2") {
				text = `{"id":2}`
			}
			return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(text)), Request: r}, nil
		})
		c, err := github.New(github.Config{
			URL: "https://github.example", Org: "acme", App: staticApp{}, InstallationID: 99, Transport: transport,
			Environment: "production", Group: "hipaa-prod",
		}, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for {
			_, err := c.News(t.Context(), longAgo())
			if errors.Is(err, supervisor.ErrUnreadable) {
				break
			}
			if err == nil || time.Since(began) > time.Hour {
				t.Fatalf("News() = %v after %s, want the delivery given up", err, time.Since(began))
			}
			<-time.After(time.Minute) // of the bubble's time
		}
		if d := time.Since(began); d < 15*time.Minute {
			t.Errorf("given up after %s, want a quarter of an hour for a passing fault", d)
		}
	})
}

func TestDeploymentsAreAnswered(t *testing.T) {
	w, c := asApp(t)
	w.sim.SetEnvironment("clinical-platform", simgithub.Environment{Name: "production", ProtectionApps: []string{"runnerward"}})
	run := w.deploy(t)
	news, err := c.News(t.Context(), longAgo())
	if err != nil || len(news) != 1 {
		t.Fatalf("News() = %+v, %v, want one question", news, err)
	}
	asked := news[0].(runner.Asked)
	if asked.RunID != run.ID || asked.Environment != "production" || asked.SHA != headSHA || asked.Repository != "acme/clinical-platform" {
		t.Errorf("asked %+v, want the run", asked)
	}
	f, err := c.DeploymentFacts(t.Context(), asked)
	if err != nil || f.JobWorkflow.Ref != workflow || f.JobWorkflow.SHA != workflowSHA || len(f.Approvals) != 0 || f.Group == nil || f.TagPusher == nil {
		t.Errorf("DeploymentFacts() = %+v, %v, want those of the listed workflow", f, err)
	}
	commit, ref := asked, asked
	commit.SHA, ref.Ref = workflowSHA, "refs/heads/v1.2.3"
	for _, other := range []runner.Asked{commit, ref} {
		if _, err := c.DeploymentFacts(t.Context(), other); err == nil || !strings.Contains(err.Error(), "the question is about another") {
			t.Errorf("DeploymentFacts(%+v) = %v, want that the run is of another", other, err)
		}
	}
	if err := c.Answer(t.Context(), asked, "approved", strings.Repeat("ä", 2000)); err != nil {
		t.Errorf("Answer() = %v", err)
	}
	if state, comments := w.sim.Ruling(run.ID); state != "approved" || len([]rune(comments[0])) != 1024 {
		t.Errorf("GitHub has %q with %d characters, want approved and 1024", state, len([]rune(comments[0])))
	}
	if err := c.Answer(t.Context(), asked, "rejected", "late"); err == nil || !strings.Contains(err.Error(), "nothing waits") {
		t.Errorf("Answer() again = %v, want that nothing waits", err)
	}
	w.answers("/deployment_protection_rule", body(200, `{}`))
	if err := c.Answer(t.Context(), asked, "approved", "x"); err == nil {
		t.Error("Answer() that GitHub did not take = nil, want an error")
	}
}

func TestTheCallbackIsNeverCalled(t *testing.T) {
	w, c := asApp(t)
	w.sim.SetEnvironment("clinical-platform", simgithub.Environment{Name: "production", ProtectionApps: []string{"runnerward"}})
	w.deploy(t)
	for _, url := range []string{
		"https://evil.example/repos/acme/other/actions/runs/1/deployment_protection_rule",
		"https://evil.example/collect", "https://x/repos/acme/clinical-platform/actions/runs/-1/deployment_protection_rule",
		"https://x/repos/acme/clinical-platform/actions/runs/1/deployment_protection_rule?next=https://evil.example",
	} {
		w.answers("/app/hook/deliveries/1", func(rw http.ResponseWriter, r *http.Request) {
			rec := &replacer{ResponseWriter: rw, old: `"deployment_callback_url":"`, new: `"deployment_callback_url":"` + url + `","was":"`}
			w.sim.ServeHTTP(rec, r)
		})
		if news, err := c.News(t.Context(), longAgo()); err == nil || len(news) != 0 {
			t.Errorf("News() with callback %s = %+v, %v, want an error", url, news, err)
		}
	}
}

func TestBoundaryNamesTheGroupAndItsRivals(t *testing.T) {
	w, c := asApp(t)
	w.sim.AddGroup(simgithub.Group{Name: "open", Visibility: "all"})
	w.sim.AddGroup(simgithub.Group{Name: "beside", Visibility: "selected", Repositories: []string{"compliance"}})
	w.sim.AddGroup(simgithub.Group{Name: "shared", Visibility: "selected", Repositories: []string{"compliance", "clinical-platform"}})
	got, err := c.Boundary(t.Context())
	var names []string
	for _, g := range got.Rivals {
		names = append(names, g.Name)
	}
	if list := strings.Join(names, " "); err != nil || list != "Default open shared" || got.Group != (supervisor.RunnerGroup{ID: w.group, Name: "hipaa-prod"}) || len(got.Open) != 0 {
		t.Errorf("Boundary() = %+v, %v, want our group closed, and those that our repository may use", got, err)
	}
	if runners, err := c.Runners(t.Context()); err != nil || len(runners) != 0 {
		t.Errorf("Runners() = %v, %v, want none", runners, err)
	}
}

// An organization can have a thousand groups, and each is asked about in time.
func TestBoundaryAsksNotAboutEveryGroup(t *testing.T) {
	w, c := asApp(t)
	for n := range 150 {
		w.sim.AddGroup(simgithub.Group{Name: fmt.Sprint("team-", n), Visibility: "selected", Repositories: []string{"compliance"}})
	}
	before := len(w.sim.Requests())
	if got, err := c.Boundary(t.Context()); err != nil || len(got.Rivals) != 1 {
		t.Errorf("Boundary() = %+v, %v, want the default group alone", got, err)
	}
	if n := len(w.sim.Requests()) - before; n > 6 {
		t.Errorf("%d requests for one repository, want no more than pages need", n)
	}
}

func TestAnAnswerAboutAnotherRepositoryIsNoBoundary(t *testing.T) {
	w, c := asApp(t, func(c *github.Config) { c.Repositories[0].Name = "acme/compliance" })
	if got, err := c.Boundary(t.Context()); err == nil || !strings.Contains(err.Error(), "leaves out") {
		t.Errorf("Boundary() = %+v, %v, want that GitHub leaves out %d", got, err, w.group)
	}
}

func TestBoundaryTellsWhatTheGroupAllows(t *testing.T) {
	for _, test := range []struct {
		name, says string
		change     func(*simgithub.Group)
	}{
		{"all repositories", "more than selected", func(g *simgithub.Group) { g.Visibility = "all" }},
		{"another repository", "not one of the pool's", func(g *simgithub.Group) { g.Repositories = append(g.Repositories, "compliance") }},
		{"public repositories", "public", func(g *simgithub.Group) { g.AllowsPublic = true }},
	} {
		t.Run(test.name, func(t *testing.T) {
			w, c := asApp(t)
			if err := w.sim.UpdateGroup(w.group, test.change); err != nil {
				t.Fatal(err)
			}
			got, err := c.Boundary(t.Context())
			if err != nil || len(got.Open) != 1 || !strings.Contains(got.Open[0], test.says) {
				t.Errorf("Boundary() = %+v, %v, want one opening that says %q", got, err, test.says)
			}
		})
	}
	t.Run("what GitHub does not say", func(t *testing.T) {
		w, c := asApp(t)
		w.answers("/runner-groups", body(200, `{"total_count":1,"runner_groups":[{"id":7,"name":"hipaa-prod","visibility":"selected"}]}`))
		w.answers("/runner-groups/7/repositories", body(200, `{"total_count":0,"repositories":[]}`))
		if got, err := c.Boundary(t.Context()); err != nil || len(got.Open) != 1 {
			t.Errorf("Boundary() = %+v, %v, want that it is not known to refuse public repositories", got, err)
		}
	})
}

func TestTheNameThatTheIdentityProviderKnows(t *testing.T) {
	w, c := asApp(t, func(c *github.Config) { c.SAMLNames = true })
	w.sim.SetSAML("approver", "ada@example.com")
	run := w.deploy(t)
	approve(t, w, run, "approver")
	for range 2 {
		if f := facts(t, c, offer(run)); f.Approvals[0].NameID != "ada@example.com" {
			t.Errorf("approvals = %+v, want the name", f.Approvals)
		}
	}
	if n := asked(w, "/audit-log"); n != 1 {
		t.Errorf("the audit log was asked %d times, want once an hour", n)
	}
	// It decides nothing, so nothing about it is an error.
	w2, c2 := asApp(t, func(c *github.Config) { c.SAMLNames = true })
	refusals := 0
	w2.answers("/audit-log", func(rw http.ResponseWriter, r *http.Request) {
		refusals++
		body([]int{500, 404}[min(refusals, 2)-1], `{}`)(rw, r)
	})
	run = w2.deploy(t)
	approve(t, w2, run, "approver")
	for range 3 {
		if f := facts(t, c2, offer(run)); f.Approvals[0].NameID != "" {
			t.Errorf("approvals = %+v, want no name", f.Approvals)
		}
	}
	if refusals != 2 {
		t.Errorf("the audit log was asked %d times, want again after a failure and not after it was not found", refusals)
	}
}

// asked counts the requests whose path ends so.
func asked(w *world, suffix string) (n int) {
	for _, r := range w.sim.Requests() {
		if strings.HasSuffix(r.Path, suffix) {
			n++
		}
	}
	return n
}

func TestWhoPushedAndWhoWrote(t *testing.T) {
	w, c := asApp(t)
	w.sim.AddPull("clinical-platform", headSHA, "outsider")
	run := w.deploy(t, func(s *simgithub.RunSpec) { s.Event = "push" })
	f := facts(t, c, offer(run))
	if len(f.PullAuthors) != 1 || f.PullAuthors[0].Login != "outsider" || f.TagPusher == nil || f.TagPusher.Login != "dev" {
		t.Errorf("pull authors %+v, pusher %+v, want outsider and dev", f.PullAuthors, f.TagPusher)
	}
}

func TestRateLimitsAreSeenAndRespected(t *testing.T) {
	w, c := asApp(t)
	run := w.deploy(t)
	facts(t, c, offer(run))
	h := c.Health()
	if len(h.Rates) != 1 || h.Rates[0].Resource != "core" || h.Rates[0].Limit != 5000 || h.Rates[0].Remaining >= 5000 || h.ClockSkew != 0 {
		t.Errorf("Health() = %+v, want the core limit", h)
	}
	// What hardly changes is asked for with its ETag, which costs nothing.
	used := func() int { return c.Health().Rates[0].Limit - c.Health().Rates[0].Remaining }
	first := used()
	facts(t, c, offer(run))
	if second := used() - first; second >= first {
		t.Errorf("the same facts cost %d calls, then %d, want fewer", first, second)
	}
	w.sim.Inject(simgithub.Fault{Kind: simgithub.FaultSecondaryLimit, Path: "/api/v3/repos", RetryAfter: time.Hour})
	if _, _, err := c.Facts(t.Context(), offer(run), nil); err == nil {
		t.Fatal("Facts() while throttled = nil, want an error")
	}
	before := len(w.sim.Requests())
	if _, _, err := c.Facts(t.Context(), offer(run), nil); err == nil || !strings.Contains(err.Error(), "rate limited") || len(w.sim.Requests()) != before {
		t.Errorf("Facts() = %v after %d requests, want it held back", err, len(w.sim.Requests())-before)
	}
	if h := c.Health(); h.Rates[0].Throttled != 1 || time.Until(h.Rates[0].RetryAfter) < 50*time.Minute {
		t.Errorf("Health() = %+v, want the throttling", h)
	}
}

func TestARevokedTokenIsReplaced(t *testing.T) {
	w, c := asApp(t)
	run := w.deploy(t)
	w.sim.Inject(simgithub.Fault{Kind: simgithub.FaultUnauthorized, Path: "/api/v3/repos"})
	facts(t, c, offer(run))
	if made := asked(w, "/access_tokens"); made != 2 {
		t.Errorf("%d tokens made, want another after the refusal", made)
	}
}
