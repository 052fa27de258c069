package endtoend

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/sim/world"
)

// over says that EC2 shows the host of this runner terminated.
func (b *bench) over(r *runner.Runner) bool {
	in, ok := b.world.AWS.Instance(r.Claimed.Event.Host.InstanceID)
	return ok && in.State == "terminated"
}

// TestHostEndsWhileGitHubHangs: GitHub takes every request about registrations
// and never answers.
func TestHostEndsWhileGitHubHangs(t *testing.T) {
	run(t, options{at: -1, onRecord: func(b *bench, rec runner.Record) {
		if rec.Event.Kind() == runner.KindCompleted { // before the host's end asks once more
			b.world.GitHub.Inject(simgithub.Fault{Kind: simgithub.FaultHang, Path: "/rest/_apis/distributedtask", Count: -1})
		}
	}}, func(t *testing.T, b *bench) {
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 10*time.Second), "carol")
		b.until("completed", 20*time.Minute, func() bool { return b.phase(runner.KindCompleted) != nil || b.phase(runner.KindTeardown) != nil })
		r := b.phase(runner.KindTeardown)
		if r == nil {
			r = b.phase(runner.KindCompleted)
		}
		b.until("EC2 shows the host terminated", 5*time.Minute, func() bool { return b.over(r) })
		if b.sealed(deploy.JobID) != nil {
			t.Error("sealed although the registration was never seen gone")
		}
		b.world.GitHub.ClearFaults()
		b.until("sealed", 30*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })
	})
}

// TestHostEndsWhileTheLogIsAway: nothing can be recorded from the moment that
// the teardown is. The host ends all the same; the record of it waits.
func TestHostEndsWhileTheLogIsAway(t *testing.T) {
	var first sync.Once
	opts := options{at: -1, onRecord: func(b *bench, rec runner.Record) {
		if rec.Event.Kind() == runner.KindTeardown {
			first.Do(func() { b.faults.setAway(true) })
		}
	}}
	run(t, opts, func(t *testing.T, b *bench) {
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 10*time.Second), "carol")
		b.until("teardown is on record", 20*time.Minute, func() bool { return b.phase(runner.KindTeardown) != nil })
		r := b.phase(runner.KindTeardown)
		b.until("EC2 shows the host terminated", 5*time.Minute, func() bool { return b.over(r) })
		v := b.daemon.sup.View()
		if v.CanDeploy || v.Ledger.LastError == "" {
			t.Errorf("can deploy %t, ledger error %q, want no and an error", v.CanDeploy, v.Ledger.LastError)
		}
		late, err := b.world.GitHub.Dispatch(world.Deploy("v1.0.1", "bob", "bob", time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if err := b.world.GitHub.Approve(late.ID, "carol"); err != nil {
			t.Fatal(err)
		}
		runners := len(b.world.GitHub.Runners())
		pause(t.Context(), 3*time.Minute)
		if n := len(b.world.GitHub.Runners()); n > runners {
			t.Errorf("%d registrations, %d before: one was made while the log is away", n, runners)
		}
		b.faults.setAway(false)
		b.until("both sealed", time.Hour, func() bool { return b.sealed(deploy.JobID) != nil && b.sealed(late.JobID) != nil })
	})
}

// TestLongFreezeDeniesNobody: a job that was offered before the freeze is
// decided after it, however long it lasted.
func TestLongFreezeDeniesNobody(t *testing.T) {
	run(t, options{at: -1}, func(t *testing.T, b *bench) {
		b.world.GitHub.Inject(simgithub.Fault{Kind: simgithub.FaultStatus, Path: "/api/v3/repos/*/*/actions/runs", Count: -1})
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", time.Second), "carol")
		b.until("offered", time.Minute, func() bool { return b.state().Jobs[runner.JobID(deploy.JobID)] != nil })
		if err := b.daemon.sup.Freeze(t.Context(), "cert:oncall", "CVE-2026-0001"); err != nil {
			t.Fatal(err)
		}
		b.world.GitHub.ClearFaults()
		pause(t.Context(), 11*time.Minute) // longer than DecideBy
		if j := b.state().Jobs[runner.JobID(deploy.JobID)]; j.Denied != nil {
			t.Fatalf("denied during the freeze because %v", j.Denied.Event.Decision.Reasons)
		}
		if err := b.daemon.sup.Unfreeze(t.Context(), "cert:oncall"); err != nil {
			t.Fatal(err)
		}
		b.until("sealed", time.Hour, func() bool { return b.sealed(deploy.JobID) != nil })
	})
}

// TestJobThatGitHubTakesBackIsDecidedAnew: GitHub finds no runner for the job,
// takes it back and assigns it again under the same id, in one message.
func TestJobThatGitHubTakesBackIsDecidedAnew(t *testing.T) {
	give := make(chan struct{})
	run(t, options{at: -1, hosts: 4, assign: func(_ string, idle []string) string {
		select {
		case <-give:
			return idle[0]
		default:
			return ""
		}
	}}, func(t *testing.T, b *bench) {
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", time.Second), "carol")
		b.until("offered again", 20*time.Minute, func() bool {
			j := b.state().Jobs[runner.JobID(deploy.JobID)]
			return j != nil && j.Before > 0
		})
		close(give)
		b.until("sealed", time.Hour, func() bool { return b.sealed(deploy.JobID) != nil })
		var kinds []runner.Kind
		for _, rec := range b.report().Records {
			if rec.Event.Chain() == runner.JobChain(runner.JobID(deploy.JobID)) && rec.Event.Kind() != runner.KindReported {
				kinds = append(kinds, rec.Event.Kind())
			}
		}
		want := []runner.Kind{runner.KindOffered, runner.KindAuthorized, runner.KindConcluded, runner.KindOffered, runner.KindAuthorized, runner.KindConcluded}
		if !slices.Equal(kinds, want) {
			t.Errorf("the job's chain is %v, want %v", kinds, want)
		}
	})
}
