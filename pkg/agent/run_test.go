package agent_test

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/runnerward/runnerward/pkg/agent"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

func TestClaimAsksUntilItIsAnswered(t *testing.T) {
	for what, prepare := range map[string]func(*world){
		"at once":                             func(*world) {},
		"after the supervisor was down":       func(w *world) { w.unreachable = 5 },
		"after something else answered":       func(w *world) { w.foreign = 2 },
		"after the answer was unknown":        func(w *world) { w.claims = []error{errors.New("s3"), errors.New("github")} },
		"after the token was not yet trusted": func(w *world) { w.claims = []error{supervisor.ErrTokenRejected} },
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				prepare(w)
				got, err := w.agent(t).Claim(t.Context())
				if err != nil || got.JITConfig != jit || got.Bound != w.bound {
					t.Errorf("Claim = %v, %v, want the JIT config and %s", got.Bound, err, w.bound)
				}
			})
		})
	}
}

func TestClaimEndsOnARefusalForGood(t *testing.T) {
	w := newWorld(t)
	w.claims = []error{supervisor.ErrConflict}
	_, err := w.agent(t).Claim(t.Context())
	refused, ok := errors.AsType[*agent.Refused](err)
	if !ok || refused.Status != 409 || w.claimed != 1 {
		t.Errorf("Claim = %v after %d claims, want a refusal with status 409 after 1", err, w.claimed)
	}
}

func TestClaimEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.unreachable = 1 << 30
		cause := errors.New("pod is deleted")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Hour, cause)
		defer cancel()
		if _, err := w.agent(t).Claim(ctx); !errors.Is(err, cause) {
			t.Errorf("Claim = %v, want %v", err, cause)
		}
		tries := 1<<30 - w.unreachable
		if tries < 240 || tries > 500 {
			t.Errorf("%d tries in an hour, want 240 to 500: at most 15 s apart, never a flood", tries)
		}
	})
}

func TestClaimPicksUpARotatedToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.podToken = "pod-token-2"
		done := make(chan error, 1)
		go func() {
			_, err := w.agent(t).Claim(t.Context())
			done <- err
		}()
		<-time.After(time.Minute)
		synctest.Wait()
		if len(done) != 0 || w.claimed < 2 {
			t.Fatalf("the claim ended, or asked only %d times, with a stale token", w.claimed)
		}
		w.write(t, "token", "pod-token-2", 0o600)
		if err := <-done; err != nil {
			t.Errorf("Claim = %v after the rotation", err)
		}
	})
}

func TestClaimWaitsForTheTokenFile(t *testing.T) {
	for what, spoil := range map[string]func(string) error{
		"missing": os.Remove,
		"empty":   func(path string) error { return os.Truncate(path, 0) },
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				if err := spoil(w.path("token")); err != nil {
					t.Fatal(err)
				}
				time.AfterFunc(time.Minute, func() { w.write(t, "token", w.podToken, 0o600) })
				if _, err := w.agent(t).Claim(t.Context()); err != nil || w.claimed != 1 {
					t.Errorf("Claim = %v after %d claims, want nil after 1", err, w.claimed)
				}
			})
		})
	}
}

func TestRunStartsTheRunnerWithItsCredentialInTheEnvironmentAlone(t *testing.T) {
	w := newWorld(t)
	code, err := w.agent(t).Run(t.Context(), func(_ context.Context, env map[string]string) (int, error) {
		want := map[string]string{
			"ACTIONS_RUNNER_INPUT_JITCONFIG":  jit,
			"ACTIONS_RUNNER_HOOK_JOB_STARTED": w.path("job-started.sh"),
			"RUNNERWARD_BOUND_FILE":           w.path("run/bound"),
		}
		if !maps.Equal(env, want) {
			t.Errorf("environment = %v, want %v", env, want)
		}
		bound, err := os.ReadFile(w.path("run/bound"))
		if err != nil || string(bound) != string(w.bound) {
			t.Errorf("bound file = %q, %v, want %s", bound, err, w.bound)
		}
		w.wantNoSecretOnDisk(t)
		return 42, nil
	})
	if code != 42 || err != nil {
		t.Errorf("Run = %d, %v, want 42, nil", code, err)
	}
	info, err := os.Stat(w.path("run/bound"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("bound file = %v, %v, want mode 0600", info, err)
	}
	left, err := os.ReadDir(w.path("run"))
	if err != nil || len(left) != 1 {
		t.Errorf("%v, %v beside the bound file", left, err)
	}
}

func (w *world) wantNoSecretOnDisk(t *testing.T) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		if strings.Contains(string(b)+path, jit) {
			t.Errorf("%s holds the JIT config", path)
		}
		return err
	})
	if err != nil || files < 3 {
		t.Errorf("walk = %v after %d files", err, files)
	}
}

func TestRunClaimsNothingThatItCannotUse(t *testing.T) {
	for what, spoil := range map[string]func(*world, *agent.Config) error{
		"no hook":              func(w *world, _ *agent.Config) error { return os.Remove(w.path("job-started.sh")) },
		"hook not executable":  func(w *world, _ *agent.Config) error { return os.Chmod(w.path("job-started.sh"), 0o400) },
		"hook is a directory":  func(w *world, c *agent.Config) error { c.HookScript = w.path("run"); return nil },
		"hook path relative":   func(_ *world, c *agent.Config) error { c.HookScript = "job-started.sh"; return nil },
		"no folder for digest": func(w *world, _ *agent.Config) error { return os.Remove(w.path("run")) },
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			cfg := w.config()
			if err := spoil(w, &cfg); err != nil {
				t.Fatal(err)
			}
			a, err := agent.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			_, err = a.Run(t.Context(), func(context.Context, map[string]string) (int, error) {
				t.Error("the runner was started")
				return 0, nil
			})
			if err == nil || w.claimed != 0 {
				t.Errorf("Run = %v after %d claims, want an error before any", err, w.claimed)
			}
		})
	}
}

func TestRunStartsNothingAfterARefusal(t *testing.T) {
	w := newWorld(t)
	w.claims = []error{supervisor.ErrConflict}
	_, err := w.agent(t).Run(t.Context(), func(context.Context, map[string]string) (int, error) {
		t.Error("the runner was started")
		return 0, nil
	})
	if _, ok := errors.AsType[*agent.Refused](err); !ok {
		t.Errorf("Run = %v, want a refusal", err)
	}
	if left, err := os.ReadDir(w.path("run")); err != nil || len(left) != 0 {
		t.Errorf("%v, %v left behind", left, err)
	}
}
