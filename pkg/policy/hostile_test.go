package policy_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/runnerward/runnerward/pkg/runner"
)

// hostile are inputs that a policy written as "deny the bad case" tends to
// let through. Each is a good question with these changes.
var hostile = map[string][]edit{
	"a repository whose name embeds ours":        workflow("attacker/evil-compliance-workflows/.github/workflows/deploy-prod.yml@refs/tags/v1.4.2", false),
	"the same workflow of another organization":  workflow("other-org/compliance-workflows/.github/workflows/deploy-prod.yml@refs/tags/v1.4.2", false),
	"a lookalike organization":                   workflow("hipaa-app-0rg/compliance-workflows/.github/workflows/deploy-prod.yml@refs/tags/v1.4.2", false),
	"a dot of the pattern that matches anything": workflow("hipaa-app-org/compliance-workflows/Xgithub/workflows/deploy-prodXyml@refs/tags/v1.4.2", false),
	"a branch whose name embeds the pattern":     workflow("hipaa-app-org/compliance-workflows/.github/workflows/deploy-prod.yml@refs/heads/x@refs/tags/v1.4.2", false),
	"another workflow of the right repository":   workflow("hipaa-app-org/compliance-workflows/.github/workflows/lint.yml@refs/tags/v1.4.2", false),
	"an old tag": workflow(otherRef, false),
	"a path that climbs out of the repository":        workflow("hipaa-app-org/compliance-workflows/../../attacker/x.yml@refs/tags/v1.4.2", false),
	"a newline after the tag":                         workflow(flowRef+"\n", false),
	"the approver is the author in other letters":     {{"facts.approvals.0.by.login", "ALICE"}},
	"the author is null":                              {{"facts.headAuthor", nil}},
	"the author is empty":                             {{"facts.headAuthor.login", ""}},
	"the author's login is an object":                 {{"facts.headAuthor.login", map[string]any{"login": "bob"}}},
	"the author is missing":                           {{"facts.headAuthor", gone{}}},
	"facts from a year in the future":                 {{"facts.fetchedAt", now.AddDate(1, 0, 0)}},
	"a time that is a word":                           {{"facts.fetchedAt", "zzz"}},
	"a time that is an object":                        {{"facts.fetchedAt", map[string]any{}}},
	"a time that is an array":                         {{"facts.fetchedAt", []any{now}}},
	"a day that does not exist":                       {{"facts.fetchedAt", "2026-02-31T00:00:00Z"}},
	"a workflow on a development branch":              workflow("hipaa-app-org/compliance-workflows/.github/workflows/deploy-prod.yml@refs/heads/dev", false),
	"a token of another commit":                       {{"facts.headSha", strings.Repeat("d", 40)}},
	"the tag was moved to another commit":             {{"facts.jobWorkflow.sha", strings.Repeat("d", 40)}},
	"the environment is missing":                      {{"facts.environment", gone{}}},
	"the facts are missing":                           {{"facts", gone{}}},
	"no approver team is configured":                  {{"pool.approverTeams", gone{}}},
	"the pool is missing":                             {{"pool", gone{}}},
	"an approval of another environment":              {{"facts.approvals.0.environmentId", "8002"}},
	"an approval of an environment of no id":          {{"facts.approvals.0.environmentId", gone{}}, {"facts.environment.id", gone{}}},
	"a rejection":                                     {{"facts.approvals.0.state", "rejected"}},
	"an id that is a number":                          {{"facts.repositoryId", 7001}},
	"lists that are objects":                          {{"pool.events", map[string]any{}}, {"facts.approvals", map[string]any{}}},
	"a repository of ours under another's id":         {{"facts.repositoryId", "666"}},
	"a repository's id under another name":            {{"facts.repository", "attacker/clinical-platform"}},
	"an age limit that is a word, above every number": {{"pool.maxFactsAgeSeconds", "zzz"}, {"facts.fetchedAt", "2026-01-01T00:00:00Z"}},
}

