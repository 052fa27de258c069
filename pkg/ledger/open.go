package ledger

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// Open reads the log, all years of it, and goes on from its end: what a runner
// or a host once did decides about what comes, for the life of the log. That is
// one read for each record, in the order of the log. It checks signatures,
// order, chains, of every year the newest checkpoint and that no checkpoint but
// the last of all is missing; the whole check is [evidence.Verify]'s. A last
// checkpoint that a crash left unwritten is written now, what waits in the
// spool is committed, and the view is completed. It returns every record of the
// log.
//
// Opening does not fence another writer: the first append does. An error is
// [supervisor.ErrAway] when the store could not be asked, and trying again may
// mend it.
func Open(ctx context.Context, store Store, keys *Keys, options Options) (*Log, []runner.Record, error) {
	options.ViewEvery = cmp.Or(options.ViewEvery, DefaultViewEvery)
	options.Patience = cmp.Or(options.Patience, DefaultPatience)
	if err := runner.Validate(options.Recorder); err != nil {
		return nil, nil, fmt.Errorf("open log: recorder: %w", err)
	}
	o := opening{Log: &Log{store: telling{store}, keys: keys, options: options, year: newYear(evidence.Place{}, 0)}}
	for _, step := range []func(context.Context) error{o.begin, o.readYears, o.readSpool} {
		if err := step(ctx); err != nil {
			return nil, nil, fmt.Errorf("open log: %w", err)
		}
	}
	o.Log.store = store
	if n := len(o.records); n > 0 {
		o.Log.year.view.at = o.records[n-1].At
	}
	viewErr := o.viewErr
	for _, y := range o.years {
		viewErr = errors.Join(viewErr, o.Log.publish(ctx, y, y.view.at))
	}
	o.Log.keepViewError(viewErr)
	return o.Log, o.records, nil
}

// telling tells failures of a store from what is wrong with a log.
type telling struct{ Store }

func (t telling) Create(ctx context.Context, name string, data []byte) error {
	return asAway(t.Store.Create(ctx, name, data))
}

func (t telling) Read(ctx context.Context, name string) ([]byte, error) {
	b, err := t.Store.Read(ctx, name)
	return b, asAway(err)
}

func (t telling) List(ctx context.Context, prefix string) ([]string, error) {
	names, err := t.Store.List(ctx, prefix)
	return names, asAway(err)
}

func asAway(err error) error {
	if err == nil || errors.Is(err, ErrExists) || errors.Is(err, ErrNotFound) {
		return err
	}
	return fmt.Errorf("%w: %w", supervisor.ErrAway, err)
}

type opening struct {
	*Log
	records  []runner.Record
	years    []*year  // all that the log has, the oldest first
	segments []string // of the year that is being read
	ends     []uint64 // sizes at which a segment ends
	viewHead evidence.Checkpoint
}

// begin stands at the first record, with the keys that the log began with.
func (o *opening) begin(ctx context.Context) error {
	root, err := o.genesis(ctx)
	if err != nil {
		return err
	}
	if o.verifier, err = root.Verifier(); err != nil {
		return err
	}
	o.replay = evidence.NewReplay(o.verifier)
	o.Log.year.tree = o.replay.Tree
	return nil
}

// readYears reads the first year and then those that the end of each names.
func (o *opening) readYears(ctx context.Context) (err error) {
	if o.segments, err = o.in(o.Log.year).list(ctx, evidence.SegmentFolder); err != nil {
		return err
	}
	if len(o.segments) == 0 {
		if err := o.checkEmpty(ctx); err != nil {
			return err
		}
	}
	for {
		o.years = append(o.years, o.Log.year)
		if err := o.readView(ctx); err != nil {
			return err
		}
		if err := o.readSegments(ctx); err != nil {
			return err
		}
		var next *year
		if o.closed != nil {
			next = o.next()
			if o.segments, err = o.in(next).list(ctx, evidence.SegmentFolder); err != nil {
				return err
			}
		}
		last := next == nil || len(o.segments) == 0
		if last {
			if err := o.checkKeys(); err != nil {
				return err
			}
		}
		if err := errors.Join(o.readCheckpoints(ctx, last), o.checkView()); err != nil {
			return err
		}
		switch {
		case next == nil:
			return nil
		case last:
			return o.checkUnbegun(ctx, next)
		}
		o.goOn(next)
	}
}

// checkEmpty wants a log without a first record to be new: it would begin a
// second time beside the years that follow a first one that was removed.
func (o *opening) checkEmpty(ctx context.Context) error {
	names, err := o.store.List(ctx, "")
	if err != nil {
		return err
	}
	for _, name := range names {
		if shard, _ := evidence.SplitShard(name); shard != 0 {
			return fmt.Errorf("%s is there and the year in which the log began is not: a daemon needs all years, restore the missing from a copy", name)
		}
	}
	return nil
}

// checkUnbegun wants a year without a record to have at most attachments, and no
// year to follow it.
func (o *opening) checkUnbegun(ctx context.Context, next *year) error {
	names, err := o.store.List(ctx, "")
	if err != nil {
		return err
	}
	for _, name := range names {
		shard, plain := evidence.SplitShard(name)
		if shard > next.Shard || shard == next.Shard && !strings.HasPrefix(plain, evidence.BlobFolder) {
			return fmt.Errorf("%s is there and the records of year %d are not: restore them from a copy", name, next.Shard)
		}
	}
	return nil
}

