package simgithub_test

import (
	"crypto/rsa"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
)

// call is one request of the table and the status that GitHub documents.
type call struct {
	request string // method and path below /api/v3
	as      string // Authorization
	body    any
	want    int
}

// TestEveryRouteAnswersAsGitHubDescribesIt calls each route of the REST API.
// That the answers are valid is checked by conform, as in every other test.
func TestEveryRouteAnswersAsGitHubDescribesIt(t *testing.T) {
	key := mustKey(t)
	cfg := simgithub.Config{
		AppClientID: "Iv1", AppInstallationID: 7, AppKey: &key.PublicKey, TokenUser: "bob",
		Webhook: simgithub.Webhook{URL: "https://hooks.test/github", StatusCode: http.StatusOK},
	}
	bubble(t, cfg, func(t *testing.T, w *world) {
		seen := w.routesSeen()
		for _, c := range w.everyRoute(t, key) {
			method, path, _ := strings.Cut(c.request, " ")
			if status, _, body := w.raw(method, "/api/v3"+path, c.as, c.body); status != c.want {
				t.Errorf("%s: status %d (%v), want %d", c.request, status, body["message"], c.want)
			}
		}
		called := seen()
		for _, route := range restRoutes(t) {
			if !slices.Contains(called, route) {
				t.Errorf("the table does not call %s", route)
			}
		}
	})
}

// routesSeen collects the routes that answer from now on.
func (w *world) routesSeen() func() []string {
	var mu sync.Mutex
	var routes []string
	w.sim.Observe(func(a simgithub.Answered) {
		mu.Lock()
		defer mu.Unlock()
		routes = append(routes, a.Request.Pattern)
	})
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(routes)
	}
}

// everyRoute sets up what the routes show, and lists one call of each.
func (w *world) everyRoute(t *testing.T, key *rsa.PrivateKey) []call {
	t.Helper()
	const repo = "/repos/acme/shop"
	user, app := "Bearer "+pat, "Bearer "+assertion(t, key)
	_, _, token := w.raw("POST", "/api/v3/app/installations/7/access_tokens", app, nil)
	installation := fmt.Sprintf("Bearer %v", token["token"])
	w.sim.PushTag("shop", "v1.2.3", sha1, "alice")
	w.sim.AddPull("shop", sha1, "alice")
	w.sim.PushBranch("shop", "release/1.x", sha2, "bob")
	object, err := w.sim.AnnotateTag("shop", "v1.2.3", "alice", "first release")
	if err != nil {
		t.Fatal(err)
	}
	w.sim.SetSAML("bob", "bob@acme.test")
	env := w.sim.SetEnvironment("shop", simgithub.Environment{
		Name: "guarded", ReviewerTeams: []string{"deployers"}, ReviewerUsers: []string{"carol"}, WaitTimer: time.Minute,
		ProtectionApps: []string{"runnerward"}, Policies: []simgithub.BranchPolicy{{Name: "v*", Type: "tag"}},
	})
	runner, _ := w.jit("r1")
	waits := w.dispatch(func(s *simgithub.RunSpec) { s.Environment = "guarded" })
	ends, other := w.dispatch(nil), w.dispatch(nil)
	run := func(r simgithub.Run) string { return fmt.Sprintf("%s/actions/runs/%d", repo, r.ID) }
	_, _, registration := w.raw("POST", "/api/v3/orgs/acme/actions/runners/registration-token", user, nil)
	delivery := w.sim.Deliveries()[0].ID
	rules := w.sim.AddRuleset("shop", simgithub.Ruleset{Name: "tags", Target: "tag", Enforcement: "active", Include: []string{"refs/tags/v*"}, Rules: []string{"update", "deletion"}, BypassMode: "always"})
	w.sim.AddFile("shop", "v1.2.3", ".github/workflows/deploy.yml", "on: push\n")
	group := fmt.Sprintf("/orgs/acme/actions/runner-groups/%d", w.group)
	return []call{
		{"POST /app/installations/7/access_tokens", app, nil, 201},
		{"POST /actions/runner-registration", fmt.Sprintf("RemoteAuth %v", registration["token"]), map[string]any{"url": "http://ghes.test/acme", "runner_event": "register"}, 200},
		{"GET /app/hook/config", app, nil, 200},
		{fmt.Sprintf("GET /app/hook/deliveries/%d", delivery), app, nil, 200},
		{fmt.Sprintf("POST /app/hook/deliveries/%d/attempts", delivery), app, nil, 202},
		{"GET /rate_limit", user, nil, 200},
		{"GET /users/alice", user, nil, 200},
		{"GET /orgs/acme", user, nil, 200},
		{"GET /orgs/acme/actions/runners", user, nil, 200},
		{fmt.Sprintf("GET /orgs/acme/actions/runners/%d", runner), user, nil, 200},
		{fmt.Sprintf("DELETE /orgs/acme/actions/runners/%d", runner), user, nil, 204},
		{"POST /orgs/acme/actions/runners/registration-token", user, nil, 201},
		{"GET /orgs/acme/actions/runner-groups", user, nil, 200},
		{"GET " + group, user, nil, 200},
		{"GET " + group + "/repositories", user, nil, 200},
		{"GET " + group + "/runners", user, nil, 200},
		{"GET /orgs/acme/teams/deployers/memberships/bob", user, nil, 200},
		{"GET " + repo, user, nil, 200},
		{"GET " + repo + "/activity", user, nil, 200},
		{fmt.Sprintf("GET %s/actions/jobs/%d", repo, waits.CheckRunID), user, nil, 200},
		{"GET " + run(waits), user, nil, 200},
		{"GET " + run(waits) + "/attempts/1", user, nil, 200},
		{"GET " + run(waits) + "/attempts/1/jobs", user, nil, 200},
		{"GET " + run(waits) + "/jobs", user, nil, 200},
		{"GET " + run(waits) + "/pending_deployments", user, nil, 200},
		{"POST " + run(waits) + "/deployment_protection_rule", installation, map[string]any{"environment_name": "guarded", "state": "approved", "comment": "vetted"}, 204},
		{"POST " + run(waits) + "/pending_deployments", user, map[string]any{"environment_ids": []int64{env}, "state": "approved", "comment": "ship"}, 200},
		{"GET " + run(waits) + "/approvals", user, nil, 200},
		{"GET /orgs/acme/audit-log", user, nil, 200},
		{"GET /app/hook/deliveries", app, nil, 200},
		{"POST " + run(ends) + "/cancel", user, nil, 202},
		{"POST " + run(other) + "/force-cancel", user, nil, 202},
		{"PUT /orgs/acme/actions/oidc/customization/sub", user, map[string]any{"include_claim_keys": []string{"repo", "job_workflow_ref"}}, 201},
		{"GET /orgs/acme/actions/oidc/customization/sub", user, nil, 200},
		{"PUT " + repo + "/actions/oidc/customization/sub", user, map[string]any{"use_default": false, "include_claim_keys": []string{"repo", "context"}}, 201},
		{"GET " + repo + "/actions/oidc/customization/sub", user, nil, 200},
		{"PUT " + repo + "/actions/oidc/customization/sub", user, map[string]any{"use_default": false, "include_claim_keys": []string{"a-b"}}, 422},
		{"GET " + repo + "/rulesets", user, nil, 200},
		{fmt.Sprintf("GET %s/rulesets/%d", repo, rules), installation, nil, 200},
		{fmt.Sprintf("GET %s/rulesets/%d", repo, rules), user, nil, 200},
		{"GET " + repo + "/contents/.github/workflows/deploy.yml?ref=v1.2.3", user, nil, 200},
		{"GET " + repo + "/contents/nothing?ref=v1.2.3", user, nil, 404},
		{"GET " + repo + "/commits/" + sha1 + "/pulls", user, nil, 200},
		{"GET " + repo + "/commits/" + sha1, user, nil, 200},
		{"GET " + repo + "/environments", user, nil, 200},
		{"GET " + repo + "/environments/guarded", user, nil, 200},
		{"GET " + repo + "/environments/guarded/deployment-branch-policies", user, nil, 200},
		{"GET " + repo + "/environments/guarded/deployment_protection_rules", user, nil, 200},
		{"GET " + repo + "/git/ref/tags/v1.2.3", user, nil, 200},
		{"GET " + repo + "/git/ref/heads/main", user, nil, 404},
		{"GET " + repo + "/git/ref/heads/release/1.x", user, nil, 200},
		{"GET " + repo + "/git/tags/" + object, user, nil, 200},
		{"GET " + repo + "/git/tags/" + sha1, user, nil, 404},
	}
}

