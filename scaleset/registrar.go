package scaleset

import (
	"context"
	"errors"
	"net/http"

	upstream "github.com/actions/scaleset"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

var errOtherRunner = errors.New("GitHub answered about another runner")

// Register implements supervisor.Registrar. After any error but
// ErrRegistrationExists the registration may or may not exist.
func (s *ScaleSet) Register(ctx context.Context, name runner.Name) (supervisor.Registration, error) {
	const op = "register runner"
	if err := s.trusted(ctx); err != nil {
		return supervisor.Registration{}, &Error{Op: op, Cause: err}
	}
	id := s.id()
	jit, err := use(ctx, s.runner, op, func(ctx context.Context, c *upstream.Client) (*upstream.RunnerScaleSetJitRunnerConfig, error) {
		return c.GenerateJitRunnerConfig(ctx, &upstream.RunnerScaleSetJitRunnerSetting{Name: string(name), WorkFolder: "_work"}, id)
	})
	switch {
	case err != nil && statusOf(err) == http.StatusConflict:
		// The client retries, so a lost answer looks like this as well. The
		// client types the error only when the body comes as JSON.
		return supervisor.Registration{}, &Error{Op: op, Status: http.StatusConflict, Cause: supervisor.ErrRegistrationExists}
	case err != nil:
		return supervisor.Registration{}, err
	case jit == nil || jit.Runner == nil || jit.EncodedJITConfig == "":
		return supervisor.Registration{}, &Error{Op: op, Cause: errMalformed}
	}
	if err := s.ours(jit.Runner, name, 0); err != nil {
		return supervisor.Registration{}, &Error{Op: op, Cause: err}
	}
	return supervisor.Registration{
		RunnerID:   int64(jit.Runner.ID),
		ScaleSetID: int64(jit.Runner.RunnerScaleSetID),
		JITConfig:  supervisor.NewSecret(jit.EncodedJITConfig),
	}, nil
}

// Registered implements supervisor.Registrar.
func (s *ScaleSet) Registered(ctx context.Context, name runner.Name) (bool, error) {
	found, err := s.lookUp(ctx, name, 0)
	return found != nil, err
}

// Deregister implements supervisor.Registrar. A 404 alone does not count as
// gone: the list of runners must say so too.
func (s *ScaleSet) Deregister(ctx context.Context, name runner.Name, scaleSet int64) error {
	found, err := s.lookUp(ctx, name, scaleSet)
	if err != nil || found == nil {
		return err
	}
	_, err = use(ctx, s.runner, "remove runner", func(ctx context.Context, c *upstream.Client) (struct{}, error) {
		return struct{}{}, c.RemoveRunner(ctx, int64(found.ID))
	})
	if errors.Is(err, errRunnerNotFound) || statusOf(err) == http.StatusNotFound {
		if left, lookErr := s.lookUp(ctx, name, scaleSet); lookErr == nil && left == nil {
			return nil
		}
	}
	return err
}

// lookUp finds the registration of this name, nil when there is none. A runner
// of our name that is neither of our scale set nor of the one that it was
// registered in is an error: it is not ours to count or to remove.
func (s *ScaleSet) lookUp(ctx context.Context, name runner.Name, scaleSet int64) (*upstream.RunnerReference, error) {
	const op = "look up runner"
	if err := runner.Validate(struct {
		Name runner.Name `pat:"name"`
	}{name}); err != nil {
		// The client writes the name into the query unescaped.
		return nil, &Error{Op: op, Cause: err}
	}
	found, err := use(ctx, s.runner, op, func(ctx context.Context, c *upstream.Client) (*upstream.RunnerReference, error) {
		return c.GetRunnerByName(ctx, string(name))
	})
	if err != nil || found == nil {
		return nil, err
	}
	if err := s.ours(found, name, scaleSet); err != nil {
		return nil, &Error{Op: op, Cause: err}
	}
	return found, nil
}

func (s *ScaleSet) ours(r *upstream.RunnerReference, name runner.Name, scaleSet int64) error {
	served := s.id()
	switch {
	case r.ID <= 0 || r.Name != string(name):
		return errOtherRunner
	case r.RunnerScaleSetID != 0 && (r.RunnerScaleSetID == served || int64(r.RunnerScaleSetID) == scaleSet):
		return nil
	case served == 0:
		return errScaleSetNotFound // not looked up yet: whose it is cannot be said
	}
	return supervisor.ErrForeignRunner
}
