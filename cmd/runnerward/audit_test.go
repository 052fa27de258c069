package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/runner/runnertest"
)

// books are a ledger on disk, the keys to trust and the number of records.
type books struct {
	dir, root string
	size      uint64
}

// keep writes a ledger with the daemon's own code. It signs whatever the
// script says, as a daemon that misbehaves would.
func keep(t *testing.T, write func(s *runnertest.Script)) books {
	t.Helper()
	folder := t.TempDir()
	b := books{dir: filepath.Join(folder, "ledger"), root: filepath.Join(folder, "root.json")}
	keys, err := ledger.OpenKeys(filepath.Join(folder, "keys"), "ledger.example.org/hipaa-prod/2026", runnertest.Start())
	if err != nil {
		t.Fatal(err)
	}
	root, err := keys.Root().Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.root, root, 0o600); err != nil {
		t.Fatal(err)
	}
	store, err := ledger.OpenDir(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	log, _, err := ledger.Open(t.Context(), store, keys, ledger.Options{
		Recorder: evidence.Recorder{ID: recorderID, Version: "v0.1.0"},
	})
	if err != nil {
		t.Fatal(err)
	}
	script := runnertest.NewScript(
		func(at time.Time, e runner.Event) (runner.Record, error) { return log.Append(t.Context(), at, e) },
		func(b []byte) (runner.Digest, error) { return log.PutBlob(t.Context(), b) })
	script.NewYear = func(at time.Time) (runner.Event, error) { return log.NewYear(t.Context(), at) }
	script.Root = root
	write(script)
	b.size = uint64(len(script.Records))
	if err := log.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	return b
}

// fourStories are the casts of a ledger in which job 0 completed, 1 was
// denied, 2 was refused at its runner, and runner 3 was retired.
func fourStories(t *testing.T) books {
	t.Helper()
	return keep(t, func(s *runnertest.Script) {
		if err := s.Open(); err != nil {
			t.Fatal(err)
		}
		for i, story := range [][]runner.Kind{
			runnertest.CompletedStory(), runnertest.DeniedStory(), runnertest.RefusedStory(), runnertest.RetiredStory(),
		} {
			tell(t, s, runnertest.NewCast(i), story)
		}
	})
}

func tell(t *testing.T, s *runnertest.Script, c runnertest.Cast, story []runner.Kind) {
	t.Helper()
	if err := s.Tell(c, story); err != nil {
		t.Fatal(err)
	}
}

// copied is a ledger that a test may damage.
func (b books) copied(t *testing.T) books {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "ledger")
	if err := os.CopyFS(dir, os.DirFS(b.dir)); err != nil {
		t.Fatal(err)
	}
	return books{dir, b.root, b.size}
}

func (b books) verify(t *testing.T, more ...string) result {
	t.Helper()
	return call(t, append([]string{"verify", "--ledger", b.dir, "--root", b.root}, more...)...)
}

func (b books) explain(t *testing.T, more ...string) result {
	t.Helper()
	return call(t, append([]string{"explain", "--ledger", b.dir, "--root", b.root}, more...)...)
}

// files are the names of all objects with this prefix, sorted.
func (b books) files(t *testing.T, prefix string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(b.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(b.dir, path)
		if strings.HasPrefix(filepath.ToSlash(name), prefix) {
			names = append(names, filepath.ToSlash(name))
		}
		return err
	})
	if err != nil || len(names) == 0 {
		t.Fatalf("objects %s* = %v, %v, want some", prefix, names, err)
	}
	slices.Sort(names)
	return names
}

