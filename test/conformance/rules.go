package conformance

import (
	"net/http"
	"slices"
	"strings"
	"time"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
)

// Rules are what the service is held to. Their sources are the official client
// (github.com/actions/scaleset), actions-runner-controller, the runner
// (github.com/actions/runner) and what their issues report.
func Rules() []Rule {
	return slices.Concat(setRules(), sessionRules(), queueRules(), runnerRules())
}

func setRules() []Rule {
	return []Rule{
		{Name: "a scale set is found by name in its group and nowhere else", Test: func(w *World) {
			found := must(w.Client.FindSet(w.Context(), w.Group, setName))(w)
			if found == nil || found.ID != w.Set.ID || found.GroupID != w.Group || !slices.Contains(found.Labels, setName) {
				w.Errorf("found %+v, want %+v", found, w.Set)
			}
			if other := must(w.Client.FindSet(w.Context(), 1, setName))(w); other != nil {
				w.Errorf("found %+v in another group", other)
			}
			if none := must(w.Client.FindSet(w.Context(), w.Group, "nobody"))(w); none != nil {
				w.Errorf("found %+v under a name that nobody has", none)
			}
		}},
		{Name: "a group that does not exist is not found", Test: func(w *World) {
			_, err := w.Client.GroupID(w.Context(), "nobody")
			w.refusedWith("a group that nobody made", err, "no runner group", "0 groups")
		}},
		{Name: "a second scale set of a name in a group is refused, in another group not", Test: func(w *World) {
			_, err := w.Client.CreateSet(w.Context(), Set{Name: setName, GroupID: w.Group, Labels: []string{setName}})
			w.refusedWith("a second set", err, "400")
			must(w.Client.CreateSet(w.Context(), Set{Name: setName, GroupID: 1, Labels: []string{setName}}))(w)
		}},
		{Name: "a scale set that is deleted is gone", Test: func(w *World) {
			if err := w.Client.DeleteSet(w.Context(), w.Set.ID); err != nil {
				w.Fatal(err)
			}
			if found := must(w.Client.FindSet(w.Context(), w.Group, setName))(w); found != nil {
				w.Errorf("found %+v", found)
			}
			_, err := w.Client.Open(w.Context(), w.Set.ID, "host")
			w.refusedWith("a session of a set that is gone", err, "404")
		}},
		{Name: "a scale set that nobody listens to for seven days is deleted", Clock: true, Test: func(w *World) {
			w.pass(8 * 24 * time.Hour)
			if found := must(w.New().FindSet(w.Context(), w.Group, setName))(w); found != nil {
				w.Errorf("found %+v after eight days", found)
			}
		}},
		{Name: "tokens are not interchangeable", Test: func(w *World) {
			for path, auth := range map[string]string{
				"/api/v3/orgs/" + org + "/actions/runners/registration-token": "RemoteAuth " + token,
				"/rest/_apis/runtime/runnerscalesets?name=x":                  "Bearer " + token,
				"/api/v3/orgs/" + org:                                         "Bearer nonsense",
			} {
				method := http.MethodGet
				if strings.HasSuffix(path, "-token") {
					method = http.MethodPost
				}
				base := strings.TrimSuffix(w.To.URL, "/"+org)
				err := exchange(w.Context(), w.To.HTTP, 200, method, base+path, auth, nil, nil)
				w.refusedWith(path+" with another token", err, "HTTP 401")
			}
		}},
	}
}

