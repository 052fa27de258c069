package ledger

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/runner"
)

// openings is how many records are looked through for one that names the keys;
// a daemon begins a log with it.
const openings = 16

// genesis is the root that the log is replayed by: the one that its first
// record names, so that keys which have handed over since need not be given
// any more and a key is valid since the same time after every start. Nothing
// is trusted for it: every record is verified by it, and at the end of the
// replay the key in force must be one that we hold, which has signed the
// handover to itself and by it the name of the key before.
//
// A log that is new, or names no keys, has those given. A key that does not
// say since when it is valid is so since the first record.
func (o *opening) genesis(ctx context.Context) (evidence.Root, error) {
	root := o.keys.Root()
	count, read, err := o.firsts(ctx)
	if err != nil {
		return root, err
	}
	var first time.Time
	for i := range min(count, openings) {
		envelope, err := read(i)
		if err != nil {
			return root, err
		}
		at, digest := peek(envelope)
		if first.IsZero() {
			first = at
		}
		if digest != "" {
			return o.namedRoot(ctx, digest)
		}
	}
	if oldest := o.keys.oldest(); !oldest.dated && !first.IsZero() && first.Before(root.RecordKeys[0].From) {
		root.RecordKeys[0].From = first
	}
	return root, nil
}

// firsts is how to read the records that the log begins with. Of a log whose
// very first ones did not reach the store they are in the spool.
func (o *opening) firsts(ctx context.Context) (count int, read func(i int) (envelope []byte, err error), err error) {
	names, err := o.in(o.year).list(ctx, evidence.SegmentFolder)
	if err != nil || len(names) > 0 || o.options.Spool == nil {
		return len(names), func(i int) ([]byte, error) {
			segment, err := o.in(o.year).read(ctx, names[i])
			if err != nil {
				return nil, err
			}
			entries, err := evidence.Entries(segment)
			if err != nil || len(entries) == 0 {
				return nil, nil // which is found, and told, when it is read
			}
			return entries[0], nil
		}, err
	}
	indexes, err := o.options.Spool.List()
	return len(indexes), func(i int) ([]byte, error) { return o.options.Spool.Read(indexes[i]) }, err
}

func (k *Keys) oldest() *recordKey {
	if k.oldRecord != nil {
		return k.oldRecord
	}
	return k.record
}

func (o *opening) namedRoot(ctx context.Context, digest runner.Digest) (evidence.Root, error) {
	name := evidence.BlobName(digest)
	b, err := o.in(o.year).read(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return evidence.Root{}, fmt.Errorf("the log names its public keys in %s, which is missing: restore it from a copy: %w", name, err)
	}
	if err != nil {
		return evidence.Root{}, err
	}
	root, err := evidence.ParseRoot(b)
	switch {
	case runner.DigestOf(b) != digest || err != nil:
		return evidence.Root{}, fmt.Errorf("the log names its public keys in %s, which is damaged: restore it from a copy", name)
	case root.Origin != o.keys.origin:
		return evidence.Root{}, fmt.Errorf("the log is %q, configured is %q", root.Origin, o.keys.origin)
	}
	return root, nil
}

// peek reads the time of a record and the root that it names, if any. It checks
// nothing: what is wrong is found when the records are read.
func peek(envelope []byte) (at time.Time, root runner.Digest) {
	var env evidence.Envelope
	if err := json.Unmarshal(envelope, &env); err != nil {
		return at, ""
	}
	payload, err := base64.StdEncoding.DecodeString(env.Payload)
	if err != nil {
		return at, ""
	}
	st, err := evidence.ParseStatement(payload)
	if err != nil {
		return at, ""
	}
	e, err := runner.DecodeEvent(st.Predicate.Event, st.Predicate.Detail)
	if opened, ok := e.(runner.Opened); ok && err == nil {
		root = opened.RootDigest
	}
	return st.Predicate.ObservedAt, root
}

// viewCheckpoint reads the view's checkpoint before the log is read, when it is
// not known yet which key was in force: it may be by any that we know of. One
// by a key that was in force in between, and is not given any more, counts as
// none; the view is then published anew.
func (o *opening) viewCheckpoint(b []byte) (evidence.Checkpoint, error) {
	cp, err := o.verifier.CheckpointIn(o.year.Place, b)
	for _, key := range []*logKey{o.keys.log, o.keys.oldLog} {
		if err == nil || key == nil {
			continue
		}
		root := o.verifier.Root()
		root.LogKey, root.NextLogKeys = key.vkey, nil
		verifier, rootErr := root.Verifier()
		if rootErr != nil {
			return cp, rootErr
		}
		cp, err = verifier.CheckpointIn(o.year.Place, b)
	}
	return cp, err
}

// checkKeys wants keys that can go on where the log ends.
func (o *opening) checkKeys() error { return o.keys.check(o.verifier) }

// Rotation is the record by which the key in force hands over to the one that
// was given besides it. It is nil when nothing is to be handed over; after it
// was appended there may be one more. It must not be called concurrently with
// Append.
func (l *Log) Rotation(ctx context.Context, at time.Time) (runner.Event, error) {
	e, due, err := l.keys.rotation(ctx, l.verifier, at)
	if err != nil || !due {
		return nil, err
	}
	return e, nil
}

// Root is what an auditor needs to verify the log as it stands: every key that
// has signed in it, and when. It must not be called concurrently with Append.
func (l *Log) Root() evidence.Root {
	root := l.verifier.Root()
	root.KeyProtection = l.keys.protection
	return root
}
