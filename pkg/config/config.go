// Package config reads the daemon's configuration: one YAML file, strictly.
// Everything that is wrong is reported at once, each with its place, what is
// wrong and how to mend it. The comments of the types are the manual.
//
// Secrets are never in the file: it names the files that hold them, so the
// effective configuration can be printed and its digest recorded.
package config

import (
	"bytes"
	"fmt"
	"time"

	"go.yaml.in/yaml/v3"
)

// Config is the whole file.
type Config struct {
	GitHub     GitHub     `yaml:"github"`
	Pool       Pool       `yaml:"pool"`
	Limits     Limits     `yaml:"limits"`
	Supervisor Supervisor `yaml:"supervisor"`
	Cluster    Cluster    `yaml:"cluster"`
	Hosts      Hosts      `yaml:"hosts"`
	Ledger     Ledger     `yaml:"ledger"`
	Policy     Policy     `yaml:"policy"`
	Admission  Admission  `yaml:"admission"`
	Status     Status     `yaml:"status"`
	Log        Log        `yaml:"log"`
}

// GitHub says where GitHub is and how we sign in. Exactly one of app and
// tokenFile is given.
type GitHub struct {
	// URL is the organization's own page, https://github.com/ORG.
	URL string `yaml:"url"`
	App App    `yaml:"app"`
	// TokenFile holds a personal access token; meant for trying out.
	TokenFile string `yaml:"tokenFile"`
	// CAFile holds the certificates that GitHub Enterprise Server or a
	// proxy presents, in PEM; empty means those of the system.
	CAFile string `yaml:"caFile"`
	// Proxy is the http or https URL of a proxy; empty means that of the
	// environment, if there is one.
	Proxy string `yaml:"proxy"`
	// OIDCIssuer signs the tokens of jobs.
	OIDCIssuer string `yaml:"oidcIssuer"`
	// DeliveriesEvery is how often GitHub is asked what it told the App by
	// webhook: the one source that says who approved which attempt, and when.
	// 0s asks for nothing; it needs app.
	DeliveriesEvery time.Duration `yaml:"deliveriesEvery"`
	// AnswerDeployments makes the App answer as a custom deployment protection
	// rule, so that a developer sees on GitHub's own page why not.
	AnswerDeployments bool `yaml:"answerDeployments"`
	// SAMLNames records whom the organization's identity provider knows an
	// approver as. It needs the organization's audit log (Enterprise Cloud).
	SAMLNames bool `yaml:"samlNames"`
}

// App is a GitHub App installed in the organization.
type App struct {
	// ClientID is the App's client id, such as Iv23liABCDEF.
	ClientID       string `yaml:"clientId"`
	InstallationID int64  `yaml:"installationId"`
	// PrivateKeyFile holds the App's private key in PEM, readable by us alone.
	PrivateKeyFile string `yaml:"privateKeyFile"`
	// PrivateKeyKMS is the ARN of an AWS KMS key that holds it instead: the
	// key never leaves KMS.
	PrivateKeyKMS string `yaml:"privateKeyKMS"`
}

// Pool says which jobs may run here. The policy judges by it.
type Pool struct {
	// Name is the name of the runner scale set.
	Name string `yaml:"name"`
	// Group is the restricted runner group of the organization.
	Group string `yaml:"group"`
	// Labels are what jobs may ask for with runs-on.
	Labels []string `yaml:"labels"`
	// OrganizationID is the organization's numeric id: a name can be taken
	// over, an id cannot.
	OrganizationID int64        `yaml:"organizationId"`
	Repositories   []Repository `yaml:"repositories"`
	// Environment is the protected deployment environment.
	Environment string `yaml:"environment"`
	// Workflows is the catalogue of deploy workflows.
	Workflows []Workflow `yaml:"workflows"`
	// ApproverTeams are the slugs of the teams whose members may approve.
	ApproverTeams []string `yaml:"approverTeams"`
	// Events may trigger a deploy, such as push.
	Events []string `yaml:"events"`
	// CoolOff is how long an approval must have stood; 0s asks for nothing.
	CoolOff time.Duration `yaml:"coolOff"`
	// MaxFactsAge bounds how old what GitHub said may be when it is judged,
	// MaxTokenAge how old a job's token may be when it is presented, and
	// MaxStartAge how long after its authorization a job may start. All in
	// whole seconds.
	MaxFactsAge time.Duration `yaml:"maxFactsAge"`
	MaxTokenAge time.Duration `yaml:"maxTokenAge"`
	MaxStartAge time.Duration `yaml:"maxStartAge"`
}

// Repository is a repository that may deploy.
type Repository struct {
	// Name is owner/name.
	Name string `yaml:"name"`
	ID   int64  `yaml:"id"`
}

