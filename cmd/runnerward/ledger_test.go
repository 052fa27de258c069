package main

import (
	"errors"
	"io/fs"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/config"
	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/kms/kmstest"
	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/ledger/ledgertest"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/runner/runnertest"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// ledgerIn is the configuration of a ledger in this folder with keys in files.
func ledgerIn(dir string) *config.Config {
	return &config.Config{Ledger: config.Ledger{
		Dir: filepath.Join(dir, "ledger"), KeysDir: filepath.Join(dir, "keys"), RootFile: filepath.Join(dir, "root.json"),
		Origin: "ledger.example.org/hipaa-prod/2026",
	}}
}

// inKMS moves the keys of the configuration into this KMS, over TLS.
func inKMS(t *testing.T, cfg *config.Config, service *kmstest.KMS, keys config.LedgerKMS) {
	t.Helper()
	server := httptest.NewTLSServer(service)
	t.Cleanup(server.Close)
	inKMSAt(t, cfg, server, keys)
}

// inKMSAt moves them to what this server serves.
func inKMSAt(t *testing.T, cfg *config.Config, server *httptest.Server, keys config.LedgerKMS) {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "a secret of the test")
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	cfg.Hosts.CAFile = caOf(t, server)
	keys.Endpoint = server.URL
	cfg.Ledger.KeysDir, cfg.Ledger.KMS = "", keys
}