func sessionRules() []Rule {
	return []Rule{
		{Name: "a scale set has one session at a time", Test: func(w *World) {
			first := w.open(w.Client)
			_, err := w.New().Open(w.Context(), w.Set.ID, "other")
			w.refusedWith("a second session", err, "RunnerScaleSetSessionConflictException")
			if err := first.Close(w.Context()); err != nil {
				w.Fatal(err)
			}
			w.open(w.New())
		}},
		{Name: "a session outlives its client until it expires", Clock: true, Test: func(w *World) {
			first := w.open(w.Client)
			w.pass(2 * time.Minute)
			_, err := w.New().Open(w.Context(), w.Set.ID, "other")
			w.refusedWith("a session beside one whose client died", err, "409")
			w.pass(5 * time.Minute)
			w.open(w.New())
			_, err = first.Poll(w.Context(), 0, 1)
			w.refusedWith("a poll on the expired session", err, "400", "Expired")
		}},
		{Name: "a poll without news is held and then answered with 202", Test: func(w *World) {
			began := time.Now()
			m := must(w.open(w.Client).Poll(w.Context(), 0, 1))(w)
			if held := time.Since(began); m != nil || held < 250*time.Millisecond {
				w.Errorf("Poll() = %+v after %s, want nothing after the hold", m, held)
			}
		}},
		{Name: "an expired queue token is renewed by the session", Clock: true, Config: func(c *simgithub.Config) { c.QueueTokenTTL, c.SessionTTL = 2*time.Minute, time.Hour }, Test: func(w *World) {
			s := w.open(w.Client)
			w.pass(3 * time.Minute)
			_, err := s.Poll(w.Context(), 0, 1)
			if _, isRaw := s.(*rawSession); isRaw { // it renews nothing
				w.refusedWith("a poll with an expired token", err, "HTTP 401")
				return
			}
			if err != nil {
				w.Errorf("Poll() after the token's end = %v, want it renewed", err)
			}
		}},
	}
}

func queueRules() []Rule {
	return []Rule{
		{Name: "a job is assigned at once, with counters of now", Test: func(w *World) {
			run := w.job()
			m := must(w.open(w.Client).Poll(w.Context(), 0, 5))(w)
			if m == nil || !slices.Equal(m.Assigned, []string{run.JobID}) || m.TotalAssigned != 1 || len(m.Available) != 0 {
				w.Errorf("Poll() = %+v, want job %s assigned", m, run.JobID)
			}
		}},
		{Name: "on GitHub Enterprise Server a job is offered, acquired, then assigned", GHES: true, Test: func(w *World) {
			run := w.job()
			s := w.open(w.Client)
			taker, able := s.(Acquirer)
			m := must(s.Poll(w.Context(), 0, 5))(w)
			if !able {
				if m != nil && len(m.Assigned) > 0 {
					w.Errorf("Poll() = %+v: a client that cannot acquire was given the job", m)
				}
				return
			}
			if m == nil || len(m.Available) != 1 || len(m.Assigned) != 0 {
				w.Fatalf("Poll() = %+v, want one offer", m)
			}
			if got := must(taker.Acquire(w.Context(), m.Available))(w); !slices.Equal(got, m.Available) {
				w.Errorf("acquired %v, want %v", got, m.Available)
			}
			next := must(s.Poll(w.Context(), m.ID, 5))(w)
			if next == nil || !slices.Equal(next.Assigned, []string{run.JobID}) {
				w.Errorf("Poll() = %+v, want job %s assigned", next, run.JobID)
			}
		}},
		{Name: "a message comes again until it is acknowledged", Test: func(w *World) {
			w.job()
			s := w.open(w.Client)
			first, again := must(s.Poll(w.Context(), 0, 5))(w), must(s.Poll(w.Context(), 0, 5))(w)
			if first == nil || again == nil || first.ID != again.ID {
				w.Fatalf("Poll() = %+v, then %+v, want the same message", first, again)
			}
			if err := s.Acknowledge(w.Context(), first.ID); err != nil {
				w.Fatal(err)
			}
			if m := must(s.Poll(w.Context(), 0, 5))(w); m != nil && m.ID == first.ID {
				w.Errorf("message %d came again after its acknowledgement", m.ID)
			}
			w.refusedWith("a second acknowledgement", s.Acknowledge(w.Context(), first.ID), "404")
		}},
		{Name: "what a session did not acknowledge comes to the next", Test: func(w *World) {
			w.job()
			s := w.open(w.Client)
			first := must(s.Poll(w.Context(), 0, 5))(w)
			if err := s.Close(w.Context()); err != nil {
				w.Fatal(err)
			}
			if again := must(w.open(w.New()).Poll(w.Context(), 0, 5))(w); again == nil || !slices.Equal(again.Assigned, first.Assigned) {
				w.Errorf("the next session sees %+v, want %+v", again, first)
			}
		}},
		{Name: "no more jobs are assigned than the capacity allows, with 0 none", Test: func(w *World) {
			w.job()
			w.job()
			s := w.open(w.Client)
			if m := must(s.Poll(w.Context(), 0, 0))(w); m != nil && len(m.Assigned) > 0 {
				w.Fatalf("Poll() with capacity 0 = %+v", m)
			}
			m := must(s.Poll(w.Context(), 0, 1))(w)
			if m == nil || len(m.Assigned) != 1 || m.TotalAssigned != 1 {
				w.Errorf("Poll() with capacity 1 = %+v, want one job", m)
			}
		}},
		{Name: "a job that no runner takes is taken back and assigned again, three times at most", Clock: true, Test: func(w *World) {
			run := w.job()
			s := w.open(w.Client)
			assigned, taken := 0, 0
			for last, waited := 0, 0; waited < 60; waited++ {
				m := must(s.Poll(w.Context(), last, 5))(w)
				if m == nil {
					continue
				}
				assigned += len(m.Assigned)
				taken += len(m.Completed)
				last = m.ID
				if err := s.Acknowledge(w.Context(), m.ID); err != nil {
					w.Fatal(err)
				}
			}
			if assigned != 4 || taken != 4 {
				w.Errorf("job %s was assigned %d times and taken back %d times within an hour, want 4 and 4", run.JobID, assigned, taken)
			}
		}},
	}
}

