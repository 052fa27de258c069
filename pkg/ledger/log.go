package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

var _ supervisor.Ledger = (*Log)(nil)

// DefaultViewEvery is how often the view is published while records come in.
const DefaultViewEvery = 10 * time.Second

// errUnsettled is returned by Append after an error, until Recover.
var errUnsettled = errors.New("the last append may or may not be in the log: recover first")

// Options of a [Log].
type Options struct {
	// Recorder names the writer in every record.
	Recorder evidence.Recorder
	// ViewEvery is the least time between two publications of the view,
	// measured by the times of records; zero means [DefaultViewEvery].
	ViewEvery time.Duration
	// Spool keeps records while the store cannot be written; nil means that
	// they wait in memory. Patience is how long a record may take to reach the
	// store before it goes there; zero means [DefaultPatience].
	Spool    Spool
	Patience time.Duration
}

// Log is the append-only log. Append, Recover, PublishView and Close must not
// be called concurrently; PutBlob, Head and ViewError may be called at any time.
//
// It keeps the hashes of the whole tree in memory, 64 bytes a record, and the
// envelopes that the last, partial entry bundle of the view consists of.
type Log struct {
	store    Store
	keys     *Keys
	options  Options
	replay   *evidence.Replay
	verifier *evidence.Verifier // the replay's: it knows which key is in force
	view     view

	// pending is the record that an append has begun and not acknowledged.
	pending *pending
	// unsettled: an append failed and Recover has not been called since.
	unsettled bool
	// unsigned is why the last record could not be signed, nil if it could.
	unsigned error

	mu      sync.Mutex // guards what follows
	fenced  error
	size    uint64
	head    []byte // the newest checkpoint
	viewErr error
	// queue are the records that are in the spool and not in the store, oldest
	// first; kept are those whose files are still there. Only the one caller of
	// Append and Recover changes them, and may read them without the lock.
	queue   []*pending
	kept    []kept
	problem error // why the store could not be written the last time
}

// pending is an append under way. The envelope is signed once: ECDSA would
// give other bytes the next time, and the store must be asked about these.
type pending struct {
	record   runner.Record
	envelope []byte
	segment  []byte
	added    bool // tree and chains hold it
	landed   bool // the segment is durable and ours
}

func segmentOf(envelope []byte) []byte { return evidence.AppendEntry(nil, envelope) }

// Append implements [supervisor.Ledger]: segment, then checkpoint, then the
// acknowledgement. A failure to publish the view does not fail it. A record of
// a kind that is [runner.Spoolable] is acknowledged from the spool while the
// store is away; others then fail with ErrAway and leave nothing behind.
func (l *Log) Append(ctx context.Context, at time.Time, e runner.Event) (runner.Record, error) {
	if err := l.fence(); err != nil {
		return runner.Record{}, err
	}
	switch {
	case l.unsettled:
		return runner.Record{}, errUnsettled
	case len(l.queue) > 0 && !runner.Spoolable(e.Kind()):
		return runner.Record{}, fmt.Errorf("append %s: %w", e.Kind(), supervisor.ErrAway)
	}
	l.unsettled = true
	rec, err := l.append(ctx, at, e)
	if err != nil && l.pending == nil && len(l.queue) > 0 {
		// Nothing is left behind, and what waits in the spool still does.
		l.unsettled = false
		err = fmt.Errorf("%w: %w", supervisor.ErrAway, err)
	}
	if err != nil {
		return runner.Record{}, fmt.Errorf("append %s: %w", e.Kind(), err)
	}
	l.unsettled = false
	if len(l.queue) == 0 {
		l.freshen(ctx, rec.At)
	}
	return rec, nil
}

