package runner

import "time"

// Kind names an event. The names are part of the evidence format.
type Kind string

// The kinds of event. A job's chain is offered, then authorized or denied,
// perhaps reported, then concluded; a job that GitHub took back is offered
// again. A runner's chain is claimed, bound, released, then started, refused or
// retired, completed when a job ran to its end, and always teardown, ending,
// terminated, sealed, with overdue in between when it is late, and rebuffed
// anywhere before the seal. Cancelled stands in either.
const (
	KindOpened    Kind = "opened"
	KindHeartbeat Kind = "heartbeat"
	KindGap       Kind = "gap"
	KindFrozen    Kind = "frozen"
	KindUnfrozen  Kind = "unfrozen"

	KindOffered    Kind = "offered"
	KindAuthorized Kind = "authorized"
	KindDenied     Kind = "denied"
	KindReported   Kind = "reported"
	KindConcluded  Kind = "concluded"

	KindClaimed    Kind = "claimed"
	KindBound      Kind = "bound"
	KindReleased   Kind = "released"
	KindStarted    Kind = "started"
	KindRefused    Kind = "refused"
	KindRetired    Kind = "retired"
	KindCompleted  Kind = "completed"
	KindCancelled  Kind = "cancelled"
	KindTeardown   Kind = "teardown"
	KindOverdue    Kind = "overdue"
	KindEnding     Kind = "ending"
	KindTerminated Kind = "terminated"
	KindSealed     Kind = "sealed"
	KindRebuffed   Kind = "rebuffed"
)

// Chain names the sequence of records that an event belongs to: "log",
// "job/<jobId>" or "runner/<name>". Records of one chain are numbered and each
// names the digest of the one before it.
type Chain string

// LogChain is the chain of events about the log and the daemon itself.
const LogChain Chain = "log"

// JobChain is the chain of one job.
func JobChain(id JobID) Chain { return Chain("job/" + string(id)) }

// RunnerChain is the chain of one runner and its host.
func RunnerChain(name Name) Chain { return Chain("runner/" + string(name)) }

// Event is one fact. The set of events is closed: the concrete types of this
// file. Every string of an event obeys [Validate].
type Event interface {
	Kind() Kind
	Chain() Chain
}

// Record is an event as it stands in the log.
type Record struct {
	Index  uint64
	Digest Digest // of the leaf's bytes, the signed envelope
	At     time.Time
	Event  Event
}

// Opened says which daemon opened the log to write, and names the attachments
// that are in effect from here on: its configuration, its policy, and the
// public keys that verify the log.
type Opened struct {
	Version      string `json:"version" pat:"word"`
	Instance     string `json:"instance" pat:"word"`
	ConfigDigest Digest `json:"configDigest" pat:"digest"`
	PolicyDigest Digest `json:"policyDigest" pat:"digest"`
	// RootDigest is the blob that names the public keys of the log so far, so
	// that an archived copy says by itself what verifies it.
	RootDigest Digest `json:"rootDigest" pat:"digest"`
	// FIPS says that Go's FIPS 140-3 module is in use, FIPSModule which version.
	FIPS       bool   `json:"fips"`
	FIPSModule string `json:"fipsModule,omitempty" pat:"word,opt"`
}

// Heartbeat says that the log was written to be seen alive: hourly, so that
// silence is never mistaken for "no jobs".
type Heartbeat struct {
	OpenJobs    int `json:"openJobs"`
	OpenRunners int `json:"openRunners"`
}

// Gap says that the log was silent for longer than the heartbeat allows.
type Gap struct {
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
}

// Frozen says that an operator stopped admission.
type Frozen struct {
	By     string `json:"by" pat:"word"`
	Reason string `json:"reason" pat:"word"`
}

// Unfrozen says that an operator allowed admission again.
type Unfrozen struct {
	By string `json:"by" pat:"word"`
}

// Offered is a job that GitHub's queue told us of.
type Offered struct {
	Job             JobID     `json:"job" pat:"job"`
	Repository      string    `json:"repository" pat:"repo"`
	RunID           int64     `json:"runId,string"`
	WorkflowRef     string    `json:"workflowRef" pat:"workflow,opt"`
	EventName       string    `json:"eventName" pat:"word,opt"`
	Labels          []string  `json:"labels" pat:"label"`
	QueuedAt        time.Time `json:"queuedAt,omitzero"`
	MessageID       int64     `json:"messageId,string"`
	RunnerRequestID int64     `json:"runnerRequestId,string"`
	// Implied says that a later message named the job before, or instead of,
	// its assignment. Only an assignment can give a job back to us.
	Implied bool `json:"implied"`
}

