package lease

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// State is what this process knows of the lease.
type State struct {
	// Leading says that this process holds it.
	Leading bool
	// Leader is the identity of the holder, empty when nobody holds it or
	// nothing is known yet.
	Leader string
	// SeenAt is when the lease was last read or written, zero for never.
	SeenAt time.Time
	// Problem is why the last try came to nothing, empty when it did not.
	Problem string
}

// loss is why a lease that was held is not any more.
func (s State) loss() string {
	switch {
	case s.Problem != "":
		return "it could not be renewed: " + s.Problem
	case s.Leader != "":
		return s.Leader + " holds it"
	}
	return "it was not renewed in time"
}

// watched is a lock that knows by itself when it is lost. client-go notices by
// the end of a whole RenewDeadline of tries, also after a read that showed
// another holder, and begins that deadline anew when the process was stopped
// meanwhile. Every call is bounded, so that one which hangs leaves time for
// another.
type watched struct {
	resourcelock.Interface
	opts Options
	log  *zap.Logger
	lost chan struct{} // closed once it was held and is not any more

	mu       sync.Mutex
	deadline *time.Timer // nil before this process held it
	over     bool        // lost
	last     State
}

func newWatched(lock resourcelock.Interface, opts Options, log *zap.Logger) *watched {
	return &watched{Interface: lock, opts: opts, log: log, lost: make(chan struct{})}
}

func (w *watched) state() State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// Get implements [resourcelock.Interface].
func (w *watched) Get(ctx context.Context) (record *resourcelock.LeaderElectionRecord, raw []byte, err error) {
	began := time.Now()
	err = w.bounded(ctx, func(ctx context.Context) error {
		record, raw, err = w.Interface.Get(ctx)
		return err
	})
	if apierrors.IsNotFound(err) {
		w.saw("", began)
		return nil, nil, err
	}
	if err != nil {
		w.failed(ctx, fmt.Errorf("read the lease %s: %w", w.Describe(), err))
		return nil, nil, err
	}
	w.saw(record.HolderIdentity, began)
	return record, raw, nil
}

// Create implements [resourcelock.Interface].
func (w *watched) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return w.write(ctx, "make", record, w.Interface.Create)
}

// Update implements [resourcelock.Interface].
func (w *watched) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return w.write(ctx, "write", record, w.Interface.Update)
}

func (w *watched) write(ctx context.Context, what string, record resourcelock.LeaderElectionRecord,
	f func(context.Context, resourcelock.LeaderElectionRecord) error) error {
	began := time.Now()
	err := w.bounded(ctx, func(ctx context.Context) error { return f(ctx, record) })
	if err != nil {
		w.failed(ctx, fmt.Errorf("%s the lease %s: %w", what, w.Describe(), err))
		return err
	}
	w.wrote(record.HolderIdentity, began)
	return nil
}

func (w *watched) bounded(ctx context.Context, f func(context.Context) error) error {
	limit := w.opts.RenewDeadline / 2
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %s", limit))
	defer cancel()
	return f(ctx)
}

// saw notes who held the lease when it was read.
func (w *watched) saw(holder string, began time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note(holder, began)
	if w.deadline != nil && holder != w.opts.Identity {
		w.lose()
	}
}

// wrote notes that the lease was made or written. It counts from before it was
// asked for: others may count from the moment that the server wrote it.
func (w *watched) wrote(holder string, began time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note(holder, began)
	switch {
	case holder != w.opts.Identity: // given back
		if w.deadline != nil {
			w.deadline.Stop()
		}
	case w.deadline == nil:
		w.deadline = time.AfterFunc(w.opts.RenewDeadline-time.Since(began), func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.lose()
		})
	default:
		w.deadline.Reset(w.opts.RenewDeadline - time.Since(began))
	}
	w.last.Leading = holder == w.opts.Identity && !w.over
}

func (w *watched) note(holder string, at time.Time) {
	if holder != w.last.Leader || w.last.SeenAt.IsZero() {
		w.log.Info("who leads", zap.String("leader", holder))
	}
	w.last.Leader, w.last.SeenAt, w.last.Problem = holder, at, ""
}

// lose ends this process's time as the leader, for good.
func (w *watched) lose() {
	if w.over {
		return
	}
	w.over, w.last.Leading = true, false
	close(w.lost)
}

// failed notes why a call came to nothing. One that was called off says nothing.
func (w *watched) failed(ctx context.Context, err error) {
	if errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last.Problem == "" {
		w.log.Warn("the lease cannot be had", zap.Error(err))
	}
	w.last.Problem = err.Error()
}
