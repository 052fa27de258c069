package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
	"go.uber.org/zap"
)

// waitedTooLong says that a hook has asked for longer than it may. A token that
// expired on its way is renewed by the agent within this time. The time counts
// from when our session with the queue opened: until then the offer of an
// honest job may be waiting behind it, and the runner's idle TTL bounds the wait.
func (s *Supervisor) waitedTooLong(name runner.Name) bool {
	now, queue := time.Now(), s.Queue.Health()
	since := s.gate.waitingSince(name, now)
	if queue.SessionAge.After(since) {
		since = queue.SessionAge
	}
	return queue.Session == "open" && now.Sub(since) >= s.Limits.HookGrace
}

// vouched asks the cluster whose token this is. Only the runner's own pod may
// speak for the runner; the audience ties the token to the authorized record.
// The runner is returned beside a refusal too, nil when there is none.
func (s *Supervisor) vouched(ctx context.Context, name runner.Name, podToken string) (*runner.Runner, runner.PodIdentity, error) {
	none := runner.PodIdentity{}
	r, err := s.runnerOf(ctx, name)
	if err != nil {
		return nil, none, err
	}
	if r == nil {
		return nil, none, &Rebuff{Cause: causeUnknownRunner, Err: fmt.Errorf("%w: no runner of this name", ErrTokenRejected)}
	}
	pod, err := s.Cluster.Review(ctx, podToken, r.Claimed.Event.Authorized.Audience())
	if err != nil {
		return r, none, fmt.Errorf("review the pod's token: %w", err)
	}
	if pod.PodName != string(name) {
		return r, none, rebuff(ErrTokenRejected, runner.RebuffOtherPod, pod, "the token is of another pod")
	}
	return r, pod, nil
}

// Claim hands the JIT config to the pod that the cluster vouches for, once.
// Bound is durable before the config exists, released before it leaves. It
// returns [ErrTokenRejected], or [ErrConflict] when this runner will never get
// a config; any other error is worth asking again. A refusal that is the
// caller's doing is a [Rebuff], and gets a record.
func (s *Supervisor) Claim(ctx context.Context, name runner.Name, podToken string) (ClaimAnswer, error) {
	leave, err := s.gate.enter(ctx, name)
	if err != nil {
		return ClaimAnswer{}, err
	}
	defer leave()
	r, pod, err := s.vouched(ctx, name, podToken)
	if err == nil {
		err = entitled(r, pod)
	}
	s.noteRebuff(runner.GateClaim, name, r, err)
	if err != nil {
		return ClaimAnswer{}, err
	}
	if s.view.Load().Frozen != nil {
		return ClaimAnswer{}, errors.New("admission is frozen")
	}
	if err := s.sure(ctx); err != nil {
		return ClaimAnswer{}, err
	}
	fresh := r.Bound == nil
	if fresh {
		err := s.bind(ctx, r, pod)
		s.noteRebuff(runner.GateClaim, name, r, err)
		if err != nil {
			return ClaimAnswer{}, err
		}
		if r, err = s.runnerOf(ctx, name); err != nil {
			return ClaimAnswer{}, err
		}
	}
	return s.release(ctx, r, fresh)
}

func (s *Supervisor) bind(ctx context.Context, r *runner.Runner, pod runner.PodIdentity) error {
	err := s.record(ctx, runner.Bound{
		Runner: r.Name(), Namespace: pod.Namespace, ServiceAccount: pod.ServiceAccount, PodUID: pod.PodUID,
		NodeName: pod.NodeName, NodeUID: pod.NodeUID, Audience: r.Claimed.Event.Authorized, Token: pod.Token,
	})
	if violation, ok := errors.AsType[*runner.Violation](err); ok {
		s.Logger.Error("a pod may not be bound", zap.String("runner", string(r.Name())), zap.Error(violation))
		if violation.Rule == "runner-over" { // it ended while the token was reviewed
			return rebuff(ErrConflict, runner.RebuffRunnerOver, pod, "%w", violation)
		}
		return fmt.Errorf("%w: %w", ErrConflict, violation)
	}
	return err
}