// Workflow is a reusable workflow that may deploy.
type Workflow struct {
	// Ref is owner/repo/path@refs/tags/vX.Y.Z.
	Ref string `yaml:"ref"`
	// SHA is the commit that the tag names. A tag that was moved is refused.
	SHA string `yaml:"sha"`
}

// Limits bound every phase of a job and a runner; see runner.Limits.
type Limits struct {
	MaxRunners   int           `yaml:"maxRunners"`
	MaxAttempts  int           `yaml:"maxAttempts"`
	DecideBy     time.Duration `yaml:"decideBy"`
	BindBy       time.Duration `yaml:"bindBy"`
	ReleaseBy    time.Duration `yaml:"releaseBy"`
	IdleTTL      time.Duration `yaml:"idleTTL"`
	SurplusGrace time.Duration `yaml:"surplusGrace"`
	HookGrace    time.Duration `yaml:"hookGrace"`
	JobTTL       time.Duration `yaml:"jobTTL"`
	// SilentFor is how long the kubelet of a host in use may say nothing before
	// its runner is given up and the host ended, whatever its pod is said to do.
	// It is two minutes or more, and longer than ten ticks.
	SilentFor time.Duration `yaml:"silentFor"`
	// EscalateAfter is how long the node group may take to begin the end of a
	// host before EC2 is asked directly, around hooks and drains.
	EscalateAfter time.Duration `yaml:"escalateAfter"`
	TeardownBy    time.Duration `yaml:"teardownBy"`
	ConcludeGrace time.Duration `yaml:"concludeGrace"`
}

// Supervisor tunes the loop.
type Supervisor struct {
	// Tick is how often the cluster and the cloud are looked at.
	Tick           time.Duration  `yaml:"tick"`
	LeaderElection LeaderElection `yaml:"leaderElection"`
}

// LeaderElection lets one of several daemons act while the others stand by. It
// keeps them from getting in each other's way; that only one can write the
// ledger does not depend on it.
type LeaderElection struct {
	Enabled bool `yaml:"enabled"`
	// LeaseName is the Lease in cluster.namespace that they compete for.
	LeaseName string `yaml:"leaseName"`
	// LeaseDuration is how long the others wait after the last renewal, in whole
	// seconds; RenewDeadline is for how long the leader goes on without one;
	// RetryPeriod is the time between two tries.
	LeaseDuration time.Duration `yaml:"leaseDuration"`
	RenewDeadline time.Duration `yaml:"renewDeadline"`
	RetryPeriod   time.Duration `yaml:"retryPeriod"`
}

// Cluster says where runner pods run and what they are.
type Cluster struct {
	// Name names the cluster in the evidence.
	Name string `yaml:"name"`
	// KubeconfigFile is empty inside the cluster.
	KubeconfigFile string `yaml:"kubeconfigFile"`
	Namespace      string `yaml:"namespace"`
	ServiceAccount string `yaml:"serviceAccount"`
	// NodeLabels and Taint are what makes a node one of the pool.
	NodeLabels []KeyValue `yaml:"nodeLabels"`
	Taint      Taint      `yaml:"taint"`
	// RunnerImage and AgentImage are pinned: name@sha256:digest.
	RunnerImage string `yaml:"runnerImage"`
	AgentImage  string `yaml:"agentImage"`
	// RunnerCommand starts the runner in its image; the agent runs it.
	RunnerCommand []string `yaml:"runnerCommand"`
	// AdmissionURL is where the agent reaches us, AdmissionCAConfigMap the
	// ConfigMap whose ca.crt it trusts.
	AdmissionURL         string `yaml:"admissionURL"`
	AdmissionCAConfigMap string `yaml:"admissionCAConfigMap"`
	// CPU and Memory are both request and limit of the runner container.
	CPU    string `yaml:"cpu"`
	Memory string `yaml:"memory"`
}

// KeyValue is a label or tag. Labels are lists, not maps: keys have dots and
// capitals, which a map of a configuration file does not keep.
type KeyValue struct {
	Key   string `yaml:"key"`
	Value string `yaml:"value"`
}

// Taint is a Kubernetes taint.
type Taint struct {
	Key    string `yaml:"key"`
	Value  string `yaml:"value"`
	Effect string `yaml:"effect"`
}

