package foreignrunner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// Job is what the worker needs of AgentJobRequestMessage.cs.
type Job struct {
	ID, PlanID, Name string
	GitHub           map[string]any // the context of that name
	Variables        map[string]Variable
	Steps            []Step
	Environment      string

	connection      *url.URL // of SystemVssConnection
	token           string
	generateIDToken string
}

// Variable is VariableValue.cs.
type Variable struct {
	Value    string
	IsSecret bool
}

// Step is a line of the workflow that says run: ActionStep.cs.
type Step struct{ ID, Name, Condition, Script string }

// acquired is the message on the wire.
type acquired struct {
	MessageType string
	Plan        *struct {
		PlanID, ScopeIdentifier, PlanType string
		Version                           int
	}
	Timeline       *struct{ ID string }
	JobID          string
	JobDisplayName string
	JobName        string
	RequestID      int64
	LockedUntil    time.Time
	Resources      *struct {
		Endpoints []struct {
			Name, URL     string
			Data          map[string]string
			Authorization *struct {
				Scheme     string
				Parameters map[string]string
			}
		}
	}
	ContextData map[string]json.RawMessage
	Workspace   *struct{ Clean string }
	Mask        []struct{ Type, Value string }
	Variables   map[string]Variable
	Steps       []struct {
		Type                                               string
		ID, Name, DisplayNameToken, ContextName, Condition string
		Enabled                                            bool
		Reference                                          struct{ Type string }
		Inputs                                             json.RawMessage
	}
	FileTable          []string
	ActionsEnvironment *struct{ Name string }
}

// Acquire is RunServiceHttpClient.GetJobMessageAsync.
func (r *Runner) Acquire(ctx context.Context, o *Offer) (*Job, error) {
	status, body, err := r.post(ctx, o.RunServiceURL, "acquirejob", r.token, map[string]string{
		"jobMessageId": o.RunnerRequestID, "runnerOS": "Linux", "billingOwnerId": o.BillingOwnerID,
	})
	if err != nil {
		return nil, fmt.Errorf("acquire the job: %w", err)
	}
	if status > 299 {
		return nil, runServiceError("acquire the job", status, body)
	}
	var m acquired
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, fmt.Errorf("read the job: %w", err)
	}
	j, err := m.job()
	if err != nil {
		return nil, fmt.Errorf("read the job: %w", err)
	}
	return j, nil
}

// runServiceError is what RunServiceHttpClient.cs makes of an error's body: it
// goes by the code that is in it.
func runServiceError(doing string, status int, body []byte) error {
	var e struct {
		Source       string
		StatusCode   int
		ErrorMessage string
	}
	if json.Unmarshal(body, &e) == nil && e.Source == "actions-run-service" {
		switch e.StatusCode {
		case http.StatusNotFound:
			return ErrJobNotFound
		case http.StatusConflict:
			return ErrAlreadyAcquired
		}
	}
	return fmt.Errorf("%s: status %d: %s", doing, status, body)
}

// job checks what JobRunner.cs, ExecutionContext.cs and JobExtension.cs check.
func (m *acquired) job() (*Job, error) {
	switch {
	case m.MessageType != "RunnerJobRequest":
		return nil, fmt.Errorf("message type %q leads to the older service", m.MessageType)
	case m.Plan == nil || m.Timeline == nil || m.Resources == nil || m.Variables == nil || m.Steps == nil || m.Workspace == nil:
		return nil, errors.New("a part is missing")
	case !isGUID(m.Plan.PlanID) || !isGUID(m.Plan.ScopeIdentifier) || !isGUID(m.Timeline.ID) || !isGUID(m.JobID):
		return nil, errors.New("an id is no GUID")
	case m.Plan.Version < 8 || m.JobDisplayName == "" || m.JobName == "" || m.LockedUntil.IsZero() || len(m.FileTable) == 0:
		return nil, errors.New("plan, names, lease or file table")
	}
	j := &Job{ID: m.JobID, PlanID: m.Plan.PlanID, Name: m.JobDisplayName, Variables: m.Variables}
	if m.ActionsEnvironment != nil {
		j.Environment = m.ActionsEnvironment.Name
	}
	if err := j.connect(m); err != nil {
		return nil, err
	}
	github, err := contextData(m.ContextData["github"])
	if err != nil {
		return nil, fmt.Errorf("the context github: %w", err)
	}
	var isMap bool
	if j.GitHub, isMap = github.(map[string]any); !isMap || j.GitHub["repository"] == "" {
		return nil, fmt.Errorf("the context github is %v", github)
	}
	for name, raw := range m.ContextData {
		if _, err := contextData(raw); err != nil {
			return nil, fmt.Errorf("the context %s: %w", name, err)
		}
	}
	for _, hint := range m.Mask {
		if _, err := regexp.Compile(hint.Value); err != nil || hint.Type != "regex" {
			return nil, fmt.Errorf("mask %s: %w", hint.Type, err)
		}
	}
	return j, j.steps(m)
}