func TestHostileQuestionsAreDenied(t *testing.T) {
	b := defaultBundle(t)
	for name, edits := range hostile {
		for _, gate := range gates {
			if name == "a token of another commit" && gate != runner.GateStart {
				continue
			}
			doc := document(t, good(gate))
			for _, e := range edits {
				if gate == runner.GateStart || !strings.HasPrefix(e.path, "claims.") {
					change(t, doc, e.path, e.value)
				}
			}
			got, err := b.EvaluateJSON(t.Context(), encode(t, doc), now)
			if err == nil && len(got) == 0 {
				t.Errorf("%s: evaluate at %s = allowed, want denied", name, gate)
			}
		}
	}
}

// The conditions on an approver must hold of one approval.
func TestTwoHalfGoodApprovalsAreNotOne(t *testing.T) {
	b := defaultBundle(t)
	q := good(runner.GateAdmission)
	member, outsider := q.Facts.Approvals[0], q.Facts.Approvals[0]
	member.By = author
	outsider.InTeam = no
	q.Facts.Approvals = []runner.Approval{outsider, member}
	got, err := b.Evaluate(t.Context(), q, now)
	if want := []string{"approver-is-author"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("Evaluate(author in team, other outside) = %v, %v, want %v", got, err, want)
	}
}

func TestInputsThatAreNoQuestionAreDenied(t *testing.T) {
	b := defaultBundle(t)
	for name, input := range map[string]string{
		"nothing": "", "an empty object": "{}", "null": "null", "a list": "[]", "a word": `"allow"`, "true": "true",
		"two documents": string(encode(t, good(runner.GateAdmission))) + "{}",
		"half":          string(encode(t, good(runner.GateAdmission))[:300]),
	} {
		got, err := b.EvaluateJSON(t.Context(), []byte(input), now)
		if err == nil && len(got) == 0 {
			t.Errorf("evaluate(%s) = allowed, want denied", name)
		}
	}
}

// A job that was never offered has no facts: one reason, for which the caller
// may wait until the queue has told of the job. What its token says is judged all
// the same, so that the refusal tells what arrived.
func TestAJobThatWasNeverOfferedIsRefusedForWhatItIs(t *testing.T) {
	b := defaultBundle(t)
	base := []string{"job-not-authorized"}
	for name, c := range map[string]struct {
		vary func(*runner.Claims)
		more []string
	}{
		"one of ours":             {func(*runner.Claims) {}, nil},
		"of another repository":   {func(c *runner.Claims) { c.RepositoryID = 7002 }, []string{"claims-repository"}},
		"of another owner":        {func(c *runner.Claims) { c.OwnerID = 9002 }, []string{"claims-repository"}},
		"of another environment":  {func(c *runner.Claims) { c.Environment = "staging" }, []string{"claims-environment"}},
		"of an unlisted workflow": {func(c *runner.Claims) { c.JobWorkflow.Ref = otherRef }, []string{"workflow-not-listed"}},
		"of a moved tag":          {func(c *runner.Claims) { c.JobWorkflow.SHA = headSHA }, []string{"workflow-commit"}},
		"of a branch": {func(c *runner.Claims) { c.JobWorkflow.Ref = "o/r/w.yml@refs/heads/main" },
			[]string{"workflow-not-listed", "workflow-not-tag-pinned"}},
		"without a workflow": {func(c *runner.Claims) { c.JobWorkflow = runner.Workflow{} },
			[]string{"workflow-not-listed", "workflow-not-tag-pinned"}},
	} {
		q := runner.Question{Schema: runner.QuestionSchema, Gate: runner.GateStart, Now: now, Pool: pool(), Claims: claims()}
		c.vary(q.Claims)
		got, err := b.Evaluate(t.Context(), q, now)
		if want := sorted(slices.Concat(base, c.more)...); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: Evaluate = %v, %v, want %v", name, got, err, want)
		}
	}
}

