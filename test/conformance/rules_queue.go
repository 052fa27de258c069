package conformance

import (
	"slices"
	"time"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
)

func queueRules() []Rule {
	return []Rule{
		{Name: "rule 5: a job is assigned at once, with counters of now", Test: func(w *World) {
			run := w.job()
			m := must(w.open(w.Client).Poll(w.Context(), 0, 5))(w)
			if m == nil || !slices.Equal(m.Assigned, []string{run.JobID}) || m.TotalAssigned != 1 || len(m.Available) != 0 {
				w.Errorf("Poll() = %+v, want job %s assigned", m, run.JobID)
			}
		}},
		{Name: "rule 5: on GitHub Enterprise Server a job is offered, acquired, then assigned", GHES: true, Test: func(w *World) {
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
		{Name: "rule 4: a message comes again until it is acknowledged", Test: func(w *World) {
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
		{Name: "rule 4: what a session did not acknowledge comes to the next", Test: func(w *World) {
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
		{Name: "rule 3: no more jobs are assigned than the capacity allows, with 0 none", Test: func(w *World) {
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
		// Durations are short, so that clients on real sockets are held to it too.
		{Name: "rule 7: a job that no runner takes is taken back and assigned again, three times at most", Config: func(c *simgithub.Config) { c.AssignTimeout = 400 * time.Millisecond }, Test: func(w *World) {
			run := w.job()
			s := w.open(w.Client)
			assigned, taken := 0, 0
			for idle := 0; idle < 2; {
				m := must(s.Poll(w.Context(), 0, 5))(w)
				if m == nil {
					if taken == 4 {
						idle++ // nothing more comes
					}
					continue
				}
				assigned += len(m.Assigned)
				taken += len(m.Completed)
				if err := s.Acknowledge(w.Context(), m.ID); err != nil {
					w.Fatal(err)
				}
			}
			if j, _ := w.Sim.Job(run.JobID); assigned != 4 || taken != 4 || j.Requeues != 3 || j.Status != "queued" {
				w.Errorf("job %+v was assigned %d times and taken back %d times, want 4 and 4", j, assigned, taken)
			}
		}},
		{Name: "rule 4: the counters are those of the delivery, not of the message", Test: func(w *World) {
			first := w.job()
			s := w.open(w.Client)
			m := must(s.Poll(w.Context(), 0, 5))(w)
			w.job()
			again := must(s.Poll(w.Context(), 0, 5))(w)
			if m == nil || again == nil || again.ID != m.ID || !slices.Equal(again.Assigned, []string{first.JobID}) || m.TotalAssigned != 1 || again.TotalAssigned != 2 {
				w.Errorf("Poll() = %+v, then %+v, want the same message with the counters of then", m, again)
			}
		}},
		{Name: "rule 4: a message that was seen is passed over", Test: func(w *World) { redelivered(w, false) }},
		{Name: "rule 4: in strict mode a message comes again whatever was seen", Config: func(c *simgithub.Config) { c.StrictRedelivery = true }, Test: func(w *World) { redelivered(w, true) }},
		{Name: "rule 5: a held poll is not woken for a job that starts", Config: hold, Test: func(w *World) {
			if took := w.toldOfTheStart(); took < holdFor {
				w.Errorf("the start was told after %s, want it at the end of the hold", took)
			}
		}},
		{Name: "rule 5: on GitHub Enterprise Server a held poll is woken for a job that starts", GHES: true, Config: hold, Test: func(w *World) {
			if took := w.toldOfTheStart(); took >= holdFor {
				w.Errorf("the start was told after %s, want it at once", took)
			}
		}},
	}
}

const holdFor = 2 * time.Second

func hold(c *simgithub.Config) { c.PollHold = holdFor }

// redelivered asks for what comes after an unacknowledged message.
func redelivered(w *World, strict bool) {
	w.job()
	s := w.open(w.Client)
	m := must(s.Poll(w.Context(), 0, 5))(w)
	again := must(s.Poll(w.Context(), m.ID, 5))(w)
	if strict && (again == nil || again.ID != m.ID) || !strict && again != nil {
		w.Errorf("Poll(%d) = %+v, want the message again: %t", m.ID, again, strict)
	}
	if next := must(s.Poll(w.Context(), m.ID-1, 5))(w); next == nil || next.ID != m.ID {
		w.Errorf("Poll(%d) = %+v, want message %d", m.ID-1, next, m.ID)
	}
}

// toldOfTheStart is how long a poll is held during which a job starts. A client
// that cannot acquire is given the job by another one.
func (w *World) toldOfTheStart() time.Duration {
	w.Helper()
	run := w.job()
	s := w.open(w.Client)
	if m := w.next(s); len(m.Available) > 0 || len(m.Assigned) == 0 {
		taker, able := s.(Acquirer)
		if !able {
			if err := s.Close(w.Context()); err != nil {
				w.Fatal(err)
			}
			s = w.open(NewRaw(w.To))
			taker, m = s.(Acquirer), w.next(s)
		}
		must(taker.Acquire(w.Context(), m.Available))(w)
		w.next(s)
	}
	type told struct {
		message *Message
		err     error
		took    time.Duration
	}
	answers := make(chan told, 1)
	go func() {
		began := time.Now()
		m, err := s.Poll(w.Context(), 0, 5)
		answers <- told{m, err, time.Since(began)}
	}()
	w.runner("r-1")
	w.runs(run.JobID)
	got := <-answers
	if got.err != nil || got.message == nil || !slices.Equal(got.message.Started, []string{run.JobID}) {
		w.Fatalf("Poll() = %+v, %v, want job %s started", got.message, got.err, run.JobID)
	}
	return got.took
}
