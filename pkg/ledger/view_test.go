package ledger_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/ledger/ledgertest"
	"github.com/runnerward/runnerward/pkg/runner/runnertest"
)

// slowView takes its time for everything that is derived.
type slowView struct {
	*ledgertest.Mem
	takes *time.Duration
}

func (s slowView) wait(ctx context.Context) error {
	select {
	case <-time.After(*s.takes):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s slowView) Publish(ctx context.Context, name string, data []byte) error {
	if err := s.wait(ctx); err != nil {
		return err
	}
	return s.Mem.Publish(ctx, name, data)
}

func (s slowView) Unpublish(ctx context.Context, name string) error {
	if err := s.wait(ctx); err != nil {
		return err
	}
	return s.Mem.Unpublish(ctx, name)
}

// appendFor appends a record a second for as many seconds, and says how long
// all of it took.
func appendFor(t *testing.T, log *ledger.Log, from time.Time, seconds int) time.Duration {
	t.Helper()
	began := time.Now()
	for i := range seconds {
		beat(t, log, from.Add(time.Duration(i)*time.Second))
	}
	return time.Since(began)
}

// TestAViewThatHangsHoldsUpFewAppends: the store of the view does not answer
// for 30 s, while that of the log does.
func TestAViewThatHangsHoldsUpFewAppends(t *testing.T) {
	keys := newKeys(t)
	synctest.Test(t, func(t *testing.T) {
		takes := time.Duration(0)
		mem := ledgertest.NewMem(nil)
		log := openLog(t, slowView{mem, &takes}, keys)
		appendFor(t, log, later(0), 60)
		takes = 30 * time.Second
		if took := appendFor(t, log, later(1), 600); took < time.Second || took > 15*time.Second {
			t.Errorf("600 records in ten minutes took %s; want little time for a view that hangs, and some", took)
		}
		if err := log.ViewError(); err == nil || !strings.Contains(err.Error(), "within 2s") {
			t.Errorf("ViewError() = %v, want why", err)
		}
		takes = 0
		appendFor(t, log, later(11), 301)
		if err := log.ViewError(); err != nil {
			t.Errorf("ViewError() five minutes after it is well again = %v", err)
		}
		if err := log.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if rep := wantClean(t, mem.FS(), keys); len(rep.Notes) != 0 {
			t.Errorf("notes = %v, want a complete view", rep.Notes)
		}
	})
}

// TestAViewThatIsSlowIsPublishedInTheEnd: a publication that takes longer than
// an append may wait goes on from where it stopped.
func TestAViewThatIsSlowIsPublishedInTheEnd(t *testing.T) {
	keys := newKeys(t)
	synctest.Test(t, func(t *testing.T) {
		takes := time.Duration(0)
		mem := ledgertest.NewMem(nil)
		log := openLog(t, slowView{mem, &takes}, keys)
		beat(t, log, later(0))
		takes = 1900 * time.Millisecond // three objects are to be published, and one takes nearly all the time
		shown := 0
		for i := range 20 {
			beat(t, log, later(10*(i+1)))
			if log.ViewError() == nil {
				shown++
			}
		}
		if shown < 3 {
			t.Errorf("20 records after ten minutes each brought %d publications to their end, want some", shown)
		}
		takes = 0
		if err := log.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if rep := wantClean(t, mem.FS(), keys); len(rep.Notes) != 0 {
			t.Errorf("notes = %v, want a complete view", rep.Notes)
		}
	})
}

// TestReplacedTilesAreRemovedFewAtATime, and by the next process where this one
// does not come to it.
func TestReplacedTilesAreRemovedFewAtATime(t *testing.T) {
	removed := 0
	mem, keys := ledgertest.NewMem(func(op ledgertest.Op, _ string) (bool, error) {
		if op == ledgertest.OpUnpublish {
			removed++
		}
		return true, nil
	}), newKeys(t)
	opts := options()
	opts.ViewEvery = 1 // each record makes partial tiles
	log, _, err := ledger.Open(t.Context(), mem, keys, opts)
	if err != nil {
		t.Fatal(err)
	}
	for i := range evidence.TileWidth + 5 {
		removed = 0
		if beat(t, log, runnertest.Start().Add(time.Duration(i)*time.Second)); removed > 16 {
			t.Errorf("record %d removed %d tiles, want 16 at most", i, removed)
		}
	}
	left := func() (n int) {
		for _, full := range []string{"view/tile/0/000.p/", "view/tile/entries/000.p/"} {
			names, err := mem.List(t.Context(), full)
			if err != nil {
				t.Fatal(err)
			}
			n += len(names)
		}
		return n
	}
	if n := left(); n == 0 || removed == 0 {
		t.Errorf("%d replaced tiles are left and the last record removed %d; want both", n, removed)
	}
	again := openLog(t, mem, keys)
	if err := again.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := left(); n != 0 {
		t.Errorf("%d replaced tiles are left by the next process", n)
	}
	if rep := wantClean(t, mem.FS(), keys); len(rep.Notes) != 0 {
		t.Errorf("notes = %v, want a complete view", rep.Notes)
	}
}