// release generates the JIT config. A name that is registered although no
// release was recorded had its answer lost: its config is a credential that
// nobody accounts for, so the runner ends and another one is made.
func (s *Supervisor) release(ctx context.Context, r *runner.Runner, fresh bool) (ClaimAnswer, error) {
	name := r.Name()
	lost := false
	if !fresh {
		var err error
		if lost, err = s.Registrar.Registered(ctx, name); err != nil {
			return ClaimAnswer{}, fmt.Errorf("look for the registration: %w", err)
		}
	}
	var reg Registration
	if !lost {
		// Another daemon may have ended this runner, and its registration would be a stray.
		if err := s.alone(ctx); err != nil {
			return ClaimAnswer{}, err
		}
		var err error
		reg, err = s.Registrar.Register(ctx, name)
		if lost = errors.Is(err, ErrRegistrationExists); err != nil && !lost {
			return ClaimAnswer{}, fmt.Errorf("register the runner: %w", err)
		}
	}
	if lost {
		if _, err := s.retire(ctx, name, runner.CauseRegistrationLost, ""); err != nil {
			return ClaimAnswer{}, err
		}
		return ClaimAnswer{}, fmt.Errorf("%w: registered already, and the config was lost", ErrConflict)
	}
	err := s.record(ctx, runner.Released{
		Runner: name, RunnerID: reg.RunnerID, ScaleSetID: reg.ScaleSetID,
		JITConfig: runner.DigestOf([]byte(reg.JITConfig.Reveal())),
	})
	if err != nil {
		return ClaimAnswer{}, err
	}
	return ClaimAnswer{JITConfig: reg.JITConfig, Bound: r.Bound.Digest}, nil
}

// Start answers the job-started hook. Pending means that the job must neither
// start nor fail: the hook blocks. A refusal is recorded, and the settle loop
// kills the pod and cancels the run.
func (s *Supervisor) Start(ctx context.Context, name runner.Name, podToken, jobToken string) (StartAnswer, error) {
	leave, err := s.gate.enter(ctx, name)
	if err != nil {
		return StartAnswer{}, err
	}
	defer leave()
	r, pod, err := s.vouched(ctx, name, podToken)
	switch {
	case err != nil:
	case r.Bound == nil:
		err = rebuff(ErrTokenRejected, runner.RebuffNotBound, pod, "this pod is not bound to the runner")
	case r.Bound.Event.PodUID != pod.PodUID:
		err = rebuff(ErrTokenRejected, runner.RebuffSecondPod, pod, "another pod is bound to the runner")
	}
	s.noteRebuff(runner.GateStart, name, r, err)
	if err != nil {
		return StartAnswer{}, err
	}
	s.gate.ask(name, time.Now())
	if r.Refused != nil {
		return StartAnswer{Verdict: StartRefused, Reasons: r.Refused.Event.Decision.Reasons}, nil
	}
	if _, ended := r.Ended(); ended {
		return StartAnswer{Verdict: StartRefused, Reasons: []string{reasonRunnerOver}}, nil
	}
	if err := s.sure(ctx); err != nil {
		s.Logger.Warn("a job waits at the start gate", zap.String("runner", string(name)), zap.Error(err))
		return StartAnswer{Verdict: StartPending}, nil
	}
	if jobToken == "" {
		return s.refuseUnnamed(ctx, r, reasonNoToken)
	}
	claims, err := s.Identity.Verify(ctx, jobToken, r.Bound.Digest.Audience(), time.Now())
	if errors.Is(err, ErrTokenRejected) && s.waitedTooLong(name) {
		return s.refuseUnnamed(ctx, r, reasonBadToken)
	}
	if err != nil {
		return StartAnswer{}, fmt.Errorf("verify the job's token: %w", err)
	}
	if r.Started != nil {
		return s.sameJob(ctx, r, claims)
	}
	return s.judge(ctx, r, claims)
}

