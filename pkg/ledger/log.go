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
// It keeps the hashes of this year's tree in memory, 64 bytes a record, and the
// envelopes that the last, partial entry bundle of the view consists of.
type Log struct {
	store    Store
	keys     *Keys
	options  Options
	replay   *evidence.Replay
	verifier *evidence.Verifier // the replay's: it knows which key is in force

	// closed is the last record if it closed the year, inEffect what the last
	// opened record names.
	closed   *runner.Closed
	inEffect []runner.Digest

	// pending is the record that an append has begun and not acknowledged.
	pending *pending
	// unsettled: an append failed and Recover has not been called since.
	unsettled bool
	// unsigned is why the last record could not be signed, nil if it could.
	unsigned error

	mu sync.Mutex // guards what follows
	// year is the shard that the last record stands in. Only the one caller of
	// Append and Recover changes it, and may read it without the lock.
	year    *year
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
	year     *year
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
	y, err := l.placeOf(read)
	if err != nil {
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
			Index: l.replay.Size(), Digest: runner.DigestOf(envelope), At: at.Round(0).UTC(), Event: read,
		},
		year:     y,
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
	first := p.record.Index - p.year.Before
	if !p.landed {
		if err := l.bring(ctx, p.year, evidence.Inputs(p.record.Event)); err != nil {
			return err
		}
		if _, closes := p.record.Event.(runner.Closed); closes {
			if err := l.keepToEnd(ctx, p.year, p.record.At); err != nil {
				return err
			}
		}
		// The commit point. After a crash from here on the record stands.
		if err := l.createSame(ctx, l.in(p.year), evidence.SegmentName(first), p.segment); err != nil {
			return err
		}
		p.landed = true
	}
	if err := l.add(p); err != nil {
		return err
	}
	// Never before the segment is durable, so that no fork is ever signed.
	if err := l.checkpoint(ctx, p.year, first+1); err != nil {
		return err
	}
	if _, closed := p.record.Event.(runner.Closed); closed {
		l.bringUp(ctx, p.year, p.record.At, l.toHead) // as nobody does it later
	}
	return nil
}

// add takes a record into the tree, the chains and the view, once.
func (l *Log) add(p *pending) error {
	if p.added {
		return nil
	}
	if p.year != l.year {
		l.goOn(p.year)
	}
	if err := l.replay.Tree.Add(p.envelope); err != nil {
		return err
	}
	if err := l.replay.Add(p.record); err != nil {
		return err
	}
	l.took(p.record, p.envelope)
	p.added = true
	return nil
}

// createSame creates an object or finds that it is there with these very
// bytes, which is an earlier attempt of ours whose answer was lost. Other bytes
// are another writer's.
func (l *Log) createSame(ctx context.Context, in inShard, name string, data []byte) error {
	err := in.create(ctx, name, data)
	if !errors.Is(err, ErrExists) {
		return err
	}
	stored, err := in.read(ctx, name)
	if err != nil {
		return err
	}
	if !bytes.Equal(stored, data) {
		return l.fenceOff(in.shard.Name(name))
	}
	return nil
}

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

// Alone implements [supervisor.Ledger].
func (l *Log) Alone(ctx context.Context) error {
	if err := l.fence(); err != nil {
		return err
	}
	return l.foreign(ctx)
}

// foreign looks for a record at our next place, which we did not write.
func (l *Log) foreign(ctx context.Context) error {
	y := l.year
	if l.closed != nil {
		y = l.next()
	}
	name := evidence.SegmentName(y.tree.Size())
	_, err := l.in(y).read(ctx, name)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	return l.fenceOff(y.Name(name))
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
