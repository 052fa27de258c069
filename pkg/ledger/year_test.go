package ledger_test

import (
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"slices"
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

// eve is shortly before the first new year of the log: a job's story that
// begins then is told on both sides of midnight.
func eve() time.Time { return time.Date(2026, 12, 31, 23, 59, 55, 0, time.UTC) }

// tellAcross opens the log on New Year's Eve and tells a job over midnight.
func tellAcross(s *runnertest.Script) error {
	s.Now = eve()
	return errors.Join(s.Open(), s.Tell(runnertest.NewCast(0), runnertest.CompletedStory()))
}

func across(t *testing.T, log *ledger.Log) *runnertest.Script {
	t.Helper()
	s := scriptFor(t, log)
	if err := tellAcross(s); err != nil {
		t.Fatal(err)
	}
	return s
}

// turns are the indexes of the records that begin a year.
func turns(records []runner.Record) (at []uint64) {
	for _, rec := range records {
		if rec.Event.Kind() == runner.KindContinued {
			at = append(at, rec.Index)
		}
	}
	return at
}

func TestALogGoesOnOverNewYearInATreeOfItsOwn(t *testing.T) {
	folder, keys := t.TempDir(), newKeys(t)
	d := openDir(t, folder)
	log := openLog(t, d, keys)
	told := across(t, log)
	// The daemon is off for a whole year.
	told.Now = time.Date(2029, 5, 6, 7, 8, 9, 0, time.UTC)
	newYear := told.NewYear
	told.NewYear = nil // a silence is explained in the year that it began in
	err := told.Must(runner.Gap{Since: told.State.LastAt, Until: told.Now})
	told.NewYear = newYear
	if err := errors.Join(err, told.Must(runner.Heartbeat{}), log.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	begins := turns(told.Records)
	if len(begins) != 2 || told.Records[begins[0]-1].Event != (runner.Closed{Year: 2027}) || told.Records[begins[1]-1].Event != (runner.Closed{Year: 2029}) {
		t.Fatalf("years begin at %v of %d records, want two, each after the end of one", begins, len(told.Records))
	}
	for i, rec := range told.Records {
		year := 2026
		switch index := uint64(i); {
		case index >= begins[1]:
			year = 2029
		case index >= begins[0]:
			year = 2027
		}
		if got := rec.At.Year(); got != year && rec.Event.Kind() != runner.KindClosed && rec.Event.Kind() != runner.KindGap {
			t.Errorf("record %d, %s, of %d stands in year %d", i, rec.Event.Kind(), got, year)
		}
	}
	rep := wantClean(t, d.FS(), keys)
	if len(rep.Notes) != 0 || rep.Size != uint64(len(told.Records)) || rep.Jobs != 1 {
		t.Errorf("report = %d records, %d jobs, notes %v, want %d, 1 and none", rep.Size, rep.Jobs, rep.Notes, len(told.Records))
	}
	size, head := log.Head()
	if want := fmt.Sprintf("%s/2029\n%d\n", origin, rep.Size-begins[1]); size != rep.Size || !strings.HasPrefix(head, want) || head != rep.Head {
		t.Errorf("Head() = %d, %q, want one of %q", size, head, want)
	}
	reopened, records, err := ledger.Open(t.Context(), openDir(t, folder), keys, options())
	if err != nil || !reflect.DeepEqual(records, told.Records) {
		t.Fatalf("reopened: %d records, %v, want the %d that were told", len(records), err, len(told.Records))
	}
	if rec, err := reopened.Append(t.Context(), told.Now, runner.Heartbeat{}); err != nil || rec.Index != uint64(len(records)) {
		t.Errorf("Append after reopening = %d, %v", rec.Index, err)
	}
	again, head := reopened.Head()
	if again != size+1 || !strings.HasPrefix(head, origin+"/2029\n") {
		t.Errorf("Head() = %d, %q", again, head)
	}
}

// TestEveryYearHasWhatItsRecordsRestOn removes the first year from a copy: the
// documents in effect, and the input of a decision that was stored before
// midnight and written down after it, are in the year of the record.
func TestEveryYearHasWhatItsRecordsRestOn(t *testing.T) {
	mem, keys := ledgertest.NewMem(nil), newKeys(t)
	log := openLog(t, mem, keys)
	s := scriptFor(t, log)
	s.Now = eve()
	if err := s.Open(); err != nil {
		t.Fatal(err)
	}
	put := func(b string) runner.Digest {
		t.Helper()
		d, err := log.PutBlob(t.Context(), []byte(b))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if err := s.Must(runnertest.NewCast(0).Offered(eve())); err != nil {
		t.Fatal(err)
	}
	opened := s.State.Opened.Event
	early := put("the input of a decision")
	s.Now = time.Date(2027, 1, 1, 0, 0, 1, 0, time.UTC)
	cast := runnertest.NewCast(0)
	if err := s.Must(runner.Denied{Job: cast.Job, RunID: cast.RunID, Repository: cast.Offered(eve()).Repository, Decision: runner.Decision{
		Policy: opened.PolicyDigest, Input: early, EvaluatedAt: eve(), Reasons: []string{"no"},
	}}); err != nil {
		t.Fatal(err)
	}
	for _, d := range []runner.Digest{opened.ConfigDigest, opened.PolicyDigest, opened.RootDigest, early} {
		if _, err := mem.Read(t.Context(), evidence.Shard(2027).Name(evidence.BlobName(d))); err != nil {
			t.Errorf("attachment %s in 2027: %v", d, err)
		}
	}
	if err := log.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rep := wantClean(t, mem.FS(), keys); len(rep.Notes) != 0 {
		t.Errorf("notes = %v, want none", rep.Notes)
	}
}

func TestACrashAtAnyOperationOfANewYearLosesNothing(t *testing.T) {
	keys := newKeys(t)
	life := func(mem *ledgertest.Mem) (acknowledged int, err error) {
		log, _, err := ledger.Open(t.Context(), mem, keys, options())
		if err != nil {
			return 0, err
		}
		s := scriptFor(t, log)
		err = tellAcross(s)
		if err == nil {
			err = log.Close(t.Context())
		}
		return len(s.Records), err
	}
	between := 0
	for _, applied := range []bool{false, true} {
		for n := 0; ; n++ {
			mem := ledgertest.NewMem(crashAt(n, applied))
			acknowledged, err := life(mem)
			if err == nil {
				break
			}
			place := fmt.Sprintf("crash at operation %d, applied %t", n, applied)
			for _, note := range wantClean(t, mem.FS(), keys).Notes {
				if strings.Contains(note.Detail, "the year is closed") {
					between++
				}
			}
			after := mem.With(nil)
			log, records, err := ledger.Open(t.Context(), after, keys, options())
			if err != nil {
				t.Fatalf("%s: Open = %v", place, err)
			}
			if len(records) < acknowledged || len(records) > acknowledged+1 {
				t.Errorf("%s: %d records after reopening, %d were acknowledged", place, len(records), acknowledged)
			}
			s := scriptFor(t, log)
			for _, rec := range records {
				if err := s.State.Apply(rec); err != nil {
					t.Fatalf("%s: %v", place, err)
				}
			}
			s.Now = eve().Add(time.Minute) // in the new year
			if err := errors.Join(s.Open(), log.Close(t.Context())); err != nil {
				t.Errorf("%s: %v", place, err)
			}
			rep := wantClean(t, after.FS(), keys)
			if n := len(turns(rep.Records)); n != 1 && rep.Size > 1 {
				t.Errorf("%s: %d new years in %d records", place, n, rep.Size)
			}
		}
	}
	if between < 3 {
		t.Errorf("%d crashes left a year closed and the next unbegun, want several", between)
	}
}

func TestAFailureAtAnyOperationOfANewYearIsRecoveredInPlace(t *testing.T) {
	keys := newKeys(t)
	for _, applied := range []bool{false, true} {
		for n, passed := 0, false; !passed; n++ {
			seen := 0
			mem := ledgertest.NewMem(func(ledgertest.Op, string) (bool, error) {
				if seen++; seen == n+1 {
					return applied, errLost
				}
				return true, nil
			})
			log, _, err := ledger.Open(t.Context(), mem, keys, options())
			if err != nil {
				continue
			}
			s := runnertest.NewScript(persistent(t, log), func(b []byte) (runner.Digest, error) {
				d, err := log.PutBlob(t.Context(), b)
				if errors.Is(err, errLost) {
					return log.PutBlob(t.Context(), b)
				}
				return d, err
			})
			s.NewYear = func(at time.Time) (runner.Event, error) { return log.NewYear(t.Context(), at) }
			if s.Root, err = keys.Root().Encode(); err != nil {
				t.Fatal(err)
			}
			place := fmt.Sprintf("failure of operation %d, applied %t", n, applied)
			if err := tellAcross(s); err != nil {
				t.Fatalf("%s: %v", place, err)
			}
			if err := errors.Join(log.ViewError(), log.Close(t.Context())); err != nil {
				_ = log.Close(t.Context())
			}
			passed = seen <= n
			// Of the closed year only an open publishes the view again.
			after := mem.With(nil)
			openLog(t, after, keys)
			if rep := wantClean(t, after.FS(), keys); rep.Size != 15 || len(rep.Notes) != 0 {
				t.Fatalf("%s: %d records, notes %v, want 15 and none", place, rep.Size, rep.Notes)
			}
		}
	}
}

// TestAWriterOfTheOldYearIsFenced: two daemons at New Year, paused at every
// place where they could still write.
func TestAWriterOfTheOldYearIsFenced(t *testing.T) {
	keys, after := newKeys(t), time.Date(2027, 1, 1, 0, 0, 1, 0, time.UTC)
	step := func(t *testing.T, log *ledger.Log) runner.Event {
		t.Helper()
		e, err := log.NewYear(t.Context(), after)
		if err != nil || e == nil {
			t.Fatalf("NewYear = %v, %v, want a record", e, err)
		}
		return e
	}
	add := func(t *testing.T, log *ledger.Log, e runner.Event) {
		t.Helper()
		if _, err := log.Append(t.Context(), after, e); err != nil {
			t.Fatal(err)
		}
	}
	for name, paused := range map[string]func(t *testing.T, first, second *ledger.Log) runner.Event{
		"before the end of the year": func(t *testing.T, _, second *ledger.Log) runner.Event {
			add(t, second, step(t, second))
			add(t, second, step(t, second))
			return runner.Heartbeat{}
		},
		"about to end the year too": func(t *testing.T, first, second *ledger.Log) runner.Event {
			closed := step(t, first)
			add(t, second, step(t, second))
			return closed
		},
		"about to begin the year too": func(t *testing.T, first, second *ledger.Log) runner.Event {
			continued := step(t, first)
			add(t, second, step(t, second))
			return continued
		},
		"recovering between the years": func(t *testing.T, first, second *ledger.Log) runner.Event {
			add(t, second, step(t, second))
			if _, err := first.Recover(t.Context()); !errors.Is(err, supervisor.ErrFenced) {
				t.Errorf("Recover = %v, want ErrFenced", err)
			}
			return runner.Heartbeat{}
		},
	} {
		t.Run(name, func(t *testing.T) {
			mem := ledgertest.NewMem(nil)
			first := openLog(t, mem, keys)
			if _, err := first.Append(t.Context(), eve(), runner.Heartbeat{}); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(name, "between") || strings.Contains(name, "begin the") {
				add(t, first, step(t, first))
			}
			second := openLog(t, mem, keys)
			e := paused(t, first, second)
			if _, err := first.Append(t.Context(), after, e); !errors.Is(err, supervisor.ErrFenced) {
				t.Errorf("Append of the paused writer = %v, want ErrFenced", err)
			}
			wantClean(t, mem.FS(), keys)
		})
	}
}

func TestNothingStandsBetweenTwoYears(t *testing.T) {
	mem, keys := ledgertest.NewMem(nil), newKeys(t)
	log := openLog(t, mem, keys)
	at := eve()
	say := func(e runner.Event) error {
		_, err := log.Append(t.Context(), at, e)
		if err != nil {
			if _, err := log.Recover(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		return err
	}
	if err := say(runner.Continued{Origin: origin, Root: runner.DigestOf(nil), Checkpoint: runner.DigestOf(nil)}); err == nil {
		t.Error("a log began with the beginning of a later year")
	}
	if err := say(runner.Heartbeat{}); err != nil {
		t.Fatal(err)
	}
	for _, moment := range []time.Time{eve(), eve().Add(4 * time.Second)} {
		if e, err := log.NewYear(t.Context(), moment); e != nil || err != nil {
			t.Errorf("NewYear at %s = %v, %v, want nothing", moment, e, err)
		}
	}
	at = eve().Add(5 * time.Second)
	e, err := log.NewYear(t.Context(), at)
	if err != nil || e != (runner.Closed{Year: 2027}) {
		t.Fatalf("NewYear = %v, %v, want the end of the year", e, err)
	}
	if err := say(runner.Closed{Year: 2026}); err == nil {
		t.Error("a year ended that goes on in itself")
	}
	if err := say(e); err != nil {
		t.Fatal(err)
	}
	if err := say(runner.Heartbeat{}); err == nil {
		t.Error("a record was written between two years")
	}
}

func TestKeysThatHandedOverInOneYearVerifyTheNext(t *testing.T) {
	folder, mem := t.TempDir()+"/keys", ledgertest.NewMem(nil)
	log := openLog(t, mem, fileKeys(t, folder, later(0)))
	if err := began(t, log, later(0)); err != nil {
		t.Fatal(err)
	}
	oldRoot := log.Root()
	for n, year := range []int{2026, 2027, 2028} {
		rename(t, folder, ledger.RecordKeyFile, ledger.PreviousRecordKeyFile)
		rename(t, folder, ledger.LogKeyFile, ledger.PreviousLogKeyFile)
		at := time.Date(year, 12, 31, 23, 0, n, 0, time.UTC)
		log = openLog(t, mem, fileKeys(t, folder, at))
		turn(t, log, at)
		if _, err := log.Append(t.Context(), at, runner.Gap{Since: later(0), Until: at}); err != nil {
			t.Fatal(err)
		}
		if err := began(t, log, at); err != nil {
			t.Fatal(err)
		}
		at = at.Add(time.Hour)
		turn(t, log, at)
		beat(t, log, at)
		if err := log.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	newRoot := log.Root()
	for name, root := range map[string]evidence.Root{"before": oldRoot, "now": newRoot} {
		if got := len(clean(t, mem.FS(), root)); got != 6 {
			t.Errorf("by the root of %s: %d handovers, want 6", name, got)
		}
	}
	// The last year alone needs the root that names the keys of then.
	alone := copyStore(t, mem.FS(), func(name string) bool {
		shard, _ := evidence.SplitShard(name)
		return shard != 2029
	})
	clean(t, alone.FS(), newRoot)
	if rep, err := evidence.Verify(alone.FS(), oldRoot); err != nil || rep.OK() {
		t.Errorf("the last year by the first keys: %v, %v, want findings", rep.Findings, err)
	}
}

// turn lets the log begin a year if it wants to.
func turn(t *testing.T, log *ledger.Log, at time.Time) {
	t.Helper()
	for {
		e, err := log.NewYear(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		if e == nil {
			return
		}
		if _, err := log.Append(t.Context(), at, e); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOpenRefusesALogThatLostAYear(t *testing.T) {
	keys, whole := newKeys(t), ledgertest.NewMem(nil)
	log := openLog(t, whole, keys)
	s := across(t, log)
	s.Now = time.Date(2028, 1, 1, 0, 0, 0, 0, time.UTC)
	if err := errors.Join(s.Must(runner.Heartbeat{}), log.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	in := func(name string) evidence.Shard {
		shard, _ := evidence.SplitShard(name)
		return shard
	}
	segments := func(t *testing.T, shard evidence.Shard) []string {
		names, err := whole.List(t.Context(), shard.Name(evidence.SegmentFolder))
		if err != nil || len(names) == 0 {
			t.Fatalf("segments of %d = %v, %v", shard, names, err)
		}
		return names
	}
	first := segments(t, 0)
	for name, lost := range map[string]func(string) bool{
		"the first year":                func(n string) bool { return in(n) == 0 },
		"the records of the first":      func(n string) bool { return slices.Contains(first, n) },
		"the middle year":               func(n string) bool { return in(n) == 2027 },
		"the last year, but its view":   func(n string) bool { return in(n) == 2028 && !strings.HasPrefix(n, "view/") },
		"the end of the first year":     func(n string) bool { return n == first[len(first)-1] },
		"the beginning of the next":     func(n string) bool { return n == segments(t, 2027)[0] },
		"the last checkpoint of a year": func(n string) bool { return n == evidence.CheckpointName(uint64(len(first))) },
	} {
		torn := copyStore(t, whole.FS(), lost)
		if _, _, err := ledger.Open(t.Context(), torn, keys, options()); err == nil {
			t.Errorf("Open without %s = nil, want a refusal", name)
		}
		if rep, err := evidence.Verify(torn.FS(), keys.Root()); err != nil {
			t.Errorf("without %s: %v", name, err)
		} else if whole := name == "the first year" || name == "the records of the first"; rep.OK() && !whole {
			t.Errorf("without %s: no finding, notes %v", name, rep.Notes)
		}
	}
	// A year of another log of the same name and keys.
	other := ledgertest.NewMem(nil)
	across(t, openLog(t, other, keys))
	swapped := copyStore(t, whole.FS(), func(n string) bool { return in(n) == 2027 })
	err := fs.WalkDir(other.FS(), "2027", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(other.FS(), name)
		return errors.Join(err, swapped.Create(t.Context(), name, b))
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := ledger.Open(t.Context(), swapped, keys, options()); err == nil {
		t.Error("Open with a year of another log = nil, want a refusal")
	}
}