func (l *Log) append(ctx context.Context, at time.Time, e runner.Event) (runner.Record, error) {
	payload, read, err := l.replay.Chains.Statement(l.options.Recorder, at, e)
	if err != nil {
		return runner.Record{}, err
	}
	if err := l.replay.Check(at, read); err != nil {
		return runner.Record{}, err
	}
	signer, err := l.keys.recordSigner(l.verifier.InForce(runner.RecordKey))
	if err != nil {
		return runner.Record{}, err
	}
	envelope, err := evidence.Sign(ctx, signer, payload)
	if l.unsigned = err; err != nil {
		return runner.Record{}, err
	}
	l.pending = &pending{
		record: runner.Record{
			Index: l.replay.Tree.Size(), Digest: runner.DigestOf(envelope), At: at.Round(0).UTC(), Event: read,
		},
		envelope: envelope,
		segment:  segmentOf(envelope),
	}
	if len(l.queue) > 0 {
		return l.keep(nil) // order: nothing overtakes what waits
	}
	rec, err := l.settle(ctx)
	if err == nil || !runner.Spoolable(e.Kind()) || !l.away(ctx, err) {
		return rec, err
	}
	rec, spoolErr := l.keep(err)
	if spoolErr != nil {
		return rec, errors.Join(err, spoolErr)
	}
	return rec, nil
}

// settle brings the pending record to its end from wherever it stopped. It may
// be called again after any failure.
func (l *Log) settle(ctx context.Context) (runner.Record, error) {
	p := l.pending
	ctx, cancel := l.patient(ctx)
	defer cancel()
	if err := l.commit(ctx, p); err != nil {
		return runner.Record{}, err
	}
	l.pending = nil
	l.told(p.record.Event)
	return p.record, nil
}

// commit makes a record part of the stored log. It may be called again after
// any failure, and by a later process with the bytes of the spool.
func (l *Log) commit(ctx context.Context, p *pending) error {
	if !p.landed {
		// The commit point. After a crash from here on the record stands.
		if err := l.createSame(ctx, evidence.SegmentName(p.record.Index), p.segment); err != nil {
			return err
		}
		p.landed = true
	}
	if err := l.add(p); err != nil {
		return err
	}
	// Never before the segment is durable, so that no fork is ever signed.
	return l.checkpoint(ctx, p.record.Index+1)
}

// add takes a record into the tree, the chains and the view, once.
func (l *Log) add(p *pending) error {
	if p.added {
		return nil
	}
	if err := l.replay.Tree.Add(p.envelope); err != nil {
		return err
	}
	if err := l.replay.Add(p.record); err != nil {
		return err
	}
	l.view.add(p.envelope)
	p.added = true
	return nil
}

// createSame creates an object or finds that it is there with these very
// bytes, which is an earlier attempt of ours whose answer was lost. Other bytes
// are another writer's.
func (l *Log) createSame(ctx context.Context, name string, data []byte) error {
	err := l.store.Create(ctx, name, data)
	if !errors.Is(err, ErrExists) {
		return err
	}
	stored, err := l.store.Read(ctx, name)
	if err != nil {
		return err
	}
	if !bytes.Equal(stored, data) {
		return l.fenceOff(name)
	}
	return nil
}

// checkpoint signs the tree of this size. A stored checkpoint with other bytes
// is as good if it is valid for the same size and root.
func (l *Log) checkpoint(ctx context.Context, size uint64) error {
	signed, err := l.signCheckpoint(ctx, size)
	if err != nil {
		return err
	}
	name := evidence.CheckpointName(size)
	err = l.store.Create(ctx, name, signed)
	if errors.Is(err, ErrExists) {
		signed, err = l.acceptCheckpoint(ctx, name, signed)
	}
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.size, l.head = size, signed
	return nil
}

func (l *Log) acceptCheckpoint(ctx context.Context, name string, ours []byte) ([]byte, error) {
	stored, err := l.store.Read(ctx, name)
	if err != nil || bytes.Equal(stored, ours) {
		return stored, err
	}
	want, err := l.verifier.Checkpoint(ours)
	if err != nil {
		return nil, err
	}
	if got, err := l.verifier.Checkpoint(stored); err != nil || got != want {
		return nil, l.fenceOff(name)
	}
	return stored, nil
}

func (l *Log) signCheckpoint(ctx context.Context, size uint64) ([]byte, error) {
	root, err := l.replay.Tree.Root(size)
	if err != nil {
		return nil, err
	}
	signer, err := l.keys.checkpointSigner(l.verifier.CheckpointKey(size))
	if err != nil {
		return nil, err
	}
	signed, err := evidence.SignCheckpoint(ctx, evidence.Checkpoint{Origin: l.keys.origin, Size: size, Root: root}, signer)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errKeys, err)
	}
	return signed, nil
}

