package ledger_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/ledger/ledgertest"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/runner/runnertest"
)

// began opens the log as a daemon does: it stores the public keys, names them
// in the record that opens the log, and lets new keys take over.
func began(t *testing.T, log *ledger.Log, at time.Time) error {
	root, err := log.Root().Encode()
	if err != nil {
		return err
	}
	digest, err := log.PutBlob(t.Context(), root)
	if err != nil {
		return err
	}
	inEffect, err := log.PutBlob(t.Context(), []byte("configuration and policy"))
	if err != nil {
		return err
	}
	_, err = log.Append(t.Context(), at, runner.Opened{
		Version: "v0.1.0", Instance: "gha-runners/runnerward-0", ConfigDigest: inEffect, PolicyDigest: inEffect, RootDigest: digest,
	})
	if err != nil {
		return err
	}
	return takeOver(t, log, at)
}

func takeOver(t *testing.T, log *ledger.Log, at time.Time) error {
	for {
		e, err := log.Rotation(t.Context(), at)
		if err != nil || e == nil {
			return err
		}
		if _, err := log.Append(t.Context(), at, e); err != nil {
			return err
		}
	}
}

func later(n int) time.Time { return runnertest.Start().Add(time.Duration(n) * time.Minute) }

func beat(t *testing.T, log *ledger.Log, at time.Time) {
	t.Helper()
	if _, err := log.Append(t.Context(), at, runner.Heartbeat{}); err != nil {
		t.Fatal(err)
	}
}

// clean verifies by this root and returns the handovers in the log.
func clean(t *testing.T, files fs.FS, root evidence.Root) (handovers []runner.Rotated) {
	t.Helper()
	rep, err := evidence.Verify(files, root)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range rep.Findings {
		t.Errorf("finding: %s", f)
	}
	for _, rec := range rep.Records {
		if e, ok := rec.Event.(runner.Rotated); ok {
			handovers = append(handovers, e)
		}
	}
	return handovers
}

// rename is what an operator does to rotate a key that is in a file.
func rename(t *testing.T, folder, from, to string) {
	t.Helper()
	if err := os.Rename(filepath.Join(folder, from), filepath.Join(folder, to)); err != nil {
		t.Fatal(err)
	}
}

func fileKeys(t *testing.T, folder string, now time.Time) *ledger.Keys {
	t.Helper()
	keys, err := ledger.OpenKeys(folder, origin, now)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestRenamingAKeyFileHandsOverToANewKey(t *testing.T) {
	folder, mem := filepath.Join(t.TempDir(), "keys"), ledgertest.NewMem(nil)
	log := openLog(t, mem, fileKeys(t, folder, later(0)))
	if err := began(t, log, later(0)); err != nil {
		t.Fatal(err)
	}
	oldRoot := log.Root()
	beat(t, log, later(1))

	rename(t, folder, ledger.RecordKeyFile, ledger.PreviousRecordKeyFile)
	rename(t, folder, ledger.LogKeyFile, ledger.PreviousLogKeyFile)
	log = openLog(t, mem, fileKeys(t, folder, later(2)))
	if err := began(t, log, later(2)); err != nil {
		t.Fatal(err)
	}
	beat(t, log, later(3))
	newRoot := log.Root()

	// The old keys are not needed any more, and the view is built without them.
	for _, name := range []string{ledger.PreviousRecordKeyFile, ledger.PreviousLogKeyFile} {
		if err := os.Remove(filepath.Join(folder, name)); err != nil {
			t.Fatal(err)
		}
	}
	bare := copyStore(t, mem.FS(), func(name string) bool { return strings.HasPrefix(name, evidence.ViewFolder) })
	for name, store := range map[string]*ledgertest.Mem{"as it was": mem, "without a view": bare} {
		log = openLog(t, store, fileKeys(t, folder, later(4)))
		if err := log.ViewError(); err != nil {
			t.Errorf("%s: view: %v", name, err)
		}
		if err := began(t, log, later(4)); err != nil {
			t.Fatal(err)
		}
		beat(t, log, later(5))
		if err := log.Close(t.Context()); err != nil {
			t.Errorf("%s: Close = %v", name, err)
		}
		if got, want := fmt.Sprint(log.Root()), fmt.Sprint(newRoot); got != want {
			t.Errorf("%s: root after a restart = %s, want %s", name, got, want)
		}
		for which, root := range map[string]evidence.Root{"old": oldRoot, "new": newRoot} {
			if got := clean(t, store.FS(), root); len(got) != 2 || got[0].Use != runner.RecordKey || got[1].Use != runner.CheckpointKey {
				t.Errorf("%s, by the %s root: handovers %+v, want one of each", name, which, got)
			}
		}
	}
}

func TestACrashAmidAHandoverLeavesOneHandover(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "keys")
	before := ledgertest.NewMem(nil)
	log := openLog(t, before, fileKeys(t, folder, later(0)))
	if err := began(t, log, later(0)); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	oldRoot := log.Root()
	rename(t, folder, ledger.RecordKeyFile, ledger.PreviousRecordKeyFile)
	rename(t, folder, ledger.LogKeyFile, ledger.PreviousLogKeyFile)
	keys := fileKeys(t, folder, later(1))
	live := func(store ledger.Store, at time.Time) error {
		log, _, err := ledger.Open(t.Context(), store, keys, options())
		if err != nil {
			return err
		}
		if err := began(t, log, at); err != nil {
			return err
		}
		if _, err := log.Append(t.Context(), at, runner.Heartbeat{}); err != nil {
			return err
		}
		return log.Close(t.Context())
	}
	for _, applied := range []bool{false, true} {
		crashes := 0
		for n := 0; ; n++ {
			mem := before.With(crashAt(n, applied))
			if live(mem, later(2)) == nil {
				break // the whole life passed before the crash
			}
			crashes++
			clean(t, mem.FS(), oldRoot) // what a crash leaves is never a finding
			after := mem.With(nil)
			if err := live(after, later(3)); err != nil {
				t.Fatalf("crash at operation %d, applied %t: %v", n, applied, err)
			}
			if got := clean(t, after.FS(), oldRoot); len(got) != 2 {
				t.Errorf("crash at operation %d, applied %t: %d handovers, want one of each key", n, applied, len(got))
			}
		}
		if crashes < 15 {
			t.Errorf("only %d crashes tried", crashes)
		}
	}
}

