package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
	"go.uber.org/zap"
)

// jobOf is a copy of what the log says about a job.
func (s *Supervisor) jobOf(ctx context.Context, id runner.JobID) (job runner.Job, err error) {
	err = s.locked(ctx, func() error {
		j := s.state.Jobs[id]
		if j == nil {
			return fmt.Errorf("job %s is not in the log", id)
		}
		job = *j
		return nil
	})
	return job, err
}

// runnerOf is a copy of what the log says about a runner; nil when nothing.
func (s *Supervisor) runnerOf(ctx context.Context, name runner.Name) (r *runner.Runner, err error) {
	err = s.locked(ctx, func() error {
		if found := s.state.Runners[name]; found != nil {
			r = new(*found)
		}
		return nil
	})
	return r, err
}

// taskDecide gathers facts and asks the policy whether the job may run here.
// Facts that cannot be had leave the job undecided, never allowed.
func (s *Supervisor) taskDecide(ctx context.Context, id runner.JobID) (bool, error) {
	job, err := s.jobOf(ctx, id)
	if err != nil {
		return false, err
	}
	offered := job.Offered.Event
	s.hearAbout(ctx, &job)
	facts, err := s.facts(ctx, offered)
	if err != nil {
		return false, fmt.Errorf("%w: gather facts: %w", errNoVerdict, err)
	}
	decision, err := s.decide(ctx, runner.Question{Gate: runner.GateAdmission, Job: &offered, Facts: &facts})
	if err != nil {
		return false, fmt.Errorf("%w: %w", errNoVerdict, err)
	}
	if slices.Equal(decision.Reasons, []string{reasonCoolingOff}) {
		return false, errCoolingOff
	}
	if s.NewsEvery > 0 && slices.Contains(decision.Reasons, reasonUnattributed) && time.Since(job.Offered.At) < newsPatience {
		s.hearAgain(job.Offered.At.Add(-time.Second))
		return false, errNewsPending
	}
	if decision.Allowed() {
		err = s.record(ctx, runner.Authorized{Job: id, Facts: facts, Decision: decision})
	} else {
		err = s.record(ctx, runner.Denied{Job: id, Repository: offered.Repository, RunID: offered.RunID, Decision: decision})
	}
	return err == nil, err
}

// facts gathers what GitHub says about a job. Reviews that are seen for the
// first time are recorded before anything is decided by them: a later attempt
// must know that they were there.
func (s *Supervisor) facts(ctx context.Context, job runner.Offered) (runner.Facts, error) {
	var known []runner.Reviewed
	err := s.locked(ctx, func() error {
		known = s.state.ReviewsOf(job.RunID)
		return nil
	})
	if err != nil {
		return runner.Facts{}, err
	}
	facts, fresh, err := s.GitHub.Facts(ctx, job, known)
	if err != nil {
		return runner.Facts{}, err
	}
	for _, review := range fresh {
		if err := s.record(ctx, review); err != nil {
			return runner.Facts{}, fmt.Errorf("record a review: %w", err)
		}
	}
	return facts, nil
}

// errNoVerdict says that the policy could not be asked, or gave no answer.
var errNoVerdict = errors.New("no verdict")

// errCoolingOff says that an approval has to stand for longer. Time alone mends
// it, so it never becomes a denial by itself.
var errCoolingOff = errors.New("the approval has not stood long enough yet")

// taskDeny ends a job about which no verdict could be had for too long. It is
// asked about once more: it may have been we who were away.
func (s *Supervisor) taskDeny(ctx context.Context, id runner.JobID) (bool, error) {
	ask, cancel := context.WithTimeout(ctx, s.CallTimeout/2)
	defer cancel()
	if done, err := s.taskDecide(ask, id); !errors.Is(err, errNoVerdict) {
		return done, err
	}
	job, err := s.jobOf(ctx, id)
	if err != nil {
		return false, err
	}
	offered := job.Offered.Event
	decision, err := s.decide(ctx, runner.Question{Gate: runner.GateAdmission, Job: &offered})
	if err != nil {
		return false, err
	}
	decision.Reasons = withReason(decision.Reasons, reasonFactsUnknown)
	err = s.record(ctx, runner.Denied{Job: id, Repository: offered.Repository, RunID: offered.RunID, Decision: decision})
	return err == nil, err
}

