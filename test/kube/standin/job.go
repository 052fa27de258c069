package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/runnerward/runnerward/test/foreignrunner"
)

// worker runs one job.
type worker struct {
	*app
	runner *foreignrunner.Runner
	job    *foreignrunner.Job
	temp   string // _work/_temp
	space  string // the workspace
	order  int    // of the updates of steps

	// cancelled closes when the job is to end: it was cancelled, or the runner
	// was told to end, which is shutdown.
	cancelled, shutdown chan struct{}
}

// The steps of the runner itself, as JobExtension.cs names them, and the number
// of the workflow's first.
const (
	setUpName, hookName    = "Set up job", "Set up runner"
	setUpNumber, firstStep = 1, 3
)

// work runs the job beside its lease and the poll for a cancellation. When the
// lease is lost the job is no longer ours to report.
func (a *app) work(ctx context.Context, r *foreignrunner.Runner, job *foreignrunner.Job) error {
	w := &worker{
		app: a, runner: r, job: job, cancelled: make(chan struct{}), shutdown: make(chan struct{}),
		temp: filepath.Join(a.home, "_work", "_temp"), space: filepath.Join(a.home, "_work", "workspace"),
	}
	for _, dir := range []string{w.temp, w.space} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make the runner's folders: %w", err)
		}
	}
	beside, end := context.WithCancel(ctx)
	cancel := sync.OnceFunc(func() { close(w.cancelled) })
	var side sync.WaitGroup
	defer side.Wait()
	defer end()
	side.Go(func() { w.renew(beside) })
	side.Go(func() {
		if w.listen(beside) {
			cancel()
		}
	})
	side.Go(func() {
		select {
		case <-a.stop:
			close(w.shutdown)
			cancel()
		case <-beside.Done():
		}
	})
	fmt.Fprintf(a.out, "runner: running job %s\n", job.Name)
	result, err := w.steps(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "runner: job %s %s\n", job.Name, result)
	return a.again(ctx, func(ctx context.Context) error { return r.Complete(ctx, job, result) })
}

// renew keeps the lease, ten times in its life as JobDispatcher.cs does.
func (w *worker) renew(ctx context.Context) {
	for ctx.Err() == nil {
		var until time.Time
		err := w.again(ctx, func(ctx context.Context) (err error) {
			until, err = w.runner.Renew(ctx, w.job)
			return err
		})
		if err != nil {
			return
		}
		pause := time.NewTimer(max(time.Until(until)/10, time.Second))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
	}
}

