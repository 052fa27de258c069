package conformance

import (
	"bytes"
	"slices"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
)

// onMessage spoils the message that says that two jobs were assigned, and looks
// at what the client makes of it. The next delivery is as it should be.
func onMessage(over, part string, ok func(m *Message, jobs []string) bool, words ...string) faultCase {
	return func(w *World, kind simgithub.FaultKind) {
		jobs := []string{w.job().JobID, w.job().JobID}
		s := w.open(w.Client)
		w.Sim.Inject(simgithub.Fault{Kind: kind, Method: "GET", Path: queuePath})
		m, err := s.Poll(w.Context(), 0, 5)
		if len(words) > 0 {
			w.refusedWith("the spoilt message", err, words...)
		} else if err != nil || m == nil || !ok(m, jobs) {
			w.Errorf("Poll() = %+v, %v, want %s", m, err, over)
		}
		w.sees(over, func(a Answer) bool { return a.Status == 200 && bytes.Contains(a.Body, []byte(part)) })
		again := must(s.Poll(w.Context(), 0, 5))(w)
		if again == nil || !slices.Equal(again.Assigned, jobs) || again.NoStatistics || again.TotalAssigned != 2 {
			w.Errorf("afterwards Poll() = %+v, want both jobs assigned", again)
		}
	}
}

func messageCases() map[simgithub.FaultKind]faultCase {
	return map[simgithub.FaultKind]faultCase{
		simgithub.FaultNullStatistics: onMessage("no statistics", `"statistics":null`, func(m *Message, jobs []string) bool {
			return m.NoStatistics && slices.Equal(m.Assigned, jobs)
		}),
		simgithub.FaultStaleStatistics: onMessage("counters of ghosts", `"totalAssignedJobs":9`, func(m *Message, _ []string) bool {
			return m.TotalAssigned == 9 && m.TotalIdle == 9 && m.TotalRunning == 0
		}),
		simgithub.FaultUnknownItem: onMessage("an item of an unknown type", `JobPondered`, func(m *Message, jobs []string) bool {
			return slices.Equal(m.Assigned, jobs)
		}),
		simgithub.FaultReversed: onMessage("the items in reverse", "JobAssigned", func(m *Message, jobs []string) bool {
			return slices.Equal(m.Assigned, []string{jobs[1], jobs[0]})
		}),
		simgithub.FaultUnknownMessage: onMessage("an unknown outer type", `RunnerScaleSetNews`, nil, "RunnerScaleSetNews"),
		simgithub.FaultPoisonItem:     onMessage("an item that is not as it should be", "not a number", nil, "cannot unmarshal string"),
		simgithub.FaultNoQueueURL: func(w *World, kind simgithub.FaultKind) {
			w.Sim.Inject(simgithub.Fault{Kind: kind, Method: "POST", Path: setsPath + "/*/sessions"})
			s := w.open(w.Client)
			w.sees("no address of the queue", func(a Answer) bool { return bytes.Contains(a.Body, []byte(`"messageQueueUrl":""`)) })
			_, err := s.Poll(w.Context(), 0, 5)
			w.refusedWith("a poll to nowhere", err, "unsupported protocol scheme")
			if err := s.Close(w.Context()); err != nil {
				w.Fatal(err)
			}
			must(w.open(w.New()).Poll(w.Context(), 0, 5))(w)
		},
		simgithub.FaultDuplicateMessage: func(w *World, kind simgithub.FaultKind) {
			run := w.job()
			s := w.open(w.Client)
			w.Sim.Inject(simgithub.Fault{Kind: kind, Method: "GET", Path: queuePath})
			first, second := w.next(s), w.next(s)
			if first.ID == second.ID || !slices.Equal(first.Assigned, []string{run.JobID}) || !slices.Equal(second.Assigned, first.Assigned) {
				w.Errorf("the messages are %+v and %+v, want the same under another id", first, second)
			}
			if m := must(s.Poll(w.Context(), 0, 5))(w); m != nil {
				w.Errorf("afterwards Poll() = %+v, want nothing", m)
			}
		},
		simgithub.FaultEarlyEnd: func(w *World, kind simgithub.FaultKind) {
			s, job := w.running()
			w.Sim.Inject(simgithub.Fault{Kind: kind, Method: "GET", Path: queuePath})
			m := must(s.Poll(w.Context(), 0, 5))(w)
			if m == nil || !slices.Equal(m.Started, []string{job}) || !slices.Equal(m.Completed, m.Started) || w.status(job) != "in_progress" {
				w.Errorf("Poll() = %+v while the job is %s, want it started and completed while it runs", m, w.status(job))
			}
			if m := w.next(s); !slices.Equal(m.Started, []string{job}) || len(m.Completed) != 0 {
				w.Errorf("afterwards Poll() = %+v, want it started", m)
			}
		},
		simgithub.FaultFalseEnd: func(w *World, kind simgithub.FaultKind) {
			s, job := w.running()
			w.next(s)
			w.Sim.Inject(simgithub.Fault{Kind: kind, Method: "GET", Path: queuePath})
			m := w.next(s)
			if len(m.Started) != 0 || !slices.Equal(m.Completed, []string{job}) || m.TotalRunning != 1 || w.status(job) != "in_progress" {
				w.Errorf("Poll() = %+v while the job is %s, want it completed while it runs", m, w.status(job))
			}
			w.finish(job)
			if m := w.next(s); !slices.Equal(m.Completed, []string{job}) || m.TotalRunning != 0 {
				w.Errorf("afterwards Poll() = %+v, want it completed", m)
			}
		},
		simgithub.FaultLateStart: func(w *World, kind simgithub.FaultKind) {
			s, job := w.running()
			w.Sim.Inject(simgithub.Fault{Kind: kind, Method: "GET", Path: queuePath})
			if m := w.next(s); len(m.Started) != 0 || m.TotalRunning != 1 {
				w.Errorf("Poll() = %+v, want the start kept back", m)
			}
			w.finish(job)
			if m := w.next(s); len(m.Started) != 0 || !slices.Equal(m.Completed, []string{job}) {
				w.Errorf("Poll() = %+v, want the end before the start", m)
			}
			if m := w.next(s); !slices.Equal(m.Started, []string{job}) || len(m.Completed) != 0 {
				w.Errorf("Poll() = %+v, want the start after the end", m)
			}
		},
	}
}

// running is a session and a job of it that a runner has. That it started was not
// told yet.
func (w *World) running() (Session, string) {
	w.Helper()
	run := w.job()
	s := w.open(w.Client)
	w.next(s)
	w.runner("r-1")
	w.runs(run.JobID)
	return s, run.JobID
}

func (w *World) finish(job string) {
	w.Helper()
	if err := w.Sim.FinishJob(job, "success"); err != nil {
		w.Fatal(err)
	}
	w.until("the job is over", func() bool { return w.status(job) == "completed" })
}
