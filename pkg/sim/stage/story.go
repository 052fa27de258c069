package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// Director decides which idle runner GitHub gives a job to. GitHub promises
// nothing about it, and neither do we. It is safe for concurrent use.
type Director struct {
	mu    sync.Mutex
	hold  map[string]bool   // jobs that wait
	pairs map[string]string // job to runner
}

func (d *Director) assign(job string, idle []string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if name, ok := d.pairs[job]; ok {
		return name
	}
	if d.hold[job] {
		return ""
	}
	return idle[0]
}

// HoldBack keeps the job waiting, or no longer.
func (d *Director) HoldBack(job string, yes bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hold == nil {
		d.hold = map[string]bool{}
	}
	d.hold[job] = yes
}

// Pair gives the job to this runner and to no other.
func (d *Director) Pair(job, name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pairs == nil {
		d.pairs = map[string]string{}
	}
	d.pairs[job] = name
}

// Dispatch pushes a release tag, which starts a run.
func (s *Stage) Dispatch(spec simgithub.RunSpec) (simgithub.Run, error) {
	if s.opts.OnDispatch != nil {
		s.opts.OnDispatch(spec)
	}
	return s.World.GitHub.Dispatch(spec)
}

// Approve has this person approve the run's deployment.
func (s *Stage) Approve(run simgithub.Run, login string) error {
	if s.opts.OnApprove != nil {
		s.opts.OnApprove(login)
	}
	return s.World.GitHub.Approve(run.ID, login)
}

// Deploy starts a run and has its deployment approved.
func (s *Stage) Deploy(spec simgithub.RunSpec, approver string) (simgithub.Run, error) {
	run, err := s.Dispatch(spec)
	if err != nil {
		return run, err
	}
	return run, s.Approve(run, approver)
}

// Runner waits until the view shows a runner of which ok is true.
func (s *Stage) Runner(ctx context.Context, what string, limit time.Duration, ok func(supervisor.RunnerView) bool) (found supervisor.RunnerView, err error) {
	err = s.Until(ctx, what, limit, func() (bool, error) {
		v, err := s.Ask(ctx)
		if err != nil {
			return false, nil // the daemon may be down for now
		}
		i := slices.IndexFunc(v.Runners, ok)
		if i >= 0 {
			found = v.Runners[i]
		}
		return i >= 0, nil
	})
	return found, err
}

// Sealed waits until a runner is sealed that ran this job.
func (s *Stage) Sealed(ctx context.Context, job string, limit time.Duration) (supervisor.RunnerView, error) {
	return s.Runner(ctx, "job "+job+" is sealed", limit, func(r supervisor.RunnerView) bool {
		return r.Job == runner.JobID(job) && r.Phase == runner.KindSealed
	})
}

// Gone checks with EC2 itself, not with the daemon, that a host is over.
func (s *Stage) Gone(r supervisor.RunnerView) error {
	in, ok := s.World.AWS.Instance(r.Instance)
	if !ok || in.State != "terminated" {
		return fmt.Errorf("host %s is %s in EC2, want terminated", r.Instance, in.State)
	}
	return nil
}

// Succeeded checks with GitHub itself that the run's job did.
func (s *Stage) Succeeded(run simgithub.Run) error {
	if job, _ := s.World.GitHub.Job(run.JobID); job.Conclusion != "success" {
		return fmt.Errorf("GitHub says the job ended %q, want success", job.Conclusion)
	}
	return nil
}

// CLI runs a command of the production binary. out holds what it says on both
// streams when its exit code is not 0.
func (s *Stage) CLI(ctx context.Context, args ...string) (out []byte, code int, err error) {
	cmd := exec.CommandContext(ctx, s.opts.Binary, args...)
	cmd.Env = append(os.Environ(), credentials[:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err = cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return append(out, stderr.Bytes()...), exit.ExitCode(), nil
	}
	return out, 0, err
}

// Verify is the auditor's verdict on the ledger as it stands.
func (s *Stage) Verify(ctx context.Context) error {
	out, code, err := s.CLI(ctx, "verify", "--ledger", s.File("ledger"), "--root", s.File("root.json"))
	if err == nil && code != 0 {
		err = fmt.Errorf("verify exits %d:\n%s", code, out)
	}
	return err
}
