package simgithub

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
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
