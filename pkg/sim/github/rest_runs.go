package simgithub

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

func (s *Server) withRun(h func(*http.Request, *run) answer) func(*http.Request, *repo) answer {
	return func(r *http.Request, x *repo) answer {
		id, err := strconv.ParseInt(r.PathValue("run"), 10, 64)
		if n := s.state.runs[id]; err == nil && n != nil && n.repo == x {
			return h(r, n)
		}
		return notFound()
	}
}

func (s *Server) getRun(_ *http.Request, r *run) answer { return ok(s.showRun(r, r.latest())) }

func (s *Server) attemptOf(req *http.Request, r *run) *attempt {
	n, err := strconv.Atoi(req.PathValue("attempt"))
	if err != nil || n < 1 || n > len(r.attempts) {
		return nil
	}
	return r.attempts[n-1]
}

func (s *Server) getAttempt(req *http.Request, r *run) answer {
	if a := s.attemptOf(req, r); a != nil {
		return ok(s.showRun(r, a))
	}
	return notFound()
}

// showRun is the run as of one of its attempts. A tag push shows the tag as
// head_branch, and a referenced workflow the ref as its caller wrote it.
func (s *Server) showRun(r *run, a *attempt) map[string]any {
	j := a.job
	branch := cmp.Or(r.spec.Tag, "main")
	base := s.rest3("/repos/" + s.fullName(r.repo))
	url := fmt.Sprintf("%s/actions/runs/%d", base, r.id)
	updated := j.CreatedAt
	for _, t := range []time.Time{j.StartedAt, j.CompletedAt} {
		if t.After(updated) {
			updated = t
		}
	}
	m := map[string]any{
		"id": r.id, "name": r.spec.WorkflowPath, "node_id": fmt.Sprintf("WFR_%d", r.id), "head_branch": branch,
		"head_sha": r.spec.HeadSHA, "path": r.spec.WorkflowPath, "run_number": r.number, "run_attempt": a.n,
		"event": r.spec.Event, "display_title": branch, "status": j.Status, "conclusion": orNull(j.Conclusion),
		"workflow_id": 1, "check_suite_id": r.id + 1, "check_suite_node_id": fmt.Sprintf("CS_%d", r.id+1), "url": url, "html_url": s.cfg.BaseURL + "/" + s.fullName(r.repo) + "/actions/runs/" + strconv.FormatInt(r.id, 10),
		"pull_requests": []any{}, "created_at": stamp(r.created), "updated_at": stamp(updated),
		"run_started_at": stamp(a.started), "actor": s.showUser(r.actor), "triggering_actor": s.showUser(a.triggering),
		"jobs_url": url + "/jobs", "cancel_url": url + "/cancel", "rerun_url": url + "/rerun",
		"logs_url": url + "/logs", "artifacts_url": url + "/artifacts", "workflow_url": base + "/actions/workflows/1",
		"check_suite_url": fmt.Sprintf("%s/check-suites/%d", base, r.id+1),
		"head_commit":     s.showHead(r),
		"repository":      s.showRepo(r.repo), "head_repository": s.showRepo(r.repo),
		"previous_attempt_url": nil, "referenced_workflows": s.referenced(r, a),
	}
	if a.n > 1 {
		m["previous_attempt_url"] = fmt.Sprintf("%s/attempts/%d", url, a.n-1)
	}
	return m
}

// showHead names the author as the commit does, which need not be an account.
func (s *Server) showHead(r *run) map[string]any {
	name := "Ghost"
	if author := r.repo.commits[r.spec.HeadSHA]; author != nil {
		name = author.login
	}
	signature := map[string]any{"name": name, "email": name + "@users.noreply.github.com"}
	return map[string]any{
		"id": r.spec.HeadSHA, "tree_id": treeOf(r.spec.HeadSHA), "message": "release", "timestamp": stamp(r.created),
		"author": signature, "committer": signature,
	}
}

func orNull(v string) any {
	if v == "" {
		return nil
	}
	return v
}

