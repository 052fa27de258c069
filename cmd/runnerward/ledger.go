package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/config"
	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/hosts"
	"github.com/runnerward/runnerward/pkg/kms"
	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/runner"
)

// openLedger opens the log and publishes its root; away as in openLog.
func (d *daemon) openLedger(ctx context.Context, cfg *config.Config, away func(error)) ([]runner.Record, error) {
	records, err := d.openLog(ctx, cfg, openers{
		keys:  func(ctx context.Context) (*ledger.Keys, error) { return openKeys(ctx, cfg) },
		store: func(ctx context.Context) (ledger.Store, func() error, error) { return openStore(ctx, cfg) },
	}, away)
	if err != nil {
		return nil, err
	}
	if d.root, err = d.log.Root().Encode(); err == nil {
		err = writeRoot(cfg.Ledger.RootFile, d.root)
	}
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return records, nil
}

// openKeys reads the signing keys from files, or asks KMS for them. A key in
// KMS that cannot sign ends the start with a clear message; one whose KMS does
// not answer is [unanswered].
func openKeys(ctx context.Context, cfg *config.Config) (*ledger.Keys, error) {
	if cfg.Ledger.KMS == (config.LedgerKMS{}) {
		keys, err := ledger.OpenKeys(cfg.Ledger.KeysDir, cfg.Ledger.Origin, time.Now().UTC())
		if err != nil {
			return nil, fmt.Errorf("ledger.keysDir: %w", err)
		}
		return keys, nil
	}
	signers, err := kmsSigners(ctx, cfg)
	if err != nil {
		return nil, err
	}
	keys, err := ledger.NewKeys(cfg.Ledger.Origin, signers, time.Now().UTC())
	if err != nil {
		return nil, fmt.Errorf("ledger.kms: %w", err)
	}
	return keys, nil
}

// kmsSigners opens the keys and lets those that sign from now on sign once: a
// key that hands over may be disabled when it has done so.
func kmsSigners(ctx context.Context, cfg *config.Config) (ledger.Signers, error) {
	k, signers := cfg.Ledger.KMS, ledger.Signers{Protection: evidence.ProtectionKMS}
	// arn:PARTITION:kms:REGION:ACCOUNT:key/ID, as check-config requires.
	region := cmp.Or(k.Region, strings.Split(k.RecordKey, ":")[3])
	aws, err := hosts.LoadConfig(ctx, hosts.ConfigOptions{
		Region: region, Endpoint: cfg.Hosts.Endpoint, CAFile: cfg.Hosts.CAFile,
		Service: &hosts.Service{Endpoint: k.Endpoint, CAFile: cfg.Hosts.CAFile},
	})
	if err != nil {
		return signers, err
	}
	record, err := kms.OpenP256(ctx, aws, k.RecordKey)
	if err == nil {
		err = record.Try(ctx)
	}
	if err != nil {
		return signers, fmt.Errorf("ledger.kms.recordKey: %w", err)
	}
	checkpoint, err := kms.OpenEd25519(ctx, aws, k.CheckpointKey)
	if err == nil {
		err = checkpoint.Try(ctx)
	}
	if err != nil {
		return signers, fmt.Errorf("ledger.kms.checkpointKey: %w", err)
	}
	signers.Record, signers.Checkpoint = record, checkpoint
	if k.PreviousKeysDir != "" {
		if err := signers.From(k.PreviousKeysDir, cfg.Ledger.Origin); err != nil {
			return signers, fmt.Errorf("ledger.kms.previousKeysDir: %w", err)
		}
	}
	if k.PreviousRecordKey != "" {
		previous, err := kms.OpenP256(ctx, aws, k.PreviousRecordKey)
		if err != nil {
			return signers, fmt.Errorf("ledger.kms.previousRecordKey: %w", err)
		}
		signers.PreviousRecord = previous
	}
	if k.PreviousCheckpointKey != "" {
		previous, err := kms.OpenEd25519(ctx, aws, k.PreviousCheckpointKey)
		if err != nil {
			return signers, fmt.Errorf("ledger.kms.previousCheckpointKey: %w", err)
		}
		signers.PreviousCheckpoint = previous
	}
	return signers, nil
}

// rootFollower publishes the root after a handover, when all of it is in the
// store: a root must not name a handover that the log may come to lack because
// another writer took its place.
func (d *daemon) rootFollower(cfg *config.Config, logger *zap.Logger) func(runner.Record) {
	due := false
	return func(rec runner.Record) {
		due = due || rec.Event.Kind() == runner.KindRotated
		if due && d.log.Spool().Waiting == 0 {
			due = false
			d.publishRoot(cfg, logger)
		}
	}
}

// publishRoot writes the root after keys have changed. A failure waits for the
// next start, which writes it too; the old root verifies the log as well.
func (d *daemon) publishRoot(cfg *config.Config, logger *zap.Logger) {
	root, err := d.log.Root().Encode()
	if err == nil {
		err = writeRoot(cfg.Ledger.RootFile, root)
	}
	if err != nil {
		logger.Error("the root with the new key is not written; the next start tries again", zap.Error(err))
	}
}

// writeRoot publishes the keys that verify the ledger, whole or not at all.
func writeRoot(path string, content []byte) error {
	if old, err := os.ReadFile(path); err == nil && string(old) == string(content) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write ledger.rootFile: %w", err)
	}
	temp, err := os.CreateTemp(filepath.Dir(path), ".root-*")
	if err != nil {
		return fmt.Errorf("write ledger.rootFile: %w", err)
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(content)
	if err := errors.Join(err, temp.Chmod(0o644), temp.Sync(), temp.Close()); err != nil {
		return fmt.Errorf("write ledger.rootFile: %w", err)
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return fmt.Errorf("write ledger.rootFile: %w", err)
	}
	return nil
}
