package runner

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// Check says whether the event may follow the log as it stands. It returns
// nil, [ErrRecorded] when the log already holds the fact, or a [*Violation]
// that names the invariant.
func (s *State) Check(e Event, at time.Time) error {
	v := verdict{chain: e.Chain()}
	if at.Before(s.LastAt) {
		return v.breaks(8, "clock", "recorded at %s, before the last record at %s", stamp(at), stamp(s.LastAt))
	}
	if err := s.checkYear(v, e); err != nil {
		return err
	}
	if err := s.checkPlace(v, e); err != nil {
		return err
	}
	if err := Validate(e); err != nil {
		return v.breaks(9, "closed-fields", "%v", err)
	}
	return nil
}

// checkPlace says whether the event has its place after what is recorded.
func (s *State) checkPlace(v verdict, e Event) error {
	switch e := e.(type) {
	case Opened, Heartbeat, Gap, Frozen, Unfrozen, Closed, Continued:
		return nil
	case Rotated:
		return s.checkRotated(v, e)
	case Offered:
		return s.checkOffered(e)
	case Authorized:
		return s.checkAuthorized(v, e)
	case Denied:
		return s.checkDenied(v, e)
	case Reported:
		return s.checkReported(v, e)
	case Concluded:
		return s.checkConcluded(v, e)
	case Cancelled:
		return s.checkCancelled(v, e)
	case Claimed:
		return s.checkClaimed(v, e)
	case Reviewed:
		return s.checkReviewed(v, e)
	case Asked:
		return s.checkAsked(v, e)
	case Ruled:
		return s.checkRuled(v, e)
	case Answered:
		return s.checkAnswered(v, e)
	case Stray:
		return s.checkStray(v, e)
	case Swept:
		return s.checkSwept(e)
	case Spooled:
		return s.checkSpooled(v, e)
	}
	return s.checkRunner(v, e)
}

// verdict builds violations of one chain.
type verdict struct{ chain Chain }

