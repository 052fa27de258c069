package endtoend

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/sim/world"
)

// TestKeysHandOverAmidADeploy: the daemon is stopped while a job runs, its keys
// are renamed, and it starts again. The new keys are away for a while: the
// daemon waits for them and writes nothing else. Then the job goes on to its
// seal, and the root from before verifies all of it.
func TestKeysHandOverAmidADeploy(t *testing.T) {
	var away atomic.Int32
	keysAway := func(next rotation) rotation {
		return func(ctx context.Context, at time.Time) (runner.Event, error) {
			if away.Add(-1) >= 0 {
				return nil, errors.New("the keys are away")
			}
			return next(ctx, at)
		}
	}
	run(t, options{at: -1, rotation: keysAway}, func(t *testing.T, b *bench) {
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 2*time.Minute), "carol")
		b.until("started", 20*time.Minute, func() bool { return b.phase(runner.KindStarted) != nil })
		b.kill()
		keys, err := ledger.OpenKeys(b.dir+"/keys", "runnerward.test/hipaa-prod/2026", time.Now().UTC())
		if err != nil {
			t.Fatal(err)
		}
		oldRoot := keys.Root()
		b.renameKeys()
		away.Store(5)
		b.start()
		b.until("sealed", time.Hour, func() bool { return b.sealed(deploy.JobID) != nil })
		b.kill()
		b.start() // nothing is handed over twice
		b.until("opened again", time.Minute, func() bool { return b.openings() == 3 })

		rep, err := evidence.Verify(os.DirFS(b.dir+"/ledger"), oldRoot)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range rep.Findings {
			t.Errorf("by the root from before: %s", f)
		}
		handovers := 0
		for _, rec := range rep.Records {
			switch e := rec.Event.(type) {
			case runner.Opened:
				if e.RootDigest == "" {
					t.Errorf("record %d does not name the public keys", rec.Index)
				}
			case runner.Rotated:
				handovers++
				if before := rep.Records[rec.Index-1].Event.Kind(); before != runner.KindOpened && before != runner.KindRotated {
					t.Errorf("record %d hands over after %s, want it before all else", rec.Index, before)
				}
			}
		}
		if away.Load() >= 0 {
			t.Error("the keys were not asked again")
		}
		if handovers != 2 {
			t.Errorf("%d handovers, want one of each key", handovers)
		}
	})
}

// openings counts the starts that the log holds.
func (b *bench) openings() (n int) {
	for _, rec := range b.report().Records {
		if rec.Event.Kind() == runner.KindOpened {
			n++
		}
	}
	return n
}

// TestKeysHandOverWhileTheStoreGoesAway: the store fails under the first of two
// handovers, which then waits in the spool. When it is back the second follows
// and the daemon works on.
func TestKeysHandOverWhileTheStoreGoesAway(t *testing.T) {
	var b *bench
	var handovers atomic.Int32
	storeAway := func(next rotation) rotation {
		return func(ctx context.Context, at time.Time) (runner.Event, error) {
			e, err := next(ctx, at)
			if e != nil && handovers.Add(1) == 1 {
				b.faults.setAway(true)
			}
			return e, err
		}
	}
	run(t, options{at: -1, spool: true, rotation: storeAway}, func(t *testing.T, bench *bench) {
		b = bench
		b.until("opened", time.Minute, func() bool { return b.openings() == 1 })
		b.kill()
		b.renameKeys()
		b.start()
		b.until("the first handover waits", time.Minute, func() bool {
			left, err := os.ReadDir(b.dir + "/spool")
			return err == nil && len(left) == 1
		})
		pause(t.Context(), 5*time.Minute)
		b.faults.setAway(false)
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 10*time.Second), "carol")
		b.until("sealed", time.Hour, func() bool { return b.sealed(deploy.JobID) != nil })
		kinds := map[runner.Kind]int{}
		for _, rec := range b.report().Records {
			kinds[rec.Event.Kind()]++
		}
		if kinds[runner.KindRotated] != 2 || kinds[runner.KindSpooled] != 1 || kinds[runner.KindOpened] != 2 {
			t.Errorf("the log says %v, want two handovers, one outage told, and two starts", kinds)
		}
	})
}

// renameKeys is the operator's part of a rotation of both keys in files.
func (b *bench) renameKeys() {
	b.t.Helper()
	for from, to := range map[string]string{
		ledger.RecordKeyFile: ledger.PreviousRecordKeyFile, ledger.LogKeyFile: ledger.PreviousLogKeyFile,
	} {
		if err := os.Rename(b.dir+"/keys/"+from, b.dir+"/keys/"+to); err != nil {
			b.t.Fatal(err)
		}
	}
}
