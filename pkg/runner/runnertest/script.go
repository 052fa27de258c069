package runnertest

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

// Append makes the next record of a log. The Append method of a ledger has
// this shape once its context is bound.
type Append func(at time.Time, e runner.Event) (runner.Record, error)

// PutBlob stores an attachment and returns its digest.
type PutBlob func(b []byte) (runner.Digest, error)

// Memory is a log without a ledger: records are numbered from 0 and their
// digest is that of the event's JSON, their number and time. It checks nothing.
func Memory() Append {
	var size uint64
	return func(at time.Time, e runner.Event) (runner.Record, error) {
		detail, err := json.Marshal(e)
		if err != nil {
			return runner.Record{}, err
		}
		digest := runner.DigestOf(fmt.Appendf(detail, "/%d/%s", size, at.UTC().Format(time.RFC3339Nano)))
		rec := runner.Record{Index: size, Digest: digest, At: at, Event: e}
		size++
		return rec, nil
	}
}

// Script appends stories to a log. It keeps the fold of what it appended, and
// a clock that moves by Step with every record. It is not safe for concurrent
// use.
type Script struct {
	// State is the fold of the records so far. A record that breaks an
	// invariant is appended and then left out of it, see [Script.Say].
	State *runner.State
	// Records are all that were appended, in order.
	Records []runner.Record
	// Now is the time of the next record.
	Now  time.Time
	Step time.Duration
	// Root is what verifies the log, for the record that opens it to name. Nil
	// stands for one that nobody will verify anything by.
	Root []byte

	// NewYear is what the log wants appended first at this time, nil when it
	// wants nothing; see the ledger's method. A nil function never does.
	NewYear func(at time.Time) (runner.Event, error)

	appendTo Append
	putBlob  PutBlob
}

// NewScript writes to this log, from [Start] on, one record a second. With a
// nil putBlob the inputs of decisions are digested and stored nowhere.
func NewScript(appendTo Append, putBlob PutBlob) *Script {
	if putBlob == nil {
		putBlob = func(b []byte) (runner.Digest, error) { return runner.DigestOf(b), nil }
	}
	return &Script{State: runner.NewState(), Now: Start(), Step: time.Second, appendTo: appendTo, putBlob: putBlob}
}

// Say appends an event and folds it. Its error is the log's; an event that the
// fold refuses is in the log all the same, which is how a test makes a log
// that is wrong. The second result is what the fold said.
func (s *Script) Say(e runner.Event) (rec runner.Record, refused, err error) {
	at := s.Now
	s.Now = s.Now.Add(s.Step)
	for s.NewYear != nil {
		first, err := s.NewYear(at)
		if err != nil {
			return rec, nil, fmt.Errorf("begin a year: %w", err)
		}
		if first == nil {
			break
		}
		if _, refused, err := s.say(at, first); err != nil || refused != nil {
			return rec, refused, err
		}
	}
	return s.say(at, e)
}

func (s *Script) say(at time.Time, e runner.Event) (rec runner.Record, refused, err error) {
	rec, err = s.appendTo(at, e)
	if err != nil {
		return rec, nil, fmt.Errorf("append %s: %w", e.Kind(), err)
	}
	s.Records = append(s.Records, rec)
	return rec, s.State.Apply(rec), nil
}

// Must appends an event that has to be valid.
func (s *Script) Must(e runner.Event) error {
	_, refused, err := s.Say(e)
	if err != nil {
		return err
	}
	if refused != nil {
		return fmt.Errorf("script: %w", refused)
	}
	return nil
}

// Open appends the record with which a daemon opens a log.
func (s *Script) Open() error {
	opened := runner.Opened{Version: "v0.1.0", Instance: "gha-runners/runnerward-0"}
	root := s.Root
	if root == nil {
		root = []byte("root")
	}
	for _, document := range []struct {
		content []byte
		digest  *runner.Digest
	}{{[]byte("config"), &opened.ConfigDigest}, {[]byte(policyBundle), &opened.PolicyDigest}, {root, &opened.RootDigest}} {
		var err error
		if *document.digest, err = s.putBlob(document.content); err != nil {
			return fmt.Errorf("store what is in effect: %w", err)
		}
	}
	return s.Must(opened)
}

// policyBundle stands for the policy of a script's decisions.
const policyBundle = "policy bundle"

// Decide stores what the policy was asked, with the policy, and returns its
// verdict.
func (s *Script) Decide(c Cast, gate runner.Gate, reasons ...string) (runner.Decision, error) {
	input, err := json.Marshal(c.Question(gate, s.Now))
	if err != nil {
		return runner.Decision{}, err
	}
	digest, err := s.putBlob(input)
	if err != nil {
		return runner.Decision{}, fmt.Errorf("store the policy's input: %w", err)
	}
	if _, err := s.putBlob([]byte(policyBundle)); err != nil {
		return runner.Decision{}, fmt.Errorf("store the policy: %w", err)
	}
	return Decision(digest, s.Now, reasons...), nil
}

