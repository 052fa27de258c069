package ghapp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"
	"time"
)

// Error is a sign-in that failed. It deliberately holds nothing of the answer
// but its status.
type Error struct {
	Op     string
	Status int // 0 when no status is known
	// RetryAfter is how long GitHub asks to wait, 0 when it did not say.
	RetryAfter time.Duration
	Cause      error
}

// Error has the form "make installation token: HTTP 404: cause".
func (e *Error) Error() string {
	if e.Status == 0 {
		return fmt.Sprintf("%s: %v", e.Op, e.Cause)
	}
	return fmt.Sprintf("%s: HTTP %d: %v", e.Op, e.Status, e.Cause)
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Cause }

// The causes, in words for whoever configured the App.
var (
	errMalformed    = errors.New("the answer could not be understood")
	errNoAnswer     = errors.New("no answer")
	errRejected     = errors.New("GitHub answered with an error")
	errWrongKey     = errors.New("GitHub does not know the App: check the client id and that the private key is one of its keys")
	errNoInstalling = errors.New("the App has no such installation: check the installation id")
	errSuspended    = errors.New("GitHub refuses the App: its installation may be suspended")
	// ErrRateLimited: GitHub asks for patience.
	ErrRateLimited = errors.New("rate limited")
)

// skewShown is from what difference on a clock is named as the likely cause.
const skewShown = 30 * time.Second

func refused(op string, resp *http.Response, skew time.Duration) error {
	e := &Error{Op: op, Status: resp.StatusCode, Cause: errRejected}
	if d, err := time.ParseDuration(resp.Header.Get("Retry-After") + "s"); err == nil && d > 0 {
		e.RetryAfter = min(d, 24*time.Hour)
	}
	switch {
	case resp.StatusCode == http.StatusTooManyRequests,
		resp.StatusCode == http.StatusForbidden && (e.RetryAfter > 0 || resp.Header.Get("X-RateLimit-Remaining") == "0"):
		e.Cause = ErrRateLimited
	case resp.StatusCode == http.StatusUnauthorized && skew.Abs() > skewShown:
		e.Cause = fmt.Errorf("our clock and GitHub's are %s apart, and it takes no token from the future: mend the clock", skew.Abs())
	case resp.StatusCode == http.StatusUnauthorized:
		e.Cause = errWrongKey
	case resp.StatusCode == http.StatusNotFound:
		e.Cause = errNoInstalling
	case resp.StatusCode == http.StatusForbidden:
		e.Cause = errSuspended
	}
	return e
}

// unanswered never repeats the transport's words: they hold the address.
func unanswered(op string, err error) error { return &Error{Op: op, Cause: NetworkCause(err)} }

var (
	errTLS    = errors.New("the certificate is not trusted")
	errLookup = errors.New("the host name was not found")
)

// NetworkCause names why a request had no answer, in words that hold no address
// and nothing of the request.
func NetworkCause(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return context.DeadlineExceeded
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return errTLS
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return errTLS
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return errLookup
	}
	if number, ok := errors.AsType[syscall.Errno](err); ok {
		return fmt.Errorf("%w: %w", errNoAnswer, number)
	}
	return errNoAnswer
}

// Untrusted says that the cause is a certificate, which waiting does not mend.
func Untrusted(err error) bool { return errors.Is(err, errTLS) }