// listen returns true when the job was cancelled.
func (w *worker) listen(ctx context.Context) bool {
	for {
		var m *foreignrunner.Message
		err := w.again(ctx, func(ctx context.Context) (err error) {
			m, err = w.runner.GetMessage(ctx, "Busy")
			return err
		})
		if err != nil || ctx.Err() != nil {
			return false
		}
		if m == nil || m.MessageType != "JobCancellation" {
			continue
		}
		if id, _, err := m.Cancellation(); err == nil && strings.EqualFold(id, w.job.ID) {
			return true
		}
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// steps runs the hook and the workflow's steps and returns the job's result, as
// TaskResult.cs spells it.
func (w *worker) steps(ctx context.Context) (result string, err error) {
	if err := w.report(ctx, newID(), setUpNumber, setUpName, foreignrunner.StatusCompleted, foreignrunner.ConclusionSuccess); err != nil {
		return "", err
	}
	result = "succeeded"
	if w.hook != "" {
		if result, err = w.step(ctx, newID(), setUpNumber+1, hookName, w.hook, result); err != nil {
			return "", err
		}
	}
	for i, s := range w.job.Steps {
		if closed(w.shutdown) {
			// StepsRunner.cs looks at no condition any more, always() included.
			return "failed", nil
		}
		file := filepath.Join(w.temp, s.ID+".sh")
		if err := os.WriteFile(file, []byte(s.Script), 0o644); err != nil {
			return "", fmt.Errorf("write step %s: %w", s.Name, err)
		}
		if result != "succeeded" && s.Condition != "always()" {
			err = w.report(ctx, s.ID, firstStep+i, s.Name, foreignrunner.StatusCompleted, foreignrunner.ConclusionSkipped)
		} else {
			result, err = w.step(ctx, s.ID, firstStep+i, s.Name, file, result)
		}
		if err != nil {
			return "", err
		}
	}
	if closed(w.shutdown) {
		result = "failed"
	}
	return result, nil
}

// step runs a script and returns the job's result after it. A step that runs
// although the job was cancelled, with always(), is cancelled no more.
func (w *worker) step(ctx context.Context, id string, number int, name, file, result string) (string, error) {
	if err := w.report(ctx, id, number, name, foreignrunner.StatusInProgress, foreignrunner.ConclusionUnknown); err != nil {
		return "", err
	}
	fmt.Fprintf(w.out, "runner: step %s\n", name)
	stop := w.cancelled
	if result == "canceled" {
		stop = w.shutdown
	}
	env, err := w.env()
	if err != nil {
		return "", err
	}
	failure := script{file: file, dir: w.space, env: env, out: w.out, endings: w.endings}.run(stop)
	conclusion := foreignrunner.ConclusionSuccess
	switch {
	case closed(w.cancelled) && result == "succeeded":
		result, conclusion = "canceled", foreignrunner.ConclusionCancelled
	case failure != nil:
		result, conclusion = "failed", foreignrunner.ConclusionFailure
	}
	if failure != nil {
		fmt.Fprintf(w.out, "runner: step %s: %v\n", name, failure)
	}
	return result, w.report(ctx, id, number, name, foreignrunner.StatusCompleted, conclusion)
}

// report tells GitHub of a step.
func (w *worker) report(ctx context.Context, id string, number int, name string, status, conclusion int) error {
	now := time.Now().UTC().Format(time.RFC3339)
	u := foreignrunner.Update{ExternalID: id, Number: number, Name: name, Status: status, Conclusion: conclusion, StartedAt: &now}
	if status == foreignrunner.StatusCompleted {
		u.CompletedAt = &now
	}
	w.order++
	if err := w.runner.UpdateSteps(ctx, w.job, w.order, u); err != nil {
		return fmt.Errorf("report step %s: %w", name, err)
	}
	return nil
}

// exported are the keys of the context github that become variables:
// GitHubContext.cs.
var exported = [...]string{
	"actor", "actor_id", "api_url", "base_ref", "event_name", "graphql_url", "head_ref", "job", "ref", "ref_name", "ref_protected",
	"ref_type", "repository", "repository_id", "repository_owner", "repository_owner_id", "retention_days", "run_attempt", "run_id",
	"run_number", "server_url", "sha", "triggering_actor", "workflow", "workflow_ref", "workflow_sha",
}

// env is what hooks and steps see: the pod's own environment, GitHub's, the
// runner's, and how to ask for an ID token (ScriptHandler.cs).
func (w *worker) env() ([]string, error) {
	event, err := json.Marshal(w.job.GitHub["event"])
	if err != nil {
		return nil, err
	}
	eventFile := filepath.Join(w.temp, "event.json")
	if err := os.WriteFile(eventFile, event, 0o644); err != nil {
		return nil, errors.Join(errors.New("write the event"), err)
	}
	env := append([]string{}, w.environ...)
	for _, key := range exported {
		if value, isText := w.job.GitHub[key].(string); isText {
			env = append(env, "GITHUB_"+strings.ToUpper(key)+"="+value)
		}
	}
	env = append(env, "GITHUB_ACTIONS=true", "GITHUB_EVENT_PATH="+eventFile, "GITHUB_WORKSPACE="+w.space,
		"RUNNER_NAME="+w.runner.Name(), "RUNNER_OS=Linux", "RUNNER_ARCH=X64", "RUNNER_ENVIRONMENT=self-hosted",
		"RUNNER_TEMP="+w.temp, "RUNNER_WORKSPACE="+w.space, "RUNNER_TOOL_CACHE="+filepath.Join(w.home, "_work", "_tool"))
	if url, token, allowed := w.job.TokenRequest(); allowed {
		env = append(env, "ACTIONS_ID_TOKEN_REQUEST_URL="+url, "ACTIONS_ID_TOKEN_REQUEST_TOKEN="+token)
	}
	return env, nil
}
