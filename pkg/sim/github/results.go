package simgithub

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"time"
)

// The results service, which takes the state of steps and the logs. The names
// below the base are those of actions/runner ResultsHttpClient.cs, Constants.
const (
	stepsName    = "twirp/github.actions.results.api.v1.WorkflowStepUpdateService/WorkflowStepsUpdate"
	stepsPath    = brokerPath + "/" + stepsName
	receiverPath = brokerPath + "/twirp/results.services.receiver.Receiver/"
	blobPath     = brokerPath + "/blob/"
)

// resultsURL is the base against which a runner resolves the names.
func (s *Server) resultsURL() string { return s.cfg.BaseURL + brokerPath + "/" }

func (s *Server) routeResults() {
	s.mux.HandleFunc("POST "+stepsPath, s.allow(s.withJob(s.updateSteps), kindJob))
	for method, field := range map[string]string{
		"GetStepSummarySignedBlobURL": "summary_url", "GetStepLogsSignedBlobURL": "logs_url",
		"GetJobLogsSignedBlobURL": "logs_url", "GetJobDiagLogsSignedBlobURL": "diag_logs_url",
	} {
		s.mux.HandleFunc("POST "+receiverPath+method, s.allow(s.blobURL(field), kindJob))
	}
	for _, method := range []string{"CreateStepSummaryMetadata", "CreateStepLogsMetadata", "CreateJobLogsMetadata"} {
		s.mux.HandleFunc("POST "+receiverPath+method, s.allow(func(*http.Request) answer { return ok(map[string]any{"ok": true}) }, kindJob))
	}
	s.mux.HandleFunc("PUT "+blobPath+"{id}", s.putBlob)
}

// blobURL hands out an address for a log, as Azure's blob storage does: it is
// signed, carries no other credential and takes the pieces of an append blob.
func (s *Server) blobURL(field string) func(*http.Request) answer {
	return func(*http.Request) answer {
		id := newGUID()
		return ok(map[string]any{
			field: s.cfg.BaseURL + blobPath + id + "?sig=" + s.blobSignature(id), "blob_storage_type": "BLOB_STORAGE_TYPE_AZURE",
			"soft_size_limit": "1048576", // an int64 of protobuf is text in JSON
		})
	}
}

func (s *Server) blobSignature(id string) string {
	mac := hmac.New(sha256.New, s.secret)
	mac.Write([]byte("blob " + id))
	return hex.EncodeToString(mac.Sum(nil))
}

// putBlob takes a log and forgets it: logs are not simulated, but a runner that
// could not deliver them would fail its steps.
func (s *Server) putBlob(w http.ResponseWriter, r *http.Request) {
	if !hmac.Equal([]byte(r.URL.Query().Get("sig")), []byte(s.blobSignature(r.PathValue("id")))) {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	_, _ = io.Copy(io.Discard, r.Body) // a client that goes away loses a log
	w.WriteHeader(http.StatusCreated)
}

// stepUpdate is a step in actions/runner Contracts.cs, Step. Status and
// conclusion are numbers there.
type stepUpdate struct {
	ExternalID  string `json:"external_id"`
	Number      int    `json:"number"`
	Name        string `json:"name"`
	Status      int    `json:"status"`
	StartedAt   string `json:"started_at,omitempty"`
	CompletedAt string `json:"completed_at,omitempty"`
	Conclusion  int    `json:"conclusion"`
}

// actions/runner Contracts.cs, Status and Conclusion.
const (
	updateInProgress = 3
	updatePending    = 5
	updateCompleted  = 6

	updateSuccess   = 2
	updateFailure   = 3
	updateCancelled = 4
	updateSkipped   = 7
)

// stepState is a step as the runner last reported it, in the words of the REST
// API: a step that was skipped is completed, and one that is not completed has
// no conclusion.
type stepState struct {
	number             int
	external           string
	name               string
	status             string // queued, in_progress, completed
	conclusion         string // success, failure, cancelled, skipped or empty
	started, completed time.Time
}

func (u stepUpdate) state() stepState {
	st := stepState{number: u.Number, external: u.ExternalID, name: u.Name, started: reported(u.StartedAt), completed: reported(u.CompletedAt)}
	switch u.Status {
	case updateCompleted:
		st.status = "completed"
		st.conclusion = map[int]string{
			updateSuccess: "success", updateFailure: "failure", updateCancelled: "cancelled", updateSkipped: "skipped",
		}[u.Conclusion]
	case updateInProgress:
		st.status = "in_progress"
	default: // updatePending, and unknown
		st.status = "queued"
	}
	return st
}

// reported is a time as a runner writes it, zero for none.
func reported(text string) time.Time {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}
	}
	return t
}

// stepResult is actions/runner StepResult.cs, which comes with the completion of
// a job and spells states and results as TimelineRecordState.cs and TaskResult.cs.
type stepResult struct {
	ExternalID  string `json:"external_id"`
	Number      int    `json:"number"`
	Name        string `json:"name"`
	Status      string `json:"status"`
	Conclusion  string `json:"conclusion"`
	StartedAt   string `json:"started_at,omitempty"`
	CompletedAt string `json:"completed_at,omitempty"`
}

func (r stepResult) state() stepState {
	st := stepState{
		number: r.Number, external: r.ExternalID, name: r.Name, status: "queued",
		started: reported(r.StartedAt), completed: reported(r.CompletedAt),
	}
	switch strings.ToLower(r.Status) {
	case "completed":
		st.status = "completed"
		st.conclusion, _ = concluded(r.Conclusion)
	case "inprogress":
		st.status = "in_progress"
	}
	return st
}

func (s *Server) updateSteps(r *http.Request, j *job) answer {
	var b struct {
		Job   string       `json:"workflow_job_run_backend_id"`
		Plan  string       `json:"workflow_run_backend_id"`
		Steps []stepUpdate `json:"steps"`
	}
	if err := decode(r, &b); err != nil {
		return runError(http.StatusBadRequest, "the steps: "+err.Error())
	}
	if !(jobRef{b.Plan, b.Job}).names(j) {
		return runError(http.StatusBadRequest, "the token is for another job")
	}
	for _, u := range b.Steps {
		s.report(j, u.state())
	}
	return ok(map[string]any{"ok": true})
}

// hookStep is what a runner calls the step that runs its job-started hook:
// actions/runner Constants.cs, Hooks.JobStartedStepName.
const hookStep = "Set up runner"

// report keeps what a runner says of a step. Steps without a number are not
// listed anywhere. The workflow's own steps are those of the job message: a
// runner reports them under their ids (actions/runner JobExtension.cs,
// CreateChild with actionStep.Action.Id).
func (s *Server) report(j *job, st stepState) {
	if st.number <= 0 {
		return
	}
	j.steps[st.number] = st
	if j.owns(st) && (st.status == "in_progress" || st.status == "completed" && st.conclusion != "skipped") && !j.StepsRan {
		j.StepsRan, j.StepsStartedAt = true, s.now()
	}
	j.HookSucceeded = j.HookSucceeded || st.name == hookStep && st.conclusion == "success"
}

func (j *job) owns(st stepState) bool {
	for _, own := range j.own {
		if strings.EqualFold(own.ID, st.external) || st.external == "" && own.Name == st.name {
			return true
		}
	}
	return false
}
