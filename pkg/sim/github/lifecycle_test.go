package simgithub_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/actions/scaleset"
	"github.com/go-jose/go-jose/v4"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
)

func TestADeployJobGoesFromReviewToRecord(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		c := w.session()
		run := w.dispatch(func(s *simgithub.RunSpec) { s.Environment = "production" })
		if m, err := c.GetMessage(t.Context(), 0, 1); m != nil || err != nil {
			t.Fatalf("GetMessage() before approval = %v, %v, want nothing", m, err)
		}
		if err := w.sim.Approve(run.ID, "bob"); err != nil {
			t.Fatalf("Approve(bob) = %v", err)
		}
		m := w.take(c, 1)
		if len(m.JobAssignedMessages) != 1 {
			t.Fatalf("messages after approval = %s, want assigned", kinds(m))
		}
		if got := m.JobAssignedMessages[0]; got.JobID != run.JobID || got.WorkflowRunID != run.ID || got.JobWorkflowRef != deploy ||
			got.OwnerName != "acme" || got.RepositoryName != "shop" || got.RunnerRequestID != 0 {
			t.Errorf("JobAssigned = %+v", got)
		}
		id, jit := w.jit("r1")
		var claims map[string]any
		wait := w.start(t.Context(), jit, func(_ context.Context, env map[string]string) error {
			if env["GITHUB_REPOSITORY"] != "acme/shop" || env["GITHUB_REF"] != "refs/tags/v1.2.3" || env["RUNNER_NAME"] != "r1" ||
				env["GITHUB_RUN_ATTEMPT"] != "1" || env["GITHUB_JOB"] != "deploy" || env["GITHUB_SHA"] != sha1 {
				t.Errorf("hook environment = %v", env)
			}
			claims = w.idToken(env, "ward")
			return nil
		})
		if code := wait(); code != 0 {
			t.Errorf("Run() = %d, want 0", code)
		}
		m = w.take(c, 1)
		if kinds(m) != "completed,started" {
			t.Fatalf("messages after the job = %s, want started and completed", kinds(m))
		}
		if s := m.JobStartedMessages[0]; s.RunnerID != id || s.RunnerName != "r1" || s.JobID != run.JobID {
			t.Errorf("JobStarted = %+v", s)
		}
		if d := m.JobCompletedMessages[0]; d.Result != "succeeded" || d.FinishTime.IsZero() {
			t.Errorf("JobCompleted = %+v", d)
		}
		if j := w.job(run.JobID); j.Status != "completed" || j.Conclusion != "success" || !j.StepsRan || !j.HookSucceeded {
			t.Errorf("Job() = %+v", j)
		}
		if got := w.sim.Runners(); len(got) != 0 {
			t.Errorf("Runners() = %v, want the ephemeral runner gone", got)
		}
		wantClaims(t, claims, run)
	})
}

func wantClaims(t *testing.T, got map[string]any, run simgithub.Run) {
	t.Helper()
	want := map[string]any{
		"aud": "ward", "iss": "http://ghes.test/oidc", "sub": "repo:acme/shop:environment:production",
		"environment": "production", "runner_environment": "self-hosted", "run_attempt": "1",
		"job_workflow_ref": deploy, "job_workflow_sha": sha2, "repository_id": "500000001", "ref": "refs/tags/v1.2.3",
		"repository_owner_id": "65", "actor": "alice", "sha": sha1, "event_name": "push", "run_id": "9000000001",
		"check_run_id": "26000000001",
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("claim %s = %v, want %v", k, got[k], v)
		}
	}
	if run.ID != 9000000001 || run.CheckRunID != 26000000001 {
		t.Errorf("run = %+v", run)
	}
}

// idToken asks for a token as a hook does and verifies it with the published keys.
func (w *world) idToken(env map[string]string, audience string) map[string]any {
	w.t.Helper()
	status, _, got := w.raw("GET", env["ACTIONS_ID_TOKEN_REQUEST_URL"]+"&audience="+audience,
		"bearer "+env["ACTIONS_ID_TOKEN_REQUEST_TOKEN"], nil)
	if status != http.StatusOK {
		w.t.Errorf("ID token: status %d, want 200: %v", status, got)
		return nil
	}
	return w.verify(got["value"].(string))
}

