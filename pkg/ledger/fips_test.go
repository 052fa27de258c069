package ledger_test

import (
	"crypto/fips140"
	"crypto/md5"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/runnerward/runnerward/pkg/ledger"
)

// enforced runs a test of this package in a process where every algorithm that
// is not approved fails. https://go.dev/doc/security/fips140
func enforced(t *testing.T, name string) string {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary, "-test.run=^"+name+"$", "-test.v")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=only", "RUNNERWARD_ENFORCED=yes")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// TestFIPSALogIsWrittenAndVerifiedByApprovedAlgorithmsOnly: ECDSA on P-256,
// Ed25519 and SHA-256 are approved; the packages of signed notes and of the
// Merkle tree use nothing else.
func TestFIPSALogIsWrittenAndVerifiedByApprovedAlgorithmsOnly(t *testing.T) {
	if os.Getenv("RUNNERWARD_ENFORCED") == "" {
		// make test-fips sets it, and the toolchain builds this test with it.
		if want := os.Getenv("GOFIPS140"); strings.HasPrefix(want, "v") && !strings.HasPrefix(fips140.Version(), want) {
			t.Errorf("built with module %s, want %s", fips140.Version(), want)
		}
		t.Logf("module %s", fips140.Version())
		out := enforced(t, t.Name())
		if !strings.Contains(out, "module "+fips140.Version()+" enforced") {
			t.Errorf("the process says\n%s\nwant that it enforces", out)
		}
		return
	}
	if !fips140.Enabled() || !fips140.Enforced() {
		t.Fatalf("FIPS 140-3 mode: enabled %t, enforced %t, want both", fips140.Enabled(), fips140.Enforced())
	}
	t.Logf("module %s enforced", fips140.Version())
	if !refusesMD5() {
		t.Error("MD5 works: nothing is enforced")
	}
	folder := filepath.Join(t.TempDir(), "keys")
	dir := t.TempDir()
	log := openLog(t, openDir(t, dir), fileKeys(t, folder, later(0)))
	if err := began(t, log, later(0)); err != nil {
		t.Fatal(err)
	}
	root := log.Root()
	rename(t, folder, ledger.RecordKeyFile, ledger.PreviousRecordKeyFile)
	rename(t, folder, ledger.LogKeyFile, ledger.PreviousLogKeyFile)
	log = openLog(t, openDir(t, dir), fileKeys(t, folder, later(1)))
	if err := began(t, log, later(1)); err != nil {
		t.Fatal(err)
	}
	beat(t, log, later(2))
	if err := log.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := clean(t, os.DirFS(dir), root); len(got) != 2 {
		t.Errorf("%d handovers, want one of each key", len(got))
	}
}

// refusesMD5 says whether an algorithm that is not approved fails.
func refusesMD5() (refused bool) {
	defer func() { refused = recover() != nil }()
	md5.Sum([]byte("x"))
	return false
}
