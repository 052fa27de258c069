package ledger_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/runner/runnertest"
)

const origin = "ledger.example.org/hipaa-prod/2026"

func newKeys(t testing.TB) *ledger.Keys {
	t.Helper()
	keys, err := ledger.OpenKeys(t.TempDir(), origin, runnertest.Start())
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestKeysAreMadeOncePrivateAndReadAgain(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "keys")
	first, err := ledger.OpenKeys(folder, origin, runnertest.Start())
	if err != nil {
		t.Fatal(err)
	}
	again, err := ledger.OpenKeys(folder, origin, runnertest.Start().AddDate(0, 1, 0))
	if err != nil {
		t.Fatal(err)
	}
	a, errA := first.Root().Encode()
	b, errB := again.Root().Encode()
	if errA != nil || errB != nil || string(a) != string(b) {
		t.Errorf("root after a restart = %s (%v, %v), want %s", b, errA, errB, a)
	}
	if _, err := evidence.ParseRoot(a); err != nil {
		t.Errorf("ParseRoot(own root) = %v", err)
	}
	for _, name := range []string{ledger.RecordKeyFile, ledger.LogKeyFile} {
		info, err := os.Stat(filepath.Join(folder, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v, want mode 0600", name, info, err)
		}
	}
	if entries, _ := os.ReadDir(folder); len(entries) != 2 {
		t.Errorf("keys folder holds %v, want the two keys", entries)
	}
}

func TestKeysThatOthersMayReadAreRefusedWithTheMend(t *testing.T) {
	for _, name := range []string{ledger.RecordKeyFile, ledger.LogKeyFile} {
		for _, mode := range []os.FileMode{0o644, 0o604, 0o660, 0o601} {
			folder := t.TempDir()
			if _, err := ledger.OpenKeys(folder, origin, runnertest.Start()); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(folder, name)
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			_, err := ledger.OpenKeys(folder, origin, runnertest.Start())
			if err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) {
				t.Errorf("OpenKeys with %s of mode %o = %v, want the mend", name, mode, err)
			}
		}
	}
}

func TestKeysThatAreDamagedOrOfAnotherLogAreRefused(t *testing.T) {
	folder := t.TempDir()
	if _, err := ledger.OpenKeys(folder, origin, runnertest.Start()); err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.OpenKeys(folder, "other.example.org/pool/2026", runnertest.Start()); err == nil {
		t.Error("OpenKeys for another origin = nil, want a refusal")
	}
	for _, name := range []string{ledger.RecordKeyFile, ledger.LogKeyFile} {
		path := filepath.Join(folder, name)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range []string{"", "nonsense", string(good[:len(good)/2])} {
			if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := ledger.OpenKeys(folder, origin, runnertest.Start()); err == nil {
				t.Errorf("OpenKeys with %s = %.20q was accepted", name, bad)
			}
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ledger.OpenKeys("keys", origin, runnertest.Start()); err == nil {
		t.Error("OpenKeys(relative) = nil, want a refusal")
	}
}
