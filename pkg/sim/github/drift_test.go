package simgithub_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/actions/scaleset"
	"github.com/google/go-github/v60/github"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
)

func TestAGroupThatIsOpenedUpShowsEverywhere(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		if err := w.sim.UpdateGroup(w.group, func(g *simgithub.Group) { g.Name, g.RestrictedToWorkflows = "renamed", false }); err != nil {
			t.Fatal(err)
		}
		if err := w.sim.UpdateGroup(999, func(*simgithub.Group) {}); err == nil {
			t.Error("UpdateGroup(999) succeeded")
		}
		groups, _, err := w.rest().Actions.ListOrganizationRunnerGroups(t.Context(), "acme", &github.ListOrgRunnerGroupOptions{VisibleToRepository: "shop"})
		if err != nil || len(groups.RunnerGroups) != 2 || groups.RunnerGroups[1].GetName() != "renamed" || groups.RunnerGroups[1].GetRestrictedToWorkflows() {
			t.Errorf("groups visible to shop = %v, %v", groups, err)
		}
		groups, _, err = w.rest().Actions.ListOrganizationRunnerGroups(t.Context(), "acme", &github.ListOrgRunnerGroupOptions{VisibleToRepository: "blog"})
		if err != nil || len(groups.RunnerGroups) != 1 {
			t.Errorf("groups visible to blog = %v, %v, want only the default one", groups, err)
		}
		if _, err := w.admin.GetRunnerGroupByName(t.Context(), "prod"); err == nil {
			t.Error("GetRunnerGroupByName(prod) found the renamed group")
		}
		set, err := w.admin.UpdateRunnerScaleSet(t.Context(), w.set.ID, &scaleset.RunnerScaleSet{RunnerGroupID: 1})
		if err != nil || set.RunnerGroupID != 1 || set.Name != "prod-set" || !set.RunnerSetting.DisableUpdate {
			t.Errorf("UpdateRunnerScaleSet() = %+v, %v", set, err)
		}
	})
}

func TestABusyRunnerIsListedAndCannotBeDeleted(t *testing.T) {
	bubble(t, simgithub.Config{Assign: simgithub.AssignRandom(7), ShuffleJobs: true}, func(t *testing.T, w *world) {
		q := w.session()
		run := w.dispatch(func(s *simgithub.RunSpec) { s.Duration = -1 })
		w.take(q, 1)
		id, jit := w.jit("r1")
		spare, _ := w.jit("spare")
		wait := w.start(t.Context(), jit, nil)
		c := w.rest()
		got, _, err := c.Actions.GetOrganizationRunner(t.Context(), "acme", int64(id))
		if err != nil || !got.GetBusy() || got.GetStatus() != "online" {
			t.Errorf("GetOrganizationRunner() = %v, %v", got, err)
		}
		in, _, err := c.Actions.ListRunnerGroupRunners(t.Context(), "acme", w.group, nil)
		if err != nil || in.TotalCount != 2 || in.Runners[1].GetStatus() != "offline" {
			t.Errorf("runners of the group = %v, %v", in, err)
		}
		if resp, err := c.Actions.RemoveOrganizationRunner(t.Context(), "acme", int64(id)); err == nil || resp.StatusCode != 422 {
			t.Errorf("RemoveOrganizationRunner(busy) = %v, want 422", err)
		}
		if _, err := c.Actions.RemoveOrganizationRunner(t.Context(), "acme", int64(spare)); err != nil {
			t.Errorf("RemoveOrganizationRunner(spare) = %v", err)
		}
		if r, err := w.admin.GetRunner(t.Context(), id); err != nil || r.Name != "r1" {
			t.Errorf("GetRunner() = %v, %v", r, err)
		}
		status, _, _ := w.raw("POST", "/api/v3/repos/acme/shop/actions/runs/9000000001/force-cancel", "Bearer "+pat, nil)
		if j := w.job(run.JobID); status != http.StatusAccepted || j.Conclusion != "cancelled" {
			t.Errorf("force-cancel = %d, job %+v", status, j)
		}
		wait()
		if status, _, _ = w.raw("POST", "/api/v3/repos/acme/shop/actions/runs/9000000001/cancel", "Bearer "+pat, nil); status != http.StatusConflict {
			t.Errorf("cancel of a completed run = %d, want 409", status)
		}
	})
}

func TestADeregisteredRunnerEnds(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		id, jit := w.jit("r1")
		hook := func(context.Context, map[string]string) error { t.Error("a job ran"); return nil }
		wait := w.start(t.Context(), jit, hook)
		if err := w.admin.RemoveRunner(t.Context(), int64(id)); err != nil {
			t.Fatal(err)
		}
		if code := wait(); code != 0 {
			t.Errorf("Run() of a removed runner = %d, want 0", code)
		}
		if code := w.start(t.Context(), jit, hook)(); code != 0 {
			t.Errorf("Run() with a deleted registration = %d, want 0", code)
		}
	})
}

func TestARejectedDeploymentFails(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		w.sim.SetEnvironment("shop", simgithub.Environment{Name: "slow", ReviewerTeams: []string{"deployers"}, WaitTimer: 90 * time.Second})
		run := w.dispatch(func(s *simgithub.RunSpec) { s.Environment = "slow" })
		req, err := w.rest().NewRequest("GET", "repos/acme/shop/actions/runs/9000000001/pending_deployments", nil)
		if err != nil {
			t.Fatal(err)
		}
		var pending []map[string]any
		if _, err := w.rest().Do(t.Context(), req, &pending); err != nil || len(pending) != 1 ||
			pending[0]["wait_timer"] != 2.0 || pending[0]["wait_timer_started_at"] == nil {
			t.Errorf("pending deployments = %v, %v", pending, err)
		}
		if err := w.sim.Reject(run.ID, "bob"); err != nil {
			t.Fatal(err)
		}
		if j := w.job(run.JobID); j.Conclusion != "failure" || w.approvals(w.rest(), run.ID)[0]["state"] != "rejected" {
			t.Errorf("Job() after the rejection = %+v", j)
		}
	})
}