// connect finds the one system connection.
func (j *Job) connect(m *acquired) error {
	for _, e := range m.Resources.Endpoints {
		if !strings.EqualFold(e.Name, "SystemVssConnection") {
			continue
		}
		if j.connection != nil || e.Authorization == nil || e.Authorization.Scheme != "OAuth" {
			return errors.New("there is not one system connection with OAuth")
		}
		u, err := url.Parse(e.URL)
		if err != nil || !u.IsAbs() {
			return fmt.Errorf("the system connection's URL %q: %w", e.URL, err)
		}
		j.connection, j.token, j.generateIDToken = u, e.Authorization.Parameters["AccessToken"], e.Data["GenerateIdTokenUrl"]
	}
	if j.connection == nil || strings.Count(j.token, ".") != 2 { // JobDispatcher.cs reads its claims
		return errors.New("there is no system connection with an access token")
	}
	return nil
}

func (j *Job) steps(m *acquired) error {
	for _, s := range m.Steps {
		inputs, err := mapping(s.Inputs)
		if err != nil || !strings.EqualFold(s.Type, "action") || !strings.EqualFold(s.Reference.Type, "script") ||
			inputs["script"] == "" || !isGUID(s.ID) || s.DisplayNameToken == "" || s.Condition == "" || !s.Enabled {
			return fmt.Errorf("step %+v: %w", s, err)
		}
		j.Steps = append(j.Steps, Step{s.ID, s.DisplayNameToken, s.Condition, inputs["script"]})
	}
	return nil
}

// contextData is PipelineContextDataJsonConverter.cs.
func contextData(raw json.RawMessage) (any, error) {
	var v any
	if len(raw) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil, err
	}
	if m, isMap := v.(map[string]any); isMap {
		return compound(m)
	}
	return v, nil
}

// compound is a context value that is no scalar.
func compound(m map[string]any) (any, error) {
	switch m["t"] {
	case 1.0:
		return m["a"], nil
	case 2.0, 5.0:
		out := map[string]any{}
		items, _ := m["d"].([]any)
		for _, item := range items {
			pair, isMap := item.(map[string]any)
			key, isText := pair["k"].(string)
			if !isMap || !isText {
				return nil, fmt.Errorf("%v is no pair", item)
			}
			out[key] = pair["v"]
			if inner, isMap := pair["v"].(map[string]any); isMap {
				v, err := compound(inner)
				if err != nil {
					return nil, err
				}
				out[key] = v
			}
		}
		return out, nil
	}
	return nil, fmt.Errorf("%v is no type of context data", m["t"])
}

// mapping is TemplateTokenJsonConverter.cs, of texts.
func mapping(raw json.RawMessage) (map[string]string, error) {
	var m struct {
		Type int
		Map  []struct{ Key, Value string }
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, err
	}
	if m.Type != 2 {
		return nil, fmt.Errorf("%d is not the type of a mapping", m.Type)
	}
	out := map[string]string{}
	for _, pair := range m.Map {
		out[pair.Key] = pair.Value
	}
	return out, nil
}

// Renew is RunServiceHttpClient.RenewJobAsync; it returns when the lease ends.
func (r *Runner) Renew(ctx context.Context, j *Job) (time.Time, error) {
	status, body, err := r.post(ctx, j.connection.String(), "renewjob", j.token, map[string]string{"planId": j.PlanID, "jobId": j.ID})
	if err != nil {
		return time.Time{}, fmt.Errorf("renew the job: %w", err)
	}
	if status > 299 {
		return time.Time{}, runServiceError("renew the job", status, body)
	}
	var lease struct{ LockedUntil time.Time }
	if err := json.Unmarshal(body, &lease); err != nil || lease.LockedUntil.IsZero() {
		return time.Time{}, fmt.Errorf("renew the job: %s: %w", body, err)
	}
	return lease.LockedUntil, nil
}

// Complete is RunServiceHttpClient.CompleteJobAsync; result is a TaskResult in
// camel case. The steps' results are those that updates told of.
func (r *Runner) Complete(ctx context.Context, j *Job, result string) error {
	status, body, err := r.post(ctx, j.connection.String(), "completejob", j.token, map[string]any{
		"planId": j.PlanID, "jobId": j.ID, "conclusion": result, "billingOwnerId": "O_1",
		"stepResults": []map[string]any{{
			"external_id": newGUID(), "number": 9, "name": "Complete job", "status": "completed", "conclusion": "succeeded",
			"started_at": "2026-01-02T03:04:05.6789Z", "completed_at": "2026-01-02T03:04:06.6789Z",
		}},
	})
	if err != nil {
		return fmt.Errorf("complete the job: %w", err)
	}
	if status > 299 {
		return runServiceError("complete the job", status, body)
	}
	return nil
}

