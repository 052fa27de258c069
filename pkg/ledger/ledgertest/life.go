package ledgertest

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/runner/runnertest"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// errLost is what a writer sees of an answer that did not arrive.
var errLost = errors.New("the answer was lost")

func testReopen(t *testing.T, on Subject) {
	before := on.Open(t)
	create(t, before, "seg/a", []byte("created"))
	if err := before.Publish(t.Context(), "view/a", []byte("derived")); err != nil {
		t.Fatal(err)
	}
	after := on.Open(t)
	wantContent(t, after, "seg/a", []byte("created"))
	wantContent(t, after, "view/a", []byte("derived"))
	if got, err := after.List(t.Context(), ""); err != nil || !slices.Equal(got, []string{"seg/a", "view/a"}) {
		t.Errorf("List after reopening = %q, %v, want both objects", got, err)
	}
	if err := after.Create(t.Context(), "seg/a", []byte("created")); !errors.Is(err, ledger.ErrExists) {
		t.Errorf("Create after reopening = %v, want ErrExists", err)
	}
}

func testRaceOfProcesses(t *testing.T, on Subject) {
	race(t, on.Open(t), on.Open(t), on.Open(t))
}

func testVersions(t *testing.T, on Subject) {
	if on.Versions == nil {
		t.Skip("this storage keeps no versions")
	}
	s := on.Open(t)
	for _, name := range []string{"seg/changed", "seg/hidden", "seg/both"} {
		create(t, s, name, []byte("first"))
	}
	on.Versions.Overwrite(t, "seg/changed", []byte("second"))
	on.Versions.Hide(t, "seg/hidden")
	on.Versions.Overwrite(t, "seg/both", []byte("second"))
	on.Versions.Hide(t, "seg/both")
	for _, s := range []ledger.Store{s, on.Open(t)} {
		if got, err := s.List(t.Context(), "seg/"); err != nil || !slices.Equal(got, []string{"seg/both", "seg/changed", "seg/hidden"}) {
			t.Errorf("List = %q, %v, want every object", got, err)
		}
		for _, name := range []string{"seg/changed", "seg/hidden", "seg/both"} {
			wantContent(t, s, name, []byte("first"))
			if err := s.Create(t.Context(), name, []byte("third")); !errors.Is(err, ledger.ErrExists) {
				t.Errorf("Create of %s = %v, want ErrExists", name, err)
			}
			wantContent(t, s, name, []byte("first"))
		}
	}
}

// logs opens logs of one origin and key on the subject.
type logs struct {
	on    Subject
	keys  *ledger.Keys
	state *runner.State // of what was told
}

func newLogs(t testing.TB, on Subject) logs {
	t.Helper()
	keys, err := ledger.OpenKeys(t.TempDir(), "ledger.example.org/hipaa-prod/2026", runnertest.Start())
	if err != nil {
		t.Fatal(err)
	}
	return logs{on, keys, runner.NewState()}
}

