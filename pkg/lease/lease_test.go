package lease_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	apicoordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"

	"github.com/runnerward/runnerward/pkg/lease"
	simcluster "github.com/runnerward/runnerward/pkg/sim/cluster"
)

const namespace = "gha-runners"

// wire is one process's way to the API server.
type wire struct {
	coordinationv1.LeasesGetter
	mode atomic.Int32
}

const (
	whole = iota
	cut   // every call fails at once
	hangs // no call is ever answered
)

func (w *wire) Leases(namespace string) coordinationv1.LeaseInterface {
	return leases{w.LeasesGetter.Leases(namespace), w}
}

type leases struct {
	coordinationv1.LeaseInterface
	w *wire
}

func (l leases) pass(ctx context.Context) error {
	switch l.w.mode.Load() {
	case cut:
		return errors.New("connection refused")
	case hangs:
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return nil
}

func (l leases) Get(ctx context.Context, name string, o metav1.GetOptions) (*apicoordinationv1.Lease, error) {
	if err := l.pass(ctx); err != nil {
		return nil, err
	}
	return l.LeaseInterface.Get(ctx, name, o)
}

func (l leases) Create(ctx context.Context, lease *apicoordinationv1.Lease, o metav1.CreateOptions) (*apicoordinationv1.Lease, error) {
	if err := l.pass(ctx); err != nil {
		return nil, err
	}
	return l.LeaseInterface.Create(ctx, lease, o)
}

func (l leases) Update(ctx context.Context, lease *apicoordinationv1.Lease, o metav1.UpdateOptions) (*apicoordinationv1.Lease, error) {
	if err := l.pass(ctx); err != nil {
		return nil, err
	}
	return l.LeaseInterface.Update(ctx, lease, o)
}

// candidate is one process.
type candidate struct {
	*lease.Elector
	wire   *wire
	end    context.CancelFunc
	leads  chan struct{} // closed when it leads
	over   chan struct{} // closed when its work is told to end
	finish chan struct{} // its work ends when this is closed
	ended  chan error
	at     time.Time // when its work was told to end
}

// compete starts a process.
func compete(t *testing.T, getter coordinationv1.LeasesGetter, identity string) *candidate {
	t.Helper()
	c := &candidate{
		wire: &wire{LeasesGetter: getter}, leads: make(chan struct{}), over: make(chan struct{}), finish: make(chan struct{}), ended: make(chan error, 1),
	}
	var err error
	c.Elector, err = lease.New(c.wire, lease.Options{
		Namespace: namespace, Name: "runnerward", Identity: identity,
		Duration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second,
	}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	c.end = end
	go func() {
		c.ended <- c.Run(ctx, func(ctx context.Context) error {
			close(c.leads)
			<-ctx.Done()
			c.at = time.Now()
			close(c.over)
			<-c.finish
			if errors.Is(context.Cause(ctx), lease.ErrLost) {
				return errors.New("the work was cut short")
			}
			return nil
		})
	}()
	return c
}

func (c *candidate) isLeading() bool {
	select {
	case <-c.leads:
		return true
	default:
		return false
	}
}

// pair is a bubble with a that leads and b that stands by.
func pair(t *testing.T, f func(t *testing.T, client coordinationv1.CoordinationV1Interface, a, b *candidate)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cluster, err := simcluster.New(simcluster.Options{Namespace: namespace})
		if err != nil {
			t.Fatal(err)
		}
		client := cluster.Client().CoordinationV1()
		a := compete(t, client, "a")
		<-a.leads
		b := compete(t, client, "b")
		after(t, 5*time.Minute)
		if s := a.State(); !s.Leading || s.Leader != "a" || s.Problem != "" {
			t.Errorf("a = %+v, want it to lead for as long as it likes", s)
		}
		if s := b.State(); b.isLeading() || s.Leading || s.Leader != "a" || time.Since(s.SeenAt) > 5*time.Second {
			t.Errorf("b = %+v, want it to stand by and to know that a leads", s)
		}
		f(t, client, a, b)
		for _, c := range []*candidate{a, b} {
			c.end()
			select {
			case <-c.finish:
			default:
				close(c.finish)
			}
		}
		synctest.Wait()
	})
}

func after(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal("the test ended first")
	}
	synctest.Wait()
}

// holder is who the API server says holds the lease.
func holder(t *testing.T, client coordinationv1.LeasesGetter) string {
	t.Helper()
	l, err := client.Leases(namespace).Get(t.Context(), "runnerward", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if l.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.Spec.HolderIdentity
}

// within fails the test if this takes longer.
func within(t *testing.T, limit time.Duration, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(limit):
		t.Errorf("not within %s: %s", limit, what)
	}
	synctest.Wait()
}

// TestAnOrderlyEndHandsOver: the lease is kept until the work has ended, and
// then free at once.
func TestAnOrderlyEndHandsOver(t *testing.T) {
	pair(t, func(t *testing.T, client coordinationv1.CoordinationV1Interface, a, b *candidate) {
		a.end()
		<-a.over
		after(t, time.Minute)
		if b.isLeading() || holder(t, client) != "a" {
			t.Errorf("%s leads while the work of a has not ended", holder(t, client))
		}
		close(a.finish)
		if err := <-a.ended; err != nil {
			t.Errorf("Run = %v, want an orderly end", err)
		}
		within(t, 5*time.Second, "b takes what was given back", b.leads)
	})
}

