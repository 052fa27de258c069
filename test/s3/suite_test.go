package s3test

import (
	"io/fs"
	"os"
	"testing"

	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/ledger/ledgertest"
)

// TestOneSuiteForAllStores is the same suite in the same process: a folder,
// memory, and buckets of a real server.
func TestOneSuiteForAllStores(t *testing.T) {
	for name, subject := range map[string]func(*testing.T) ledgertest.Subject{
		"dir": func(t *testing.T) ledgertest.Subject {
			folder := t.TempDir()
			return ledgertest.Subject{
				Open: func(t testing.TB) ledger.Store { return openDir(t, folder) },
				FS:   func(testing.TB) fs.FS { return os.DirFS(folder) },
			}
		},
		"mem": func(*testing.T) ledgertest.Subject {
			mem := ledgertest.NewMem(nil)
			return ledgertest.Subject{
				Open: func(testing.TB) ledger.Store { return mem },
				FS:   func(testing.TB) fs.FS { return mem.FS() },
			}
		},
		"s3": func(t *testing.T) ledgertest.Subject {
			p := newPlace(t)
			return ledgertest.Subject{Open: p.open, FS: p.files, Versions: p}
		},
	} {
		t.Run(name, func(t *testing.T) { ledgertest.TestStore(t, subject) })
	}
}

func openDir(t testing.TB, folder string) *ledger.Dir {
	t.Helper()
	d, err := ledger.OpenDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}
