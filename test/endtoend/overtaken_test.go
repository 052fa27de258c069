package endtoend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/runnerward/runnerward/pkg/runner"
	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/sim/world"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// stops are the flavours of a daemon that is stopped, as by SIGSTOP or a machine
// that is paused, is overtaken by another on the same ledger, and goes on.
var stops = []flavour{
	{name: "stopped before it", stops: true},
	{name: "stopped after it", stops: true, applied: true},
}

// overtaken stops the daemon around the chosen operation. The operation is
// carried out all the same, however late, and whoever asked for it may have
// gone: a request that was on its way is not taken back.
func (f *faults) overtaken(ctx context.Context, call func(context.Context) error) (err error) {
	late := context.WithoutCancel(ctx)
	if f.flavour.applied {
		err = call(late)
	}
	f.mu.Lock()
	f.asleep = make(chan struct{})
	f.mu.Unlock()
	f.halt()
	f.rest()
	if !f.flavour.applied {
		err = call(late)
	}
	return err
}

// stopsWith says that the daemon is to be stopped at this segment.
func (f *faults) stopsWith(segment []byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stopWith != "" && f.asleep == nil && kindOf(segment) == f.stopWith
}

// rest waits while the daemon is stopped.
func (f *faults) rest() {
	f.mu.Lock()
	asleep := f.asleep
	f.mu.Unlock()
	if asleep != nil {
		<-asleep
	}
}

func (f *faults) wake() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.woke = len(f.log)
	close(f.asleep)
}

// sinceWaking is what the daemon did after it was woken.
func (f *faults) sinceWaking() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.log[f.woke:])
}

// unrecorded are the operations that make something, or take something back,
// for a reason that the log does not hold: that nothing else was recorded since.
// Not among them are those that end what the log says has ended, or mark a host
// that it says was claimed: no later record makes these wrong.
var unrecorded = []string{"ensure pod", "register", "cancel run", "answer"}

// sleeper is a daemon that is stopped.
type sleeper struct {
	*daemon
	*faults
}

// stop waits until the daemon is stopped and lets another take over. It is nil
// if over becomes true before.
func (b *bench) stop(over func() bool) *sleeper {
	b.t.Helper()
	b.mu.Lock()
	s := &sleeper{b.daemon, b.faults}
	b.mu.Unlock()
	stopped := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.asleep != nil
	}
	b.poll("the daemon is stopped, or all is over", 2*time.Hour, 10*time.Second, func() bool { return stopped() || over() })
	if !stopped() {
		return nil
	}
	b.faults = &faults{at: -1, crash: b.crash}
	b.start()
	return s
}

// wakeUp lets it go on, and waits until it has found out by itself.
func (b *bench) wakeUp(s *sleeper) {
	b.t.Helper()
	s.net.mend()
	s.wake()
	// At the latest when it looks for strays.
	b.until("the daemon that was overtaken has ended", 2*time.Minute, func() bool {
		select {
		case <-s.ended:
			return true
		default:
			return false
		}
	})
	if !errors.Is(s.err, supervisor.ErrFenced) {
		b.t.Errorf("the daemon that was overtaken ends with %v, want ErrFenced", s.err)
	}
}

// TestADaemonThatIsOvertakenDoesNoHarm runs one deploy over and over. Each time
// the daemon is stopped around another operation, another daemon takes the
// deploy to its end, and the first goes on where it was. It must find itself
// fenced off, having done nothing but what it had been about to do and what the
// log told it to end; what it made is found and removed; and the ledger, which
// both of them wrote, verifies.
func TestADaemonThatIsOvertakenDoesNoHarm(t *testing.T) {
	every, first := share(t, 4)
	for i, f := range stops {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			operations := 0
			for at := (first + i*every/2) % every; ; at += every {
				fired := ""
				ok := t.Run(fmt.Sprint(at), func(t *testing.T) {
					run(t, options{at: at, flavour: f, hosts: 4}, func(t *testing.T, b *bench) {
						fired = b.overtake()
					})
				})
				if !ok {
					t.Fatalf("%s, operation %d (%s)", f.name, at, fired)
				}
				if fired == "" {
					break
				}
				operations++
			}
			t.Logf("%d operations, the daemon %s and overtaken at each", operations, f.name)
			if operations < 100/every {
				t.Errorf("only %d operations: the daemon was not stopped at all of them", operations)
			}
		})
	}
}

// overtake takes a deploy to its end and says at which operation the first
// daemon was stopped, empty if at none.
func (b *bench) overtake() string {
	b.t.Helper()
	deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 20*time.Second), "carol")
	sealed := func() bool { return b.sealed(deploy.JobID) != nil && b.quiet() }
	s := b.stop(sealed)
	if s == nil {
		return ""
	}
	b.poll("the other daemon takes the deploy to its end", 2*time.Hour, 20*time.Second, sealed)
	// The other is at work when the first one wakes.
	next := b.dispatch(world.Deploy("v1.0.1", "bob", "bob", 30*time.Second), "carol")
	b.until("the next job runs", 20*time.Minute, func() bool {
		job, _ := b.world.GitHub.Job(next.JobID)
		return job.HookSucceeded
	})
	b.wakeUp(s)
	for _, op := range s.sinceWaking() {
		if slices.Contains(unrecorded, op) {
			b.t.Errorf("stopped at %q: after it was overtaken the daemon did %q", s.fired, op)
		}
	}
	b.poll("the next deploy is sealed", 2*time.Hour, 20*time.Second, func() bool { return b.sealed(next.JobID) != nil && b.quiet() })
	b.settledAfter(s.fired, deploy, next)
	return s.fired
}

