package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/runnerward/runnerward/pkg/admission/wire"
	"github.com/runnerward/runnerward/pkg/runner"
)

// What actions/runner reads: src/Runner.Listener/CommandSettings.cs takes any
// argument as ACTIONS_RUNNER_INPUT_<NAME>, removes it from its own environment
// and masks it; src/Runner.Worker/JobExtension.cs runs the hook.
const (
	envJITConfig   = "ACTIONS_RUNNER_INPUT_JITCONFIG"
	envHookStarted = "ACTIONS_RUNNER_HOOK_JOB_STARTED"
)

// Claim asks for the JIT config until it has it, the supervisor refuses for
// good ([*Refused]) or the context ends (its cause).
func (a *Agent) Claim(ctx context.Context) (wire.ClaimAnswer, error) {
	var pace backoff
	for {
		var answer wire.ClaimAnswer
		err := a.ask(ctx, wire.ClaimPath(a.cfg.Runner), wire.ClaimRequest{}, &answer)
		if err == nil {
			return answer, nil
		}
		if _, refused := errors.AsType[*Refused](err); refused {
			return wire.ClaimAnswer{}, fmt.Errorf("claim the runner: %w", err)
		}
		a.cfg.Log.Warn("claim not answered, asking again", slog.Any("error", err))
		if err := pace.pause(ctx); err != nil {
			return wire.ClaimAnswer{}, fmt.Errorf("claim the runner: %w", err)
		}
	}
}

// Start runs the runner with these variables on top of its environment, until
// it ends. One of them is a credential. When the context ends, Start kills every
// process of the runner before it does anything else.
type Start func(ctx context.Context, env map[string]string) (exitCode int, err error)

// Run claims the runner, leaves the bound digest for the hook and starts the
// runner. It returns the runner's exit code. If a hook ends without having been
// allowed it ends the runner's context and returns [ErrKilled].
func (a *Agent) Run(ctx context.Context, start Start) (int, error) {
	// A claim is once and for all, so what can fail here fails before it.
	if err := checkScript(a.cfg.HookScript); err != nil {
		return 0, err
	}
	bound, err := os.CreateTemp(filepath.Dir(a.cfg.BoundFile), ".bound-*") // mode 0600
	if err != nil {
		return 0, fmt.Errorf("make the bound file: %w", err)
	}
	defer os.Remove(bound.Name())
	hooks, err := a.cfg.Listen()
	if err != nil {
		return 0, errors.Join(fmt.Errorf("listen for the hook: %w", err), bound.Close())
	}
	defer hooks.Close()
	answer, err := a.Claim(ctx)
	if err != nil {
		return 0, errors.Join(err, bound.Close())
	}
	_, err = bound.WriteString(string(answer.Bound))
	if err := errors.Join(err, bound.Close()); err != nil {
		return 0, fmt.Errorf("write the bound file: %w", err)
	}
	if err := os.Rename(bound.Name(), a.cfg.BoundFile); err != nil {
		return 0, fmt.Errorf("write the bound file: %w", err)
	}
	a.cfg.Log.Info("claimed, starting the runner", slog.String("bound", string(answer.Bound)))
	return a.guarded(ctx, hooks, start, map[string]string{
		envJITConfig:   answer.JITConfig,
		envHookStarted: a.cfg.HookScript,
		EnvBoundFile:   a.cfg.BoundFile,
	})
}

// guarded is the runner's life. It closes the listener.
func (a *Agent) guarded(ctx context.Context, hooks net.Listener, start Start, env map[string]string) (int, error) {
	ctx, kill := context.WithCancelCause(ctx)
	var hearing sync.WaitGroup
	hearing.Go(func() { watch(ctx, hooks, kill) })
	code, err := start(ctx, env)
	kill(nil) // no cause replaces the first
	err = errors.Join(err, hooks.Close())
	hearing.Wait()
	if cause := context.Cause(ctx); errors.Is(cause, ErrKilled) {
		return 0, cause
	}
	if err != nil {
		return 0, fmt.Errorf("start the runner: %w", err)
	}
	return code, nil
}

// checkScript refuses to go on without the hook: without it a job would start
// that nobody allowed. The runner wants the absolute path of a script whose
// shell it knows by its extension:
// https://github.com/actions/runner/blob/main/docs/adrs/1751-runner-job-hooks.md
func checkScript(path string) error {
	if !filepath.IsAbs(path) || filepath.Ext(path) != ".sh" {
		return fmt.Errorf("the hook %.200q is not the absolute path of a .sh file", path)
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return fmt.Errorf("look for the hook: %w", err)
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0:
		return fmt.Errorf("the hook %s is not an executable file", path)
	}
	return nil
}

// readBound is the digest that Run left.
func (a *Agent) readBound() (runner.Digest, error) {
	b, err := os.ReadFile(a.cfg.BoundFile)
	if err != nil {
		return "", fmt.Errorf("read the bound digest: %w", err)
	}
	d := runner.Digest(b)
	if err := wire.CheckDigest(d); err != nil {
		return "", fmt.Errorf("read the bound digest: %w", err)
	}
	return d, nil
}
