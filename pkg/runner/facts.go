package runner

import "time"

// The types in this file are observations: what an adapter was told by GitHub,
// the cluster or AWS. A pointer that is nil, an empty string or a zero id says
// "unknown", never "no"; unknown fails closed.

// Person is a GitHub account. The numeric id is the identity; a login can be
// renamed and compares without case.
type Person struct {
	ID    int64  `json:"id,string"`
	Login string `json:"login" pat:"login"`
	// Type is GitHub's account type: User, Bot or Organization.
	Type string `json:"type,omitempty" pat:"word,opt"`
}

// Workflow is a reusable workflow that a run refers to, as GitHub resolved it.
type Workflow struct {
	// Ref is owner/repo/path@ref, the form of the OIDC claim job_workflow_ref.
	Ref string `json:"ref" pat:"workflow"`
	SHA string `json:"sha" pat:"sha,opt"`
}

// Approval is one review of a deployment to an environment. GitHub's REST
// answer has no time, attempt or job: SeenAt is when we first saw it and
// NotBefore the last time we looked and did not.
type Approval struct {
	By            Person `json:"by"`
	State         string `json:"state" pat:"word"`
	EnvironmentID int64  `json:"environmentId,string"`
	Environment   string `json:"environment" pat:"env"`
	Team          string `json:"team,omitempty" pat:"slug,opt"`
	InTeam        *bool  `json:"inTeam,omitempty"`
	Source        string `json:"source" pat:"word"`
	// Delivery is the webhook that told of it, empty for SourceREST.
	Delivery  string    `json:"delivery,omitempty" pat:"word,opt"`
	NotBefore time.Time `json:"notBefore,omitzero"`
	SeenAt    time.Time `json:"seenAt,omitzero"`
	// NameID is who the organization's identity provider says the account is,
	// empty when it does not say.
	NameID string `json:"nameId,omitempty" pat:"nameid,opt"`
}

// Environment is the deployment environment's protection, as GitHub shows it.
type Environment struct {
	ID                int64    `json:"id,string"`
	Name              string   `json:"name" pat:"env"`
	HasReviewers      *bool    `json:"hasReviewers,omitempty"`
	ReviewerTeams     []string `json:"reviewerTeams,omitempty" pat:"slug"`
	ReviewersAllTeams *bool    `json:"reviewersAllTeams,omitempty"`
	PreventSelfReview *bool    `json:"preventSelfReview,omitempty"`
}

// Group is the runner group as GitHub shows it now.
type Group struct {
	ID                    int64    `json:"id,string"`
	Name                  string   `json:"name" pat:"label"`
	Visibility            string   `json:"visibility,omitempty" pat:"word,opt"`
	AllowsPublic          *bool    `json:"allowsPublic,omitempty"`
	RestrictedToWorkflows *bool    `json:"restrictedToWorkflows,omitempty"`
	SelectedWorkflows     []string `json:"selectedWorkflows,omitempty" pat:"workflow"`
	RepositoryIDs         []int64  `json:"repositoryIds,omitempty"`
}

// Facts are what we asked GitHub ourselves about a job. Nothing in them is
// what the job says about itself.
type Facts struct {
	FetchedAt    time.Time `json:"fetchedAt"`
	ServerURL    string    `json:"serverUrl" pat:"url"`
	Repository   string    `json:"repository" pat:"repo"`
	RepositoryID int64     `json:"repositoryId,string"`
	OwnerID      int64     `json:"ownerId,string"`
	RunID        int64     `json:"runId,string"`
	RunAttempt   int64     `json:"runAttempt,string"`
	CheckRunID   int64     `json:"checkRunId,string"`
	Event        string    `json:"event" pat:"word"`
	Ref          string    `json:"ref" pat:"gitref,opt"`
	HeadSHA      string    `json:"headSha" pat:"sha"`
	WorkflowPath string    `json:"workflowPath" pat:"path"`
	JobWorkflow  Workflow  `json:"jobWorkflow"`
	// ReferencedWorkflows are all reusable workflows of the run, that of the job
	// among them, as GitHub resolved them.
	ReferencedWorkflows []Workflow `json:"referencedWorkflows,omitempty"`
	Actor               Person     `json:"actor"`
	TriggeringActor     Person     `json:"triggeringActor"`
	HeadAuthor          *Person    `json:"headAuthor,omitempty"`
	// TagPusher pushed the tag that the run was started for: nil when that is
	// unknown, or when the run was started for a branch.
	TagPusher *Person `json:"tagPusher,omitempty"`
	// PullAuthors wrote the pull requests that brought the head commit, nil
	// when unknown, empty when there are none.
	PullAuthors []Person     `json:"pullAuthors"`
	Environment *Environment `json:"environment,omitempty"`
	Approvals   []Approval   `json:"approvals"`
	Group       *Group       `json:"group,omitempty"`
}

