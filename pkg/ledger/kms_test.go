package ledger_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/kms"
	"github.com/runnerward/runnerward/pkg/kms/kmstest"
	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/ledger/ledgertest"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// inKMS are the keys of a log with these ARNs, the record key and the
// checkpoint key, then those that hand over to them.
func inKMS(t *testing.T, cfg aws.Config, now time.Time, arns ...string) *ledger.Keys {
	t.Helper()
	var records []ledger.RecordSigner
	var checkpoints []ledger.CheckpointSigner
	for i, arn := range arns {
		if i%2 == 0 {
			key, err := kms.OpenP256(t.Context(), cfg, arn)
			if err != nil {
				t.Fatal(err)
			}
			records = append(records, key)
			continue
		}
		key, err := kms.OpenEd25519(t.Context(), cfg, arn)
		if err != nil {
			t.Fatal(err)
		}
		checkpoints = append(checkpoints, key)
	}
	signers := ledger.Signers{Record: records[0], Checkpoint: checkpoints[0], Protection: evidence.ProtectionKMS}
	if len(arns) > 2 {
		signers.PreviousRecord, signers.PreviousCheckpoint = records[1], checkpoints[1]
	}
	keys, err := ledger.NewKeys(origin, signers, now)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestALogSignedInKMSVerifiesAndKeepsItsRoot(t *testing.T) {
	service, mem := kmstest.New(), ledgertest.NewMem(nil)
	cfg := service.Config(t)
	record, checkpoint := service.Create(t, "ECC_NIST_P256"), service.Create(t, "ECC_NIST_EDWARDS25519")
	log := openLog(t, mem, inKMS(t, cfg, later(0), record, checkpoint))
	if err := began(t, log, later(0)); err != nil {
		t.Fatal(err)
	}
	root := log.Root()
	if root.KeyProtection != "kms" || !root.RecordKeys[0].From.Equal(later(0)) {
		t.Errorf("root = %+v, want keys in KMS, valid from the beginning", root)
	}

	// A later start has another time, and the key is valid since the same one.
	again := openLog(t, mem, inKMS(t, cfg, later(60), record, checkpoint))
	if err := began(t, again, later(60)); err != nil {
		t.Fatal(err)
	}
	if got := again.Root(); !got.RecordKeys[0].From.Equal(later(0)) {
		t.Errorf("valid from %s after a restart, want %s", got.RecordKeys[0].From, later(0))
	}
	clean(t, mem.FS(), root)
	if service.Signed(record) < 2 || service.Signed(checkpoint) < 2 {
		t.Errorf("KMS signed %d records and %d checkpoints", service.Signed(record), service.Signed(checkpoint))
	}
}

// TestALogThatNamesNoKeysIsValidFromItsFirstRecord: a key in KMS has no place
// for a time of its own.
func TestALogThatNamesNoKeysIsValidFromItsFirstRecord(t *testing.T) {
	service, mem := kmstest.New(), ledgertest.NewMem(nil)
	cfg := service.Config(t)
	arns := []string{service.Create(t, "ECC_NIST_P256"), service.Create(t, "ECC_NIST_EDWARDS25519")}
	beat(t, openLog(t, mem, inKMS(t, cfg, later(0), arns...)), later(1))
	log := openLog(t, mem, inKMS(t, cfg, later(60), arns...))
	if got := log.Root().RecordKeys[0].From; !got.Equal(later(1)) {
		t.Errorf("valid from %s, want the time of the first record", got)
	}
	clean(t, mem.FS(), log.Root())
}

func TestWhileKMSIsAwayNothingIsLostOrDoubled(t *testing.T) {
	service := kmstest.New()
	cfg := service.Config(t)
	record, checkpoint := service.Create(t, "ECC_NIST_P256"), service.Create(t, "ECC_NIST_EDWARDS25519")
	for name, arn := range map[string]string{"record key": record, "checkpoint key": checkpoint} {
		mem := ledgertest.NewMem(nil)
		keys := inKMS(t, cfg, later(0), record, checkpoint)
		log := openLog(t, mem, keys)
		beat(t, log, later(0))
		service.Set(arn, kmstest.Disabled)
		event := runner.Heartbeat{OpenJobs: 7}
		if _, err := log.Append(t.Context(), later(1), event); err == nil {
			t.Fatalf("%s away: Append = nil, want an error", name)
		}
		for range 2 {
			if recs, err := log.Recover(t.Context()); len(recs) != 0 || err == nil || errors.Is(err, supervisor.ErrAway) {
				t.Errorf("%s away: Recover = %v, %v, want nothing acknowledged and why, and nothing said of the store", name, recs, err)
			}
			if size, _ := log.Head(); size != 1 {
				t.Errorf("%s away: %d records are acknowledged, want 1", name, size)
			}
		}
		service.Set(arn, kmstest.Enabled)
		// As a supervisor does: recover, and append what did not turn up.
		recs, err := log.Recover(t.Context())
		if err == nil && len(recs) == 0 {
			var rec runner.Record
			rec, err = log.Append(t.Context(), later(2), event)
			recs = append(recs, rec)
		}
		if err != nil || len(recs) != 1 || recs[0].Index != 1 || recs[0].Event != event {
			t.Errorf("%s is back: %+v, %v, want the event once", name, recs, err)
		}
		beat(t, log, later(3))
		rep, err := evidence.Verify(mem.FS(), log.Root())
		if err != nil || !rep.OK() || rep.Size != 3 {
			t.Errorf("%s: %d records, findings %v, %v, want 3 and none", name, rep.Size, rep.Findings, err)
		}
	}
}

// TestKMSAndStoreAwayTogether: what waits in the spool waits whatever else is
// wrong, and what cannot be signed leaves nothing behind.
func TestKMSAndStoreAwayTogether(t *testing.T) {
	service := kmstest.New()
	cfg := service.Config(t)
	record, checkpoint := service.Create(t, "ECC_NIST_P256"), service.Create(t, "ECC_NIST_EDWARDS25519")
	a := newAway(t, inKMS(t, cfg, later(0), record, checkpoint), trouble{at: -1})
	if err := errors.Join(a.open(), a.before(), a.outage()); err != nil {
		t.Fatal(err)
	}
	waiting := a.log.Spool().Waiting
	frozen := runner.Frozen{By: "cert:oncall", Reason: "CVE-1"}
	wantAway := func(when string, err error) {
		t.Helper()
		if !errors.Is(err, supervisor.ErrAway) || !strings.Contains(err.Error(), "enable it in KMS") {
			t.Errorf("%s: %v, want ErrAway and what is wrong with the key", when, err)
		}
	}
	service.Set(record, kmstest.Disabled)
	for range 2 {
		_, err := a.log.Append(t.Context(), a.s.Now, frozen)
		wantAway("Append without record key", err)
	}
	if _, err := a.log.Recover(t.Context()); !errors.Is(err, supervisor.ErrAway) || !errors.Is(err, errDown) {
		t.Errorf("Recover while both are away = %v, want ErrAway and what is wrong with the store", err)
	}
	a.down = false
	service.Set(checkpoint, kmstest.Disabled)
	recs, err := a.log.Recover(t.Context())
	wantAway("Recover without checkpoint key", err)
	if kept := a.log.Spool(); len(recs) != 0 || kept.Waiting != waiting {
		t.Errorf("Recover without checkpoint key = %v, %d records wait; want nothing new, and %d", recs, kept.Waiting, waiting)
	}
	service.Set(checkpoint, kmstest.Enabled)
	if recs, err := a.log.Recover(t.Context()); len(recs) != 0 || err == nil || errors.Is(err, supervisor.ErrAway) || a.log.Spool().Waiting != 0 {
		t.Errorf("Recover with the store back = %v, %v, want all of it there, and the record key missing", recs, err)
	}
	service.Set(record, kmstest.Enabled)
	if err := a.after(); err != nil {
		t.Fatal(err)
	}
	if rep := wantClean(t, a.mem.FS(), a.keys); len(rep.Records) != len(a.s.Records) {
		t.Errorf("%d records, want %d: the freeze was never acknowledged", len(rep.Records), len(a.s.Records))
	}
}

// TestACrashWhileKMSIsAwayIsCompletedByTheNextStart: the segment is durable,
// its checkpoint is not signed.
func TestACrashWhileKMSIsAwayIsCompletedByTheNextStart(t *testing.T) {
	service, mem := kmstest.New(), ledgertest.NewMem(nil)
	cfg := service.Config(t)
	record, checkpoint := service.Create(t, "ECC_NIST_P256"), service.Create(t, "ECC_NIST_EDWARDS25519")
	log := openLog(t, mem, inKMS(t, cfg, later(0), record, checkpoint))
	if err := began(t, log, later(0)); err != nil {
		t.Fatal(err)
	}
	keys := inKMS(t, cfg, later(2), record, checkpoint)
	service.Set(checkpoint, kmstest.Disabled)
	if _, err := log.Append(t.Context(), later(1), runner.Heartbeat{}); err == nil {
		t.Fatal("Append = nil, want an error")
	}
	if _, _, err := ledger.Open(t.Context(), mem, keys, options()); err == nil || !strings.Contains(err.Error(), "enable it in KMS") {
		t.Errorf("Open while KMS is away = %v, want to be told why", err)
	}
	service.Set(checkpoint, kmstest.Enabled)
	again := openLog(t, mem, keys)
	if size, _ := again.Head(); size != 2 {
		t.Errorf("%d records after the start, want 2", size)
	}
	clean(t, mem.FS(), again.Root())
}

func TestKeysInKMSHandOver(t *testing.T) {
	service, mem := kmstest.New(), ledgertest.NewMem(nil)
	cfg := service.Config(t)
	var arns []string // old record, old checkpoint, new record, new checkpoint
	for range 2 {
		arns = append(arns, service.Create(t, "ECC_NIST_P256"), service.Create(t, "ECC_NIST_EDWARDS25519"))
	}
	log := openLog(t, mem, inKMS(t, cfg, later(0), arns[:2]...))
	if err := began(t, log, later(0)); err != nil {
		t.Fatal(err)
	}
	oldRoot := log.Root()

	// The new key cannot sign yet: the handover waits, and the old key goes on.
	log = openLog(t, mem, inKMS(t, cfg, later(1), arns[2], arns[3], arns[0], arns[1]))
	service.Set(arns[2], kmstest.Disabled)
	if err := takeOver(t, log, later(1)); err == nil || !strings.Contains(err.Error(), "sign the handover to key") {
		t.Errorf("Rotation while the new key is away = %v, want to be told", err)
	}
	beat(t, log, later(2))
	service.Set(arns[2], kmstest.Enabled)
	if err := takeOver(t, log, later(3)); err != nil {
		t.Fatal(err)
	}
	for _, arn := range arns[:2] {
		service.Set(arn, kmstest.PendingDeletion)
	}
	beat(t, log, later(4))
	again := openLog(t, mem, inKMS(t, cfg, later(5), arns[2], arns[3]))
	beat(t, again, later(5))
	for name, root := range map[string]evidence.Root{"old": oldRoot, "new": again.Root()} {
		if got := clean(t, mem.FS(), root); len(got) != 2 {
			t.Errorf("by the %s root: %d handovers, want one of each key", name, len(got))
		}
	}
}

// TestKeysMayMoveFromFilesToKMS: the two kinds differ in where they are only.
func TestKeysMayMoveFromFilesToKMS(t *testing.T) {
	service, mem, folder := kmstest.New(), ledgertest.NewMem(nil), t.TempDir()
	log := openLog(t, mem, fileKeys(t, folder, later(0)))
	if err := began(t, log, later(0)); err != nil {
		t.Fatal(err)
	}
	oldRoot := log.Root()
	cfg := service.Config(t)
	record, err := kms.OpenP256(t.Context(), cfg, service.Create(t, "ECC_NIST_P256"))
	if err != nil {
		t.Fatal(err)
	}
	checkpoint, err := kms.OpenEd25519(t.Context(), cfg, service.Create(t, "ECC_NIST_EDWARDS25519"))
	if err != nil {
		t.Fatal(err)
	}
	signers := ledger.Signers{Record: record, Checkpoint: checkpoint, Protection: evidence.ProtectionKMS}
	if err := signers.From(folder, origin); err != nil {
		t.Fatal(err)
	}
	keys, err := ledger.NewKeys(origin, signers, later(1))
	if err != nil {
		t.Fatal(err)
	}
	log = openLog(t, mem, keys)
	if err := began(t, log, later(1)); err != nil {
		t.Fatal(err)
	}
	beat(t, log, later(2))
	if root := log.Root(); root.KeyProtection != "kms" || len(root.RecordKeys) != 2 {
		t.Errorf("root = %+v, want both keys, the one in force in KMS", root)
	}
	clean(t, mem.FS(), oldRoot)
	clean(t, mem.FS(), log.Root())
}

// TestALogWhoseFirstRecordIsInTheSpoolStartsAgain: the store took what is in
// effect and then went away under the first record of all. The key is valid
// since that record, and not since the start that finds it.
func TestALogWhoseFirstRecordIsInTheSpoolStartsAgain(t *testing.T) {
	service := kmstest.New()
	cfg := service.Config(t)
	arns := []string{service.Create(t, "ECC_NIST_P256"), service.Create(t, "ECC_NIST_EDWARDS25519")}
	for name, first := range map[string]func(*ledger.Log) error{
		"opened": func(log *ledger.Log) error { return began(t, log, later(0)) },
		"names no key": func(log *ledger.Log) error {
			_, err := log.Append(t.Context(), later(0), runner.Heartbeat{})
			return err
		},
	} {
		mem := ledgertest.NewMem(func(op ledgertest.Op, name string) (bool, error) {
			if op == ledgertest.OpCreate && strings.HasPrefix(name, evidence.SegmentFolder) {
				return false, errDown
			}
			return true, nil
		})
		spool := ledgertest.NewMemSpool(nil)
		log, _, err := ledger.Open(t.Context(), mem, inKMS(t, cfg, later(0), arns...), spoolOptions(spool))
		if err != nil {
			t.Fatal(err)
		}
		if err := first(log); !errors.Is(err, errDown) {
			t.Fatalf("%s: Append = %v, want the store to be away", name, err)
		}
		if recs, err := log.Recover(t.Context()); len(recs) != 1 || !errors.Is(err, supervisor.ErrAway) {
			t.Fatalf("%s: Recover = %v, %v, want the record in the spool", name, recs, err)
		}
		mem = mem.With(nil)
		again, records, err := ledger.Open(t.Context(), mem, inKMS(t, cfg, later(60), arns...), spoolOptions(spool))
		if err != nil || len(records) != 1 {
			t.Fatalf("%s: Open = %d records, %v, want the first record", name, len(records), err)
		}
		if from := again.Root().RecordKeys[0].From; !from.Equal(later(0)) {
			t.Errorf("%s: the key is valid from %s, want %s", name, from, later(0))
		}
		clean(t, mem.FS(), again.Root())
	}
}
