package stage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/sim/world"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// Plays are what the demo shows and what has to hold with a pretend cluster as
// with a real one. Each waits for what it expects, no longer than limit for any
// one of it, and asks GitHub and EC2 themselves.

// Ends waits until the run's job is sealed: GitHub says that it succeeded, and
// EC2 that its host is terminated.
func (s *Stage) Ends(ctx context.Context, run simgithub.Run, limit time.Duration) (supervisor.RunnerView, error) {
	r, err := s.Sealed(ctx, run.JobID, limit)
	if err != nil {
		return r, err
	}
	return r, errors.Join(s.Succeeded(run), s.Gone(r))
}

// Job waits until the view shows the run's job so.
func (s *Stage) Job(ctx context.Context, what string, run simgithub.Run, limit time.Duration, ok func(supervisor.JobView) bool) (found supervisor.JobView, err error) {
	last := errors.New("the view never had the job")
	err = s.Until(ctx, what, limit, func() (bool, error) {
		v, err := s.Ask(ctx)
		if err != nil {
			last = err
			return false, nil // the daemon may be down for now
		}
		if i := slices.IndexFunc(v.Jobs, func(j supervisor.JobView) bool { return j.ID == runner.JobID(run.JobID) }); i >= 0 {
			found = v.Jobs[i]
			last = fmt.Errorf("the job is %+v", found)
		}
		return found.ID != "" && ok(found), nil
	})
	if err != nil {
		err = errors.Join(err, last)
	}
	return found, err
}

// SelfApproved has alice approve a deploy that bob started of her commit, which
// GitHub allows: only who started it may not. Its job is denied before a runner
// is made for it.
func (s *Stage) SelfApproved(ctx context.Context, tag string, limit time.Duration) (simgithub.Run, supervisor.JobView, error) {
	run, err := s.Deploy(world.Deploy(tag, "bob", "alice", time.Second), "alice")
	if err != nil {
		return run, supervisor.JobView{}, err
	}
	denied, err := s.Job(ctx, "the job is denied and its run cancelled", run, limit, func(j supervisor.JobView) bool { return j.Phase == runner.KindConcluded })
	if err != nil {
		return run, denied, err
	}
	v, err := s.Ask(ctx)
	if err != nil {
		return run, denied, err
	}
	job, _ := s.World.GitHub.Job(run.JobID)
	switch {
	case !slices.Contains(denied.Reasons, "approver-is-author"):
		err = fmt.Errorf("denied because %v, want approver-is-author", denied.Reasons)
	case slices.ContainsFunc(v.Runners, func(r supervisor.RunnerView) bool { return r.Cause == denied.ID }):
		err = errors.New("a runner was made for a denied job")
	case job.StepsRan || job.Conclusion != "cancelled":
		err = fmt.Errorf("GitHub says %s (steps ran: %t), want cancelled and none", job.Conclusion, job.StepsRan)
	}
	return run, denied, err
}

// Intruder is a job of a branch's workflow that somebody let into the runner
// group, and the approved job whose runner it was given.
type Intruder struct {
	Bad, Good simgithub.Run
	Job       supervisor.JobView    // of the bad one
	Runner    supervisor.RunnerView // that refused it
}

// BranchPinned hands a runner that was made for an approved deploy to a job of a
// branch's workflow, as GitHub may. It is refused on its host before any step. The
// approved job is held back until [Stage.Recovers].
func (s *Stage) BranchPinned(ctx context.Context, goodTag, badTag string, limit time.Duration) (in Intruder, err error) {
	spec := world.Deploy(goodTag, "bob", "bob", time.Second)
	if in.Good, err = s.Dispatch(spec); err != nil {
		return in, err
	}
	s.Director.HoldBack(in.Good.JobID, true)
	if err := s.Approve(in.Good, "dave"); err != nil {
		return in, err
	}
	idle, err := s.Runner(ctx, "a runner is idle", limit, func(r supervisor.RunnerView) bool {
		return r.Cause == runner.JobID(in.Good.JobID) && r.Phase == runner.KindReleased
	})
	if err != nil {
		return in, err
	}
	spec.Tag, spec.JobWorkflowRef = badTag, world.BranchWorkflow
	if in.Bad, err = s.Dispatch(spec); err != nil {
		return in, err
	}
	s.Director.Pair(in.Bad.JobID, string(idle.Name))
	if err := s.Approve(in.Bad, "carol"); err != nil {
		return in, err
	}
	if in.Runner, err = s.Runner(ctx, "the runner is refused and sealed", limit, func(r supervisor.RunnerView) bool {
		return r.Name == idle.Name && r.Phase == runner.KindSealed
	}); err != nil {
		return in, err
	}
	if in.Job, err = s.Job(ctx, "the view has the job", in.Bad, limit, func(supervisor.JobView) bool { return true }); err != nil {
		return in, err
	}
	job, _ := s.World.GitHub.Job(in.Bad.JobID)
	switch {
	case in.Runner.Outcome != string(runner.OutcomeRefused):
		err = fmt.Errorf("the runner ended %s, want %s", in.Runner.Outcome, runner.OutcomeRefused)
	case job.StepsRan || job.HookSucceeded:
		err = errors.New("a step of the refused job ran")
	case !slices.Contains(in.Job.Reasons, "workflow-not-tag-pinned"):
		err = fmt.Errorf("refused because %v, want workflow-not-tag-pinned", in.Job.Reasons)
	}
	return in, errors.Join(err, s.Gone(in.Runner))
}

// Recovers lets the approved job go on, which gets another host.
func (s *Stage) Recovers(ctx context.Context, in Intruder, limit time.Duration) (supervisor.RunnerView, error) {
	s.Director.HoldBack(in.Good.JobID, false)
	r, err := s.Ends(ctx, in.Good, limit)
	if err == nil && r.Instance == in.Runner.Instance {
		err = fmt.Errorf("the approved job ran on %s, which had received the refused one", r.Instance)
	}
	return r, err
}
