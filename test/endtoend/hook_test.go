package endtoend

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/sim/world"
)

// TestHookOfACancelledRunTakesItsRunnerAlong: a job that nobody could decide
// about lands on a runner that waits for another, and whoever may cancel its
// run does so while the hook blocks. GitHub goes on to the steps that are
// if: always() when the runner has killed the hook, unless nothing is left to
// run them.
func TestHookOfACancelledRunTakesItsRunnerAlong(t *testing.T) {
	var held atomic.Value // the job that GitHub gives to nobody yet
	held.Store("")
	var undecided atomic.Bool // a hook was told to wait
	run(t, options{at: -1, hosts: 3, stepsHook: func(_, line string) {
		if strings.Contains(line, "Not decided yet") {
			undecided.Store(true)
		}
	}, assign: func(job string, idle []string) string {
		if job == held.Load() {
			return ""
		}
		return idle[0]
	}}, func(t *testing.T, b *bench) {
		deploy, err := b.world.GitHub.Dispatch(world.Deploy("v1.0.0", "bob", "bob", 10*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		held.Store(deploy.JobID)
		if err := b.world.GitHub.Approve(deploy.ID, "carol"); err != nil {
			t.Fatal(err)
		}
		b.until("a runner is idle", 10*time.Minute, func() bool { return b.phase(runner.KindReleased) != nil })
		lost := b.phase(runner.KindReleased).Name()

		// Two are approved; GitHub answers nothing about the second from now on.
		other, err := b.world.GitHub.Dispatch(world.Deploy("v1.0.1", "bob", "bob", time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		b.world.GitHub.Inject(simgithub.Fault{
			Kind: simgithub.FaultStatus, Method: http.MethodGet, Count: -1, Status: http.StatusBadGateway,
			Path: fmt.Sprintf("/api/v3/repos/%s/%s/actions/runs/%d", world.Org, world.Repository, other.ID),
		})
		if err := b.world.GitHub.Approve(other.ID, "carol"); err != nil {
			t.Fatal(err)
		}
		b.until("the hook asks in vain", time.Minute, func() bool {
			j, _ := b.world.GitHub.Job(other.JobID)
			return j.RunnerName == string(lost) && j.Status == "in_progress" && undecided.Load()
		})
		if err := b.world.GitHub.Cancel(other.ID); err != nil {
			t.Fatal(err)
		}
		b.until("its pod is found dead", time.Minute, func() bool {
			r := b.state().Runners[lost].Retired
			return r != nil && r.Event.Cause == runner.CausePodFailed
		})
		held.Store("")
		b.world.GitHub.ClearFaults()
		b.until("the run is over", time.Hour, func() bool {
			j, _ := b.world.GitHub.Job(other.JobID)
			return j.Status == "completed"
		})
		job, _ := b.world.GitHub.Job(other.JobID)
		if job.StepsRan || job.HookSucceeded {
			t.Errorf("the job that nobody allowed ran: steps %t, hook succeeded %t", job.StepsRan, job.HookSucceeded)
		}
		if st := b.state(); st.Runners[lost].Started != nil {
			t.Error("the job is recorded as started")
		}
		b.until("all is sealed", time.Hour, func() bool { return b.sealed(deploy.JobID) != nil && b.quiet() })
		if r := b.sealed(deploy.JobID); r.Claimed.Event.Host.InstanceID == b.state().Runners[lost].Claimed.Event.Host.InstanceID {
			t.Error("the deploy ran on the host that had received the other job")
		}
	})
}
