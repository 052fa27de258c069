package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// While the store is away, records go into the spool: the very bytes that will
// be committed later at their very index, so that digests, order and chains
// hold from the start and committing them is the ordinary create-once write.
//
// A record leaves the queue when its checkpoint is durable. Its file stays
// until a record that tells of it ([runner.Spooled]) is durable as well: after
// a crash in between the files still say what there is to tell.

// DefaultPatience is how long a record may take to reach the store before it
// goes into the spool.
const DefaultPatience = 10 * time.Second

// trialPatience is how long a key that failed may take for the signature by
// which it is found to be back. Everything waits for it, again and again.
const trialPatience = 3 * time.Second

// kept is a record that a file of the spool holds.
type kept struct {
	index uint64
	at    time.Time
}

// patient bounds a write to a store that may hang, where there is a spool.
func (l *Log) patient(ctx context.Context) (context.Context, context.CancelFunc) {
	if l.options.Spool == nil {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, l.options.Patience,
		fmt.Errorf("the log's store did not answer within %s", l.options.Patience))
}

// away says that this failure of the store is one that the spool is for: not a
// fence, and not a caller who went away or whose time was over, which says
// nothing of the store. A record that was begun is then pending, for Recover.
func (l *Log) away(ctx context.Context, err error) bool {
	return l.options.Spool != nil && ctx.Err() == nil && !errors.Is(err, supervisor.ErrFenced) && !errors.Is(err, errKeys)
}

// keep puts the pending record into the spool, because of this failure of the
// store. From then on the log counts it as its own.
func (l *Log) keep(cause error) (runner.Record, error) {
	p := l.pending
	if err := l.options.Spool.Put(p.record.Index, p.envelope); err != nil {
		return runner.Record{}, fmt.Errorf("keep record %d while the log's store is away: %w", p.record.Index, err)
	}
	if err := l.add(p); err != nil {
		return runner.Record{}, err
	}
	l.pending = nil
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue = append(l.queue, p)
	l.kept = append(l.kept, kept{p.record.Index, p.record.At})
	if cause != nil {
		l.problem = cause
	}
	return p.record, nil
}

// drain commits what waits in the spool, in order, and stops at the first
// failure. What was committed stays committed.
func (l *Log) drain(ctx context.Context) error {
	for len(l.queue) > 0 {
		p := l.queue[0]
		bounded, cancel := l.patient(ctx)
		err := l.commit(bounded, p)
		cancel()
		l.mu.Lock()
		if err == nil {
			l.queue = l.queue[1:]
		}
		if err == nil || ctx.Err() == nil {
			l.problem = err
		}
		l.mu.Unlock()
		if err != nil {
			return err
		}
		l.told(p.record.Event)
	}
	return nil
}

// mustSign makes sure, after a record could not be signed, that the next one
// can be: else nothing would be found wrong until the next append, and nothing
// else is unsettled then.
func (l *Log) mustSign(ctx context.Context) error {
	if l.unsigned == nil {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, trialPatience, fmt.Errorf("the log's record key did not sign within %s", trialPatience))
	defer cancel()
	if err := l.keys.try(ctx, l.verifier.InForce(runner.RecordKey)); err != nil {
		return fmt.Errorf("%w: %w", errKeys, err)
	}
	l.unsigned = nil
	return nil
}

// told removes the files that a durable record told of. One that stays is
// removed by the next open, which finds it told of as well.
func (l *Log) told(e runner.Event) {
	tells, ok := e.(runner.Spooled)
	if !ok || l.options.Spool == nil {
		return
	}
	for len(l.kept) > 0 && l.kept[0].index <= tells.Last {
		_ = l.options.Spool.Remove(l.kept[0].index)
		l.mu.Lock()
		l.kept = l.kept[1:]
		l.mu.Unlock()
	}
}

// Spool implements [supervisor.Ledger].
func (l *Log) Spool() supervisor.Spool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := supervisor.Spool{Waiting: len(l.queue), Problem: l.problem}
	if n := len(l.kept); n > 0 {
		s.Kept, s.First, s.Last, s.Since = n, l.kept[0].index, l.kept[n-1].index, l.kept[0].at
	}
	return s
}

// readSpool takes up what the process before this one kept. Everything goes
// into the log before anything else does.
func (o *opening) readSpool(ctx context.Context) error {
	spool := o.options.Spool
	if spool == nil {
		return nil
	}
	indexes, err := spool.List()
	if err != nil {
		return err
	}
	told := map[uint64]bool{}
	for _, rec := range o.records {
		if e, ok := rec.Event.(runner.Spooled); ok {
			for i := e.First; i <= e.Last && i < rec.Index; i++ {
				told[i] = true
			}
		}
	}
	for _, index := range indexes {
		envelope, err := spool.Read(index)
		if err != nil {
			return err
		}
		if err := o.take(index, envelope, told[index]); err != nil {
			return err
		}
	}
	if err := o.drain(ctx); err != nil {
		return fmt.Errorf("%d records wait in the spool %s and go into the log before anything else: %w",
			len(o.queue), spool.Where(), err)
	}
	return nil
}

// take finds the place of one envelope of the spool.
func (o *opening) take(index uint64, envelope []byte, told bool) error {
	spool := o.options.Spool
	refuse := func(why error) error {
		return fmt.Errorf("record %d in the spool %s %w: keep a copy of that folder for the auditor, "+
			"find out why, move this record and those after it away and start again", index, spool.Where(), why)
	}
	switch size := o.replay.Size(); {
	case index > size:
		return refuse(fmt.Errorf("does not follow the log, which ends before record %d", size))
	case index < size && o.records[index].Digest != runner.DigestOf(envelope):
		return refuse(fmt.Errorf("has lost its place to another record: %w", supervisor.ErrFenced))
	case index < size && told:
		return spool.Remove(index)
	case index < size:
		o.kept = append(o.kept, kept{index, o.records[index].At})
		return nil
	}
	ended := o.closed != nil
	if ended {
		o.goOn(o.next())
		o.years = append(o.years, o.Log.year)
	}
	rec, errs := o.replay.Next(envelope)
	if _, begins := rec.Event.(runner.Continued); len(errs) == 0 && begins != ended {
		errs = append(errs, fmt.Errorf("%s stands between two years", rec.Event.Kind()))
	}
	if len(errs) > 0 {
		return refuse(fmt.Errorf("is not what this daemon signed: %w", errors.Join(errs...)))
	}
	o.took(rec, envelope)
	o.records = append(o.records, rec)
	o.queue = append(o.queue, &pending{
		record: rec, year: o.Log.year, envelope: envelope, segment: segmentOf(envelope), added: true,
	})
	o.kept = append(o.kept, kept{index, rec.At})
	return nil
}
