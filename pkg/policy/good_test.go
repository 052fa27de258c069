package policy_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/runnerward/runnerward/configs"
	"github.com/runnerward/runnerward/pkg/policy"
	"github.com/runnerward/runnerward/pkg/runner"
)

var (
	now      = time.Date(2026, 3, 4, 15, 16, 17, 123456789, time.UTC)
	digest   = runner.DigestOf([]byte("token"))
	headSHA  = strings.Repeat("a", 40)
	flowSHA  = strings.Repeat("b", 40)
	flowRef  = "hipaa-app-org/compliance-workflows/.github/workflows/deploy-prod.yml@refs/tags/v1.4.2"
	yes, no  = new(true), new(false)
	gates    = []runner.Gate{runner.GateAdmission, runner.GateStart}
	author   = runner.Person{ID: 101, Login: "Alice", Type: "User"}
	approver = runner.Person{ID: 202, Login: "bob", Type: "User"}
)

func pool() runner.Pool {
	return runner.Pool{
		Organization: "hipaa-app-org", OrganizationID: 9001, Group: "hipaa-prod",
		Labels:        []string{"self-hosted", "hipaa-prod", "linux", "x64"},
		Repositories:  []runner.Repository{{Name: "hipaa-app-org/clinical-platform", ID: 7001}},
		Workflows:     []runner.Workflow{{Ref: flowRef, SHA: flowSHA}},
		Environment:   "production",
		ApproverTeams: []string{"release-managers"},
		Events:        []string{"push"},

		MaxFactsAgeSeconds: 120, MaxTokenAgeSeconds: 300, MaxStartAgeSeconds: 3600, CoolOffSeconds: 600,
	}
}

func facts() *runner.Facts {
	return &runner.Facts{
		FetchedAt: now.Add(-10 * time.Second), ServerURL: "https://github.com",
		Repository: "hipaa-app-org/clinical-platform", RepositoryID: 7001, OwnerID: 9001,
		RunID: 55001, RunAttempt: 1, CheckRunID: 66001, Event: "push", Ref: "refs/tags/v3.0.0",
		HeadSHA: headSHA, WorkflowPath: ".github/workflows/release.yml",
		JobWorkflow: runner.Workflow{Ref: flowRef, SHA: flowSHA},
		Actor:       author, TriggeringActor: author, HeadAuthor: &author, TagPusher: &author, PullAuthors: []runner.Person{author},
		Environment: &runner.Environment{
			ID: 8001, Name: "production", HasReviewers: yes, ReviewerTeams: []string{"release-managers"},
			ReviewersAllTeams: yes, PreventSelfReview: yes,
		},
		Approvals: []runner.Approval{{
			By: approver, State: "approved", EnvironmentID: 8001, Environment: "production",
			Team: "release-managers", InTeam: yes, Source: "rest", SeenAt: now.Add(-11 * time.Minute),
		}},
		Group: &runner.Group{
			ID: 3, Name: "hipaa-prod", Visibility: "selected", AllowsPublic: no,
			RestrictedToWorkflows: yes, RepositoryIDs: []int64{7001},
		},
	}
}

func claims() *runner.Claims {
	return &runner.Claims{
		Subject:    "repo:hipaa-app-org/clinical-platform:environment:production",
		Repository: "hipaa-app-org/clinical-platform", RepositoryID: 7001, OwnerID: 9001,
		RunID: 55001, RunAttempt: 1, CheckRunID: 66001, Environment: "production", Event: "push",
		Ref: "refs/tags/v3.0.0", SHA: headSHA, JobWorkflow: runner.Workflow{Ref: flowRef, SHA: flowSHA},
		WorkflowRef: "hipaa-app-org/clinical-platform/.github/workflows/release.yml@refs/tags/v3.0.0",
		ActorID:     101, RunnerEnvironment: "self-hosted",
		IssuedAt: now.Add(-5 * time.Second), ExpiresAt: now.Add(5 * time.Minute),
		TokenID: digest, Token: digest,
	}
}

// good is a question that the default policy allows.
func good(gate runner.Gate) runner.Question {
	q := runner.Question{
		Schema: runner.QuestionSchema, Gate: gate, Now: now, Pool: pool(), Facts: facts(),
		Job: &runner.Offered{
			Job: "0b0f2d1e-1111-4222-8333-444455556666", Repository: "hipaa-app-org/clinical-platform",
			RunID: 55001, WorkflowRef: flowRef, EventName: "push",
			Labels: []string{"self-hosted", "hipaa-prod"}, MessageID: 4,
		},
	}
	if gate == runner.GateStart {
		q.Claims, q.AuthorizedAt = claims(), now.Add(-3*time.Minute)
	}
	return q
}

func defaultBundle(tb testing.TB) *policy.Bundle {
	tb.Helper()
	b, err := policy.Load(defaultFiles(tb))
	if err != nil {
		tb.Fatalf("Load(default policy) = %v, want nil", err)
	}
	return b
}

func defaultFiles(tb testing.TB) fs.FS {
	tb.Helper()
	fsys, err := configs.Policy()
	if err != nil {
		tb.Fatalf("configs.Policy() = %v, want nil", err)
	}
	return fsys
}

// document is a question as loose JSON, to change it into what no Go type holds.
func document(tb testing.TB, q runner.Question) map[string]any {
	tb.Helper()
	b, err := json.Marshal(q)
	if err != nil {
		tb.Fatalf("marshal question: %v", err)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var doc map[string]any
	if err := dec.Decode(&doc); err != nil {
		tb.Fatalf("unmarshal question: %v", err)
	}
	return doc
}

// change sets the value at a dotted path; the value gone{} removes it.
func change(tb testing.TB, doc map[string]any, path string, value any) {
	tb.Helper()
	parts := strings.Split(path, ".")
	var at any = doc
	for _, part := range parts[:len(parts)-1] {
		at = child(tb, at, part, path)
	}
	last := parts[len(parts)-1]
	switch parent := at.(type) {
	case map[string]any:
		if _, remove := value.(gone); remove {
			delete(parent, last)
			return
		}
		parent[last] = value
	case []any:
		parent[index(tb, last, len(parent), path)] = value
	default:
		tb.Fatalf("change(%s): no object there", path)
	}
}

func child(tb testing.TB, at any, part, path string) any {
	tb.Helper()
	switch at := at.(type) {
	case map[string]any:
		return at[part]
	case []any:
		return at[index(tb, part, len(at), path)]
	}
	tb.Fatalf("change(%s): nothing at %s", path, part)
	return nil
}

func index(tb testing.TB, part string, n int, path string) int {
	tb.Helper()
	i, err := strconv.Atoi(part)
	if err != nil || i < 0 || i >= n {
		tb.Fatalf("change(%s): no element %s", path, part)
	}
	return i
}

type gone struct{}

func encode(tb testing.TB, v any) []byte {
	tb.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		tb.Fatalf("marshal: %v", err)
	}
	return b
}

func sorted(s ...string) []string {
	slices.Sort(s)
	return s
}
