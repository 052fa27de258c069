package ledger_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/ledger/ledgertest"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/runner/runnertest"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

var errLost = errors.New("the connection was lost")

// crashAt lets n operations pass; the next is applied or not, and from then on
// nothing works any more: the process is gone.
func crashAt(n int, applied bool) ledgertest.Fault {
	seen := 0
	return func(ledgertest.Op, string) (bool, error) {
		seen++
		switch {
		case seen <= n:
			return true, nil
		case seen == n+1:
			return applied, errLost
		}
		return false, errLost
	}
}

// failOnce fails one operation; all others work.
func failOnce(n int, applied bool) ledgertest.Fault {
	seen := 0
	return func(ledgertest.Op, string) (bool, error) {
		if seen++; seen == n+1 {
			return applied, errLost
		}
		return true, nil
	}
}

// life is one run of a daemon: it opens the log and tells one job's story,
// publishing the view with every record. It stops at the first error.
func life(t *testing.T, store ledger.Store, keys *ledger.Keys) (acknowledged int, err error) {
	opts := options()
	opts.ViewEvery = 1
	log, _, err := ledger.Open(t.Context(), store, keys, opts)
	if err != nil {
		return 0, err
	}
	s := scriptFor(t, log)
	err = s.Open()
	if err == nil {
		err = s.Tell(runnertest.NewCast(0), runnertest.CompletedStory())
	}
	if err == nil {
		err = log.Close(t.Context())
	}
	return len(s.Records), err
}

func TestACrashAtAnyOperationLosesNothingAcknowledged(t *testing.T) {
	keys := newKeys(t)
	for _, applied := range []bool{false, true} {
		for n := 0; ; n++ {
			mem := ledgertest.NewMem(crashAt(n, applied))
			acknowledged, err := life(t, mem, keys)
			if err == nil {
				break // the whole life passed before the crash
			}
			place := fmt.Sprintf("crash at operation %d, applied %t", n, applied)
			wantClean(t, mem.FS(), keys) // what a crash leaves is never a finding
			after := mem.With(nil)
			log, records, err := ledger.Open(t.Context(), after, keys, options())
			if err != nil {
				t.Fatalf("%s: Open = %v", place, err)
			}
			if len(records) < acknowledged || len(records) > acknowledged+1 {
				t.Errorf("%s: %d records after reopening, %d were acknowledged", place, len(records), acknowledged)
			}
			if _, err := log.Append(t.Context(), runnertest.Start().Add(time.Minute), runner.Heartbeat{}); err != nil {
				t.Errorf("%s: Append = %v", place, err)
			}
			if err := log.Close(t.Context()); err != nil {
				t.Errorf("%s: Close = %v", place, err)
			}
			wantClean(t, after.FS(), keys)
		}
	}
}

func TestAFailureAtAnyOperationIsRecoveredInPlace(t *testing.T) {
	keys := newKeys(t)
	for _, applied := range []bool{false, true} {
		for n := range 90 {
			mem := ledgertest.NewMem(failOnce(n, applied))
			log, _, err := ledger.Open(t.Context(), mem, keys, options())
			if err != nil {
				continue // a failed open is a failed start, see the crash test
			}
			place := fmt.Sprintf("failure of operation %d, applied %t", n, applied)
			s := runnertest.NewScript(persistent(t, log), func(b []byte) (runner.Digest, error) {
				d, err := log.PutBlob(t.Context(), b)
				if errors.Is(err, errLost) {
					return log.PutBlob(t.Context(), b)
				}
				return d, err
			})
			if s.Root, err = keys.Root().Encode(); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(s.Open(), s.Tell(runnertest.NewCast(0), runnertest.CompletedStory())); err != nil {
				t.Fatalf("%s: %v", place, err)
			}
			if err := log.Close(t.Context()); err != nil {
				_ = log.Close(t.Context())
			}
			if rep := wantClean(t, mem.FS(), keys); rep.Size != 13 || len(rep.Notes) != 0 {
				t.Fatalf("%s: %d records, notes %v, want 13 and none", place, rep.Size, rep.Notes)
			}
		}
	}
}

func TestRecoverMayFailAndBeCalledAgain(t *testing.T) {
	keys, down := newKeys(t), false
	for _, applied := range []bool{false, true} {
		mem := ledgertest.NewMem(func(op ledgertest.Op, _ string) (bool, error) {
			if down && op == ledgertest.OpCreate {
				return applied, errLost
			}
			return true, nil
		})
		log := openLog(t, mem, keys)
		down = true
		if _, err := log.Append(t.Context(), runnertest.Start(), runner.Heartbeat{OpenJobs: 3}); !errors.Is(err, errLost) {
			t.Fatalf("Append = %v, want the fault", err)
		}
		for range 3 {
			if recs, err := log.Recover(t.Context()); !errors.Is(err, errLost) || len(recs) != 0 {
				t.Errorf("Recover while the store is down = %v, %v, want the fault", recs, err)
			}
		}
		down = false
		recs, err := log.Recover(t.Context())
		if err != nil || len(recs) != 1 || recs[0].Event != (runner.Heartbeat{OpenJobs: 3}) {
			t.Errorf("Recover = %+v, %v, want the heartbeat", recs, err)
		}
		if recs, err := log.Recover(t.Context()); err != nil || len(recs) != 0 {
			t.Errorf("second Recover = %v, %v, want nothing new", recs, err)
		}
		wantClean(t, mem.FS(), keys)
	}
}

// persistent appends as a supervisor does: after an error it recovers, and it
// appends again only if the record did not turn up.
func persistent(t *testing.T, log *ledger.Log) runnertest.Append {
	return func(at time.Time, e runner.Event) (runner.Record, error) {
		rec, err := log.Append(t.Context(), at, e)
		if err == nil {
			return rec, nil
		}
		if errors.Is(err, supervisor.ErrFenced) {
			return rec, err
		}
		recs, err := log.Recover(t.Context())
		if err != nil {
			return rec, err
		}
		if len(recs) == 1 {
			return recs[0], nil
		}
		return log.Append(t.Context(), at, e)
	}
}
