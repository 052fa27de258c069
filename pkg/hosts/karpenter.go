package hosts

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"go.uber.org/zap"
	"k8s.io/client-go/dynamic"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// KarpenterOptions configure the driver.
type KarpenterOptions struct {
	// Region is recorded as the region of every instance; it must be the one
	// that the AWS clients ask.
	Region string
	// Pool names the pool on its NodeClaims, and begins their names: lower-case
	// letters, digits and dashes.
	Pool string
	// NodeClass is the EC2NodeClass of the pool's hosts, and of nothing else.
	NodeClass string
	// Requirements say which machines Karpenter may choose.
	Requirements []Requirement
	// StartupTaints keep pods away until somebody else removes them.
	StartupTaints []runner.Taint
	// Max bounds how many machines there may be at once, those that are ending
	// among them.
	Max int
	// RegisterBy is how long a NodeClaim may take to become a node before it is
	// deleted and another one made.
	RegisterBy time.Duration
	// TerminationGracePeriod is how long Karpenter waits for pods on a node that
	// is ending. It should outlast a job: who deletes a NodeClaim under a deploy
	// then waits for it.
	TerminationGracePeriod time.Duration
	// Rules are what hosts are vetted by: labels and taint for the NodeClaim, and
	// what the node class is compared with.
	Rules runner.VetRules
	// NewName makes a name that nobody can guess and that is never made again.
	NewName func() string
	Logger  *zap.Logger
	// CallTimeout bounds one API call with its retries; 30 s if zero.
	CallTimeout time.Duration
}

var _ supervisor.Hosts = (*Karpenter)(nil)

// Karpenter drives hosts that Karpenter launches: one NodeClaim for each, which
// belongs to no NodePool, so that neither consolidation nor drift considers it
// (sigs.k8s.io/karpenter v1.15.0, pkg/controllers/disruption/types.go,
// NewCandidate; pkg/controllers/nodeclaim/disruption). That a host ended is
// EC2's to say: a NodeClaim can be gone while its machine runs, when somebody
// removed its finalizer. It is safe for concurrent use.
type Karpenter struct {
	machines
	api      dynamic.Interface
	opt      KarpenterOptions
	attempts attempts
}

// NewKarpenter makes the driver. It makes no request.
func NewKarpenter(cfg aws.Config, api dynamic.Interface, opt KarpenterOptions) (*Karpenter, error) {
	switch {
	case opt.Region == "" || opt.Region != cfg.Region:
		return nil, fmt.Errorf("hosts: region %q, but the AWS configuration asks %q", opt.Region, cfg.Region)
	case opt.Pool == "" || opt.NodeClass == "" || opt.NewName == nil:
		return nil, errors.New("hosts: Karpenter needs a pool, a node class and names")
	case opt.Max < 1 || opt.RegisterBy <= 0 || opt.TerminationGracePeriod <= 0:
		return nil, fmt.Errorf("hosts: at most %d hosts that register within %s and drain for %s: all must be above 0",
			opt.Max, opt.RegisterBy, opt.TerminationGracePeriod)
	}
	if opt.CallTimeout == 0 {
		opt.CallTimeout = defaultCallTimeout
	}
	if opt.Logger == nil {
		opt.Logger = zap.NewNop()
	}
	return &Karpenter{
		machines: newMachines(withTrail(cfg), opt.Rules.ImageParameters, opt.Logger, opt.CallTimeout),
		api:      api, opt: opt,
	}, nil
}

// Describe says what EC2 knows of these instances, as [AutoScaling.Describe]
// does, and of which NodeClaim of the pool they are.
func (k *Karpenter) Describe(ctx context.Context, ids []string) (map[string]runner.Instance, error) {
	return k.describe(ctx, ids, facts{"NodeClaims", k.addClaims})
}

func (k *Karpenter) addClaims(ctx context.Context, ids []string, into map[string]runner.Instance) error {
	if len(ids) == 0 {
		return nil
	}
	claims, err := k.claims(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		in := into[id]
		in.NodeClaim = &runner.NodeClaim{}
		if c := claimOf(claims, id); c != nil {
			in.NodeClaim = &runner.NodeClaim{Name: c.Name, State: c.state()}
		}
		into[id] = in
	}
	return nil
}

// Protect makes sure that Karpenter takes the host away only for what it does not
// call voluntary, such as a failed health check or the notice of a spot
// instance. NodeClaims of no NodePool are left alone anyway; this holds should
// somebody label one.
//
// Once its node has registered Karpenter reads the node's annotation (v1.15.0,
// pkg/controllers/state/statenode.go, Annotations), before that the claim's.
//
// It is safe to repeat. A host whose NodeClaim is gone or is being deleted is
// supervisor.ErrConflict: it will not serve.
func (k *Karpenter) Protect(ctx context.Context, id string) error {
	if err := k.protect(ctx, id); err != nil {
		return fmt.Errorf("protect %.40s: %w", id, err)
	}
	return nil
}

func (k *Karpenter) protect(ctx context.Context, id string) error {
	if err := wellFormed(instanceID, []string{id}); err != nil {
		return err
	}
	claims, err := k.claims(ctx)
	if err != nil {
		return err
	}
	c := claimOf(claims, id)
	switch {
	case c == nil:
		return fmt.Errorf("%w: no NodeClaim of pool %s has it any more", supervisor.ErrConflict, k.opt.Pool)
	case c.DeletionTimestamp != nil:
		return fmt.Errorf("%w: its NodeClaim %s is being deleted", supervisor.ErrConflict, c.Name)
	}
	if !protected(c.Annotations) {
		if err := k.annotate(ctx, c); err != nil {
			return err
		}
	}
	return k.protectNode(ctx, c.Status.NodeName, c.Status.ProviderID)
}
