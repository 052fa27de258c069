package simgithub

import (
	"net/http"
	"strings"
	"time"
)

const runPath = brokerPath + "/run"

// runURL is the run service's, for clients that resolve names against it.
func (s *Server) runURL() string { return s.cfg.BaseURL + runPath + "/" }

// runFailure is actions/runner RunServiceError.cs. A runner believes it only with
// this source, and tells errors apart by statusCode in the body: 404 is a job
// that is gone, 409 one that another runner has, 422 one that cannot be run
// (RunServiceHttpClient.cs). It tries anything else again.
type runFailure struct {
	Source  string `json:"source"`
	Status  int    `json:"statusCode"`
	Message string `json:"errorMessage"`
}

func runError(status int, msg string) answer {
	return answer{
		status: status, header: map[string]string{"ActivityId": newGUID()},
		body: runFailure{"actions-run-service", status, msg},
	}
}

// acquireJob starts the job on the runner that it was offered to.
func (s *Server) acquireJob(r *http.Request) answer {
	var b struct {
		JobMessageID string `json:"jobMessageId"`
	}
	if err := decode(r, &b); err != nil {
		return runError(http.StatusBadRequest, err.Error())
	}
	a, j := s.state.agents[callerOf(r).cred.agent], s.state.job(b.JobMessageID)
	switch {
	case a == nil || j == nil || j.Status == "completed":
		return runError(http.StatusNotFound, "Job not found: "+b.JobMessageID)
	case j.Status != "queued" || j.offered != a.id || a.session == "":
		return runError(http.StatusConflict, "Job message already acquired")
	}
	now := s.now()
	j.offered, j.delivered = 0, false
	j.Status, j.StartedAt, j.LeaseUntil = "in_progress", now, now.Add(s.cfg.LeaseTTL)
	j.RunnerID, j.RunnerName, j.groupID = a.id, a.name, a.groupID
	a.busy, a.hadJob = true, true
	s.announce(j, "JobStarted", "")
	return ok(s.request(j))
}

// withJob finds the job of a job token, while it runs.
func (s *Server) withJob(h func(*http.Request, *job) answer) func(*http.Request) answer {
	return func(r *http.Request) answer {
		j := s.state.job(callerOf(r).cred.job)
		if j == nil || j.Status != "in_progress" {
			return runError(http.StatusNotFound, "the job is not in progress")
		}
		return h(r, j)
	}
}

// jobRef is what names a job in calls of the run service: actions/runner
// RenewJobRequest.cs and CompleteJobRequest.cs.
type jobRef struct {
	PlanID string `json:"planId"`
	JobID  string `json:"jobId"`
}

func (b jobRef) names(j *job) bool {
	return strings.EqualFold(b.PlanID, j.planID) && strings.EqualFold(b.JobID, j.JobID)
}

// completion is actions/runner CompleteJobRequest.cs as far as it is looked at.
type completion struct {
	jobRef
	Conclusion  string       `json:"conclusion"`
	StepResults []stepResult `json:"stepResults,omitempty"`
}

func (s *Server) renewJob(r *http.Request, j *job) answer {
	var b jobRef
	if decode(r, &b) != nil || !b.names(j) {
		return runError(http.StatusBadRequest, "the token is for another job")
	}
	j.LeaseUntil = s.now().Add(s.cfg.LeaseTTL)
	// The client's lease by the client's clock.
	return ok(map[string]any{"lockedUntil": time.Now().Add(s.cfg.LeaseTTL).UTC()})
}

// concluded is what a runner's result makes of a job or a step in the REST API.
// The results are those of actions/runner TaskResult.cs, which it sends in camel
// case (VssJsonMediaTypeFormatter.cs); a job with issues succeeded all the same
// (ResultsHttpClient.cs, ConvertResultToConclusion). That an abandoned one failed
// is assumed. "cancelled" is the spelling of other implementations.
func concluded(result string) (conclusion string, known bool) {
	switch strings.ToLower(result) {
	case "succeeded", "succeededwithissues":
		return "success", true
	case "failed", "abandoned":
		return "failure", true
	case "canceled", "cancelled":
		return "cancelled", true
	case "skipped":
		return "skipped", true
	}
	return "", false
}

// completeJob ends the job and deregisters its ephemeral runner.
func (s *Server) completeJob(r *http.Request, j *job) answer {
	var b completion
	if decode(r, &b) != nil || !b.names(j) {
		return runError(http.StatusBadRequest, "the token is for another job")
	}
	conclusion, known := concluded(b.Conclusion)
	if !known {
		return runError(http.StatusBadRequest, "unknown conclusion "+b.Conclusion)
	}
	for _, st := range b.StepResults {
		s.report(j, st.state())
	}
	s.complete(j, conclusion, s.now())
	if a := s.state.agents[j.RunnerID]; a != nil {
		a.finished = true
		s.deregister(a)
	}
	return noContent()
}
