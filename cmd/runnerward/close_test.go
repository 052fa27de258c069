package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// slow is a log whose store takes its time.
type slow struct {
	supervisor.Ledger
	takes time.Duration
}

func (l slow) Append(ctx context.Context, at time.Time, e runner.Event) (runner.Record, error) {
	<-time.After(l.takes)
	return l.Ledger.Append(ctx, at, e)
}

// TestTheLogIsClosedAfterTheLastRecord: a freeze goes on when its connection
// was cut off at the end.
func TestTheLogIsClosedAfterTheLastRecord(t *testing.T) {
	for name, tc := range map[string]struct {
		takes, closed time.Duration
		shows         string // the view's size
		fails         error
	}{
		"in time":     {8 * time.Second, 8 * time.Second, "1", nil},
		"without end": {time.Hour, lastRecord, "0", context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg, d := ledgerIn(t.TempDir()), &daemon{}
				records, err := d.openLedger(t.Context(), cfg, func(away error) { t.Error(away) })
				if err != nil {
					t.Fatal(err)
				}
				d.supervisor, err = supervisor.New(supervisor.Options{
					Ledger: slow{d.log, tc.takes}, Queue: struct{ supervisor.Queue }{}, Registrar: struct{ supervisor.Registrar }{},
					GitHub: struct{ supervisor.GitHub }{}, Identity: struct{ supervisor.Identity }{}, Policy: struct{ supervisor.Policy }{},
					Cluster: struct{ supervisor.Cluster }{}, Hosts: struct{ supervisor.Hosts }{}, Logger: zap.NewNop(),
					NewName: func() runner.Name { return "runner-a" }, Tick: time.Second, CallTimeout: time.Second,
					Limits: runner.Limits{MaxRunners: 1, AuthorizedFor: time.Hour},
				}, records)
				if err != nil {
					t.Fatal(err)
				}
				frozen := make(chan error, 1)
				go func() { frozen <- d.supervisor.Freeze(t.Context(), "cert:oncall", "x") }()
				synctest.Wait()
				began := time.Now()
				if err := d.close(); !errors.Is(err, tc.fails) || (err == nil) != (tc.fails == nil) || time.Since(began) != tc.closed {
					t.Errorf("close = %v after %s, want %v after %s", err, time.Since(began), tc.fails, tc.closed)
				}
				view, err := os.ReadFile(filepath.Join(cfg.Ledger.Dir, evidence.ViewCheckpoint))
				if lines := strings.Split(string(view), "\n"); err != nil || len(lines) < 2 || lines[1] != tc.shows {
					t.Errorf("the view is %q, %v, want %s records in it", view, err, tc.shows)
				}
				if err := <-frozen; tc.fails == nil && err != nil {
					t.Errorf("Freeze = %v, want it recorded", err)
				}
				if tc.fails != nil {
					return
				}
				late, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if err := d.supervisor.Freeze(late, "cert:oncall", "y"); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Freeze after the end = %v, want it to have no turn", err)
				}
			})
		})
	}
}
