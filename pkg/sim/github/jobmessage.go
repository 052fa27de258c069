package simgithub

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// jobRequest is actions/runner AgentJobRequestMessage.cs: all that its runner
// needs to run the job (JobRunner.cs, ExecutionContext.InitializeJob,
// JobExtension.cs), and nothing that it does not.
type jobRequest struct {
	MessageType    string               `json:"messageType"`
	Plan           planRef              `json:"plan"`
	Timeline       timelineRef          `json:"timeline"`
	JobID          string               `json:"jobId"`
	DisplayName    string               `json:"jobDisplayName"`
	JobName        string               `json:"jobName"`
	RequestID      int64                `json:"requestId"`
	LockedUntil    time.Time            `json:"lockedUntil"`
	Resources      resources            `json:"resources"`
	ContextData    map[string]any       `json:"contextData"`
	Workspace      struct{}             `json:"workspace"`
	Mask           []maskHint           `json:"mask"`
	Environment    []any                `json:"environmentVariables"`
	Defaults       []any                `json:"defaults"`
	Variables      map[string]variable  `json:"variables"`
	Steps          []jobStep            `json:"steps"`
	FileTable      []string             `json:"fileTable"`
	Deployment     *deploymentReference `json:"actionsEnvironment,omitempty"`
	BillingOwnerID string               `json:"billingOwnerId"`
	// Simulated says how long the steps take and how they end to the stand-in,
	// which runs no scripts: it is not of GitHub.
	Simulated simulated `json:"x-simulated"`
}

// planRef is TaskOrchestrationPlanReference.cs. From version 8 on the job's end
// is told once (PlanUtil.cs).
type planRef struct {
	ScopeID  string `json:"scopeIdentifier"`
	PlanType string `json:"planType"`
	Version  int    `json:"version"`
	PlanID   string `json:"planId"`
}

type timelineRef struct {
	ID       string `json:"id"`
	ChangeID int    `json:"changeId"`
}

type resources struct {
	Endpoints    []endpoint `json:"endpoints"`
	Repositories []any      `json:"repositories"`
	Containers   []any      `json:"containers"`
}

type endpoint struct {
	Name          string            `json:"name"`
	URL           string            `json:"url"`
	Data          map[string]string `json:"data"`
	Authorization authorization     `json:"authorization"`
	IsShared      bool              `json:"isShared"`
	IsReady       bool              `json:"isReady"`
}

type authorization struct {
	Scheme     string            `json:"scheme"`
	Parameters map[string]string `json:"parameters"`
}

type variable struct {
	Value    string `json:"value"`
	IsSecret bool   `json:"isSecret,omitempty"`
}

// maskHint is MaskHint.cs; of its types the runner takes regex only
// (Worker.cs, InitializeSecretMasker).
type maskHint struct {
	Type  string `json:"type"`
	Value string `json:"value"`
}

// deploymentReference is the job's environment.
type deploymentReference struct {
	Name string `json:"name"`
}

// jobStep is ActionStep.cs for a line of the workflow that says run.
type jobStep struct {
	Type        string        `json:"type"`
	Reference   stepReference `json:"reference"`
	DisplayName string        `json:"displayNameToken"`
	ContextName string        `json:"contextName"`
	Inputs      templateMap   `json:"inputs"`
	Condition   string        `json:"condition"`
	ID          string        `json:"id"`
	Name        string        `json:"name"`
	Enabled     bool          `json:"enabled"`
}

type stepReference struct {
	Type string `json:"type"`
}

// templateMap is MappingToken.cs, of texts: TokenType.cs, Mapping.
type templateMap struct {
	Type  int            `json:"type"`
	Items []templatePair `json:"map"`
}

type templatePair struct{ Key, Value string }

// contextMap is a dictionary of context data: PipelineContextDataType.cs,
// Dictionary. Texts and booleans are written as they are.
type contextMap struct {
	Type  int           `json:"t"`
	Items []contextItem `json:"d,omitempty"`
}