func (b books) change(t *testing.T, name string, change func([]byte) []byte) {
	t.Helper()
	path := filepath.Join(b.dir, name)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (b books) remove(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := os.RemoveAll(filepath.Join(b.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestVerifyOfAWholeLedgerExitsZero(t *testing.T) {
	b := fourStories(t)
	r := b.verify(t)
	r.want(t, exitOK, "log ledger.example.org/hipaa-prod/2026", fmt.Sprint("records ", b.size), "holds 4 jobs, 3 runners, 3 hosts", "result no findings")
	if r.errors != "" {
		t.Errorf("stderr = %q, want nothing", r.errors)
	}
	var report evidence.Report
	if err := json.Unmarshal([]byte(b.verify(t, "-o", "json").out), &report); err != nil || report.Size != b.size || report.RootHash == "" {
		t.Errorf("json = %+v, %v, want %d records and a root", report, err, b.size)
	}
}

// TestVerifyFindsAFlippedByteInAnyObject flips a byte of every object, and
// wants its file, the record and the invariant to be named.
func TestVerifyFindsAFlippedByteInAnyObject(t *testing.T) {
	b := fourStories(t).copied(t)
	for _, name := range b.files(t, "") {
		flip := func(data []byte) []byte { data[len(data)/2] ^= 1; return data }
		b.change(t, name, flip)
		want := []string{"FINDING", name + ": invariant ", "BROKEN", "DOES NOT VERIFY", "runnerward: the ledger does not verify"}
		number := strings.TrimLeft(filepath.Base(name), "0")
		switch folder, _, _ := strings.Cut(name, "/"); {
		case folder == "seg" && number == "":
			want = append(want, "record 0, "+name+": invariant 7")
		case folder == "seg":
			want = append(want, "record "+number+", "+name+": invariant 7")
		case folder == "checkpoints":
			want = append(want, ", "+name+": invariant 7")
		case folder == "blobs":
			want = append(want, ", "+name+": invariant 10 (blob-digest)")
		case name != evidence.ViewCheckpoint:
			want = append(want, ", "+name+": invariant 7 (view): the tile contradicts the records from")
		}
		r := b.verify(t)
		r.want(t, exitUnproven, want...)
		if name != evidence.ViewCheckpoint && !strings.Contains(r.out, "FINDING   record ") {
			t.Errorf("%s changed and no record is named:\n%s", name, r.out)
		}
		b.change(t, name, flip)
	}
	b.verify(t).want(t, exitOK)
}

func TestVerifyFindsSegmentsRemovedSwappedAndCut(t *testing.T) {
	whole := fourStories(t)
	seg, last := evidence.SegmentName, whole.size-1
	for name, tc := range map[string]struct {
		damage func(t *testing.T, b books)
		want   string
	}{
		"removed": {func(t *testing.T, b books) { b.remove(t, seg(5)) },
			"record 5, " + seg(6) + ": invariant 7 (segment-missing): records 5 to 5 are missing"},
		"the first removed": {func(t *testing.T, b books) { b.remove(t, seg(0)) },
			"record 0, " + seg(1) + ": invariant 7 (segment-missing)"},
		"the last removed": {func(t *testing.T, b books) { b.remove(t, seg(last)) },
			fmt.Sprintf("record %d, %s: invariant 7 (segment-missing): the checkpoint signs %d records, the ledger holds %d",
				last, evidence.CheckpointName(whole.size), whole.size, last)},
		"all removed": {func(t *testing.T, b books) { b.remove(t, b.files(t, "seg/")...) },
			"invariant 7 (segment-missing)"},
		"swapped": {func(t *testing.T, b books) {
			path := func(n uint64) string { return filepath.Join(b.dir, seg(n)) }
			for _, move := range [][2]string{{path(5), path(99)}, {path(6), path(5)}, {path(99), path(6)}} {
				if err := os.Rename(move[0], move[1]); err != nil {
					t.Fatal(err)
				}
			}
		}, "record 5, " + seg(5) + ": invariant 7"},
		"truncated": {func(t *testing.T, b books) {
			b.change(t, seg(5), func(data []byte) []byte { return data[:len(data)-7] })
		}, "record 5, " + seg(5) + ": invariant 7 (segment-framing): the segment is cut off"},
		"emptied": {func(t *testing.T, b books) {
			b.change(t, seg(5), func([]byte) []byte { return nil })
		}, "record 5, " + seg(5) + ": invariant 7 (segment-framing)"},
	} {
		t.Run(name, func(t *testing.T) {
			b := whole.copied(t)
			tc.damage(t, b)
			b.verify(t).want(t, exitUnproven, tc.want)
		})
	}
	t.Run("what was not read is not judged", func(t *testing.T) {
		b := whole.copied(t)
		b.remove(t, seg(0)) // which refers to attachments
		if out := b.verify(t).out; strings.Contains(out, "no record refers") {
			t.Errorf("verify says of attachments that nothing refers to them:\n%s", out)
		}
	})
}

func TestVerifyFindsWhatIsSignedAndNotAllowed(t *testing.T) {
	cast, other := runnertest.NewCast(0), runnertest.NewCast(1)
	story := runnertest.CompletedStory()
	for name, tc := range map[string]struct {
		before, also []runner.Kind
		kind         runner.Kind
		by           runnertest.Cast
		change       func(runner.Event) runner.Event
		want         string
	}{
		"a host id is reused": {story, runnertest.Upto(story, runner.KindAuthorized), runner.KindClaimed, other,
			func(e runner.Event) runner.Event {
				claimed := e.(runner.Claimed)
				claimed.Host.InstanceID = cast.Host.InstanceID
				return claimed
			}, "invariant 2 (host-reused)"},
		"a runner is sealed and its host was not terminated": {runnertest.Upto(story, runner.KindTeardown), nil, runner.KindSealed, cast,
			func(runner.Event) runner.Event {
				return runner.Sealed{
					Runner: cast.Runner, Outcome: runner.OutcomeCompleted,
					Assurance: runner.Levels{Host: runner.L1, Pod: runner.L1, Job: runner.L1}, Host: cast.Host,
					Teardown: runner.Gone{
						InstanceID: cast.Host.InstanceID, State: "terminated", Volumes: cast.Host.Volumes, Record: runner.DigestOf(nil),
					},
					Events: runner.ChainSeal{Head: runner.DigestOf(nil)},
				}
			}, "invariant 4 (sealed-alive)"},
	} {
		t.Run(name, func(t *testing.T) {
			var at uint64
			b := keep(t, func(s *runnertest.Script) {
				tell(t, s, cast, tc.before)
				tell(t, s, other, tc.also)
				e, err := s.Next(tc.by, tc.kind)
				if err != nil && tc.kind != runner.KindSealed {
					t.Fatal(err)
				}
				rec, refused, err := s.Say(tc.change(e))
				if err != nil || refused == nil {
					t.Fatalf("Say = %v, %v, want it written and refused by the fold", refused, err)
				}
				at = rec.Index
			})
			r := b.verify(t)
			r.want(t, exitUnproven, fmt.Sprintf("FINDING record %d, %s: %s", at, evidence.SegmentName(at), tc.want), "result 1 finding:")
			var report evidence.Report
			err := json.Unmarshal([]byte(b.verify(t, "--output", "json").out), &report)
			if err != nil || len(report.Findings) != 1 || report.Findings[0].Record != int64(at) {
				t.Errorf("json = %+v, %v, want one finding at record %d", report.Findings, err, at)
			}
		})
	}
}

func TestOnlyAWitnessFindsARollback(t *testing.T) {
	whole := fourStories(t)
	seen := filepath.Join(whole.dir, evidence.CheckpointName(whole.size))
	whole.verify(t, "--witnessed", seen).want(t, exitOK)
	b := whole.copied(t)
	b.remove(t, evidence.SegmentName(whole.size-1), evidence.CheckpointName(whole.size), "view")
	b.verify(t).want(t, exitOK, fmt.Sprint("records ", whole.size-1))
	b.verify(t, "--witnessed", filepath.Join(b.dir, evidence.CheckpointName(20))).want(t, exitOK)
	b.verify(t, "--witnessed", seen).want(t, exitUnproven,
		fmt.Sprintf("FINDING witnessed checkpoint: invariant 7 (rollback): the log had %d records when it was witnessed and has %d now",
			whole.size, whole.size-1))
}

func TestVerifyWithoutAnythingToVerifyIsWrongUsage(t *testing.T) {
	b := fourStories(t)
	empty, missing := t.TempDir(), filepath.Join(t.TempDir(), "missing")
	for _, tc := range []struct {
		args []string
		want string
	}{
		{nil, "--ledger and --root missing; see 'runnerward verify --help'"},
		{[]string{"--ledger", b.dir}, "--root missing"},
		{[]string{"--ledger", missing, "--root", b.root}, "--ledger: stat " + missing},
		{[]string{"--ledger", b.root, "--root", b.root}, "is a file, want the folder of the ledger"},
		{[]string{"--ledger", empty, "--root", b.root}, "has no folder seg and none of a year: it is not a ledger"},
		{[]string{"--ledger", b.dir, "--root", missing}, "--root: open " + missing},
		{[]string{"--ledger", b.dir, "--root", "serve.go"}, "serve.go is not the root.json of a log"},
		{[]string{"--ledger", b.dir, "--root", b.root, "--witnessed", missing}, "--witnessed: open " + missing},
		{[]string{"--ledger", b.dir, "--root", b.root, "-o", "yaml"}, `--output "yaml" is neither text nor json`},
	} {
		call(t, append([]string{"verify"}, tc.args...)...).want(t, exitUsage, tc.want)
	}
	blank := keep(t, func(*runnertest.Script) {})
	blank.verify(t).want(t, exitUnproven, "the ledger holds no record, so it proves nothing")
	other := books{b.dir, blank.root, b.size}
	other.verify(t).want(t, exitUnproven, "record 0, "+evidence.SegmentName(0)+": invariant 7 (key)")
}

// TestExplainTellsTheFourStories leaves out the digests of envelopes: ECDSA
// signs the same statement otherwise each time.
func TestExplainTellsTheFourStories(t *testing.T) {
	digest := regexp.MustCompile(`record sha256:[0-9a-f]{64}`)
	b := fourStories(t)
	for i, name := range []string{"completed", "denied", "refused", "retired"} {
		c := runnertest.NewCast(i)
		query := string(c.Job)
		if name == "retired" {
			query = c.Host.InstanceID // no job is told of by this runner
		}
		r := b.explain(t, query)
		r.want(t, exitOK)
		golden(t, "explain-"+name, digest.ReplaceAllString(r.out, "record sha256:DIGEST"))
	}
}

func TestExplainKnowsAJobByAllItsNames(t *testing.T) {
	b, c := fourStories(t), runnertest.NewCast(0)
	for _, query := range []string{c.RunURL(), c.JobURL(), fmt.Sprint(c.RunID), string(c.Job), string(c.Runner), c.Host.InstanceID} {
		b.explain(t, query).want(t, exitOK, fmt.Sprintf("job %s of run %d", c.Job, c.RunID), "approved by octo-approver")
		var x evidence.Explanation
		err := json.Unmarshal([]byte(b.explain(t, query, "-o", "json").out), &x)
		if err != nil || !x.Verified || len(x.Stories) != 1 || x.Stories[0].Job != c.Job || x.Stories[0].Runner != c.Runner {
			t.Errorf("explain %s -o json = %+v, %v, want the story of %s", query, x, err, c.Job)
		}
	}
}

func TestExplainSaysWhatItSearchedAndWhatItRestsOn(t *testing.T) {
	b, c := fourStories(t), runnertest.NewCast(0)
	b.explain(t, "i-00000000000000000").want(t, exitFailed,
		`nothing in this log is about "i-00000000000000000": searched the job ids, runner names and instance ids of 4 jobs and 3 runners in `+fmt.Sprint(b.size)+" records")
	b.explain(t, "https://github.com/hipaa-app-org/clinical-platform/pull/3").want(t, exitFailed, "is not the address of a GitHub Actions run or job")
	b.explain(t).want(t, exitUsage, "wants one run URL, job URL, run id, job id, runner name or instance id")
	damaged := b.copied(t)
	damaged.remove(t, evidence.ViewCheckpoint)
	damaged.explain(t, c.JobURL()).want(t, exitUnproven, "THE LOG DOES NOT VERIFY: 1 finding.", "approved by octo-approver", "these answers are no evidence")
	damaged.explain(t, "i-00000000000000000").want(t, exitUnproven, "nothing in this log", "the ledger does not verify")
}
