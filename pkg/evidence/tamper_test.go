package evidence_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/runner/runnertest"
)

func TestAWholeLedgerIsClean(t *testing.T) {
	f := newForge(t)
	s := f.script()
	if err := s.Open(); err != nil {
		t.Fatal(err)
	}
	stories := [][]runner.Kind{
		runnertest.CompletedStory(), runnertest.DeniedStory(), runnertest.RefusedStory(), runnertest.RetiredStory(),
	}
	for i, story := range stories {
		if err := s.Tell(runnertest.NewCast(i), story); err != nil {
			t.Fatal(err)
		}
	}
	f.publish()
	rep := verify(t, f.files, f.root)
	if !rep.OK() || len(rep.Notes) != 0 {
		t.Fatalf("findings = %v, notes = %v, want none", rep.Findings, rep.Notes)
	}
	want := fmt.Sprintf("%d records, 4 jobs, 3 runners, 3 hosts", len(s.Records))
	got := fmt.Sprintf("%d records, %d jobs, %d runners, %d hosts", rep.Size, rep.Jobs, rep.Runners, rep.Hosts)
	if got != want || rep.Folded != rep.Size || !strings.Contains(rep.Head, rep.RootHash) {
		t.Errorf("report = %s, %d folded, head %q, want %s", got, rep.Folded, rep.Head, want)
	}
}

// TestEveryChangedByteIsFound changes one byte at a time: every byte of a
// ledger of one record, and of a longer one every byte of its checkpoints and
// every eleventh of the rest.
func TestEveryChangedByteIsFound(t *testing.T) {
	one := newForge(t)
	if err := one.script().Open(); err != nil {
		t.Fatal(err)
	}
	if _, err := one.putBlob([]byte("an attachment")); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		forge  *forge
		stride int
	}{{one.publish(), 1}, {told(t, runnertest.DeniedStory()), 11}} {
		files := tc.forge.copy()
		if rep := verify(t, files, tc.forge.root); !rep.OK() {
			t.Fatalf("findings before = %v", rep.Findings)
		}
		for _, name := range names(files, "") {
			data, stride := files[name].Data, tc.stride
			if strings.Contains(name, "checkpoint") {
				stride = 1
			}
			for i := 0; i < len(data); i += stride {
				data[i] ^= 1
				if rep := verify(t, files, tc.forge.root); rep.OK() {
					t.Errorf("%s: byte %d of %d changed and nothing was found", name, i, len(data))
				}
				data[i] ^= 1
			}
		}
	}
}

// The last segment may lack its checkpoint; then its signature alone protects it.
func TestEveryChangedByteOfAnUncoveredTailIsFound(t *testing.T) {
	f := newForge(t)
	if err := f.script().Open(); err != nil {
		t.Fatal(err)
	}
	files := f.copy()
	delete(files, evidence.CheckpointName(1))
	rep := verify(t, files, f.root)
	if !rep.OK() || len(rep.Notes) != 2 || !strings.Contains(rep.Notes[0].Detail, "no checkpoint yet") {
		t.Fatalf("findings = %v, notes = %v, want a note about the tail", rep.Findings, rep.Notes)
	}
	data := files[evidence.SegmentName(0)].Data
	for i := range data {
		data[i] ^= 1
		if rep := verify(t, files, f.root); rep.OK() {
			t.Errorf("byte %d of %d changed and nothing was found", i, len(data))
		}
		data[i] ^= 1
	}
}

