package endtoend

import (
	"fmt"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
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
