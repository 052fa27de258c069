package endtoend

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/sim/world"
)

// dispatch starts a run and has it approved.
func (b *bench) dispatch(spec simgithub.RunSpec, approver string) simgithub.Run {
	b.t.Helper()
	run, err := b.world.GitHub.Dispatch(spec)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.world.GitHub.Approve(run.ID, approver); err != nil {
		b.t.Fatal(err)
	}
	return run
}

// sealed is the runner that ran the job and is sealed, nil until then.
func (b *bench) sealed(job string) *runner.Runner {
	st := b.state()
	for _, r := range st.Runners {
		if r.Sealed != nil && r.Sealed.Event.Job != nil && r.Sealed.Event.Job.ID == runner.JobID(job) {
			return r
		}
	}
	return nil
}

// quiet says that every runner's host is gone and sealed.
func (b *bench) quiet() bool {
	for _, r := range b.state().Runners {
		if r.Sealed == nil {
			return false
		}
	}
	return true
}

func TestApprovedDeployIsSealed(t *testing.T) {
	for _, ghes := range []bool{false, true} {
		t.Run(fmt.Sprintf("ghes=%t", ghes), func(t *testing.T) {
			run(t, options{at: -1, ghes: ghes}, func(t *testing.T, b *bench) {
				deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 20*time.Second), "carol")
				b.until("sealed", 20*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })
				r := b.sealed(deploy.JobID)
				if seal := r.Sealed.Event; seal.Outcome != runner.OutcomeCompleted || seal.Job.Result != runner.ResultSucceeded || !seal.Job.Caused {
					t.Errorf("sealed = %s %s caused=%t, want completed, succeeded, caused", seal.Outcome, seal.Job.Result, seal.Job.Caused)
				}
			})
		})
	}
}

func TestSelfApprovedDeployIsDeniedBeforeARunnerExists(t *testing.T) {
	run(t, options{at: -1}, func(t *testing.T, b *bench) {
		// Bob pushed the tag, so GitHub lets Alice approve; but she wrote the commit.
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "alice", time.Minute), "alice")
		b.until("cancelled", 5*time.Minute, func() bool {
			j := b.state().Jobs[runner.JobID(deploy.JobID)]
			return j != nil && j.Denied != nil && j.Cancelled != nil && j.Concluded != nil
		})
		st := b.state()
		if got := st.Jobs[runner.JobID(deploy.JobID)].Denied.Event.Decision.Reasons; !slices.Contains(got, "approver-is-author") {
			t.Errorf("denied because %v, want approver-is-author among them", got)
		}
		if len(st.Runners) != 0 {
			t.Errorf("%d runners were made for a denied job", len(st.Runners))
		}
		if n := b.count("POST", "generatejitconfig"); n != 0 {
			t.Errorf("%d JIT configs were generated for a denied job", n)
		}
		if job, _ := b.world.GitHub.Job(deploy.JobID); job.Conclusion != "cancelled" || job.StepsRan {
			t.Errorf("github says %s, steps ran %t; want cancelled and none", job.Conclusion, job.StepsRan)
		}
	})
}

// TestUnauthorizedJobIsRefusedAtTheHost hands a runner that was made for an
// approved job to a job of a branch-pinned workflow.
func TestUnauthorizedJobIsRefusedAtTheHost(t *testing.T) {
	var held atomic.Value // the approved job, until GitHub hands it out
	held.Store("")
	run(t, options{at: -1, hosts: 3, assign: func(job string, idle []string) string {
		if job == held.Load() {
			return ""
		}
		return idle[0]
	}}, func(t *testing.T, b *bench) {
		good := world.Deploy("v1.0.0", "bob", "bob", 10*time.Second)
		run, err := b.world.GitHub.Dispatch(good)
		if err != nil {
			t.Fatal(err)
		}
		held.Store(run.JobID)
		if err := b.world.GitHub.Approve(run.ID, "carol"); err != nil {
			t.Fatal(err)
		}
		b.until("a runner is idle", 10*time.Minute, func() bool { return b.phase(runner.KindReleased) != nil })
		bad := good
		bad.JobWorkflowRef = world.BranchWorkflow
		thief := b.dispatch(bad, "carol")
		b.until("refused", 5*time.Minute, func() bool { return b.ended(runner.OutcomeRefused) != nil })
		held.Store("")
		b.until("the good job is sealed", 20*time.Minute, func() bool { return b.sealed(run.JobID) != nil })
		refused := b.ended(runner.OutcomeRefused)
		if got := refused.Refused.Event.Decision.Reasons; !slices.Contains(got, "workflow-not-tag-pinned") {
			t.Errorf("refused because %v, want workflow-not-tag-pinned among them", got)
		}
		job, _ := b.world.GitHub.Job(thief.JobID)
		if job.StepsRan || job.HookSucceeded {
			t.Errorf("the refused job ran: steps %t, hook succeeded %t", job.StepsRan, job.HookSucceeded)
		}
		if again := b.sealed(run.JobID); again.Claimed.Event.Host.InstanceID == refused.Claimed.Event.Host.InstanceID {
			t.Error("the good job ran on the host that had received the refused one")
		}
	})
}

