package runner

import (
	"errors"
	"fmt"
	"time"
)

// Of is a record whose event has a known type.
type Of[E Event] struct {
	Index  uint64
	Digest Digest
	At     time.Time
	Event  E
}

// Job is all that the log says about one job.
type Job struct {
	Offered    Of[Offered]
	Authorized *Of[Authorized]
	Denied     *Of[Denied]
	Reported   *Of[Reported]
	Concluded  *Of[Concluded]
	Cancelled  *Of[Cancelled]
	// Runner is the runner that started this job.
	Runner Name
	// Spent counts the runners made for this job that ended without any job.
	Spent int
	// Refused says that it reached a runner and was not allowed to start.
	Refused bool
	// Undecided is since when nobody could decide about it, over all its
	// assignments: GitHub takes a job back and assigns it again more often than
	// an undecided one is given up.
	Undecided time.Time
	// Before is the message that ended the assignment before this one: GitHub
	// takes back a job that found no runner and assigns it again.
	Before int64
}

// Runner is all that the log says about one runner and its host.
type Runner struct {
	Claimed    Of[Claimed]
	Bound      *Of[Bound]
	Released   *Of[Released]
	Started    *Of[Started]
	Refused    *Of[Refused]
	Retired    *Of[Retired]
	Completed  *Of[Completed]
	Cancelled  *Of[Cancelled]
	Teardown   *Of[Teardown]
	Overdue    *Of[Overdue]
	Ending     *Of[Ending]
	Terminated *Of[Terminated]
	Sealed     *Of[Sealed]
	// Rebuffs are in the order in which they were recorded: one for each gate
	// and cause at most.
	Rebuffs []Of[Rebuffed]
}

// Name is the runner's name.
func (r *Runner) Name() Name { return r.Claimed.Event.Runner }

// Ended is when it was decided that no job runs here any more, and whether it
// was: completed, refused or retired.
func (r *Runner) Ended() (time.Time, bool) {
	switch {
	case r.Refused != nil:
		return r.Refused.At, true
	case r.Retired != nil:
		return r.Retired.At, true
	case r.Completed != nil:
		return r.Completed.At, true
	}
	return time.Time{}, false
}

// Phase names where the runner is in its life: the last thing recorded of it.
func (r *Runner) Phase() Kind {
	switch {
	case r.Sealed != nil:
		return KindSealed
	case r.Terminated != nil:
		return KindTerminated
	case r.Teardown != nil:
		return KindTeardown
	case r.Refused != nil:
		return KindRefused
	case r.Retired != nil:
		return KindRetired
	case r.Completed != nil:
		return KindCompleted
	case r.Started != nil:
		return KindStarted
	case r.Released != nil:
		return KindReleased
	case r.Bound != nil:
		return KindBound
	}
	return KindClaimed
}

// Phase names where the job is: the last thing recorded of it.
func (j *Job) Phase() Kind {
	switch {
	case j.Concluded != nil:
		return KindConcluded
	case j.Runner != "":
		return KindStarted
	case j.Denied != nil:
		return KindDenied
	case j.Authorized != nil:
		return KindAuthorized
	}
	return KindOffered
}

// waiting says that the job is authorized and still wants a runner. A job that
// GitHub says has a runner waits no more, whatever becomes of that runner: it
// is never given to another.
func (j *Job) waiting() bool {
	return j.Authorized != nil && j.Runner == "" && !j.Refused && j.Reported == nil && j.Concluded == nil
}

// idle says that the runner could still take a job.
func (r *Runner) idle() bool {
	_, ended := r.Ended()
	return !ended && r.Started == nil
}

// Head is the newest record of a chain.
type Head struct {
	Count   uint64
	Digest  Digest
	Indexes []uint64
}

