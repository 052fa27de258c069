package runner_test

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

func sorted[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// candidates are all events that two jobs, two runner names and two hosts can
// give rise to, right ones and wrong ones alike.
func (w *world) candidates() []runner.Event {
	var out []runner.Event
	for _, job := range []string{"a", "b"} {
		out = append(out, w.offered(job), w.authorized(job), w.denied(job, "no"), w.concluded(job, runner.ResultSucceeded),
			runner.Cancelled{Job: runner.JobID(job), Repository: "org/app", RunID: runID(job)})
	}
	for _, name := range []string{"r1", "r2"} {
		for _, job := range []string{"a", "b"} {
			out = append(out, w.started(name, job), refused(name, job, "no"), w.reported(job, name))
			for _, h := range []string{"h1", "h2"} {
				out = append(out, w.claimed(name, job, h))
			}
		}
		out = append(out, w.bound(name), released(name), w.completed(name), w.teardown(name), w.terminated(name), w.Seal(runner.Name(name)),
			runner.Retired{Runner: runner.Name(name), Cause: runner.CauseIdle},
			runner.Ending{Runner: runner.Name(name), InstanceID: w.hostOf(name).InstanceID, State: "shutting-down"},
			runner.Overdue{Runner: runner.Name(name), Pending: []runner.Stage{runner.StagePod}, Since: w.now})
	}
	// One runner's suffice: nothing depends on them, and each doubles the walk.
	for _, cause := range []runner.RebuffCause{runner.RebuffSecondPod, runner.RebuffReplay} {
		out = append(out, w.rebuffed("r1", runner.GateClaim, cause))
	}
	return out
}

// TestWalk visits every reachable state of a small world, once by the kinds of
// record that each chain holds, and checks in each of them, with rules written
// apart from the core's own, that no invariant is broken.
func TestWalk(t *testing.T) {
	seen := map[string]bool{}
	counts := struct{ states, accepted, refused int }{}
	var visit func(history []runner.Event)
	visit = func(history []runner.Event) {
		w := replay(t, history)
		mark := w.fingerprint()
		if seen[mark] {
			return
		}
		seen[mark] = true
		counts.states++
		checkHistory(t, w.history)
		for _, e := range w.candidates() {
			err := w.Check(e, w.now)
			if err != nil {
				if _, ok := errors.AsType[*runner.Violation](err); !ok && !errors.Is(err, runner.ErrRecorded) {
					t.Fatalf("Check(%T) = %v, want nil, ErrRecorded or a violation", e, err)
				}
				counts.refused++
				continue
			}
			counts.accepted++
			if len(history) < walkDepth(t) {
				visit(append(slices.Clone(history), e))
			}
		}
	}
	visit(nil)
	t.Logf("%d states, %d events accepted, %d refused", counts.states, counts.accepted, counts.refused)
	if counts.states < 500 {
		t.Errorf("only %d states visited: the walk does not walk", counts.states)
	}
}

func walkDepth(t *testing.T) int {
	if testing.Short() {
		return 5
	}
	t.Helper()
	return 7
}

func replay(t *testing.T, history []runner.Event) *world {
	t.Helper()
	w := newWorld()
	w.message = 1000
	for i, e := range history {
		if err := w.add(e); err != nil {
			t.Fatalf("replay event %d (%s): %v", i, e.Kind(), err)
		}
	}
	return w
}

// fingerprint names a state by what has happened, not by in which order.
func (w *world) fingerprint() string {
	var parts []string
	for _, id := range sorted(w.Jobs) {
		j := w.Jobs[id]
		parts = append(parts, fmt.Sprintf("%s%t%t%t%t%t%s", id, j.Authorized != nil, j.Denied != nil, j.Concluded != nil, j.Cancelled != nil, j.Reported != nil, j.Runner))
	}
	for _, name := range sorted(w.Runners) {
		r := w.Runners[name]
		parts = append(parts, fmt.Sprintf("%s%s%s%s%t%t%d", name, r.Claimed.Event.Host.NodeName, r.Claimed.Event.Cause, r.Phase(), r.Started != nil, r.Released != nil, len(r.Rebuffs)))
	}
	return strings.Join(parts, "|")
}

// checkHistory states the invariants over a plain list of records.
func checkHistory(t *testing.T, history []runner.Record) {
	t.Helper()
	hosts := map[string]int{}
	kinds := map[runner.Chain][]runner.Kind{}
	started := map[runner.JobID]int{}
	authorized := map[runner.JobID]bool{}
	rebuffs := map[string]bool{}
	for _, rec := range history {
		before := kinds[rec.Event.Chain()]
		needs := func(kind runner.Kind) {
			if !slices.Contains(before, kind) {
				t.Fatalf("%s without %s before it on %s: %v", rec.Event.Kind(), kind, rec.Event.Chain(), before)
			}
		}
		switch e := rec.Event.(type) {
		case runner.Authorized:
			authorized[e.Job] = true
		case runner.Claimed:
			if !authorized[e.Cause] {
				t.Fatalf("claimed for %s before it was authorized", e.Cause)
			}
			hosts[e.Host.InstanceID]++
			if hosts[e.Host.InstanceID] > 1 {
				t.Fatalf("host %s claimed twice", e.Host.InstanceID)
			}
		case runner.Released:
			needs(runner.KindBound)
		case runner.Started:
			needs(runner.KindReleased)
			started[e.Job]++
			if started[e.Job] > 1 || !authorized[e.Job] {
				t.Fatalf("job %s started %d times, authorized %t", e.Job, started[e.Job], authorized[e.Job])
			}
		case runner.Completed:
			needs(runner.KindStarted)
		case runner.Rebuffed:
			needs(runner.KindClaimed)
			key := fmt.Sprint(e.Runner, e.Gate, e.Cause)
			if rebuffs[key] {
				t.Fatalf("rebuffed twice: %s", key)
			}
			rebuffs[key] = true
			if e.Cause == runner.RebuffReplay {
				needs(runner.KindReleased)
			}
		case runner.Terminated:
			needs(runner.KindTeardown)
		case runner.Sealed:
			needs(runner.KindTerminated)
		}
		if slices.Contains(before, runner.KindSealed) {
			t.Fatalf("%s after sealed on %s", rec.Event.Kind(), rec.Event.Chain())
		}
		kinds[rec.Event.Chain()] = append(before, rec.Event.Kind())
	}
}

// TestEveryStateEnds starts from states all along a job's life and lets a
// world in which everything works do what Next says. It must end with every
// runner sealed and every job decided, with time as the only other help.
func TestEveryStateEnds(t *testing.T) {
	for _, path := range lifePaths() {
		for cut := range len(path) + 1 {
			t.Run(fmt.Sprintf("%s/%d", path[0], cut), func(t *testing.T) {
				w := newWorld()
				for _, line := range path[1:max(cut, 1)] {
					if _, err := w.command(strings.Fields(line)); err != nil {
						t.Fatal(err)
					}
				}
				w.drive(t)
			})
		}
	}
}

func lifePaths() [][]string {
	begin := []string{"offer a", "authorize a", "claim r1 a h1", "bind r1", "release r1"}
	with := func(name string, more ...string) []string {
		return append(append([]string{name}, begin...), more...)
	}
	return [][]string{
		with("runs", "start r1 a", "complete r1", "conclude a succeeded", "teardown r1", "terminated r1"),
		with("refused", "offer b", "refuse r1 b no", "teardown r1", "terminated r1"),
		with("stolen", "offer b", "authorize b", "start r1 b", "complete r1", "teardown r1"),
		with("cancelled", "conclude a cancelled"),
		with("hook-missing", "report a r1"),
		{"denied", "offer a", "deny a no", "cancel-job a"},
		{"frozen", "offer a", "authorize a", "freeze", "unfreeze"},
		{"foreign", "offer a", "authorize a", "report a elsewhere"},
	}
}

// drive is the world in which everything works.
func (w *world) drive(t *testing.T) {
	t.Helper()
	for range 200 {
		tasks, wake := w.Next(w.now, w.limits)
		moved := false
		for _, task := range tasks {
			if e := w.perform(task); e != nil {
				if err := w.add(e); err != nil {
					t.Fatalf("task %v led to %v", task, err)
				}
				moved = true
				break
			}
		}
		if moved {
			continue
		}
		if wake.IsZero() {
			break
		}
		w.now = wake
	}
	for name, r := range w.Runners {
		if r.Sealed == nil {
			t.Errorf("runner %s ends %s, want sealed", name, r.Phase())
		}
	}
	for id, j := range w.Jobs {
		if j.Authorized == nil && j.Denied == nil && j.Concluded == nil && j.Cancelled == nil {
			t.Errorf("job %s ends %s, want decided", id, j.Phase())
		}
	}
}

// perform answers a task with the event that a well-behaved world brings. Pods
// never present themselves here and jobs never start by themselves, so that
// the deadlines have to do the work.
func (w *world) perform(task runner.Task) runner.Event {
	name, job := string(task.Runner), string(task.Job)
	switch task.Kind {
	case runner.TaskDecide, runner.TaskDeny:
		return w.denied(job, "facts-unknown")
	case runner.TaskCancel:
		if name != "" {
			return runner.Cancelled{Runner: task.Runner, Repository: "org/app", RunID: 1}
		}
		return runner.Cancelled{Job: task.Job, Repository: "org/app", RunID: 1, Forced: task.Force}
	case runner.TaskClaim:
		n := fmt.Sprint(len(w.Runners) + 1)
		return w.claimed("r"+n, job, "h"+n)
	case runner.TaskRetire:
		return runner.Retired{Runner: task.Runner, Cause: task.Cause}
	case runner.TaskTeardown:
		if w.Runners[task.Runner].Teardown == nil {
			return w.teardown(name)
		}
		return w.terminated(name)
	case runner.TaskSeal:
		return w.Seal(task.Runner)
	case runner.TaskWatch:
		r := w.Runners[task.Runner]
		if r.Started != nil && w.now.Sub(r.Started.At) < time.Minute {
			return w.completed(name)
		}
	}
	return nil
}
