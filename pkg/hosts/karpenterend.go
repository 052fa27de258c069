package hosts

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// callDelete is how a request to end a NodeClaim is recorded.
const callDelete = "karpenter.sh/nodeclaims:delete"

// ErrForeignMachine refuses to end an instance that Karpenter launched for
// somebody else, or that it did not launch.
var ErrForeignMachine = errors.New("the instance was not launched for this pool")

// Terminate asks for the end of the instance. It is safe to repeat.
//
//	NodeClaim of the pool              delete it: Karpenter drains, then ends
//	NodeClaim of the pool, deleting    nothing to ask
//	no NodeClaim, EC2 ends it          nothing to ask
//	no NodeClaim, alive and tagged     ec2:TerminateInstances
//	as of the pool's node class
//	no NodeClaim, alive, tagged        ErrForeignMachine
//	otherwise
//	no NodeClaim, not listed           error: it is unknown whether it ended
//
// With Force EC2 is asked too, whatever the NodeClaim does: Karpenter may be down,
// may wait for pods of others, or skips a zone that is shifted away from
// (karpenter-provider-aws v1.15.1, pkg/providers/instance/instance.go, Delete).
// The tags must speak for it then as well, so that a NodeClaim whose status
// somebody forged ends no machine of others. A cluster that does not answer does
// not keep a forced end waiting.
//
// The demand is of no concern: no NodeClaim replaces itself. The receipt is valid
// beside an error; its activity is the NodeClaim's UID, which the cluster's audit
// log knows it by.
func (k *Karpenter) Terminate(ctx context.Context, id string, opt supervisor.TerminateOptions) (supervisor.TerminateReceipt, error) {
	var receipt supervisor.TerminateReceipt
	err := k.terminate(ctx, id, opt.Force, &receipt)
	for i, q := range receipt.Requests {
		if q.Call == callEC2 {
			k.named(ctx, receipt.Requests[i:i+1])
		}
	}
	if err != nil {
		return receipt, fmt.Errorf("terminate %.40s: %w", id, err)
	}
	return receipt, nil
}

func (k *Karpenter) terminate(ctx context.Context, id string, force bool, receipt *supervisor.TerminateReceipt) error {
	if err := wellFormed(instanceID, []string{id}); err != nil {
		return err
	}
	c, problem := k.endClaim(ctx, id, force, receipt)
	if !force && (problem != nil || c != nil) {
		return problem
	}
	if err := k.endMachine(ctx, id, receipt); err != nil {
		return errors.Join(problem, err)
	}
	return nil
}

// endClaim deletes the instance's NodeClaim, unless somebody did. It is nil when
// the pool has none.
func (k *Karpenter) endClaim(ctx context.Context, id string, force bool, receipt *supervisor.TerminateReceipt) (*nodeClaim, error) {
	if force {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, glance)
		defer cancel()
	}
	claims, err := k.claims(ctx)
	if err != nil {
		return nil, err
	}
	c := claimOf(claims, id)
	if c == nil {
		return nil, nil
	}
	receipt.ActivityID = string(c.UID)
	if c.DeletionTimestamp != nil {
		return c, nil
	}
	deleteCtx, trail := follow(ctx, callDelete)
	err = k.delete(deleteCtx, c)
	receipt.Requests = append(receipt.Requests, trail.made()...)
	if err != nil {
		return c, fmt.Errorf("delete NodeClaim %s: %w", c.Name, err)
	}
	return c, nil
}

// endMachine asks EC2. No group learns of it; Karpenter sees the machine gone.
func (k *Karpenter) endMachine(ctx context.Context, id string, receipt *supervisor.TerminateReceipt) error {
	in, err := k.look(ctx, id)
	switch {
	case err != nil:
		return err
	case in.ID == "":
		return errors.New("neither a NodeClaim of the pool nor EC2 has it")
	case in.State == stateTerminated:
		return nil
	}
	if err := k.ours(in); err != nil {
		return err
	}
	if ending(in.State) {
		return nil
	}
	return k.terminateDirectly(ctx, id, receipt)
}

// ours says that Karpenter launched the instance for the pool, by what it wrote on
// it: the node class at launch, the NodeClaim once its node registered
// (karpenter-provider-aws v1.15.1, pkg/utils/utils.go, GetTags;
// pkg/controllers/nodeclaim/tagging/controller.go).
func (k *Karpenter) ours(in runner.Instance) error {
	group, grouped := in.Tags[tagGroup]
	claim, named := in.Tags[tagNodeClaim]
	switch {
	case grouped:
		return fmt.Errorf("%w: it is tagged as of Auto Scaling group %.255s", ErrForeignMachine, group)
	case in.Tags[tagNodeClass] != k.opt.NodeClass:
		return fmt.Errorf("%w: its tag %s is %.100q, want %q", ErrForeignMachine, tagNodeClass, in.Tags[tagNodeClass], k.opt.NodeClass)
	case named && !strings.HasPrefix(claim, k.opt.Pool+"-"):
		return fmt.Errorf("%w: its tag %s is %.100q, want one of %s-", ErrForeignMachine, tagNodeClaim, claim, k.opt.Pool)
	}
	return nil
}
