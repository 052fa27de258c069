package supervisor

import (
	"context"
	"errors"

	"github.com/runnerward/runnerward/pkg/runner"
)

// Freeze stops admission: no job is authorized, no host claimed, no JIT config
// handed out. Jobs that run go on, teardown goes on. It is durable when it
// returns nil, and freezing again replaces who and why.
func (s *Supervisor) Freeze(ctx context.Context, by, reason string) error {
	return s.record(ctx, runner.Frozen{By: by, Reason: reason})
}

// Unfreeze allows admission again; when nothing is frozen it changes nothing.
func (s *Supervisor) Unfreeze(ctx context.Context, by string) error {
	_, err := s.recordFrom(ctx, func(st *runner.State) (runner.Event, error) {
		if st.Frozen == nil {
			return nil, runner.ErrRecorded
		}
		return runner.Unfrozen{By: by}, nil
	})
	if errors.Is(err, runner.ErrRecorded) {
		return nil
	}
	return err
}