// sameJob answers a hook that asks again because our answer was lost. Another
// job on this runner ends it: a runner that outlived its job (actions/runner
// #3010) is one that we know nothing of.
func (s *Supervisor) sameJob(ctx context.Context, r *runner.Runner, claims runner.Claims) (StartAnswer, error) {
	was := r.Started.Event.Claims
	if was.RunID == claims.RunID && was.RunAttempt == claims.RunAttempt && was.CheckRunID == claims.CheckRunID {
		return StartAnswer{Verdict: StartAllowed, Record: r.Started.Digest}, nil
	}
	return s.endForSecondJob(ctx, r)
}

func (s *Supervisor) endForSecondJob(ctx context.Context, r *runner.Runner) (StartAnswer, error) {
	if _, err := s.retire(ctx, r.Name(), runner.CauseSecondJob, ""); err != nil && !errors.Is(err, runner.ErrRecorded) {
		return StartAnswer{}, err
	}
	return StartAnswer{Verdict: StartRefused, Reasons: []string{string(runner.CauseSecondJob)}}, nil
}

// refuseUnnamed refuses a job that did not show which one it is.
func (s *Supervisor) refuseUnnamed(ctx context.Context, r *runner.Runner, reason string) (StartAnswer, error) {
	if r.Started != nil {
		return s.endForSecondJob(ctx, r)
	}
	return s.refuse(ctx, r, "", nil, nil, reason)
}

// judge finds the job that the token speaks of and asks the policy again, with
// facts gathered now.
func (s *Supervisor) judge(ctx context.Context, r *runner.Runner, claims runner.Claims) (StartAnswer, error) {
	job, err := s.match(ctx, r.Name(), claims)
	if err != nil {
		return StartAnswer{}, err
	}
	q := runner.Question{Gate: runner.GateStart, Claims: &claims}
	if job != nil {
		q.Job = &job.Offered.Event
		facts, err := s.facts(ctx, job.Offered.Event)
		if err != nil {
			return s.pending(ctx, r, claims, job, fmt.Errorf("gather facts: %w", err))
		}
		q.Facts = &facts
		if job.Authorized != nil {
			q.AuthorizedAt = job.Authorized.At
		}
	}
	decision, err := s.decide(ctx, q)
	if err != nil {
		return s.pending(ctx, r, claims, job, err)
	}
	// A job that is not decided yet may still be on its way through the queue.
	undecided := job == nil || job.Authorized == nil && job.Denied == nil
	if undecided && onlyUnauthorized(decision.Reasons) {
		return s.pending(ctx, r, claims, job, nil)
	}
	if slices.Equal(decision.Reasons, []string{reasonCoolingOff}) {
		return s.pending(ctx, r, claims, job, nil) // time alone mends it
	}
	if job == nil || job.Authorized == nil {
		decision.Reasons = withReason(decision.Reasons, reasonNotAuthorized)
	}
	if !decision.Allowed() {
		return s.refuse(ctx, r, idOf(job), &claims, &decision)
	}
	return s.start(ctx, r, job, claims, decision)
}

func idOf(job *runner.Job) runner.JobID {
	if job == nil {
		return ""
	}
	return job.Offered.Event.Job
}

// onlyUnauthorized says that nothing speaks against the job but that it was
// not authorized yet.
func onlyUnauthorized(reasons []string) bool {
	return len(reasons) == 0 || len(reasons) == 1 && reasons[0] == reasonNotAuthorized
}

// match finds the job of the log that the token's run and check run name,
// authorized ones first. Nil means that the log knows none.
func (s *Supervisor) match(ctx context.Context, name runner.Name, c runner.Claims) (found *runner.Job, err error) {
	err = s.locked(ctx, func() error {
		var fits []*runner.Job
		for _, j := range s.state.Jobs {
			if fitsClaims(j, c) && (j.Reported == nil || j.Reported.Event.Runner == name) {
				fits = append(fits, j)
			}
		}
		found = preferred(fits)
		return nil
	})
	return found, err
}

// fitsClaims says that the token may be of this job: nothing that the log
// knows of the job contradicts it.
func fitsClaims(j *runner.Job, c runner.Claims) bool {
	offered := j.Offered.Event
	if offered.RunID != c.RunID || offered.Repository != c.Repository || j.Runner != "" || j.Concluded != nil {
		return false
	}
	if offered.WorkflowRef != "" && offered.WorkflowRef != c.JobWorkflow.Ref {
		return false
	}
	if j.Authorized == nil {
		return true
	}
	facts := j.Authorized.Event.Facts
	return facts.RunAttempt == c.RunAttempt && (facts.CheckRunID == 0 || facts.CheckRunID == c.CheckRunID)
}

