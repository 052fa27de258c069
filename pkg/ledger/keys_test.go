package ledger_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/ledger/ledgertest"
	"github.com/runnerward/runnerward/pkg/runner"
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

// hangingKey signs when it is not told to hang, as a key does that is reached
// over a network.
type hangingKey struct {
	*ecdsa.PrivateKey
	hang *bool
}

func (k hangingKey) Public() *ecdsa.PublicKey { return &k.PublicKey }

func (k hangingKey) Sign(ctx context.Context, digest [sha256.Size]byte) ([]byte, error) {
	if *k.hang {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return ecdsa.SignASN1(rand.Reader, k.PrivateKey, digest[:])
}

type plainKey struct{ ed25519.PrivateKey }

func (k plainKey) Public() ed25519.PublicKey {
	public, _ := k.PrivateKey.Public().(ed25519.PublicKey)
	return public
}

func (k plainKey) Sign(_ context.Context, text []byte) ([]byte, error) {
	return ed25519.Sign(k.PrivateKey, text), nil
}

func TestAKeyThatHangsIsAskedForAMomentOnly(t *testing.T) {
	record, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, checkpoint, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		hang := false
		keys, err := ledger.NewKeys(origin, ledger.Signers{
			Record: hangingKey{record, &hang}, Checkpoint: plainKey{checkpoint}, Protection: evidence.ProtectionKMS,
		}, runnertest.Start())
		if err != nil {
			t.Fatal(err)
		}
		log := openLog(t, ledgertest.NewMem(nil), keys)
		hang = true
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := log.Append(short, runnertest.Start(), runner.Heartbeat{}); err == nil {
			t.Fatal("Append = nil, want that the key did not sign")
		}
		for range 2 {
			began := time.Now()
			_, err := log.Recover(t.Context())
			if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "did not sign within") || took > 3*time.Second {
				t.Errorf("Recover = %v after %s, want to be told in a moment that the key hangs", err, took)
			}
		}
		hang = false
		if _, err := log.Recover(t.Context()); err != nil {
			t.Errorf("Recover with the key back = %v", err)
		}
		beat(t, log, runnertest.Start())
	})
}
