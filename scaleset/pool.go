package scaleset

import (
	"context"
	"errors"
	"net/http"
	"time"

	upstream "github.com/actions/scaleset"

	"github.com/runnerward/runnerward/pkg/ghapp"
)

// pool is a fixed number of official clients, made when first used. A client
// serves one call at a time: it would serialise them itself, behind a mutex
// that no deadline interrupts.
type pool struct {
	slots chan *upstream.Client // nil stands for a client that is not made yet
	make  func() (*upstream.Client, error)
	call  time.Duration // bounds one call, with its wait for a client and its tries
	// patience is how long the server asked to wait, nil if nobody knows.
	patience func() time.Duration
}

func newPool(size int, call time.Duration, makeClient func() (*upstream.Client, error)) *pool {
	p := &pool{slots: make(chan *upstream.Client, size), make: makeClient, call: call}
	for range size {
		p.slots <- nil
	}
	return p
}

// use makes one call with a client of the pool. A client that panicked may
// hold a lock for ever, and one whose admin token was revoked would keep that
// token until its expiry: both are replaced.
func use[T any](ctx context.Context, p *pool, op string, call func(context.Context, *upstream.Client) (T, error)) (v T, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.call)
	defer cancel()
	var client *upstream.Client
	select {
	case client = <-p.slots:
	case <-ctx.Done():
		return v, &Error{Op: op, Cause: context.Cause(ctx)}
	}
	defer func() {
		if unusable(err) {
			client = nil
		}
		p.slots <- client
	}()
	if !p.yield(ctx) {
		return v, &Error{Op: op, Status: http.StatusTooManyRequests, Cause: errPatience}
	}
	for try := 1; ; try++ {
		if client == nil {
			if client, err = p.make(); err != nil {
				return v, err
			}
		}
		v, err = guard(op, func() (T, error) { return call(ctx, client) })
		if try == tries || !passing(err) || !p.wait(ctx, try) {
			return v, err
		}
		if unusable(err) {
			client = nil
		}
	}
}

const (
	// tries is how often one call is made.
	tries = 3
	// firstWait is doubled after each try.
	firstWait = time.Second
)

// passing says that the same call may succeed later: nobody answered, the server
// fails or asks for patience, or it does not know a token yet that it has just
// handed out. 501 is for good, and so is a wrong certificate.
func passing(err error) bool {
	status := statusOf(err)
	switch {
	case err == nil || errors.Is(err, context.Canceled) || errors.Is(err, errPanicked) || ghapp.Untrusted(err):
		return false
	case status == http.StatusTooManyRequests || status == http.StatusUnauthorized || status == http.StatusForbidden:
		return true
	}
	return status == 0 || status >= 500 && status != http.StatusNotImplemented
}

// yield waits as long as the server asked for after an earlier call; false when
// this call's deadline would be over by then. Calling a server that asked for
// patience prolongs its refusal.
// https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api#handle-rate-limit-errors-appropriately
func (p *pool) yield(ctx context.Context) bool {
	if p.patience == nil {
		return true
	}
	d := p.patience()
	if deadline, bounded := ctx.Deadline(); bounded && d > 0 && time.Until(deadline) <= d {
		return false
	}
	if d > 0 {
		pause(ctx, d)
	}
	return ctx.Err() == nil
}

// wait is as long as the server asked for, else it doubles; false when the
// call's deadline would be over by then.
func (p *pool) wait(ctx context.Context, try int) bool {
	d := firstWait << (try - 1)
	if p.patience != nil {
		d = max(d, p.patience())
	}
	if deadline, bounded := ctx.Deadline(); bounded && time.Until(deadline) <= d {
		return false
	}
	pause(ctx, d)
	return ctx.Err() == nil
}

// unusable says that the client that made this error must not be used again.
func unusable(err error) bool {
	return errors.Is(err, errPanicked) || errors.Is(err, errUnauthorized)
}
