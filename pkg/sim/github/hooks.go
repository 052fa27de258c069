package simgithub

import "time"

// happening is something that GitHub tells Apps of by webhook.
type happening struct {
	event  string // as in X-GitHub-Event: workflow_run, workflow_job, deployment_review, ...
	action string
	run    *run
	// jobs are those it is about: one of workflow_job and
	// deployment_protection_rule, all that a review decided of deployment_review.
	jobs    []*job
	env     *environment
	by      *user  // who caused it: the approver of a review
	app     string // the slug of the App that is asked, of deployment_protection_rule
	comment string
	at      time.Time
}

// emit tells every App that wants to know. The caller holds the lock.
func (s *Server) emit(h happening) { s.happenings = append(s.happenings, h) }