func runnerRules() []Rule {
	return []Rule{
		{Name: "a runner's name is taken once", Test: func(w *World) {
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
		{Name: "a runner that is removed is gone, and removing it again is refused", Test: func(w *World) {
			jit := must(w.Client.Register(w.Context(), w.Set.ID, "r-1"))(w)
			if err := w.Client.RemoveRunner(w.Context(), jit.ID); err != nil {
				w.Fatal(err)
			}
			if id := must(w.Client.FindRunner(w.Context(), "r-1"))(w); id != 0 {
				w.Errorf("FindRunner() = %d after its removal", id)
			}
			w.refusedWith("a second removal", w.Client.RemoveRunner(w.Context(), jit.ID), "404")
		}},
		{Name: "a runner that runs a job is not removed", Test: func(w *World) {
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
		{Name: "any idle runner takes any job", Config: func(c *simgithub.Config) { c.Assign = simgithub.AssignRandom(7) }, Test: func(w *World) {
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
		{Name: "an idle runner can be deleted by the server", Clock: true, Config: func(c *simgithub.Config) { c.IdleReap = 4 * time.Minute }, Test: func(w *World) {
			w.runner("r-1")
			w.pass(5 * time.Minute)
			if id := must(w.New().FindRunner(w.Context(), "r-1"))(w); id != 0 {
				w.Errorf("FindRunner() = %d after five idle minutes", id)
			}
		}},
		{Name: "a just-in-time configuration serves one runner", Test: func(w *World) {
			jit := w.runner("r-1")
			if code := (simgithub.Runner{Client: w.To.HTTP}).Run(w.Context(), jit.Encoded, nil); code != 0 {
				// The real one ends with 0 whatever happened; see actions/runner run-helper.sh.
				w.Logf("the second runner ended with %d", code)
			}
			if n := len(w.Sim.Runners()); n != 1 {
				w.Errorf("%d runners, want the first alone", n)
			}
		}},
		{Name: "errors carry the ids that support asks for", Test: func(w *World) {
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
	}
}
