package ledger_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/ledger/ledgertest"
)

func openDir(t testing.TB, folder string) *ledger.Dir {
	t.Helper()
	d, err := ledger.OpenDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func TestDirKeepsTheContract(t *testing.T) {
	ledgertest.TestStore(t, func(t *testing.T) ledgertest.Subject {
		folder := t.TempDir()
		return ledgertest.Subject{
			Open: func(t testing.TB) ledger.Store { return openDir(t, folder) },
			FS:   func(testing.TB) fs.FS { return os.DirFS(folder) },
		}
	})
}

func TestMemKeepsTheContract(t *testing.T) {
	ledgertest.TestStore(t, func(*testing.T) ledgertest.Subject {
		mem := ledgertest.NewMem(nil)
		return ledgertest.Subject{
			Open: func(testing.TB) ledger.Store { return mem },
			FS:   func(testing.TB) fs.FS { return mem.FS() },
		}
	})
}

func TestDirRefusesARelativePath(t *testing.T) {
	t.Chdir(t.TempDir())
	if _, err := ledger.OpenDir("ledger"); err == nil || !strings.Contains(err.Error(), "absolute") {
		t.Errorf("OpenDir(relative) = %v, want a refusal", err)
	}
}

func TestDirForgetsUnfinishedFilesAndVerifyNotesThem(t *testing.T) {
	folder := t.TempDir()
	d := openDir(t, folder)
	keys := newKeys(t)
	tellStories(t, openLog(t, d, keys), 1)
	left := filepath.Join(folder, "tmp", "HALFWRITTEN")
	if err := os.WriteFile(left, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	rep, err := evidence.Verify(os.DirFS(folder), keys.Root())
	if err != nil || !rep.OK() || len(rep.Notes) != 1 || !strings.Contains(rep.Notes[0].Detail, "1 unfinished") {
		t.Errorf("Verify with an unfinished file = %+v, %v, want one note", rep, err)
	}
	openDir(t, folder)
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("the unfinished file after open: %v, want it gone", err)
	}
}

func TestDirDoesNotFollowALinkOutOfItsFolder(t *testing.T) {
	folder, outside := t.TempDir(), t.TempDir()
	d := openDir(t, folder)
	if err := os.Symlink(outside, filepath.Join(folder, "away")); err != nil {
		t.Fatal(err)
	}
	if err := d.Create(t.Context(), "away/object", []byte("x")); err == nil {
		t.Error("Create through a link that leaves the folder = nil, want a refusal")
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 0 {
		t.Errorf("outside the folder: %v, %v, want nothing", entries, err)
	}
}
