package evidence

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

// The types of a statement and of the two predicates of the log. The addresses
// are constant: they name the format, not a place that must answer.
const (
	StatementType    = "https://in-toto.io/Statement/v1"
	JobEventType     = "https://runnerward.github.io/attestations/job-event/v1"
	JobToHostType    = "https://runnerward.github.io/attestations/job-to-host/v1"
	jobIDSchema      = "github-actions-job/v1"
	chainSubjectName = "urn:runnerward:chain:"
)

// Statement is an in-toto Statement v1 about one event.
type Statement struct {
	Type          string    `json:"_type"`
	Subject       []Subject `json:"subject"`
	PredicateType string    `json:"predicateType"`
	Predicate     Predicate `json:"predicate"`
}

// Subject is what a statement is about. in-toto matches subjects by digest
// alone, so the digest is of bytes that anyone can write down again.
type Subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"`
}

// Predicate is the event and its place in its chain.
type Predicate struct {
	Event runner.Kind  `json:"event"`
	Chain runner.Chain `json:"chain"`
	// Seq numbers the records of a chain from 0; Prev is the digest of the
	// chain's previous envelope, empty for the first.
	Seq        uint64          `json:"seq"`
	Prev       runner.Digest   `json:"prev"`
	ObservedAt time.Time       `json:"observedAt"`
	Recorder   Recorder        `json:"recorder"`
	Detail     json.RawMessage `json:"detail"`
}

// Recorder is the program that wrote a record.
type Recorder struct {
	ID      string `json:"id" pat:"url"`
	Version string `json:"version" pat:"word"`
}

// JobIDFile is the file that names a job for ever: the artifact to hand to a
// stock verifier. It can be written from a job's address and the numeric id of
// its repository.
func JobIDFile(serverURL string, repositoryID, runID, attempt, checkRunID int64) []byte {
	return fmt.Appendf(nil, "%s\n%s\n%d\n%d\n%d\n%d\n", jobIDSchema, serverURL, repositoryID, runID, attempt, checkRunID)
}

func jobSubject(f runner.Facts, checkRunID int64) Subject {
	id := JobIDFile(f.ServerURL, f.RepositoryID, f.RunID, f.RunAttempt, checkRunID)
	return Subject{
		Name:   fmt.Sprintf("%s/%s/actions/runs/%d/job/%d", f.ServerURL, f.Repository, f.RunID, checkRunID),
		Digest: map[string]string{"sha256": runner.DigestOf(id).Hex()},
	}
}

func chainSubject(c runner.Chain) Subject {
	return Subject{
		Name:   chainSubjectName + string(c),
		Digest: map[string]string{"sha256": runner.DigestOf([]byte(c)).Hex()},
	}
}

func predicateType(k runner.Kind) string {
	if k == runner.KindSealed {
		return JobToHostType
	}
	return JobEventType
}

// Chains follows the chains of a log: which record comes next in each, and
// which job it is about. It is what a writer needs to make a statement and a
// reader to check one. It is not safe for concurrent use.
type Chains struct {
	heads map[runner.Chain]link
	jobs  map[runner.JobID]runner.Facts
	// elsewhere are the chains whose first records are in years that are not
	// at hand; nil for a log that is read from its beginning.
	elsewhere map[runner.Chain]bool
}

type link struct {
	count uint64
	head  runner.Digest
}

// NewChains is the chains of an empty log.
func NewChains() *Chains {
	return &Chains{heads: map[runner.Chain]link{}, jobs: map[runner.JobID]runner.Facts{}}
}

