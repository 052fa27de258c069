package ledger_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/runner"
)

// outagesAtNewYear are when a story begins in whose tenth second the store goes
// away.
func outagesAtNewYear() map[string]time.Time {
	midnight := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	return map[string]time.Time{
		"before midnight":                         midnight.Add(-10 * time.Second),
		"before the first record of the new year": midnight.Add(-9 * time.Second),
	}
}

// TestAnOutageOverNewYear: what waits has its place in the old year, which goes
// on until it is in the store; or the year ends in the spool, and the next
// begins there.
func TestAnOutageOverNewYear(t *testing.T) {
	for name, begins := range outagesAtNewYear() {
		t.Run(name, func(t *testing.T) {
			a := newAway(t, newKeys(t), trouble{at: -1})
			a.begins = begins
			if err := errors.Join(a.open(), a.before(), a.outage()); err != nil {
				t.Fatal(err)
			}
			var waits []runner.Kind
			kept := a.log.Spool()
			for _, rec := range a.s.Records[kept.First:] {
				waits = append(waits, rec.Event.Kind())
			}
			inSpool := slices.Contains(waits, runner.KindContinued)
			if want := name != "before midnight"; inSpool != want || kept.Waiting != len(waits) {
				t.Errorf("%v wait in the spool, %d of them, want the new year among them: %t", waits, kept.Waiting, want)
			}
			if err := errors.Join(a.after(), a.log.Close(t.Context())); err != nil {
				t.Fatal(err)
			}
			rep := wantClean(t, a.mem.FS(), a.keys)
			if rep.Size != 16 || len(rep.Notes) != 0 || len(turns(rep.Records)) != 1 {
				t.Errorf("%d records, notes %v, %d new years, want 16, none and one", rep.Size, rep.Notes, len(turns(rep.Records)))
			}
			if files := a.spool.Files(); len(files) != 0 {
				t.Errorf("%d files are left although a record tells of them", len(files))
			}
		})
	}
}

// The operations before the outage are those of the test without a new year.
func TestACrashOrFailureAtAnyOperationOfAnOutageOverNewYear(t *testing.T) {
	keys := newKeys(t)
	for name, begins := range outagesAtNewYear() {
		probe := newAway(t, keys, trouble{at: -1})
		probe.begins = begins
		if err := errors.Join(probe.open(), probe.before()); err != nil {
			t.Fatal(err)
		}
		for _, x := range []trouble{{applied: false, crash: true}, {applied: true, crash: true}, {applied: false}, {applied: true}} {
			for x.at = probe.seen; ; x.at++ {
				a := newAway(t, keys, x)
				a.begins = begins
				err := errors.Join(a.open(), a.before(), a.outage(), a.after())
				place := fmt.Sprintf("outage %s, trouble %+v", name, x)
				if err != nil && !x.crash {
					t.Fatalf("%s: %v", place, err)
				}
				wantClean(t, a.mem.FS(), keys)
				ended := a.seen <= x.at
				a.at = -1
				a.reopened(place)
				if ended {
					break
				}
			}
		}
	}
}

// TestASpoolWhoseYearWasEndedByAnotherIsRefused: the place of its first record
// is taken by the end of the year that another daemon wrote.
func TestASpoolWhoseYearWasEndedByAnotherIsRefused(t *testing.T) {
	a := newAway(t, newKeys(t), trouble{at: -1})
	a.begins = time.Date(2026, 12, 31, 23, 59, 0, 0, time.UTC)
	if err := errors.Join(a.open(), a.before(), a.outage()); err != nil {
		t.Fatal(err)
	}
	other := a.mem.With(nil)
	turn(t, openLog(t, other, a.keys), time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC))
	if _, _, err := ledger.Open(t.Context(), other, a.keys, spoolOptions(a.spool)); err == nil {
		t.Error("Open = nil, want that the spool has lost its place")
	}
	if names, err := other.List(t.Context(), evidence.Shard(2027).Name(evidence.SegmentFolder)); err != nil || len(names) != 1 {
		t.Errorf("segments of the new year = %v, %v, want its beginning alone", names, err)
	}
}