func TestEveryLostMovedOrCutFileIsFound(t *testing.T) {
	f := told(t, runnertest.CompletedStory())
	all := names(f.files, "")
	folderOf := func(name string) string { return name[:strings.Index(name, "/")+1] }
	attempts := map[string]func(files fstest.MapFS, name string) bool{
		"removed": func(files fstest.MapFS, name string) bool { delete(files, name); return true },
		"emptied": func(files fstest.MapFS, name string) bool { files[name].Data = nil; return true },
		"cut": func(files fstest.MapFS, name string) bool {
			d := files[name]
			d.Data = d.Data[:len(d.Data)-1]
			return true
		},
		"halved": func(files fstest.MapFS, name string) bool {
			d := files[name]
			d.Data = d.Data[:len(d.Data)/2]
			return true
		},
		"longer": func(files fstest.MapFS, name string) bool {
			files[name].Data = append(files[name].Data, '\n')
			return true
		},
		"renamed": func(files fstest.MapFS, name string) bool {
			files[name+"0"] = files[name]
			delete(files, name)
			return true
		},
		"copied beside": func(files fstest.MapFS, name string) bool { files[name+"~"] = files[name]; return true },
		"made a link": func(files fstest.MapFS, name string) bool {
			files[name].Mode |= fs.ModeSymlink
			return true
		},
		"swapped with the next": func(files fstest.MapFS, name string) bool {
			next := names(files, folderOf(name))
			for i, n := range next[:len(next)-1] {
				if n == name && !bytes.Equal(files[n].Data, files[next[i+1]].Data) {
					files[n], files[next[i+1]] = files[next[i+1]], files[n]
					return true
				}
			}
			return false
		},
	}
	for what, do := range attempts {
		for _, name := range all {
			files := f.copy()
			if !do(files, name) {
				continue
			}
			if rep := verify(t, files, f.root); rep.OK() {
				t.Errorf("%s was %s and nothing was found; notes %v", name, what, rep.Notes)
			}
		}
	}
}

func TestForeignFilesAreFound(t *testing.T) {
	f := told(t, runnertest.DeniedStory())
	segment := f.files[evidence.SegmentName(1)].Data
	for name, data := range map[string][]byte{
		"README":                   []byte("x"),
		"seg/2":                    segment,
		"seg/000000000000000000x2": segment,
		evidence.SegmentName(2):    segment, // a record said twice
		evidence.SegmentName(9):    segment, // a record from nowhere
		evidence.CheckpointName(9): f.checkpoint(2),
		evidence.CheckpointName(0): f.checkpoint(0),
		"blobs/sha256/beef":        []byte("x"),
		"view/index.html":          []byte("x"),
		"view/tile/0/000":          []byte("x"),
		"view/tile/0/001.p/1":      []byte("x"),
		"view/tile/0/x000/001":     []byte("x"),
	} {
		files := f.copy()
		files[name] = &fstest.MapFile{Data: data, Mode: 0o640}
		if rep := verify(t, files, f.root); rep.OK() {
			t.Errorf("%s was added and nothing was found", name)
		}
	}
}

func TestWhatACrashLeavesIsOnlyNoted(t *testing.T) {
	f := told(t, runnertest.DeniedStory())
	for name, file := range map[string][]byte{
		evidence.BlobName(runner.DigestOf([]byte("orphan"))): []byte("orphan"),
		"tmp/HALF": []byte("x"),
	} {
		files := f.copy()
		files[name] = &fstest.MapFile{Data: file, Mode: 0o640}
		if rep := verify(t, files, f.root); !rep.OK() || len(rep.Notes) != 1 {
			t.Errorf("with %s: findings %v, notes %v, want one note", name, rep.Findings, rep.Notes)
		}
	}
}

func TestAViewMayLagAndMayNotContradict(t *testing.T) {
	f := newForge(t)
	s := f.script()
	if err := s.Open(); err != nil {
		t.Fatal(err)
	}
	f.publish()
	if err := s.Must(runner.Heartbeat{}); err != nil {
		t.Fatal(err)
	}
	rep := verify(t, f.files, f.root)
	if !rep.OK() || len(rep.Notes) != 1 || !strings.Contains(rep.Notes[0].Detail, "the view shows 1 of 2 records") {
		t.Errorf("lagging view: findings %v, notes %v, want one note", rep.Findings, rep.Notes)
	}
	other := told(t, runnertest.DeniedStory())
	cp, err := evidence.SignCheckpoint(t.Context(), evidence.Checkpoint{Origin: origin, Size: 2, Root: mustRoot(t, other.tree, 2)}, f.log)
	if err != nil {
		t.Fatal(err)
	}
	f.put(evidence.ViewCheckpoint, cp)
	wantFinding(t, verify(t, f.files, f.root), 7, "view")
}

