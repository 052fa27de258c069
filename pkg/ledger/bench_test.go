package ledger_test

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/runner/runnertest"
)

// BenchmarkAppend appends one record after another to a folder. "x-fsync" is
// the time of an append in units of writing one new file of a segment's size
// and syncing it: the cost of the log over the least that durability costs.
func BenchmarkAppend(b *testing.B) {
	keys := newKeys(b)
	opts := options()
	opts.ViewEvery = 10 * time.Second
	log, _, err := ledger.Open(b.Context(), openDir(b, b.TempDir()), keys, opts)
	if err != nil {
		b.Fatal(err)
	}
	at := runnertest.Start()
	for b.Loop() {
		at = at.Add(time.Second)
		if _, err := log.Append(b.Context(), at, runner.Heartbeat{}); err != nil {
			b.Fatal(err)
		}
	}
	perAppend := b.Elapsed() / time.Duration(b.N)
	b.ReportMetric(float64(perAppend)/float64(fsyncTime(b)), "x-fsync")
}

// fsyncTime is the mean time of a new, synced file.
func fsyncTime(b *testing.B) time.Duration {
	folder, data := b.TempDir(), make([]byte, 1300)
	const files = 50
	start := time.Now()
	for i := range files {
		f, err := os.Create(filepath.Join(folder, strconv.Itoa(i)))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := f.Write(data); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(start) / files
}
