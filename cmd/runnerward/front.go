package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/config"
	"github.com/runnerward/runnerward/pkg/status"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// front is what the status endpoint shows and operates: the supervisor, and
// before there is one, why there is none. A start may take as long as the log's
// store is away: whoever watches the process has to see that it lives, and
// on-call what it waits for. It is safe for concurrent use.
type front struct {
	server *status.Server
	began  time.Time
	limit  int
	stage  atomic.Pointer[stage]
	behind atomic.Pointer[operated]
}

// stage is how far a start has come.
type stage struct {
	doing string
	away  error // what it waits for, nil while it goes on
}

// operated is what is shown and operated once it is there.
type operated interface {
	status.Source
	status.Control
}

func newFront(cfg *config.Config, logger *zap.Logger) (*front, error) {
	opts, err := statusOptions(cfg, logger)
	if err != nil {
		return nil, err
	}
	f := &front{began: time.Now(), limit: cfg.RunnerLimits().MaxRunners}
	f.stage.Store(&stage{doing: "the log is being opened"})
	opts.Source, opts.Control = f, f
	f.server = status.New(opts)
	return f, nil
}

// goesOn says what the start does now.
func (f *front) goesOn(doing string) { f.stage.Store(&stage{doing: doing}) }

// waits says what the start waits for.
func (f *front) waits(away error) {
	f.stage.Store(&stage{doing: "waiting for the log's store or its keys: " + away.Error(), away: away})
}

// stands ends the start.
func (f *front) stands(behind operated) { f.behind.Store(&behind) }

// View implements [status.Source].
func (f *front) View() supervisor.View {
	if behind := f.behind.Load(); behind != nil {
		return (*behind).View()
	}
	at := f.stage.Load()
	v := supervisor.View{
		Now: time.Now(), Version: buildVersion(), FIPS: fips(), StartedAt: f.began, Max: f.limit,
		Checks: []supervisor.HealthCheck{{Name: "start", Detail: at.doing}},
		Why:    []string{"the daemon starts: " + at.doing},
		Queue:  supervisor.QueueHealth{Session: "none"},
		Jobs:   []supervisor.JobView{}, Runners: []supervisor.RunnerView{}, Hosts: []supervisor.HostView{},
	}
	if at.away != nil {
		v.Ledger.LastError = at.away.Error()
	}
	return v
}

// Freeze implements [status.Control].
func (f *front) Freeze(ctx context.Context, by, reason string) error {
	behind, err := f.control()
	if err != nil {
		return err
	}
	return behind.Freeze(ctx, by, reason)
}

// Unfreeze implements [status.Control].
func (f *front) Unfreeze(ctx context.Context, by string) error {
	behind, err := f.control()
	if err != nil {
		return err
	}
	return behind.Unfreeze(ctx, by)
}

func (f *front) control() (status.Control, error) {
	if behind := f.behind.Load(); behind != nil {
		return *behind, nil
	}
	return nil, fmt.Errorf("%w: the daemon starts and begins nothing yet: %s", status.ErrUntouched, f.stage.Load().doing)
}
