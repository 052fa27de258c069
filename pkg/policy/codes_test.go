package policy_test

import (
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/policy"
	"github.com/runnerward/runnerward/pkg/runner"
)

// edit is one change to a good question.
type edit struct {
	path  string
	value any
}

func stampAt(d time.Duration) string { return now.Add(d).Format(time.RFC3339Nano) }

const otherRef = "hipaa-app-org/compliance-workflows/.github/workflows/deploy-prod.yml@refs/tags/v1.0.0"

// violations holds, for each code, changes each of which provokes exactly that
// code and no other. Codes of the start gate are provoked there, all others at
// both gates.
var violations = map[string][][]edit{
	"schema-unknown": {{{"schema", "runnerward.policy/v2"}}, {{"schema", gone{}}}, {{"schema", nil}}},
	"gate-unknown":   {{{"gate", "other"}}, {{"gate", gone{}}}, {{"gate", []any{"admission"}}}},
	"clock-differs":  {{{"now", stampAt(time.Nanosecond)}}, {{"now", gone{}}}, {{"now", 17}}, {{"now", "soon"}}},
	"facts-stale": {
		{{"facts.fetchedAt", stampAt(-121 * time.Second)}}, {{"facts.fetchedAt", stampAt(time.Second)}},
		{{"facts.fetchedAt", gone{}}}, {{"facts.fetchedAt", "0001-01-01T00:00:00Z"}},
		{{"facts.fetchedAt", []any{}}}, {{"facts.fetchedAt", stampAt(-time.Second) + "\n"}},
		{{"pool.maxFactsAgeSeconds", "120"}}, {{"pool.maxFactsAgeSeconds", gone{}}},
	},
	"repository-not-listed": {{{"pool.repositories.0.id", "7002"}}, {{"pool.repositories.0.name", "hipaa-app-org/other"}}, {{"pool.repositories", nil}, {"facts.group.repositoryIds", []any{}}}},
	"owner-differs":         {{{"pool.organizationId", "9002"}}, {{"pool.organizationId", "0"}}, {{"pool.organizationId", gone{}}}},
	"event-not-listed":      {{{"facts.event", "workflow_dispatch"}}, {{"facts.event", gone{}}}, {{"pool.events", []any{}}}},
	"attempt-unknown":       {{{"facts.runAttempt", "0"}, {"claims.runAttempt", "0"}}},
	"head-unknown":          {{{"facts.headSha", "main"}, {"claims.sha", "main"}}},
	"ref-not-tag": {
		{{"facts.ref", "refs/heads/main"}, {"claims.ref", "refs/heads/main"}},
		{{"facts.ref", "refs/heads/refs/tags/v1"}, {"claims.ref", "refs/heads/refs/tags/v1"}},
		{{"facts.ref", "refs/tags/latest"}, {"claims.ref", "refs/tags/latest"}},
		{{"facts.ref", "refs/tags/v3.0.0\n"}, {"claims.ref", "refs/tags/v3.0.0\n"}},
	},
	"labels-not-served": {
		{{"job.labels", []any{"self-hosted", "gpu"}}}, {{"job.labels", []any{}}}, {{"job.labels", nil}},
		{{"job.labels", gone{}}}, {{"job.labels", map[string]any{"a": "linux"}}}, {{"pool.labels", nil}},
	},
	"job-unknown":      {{{"job", nil}}, {{"job", gone{}}}, {{"job", "0b0f2d1e"}}, {{"job", []any{}}}},
	"job-differs":      {{{"job.runId", "55002"}}, {{"job.repository", "hipaa-app-org/other"}}, {{"job.runId", 55001}}},
	"workflow-differs": {{{"job.workflowRef", otherRef}}, {{"job.workflowRef", ""}}, {{"job.workflowRef", gone{}}}},
	"workflow-not-tag-pinned": {
		workflow("hipaa-app-org/compliance-workflows/.github/workflows/deploy-prod.yml@refs/heads/main", true),
		workflow("hipaa-app-org/compliance-workflows/.github/workflows/deploy-prod.yml@refs/tags/v1", true),
		workflow(flowRef+"\n", true),
	},
	"workflow-not-listed":      {workflow(otherRef, false), {{"pool.workflows", []any{}}}},
	"workflow-commit":          {{{"pool.workflows.0.sha", strings.Repeat("c", 40)}}, {{"pool.workflows.0.sha", gone{}}}},
	"actor-unknown":            {{{"facts.actor.id", "0"}}, {{"facts.actor.login", ""}}, {{"facts.actor", nil}}, {{"facts.actor.id", 101}}},
	"triggering-actor-unknown": {{{"facts.triggeringActor.id", "0"}}, {{"facts.triggeringActor", gone{}}}},
	"author-unknown":           {{{"facts.headAuthor", nil}}, {{"facts.headAuthor", gone{}}}, {{"facts.headAuthor.id", "0"}}, {{"facts.headAuthor", "carol"}}},
	"tag-pusher-unknown":       {{{"facts.tagPusher", nil}}, {{"facts.tagPusher", gone{}}}, {{"facts.tagPusher.id", "0"}}, {{"facts.tagPusher", "carol"}}},
	"pull-authors-unknown":     {{{"facts.pullAuthors", nil}}, {{"facts.pullAuthors", gone{}}}, {{"facts.pullAuthors.0.id", "0"}}, {{"facts.pullAuthors", "nobody"}}},
	"environment-unknown":      {{{"facts.environment", nil}}, {{"facts.environment", gone{}}}, {{"facts.environment.id", "0"}}},
	"environment-differs":      {{{"facts.environment.name", "staging"}}, {{"facts.environment.name", gone{}}}},
	"environment-unreviewed":   {{{"facts.environment.hasReviewers", false}}, {{"facts.environment.hasReviewers", gone{}}}},
	"environment-reviewers":    {{{"facts.environment.reviewersAllTeams", false}}, {{"facts.environment.reviewersAllTeams", gone{}}}},
	"environment-self-review":  {{{"facts.environment.preventSelfReview", false}}, {{"facts.environment.preventSelfReview", "true"}}},
	"approval-missing":         {{{"facts.approvals", nil}}, {{"facts.approvals", gone{}}}, {{"facts.approvals", map[string]any{"0": map[string]any{"state": "approved"}}}}},
	"approver-not-person":      {{{"facts.approvals.0.by.type", "Bot"}}, {{"facts.approvals.0.by.type", gone{}}}, {{"facts.approvals.0.by.id", "0"}}, {{"facts.approvals.0.by", nil}}},
	"approver-not-in-team":     {{{"facts.approvals.0.inTeam", false}}, {{"facts.approvals.0.inTeam", gone{}}}, {{"facts.approvals.0.team", "everyone"}}, {{"facts.approvals.0.inTeam", 1}}},
	"approver-is-author": {
		{{"facts.actor.id", "202"}}, {{"facts.triggeringActor.id", "202"}}, {{"facts.headAuthor.id", "202"}},
		{{"facts.tagPusher.id", "202"}}, {{"facts.tagPusher.login", "BoB"}}, {{"facts.pullAuthors.0.id", "202"}}, {{"facts.pullAuthors.0.login", "bOB"}},
		{{"facts.actor.login", "BOB"}}, {{"facts.triggeringActor.login", "Bob"}}, {{"facts.headAuthor.login", "bOb"}},
	},
	"approval-cooling-off": {
		{{"facts.approvals.0.seenAt", stampAt(-599 * time.Second)}}, {{"facts.approvals.0.seenAt", stampAt(time.Hour)}},
		{{"facts.approvals.0.seenAt", gone{}}}, {{"facts.approvals.0.seenAt", 0}}, {{"pool.coolOffSeconds", gone{}}}, {{"pool.coolOffSeconds", -1}},
	},
	"group-unknown":      {{{"facts.group", nil}}, {{"facts.group.id", "0"}}, {{"facts.group.visibility", gone{}}}, {{"facts.group.allowsPublic", gone{}}}},
	"group-differs":      {{{"facts.group.name", "Default"}}, {{"facts.group.name", gone{}}}},
	"group-visibility":   {{{"facts.group.visibility", "all"}}},
	"group-public":       {{{"facts.group.allowsPublic", true}}},
	"group-workflows":    {{{"facts.group.restrictedToWorkflows", false}}, {{"facts.group.restrictedToWorkflows", gone{}}}},
	"group-repositories": {{{"facts.group.repositoryIds", []any{7001, 7002}}}, {{"facts.group.repositoryIds", gone{}}}, {{"facts.group.repositoryIds", []any{"7001"}}}},

	"job-not-authorized":  {{{"authorizedAt", gone{}}}, {{"authorizedAt", stampAt(time.Second)}}, {{"authorizedAt", true}}},
	"authorization-stale": {{{"authorizedAt", stampAt(-3601 * time.Second)}}, {{"pool.maxStartAgeSeconds", gone{}}}},
	"claims-unknown":      {{{"claims", nil}}, {{"claims", gone{}}}, {{"claims", "eyJ"}}},
	"claims-run":          {{{"claims.runId", "55002"}}, {{"claims.runAttempt", "2"}}, {{"claims.runId", 55001}}},
	"claims-repository":   {{{"claims.repositoryId", "7002"}}, {{"claims.ownerId", "9002"}}, {{"claims.repository", "hipaa-app-org/other"}}},
	"claims-environment":  {{{"claims.environment", "staging"}}, {{"claims.environment", gone{}}}},
	"claims-workflow":     {{{"claims.jobWorkflow.ref", otherRef}}, {{"claims.jobWorkflow.sha", strings.Repeat("c", 40)}}, {{"claims.jobWorkflow", gone{}}}},
	"claims-check-run":    {{{"claims.checkRunId", "66002"}}, {{"facts.checkRunId", gone{}}}},
	"claims-commit":       {{{"claims.sha", strings.Repeat("c", 40)}}, {{"claims.sha", ""}}},
	"claims-ref":          {{{"claims.ref", "refs/tags/v3.0.1"}}, {{"claims.ref", gone{}}}},
	"claims-runner":       {{{"claims.runnerEnvironment", "github-hosted"}}, {{"claims.runnerEnvironment", gone{}}}},
	"token-stale":         {{{"claims.issuedAt", stampAt(-301 * time.Second)}}, {{"claims.issuedAt", stampAt(time.Minute)}}, {{"claims.issuedAt", gone{}}}},
	"token-expired":       {{{"claims.expiresAt", stampAt(0)}}, {{"claims.expiresAt", gone{}}}, {{"claims.expiresAt", 99999999999}}},
}

