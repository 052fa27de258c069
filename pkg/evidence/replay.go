package evidence

import (
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

// Replay reads the envelopes of a log in order: it grows the tree, follows the
// chains, decodes the events and takes over the keys that the log hands over
// to, which its verifier knows from then on. A ledger uses it when it opens and
// goes on from where it ended; [Verify] uses it for the whole log. It is not
// safe for concurrent use.
type Replay struct {
	// Tree is that of the shard that is being read.
	Tree   *Tree
	Chains *Chains
	keys   *Verifier
	place  Place
	last   time.Time // of the record read last
}

// NewReplay is at the beginning of a log that is checked with these keys.
func NewReplay(keys *Verifier) *Replay {
	return &Replay{Tree: &Tree{}, Chains: NewChains(), keys: keys}
}

// Turn goes on in the next shard of the log, whose tree is empty.
func (r *Replay) Turn(to Shard) {
	r.place = Place{to, r.Size()}
	r.Tree = &Tree{}
}

// Place is the shard that is being read.
func (r *Replay) Place() Place { return r.place }

// Size is the number of records in all shards.
func (r *Replay) Size() uint64 { return r.place.Before + r.Tree.Size() }

// resume begins in the middle of a log, with this shard, whose first envelope
// this is: the years before are not at hand. It returns whether the envelope
// says how many records they have; without that nothing can be resumed.
func (r *Replay) resume(shard Shard, envelope []byte) bool {
	payload, keyID, _ := r.keys.Envelope(envelope) // Next says what is wrong with it
	st, err := ParseStatement(payload)
	if err != nil {
		return false
	}
	e, err := runner.DecodeEvent(st.Predicate.Event, st.Predicate.Detail)
	continued, ok := e.(runner.Continued)
	if err != nil || !ok {
		return false
	}
	r.place = Place{shard, continued.Before}
	r.keys.resume(keyID, continued.Before)
	r.Chains.elsewhere = map[runner.Chain]bool{}
	return true
}

// Next reads the next envelope. It returns everything that is wrong with it
// and goes on all the same, so that one bad record does not hide the next. The
// event of the record is nil when it could not be decoded.
func (r *Replay) Next(envelope []byte) (runner.Record, []error) {
	rec := runner.Record{Index: r.Size(), Digest: runner.DigestOf(envelope)}
	var errs []error
	if err := r.Tree.Add(envelope); err != nil {
		errs = append(errs, err)
	}
	payload, keyID, err := r.keys.Envelope(envelope)
	if err != nil {
		errs = append(errs, err)
	}
	if payload == nil {
		return rec, errs
	}
	signed := err == nil
	st, err := ParseStatement(payload)
	if err != nil {
		errs = append(errs, err)
	}
	rec.At = st.Predicate.ObservedAt
	if signed {
		if err := r.keys.ValidAt(keyID, rec.At); err != nil {
			errs, signed = append(errs, err), false
		}
	}
	e, err := runner.DecodeEvent(st.Predicate.Event, st.Predicate.Detail)
	if err != nil {
		// The chain goes on from here, or every later record of it would be
		// blamed for this one.
		r.Chains.link(st.Predicate.Chain, rec.Digest)
		return rec, append(errs, problem(9, "closed-fields", "%v", err))
	}
	errs = append(errs, r.Chains.Check(st, e)...)
	rec.Event = e
	if err := r.add(rec, signed); err != nil {
		errs = append(errs, err)
	}
	return rec, errs
}

// Check says whether an event may be written at this time as far as keys go: a
// handover that readers would not follow must not get into the log.
func (r *Replay) Check(at time.Time, e runner.Event) error {
	if rotated, ok := e.(runner.Rotated); ok {
		return r.keys.checkHandover(r.last, at, rotated)
	}
	return nil
}

// Add goes on past a record that was just written: its chain is one longer,
// and the key that it hands over to, if it does, is in force.
func (r *Replay) Add(rec runner.Record) error { return r.add(rec, true) }

// add follows a handover only when the key in force signed the record.
func (r *Replay) add(rec runner.Record, signed bool) error {
	r.Chains.Add(rec.Event, rec.Digest)
	previous := r.last
	r.last = rec.At
	rotated, ok := rec.Event.(runner.Rotated)
	switch {
	case !ok:
		return nil
	case !signed:
		return problem(7, "rotation", "the handover to key %s is not signed by the old key", rotated.New)
	}
	return r.keys.follow(rec.Index, previous, rec.At, rotated)
}

// Inputs are the digests of the attachments that an event rests on: what a
// decision was asked and by which policy, and the documents with which a daemon
// opened the log, which every later year of it has again.
func Inputs(e runner.Event) []runner.Digest {
	var d runner.Decision
	switch e := e.(type) {
	case runner.Opened:
		return []runner.Digest{e.ConfigDigest, e.PolicyDigest, e.RootDigest}
	case runner.Continued:
		return e.InEffect
	case runner.Authorized:
		d = e.Decision
	case runner.Denied:
		d = e.Decision
	case runner.Started:
		d = e.Decision
	case runner.Refused:
		d = e.Decision
	case runner.Claimed:
		if id := e.Host.Identity; id != nil {
			return []runner.Digest{id.Document, id.Signature}
		}
		return nil
	default:
		return nil
	}
	return []runner.Digest{d.Input, d.Policy}
}
