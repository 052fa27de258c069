package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/config"
	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// storeRetry is how often a log is asked for again whose store is away.
const storeRetry = 10 * time.Second

// openLog opens the log in its store, with its spool where one is configured.
// A store that is away at the start is then waited for: a daemon that ended
// instead would run into its process manager's limit of restarts and stay down
// when the store is back.
func (d *daemon) openLog(ctx context.Context, cfg *config.Config, open opener, keys *ledger.Keys, logger *zap.Logger) ([]runner.Record, error) {
	opts := ledger.Options{Recorder: evidence.Recorder{ID: recorderID, Version: buildVersion()}}
	if dir := cfg.Ledger.SpoolDir; dir != "" {
		spool, err := ledger.OpenSpoolDir(dir)
		if err != nil {
			return nil, fmt.Errorf("ledger.spoolDir: %w", err)
		}
		d.spool, opts.Spool = spool, spool
	}
	for {
		records, err := d.tryLog(ctx, open, keys, opts)
		if err == nil {
			return records, nil
		}
		if d.spool == nil || !errors.Is(err, supervisor.ErrAway) {
			return nil, errors.Join(err, d.closeSpool())
		}
		logger.Error("the log's store is away; nothing is begun or ended before it is back", zap.Error(err))
		select {
		case <-time.After(storeRetry):
		case <-ctx.Done():
			return nil, errors.Join(err, d.closeSpool())
		}
	}
}

// opener opens the place of the log.
type opener func(context.Context) (store ledger.Store, closeStore func() error, err error)

func (d *daemon) tryLog(ctx context.Context, open opener, keys *ledger.Keys, opts ledger.Options) (records []runner.Record, err error) {
	store, closeStore, err := open(ctx)
	if err != nil {
		return nil, err
	}
	if d.log, records, err = ledger.Open(ctx, store, keys, opts); err != nil {
		return nil, errors.Join(err, closeStore())
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
