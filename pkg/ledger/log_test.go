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

func options() ledger.Options {
	return ledger.Options{Recorder: evidence.Recorder{ID: "https://runnerward.github.io/runnerward", Version: "v0.1.0"}}
}

func openLog(t testing.TB, s ledger.Store, keys *ledger.Keys) *ledger.Log {
	t.Helper()
	log, _, err := ledger.Open(t.Context(), s, keys, options())
	if err != nil {
		t.Fatal(err)
	}
	return log
}

func scriptFor(t testing.TB, log *ledger.Log) *runnertest.Script {
	s := runnertest.NewScript(
		func(at time.Time, e runner.Event) (runner.Record, error) { return log.Append(t.Context(), at, e) },
		func(b []byte) (runner.Digest, error) { return log.PutBlob(t.Context(), b) })
	s.NewYear = func(at time.Time) (runner.Event, error) { return log.NewYear(t.Context(), at) }
	var err error
	if s.Root, err = log.Root().Encode(); err != nil {
		t.Fatal(err)
	}
	return s
}

// tellStories writes an opened record and n completed jobs, and closes.
func tellStories(t testing.TB, log *ledger.Log, n int) *runnertest.Script {
	t.Helper()
	s := scriptFor(t, log)
	if err := s.Open(); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := s.Tell(runnertest.NewCast(i), runnertest.CompletedStory()); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

func wantClean(t testing.TB, fsys fs.FS, keys *ledger.Keys) *evidence.Report {
	t.Helper()
	rep, err := evidence.Verify(fsys, keys.Root())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range rep.Findings {
		t.Errorf("finding: %s", f)
	}
	return rep
}

func TestAReopenedLogGivesBackWhatWasAppendedAndGoesOn(t *testing.T) {
	folder, keys := t.TempDir(), newKeys(t)
	d := openDir(t, folder)
	told := tellStories(t, openLog(t, d, keys), 2)

	log, records, err := ledger.Open(t.Context(), openDir(t, folder), keys, options())
	if err != nil {
		t.Fatal(err)
	}
	if len(records) != len(told.Records) {
		t.Fatalf("reopened records = %d, want %d", len(records), len(told.Records))
	}
	state := runner.NewState()
	for i, rec := range records {
		if want := told.Records[i]; !reflect.DeepEqual(rec, want) {
			t.Errorf("record %d = %+v, want %+v", i, rec, want)
		}
		if err := state.Apply(rec); err != nil {
			t.Fatal(err)
		}
	}
	if rec, err := log.Append(t.Context(), told.Now, runner.Heartbeat{}); err != nil || rec.Index != uint64(len(records)) {
		t.Errorf("Append after reopening = %d, %v, want index %d", rec.Index, err, len(records))
	}
	if err := log.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	rep := wantClean(t, d.FS(), keys)
	if rep.Jobs != 2 || rep.Runners != 2 || rep.Hosts != 2 || rep.Size != 26 || len(rep.Notes) != 0 {
		t.Errorf("report = %+v, want 2 jobs, 2 hosts, 26 records and no notes", rep)
	}
	if size, head := log.Head(); size != 26 || head != rep.Head || !strings.HasPrefix(head, origin+"\n26\n") {
		t.Errorf("Head() = %d, %q", size, head)
	}
}

func TestALogOfManyRecordsKeepsAViewWithoutStalePartials(t *testing.T) {
	mem, keys := ledgertest.NewMem(nil), newKeys(t)
	log := openLog(t, mem, keys)
	s := scriptFor(t, log)
	s.Step = 3 * time.Second
	for range 2*evidence.TileWidth + 7 {
		if err := s.Must(runner.Heartbeat{}); err != nil {
			t.Fatal(err)
		}
	}
	if rep := wantClean(t, mem.FS(), keys); len(rep.Notes) != 1 || !strings.Contains(rep.Notes[0].Detail, "the view shows 517 of 519") {
		t.Errorf("notes before close = %v, want that the view lags", rep.Notes)
	}
	if err := log.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rep := wantClean(t, mem.FS(), keys); len(rep.Notes) != 0 {
		t.Errorf("notes after close = %v, want none", rep.Notes)
	}
	for _, bundle := range []string{"view/tile/0/000.p/", "view/tile/entries/001.p/"} {
		if names, err := mem.List(t.Context(), bundle); err != nil || len(names) != 0 {
			t.Errorf("partials under %s = %q, %v, want none", bundle, names, err)
		}
	}
}

func TestASecondWriterFencesTheFirstForEver(t *testing.T) {
	for name, open := range map[string]func(*testing.T) ledger.Store{
		"dir": func(t *testing.T) ledger.Store { return openDir(t, t.TempDir()) },
		"mem": func(*testing.T) ledger.Store { return ledgertest.NewMem(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			store, keys := open(t), newKeys(t)
			first, second := openLog(t, store, keys), openLog(t, store, keys)
			if err := first.Alone(t.Context()); err != nil {
				t.Errorf("Alone before the second writes = %v, want nil", err)
			}
			if _, err := second.Append(t.Context(), runnertest.Start(), runner.Heartbeat{}); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				// Even the same event at the same time is another writer's: the
				// signature is not the same.
				if _, err := first.Append(t.Context(), runnertest.Start(), runner.Heartbeat{}); !errors.Is(err, supervisor.ErrFenced) {
					t.Errorf("Append of the first writer = %v, want ErrFenced", err)
				}
			}
			if _, err := first.Recover(t.Context()); !errors.Is(err, supervisor.ErrFenced) {
				t.Errorf("Recover of the first writer = %v, want ErrFenced", err)
			}
			if _, err := first.PutBlob(t.Context(), []byte("x")); !errors.Is(err, supervisor.ErrFenced) {
				t.Errorf("PutBlob of the first writer = %v, want ErrFenced", err)
			}
			if err := first.Close(t.Context()); !errors.Is(err, supervisor.ErrFenced) {
				t.Errorf("Close of the first writer = %v, want ErrFenced", err)
			}
			if _, err := second.Append(t.Context(), runnertest.Start(), runner.Heartbeat{}); err != nil {
				t.Errorf("Append of the second writer = %v", err)
			}
		})
	}
}

