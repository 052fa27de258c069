package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/runnerward/runnerward/pkg/evidence"
)

// view is how far the derived view has come.
type view struct {
	// begun: there is a checkpoint in the view. It comes before the first
	// tile, so that tiles without a checkpoint always mean a removal.
	begun bool
	size  uint64
	at    time.Time // of the record at which it was last published
	// entries are the envelopes from record base on, which is the first of
	// the entry bundle that was not full when the view was last published.
	base    uint64
	entries [][]byte
}

func bundleStart(size uint64) uint64 { return size / evidence.TileWidth * evidence.TileWidth }

func (v *view) add(envelope []byte) { v.entries = append(v.entries, envelope) }

func (v *view) due(at time.Time, every time.Duration) bool {
	return v.at.IsZero() || at.Sub(v.at) >= every
}

// bundle is the content of an entry bundle.
func (v *view) bundle(t evidence.Tile) ([]byte, error) {
	first := t.N * evidence.TileWidth
	if first < v.base || first+uint64(t.Width) > v.base+uint64(len(v.entries)) {
		return nil, fmt.Errorf("entries of %s are not at hand", t.Path())
	}
	var b []byte
	for _, envelope := range v.entries[first-v.base:][:t.Width] {
		b = evidence.AppendEntry(b, envelope)
	}
	return b, nil
}

// PublishView brings the view up to the acknowledged records. It is worth
// calling when no append has come for a while.
func (l *Log) PublishView(ctx context.Context) error {
	if err := l.fence(); err != nil {
		return err
	}
	err := l.publish(ctx, l.year, l.year.view.at)
	l.keepViewError(err)
	return err
}

// Close publishes what the view lacks. The log is complete without it: its
// error is that of the view.
func (l *Log) Close(ctx context.Context) error { return l.PublishView(ctx) }

// publish writes the tiles of a year and then the checkpoint that covers them.
func (l *Log) publish(ctx context.Context, y *year, at time.Time) error {
	l.mu.Lock()
	size, head := y.size, y.head
	l.mu.Unlock()
	if !y.view.begun {
		empty, err := l.signCheckpoint(ctx, y, 0)
		if err != nil {
			return err
		}
		if err := l.in(y).publish(ctx, evidence.ViewCheckpoint, empty); err != nil {
			return fmt.Errorf("publish view: %w", err)
		}
		y.view.begun = true
	}
	if size == y.view.size {
		return nil
	}
	tiles := evidence.NewTiles(y.view.size, size)
	for _, t := range tiles {
		if err := l.publishTile(ctx, y, t); err != nil {
			return fmt.Errorf("publish view: %w", err)
		}
	}
	if err := l.in(y).publish(ctx, evidence.ViewCheckpoint, head); err != nil {
		return fmt.Errorf("publish view: %w", err)
	}
	y.view.size, y.view.at = size, at
	y.view.entries = slices.Clone(y.view.entries[bundleStart(size)-y.view.base:])
	y.view.base = bundleStart(size)
	return l.dropPartials(ctx, y, tiles)
}

func (l *Log) publishTile(ctx context.Context, y *year, t evidence.Tile) error {
	data, err := y.view.bundle(t)
	if !t.Entries {
		data, err = y.tree.TileData(t)
	}
	if err != nil {
		return err
	}
	return l.in(y).publish(ctx, evidence.ViewName(t), data)
}

// dropPartials removes the partial tiles that a full one has replaced, which
// tlog-tiles allows; they are most of a view's bytes.
func (l *Log) dropPartials(ctx context.Context, y *year, tiles []evidence.Tile) error {
	for _, t := range tiles {
		if t.Width < evidence.TileWidth {
			continue
		}
		names, err := l.in(y).list(ctx, evidence.ViewName(t)+".p/")
		if err != nil {
			return fmt.Errorf("tidy view: %w", err)
		}
		for _, name := range names {
			err = errors.Join(err, l.in(y).unpublish(ctx, name))
		}
		if err != nil {
			return fmt.Errorf("tidy view: %w", err)
		}
	}
	return nil
}