// Hosts says what the cloud must say of a host before it serves a job.
type Hosts struct {
	// Driver is autoscaling (AWS Auto Scaling groups), karpenter (a NodeClaim for
	// each host) or none (hosts are cordoned for ever, not terminated; for
	// development).
	Driver string `yaml:"driver"`
	// Region is where the API is called, Endpoint and CAFile replace AWS's own.
	Region   string `yaml:"region"`
	Endpoint string `yaml:"endpoint"`
	CAFile   string `yaml:"caFile"`
	// Accounts are the AWS accounts under the business associate addendum.
	Accounts []string `yaml:"accounts"`
	Regions  []string `yaml:"regions"`
	Subnets  []string `yaml:"subnets"`
	// Groups are the Auto Scaling groups of the pool. They may be left out with
	// Nodegroup, the managed node group that they are of.
	Groups    []string  `yaml:"groups"`
	Nodegroup Nodegroup `yaml:"nodegroup"`
	Karpenter Karpenter `yaml:"karpenter"`
	// ImageIDs are exact, ImageNames are prefixes, ImageParameters are names of
	// AWS's public parameters, whose images are allowed as long as they are
	// named; one of them must match.
	ImageIDs        []string `yaml:"imageIds"`
	ImageNames      []string `yaml:"imageNames"`
	ImageParameters []string `yaml:"imageParameters"`
	// ImageOwners are account ids or aliases such as amazon.
	ImageOwners []string `yaml:"imageOwners"`
	BootModes   []string `yaml:"bootModes"`
	// InstanceProfiles are ARNs: what a host may do in AWS without any job.
	InstanceProfiles []string `yaml:"instanceProfiles"`
	// Warm is how many unclaimed hosts are kept ready, PrelaunchFor for how long
	// one is for a deployment that waits for its approval or its timer. With
	// both zero the size of the groups is left alone.
	Warm         int           `yaml:"warm"`
	PrelaunchFor time.Duration `yaml:"prelaunchFor"`
	// OSImage is a regular expression for the whole of what the node says it
	// runs, so it starts with ^ and ends with $; empty asks for nothing.
	OSImage  string       `yaml:"osImage"`
	Tags     []KeyValue   `yaml:"tags"`
	Identity HostIdentity `yaml:"identity"`
}

// Nodegroup names a managed node group of EKS; empty means that there is none.
type Nodegroup struct {
	Cluster string `yaml:"cluster"`
	Name    string `yaml:"name"`
}

// Karpenter says which machines Karpenter launches for the pool.
type Karpenter struct {
	// NodeClass is an EC2NodeClass that launches the pool's hosts and nothing
	// else: a machine with its tag may be ended.
	NodeClass string `yaml:"nodeClass"`
	// Requirements choose machines by well-known labels. Without one for
	// karpenter.sh/capacity-type only on-demand machines are chosen.
	Requirements []Requirement `yaml:"requirements"`
	// StartupTaints are removed by whoever prepares a node; until then it takes
	// no job.
	StartupTaints []Taint `yaml:"startupTaints"`
	// Max bounds how many machines there may be, those that are ending among them.
	Max int `yaml:"max"`
	// RegisterBy is how long a machine may take to become a node.
	RegisterBy time.Duration `yaml:"registerBy"`
	// TerminationGracePeriod is how long Karpenter waits for pods on a node whose
	// NodeClaim somebody deletes. It outlasts limits.jobTTL.
	TerminationGracePeriod time.Duration `yaml:"terminationGracePeriod"`
}

// Requirement is one of Kubernetes' node selector requirements.
type Requirement struct {
	Key      string   `yaml:"key"`
	Operator string   `yaml:"operator"`
	Values   []string `yaml:"values"`
}

// HostIdentity says whether hosts have a witness, which presents the identity
// document that AWS signed of the instance.
type HostIdentity struct {
	// CertificatesFile holds the certificates that AWS publishes for RSA-2048
	// signatures: for each a line "# REGION" and the PEM block. Empty means
	// that no documents are taken. It is read at start.
	CertificatesFile string `yaml:"certificatesFile"`
	// Namespace and ServiceAccount are the witness's account. The namespace is
	// not that of runner pods, because the witness needs hostNetwork.
	Namespace      string `yaml:"namespace"`
	ServiceAccount string `yaml:"serviceAccount"`
	// Required lets no host without a verified document serve a job.
	Required bool `yaml:"required"`
}

// Ledger says where the evidence is. Exactly one of dir and s3 is given.
type Ledger struct {
	// Dir is a folder on a local disk.
	Dir string `yaml:"dir"`
	S3  S3     `yaml:"s3"`
	// KeysDir holds the signing keys, which are made on first start. Exactly
	// one of keysDir and kms is given.
	KeysDir string    `yaml:"keysDir"`
	KMS     LedgerKMS `yaml:"kms"`
	// RootFile is what verifies the ledger; it is written on every start.
	RootFile string `yaml:"rootFile"`
	// Origin names the log for all time, like runnerward.example.com/prod. The
	// log adds the year to it, in every year after the first.
	Origin string `yaml:"origin"`
	// SpoolDir keeps signed records of endings while the log's store cannot be
	// written. Empty means that they wait in memory.
	SpoolDir string `yaml:"spoolDir"`
}

