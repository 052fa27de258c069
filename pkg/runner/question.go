package runner

import "time"

// QuestionSchema names the shape of [Question]. Recorded inputs carry it, so that
// an old decision is replayed as what it was.
const QuestionSchema = "runnerward.policy/v1"

// Gate says at which of the two gates the policy is asked.
type Gate string

// The gates: when GitHub asks whether a run may deploy at all, before a runner
// exists, and when a job has reached one.
const (
	GateDeployment Gate = "deployment"
	GateAdmission  Gate = "admission"
	GateStart      Gate = "start"
)

// Question is the whole document that the policy sees. It is stored as a blob of
// the log beside the decision, so it obeys the same closed patterns as records.
type Question struct {
	Schema string    `json:"schema" pat:"word"`
	Gate   Gate      `json:"gate" pat:"word"`
	Now    time.Time `json:"now"`
	Pool   Pool      `json:"pool"`
	// Job is what the queue said, nil when a token names a job that was never
	// offered.
	Job *Offered `json:"job,omitempty"`
	// Facts are what GitHub said when we asked; nil when unknown.
	Facts *Facts `json:"facts,omitempty"`
	// Claims are set at the start gate only.
	Claims *Claims `json:"claims,omitempty"`
	// AuthorizedAt is when the job was authorized; zero when it was not.
	AuthorizedAt time.Time `json:"authorizedAt,omitzero"`
}

// Pool is the configuration that the policy judges by.
type Pool struct {
	Organization   string   `json:"organization" pat:"slug"`
	OrganizationID int64    `json:"organizationId,string"`
	Group          string   `json:"group" pat:"label"`
	Labels         []string `json:"labels" pat:"label"`
	// Repositories may deploy from here.
	Repositories []Repository `json:"repositories"`
	// Workflows is the catalogue of deploy workflows: the exact tag-pinned
	// reference and the commit that the tag names.
	Workflows   []Workflow `json:"workflows"`
	Environment string     `json:"environment" pat:"env"`
	// ApproverTeams are the slugs of the teams whose members may approve.
	ApproverTeams []string `json:"approverTeams" pat:"slug"`
	Events        []string `json:"events" pat:"word"`
	// MaxFactsAgeSeconds bounds how old facts may be when they are judged,
	// CoolOffSeconds how long an approval must have stood.
	MaxFactsAgeSeconds int64 `json:"maxFactsAgeSeconds"`
	MaxTokenAgeSeconds int64 `json:"maxTokenAgeSeconds"`
	MaxStartAgeSeconds int64 `json:"maxStartAgeSeconds"`
	CoolOffSeconds     int64 `json:"coolOffSeconds"`
}

// Repository is named by both: a name can be taken over, an id cannot.
type Repository struct {
	Name string `json:"name" pat:"repo"`
	ID   int64  `json:"id,string"`
}
