// Command standin is the runner application of the tests' runner image. It is
// what run.sh of that image keeps running, speaks GitHub's protocol with the
// client of test/foreignrunner, and does with hooks, steps and signals what the
// source of actions/runner does, in one process instead of a listener and a
// worker. Scripts run for real.
//
// It reads ACTIONS_RUNNER_INPUT_JITCONFIG and ACTIONS_RUNNER_HOOK_JOB_STARTED.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/runnerward/runnerward/test/foreignrunner"
)

// The exit codes of the listener: Constants.cs, ReturnCode.
const (
	exitSuccess         = 0
	exitTerminated      = 1
	exitSessionConflict = 5
	exitVersionTooOld   = 7
)

const jitVariable = "ACTIONS_RUNNER_INPUT_JITCONFIG"

func main() {
	stop := make(chan struct{})
	signals := make(chan os.Signal, 1)
	// run.sh makes an INT of a TERM; Runner.cs handles that one.
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-signals
		close(stop)
	}()
	a := app{
		client: &http.Client{Timeout: 2 * time.Minute}, home: "/home/runner", stop: stop, out: os.Stdout,
		hook: os.Getenv("ACTIONS_RUNNER_HOOK_JOB_STARTED"), endings: endings(),
	}
	jit := os.Getenv(jitVariable)
	for _, entry := range os.Environ() {
		// CommandSettings.cs takes them out of its own environment.
		if !strings.HasPrefix(entry, "ACTIONS_RUNNER_INPUT_") {
			a.environ = append(a.environ, entry)
		}
	}
	os.Exit(a.run(context.Background(), jit))
}

// app is the runner application.
type app struct {
	client  *http.Client
	home    string // an existing folder
	environ []string
	hook    string          // the job-started hook's script, empty for none
	stop    <-chan struct{} // closes when the runner is told to end
	out     *os.File
	endings []ending
}

// run serves one job, or none when it is stopped before. The error is told, the
// exit code is the listener's.
func (a *app) run(ctx context.Context, jit string) int {
	err := a.serve(ctx, jit)
	if err != nil {
		fmt.Fprintln(a.out, "runner:", err)
	}
	switch {
	case err == nil:
		return exitSuccess
	case errors.Is(err, foreignrunner.ErrSessionConflict):
		return exitSessionConflict
	case errors.Is(err, foreignrunner.ErrVersionTooOld):
		return exitVersionTooOld
	}
	return exitTerminated
}

func (a *app) serve(ctx context.Context, jit string) error {
	r, err := foreignrunner.Configure(a.client, jit)
	if err != nil {
		return err
	}
	if err := a.again(ctx, r.Authenticate); err != nil {
		return err
	}
	if err := a.again(ctx, r.CreateSession); err != nil {
		return err
	}
	fmt.Fprintln(a.out, "runner: listening for jobs")
	job, err := a.wait(ctx, r)
	if job != nil {
		err = a.work(ctx, r, job)
	}
	return errors.Join(err, r.DeleteSession(ctx))
}

// wait returns the runner's job, none when it is stopped.
func (a *app) wait(ctx context.Context, r *foreignrunner.Runner) (*foreignrunner.Job, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-a.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	for {
		var job *foreignrunner.Job
		err := a.again(ctx, func(ctx context.Context) (err error) {
			job, err = next(ctx, r)
			return err
		})
		if ctx.Err() != nil {
			return nil, nil
		}
		if job != nil || err != nil {
			return job, err
		}
	}
}

// next polls once and takes the job that is offered, if one is.
func next(ctx context.Context, r *foreignrunner.Runner) (*foreignrunner.Job, error) {
	m, err := r.GetMessage(ctx, "Online")
	if err != nil || m == nil || m.MessageType != "RunnerJobRequest" {
		return nil, err
	}
	offer, err := m.Offer()
	if err != nil {
		return nil, err
	}
	if offer.ShouldAcknowledge {
		if err := r.Acknowledge(ctx, offer); errors.Is(err, foreignrunner.ErrNothingToAck) {
			return nil, err
		}
	}
	job, err := r.Acquire(ctx, offer)
	if errors.Is(err, foreignrunner.ErrJobNotFound) || errors.Is(err, foreignrunner.ErrAlreadyAcquired) {
		return nil, nil // Runner.cs goes on listening
	}
	return job, err
}

// again tries until it works, the context ends or GitHub means no.
func (a *app) again(ctx context.Context, try func(context.Context) error) error {
	for {
		err := try(ctx)
		if err == nil || ctx.Err() != nil || final(err) {
			return err
		}
		fmt.Fprintln(a.out, "runner: trying again:", err)
		pause := time.NewTimer(time.Second)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return context.Cause(ctx)
		}
	}
}

func final(err error) bool {
	for _, refusal := range []error{
		foreignrunner.ErrSessionConflict, foreignrunner.ErrRunnerNotFound, foreignrunner.ErrVersionTooOld, foreignrunner.ErrSessionInvalid,
		foreignrunner.ErrNothingToAck, foreignrunner.ErrJobNotFound, foreignrunner.ErrInvalidClient,
	} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}