// TestADeniedJobThatOutlivesItsCancellationIsForced: it is if: always(), and a
// plain cancellation leaves it in the queue, where it would take a host.
func TestADeniedJobThatOutlivesItsCancellationIsForced(t *testing.T) {
	run(t, options{at: -1}, func(t *testing.T, b *bench) {
		spec := world.Deploy("v1.0.0", "bob", "bob", 10*time.Second)
		spec.JobWorkflowRef, spec.Always = world.BranchWorkflow, true
		deploy := b.dispatch(spec, "carol")
		b.until("denied", 5*time.Minute, func() bool { return b.denied(deploy.JobID) != nil })
		b.until("over", 20*time.Minute, func() bool {
			job, _ := b.world.GitHub.Job(deploy.JobID)
			return job.Status == "completed"
		})
		if forced := b.count("POST", "/force-cancel"); forced != 1 {
			t.Errorf("cancelled by force %d times, want once\n%s", forced, b.describe())
		}
		b.until("on record", time.Minute, func() bool {
			j := b.state().Jobs[runner.JobID(deploy.JobID)]
			return j.Cancelled != nil && j.Cancelled.Event.Forced
		})
		var said []bool
		for _, rec := range b.report().Records {
			if e, ok := rec.Event.(runner.Cancelled); ok {
				said = append(said, e.Forced)
			}
		}
		if !slices.Equal(said, []bool{false, true}) {
			t.Errorf("the log says cancelled by force: %t, want a plain cancellation and then a forced one", said)
		}
		if n := len(b.state().Runners); n != 0 {
			t.Errorf("%d hosts were used for it, want none", n)
		}
	})
}

// TestStolenJobIsRecordedOnTheRightHost crosses two approved jobs.
func TestStolenJobIsRecordedOnTheRightHost(t *testing.T) {
	cross := map[string]string{} // job to runner
	var mu sync.Mutex
	run(t, options{at: -1, hosts: 3, assign: func(job string, idle []string) string {
		mu.Lock()
		defer mu.Unlock()
		return cross[job]
	}}, func(t *testing.T, b *bench) {
		one := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 10*time.Second), "carol")
		two := b.dispatch(world.Deploy("v1.0.1", "bob", "bob", 10*time.Second), "dave")
		b.until("two idle runners", 10*time.Minute, func() bool {
			idle := map[runner.JobID]runner.Name{}
			for name, r := range b.state().Runners {
				if r.Phase() == runner.KindReleased {
					idle[r.Claimed.Event.Cause] = name
				}
			}
			if len(idle) < 2 {
				return false
			}
			mu.Lock()
			defer mu.Unlock()
			cross[one.JobID] = string(idle[runner.JobID(two.JobID)])
			cross[two.JobID] = string(idle[runner.JobID(one.JobID)])
			return true
		})
		b.until("both sealed", 20*time.Minute, func() bool { return b.sealed(one.JobID) != nil && b.sealed(two.JobID) != nil })
		for job, name := range cross {
			r := b.sealed(job)
			if string(r.Name()) != name || r.Sealed.Event.Job.Caused {
				t.Errorf("job %s sealed on %s (caused=%t), GitHub ran it on %s", job, r.Name(), r.Sealed.Event.Job.Caused, name)
			}
			if gh, _ := b.world.GitHub.Job(job); gh.RunnerName != string(r.Name()) {
				t.Errorf("job %s: the ledger says %s, GitHub says %s", job, r.Name(), gh.RunnerName)
			}
		}
	})
}

