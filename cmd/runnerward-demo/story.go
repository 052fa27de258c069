package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/sim/stage"
	"github.com/runnerward/runnerward/pkg/sim/world"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

const patience = 30 * time.Second

// play runs the acts in order and stops at the first that does not hold.
func (s *show) play(ctx context.Context) error {
	s.tell.line("simulated GitHub at %s, AWS at %s, Kubernetes at %s", s.GitHubURL, s.AWSURL, s.ClusterURL)
	s.tell.does("starting %s serve, the production binary", "runnerward")
	if err := s.startDaemon(ctx); err != nil {
		return err
	}
	s.tell.held("ready; status page at %s/statusz", s.daemon.StatusURL)
	first, err := s.approved(ctx)
	if err != nil {
		return fmt.Errorf("the approved deploy: %w", err)
	}
	for _, act := range []struct {
		name string
		play func(context.Context) error
	}{
		{"the self-approved deploy", s.selfApproved},
		{"the branch-pinned workflow", s.branchPinned},
		{"the crossed jobs", s.crossed},
		{"the killed daemon", s.killed},
	} {
		if err := act.play(ctx); err != nil {
			return fmt.Errorf("%s: %w", act.name, err)
		}
	}
	if s.opts.keepRunning {
		if err := s.linger(ctx); err != nil {
			return err
		}
	}
	if err := s.daemon.End(); err != nil {
		return fmt.Errorf("end the daemon: %w", err)
	}
	return s.audit(ctx, first)
}

// dispatched and approves tell what people do.
func (s *show) dispatched(spec simgithub.RunSpec) {
	s.tell.does("%s pushes tag %s: release.yml calls deploy-prod.yml@%s", spec.Actor, spec.Tag, refOf(spec.JobWorkflowRef))
}

func (s *show) approves(login string) {
	s.tell.does("%s approves the deployment to %s", login, world.Environment)
}

func refOf(workflow string) string {
	for i := range workflow {
		if workflow[i] == '@' {
			return workflow[i+1:]
		}
	}
	return workflow
}

func (s *show) approved(ctx context.Context) (simgithub.Run, error) {
	s.tell.act(1, "An approved deploy runs on a host of its own, and the host is gone afterwards")
	run, err := s.Deploy(world.Deploy("v2.0.0", "bob", "bob", time.Second), "carol")
	if err != nil {
		return run, err
	}
	r, err := s.Ends(ctx, run, patience)
	if err != nil {
		return run, err
	}
	s.tell.held("the deploy succeeded on %s, which EC2 shows terminated", r.Instance)
	return run, nil
}

func (s *show) selfApproved(ctx context.Context) error {
	s.tell.act(2, "A deploy that its author approved is denied before a runner exists")
	s.tell.line("  (GitHub allows this: bob starts the run, and only the starter may not approve)")
	_, denied, err := s.SelfApproved(ctx, "v2.0.1", patience)
	if err != nil {
		return err
	}
	s.tell.held("denied (%v), cancelled, and no host was touched", denied.Reasons)
	return nil
}

func (s *show) branchPinned(ctx context.Context) error {
	s.tell.act(3, "A job of a branch-pinned workflow reaches a host, and is refused there")
	s.tell.line("  (somebody let the branch into the runner group, and GitHub gives it the runner of an approved job)")
	in, err := s.BranchPinned(ctx, "v2.0.2", "v2.0.3", patience)
	if err != nil {
		return err
	}
	s.tell.held("refused (%v); its pod was killed before any step, its host is gone", in.Job.Reasons)
	s.tell.line("  (the approved job is still waiting; it gets another host)")
	_, err = s.Recovers(ctx, in, patience)
	return err
}