func TestKeysThatCannotGoOnAreRefusedWithTheMend(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "keys")
	mem := ledgertest.NewMem(nil)
	log := openLog(t, mem, fileKeys(t, folder, later(0)))
	if err := began(t, log, later(0)); err != nil {
		t.Fatal(err)
	}
	refused := func(name, says string) {
		t.Helper()
		_, _, err := ledger.Open(t.Context(), mem, fileKeys(t, folder, later(1)), options())
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("Open with %s = %v, want it to say %q", name, err, says)
		}
	}
	// A key was lost, and another made in its place.
	rename(t, folder, ledger.RecordKeyFile, "aside")
	refused("another record key", "give it as the previous key to hand over from")
	if err := os.Remove(filepath.Join(folder, ledger.RecordKeyFile)); err != nil {
		t.Fatal(err)
	}
	rename(t, folder, "aside", ledger.RecordKeyFile)
	rename(t, folder, ledger.LogKeyFile, "aside")
	refused("another checkpoint key", "(checkpoints)")
	if err := os.Remove(filepath.Join(folder, ledger.LogKeyFile)); err != nil {
		t.Fatal(err)
	}
	rename(t, folder, "aside", ledger.LogKeyFile)

	// The old key comes back in the place of the new one.
	rename(t, folder, ledger.RecordKeyFile, ledger.PreviousRecordKeyFile)
	log = openLog(t, mem, fileKeys(t, folder, later(1)))
	if err := began(t, log, later(1)); err != nil {
		t.Fatal(err)
	}
	rename(t, folder, ledger.RecordKeyFile, "aside")
	rename(t, folder, ledger.PreviousRecordKeyFile, ledger.RecordKeyFile)
	rename(t, folder, "aside", ledger.PreviousRecordKeyFile)
	refused("the old key", "may not come back: make a new key")

	// The same key twice.
	if err := os.Remove(filepath.Join(folder, ledger.PreviousRecordKeyFile)); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(folder, ledger.RecordKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, ledger.PreviousRecordKeyFile), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.OpenKeys(folder, origin, later(2)); err == nil || !strings.Contains(err.Error(), "make a new one to hand over to") {
		t.Errorf("OpenKeys with one key twice = %v, want the mend", err)
	}
	if err := os.WriteFile(filepath.Join(folder, ledger.PreviousRecordKeyFile), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.OpenKeys(folder, origin, later(2)); err == nil || !strings.Contains(err.Error(), ledger.PreviousRecordKeyFile) {
		t.Errorf("OpenKeys with a damaged previous key = %v, want the file named", err)
	}
}

