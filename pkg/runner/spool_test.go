package runner_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

// TestNothingThatBeginsIsSpoolable goes through every kind: a new one is not
// spoolable before somebody has thought about it here.
func TestNothingThatBeginsIsSpoolable(t *testing.T) {
	ends := []runner.Kind{
		runner.KindRefused, runner.KindRetired, runner.KindCompleted, runner.KindCancelled, runner.KindTeardown,
		runner.KindOverdue, runner.KindEnding, runner.KindTerminated, runner.KindFrozen, runner.KindGap, runner.KindClosed, runner.KindContinued,
	}
	more := []runner.Kind{
		runner.KindReviewed, runner.KindAsked, runner.KindRuled, runner.KindAnswered, runner.KindStray, runner.KindSwept, runner.KindSpooled, runner.KindClosed, runner.KindContinued,
	}
	for _, kind := range append(declaredKinds(t), more...) {
		if got, want := runner.Spoolable(kind), slices.Contains(ends, kind); got != want {
			t.Errorf("Spoolable(%s) = %t, want %t", kind, got, want)
		}
	}
}

func TestASpooledRecordTellsOfRecordsBeforeIt(t *testing.T) {
	for name, c := range map[string]struct {
		e    runner.Spooled
		want error
	}{
		"the last two":        {runner.Spooled{First: 3, Last: 4, Count: 2, Since: epoch, Until: epoch}, nil},
		"one":                 {runner.Spooled{First: 4, Last: 4, Count: 1, Since: epoch, Until: epoch}, nil},
		"told already":        {runner.Spooled{First: 1, Last: 1, Count: 1, Since: epoch, Until: epoch}, runner.ErrRecorded},
		"itself":              {runner.Spooled{First: 4, Last: 5, Count: 2, Since: epoch, Until: epoch}, &runner.Violation{}},
		"a wrong count":       {runner.Spooled{First: 3, Last: 4, Count: 3, Since: epoch, Until: epoch}, &runner.Violation{}},
		"none":                {runner.Spooled{First: 4, Last: 3, Count: 0, Since: epoch, Until: epoch}, &runner.Violation{}},
		"an end before begin": {runner.Spooled{First: 3, Last: 4, Count: 2, Since: epoch, Until: epoch.Add(-1)}, &runner.Violation{}},
	} {
		w := newWorld()
		for _, e := range []runner.Event{runner.Heartbeat{}, runner.Heartbeat{},
			runner.Spooled{First: 0, Last: 1, Count: 2, Since: epoch, Until: epoch}, runner.Heartbeat{}, runner.Heartbeat{}} {
			if err := w.add(e); err != nil {
				t.Fatal(err)
			}
		}
		err := w.add(c.e)
		violation, broken := errors.AsType[*runner.Violation](err)
		switch _, wantBroken := c.want.(*runner.Violation); {
		case wantBroken && (!broken || violation.Invariant != 7):
			t.Errorf("%s: %v, want a violation of invariant 7", name, err)
		case !wantBroken && !errors.Is(err, c.want):
			t.Errorf("%s: %v, want %v", name, err, c.want)
		case c.want == nil && len(w.Outages) != 2:
			t.Errorf("%s: %d outages remembered, want 2", name, len(w.Outages))
		}
	}
}

// TestAnOutageMovesTheDeadlinesThatOnlyWeCanEnd and no other: a job that runs
// for too long, or a host that does not end, is late whatever we could record.
func TestAnOutageMovesTheDeadlinesThatOnlyWeCanEnd(t *testing.T) {
	const away = 30 * time.Minute
	for name, c := range map[string]struct {
		upto  []func(w *world) runner.Event
		task  runner.TaskKind
		after time.Duration // the end of the outage
	}{
		"a pod that waits to be bound":    {lifeUpto(runner.KindClaimed), runner.TaskRetire, testLimits().BindBy},
		"a pod that waits for its config": {lifeUpto(runner.KindBound), runner.TaskRetire, testLimits().ReleaseBy},
		"a hook that waits":               {lifeUpto(runner.KindReleased), runner.TaskRetire, testLimits().IdleTTL},
		"a job that is not decided":       {lifeUpto(runner.KindOffered), runner.TaskDeny, testLimits().DecideBy},
		"a result that may still come":    {lifeUpto(runner.KindTerminated), runner.TaskSeal, testLimits().ConcludeGrace},
		"a job that runs":                 {lifeUpto(runner.KindStarted), runner.TaskRetire, testLimits().JobTTL - away},
		"a host that does not end":        {lifeUpto(runner.KindTeardown), runner.TaskTeardown, 0},
	} {
		w := newWorld()
		for _, event := range c.upto {
			if err := w.add(event(w)); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		w.now = w.now.Add(away)
		if err := w.add(runner.Spooled{First: w.Size - 1, Last: w.Size - 1, Count: 1, Since: epoch, Until: w.now}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		due := func(after time.Duration) bool {
			tasks, _ := w.Next(w.now.Add(after), w.limits)
			return slices.ContainsFunc(tasks, func(task runner.Task) bool {
				return task.Kind == c.task && (task.Kind != runner.TaskTeardown || task.Overdue)
			})
		}
		if !due(c.after) || c.after > 0 && due(c.after-1) {
			t.Errorf("%s: %s due at %s after the outage: %t, just before: %t; want then and not before",
				name, c.task, c.after, due(c.after), due(c.after-1))
		}
	}
}

// lifeUpto makes the events of one job's life until this one.
func lifeUpto(last runner.Kind) []func(w *world) runner.Event {
	life := []func(w *world) runner.Event{
		func(w *world) runner.Event { return w.offered("a") },
		func(w *world) runner.Event { return w.authorized("a") },
		func(w *world) runner.Event { return w.claimed("r1", "a", "h1") },
		func(w *world) runner.Event { return w.bound("r1") },
		func(*world) runner.Event { return released("r1") },
		func(w *world) runner.Event { return w.started("r1", "a") },
		func(w *world) runner.Event { return w.completed("r1") },
		func(w *world) runner.Event { return w.teardown("r1") },
		func(w *world) runner.Event { return w.terminated("r1") },
	}
	kinds := []runner.Kind{runner.KindOffered, runner.KindAuthorized, runner.KindClaimed, runner.KindBound, runner.KindReleased,
		runner.KindStarted, runner.KindCompleted, runner.KindTeardown, runner.KindTerminated}
	return life[:slices.Index(kinds, last)+1]
}