// settledAfter checks that nothing is left over of what an overtaken daemon did.
func (b *bench) settledAfter(fired string, runs ...simgithub.Run) {
	b.t.Helper()
	for _, run := range runs {
		if job, _ := b.world.GitHub.Job(run.JobID); job.Conclusion != "success" {
			b.t.Errorf("stopped at %q: GitHub says %q, want success", fired, job.Conclusion)
		}
	}
	b.poll("no pod and no registration is left over", 10*time.Minute, 10*time.Second, func() bool {
		pods, err := b.world.Cluster.Client().CoreV1().Pods(world.Namespace).List(b.t.Context(), metav1.ListOptions{})
		if err != nil {
			b.t.Fatal(err)
		}
		return len(pods.Items) == 0 && len(b.world.GitHub.Runners()) == 0
	})
	b.poll("no stray is open", 10*time.Minute, 10*time.Second, func() bool { return len(b.state().Strays) == 0 })
	b.singleUse(fired)
	if openings := b.openings(); openings < 1 || openings > 2 {
		b.t.Errorf("stopped at %q: the log was opened %d times, want once or twice", fired, openings)
	}
}

// TestAnOldDenialDoesNotCancelANewAttempt: attempts of a run share its number.
// The daemon is stopped when it has recorded a denial; the other cancels the
// run, whose next attempt is approved by somebody who may, and runs when the
// first one wakes, which still has the cancellation before it.
func TestAnOldDenialDoesNotCancelANewAttempt(t *testing.T) {
	run(t, options{at: -1, hosts: 3}, func(t *testing.T, b *bench) {
		b.faults.mu.Lock()
		b.faults.flavour, b.faults.stopWith = stops[1], runner.KindDenied
		b.faults.mu.Unlock()
		first, err := b.world.GitHub.Dispatch(world.Deploy("v1.0.0", "bob", "alice", 40*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if err := b.world.GitHub.Approve(first.ID, "alice"); err != nil { // its author
			t.Fatal(err)
		}
		s := b.stop(func() bool { return false })
		b.until("the other daemon cancels the run", 20*time.Minute, func() bool {
			job, _ := b.world.GitHub.Job(first.JobID)
			return job.Conclusion == "cancelled"
		})
		next := b.again(first, "bob")
		if err := b.world.GitHub.Approve(next.ID, "carol"); err != nil {
			t.Fatal(err)
		}
		b.until("the next attempt runs", 20*time.Minute, func() bool {
			job, _ := b.world.GitHub.Job(next.JobID)
			return job.HookSucceeded
		})
		b.wakeUp(s)
		if ops := s.sinceWaking(); slices.Contains(ops, "cancel run") {
			t.Errorf("the daemon that was overtaken did %q", ops)
		}
		b.poll("the next attempt is sealed", time.Hour, 10*time.Second, func() bool { return b.sealed(next.JobID) != nil && b.quiet() })
		b.settledAfter("the denial", next)
	})
}

// TestTwoDaemonsAtOnce: a second one starts in the middle of a deploy, and
// neither is stopped: both believe to lead. One of them is fenced off and ends,
// and the other takes the deploy to its end.
func TestTwoDaemonsAtOnce(t *testing.T) {
	for _, phase := range []runner.Kind{
		runner.KindOffered, runner.KindAuthorized, runner.KindClaimed, runner.KindBound, runner.KindReleased, runner.KindStarted,
		runner.KindCompleted, runner.KindTeardown, runner.KindTerminated,
	} {
		t.Run("from "+string(phase)+" on", func(t *testing.T) {
			var reached atomic.Bool
			run(t, options{at: -1, hosts: 4, onRecord: func(_ *bench, rec runner.Record) {
				if rec.Event.Kind() == phase {
					reached.Store(true)
				}
			}}, func(t *testing.T, b *bench) {
				deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 20*time.Second), "carol")
				b.poll("the deploy is that far", 20*time.Minute, 50*time.Millisecond, reached.Load)
				b.mu.Lock()
				first := b.daemon
				b.mu.Unlock()
				b.start()
				second := b.daemon
				fenced := func(d *daemon) bool {
					select {
					case <-d.ended:
						return errors.Is(d.err, supervisor.ErrFenced)
					default:
						return false
					}
				}
				b.until("one of them ends", 10*time.Minute, func() bool { return fenced(first) || fenced(second) })
				if fenced(second) { // its process manager would start it again
					b.mu.Lock()
					b.daemon = first
					b.mu.Unlock()
				}
				b.poll("the deploy is sealed and every host is gone", 2*time.Hour, 20*time.Second, func() bool {
					return b.sealed(deploy.JobID) != nil && b.quiet()
				})
				if fenced(first) && fenced(second) {
					t.Error("both were fenced off")
				}
				b.settledAfter(string(phase), deploy)
			})
		})
	}
}