// idle waits until every one of these jobs has caused a runner that is idle.
func (s *show) idle(ctx context.Context, runs ...simgithub.Run) (found []supervisor.RunnerView, err error) {
	err = s.Until(ctx, "a runner is idle for each job", patience, func() (bool, error) {
		v, err := s.Ask(ctx)
		if err != nil {
			return false, err
		}
		found = nil
		for _, run := range runs {
			i := slices.IndexFunc(v.Runners, func(r supervisor.RunnerView) bool {
				return r.Cause == runner.JobID(run.JobID) && r.Phase == runner.KindReleased
			})
			if i < 0 {
				return false, nil
			}
			found = append(found, v.Runners[i])
		}
		return true, nil
	})
	return found, err
}

func (s *show) crossed(ctx context.Context) error {
	s.tell.act(4, "GitHub gives two jobs each other's runners, and the record names the right hosts")
	var runs []simgithub.Run
	for i, approver := range []string{"carol", "dave"} {
		run, err := s.Dispatch(world.Deploy(fmt.Sprintf("v2.1.%d", i), "bob", "bob", time.Second))
		if err != nil {
			return err
		}
		s.Director.HoldBack(run.JobID, true)
		if err := s.Approve(run, approver); err != nil {
			return err
		}
		runs = append(runs, run)
	}
	idle, err := s.idle(ctx, runs...)
	if err != nil {
		return err
	}
	s.Director.Pair(runs[0].JobID, string(idle[1].Name))
	s.Director.Pair(runs[1].JobID, string(idle[0].Name))
	for i, run := range runs {
		r, err := s.Ends(ctx, run, patience)
		if err != nil {
			return err
		}
		job, _ := s.World.GitHub.Job(run.JobID)
		if string(r.Name) != job.RunnerName || r.Cause == r.Job || r.Instance != idle[1-i].Instance {
			return fmt.Errorf("job %s: the record says %s on %s, GitHub says %s", run.JobID, r.Name, r.Instance, job.RunnerName)
		}
	}
	s.tell.held("both succeeded; each record names the host that GitHub's own record names, not the one made for it")
	return nil
}

func (s *show) killed(ctx context.Context) error {
	s.tell.act(5, "The daemon is killed with SIGKILL in the middle of a job")
	run, err := s.Deploy(world.Deploy("v2.2.0", "bob", "bob", 5*time.Second), "carol")
	if err != nil {
		return err
	}
	err = s.Until(ctx, "the job runs", patience, func() (bool, error) {
		job, _ := s.World.GitHub.Job(run.JobID)
		return job.HookSucceeded, nil
	})
	if err != nil {
		return err
	}
	s.tell.does("kill -9 %d", s.daemon.PID())
	if err := s.daemon.Kill(); err != nil {
		return err
	}
	s.tell.line("  (the job goes on: it needs no daemon; GitHub keeps the dead daemon's session for a while)")
	select {
	case <-time.After(stage.SessionTTL + time.Second):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	s.tell.does("starting the daemon again; it has nothing but the ledger")
	if err := s.startDaemon(ctx); err != nil {
		return err
	}
	if _, err := s.Ends(ctx, run, patience); err != nil {
		return err
	}
	s.tell.held("the job succeeded and is sealed; nothing was lost and nothing done twice")
	return nil
}

func (s *show) linger(ctx context.Context) error {
	fmt.Fprintf(s.tell.out, "\nEverything stays up. The status page: %s/statusz\n", s.daemon.StatusURL)
	fmt.Fprintf(s.tell.out, "  %s status --url %s --ca %s\n", s.opts.binary, s.daemon.StatusURL, s.File("tls/ca.pem"))
	fmt.Fprintf(s.tell.out, "  %s freeze CVE-2026-0001 --url %s --ca %s --cert %s --key %s\n", s.opts.binary, s.daemon.StatusURL,
		s.File("tls/ca.pem"), s.File("tls/oncall.pem"), s.File("tls/oncall.key"))
	fmt.Fprintln(s.tell.out, "Ctrl-C ends it and verifies the evidence.")
	<-ctx.Done()
	return nil
}
