package agent_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/runnerward/runnerward/pkg/agent"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

var errKilled = errors.New("killed")

func (w *world) allow() supervisor.StartAnswer {
	return supervisor.StartAnswer{Verdict: supervisor.StartAllowed, Record: w.record}
}

func pending() supervisor.StartAnswer {
	return supervisor.StartAnswer{Verdict: supervisor.StartPending}
}

func refusal(reasons ...string) supervisor.StartAnswer {
	return supervisor.StartAnswer{Verdict: supervisor.StartRefused, Reasons: reasons}
}

// hook runs the hook in a bubble and returns its error, and after how long of
// that time it returned. It is killed after two hours.
func (w *world) hook(t *testing.T, getenv func(string) string) (error, time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Hour, errKilled)
	defer cancel()
	began := time.Now()
	err := w.agent(t).Hook(ctx, getenv)
	return err, time.Since(began)
}

func (w *world) wantBlocked(t *testing.T, getenv func(string) string) {
	t.Helper()
	if err, after := w.hook(t, getenv); !errors.Is(err, errKilled) || after != 2*time.Hour {
		t.Errorf("Hook = %v after %s, want it to block until it is killed", err, after)
	}
	w.wantSaid(t, "ended\n")
}

func (w *world) wantAllowed(t *testing.T) time.Duration {
	t.Helper()
	err, after := w.hook(t, jobEnv)
	if err != nil {
		t.Errorf("Hook = %v, want nil", err)
	}
	if !strings.Contains(w.out.String(), string(w.record)) {
		t.Errorf("job log = %q, want it to name %s", w.out, w.record)
	}
	w.wantSaid(t, "allowed\n")
	return after
}

// hear is Run's end of the line.
func (w *world) hear() {
	for {
		conn, err := w.line.Accept()
		if err != nil {
			return
		}
		said, _ := bufio.NewReader(conn).ReadString('\n')
		w.mu.Lock()
		w.said = append(w.said, said)
		w.mu.Unlock()
		_ = conn.Close()
	}
}

func (w *world) wantSaid(t *testing.T, want string) {
	t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(w.said, []string{want}) {
		t.Errorf("Run heard %q, want %q", w.said, want)
	}
}

func hookTest(t *testing.T, test func(*testing.T, *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.starts = []supervisor.StartAnswer{w.allow()}
		w.write(t, "run/bound", string(w.bound), 0o600)
		go w.hear()
		defer w.line.Close()
		test(t, w)
	})
}

func TestHookReturnsWhenAllowed(t *testing.T) {
	hookTest(t, func(t *testing.T, w *world) {
		w.wantAllowed(t)
		got := w.tokens()
		if len(got) != 1 || readToken(got[0]).Audience != w.bound.Audience() {
			t.Errorf("tokens %q, want one for %s", got, w.bound.Audience())
		}
	})
}

func TestHookAsksAgainWhilePending(t *testing.T) {
	hookTest(t, func(t *testing.T, w *world) {
		w.starts = []supervisor.StartAnswer{pending(), pending(), pending(), w.allow()}
		w.wantAllowed(t)
		got := w.tokens()
		if len(got) != 4 || len(slices.Compact(got)) != 1 {
			t.Errorf("tokens %q, want one token four times", got)
		}
	})
}

func TestHookRenewsATokenThatIsAboutToExpire(t *testing.T) {
	hookTest(t, func(t *testing.T, w *world) {
		for range 400 {
			w.starts = append([]supervisor.StartAnswer{pending()}, w.starts...)
		}
		if after := w.wantAllowed(t); after < 10*time.Minute {
			t.Fatalf("allowed after %s, want longer than two lives of a token", after)
		}
		if w.shortest < 30*time.Second {
			t.Errorf("a token with %s to live was presented, want one that outlives the question", w.shortest)
		}
		if w.issued < 3 || w.issued > 5 {
			t.Errorf("%d tokens in 800 s, want one for every 4 minutes", w.issued)
		}
	})
}

func TestHookTakesANewTokenForOneThatIsRejected(t *testing.T) {
	hookTest(t, func(t *testing.T, w *world) {
		w.revoked = 1
		if after := w.wantAllowed(t); after > 10*time.Second || w.issued != 2 {
			t.Errorf("allowed after %s with %d tokens, want at once with a second", after, w.issued)
		}
	})
}

func TestHookKeepsAskingWhenNobodyKnows(t *testing.T) {
	for what, prepare := range map[string]func(*testing.T, *world){
		"the supervisor is down":            func(_ *testing.T, w *world) { w.unreachable = 100 },
		"something else answers":            func(_ *testing.T, w *world) { w.foreign = 20 },
		"GitHub does not know the job yet":  func(_ *testing.T, w *world) { w.inProgress = time.Now().Add(time.Minute) },
		"the pod's token was not rotated":   func(t *testing.T, w *world) { w.staleToken(t) },
		"the bound digest is not there yet": func(t *testing.T, w *world) { w.lateBound(t) },
		"the log is unreachable": func(_ *testing.T, w *world) {
			w.startErr = errors.New("s3")
			time.AfterFunc(time.Minute, func() { w.mu.Lock(); w.startErr = nil; w.mu.Unlock() })
		},
		"the first token is refused": func(_ *testing.T, w *world) {
			w.life = 0
			time.AfterFunc(time.Minute, func() { w.mu.Lock(); w.life = 5 * time.Minute; w.mu.Unlock() })
		},
	} {
		t.Run(what, func(t *testing.T) {
			hookTest(t, func(t *testing.T, w *world) {
				prepare(t, w)
				if after := w.wantAllowed(t); after < 30*time.Second {
					t.Errorf("allowed after %s, before anybody knew", after)
				}
			})
		})
	}
}