// readView finds out how far the view of a year has come, before the segments
// are read, so that no more envelopes than needed stay in memory. A view that
// is damaged is built anew.
func (o *opening) readView(ctx context.Context) error {
	view, in := &o.Log.year.view, o.in(o.Log.year)
	o.viewHead = evidence.Checkpoint{}
	b, err := in.read(ctx, evidence.ViewCheckpoint)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	cp, err := o.viewCheckpoint(b)
	if err != nil {
		return nil // anybody can write there; it is published anew
	}
	o.viewHead = cp
	view.begun = true
	names, err := in.list(ctx, evidence.ViewFolder)
	if err != nil {
		return err
	}
	view.stale = replaced(names)
	for _, t := range evidence.NewTiles(0, cp.Size) {
		if _, there := slices.BinarySearch(names, evidence.ViewName(t)); !there {
			return nil
		}
	}
	view.size, view.base = cp.Size, bundleStart(cp.Size)
	return nil
}

func (o *opening) readSegments(ctx context.Context) error {
	o.ends = nil
	for _, name := range o.segments {
		first, err := evidence.ParseNumbered(evidence.SegmentFolder, name)
		if err != nil {
			return err
		}
		full := o.Log.year.Name(name)
		if size := o.replay.Tree.Size(); first != size {
			return fmt.Errorf("%s follows record %d of its year: records are missing or double", full, size)
		}
		if err := o.readSegment(ctx, name, full); err != nil {
			return err
		}
		o.ends = append(o.ends, o.replay.Tree.Size())
	}
	return nil
}

func (o *opening) readSegment(ctx context.Context, name, full string) error {
	b, err := o.in(o.Log.year).read(ctx, name)
	if err != nil {
		return err
	}
	entries, err := evidence.Entries(b)
	if err != nil || len(entries) == 0 {
		return fmt.Errorf("%s is cut off after %d records", full, len(entries))
	}
	for _, envelope := range entries {
		if err := o.readRecord(envelope); err != nil {
			return fmt.Errorf("%s: %w", full, err)
		}
	}
	return nil
}

// readRecord reads the next record of the year. What begins a year is its first
// record and says how the year before ended; what ends it is its last.
func (o *opening) readRecord(envelope []byte) error {
	y := o.Log.year
	ended, first := o.closed != nil, y.tree.Size() == 0
	rec, errs := o.replay.Next(envelope)
	if len(errs) > 0 {
		return fmt.Errorf("record %d: %w", rec.Index, errors.Join(errs...))
	}
	continued, begins := rec.Event.(runner.Continued)
	switch {
	case begins != (first && y.Shard != 0), ended && !begins:
		return fmt.Errorf("record %d, %s, stands between two years: verify the ledger", rec.Index, rec.Event.Kind())
	case begins:
		if want, err := o.continuationOf(o.years[len(o.years)-2]); err != nil || !reflect.DeepEqual(continued, want) {
			return errors.Join(err, fmt.Errorf("record %d continues another year than the one before: verify the ledger", rec.Index))
		}
	}
	o.records = append(o.records, rec)
	if rec.Index-y.Before < y.view.base {
		envelope = nil
	}
	o.took(rec, bytes.Clone(envelope))
	return nil
}

// readCheckpoints wants one checkpoint for each segment. Only the last of all
// may be missing: a crash came between the two, and it is written now.
func (o *opening) readCheckpoints(ctx context.Context, last bool) error {
	y := o.Log.year
	names, err := o.in(y).list(ctx, evidence.CheckpointFolder)
	if err != nil {
		return err
	}
	sizes := make([]uint64, len(names))
	for i, name := range names {
		if sizes[i], err = evidence.ParseNumbered(evidence.CheckpointFolder, name); err != nil {
			return err
		}
	}
	unfinished := last && len(o.ends) == len(sizes)+1
	switch {
	case unfinished && slices.Equal(sizes, o.ends[:len(sizes)]):
	case slices.Equal(sizes, o.ends):
	default:
		return fmt.Errorf("%d segments and %d checkpoints do not belong together: verify the ledger", len(o.ends), len(sizes))
	}
	if len(sizes) > 0 {
		if err := o.checkHead(ctx, sizes[len(sizes)-1]); err != nil {
			return err
		}
	}
	if unfinished {
		return o.checkpoint(ctx, y, y.tree.Size())
	}
	return nil
}

func (o *opening) checkHead(ctx context.Context, size uint64) error {
	y := o.Log.year
	name := evidence.CheckpointName(size)
	b, err := o.in(y).read(ctx, name)
	if err != nil {
		return err
	}
	cp, err := o.verifier.CheckpointIn(y.Place, b)
	if err != nil {
		return fmt.Errorf("%s: %w", y.Name(name), err)
	}
	root, err := y.tree.Root(size)
	if err != nil {
		return err
	}
	if cp.Size != size || cp.Root != root {
		return fmt.Errorf("%s signs another root than the records have: verify the ledger", y.Name(name))
	}
	o.acknowledge(y, size, b)
	return nil
}

// checkView refuses a log that is shorter than, or other than, what it once
// published under its own signature.
func (o *opening) checkView() error {
	y := o.Log.year
	size := y.tree.Size()
	if o.viewHead.Size > size {
		return fmt.Errorf("the view shows %d records, the log holds %d: records are missing", o.viewHead.Size, size)
	}
	root, err := y.tree.Root(o.viewHead.Size)
	if err != nil {
		return err
	}
	if y.view.begun && root != o.viewHead.Root {
		return errors.New("the view shows other records than the log holds: verify the ledger")
	}
	return nil
}