func (v verdict) breaks(invariant int, rule, format string, args ...any) error {
	return &Violation{invariant, rule, v.chain, fmt.Sprintf(format, args...)}
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

func (s *State) checkOffered(e Offered) error {
	job := s.Jobs[e.Job]
	if job == nil {
		return nil
	}
	// GitHub takes back a job that found no runner and assigns it again under
	// the same id; anything else is a redelivery.
	requeued := !e.Implied && job.Concluded != nil && job.Runner == "" &&
		e.MessageID > job.Offered.Event.MessageID && e.MessageID >= job.Concluded.Event.MessageID
	if !requeued {
		return ErrRecorded
	}
	return nil
}

func (s *State) checkAuthorized(v verdict, e Authorized) error {
	job := s.Jobs[e.Job]
	switch {
	case job == nil:
		return v.breaks(3, "unknown-job", "authorized without having been offered")
	case job.Authorized != nil || job.Denied != nil:
		return ErrRecorded
	case job.Concluded != nil:
		return v.breaks(3, "job-over", "authorized after GitHub said it was over")
	case !e.Decision.Allowed():
		return v.breaks(1, "decision", "authorized although the policy gave reasons against it")
	case e.Facts.RunID != job.Offered.Event.RunID || e.Facts.Repository != job.Offered.Event.Repository:
		return v.breaks(3, "other-job", "the facts are of run %d of %s, the offer of run %d of %s",
			e.Facts.RunID, e.Facts.Repository, job.Offered.Event.RunID, job.Offered.Event.Repository)
	case s.Frozen != nil:
		return v.breaks(8, "frozen", "authorized while admission is frozen")
	}
	if a, missing := s.unrecorded(e.Facts); missing {
		return v.breaks(10, "approval", "authorized by an approval of account %d that is not on record for attempt %d of run %d",
			a.By.ID, e.Facts.RunAttempt, e.Facts.RunID)
	}
	return nil
}

func (s *State) checkDenied(v verdict, e Denied) error {
	job := s.Jobs[e.Job]
	switch {
	case job == nil:
		return v.breaks(3, "unknown-job", "denied without having been offered")
	case job.Authorized != nil || job.Denied != nil:
		return ErrRecorded
	case len(e.Decision.Reasons) == 0:
		return v.breaks(10, "decision", "denied without a reason")
	}
	return nil
}

func (s *State) checkReported(v verdict, e Reported) error {
	job := s.Jobs[e.Job]
	switch {
	case job == nil:
		return v.breaks(3, "unknown-job", "reported started without having been offered")
	case job.Reported != nil || e.MessageID <= job.Before:
		return ErrRecorded
	}
	return nil
}

func (s *State) checkConcluded(v verdict, e Concluded) error {
	job := s.Jobs[e.Job]
	switch {
	case job == nil:
		return v.breaks(3, "unknown-job", "concluded without having been offered")
	case job.Concluded != nil:
		return ErrRecorded
	case e.MessageID <= job.Before:
		return ErrRecorded // the end of the assignment before this one
	}
	return nil
}

func (s *State) checkCancelled(v verdict, e Cancelled) error {
	if e.Runner == "" {
		job := s.Jobs[e.Job]
		switch {
		case job == nil || job.Denied == nil && !s.foreign(job) && !s.stranded(job):
			return v.breaks(3, "cancelled", "a job that was neither denied, nor on a foreign runner, nor left by its own, was cancelled")
		case job.Cancelled != nil && (job.Cancelled.Event.Forced || !e.Forced):
			return ErrRecorded
		}
		return nil
	}
	r := s.Runners[e.Runner]
	switch {
	case r == nil || r.Refused == nil && r.Retired == nil:
		return v.breaks(3, "cancelled", "the run of a runner that was neither refused nor retired was cancelled")
	case r.Cancelled != nil:
		return ErrRecorded
	}
	return nil
}

func (s *State) checkClaimed(v verdict, e Claimed) error {
	if r := s.Runners[e.Runner]; r != nil {
		if sameJSON(r.Claimed.Event, e) {
			return ErrRecorded
		}
		return v.breaks(2, "runner-name", "the name was used before")
	}
	if by, used := s.UsedBy(e.Host); used {
		return v.breaks(2, "host-reused", "host %s (node %s) already served runner %s", e.Host.InstanceID, e.Host.NodeName, by)
	}
	job := s.Jobs[e.Cause]
	switch {
	case job == nil || job.Authorized == nil:
		return v.breaks(1, "unauthorized", "claimed for job %s, which is not authorized", e.Cause)
	case job.Authorized.Digest != e.Authorized:
		return v.breaks(1, "unauthorized", "claimed under %s, but job %s was authorized by %s", e.Authorized, e.Cause, job.Authorized.Digest)
	case s.Frozen != nil:
		return v.breaks(8, "frozen", "claimed while admission is frozen")
	}
	if len(e.Host.Checks) == 0 {
		return v.breaks(2, "unvetted", "host %s was claimed without any check", e.Host.InstanceID)
	}
	for _, c := range e.Host.Checks {
		if c.Verdict != Pass {
			return v.breaks(2, "unvetted", "check %s of host %s says %s", c.Name, e.Host.InstanceID, c.Verdict)
		}
	}
	return v.checkAssurance(e.Host)
}

// checkRunner checks the events that follow claimed on a runner's chain.
func (s *State) checkRunner(v verdict, e Event) error {
	switch e := e.(type) {
	case Bound:
		return checkBound(v, s.Runners[e.Runner], e)
	case Released:
		return s.checkReleased(v, s.Runners[e.Runner])
	case Started:
		return s.checkStarted(v, s.Runners[e.Runner], e)
	case Refused:
		return checkRefused(v, s.Runners[e.Runner], e)
	case Retired:
		return checkRetired(v, s.Runners[e.Runner])
	case Completed:
		return checkCompleted(v, s.Runners[e.Runner], e)
	case Teardown:
		return checkTeardown(v, s.Runners[e.Runner], e)
	case Overdue:
		return checkOverdue(v, s.Runners[e.Runner])
	case Ending:
		return checkEnding(v, s.Runners[e.Runner], e)
	case Terminated:
		return checkTerminated(v, s.Runners[e.Runner], e)
	case Sealed:
		return s.checkSealed(v, s.Runners[e.Runner], e)
	case Rebuffed:
		return checkRebuffed(v, s.Runners[e.Runner], e)
	}
	return v.breaks(7, "kind", "no rule for an event of kind %s", e.Kind())
}

func checkBound(v verdict, r *Runner, e Bound) error {
	if r == nil {
		return v.breaks(2, "unclaimed", "bound without a claimed host")
	}
	if r.Bound != nil {
		if r.Bound.Event.PodUID == e.PodUID {
			return ErrRecorded
		}
		return v.breaks(2, "second-claim", "pod %s presents itself, but pod %s is bound", e.PodUID, r.Bound.Event.PodUID)
	}
	host := r.Claimed.Event.Host
	_, ended := r.Ended()
	switch {
	case ended:
		return v.breaks(1, "runner-over", "bound after the runner ended")
	case e.Audience != r.Claimed.Event.Authorized:
		return v.breaks(1, "audience", "the pod's token names %s, not the authorized record", e.Audience)
	case e.NodeName != host.NodeName || e.NodeUID != host.NodeUID:
		return v.breaks(2, "other-node", "the pod runs on node %s (%s), the claimed host is %s (%s)",
			e.NodeName, e.NodeUID, host.NodeName, host.NodeUID)
	}
	return nil
}

func (s *State) checkReleased(v verdict, r *Runner) error {
	switch {
	case r == nil || r.Bound == nil:
		return v.breaks(1, "unbound", "released before a bound record")
	case r.Released != nil:
		return ErrRecorded
	case s.Frozen != nil:
		return v.breaks(8, "frozen", "released while admission is frozen")
	}
	if _, ended := r.Ended(); ended {
		return v.breaks(1, "runner-over", "released after the runner ended")
	}
	return nil
}

func (s *State) checkStarted(v verdict, r *Runner, e Started) error {
	if r == nil || r.Released == nil {
		return v.breaks(3, "foreign-runner", "started on a runner that was not released")
	}
	if r.Started != nil {
		if r.Started.Event.Job == e.Job && r.Started.Event.Claims.TokenID == e.Claims.TokenID {
			return ErrRecorded
		}
		return v.breaks(3, "second-job", "job %s on a runner that runs job %s", e.Job, r.Started.Event.Job)
	}
	if _, ended := r.Ended(); ended {
		return v.breaks(3, "runner-over", "started after the runner ended")
	}
	job := s.Jobs[e.Job]
	switch {
	case job == nil || job.Authorized == nil:
		return v.breaks(3, "unauthorized", "job %s was started and never authorized", e.Job)
	case job.Authorized.Digest != e.Authorized:
		return v.breaks(3, "unauthorized", "started under %s, but job %s was authorized by %s", e.Authorized, e.Job, job.Authorized.Digest)
	case job.Runner != "":
		return v.breaks(3, "second-runner", "job %s already started on runner %s", e.Job, job.Runner)
	case e.Audience != r.Bound.Digest:
		return v.breaks(3, "audience", "the job's token names %s, not the bound record", e.Audience)
	case !e.Decision.Allowed():
		return v.breaks(3, "decision", "started although the policy gave reasons against it")
	}
	f := job.Authorized.Event.Facts
	if c := e.Claims; c.RunID != f.RunID || c.RunAttempt != f.RunAttempt || c.RepositoryID != f.RepositoryID ||
		f.CheckRunID != 0 && c.CheckRunID != f.CheckRunID {
		return v.breaks(3, "other-job", "the token is of run %d attempt %d check run %d, authorized was run %d attempt %d check run %d",
			c.RunID, c.RunAttempt, c.CheckRunID, f.RunID, f.RunAttempt, f.CheckRunID)
	}
	return nil
}

func checkRefused(v verdict, r *Runner, e Refused) error {
	switch {
	case r == nil || r.Bound == nil:
		return v.breaks(3, "foreign-runner", "refused on a runner that is not bound")
	case r.Refused != nil:
		return ErrRecorded
	case len(e.Decision.Reasons) == 0:
		return v.breaks(10, "decision", "refused without a reason")
	case r.Started != nil:
		return v.breaks(3, "second-job", "refused after job %s was allowed to start", r.Started.Event.Job)
	}
	if _, ended := r.Ended(); ended {
		return v.breaks(3, "runner-over", "refused after the runner ended")
	}
	return nil
}

func checkRetired(v verdict, r *Runner) error {
	if r == nil {
		return v.breaks(2, "unclaimed", "retired without a claimed host")
	}
	if _, ended := r.Ended(); ended {
		return ErrRecorded
	}
	return nil
}

func checkCompleted(v verdict, r *Runner, e Completed) error {
	switch {
	case r == nil || r.Started == nil:
		return v.breaks(3, "not-started", "completed without a started job")
	case r.Started.Event.Job != e.Job:
		return v.breaks(3, "second-job", "completed job %s, started was job %s", e.Job, r.Started.Event.Job)
	case !e.PodPhase.Terminal():
		return v.breaks(3, "pod-running", "completed while the pod is %s", e.PodPhase)
	}
	if _, ended := r.Ended(); ended {
		return ErrRecorded
	}
	return nil
}

func sameJSON(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}