// Statement encodes the event as the next of its chain. It returns the event
// as a reader will decode it, so that what is remembered of it cannot differ
// from what a replay finds.
func (c *Chains) Statement(by Recorder, at time.Time, e runner.Event) (payload []byte, read runner.Event, err error) {
	if err := runner.Validate(by); err != nil {
		return nil, nil, fmt.Errorf("recorder: %w", err)
	}
	detail, err := json.Marshal(e)
	if err != nil {
		return nil, nil, fmt.Errorf("encode %s: %w", e.Kind(), err)
	}
	read, err = runner.DecodeEvent(e.Kind(), detail)
	if err != nil {
		return nil, nil, fmt.Errorf("event cannot be recorded: %w", err)
	}
	head := c.heads[read.Chain()]
	payload, err = json.Marshal(Statement{
		Type:          StatementType,
		Subject:       []Subject{c.subject(read)},
		PredicateType: predicateType(read.Kind()),
		Predicate: Predicate{
			Event: read.Kind(), Chain: read.Chain(), Seq: head.count, Prev: head.head,
			ObservedAt: at.Round(0).UTC(), Recorder: by, Detail: detail,
		},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("encode statement: %w", err)
	}
	return payload, read, nil
}

// Add makes the record with this digest the head of its chain.
func (c *Chains) Add(e runner.Event, digest runner.Digest) {
	if a, ok := e.(runner.Authorized); ok {
		c.jobs[a.Job] = a.Facts
	}
	c.link(e.Chain(), digest)
}

func (c *Chains) link(chain runner.Chain, digest runner.Digest) {
	head := c.heads[chain]
	c.heads[chain] = link{head.count + 1, digest}
}

// subject is the job when it is known which one, else the chain.
func (c *Chains) subject(e runner.Event) Subject {
	var facts runner.Facts
	var checkRun int64
	switch e := e.(type) {
	case runner.Authorized:
		facts, checkRun = e.Facts, e.Facts.CheckRunID
	case runner.Started:
		facts, checkRun = c.jobs[e.Job], e.Claims.CheckRunID
	case runner.Sealed:
		if e.Job != nil {
			facts, checkRun = e.Job.Facts, e.Job.Claims.CheckRunID
		}
	}
	if facts.RunID == 0 || checkRun == 0 {
		return chainSubject(e.Chain())
	}
	return jobSubject(facts, checkRun)
}

// ParseStatement decodes a payload. Fields that this version does not know are
// ignored; what it knows must be right. Its error is a [*Problem].
func ParseStatement(payload []byte) (Statement, error) {
	var st Statement
	if err := json.Unmarshal(payload, &st); err != nil {
		return st, problem(7, "statement", "the payload is not a statement: %v", err)
	}
	p := st.Predicate
	switch {
	case st.Type != StatementType:
		return st, problem(7, "statement-type", "the statement has type %.80q, want %q", st.Type, StatementType)
	case st.PredicateType != predicateType(p.Event):
		return st, problem(7, "predicate-type", "a %.40s event has predicate type %.120q, want %q",
			p.Event, st.PredicateType, predicateType(p.Event))
	case p.ObservedAt.IsZero() || p.ObservedAt.Location() != time.UTC:
		return st, problem(7, "time", "the statement has no time in UTC")
	}
	return st, nil
}

// Check says whether the statement, which holds this event, is the next of its
// chain and about the right subject. Its errors are [*Problem]s.
func (c *Chains) Check(st Statement, e runner.Event) []error {
	var errs []error
	p := st.Predicate
	if p.Chain != e.Chain() {
		errs = append(errs, problem(7, "chain", "the statement names chain %.80q, its event belongs to %q", p.Chain, e.Chain()))
	}
	head, begun := c.heads[e.Chain()]
	if !begun && p.Seq > 0 && c.elsewhere != nil {
		// Taken at its word: what it follows cannot be looked at.
		c.elsewhere[e.Chain()] = true
		head = link{p.Seq, p.Prev}
		c.heads[e.Chain()] = head
	}
	if p.Seq != head.count {
		errs = append(errs, problem(7, "chain-seq", "the statement is number %d of %s, expected was %d", p.Seq, e.Chain(), head.count))
	}
	if p.Prev != head.head {
		errs = append(errs, problem(7, "chain-prev", "the statement follows %.80q, the head of %s is %q", p.Prev, e.Chain(), head.head))
	}
	if want := c.subject(e); !c.unnamed(e) && !sameSubject(st.Subject, want) {
		errs = append(errs, problem(7, "subject", "the statement is about %s, expected was %s", subjectNames(st.Subject), want.Name))
	}
	return errs
}

// unnamed says that the job which a start is about was authorized in a year
// that is not at hand, so that what its subject should be is not known.
func (c *Chains) unnamed(e runner.Event) bool {
	started, ok := e.(runner.Started)
	if !ok || c.elsewhere == nil {
		return false
	}
	_, known := c.jobs[started.Job]
	return !known
}

// begunElsewhere says that the first records of the chain are not at hand.
func (c *Chains) begunElsewhere(chain runner.Chain) bool { return c.elsewhere[chain] }

func sameSubject(got []Subject, want Subject) bool {
	return len(got) == 1 && got[0].Name == want.Name && len(got[0].Digest) == 1 &&
		got[0].Digest["sha256"] == want.Digest["sha256"]
}

func subjectNames(subjects []Subject) string {
	names := make([]string, len(subjects))
	for i, s := range subjects {
		names[i] = fmt.Sprintf("%.120q", s.Name)
	}
	return "[" + strings.Join(names, ", ") + "]"
}
