package conformance

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
)

func runnerRules() []Rule {
	return []Rule{
		{Name: "rule 9: a runner's name is taken once", Test: func(w *World) {
			first := must(w.Client.Register(w.Context(), w.Set.ID, "r-1"))(w)
			if first.Encoded == "" || first.ID <= 0 {
				w.Errorf("Register() = %+v", first)
			}
			_, err := w.Client.Register(w.Context(), w.Set.ID, "r-1")
			w.refusedWith("a second runner of the name", err, "409")
			if id := must(w.Client.FindRunner(w.Context(), "r-1"))(w); id != first.ID {
				w.Errorf("FindRunner() = %d, want %d", id, first.ID)
			}
		}},
		{Name: "rule 9: a runner that is removed is gone, and removing it again is refused", Test: func(w *World) {
			jit := must(w.Client.Register(w.Context(), w.Set.ID, "r-1"))(w)
			if err := w.Client.RemoveRunner(w.Context(), jit.ID); err != nil {
				w.Fatal(err)
			}
			if id := must(w.Client.FindRunner(w.Context(), "r-1"))(w); id != 0 {
				w.Errorf("FindRunner() = %d after its removal", id)
			}
			w.refusedWith("a second removal", w.Client.RemoveRunner(w.Context(), jit.ID), "404")
			w.refusedWith("a second removal", w.Client.RemoveRunner(w.Context(), jit.ID), "TaskAgentNotFoundException", "runner not found")
		}},
		{Name: "rule 9: a runner that runs a job is not removed", Test: func(w *World) {
			run := w.job()
			s := w.open(w.Client)
			m := must(s.Poll(w.Context(), 0, 5))(w)
			jit := w.runner("r-1")
			w.until("the job runs", func() bool {
				j, _ := w.Sim.Job(run.JobID)
				return j.Status == "in_progress"
			})
			w.refusedWith("the removal", w.Client.RemoveRunner(w.Context(), jit.ID), "JobStillRunning", "still running")
			next := must(s.Poll(w.Context(), m.ID, 5))(w)
			if next == nil || !slices.Equal(next.Started, []string{run.JobID}) {
				w.Errorf("Poll() = %+v, want job %s started", next, run.JobID)
			}
			if err := w.Sim.FinishJob(run.JobID, "success"); err != nil {
				w.Fatal(err)
			}
			w.until("the registration is gone with the job", func() bool { return len(w.Sim.Runners()) == 0 })
		}},
		{Name: "rule 6: any idle runner takes any job", Config: func(c *simgithub.Config) { c.Assign = simgithub.AssignRandom(7) }, Test: func(w *World) {
			w.runner("r-1")
			w.runner("r-2")
			w.runner("r-3")
			s := w.open(w.Client)
			runs := []simgithub.Run{w.job(), w.job(), w.job()}
			must(s.Poll(w.Context(), 0, 5))(w)
			took := map[string]bool{}
			inOrder := true
			for i, run := range runs {
				w.until("the job runs", func() bool {
					j, _ := w.Sim.Job(run.JobID)
					return j.Status == "in_progress"
				})
				j, _ := w.Sim.Job(run.JobID)
				took[j.RunnerName] = true
				inOrder = inOrder && j.RunnerName == []string{"r-1", "r-2", "r-3"}[i]
			}
			if len(took) != 3 || inOrder {
				w.Errorf("three jobs went to %v, in order %t, want one each in another order", took, inOrder)
			}
		}},
		{Name: "rule 9: an idle runner can be deleted by the server", Clock: true, Config: func(c *simgithub.Config) { c.IdleReap = 4 * time.Minute }, Test: func(w *World) {
			w.runner("r-1")
			w.pass(5 * time.Minute)
			if id := must(w.New().FindRunner(w.Context(), "r-1"))(w); id != 0 {
				w.Errorf("FindRunner() = %d after five idle minutes", id)
			}
		}},
		{Name: "rule 10: a just-in-time configuration serves one runner", Test: func(w *World) {
			jit := w.runner("r-1")
			// The real one ends with 0 whatever happened; see actions/runner run-helper.sh.
			simgithub.Runner{Client: w.To.HTTP}.Run(w.Context(), jit.Encoded, nil)
			var connections []int
			for _, r := range w.Sim.Requests() {
				if r.Method == "POST" && r.Path == "/broker/session" {
					connections = append(connections, r.Status)
				}
			}
			if !slices.Equal(connections, []int{200, 409}) {
				w.Errorf("the runners' sessions were answered %v, want the second refused with 409", connections)
			}
			if n := len(w.Sim.Runners()); n != 1 {
				w.Errorf("%d runners, want the first alone", n)
			}
		}},
		{Name: "rule 1: errors carry the ids that support asks for", Test: func(w *World) {
			base := strings.TrimSuffix(w.To.URL, "/"+org)
			req, err := http.NewRequestWithContext(w.Context(), "GET", base+"/rest/_apis/distributedtask/pools/0/agents/1", nil)
			if err != nil {
				w.Fatal(err)
			}
			resp := must(w.To.HTTP.Do(req))(w)
			defer resp.Body.Close()
			if resp.StatusCode != 401 || resp.Header.Get("ActivityId") == "" || resp.Header.Get("X-GitHub-Request-Id") == "" {
				w.Errorf("an error came as %d with headers %v", resp.StatusCode, resp.Header)
			}
		}},
		{Name: "rule 9: the removal of a busy runner is refused with 400", Test: func(w *World) { stillRuns(w, 400) }},
		{Name: "rule 9: or with 409", Config: func(c *simgithub.Config) { c.JobStillRunningStatus = 409 }, Test: func(w *World) { stillRuns(w, 409) }},
		{Name: "rule 9: a runner that died is busy until its lease expires", Config: func(c *simgithub.Config) { c.LeaseTTL = 2 * time.Second }, Test: func(w *World) {
			run := w.job()
			s := w.open(w.Client)
			w.next(s)
			jit, kill := w.mortal("r-1")
			w.runs(run.JobID)
			kill()
			w.refusedWith("the removal before the lease's end", w.Client.RemoveRunner(w.Context(), jit.ID), "JobStillRunning", "still running")
			w.until("the lease expired", func() bool { return w.status(run.JobID) == "completed" })
			if j, _ := w.Sim.Job(run.JobID); j.Conclusion != "failure" {
				w.Errorf("the job ended with %s, want failure", j.Conclusion)
			}
			if err := w.Client.RemoveRunner(w.Context(), jit.ID); err != nil {
				w.Errorf("the removal after the lease's end: %v", err)
			}
		}},
		{Name: "rule 11: a scale set with a busy runner is not deleted", Test: func(w *World) {
			_, job := w.running()
			w.refusedWith("the deletion", w.Client.DeleteSet(w.Context(), w.Set.ID), "400")
			w.finish(job)
			w.until("the registration is gone with the job", func() bool { return len(w.Sim.Runners()) == 0 })
			if err := w.Client.DeleteSet(w.Context(), w.Set.ID); err != nil {
				w.Errorf("the deletion after the job: %v", err)
			}
		}},
		{Name: "rule 11: a scale set with a busy runner does not die of neglect", Clock: true, Config: func(c *simgithub.Config) { c.LeaseTTL = 30 * 24 * time.Hour }, Test: func(w *World) {
			run := w.job()
			s := w.open(w.Client)
			w.next(s)
			_, kill := w.mortal("r-1")
			w.runs(run.JobID)
			kill() // so that it renews nothing
			if err := s.Close(w.Context()); err != nil {
				w.Fatal(err)
			}
			w.pass(8 * 24 * time.Hour)
			if found := must(w.New().FindSet(w.Context(), w.Group, setName))(w); found == nil {
				w.Error("the scale set is gone after eight days")
			}
		}},
	}
}

// stillRuns looks at the status of the refusal, which clients do not show.
func stillRuns(w *World, want int) {
	_, job := w.running()
	runner := w.Sim.Runners()[0]
	plain := NewRaw(w.To)
	err := plain.RemoveRunner(w.Context(), int(runner.ID))
	if answer, isRefused := errors.AsType[*refused](err); !isRefused || answer.status != want {
		w.Errorf("the removal: %v, want status %d", err, want)
	}
	w.refusedWith("the removal", w.Client.RemoveRunner(w.Context(), int(runner.ID)), "JobStillRunning", "still running")
	w.finish(job)
}
