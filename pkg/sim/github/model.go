package simgithub

import "time"

// Group is a self-hosted runner group of the organization.
type Group struct {
	Name string
	// Visibility is all, selected or private.
	Visibility   string
	Repositories []string // names in the organization, for "selected"
	// RestrictedToWorkflows with Workflows (owner/repo/path@ref) limits the
	// group to jobs directly defined in these workflows.
	RestrictedToWorkflows bool
	Workflows             []string
	AllowsPublic          bool
}

// Environment is a deployment environment's protection.
type Environment struct {
	Name              string
	ReviewerTeams     []string // slugs
	ReviewerUsers     []string // logins
	PreventSelfReview bool
	// WaitTimer counts from the moment the job reaches the environment, not
	// from the approval. GitHub keeps whole minutes; a part is shown rounded up.
	WaitTimer       time.Duration
	CanAdminsBypass bool
	// Policies, if any, are custom deployment branch and tag policies.
	Policies []BranchPolicy
	// ProtectionApps are the slugs of the Apps that protect the environment as
	// custom deployment protection rules: each has to approve.
	ProtectionApps []string
}

// BranchPolicy admits refs to an environment; Type is branch or tag, Name a
// pattern as in Ruby's File.fnmatch.
type BranchPolicy struct{ Name, Type string }

// RunSpec is a workflow run with one job, to dispatch.
type RunSpec struct {
	Repository string // name in the organization, or its full name
	// Tag is the tag that started the run; empty means the branch main.
	Tag     string
	HeadSHA string
	// HeadAuthor is the login of the head commit's author, default Actor.
	HeadAuthor      string
	Actor           string
	TriggeringActor string // default Actor
	Event           string // default push
	WorkflowPath    string // default .github/workflows/deploy.yml
	// JobWorkflowRef is owner/repo/path@ref of the reusable workflow that
	// defines the job; empty means the run's own workflow does.
	JobWorkflowRef string
	Environment    string
	Labels         []string
	// Group is the name of the runner group in runs-on, empty for any.
	Group string
	// Job is the key of the job, default deploy.
	Job string
	// Duration is how long the job's steps run; negative means until
	// [Server.FinishJob] or a cancellation.
	Duration time.Duration
	// Script is what the job's own step runs, for runners that run scripts: the
	// stand-in does not. Empty takes Duration and ends as Conclusion says.
	Script string
	// IDToken says that the job has the permission id-token: write.
	IDToken bool
	// Conclusion of the steps: success (the default) or failure.
	Conclusion string
	// Always says that the job is if: always(): a cancellation does not end it,
	// only a forced one does.
	// https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-cancellation
	Always bool
	// IgnoreGroupRules hands the job to a set whose group does not admit it:
	// a GitHub that fails to enforce its own restriction.
	IgnoreGroupRules bool
}

// Run names what [Server.Dispatch] or [Server.Rerun] made.
type Run struct {
	ID, Number, Attempt int64
	Repository          string // full name
	RepositoryID        int64
	JobID               string // GUID, as in queue messages
	CheckRunID          int64  // numeric id of the job in the REST API
}

// JobState is a job as the simulator knows it.
type JobState struct {
	JobID         string
	CheckRunID    int64
	RunID         int64
	RunAttempt    int64
	Repository    string
	Name          string
	Environment   string
	Labels        []string
	Status        string // waiting, queued, in_progress, completed
	Conclusion    string // success, failure, cancelled, skipped, or empty
	ScaleSetID    int64  // the set it is assigned to, 0 if none
	RunnerID      int64
	RunnerName    string
	Requeues      int
	CreatedAt     time.Time
	QueuedAt      time.Time
	AssignedAt    time.Time
	StartedAt     time.Time
	CompletedAt   time.Time
	LeaseUntil    time.Time
	CancelledAt   time.Time // when a cancellation was asked for
	IDTokens      int       // ID tokens minted
	HookSucceeded bool      // the job-started hook was reported successful
	// StepsRan says that the runner reported a step of the workflow as
	// started, be it only one with if: always().
	StepsRan       bool
	StepsStartedAt time.Time // when the first such report came
}

// RunnerState is a registered runner.
type RunnerState struct {
	ID, ScaleSetID, GroupID int64
	Name                    string
	Used                    bool // its JIT config was used to open a session
	Online, Busy            bool
	JobID                   string // the job it was offered or runs
	CreatedAt               time.Time
}

// Request is one request as the log keeps it. It holds no credential.
type Request struct {
	Seq    int
	Time   time.Time
	Method string
	Path   string // with /api/v3 for REST, whatever the host was
	Query  string
	// Status is 0 while the request is being answered and -1 for a dropped
	// connection or one that the client gave up.
	Status int
	// Caller is the kind of credential: anonymous, unknown, app,
	// installation, token, registration, admin, queue, runner or job.
	Caller string
}