// assertion is the JWT by which the App signs in.
func assertion(t *testing.T, key *rsa.PrivateKey) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key}, nil)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Unix()
	jws, err := signer.Sign(fmt.Appendf(nil, `{"iss":"Iv1","iat":%d,"exp":%d}`, now, now+300))
	if err != nil {
		t.Fatal(err)
	}
	token, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// restRoutes reads the patterns that routeREST mounts out of its source: a
// ServeMux does not tell what it serves.
func restRoutes(t *testing.T) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "rest.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{"restPath": "/api/v3"}
	var out []string
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ValueSpec:
			if len(n.Values) == 1 {
				names[n.Names[0].Name], _ = textOf(n.Values[0], names)
			}
		case *ast.CallExpr:
			if len(n.Args) != 2 {
				return true
			}
			if pattern, isText := textOf(n.Args[0], names); isText && strings.Contains(pattern, " /api/v3/") {
				out = append(out, pattern)
			}
		}
		return true
	})
	if len(out) == 0 {
		t.Fatal("rest.go mounts no route")
	}
	return out
}

// textOf adds up literals and constants.
func textOf(e ast.Expr, names map[string]string) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		v, err := strconv.Unquote(e.Value)
		return v, err == nil && e.Kind == token.STRING
	case *ast.Ident:
		v, known := names[e.Name]
		return v, known
	case *ast.BinaryExpr:
		x, isText := textOf(e.X, names)
		y, isToo := textOf(e.Y, names)
		return x + y, isText && isToo
	}
	return "", false
}

// https://docs.github.com/en/rest/rate-limit/rate-limit
func TestAskingForTheRateLimitCostsNothing(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		remaining := func() any {
			status, _, body := w.raw("GET", "/api/v3/rate_limit", "Bearer "+pat, nil)
			if status != http.StatusOK {
				t.Fatalf("GET rate_limit: status %d, want 200", status)
			}
			return body["rate"].(map[string]any)["remaining"]
		}
		before := remaining()
		if again := remaining(); again != before {
			t.Errorf("remaining after asking for it = %v, want %v", again, before)
		}
		w.raw("GET", "/api/v3/orgs/acme", "Bearer "+pat, nil)
		if after := remaining(); after != before.(float64)-1 {
			t.Errorf("remaining after one call = %v, want %v", after, before.(float64)-1)
		}
		sleep(2 * time.Hour)
		if later := remaining(); later != 5000.0 {
			t.Errorf("remaining in a new hour = %v, want 5000", later)
		}
	})
}