func TestAHandoverThatReadersWouldNotFollowIsNotWritten(t *testing.T) {
	folder, mem := filepath.Join(t.TempDir(), "keys"), ledgertest.NewMem(nil)
	fileKeys(t, folder, later(0))
	rename(t, folder, ledger.RecordKeyFile, ledger.PreviousRecordKeyFile)
	log := openLog(t, mem, fileKeys(t, folder, later(0)))
	e, err := log.Rotation(t.Context(), later(0))
	if err != nil {
		t.Fatal(err)
	}
	forged, ok := e.(runner.Rotated)
	if !ok {
		t.Fatalf("Rotation = %+v, want a handover", e)
	}
	forged.SignedAt = later(1)
	if _, err := log.Append(t.Context(), later(1), forged); err == nil || !strings.Contains(err.Error(), "is not signed by the new key") {
		t.Errorf("Append of a forged handover = %v, want a refusal", err)
	}
	if recs, err := log.Recover(t.Context()); err != nil || len(recs) != 0 {
		t.Errorf("Recover = %v, %v, want nothing", recs, err)
	}
	beat(t, log, later(1))
	clean(t, mem.FS(), log.Root())
}

func TestTheKeysThatALogBeganWithMustBeThere(t *testing.T) {
	folder, mem := filepath.Join(t.TempDir(), "keys"), ledgertest.NewMem(nil)
	log := openLog(t, mem, fileKeys(t, folder, later(0)))
	if err := began(t, log, later(0)); err != nil {
		t.Fatal(err)
	}
	encoded, err := log.Root().Encode()
	if err != nil {
		t.Fatal(err)
	}
	root := evidence.BlobName(runner.DigestOf(encoded))
	isRoot := func(name string) bool { return name == root }
	if _, _, err := ledger.Open(t.Context(), copyStore(t, mem.FS(), isRoot), fileKeys(t, folder, later(1)), options()); !errors.Is(err, ledger.ErrNotFound) || !strings.Contains(err.Error(), "restore it from a copy") {
		t.Errorf("Open without the public keys = %v, want the mend", err)
	}
	damaged := copyStore(t, mem.FS(), isRoot)
	if err := damaged.Create(t.Context(), root, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ledger.Open(t.Context(), damaged, fileKeys(t, folder, later(1)), options()); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("Open with damaged public keys = %v, want the mend", err)
	}
}

// TestTheDocumentedRotationMayBeDoneAgain: the start after it fails before the
// handover, the operator goes through the procedure once more, and the key in
// force is still there.
func TestTheDocumentedRotationMayBeDoneAgain(t *testing.T) {
	doc, err := os.ReadFile("../../docs/keys.md")
	if err != nil {
		t.Fatal(err)
	}
	var renames []string
	for line := range strings.Lines(string(doc)) {
		if strings.HasPrefix(line, "mv ") {
			renames = append(renames, line)
		}
	}
	if len(renames) != 2 {
		t.Fatalf("docs/keys.md renames with %q, want one command for each key", renames)
	}
	folder, mem := filepath.Join(t.TempDir(), "keys"), ledgertest.NewMem(nil)
	if err := began(t, openLog(t, mem, fileKeys(t, folder, later(0))), later(0)); err != nil {
		t.Fatal(err)
	}
	for try := range 2 {
		for _, command := range renames {
			sh := exec.CommandContext(t.Context(), "sh", "-c", command)
			sh.Dir = folder
			// Newer versions of mv -n report by their status that nothing was renamed.
			if out, err := sh.CombinedOutput(); err != nil && try == 0 {
				t.Fatalf("%s: %v: %s", command, err, out)
			}
		}
		fileKeys(t, folder, later(1)) // all that a start does that fails early
	}
	log := openLog(t, mem, fileKeys(t, folder, later(2)))
	if err := began(t, log, later(2)); err != nil {
		t.Fatal(err)
	}
	if got := clean(t, mem.FS(), log.Root()); len(got) != 2 {
		t.Errorf("%d handovers, want one of each key", len(got))
	}
}
