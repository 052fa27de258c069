package ledger

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// The view is published within an append, which the whole daemon waits for. So
// it gets little time, is left alone for a while after a failure, and goes on
// the next time from where it stopped.
const (
	// viewPatience is how long an append may take for the view.
	viewPatience = 2 * time.Second
	// maxViewPause bounds how long the view is left alone after failures, by
	// the times of records.
	maxViewPause = 5 * time.Minute
	// tidyAtOnce is how many replaced tiles one append removes. It makes at
	// most a few of them, so that what is left over is soon gone.
	tidyAtOnce = 16
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
	next    *edition // a publication that has not come to its end
	// full are tiles whose partial ones are to be removed, stale such partial
	// ones by their names.
	full                []evidence.Tile
	stale               []string
	publishing, tidying pause
}

// edition is what is left of a publication.
type edition struct {
	size       uint64
	checkpoint []byte
	tiles      []evidence.Tile
	full       []evidence.Tile // of those that are published
}

// pause is how long something is left alone that failed.
type pause struct {
	failures int
	until    time.Time
}

func (p *pause) over(at time.Time) bool { return !at.Before(p.until) }

func (p *pause) note(at time.Time, every time.Duration, err error) {
	if err == nil {
		*p = pause{}
		return
	}
	p.failures++
	p.until = at.Add(min(every<<min(p.failures, 10), maxViewPause))
}

func bundleStart(size uint64) uint64 { return size / evidence.TileWidth * evidence.TileWidth }

func (v *view) add(envelope []byte) { v.entries = append(v.entries, envelope) }

func (v *view) due(at time.Time, every time.Duration) bool {
	return (v.at.IsZero() || at.Sub(v.at) >= every) && v.publishing.over(at)
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

// freshen brings the view up to a record that was just appended, if it is time
// to.
func (l *Log) freshen(ctx context.Context, at time.Time) {
	if l.year.view.due(at, l.options.ViewEvery) {
		l.bringUp(ctx, l.year, at, l.publish)
	}
}

// bringUp publishes the view of a year, within an append.
func (l *Log) bringUp(ctx context.Context, y *year, at time.Time, publish func(context.Context, *year, time.Time) error) {
	every := l.options.ViewEvery
	ctx, cancel := context.WithTimeoutCause(ctx, viewPatience, fmt.Errorf("the view was not brought up within %s", viewPatience))
	defer cancel()
	err := publish(ctx, y, at)
	y.view.publishing.note(at, every, err)
	if err == nil && y.view.tidying.over(at) {
		err = l.tidy(ctx, y, tidyAtOnce)
		y.view.tidying.note(at, every, err)
	}
	l.keepViewError(err)
}

// PublishView brings the view up to the acknowledged records. It is worth
// calling when no append has come for a while.
func (l *Log) PublishView(ctx context.Context) error {
	if err := l.fence(); err != nil {
		return err
	}
	err := l.toHead(ctx, l.year, l.year.view.at)
	if err == nil {
		err = l.tidy(ctx, l.year, math.MaxInt)
	}
	l.keepViewError(err)
	return err
}

// Close publishes the view and ends the use of the log; it must not be used
// again. The log itself needs no closing: what was acknowledged is durable. The
// error is that of the view. A writer that another has followed leaves the view
// to it: its own would show fewer records.
func (l *Log) Close(ctx context.Context) error {
	if l.pending == nil && len(l.queue) == 0 {
		if err := l.Alone(ctx); errors.Is(err, supervisor.ErrFenced) {
			return err
		}
	}
	return l.PublishView(ctx)
}

// toHead is publish up to the head, also where a publication had not come to its
// end.
func (l *Log) toHead(ctx context.Context, y *year, at time.Time) error {
	unfinished := y.view.next != nil
	err := l.publish(ctx, y, at)
	if err == nil && unfinished {
		err = l.publish(ctx, y, at)
	}
	return err
}

// publish brings the view of a year up to its head, or to that of a publication
// which has not come to its end.
func (l *Log) publish(ctx context.Context, y *year, at time.Time) error {
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
	if y.view.next == nil {
		l.mu.Lock()
		size, head := y.size, y.head
		l.mu.Unlock()
		if size == y.view.size {
			return nil
		}
		y.view.next = &edition{size: size, checkpoint: head, tiles: evidence.NewTiles(y.view.size, size)}
	}
	if err := l.bringOut(ctx, y, at); err != nil {
		return fmt.Errorf("publish view: %w", err)
	}
	return nil
}

// bringOut publishes the tiles that are left and then the checkpoint that
// covers them. It goes on from where it stopped.
func (l *Log) bringOut(ctx context.Context, y *year, at time.Time) error {
	v := &y.view
	e := v.next
	for ; len(e.tiles) > 0; e.tiles = e.tiles[1:] {
		if err := l.publishTile(ctx, y, e.tiles[0]); err != nil {
			return err
		}
		if e.tiles[0].Width == evidence.TileWidth {
			e.full = append(e.full, e.tiles[0])
		}
	}
	if err := l.in(y).publish(ctx, evidence.ViewCheckpoint, e.checkpoint); err != nil {
		return err
	}
	v.size, v.at, v.next = e.size, at, nil
	v.full = append(v.full, e.full...)
	v.entries = slices.Clone(v.entries[bundleStart(e.size)-v.base:])
	v.base = bundleStart(e.size)
	return nil
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

// tidy removes partial tiles that a full one has replaced, this many at most.
// tlog-tiles allows it, and they are most of a view's bytes.
func (l *Log) tidy(ctx context.Context, y *year, atMost int) error {
	v := &y.view
	for ; atMost > 0; atMost-- {
		for len(v.stale) == 0 {
			if len(v.full) == 0 {
				return nil
			}
			names, err := l.in(y).list(ctx, evidence.ViewName(v.full[0])+partials)
			if err != nil {
				return fmt.Errorf("tidy view: %w", err)
			}
			v.full, v.stale = v.full[1:], names
		}
		if err := l.in(y).unpublish(ctx, v.stale[0]); err != nil {
			return fmt.Errorf("tidy view: %w", err)
		}
		v.stale = v.stale[1:]
	}
	return nil
}

// partials is what the path of a full tile is followed by in those of its
// partial ones.
const partials = ".p/"

// replaced are the partial tiles among these sorted names beside which there
// is the full one: a process before this one did not come to remove them.
func replaced(names []string) (stale []string) {
	for _, name := range names {
		if tile, _, partial := strings.Cut(name, partials); partial {
			if _, full := slices.BinarySearch(names, tile); full {
				stale = append(stale, name)
			}
		}
	}
	return stale
}