// together holds the codes that cannot come alone, with all that come.
var together = map[string]struct {
	edits []edit
	want  []string
}{
	"facts-unknown":         {[]edit{{"facts", nil}}, []string{"facts-unknown"}},
	"approval-unattributed": {[]edit{{"facts.approvals.0.state", "unattributed"}}, []string{"approval-missing", "approval-unattributed"}},
	"approval-bypassed":     {[]edit{{"facts.approvals", []any{}}}, []string{"approval-bypassed", "approval-missing"}},
}

func workflow(ref string, listed bool) []edit {
	edits := []edit{{"facts.jobWorkflow.ref", ref}, {"claims.jobWorkflow.ref", ref}, {"job.workflowRef", ref}}
	if listed {
		edits = append(edits, edit{"pool.workflows.0.ref", ref})
	}
	return edits
}

func startOnly(code string) bool {
	return strings.HasPrefix(code, "claims-") || strings.HasPrefix(code, "token-") ||
		code == "job-not-authorized" || code == "authorization-stale"
}

func TestGoodQuestionsAreAllowed(t *testing.T) {
	b := defaultBundle(t)
	for _, gate := range gates {
		got, err := b.Evaluate(t.Context(), good(gate), now)
		if err != nil || got == nil || len(got) != 0 {
			t.Errorf("Evaluate(good, %s) = %v, %v, want an empty list, nil", gate, got, err)
		}
	}
}