func TestARolledBackLedgerNeedsAWitness(t *testing.T) {
	f := told(t, runnertest.DeniedStory())
	witnessed := f.checkpoint(2)
	if _, err := f.append(runnertest.Start().Add(time.Minute), runner.Heartbeat{}); err != nil {
		t.Fatal(err)
	}
	grown, err := evidence.VerifyOptions{Witnessed: witnessed}.Verify(f.files, f.root)
	if err != nil || !grown.OK() {
		t.Errorf("a log that grew since: %v, %v, want no findings", grown.Findings, err)
	}
	back := f.copy()
	for _, name := range append(names(back, "view/"), evidence.SegmentName(2), evidence.SegmentName(1),
		evidence.CheckpointName(3), evidence.CheckpointName(2)) {
		delete(back, name)
	}
	if rep := verify(t, back, f.root); !rep.OK() {
		t.Errorf("rolled back, without a witness: %v, want nothing to be seen", rep.Findings)
	}
	for name, tc := range map[string]struct {
		files     fstest.MapFS
		witnessed []byte
		rule      string
	}{
		"rolled back":       {back, witnessed, "rollback"},
		"another log":       {f.files, told(t, runnertest.DeniedStory()).checkpoint(2), "checkpoint"},
		"not a checkpoint":  {f.files, []byte("x"), "checkpoint"},
		"forked under keys": {f.files, forked(t, f), "fork"},
	} {
		rep, err := evidence.VerifyOptions{Witnessed: tc.witnessed}.Verify(tc.files, f.root)
		if err != nil {
			t.Fatal(err)
		}
		if got := wantFinding(t, rep, 7, tc.rule); got.File != "witnessed checkpoint" {
			t.Errorf("%s: finding %v, want it at the witnessed checkpoint", name, got)
		}
	}
}

// forked is a checkpoint by the same key over other records.
func forked(t *testing.T, f *forge) []byte {
	t.Helper()
	tree := &evidence.Tree{}
	if err := tree.Add([]byte("another history")); err != nil {
		t.Fatal(err)
	}
	cp, err := evidence.SignCheckpoint(t.Context(), evidence.Checkpoint{Origin: origin, Size: 1, Root: mustRoot(t, tree, 1)}, f.log)
	if err != nil {
		t.Fatal(err)
	}
	return cp
}

func mustRoot(t *testing.T, tree *evidence.Tree, size uint64) [32]byte {
	t.Helper()
	root, err := tree.Root(size)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func TestTwoSegmentsWithoutACheckpointAreNotACrash(t *testing.T) {
	f := told(t, runnertest.DeniedStory())
	files := f.copy()
	for _, name := range append(names(files, "checkpoints/"), names(files, "view/")...) {
		delete(files, name)
	}
	got := wantFinding(t, verify(t, files, f.root), 7, "checkpoint-missing")
	if got.File != evidence.CheckpointName(1) {
		t.Errorf("finding at %s, want the first missing checkpoint", got.File)
	}
}

// growing is a ledger that a daemon goes on writing while it is read: with
// every folder that is listed it has one job and one view more.
type growing struct {
	t     *testing.T
	f     *forge
	s     *runnertest.Script
	casts *int
}

func (g growing) Open(name string) (fs.File, error) { return g.f.files.Open(name) }

func (g growing) ReadDir(name string) ([]fs.DirEntry, error) {
	grow := func() {
		*g.casts++
		if err := g.s.Tell(runnertest.NewCast(*g.casts), runnertest.DeniedStory()); err != nil {
			g.t.Error(err)
		}
		g.f.publish()
	}
	grow()
	entries, err := fs.ReadDir(g.f.files, name)
	grow()
	return entries, err
}

func TestALedgerThatIsBeingWrittenIsClean(t *testing.T) {
	f := newForge(t)
	s := f.script()
	if err := s.Open(); err != nil {
		t.Fatal(err)
	}
	f.publish()
	rep, err := evidence.Verify(growing{t, f, s, new(int)}, f.root)
	if err != nil || !rep.OK() {
		t.Errorf("Verify of a growing ledger = %v, %v, want no findings", rep.Findings, err)
	}
	if rep.Size < 3 || rep.Size >= f.tree.Size() {
		t.Errorf("records seen = %d of %d, want some and not all", rep.Size, f.tree.Size())
	}
}