// referenced is the list of reusable workflows: path keeps the short ref of
// the uses: line and ref is the full one, which a pin by commit does not have.
// https://docs.github.com/en/rest/actions/workflow-runs
func (s *Server) referenced(r *run, a *attempt) []map[string]any {
	w, isReusable := parseWorkflow(r.spec.JobWorkflowRef)
	if !isReusable {
		return []map[string]any{}
	}
	short := strings.TrimPrefix(w.ref, "refs/tags/")
	m := map[string]any{"path": w.owner + "/" + w.repo + "/" + w.path + "@" + short, "sha": a.workflowSHA}
	if !isSHA(w.ref) {
		m["ref"] = w.fullRef()
	}
	return []map[string]any{m}
}

func (s *Server) jobURL(j *job) string {
	return fmt.Sprintf("%s/%s/actions/runs/%d/job/%d", s.cfg.BaseURL, s.fullName(j.run.repo), j.RunID, j.CheckRunID)
}

func (s *Server) showJob(j *job) map[string]any {
	base := s.rest3("/repos/" + s.fullName(j.run.repo))
	m := map[string]any{
		"id": j.CheckRunID, "run_id": j.RunID, "run_attempt": j.RunAttempt, "node_id": fmt.Sprintf("CR_%d", j.CheckRunID),
		"run_url": fmt.Sprintf("%s/actions/runs/%d", base, j.RunID), "head_sha": j.run.spec.HeadSHA,
		"head_branch": cmp.Or(j.run.spec.Tag, "main"), "name": j.Name, "status": j.Status,
		"url":        fmt.Sprintf("%s/actions/jobs/%d", base, j.CheckRunID),
		"html_url":   s.jobURL(j),
		"conclusion": orNull(j.Conclusion), "created_at": stamp(j.CreatedAt), "completed_at": stamp(j.CompletedAt),
		"started_at":    stamp(j.CreatedAt),
		"check_run_url": fmt.Sprintf("%s/check-runs/%d", base, j.CheckRunID), "labels": append([]string{}, j.Labels...),
		"workflow_name": j.run.spec.WorkflowPath, "runner_id": nil, "runner_name": nil, "runner_group_id": nil,
		"runner_group_name": nil, "steps": j.showSteps(),
	}
	if !j.StartedAt.IsZero() {
		m["started_at"] = stamp(j.StartedAt)
		m["runner_id"], m["runner_name"], m["runner_group_id"] = j.RunnerID, j.RunnerName, j.groupID
		if g := s.state.groups[j.groupID]; g != nil {
			m["runner_group_name"] = g.Name
		}
	}
	return m
}

// showSteps has a conclusion for each step, null until it is completed: schema
// job of GitHub's description.
func (j *job) showSteps() []map[string]any {
	out := []map[string]any{}
	for _, n := range slices.Sorted(maps.Keys(j.steps)) {
		st := j.steps[n]
		out = append(out, map[string]any{
			"number": n, "name": st.name, "status": st.status, "conclusion": orNull(st.conclusion),
			"started_at": stamp(st.started), "completed_at": stamp(st.completed),
		})
	}
	return out
}

func (s *Server) getJob(req *http.Request, x *repo) answer {
	for _, j := range s.state.jobs {
		if j.run.repo == x && strconv.FormatInt(j.CheckRunID, 10) == req.PathValue("job") {
			return ok(s.showJob(j))
		}
	}
	return notFound()
}

func (s *Server) listAttemptJobs(req *http.Request, r *run) answer {
	a := s.attemptOf(req, r)
	if a == nil {
		return notFound()
	}
	return page(s, req, "jobs", []map[string]any{s.showJob(a.job)})
}

// listRunJobs shows the latest attempt's jobs, or all with filter=all.
func (s *Server) listRunJobs(req *http.Request, r *run) answer {
	var out []map[string]any
	for _, a := range r.attempts {
		if a == r.latest() || req.URL.Query().Get("filter") == "all" {
			out = append(out, s.showJob(a.job))
		}
	}
	return page(s, req, "jobs", out)
}

// cancelRun answers 202 before anything is cancelled, and 409 for a run that
// is over.
func (s *Server) cancelRun(_ *http.Request, r *run) answer { return s.cancelAnswer(r, false) }

// forceCancelRun ends the run without asking its runner.
func (s *Server) forceCancelRun(_ *http.Request, r *run) answer { return s.cancelAnswer(r, true) }

func (s *Server) cancelAnswer(r *run, force bool) answer {
	if s.cancel(r.id, force) != nil {
		return restError(http.StatusConflict, "Cannot cancel a workflow run that is completed.")
	}
	return answer{status: http.StatusAccepted, body: map[string]any{}}
}