func (w *world) verify(token string) map[string]any {
	w.t.Helper()
	_, _, disco := w.raw("GET", "/oidc/.well-known/openid-configuration", "", nil)
	_, _, keys := w.raw("GET", disco["jwks_uri"].(string), "", nil)
	b, err := json.Marshal(keys)
	if err != nil {
		w.t.Fatal(err)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(b, &set); err != nil {
		w.t.Fatal(err)
	}
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, k := range set.Key(jws.Signatures[0].Header.KeyID) {
		if payload, err := jws.Verify(k); err == nil {
			var claims map[string]any
			if err := json.Unmarshal(payload, &claims); err != nil {
				w.t.Fatal(err)
			}
			return claims
		}
	}
	return nil
}

func TestAKeyRotationKeepsTheFormerKeyPublishedOnce(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		c := w.session()
		w.dispatch(func(s *simgithub.RunSpec) { s.Duration = 0 })
		w.take(c, 1)
		_, jit := w.jit("r1")
		w.start(t.Context(), jit, func(_ context.Context, env map[string]string) error {
			_, _, got := w.raw("GET", env["ACTIONS_ID_TOKEN_REQUEST_URL"], "bearer "+env["ACTIONS_ID_TOKEN_REQUEST_TOKEN"], nil)
			old := got["value"].(string)
			w.sim.RotateKeys()
			if w.verify(old) == nil {
				t.Error("the former key is not published after one rotation")
			}
			w.sim.RotateKeys()
			if w.verify(old) != nil {
				t.Error("the key is still published after two rotations")
			}
			return nil
		})()
	})
}

func TestAJobWithoutIDTokenPermissionHasNoTokenRequest(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		c := w.session()
		w.dispatch(func(s *simgithub.RunSpec) { s.IDToken = false })
		w.take(c, 1)
		_, jit := w.jit("r1")
		w.start(t.Context(), jit, func(_ context.Context, env map[string]string) error {
			for _, k := range []string{"ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"} {
				if v, ok := env[k]; ok {
					t.Errorf("%s = %q, want it unset", k, v)
				}
			}
			return nil
		})()
	})
}

func TestAnIDTokenIsRefusedOnceTheJobIsOver(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		c := w.session()
		w.dispatch(nil)
		w.take(c, 1)
		_, jit := w.jit("r1")
		var env map[string]string
		w.start(t.Context(), jit, func(_ context.Context, e map[string]string) error { env = e; return nil })()
		status, _, _ := w.raw("GET", env["ACTIONS_ID_TOKEN_REQUEST_URL"]+"&audience=x", "bearer "+env["ACTIONS_ID_TOKEN_REQUEST_TOKEN"], nil)
		if status != http.StatusForbidden {
			t.Errorf("ID token after the job: status %d, want 403", status)
		}
		status, _, _ = w.raw("GET", env["ACTIONS_ID_TOKEN_REQUEST_URL"], "bearer "+pat, nil)
		if status != http.StatusUnauthorized {
			t.Errorf("ID token for another credential: status %d, want 401", status)
		}
	})
}

func TestAFailingHookFailsTheJobButAlwaysStepsRun(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		c := w.session()
		run := w.dispatch(nil)
		w.take(c, 1)
		_, jit := w.jit("r1")
		w.start(t.Context(), jit, func(context.Context, map[string]string) error { return errors.New("refused") })()
		if j := w.job(run.JobID); j.Conclusion != "failure" || !j.StepsRan || j.HookSucceeded {
			t.Errorf("Job() = %+v, want a failure whose always() steps ran", j)
		}
	})
}

func TestAKilledRunnerReportsNothingAndItsLeaseExpires(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		c := w.session()
		run := w.dispatch(nil)
		w.take(c, 1)
		id, jit := w.jit("r1")
		ctx, kill := context.WithCancel(t.Context())
		wait := w.start(ctx, jit, func(ctx context.Context, _ map[string]string) error {
			<-ctx.Done()
			return ctx.Err()
		})
		sleep(3*time.Minute + 30*time.Second)
		kill()
		if code := wait(); code != 137 {
			t.Errorf("Run() = %d, want 137", code)
		}
		renewed := time.Now().Add(-30 * time.Second)
		if err := w.admin.RemoveRunner(t.Context(), int64(id)); !errors.Is(err, scaleset.JobStillRunningError) {
			t.Errorf("RemoveRunner() of a busy runner = %v, want JobStillRunningError", err)
		}
		sleep(10 * time.Minute)
		j := w.job(run.JobID)
		if j.Status != "completed" || j.Conclusion != "failure" || j.StepsRan {
			t.Errorf("Job() = %+v, want a failure without steps", j)
		}
		if want := renewed.Add(10 * time.Minute); !j.CompletedAt.Equal(want) {
			t.Errorf("CompletedAt = %v, want %v: ten minutes after the last renewal", j.CompletedAt, want)
		}
		if err := w.admin.RemoveRunner(t.Context(), int64(id)); err != nil {
			t.Errorf("RemoveRunner() after the lease = %v", err)
		}
	})
}