func TestVariantsOfGoodQuestionsAreAllowed(t *testing.T) {
	b := defaultBundle(t)
	bot := runner.Approval{By: runner.Person{ID: 1, Login: "ci[bot]", Type: "Bot"}, State: "approved", EnvironmentID: 8001}
	for name, vary := range map[string]func(*runner.Question){
		"no cool-off is configured and the time is unknown": func(q *runner.Question) {
			q.Pool.CoolOffSeconds, q.Facts.Approvals[0].SeenAt = 0, time.Time{}
		},
		"another approval is worthless":     func(q *runner.Question) { q.Facts.Approvals = append([]runner.Approval{bot}, q.Facts.Approvals...) },
		"the facts are as old as allowed":   func(q *runner.Question) { q.Facts.FetchedAt = now.Add(-2 * time.Minute) },
		"GitHub did not name the job":       func(q *runner.Question) { q.Facts.CheckRunID = 0 },
		"GitHub's clock is a little ahead":  func(q *runner.Question) { setIssued(q, 20*time.Second) },
		"ids are larger than a float holds": func(q *runner.Question) { setRepositoryID(q, 9007199254740993) },
	} {
		for _, gate := range gates {
			q := good(gate)
			vary(&q)
			got, err := b.Evaluate(t.Context(), q, now)
			if err != nil || len(got) != 0 {
				t.Errorf("%s: Evaluate(%s) = %v, %v, want allowed", name, gate, got, err)
			}
		}
	}
}