// TestAStandbyThatEndsLeavesTheLeaseAlone.
func TestAStandbyThatEndsLeavesTheLeaseAlone(t *testing.T) {
	pair(t, func(t *testing.T, client coordinationv1.CoordinationV1Interface, a, b *candidate) {
		b.end()
		if err := <-b.ended; err != nil || b.isLeading() {
			t.Errorf("Run = %v, leading %t, want nil and never", err, b.isLeading())
		}
		if h := holder(t, client); h != "a" {
			t.Errorf("%q holds the lease, want a", h)
		}
	})
}

// TestTheLeaseIsLost in every way: the leader is told in time, before another
// can have taken over, and what is then done is not undone by it.
func TestTheLeaseIsLost(t *testing.T) {
	for name, tc := range map[string]struct {
		mode  int32
		limit time.Duration // until the leader is told
		says  string
	}{
		"an API server that refuses": {cut, 10*time.Second + 1, "connection refused"},
		"an API server that hangs":   {hangs, 10*time.Second + 1, "no answer within 5s"},
	} {
		t.Run(name, func(t *testing.T) {
			pair(t, func(t *testing.T, client coordinationv1.CoordinationV1Interface, a, b *candidate) {
				began := time.Now()
				a.wire.mode.Store(tc.mode)
				within(t, tc.limit, "a is told that the lease is lost", a.over)
				if b.isLeading() {
					t.Error("b took over before a was told")
				}
				if s := a.State(); s.Leading || !strings.Contains(s.Problem, tc.says) {
					t.Errorf("a = %+v, want %q and no lead", s, tc.says)
				}
				within(t, 20*time.Second, "b takes over", b.leads)
				if gap := time.Since(began); gap < 13*time.Second {
					t.Errorf("b took over after %s, and a lease lasts 15 s from its last renewal", gap)
				}
				a.wire.mode.Store(whole)
				close(a.finish)
				if err := <-a.ended; !errors.Is(err, lease.ErrLost) || !strings.Contains(err.Error(), "the work was cut short") {
					t.Errorf("Run = %v, want ErrLost and what the work said", err)
				}
				if h := holder(t, client); h != "b" {
					t.Errorf("%q holds the lease, want b", h)
				}
			})
		})
	}
}

// TestAShortOutageIsSurvived: a leader that can renew in time goes on.
func TestAShortOutageIsSurvived(t *testing.T) {
	pair(t, func(t *testing.T, client coordinationv1.CoordinationV1Interface, a, b *candidate) {
		for _, mode := range []int32{cut, hangs} {
			a.wire.mode.Store(mode)
			after(t, 4*time.Second)
			if a.State().Problem == "" && mode == cut {
				t.Error("a does not say that it cannot renew")
			}
			a.wire.mode.Store(whole)
			after(t, time.Minute)
		}
		select {
		case <-a.over:
			t.Error("a lost the lease in an outage of 4 s")
		default:
		}
		if h := holder(t, client); h != "a" || b.isLeading() || a.State().Problem != "" {
			t.Errorf("%q holds the lease, a = %+v", h, a.State())
		}
	})
}

// TestAStolenLeaseIsLostAtOnce: client-go itself would try for another ten
// seconds to renew what it has read to be another's.
func TestAStolenLeaseIsLostAtOnce(t *testing.T) {
	pair(t, func(t *testing.T, client coordinationv1.CoordinationV1Interface, a, b *candidate) {
		l, err := client.Leases(namespace).Get(t.Context(), "runnerward", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		l.Spec.HolderIdentity = new("c")
		l.Spec.RenewTime = new(metav1.NowMicro())
		if _, err := client.Leases(namespace).Update(t.Context(), l, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		within(t, 2500*time.Millisecond, "a learns that c leads", a.over)
		close(a.finish)
		if err := <-a.ended; !errors.Is(err, lease.ErrLost) || !strings.Contains(err.Error(), "c holds it") {
			t.Errorf("Run = %v, want ErrLost and who holds it", err)
		}
		if b.isLeading() || holder(t, client) != "c" {
			t.Errorf("%q holds the lease, want c, whose time is not over", holder(t, client))
		}
		within(t, 20*time.Second, "b takes over from c, which never renews", b.leads)
	})
}

func TestOptionsThatCannotWorkAreRefused(t *testing.T) {
	good := lease.Options{Namespace: namespace, Name: "runnerward", Identity: "a", Duration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second}
	for name, spoil := range map[string]func(*lease.Options){
		"a deadline that is not shorter": func(o *lease.Options) { o.RenewDeadline = o.Duration },
		"one try only":                   func(o *lease.Options) { o.RetryPeriod = 9 * time.Second },
		"nobody":                         func(o *lease.Options) { o.Identity = "" },
	} {
		opts := good
		spoil(&opts)
		if _, err := lease.New(&wire{}, opts, zap.NewNop()); err == nil {
			t.Errorf("%s: New(%+v) = nil, want it refused", name, opts)
		}
	}
}