func TestRunnerWhoseJobWasCancelledIsRetired(t *testing.T) {
	run(t, options{at: -1, assign: func(string, []string) string { return "" }}, func(t *testing.T, b *bench) {
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", time.Minute), "carol")
		b.until("a runner is idle", 10*time.Minute, func() bool { return b.phase(runner.KindReleased) != nil })
		if err := b.world.GitHub.Cancel(deploy.ID); err != nil {
			t.Fatal(err)
		}
		b.until("retired and sealed", 10*time.Minute, func() bool { return b.ended(runner.OutcomeRetired) != nil && b.quiet() })
		if got := b.ended(runner.OutcomeRetired).Retired.Event.Cause; got != runner.CauseSurplus {
			t.Errorf("retired because %s, want surplus", got)
		}
	})
}

func TestRunnerWithoutAJobIsRetired(t *testing.T) {
	run(t, options{at: -1, hosts: 4, assign: func(string, []string) string { return "" },
		limits: func(l *runner.Limits) { l.IdleTTL = 90 * time.Second }}, func(t *testing.T, b *bench) {
		b.dispatch(world.Deploy("v1.0.0", "bob", "bob", time.Minute), "carol")
		b.until("retired and terminated", 10*time.Minute, func() bool {
			r := b.ended(runner.OutcomeRetired)
			return r != nil && r.Terminated != nil
		})
		if got := b.ended(runner.OutcomeRetired).Retired.Event.Cause; got != runner.CauseIdle {
			t.Errorf("retired because %s, want idle", got)
		}
	})
}

// TestOverdueTeardownIsAnAlarmAndNeverASeal: EC2 accepts to terminate and then
// nothing happens.
func TestOverdueTeardownIsAnAlarmAndNeverASeal(t *testing.T) {
	run(t, options{at: -1}, func(t *testing.T, b *bench) {
		b.world.AWS.Inject(simaws.Fault{Action: "TerminateInstanceInAutoScalingGroup", Kind: simaws.Stuck, Count: 1})
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", time.Second), "carol")
		b.until("overdue", time.Hour, func() bool {
			for _, r := range b.state().Runners {
				if r.Overdue != nil {
					return true
				}
			}
			return false
		})
		v := b.daemon.sup.View()
		if v.CanDeploy || !slices.ContainsFunc(v.Why, func(s string) bool { return strings.Contains(s, "should be gone") }) {
			t.Errorf("View = can deploy %t because %v, want the overdue host named", v.CanDeploy, v.Why)
		}
		if b.sealed(deploy.JobID) != nil {
			t.Error("sealed although the host was never seen terminated")
		}
		b.until("sealed at last", 12*time.Hour, func() bool { return b.sealed(deploy.JobID) != nil })
		if !b.sealed(deploy.JobID).Sealed.Event.Teardown.Overdue {
			t.Error("the sealed statement does not say that the teardown was overdue")
		}
	})
}

func TestFreezeStopsAdmissionAndNothingElse(t *testing.T) {
	run(t, options{at: -1}, func(t *testing.T, b *bench) {
		b.until("listening", time.Minute, func() bool { return b.state().Opened != nil })
		if err := b.daemon.sup.Freeze(t.Context(), "cert:oncall", "CVE-2026-0001"); err != nil {
			t.Fatal(err)
		}
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", time.Second), "carol")
		pause(t.Context(), 8*time.Minute)
		if n := len(b.state().Runners); n != 0 {
			t.Fatalf("%d runners were made while frozen", n)
		}
		if err := b.daemon.sup.Unfreeze(t.Context(), "cert:oncall"); err != nil {
			t.Fatal(err)
		}
		b.until("sealed", 20*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })
	})
}

// count is how many requests GitHub got whose path ends so.
func (b *bench) count(method, suffix string) (n int) {
	for _, r := range b.world.GitHub.Requests() {
		if r.Method == method && strings.HasSuffix(r.Path, suffix) {
			n++
		}
	}
	return n
}

func (b *bench) phase(kind runner.Kind) *runner.Runner {
	for _, r := range b.state().Runners {
		if r.Phase() == kind {
			return r
		}
	}
	return nil
}

// ended is a runner whose life ended so.
func (b *bench) ended(outcome runner.Outcome) *runner.Runner {
	for _, r := range b.state().Runners {
		switch {
		case outcome == runner.OutcomeRefused && r.Refused != nil, outcome == runner.OutcomeRetired && r.Retired != nil:
			return r
		}
	}
	return nil
}