// Decision is what the policy said, and all that is needed to ask it again:
// the bundle, the input (a blob of the log, by digest) and the time.
type Decision struct {
	Policy      Digest    `json:"policy" pat:"digest"`
	Input       Digest    `json:"input" pat:"digest"`
	EvaluatedAt time.Time `json:"evaluatedAt"`
	// Reasons are violation codes, sorted; empty exactly when allowed.
	Reasons []string `json:"reasons" pat:"word"`
}

// Allowed says that nothing spoke against it.
func (d Decision) Allowed() bool { return len(d.Reasons) == 0 && d.Policy != "" }

// Authorized says that this job may run here. It is durable before a runner
// exists that could run the job.
type Authorized struct {
	Job      JobID    `json:"job" pat:"job"`
	Facts    Facts    `json:"facts"`
	Decision Decision `json:"decision"`
}

// Denied says that this job may not run here. It ends the job for us.
type Denied struct {
	Job        JobID    `json:"job" pat:"job"`
	Repository string   `json:"repository" pat:"repo"`
	RunID      int64    `json:"runId,string"`
	Decision   Decision `json:"decision"`
}

// Reported is GitHub's own JobStarted message: which runner it gave the job
// to. It may come a minute late and never binds alone.
type Reported struct {
	Job       JobID `json:"job" pat:"job"`
	Runner    Name  `json:"runner" pat:"host"`
	RunnerID  int64 `json:"runnerId,string"`
	MessageID int64 `json:"messageId,string"`
}

// Result is how GitHub says a job ended.
type Result string

// The results we tell apart; anything else GitHub says is ResultUnknown.
const (
	ResultSucceeded Result = "succeeded"
	ResultFailed    Result = "failed"
	ResultCancelled Result = "cancelled"
	ResultUnknown   Result = "unknown"
)

// Concluded is GitHub's JobCompleted message. It can be early or wrong and
// tears nothing down alone.
type Concluded struct {
	Job       JobID  `json:"job" pat:"job"`
	Result    Result `json:"result" pat:"word"`
	Runner    Name   `json:"runner,omitempty" pat:"host,opt"`
	MessageID int64  `json:"messageId,string"`
}

// Check is one named test of a host and what it said: pass, fail or unknown.
type Check struct {
	Name    string  `json:"name" pat:"word"`
	Verdict Verdict `json:"verdict" pat:"word"`
}

// Verdict has three values; unknown is treated as fail.
type Verdict string

// The verdicts.
const (
	Pass    Verdict = "pass"
	Fail    Verdict = "fail"
	Unknown Verdict = "unknown"
)

// Assurance is what a statement about a host rests on: L0 nothing outside the
// cluster, L1 the cloud's control plane, L2 additionally a document that the
// cloud signed, L3 hardware.
type Assurance string

// The levels of assurance.
const (
	L0 Assurance = "L0"
	L1 Assurance = "L1"
	L2 Assurance = "L2"
)

