package simgithub_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/actions/scaleset"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
)

func TestRule8ASessionIsExclusiveAndOutlivesItsClient(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		w.session()
		_, err := w.client().MessageSessionClient(t.Context(), w.set.ID, "host-2")
		if err == nil || !strings.Contains(err.Error(), "RunnerScaleSetSessionConflictException") {
			t.Errorf("second session = %v, want a conflict", err)
		}
		admin := "Bearer " + w.adminToken()
		if status, _, got := w.raw("PATCH", sets+"/1/sessions/00000000-0000-4000-8000-000000000000", admin, nil); status != 404 ||
			!strings.Contains(got["typeName"].(string), "RunnerAdminException") {
			t.Errorf("refresh of an unknown session = %d %v", status, got)
		}
		if status, _, _ := w.raw("POST", sets+"/99/sessions", admin, map[string]any{"ownerName": "h"}); status != 404 {
			t.Errorf("session of an unknown set = %d, want 404", status)
		}
		sleep(5 * time.Minute)
		w.session()
	})
}

func TestRule8AHeldPollKeepsTheSession(t *testing.T) {
	bubble(t, simgithub.Config{PollHold: 8 * time.Minute}, func(t *testing.T, w *world) {
		c := w.session()
		if m, err := c.GetMessage(t.Context(), 0, 1); m != nil || err != nil {
			t.Fatalf("GetMessage() = %v, %v", m, err)
		}
		w.dispatch(nil)
		w.poll(c, 0, 1)
		sleep(5 * time.Minute)
		if _, err := c.GetMessage(t.Context(), 0, 1); err == nil || !strings.Contains(err.Error(), "400") {
			t.Errorf("GetMessage() of an expired session = %v, want 400", err)
		}
	})
}

func TestRule9Agents(t *testing.T) {
	for _, status := range []int{400, 409} {
		bubble(t, simgithub.Config{JobStillRunningStatus: status, IdleReap: 6 * time.Minute}, func(t *testing.T, w *world) {
			c := w.session()
			w.dispatch(func(s *simgithub.RunSpec) { s.Duration = time.Hour })
			w.take(c, 1)
			id, jit := w.jit("r1")
			_, err := w.admin.GenerateJitRunnerConfig(t.Context(), &scaleset.RunnerScaleSetJitRunnerSetting{Name: "R1"}, w.set.ID)
			if !errors.Is(err, scaleset.RunnerExistsError) {
				t.Errorf("a second r1 = %v, want RunnerExistsError", err)
			}
			if err := w.admin.RemoveRunner(t.Context(), 999); !errors.Is(err, scaleset.RunnerNotFoundError) {
				t.Errorf("RemoveRunner(999) = %v, want RunnerNotFoundError", err)
			}
			ctx, kill := context.WithCancel(t.Context())
			wait := w.start(ctx, jit, nil)
			if err := w.admin.RemoveRunner(t.Context(), int64(id)); !errors.Is(err, scaleset.JobStillRunningError) {
				t.Errorf("RemoveRunner(busy) = %v, want JobStillRunningError", err)
			}
			if err := w.admin.DeleteRunnerScaleSet(t.Context(), w.set.ID); err == nil {
				t.Error("DeleteRunnerScaleSet() with a busy runner succeeded")
			}
			kill()
			wait()
			w.jit("idle")
			sleep(6 * time.Minute)
			if r, err := w.admin.GetRunnerByName(t.Context(), "idle"); r != nil || err != nil {
				t.Errorf("GetRunnerByName(idle) after the reaping = %v, %v, want none", r, err)
			}
			if r, err := w.admin.GetRunnerByName(t.Context(), "r1"); r == nil || err != nil || r.RunnerScaleSetID != w.set.ID {
				t.Errorf("GetRunnerByName(r1) = %v, %v, want the busy runner", r, err)
			}
		})
	}
}

func TestRule10AJITConfigServesOnce(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		_, jit := w.jit("r1")
		ctx, kill := context.WithCancel(t.Context())
		wait := w.start(ctx, jit, nil)
		hook := func(context.Context, map[string]string) error { t.Error("the second runner got a job"); return nil }
		if code := w.start(t.Context(), jit, hook)(); code != 0 {
			t.Errorf("second Run() = %d, want 0: run.sh hides the conflict", code)
		}
		var conflicts int
		for _, r := range w.sim.Requests() {
			if r.Path == "/broker/session" && r.Status == http.StatusConflict {
				conflicts++
			}
		}
		if conflicts != 1 {
			t.Errorf("session conflicts = %d, want 1", conflicts)
		}
		kill()
		wait()
	})
}

func TestRule11ScaleSetNames(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		create := func(group int) error {
			_, err := w.admin.CreateRunnerScaleSet(t.Context(), &scaleset.RunnerScaleSet{Name: "prod-set", RunnerGroupID: group})
			return err
		}
		if err := create(int(w.group)); err == nil || !strings.Contains(err.Error(), "400") {
			t.Errorf("the same name in the same group = %v, want 400", err)
		}
		if err := create(1); err != nil {
			t.Errorf("the same name in another group = %v", err)
		}
		sleep(7 * 24 * time.Hour)
		if set, err := w.admin.GetRunnerScaleSet(t.Context(), int(w.group), "prod-set"); set != nil || err != nil {
			t.Errorf("GetRunnerScaleSet() after 7 days = %v, %v, want it gone", set, err)
		}
	})
}

func TestRule11ADeletedSetGivesItsJobsBack(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		run := w.dispatch(nil)
		w.take(w.session(), 1)
		if err := w.admin.DeleteRunnerScaleSet(t.Context(), w.set.ID); err != nil {
			t.Fatalf("DeleteRunnerScaleSet() = %v", err)
		}
		if j := w.job(run.JobID); j.ScaleSetID != 0 || j.Status != "queued" {
			t.Errorf("Job() = %+v, want it queued without a set", j)
		}
	})
}

func TestAnOfferThatIsNotAcquiredComesBack(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		c := w.session()
		run := w.dispatch(nil)
		w.take(c, 1)
		w.sim.Inject(simgithub.Fault{Kind: simgithub.FaultStatus, Status: 409, Method: "POST", Path: "/broker/run/acquirejob"})
		_, jit := w.jit("r1")
		begin := time.Now()
		w.start(t.Context(), jit, nil)()
		j := w.job(run.JobID)
		if j.Conclusion != "success" || j.RunnerName != "r1" {
			t.Errorf("Job() = %+v", j)
		}
		wantNear(t, "the second offer", j.StartedAt.Sub(begin), time.Minute)
	})
}

func TestCloseEndsHeldPolls(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		c, begin := w.session(), time.Now()
		go func() {
			sleep(time.Second)
			w.sim.Close()
		}()
		if _, err := c.GetMessage(t.Context(), 0, 1); err == nil {
			t.Error("GetMessage() of a closing server succeeded, want 503")
		}
		wantNear(t, "the end of the poll", time.Since(begin), time.Second)
	})
}