// begin opens the ledger and writes what a daemon writes first.
func begin(t *testing.T, cfg *config.Config, n int) *daemon {
	t.Helper()
	d := &daemon{}
	records, err := d.openLedger(t.Context(), cfg, func(away error) { t.Error(away) })
	if err != nil {
		t.Fatal(err)
	}
	at := runnertest.Start().AddDate(10, 0, n) // after every key was made
	if len(records) > 0 {
		at = records[len(records)-1].At
	}
	opened := runner.Opened{Version: "v1", Instance: "x"}
	for document, digest := range map[string]*runner.Digest{
		"config": &opened.ConfigDigest, "policy": &opened.PolicyDigest, string(d.root): &opened.RootDigest,
	} {
		if *digest, err = d.log.PutBlob(t.Context(), []byte(document)); err != nil {
			t.Fatal(err)
		}
	}
	e, publishRoot := runner.Event(opened), d.rootFollower(cfg, zap.NewNop())
	for e != nil {
		rec, err := d.log.Append(t.Context(), at, e)
		if err != nil {
			t.Fatal(err)
		}
		publishRoot(rec)
		if e, err = d.log.Rotation(t.Context(), at); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func readRoot(t *testing.T, cfg *config.Config) evidence.Root {
	t.Helper()
	b, err := os.ReadFile(cfg.Ledger.RootFile)
	if err != nil {
		t.Fatal(err)
	}
	root, err := evidence.ParseRoot(b)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// TestALedgerMovesFromFilesToKMS walks the way that docs/keys.md describes.
func TestALedgerMovesFromFilesToKMS(t *testing.T) {
	dir, service := t.TempDir(), kmstest.New()
	cfg := ledgerIn(dir)
	if err := begin(t, cfg, 0).close(); err != nil {
		t.Fatal(err)
	}
	oldRoot := readRoot(t, cfg)

	keys := config.LedgerKMS{RecordKey: service.Create(t, "ECC_NIST_P256"), CheckpointKey: service.Create(t, "ECC_NIST_EDWARDS25519")}
	moving := keys
	moving.PreviousKeysDir = filepath.Join(dir, "keys")
	inKMS(t, cfg, service, moving)
	if err := begin(t, cfg, 1).close(); err != nil {
		t.Fatal(err)
	}
	newRoot := readRoot(t, cfg)
	if len(newRoot.RecordKeys) != 2 || len(newRoot.NextLogKeys) != 1 || newRoot.KeyProtection != evidence.ProtectionKMS {
		t.Errorf("root after the handover = %+v, want the keys of both kinds", newRoot)
	}
	if err := os.RemoveAll(filepath.Join(dir, "keys")); err != nil {
		t.Fatal(err)
	}
	inKMS(t, cfg, service, keys)
	if err := begin(t, cfg, 2).close(); err != nil {
		t.Fatal(err)
	}
	for name, root := range map[string]evidence.Root{"old": oldRoot, "new": newRoot} {
		rep, err := evidence.Verify(os.DirFS(cfg.Ledger.Dir), root)
		if err != nil || !rep.OK() || rep.Size != 5 {
			t.Errorf("by the %s root: %v, %d records, findings %v, want 5 and none", name, err, rep.Size, rep.Findings)
		}
	}
	inKMS(t, cfg, service, moving)
	if _, err := openKeys(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "ledger.kms.previousKeysDir: ") {
		t.Errorf("openKeys without the old folder = %v, want the key of the configuration named", err)
	}
}

func TestAKeyInKMSThatWillNotDoEndsTheStart(t *testing.T) {
	service := kmstest.New()
	record, checkpoint := service.Create(t, "ECC_NIST_P256"), service.Create(t, "ECC_NIST_EDWARDS25519")
	good := config.LedgerKMS{RecordKey: record, CheckpointKey: checkpoint}
	for name, tc := range map[string]struct {
		change func(*config.LedgerKMS)
		state  kmstest.State
		says   []string
	}{
		"the two mixed up": {func(k *config.LedgerKMS) { k.RecordKey, k.CheckpointKey = checkpoint, record }, kmstest.Enabled,
			[]string{"ledger.kms.recordKey: ", "make one of spec ECC_NIST_P256"}},
		"a checkpoint key that is none": {func(k *config.LedgerKMS) { k.CheckpointKey = service.Create(t, "ECC_NIST_P384") }, kmstest.Enabled,
			[]string{"ledger.kms.checkpointKey: ", "make one of spec ECC_NIST_EDWARDS25519"}},
		"a disabled key": {func(*config.LedgerKMS) {}, kmstest.Disabled, []string{"ledger.kms.recordKey: ", "enable it in KMS"}},
		"a previous key that is none": {func(k *config.LedgerKMS) { k.PreviousRecordKey = checkpoint }, kmstest.Enabled,
			[]string{"ledger.kms.previousRecordKey: ", "make one of spec ECC_NIST_P256"}},
		"a previous checkpoint key that is none": {func(k *config.LedgerKMS) { k.PreviousCheckpointKey = record }, kmstest.Enabled,
			[]string{"ledger.kms.previousCheckpointKey: ", "make one of spec ECC_NIST_EDWARDS25519"}},
		"the same key before": {func(k *config.LedgerKMS) { k.PreviousRecordKey = record }, kmstest.Enabled, []string{"ledger.kms: ", "make a new one to hand over to"}},
	} {
		cfg, keys := ledgerIn(t.TempDir()), good
		tc.change(&keys)
		inKMS(t, cfg, service, keys)
		service.Set(record, tc.state)
		_, err := openKeys(t.Context(), cfg)
		for _, says := range tc.says {
			if err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%s: openKeys = %v, want it to say %q", name, err, says)
			}
		}
		service.Set(record, kmstest.Enabled)
	}
	cfg := ledgerIn(t.TempDir())
	inKMS(t, cfg, service, good)
	service.Refuse("Sign", "AccessDeniedException")
	if _, err := openKeys(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "has to allow kms:Sign") {
		t.Errorf("openKeys without the right to sign = %v, want the permission named", err)
	}
}

func TestVersionSaysWhichFIPSModuleRuns(t *testing.T) {
	call(t, "version").want(t, exitOK, "runnerward ", "FIPS 140-3 module "+fips().Module+", "+map[bool]string{true: "on", false: "off"}[fips().Enabled])
}

// TestARootNamesNoHandoverThatTheStoreLacks: it waits in the spool, and another
// writer could still take its place.
func TestARootNamesNoHandoverThatTheStoreLacks(t *testing.T) {
	cfg, down := ledgerIn(t.TempDir()), false
	if _, err := ledger.OpenKeys(cfg.Ledger.KeysDir, cfg.Ledger.Origin, runnertest.Start()); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(cfg.Ledger.KeysDir, ledger.RecordKeyFile)
	if err := os.Rename(file, filepath.Join(cfg.Ledger.KeysDir, ledger.PreviousRecordKeyFile)); err != nil {
		t.Fatal(err)
	}
	keys, err := openKeys(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	store := ledgertest.NewMem(func(op ledgertest.Op, _ string) (bool, error) {
		if down && op == ledgertest.OpCreate {
			return false, errors.New("503 Service Unavailable")
		}
		return true, nil
	})
	log, _, err := ledger.Open(t.Context(), store, keys, ledger.Options{
		Recorder: evidence.Recorder{ID: recorderID, Version: "v1"}, Spool: ledgertest.NewMemSpool(nil),
	})
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{log: log}
	publishRoot := d.rootFollower(cfg, zap.NewNop())
	handover, err := log.Rotation(t.Context(), runnertest.Start())
	if err != nil {
		t.Fatal(err)
	}
	down = true
	if _, err := log.Append(t.Context(), runnertest.Start(), handover); err == nil {
		t.Fatal("Append = nil, want the store to be away")
	}
	recs, err := log.Recover(t.Context())
	if len(recs) != 1 || !errors.Is(err, supervisor.ErrAway) {
		t.Fatalf("Recover = %v, %v, want the handover in the spool", recs, err)
	}
	publishRoot(recs[0])
	if b, err := os.ReadFile(cfg.Ledger.RootFile); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("while the handover waits, root.json is %s, %v, want none", b, err)
	}
	down = false
	if _, err := log.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	rec, err := log.Append(t.Context(), runnertest.Start(), runner.Heartbeat{})
	if err != nil {
		t.Fatal(err)
	}
	publishRoot(rec)
	if root := readRoot(t, cfg); len(root.RecordKeys) != 2 {
		t.Errorf("with the handover in the store, root.json = %+v, want both keys", root)
	}
}