// TestAWriterLearnsThatItIsNotAloneWithoutWriting, and leaves the view to the
// other, which has published more of the log than it knows.
func TestAWriterLearnsThatItIsNotAloneWithoutWriting(t *testing.T) {
	for name, end := range map[string]func(*ledger.Log) error{
		"asked": func(l *ledger.Log) error { return l.Alone(t.Context()) },
		"ended": func(l *ledger.Log) error { return l.Close(t.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			store, keys := ledgertest.NewMem(nil), newKeys(t)
			first := openLog(t, store, keys)
			s := scriptFor(t, first)
			if err := errors.Join(s.Open(), s.Tell(runnertest.NewCast(0), runnertest.CompletedStory())); err != nil {
				t.Fatal(err)
			}
			second := openLog(t, store, keys)
			if _, err := second.Append(t.Context(), s.Now, runner.Heartbeat{}); err != nil {
				t.Fatal(err)
			}
			if err := second.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			shown, err := store.Read(t.Context(), evidence.ViewCheckpoint)
			if err != nil {
				t.Fatal(err)
			}
			if err := end(first); !errors.Is(err, supervisor.ErrFenced) {
				t.Errorf("the first writer is told %v, want ErrFenced", err)
			}
			if again, err := store.Read(t.Context(), evidence.ViewCheckpoint); err != nil || string(again) != string(shown) {
				t.Errorf("the view shows\n%s, %v, want what the second writer published\n%s", again, err, shown)
			}
			if _, err := first.Append(t.Context(), s.Now, runner.Heartbeat{}); !errors.Is(err, supervisor.ErrFenced) {
				t.Errorf("Append = %v, want ErrFenced", err)
			}
		})
	}
}

func TestAForkIsNeverSigned(t *testing.T) {
	keys := newKeys(t)
	mem := ledgertest.NewMem(nil)
	first := openLog(t, mem, keys)
	// The other writer ended between its segment and its checkpoint, so that
	// only the segment stands between this writer and a signature.
	if err := mem.Create(t.Context(), evidence.SegmentName(0), []byte("another writer's record")); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Append(t.Context(), runnertest.Start(), runner.Heartbeat{}); !errors.Is(err, supervisor.ErrFenced) {
		t.Errorf("Append = %v, want ErrFenced", err)
	}
	if names, err := mem.List(t.Context(), evidence.CheckpointFolder); err != nil || len(names) != 0 {
		t.Errorf("checkpoints = %q, %v, want none", names, err)
	}
}

func TestACheckpointOfAnotherTreeFences(t *testing.T) {
	mem, keys := ledgertest.NewMem(nil), newKeys(t)
	log := openLog(t, mem, keys)
	if err := mem.Create(t.Context(), evidence.CheckpointName(1), []byte("another writer's checkpoint")); err != nil {
		t.Fatal(err)
	}
	if _, err := log.Append(t.Context(), runnertest.Start(), runner.Heartbeat{}); !errors.Is(err, supervisor.ErrFenced) {
		t.Errorf("Append = %v, want ErrFenced", err)
	}
}

func TestAnAttachmentIsStoredOnceUnderItsDigest(t *testing.T) {
	mem, keys := ledgertest.NewMem(nil), newKeys(t)
	log := openLog(t, mem, keys)
	for range 2 {
		d, err := log.PutBlob(t.Context(), []byte("input"))
		if err != nil || d != runner.DigestOf([]byte("input")) {
			t.Errorf("PutBlob = %s, %v", d, err)
		}
	}
	damaged := runner.DigestOf([]byte("other"))
	if err := mem.Create(t.Context(), evidence.BlobName(damaged), []byte("not it")); err != nil {
		t.Fatal(err)
	}
	if _, err := log.PutBlob(t.Context(), []byte("other")); err == nil {
		t.Error("PutBlob onto other bytes = nil, want an error")
	}
}