// State is the fold of the log. The zero value is not ready; use [NewState].
// It is not safe for concurrent use.
type State struct {
	Jobs    map[JobID]*Job
	Runners map[Name]*Runner
	Runs    map[int64]*Run
	// Strays are those not yet seen gone, by [StrayKey].
	Strays map[string]*Of[Stray]
	Chains map[Chain]Head
	// Hosts remembers every host ever claimed, by instance id, node UID and
	// boot id, for the life of the log.
	Hosts map[string]Name
	// Frozen is the freeze in force, if any.
	Frozen *Of[Frozen]
	Opened *Of[Opened]
	// Closed is the end of a year that the log has not gone on after yet.
	Closed *Of[Closed]
	// Rotated is the newest handover of each kind of key.
	Rotated map[KeyUse]*Of[Rotated]
	// Outages are the times that the log's store was away, oldest first.
	Outages []Of[Spooled]
	// Size is the number of records folded, LastAt and Last the time and the
	// digest of the newest.
	Size   uint64
	LastAt time.Time
	Last   Digest
}

// NewState is the state of an empty log.
func NewState() *State {
	return &State{
		Jobs:    map[JobID]*Job{},
		Runners: map[Name]*Runner{},
		Runs:    map[int64]*Run{},
		Strays:  map[string]*Of[Stray]{},
		Chains:  map[Chain]Head{},
		Hosts:   map[string]Name{},
		Rotated: map[KeyUse]*Of[Rotated]{},
	}
}

// ErrRecorded says that the log already holds this fact. A caller that is
// told so has nothing left to do: redelivery is a no-op.
var ErrRecorded = errors.New("already recorded")

// Violation says that an event would break one of the invariants that
// evidence.Meaning puts into words. The daemon
// never writes such an event; the verifier reports one that stands in a log.
type Violation struct {
	// Invariant is the number of the invariant, Rule its code in documents.
	Invariant int
	Rule      string
	Chain     Chain
	Detail    string
}

func (v *Violation) Error() string {
	return fmt.Sprintf("invariant %d (%s) broken by %s: %s", v.Invariant, v.Rule, v.Chain, v.Detail)
}

// Apply folds the next record. It returns what [State.Check] returns and then
// leaves the state as it was; it also refuses a record out of sequence.
func (s *State) Apply(rec Record) error {
	if rec.Index != s.Size {
		return &Violation{7, "sequence", rec.Event.Chain(), fmt.Sprintf("record %d follows record %d", rec.Index, s.Size)}
	}
	if err := s.Check(rec.Event, rec.At); err != nil {
		return err
	}
	s.fold(rec)
	head := s.Chains[rec.Event.Chain()]
	head.Count++
	head.Digest = rec.Digest
	head.Indexes = append(head.Indexes, rec.Index)
	s.Chains[rec.Event.Chain()] = head
	s.Size++
	s.LastAt, s.Last = rec.At, rec.Digest
	return nil
}

func of[E Event](rec Record, e E) *Of[E] {
	return &Of[E]{rec.Index, rec.Digest, rec.At, e}
}

func (s *State) fold(rec Record) {
	switch e := rec.Event.(type) {
	case Opened:
		s.Opened = of(rec, e)
	case Rotated:
		s.Rotated[e.Use] = of(rec, e)
	case Heartbeat, Gap:
	case Closed:
		s.Closed = of(rec, e)
	case Continued:
		s.Closed = nil
	case Frozen:
		s.Frozen = of(rec, e)
	case Unfrozen:
		s.Frozen = nil
	case Spooled:
		s.Outages = append(s.Outages, *of(rec, e))
	case Offered:
		// A job that was given back to the queue is offered, and decided, anew.
		job := &Job{Offered: *of(rec, e), Undecided: rec.At}
		if old := s.Jobs[e.Job]; old != nil {
			job.Spent, job.Before = old.Spent, old.Concluded.Event.MessageID
			if old.Authorized == nil && old.Denied == nil {
				job.Undecided = old.Undecided
			}
		}
		s.Jobs[e.Job] = job
	case Authorized:
		s.Jobs[e.Job].Authorized = of(rec, e)
	case Denied:
		s.Jobs[e.Job].Denied = of(rec, e)
	case Reported:
		s.Jobs[e.Job].Reported = of(rec, e)
	case Concluded:
		s.Jobs[e.Job].Concluded = of(rec, e)
	case Reviewed, Asked, Ruled, Answered, Stray, Swept:
		s.foldRun(rec)
	default:
		s.foldRunner(rec)
	}
}

