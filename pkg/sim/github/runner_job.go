package simgithub

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"
)

// The steps of every simulated job, as the stand-in numbers them. The hook is
// the first step after the setup and always() holds for the last of the
// workflow's own (actions/runner JobExtension.cs).
const (
	stepSetUpJob = iota + 1
	stepHook
	stepRun
	stepAlways
)

type worker struct {
	*connection
	req       *jobRequest
	system    endpoint
	cancelled chan struct{} // closed when the job is cancelled
	cancel    func()        // closes it, once
	shutdown  chan struct{} // closed when the runner got SIGTERM
	finish    chan string
	steps     map[int]string // ids of the runner's own steps, by number
	order     int            // of the step updates
}

func (w *worker) post(ctx context.Context, url string, in any) error {
	return w.call(ctx, http.MethodPost, url, w.system.Authorization.Parameters["AccessToken"], in, nil)
}

func (w *worker) ref() jobRef { return jobRef{PlanID: w.req.Plan.PlanID, JobID: w.req.JobID} }

// complete reports the end of the job.
func (w *worker) complete(ctx context.Context, result string) error {
	return w.post(ctx, resolve(w.system.URL, "completejob"), completion{jobRef: w.ref(), Conclusion: result})
}

// renew keeps the lease, from the start on (actions/runner JobDispatcher.cs), and
// ends the job's context when it is lost.
func (w *worker) renew(ctx context.Context, lost context.CancelCauseFunc) {
	t := time.NewTicker(w.runner.RenewEvery)
	defer t.Stop()
	for {
		if err := w.post(ctx, resolve(w.system.URL, "renewjob"), w.ref()); err != nil {
			lost(err)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// listen waits for a cancellation while the runner is busy.
func (w *worker) listen(ctx context.Context) {
	for {
		m, err := w.message(ctx, "Busy")
		if err != nil {
			return
		}
		switch {
		case m == nil:
		case m.Type == "JobCancellation":
			w.cancel()
		case m.Type == finishMessage:
			var f finishBody
			if json.Unmarshal([]byte(m.Body), &f) == nil {
				select {
				case w.finish <- f.Conclusion:
				default: // told already
				}
			}
		}
	}
}

// run goes through the steps of the job and reports its result.
func (w *worker) run(ctx context.Context, started hook) error {
	if err := w.step(ctx, stepSetUpJob, updateCompleted, updateSuccess); err != nil {
		return err
	}
	if err := w.step(ctx, stepHook, updateInProgress, 0); err != nil {
		return err
	}
	result := "succeeded"
	if err := w.runHook(ctx, started); err != nil {
		result = "failed"
	}
	if err := w.step(ctx, stepHook, updateCompleted, updateOf(result)); err != nil {
		return err
	}
	select {
	case <-w.shutdown:
		// After RunnerShutdown every further step is skipped without looking
		// at its condition, always() included (actions/runner StepsRunner.cs).
		return w.complete(ctx, "failed")
	default:
	}
	select {
	case <-w.cancelled:
		result = "canceled"
	default:
	}
	var err error
	if result, err = w.runStep(ctx, result); err != nil {
		return err
	}
	select {
	case <-w.shutdown:
		return w.complete(ctx, "failed")
	default:
	}
	if err := w.step(ctx, stepAlways, updateInProgress, 0); err != nil {
		return err
	}
	if err := w.step(ctx, stepAlways, updateCompleted, updateSuccess); err != nil {
		return err
	}
	return w.complete(ctx, result)
}

// updateOf is a result in the numbers of the results service.
func updateOf(result string) int {
	return map[string]int{"succeeded": updateSuccess, "failed": updateFailure, "canceled": updateCancelled, "skipped": updateSkipped}[result]
}

func (w *worker) runHook(ctx context.Context, started hook) error {
	ctx, kill := context.WithCancel(ctx)
	defer kill()
	done := make(chan error, 1)
	go func() { done <- started(ctx, w.env()) }()
	var deadline <-chan time.Time
	cancelled := w.cancelled
	for {
		select {
		case err := <-done:
			return errors.Join(err, ctx.Err())
		case <-cancelled:
			t := time.NewTimer(w.runner.CancelGrace)
			defer t.Stop()
			deadline, cancelled = t.C, nil
		case <-deadline:
			kill()
		}
	}
}

// runStep runs the workflow's ordinary step for its duration, unless the job
// has failed or is cancelled already.
func (w *worker) runStep(ctx context.Context, result string) (string, error) {
	if result != "succeeded" {
		return result, w.step(ctx, stepRun, updateCompleted, updateSkipped)
	}
	if err := w.step(ctx, stepRun, updateInProgress, 0); err != nil {
		return "", err
	}
	var elapsed <-chan time.Time
	if d := w.req.Simulated.DurationMillis; d >= 0 {
		t := time.NewTimer(time.Duration(d) * time.Millisecond)
		defer t.Stop()
		elapsed = t.C
	}
	conclusion := w.req.Simulated.Conclusion
	select {
	case <-ctx.Done():
		return "", context.Cause(ctx)
	case <-w.cancelled:
		conclusion = "cancelled"
	case conclusion = <-w.finish:
	case <-elapsed:
	}
	result = resultOf(conclusion)
	return result, w.step(ctx, stepRun, updateCompleted, updateOf(result))
}

// step reports a step to the results service, under the id that the job message
// gives it if it is the workflow's own.
func (w *worker) step(ctx context.Context, number, status, conclusion int) error {
	u := stepUpdate{Number: number, Status: status, Conclusion: conclusion, ExternalID: w.steps[number]}
	switch number {
	case stepSetUpJob:
		u.Name = "Set up job"
	case stepHook:
		u.Name = hookStep
	default:
		own := w.req.Steps[number-stepRun]
		u.ExternalID, u.Name = own.ID, own.DisplayName
	}
	now := time.Now().UTC().Format(time.RFC3339)
	if u.StartedAt = now; status == updateCompleted {
		u.CompletedAt = now
	}
	w.order++
	return w.post(ctx, resolve(w.req.Variables["system.github.results_endpoint"].Value, stepsName), map[string]any{
		"workflow_run_backend_id": w.req.Plan.PlanID, "workflow_job_run_backend_id": w.req.JobID,
		"change_order": w.order, "steps": []stepUpdate{u},
	})
}

// env is the environment of a hook: GitHub's allow-list, the runner's own
// variables, and the token request only for a job with id-token: write
// (actions/runner ScriptHandler.cs).
func (w *worker) env() map[string]string {
	env := map[string]string{
		"RUNNER_NAME": w.file.AgentName, "RUNNER_OS": "Linux", "RUNNER_ARCH": "X64",
		"RUNNER_ENVIRONMENT": "self-hosted", "RUNNER_WORKSPACE": "/home/runner/" + w.file.WorkFolder,
		"GITHUB_ACTIONS": "true",
	}
	for name, value := range w.github() {
		env["GITHUB_"+strings.ToUpper(name)] = value
	}
	if u := w.system.Data["GenerateIdTokenUrl"]; u != "" {
		env["ACTIONS_ID_TOKEN_REQUEST_URL"] = u
		env["ACTIONS_ID_TOKEN_REQUEST_TOKEN"] = w.system.Authorization.Parameters["AccessToken"]
	}
	return env
}

// github is the texts of the context of that name.
func (w *worker) github() map[string]string {
	out := map[string]string{}
	m, _ := w.req.ContextData["github"].(map[string]any)
	items, _ := m["d"].([]any)
	for _, item := range items {
		pair, _ := item.(map[string]any)
		name, isName := pair["k"].(string)
		if value, isText := pair["v"].(string); isName && isText {
			out[name] = value
		}
	}
	return out
}
