package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/runnerward/runnerward/pkg/config"
	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/ledger/ledgertest"
)

// TestAStoreThatIsAwayAtTheStartIsWaitedFor, where there is a spool: without
// one the ledger is a folder, and waiting mends no folder. Keys in KMS are
// waited for in any case.
func TestAStoreThatIsAwayAtTheStartIsWaitedFor(t *testing.T) {
	keys, err := ledger.OpenKeys(filepath.Join(t.TempDir(), "keys"), "runnerward.test/pool", time.Now().UTC())
	if err != nil {
		t.Fatal(err)
	}
	errDown := errors.New("503 Service Unavailable")
	throttled, refused := askKMS(t, answering(t, 400, "application/x-amz-json-1.1", `{"__type":"ThrottlingException"}`)),
		askKMS(t, answering(t, 400, "application/x-amz-json-1.1", `{"__type":"AccessDeniedException"}`))
	for name, c := range map[string]struct {
		keys  error
		spool string
		back  time.Duration
		want  time.Duration
		err   error
	}{
		"with a spool":                 {nil, filepath.Join(t.TempDir(), "spool"), 25 * time.Second, 30 * time.Second, nil},
		"without one":                  {nil, "", 25 * time.Second, 0, errDown},
		"told to end in the while":     {nil, filepath.Join(t.TempDir(), "spool"), time.Hour, 55 * time.Second, errDown},
		"keys in a KMS that throttles": {throttled, "", 25 * time.Second, 30 * time.Second, nil},
		"keys that are not allowed":    {refused, filepath.Join(t.TempDir(), "spool"), 25 * time.Second, 0, refused},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began, told := time.Now(), error(nil)
				store := ledgertest.NewMem(func(ledgertest.Op, string) (bool, error) {
					if c.keys == nil && time.Since(began) < c.back {
						return false, errDown
					}
					return true, nil
				})
				ctx, cancel := context.WithTimeout(t.Context(), 55*time.Second)
				defer cancel()
				d := &daemon{}
				open := openers{
					keys: func(context.Context) (*ledger.Keys, error) {
						if c.keys != nil && time.Since(began) < c.back {
							return nil, fmt.Errorf("ledger.kms.recordKey: %w", c.keys)
						}
						return keys, nil
					},
					store: func(context.Context) (ledger.Store, func() error, error) {
						return store, func() error { return nil }, nil
					},
				}
				_, err := d.openLog(ctx, &config.Config{Ledger: config.Ledger{SpoolDir: c.spool}}, open, func(away error) { told = away })
				if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) || time.Since(began) != c.want {
					t.Errorf("openLog = %v after %s, want %v after %s", err, time.Since(began), c.err, c.want)
				}
				if why := cmp.Or(c.keys, errDown); c.want > 0 != errors.Is(told, why) {
					t.Errorf("told that %v is away after %s of waiting, want %v", told, c.want, why)
				}
				if err := d.closeSpool(); err != nil && c.err == nil {
					t.Error(err)
				}
			})
		})
	}
}