// PutBlob stores an attachment that no event of a story stores by itself.
func (s *Script) PutBlob(b []byte) (runner.Digest, error) { return s.putBlob(b) }

// CompletedStory is the life of a job that ran to its end, without the
// optional Reported.
func CompletedStory() []runner.Kind {
	return []runner.Kind{
		runner.KindOffered, runner.KindReviewed, runner.KindAuthorized, runner.KindClaimed, runner.KindBound, runner.KindReleased,
		runner.KindStarted, runner.KindConcluded, runner.KindCompleted,
		runner.KindTeardown, runner.KindTerminated, runner.KindSealed,
	}
}

// DeniedStory is the life of a job that may not run.
func DeniedStory() []runner.Kind { return []runner.Kind{runner.KindOffered, runner.KindDenied} }

// RefusedStory is the life of a job that was turned away at its runner.
func RefusedStory() []runner.Kind {
	return []runner.Kind{
		runner.KindOffered, runner.KindReviewed, runner.KindAuthorized, runner.KindClaimed, runner.KindBound, runner.KindReleased,
		runner.KindRefused, runner.KindTeardown, runner.KindTerminated, runner.KindSealed,
	}
}

// RetiredStory is the life of a runner that no job reached.
func RetiredStory() []runner.Kind {
	return []runner.Kind{
		runner.KindOffered, runner.KindReviewed, runner.KindAuthorized, runner.KindClaimed, runner.KindBound, runner.KindReleased,
		runner.KindRetired, runner.KindTeardown, runner.KindTerminated, runner.KindSealed,
	}
}

// Upto is the part of a story that ends with this kind.
func Upto(story []runner.Kind, last runner.Kind) []runner.Kind {
	for i, k := range story {
		if k == last {
			return story[:i+1]
		}
	}
	return story
}

// Tell appends a story of one cast, or the part of it given.
func (s *Script) Tell(c Cast, story []runner.Kind) error {
	for _, kind := range story {
		e, err := s.Next(c, kind)
		if err != nil {
			return err
		}
		if err := s.Must(e); err != nil {
			return err
		}
	}
	return nil
}

// Next is the cast's event of this kind, linked to the records so far. It
// stores the input of a decision and appends nothing. Links to records that do
// not exist are links to the digest of nothing, so that a test can make an
// event that comes too early.
func (s *Script) Next(c Cast, kind runner.Kind) (runner.Event, error) {
	authorized, bound := s.links(c)
	switch kind {
	case runner.KindOffered:
		return c.Offered(s.Now), nil
	case runner.KindReviewed:
		return c.Reviewed(s.Now), nil
	case runner.KindReported:
		return c.Reported(), nil
	case runner.KindConcluded:
		return c.Concluded(), nil
	case runner.KindClaimed:
		return c.Claimed(authorized), nil
	case runner.KindBound:
		return c.Bound(authorized), nil
	case runner.KindReleased:
		return c.Released(), nil
	case runner.KindRetired:
		return runner.Retired{Runner: c.Runner, Cause: runner.CauseSurplus}, nil
	case runner.KindCompleted:
		return c.Completed(), nil
	case runner.KindTeardown:
		return c.Teardown(), nil
	case runner.KindTerminated:
		return c.Terminated(s.Now), nil
	case runner.KindSealed:
		return s.State.Seal(c.Runner), nil
	}
	return s.decided(c, kind, authorized, bound)
}

// decided is an event that carries a decision.
func (s *Script) decided(c Cast, kind runner.Kind, authorized, bound runner.Digest) (runner.Event, error) {
	gate, reasons := runner.GateAdmission, []string(nil)
	switch kind {
	case runner.KindDenied:
		reasons = []string{"approval-missing"}
	case runner.KindStarted:
		gate = runner.GateStart
	case runner.KindRefused:
		gate, reasons = runner.GateStart, []string{"claims-run"}
	}
	d, err := s.Decide(c, gate, reasons...)
	if err != nil {
		return nil, err
	}
	switch kind {
	case runner.KindAuthorized:
		return runner.Authorized{Job: c.Job, Facts: c.Facts(s.Now), Decision: d}, nil
	case runner.KindDenied:
		return c.Denied(d), nil
	case runner.KindStarted:
		return c.Started(authorized, bound, d, s.Now), nil
	case runner.KindRefused:
		return c.Refused(d, s.Now), nil
	}
	return nil, fmt.Errorf("script: no event of kind %s", kind)
}

func (s *Script) links(c Cast) (authorized, bound runner.Digest) {
	authorized, bound = runner.DigestOf(nil), runner.DigestOf(nil)
	if job := s.State.Jobs[c.Job]; job != nil && job.Authorized != nil {
		authorized = job.Authorized.Digest
	}
	if r := s.State.Runners[c.Runner]; r != nil && r.Bound != nil {
		bound = r.Bound.Digest
	}
	return authorized, bound
}