// taskCancel asks GitHub to cancel a run that may not run here, so that the
// developer sees the end at once and not when a lease runs out.
func (s *Supervisor) taskCancel(ctx context.Context, task runner.Task) (bool, error) {
	// A job that had reached a runner of ours has nobody left to answer.
	e := runner.Cancelled{Job: task.Job, Runner: task.Runner, Forced: task.Force || task.Runner != ""}
	if task.Runner == "" {
		job, err := s.jobOf(ctx, task.Job)
		if err != nil {
			return false, err
		}
		e.Repository, e.RunID = job.Offered.Event.Repository, job.Offered.Event.RunID
	} else {
		var known bool
		err := s.locked(ctx, func() error {
			e.Repository, e.RunID, known = s.state.RunOn(task.Runner)
			return nil
		})
		if err != nil || !known {
			return false, err
		}
	}
	if alone, err := s.nowhere(ctx, task); err != nil || !alone {
		return false, err
	}
	// Attempts of a run share its number: a cancellation that comes after a new
	// attempt was allowed would end that one.
	if err := s.alone(ctx); err != nil && (task.Runner == "" || errors.Is(err, ErrFenced)) {
		return false, err
	}
	if err := s.GitHub.CancelRun(ctx, e.Repository, e.RunID, e.Forced); err != nil {
		return false, fmt.Errorf("cancel run %d: %w", e.RunID, err)
	}
	err := s.record(ctx, e)
	return err == nil, err
}

// nowhere says that no process is left that may hold a job which was not
// allowed to start. Cancelling a job whose hook blocks ends the hook after 10 s
// and lets steps with if: always() run, so its pod has to go first. Where a job
// has shown its token the pod is known; else any idle runner may have it.
func (s *Supervisor) nowhere(ctx context.Context, task runner.Task) (bool, error) {
	names := []runner.Name{task.Runner}
	if task.Runner == "" {
		err := s.locked(ctx, func() error {
			names = s.state.MayHold(task.Job)
			return nil
		})
		if err != nil {
			return false, err
		}
	}
	for _, name := range names {
		pod, err := s.Cluster.Pod(ctx, name)
		if err != nil {
			return false, fmt.Errorf("look at the pod: %w", err)
		}
		if !pod.Phase.Terminal() {
			return false, nil
		}
	}
	return true, nil
}

// errNoHost says that a job waits for a vetted host.
var errNoHost = errors.New("no vetted host is ready")

// taskClaim takes one vetted host out of the pool, in the log first.
func (s *Supervisor) taskClaim(ctx context.Context, id runner.JobID) (bool, error) {
	host, err := s.choose(ctx, id)
	if err != nil {
		return false, err
	}
	// Without the turn: the store may take its time, and nobody else is to wait.
	if err := s.keepDocument(ctx, host); err != nil {
		return false, err
	}
	name := s.NewName()
	_, err = s.recordFrom(ctx, func(st *runner.State) (runner.Event, error) {
		if _, err := s.claimable(st, id, []runner.Host{host}); err != nil {
			return nil, err
		}
		return runner.Claimed{Runner: name, Cause: id, Authorized: st.Jobs[id].Authorized.Digest, Host: host}, nil
	})
	return err == nil, err
}

// survey keeps the view of waiting hosts fresh for on-call.
func (s *Supervisor) survey(ctx context.Context, _ runner.Task) (bool, error) {
	hosts, err := s.inventory(ctx)
	if err != nil {
		return false, err
	}
	views := []HostView{}
	known := *s.hosts.Load()
	err = s.locked(ctx, func() error {
		for _, h := range hosts {
			if _, used := s.state.UsedBy(h); used {
				continue
			}
			v := HostView{Node: h.NodeName, Instance: h.InstanceID, Vetted: runner.Vetted(h.Checks)}
			for _, c := range h.Checks {
				if c.Verdict != runner.Pass {
					v.Failing = append(v.Failing, c)
				}
			}
			views = append(views, v)
			if v.Vetted && !slices.ContainsFunc(known, func(k HostView) bool { return k.Instance == v.Instance && k.Vetted }) {
				s.lanes.hasten(laneClaim) // for want of it a claim may have failed
			}
		}
		s.noteUnfit(hosts, time.Now())
		s.noteSilence(hosts, time.Now())
		s.hosts.Store(&views)
		s.publishLocked()
		return nil
	})
	return false, err
}

