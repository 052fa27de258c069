package ledger_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/ledger/ledgertest"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/runner/runnertest"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// errDown is what a store says that is away.
var errDown = errors.New("503 Service Unavailable")

// trouble is what befalls a store and a spool: the store is away while down,
// and operation at of the two together fails, once or for ever.
type trouble struct {
	at      int // -1 for none
	applied bool
	crash   bool
	down    bool
	seen    int
}

func (x *trouble) fault(op ledgertest.Op, _ string) (bool, error) {
	if x.down && op == ledgertest.OpCreate {
		return false, errDown
	}
	x.seen++
	switch {
	case x.at < 0 || x.seen <= x.at:
		return true, nil
	case x.seen == x.at+1:
		return x.applied, errLost
	}
	if x.crash {
		return false, errLost
	}
	return true, nil
}

// away is a log whose store goes away in the middle of a job.
type away struct {
	trouble
	t     *testing.T
	keys  *ledger.Keys
	mem   *ledgertest.Mem
	spool *ledgertest.MemSpool
	log   *ledger.Log
	s     *runnertest.Script
	// begins is when the story begins, if not as every script does.
	begins time.Time
}

func newAway(t *testing.T, keys *ledger.Keys, x trouble) *away {
	a := &away{trouble: x, t: t, keys: keys}
	a.mem, a.spool = ledgertest.NewMem(a.fault), ledgertest.NewMemSpool(a.fault)
	return a
}

func spoolOptions(spool ledger.Spool) ledger.Options {
	opts := options()
	opts.Spool = spool
	return opts
}

func (a *away) open() (err error) {
	a.log, _, err = ledger.Open(a.t.Context(), a.mem, a.keys, spoolOptions(a.spool))
	if err == nil {
		a.s = runnertest.NewScript(a.steady, func(b []byte) (runner.Digest, error) {
			d, err := a.log.PutBlob(a.t.Context(), b)
			if err != nil {
				return a.log.PutBlob(a.t.Context(), b)
			}
			return d, err
		})
		a.s.NewYear = func(at time.Time) (runner.Event, error) { return a.log.NewYear(a.t.Context(), at) }
		if !a.begins.IsZero() {
			a.s.Now = a.begins
		}
		a.s.Root, err = a.log.Root().Encode()
	}
	return err
}

// steady appends as a supervisor does: what failed is recovered, and appended
// again only if the record did not turn up.
func (a *away) steady(at time.Time, e runner.Event) (runner.Record, error) {
	rec, err := a.log.Append(a.t.Context(), at, e)
	for range 2 {
		if err == nil || errors.Is(err, supervisor.ErrFenced) {
			return rec, err
		}
		recs, problem := a.log.Recover(a.t.Context())
		switch {
		case len(recs) == 1:
			return recs[0], nil
		case problem == nil:
			rec, err = a.log.Append(a.t.Context(), at, e)
		}
	}
	return rec, err
}

// before tells the story until the store goes away.
func (a *away) before() error {
	story := runnertest.Upto(runnertest.CompletedStory(), runner.KindConcluded)
	return errors.Join(a.s.Open(), a.s.Tell(runnertest.NewCast(0), story))
}

// outage ends the host while the store is away.
func (a *away) outage() error {
	a.down = true
	return a.s.Tell(runnertest.NewCast(0), []runner.Kind{runner.KindCompleted, runner.KindTeardown, runner.KindTerminated})
}

// after brings the store back and tells the rest.
func (a *away) after() error {
	a.down = false
	if _, err := a.log.Recover(a.t.Context()); err != nil {
		if _, err := a.log.Recover(a.t.Context()); err != nil {
			return err
		}
	}
	if err := a.s.Must(spooledOf(a.log, a.s.Now)); err != nil {
		return err
	}
	return a.s.Tell(runnertest.NewCast(0), []runner.Kind{runner.KindSealed})
}

// spooledOf is what a supervisor records when the store is back.
func spooledOf(log *ledger.Log, now time.Time) runner.Spooled {
	kept := log.Spool()
	return runner.Spooled{First: kept.First, Last: kept.Last, Count: uint64(kept.Kept), Since: kept.Since, Until: now}
}