// unused are the parts of a question that the policy does not need: everything
// else, removed or of another type, must be refused.
var unused = []string{
	"pool.organization", "job.job", "job.eventName", "job.messageId", "job.runnerRequestId", "job.implied",
	"facts.serverUrl", "facts.workflowPath", "facts.actor.type", "facts.triggeringActor.type", "facts.headAuthor.type",
	"facts.tagPusher.type", "facts.pullAuthors.0.type",
	"facts.environment.reviewerTeams", "facts.environment.reviewerTeams.0",
	"facts.approvals.0.environment", "facts.approvals.0.source",
	"claims.subject", "claims.event", "claims.workflowRef", "claims.actorId", "claims.tokenId", "claims.token",
	// One of several that are served; the job asks for two.
	"pool.labels.2", "pool.labels.3",
}

func TestEveryPartOfTheQuestionThatIsMissingOrOfAnotherTypeIsRefused(t *testing.T) {
	b := defaultBundle(t)
	for _, gate := range gates {
		for _, path := range paths(document(t, good(gate)), "") {
			for _, value := range []any{gone{}, nil, true, map[string]any{}, []any{}, -1, ""} {
				doc := document(t, good(gate))
				if _, remove := value.(gone); remove && path[len(path)-1] <= '9' {
					continue
				}
				change(t, doc, path, value)
				if equalGood(t, doc, gate) || notYetNeeded(gate, path) || noPulls(doc) {
					continue
				}
				got, err := b.EvaluateJSON(t.Context(), encode(t, doc), now)
				allowed := err == nil && len(got) == 0
				if allowed && !slices.Contains(unused, path) {
					t.Errorf("%s with %s = %v: evaluate = allowed, want denied", gate, path, value)
				}
			}
		}
	}
}

// noPulls says that nobody wrote a pull request, which is as good as any answer.
func noPulls(doc map[string]any) bool {
	facts, ok := doc["facts"].(map[string]any)
	list, isList := facts["pullAuthors"].([]any)
	return ok && isList && len(list) == 0
}

// notYetNeeded are parts that only the start gate looks at.
func notYetNeeded(gate runner.Gate, path string) bool {
	return gate == runner.GateAdmission && slices.Contains(
		[]string{"facts.checkRunId", "pool.maxStartAgeSeconds", "pool.maxTokenAgeSeconds"}, path)
}

func equalGood(t *testing.T, doc map[string]any, gate runner.Gate) bool {
	t.Helper()
	return bytes.Equal(encode(t, doc), encode(t, document(t, good(gate))))
}

func paths(v any, prefix string) []string {
	var out []string
	add := func(name string, child any) {
		path := strings.TrimPrefix(prefix+"."+name, ".")
		out = append(append(out, path), paths(child, path)...)
	}
	switch v := v.(type) {
	case map[string]any:
		for name, child := range v {
			add(name, child)
		}
	case []any:
		for i, child := range v {
			add(fmt.Sprint(i), child)
		}
	}
	return out
}

// The arguments of a negated call are evaluated outside the negation, so a
// violation with one goes missing together with what it looks for.
func TestOnlyHelpersWithoutArgumentsAreNegated(t *testing.T) {
	negated := 0
	for name, source := range sources(t) {
		module, err := ast.ParseModuleWithOpts(name, source, ast.ParserOptions{RegoVersion: ast.RegoV1})
		if err != nil {
			t.Fatal(err)
		}
		ast.WalkExprs(module, func(e *ast.Expr) bool {
			if !e.Negated {
				return false
			}
			negated++
			if term, ok := e.Terms.(*ast.Term); !ok || !isVar(term) {
				t.Errorf("%s: %s: negates more than the name of a helper", e.Location, e)
			}
			return false
		})
	}
	if negated < 40 {
		t.Errorf("found %d negations, want those of every rule", negated)
	}
}

func isVar(term *ast.Term) bool {
	_, ok := term.Value.(ast.Var)
	return ok
}
