package ledger

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// Open reads the log and goes on from its end. It checks signatures, order,
// chains, the newest checkpoint and that no checkpoint but the last is
// missing; the whole check is [evidence.Verify]'s. A last checkpoint that a
// crash left unwritten is written now, what waits in the spool is committed,
// and the view is completed. It returns every record of the log.
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
	o := opening{Log: &Log{store: telling{store}, keys: keys, options: options}}
	for _, step := range []func(context.Context) error{
		o.begin, o.readView, o.readSegments, o.checkKeys, o.readCheckpoints, o.checkView, o.readSpool,
	} {
		if err := step(ctx); err != nil {
			return nil, nil, fmt.Errorf("open log: %w", err)
		}
	}
	o.Log.store = store
	if n := len(o.records); n > 0 {
		o.Log.view.at = o.records[n-1].At
	}
	o.Log.keepViewError(o.Log.publish(ctx, o.Log.view.at))
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
	return nil
}

// readView finds out how far the view has come, before the segments are read,
// so that no more envelopes than needed stay in memory. A view that is damaged
// is built anew.
func (o *opening) readView(ctx context.Context) error {
	b, err := o.store.Read(ctx, evidence.ViewCheckpoint)
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
	o.Log.view.begun = true
	names, err := o.store.List(ctx, evidence.ViewFolder)
	if err != nil {
		return err
	}
	o.Log.view.stale = replaced(names)
	for _, t := range evidence.NewTiles(0, cp.Size) {
		if _, there := slices.BinarySearch(names, evidence.ViewName(t)); !there {
			return nil
		}
	}
	o.Log.view.size, o.Log.view.base = cp.Size, bundleStart(cp.Size)
	return nil
}

func (o *opening) readSegments(ctx context.Context) error {
	names, err := o.store.List(ctx, evidence.SegmentFolder)
	if err != nil {
		return err
	}
	for _, name := range names {
		first, err := evidence.ParseNumbered(evidence.SegmentFolder, name)
		if err != nil {
			return err
		}
		if size := o.replay.Tree.Size(); first != size {
			return fmt.Errorf("%s follows record %d: records are missing or double", name, size)
		}
		if err := o.readSegment(ctx, name); err != nil {
			return err
		}
		o.ends = append(o.ends, o.replay.Tree.Size())
	}
	return nil
}

func (o *opening) readSegment(ctx context.Context, name string) error {
	b, err := o.store.Read(ctx, name)
	if err != nil {
		return err
	}
	entries, err := evidence.Entries(b)
	if err != nil || len(entries) == 0 {
		return fmt.Errorf("%s is cut off after %d records", name, len(entries))
	}
	for _, envelope := range entries {
		rec, errs := o.replay.Next(envelope)
		if len(errs) > 0 {
			return fmt.Errorf("record %d in %s: %w", rec.Index, name, errors.Join(errs...))
		}
		o.records = append(o.records, rec)
		if rec.Index >= o.Log.view.base {
			o.Log.view.add(bytes.Clone(envelope))
		}
	}
	return nil
}

func (o *opening) readCheckpoints(ctx context.Context) error {
	names, err := o.store.List(ctx, evidence.CheckpointFolder)
	if err != nil {
		return err
	}
	sizes := make([]uint64, len(names))
	for i, name := range names {
		if sizes[i], err = evidence.ParseNumbered(evidence.CheckpointFolder, name); err != nil {
			return err
		}
	}
	unfinished := len(o.ends) == len(sizes)+1
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
		return o.checkpoint(ctx, o.replay.Tree.Size())
	}
	return nil
}

func (o *opening) checkHead(ctx context.Context, size uint64) error {
	name := evidence.CheckpointName(size)
	b, err := o.store.Read(ctx, name)
	if err != nil {
		return err
	}
	cp, err := o.verifier.Checkpoint(b)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	root, err := o.replay.Tree.Root(size)
	if err != nil {
		return err
	}
	if cp.Size != size || cp.Root != root {
		return fmt.Errorf("%s signs another root than the records have: verify the ledger", name)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.size, o.head = size, b
	return nil
}

// checkView refuses a log that is shorter than, or other than, what it once
// published under its own signature.
func (o *opening) checkView(context.Context) error {
	size := o.replay.Tree.Size()
	if o.viewHead.Size > size {
		return fmt.Errorf("the view shows %d records, the log holds %d: records are missing", o.viewHead.Size, size)
	}
	root, err := o.replay.Tree.Root(o.viewHead.Size)
	if err != nil {
		return err
	}
	if o.Log.view.begun && root != o.viewHead.Root {
		return errors.New("the view shows other records than the log holds: verify the ledger")
	}
	return nil
}
