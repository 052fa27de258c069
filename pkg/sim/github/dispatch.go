package simgithub

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// Dispatch starts a workflow run. It returns an error for a repository or
// account that does not exist, or a reusable workflow's ref that does not
// resolve: GitHub would not start such a run.
func (s *Server) Dispatch(spec RunSpec) (Run, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	spec.Repository = s.shortName(spec.Repository)
	r := s.state.repos[strings.ToLower(spec.Repository)]
	if r == nil {
		return Run{}, fmt.Errorf("no repository %q", spec.Repository)
	}
	spec.TriggeringActor = cmp.Or(spec.TriggeringActor, spec.Actor)
	spec.HeadAuthor = cmp.Or(spec.HeadAuthor, spec.Actor)
	spec.Event = cmp.Or(spec.Event, "push")
	spec.WorkflowPath = cmp.Or(spec.WorkflowPath, ".github/workflows/deploy.yml")
	spec.Job = cmp.Or(spec.Job, "deploy")
	spec.Conclusion = cmp.Or(spec.Conclusion, "success")
	spec.Labels = slices.Clone(spec.Labels)
	if !isSHA(spec.HeadSHA) {
		return Run{}, fmt.Errorf("head sha %q is not a commit id", spec.HeadSHA)
	}
	actor, triggering, author := s.user(spec.Actor), s.user(spec.TriggeringActor), s.user(spec.HeadAuthor)
	if actor == nil || triggering == nil || author == nil {
		return Run{}, fmt.Errorf("no account %q, %q or %q", spec.Actor, spec.TriggeringActor, spec.HeadAuthor)
	}
	if spec.Tag != "" && r.tags[spec.Tag] != spec.HeadSHA {
		s.pushTag(r, spec.Tag, spec.HeadSHA, actor)
	}
	r.commits[spec.HeadSHA] = author
	r.runs++
	n := &run{
		id: s.state.nextRun, number: r.runs, spec: spec, repo: r, actor: actor, created: s.now(),
	}
	s.state.nextRun++
	if err := s.attempt(n, triggering); err != nil {
		return Run{}, err
	}
	s.state.runs[n.id] = n
	return s.runOf(n), nil
}

func (s *Server) user(login string) *user { return s.state.users[strings.ToLower(login)] }

// attempt adds an attempt with its job to the run. Re-running all jobs
// resolves a reusable workflow's ref again (docs: reuse workflows, behaviour
// when re-running jobs).
func (s *Server) attempt(r *run, by *user) error {
	sha := r.spec.HeadSHA
	if r.spec.JobWorkflowRef != "" {
		w, ok := parseWorkflow(r.spec.JobWorkflowRef)
		if !ok {
			return fmt.Errorf("%q is not owner/repo/path@ref", r.spec.JobWorkflowRef)
		}
		if sha, ok = s.resolve(w); !ok {
			return fmt.Errorf("the workflow %s does not resolve", r.spec.JobWorkflowRef)
		}
	}
	now := s.now()
	a := &attempt{n: int64(len(r.attempts)) + 1, triggering: by, started: now, workflowSHA: sha}
	j := &job{run: r, attempt: a, reqID: s.state.nextReq, planID: newGUID(), steps: map[int]stepState{}, own: ownSteps(r.spec)}
	s.state.nextReq++
	j.JobState = JobState{
		JobID: newGUID(), CheckRunID: s.state.nextCheck, RunID: r.id, RunAttempt: a.n,
		Repository: s.fullName(r.repo), Name: r.spec.Job, Environment: r.spec.Environment,
		Labels: r.spec.Labels, Status: "queued", CreatedAt: now, QueuedAt: now,
	}
	s.state.nextCheck++
	a.job = j
	if r.spec.Environment != "" {
		s.enterEnvironment(j)
	}
	r.attempts = append(r.attempts, a)
	s.state.jobs = append(s.state.jobs, j)
	s.changed()
	return nil
}