type contextItem struct {
	Key   string `json:"k"`
	Value any    `json:"v"`
}

const (
	templateMapping   = 2
	contextDictionary = 2
)

type simulated struct {
	DurationMillis int64  `json:"durationMillis"`
	Conclusion     string `json:"conclusion"`
}

// durationMillis keeps "until told" negative however small its value is.
func durationMillis(d time.Duration) int64 {
	if d < 0 {
		return -1
	}
	return d.Milliseconds()
}

// ownStep is a step of the workflow file.
type ownStep struct{ ID, Name, script, condition string }

// ownSteps are those of every simulated job: one that takes the job's duration
// and ends as its conclusion says, and one with if: always().
func ownSteps(spec RunSpec) []ownStep {
	wait := "while :; do sleep 60; done" // until the run is cancelled
	if spec.Duration >= 0 {
		wait = fmt.Sprintf("sleep %.3f", spec.Duration.Seconds())
	}
	if spec.Conclusion != "success" {
		wait += "\nexit 1"
	}
	script := "echo deploying\n" + wait
	if spec.Script != "" {
		script = spec.Script
	}
	return []ownStep{
		{newGUID(), "Run deploy", script, "success()"},
		{newGUID(), "Clean up", "echo cleaning up", "always()"},
	}
}

func (o ownStep) message() jobStep {
	return jobStep{
		Type: "action", Reference: stepReference{"script"}, DisplayName: o.Name, ContextName: "__run", Name: "__run",
		Inputs:    templateMap{templateMapping, []templatePair{{"script", o.script}}},
		Condition: o.condition, ID: o.ID, Enabled: true,
	}
}

// request makes the message of a job that was acquired, with fresh tokens.
func (s *Server) request(j *job) jobRequest {
	token := s.issue(credential{kind: kindJob, job: j.JobID}, jobTokenTTL)
	steps := make([]jobStep, 0, len(j.own))
	for _, o := range j.own {
		steps = append(steps, o.message())
	}
	m := jobRequest{
		MessageType: "RunnerJobRequest", Plan: planRef{newGUID(), "actions", 12, j.planID}, Timeline: timelineRef{newGUID(), 1},
		JobID: j.JobID, DisplayName: j.Name, JobName: j.run.spec.Job, RequestID: j.reqID,
		LockedUntil: time.Now().Add(s.cfg.LeaseTTL).UTC(), BillingOwnerID: "O_" + s.cfg.Org,
		Resources: resources{
			Repositories: []any{}, Containers: []any{},
			Endpoints: []endpoint{{
				Name: "SystemVssConnection", URL: s.runURL(), Data: s.connectionData(j), IsReady: true,
				Authorization: authorization{"OAuth", map[string]string{"AccessToken": token}},
			}},
		},
		ContextData: map[string]any{
			"github": s.githubContext(j), "needs": contextMap{Type: contextDictionary}, "inputs": contextMap{Type: contextDictionary},
			"vars": contextMap{Type: contextDictionary}, "matrix": nil,
			"strategy": contextMap{contextDictionary, []contextItem{{"fail-fast", true}, {"job-index", 0}, {"job-total", 1}, {"max-parallel", 1}}},
		},
		Mask: []maskHint{{"regex", regexp.QuoteMeta(token)}}, Environment: []any{}, Defaults: []any{},
		Variables: s.jobVariables(j), Steps: steps, FileTable: []string{j.run.spec.WorkflowPath},
		Simulated: simulated{durationMillis(j.run.spec.Duration), j.run.spec.Conclusion},
	}
	if j.env != nil {
		m.Deployment = &deploymentReference{j.env.Name}
	}
	return m
}

