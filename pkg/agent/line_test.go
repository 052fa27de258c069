package agent_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/runnerward/runnerward/pkg/agent"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// runnerTest runs a pretend runner in a bubble and returns what Run did.
func runnerTest(t *testing.T, starts []supervisor.StartAnswer, runner func(context.Context, *world, *agent.Agent) (int, error)) (code int, err error) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.starts = starts
		a := w.agent(t)
		code, err = a.Run(t.Context(), func(ctx context.Context, _ map[string]string) (int, error) { return runner(ctx, w, a) })
	})
	return code, err
}

// say is a hook that says this and ends.
func (w *world) say(ctx context.Context, text string) {
	conn, err := w.dial(ctx)
	if err != nil {
		return
	}
	_, _ = io.WriteString(conn, text)
	_ = conn.Close()
}

func TestRunKillsTheRunnerWhoseHookEndsUnallowed(t *testing.T) {
	cancelled := func(ctx context.Context, _ *world, a *agent.Agent) {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		_ = a.Hook(ctx, jobEnv)
	}
	allow := func(w *world) []supervisor.StartAnswer { return []supervisor.StartAnswer{w.allow()} }
	for what, tt := range map[string]struct {
		starts []supervisor.StartAnswer
		hook   func(context.Context, *world, *agent.Agent)
	}{
		"pending":                        {[]supervisor.StartAnswer{pending()}, cancelled},
		"refused":                        {[]supervisor.StartAnswer{refusal("run.attempt")}, cancelled},
		"unreachable":                    {nil, func(ctx context.Context, w *world, a *agent.Agent) { w.unreachable = 1 << 30; cancelled(ctx, w, a) }},
		"killed before it said anything": {nil, func(ctx context.Context, w *world, _ *agent.Agent) { w.say(ctx, "") }},
		"killed within the word":         {nil, func(ctx context.Context, w *world, _ *agent.Agent) { w.say(ctx, "allowed") }},
		"saying something else":          {nil, func(ctx context.Context, w *world, _ *agent.Agent) { w.say(ctx, "allowed?\n") }},
		"saying too much":                {nil, func(ctx context.Context, w *world, _ *agent.Agent) { w.say(ctx, string(make([]byte, 1<<10))) }},
		"of a second job": {nil, func(ctx context.Context, w *world, a *agent.Agent) {
			w.starts = allow(w)
			if err := a.Hook(ctx, jobEnv); err != nil || ctx.Err() != nil {
				return
			}
			w.starts = []supervisor.StartAnswer{refusal("one-job")}
			cancelled(ctx, w, a)
		}},
		"beside one that was allowed": {nil, func(ctx context.Context, w *world, a *agent.Agent) {
			w.starts = allow(w)
			other, err := w.dial(ctx)
			if err != nil || a.Hook(ctx, jobEnv) != nil || ctx.Err() != nil {
				return
			}
			_ = other.Close()
		}},
		"unheard": {nil, func(_ context.Context, w *world, _ *agent.Agent) { _ = w.line.Close() }},
	} {
		t.Run(what, func(t *testing.T) {
			reached, killed := false, false
			_, err := runnerTest(t, tt.starts, func(ctx context.Context, w *world, a *agent.Agent) (int, error) {
				tt.hook(ctx, w, a)
				reached = true
				synctest.Wait()
				killed = errors.Is(context.Cause(ctx), agent.ErrKilled)
				return 0, nil
			})
			if !errors.Is(err, agent.ErrKilled) || !reached || !killed {
				t.Errorf("Run = %v, runner killed %t; want it killed", err, killed)
			}
		})
	}
}

// Inside one process the hook's end must not let the runner go on first.
func TestACancelledHookReturnsAfterItsRunnerWasKilled(t *testing.T) {
	for range 100 {
		_, err := runnerTest(t, []supervisor.StartAnswer{pending()}, func(ctx context.Context, _ *world, a *agent.Agent) (int, error) {
			hooked, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			if err := a.Hook(hooked, jobEnv); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Hook = %v, want the end of its context", err)
			}
			if ctx.Err() == nil {
				t.Error("the runner goes on after its hook was killed")
			}
			return 0, nil
		})
		if !errors.Is(err, agent.ErrKilled) {
			t.Errorf("Run = %v, want %v", err, agent.ErrKilled)
		}
	}
}

func TestRunSparesTheRunner(t *testing.T) {
	later := func(ctx context.Context) (int, error) {
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-time.After(time.Hour):
			return 42, nil
		}
	}
	for what, runner := range map[string]func(context.Context, *world, *agent.Agent) (int, error){
		"without a hook": func(ctx context.Context, _ *world, _ *agent.Agent) (int, error) { return later(ctx) },
		"whose hook was allowed": func(ctx context.Context, w *world, a *agent.Agent) (int, error) {
			w.starts = []supervisor.StartAnswer{pending(), w.allow()}
			if err := a.Hook(ctx, jobEnv); err != nil {
				return 0, err
			}
			return later(ctx)
		},
		"whose hook blocks still": func(ctx context.Context, w *world, a *agent.Agent) (int, error) {
			w.starts = []supervisor.StartAnswer{pending()}
			go func() { _ = a.Hook(ctx, jobEnv) }()
			return later(ctx)
		},
	} {
		t.Run(what, func(t *testing.T) {
			if code, err := runnerTest(t, nil, runner); code != 42 || err != nil {
				t.Errorf("Run = %d, %v, want the runner's 42", code, err)
			}
		})
	}
}

// A hook that was allowed and cannot say so must not let the job go on.
func TestAnAllowedHookThatNobodyHearsBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.starts = []supervisor.StartAnswer{w.allow()}
		w.write(t, "run/bound", string(w.bound), 0o600)
		cfg := w.config()
		cfg.Dial = func(context.Context) (net.Conn, error) {
			hook, run := net.Pipe()
			return hook, run.Close()
		}
		a, err := agent.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Hour, errKilled)
		defer cancel()
		if err := a.Hook(ctx, jobEnv); !errors.Is(err, errKilled) {
			t.Errorf("Hook = %v, want it to block until it is killed", err)
		}
	})
}

func TestAHookAsksNobodyBeforeItIsHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.starts = []supervisor.StartAnswer{w.allow()}
		w.write(t, "run/bound", string(w.bound), 0o600)
		time.AfterFunc(time.Minute, func() {
			if got := w.tokens(); len(got) != 0 {
				t.Errorf("tokens %q were presented before the hook was heard", got)
			}
			w.hear()
		})
		if err, after := w.hook(t, jobEnv); err != nil || after < time.Minute {
			t.Errorf("Hook = %v after %s, want nil once it is heard", err, after)
		}
		_ = w.line.Close()
	})
}
