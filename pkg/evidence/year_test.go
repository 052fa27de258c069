package evidence_test

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/runner/runnertest"
)

func newYear(year int) time.Time { return time.Date(year, time.January, 1, 0, 0, 0, 0, time.UTC) }

// continuation is what continues the year of the forge's log as it stands.
func (f *forge) continuation(opened runner.Opened) runner.Continued {
	f.t.Helper()
	f.publish()
	size := f.tree.Size()
	root, err := f.tree.Root(size)
	if err != nil {
		f.t.Fatal(err)
	}
	return f.place.Continuation(evidence.Checkpoint{Origin: f.place.Origin(origin), Size: size, Root: root}, f.checkpoint(size), evidence.Inputs(opened))
}

// enter goes on in the folder of this year, with these attachments.
func (f *forge) enter(year int, attachments []runner.Digest) {
	f.t.Helper()
	before := f.place
	f.place = evidence.Place{Shard: evidence.Shard(year), Before: before.Before + f.tree.Size()}
	f.tree, f.bundle = &evidence.Tree{}, nil
	for _, d := range attachments {
		f.put(f.place.Name(evidence.BlobName(d)), f.files[before.Name(evidence.BlobName(d))].Data)
	}
}

// wrote is a ledger of three years: a job over the first midnight, and another
// in the last year.
func wrote(t testing.TB, change func(*runner.Continued)) (*forge, *runnertest.Script) {
	t.Helper()
	f := newForge(t)
	s := f.script()
	s.Now = newYear(2027).Add(-6 * time.Second)
	s.NewYear = func(at time.Time) (runner.Event, error) {
		switch {
		case s.State.Closed != nil:
			e := f.continuation(s.State.Opened.Event)
			f.enter(s.State.Closed.Event.Year, evidence.Inputs(s.State.Opened.Event))
			change(&e)
			return e, nil
		case at.Year() > max(2026, int(f.place.Shard)):
			return runner.Closed{Year: at.Year()}, nil
		}
		return nil, nil
	}
	say := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	say(errors.Join(s.Open(), s.Tell(runnertest.NewCast(0), runnertest.CompletedStory())))
	before := s.State.LastAt
	s.Now = newYear(2029)
	turned := s.NewYear
	s.NewYear = nil
	say(s.Must(runner.Gap{Since: before, Until: s.Now}))
	s.NewYear = turned
	say(s.Tell(runnertest.NewCast(1), runnertest.CompletedStory()))
	f.publish()
	return f, s
}

func unchanged(*runner.Continued) {}

func TestYearsAreVerifiedAsOneHistory(t *testing.T) {
	f, s := wrote(t, unchanged)
	rep := verify(t, f.files, f.root)
	if !rep.OK() || len(rep.Notes) != 0 || rep.Jobs != 2 || rep.Size != s.State.Size || rep.Folded != rep.Size {
		t.Fatalf("findings %v, notes %v, %d jobs in %d records, want none, none, 2 in %d", rep.Findings, rep.Notes, rep.Jobs, rep.Size, s.State.Size)
	}
	if !strings.HasPrefix(rep.Head, origin+"/2029\n") || !strings.Contains(rep.Head, rep.RootHash) {
		t.Errorf("head = %q, want the newest year's", rep.Head)
	}
	// A job whose records stand on both sides of midnight is one story.
	x, err := evidence.Explain(rep, string(runnertest.NewCast(0).Job), nil)
	if err != nil || !x.Verified || len(x.Stories) != 1 || !strings.Contains(x.Stories[0].Outcome, "sealed") {
		t.Errorf("Explain = %+v, %v, want one story to its seal", x, err)
	}
}

func TestABoundaryBetweenYearsCannotBeForged(t *testing.T) {
	for name, change := range map[string]func(*runner.Continued){
		"another root":       func(e *runner.Continued) { e.Root = runner.DigestOf([]byte("x")) },
		"another size":       func(e *runner.Continued) { e.Size-- },
		"another checkpoint": func(e *runner.Continued) { e.Checkpoint = runner.DigestOf([]byte("x")) },
		"less in effect":     func(e *runner.Continued) { e.InEffect = e.InEffect[1:] },
		"another log":        func(e *runner.Continued) { e.Origin = "ledger.example.org/other" },
	} {
		f, _ := wrote(t, change)
		if got := wantFinding(t, verify(t, f.files, f.root), 7, "year"); !strings.HasPrefix(got.File, "20") {
			t.Errorf("%s: found at %s, want the record that begins the year", name, got.File)
		}
	}
}

