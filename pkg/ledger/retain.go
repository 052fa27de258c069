package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/runner"
)

// RetainUntil is until when an object has to stay that is written, or still in
// effect, at this time: the end of its calendar year in UTC, six calendar years
// and the slack. 45 CFR 164.316(b)(2)(i) asks for six years from the creation
// or from when it was last in effect.
//
// A whole year ends at once, so that what a record rests on lives as long as
// the record. The slack is for what is written before midnight of the 31st of
// December and referred to after it, and for documents in effect, which are
// extended once a day. Six calendar years have 2192 days, 2191 when they hold
// one leap day only, and 2190 or 2191 around a century that is none.
func RetainUntil(at time.Time, slackDays int) time.Time {
	return time.Date(at.UTC().Year()+1+evidence.RetainYears, time.January, 1+slackDays, 0, 0, 0, 0, time.UTC)
}

// RetainObject is until when the object of this name has to stay that is written
// at this time: as long as its year's shard at least, so that a shard is whole
// until it expires. What comes late into an old shard stays longer.
func RetainObject(name string, at time.Time, slackDays int) time.Time {
	until := RetainUntil(at, slackDays)
	shard, _ := evidence.SplitShard(name)
	if year := RetainUntil(time.Date(int(shard), time.January, 1, 0, 0, 0, 0, time.UTC), slackDays); shard != 0 && year.After(until) {
		return year
	}
	return until
}

// Extender is what a [Store] can do besides that keeps objects for a time.
type Extender interface {
	// Extend makes objects stay at least until this time; what stays longer is
	// left as it is. It is durable when it returns nil, may be repeated after
	// any failure, and is safe for concurrent use. An object that does not
	// exist is [ErrNotFound].
	Extend(ctx context.Context, names []string, until time.Time) error
}

// Extend keeps attachments that are still in effect, in this year's shard, until
// this time, at least. It does nothing on a store that keeps everything for
// ever. It may be called at any time.
func (l *Log) Extend(ctx context.Context, attachments []runner.Digest, until time.Time) error {
	store, ok := extender(l.store)
	if !ok {
		return nil
	}
	l.mu.Lock()
	y := l.year
	l.mu.Unlock()
	names := make([]string, len(attachments))
	for i, d := range attachments {
		names[i] = y.Name(evidence.BlobName(d))
	}
	if err := store.Extend(ctx, names, until); err != nil {
		return fmt.Errorf("keep what is in effect until %s: %w", until.Format(time.DateOnly), err)
	}
	return nil
}

// keepToEnd makes what is in effect stay with the last record of a year that
// ends. It ends late after an outage, when the locks that are lengthened daily
// have not been for longer than the slack, and from then on nobody lengthens
// them. What is not there is for a verifier to report.
func (l *Log) keepToEnd(ctx context.Context, y *year, end time.Time) error {
	store, ok := extender(l.store)
	if !ok {
		return nil
	}
	for _, d := range l.inEffect {
		err := store.Extend(ctx, []string{y.Name(evidence.BlobName(d))}, RetainUntil(end, 0))
		if err != nil && !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("keep what was in effect: %w", err)
		}
	}
	return nil
}

// extender is the store itself, also while a log is opened.
func extender(s Store) (Extender, bool) {
	if t, ok := s.(telling); ok {
		s = t.Store
	}
	e, ok := s.(Extender)
	return e, ok
}