// Host is a vetted host as it was when it was claimed.
type Host struct {
	Provider   string `json:"provider" pat:"word"`
	InstanceID string `json:"instanceId" pat:"host"`
	AccountID  string `json:"accountId,omitempty" pat:"word,opt"`
	Region     string `json:"region,omitempty" pat:"word,opt"`
	Zone       string `json:"zone,omitempty" pat:"word,opt"`
	ImageID    string `json:"imageId,omitempty" pat:"word,opt"`
	ImageName  string `json:"imageName,omitempty" pat:"os,opt"`
	// ImageParameter is the public parameter that named the image when the host
	// was claimed, empty when it was allowed by its id or name.
	ImageParameter string `json:"imageParameter,omitempty" pat:"param,opt"`
	InstanceType   string `json:"instanceType,omitempty" pat:"word,opt"`
	// Profile is the ARN of the instance profile. Address and interfaces are
	// what the cloud's audit trail and flow logs know the host by.
	Profile           string    `json:"profile,omitempty" pat:"arn,opt"`
	VPC               string    `json:"vpc,omitempty" pat:"word,opt"`
	PrivateIP         string    `json:"privateIp,omitempty" pat:"ip,opt"`
	Subnet            string    `json:"subnet,omitempty" pat:"word,opt"`
	NetworkInterfaces []string  `json:"networkInterfaces,omitempty" pat:"word"`
	LaunchedAt        time.Time `json:"launchedAt,omitzero"`
	NodeName          string    `json:"nodeName" pat:"dns"`
	NodeUID           string    `json:"nodeUid" pat:"word"`
	BootID            string    `json:"bootId" pat:"word,opt"`
	ProviderID        string    `json:"providerId,omitempty" pat:"provider,opt"`
	// NodeClaim is Karpenter's name of the host, empty where a group launched it.
	NodeClaim string    `json:"nodeClaim,omitempty" pat:"dns,opt"`
	OSImage   string    `json:"osImage,omitempty" pat:"os,opt"`
	Kubelet   string    `json:"kubelet,omitempty" pat:"gitver,opt"`
	Assurance Assurance `json:"assurance" pat:"word"`
	Volumes   []string  `json:"volumes,omitempty" pat:"word"`
	Checks    []Check   `json:"checks"`
	// Identity is nil when no document was presented before the claim.
	Identity *HostIdentity `json:"identity,omitempty"`
}

// Claimed takes a vetted host out of the pool for one runner, for ever.
type Claimed struct {
	Runner Name `json:"runner" pat:"name"`
	// Cause is the job this runner was made for, Authorized the digest of the
	// record that allowed it. Another authorized job may run here instead.
	Cause      JobID  `json:"cause" pat:"job"`
	Authorized Digest `json:"authorized" pat:"digest"`
	Host       Host   `json:"host"`
}

// Bound says which pod on which node presented a token that the cluster
// signed for the audience of the authorized record.
type Bound struct {
	Runner         Name   `json:"runner" pat:"name"`
	Namespace      string `json:"namespace" pat:"name"`
	ServiceAccount string `json:"serviceAccount" pat:"dns"`
	PodUID         string `json:"podUid" pat:"word"`
	NodeName       string `json:"nodeName" pat:"dns"`
	NodeUID        string `json:"nodeUid" pat:"word"`
	Audience       Digest `json:"audience" pat:"digest"`
	Token          Digest `json:"token" pat:"digest"`
}

// Released says that a JIT config was generated for the bound pod. It is
// durable before the config leaves the daemon; the config itself is a
// credential and only its digest is recorded.
type Released struct {
	Runner     Name   `json:"runner" pat:"name"`
	RunnerID   int64  `json:"runnerId,string"`
	ScaleSetID int64  `json:"scaleSetId,string"`
	JITConfig  Digest `json:"jitConfig" pat:"digest"`
}

// Started binds a job to a runner: GitHub signed a token for this job over the
// digest of the bound record, and the policy allowed the job again.
type Started struct {
	Runner     Name     `json:"runner" pat:"name"`
	Job        JobID    `json:"job" pat:"job"`
	Authorized Digest   `json:"authorized" pat:"digest"`
	Audience   Digest   `json:"audience" pat:"digest"`
	Claims     Claims   `json:"claims"`
	Decision   Decision `json:"decision"`
}

// Refused says that what reached the runner may not run. The runner is killed.
// Job is empty when the token names no job that we were offered.
type Refused struct {
	Runner   Name     `json:"runner" pat:"name"`
	Job      JobID    `json:"job,omitempty" pat:"job,opt"`
	Claims   *Claims  `json:"claims,omitempty"`
	Decision Decision `json:"decision"`
}

// Cause says why a runner ended without a job running to its end.
type Cause string

// The causes of retirement.
const (
	CauseIdle             Cause = "idle"              // no job within the idle TTL
	CauseSurplus          Cause = "surplus"           // no job is waiting any more
	CauseNeverBound       Cause = "never-bound"       // the pod never presented itself
	CauseNeverReleased    Cause = "never-released"    // bound, but no registration in time
	CauseRegistrationLost Cause = "registration-lost" // registered, but the answer was lost
	CausePodFailed        Cause = "pod-failed"        // the pod ended without a job
	CauseHookMissing      Cause = "hook-missing"      // GitHub says a job runs; the hook never asked
	CauseJobDeadline      Cause = "job-deadline"      // the job ran longer than allowed
	CauseHostLost         Cause = "host-lost"         // somebody else took or replaced the node
	CauseSecondJob        Cause = "second-job"        // another job reached a runner that had started one
	CauseHostSilent       Cause = "host-silent"       // its kubelet said nothing for too long
	CauseHostEnded        Cause = "host-ended"        // the cloud shows it over, and its pod was still said to be there
)

