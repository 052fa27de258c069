package hosts

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

const (
	// firstPause is how long after a NodeClaim that came to nothing the next one
	// is made. Each further one doubles it, up to lastPause: Karpenter deletes a
	// claim at once that finds no capacity, or whose node class is not ready
	// (sigs.k8s.io/karpenter v1.15.0, pkg/controllers/nodeclaim/lifecycle/launch.go).
	firstPause = 30 * time.Second
	lastPause  = 10 * time.Minute
)

// attempts remember the NodeClaims that are to become nodes, and how many came to
// nothing in a row. They know only what this process saw. It is safe for
// concurrent use.
type attempts struct {
	mu      sync.Mutex
	pending map[string]string // by name, with what holds it up
	failed  int
	why     string
	next    time.Time
}

// saw takes one look at the pool's claims.
func (a *attempts) saw(claims []nodeClaim, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	pending, came, lost := map[string]string{}, false, ""
	for _, c := range claims {
		if c.DeletionTimestamp == nil && !c.is(conditionJoin) {
			pending[c.Name] = c.waitsFor()
		}
	}
	for name, why := range a.pending {
		i := slices.IndexFunc(claims, func(c nodeClaim) bool { return c.Name == name })
		if _, still := pending[name]; still {
			continue
		}
		if came = i >= 0 && claims[i].is(conditionJoin); came {
			break
		}
		lost = fmt.Sprintf("NodeClaim %s%s", name, why)
	}
	switch {
	case came:
		a.failed, a.next = 0, time.Time{}
	case lost != "":
		a.failed, a.why = a.failed+1, lost
		a.next = now.Add(min(firstPause<<min(a.failed-1, 10), lastPause))
	}
	a.pending = pending
}

// made adds a claim that was just created.
func (a *attempts) made(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pending[name] = ""
}

// pause says why no claim is made now, nil when one may be.
func (a *attempts) pause(now time.Time) error {
	if a.waits(now) {
		return a.trouble()
	}
	return nil
}

func (a *attempts) waits(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return now.Before(a.next)
}

// trouble is nil unless the last claims came to nothing.
func (a *attempts) trouble() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failed == 0 {
		return nil
	}
	return fmt.Errorf("%d NodeClaims in a row became no node, the last one was %s: Karpenter's log and "+
		"kubectl get events --field-selector involvedObject.kind=NodeClaim say why; the next one is made no sooner than %s",
		a.failed, a.why, a.next.UTC().Format(time.RFC3339))
}

// waitsFor is what Karpenter says it waits for, if it does, with a blank before.
func (c *nodeClaim) waitsFor() string {
	for _, kind := range []string{conditionLaunch, conditionJoin} {
		if at := condition(c.Status.Conditions, kind); at.Status != metav1.ConditionTrue && at.Reason != "" {
			return fmt.Sprintf(" (%s: %.40s, %.200q)", kind, at.Reason, at.Message)
		}
	}
	return ""
}

// claimSupply is what the pool's NodeClaims have for those who are still to come.
type claimSupply struct {
	ready    int         // serve nobody or are on their way
	occupied int         // machines there are, or may be
	unfit    []string    // instances that take up room
	expired  []nodeClaim // became no node in time
	void     []nodeClaim // their machine is gone
}

// supply sorts the claims. states are what EC2 says of their instances.
func (k *Karpenter) supply(claims []nodeClaim, states map[string]runner.Instance, d supervisor.Demand, now time.Time) claimSupply {
	var s claimSupply
	for _, c := range claims {
		id := c.instance()
		in, listed := states[id]
		gone := listed && ending(in.State)
		switch {
		case c.DeletionTimestamp != nil:
			// Karpenter may be down: only EC2 frees the room of a machine.
			if id != "" && !gone {
				s.occupied++
			}
			continue
		case gone:
			s.void = append(s.void, c)
			continue
		}
		s.occupied++
		switch {
		case slices.Contains(d.Used, id) && id != "":
		case slices.Contains(d.Unfit, id) && id != "":
			s.unfit = append(s.unfit, id)
		case !c.is(conditionJoin) && now.Sub(c.CreationTimestamp.Time) >= k.opt.RegisterBy:
			s.expired = append(s.expired, c)
		default:
			s.ready++
		}
	}
	return s
}

// Ensure makes NodeClaims until so many unclaimed hosts are there or on their
// way, and never more than Max. It never ends a host: it deletes NodeClaims that
// became no node in time, and those whose machine EC2 says is gone. After claims
// that came to nothing it waits longer and longer. Two Ensures may make claims
// for the same demand; the next look counts them both.
func (k *Karpenter) Ensure(ctx context.Context, d supervisor.Demand) error {
	claims, err := k.claims(ctx)
	if err != nil {
		return fmt.Errorf("ensure %d hosts: %w", d.Ready, err)
	}
	now := time.Now()
	k.attempts.saw(claims, now)
	s := k.supply(claims, k.statesOf(ctx, claims), d, now)
	problems := []error{k.remove(ctx, s.void, k.delete, "its machine is gone"), k.remove(ctx, s.expired, k.deleteAsSeen, "it became no node in time")}
	missing := d.Ready - s.ready
	if missing <= 0 {
		return errors.Join(problems...)
	}
	if err := k.attempts.pause(now); err != nil {
		return errors.Join(append(problems, err)...)
	}
	for range min(missing, k.opt.Max-s.occupied) {
		c := k.wanted()
		if err := k.create(ctx, c, false); err != nil {
			problems = append(problems, fmt.Errorf("create a NodeClaim: %w", err))
			break
		}
		k.attempts.made(c.Name)
		k.opt.Logger.Info("NodeClaim created", zap.String("name", c.Name), zap.Int("wanted", d.Ready), zap.Strings("unfit", s.unfit))
		missing--
	}
	if missing > 0 && len(s.unfit) > 0 {
		problems = append(problems, fmt.Errorf("%d hosts too few may be launched, and hosts that fail their checks take up room: "+
			"delete their NodeClaims or raise hosts.karpenter.max: %s", missing, strings.Join(s.unfit, ", ")))
	}
	return errors.Join(problems...)
}

// statesOf asks EC2 for the machines of the claims. Without an answer every
// machine counts as there.
func (k *Karpenter) statesOf(ctx context.Context, claims []nodeClaim) map[string]runner.Instance {
	var ids []string
	for _, c := range claims {
		if id := c.instance(); id != "" {
			ids = append(ids, id)
		}
	}
	states := map[string]runner.Instance{}
	for chunk := range slices.Chunk(ids, filterChunk) {
		if err := k.describeChunk(ctx, chunk, states); err != nil {
			k.opt.Logger.Warn("machines of NodeClaims unknown", zap.Error(err))
			return nil
		}
	}
	return states
}

func (k *Karpenter) remove(ctx context.Context, claims []nodeClaim, remove func(context.Context, *nodeClaim) error, why string) error {
	var problems []error
	for _, c := range claims {
		if err := remove(ctx, &c); err != nil {
			problems = append(problems, fmt.Errorf("delete NodeClaim %s, because %s: %w", c.Name, why, err))
			continue
		}
		k.opt.Logger.Warn("NodeClaim deleted", zap.String("name", c.Name), zap.String("instance", c.instance()),
			zap.String("because", why), zap.String("waits", c.waitsFor()))
	}
	return errors.Join(problems...)
}
