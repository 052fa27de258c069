package evidence_test

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/runner/runnertest"
)

// shelf is a store that tells of its objects what it is told to.
type shelf map[string]evidence.Object

func (s shelf) Objects(folder string) (map[string]evidence.Object, error) {
	found := maps.Clone(s)
	maps.DeleteFunc(found, func(name string, _ evidence.Object) bool { return !strings.HasPrefix(name, folder) })
	return found, nil
}

// shelved is a ledger whose objects are all kept until this time.
func shelved(f *forge, until time.Time) shelf {
	s := shelf{}
	for name := range f.files {
		if !strings.HasPrefix(name, evidence.ViewFolder) {
			s[name] = evidence.Object{Versions: 1, Compliance: true, RetainUntil: until}
		}
	}
	return s
}

func TestLocksAndVersionsOfAStoreAreChecked(t *testing.T) {
	f := told(t, runnertest.CompletedStory())
	rep := verify(t, f.files, f.root)
	last := rep.LastAt.AddDate(evidence.RetainYears, 0, 0)
	segment, checkpoint := evidence.SegmentName(rep.Size-1), evidence.CheckpointName(rep.Size)
	input := names(f.files, evidence.BlobFolder)[0]
	for name, tc := range map[string]struct {
		change func(shelf)
		rule   string
		file   string
	}{
		"all as it should be": {func(shelf) {}, "", ""},
		"written twice":       {func(s shelf) { s[segment] = evidence.Object{Versions: 2, Compliance: true, RetainUntil: last} }, "versions", segment},
		"deleted": {func(s shelf) {
			s[input] = evidence.Object{Versions: 1, DeleteMarkers: 1, Compliance: true, RetainUntil: last}
		}, "delete-marker", input},
		"deleted where nothing was": {func(s shelf) { s[evidence.SegmentName(99)] = evidence.Object{DeleteMarkers: 2} }, "delete-marker", evidence.SegmentName(99)},
		"not locked":                {func(s shelf) { s[checkpoint] = evidence.Object{Versions: 1} }, "unlocked", checkpoint},
		"locked in governance mode": {func(s shelf) { s[segment] = evidence.Object{Versions: 1, RetainUntil: last} }, "unlocked", segment},
		"a segment kept too short":  {func(s shelf) { s[segment] = evidence.Object{Versions: 1, Compliance: true, RetainUntil: last.Add(-1)} }, "retention", segment},
		"an early checkpoint's own time": {func(s shelf) {
			s[evidence.CheckpointName(1)] = evidence.Object{Versions: 1, Compliance: true, RetainUntil: rep.FirstAt.AddDate(6, 0, 0)}
		}, "", ""},
		"a checkpoint kept too short": {func(s shelf) {
			s[checkpoint] = evidence.Object{Versions: 1, Compliance: true, RetainUntil: last.Add(-1)}
		}, "retention", checkpoint},
		"a version that the store denies": {func(s shelf) { delete(s, segment) }, "unlocked", segment},
		"written after the reading":       {func(s shelf) { s[evidence.SegmentName(50)] = evidence.Object{Versions: 1, Compliance: true} }, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := shelved(f, last)
			tc.change(s)
			rep, err := evidence.VerifyOptions{Objects: s}.Verify(f.files, f.root)
			if err != nil {
				t.Fatal(err)
			}
			if tc.rule == "" {
				if !rep.OK() {
					t.Errorf("findings = %v, want none", rep.Findings)
				}
				return
			}
			if got := wantFinding(t, rep, 7, tc.rule); got.File != tc.file || len(rep.Findings) != 1 {
				t.Errorf("findings = %v, want one, about %s", rep.Findings, tc.file)
			}
		})
	}
}

