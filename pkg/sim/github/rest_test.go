package simgithub_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/actions/scaleset"
	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-github/v60/github"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
)

// rest is a go-github client over the world's network.
func (w *world) rest() *github.Client {
	w.t.Helper()
	c, err := github.NewClient(w.http).WithAuthToken(pat).WithEnterpriseURLs("http://ghes.test", "http://ghes.test")
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func TestRule12ARunAndItsJobReadAsOnGitHub(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		ctx, c := t.Context(), w.rest()
		q := w.session()
		run := w.dispatch(nil)
		w.take(q, 1)
		_, jit := w.jit("r1")
		w.start(ctx, jit, nil)()
		again, err := w.sim.Rerun(run.ID, "bob")
		if err != nil || again.Attempt != 2 || again.JobID == run.JobID || again.ID != run.ID {
			t.Fatalf("Rerun() = %+v, %v", again, err)
		}
		got, _, err := c.Actions.GetWorkflowRunByID(ctx, "acme", "shop", run.ID)
		if err != nil {
			t.Fatalf("GetWorkflowRunByID() = %v", err)
		}
		if got.GetHeadBranch() != "v1.2.3" || got.GetHeadSHA() != sha1 || got.GetActor().GetLogin() != "alice" ||
			got.GetTriggeringActor().GetLogin() != "bob" || got.GetRunAttempt() != 2 || got.GetEvent() != "push" ||
			got.GetRepository().GetID() != run.RepositoryID || got.GetRepository().GetOwner().GetID() != 65 {
			t.Errorf("run = %v", got)
		}
		if len(got.ReferencedWorkflows) != 1 || got.ReferencedWorkflows[0].GetSHA() != sha2 ||
			got.ReferencedWorkflows[0].GetPath() != "acme/workflows/.github/workflows/deploy.yml@v1.0.0" ||
			got.ReferencedWorkflows[0].GetRef() != "refs/tags/v1.0.0" {
			t.Errorf("referenced_workflows = %v", got.ReferencedWorkflows)
		}
		first, _, err := c.Actions.GetWorkflowRunAttempt(ctx, "acme", "shop", run.ID, 1, nil)
		if err != nil || first.GetTriggeringActor().GetLogin() != "alice" || first.GetConclusion() != "success" {
			t.Errorf("attempt 1 = %v, %v", first, err)
		}
		jobs, _, err := c.Actions.ListWorkflowJobsAttempt(ctx, "acme", "shop", run.ID, 1, nil)
		if err != nil || len(jobs.Jobs) != 1 {
			t.Fatalf("jobs of attempt 1 = %v, %v", jobs, err)
		}
		j := jobs.Jobs[0]
		if j.GetID() != run.CheckRunID || j.GetRunnerName() != "r1" || j.GetRunnerGroupID() != w.group ||
			j.GetRunnerGroupName() != "prod" || j.GetConclusion() != "success" || len(j.Steps) != 4 {
			t.Errorf("job = %v", j)
		}
		one, _, err := c.Actions.GetWorkflowJobByID(ctx, "acme", "shop", again.CheckRunID)
		if err != nil || one.GetRunAttempt() != 2 || one.RunnerID != nil || one.GetStatus() != "queued" {
			t.Errorf("job of attempt 2 = %v, %v", one, err)
		}
		all, _, err := c.Actions.ListWorkflowJobs(ctx, "acme", "shop", run.ID, &github.ListWorkflowJobsOptions{Filter: "all"})
		if err != nil || all.GetTotalCount() != 2 {
			t.Errorf("all jobs = %v, %v", all, err)
		}
		_, err = c.Actions.CancelWorkflowRunByID(ctx, "acme", "shop", run.ID)
		if _, accepted := errors.AsType[*github.AcceptedError](err); !accepted {
			t.Errorf("CancelWorkflowRunByID() = %v, want AcceptedError", err)
		}
	})
}

