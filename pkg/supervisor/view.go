package supervisor

import (
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

// View is what the status endpoint shows: a copy, taken at one moment.
type View struct {
	Now       time.Time `json:"now"`
	Version   string    `json:"version"`
	FIPS      FIPS      `json:"fips"`
	StartedAt time.Time `json:"startedAt"`
	// LoopAt is when the supervisor last looked at its work.
	LoopAt time.Time `json:"loopAt"`
	// Leading says that this daemon is the one that acts. With leader election
	// Leader is who does, as far as this one knows, and StandingBy says that this
	// one waits to: it cannot tell whether a deploy can run.
	Leading    bool          `json:"leading"`
	Leader     string        `json:"leader,omitempty"`
	StandingBy bool          `json:"standingBy,omitempty"`
	Checks     []HealthCheck `json:"checks"`
	// CanDeploy answers on-call's first question; Why lists what speaks against.
	CanDeploy bool     `json:"canDeploy"`
	Why       []string `json:"why"`
	// Warnings are what somebody should look at and no deploy waits for.
	Warnings []string     `json:"warnings,omitempty"`
	Frozen   *FreezeView  `json:"frozen,omitempty"`
	Queue    QueueHealth  `json:"queue"`
	GitHub   GitHubHealth `json:"github"`
	// HeldBack is why no host is taken for a while, empty if it is not so.
	HeldBack string `json:"heldBack,omitempty"`
	// Cluster is how the cluster is followed and what that costs.
	Cluster ClusterHealth `json:"cluster"`
	// Closed lists what forbids new work besides log, clock and freeze.
	Closed []string    `json:"closed,omitempty"`
	Strays []StrayView `json:"strays,omitempty"`
	// Asks are deployments that GitHub asked about and that have no answer yet.
	Asks []AskView `json:"asks,omitempty"`
	// HeardAt is until when the App's webhook deliveries were read, zero when
	// they were not.
	HeardAt  time.Time    `json:"heardAt,omitzero"`
	Ledger   LedgerView   `json:"ledger"`
	Capacity int          `json:"capacity"`
	Max      int          `json:"maxRunners"`
	Jobs     []JobView    `json:"jobs"`
	Runners  []RunnerView `json:"runners"`
	Hosts    []HostView   `json:"hosts"`
	// Pool is what the cloud says of the groups that hosts come from.
	Pool HostsPool `json:"pool"`

	// unbound says that a runner waits for a job, or for GitHub's word on one.
	unbound bool
}

// HealthCheck is one condition of readiness.
type HealthCheck struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// FreezeView is the freeze in force.
type FreezeView struct {
	By     string    `json:"by"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
}

// StrayView is something with our marks that the log does not explain.
type StrayView struct {
	What  runner.StrayKind `json:"what"`
	ID    string           `json:"id"`
	Name  string           `json:"name,omitempty"`
	Node  string           `json:"node,omitempty"`
	Since time.Time        `json:"since"`
}

// AskView is a deployment that GitHub asked about.
type AskView struct {
	Repository  string    `json:"repository"`
	RunID       int64     `json:"runId"`
	URL         string    `json:"url"`
	Environment string    `json:"environment"`
	Since       time.Time `json:"since"`
	// Ruling is ours, empty while there is none; Problem is why it does not move.
	Ruling  string `json:"ruling,omitempty"`
	Problem string `json:"problem,omitempty"`
}

// LedgerView is the state of the log.
type LedgerView struct {
	Size      uint64    `json:"size"`
	Head      string    `json:"head"` // digest of the newest record
	LastAt    time.Time `json:"lastAt"`
	LastError string    `json:"lastError,omitempty"`
	// Away says that the log's store cannot be written; Spooled records, the
	// first of them made at SpooledSince, wait on the daemon's own disk. They
	// count in Size.
	Away         bool      `json:"away,omitempty"`
	Spooled      int       `json:"spooled"`
	SpooledSince time.Time `json:"spooledSince,omitzero"`
}

// JobView is a job for a reader. Finished jobs stay until they are older than
// the configured history.
type JobView struct {
	ID         runner.JobID  `json:"id"`
	Repository string        `json:"repository"`
	RunID      int64         `json:"runId"`
	URL        string        `json:"url"`
	Phase      runner.Kind   `json:"phase"`
	Since      time.Time     `json:"since"`
	Runner     runner.Name   `json:"runner,omitempty"`
	Result     runner.Result `json:"result,omitempty"`
	// Reasons say why it was denied or refused, Problem why it does not move.
	Reasons []string `json:"reasons,omitempty"`
	Problem string   `json:"problem,omitempty"`
}

// RunnerView is a runner and its host for a reader.
type RunnerView struct {
	Name     runner.Name    `json:"name"`
	Phase    runner.Kind    `json:"phase"`
	Since    time.Time      `json:"since"`
	Instance string         `json:"instance"`
	Node     string         `json:"node"`
	Job      runner.JobID   `json:"job,omitempty"`
	Cause    runner.JobID   `json:"cause"`
	Outcome  string         `json:"outcome,omitempty"`
	Overdue  bool           `json:"overdue"`
	Pending  []runner.Stage `json:"pending,omitempty"`
	Problem  string         `json:"problem,omitempty"`
	// Rebuffed are callers who were turned away, in the order of their records.
	Rebuffed []RebuffView `json:"rebuffed,omitempty"`
	// Pod is what is wrong with the pod of a runner that has not ended.
	Pod string `json:"pod,omitempty"`
}

// RebuffView is a caller who asked in a runner's name and was turned away.
type RebuffView struct {
	Gate   runner.Gate        `json:"gate"`
	Cause  runner.RebuffCause `json:"cause"`
	Since  time.Time          `json:"since"`
	Caller *runner.Caller     `json:"caller,omitempty"`
}

// HostView is a node of the pool that serves nothing yet.
type HostView struct {
	Node     string         `json:"node"`
	Instance string         `json:"instance"`
	Vetted   bool           `json:"vetted"`
	Failing  []runner.Check `json:"failing,omitempty"`
}