// connectionData tells where other services are. The cache, the older pipelines
// service and the live console (CacheServerUrl, PipelinesServiceUrl,
// FeedStreamUrl) are left out: the runner does without (NodeScriptActionHandler.cs,
// JobServerQueue.cs).
func (s *Server) connectionData(j *job) map[string]string {
	data := map[string]string{"ServerName": "SystemVssConnection", "ResultsServiceUrl": s.resultsURL()}
	if j.run.spec.IDToken {
		data["GenerateIdTokenUrl"] = s.Issuer() + "/idtoken/" + j.planID + "/" + j.JobID + "?api-version=2.0"
	}
	return data
}

// jobVariables are those that the runner asks for by name (ExecutionContext.cs,
// JobServerQueue.cs, JobExtension.cs, JobRunner.cs, Worker.cs).
func (s *Server) jobVariables(j *job) map[string]variable {
	permissions := map[string]string{"Contents": "read", "Metadata": "read"}
	if j.run.spec.IDToken {
		permissions["IdToken"] = "write"
	}
	granted, err := json.Marshal(permissions)
	if err != nil {
		panic(err) // strings always marshal
	}
	defining, isReusable := parseWorkflow(j.run.spec.JobWorkflowRef)
	file := s.fullName(j.run.repo) + "/" + j.run.spec.WorkflowPath
	if isReusable {
		file = defining.owner + "/" + defining.repo + "/" + defining.path
	}
	values := map[string]string{
		"system.github.job": j.run.spec.Job, "system.github.results_endpoint": s.resultsURL(),
		"system.github.token.permissions": string(granted), "system.runnerEnvironment": "self-hosted",
		"system.culture": "en-US", "system.orchestrationId": j.planID + "." + j.run.spec.Job + ".__default",
		"system.workflowFileFullPath": file, "system.workflowFileSha": j.attempt.workflowSHA,
		"system.runner.lowdiskspacethreshold": "100",
	}
	if g := s.state.groups[j.groupID]; g != nil {
		values["system.runnerGroupName"] = g.Name
	}
	out := map[string]variable{
		// GITHUB_TOKEN ends with the job: docs, automatic token authentication.
		"system.github.token": {s.issue(credential{kind: kindInstallation, job: j.JobID}, jobTokenTTL), true},
	}
	for name, value := range values {
		out[name] = variable{Value: value}
	}
	return out
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
	api, graphql := s.cfg.BaseURL+"/api/v3", s.cfg.BaseURL+"/api/graphql"
	if s.cfg.BaseURL == "https://github.com" {
		api, graphql = "https://api.github.com", "https://api.github.com/graphql"
	}
	return contextMap{contextDictionary, []contextItem{
		{"actor", r.actor.login}, {"actor_id", id(r.actor.id)}, {"api_url", api}, {"graphql_url", graphql},
		{"event_name", r.spec.Event}, {"job", r.spec.Job}, {"ref", r.ref()}, {"ref_name", name},
		{"ref_protected", strconv.FormatBool(r.refProtected())}, {"ref_type", kind}, {"repository", s.fullName(r.repo)},
		{"repository_id", id(r.repo.id)}, {"repository_owner", s.cfg.Org},
		{"repository_owner_id", id(s.cfg.OrgID)}, {"run_attempt", id(j.RunAttempt)}, {"run_id", id(r.id)},
		{"run_number", id(r.number)}, {"server_url", s.cfg.BaseURL}, {"sha", r.spec.HeadSHA},
		{"triggering_actor", j.attempt.triggering.login}, {"workflow", r.spec.WorkflowPath},
		{"workflow_ref", s.workflowRef(r)}, {"workflow_sha", r.spec.HeadSHA},
		{"event", contextMap{contextDictionary, []contextItem{
			{"ref", r.ref()}, {"after", r.spec.HeadSHA},
			{"repository", contextMap{contextDictionary, []contextItem{{"name", r.repo.name}, {"full_name", s.fullName(r.repo)}}}},
			{"sender", contextMap{contextDictionary, []contextItem{{"login", j.attempt.triggering.login}}}},
		}}},
	}}
}
