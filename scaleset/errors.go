package scaleset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"runtime"
	"strconv"
	"strings"

	upstream "github.com/actions/scaleset"

	"github.com/runnerward/runnerward/pkg/ghapp"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// Error is a failed call to GitHub. It says what was done, the HTTP status if
// there was an answer and the cause, and deliberately nothing else: the
// official client's errors hold URLs and whole response bodies.
type Error struct {
	Op     string
	Status int // 0 when no status is known
	Cause  error
}

// Error has the form "poll: HTTP 409: cause".
func (e *Error) Error() string {
	if e.Status == 0 {
		return fmt.Sprintf("%s: %v", e.Op, e.Cause)
	}
	return fmt.Sprintf("%s: HTTP %d: %v", e.Op, e.Status, e.Cause)
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Cause }

// The causes that are not somebody else's sentinel.
var (
	errSessionConflict  = errors.New("another process holds the message session")
	errSessionLost      = errors.New("the message session is gone")
	errScaleSetNotFound = errors.New("the scale set is gone")
	errGroupNotFound    = errors.New("the credential sees no runner group of this name")
	errRunnerNotFound   = errors.New("no such runner")
	errPanicked         = errors.New("the official client panicked over the answer")
	errAgain            = errors.New("a message that was acknowledged came again")
	errEmpty            = errors.New("the answer was empty")
	errAside            = errors.New("jobs were put aside; another session is offered them again")
	errMalformed        = errors.New("the answer could not be understood")
	errRejected         = errors.New("GitHub answered with an error")
	errUnauthorized     = errors.New("GitHub rejected the credential")
	errPatience         = errors.New("GitHub asked for more patience than this call has")
)

// guard makes a call to the official client safe: a panic becomes an error,
// and every error an [*Error]. The function must hold nothing but the call.
func guard[T any](op string, call func() (T, error)) (v T, err error) {
	defer func() {
		if p := recover(); p != nil {
			cause := errPanicked
			if fault, ok := p.(runtime.Error); ok {
				// The text of a runtime error holds no data of the answer.
				cause = fmt.Errorf("%w: %w", errPanicked, fault)
			}
			err = &Error{Op: op, Cause: cause}
		}
	}()
	v, err = call()
	if err != nil {
		var zero T
		return zero, classify(op, err)
	}
	return v, nil
}

// guarded is guard for a call without a result.
func guarded(op string, call func() error) error {
	_, err := guard(op, func() (struct{}, error) { return struct{}{}, call() })
	return err
}

// statusInText finds the status in an error of the official client, which
// writes it in front of everything that the server chose.
var statusInText = regexp.MustCompile(`failed\(status="(\d{3})`)

func classify(op string, err error) error {
	e := &Error{Op: op}
	if m := statusInText.FindStringSubmatch(err.Error()); m != nil {
		e.Status, _ = strconv.Atoi(m[1])
	}
	if refused, ok := errors.AsType[statusError](err); ok {
		e.Status, e.Cause = int(refused), errRejected
		return e
	}
	e.Cause = cause(err, e.Status)
	return e
}

// exceptions are the type names by which the service says what is wrong. The
// official client types only some of them, and none when the body does not
// come as JSON, so the text decides as well.
var exceptions = []struct {
	text  string
	cause error
}{
	{"RunnerScaleSetSessionConflictException", errSessionConflict},
	{"RunnerScaleSetSessionExpiredException", errSessionLost},
	{"session ID that doesn't exist", errSessionLost},
	{"RunnerScaleSetNotFoundException", errScaleSetNotFound},
	{"AgentExistsException", supervisor.ErrRegistrationExists},
	{"AgentNotFoundException", errRunnerNotFound},
	{"JobStillRunningException", supervisor.ErrJobStillRunning},
}

func cause(err error, status int) error {
	switch {
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.Is(err, upstream.RunnerExistsError):
		return supervisor.ErrRegistrationExists
	case errors.Is(err, upstream.RunnerNotFoundError):
		return errRunnerNotFound
	case errors.Is(err, upstream.JobStillRunningError):
		return supervisor.ErrJobStillRunning
	case errors.Is(err, upstream.MessageQueueTokenExpiredError):
		// The client refreshes once by itself; a second refusal is for good.
		return errSessionLost
	case status == 0:
		return transportCause(err)
	case status == http.StatusUnauthorized:
		return errUnauthorized
	case status >= 200 && status < 300 && errors.Is(err, io.EOF):
		return errEmpty
	case status == http.StatusOK && strings.Contains(err.Error(), "no runner group found"):
		return errGroupNotFound
	case status >= 200 && status < 300:
		return errMalformed
	}
	for _, x := range exceptions {
		if status >= 400 && status < 500 && strings.Contains(err.Error(), x.text) {
			return x.cause
		}
	}
	return errRejected
}

// transportCause names why there was no answer.
func transportCause(err error) error {
	if signIn, ok := errors.AsType[*signInError](err); ok {
		return signIn.error
	}
	return ghapp.NetworkCause(err)
}

// statusOf is the HTTP status of an error, 0 if none is known.
func statusOf(err error) int {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Status
	}
	return 0
}