func setIssued(q *runner.Question, in time.Duration) {
	if q.Claims != nil {
		q.Claims.IssuedAt = now.Add(in)
	}
}

func setRepositoryID(q *runner.Question, id int64) {
	q.Facts.RepositoryID, q.Pool.Repositories[0].ID, q.Facts.Group.RepositoryIDs = id, id, []int64{id}
	if q.Claims != nil {
		q.Claims.RepositoryID = id
	}
}

func TestEachViolationComesAlone(t *testing.T) {
	b := defaultBundle(t)
	for code, cases := range violations {
		for _, edits := range cases {
			checkEdits(t, b, code, edits, []string{code})
		}
	}
	for code, c := range together {
		checkEdits(t, b, code, c.edits, c.want)
	}
}

func checkEdits(t *testing.T, b *policy.Bundle, code string, edits []edit, want []string) {
	t.Helper()
	for _, gate := range gates {
		if startOnly(code) && gate != runner.GateStart {
			continue
		}
		doc := document(t, good(gate))
		for _, e := range edits {
			if strings.HasPrefix(e.path, "claims.") && gate != runner.GateStart {
				continue
			}
			change(t, doc, e.path, e.value)
		}
		want := also(code, edits, gate, want)
		got, err := b.EvaluateJSON(t.Context(), encode(t, doc), now)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s at %s, %v: evaluate = %v, %v, want %v", code, gate, edits, got, err, want)
		}
	}
}

// also lists what a change provokes besides its code where that cannot be
// avoided: without an attempt or a commit no token can agree with the facts,
// and a repository list that is empty covers no group.
func also(code string, edits []edit, gate runner.Gate, want []string) []string {
	want = slices.Clone(want)
	if gate == runner.GateStart {
		switch code {
		case "attempt-unknown":
			want = append(want, "claims-run")
		case "head-unknown":
			want = append(want, "claims-commit")
		}
	}
	if code == "repository-not-listed" && edits[0].path != "pool.repositories.0.name" {
		want = append(want, "group-repositories")
	}
	return sorted(want...)
}

func TestEveryCodeHasACaseAndAnExplanation(t *testing.T) {
	covered := slices.Concat(slices.Collect(maps.Keys(violations)), slices.Collect(maps.Keys(together)))
	slices.Sort(covered)
	words := comments(t)
	codes := slices.Sorted(maps.Keys(words))
	if !slices.Equal(codes, covered) {
		t.Errorf("codes of the policy = %v, cases exist for %v", codes, covered)
	}
	if got := slices.Sorted(maps.Keys(policy.Explanations)); !slices.Equal(got, codes) {
		t.Errorf("explained codes = %v, want %v", got, codes)
	}
	for code, want := range words {
		if got := policy.Explain(code); got != want || got == "" {
			t.Errorf("Explain(%s) = %q, want the comment of its rule, %q", code, got, want)
		}
	}
	if got := policy.Explain("no-such-code"); got != "" {
		t.Errorf("Explain(no-such-code) = %q, want nothing", got)
	}
}

var ruleComment = regexp.MustCompile(`(?m)((?:^# .*\n)*)^violations contains "([^"]+)" if`)

// comments reads the comment above each rule of the default policy, and fails
// when a rule adds its codes in a way that this cannot read.
func comments(t *testing.T) map[string]string {
	t.Helper()
	fsys, out, rules := defaultFiles(t), map[string]string{}, 0
	names, err := fs.Glob(fsys, "*.rego")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		source, err := fs.ReadFile(fsys, name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "_test.rego") {
			continue
		}
		rules += strings.Count(string(source), "\nviolations")
		for _, m := range ruleComment.FindAllStringSubmatch(string(source), -1) {
			lines := strings.Split(strings.TrimSpace(m[1]), "\n")
			for i := range lines {
				lines[i] = strings.TrimPrefix(lines[i], "# ")
			}
			out[m[2]] = strings.Join(lines, " ")
		}
	}
	if len(out) != rules {
		t.Errorf("%d codes in %d rules, want one each", len(out), rules)
	}
	return out
}