func (w *world) staleToken(t *testing.T) {
	w.podToken = "pod-token-2"
	time.AfterFunc(time.Minute, func() { w.write(t, "token", "pod-token-2", 0o600) })
}

func (w *world) lateBound(t *testing.T) {
	w.write(t, "run/bound", "sha256:half", 0o600)
	time.AfterFunc(time.Minute, func() { w.write(t, "run/bound", string(w.bound), 0o600) })
}

func TestHookBlocksWhenRefused(t *testing.T) {
	hookTest(t, func(t *testing.T, w *world) {
		w.starts = []supervisor.StartAnswer{pending(), refusal("run.attempt", "workflow.sha"), w.allow()}
		w.wantBlocked(t, jobEnv)
		if n := len(w.tokens()); n != 2 {
			t.Errorf("%d questions, want no more after the refusal, the second", n)
		}
		for _, want := range []string{"may not run here", "  - run.attempt\n", "  - workflow.sha\n"} {
			if !strings.Contains(w.out.String(), want) {
				t.Errorf("job log = %q, want %q in it", w.out, want)
			}
		}
	})
}

func TestHookBlocksWhenRefusedForGood(t *testing.T) {
	hookTest(t, func(t *testing.T, w *world) {
		w.startErr = supervisor.ErrConflict
		w.wantBlocked(t, jobEnv)
		if n := len(w.tokens()); n != 1 {
			t.Errorf("%d questions, want 1", n)
		}
	})
}

func TestHookReportsAJobWithoutAToken(t *testing.T) {
	for what, getenv := range map[string]func(string) string{
		"neither variable": noEnv,
		"only the URL": func(name string) string {
			if name == "ACTIONS_ID_TOKEN_REQUEST_URL" {
				return jobEnv(name)
			}
			return ""
		},
	} {
		t.Run(what, func(t *testing.T) {
			hookTest(t, func(t *testing.T, w *world) {
				w.unreachable = 3
				w.starts = []supervisor.StartAnswer{refusal("no-oidc-token")}
				w.wantBlocked(t, getenv)
				if got := w.tokens(); !slices.Equal(got, []string{""}) {
					t.Errorf("tokens %q, want one that is empty", got)
				}
				if !strings.Contains(w.out.String(), "id-token: write") {
					t.Errorf("job log = %q, want the remedy", w.out)
				}
			})
		})
	}
}

func TestHookDoesNotBelieveAnAllowanceWithoutAToken(t *testing.T) {
	hookTest(t, func(t *testing.T, w *world) { w.wantBlocked(t, noEnv) })
}

func TestHookReturnsOnNothingButAWholeAllowance(t *testing.T) {
	for what, tt := range map[string]struct {
		status int
		body   string
	}{
		"an empty answer":              {200, ""},
		"a page":                       {200, "<html>allowed</html>"},
		"an empty object":              {200, "{}"},
		"no verdict":                   {200, `{"reasons":[]}`},
		"an allowance without record":  {200, `{"verdict":"allowed","reasons":[]}`},
		"an allowance with reasons":    {200, `{"verdict":"allowed","reasons":["x"],"record":"sha256:` + strings.Repeat("0", 64) + `"}`},
		"an allowance with status 202": {202, `{"verdict":"allowed","reasons":[],"record":"sha256:` + strings.Repeat("0", 64) + `"}`},
		"a redirect":                   {307, ""},
		"a final error":                {400, `{"error":"no","final":true}`},
	} {
		t.Run(what, func(t *testing.T) {
			hookTest(t, func(t *testing.T, w *world) {
				cfg := w.config()
				cfg.Client.Transport = transport{nil, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
					rw.WriteHeader(tt.status)
					_, _ = io.WriteString(rw, tt.body)
				})}
				a, err := agent.New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Minute, errKilled)
				defer cancel()
				if err := a.Hook(ctx, jobEnv); !errors.Is(err, errKilled) || ctx.Err() == nil {
					t.Errorf("Hook = %v, want it to block until it is killed", err)
				}
			})
		})
	}
}

func TestHookSendsItsTokenOverHTTPSOnly(t *testing.T) {
	hookTest(t, func(t *testing.T, w *world) {
		w.wantBlocked(t, func(name string) string {
			return strings.Replace(jobEnv(name), "https:", "http:", 1)
		})
		if w.issued != 0 || len(w.tokens()) != 0 {
			t.Errorf("%d tokens issued and %d presented over http", w.issued, len(w.tokens()))
		}
	})
}
