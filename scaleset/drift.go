package scaleset

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	upstream "github.com/actions/scaleset"
	"go.uber.org/zap"
)

// What Ensure saw at the start can change under a running daemon: somebody moves
// the scale set to another runner group, renames the group, edits labels, or
// makes a second scale set of our name where other restrictions hold. Jobs would
// then be served outside of the boundary. It is never mended from here; no new
// work begins until somebody did.

const (
	// driftEvery is how often the scale set is compared with what it should be.
	driftEvery = 5 * time.Minute
	// verifiedFor is how long the last verdict holds while GitHub gives none.
	verifiedFor = 15 * time.Minute
)

// ErrDrift says that the scale set is not what was configured.
var ErrDrift = errors.New("the scale set is not what it should be")

// watchDrift compares when it is time to, or at once.
func (s *ScaleSet) watchDrift(ctx context.Context, atOnce bool) {
	s.mu.Lock()
	verified, tried := s.verified, s.tried
	s.mu.Unlock()
	if s.id() == 0 || !atOnce && time.Since(tried) < driftEvery {
		return
	}
	err := s.verify(ctx)
	if ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	s.tried = time.Now()
	s.mu.Unlock()
	switch {
	case err == nil:
		s.found(nil)
	case errors.Is(err, ErrDrift), time.Since(verified) > verifiedFor:
		s.found(err)
	}
	if err != nil {
		s.log.Error("the scale set could not be verified", zap.Error(err))
	}
}

// trusted is why no runner may be registered: the scale set is not what it
// should be, or that has not been known for too long. The queue may have been
// away all that time, so it is asked here where it matters.
func (s *ScaleSet) trusted(ctx context.Context) error {
	verdict := func() (drift error, stale bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.drift, time.Since(s.verified) > verifiedFor
	}
	if drift, stale := verdict(); drift != nil || !stale {
		return drift
	}
	s.watchDrift(ctx, true)
	drift, stale := verdict()
	if drift == nil && stale {
		return errUnverified
	}
	return drift
}

// errUnverified says that it is not known whether the scale set is what it
// should be.
var errUnverified = errors.New("the scale set could not be verified for too long")

// found notes the verdict.
func (s *ScaleSet) found(problem error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tried = time.Now()
	s.drift = problem
	if problem == nil {
		s.verified = s.tried
	}
}

// verify looks the group and the scale set up again. [ErrDrift] says that they
// differ, any other error that it could not be found out.
func (s *ScaleSet) verify(ctx context.Context) error {
	group, err := s.findGroup(ctx)
	if errors.Is(err, errGroupNotFound) {
		return fmt.Errorf("%w: %w", ErrDrift, err)
	}
	if err != nil {
		return err
	}
	set, err := use(ctx, s.admin, "look at the scale set", func(ctx context.Context, c *upstream.Client) (*upstream.RunnerScaleSet, error) {
		return c.GetRunnerScaleSetByID(ctx, s.id())
	})
	if err != nil {
		return err
	}
	if err := s.compare(set, group.ID); err != nil {
		return fmt.Errorf("%w: scale set %q in runner group %q: %w", ErrDrift, s.cfg.Name, s.cfg.Group, err)
	}
	return s.checkBoundary(ctx, group.ID)
}

// checkBoundary asks who may use the group with this id, and looks for a scale
// set of our name in the other groups that the pool's repositories may use:
// GitHub would give our jobs to either (actions/actions-runner-controller#4004).
func (s *ScaleSet) checkBoundary(ctx context.Context, group int) error {
	if s.cfg.Boundary == nil {
		return nil
	}
	b, err := s.cfg.Boundary(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("ask who may use the runner group: %w", err)
	case b.Group.ID != int64(group) || b.Group.Name != s.cfg.Group:
		// The two interfaces are not documented to number groups alike. If they
		// do not, what one says of a group cannot be put to the other.
		return fmt.Errorf("%w: runner group %q is number %d for the scale set service and %d for the REST API", ErrDrift, s.cfg.Group, group, b.Group.ID)
	case len(b.Open) > 0:
		return fmt.Errorf("%w: runner group %q is not restricted to the pool: %s", ErrDrift, s.cfg.Group, strings.Join(b.Open, "; "))
	}
	for _, g := range b.Rivals {
		set, err := use(ctx, s.admin, "look for a scale set of our name", func(ctx context.Context, c *upstream.Client) (*upstream.RunnerScaleSet, error) {
			return c.GetRunnerScaleSet(ctx, int(g.ID), s.cfg.Name)
		})
		if err != nil {
			return err
		}
		if set != nil && strings.EqualFold(set.Name, s.cfg.Name) && set.RunnerGroupID == int(g.ID) {
			return fmt.Errorf("%w: runner group %q has a scale set %q too, and GitHub may give it our jobs: remove or rename it", ErrDrift, g.Name, s.cfg.Name)
		}
	}
	return nil
}
