package policy_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/runnerward/runnerward/pkg/runner"
)

// asked is what is known when GitHub asks before reviewers have decided: a good
// run, no job of the queue, no approval.
func asked() runner.Question {
	q := good(runner.GateDeployment)
	q.Job, q.Facts.Approvals, q.Facts.CheckRunID = nil, []runner.Approval{}, 0
	return q
}

func TestADeploymentThatWaitsForItsReviewersIsAllowed(t *testing.T) {
	got, err := defaultBundle(t).Evaluate(t.Context(), asked(), now)
	if err != nil || len(got) != 0 {
		t.Errorf("Evaluate(deployment) = %v, %v, want nothing against it", got, err)
	}
	for _, gate := range gates {
		q := asked()
		q.Gate = gate
		if got, err := defaultBundle(t).Evaluate(t.Context(), q, now); err == nil && len(got) == 0 {
			t.Errorf("Evaluate(%s) without job and approval = allowed, want denied", gate)
		}
	}
}

// Every code that is about the run and its surroundings is given before the
// queue already; those about reviewers, job and token are not.
func TestADeploymentIsHeldToAllThatIsKnownOfItsRun(t *testing.T) {
	b := defaultBundle(t)
	later := []string{"job-unknown", "job-differs", "labels-not-served", "workflow-differs"}
	checked := 0
	for code, cases := range violations {
		if startOnly(code) || slices.Contains(later, code) || strings.HasPrefix(code, "approv") {
			continue
		}
		for _, edits := range cases {
			doc := document(t, asked())
			for _, e := range edits {
				if root, _, _ := strings.Cut(e.path, "."); root != "claims" && root != "job" {
					change(t, doc, e.path, e.value)
				}
			}
			got, err := b.EvaluateJSON(t.Context(), encode(t, doc), now)
			if err != nil || !slices.Contains(got, code) {
				t.Errorf("%s: evaluate with %v = %v, %v, want it", code, edits, got, err)
			}
			checked++
		}
	}
	if checked < 60 {
		t.Errorf("%d cases were checked, want those of every rule", checked)
	}
}

func TestNothingIsKnownOfADeployment(t *testing.T) {
	q := asked()
	q.Facts = nil
	if got, err := defaultBundle(t).Evaluate(t.Context(), q, now); err == nil && !slices.Contains(got, "facts-unknown") {
		t.Errorf("Evaluate(deployment without facts) = %v, %v, want facts-unknown", got, err)
	}
}