// enterEnvironment applies the protection of the job's environment. GitHub
// creates an environment that a job names and that does not exist, without
// protection (docs: managing environments for deployment).
func (s *Server) enterEnvironment(j *job) {
	r := j.run.repo
	j.env = r.envs[strings.ToLower(j.Environment)]
	if j.env == nil {
		j.env = s.setEnvironment(r, Environment{Name: j.Environment, CanAdminsBypass: true})
	}
	if !j.env.admits(j.run.ref()) {
		j.Status, j.Conclusion, j.CompletedAt = "completed", "failure", j.CreatedAt
		return
	}
	j.waitUntil = j.CreatedAt.Add(j.env.WaitTimer)
	j.approved, j.rules = !j.env.hasReviewers(), map[string]*protection{}
	for _, slug := range j.env.ProtectionApps {
		j.rules[slug] = &protection{}
	}
	if !j.approved || j.env.WaitTimer > 0 || len(j.rules) > 0 {
		j.Status, j.QueuedAt = "waiting", time.Time{}
	}
	if !j.approved {
		s.emit(happening{event: "deployment_review", action: "requested", jobs: []*job{j}})
	}
	if j.rules[s.cfg.AppSlug] != nil {
		s.emit(happening{event: "deployment_protection_rule", action: "requested", jobs: []*job{j}})
	}
}

func (e *environment) hasReviewers() bool { return len(e.ReviewerTeams)+len(e.ReviewerUsers) > 0 }

func (e *environment) admits(ref string) bool {
	if len(e.Policies) == 0 {
		return true
	}
	kind, name := "branch", strings.TrimPrefix(ref, "refs/heads/")
	if tag, ok := strings.CutPrefix(ref, "refs/tags/"); ok {
		kind, name = "tag", tag
	}
	return slices.ContainsFunc(e.Policies, func(p BranchPolicy) bool {
		ok, err := path.Match(p.Name, name)
		return err == nil && ok && cmp.Or(p.Type, "branch") == kind
	})
}

func (s *Server) runOf(r *run) Run {
	a := r.latest()
	return Run{
		ID: r.id, Number: r.number, Attempt: a.n, Repository: s.fullName(r.repo), RepositoryID: r.repo.id,
		JobID: a.job.JobID, CheckRunID: a.job.CheckRunID,
	}
}

// waiting is the job of the run's latest attempt if it waits for a review.
func (s *Server) waiting(runID int64) (*job, error) {
	s.settle()
	r := s.state.runs[runID]
	if r == nil {
		return nil, fmt.Errorf("no run %d", runID)
	}
	j := r.latest().job
	if j.Status != "waiting" || j.approved {
		return nil, fmt.Errorf("run %d has no deployment that waits for a review", runID)
	}
	return j, nil
}

// Approve reviews the run's waiting deployment. As on GitHub one reviewer is
// enough, a reviewer is a member of a reviewing team or named, and with
// self-review prevention the account that initiated this attempt (and only
// that one) may not approve it.
// https://docs.github.com/en/actions/reference/workflows-and-actions/deployments-and-environments
func (s *Server) Approve(runID int64, login string) error {
	return s.review(runID, login, "approved")
}

// Reject refuses the run's waiting deployment under the rules of
// [Server.Approve]; the job fails.
func (s *Server) Reject(runID int64, login string) error {
	return s.review(runID, login, "rejected")
}

func (s *Server) review(runID int64, login, verdict string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	j, err := s.waiting(runID)
	if err != nil {
		return err
	}
	return s.decideReview(j.run, login, verdict, "")
}

// decideReview is a review by whatever way it came.
func (s *Server) decideReview(r *run, login, verdict, comment string) error {
	j, err := s.waiting(r.id)
	if err != nil {
		return err
	}
	u := s.user(login)
	if u == nil || !s.isReviewer(j.env, u) {
		return fmt.Errorf("%s is not a reviewer of %s", login, j.env.Name)
	}
	if j.env.PreventSelfReview && u == j.attempt.triggering {
		return fmt.Errorf("%s initiated this deployment and may not review it", login)
	}
	j.run.approvals = append(j.run.approvals, approval{j.env, verdict, u, s.now(), comment})
	s.emit(happening{event: "deployment_review", action: verdict, jobs: []*job{j}, by: u, comment: comment})
	if j.approved = verdict == "approved"; !j.approved {
		s.complete(j, "failure", s.now())
	}
	s.changed()
	return nil
}

func (s *Server) isReviewer(e *environment, u *user) bool {
	if slices.ContainsFunc(e.ReviewerUsers, func(l string) bool { return strings.EqualFold(l, u.login) }) {
		return true
	}
	return slices.ContainsFunc(e.ReviewerTeams, func(slug string) bool {
		t := s.state.teams[slug]
		return t != nil && slices.Contains(t.members, u)
	})
}

