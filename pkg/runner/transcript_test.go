package runner_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

var update = flag.Bool("update", false, "rewrite the transcripts; commit them only if you understand the difference")

// TestTranscripts plays testdata/*.txt: commands, then what the core says to
// them. They are meant to be read: each is one path of a job's life.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(raw))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(raw) {
				t.Errorf("the transcript differs (run with -update to see it in git diff):\n%s", got)
			}
		})
	}
}

// play runs every line that does not start with "  " (an answer) or "#".
func play(t *testing.T, script string) string {
	t.Helper()
	w := newWorld()
	var out strings.Builder
	for line := range strings.Lines(script) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "  ") {
			continue
		}
		out.WriteString(line + "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		answer, err := w.command(strings.Fields(line))
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		for a := range strings.Lines(answer) {
			out.WriteString("  " + strings.TrimRight(a, "\n") + "\n")
		}
	}
	return out.String()
}

func (w *world) command(f []string) (string, error) {
	arg := func(i int) string {
		if i < len(f) {
			return f[i]
		}
		return ""
	}
	switch f[0] {
	case "after":
		d, err := time.ParseDuration(arg(1))
		w.now = w.now.Add(d)
		return "", err
	case "next":
		return w.narrateNext(), nil
	case "given-up":
		return w.givenUp(), nil
	case "held-back":
		return w.HeldBack(w.now, w.limits), nil
	case "phases":
		return w.phases(), nil
	}
	e, err := w.event(f[0], arg(1), arg(2), arg(3))
	if err != nil {
		return "", err
	}
	return w.narrate(e), nil
}

func (w *world) event(verb, a, b, c string) (runner.Event, error) {
	switch verb {
	case "offer":
		return w.offered(a), nil
	case "redeliver-offer":
		return w.Jobs[runner.JobID(a)].Offered.Event, nil
	case "redeliver-conclude":
		return runner.Concluded{Job: runner.JobID(a), Result: runner.ResultCancelled, MessageID: w.message - 1}, nil
	case "imply":
		e := w.offered(a)
		e.Implied = true
		return e, nil
	case "authorize":
		return w.authorized(a), nil
	case "deny":
		return w.denied(a, b), nil
	case "report":
		e := w.reported(a, b)
		if c == "renumbered" {
			e.RunnerID++
		}
		return e, nil
	case "conclude":
		return w.concluded(a, runner.Result(b)), nil
	case "claim":
		return w.claimed(a, b, c), nil
	case "bind":
		return w.bound(a), nil
	case "release":
		return released(a), nil
	case "start":
		return w.started(a, b), nil
	case "refuse":
		return refused(a, b, c), nil
	case "retire":
		return runner.Retired{Runner: runner.Name(a), Cause: runner.Cause(b), PodReason: c}, nil
	case "complete":
		return w.completed(a), nil
	case "cancel-job":
		return runner.Cancelled{Job: runner.JobID(a), Repository: "org/app", RunID: runID(a), Forced: b == "by-force"}, nil
	case "cancel-runner":
		return runner.Cancelled{Runner: runner.Name(a), Repository: "org/app", RunID: 1}, nil
	case "teardown":
		return w.teardown(a), nil
	case "overdue":
		return runner.Overdue{Runner: runner.Name(a), Pending: []runner.Stage{runner.StageInstance}, Since: w.now}, nil
	case "ending":
		return runner.Ending{Runner: runner.Name(a), InstanceID: w.hostOf(a).InstanceID, State: b}, nil
	case "terminated":
		e := w.terminated(a)
		switch b {
		case "but-running":
			e.States = e.States[:1]
		case "but-volume":
			e.VolumesGone = []string{}
		case "but-node":
			e.NodeGone = false
		case "but-unlisted":
			e.States = []runner.Transition{{State: "unlisted", At: w.now}}
		}
		return e, nil
	case "seal":
		return w.Seal(runner.Name(a)), nil
	case "rebuff":
		return w.rebuffed(a, runner.Gate(b), runner.RebuffCause(c)), nil
	case "open":
		return runner.Opened{Version: "v1", Instance: "pod-1", ConfigDigest: runner.DigestOf(nil), PolicyDigest: runner.DigestOf(nil), RootDigest: runner.DigestOf(nil)}, nil
	case "freeze":
		return runner.Frozen{By: "cert:oncall", Reason: "CVE-2026-1"}, nil
	case "unfreeze":
		return runner.Unfrozen{By: "cert:oncall"}, nil
	}
	return nil, fmt.Errorf("no command %q", verb)
}

func (w *world) narrate(e runner.Event) string {
	err := w.add(e)
	violation, ok := errors.AsType[*runner.Violation](err)
	switch {
	case err == nil:
		return fmt.Sprintf("#%d %s on %s", w.Size-1, e.Kind(), e.Chain())
	case ok:
		return fmt.Sprintf("invariant %d, %s: %s", violation.Invariant, violation.Rule, shorten(violation.Detail))
	}
	return err.Error()
}

// shorten cuts digests, which say nothing to a reader.
func shorten(s string) string {
	words := strings.Fields(s)
	for i, word := range words {
		if strings.HasPrefix(word, "sha256:") && len(word) > 15 {
			words[i] = word[:15] + "…"
		}
	}
	return strings.Join(words, " ")
}

func (w *world) narrateNext() string {
	tasks, wake := w.Next(w.now, w.limits)
	var out strings.Builder
	for _, task := range tasks {
		fmt.Fprintf(&out, "%s %s", task.Kind, task.Subject())
		if task.Cause != "" {
			fmt.Fprintf(&out, " because %s", task.Cause)
		}
		if task.Overdue {
			out.WriteString(" OVERDUE")
		}
		if task.Force {
			out.WriteString(" by force")
		}
		out.WriteString("\n")
	}
	if len(tasks) == 0 {
		out.WriteString("nothing to do\n")
	}
	if !wake.IsZero() {
		fmt.Fprintf(&out, "look again in %s\n", wake.Sub(w.now))
	}
	return out.String()
}

// givenUp is what on-call reads about each job.
func (w *world) givenUp() string {
	var out strings.Builder
	for _, id := range sorted(w.Jobs) {
		if why := w.GivenUp(w.Jobs[id], w.now, w.limits); why != "" {
			fmt.Fprintf(&out, "job %s: %s\n", id, why)
		}
	}
	return out.String()
}

func (w *world) phases() string {
	var out strings.Builder
	for _, id := range sorted(w.Jobs) {
		fmt.Fprintf(&out, "job %s: %s\n", id, w.Jobs[id].Phase())
	}
	for _, name := range sorted(w.Runners) {
		fmt.Fprintf(&out, "runner %s: %s\n", name, w.Runners[name].Phase())
	}
	return out.String()
}
