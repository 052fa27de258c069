package runner

import "time"

// Outcome says how a runner's life ended.
type Outcome string

// The outcomes of a sealed runner.
const (
	OutcomeCompleted Outcome = "completed" // a job ran until its runner was over
	OutcomeRefused   Outcome = "refused"   // what arrived was not allowed to run
	OutcomeRetired   Outcome = "retired"   // see the cause
)

// Sealed is the job-to-host statement: which job ran on which host, who
// approved it, and that the host is gone. It says nothing that the events it
// names do not say; [State.Seal] derives it and the verifier derives it again.
type Sealed struct {
	Runner     Name      `json:"runner" pat:"name"`
	Outcome    Outcome   `json:"outcome" pat:"word"`
	Cause      Cause     `json:"cause,omitempty" pat:"word,opt"`
	Assurance  Levels    `json:"assurance"`
	Job        *JobSeal  `json:"job,omitempty"`
	Pod        *Bound    `json:"pod,omitempty"`
	Host       Host      `json:"host"`
	RunnerID   int64     `json:"runnerId,string"`
	ScaleSetID int64     `json:"scaleSetId,string"`
	JITConfig  Digest    `json:"jitConfig,omitempty" pat:"digest,opt"`
	Reasons    []string  `json:"reasons,omitempty" pat:"word"`
	Teardown   Gone      `json:"teardown"`
	Times      Times     `json:"times"`
	Events     ChainSeal `json:"events"`
}

// Levels are the assurance levels of the parts of the statement.
type Levels struct {
	Host Assurance `json:"host" pat:"word"`
	Pod  Assurance `json:"pod" pat:"word"`
	Job  Assurance `json:"job" pat:"word"`
}

// JobSeal is the job of a sealed runner.
type JobSeal struct {
	ID         JobID     `json:"id" pat:"job"`
	Caused     bool      `json:"caused"` // the runner was made for this very job
	Facts      Facts     `json:"facts"`
	Claims     Claims    `json:"claims"`
	Authorized Digest    `json:"authorized" pat:"digest"`
	Policy     Digest    `json:"policy" pat:"digest"`
	Result     Result    `json:"result" pat:"word"`
	Events     ChainSeal `json:"events"`
}

// Gone summarises the terminated record.
type Gone struct {
	InstanceID string    `json:"instanceId" pat:"host"`
	State      string    `json:"state" pat:"word"`
	ObservedAt time.Time `json:"observedAt"`
	Volumes    []string  `json:"volumes" pat:"word"`
	Overdue    bool      `json:"overdue"`
	Record     Digest    `json:"record" pat:"digest"`
}

// Times are when each step was recorded; zero when it did not happen.
type Times struct {
	Offered    time.Time `json:"offered,omitzero"`
	Authorized time.Time `json:"authorized,omitzero"`
	Claimed    time.Time `json:"claimed"`
	Bound      time.Time `json:"bound,omitzero"`
	Released   time.Time `json:"released,omitzero"`
	Started    time.Time `json:"started,omitzero"`
	Ended      time.Time `json:"ended"`
	Terminated time.Time `json:"terminated"`
}

// ChainSeal points back at the records of a chain.
type ChainSeal struct {
	Indexes []uint64 `json:"indexes"`
	Head    Digest   `json:"head" pat:"digest"`
}

// Seal derives the job-to-host statement of a terminated runner. It is the
// zero value when the runner is unknown or its host is not yet gone.
func (s *State) Seal(name Name) Sealed {
	r := s.Runners[name]
	if r == nil || r.Terminated == nil {
		return Sealed{}
	}
	claimed, gone := r.Claimed.Event, r.Terminated
	ended, _ := r.Ended()
	out := Sealed{
		Runner:    name,
		Assurance: Levels{Host: claimed.Host.Assurance, Pod: L1, Job: L1},
		Host:      claimed.Host,
		Teardown: Gone{
			InstanceID: gone.Event.InstanceID,
			State:      gone.Event.States[len(gone.Event.States)-1].State,
			ObservedAt: gone.Event.States[len(gone.Event.States)-1].At,
			Volumes:    gone.Event.VolumesGone,
			Overdue:    r.Overdue != nil,
			Record:     gone.Digest,
		},
		Times:  Times{Claimed: r.Claimed.At, Ended: ended, Terminated: gone.At},
		Events: s.chainSeal(RunnerChain(name)),
	}
	switch {
	case r.Refused != nil:
		out.Outcome, out.Reasons = OutcomeRefused, r.Refused.Event.Decision.Reasons
	case r.Retired != nil:
		out.Outcome, out.Cause = OutcomeRetired, r.Retired.Event.Cause
	default:
		out.Outcome = OutcomeCompleted
	}
	if r.Bound != nil {
		out.Pod, out.Times.Bound = &r.Bound.Event, r.Bound.At
	}
	if r.Released != nil {
		out.RunnerID, out.ScaleSetID = r.Released.Event.RunnerID, r.Released.Event.ScaleSetID
		out.JITConfig, out.Times.Released = r.Released.Event.JITConfig, r.Released.At
	}
	if r.Started != nil {
		s.sealJob(&out, r)
	}
	return out
}

func (s *State) sealJob(out *Sealed, r *Runner) {
	started := r.Started.Event
	job := s.Jobs[started.Job]
	out.Job = &JobSeal{
		ID:         started.Job,
		Caused:     started.Job == r.Claimed.Event.Cause,
		Facts:      job.Authorized.Event.Facts,
		Claims:     started.Claims,
		Authorized: started.Authorized,
		Policy:     started.Decision.Policy,
		Result:     ResultUnknown,
		Events:     s.chainSeal(JobChain(started.Job)),
	}
	// A result that GitHub tells of another runner is not this one's.
	if c := job.Concluded; c != nil && (c.Event.Runner == "" || c.Event.Runner == r.Name()) {
		out.Job.Result = c.Event.Result
	}
	out.Times.Offered, out.Times.Authorized = job.Offered.At, job.Authorized.At
	out.Times.Started = r.Started.At
}

func (s *State) chainSeal(c Chain) ChainSeal {
	head := s.Chains[c]
	return ChainSeal{Indexes: append([]uint64{}, head.Indexes...), Head: head.Digest}
}
