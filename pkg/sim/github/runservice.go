package simgithub

import (
	"net/http"
	"strconv"
	"time"
)

const (
	runPath   = brokerPath + "/run"
	stepsPath = brokerPath + "/twirp/github.actions.results.api.v1.WorkflowStepUpdateService/WorkflowStepsUpdate"
)

// The steps of every simulated job, as the runner numbers them. The hook is
// the first step after the setup and always() holds for the last of the
// workflow's own (actions/runner JobExtension.cs).
const (
	stepSetUpJob = iota + 1
	stepHook
	stepRun
	stepAlways
)

type step struct {
	Number     int    `json:"number"`
	Name       string `json:"name"`
	Status     string `json:"status"`
	Conclusion string `json:"conclusion,omitempty"`
}

// jobRequest is the part of actions/runner's AgentJobRequestMessage that the
// stand-in runner needs.
type jobRequest struct {
	MessageType string                `json:"messageType"`
	JobID       string                `json:"jobId"`
	JobName     string                `json:"jobName"`
	DisplayName string                `json:"jobDisplayName"`
	Plan        planRef               `json:"plan"`
	Resources   resources             `json:"resources"`
	ContextData map[string]contextMap `json:"contextData"`
	// Simulated says what a workflow file would: it is not of GitHub.
	Simulated simulated `json:"x-simulated"`
}

type planRef struct {
	PlanID string `json:"planId"`
}

type resources struct {
	Endpoints []endpoint `json:"endpoints"`
}

type endpoint struct {
	Name          string            `json:"name"`
	URL           string            `json:"url"`
	Data          map[string]string `json:"data"`
	Authorization authorization     `json:"authorization"`
}

type authorization struct {
	Scheme     string            `json:"scheme"`
	Parameters map[string]string `json:"parameters"`
}

// contextMap is a dictionary as actions/runner serializes context data.
type contextMap struct {
	Type  int           `json:"t"`
	Items []contextItem `json:"d"`
}

type contextItem struct {
	Key   string `json:"k"`
	Value string `json:"v"`
}

type simulated struct {
	DurationMillis int64  `json:"durationMillis"`
	Conclusion     string `json:"conclusion"`
}

// acquireJob starts the job on the runner that it was offered to.
func (s *Server) acquireJob(r *http.Request, a *agent) answer {
	var b struct {
		JobMessageID string `json:"jobMessageId"`
	}
	if err := decode(r, &b); err != nil {
		return badRequest(err.Error())
	}
	j := s.state.job(b.JobMessageID)
	switch {
	case j == nil || j.Status == "completed":
		return vssError(http.StatusNotFound, "TaskOrchestrationJobNotFoundException", "Job not found: "+b.JobMessageID)
	case j.Status != "queued" || j.offered != a.id || a.session == "":
		return vssError(http.StatusConflict, "TaskOrchestrationJobAlreadyAcquiredException", "Job message already acquired")
	}
	now := time.Now()
	j.offered, j.delivered = 0, false
	j.Status, j.StartedAt, j.LeaseUntil = "in_progress", now, now.Add(s.cfg.LeaseTTL)
	j.RunnerID, j.RunnerName, j.groupID = a.id, a.name, a.groupID
	a.busy, a.hadJob = true, true
	s.announce(j, "JobStarted", "")
	return ok(s.request(j))
}

func (s *Server) request(j *job) jobRequest {
	data := map[string]string{"ServerName": "SystemVssConnection"}
	if j.run.spec.IDToken {
		data["GenerateIdTokenUrl"] = s.Issuer() + "/idtoken/" + j.planID + "/" + j.JobID + "?api-version=2.0"
	}
	token := s.issue(credential{kind: kindJob, job: j.JobID}, jobTokenTTL)
	return jobRequest{
		MessageType: "RunnerJobRequest", JobID: j.JobID, JobName: j.Name, DisplayName: j.Name,
		Plan: planRef{j.planID},
		Resources: resources{[]endpoint{{
			Name: "SystemVssConnection", URL: s.cfg.BaseURL + runPath, Data: data,
			Authorization: authorization{"OAuth", map[string]string{"AccessToken": token}},
		}}},
		ContextData: map[string]contextMap{"github": s.githubContext(j)},
		Simulated:   simulated{durationMillis(j.run.spec.Duration), j.run.spec.Conclusion},
	}
}