func TestRecordsOfAnEndWaitInTheSpoolAndNothingElseDoes(t *testing.T) {
	a := newAway(t, newKeys(t), trouble{at: -1})
	if err := errors.Join(a.open(), a.before(), a.outage()); err != nil {
		t.Fatal(err)
	}
	size, _ := a.log.Head()
	if kept := a.log.Spool(); kept.Waiting != 3 || kept.First != size || kept.Last != size+2 || !kept.Since.Equal(a.s.Records[size].At) || !errors.Is(kept.Problem, errDown) {
		t.Errorf("Spool() = %+v, want records %d to %d, the time of the first, and why", kept, size, size+2)
	}
	now := a.s.Now
	for _, e := range []runner.Event{
		runnertest.NewCast(1).Offered(now), runner.Heartbeat{}, runner.Unfrozen{By: "cert:oncall"}, runner.Opened{Version: "v1", Instance: "x"},
		runner.Claimed{}, runner.Bound{}, runner.Released{}, runner.Started{}, runner.Authorized{}, runner.Concluded{}, runner.Sealed{}, runner.Spooled{},
	} {
		if rec, err := a.log.Append(t.Context(), now, e); !errors.Is(err, supervisor.ErrAway) {
			t.Errorf("Append(%s) = %+v, %v, want ErrAway", e.Kind(), rec, err)
		}
	}
	if recs, err := a.log.Recover(t.Context()); len(recs) != 0 || !errors.Is(err, supervisor.ErrAway) || !errors.Is(err, errDown) {
		t.Errorf("Recover = %v, %v, want ErrAway and why", recs, err)
	}
	if rec, err := a.log.Append(t.Context(), now, runner.Frozen{By: "cert:oncall", Reason: "CVE-1"}); err != nil || rec.Index != size+3 {
		t.Errorf("Append(frozen) = %d, %v, want it in the spool: the refused ones left nothing", rec.Index, err)
	}
	if rep := wantClean(t, a.mem.FS(), a.keys); rep.Size != size {
		t.Errorf("the store holds %d records, want %d", rep.Size, size)
	}
}

func TestWhatWaitedIsCommittedInOrderWithTheVeryBytes(t *testing.T) {
	a := newAway(t, newKeys(t), trouble{at: -1})
	if err := errors.Join(a.open(), a.before(), a.outage()); err != nil {
		t.Fatal(err)
	}
	signed := a.spool.Files()
	if err := a.after(); err != nil {
		t.Fatal(err)
	}
	if files := a.spool.Files(); len(files) != 0 {
		t.Errorf("%d files are left although a record tells of them", len(files))
	}
	for index, envelope := range signed {
		segment, err := a.mem.Read(t.Context(), evidence.SegmentName(index))
		if err != nil || !bytes.Equal(segment, evidence.AppendEntry(nil, envelope)) {
			t.Errorf("record %d is not committed with the bytes that were signed: %v", index, err)
		}
	}
	if err := a.log.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	rep := wantClean(t, a.mem.FS(), a.keys)
	for i, rec := range rep.Records {
		if rec.Digest != a.s.Records[i].Digest || !rec.At.Equal(a.s.Records[i].At) {
			t.Errorf("record %d is %s of %s, acknowledged was %s of %s", i, rec.Digest, rec.At, a.s.Records[i].Digest, a.s.Records[i].At)
		}
	}
	if n := len(rep.State.Outages); n != 1 || rep.State.Outages[0].Event.Count != 3 || len(rep.Records) != len(a.s.Records) {
		t.Errorf("%d records, %d of outages, want %d and one that tells of three", len(rep.Records), n, len(a.s.Records))
	}
}

// TestACrashAtAnyOperationOfAnOutage: what was acknowledged, from the store or
// from the spool, is in the log after the next start, and nothing else but the
// one record that was under way.
func TestACrashAtAnyOperationOfAnOutage(t *testing.T) {
	keys := newKeys(t)
	for _, applied := range []bool{false, true} {
		for at := 0; ; at++ {
			a := newAway(t, keys, trouble{at: at, applied: applied, crash: true})
			err := a.open()
			for _, act := range []func() error{a.before, a.outage, a.after} {
				if err == nil {
					err = act()
				}
			}
			if err == nil {
				if at < 40 {
					t.Errorf("only %d operations: the crash does not reach the outage", at)
				}
				break
			}
			wantClean(t, a.mem.FS(), keys) // what a crash leaves is never a finding
			a.reopened(fmt.Sprintf("crash at operation %d, applied %t", at, applied))
		}
	}
}

