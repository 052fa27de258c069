package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/runner"
)

// A log is kept in years, see [evidence.Shard]. The record that closes a year
// takes the place where a writer who has not seen it would write, so that the
// fence holds from one year to the next; the record that continues it begins
// the next tree. Both are ordinary records: written, recovered and spooled as
// every other, so that a crash in between leaves nothing but the next step.

// year is one shard of the log that is open for writing.
type year struct {
	evidence.Place
	prior evidence.Shard // the one before, of all but the first
	tree  *evidence.Tree
	view  view
	// began is the calendar year of UTC, zero in a log without a record.
	began int

	// Guarded by the log's lock.
	size  uint64 // acknowledged records
	head  []byte // the newest checkpoint
	blobs map[runner.Digest]bool
}

func newYear(at evidence.Place, prior evidence.Shard) *year {
	return &year{
		Place: at, prior: prior, began: int(at.Shard), tree: &evidence.Tree{}, blobs: map[runner.Digest]bool{},
	}
}

// inShard is a store that holds one shard and calls its objects as those of the
// first are called.
type inShard struct {
	store Store
	shard evidence.Shard
}

func (l *Log) in(y *year) inShard { return inShard{l.store, y.Shard} }

func (s inShard) create(ctx context.Context, name string, data []byte) error {
	return s.store.Create(ctx, s.shard.Name(name), data)
}

func (s inShard) read(ctx context.Context, name string) ([]byte, error) {
	return s.store.Read(ctx, s.shard.Name(name))
}

func (s inShard) list(ctx context.Context, prefix string) ([]string, error) {
	full, err := s.store.List(ctx, s.shard.Name(prefix))
	var names []string
	for _, name := range full {
		// The view of the first shard lies beside those of the others.
		if shard, plain := evidence.SplitShard(name); shard == s.shard {
			names = append(names, plain)
		}
	}
	return names, err
}

func (s inShard) publish(ctx context.Context, name string, data []byte) error {
	return s.store.Publish(ctx, s.shard.Name(name), data)
}

func (s inShard) unpublish(ctx context.Context, name string) error {
	return s.store.Unpublish(ctx, s.shard.Name(name))
}

// NewYear implements [supervisor.Ledger]: closed when the year is over, continued
// after closed. While records wait in the spool a year goes on: they have their
// places in it.
func (l *Log) NewYear(ctx context.Context, at time.Time) (runner.Event, error) {
	if err := l.fence(); err != nil {
		return nil, err
	}
	y := l.year
	switch now := at.UTC().Year(); {
	case l.unsettled:
		return nil, errUnsettled
	case l.closed != nil:
		return l.continuation(ctx)
	case len(l.queue) > 0 || y.tree.Size() == 0 || now <= y.began:
		return nil, nil
	default:
		return runner.Closed{Year: now}, nil
	}
}

// continuation names the last checkpoint of the closed year. While that waits
// in the spool with its record, it is what will be signed then: Ed25519 gives
// the same bytes every time.
func (l *Log) continuation(ctx context.Context) (runner.Event, error) {
	y := l.year
	if y.size == y.tree.Size() {
		return l.continuationOf(y)
	}
	signed, err := l.signCheckpoint(ctx, y, y.tree.Size())
	if err != nil {
		return nil, err
	}
	return l.continues(y, signed)
}

// continuationOf is what continues a year whose last checkpoint is durable.
func (l *Log) continuationOf(y *year) (runner.Event, error) { return l.continues(y, y.head) }

func (l *Log) continues(y *year, signed []byte) (runner.Event, error) {
	cp, err := l.verifier.CheckpointIn(y.Place, signed)
	if err != nil {
		return nil, err
	}
	return y.Continuation(cp, signed, l.inEffect), nil
}

// next is the year after the one that is closed.
func (l *Log) next() *year {
	y := l.year
	return newYear(evidence.Place{Shard: evidence.Shard(l.closed.Year), Before: y.Before + y.tree.Size()}, y.Shard)
}

// placeOf is the year in which the next record stands, if it is this one.
func (l *Log) placeOf(e runner.Event) (*year, error) {
	if closed, ends := e.(runner.Closed); ends && closed.Year <= l.year.began {
		return nil, fmt.Errorf("year %d does not come after %d, in which the log is", closed.Year, l.year.began)
	}
	switch _, continues := e.(runner.Continued); {
	case continues != (l.closed != nil):
		return nil, errors.New("after the end of a year, and only there, the next one begins: see NewYear")
	case continues:
		return l.next(), nil
	}
	return l.year, nil
}

// goOn makes this the year in which the log is.
func (l *Log) goOn(y *year) {
	l.replay.Turn(y.Shard)
	y.tree = l.replay.Tree
	l.mu.Lock()
	defer l.mu.Unlock()
	l.year = y
}

// took notes what follows from a record that is in the tree and the chains. The
// envelope is nil when the view has it.
func (l *Log) took(rec runner.Record, envelope []byte) {
	if envelope != nil {
		l.year.view.add(envelope)
	}
	if l.year.began == 0 {
		l.year.began = rec.At.UTC().Year()
	}
	switch e := rec.Event.(type) {
	case runner.Closed:
		l.closed = &e
	case runner.Continued:
		l.closed, l.inEffect = nil, evidence.Inputs(e)
	case runner.Opened:
		l.inEffect = evidence.Inputs(e)
	}
}
