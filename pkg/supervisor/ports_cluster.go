package supervisor

import (
	"context"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

// Cluster is the Kubernetes API as far as runners need it. It is safe for
// concurrent use.
type Cluster interface {
	// Nodes lists the nodes that carry the pool's label. It may be a moment
	// late; NodesNow is as the API server has them, for what cannot be undone.
	Nodes(ctx context.Context) ([]runner.Node, error)
	NodesNow(ctx context.Context) ([]runner.Node, error)
	// NodeNow is the node of this name as the API server has it, whatever its
	// labels; false says that there is none.
	NodeNow(ctx context.Context, name string) (runner.Node, bool, error)
	// ClaimNode cordons and taints the node and writes the runner's name on
	// it, guarded by the node's UID, boot id and resource version. Claiming again for
	// the same runner is a success, for another ErrConflict. There is no way
	// back: a claimed node never serves again.
	ClaimNode(ctx context.Context, host runner.Host, name runner.Name) error
	// EnsurePod creates the runner's pod if it does not exist. A pod that
	// exists under the name but for another audience or node is ErrConflict.
	EnsurePod(ctx context.Context, spec PodSpec) error
	// Pod says how the runner's pod is; PodGone is a positive answer, and never
	// late. A pod that is there may have gone on a moment ago; PodNow is as the
	// API server has it, for what cannot be undone.
	Pod(ctx context.Context, name runner.Name) (runner.Pod, error)
	PodNow(ctx context.Context, name runner.Name) (runner.Pod, error)
	// Pods lists all pods of this pool's runners, of every state.
	Pods(ctx context.Context) ([]runner.Pod, error)
	// DeletePod deletes the pod; one that is gone is a success. Grace 0 kills.
	DeletePod(ctx context.Context, name runner.Name, grace time.Duration) error
	// DeleteNode deletes the node object if it still is the one with this UID.
	DeleteNode(ctx context.Context, name, uid string) error
	// NodeGone says whether no node of this name and UID exists.
	NodeGone(ctx context.Context, name, uid string) (bool, error)
	// Review asks the cluster whose token this is, for this audience. A token
	// that it does not vouch for, or not as one of a runner's pod, is a [Rebuff]
	// with ErrTokenRejected.
	Review(ctx context.Context, token, audience string) (runner.PodIdentity, error)
	// ReviewWitness is Review for the account of the hosts' witnesses.
	ReviewWitness(ctx context.Context, token, audience string) (runner.PodIdentity, error)
	// Event shows a decision on the pod and node with kubectl; either may be
	// empty. It never blocks and never fails the caller.
	Event(name runner.Name, node, reason, note string)
	// Health says how the cluster is followed. It never waits.
	Health() ClusterHealth
}

// Change is what changed in the cluster since the last one.
type Change struct {
	// Runners are those whose pod changed, or whose node is gone.
	Runners []runner.Name
	// Nodes says that some node of the pool changed.
	Nodes bool
}

// ClusterHealth is how the cluster is followed and what that costs.
type ClusterHealth struct {
	Watches  []WatchHealth  `json:"watches,omitempty"`
	Requests []RequestCount `json:"requests,omitempty"`
	// DroppedEvents were never shown to anybody.
	DroppedEvents int64 `json:"droppedEvents"`
}

// WatchHealth is how one kind of object is watched. Where it is not, the API
// server is asked each time.
type WatchHealth struct {
	What     string    `json:"what"`
	Open     bool      `json:"open"`
	Since    time.Time `json:"since"` // it was opened, or lost
	Problem  string    `json:"problem,omitempty"`
	Lists    int64     `json:"lists"`    // since the start; the first is no sign of trouble
	Failures int64     `json:"failures"` // of lists and watches
}

// RequestCount is how often the API server was asked for something.
type RequestCount struct {
	Verb     string `json:"verb"`
	Resource string `json:"resource"`
	Code     int    `json:"code"` // of the answer, 0 when none came
	Count    int64  `json:"count"`
}

// PodSpec is what varies between runner pods.
type PodSpec struct {
	Runner     runner.Name
	NodeName   string
	Authorized runner.Digest // the audience of the pod's claim token
	Cause      runner.JobID
	Repository string
	RunID      int64
	RunAttempt int64
	JobTTL     time.Duration // becomes activeDeadlineSeconds
}
