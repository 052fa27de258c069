package scaleset

import (
	"context"
	"errors"
	"time"

	upstream "github.com/actions/scaleset"
)

// pool is a fixed number of official clients, made when first used. A client
// serves one call at a time: it would serialise them itself, behind a mutex
// that no deadline interrupts.
type pool struct {
	slots chan *upstream.Client // nil stands for a client that is not made yet
	make  func() (*upstream.Client, error)
	call  time.Duration // bounds one call, with its wait for a client
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
	if client == nil {
		if client, err = p.make(); err != nil {
			return v, err
		}
	}
	return guard(op, func() (T, error) { return call(ctx, client) })
}

// unusable says that the client that made this error must not be used again.
func unusable(err error) bool {
	return errors.Is(err, errPanicked) || errors.Is(err, errUnauthorized)
}