// Claims are the verified claims of a GitHub OIDC token that a job presented.
// https://docs.github.com/en/actions/reference/security/oidc
type Claims struct {
	Subject           string    `json:"subject" pat:"subject,opt"`
	Repository        string    `json:"repository" pat:"repo"`
	RepositoryID      int64     `json:"repositoryId,string"`
	OwnerID           int64     `json:"ownerId,string"`
	RunID             int64     `json:"runId,string"`
	RunAttempt        int64     `json:"runAttempt,string"`
	CheckRunID        int64     `json:"checkRunId,string"`
	Environment       string    `json:"environment,omitempty" pat:"env,opt"`
	Event             string    `json:"event" pat:"word,opt"`
	Ref               string    `json:"ref" pat:"gitref,opt"`
	SHA               string    `json:"sha" pat:"sha,opt"`
	JobWorkflow       Workflow  `json:"jobWorkflow"`
	WorkflowRef       string    `json:"workflowRef" pat:"workflow,opt"`
	ActorID           int64     `json:"actorId,string"`
	RunnerEnvironment string    `json:"runnerEnvironment" pat:"word,opt"`
	IssuedAt          time.Time `json:"issuedAt"`
	ExpiresAt         time.Time `json:"expiresAt"`
	// TokenID is the digest of jti, Token the digest of the whole token: the
	// token itself is a credential and never recorded.
	TokenID Digest `json:"tokenId" pat:"digest"`
	Token   Digest `json:"token" pat:"digest"`
}

// Node is a cluster node of the pool. What the kubelet says about its own
// operating system is a claim, not a proof.
type Node struct {
	Name, UID, BootID, MachineID string
	ProviderID                   string
	OSImage, KubeletVersion      string
	InternalIP                   string
	Labels                       map[string]string
	Taints                       []Taint
	Ready, Cordoned              bool
	// ClaimedBy is the runner this node was claimed for, empty if never.
	ClaimedBy Name
	CreatedAt time.Time
}

// Taint is a Kubernetes taint: key=value:effect.
type Taint struct{ Key, Value, Effect string }

// Instance is what EC2 itself says about a host.
type Instance struct {
	ID, AccountID, Region, Zone    string
	State, StateReason             string
	ImageID, ImageName, ImageOwner string
	ImageOwnerAlias                string
	Type, BootMode, Profile        string
	VPC, Subnet, PrivateIP         string
	PublicIP                       string
	HTTPTokens                     string
	HopLimit                       int64
	LaunchedAt                     time.Time
	Volumes, NetworkInterfaces     []string
	// Attachments are the EBS volumes with the times at which they were
	// attached, InterfaceAt is when the primary network interface was.
	Attachments []Attachment
	InterfaceAt time.Time
	// Group is the Auto Scaling group, Lifecycle the state in it.
	Group, Lifecycle string
	// NodeClaim is the pool's NodeClaim that the instance was launched for, nil
	// while that is not known.
	NodeClaim *NodeClaim
	Tags      map[string]string
	// PrivateSubnet says that the subnet gives out no public addresses and has
	// no way in from the internet; nil when that is not known.
	PrivateSubnet *bool
	// ParameterImages are the image ids that public parameters name now. One
	// that could not be resolved is missing.
	ParameterImages map[string]string
}

// NodeClaim is a NodeClaim of Karpenter. An empty name is a positive "none".
type NodeClaim struct {
	Name  string
	State NodeClaimState
}

// NodeClaimState is how far Karpenter is with a NodeClaim.
type NodeClaimState string

// The states of a NodeClaim that we tell apart. Ready means that its node has
// registered and lost its startup taints, Deleting that somebody asked for its end.
const (
	NodeClaimStarting NodeClaimState = "Starting"
	NodeClaimReady    NodeClaimState = "Ready"
	NodeClaimDeleting NodeClaimState = "Deleting"
)

// Attachment is an EBS volume of an instance. A zero time is unknown.
type Attachment struct {
	Volume string
	Root   bool
	At     time.Time
}

// PodPhase is what the cluster says of a runner's pod.
type PodPhase string

// The phases of a pod that we tell apart. PodGone is a positive "not found".
const (
	PodPending   PodPhase = "Pending"
	PodRunning   PodPhase = "Running"
	PodSucceeded PodPhase = "Succeeded"
	PodFailed    PodPhase = "Failed"
	PodGone      PodPhase = "Gone"
)

// Terminal says that no process of the pod will ever run again.
func (p PodPhase) Terminal() bool {
	return p == PodSucceeded || p == PodFailed || p == PodGone
}

// Pod is a runner's pod as the cluster shows it.
type Pod struct {
	Name, UID, NodeName string
	// Authorized is the record that the pod says it was made for. Whoever may
	// write pods may write this; what a pod may have, its token decides.
	Authorized Digest
	Phase      PodPhase
	// Reason is Kubernetes' machine-readable reason, such as OOMKilled, or empty.
	// It explains to people and decides nothing about a job.
	Reason string
	// Deleting says that somebody asked for its deletion.
	Deleting bool
}

// PodIdentity is what TokenReview says about the bearer of a projected token.
type PodIdentity struct {
	Namespace, ServiceAccount string
	PodName, PodUID           string
	NodeName, NodeUID         string
	// Token is the digest of the token.
	Token Digest
}