// reopened checks what the process after this one finds.
func (a *away) reopened(place string) {
	t := a.t
	t.Helper()
	var acknowledged []runner.Record
	if a.s != nil {
		acknowledged = a.s.Records
	}
	mem, spool := a.mem.With(nil), a.spool.With(nil)
	log, records, err := ledger.Open(t.Context(), mem, a.keys, spoolOptions(spool))
	if err != nil {
		t.Fatalf("%s: Open = %v", place, err)
	}
	if len(records) < len(acknowledged) || len(records) > len(acknowledged)+1 {
		t.Fatalf("%s: %d records after reopening, %d were acknowledged", place, len(records), len(acknowledged))
	}
	for i, rec := range acknowledged {
		if records[i].Digest != rec.Digest {
			t.Fatalf("%s: record %d is another than was acknowledged", place, i)
		}
	}
	kept := log.Spool()
	if kept.Waiting != 0 {
		t.Errorf("%s: %d records still wait after Open", place, kept.Waiting)
	}
	now := runnertest.Start().Add(time.Minute)
	if !a.begins.IsZero() {
		now = a.begins.Add(time.Minute)
	}
	turn(t, log, now)
	if kept.Kept > 0 {
		if _, err := log.Append(t.Context(), now, spooledOf(log, now)); err != nil {
			t.Errorf("%s: Append(spooled) = %v", place, err)
		}
	}
	if _, err := log.Append(t.Context(), now, runner.Heartbeat{}); err != nil {
		t.Errorf("%s: Append = %v", place, err)
	}
	if err := log.Close(t.Context()); err != nil {
		t.Errorf("%s: Close = %v", place, err)
	}
	rep := wantClean(t, mem.FS(), a.keys)
	told := map[uint64]bool{}
	for _, rec := range rep.Records {
		if e, ok := rec.Event.(runner.Spooled); ok {
			for i := e.First; i <= e.Last; i++ {
				told[i] = true
			}
		}
	}
	for index := range a.spool.Files() {
		if !told[index] {
			t.Errorf("%s: record %d was in the spool and no record says so", place, index)
		}
	}
	if _, _, err := ledger.Open(t.Context(), mem, a.keys, spoolOptions(spool)); err != nil || len(spool.Files()) != 0 {
		t.Errorf("%s: third Open = %v with %d files left, want none", place, err, len(spool.Files()))
	}
}

func TestAFailureAtAnyOperationOfAnOutageIsRecoveredInPlace(t *testing.T) {
	keys := newKeys(t)
	for _, applied := range []bool{false, true} {
		for at := range 90 {
			a := newAway(t, keys, trouble{at: at, applied: applied})
			if a.open() != nil {
				continue // a failed open is a failed start, see the crash test
			}
			if err := errors.Join(a.before(), a.outage(), a.after()); err != nil {
				t.Fatalf("failure of operation %d, applied %t: %v", at, applied, err)
			}
			a.at = -1
			a.reopened(fmt.Sprintf("failure of operation %d, applied %t", at, applied))
		}
	}
}

// TestARecordOfUnknownOutcomeGoesIntoTheSpool: its bytes may have reached the
// store, so they take its place whatever it is, and the caller is told that it
// may not act on it.
func TestARecordOfUnknownOutcomeGoesIntoTheSpool(t *testing.T) {
	for _, applied := range []bool{false, true} {
		keys := newKeys(t)
		lost := false
		mem := ledgertest.NewMem(func(op ledgertest.Op, _ string) (bool, error) {
			if lost && op == ledgertest.OpCreate {
				apply := applied
				applied = false
				return apply, errDown
			}
			return true, nil
		})
		spool := ledgertest.NewMemSpool(nil)
		log, _, err := ledger.Open(t.Context(), mem, keys, spoolOptions(spool))
		if err != nil {
			t.Fatal(err)
		}
		lost = true
		beat := runner.Heartbeat{OpenJobs: 3}
		if _, err := log.Append(t.Context(), runnertest.Start(), beat); !errors.Is(err, errDown) || errors.Is(err, supervisor.ErrAway) {
			t.Fatalf("Append = %v, want the failure, and not that the record has no place", err)
		}
		recs, err := log.Recover(t.Context())
		if !errors.Is(err, supervisor.ErrAway) || len(recs) != 1 || recs[0].Event != beat {
			t.Fatalf("Recover = %+v, %v, want the heartbeat and ErrAway", recs, err)
		}
		frozen, err := log.Append(t.Context(), runnertest.Start().Add(time.Second), runner.Frozen{By: "cert:oncall", Reason: "CVE-1"})
		if err != nil || frozen.Index != 1 {
			t.Fatalf("Append(frozen) = %+v, %v, want record 1", frozen, err)
		}
		lost = false
		if recs, err := log.Recover(t.Context()); err != nil || len(recs) != 0 {
			t.Fatalf("Recover = %v, %v, want nothing new", recs, err)
		}
		if rep := wantClean(t, mem.FS(), keys); rep.Size != 2 || rep.Records[1].Digest != frozen.Digest {
			t.Errorf("%d records, want the heartbeat and the freeze as they were signed", rep.Size)
		}
	}
}

func TestWithTheStoreAwayAtTheStartTheSpoolStaysAsItIs(t *testing.T) {
	a := newAway(t, newKeys(t), trouble{at: -1})
	if err := errors.Join(a.open(), a.before(), a.outage()); err != nil {
		t.Fatal(err)
	}
	before := a.spool.Files()
	_, _, err := ledger.Open(t.Context(), a.mem, a.keys, spoolOptions(a.spool))
	if !errors.Is(err, supervisor.ErrAway) || !errors.Is(err, errDown) || !strings.Contains(err.Error(), "3 records wait in the spool") {
		t.Errorf("Open = %v, want why, and what waits", err)
	}
	for index, b := range a.spool.Files() {
		if !bytes.Equal(before[index], b) {
			t.Errorf("record %d in the spool was changed", index)
		}
	}
	a.down = false
	a.reopened("after the store was away at a start")
}
