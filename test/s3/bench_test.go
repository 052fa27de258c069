package s3test

import (
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/runner/runnertest"
)

// BenchmarkAppend appends one record after another to a bucket of the server in
// this process. "x-dir" is the time of an append in units of one to a folder of
// the same disk. An append makes six requests, here without a network between,
// and the server does not sync what it writes, while the folder does.
func BenchmarkAppend(b *testing.B) {
	log := newLog(b, newPlace(b).store())
	at := runnertest.Start()
	for b.Loop() {
		at = at.Add(time.Second)
		if _, err := log.Append(b.Context(), at, runner.Heartbeat{}); err != nil {
			b.Fatal(err)
		}
	}
	perAppend := b.Elapsed() / time.Duration(b.N)
	b.ReportMetric(float64(perAppend)/float64(dirTime(b)), "x-dir")
}

func newLog(b *testing.B, s ledger.Store) *ledger.Log {
	keys, err := ledger.OpenKeys(b.TempDir(), "ledger.example.org/hipaa-prod/2026", runnertest.Start())
	if err != nil {
		b.Fatal(err)
	}
	return openLog(b, s, keys)
}

// dirTime is the mean time of an append to a folder.
func dirTime(b *testing.B) time.Duration {
	const appends = 50
	log, at := newLog(b, openDir(b, b.TempDir())), runnertest.Start()
	start := time.Now()
	for range appends {
		at = at.Add(time.Second)
		if _, err := log.Append(b.Context(), at, runner.Heartbeat{}); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(start) / appends
}
