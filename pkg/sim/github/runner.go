package simgithub

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// The exit codes of run.sh. It maps success, errors, session conflicts and
// deleted registrations to 0 alike, and a refused version to 7 only if it is told
// so (actions/runner run-helper.sh.template, Program.cs).
const (
	exitDone       = 0
	exitDeprecated = 7
	exitKilled     = 137
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

// hookKill is the default of Runner.CancelGrace.
const hookKill = 10 * time.Second

// Runner is a stand-in for the GitHub runner application. It speaks the
// broker protocol (V2) over HTTP and nothing else. It may be used for several
// runs, also concurrently.
type Runner struct {
	// Client carries the requests; nil is http.DefaultClient. It must allow
	// for the hold of a poll.
	Client *http.Client
	// RenewEvery is the time between renewals of the lease, default 60 s as
	// in actions/runner JobDispatcher.cs.
	RenewEvery time.Duration
	// Stop closes when run.sh gets SIGTERM: an idle runner ends, a job is
	// cancelled as if by its user and reported, and then the runner ends
	// (actions/runner Runner.cs, CtrlCHandler to ShutdownRunner). Nil never.
	Stop <-chan struct{}
	// VersionExitCode is what ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE
	// says: run.sh exits with 7 when GitHub refuses the runner's version.
	VersionExitCode bool
	// CancelGrace is how long a hook that ignores signals outlives a
	// cancellation, default 10 s: SIGINT, 7.5 s, SIGTERM, 2.5 s, SIGKILL
	// (actions/runner ProcessInvoker.cs).
	CancelGrace time.Duration
}

// Run starts the runner with a JIT config and returns run.sh's exit code: 0
// whatever happened, 137 if ctx ended, 7 for a version that GitHub refuses (see
// VersionExitCode). It gives up a session conflict at once, which the real one
// tries for four minutes. Ctx is the life of the process: when
// it ends nothing more is reported, and a job's lease just expires.
//
// The runner waits for one job and calls started, the job-started hook, with
// the variables that a hook gets; nil stands for no hook. A hook that returns
// an error marks the job failed and skips its ordinary step, but the step
// with if: always() still runs, as on GitHub (actions/runner#2811). When the
// job is cancelled the hook's context ends 10 s later. Started must return
// soon after its context has ended.
func (r Runner) Run(ctx context.Context, jitConfig string, started func(ctx context.Context, env map[string]string) error) (exitCode int) {
	if r.Client == nil {
		r.Client = http.DefaultClient
	}
	if r.RenewEvery <= 0 {
		r.RenewEvery = time.Minute
	}
	if r.CancelGrace <= 0 {
		r.CancelGrace = hookKill
	}
	if started == nil {
		started = func(context.Context, map[string]string) error { return nil }
	}
	// An error, a conflict and a finished job look the same from outside.
	err := r.listen(ctx, jitConfig, started)
	refused, isRefusal := errors.AsType[brokerRefusal](err)
	switch {
	case ctx.Err() != nil:
		return exitKilled
	case r.VersionExitCode && isRefusal && refused.kind == brokerVersion && refused.polling:
		return exitDeprecated
	}
	return exitDone
}

type hook func(ctx context.Context, env map[string]string) error

// connection is an open session with the broker.
type connection struct {
	runner  Runner
	file    runnerFile
	cred    credentialsData
	key     *rsa.PrivateKey
	token   string
	session string
}

func (r Runner) listen(ctx context.Context, jit string, started hook) error {
	c, err := r.connect(ctx, jit)
	if err != nil {
		return err
	}
	for {
		m, err := c.idle(ctx)
		if err != nil {
			return err
		}
		if m == nil || m.Type != "RunnerJobRequest" {
			continue
		}
		var offer offerBody
		if err := json.Unmarshal([]byte(m.Body), &offer); err != nil {
			return err
		}
		req, err := c.acquire(ctx, offer)
		if refused, isRefusal := errors.AsType[brokerRefusal](err); isRefusal && refused.kind == brokerJobNotFound {
			return errors.Join(err, c.endSession(ctx))
		}
		if err != nil {
			// The runner keeps listening when the job is gone or taken.
			continue
		}
		err = c.work(ctx, req, started)
		return errors.Join(err, c.endSession(ctx))
	}
}

func (c *connection) endSession(ctx context.Context) error {
	return c.call(ctx, http.MethodDelete, c.broker("session"), c.token, nil, nil)
}

// broker resolves a name against the broker's address as .NET's Uri does.
func (c *connection) broker(name string) string { return resolve(c.file.ServerURLV2, name) }

// idle polls once for a job, until the runner is told to stop.
func (c *connection) idle(ctx context.Context) (*runnerMessage, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(done)
	wg.Go(func() {
		select {
		case <-c.runner.Stop:
			cancel(errStopped)
		case <-done:
		}
	})
	m, err := c.message(ctx, "Online")
	if context.Cause(ctx) == errStopped {
		err = errors.Join(errStopped, c.endSession(context.WithoutCancel(ctx)))
	}
	return m, err
}

// errStopped says that an idle runner got SIGTERM.
var errStopped = errors.New("the runner was told to stop")

// message polls once; nil means that there was no news.
func (c *connection) message(ctx context.Context, status string) (*runnerMessage, error) {
	q := url.Values{
		"sessionId": {c.session}, "status": {status}, "runnerVersion": {"2.336.0"}, "os": {"linux"},
		"architecture": {"X64"}, "disableUpdate": {"true"},
	}
	var m runnerMessage
	u := c.broker("message") + "?" + q.Encode()
	err := c.call(ctx, http.MethodGet, u, c.token, nil, &m)
	if e, refused := errors.AsType[statusError](err); refused && e.status == http.StatusUnauthorized {
		// The runner's token lives shorter than a job may.
		if err = c.authenticate(ctx); err == nil {
			err = c.call(ctx, http.MethodGet, u, c.token, nil, &m)
		}
	}
	if refused, isRefusal := errors.AsType[brokerRefusal](err); isRefusal {
		refused.polling = true
		return nil, refused
	}
	if err != nil {
		return nil, err
	}
	if m.Type == "" {
		return nil, nil
	}
	return &m, nil
}

// acquire tells the broker that the offer came, which is best effort except for
// a job that is gone (actions/runner Runner.cs), and takes the job.
func (c *connection) acquire(ctx context.Context, offer offerBody) (*jobRequest, error) {
	if offer.ShouldAcknowledge {
		err := c.call(ctx, http.MethodPost, c.broker("acknowledge")+"?sessionId="+url.QueryEscape(c.session),
			c.token, map[string]any{"runnerRequestId": offer.RunnerRequestID}, nil)
		if refused, isRefusal := errors.AsType[brokerRefusal](err); isRefusal && refused.kind == brokerJobNotFound {
			return nil, err
		}
	}
	var req jobRequest
	err := c.call(ctx, http.MethodPost, resolve(offer.RunServiceURL, "acquirejob"), c.token, map[string]any{
		"jobMessageId": offer.RunnerRequestID, "runnerOS": "Linux", "billingOwnerId": offer.BillingOwnerID,
	}, &req)
	if err != nil {
		return nil, err
	}
	if len(req.Resources.Endpoints) != 1 || len(req.Steps) != stepAlways-stepRun+1 {
		return nil, errors.New("the job has no system connection or other steps than a simulated one")
	}
	return &req, nil
}

// work runs one job beside the renewal of its lease and the runner's poll.
func (c *connection) work(ctx context.Context, req *jobRequest, started hook) error {
	w := &worker{
		connection: c, req: req, system: req.Resources.Endpoints[0],
		cancelled: make(chan struct{}), shutdown: make(chan struct{}), finish: make(chan string, 1),
		steps: map[int]string{stepSetUpJob: newGUID(), stepHook: newGUID()},
	}
	w.cancel = sync.OnceFunc(func() { close(w.cancelled) })
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	side, end := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer end()
	wg.Go(func() { w.renew(side, stop) })
	wg.Go(func() { w.listen(side) })
	wg.Go(func() {
		select {
		case <-c.runner.Stop:
			close(w.shutdown)
			w.cancel()
		case <-side.Done():
		}
	})
	return w.run(ctx, started)
}

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
