package github

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	gh "github.com/google/go-github/v60/github"

	"github.com/runnerward/runnerward/pkg/ghapp"
)

// Error is a question that GitHub did not answer. It deliberately holds
// nothing of the answer but its status.
type Error struct {
	Op     string
	Status int // 0 when no status is known
	// RetryAfter is how long GitHub asks to wait, 0 when it did not say.
	RetryAfter time.Duration
	Cause      error
}

// Error has the form "read run: HTTP 403: rate limited".
func (e *Error) Error() string {
	s := e.Op + ": "
	if e.Status != 0 {
		s += fmt.Sprintf("HTTP %d: ", e.Status)
	}
	s += e.Cause.Error()
	if e.RetryAfter > 0 {
		s += fmt.Sprintf(" for %s", e.RetryAfter)
	}
	return s
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Cause }

// ErrRateLimited is the cause of an [Error] when GitHub asks for patience.
var ErrRateLimited = errors.New("rate limited")

var (
	errRejected  = errors.New("GitHub answered with an error")
	errMalformed = errors.New("the answer could not be understood")
	errNoAnswer  = errors.New("no answer")
	errRedirect  = errors.New("GitHub redirected to another host")
)

// failed turns whatever a request ended with into an [*Error]. There is no
// response when the client itself holds back after a rate limit, or when
// nobody answered.
func failed(op string, resp *http.Response, err error) error {
	e := &Error{Op: op}
	if resp != nil {
		e.Status = resp.StatusCode
	}
	_, primary := errors.AsType[*gh.RateLimitError](err)
	_, secondary := errors.AsType[*gh.AbuseRateLimitError](err)
	switch {
	case primary || secondary || limited(resp):
		e.Cause = ErrRateLimited
		e.RetryAfter = retryAfter(resp)
	case errors.Is(err, ErrRateLimited):
		e.Cause = ErrRateLimited
		if h, ok := errors.AsType[*held](err); ok {
			e.RetryAfter = h.wait.Round(time.Second)
		}
	case errors.Is(err, context.Canceled):
		e.Cause = context.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		e.Cause = context.DeadlineExceeded
	case errors.Is(err, errRedirect):
		e.Cause = errRedirect
	case e.Status == 0:
		e.Cause = ghapp.NetworkCause(err)
		if signIn, ok := errors.AsType[*ghapp.Error](err); ok {
			e.Status, e.RetryAfter, e.Cause = signIn.Status, signIn.RetryAfter, signIn
			if errors.Is(signIn, ghapp.ErrRateLimited) {
				e.Cause = ErrRateLimited
			}
		}
	case e.Status < 300:
		e.Cause = errMalformed
	default:
		e.Cause = errRejected
	}
	return e
}

// limited says that the status and headers are those of a rate limit.
// https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
func limited(resp *http.Response) bool {
	switch {
	case resp == nil:
		return false
	case resp.StatusCode == http.StatusTooManyRequests:
		return true
	case resp.StatusCode != http.StatusForbidden:
		return false
	}
	return resp.Header.Get("X-RateLimit-Remaining") == "0" || resp.Header.Get("Retry-After") != ""
}

// retryAfter is how long GitHub asks to wait, in the answer to a request that was
// throttled. A secondary limit that does not say means a minute at least; how
// long a primary one lasts is in its own header, which go-github obeys.
// https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api#handle-rate-limit-errors-appropriately
func retryAfter(resp *http.Response) time.Duration {
	switch {
	case resp == nil:
		return 0
	case resp.Header.Get("Retry-After") != "":
		if n, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 32); err == nil && n > 0 {
			return min(time.Duration(n)*time.Second, 24*time.Hour)
		}
	case resp.Header.Get("X-RateLimit-Remaining") == "0":
		return 0
	}
	return time.Minute
}