func TestRecoverMeetsAForeignRecord(t *testing.T) {
	mem, keys := ledgertest.NewMem(nil), newKeys(t)
	first, second := openLog(t, mem, keys), openLog(t, mem, keys)
	if _, err := second.Append(t.Context(), runnertest.Start(), runner.Heartbeat{}); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Recover(t.Context()); !errors.Is(err, supervisor.ErrFenced) {
		t.Errorf("Recover = %v, want ErrFenced", err)
	}
}

func TestAnEventThatCannotBeRecordedIsRefusedAndTheLogRecovers(t *testing.T) {
	mem, keys := ledgertest.NewMem(nil), newKeys(t)
	log := openLog(t, mem, keys)
	big := runnertest.NewCast(0).Teardown()
	for i := range 256 {
		big.Volumes = append(big.Volumes[:min(i, 255)], fmt.Sprintf("vol-%0120d", i))
	}
	for name, e := range map[string]runner.Event{
		"free text": runner.Frozen{By: "on call", Reason: "because of a very good reason"},
		"a secret":  runner.Frozen{By: "ghp_0123456789abcdef", Reason: "x"},
		"too large": big,
	} {
		if _, err := log.Append(t.Context(), runnertest.Start(), e); err == nil {
			t.Errorf("Append of %s = nil, want a refusal", name)
		}
		if _, err := log.Append(t.Context(), runnertest.Start(), runner.Heartbeat{}); err == nil || !strings.Contains(err.Error(), "recover first") {
			t.Errorf("Append after an error = %v, want to be sent to Recover", err)
		}
		if recs, err := log.Recover(t.Context()); err != nil || len(recs) != 0 {
			t.Errorf("Recover after %s = %v, %v, want nothing", name, recs, err)
		}
	}
	if rec, err := log.Append(t.Context(), runnertest.Start(), runner.Heartbeat{}); err != nil || rec.Index != 0 {
		t.Errorf("Append after recovery = %+v, %v", rec, err)
	}
}

func TestAViewThatCannotBePublishedDoesNotFailTheLog(t *testing.T) {
	full := errors.New("no space left")
	mem := ledgertest.NewMem(func(op ledgertest.Op, _ string) (bool, error) {
		if op == ledgertest.OpPublish {
			return false, full
		}
		return true, nil
	})
	keys := newKeys(t)
	log := openLog(t, mem, keys)
	if _, err := log.Append(t.Context(), runnertest.Start(), runner.Heartbeat{}); err != nil {
		t.Fatalf("Append = %v, want success", err)
	}
	if err := log.ViewError(); !errors.Is(err, full) {
		t.Errorf("ViewError() = %v, want %v", err, full)
	}
	healed := mem.With(nil)
	reopened := openLog(t, healed, keys)
	if err := reopened.ViewError(); err != nil {
		t.Errorf("ViewError() after reopening = %v", err)
	}
	if rep := wantClean(t, healed.FS(), keys); len(rep.Notes) != 0 {
		t.Errorf("notes = %v, want a complete view", rep.Notes)
	}
}

func TestOpenRefusesALogThatLostRecords(t *testing.T) {
	keys := newKeys(t)
	whole := ledgertest.NewMem(nil)
	tellStories(t, openLog(t, whole, keys), 1)
	last, middle := uint64(11), uint64(5)
	for name, lost := range map[string][]string{
		"a middle segment":             {evidence.SegmentName(middle)},
		"the last segment":             {evidence.SegmentName(last)},
		"the last record, but view":    {evidence.SegmentName(last), evidence.CheckpointName(last + 1)},
		"a middle checkpoint":          {evidence.CheckpointName(middle)},
		"the last two checkpoints":     {evidence.CheckpointName(last + 1), evidence.CheckpointName(last)},
		"the first segment":            {evidence.SegmentName(0)},
		"every segment but the folder": {},
	} {
		torn := copyStore(t, whole.FS(), func(n string) bool {
			if len(lost) == 0 {
				return strings.HasPrefix(n, evidence.SegmentFolder)
			}
			return slices.Contains(lost, n)
		})
		if _, _, err := ledger.Open(t.Context(), torn, keys, options()); err == nil {
			t.Errorf("Open without %s = nil, want a refusal", name)
		}
	}
	if _, _, err := ledger.Open(t.Context(), whole, newKeys(t), options()); err == nil {
		t.Error("Open with other keys = nil, want a refusal")
	}
}

// copyStore copies the files that are not dropped into a new store.
func copyStore(t testing.TB, files fs.FS, drop func(string) bool) *ledgertest.Mem {
	t.Helper()
	mem := ledgertest.NewMem(nil)
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || drop(name) {
			return err
		}
		b, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		if strings.HasPrefix(name, evidence.ViewFolder) {
			return mem.Publish(t.Context(), name, b)
		}
		return mem.Create(t.Context(), name, b)
	})
	if err != nil {
		t.Fatal(err)
	}
	return mem
}