func TestAChangedBoundaryBetweenYearsIsFound(t *testing.T) {
	f, _ := wrote(t, unchanged)
	other, _ := wrote(t, unchanged)
	first := names(f.files, evidence.SegmentFolder)
	last := uint64(len(first))
	in := func(name string) evidence.Shard {
		shard, _ := evidence.SplitShard(name)
		return shard
	}
	for name, tc := range map[string]struct {
		change func(files fstest.MapFS)
		rules  []string // one of them
	}{
		"the end of a year removed": {func(files fstest.MapFS) {
			delete(files, first[last-1])
			delete(files, evidence.CheckpointName(last))
		}, []string{"year"}},
		"the last checkpoint of a year removed": {func(files fstest.MapFS) { delete(files, evidence.CheckpointName(last)) }, []string{"checkpoint-missing"}},
		"the beginning of a year removed": {func(files fstest.MapFS) {
			delete(files, evidence.Shard(2027).Name(evidence.SegmentName(0)))
		}, []string{"segment-missing"}},
		"a year removed": {func(files fstest.MapFS) {
			maps.DeleteFunc(files, func(n string, _ *fstest.MapFile) bool { return in(n) == 2027 })
		}, []string{"year-missing"}},
		"the last year removed but for its view": {func(files fstest.MapFS) {
			maps.DeleteFunc(files, func(n string, _ *fstest.MapFile) bool {
				return in(n) == 2029 && !strings.HasPrefix(n, evidence.ViewFolder)
			})
		}, []string{"view"}},
		"a year of another log": {func(files fstest.MapFS) {
			maps.DeleteFunc(files, func(n string, _ *fstest.MapFile) bool { return in(n) == 2027 })
			for n, file := range other.files {
				if in(n) == 2027 {
					files[n] = file
				}
			}
		}, []string{"key"}},
		"a year under another name": {func(files fstest.MapFS) {
			for _, n := range names(files, "") {
				if shard, plain := evidence.SplitShard(n); shard == 2029 {
					files[evidence.Shard(2028).Name(plain)] = files[n]
					delete(files, n)
				}
			}
		}, []string{"year-missing"}},
		"a record after the end of a year": {func(files fstest.MapFS) {
			files[evidence.SegmentName(last)] = files[evidence.Shard(2027).Name(evidence.SegmentName(1))]
		}, []string{"year", "chain-prev"}},
		"the beginning of a year in the year before": {func(files fstest.MapFS) {
			files[evidence.SegmentName(last)] = files[evidence.Shard(2027).Name(evidence.SegmentName(0))]
		}, []string{"year"}},
		"a checkpoint of another year": {func(files fstest.MapFS) {
			files[evidence.Shard(2027).Name(evidence.CheckpointName(1))] = files[evidence.CheckpointName(1)]
		}, []string{"checkpoint"}},
		"what is in effect removed from a year": {func(files fstest.MapFS) {
			delete(files, evidence.Shard(2029).Name(evidence.BlobName(runner.DigestOf([]byte("config")))))
		}, []string{"blob-missing"}},
	} {
		t.Run(name, func(t *testing.T) {
			files := f.copy()
			tc.change(files)
			rep := verify(t, files, f.root)
			for _, found := range rep.Findings {
				for _, rule := range tc.rules {
					if found.Rule == rule {
						return
					}
				}
			}
			t.Errorf("findings = %v, notes %v, want one of %v", rep.Findings, rep.Notes, tc.rules)
		})
	}
}

// TestAYearWhoseBeginningsAreNotAtHand: the job was authorized in the year
// before. Its records are counted and all others are checked.
func TestAYearWhoseBeginningsAreNotAtHand(t *testing.T) {
	f, s := wrote(t, unchanged)
	later := func(files fstest.MapFS, from evidence.Shard) fstest.MapFS {
		maps.DeleteFunc(files, func(n string, _ *fstest.MapFile) bool {
			shard, _ := evidence.SplitShard(n)
			return shard < from
		})
		return files
	}
	rep := verify(t, later(f.copy(), 2027), f.root)
	if !rep.OK() || len(rep.Notes) != 1 || rep.Jobs != 1 || rep.Size != s.State.Size || rep.Folded != rep.Size {
		t.Fatalf("findings %v, notes %v, %d jobs, %d of %d records folded, want no finding, one note and one job", rep.Findings, rep.Notes, rep.Jobs, rep.Folded, rep.Size)
	}
	// Six records of the story were told after midnight, see wrote.
	if note := rep.Notes[0]; note.File != "2027" || !strings.Contains(note.Detail, "7 records before this year are not at hand; of those that are, 7 follow") {
		t.Errorf("note = %s", note)
	}
	if _, err := evidence.Explain(rep, string(runnertest.NewCast(1).Job), nil); err != nil {
		t.Errorf("Explain of a job of the last year = %v", err)
	}
	rep = verify(t, later(f.copy(), 2029), f.root)
	if !rep.OK() || len(rep.Notes) != 1 || !strings.Contains(rep.Notes[0].Detail, "of those that are, 0 follow") {
		t.Errorf("the last year alone: findings %v, notes %v, want one note that everything was followed", rep.Findings, rep.Notes)
	}
	// What is at hand is checked as ever: the host of the job of this year
	// serves a second runner.
	c := runnertest.NewCast(1)
	again, next := runnertest.NewCast(2), s
	again.Host = c.Host
	for _, kind := range runnertest.Upto(runnertest.CompletedStory(), runner.KindClaimed) {
		e, err := next.Next(again, kind)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := next.Say(e); err != nil {
			t.Fatal(err)
		}
	}
	f.publish()
	wantFinding(t, verify(t, later(f.copy(), 2029), f.root), 2, "host-reused")
	// And a year that does not say what it continues is nobody's.
	files := later(f.copy(), 2029)
	delete(files, evidence.Shard(2029).Name(evidence.SegmentName(0)))
	wantFinding(t, verify(t, files, f.root), 7, "year")
}

