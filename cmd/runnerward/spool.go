package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/runnerward/runnerward/pkg/config"
	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// storeRetry is how often a log is asked for again whose store or keys are away.
const storeRetry = 10 * time.Second

// openers open what a log is made of.
type openers struct {
	keys  func(context.Context) (*ledger.Keys, error)
	store func(context.Context) (store ledger.Store, closeStore func() error, err error)
}

// openLog opens the log in its store, with its spool where one is configured.
// What is away at the start is waited for: a daemon that ended instead would
// run into its process manager's limit of restarts and stay down when it is
// back. That is so for a call to AWS that came to nothing, and for a store that
// fails where there is a spool: without one it is a folder, and waiting mends
// no folder. Before every wait, away is told why.
func (d *daemon) openLog(ctx context.Context, cfg *config.Config, open openers, away func(error)) ([]runner.Record, error) {
	opts := ledger.Options{Recorder: evidence.Recorder{ID: recorderID, Version: buildVersion()}}
	if dir := cfg.Ledger.SpoolDir; dir != "" {
		spool, err := ledger.OpenSpoolDir(dir)
		if err != nil {
			return nil, fmt.Errorf("ledger.spoolDir: %w", err)
		}
		d.spool, opts.Spool = spool, spool
	}
	for {
		records, err := d.tryLog(ctx, open, opts)
		if err == nil {
			return records, nil
		}
		if !unanswered(err) && (d.spool == nil || !errors.Is(err, supervisor.ErrAway)) {
			return nil, errors.Join(err, d.closeSpool())
		}
		away(err)
		select {
		case <-time.After(storeRetry):
		case <-ctx.Done():
			return nil, errors.Join(err, d.closeSpool())
		}
	}
}

func (d *daemon) tryLog(ctx context.Context, open openers, opts ledger.Options) (records []runner.Record, err error) {
	keys, err := open.keys(ctx)
	if err != nil {
		return nil, err
	}
	store, closeStore, err := open.store(ctx)
	if err != nil {
		return nil, err
	}
	if d.log, records, err = ledger.Open(ctx, store, keys, opts); err != nil {
		return nil, errors.Join(fmt.Errorf("ledger: %w", err), closeStore())
	}
	d.closeStore = closeStore
	return records, nil
}

func (d *daemon) closeSpool() error {
	if d.spool == nil {
		return nil
	}
	return d.spool.Close()
}