func TestReviewsFollowGitHubsRules(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		ctx, c := t.Context(), w.rest()
		run := w.dispatch(func(s *simgithub.RunSpec) { s.Environment = "production" })
		if err := w.sim.Approve(run.ID, "alice"); err == nil {
			t.Error("the initiator approved her own deployment")
		}
		if err := w.sim.Approve(run.ID, "mallory"); err == nil {
			t.Error("somebody who is no reviewer approved")
		}
		if err := w.sim.Bypass(run.ID); err == nil {
			t.Error("an administrator bypassed an environment that forbids it")
		}
		if got := w.approvals(c, run.ID); len(got) != 0 {
			t.Errorf("approvals after refusals = %v, want none", got)
		}
		if err := w.sim.Approve(run.ID, "bob"); err != nil {
			t.Fatalf("Approve(bob) = %v", err)
		}
		if err := w.sim.Approve(run.ID, "carol"); err == nil {
			t.Error("a deployment that waits no more was approved")
		}
		got := w.approvals(c, run.ID)
		if len(got) != 1 || got[0]["state"] != "approved" || got[0]["user"].(map[string]any)["login"] != "bob" || len(got[0]) != 4 {
			t.Errorf("approvals = %v, want bob's with state, user, comment and environments only", got)
		}
		if err := w.sim.Cancel(run.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := w.sim.Rerun(run.ID, "bob"); err != nil {
			t.Fatal(err)
		}
		if err := w.sim.Approve(run.ID, "bob"); err == nil {
			t.Error("the initiator of a re-run approved it")
		}
		if err := w.sim.Approve(run.ID, "alice"); err != nil {
			t.Errorf("the author of the first attempt may approve bob's: %v", err)
		}
		env, _, err := c.Repositories.GetEnvironment(ctx, "acme", "shop", "production")
		if err != nil || len(env.ProtectionRules) != 2 || !env.ProtectionRules[0].GetPreventSelfReview() || env.GetCanAdminsBypass() {
			t.Fatalf("GetEnvironment() = %v, %v", env, err)
		}
		if team, isTeam := env.ProtectionRules[0].Reviewers[0].Reviewer.(*github.Team); !isTeam || team.GetSlug() != "deployers" {
			t.Errorf("reviewer = %v", env.ProtectionRules[0].Reviewers[0])
		}
		policies, _, err := c.Repositories.ListDeploymentBranchPolicies(ctx, "acme", "shop", "production")
		if err != nil || len(policies.BranchPolicies) != 1 || policies.BranchPolicies[0].GetType() != "tag" {
			t.Errorf("policies = %v, %v", policies, err)
		}
	})
}

func (w *world) approvals(c *github.Client, run int64) []map[string]any {
	w.t.Helper()
	req, err := c.NewRequest("GET", fmt.Sprintf("repos/acme/shop/actions/runs/%d/approvals", run), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	var out []map[string]any
	if _, err := c.Do(w.t.Context(), req, &out); err != nil {
		w.t.Fatalf("approvals: %v", err)
	}
	return out
}

func TestTheWaitTimerCountsFromTheTrigger(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		w.sim.SetEnvironment("shop", simgithub.Environment{
			Name: "slow", ReviewerUsers: []string{"bob"}, WaitTimer: 10 * time.Minute, CanAdminsBypass: true,
		})
		slow := func(s *simgithub.RunSpec) { s.Environment = "slow" }
		run, other := w.dispatch(slow), w.dispatch(slow)
		sleep(9 * time.Minute)
		if err := w.sim.Approve(run.ID, "bob"); err != nil {
			t.Fatal(err)
		}
		if j := w.job(run.JobID); j.Status != "waiting" {
			t.Errorf("status one minute before the timer = %s, want waiting", j.Status)
		}
		sleep(time.Minute)
		if j := w.job(run.JobID); j.Status != "queued" {
			t.Errorf("status after the timer = %s, want queued", j.Status)
		}
		if err := w.sim.Bypass(other.ID); err != nil {
			t.Fatal(err)
		}
		if j := w.job(other.JobID); j.Status != "queued" || len(w.approvals(w.rest(), other.ID)) != 0 {
			t.Errorf("after the bypass: %+v, want it queued without an approval", j)
		}
		wrong := w.dispatch(func(s *simgithub.RunSpec) { s.Environment = "production"; s.Tag = "nightly" })
		if j := w.job(wrong.JobID); j.Conclusion != "failure" {
			t.Errorf("a tag outside the policy = %+v, want failure", j)
		}
	})
}

func TestRule12OrganizationFacts(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		ctx, c := t.Context(), w.rest()
		g, _, err := c.Actions.GetOrganizationRunnerGroup(ctx, "acme", w.group)
		if err != nil || g.GetVisibility() != "selected" || g.AllowsPublicRepositories == nil || g.GetAllowsPublicRepositories() ||
			!g.GetRestrictedToWorkflows() || len(g.SelectedWorkflows) != 1 {
			t.Errorf("group = %v, %v", g, err)
		}
		repos, _, err := c.Actions.ListRepositoryAccessRunnerGroup(ctx, "acme", w.group, nil)
		if err != nil || len(repos.Repositories) != 1 || repos.Repositories[0].GetName() != "shop" || !repos.Repositories[0].GetPrivate() {
			t.Errorf("repositories = %v, %v", repos, err)
		}
		if m, _, err := c.Teams.GetTeamMembershipBySlug(ctx, "acme", "deployers", "BOB"); err != nil || m.GetState() != "active" {
			t.Errorf("membership of bob = %v, %v", m, err)
		}
		_, resp, err := c.Teams.GetTeamMembershipBySlug(ctx, "acme", "deployers", "mallory")
		if e, isErr := errors.AsType[*github.ErrorResponse](err); !isErr || resp.StatusCode != 404 || e.Message != "Not Found" || e.DocumentationURL == "" {
			t.Errorf("membership of mallory = %v, want 404", err)
		}
		ref, _, err := c.Git.GetRef(ctx, "acme", "workflows", "tags/v1.0.0")
		if err != nil || ref.GetObject().GetSHA() != sha2 {
			t.Errorf("tag = %v, %v", ref, err)
		}
		w.dispatch(func(s *simgithub.RunSpec) { s.HeadAuthor = "carol" })
		commit, _, err := c.Repositories.GetCommit(ctx, "acme", "shop", sha1, nil)
		if err != nil || commit.GetAuthor().GetLogin() != "carol" {
			t.Errorf("commit = %v, %v", commit, err)
		}
	})
}