func (l logs) open(t testing.TB, s ledger.Store) *ledger.Log {
	t.Helper()
	log, _, err := ledger.Open(t.Context(), s, l.keys, ledger.Options{
		Recorder: evidence.Recorder{ID: "https://runnerward.github.io/runnerward", Version: "v0.1.0"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// tell writes a job's story with the persistence of a supervisor: after an
// error it recovers, and appends again what did not turn up.
func (l logs) tell(t testing.TB, log *ledger.Log, job int) {
	t.Helper()
	l.tellAt(t, log, job, runnertest.Start().Add(time.Duration(job)*time.Minute))
}

func (l logs) tellAt(t testing.TB, log *ledger.Log, job int, at time.Time) {
	t.Helper()
	s := runnertest.NewScript(func(at time.Time, e runner.Event) (runner.Record, error) {
		rec, err := log.Append(t.Context(), at, e)
		for errors.Is(err, errLost) {
			var recs []runner.Record
			if recs, err = log.Recover(t.Context()); err == nil && len(recs) == 1 {
				return recs[0], nil
			}
		}
		return rec, err
	}, func(b []byte) (runner.Digest, error) {
		d, err := log.PutBlob(t.Context(), b)
		for errors.Is(err, errLost) {
			d, err = log.PutBlob(t.Context(), b)
		}
		return d, err
	})
	root, err := log.Root().Encode()
	if err != nil {
		t.Fatal(err)
	}
	s.Root, s.State, s.Now = root, l.state, at
	s.NewYear = func(at time.Time) (runner.Event, error) { return log.NewYear(t.Context(), at) }
	if err := errors.Join(s.Open(), s.Tell(runnertest.NewCast(job), runnertest.CompletedStory())); err != nil {
		t.Fatal(err)
	}
}

// story is how many records tell appends.
var story = uint64(1 + len(runnertest.CompletedStory()))

// verify wants the log to have no finding; with versions, in the store too.
func (l logs) verify(t testing.TB, size uint64) *evidence.Report {
	t.Helper()
	files := l.on.FS(t)
	var opts evidence.VerifyOptions
	opts.Objects, _ = files.(evidence.Objects)
	rep, err := opts.Verify(files, l.keys.Root())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range rep.Findings {
		t.Errorf("finding: %s", f)
	}
	if rep.Size != size {
		t.Errorf("the log has %d records, want %d", rep.Size, size)
	}
	return rep
}

func testLogGoesOn(t *testing.T, on Subject) {
	l := newLogs(t, on)
	for job := range 3 {
		log := l.open(t, on.Open(t))
		l.tell(t, log, job)
		if err := log.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if rep := l.verify(t, uint64(job+1)*story); len(rep.Notes) != 0 {
			t.Errorf("notes = %v, want none", rep.Notes)
		}
	}
}

// testNewYear tells a job over midnight of New Year's Eve, by a process that
// loses answers, and one in the new year by the next process. The new year
// verifies without the old one too, which may be elsewhere by then.
func testNewYear(t *testing.T, on Subject) {
	l := newLogs(t, on)
	seen := map[string]bool{}
	log := l.open(t, losing{on.Open(t), func(name string) (bool, bool) {
		first := !seen[name]
		seen[name] = true
		return len(seen)%2 == 0, first
	}})
	midnight := time.Date(runnertest.Start().Year()+1, time.January, 1, 0, 0, 0, 0, time.UTC)
	l.tellAt(t, log, 0, midnight.Add(-5*time.Second))
	if err := log.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	log = l.open(t, on.Open(t))
	l.tellAt(t, log, 1, midnight.Add(time.Minute))
	if err := log.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rep := l.verify(t, 2*story+2); len(rep.Notes) != 0 || rep.Jobs != 2 {
		t.Errorf("%d jobs, notes %v, want 2 and none", rep.Jobs, rep.Notes)
	}
	alone := fstest.MapFS{}
	for name, file := range copied(t, on.FS(t)) {
		if shard, _ := evidence.SplitShard(name); shard != 0 {
			alone[name] = file
		}
	}
	rep, err := evidence.Verify(alone, l.keys.Root())
	if err != nil {
		t.Fatal(err)
	}
	if !rep.OK() || len(rep.Notes) != 1 || rep.Size != 2*story+2 || rep.Jobs != 1 {
		t.Errorf("the new year alone: findings %v, notes %v, %d jobs in %d records, want one note and the job of the new year", rep.Findings, rep.Notes, rep.Jobs, rep.Size)
	}
}

// losing loses the answers of some writes, after they were applied or instead.
type losing struct {
	ledger.Store
	lose func(name string) (applied, lost bool)
}

func (l losing) Create(ctx context.Context, name string, data []byte) error {
	applied, lost := l.lose(name)
	if lost && !applied {
		return errLost
	}
	err := l.Store.Create(ctx, name, data)
	if lost {
		return errLost
	}
	return err
}

// testLostAnswers loses the first answer about every object, after the object
// was created and then, in the second job, instead of creating it.
func testLostAnswers(t *testing.T, on Subject) {
	l := newLogs(t, on)
	for job, applied := range []bool{true, false} {
		seen := map[string]bool{}
		log := l.open(t, losing{on.Open(t), func(name string) (bool, bool) {
			first := !seen[name]
			seen[name] = true
			return applied, first
		}})
		l.tell(t, log, job)
		if len(seen) < int(2*story) {
			t.Errorf("%d objects were written, want a segment and a checkpoint for each record", len(seen))
		}
		if err := log.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.verify(t, uint64(job+1)*story)
	}
}

// testCrashes ends a process at each of its writes, applied or not; the next
// process goes on on what the one before left.
func testCrashes(t *testing.T, on Subject) {
	l := newLogs(t, on)
	for n := range 8 {
		writes := 0
		log, at := l.open(t, losing{on.Open(t), func(string) (bool, bool) {
			writes++
			return n%2 == 0, writes > n/2
		}}), runnertest.Start().Add(time.Duration(n)*time.Minute)
		for range 4 {
			if _, err := log.Append(t.Context(), at, runner.Heartbeat{OpenJobs: n}); err != nil {
				break
			}
		}
		size, _ := log.Head()
		again := l.open(t, on.Open(t))
		got, _ := again.Head()
		if got < size || got > size+1 {
			t.Errorf("crash %d: %d records after reopening, %d were acknowledged", n, got, size)
		}
		if err := again.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.verify(t, got)
	}
}

func testFence(t *testing.T, on Subject) {
	l := newLogs(t, on)
	first, second := l.open(t, on.Open(t)), l.open(t, on.Open(t))
	if _, err := second.Append(t.Context(), runnertest.Start(), runner.Heartbeat{}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := first.Append(t.Context(), runnertest.Start(), runner.Heartbeat{}); !errors.Is(err, supervisor.ErrFenced) {
			t.Errorf("Append of the first writer = %v, want ErrFenced", err)
		}
	}
	if _, err := second.Append(t.Context(), runnertest.Start(), runner.Heartbeat{}); err != nil {
		t.Errorf("Append of the second writer = %v", err)
	}
	l.verify(t, 2)
}

// testRollback copies the storage as it was: consistent in itself, and only a
// checkpoint from outside shows that it is not all.
func testRollback(t *testing.T, on Subject) {
	l := newLogs(t, on)
	log := l.open(t, on.Open(t))
	l.tell(t, log, 0)
	if err := log.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	earlier := copied(t, on.FS(t))
	l.tell(t, log, 1)
	_, head := log.Head()
	for name, tc := range map[string]struct {
		files     fs.FS
		witnessed string
		rolled    bool
	}{
		"now":                        {on.FS(t), head, false},
		"earlier":                    {earlier, "", false},
		"earlier, with a checkpoint": {earlier, head, true},
	} {
		opts := evidence.VerifyOptions{}
		if tc.witnessed != "" {
			opts.Witnessed = []byte(tc.witnessed)
		}
		rep, err := opts.Verify(tc.files, l.keys.Root())
		if err != nil {
			t.Fatal(err)
		}
		found := slices.ContainsFunc(rep.Findings, func(f evidence.Finding) bool { return f.Rule == "rollback" })
		if found != tc.rolled || rep.OK() == tc.rolled {
			t.Errorf("%s: findings = %v, want a rollback: %t", name, rep.Findings, tc.rolled)
		}
	}
}

func copied(t testing.TB, files fs.FS) fstest.MapFS {
	t.Helper()
	out := fstest.MapFS{}
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(name, evidence.TempFolder) {
			return err
		}
		b, err := fs.ReadFile(files, name)
		out[name] = &fstest.MapFile{Data: bytes.Clone(b), Mode: 0o640}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