func (s *State) foldRunner(rec Record) {
	switch e := rec.Event.(type) {
	case Claimed:
		s.Runners[e.Runner] = &Runner{Claimed: *of(rec, e)}
		for _, key := range hostKeys(e.Host) {
			s.Hosts[key] = e.Runner
		}
	case Bound:
		s.Runners[e.Runner].Bound = of(rec, e)
	case Released:
		s.Runners[e.Runner].Released = of(rec, e)
	case Started:
		s.Runners[e.Runner].Started = of(rec, e)
		s.Jobs[e.Job].Runner = e.Runner
	case Refused:
		s.Runners[e.Runner].Refused = of(rec, e)
		if job := s.Jobs[e.Job]; job != nil && job.Authorized != nil {
			job.Refused = true
		}
	case Retired:
		r := s.Runners[e.Runner]
		r.Retired = of(rec, e)
		if job := s.Jobs[r.Claimed.Event.Cause]; job != nil && r.Started == nil && spends(e.Cause) && job.waiting() {
			job.Spent++
		}
	case Completed:
		s.Runners[e.Runner].Completed = of(rec, e)
	case Cancelled:
		if e.Runner != "" {
			s.Runners[e.Runner].Cancelled = of(rec, e)
		} else {
			s.Jobs[e.Job].Cancelled = of(rec, e)
		}
	case Teardown:
		s.Runners[e.Runner].Teardown = of(rec, e)
	case Overdue:
		s.Runners[e.Runner].Overdue = of(rec, e)
	case Ending:
		s.Runners[e.Runner].Ending = of(rec, e)
	case Terminated:
		s.Runners[e.Runner].Terminated = of(rec, e)
	case Sealed:
		s.Runners[e.Runner].Sealed = of(rec, e)
	case Rebuffed:
		r := s.Runners[e.Runner]
		r.Rebuffs = append(r.Rebuffs, *of(rec, e))
	}
}

// spends says whether a retirement counts against the job that the runner was
// made for, if that job still waits. An idle end counts too: a job that GitHub
// shows as assigned and never gives to anybody would use up host after host.
func spends(c Cause) bool {
	switch c {
	case CauseNeverBound, CauseNeverReleased, CauseRegistrationLost, CausePodFailed, CauseHostLost, CauseIdle, CauseHostSilent, CauseHostEnded:
		return true
	}
	return false
}

// MayHold lists the runners whose pods may hold a job that was not allowed to
// start: GitHub gives a job to any registered runner, and tells us later which
// it was.
func (s *State) MayHold(id JobID) []Name {
	var out []Name
	if j := s.Jobs[id]; j != nil && j.Reported != nil {
		if r := s.Runners[j.Reported.Event.Runner]; r != nil {
			out = append(out, r.Name())
		}
		return out
	}
	for _, name := range sortedKeys(s.Runners) {
		if r := s.Runners[name]; r.Bound != nil && r.Started == nil && r.Terminated == nil {
			out = append(out, name)
		}
	}
	return out
}

// foreign says that GitHub gave the job to a runner that is not ours.
func (s *State) foreign(j *Job) bool { return j.Reported != nil && s.ran(j) == nil }

// ran is our runner that GitHub reported the job on, nil if it is none. A name
// of ours under another number is somebody else's registration: a name is ours
// only with the number that GitHub gave it when we registered it.
func (s *State) ran(j *Job) *Runner {
	e := j.Reported.Event
	r := s.Runners[e.Runner]
	if r != nil && r.Released != nil && e.RunnerID != 0 && r.Released.Event.RunnerID != e.RunnerID {
		return nil
	}
	return r
}

// hostKeys are the names under which a host must never be seen again.
func hostKeys(h Host) []string {
	keys := []string{"instance/" + h.InstanceID, "node/" + h.NodeUID}
	if h.BootID != "" {
		keys = append(keys, "boot/"+h.BootID)
	}
	return keys
}

// UsedBy is the runner that a host once served, by any of its names.
func (s *State) UsedBy(h Host) (Name, bool) {
	for _, key := range hostKeys(h) {
		if name, ok := s.Hosts[key]; ok {
			return name, true
		}
	}
	return "", false
}