func TestRule12PagesAndRateLimits(t *testing.T) {
	bubble(t, simgithub.Config{RateLimit: 4}, func(t *testing.T, w *world) {
		ctx, c := t.Context(), w.rest()
		for i := range 3 {
			w.jit(fmt.Sprintf("r%d", i)) // the bootstrap used one call
		}
		var names []string
		opts := &github.ListOptions{PerPage: 2}
		for {
			runners, resp, err := c.Actions.ListOrganizationRunners(ctx, "acme", opts)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range runners.Runners {
				names = append(names, r.GetName())
			}
			if opts.Page = resp.NextPage; opts.Page == 0 {
				break
			}
		}
		if got := strings.Join(names, " "); got != "r0 r1 r2" {
			t.Errorf("runners over the pages = %q, want r0 r1 r2", got)
		}
		_, resp, err := c.Actions.ListOrganizationRunners(ctx, "acme", nil)
		if err != nil || resp.Rate.Remaining != 0 || resp.Rate.Limit != 4 {
			t.Fatalf("last call = %v, %v", resp.Rate, err)
		}
		status, header, _ := w.raw("GET", "/api/v3/orgs/acme", "Bearer "+pat, nil)
		if status != http.StatusForbidden || header.Get("X-RateLimit-Remaining") != "0" {
			t.Errorf("call beyond the limit = %d, want 403", status)
		}
		sleep(time.Hour)
		if status, _, _ = w.raw("GET", "/api/v3/orgs/acme", "Bearer "+pat, nil); status != http.StatusOK {
			t.Errorf("call an hour later = %d, want 200", status)
		}
	})
}

func TestAnAppOverTLSBootstrapsWithTheOfficialClient(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	var sim *simgithub.Server
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { sim.ServeHTTP(w, r) }))
	defer server.Close()
	sim = simgithub.New(simgithub.Config{
		BaseURL: server.URL, Org: "acme", OrgID: 65, AppClientID: "Iv1", AppInstallationID: 7, AppKey: &key.PublicKey,
		PollHold: 10 * time.Millisecond,
	})
	conform(t, sim)
	defer sim.Close()
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	client := func(id string, installation int64) error {
		c, err := scaleset.NewClientWithGitHubApp(scaleset.ClientWithGitHubAppConfig{
			GitHubConfigURL: server.URL + "/acme",
			GitHubAppAuth: scaleset.GitHubAppAuth{ClientID: id, InstallationID: installation, PrivateKey: string(pem.EncodeToMemory(
				&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))},
		}, scaleset.WithRootCAs(pool), scaleset.WithRetryMax(0))
		if err != nil {
			return err
		}
		_, err = c.GetRunnerGroupByName(context.WithoutCancel(t.Context()), "Default")
		return err
	}
	if err := client("Iv1", 7); err != nil {
		t.Errorf("the App = %v", err)
	}
	if err := client("Iv2", 7); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("another App = %v, want 401", err)
	}
	if err := client("Iv1", 8); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("another installation = %v, want 404", err)
	}
	now := time.Now().Unix()
	for name, c := range map[string]struct {
		key any
		iat int64
		exp int64
	}{
		"issued in the future":  {key, now + 120, now + 300},
		"expired":               {key, now - 700, now - 100},
		"longer than 10 min":    {key, now, now + 700},
		"signed by another key": {mustKey(t), now, now + 300},
	} {
		if status := postApp(t, server, c.key, c.iat, c.exp); status != http.StatusUnauthorized {
			t.Errorf("an assertion %s: status %d, want 401", name, status)
		}
	}
}

func mustKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func postApp(t *testing.T, server *httptest.Server, key any, iat, exp int64) int {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key}, nil)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign(fmt.Appendf(nil, `{"iss":"Iv1","iat":%d,"exp":%d}`, iat, exp))
	if err != nil {
		t.Fatal(err)
	}
	token, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), "POST", server.URL+"/app/installations/7/access_tokens", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "api.github.com" // the path space without a prefix
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}