func TestAWitnessedCheckpointMayBeOfAnyYear(t *testing.T) {
	f, _ := wrote(t, unchanged)
	for _, shard := range []evidence.Shard{0, 2027, 2029} {
		all := names(f.files, shard.Name(evidence.CheckpointFolder))
		opts := evidence.VerifyOptions{Witnessed: f.files[all[len(all)-1]].Data}
		if rep, err := opts.Verify(f.files, f.root); err != nil || !rep.OK() {
			t.Errorf("witnessed in %d: %v, %v, want no finding", shard, rep.Findings, err)
		}
		gone := f.copy()
		maps.DeleteFunc(gone, func(n string, _ *fstest.MapFile) bool {
			of, _ := evidence.SplitShard(n)
			return of == shard
		})
		rep, err := opts.Verify(gone, f.root)
		if err != nil {
			t.Fatal(err)
		}
		wantFinding(t, rep, 7, "rollback")
		cut := f.copy()
		delete(cut, all[len(all)-1])
		delete(cut, shard.Name(evidence.SegmentName(uint64(len(all)-1))))
		if rep, err = opts.Verify(cut, f.root); err != nil {
			t.Fatal(err)
		}
		wantFinding(t, rep, 7, "rollback")
	}
}

// TestWhatLocksAYearIsAskedOfItsOwnObjects: the documents in effect are kept in
// every year for its own last record.
func TestWhatLocksAYearIsAskedOfItsOwnObjects(t *testing.T) {
	f, s := wrote(t, unchanged)
	shelf := shelved(f, s.State.LastAt.AddDate(evidence.RetainYears, 0, 0))
	config := evidence.BlobName(runner.DigestOf([]byte("config")))
	set := func(name string, until time.Time) {
		o := shelf[name]
		o.RetainUntil = until
		shelf[name] = o
	}
	for name := range shelf {
		if shard, _ := evidence.SplitShard(name); shard != 2029 {
			set(name, newYear(2035).Add(time.Hour)) // six years after a gap of 2029, the last record of 2027
		}
	}
	rep, err := evidence.VerifyOptions{Objects: shelf}.Verify(f.files, f.root)
	if err != nil || !rep.OK() {
		t.Fatalf("Verify = %v, %v, want no finding", rep.Findings, err)
	}
	late := evidence.Shard(2029).Name(config)
	set(late, newYear(2035))
	rep, err = evidence.VerifyOptions{Objects: shelf}.Verify(f.files, f.root)
	if err != nil || len(rep.Findings) != 1 || rep.Findings[0].File != late || rep.Findings[0].Rule != "retention" {
		t.Errorf("Verify = %v, %v, want that %s is kept too short", rep.Findings, err, late)
	}
}

func TestShardsAreNamedOneWay(t *testing.T) {
	for _, name := range []string{"seg/1", "checkpoints/1", "blobs/sha256/x", "view/checkpoint", "view/tile/0/000"} {
		for _, shard := range []evidence.Shard{0, 1, 2027, 9999} {
			if got, plain := evidence.SplitShard(shard.Name(name)); got != shard || plain != name {
				t.Errorf("SplitShard(%s) = %d, %s, want %d, %s", shard.Name(name), got, plain, shard, name)
			}
		}
	}
	for _, folder := range []string{"", "0000", "27", "02027", "+202", "2027x", "-001", "seg"} {
		if shard, ok := evidence.ParseShard(folder); ok {
			t.Errorf("ParseShard(%q) = %d, want that it is none", folder, shard)
		}
	}
}