// taskLaunch makes the world agree with a claimed record: the node cordoned
// and marked, the pod pinned to it. A node that somebody else took, or a pod
// that ended before it presented itself, ends the runner.
func (s *Supervisor) taskLaunch(ctx context.Context, name runner.Name) (bool, error) {
	r, err := s.runnerOf(ctx, name)
	if err != nil || r == nil {
		return false, err
	}
	claimed := r.Claimed.Event
	err = s.Cluster.ClaimNode(ctx, claimed.Host, name)
	if errors.Is(err, ErrConflict) {
		return s.retire(ctx, name, runner.CauseHostLost, "")
	}
	if err != nil {
		return false, fmt.Errorf("claim node %s: %w", claimed.Host.NodeName, err)
	}
	err = s.protect(ctx, name, claimed.Host)
	if errors.Is(err, ErrConflict) {
		return s.retire(ctx, name, runner.CauseHostLost, "")
	}
	if err != nil {
		return false, err
	}
	pod, err := s.makePod(ctx, r)
	if errors.Is(err, ErrConflict) {
		return s.retire(ctx, name, runner.CauseHostLost, "")
	}
	if err != nil {
		return false, err
	}
	pod = s.sawPod(r, pod)
	switch {
	case pod.Phase.Terminal():
		return s.retire(ctx, name, runner.CausePodFailed, pod.Reason)
	case pod.Phase == runner.PodPending && runner.Hopeless(pod.Reason):
		return s.retire(ctx, name, runner.CauseNeverBound, pod.Reason)
	}
	return false, nil
}

// makePod looks at the runner's pod and makes it if it is not there. While one
// starts, nothing but the cluster is asked with each tick: the log's store only
// before a pod is made. A pod under the name for another record or node is
// ErrConflict.
func (s *Supervisor) makePod(ctx context.Context, r *runner.Runner) (runner.Pod, error) {
	name, claimed := r.Name(), r.Claimed.Event
	pod, err := s.Cluster.Pod(ctx, name)
	if err != nil {
		return runner.Pod{}, fmt.Errorf("look at the pod: %w", err)
	}
	if pod.Phase != runner.PodGone && pod.NodeName == claimed.Host.NodeName && pod.Authorized == claimed.Authorized {
		return pod, nil
	}
	spec := PodSpec{
		Runner: name, NodeName: claimed.Host.NodeName, Authorized: claimed.Authorized,
		Cause: claimed.Cause, JobTTL: s.Limits.JobTTL,
	}
	if job, err := s.jobOf(ctx, claimed.Cause); err == nil && job.Authorized != nil {
		facts := job.Authorized.Event.Facts
		spec.Repository, spec.RunID, spec.RunAttempt = facts.Repository, facts.RunID, facts.RunAttempt
	}
	// Another daemon may have ended this runner: its pod must not be made again.
	if err := s.alone(ctx); err != nil {
		return runner.Pod{}, err
	}
	if err := s.Cluster.EnsurePod(ctx, spec); err != nil {
		return runner.Pod{}, fmt.Errorf("create the pod: %w", err)
	}
	if pod, err = s.Cluster.Pod(ctx, name); err != nil {
		return runner.Pod{}, fmt.Errorf("look at the pod: %w", err)
	}
	return pod, nil
}

// protect keeps the group from taking the host away under its job. Before that
// no pod is made. Protection ends with the instance.
func (s *Supervisor) protect(ctx context.Context, name runner.Name, host runner.Host) error {
	if host.Provider == "none" || s.sight.protected(name) {
		return nil
	}
	if err := s.Hosts.Protect(ctx, host.InstanceID); err != nil {
		return fmt.Errorf("protect the host: %w", err)
	}
	s.sight.with(name, func(g *sighting) { g.protected = true })
	return nil
}

// retire ends a runner. A job that was allowed to start while the reason was
// being found keeps its runner, unless the reason holds for it as well.
func (s *Supervisor) retire(ctx context.Context, name runner.Name, cause runner.Cause, podReason string) (bool, error) {
	_, err := s.recordFrom(ctx, func(st *runner.State) (runner.Event, error) {
		if r := st.Runners[name]; r != nil && r.Started != nil && !endsAJob(cause) {
			return nil, runner.ErrRecorded
		}
		return runner.Retired{Runner: name, Cause: cause, PodReason: podReason}, nil
	})
	if err == nil {
		s.Logger.Warn("runner retired", zap.String("runner", string(name)), zap.String("cause", string(cause)), zap.String("pod", podReason))
	}
	return err == nil, err
}

// endsAJob says that a runner is given up for this cause though it runs a job.
func endsAJob(cause runner.Cause) bool {
	switch cause {
	case runner.CauseJobDeadline, runner.CauseSecondJob, runner.CauseHostSilent, runner.CauseHostEnded:
		return true
	}
	return false
}

func withReason(reasons []string, extra string) []string {
	out := append(slices.Clone(reasons), extra)
	slices.Sort(out)
	return slices.Compact(out)
}
