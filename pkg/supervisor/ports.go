package supervisor

import (
	"context"
	"errors"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

// The ports are declared here, where they are used; adapters implement them
// and never import each other. Every call takes a context with a deadline, may
// be repeated after any failure, and says "I do not know" with an error: no
// adapter turns a failed question into a no.

// Errors that a caller branches on. Adapters wrap them.
var (
	// ErrRegistrationExists: the name is registered already.
	ErrRegistrationExists = errors.New("a runner of this name is registered already")
	// ErrJobStillRunning: GitHub refuses to remove a runner whose job's lease is alive.
	ErrJobStillRunning = errors.New("the runner's job is still running")
	// ErrConflict: somebody else changed the object first, such as a node that
	// another claim took.
	ErrConflict = errors.New("changed by somebody else")
	// ErrTokenRejected: the token is not genuine, expired, or for another audience.
	ErrTokenRejected = errors.New("token rejected")
	// ErrForeignRunner: a runner of this name exists and is not of our scale set.
	ErrForeignRunner = errors.New("the runner is not of our scale set")
	// ErrMoot: nothing waits for the answer any more.
	ErrMoot = errors.New("nothing waits for the answer")
	// ErrUnreadable: all that could be understood was read; the rest never will
	// be, and asking again changes nothing.
	ErrUnreadable = errors.New("some of it cannot be understood")
	// ErrFenced: another writer owns the log. The daemon must end at once.
	ErrFenced = errors.New("another writer appended to the log")
	// ErrAway: the log's store cannot be written, and what may be recorded
	// meanwhile waits in the spool.
	ErrAway = errors.New("the log's store is away")
)

// Ledger is the append-only log.
type Ledger interface {
	// Append makes the event durable and write-once, then returns its record.
	// On any error the event may or may not be in the log: the caller must
	// not append again before [Ledger.Recover] has said which. It returns
	// ErrFenced when another writer holds the place; that is final. With a
	// spool, a record of a kind that is [runner.Spoolable] is returned when it
	// is durable on local disk; see Spool for whether it is. Others then fail
	// with ErrAway and are not in the log. It must not be called concurrently.
	Append(ctx context.Context, at time.Time, e runner.Event) (runner.Record, error)
	// NewYear returns the event that has to be appended before any other at this
	// time, nil when there is none: the end of a year of the log, and then the
	// beginning of the next. It must not be called concurrently with Append.
	NewYear(ctx context.Context, at time.Time) (runner.Event, error)
	// Recover returns the records that are durable beyond those that Append
	// or Recover returned before, and finishes what a crash left half done.
	// With ErrAway it returns those that are durable in the spool: order and
	// digests are final, but nothing may begin on the strength of them.
	Recover(ctx context.Context) ([]runner.Record, error)
	// Alone asks the store whether another writer has appended since our last
	// record. It returns ErrFenced then, which is final; any other error says
	// that nobody knows. Nothing changes by it. It is called while no append is
	// open and nothing waits in the spool, never concurrently with Append.
	Alone(ctx context.Context) error
	// Spool says what is durable on local disk only. It never waits and is
	// safe for concurrent use.
	Spool() Spool
	// PutBlob stores an attachment under its digest, durably. Storing the
	// same bytes again is not an error.
	PutBlob(ctx context.Context, b []byte) (runner.Digest, error)
}

// Spool is what the log keeps on local disk while its store is away.
type Spool struct {
	// Waiting is how many records are not in the store yet, Problem why.
	Waiting int
	Problem error
	// Kept is how many records no [runner.Spooled] has told of yet, First and
	// Last are their indexes, Since is the time of the first.
	Kept        int
	First, Last uint64
	Since       time.Time
}

// Message is what GitHub's queue said at once. Events are in the order in
// which they must be recorded.
type Message struct {
	ID     int64
	Events []runner.Event // Offered, Reported, Concluded
}

// Statistics are GitHub's own counters of the scale set.
type Statistics struct {
	Available  int `json:"available"`
	Acquired   int `json:"acquired"`
	Assigned   int `json:"assigned"`
	Running    int `json:"running"`
	Registered int `json:"registered"`
	Busy       int `json:"busy"`
	Idle       int `json:"idle"`
}

// Queue is GitHub's message queue of one scale set.
type Queue interface {
	// Run polls until the context ends. It calls observe for every message and
	// acknowledges the message only after observe returned nil; otherwise the
	// message comes again. capacity is asked before each poll; 0 means that no
	// new job is wanted. Session conflict, expiry and every other passing
	// fault are survived and shown in Health. It returns only the context's
	// cause.
	Run(ctx context.Context, capacity func() int, observe func(context.Context, Message) error) error
	// Health says how the listening goes. It is safe for concurrent use.
	Health() QueueHealth
}

// QueueHealth is the state of the message session.
type QueueHealth struct {
	Session    string     `json:"session"`           // "none", "conflict", "open"
	SessionAge time.Time  `json:"sessionSince"`      // since when the session has been in this state
	LastPoll   time.Time  `json:"lastPoll,omitzero"` // when a poll last succeeded, zero if never
	LastID     int64      `json:"lastMessageId"`
	LastError  string     `json:"lastError,omitempty"`
	ScaleSetID int64      `json:"scaleSetId"`
	Statistics Statistics `json:"statistics"`
	// Warnings are what somebody should know and nothing waits for, such as a
	// job of a message that could not be recorded. None means none.
	Warnings []string `json:"warnings,omitempty"`
	// Problems are what forbids new work until somebody mends it, such as a
	// scale set that was moved to another group. None means none.
	Problems []string `json:"problems,omitempty"`
	// ClockSkew is GitHub's clock minus ours, 0 while unknown.
	ClockSkew time.Duration `json:"clockSkew"`
	Rates     []Rate        `json:"rates,omitempty"`
}

// Rate is one of GitHub's rate limits as its answers showed it last.
type Rate struct {
	// Resource is GitHub's name of the limit: core, actions_runner_registration,
	// or "service" for the scale set service, which names none.
	Resource  string    `json:"resource"`
	Limit     int       `json:"limit"`
	Remaining int       `json:"remaining"`
	Reset     time.Time `json:"reset,omitzero"`
	// Throttled counts the answers that asked for patience, RetryAfter is
	// until when the last of them did.
	Throttled  int64     `json:"throttled"`
	RetryAfter time.Time `json:"retryAfter,omitzero"`
}

// Registrar makes and removes just-in-time registrations of the scale set. It
// is safe for concurrent use.
type Registrar interface {
	// Register generates a JIT config for a new runner of this name. It
	// returns ErrRegistrationExists when the name is taken, possibly by an
	// earlier call whose answer was lost.
	Register(ctx context.Context, name runner.Name) (Registration, error)
	// Registered says whether a runner of this name is registered. It returns
	// ErrForeignRunner for one of another scale set.
	Registered(ctx context.Context, name runner.Name) (bool, error)
	// Deregister removes the registration; a runner that is not registered is
	// a success. It returns ErrJobStillRunning while GitHub holds the lease.
	// scaleSet is the one that the runner was registered in, which may have
	// been deleted and made anew since; 0 is the one that is served now.
	Deregister(ctx context.Context, name runner.Name, scaleSet int64) error
}

// Registration is a just-in-time runner. JITConfig is a credential: it goes to
// the bound pod and nowhere else.
type Registration struct {
	RunnerID, ScaleSetID int64
	JITConfig            Secret
}

// Secret is a value that no printer opens.
type Secret struct{ value *string }

// NewSecret hides s.
func NewSecret(s string) Secret { return Secret{&s} }

// Reveal is the hidden value.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// String, GoString and MarshalText keep the value out of logs and documents.
func (Secret) String() string               { return "[secret]" }
func (Secret) GoString() string             { return "[secret]" }
func (Secret) MarshalText() ([]byte, error) { return []byte("[secret]"), nil }

// GitHub answers what we ask of GitHub's REST API. It is safe for concurrent use.
type GitHub interface {
	// Facts gathers what the policy needs to know about an offered job. known
	// are the reviews of its run that the log holds. The second result are
	// reviews that it does not hold yet: they must be durable before the facts
	// are acted on. An error means that something stays unknown; it is never a
	// denial.
	Facts(ctx context.Context, job runner.Offered, known []runner.Reviewed) (runner.Facts, []runner.Reviewed, error)
	// DeploymentFacts gathers what is known of a run before its reviewers have
	// decided: no approvals and no job of it.
	DeploymentFacts(ctx context.Context, ask runner.Asked) (runner.Facts, error)
	// Answer tells GitHub our ruling, with a comment of at most 1024
	// characters for its page. It returns ErrMoot when nothing waits for it.
	Answer(ctx context.Context, ask runner.Asked, state, comment string) error
	// News returns what GitHub told our App by webhook since then: Reviewed
	// and Asked events, oldest first. Repetitions are possible. What was read
	// before an error comes with it. ErrUnreadable says that nothing else is
	// missing.
	News(ctx context.Context, since time.Time) ([]runner.Event, error)
	// Runners lists all runners of the pool's runner group.
	Runners(ctx context.Context) ([]RegisteredRunner, error)
	// Health says how GitHub's REST API treats us.
	Health() GitHubHealth
	// CancelRun asks to cancel a run; one that is already over is a success.
	// force also ends a job whose runner is dead and cannot answer; without it
	// GitHub waits for minutes.
	CancelRun(ctx context.Context, repository string, runID int64, force bool) error
}

// RunnerGroup names a runner group of the organization.
type RunnerGroup struct {
	ID   int64
	Name string
}

// Boundary is who may use the pool's runner group, as GitHub's REST API says.
type Boundary struct {
	Group RunnerGroup
	// Rivals are the other groups that a repository of ours may use: a scale set
	// of our name in one of them could be given our jobs.
	Rivals []RunnerGroup
	// Open lists what the group allows and must not; none means that only the
	// pool's repositories may use it.
	Open []string
}

// RegisteredRunner is a runner as GitHub's REST API shows it.
type RegisteredRunner struct {
	ID   int64
	Name string
	Busy bool
}

// GitHubHealth is how GitHub's REST API treats us.
type GitHubHealth struct {
	Rates []Rate `json:"rates,omitempty"`
	// ClockSkew is GitHub's clock minus ours, 0 while unknown.
	ClockSkew time.Duration `json:"clockSkew"`
}

// Identity verifies tokens that GitHub signed for a job.
type Identity interface {
	// Verify checks signature, issuer, audience and lifetime at this time. It
	// returns ErrTokenRejected when the token is bad, another error when that
	// could not be found out.
	Verify(ctx context.Context, token, audience string, now time.Time) (runner.Claims, error)
}

// Policy decides. It is deterministic: input, bundle and time give the verdict.
type Policy interface {
	// Digest names the bundle in force: it is the digest of Archive.
	Digest() runner.Digest
	// Archive is the bundle as it is stored beside the decisions, so that they
	// can be replayed with it.
	Archive() []byte
	// Evaluate returns the sorted reasons against; none means allowed. An
	// error means that no verdict could be had and counts as a refusal.
	Evaluate(ctx context.Context, in runner.Question, now time.Time) ([]string, error)
}

// Hosts is the cloud that owns the hosts. It is safe for concurrent use.
type Hosts interface {
	// Describe says what the cloud knows of these instances. An instance that
	// is missing from the answer is not known to the cloud.
	Describe(ctx context.Context, ids []string) (map[string]runner.Instance, error)
	// Protect keeps the cloud from ending the instance of its own accord when it
	// shrinks or balances the pool. It returns ErrConflict when the cloud is
	// ending the instance already.
	Protect(ctx context.Context, id string) error
	// Terminate asks to end the instance; one that is ending is a success. The
	// receipt is valid beside an error.
	Terminate(ctx context.Context, id string, opt TerminateOptions) (TerminateReceipt, error)
	// Ensure makes the cloud launch hosts until the demand is met, within the
	// pool's own bounds. It never ends one. It is an error when the demand stays
	// unmet because hosts are not launched, or unfit ones take up their room.
	Ensure(ctx context.Context, d Demand) error
	// Preflight says whether the pool can keep the promise of one job to one host.
	Preflight(ctx context.Context) (HostsPool, error)
	// VolumesGone says which of these volumes no longer exist.
	VolumesGone(ctx context.Context, ids []string) ([]string, error)
}

// Demand is how many unclaimed hosts are wanted. Used are the instances that
// serve somebody or are being ended, Unfit those that have been of no use for too
// long to be waited for. Neither count.
type Demand struct {
	Ready int
	Used  []string
	Unfit []string
}

// TerminateOptions say how a host is ended.
type TerminateOptions struct {
	// Force goes around whatever manages the pool, straight to the machine.
	Force bool
	// Demand lets the pool get smaller by this host, if what is left meets it;
	// nil never does.
	Demand *Demand
}

// TerminateReceipt joins our requests with the cloud's audit trail.
type TerminateReceipt struct {
	ActivityID string
	Requests   []runner.Request
}

// HostsPool is what the cloud says of the pool that hosts come from.
type HostsPool struct {
	// Problems forbid new work until somebody mends them. Notes are what
	// on-call should know.
	Problems []string    `json:"problems,omitempty"`
	Notes    []string    `json:"notes,omitempty"`
	Groups   []GroupView `json:"groups,omitempty"`
}

// GroupView is one group of hosts with its sizes.
type GroupView struct {
	Name    string `json:"name"`
	Min     int    `json:"min"`
	Desired int    `json:"desired"`
	Max     int    `json:"max"`
	// InService are the instances that the group says can serve.
	InService []string `json:"inService,omitempty"`
}