// preferred is a copy of the one job that the token is of, nil when that is not
// known: of several jobs of one run that nothing tells apart, none is guessed.
// GitHub will report which one it is.
func preferred(fits []*runner.Job) *runner.Job {
	if len(fits) == 0 {
		return nil
	}
	best := slices.MinFunc(fits, func(a, b *runner.Job) int {
		return cmp.Or(cmp.Compare(preference(a), preference(b)), cmp.Compare(a.Offered.Index, b.Offered.Index))
	})
	rank, ties := preference(best), 0
	for _, j := range fits {
		if preference(j) == rank {
			ties++
		}
	}
	if ties > 1 && rank > namesItself {
		return nil
	}
	return new(*best)
}

// namesItself is the last rank of preference that tells jobs of one run apart.
const namesItself = 1

// preference puts the job first that GitHub itself says is here, then an
// authorized one of this very check run, then other authorized, undecided and
// denied ones.
func preference(j *runner.Job) int {
	switch {
	case j.Reported != nil:
		return 0
	case j.Authorized != nil && j.Authorized.Event.Facts.CheckRunID != 0:
		return namesItself
	case j.Authorized != nil:
		return 2
	case j.Denied == nil:
		return 3
	}
	return 4
}

// pending leaves the hook blocked. A job for which no answer can be had in
// time is refused: unknown fails closed.
func (s *Supervisor) pending(ctx context.Context, r *runner.Runner, claims runner.Claims, job *runner.Job, cause error) (StartAnswer, error) {
	if s.waitedTooLong(r.Name()) {
		reason := reasonNotAuthorized
		if cause != nil {
			reason = reasonFactsUnknown
		}
		return s.refuse(ctx, r, idOf(job), &claims, nil, reason)
	}
	if cause != nil {
		s.Logger.Warn("a job waits at the start gate", zap.String("runner", string(r.Name())), zap.Error(cause))
	}
	return StartAnswer{Verdict: StartPending}, nil
}

func (s *Supervisor) start(ctx context.Context, r *runner.Runner, job *runner.Job, claims runner.Claims, decision runner.Decision) (StartAnswer, error) {
	rec, err := s.recordFrom(ctx, func(*runner.State) (runner.Event, error) {
		return runner.Started{
			Runner: r.Name(), Job: idOf(job), Authorized: job.Authorized.Digest,
			Audience: r.Bound.Digest, Claims: claims, Decision: decision,
		}, nil
	})
	if violation, ok := errors.AsType[*runner.Violation](err); ok {
		s.Logger.Error("a job may not start", zap.String("runner", string(r.Name())), zap.Error(violation))
		return s.refuse(ctx, r, idOf(job), &claims, nil, violation.Rule)
	}
	if err != nil {
		return StartAnswer{}, err
	}
	return StartAnswer{Verdict: StartAllowed, Record: rec.Digest}, nil
}

// refuse records that what reached the runner may not run. Without a decision
// of the policy the reason stands alone, with the question as far as it goes.
func (s *Supervisor) refuse(ctx context.Context, r *runner.Runner, job runner.JobID, claims *runner.Claims, decision *runner.Decision, extra ...string) (StartAnswer, error) {
	if decision == nil {
		d, err := s.decide(ctx, runner.Question{Gate: runner.GateStart, Claims: claims})
		if err != nil {
			return StartAnswer{}, err
		}
		decision = &d
	}
	for _, reason := range extra {
		decision.Reasons = withReason(decision.Reasons, reason)
	}
	err := s.record(ctx, runner.Refused{Runner: r.Name(), Job: job, Claims: claims, Decision: *decision})
	if err != nil {
		return StartAnswer{}, err
	}
	return StartAnswer{Verdict: StartRefused, Reasons: decision.Reasons}, nil
}