// durationMillis keeps "until told" negative however small its value is.
func durationMillis(d time.Duration) int64 {
	if d < 0 {
		return -1
	}
	return d.Milliseconds()
}

// githubContext is what becomes the GITHUB_ variables of a hook; the job's
// environment, its workflow and its numeric id are not among them
// (actions/runner GitHubContext.cs).
func (s *Server) githubContext(j *job) contextMap {
	r := j.run
	id := func(n int64) string { return strconv.FormatInt(n, 10) }
	kind, name := "branch", "main"
	if r.spec.Tag != "" {
		kind, name = "tag", r.spec.Tag
	}
	api := s.cfg.BaseURL + "/api/v3"
	if s.cfg.BaseURL == "https://github.com" {
		api = "https://api.github.com"
	}
	return contextMap{2, []contextItem{
		{"actor", r.actor.login}, {"actor_id", id(r.actor.id)}, {"api_url", api},
		{"event_name", r.spec.Event}, {"job", r.spec.Job}, {"ref", r.ref()}, {"ref_name", name},
		{"ref_protected", "false"}, {"ref_type", kind}, {"repository", s.fullName(r.repo)},
		{"repository_id", id(r.repo.id)}, {"repository_owner", s.cfg.Org},
		{"repository_owner_id", id(s.cfg.OrgID)}, {"run_attempt", id(j.RunAttempt)}, {"run_id", id(r.id)},
		{"run_number", id(r.number)}, {"server_url", s.cfg.BaseURL}, {"sha", r.spec.HeadSHA},
		{"triggering_actor", j.attempt.triggering.login}, {"workflow", r.spec.WorkflowPath},
		{"workflow_ref", s.workflowRef(r)}, {"workflow_sha", r.spec.HeadSHA},
	}}
}

// withJob finds the job of a job token, while it runs.
func (s *Server) withJob(h func(*http.Request, *job) answer) func(*http.Request) answer {
	return func(r *http.Request) answer {
		j := s.state.job(callerOf(r).cred.job)
		if j == nil || j.Status != "in_progress" {
			return vssError(http.StatusNotFound, "TaskOrchestrationJobNotFoundException", "the job is not in progress")
		}
		return h(r, j)
	}
}

type jobRef struct {
	PlanID     string `json:"planId"`
	JobID      string `json:"jobId"`
	Conclusion string `json:"conclusion,omitempty"`
}

func (b jobRef) names(j *job) bool { return b.PlanID == j.planID && b.JobID == j.JobID }

func (s *Server) renewJob(r *http.Request, j *job) answer {
	var b jobRef
	if decode(r, &b) != nil || !b.names(j) {
		return badRequest("the token is for another job")
	}
	j.LeaseUntil = time.Now().Add(s.cfg.LeaseTTL)
	return ok(map[string]any{"lockedUntil": j.LeaseUntil.UTC()})
}

// completeJob ends the job and deregisters its ephemeral runner.
func (s *Server) completeJob(r *http.Request, j *job) answer {
	var b jobRef
	if decode(r, &b) != nil || !b.names(j) {
		return badRequest("the token is for another job")
	}
	conclusion := map[string]string{"succeeded": "success", "failed": "failure", "canceled": "cancelled"}[b.Conclusion]
	if conclusion == "" {
		return badRequest("unknown conclusion")
	}
	s.complete(j, conclusion, time.Now())
	if a := s.state.agents[j.RunnerID]; a != nil {
		s.deregister(a)
	}
	return noContent()
}

func (s *Server) updateSteps(r *http.Request, j *job) answer {
	var b struct {
		Job   string `json:"workflow_job_run_backend_id"`
		Steps []step `json:"steps"`
	}
	if decode(r, &b) != nil || b.Job != j.JobID {
		return badRequest("the token is for another job")
	}
	for _, st := range b.Steps {
		j.steps[st.Number] = st
		if st.Number >= stepRun && st.Status != "skipped" && !j.StepsRan {
			j.StepsRan, j.StepsStartedAt = true, time.Now()
		}
		j.HookSucceeded = j.HookSucceeded || st.Number == stepHook && st.Conclusion == "success"
	}
	return ok(map[string]any{"ok": true})
}