// Bypass is an administrator's "Start all waiting jobs": reviews and the wait
// timer are skipped and no approval is recorded. It returns an error if the
// environment does not let administrators bypass it.
func (s *Server) Bypass(runID int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	r := s.state.runs[runID]
	if r == nil {
		return fmt.Errorf("no run %d", runID)
	}
	j := r.latest().job
	if j.Status != "waiting" {
		return fmt.Errorf("run %d has no waiting job", runID)
	}
	if !j.env.CanAdminsBypass {
		return errors.New("the environment does not allow administrators to bypass its rules")
	}
	j.approved, j.waitUntil = true, s.now()
	clear(j.rules)
	s.changed()
	return nil
}

// Cancel asks to cancel a run, as POST …/cancel does: a job that no runner
// has ends at once, a running one when its runner says so or 5 minutes later.
// It returns an error if the run is unknown or over.
func (s *Server) Cancel(runID int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cancel(runID, false)
}

// ForceCancel ends a run as POST …/force-cancel does, asking no runner.
func (s *Server) ForceCancel(runID int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cancel(runID, true)
}

func (s *Server) cancel(runID int64, force bool) error {
	s.settle()
	r := s.state.runs[runID]
	if r == nil {
		return fmt.Errorf("no run %d", runID)
	}
	j := r.latest().job
	if j.Status == "completed" {
		return fmt.Errorf("cannot cancel run %d: it is completed", runID)
	}
	now := s.now()
	if j.CancelledAt.IsZero() {
		j.CancelledAt = now
	}
	switch {
	case r.spec.Always && !force: // its condition holds all the same
	case j.Status != "in_progress":
		s.complete(j, "cancelled", now)
	case force:
		j.tellCancel = true
		s.complete(j, "cancelled", now)
	default:
		j.tellCancel = true
	}
	s.changed()
	return nil
}

// Rerun re-runs all jobs of a completed run as a new attempt, triggered by
// the account. Its jobs have new ids; approvals of earlier attempts stay in
// the run's list and do not count again.
func (s *Server) Rerun(runID int64, by string) (Run, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	r, u := s.state.runs[runID], s.user(by)
	if r == nil || u == nil {
		return Run{}, fmt.Errorf("no run %d or account %q", runID, by)
	}
	if r.latest().job.Status != "completed" {
		return Run{}, fmt.Errorf("run %d is not completed", runID)
	}
	if err := s.attempt(r, u); err != nil {
		return Run{}, err
	}
	return s.runOf(r), nil
}

// FinishJob makes the steps of a job in progress end now with this conclusion
// (success, failure, cancelled or skipped): its runner is told on its next poll
// and reports the completion. It returns an error if no [Runner] runs the job:
// another runner ends its steps itself.
func (s *Server) FinishJob(jobID, conclusion string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	j := s.state.job(jobID)
	if j == nil || j.Status != "in_progress" {
		return fmt.Errorf("job %s is not in progress", jobID)
	}
	if resultOf(conclusion) == "" {
		return fmt.Errorf("%q is not a conclusion", conclusion)
	}
	if a := s.state.agents[j.RunnerID]; a == nil || !a.standIn {
		return fmt.Errorf("job %s runs on %s, which is no stand-in: cancel its run, or give a run a duration", jobID, j.RunnerName)
	}
	j.tellFinish = conclusion
	s.changed()
	return nil
}

// Job returns a job by its GUID.
func (s *Server) Job(jobID string) (JobState, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	if j := s.state.job(jobID); j != nil {
		return j.snapshot(), true
	}
	return JobState{}, false
}

// Jobs returns all jobs, oldest first.
func (s *Server) Jobs() []JobState {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	out := make([]JobState, 0, len(s.state.jobs))
	for _, j := range s.state.jobs {
		out = append(out, j.snapshot())
	}
	return out
}

func (j *job) snapshot() JobState {
	c := j.JobState
	c.Labels = slices.Clone(c.Labels)
	return c
}

// Runners returns the registered runners, oldest first.
func (s *Server) Runners() []RunnerState {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	out := make([]RunnerState, 0, len(s.state.agents))
	for _, id := range sortedKeys(s.state.agents) {
		a := s.state.agents[id]
		out = append(out, RunnerState{
			ID: a.id, ScaleSetID: a.setID, GroupID: a.groupID, Name: a.name, Used: a.used,
			Online: a.online(s.now()), Busy: a.busy, JobID: a.jobID, CreatedAt: a.created,
		})
	}
	return out
}
