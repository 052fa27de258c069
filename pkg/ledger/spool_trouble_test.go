package ledger_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/ledger/ledgertest"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/runner/runnertest"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// TestAFullSpoolIsNoSuccess: as without a spool, nothing is acknowledged, and
// the record keeps its place.
func TestAFullSpoolIsNoSuccess(t *testing.T) {
	errFull := errors.New("no space left on device")
	full, a := true, newAway(t, newKeys(t), trouble{at: -1})
	a.spool = ledgertest.NewMemSpool(func(op ledgertest.Op, _ string) (bool, error) {
		if full && op == ledgertest.OpKeep {
			return false, errFull
		}
		return true, nil
	})
	if err := errors.Join(a.open(), a.before()); err != nil {
		t.Fatal(err)
	}
	a.down = true
	cast := runnertest.NewCast(0)
	if _, err := a.log.Append(t.Context(), a.s.Now, cast.Completed()); !errors.Is(err, errFull) || !errors.Is(err, errDown) {
		t.Errorf("Append = %v, want both failures", err)
	}
	if recs, err := a.log.Recover(t.Context()); len(recs) != 0 || !errors.Is(err, errFull) || errors.Is(err, supervisor.ErrAway) {
		t.Errorf("Recover = %v, %v, want the spool's failure and not ErrAway", recs, err)
	}
	full = false
	recs, err := a.log.Recover(t.Context())
	if len(recs) != 1 || !errors.Is(err, supervisor.ErrAway) {
		t.Errorf("Recover = %v, %v, want the record from the spool", recs, err)
	}
}

// hanging answers no write before the caller's patience ends.
type hanging struct {
	*ledgertest.Mem
	hang *bool
}

func (h hanging) Create(ctx context.Context, name string, data []byte) error {
	if *h.hang {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return h.Mem.Create(ctx, name, data)
}

func TestAStoreThatHangsCostsPatienceOnce(t *testing.T) {
	keys := newKeys(t)
	synctest.Test(t, func(t *testing.T) {
		a := newAway(t, keys, trouble{at: -1})
		hang := false
		opts := spoolOptions(a.spool)
		opts.Patience = 7 * time.Second
		var err error
		if a.log, _, err = ledger.Open(t.Context(), hanging{a.mem, &hang}, keys, opts); err != nil {
			t.Fatal(err)
		}
		a.s = scriptFor(t, a.log)
		if err := a.before(); err != nil {
			t.Fatal(err)
		}
		hang = true
		began := time.Now()
		if err := a.s.Tell(runnertest.NewCast(0), []runner.Kind{runner.KindCompleted, runner.KindTeardown, runner.KindTerminated}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != opts.Patience {
			t.Errorf("three records took %s, want %s for the first and nothing for the others", took, opts.Patience)
		}
		began = time.Now()
		if _, err := a.log.Recover(t.Context()); !errors.Is(err, supervisor.ErrAway) {
			t.Errorf("Recover = %v, want ErrAway", err)
		}
		if took := time.Since(began); took != opts.Patience {
			t.Errorf("Recover took %s, want %s", took, opts.Patience)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		why := a.log.Spool().Problem
		if _, err := a.log.Recover(gone); !errors.Is(err, supervisor.ErrAway) || a.log.Spool().Problem != why {
			t.Errorf("Recover of a caller who went away = %v because of %v, want that records wait because of %v", err, a.log.Spool().Problem, why)
		}
	})
}

// TestACallerWithoutTimeLeftIsNoOutage: the store is well. The record waits in
// memory and its outcome for Recover; nothing says that the store was away.
func TestACallerWithoutTimeLeftIsNoOutage(t *testing.T) {
	a := newAway(t, newKeys(t), trouble{at: -1})
	if err := errors.Join(a.open(), a.before()); err != nil {
		t.Fatal(err)
	}
	late, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	completed := runnertest.NewCast(0).Completed()
	if rec, err := a.log.Append(late, a.s.Now, completed); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Append = %+v, %v, want the caller's time to be over", rec, err)
	}
	if recs, err := a.log.Recover(late); len(recs) != 0 || err == nil || errors.Is(err, supervisor.ErrAway) {
		t.Errorf("Recover of such a caller = %v, %v, want nothing, and nothing said of the store", recs, err)
	}
	if kept := a.log.Spool(); kept.Kept != 0 {
		t.Errorf("%d records are in the spool, want none", kept.Kept)
	}
	if recs, err := a.log.Recover(t.Context()); err != nil || len(recs) != 1 || recs[0].Event != completed {
		t.Errorf("Recover = %v, %v, want the record in the store", recs, err)
	}
	wantClean(t, a.mem.FS(), a.keys)
}
