package runner

import (
	"fmt"
	"time"
)

// GivenUp says why nothing more is done for a job that did not run here, empty
// if something is: a human has to look.
func (s *State) GivenUp(j *Job, now time.Time, lim Limits) string {
	switch {
	case j.Runner != "":
		return ""
	case j.Denied != nil:
		return j.uncancelled()
	case j.Concluded != nil:
		return s.missed(j)
	case s.stranded(j):
		return "its runner ended before it started: if its run still waits, cancel and re-run it"
	case !j.waiting():
		return ""
	case j.Spent >= lim.MaxAttempts:
		return fmt.Sprintf("given up after %d hosts on which it did not start: look at their pods, then re-run the job", j.Spent)
	case !now.Before(j.Authorized.At.Add(lim.AuthorizedFor)):
		return fmt.Sprintf("authorized more than %s ago and never started: re-run the job", lim.AuthorizedFor)
	}
	return ""
}

// uncancelled says of a denied job that GitHub takes no more interest in it, and
// that its run outlived our asking to cancel it. GitHub gives a job that finds no
// runner up after a while, and then nobody ends it.
func (j *Job) uncancelled() string {
	since := j.Denied.At
	if j.Cancelled != nil {
		since = j.Cancelled.At
	}
	forced := j.Cancelled != nil && j.Cancelled.Event.Forced
	if j.Concluded == nil || forced || j.Concluded.At.Sub(since) <= forceAfter {
		return ""
	}
	return "it was denied and its run was not cancelled in time: if its run still waits, cancel it"
}

// missed says how a job was over that was never started here, empty if that
// was our doing.
func (s *State) missed(j *Job) string {
	switch {
	case j.Refused:
		return ""
	case j.Reported == nil:
		// GitHub says the same of a job that somebody cancelled and of one that it
		// gave us three times for nothing; the second waits on its page for ever.
		return "GitHub took it back before it started: if its run still waits, cancel and re-run it"
	case s.foreign(j):
		return "GitHub gave it to a runner that is not ours: find out whose, and what ran there"
	}
	return "it was over without having asked to start: look at its runner"
}

// stranded says that a job reached a runner of ours that is over, and that
// neither it nor GitHub says how it ended: news of a job can be older than the
// end of its runner, and its page would show it as running.
func (s *State) stranded(j *Job) bool {
	r := s.holder(j)
	return j.Concluded == nil && j.Runner == "" && r != nil && r.Sealed != nil && r.Started == nil
}

// runsOn says that the job's run has work of a later time, here or offered to
// us: a new attempt bears the same number.
func (s *State) runsOn(j *Job) bool {
	run := j.Offered.Event.RunID
	for _, other := range s.Jobs {
		if other.Offered.Event.RunID == run && other.Offered.Index > j.Offered.Index && other.Concluded == nil {
			return true
		}
	}
	return s.deploying(run)
}

// holder is our runner that the job reached, nil if none is known.
func (s *State) holder(j *Job) *Runner {
	if j.Reported != nil {
		return s.ran(j)
	}
	if j.Refused {
		for _, r := range s.Runners {
			if r.Refused != nil && r.Refused.Event.Job == j.Offered.Event.Job {
				return r
			}
		}
	}
	return nil
}
