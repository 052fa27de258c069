package lease

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	"go.uber.org/zap"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// ErrLost says that this process led and could not keep the lease: another may
// lead by now.
var ErrLost = errors.New("the lease was lost")

// Options say which Lease is competed for, and how. Duration is longer than
// RenewDeadline, which is longer than 1.2 times RetryPeriod.
type Options struct {
	Namespace, Name string
	// Identity is unlike that of any other process, and of this one in an
	// earlier life: it is how a process knows its own lease.
	Identity string
	// Duration is how long others wait, by their own clocks, after the lease was
	// renewed last before they take it: whole seconds, as the API has no others.
	Duration time.Duration
	// RenewDeadline is for how long the leader goes on without having renewed it.
	RenewDeadline time.Duration
	// RetryPeriod is the time between two tries to take or to renew it.
	RetryPeriod time.Duration
}

// Elector competes for one Lease. [Elector.Run] is called once; State is safe
// for concurrent use.
type Elector struct {
	opts    Options
	lock    *watched
	elector *leaderelection.LeaderElector
	log     *zap.Logger
	won     chan struct{} // closed when this process leads
}

// New makes an elector. It asks nothing of the cluster yet.
func New(client coordinationv1.LeasesGetter, opts Options, log *zap.Logger) (*Elector, error) {
	e := &Elector{opts: opts, log: log, won: make(chan struct{})}
	e.lock = newWatched(&resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: opts.Namespace, Name: opts.Name},
		Client:     client,
		LockConfig: resourcelock.ResourceLockConfig{Identity: opts.Identity},
	}, opts, log)
	var err error
	e.elector, err = leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: e.lock, Name: opts.Name,
		LeaseDuration: opts.Duration, RenewDeadline: opts.RenewDeadline, RetryPeriod: opts.RetryPeriod,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) { close(e.won) },
			OnStoppedLeading: func() {},
		},
		// client-go would give the lease back before what it guards has ended.
		ReleaseOnCancel: false,
	})
	if err != nil {
		return nil, fmt.Errorf("make the elector: %w", err)
	}
	return e, nil
}

// Run stands by until this process leads, and calls lead once. The context that
// lead gets ends with ctx, and with [ErrLost] as its cause when the lease is
// lost. When lead has returned the lease is given back if it still names this
// process, so that another need not wait for its end. Run returns nil when ctx
// ends before this process leads, otherwise what lead returned, joined with
// ErrLost if that was why.
func (e *Elector) Run(ctx context.Context, lead func(context.Context) error) error {
	// The election outlives ctx: the lease is kept until lead has returned.
	// client-go's own log says nothing that is not said here.
	electing, stop := context.WithCancel(logr.NewContext(context.WithoutCancel(ctx), logr.Discard()))
	defer stop()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		e.elector.Run(electing)
	}()
	select {
	case <-e.won:
	case <-ctx.Done():
		stop()
		<-ended
		e.release(ctx) // it may have been won just now
		return nil
	}
	e.log.Info("this daemon leads", zap.String("identity", e.opts.Identity))
	leading, lose := context.WithCancelCause(ctx)
	defer lose(nil)
	go func() {
		select {
		case <-e.lock.lost:
		case <-ended:
		case <-leading.Done():
			return
		}
		lose(ErrLost)
		stop() // it must not win again behind the back of who lost it
	}()
	err := lead(leading)
	if errors.Is(context.Cause(leading), ErrLost) {
		err = errors.Join(fmt.Errorf("%w: %s", ErrLost, e.lock.state().loss()), err)
	}
	lose(nil)
	stop()
	<-ended
	e.release(ctx)
	return err
}

// State says what is known of the lease, at once.
func (e *Elector) State() State { return e.lock.state() }

// release gives the lease back if this process still holds it. It is called
// after the election has ended: nobody else uses the lock. That it cannot be
// given back costs the others the rest of its duration, and is no error.
func (e *Elector) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.opts.RenewDeadline)
	defer cancel()
	err := e.tryRelease(ctx)
	for apierrors.IsConflict(err) && ctx.Err() == nil { // a renewal was still on its way
		err = e.tryRelease(ctx)
	}
	if err != nil && !apierrors.IsNotFound(err) {
		e.log.Warn("the lease could not be given back; another daemon takes over when it ends", zap.Error(err))
	}
}

func (e *Elector) tryRelease(ctx context.Context) error {
	record, _, err := e.lock.Get(ctx)
	if err != nil || record.HolderIdentity != e.opts.Identity {
		return err
	}
	now := metav1.Now()
	// As client-go releases it: without a holder it is free at once.
	return e.lock.Update(ctx, resourcelock.LeaderElectionRecord{
		LeaseDurationSeconds: 1, RenewTime: now, AcquireTime: now, LeaderTransitions: record.LeaderTransitions,
	})
}
