package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/runner/runnertest"
)

func TestSpoolDirKeepsWhatItWasGiven(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "spool")
	s := openSpool(t, folder)
	for _, index := range []uint64{12, 9, 10} {
		if err := s.Put(index, fmt.Appendf(nil, "envelope %d", index)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Put(9, []byte("envelope 9")); err != nil {
		t.Errorf("Put of the same bytes = %v", err)
	}
	if err := s.Put(9, []byte("another")); err == nil || !strings.Contains(err.Error(), "another record") {
		t.Errorf("Put of other bytes = %v, want a refusal", err)
	}
	if err := errors.Join(s.Remove(10), s.Remove(10)); err != nil {
		t.Errorf("Remove, twice = %v", err)
	}
	for _, name := range []string{".new-crashed", "notes.txt"} {
		if err := os.WriteFile(filepath.Join(folder, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	again := openSpool(t, folder)
	if got, err := again.List(); err != nil || !slices.Equal(got, []uint64{9, 12}) {
		t.Errorf("List = %v, %v, want 9 and 12", got, err)
	}
	if b, err := again.Read(12); err != nil || string(b) != "envelope 12" {
		t.Errorf("Read = %q, %v", b, err)
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || info.Mode().Perm() != 0o600 || strings.HasPrefix(e.Name(), ".new-") {
			t.Errorf("%s has mode %v, %v; want 0600 and nothing that a crash left", e.Name(), info.Mode(), err)
		}
	}
	if info, err := os.Stat(folder); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder has mode %v, %v, want 0700", info.Mode(), err)
	}
	if err := os.WriteFile(filepath.Join(folder, "9.envelope"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := again.List(); err == nil || !strings.Contains(err.Error(), "not the name of a record") {
		t.Errorf("List with a file of an odd name = %v, want a refusal", err)
	}
}

func openSpool(t *testing.T, folder string) *ledger.SpoolDir {
	t.Helper()
	s, err := ledger.OpenSpoolDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestSpoolDirThatCannotServeIsRefusedAtTheStart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, folder := range map[string]string{"relative": "spool", "a file": file, "no writable filesystem": "/proc/spool"} {
		if s, err := ledger.OpenSpoolDir(folder); err == nil {
			t.Errorf("OpenSpoolDir of %s = %v, want an error", name, s.Where())
		}
	}
}

// TestAnOutageAcrossProcessesOnDisk is the whole of it on real files.
func TestAnOutageAcrossProcessesOnDisk(t *testing.T) {
	folder, keys := t.TempDir(), newKeys(t)
	store := openDir(t, filepath.Join(folder, "ledger"))
	down := false
	refusing := refuser{store, &down}
	log, _, err := ledger.Open(t.Context(), refusing, keys, spoolOptions(openSpool(t, folder+"/spool")))
	if err != nil {
		t.Fatal(err)
	}
	s := scriptFor(t, log)
	story := runnertest.CompletedStory()
	if err := errors.Join(s.Open(), s.Tell(runnertest.NewCast(0), story[:8])); err != nil {
		t.Fatal(err)
	}
	down = true
	if err := s.Tell(runnertest.NewCast(0), story[8:11]); err != nil {
		t.Fatal(err)
	}
	down = false
	log, records, err := ledger.Open(t.Context(), refusing, keys, spoolOptions(openSpool(t, folder+"/spool")))
	if err != nil || len(records) != len(s.Records) {
		t.Fatalf("reopened: %d records, %v, want %d", len(records), err, len(s.Records))
	}
	if _, err := log.Append(t.Context(), s.Now, spooledOf(log, s.Now)); err != nil {
		t.Fatal(err)
	}
	if left, err := openSpool(t, folder+"/spool").List(); err != nil || len(left) != 0 {
		t.Errorf("left in the spool: %v, %v, want nothing", left, err)
	}
	wantClean(t, store.FS(), keys)
}

// refuser is a store that is away while down.
type refuser struct {
	*ledger.Dir
	down *bool
}

func (r refuser) Create(ctx context.Context, name string, data []byte) error {
	if *r.down {
		return errDown
	}
	return r.Dir.Create(ctx, name, data)
}
