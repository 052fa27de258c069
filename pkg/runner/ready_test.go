package runner_test

import (
	"slices"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

// asked makes GitHub ask about the run of this job.
func (w *world) asked(job, delivery string) runner.Asked {
	return runner.Asked{Repository: "org/app", RunID: runID(job), Environment: "production", Delivery: delivery, AskedAt: w.now}
}

func ruled(job, delivery, state string, reasons ...string) runner.Ruled {
	return runner.Ruled{RunID: runID(job), Delivery: delivery, State: state, Decision: decision(reasons...)}
}

func (w *world) reviewed(job, state string) runner.Reviewed {
	return runner.Reviewed{Repository: "org/app", RunID: runID(job), Environment: "production", By: runner.Person{ID: 5, Login: "carol"},
		State: state, Source: runner.SourceWebhook, RunAttempt: 1, Delivery: "d-" + state, SeenAt: w.now}
}

func TestReady(t *testing.T) {
	authorize := func(job string) []func(*world) runner.Event {
		return []func(*world) runner.Event{
			func(w *world) runner.Event { return w.offered(job) },
			func(w *world) runner.Event { return w.authorized(job) },
		}
	}
	claim := func(name, job, host string) func(*world) runner.Event {
		return func(w *world) runner.Event { return w.claimed(name, job, host) }
	}
	ask := func(w *world) runner.Event { return w.asked("a", "q1") }
	tests := map[string]struct {
		events []func(*world) runner.Event
		after  time.Duration
		lim    func(*runner.Limits)
		want   int
	}{
		"nothing happens":              {want: 1},
		"left alone":                   {events: []func(*world) runner.Event{ask}, lim: func(l *runner.Limits) { l.Warm, l.PrelaunchFor = 0, 0 }, want: 0},
		"a job waits":                  {events: authorize("a"), want: 2},
		"a job that waited too long":   {events: authorize("a"), after: 2 * time.Hour, want: 1},
		"a job that has an idle host":  {events: append(authorize("a"), claim("r1", "a", "h1")), want: 1},
		"two jobs and one idle host":   {events: append(append(authorize("a"), authorize("b")...), claim("r1", "a", "h1")), want: 2},
		"more jobs than may run":       {events: append(append(authorize("a"), authorize("b")...), authorize("c")...), want: 3},
		"never more than may run":      {lim: func(l *runner.Limits) { l.Warm = 9 }, want: 3},
		"GitHub asks":                  {events: []func(*world) runner.Event{ask}, want: 2},
		"GitHub asked long ago":        {events: []func(*world) runner.Event{ask}, after: 31 * time.Minute, want: 1},
		"on demand, nothing waits":     {lim: func(l *runner.Limits) { l.Warm, l.PrelaunchFor, l.OnDemand = 0, 0, true }, want: 0},
		"only warm hosts":              {events: []func(*world) runner.Event{ask}, lim: func(l *runner.Limits) { l.PrelaunchFor = 0 }, want: 1},
		"GitHub asks while frozen":     {events: []func(*world) runner.Event{ask, func(*world) runner.Event { return runner.Frozen{By: "cert:o", Reason: "x"} }}, want: 1},
		"we approved, a reviewer next": {events: []func(*world) runner.Event{ask, func(*world) runner.Event { return ruled("a", "q1", runner.StateApproved) }}, want: 2},
		"we refused":                   {events: []func(*world) runner.Event{ask, func(*world) runner.Event { return ruled("a", "q1", runner.StateRejected, "no") }}, want: 1},
		"a reviewer refused": {events: []func(*world) runner.Event{ask, func(w *world) runner.Event {
			w.now = w.now.Add(time.Second)
			return w.reviewed("a", runner.StateRejected)
		}}, want: 1},
		"its job is offered and not decided": {events: []func(*world) runner.Event{ask, func(w *world) runner.Event { return w.offered("a") }}, want: 2},
		"its job was decided and denied": {events: []func(*world) runner.Event{ask,
			func(w *world) runner.Event { w.now = w.now.Add(time.Second); return w.offered("a") },
			func(w *world) runner.Event { return w.denied("a", "no") }}, want: 1},
		"asked again for the next attempt": {events: []func(*world) runner.Event{
			func(w *world) runner.Event { return w.offered("a") },
			func(w *world) runner.Event { return w.denied("a", "no") },
			func(w *world) runner.Event { w.now = w.now.Add(time.Second); return w.asked("a", "q2") }}, want: 2},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.limits.MaxRunners, w.limits.Warm, w.limits.PrelaunchFor = 3, 1, 30*time.Minute
			if tc.lim != nil {
				tc.lim(&w.limits)
			}
			for _, e := range tc.events {
				if err := w.add(e(w)); err != nil {
					t.Fatal(err)
				}
			}
			if got := w.Ready(w.now.Add(tc.after), w.limits); got != tc.want {
				t.Errorf("Ready = %d, want %d", got, tc.want)
			}
		})
	}
}

func TestInUseAreTheHostsThatAreNotSeenGone(t *testing.T) {
	w := newWorld()
	for _, e := range []func() runner.Event{
		func() runner.Event { return w.offered("a") },
		func() runner.Event { return w.authorized("a") },
		func() runner.Event { return w.claimed("r1", "a", "h1") },
		func() runner.Event { return w.claimed("r2", "a", "h2") },
		func() runner.Event { return runner.Retired{Runner: "r1", Cause: runner.CauseNeverBound} },
		func() runner.Event { return w.teardown("r1") },
	} {
		if err := w.add(e()); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := w.InUse(), []string{host("h1").InstanceID, host("h2").InstanceID}; !slices.Equal(got, want) {
		t.Errorf("InUse while one is ending = %v, want %v", got, want)
	}
	if err := w.add(w.terminated("r1")); err != nil {
		t.Fatal(err)
	}
	if got, want := w.InUse(), []string{host("h2").InstanceID}; !slices.Equal(got, want) {
		t.Errorf("InUse after one was seen gone = %v, want %v", got, want)
	}
}