// TestWhatIsInEffectIsKeptForItsLastDay: a configuration of years ago is used
// until another takes its place.
func TestWhatIsInEffectIsKeptForItsLastDay(t *testing.T) {
	f := newForge(t)
	start, day := runnertest.Start(), 24*time.Hour
	document := func(text string) runner.Digest {
		d, err := f.putBlob([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	older, newer, root := document("older"), document("newer"), document(string(encoded(t, f.root)))
	for i, config := range []runner.Digest{older, newer} {
		at := start.Add(time.Duration(i) * time.Hour)
		opened := runner.Opened{Version: "v1", Instance: "x", ConfigDigest: config, PolicyDigest: config, RootDigest: root}
		if _, err := f.append(at, opened); err != nil {
			t.Fatal(err)
		}
	}
	end := start.Add(2 * time.Hour)
	if _, err := f.append(end, runner.Heartbeat{}); err != nil {
		t.Fatal(err)
	}
	s := shelved(f, end.AddDate(6, 0, 0))
	short := func(d runner.Digest, by time.Duration) {
		o := s[evidence.BlobName(d)]
		o.RetainUntil = o.RetainUntil.Add(-by)
		s[evidence.BlobName(d)] = o
	}
	short(older, time.Hour) // until it was replaced
	rep, err := evidence.VerifyOptions{Objects: s}.Verify(f.files, f.root)
	if err != nil || !rep.OK() {
		t.Fatalf("Verify = %v, %v, want no finding", rep.Findings, err)
	}
	short(older, 1)
	short(newer, 1)
	short(root, day)
	rep, err = evidence.VerifyOptions{Objects: s}.Verify(f.files, f.root)
	if err != nil || len(rep.Findings) != 3 {
		t.Errorf("Verify = %v, %v, want one finding for each document", rep.Findings, err)
	}
}

// TestADaemonThatIsDownUsesNoDocument: it was down for weeks, and what the next
// one writes before it says that others are in effect is no use of the old
// ones, which nobody kept meanwhile. A daemon that goes on after a silence uses
// them.
func TestADaemonThatIsDownUsesNoDocument(t *testing.T) {
	for name, tc := range map[string]struct {
		restarted bool
		findings  int
	}{"started with others": {true, 0}, "goes on": {false, 1}} {
		t.Run(name, func(t *testing.T) {
			f := newForge(t)
			root, err := f.putBlob(encoded(t, f.root))
			if err != nil {
				t.Fatal(err)
			}
			open := func(config string) runner.Opened {
				d, err := f.putBlob([]byte(config))
				if err != nil {
					t.Fatal(err)
				}
				return runner.Opened{Version: "v1", Instance: "x", ConfigDigest: d, PolicyDigest: d, RootDigest: root}
			}
			older, newer := open("older"), open("newer")
			start := runnertest.Start()
			end := start.AddDate(0, 0, 40)
			last := runner.Event(runner.Heartbeat{})
			if tc.restarted {
				last = newer
			}
			for i, e := range []runner.Event{
				older, runner.Heartbeat{}, runner.Gap{Since: start, Until: end},
				runner.Spooled{First: 1, Last: 1, Count: 1, Since: start, Until: end}, last,
			} {
				at := start
				if i > 1 {
					at = end
				}
				if _, err := f.append(at, e); err != nil {
					t.Fatal(err)
				}
			}
			s := shelved(f, end.AddDate(6, 0, 0))
			s[evidence.BlobName(older.ConfigDigest)] = evidence.Object{Versions: 1, Compliance: true, RetainUntil: start.AddDate(6, 0, 0)}
			rep, err := evidence.VerifyOptions{Objects: s}.Verify(f.files, f.root)
			if err != nil || len(rep.Findings) != tc.findings {
				t.Errorf("Verify = %v, %v, want %d findings", rep.Findings, err, tc.findings)
			}
		})
	}
}

func TestABucketWithoutLocksIsNotAFindingForEveryObject(t *testing.T) {
	f := newForge(t)
	s := f.script()
	for range 60 {
		if err := s.Must(runner.Heartbeat{}); err != nil {
			t.Fatal(err)
		}
	}
	rep, err := evidence.VerifyOptions{Objects: shelf{}}.Verify(f.files, f.root)
	if err != nil || len(rep.Findings) != 21 || !strings.Contains(rep.Findings[20].Detail, "the same of 100 objects more") {
		t.Errorf("Verify = %v, %v, want 20 findings and the number of the others", rep.Findings, err)
	}
}

// mute is a store that cannot be asked.
type mute struct{ error }

func (m mute) Objects(string) (map[string]evidence.Object, error) { return nil, m.error }

func TestAStoreThatCannotBeAskedIsNoVerdict(t *testing.T) {
	f := told(t, runnertest.DeniedStory())
	down := errors.New("access denied")
	if rep, err := (evidence.VerifyOptions{Objects: mute{down}}).Verify(f.files, f.root); !errors.Is(err, down) || rep != nil {
		t.Errorf("Verify = %v, %v, want the store's error", rep, err)
	}
}
