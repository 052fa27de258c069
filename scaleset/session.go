package scaleset

import (
	"context"
	"errors"
	"net/http"

	upstream "github.com/actions/scaleset"
	"go.uber.org/zap"
)

// session is one open message session. Only the goroutine of Run uses it: the
// official client holds a mutex over a whole poll.
type session struct {
	client *upstream.MessageSessionClient
	// stuck says that the client panicked and may hold its lock for ever.
	stuck bool
}

// openSession creates a session. The server grants one at a time; a process
// that was killed keeps it until the server lets it expire.
func (s *ScaleSet) openSession(ctx context.Context, parent *upstream.Client) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timings.Call)
	defer cancel()
	const op = "open session"
	if s.id() == 0 {
		return nil, &Error{Op: op, Cause: errScaleSetNotFound} // not looked up yet
	}
	client, err := guard(op, func() (*upstream.MessageSessionClient, error) {
		return parent.MessageSessionClient(ctx, s.id(), s.cfg.Owner, s.tap.options(sessionTimeout)...)
	})
	switch {
	case err != nil && statusOf(err) == http.StatusConflict:
		// Nothing else conflicts here, whatever the body says.
		return nil, &Error{Op: op, Status: http.StatusConflict, Cause: errSessionConflict}
	case err != nil && statusOf(err) == http.StatusNotFound:
		return nil, &Error{Op: op, Status: http.StatusNotFound, Cause: errScaleSetNotFound}
	case err != nil:
		return nil, err
	}
	ses := &session{client: client}
	if err := ses.validate(); err != nil {
		ses.close(ctx, s)
		return nil, &Error{Op: op, Cause: err}
	}
	return ses, nil
}

// validate checks what the client holds now. A refresh replaces the session
// wholesale, so this is asked after every call that may have refreshed it.
func (ses *session) validate() error {
	now := ses.client.Session()
	switch {
	case now.MessageQueueURL == "" || now.MessageQueueAccessToken == "":
		return errors.New("the session came without a queue")
	case now.Statistics == nil:
		return errors.New("the session came without statistics")
	}
	return nil
}

// call makes one call on the session and says which failures end it.
func call[T any](ses *session, op string, f func(*upstream.MessageSessionClient) (T, error)) (T, error) {
	v, err := guard(op, func() (T, error) { return f(ses.client) })
	if errors.Is(err, errPanicked) {
		ses.stuck = true
		return v, err
	}
	if invalid := ses.validate(); invalid != nil {
		return v, &Error{Op: op, Cause: errors.Join(errSessionLost, invalid)}
	}
	return v, err
}

// close gives the session back, as far as that is possible, so that the next
// one need not wait for its expiry. It outlives ctx, for a bounded time.
func (ses *session) close(ctx context.Context, s *ScaleSet) {
	if ses.stuck {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Timings.Close)
	defer cancel()
	if err := guarded("close session", func() error { return ses.client.Close(ctx) }); err != nil {
		s.log.Info("the session could not be closed", zap.Error(err))
	}
}

// ended says that no call can succeed on the session any more.
func (ses *session) ended(err error) bool {
	return ses.stuck || errors.Is(err, errSessionLost) || errors.Is(err, errScaleSetNotFound) || errors.Is(err, errUnauthorized)
}