func TestACancelledRun(t *testing.T) {
	t.Run("that waits in the queue ends at once", func(t *testing.T) {
		bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
			c := w.session()
			run := w.dispatch(nil)
			w.take(c, 1)
			if status, _, _ := w.raw("POST", "/api/v3/repos/acme/shop/actions/runs/9000000001/cancel", "Bearer "+pat, nil); status != http.StatusAccepted {
				t.Errorf("cancel: status %d, want 202", status)
			}
			m := w.take(c, 1)
			if kinds(m) != "completed" || m.JobCompletedMessages[0].Result != "canceled" || m.Statistics.TotalAssignedJobs != 0 {
				t.Errorf("message = %s %+v", kinds(m), m.Statistics)
			}
			if err := w.sim.Cancel(run.ID); err == nil {
				t.Error("Cancel() of a completed run succeeded")
			}
		})
	})
	t.Run("whose hook blocks kills the hook after ten seconds and runs always() steps", func(t *testing.T) {
		bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
			c := w.session()
			run := w.dispatch(nil)
			w.take(c, 1)
			_, jit := w.jit("r1")
			wait := w.start(t.Context(), jit, func(ctx context.Context, _ map[string]string) error {
				<-ctx.Done()
				return ctx.Err()
			})
			begin := time.Now()
			if err := w.sim.Cancel(run.ID); err != nil {
				t.Fatalf("Cancel() = %v", err)
			}
			wait()
			wantNear(t, "the cancellation", time.Since(begin), 10*time.Second)
			if j := w.job(run.JobID); j.Conclusion != "cancelled" || !j.StepsRan {
				t.Errorf("Job() = %+v", j)
			}
		})
	})
	t.Run("whose runner is silent is ended by the server after five minutes", func(t *testing.T) {
		bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
			c := w.session()
			run := w.dispatch(nil)
			w.take(c, 1)
			_, jit := w.jit("r1")
			ctx, kill := context.WithCancel(t.Context())
			wait := w.start(ctx, jit, func(ctx context.Context, _ map[string]string) error { <-ctx.Done(); return nil })
			kill()
			wait()
			if err := w.sim.Cancel(run.ID); err != nil {
				t.Fatalf("Cancel() = %v", err)
			}
			sleep(5*time.Minute - time.Second)
			if j := w.job(run.JobID); j.Status != "in_progress" {
				t.Errorf("status after 4:59 = %s, want in_progress", j.Status)
			}
			sleep(time.Second)
			if j := w.job(run.JobID); j.Conclusion != "cancelled" || j.StepsRan {
				t.Errorf("Job() after 5:00 = %+v", j)
			}
		})
	})
}

func TestFinishJobEndsTheSteps(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		c := w.session()
		run := w.dispatch(func(s *simgithub.RunSpec) { s.Duration = -1 })
		if err := w.sim.FinishJob(run.JobID, "failure"); err == nil {
			t.Error("FinishJob() of a queued job succeeded")
		}
		w.take(c, 1)
		_, jit := w.jit("r1")
		wait := w.start(t.Context(), jit, nil)
		sleep(2 * time.Hour)
		if j := w.job(run.JobID); j.Status != "in_progress" {
			t.Fatalf("status after two hours = %s, want in_progress: the lease is renewed", j.Status)
		}
		if err := w.sim.FinishJob(run.JobID, "failure"); err != nil {
			t.Fatalf("FinishJob() = %v", err)
		}
		wait()
		if j := w.job(run.JobID); j.Conclusion != "failure" {
			t.Errorf("conclusion = %s, want failure", j.Conclusion)
		}
		synctest.Wait()
	})
}

func TestTheJITConfigHoldsTheThreeFilesOfARunner(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		id, jit := w.jit("r1")
		b, err := base64.StdEncoding.DecodeString(jit)
		if err != nil {
			t.Fatal(err)
		}
		var files map[string][]byte
		if err := json.Unmarshal(b, &files); err != nil {
			t.Fatal(err)
		}
		if len(files) != 3 || files[".credentials"] == nil || files[".credentials_rsaparams"] == nil {
			t.Errorf("files = %v", len(files))
		}
		var r struct {
			AgentID              int `json:"AgentId,string"`
			Ephemeral, UseV2Flow string
		}
		if err := json.Unmarshal(files[".runner"], &r); err != nil || r.AgentID != id || r.Ephemeral != "True" || r.UseV2Flow != "True" {
			t.Errorf(".runner = %s, %v", files[".runner"], err)
		}
	})
}
