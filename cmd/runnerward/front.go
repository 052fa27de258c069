package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/config"
	"github.com/runnerward/runnerward/pkg/lease"
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
	// election says who leads, nil where nobody is elected.
	election func() lease.State
	// patience is how old what is known of the lease may be.
	patience time.Duration
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
	behind := f.behind.Load()
	if f.election == nil {
		if behind != nil {
			return (*behind).View()
		}
		return f.starting()
	}
	at := f.election()
	var v supervisor.View
	switch {
	case behind != nil:
		v = (*behind).View()
	case at.Leading:
		v = f.starting()
	default:
		v = f.standby(at)
	}
	// The supervisor takes itself for the one that acts, until it has ended.
	v.Leading, v.Leader = at.Leading, at.Leader
	return v
}

// blank is a view of which nothing is known but the daemon itself.
func (f *front) blank() supervisor.View {
	return supervisor.View{
		Now: time.Now(), Version: buildVersion(), FIPS: fips(), StartedAt: f.began, Max: f.limit,
		Queue: supervisor.QueueHealth{Session: "none"},
		Jobs:  []supervisor.JobView{}, Runners: []supervisor.RunnerView{}, Hosts: []supervisor.HostView{},
	}
}

func (f *front) starting() supervisor.View {
	at, v := f.stage.Load(), f.blank()
	v.Checks = []supervisor.HealthCheck{{Name: "start", Detail: at.doing}}
	v.Why = []string{"the daemon starts: " + at.doing}
	if at.away != nil {
		v.Ledger.LastError = at.away.Error()
	}
	return v
}

// standby is ready if it would take over: it reads the lease. Whether a deploy
// can run only the leader knows.
func (f *front) standby(at lease.State) supervisor.View {
	v := f.blank()
	v.StandingBy = true
	check := supervisor.HealthCheck{Name: "standby", OK: true, Detail: "ready to take over from " + at.Leader}
	switch age := v.Now.Sub(at.SeenAt); {
	case at.SeenAt.IsZero():
		check.OK, check.Detail = false, "the lease was never read"
	case age > f.patience:
		check.OK, check.Detail = false, fmt.Sprintf("the lease was last read %s ago", age.Round(time.Second))
	case at.Leader == "":
		check.Detail = "nobody leads; taking over"
	}
	if !check.OK && at.Problem != "" {
		check.Detail += ": " + at.Problem
	}
	v.Checks = []supervisor.HealthCheck{check}
	v.Why = []string{f.elsewhere()}
	return v
}

// elsewhere says who is to be asked instead.
func (f *front) elsewhere() string {
	if leader := f.election().Leader; leader != "" {
		return "this daemon stands by; ask the one that leads, " + leader
	}
	return "this daemon stands by, and nobody leads"
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
	if f.election != nil && !f.election().Leading {
		return nil, fmt.Errorf("%w: %s", status.ErrUntouched, f.elsewhere())
	}
	return nil, fmt.Errorf("%w: the daemon starts and begins nothing yet: %s", status.ErrUntouched, f.stage.Load().doing)
}