// errKeys says that the keys cannot sign at this time. It is not the store that
// is away then, and what cannot be signed cannot be kept in a spool either.
var errKeys = errors.New("the log's signing keys are away")

// Recover implements [supervisor.Ledger]. A record whose append failed is
// brought to its end with the bytes that were signed then, whether they had
// reached the store or not: a request that timed out may still arrive, and
// only its own bytes can take its place without a conflict. What waits in the
// spool is committed before it; if that cannot be, it goes there itself. After
// a signature that failed it succeeds when the key signs again.
func (l *Log) Recover(ctx context.Context) ([]runner.Record, error) {
	if err := l.fence(); err != nil {
		return nil, err
	}
	records, err := l.recover(ctx)
	if err == nil {
		err = l.mustSign(ctx)
	}
	l.unsettled = err != nil && !errors.Is(err, supervisor.ErrAway)
	if err != nil {
		return records, fmt.Errorf("recover: %w", err)
	}
	return records, nil
}

func (l *Log) recover(ctx context.Context) ([]runner.Record, error) {
	if l.pending == nil && len(l.queue) == 0 {
		return nil, l.foreign(ctx)
	}
	err := l.drain(ctx)
	if err == nil && l.pending == nil {
		return nil, nil
	}
	var rec runner.Record
	if err == nil {
		rec, err = l.settle(ctx)
	}
	switch {
	case err == nil:
		return []runner.Record{rec}, nil
	case errors.Is(err, supervisor.ErrFenced):
		return nil, err
	case len(l.queue) == 0 && !l.away(ctx, err):
		return nil, err
	case l.pending == nil: // whatever it was that failed, what waits still does
		return nil, fmt.Errorf("%w: %w", supervisor.ErrAway, err)
	}
	rec, spoolErr := l.keep(err)
	if spoolErr != nil {
		return nil, errors.Join(err, spoolErr)
	}
	return []runner.Record{rec}, fmt.Errorf("%w: %w", supervisor.ErrAway, err)
}

// foreign looks for a record at our next place, which we did not write.
func (l *Log) foreign(ctx context.Context) error {
	name := evidence.SegmentName(l.replay.Tree.Size())
	_, err := l.store.Read(ctx, name)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	return l.fenceOff(name)
}

// PutBlob implements [supervisor.Ledger].
func (l *Log) PutBlob(ctx context.Context, b []byte) (runner.Digest, error) {
	if err := l.fence(); err != nil {
		return "", err
	}
	digest := runner.DigestOf(b)
	name := evidence.BlobName(digest)
	err := l.store.Create(ctx, name, b)
	if err == nil {
		return digest, nil
	}
	if !errors.Is(err, ErrExists) {
		return "", fmt.Errorf("store attachment: %w", err)
	}
	stored, err := l.store.Read(ctx, name)
	switch {
	case err != nil:
		return "", fmt.Errorf("store attachment: %w", err)
	case !bytes.Equal(stored, b):
		return "", fmt.Errorf("store attachment: %s holds other bytes than its name says", name)
	}
	return digest, nil
}

// Head is the number of acknowledged records and the newest checkpoint, empty
// while there is none.
func (l *Log) Head() (size uint64, checkpoint string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.size, string(l.head)
}

// ViewError is why the view could not be published the last time, nil if it
// could. It concerns readers of the view only, never the log.
func (l *Log) ViewError() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.viewErr
}

func (l *Log) keepViewError(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.viewErr = err
}

func (l *Log) fence() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fenced
}

// fenceOff ends this log for ever.
func (l *Log) fenceOff(name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fenced = fmt.Errorf("%s is not what this writer wrote: %w", name, supervisor.ErrFenced)
	if n := len(l.queue); n > 0 {
		l.fenced = fmt.Errorf("%d records from %d on lost their place in the log and are in the spool %s: keep that folder "+
			"for the auditor and move it away before the next start: %w", n, l.queue[0].record.Index, l.options.Spool.Where(), l.fenced)
	}
	return l.fenced
}