// The numbers of Contracts.cs, Status and Conclusion.
const (
	StatusInProgress = 3
	StatusPending    = 5
	StatusCompleted  = 6

	ConclusionUnknown   = 0
	ConclusionSuccess   = 2
	ConclusionFailure   = 3
	ConclusionCancelled = 4
	ConclusionSkipped   = 7
)

// Update is one step of a StepsUpdateRequest.
type Update struct {
	ExternalID  string  `json:"external_id"`
	Number      int     `json:"number"`
	Name        string  `json:"name"`
	Status      int     `json:"status"`
	StartedAt   *string `json:"started_at"`
	CompletedAt *string `json:"completed_at"`
	Conclusion  int     `json:"conclusion"`
}

// UpdateSteps is ResultsHttpClient.UpdateWorkflowStepsAsync.
func (r *Runner) UpdateSteps(ctx context.Context, j *Job, order int, steps ...Update) error {
	status, body, err := r.post(ctx, j.Variables["system.github.results_endpoint"].Value,
		"twirp/github.actions.results.api.v1.WorkflowStepUpdateService/WorkflowStepsUpdate", j.token, map[string]any{
			"steps": steps, "change_order": order, "workflow_job_run_backend_id": j.ID, "workflow_run_backend_id": j.PlanID,
		})
	var answer struct{ OK bool }
	if err != nil || status != http.StatusOK || json.Unmarshal(body, &answer) != nil || !answer.OK {
		return fmt.Errorf("update the steps: status %d: %s: %w", status, body, err)
	}
	return nil
}

// UploadLog goes through ResultsHttpClient.UploadResultsJobLogAsync: an address,
// an append blob in two pieces, its metadata.
func (r *Runner) UploadLog(ctx context.Context, j *Job, text string) error {
	const receiver = "twirp/results.services.receiver.Receiver/"
	results := j.Variables["system.github.results_endpoint"].Value
	ids := map[string]any{"workflow_job_run_backend_id": j.ID, "workflow_run_backend_id": j.PlanID}
	status, body, err := r.post(ctx, results, receiver+"GetJobLogsSignedBlobURL", j.token, ids)
	var blob struct {
		LogsURL string `json:"logs_url"`
		Type    string `json:"blob_storage_type"`
	}
	if err != nil || json.Unmarshal(body, &blob) != nil || !strings.Contains(blob.LogsURL, "?") || blob.Type != "BLOB_STORAGE_TYPE_AZURE" {
		return fmt.Errorf("ask where the log goes: status %d: %s: %w", status, body, err)
	}
	for _, piece := range []struct{ query, text string }{{"", ""}, {"&comp=appendblock&seal=true", text}} {
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, blob.LogsURL+piece.query, strings.NewReader(piece.text))
		if err != nil {
			return err
		}
		req.Header.Set("x-ms-blob-type", "AppendBlob")
		if status, _, err := r.send(req); err != nil || status > 299 {
			return fmt.Errorf("upload the log: status %d: %w", status, err)
		}
	}
	ids["line_count"], ids["uploaded_at"] = 1, "2026-01-02T03:04:05.678Z"
	status, body, err = r.post(ctx, results, receiver+"CreateJobLogsMetadata", j.token, ids)
	var answer struct{ OK bool }
	if err != nil || json.Unmarshal(body, &answer) != nil || !answer.OK {
		return fmt.Errorf("tell of the log: status %d: %s: %w", status, body, err)
	}
	return nil
}

// TokenRequest is what ScriptHandler.cs exports to hooks and steps as
// ACTIONS_ID_TOKEN_REQUEST_URL and ACTIONS_ID_TOKEN_REQUEST_TOKEN; nothing for a
// job that may not ask for ID tokens.
func (j *Job) TokenRequest() (url, token string, allowed bool) {
	if j.generateIDToken == "" {
		return "", "", false
	}
	return j.generateIDToken, j.token, true
}

// IDToken asks as a step does, with ScriptHandler.cs's two variables.
func (r *Runner) IDToken(ctx context.Context, j *Job, audience string) (string, error) {
	if j.generateIDToken == "" {
		return "", errors.New("the job may not ask for ID tokens")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, j.generateIDToken+"&audience="+url.QueryEscape(audience), nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "bearer "+j.token)
	status, body, err := r.send(req)
	var answer struct{ Value string }
	if err != nil || status != http.StatusOK || json.Unmarshal(body, &answer) != nil || answer.Value == "" {
		return "", fmt.Errorf("ask for an ID token: status %d: %s: %w", status, body, err)
	}
	return answer.Value, nil
}