// Retired ends a runner that no job ran on to its end.
type Retired struct {
	Runner    Name   `json:"runner" pat:"name"`
	Cause     Cause  `json:"cause" pat:"word"`
	PodReason string `json:"podReason,omitempty" pat:"word,opt"`
}

// Completed says that the job's runner is over: its pod is terminal and its
// registration is gone, two signals that agree.
type Completed struct {
	Runner    Name     `json:"runner" pat:"name"`
	Job       JobID    `json:"job" pat:"job"`
	PodPhase  PodPhase `json:"podPhase" pat:"word"`
	PodReason string   `json:"podReason,omitempty" pat:"word,opt"`
}

// Cancelled says that GitHub accepted to cancel a run whose job may not run.
// Exactly one of Job and Runner names the chain: Runner when a job that was
// never authorized had reached a runner. A job that a plain cancellation did not
// end, because it is if: always(), is cancelled once more by force.
type Cancelled struct {
	Job        JobID  `json:"job,omitempty" pat:"job,opt"`
	Runner     Name   `json:"runner,omitempty" pat:"name,opt"`
	Repository string `json:"repository" pat:"repo"`
	RunID      int64  `json:"runId,string"`
	Forced     bool   `json:"forced"`
}

// Teardown is the intent to end a host. It is durable before the first call
// that ends it, with the volumes that must be gone afterwards.
type Teardown struct {
	Runner     Name     `json:"runner" pat:"name"`
	InstanceID string   `json:"instanceId" pat:"host"`
	Volumes    []string `json:"volumes" pat:"word"`
	Interfaces []string `json:"interfaces,omitempty" pat:"word"`
}

// Stage is a part of a host's end that can be late.
type Stage string

// The stages of a teardown.
const (
	StagePod          Stage = "pod"
	StageRegistration Stage = "registration"
	StageInstance     Stage = "instance"
	StageVolumes      Stage = "volumes"
	StageNode         Stage = "node"
)

// Overdue is an alarm: the host was not gone in time. It does not end the
// runner; nothing but an observed end does.
type Overdue struct {
	Runner  Name      `json:"runner" pat:"name"`
	Pending []Stage   `json:"pending" pat:"word"`
	Since   time.Time `json:"since"`
}

// Transition is a state of the instance with the time we saw it.
type Transition struct {
	State string    `json:"state" pat:"word"`
	At    time.Time `json:"at"`
}

// Ending says that the cloud itself showed the host on its way out. It is
// durable, because the cloud forgets: after this record, and only then, a host
// that is listed no more is known to be gone.
type Ending struct {
	Runner     Name   `json:"runner" pat:"name"`
	InstanceID string `json:"instanceId" pat:"host"`
	State      string `json:"state" pat:"word"` // shutting-down or terminated
}

// Terminated says that the host was observed gone, not merely told to go.
type Terminated struct {
	Runner     Name   `json:"runner" pat:"name"`
	InstanceID string `json:"instanceId" pat:"host"`
	// States were seen in this order; the last is "terminated", or "unlisted"
	// for a host whose end was recorded before the cloud forgot it.
	States           []Transition `json:"states"`
	ReasonCode       string       `json:"reasonCode,omitempty" pat:"word,opt"`
	VolumesGone      []string     `json:"volumesGone" pat:"word"`
	PodGone          bool         `json:"podGone"`
	NodeGone         bool         `json:"nodeGone"`
	RegistrationGone bool         `json:"registrationGone"`
	// ActivityID and Requests join this record with the cloud's audit trail.
	ActivityID string    `json:"activityId,omitempty" pat:"word,opt"`
	Requests   []Request `json:"requests,omitempty"`
	// Omitted counts requests between the first and the last that are listed.
	Omitted int `json:"omitted,omitempty"`
}