// S3 is a bucket with Object Lock, and one without for the view.
type S3 struct {
	// Bucket holds the log below Prefix, locked in COMPLIANCE mode.
	Bucket string `yaml:"bucket"`
	Prefix string `yaml:"prefix"`
	// ViewBucket holds what is derived from the log and rewritten all the time,
	// below ViewPrefix. It must not be locked.
	ViewBucket string `yaml:"viewBucket"`
	ViewPrefix string `yaml:"viewPrefix"`
	Region     string `yaml:"region"`
	// Endpoint and CAFile replace AWS's own.
	Endpoint string `yaml:"endpoint"`
	CAFile   string `yaml:"caFile"`
	// BucketOwner is the account of both buckets; S3 refuses every call when a
	// bucket belongs to another one.
	BucketOwner string `yaml:"bucketOwner"`
	// SlackDays are added to the end of the year of writing and six years.
	SlackDays int `yaml:"slackDays"`
}

// LedgerKMS names the signing keys in AWS KMS, which they never leave, by ARN.
type LedgerKMS struct {
	// RecordKey signs records: key spec ECC_NIST_P256, usage SIGN_VERIFY.
	RecordKey string `yaml:"recordKey"`
	// CheckpointKey signs checkpoints: key spec ECC_NIST_EDWARDS25519.
	CheckpointKey string `yaml:"checkpointKey"`
	// PreviousRecordKey and PreviousCheckpointKey hand over to those above on
	// the next start. They may be taken out again after it.
	PreviousRecordKey     string `yaml:"previousRecordKey"`
	PreviousCheckpointKey string `yaml:"previousCheckpointKey"`
	// PreviousKeysDir is the folder of the keys that hand over, of a ledger
	// that moves from files to KMS.
	PreviousKeysDir string `yaml:"previousKeysDir"`
	// Region is where KMS is called; empty means the region of the keys.
	Region string `yaml:"region"`
	// Endpoint replaces KMS's own, for a VPC endpoint.
	Endpoint string `yaml:"endpoint"`
}

// Policy says which policy decides.
type Policy struct {
	// Dir holds the Rego files; empty means the policy in the binary.
	Dir string `yaml:"dir"`
}

// Admission is the endpoint that runner pods talk to.
type Admission struct {
	Listen   string `yaml:"listen"`
	CertFile string `yaml:"certFile"`
	KeyFile  string `yaml:"keyFile"`
}

// Status is the endpoint that on-call looks at.
type Status struct {
	Listen   string `yaml:"listen"`
	CertFile string `yaml:"certFile"`
	KeyFile  string `yaml:"keyFile"`
	// ClientCAFile verifies client certificates; Admins are the common names
	// that may freeze, drain and kill. Without them nobody may.
	ClientCAFile string   `yaml:"clientCAFile"`
	Admins       []string `yaml:"admins"`
}

// Log says what is logged: level debug, info, warn or error; format json or
// console.
type Log struct {
	Level  string `yaml:"level"`
	Format string `yaml:"format"`
}

// defaults are the values of keys that the file leaves out. Lists have none:
// a decoder would merge a default list with a shorter one of the file.
func defaults() Config {
	return Config{
		GitHub: GitHub{OIDCIssuer: hostedIssuer, DeliveriesEvery: 15 * time.Second},
		Pool:   Pool{MaxFactsAge: 2 * time.Minute, MaxTokenAge: 5 * time.Minute, MaxStartAge: time.Hour},
		Limits: Limits{
			MaxRunners: 6, MaxAttempts: 3,
			DecideBy: 10 * time.Minute, BindBy: 5 * time.Minute, ReleaseBy: 2 * time.Minute,
			IdleTTL: 4 * time.Minute, SurplusGrace: 30 * time.Second, HookGrace: 2 * time.Minute,
			JobTTL: 2 * time.Hour, SilentFor: 10 * time.Minute, EscalateAfter: 5 * time.Minute, TeardownBy: 15 * time.Minute, ConcludeGrace: 2 * time.Minute,
		},
		Supervisor: Supervisor{Tick: 2 * time.Second, LeaderElection: LeaderElection{
			LeaseName: "runnerward", LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second,
		}},
		Hosts:     Hosts{Karpenter: Karpenter{Max: 8, RegisterBy: 10 * time.Minute, TerminationGracePeriod: 3 * time.Hour}, Identity: HostIdentity{Namespace: "runnerward-witness", ServiceAccount: "runnerward-witness"}},
		Ledger:    Ledger{S3: S3{SlackDays: defaultSlackDays}},
		Admission: Admission{Listen: ":8443"},
		Status:    Status{Listen: ":9443"},
		Log:       Log{Level: "info", Format: "json"},
	}
}

// Effective is the configuration in force, defaults and environment included,
// as YAML. It names secret files and holds no secret, and loads again as it is.
func (c *Config) Effective() ([]byte, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(c); err != nil {
		return nil, fmt.Errorf("encode configuration: %w", err)
	}
	return b.Bytes(), nil
}
