package supervisor

import (
	"testing"

	"github.com/runnerward/runnerward/pkg/runner"
)

// TestJobsOfOneRunAreNotGuessed: two jobs of one run were authorized, and
// GitHub could not say which check run each is.
func TestJobsOfOneRunAreNotGuessed(t *testing.T) {
	job := func(id string, checkRun int64) *runner.Job {
		j := &runner.Job{Authorized: &runner.Of[runner.Authorized]{}}
		j.Offered.Event = runner.Offered{Job: runner.JobID(id), Repository: "org/app", RunID: 7, WorkflowRef: "org/ci/d.yml@refs/tags/v1"}
		j.Authorized.Event.Facts = runner.Facts{RunAttempt: 1, CheckRunID: checkRun}
		return j
	}
	claims := runner.Claims{Repository: "org/app", RunID: 7, RunAttempt: 1, CheckRunID: 12, JobWorkflow: runner.Workflow{Ref: "org/ci/d.yml@refs/tags/v1"}}

	one, two := job("one", 0), job("two", 0)
	if got := preferred([]*runner.Job{one, two}); got != nil {
		t.Errorf("preferred(two alike) = %s, want none", got.Offered.Event.Job)
	}
	two.Reported = &runner.Of[runner.Reported]{}
	if got := preferred([]*runner.Job{one, two}); got == nil || got.Offered.Event.Job != "two" {
		t.Errorf("preferred(one of them reported here) = %v, want that one", got)
	}
	if got := preferred([]*runner.Job{job("other", 0), job("named", 12)}); got == nil || got.Offered.Event.Job != "named" {
		t.Errorf("preferred(one of this check run) = %v, want that one", got)
	}
	if got := preferred(nil); got != nil {
		t.Errorf("preferred(none) = %v, want none", got)
	}
	for name, change := range map[string]func(*runner.Job){
		"another check run":  func(j *runner.Job) { j.Authorized.Event.Facts.CheckRunID = 11 },
		"another attempt":    func(j *runner.Job) { j.Authorized.Event.Facts.RunAttempt = 2 },
		"another workflow":   func(j *runner.Job) { j.Offered.Event.WorkflowRef = "org/ci/d.yml@refs/heads/main" },
		"another run":        func(j *runner.Job) { j.Offered.Event.RunID = 8 },
		"started elsewhere":  func(j *runner.Job) { j.Runner = "r9" },
		"over":               func(j *runner.Job) { j.Concluded = &runner.Of[runner.Concluded]{} },
		"another repository": func(j *runner.Job) { j.Offered.Event.Repository = "org/other" },
	} {
		j := job("x", 12)
		if !fitsClaims(j, claims) {
			t.Fatal("the job that the token is of does not fit")
		}
		if change(j); fitsClaims(j, claims) {
			t.Errorf("fitsClaims(%s) = true, want false", name)
		}
	}
}
