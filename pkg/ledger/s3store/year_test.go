package s3store_test

import (
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/sim/s3"
)

// TestAYearThatEndsLateKeepsWhatWasInEffect: an outage over New Year was longer
// than the slack. The documents of the old year are kept for its last record,
// and those of the new year for the new year.
func TestAYearThatEndsLateKeepsWhatWasInEffect(t *testing.T) {
	w := newWorld(t, sims3.New(buckets()))
	year := time.Now().UTC().Year() + 1 // a lock must lie in the future
	at := time.Date(year, 12, 31, 23, 0, 0, 0, time.UTC)
	opts := options()
	opts.SlackDays, opts.Now = 7, func() time.Time { return at }
	s := w.store(opts)
	keys, err := ledger.OpenKeys(t.TempDir(), "ledger.example.org/hipaa-prod", at)
	if err != nil {
		t.Fatal(err)
	}
	log, _, err := ledger.Open(t.Context(), s, keys, ledger.Options{
		Recorder: evidence.Recorder{ID: "https://runnerward.github.io/runnerward", Version: "v0.1.0"},
	})
	if err != nil {
		t.Fatal(err)
	}
	put := func(b []byte) runner.Digest {
		d, err := log.PutBlob(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	add := func(e runner.Event) {
		t.Helper()
		if _, err := log.Append(t.Context(), at, e); err != nil {
			t.Fatal(err)
		}
	}
	root, err := log.Root().Encode()
	if err != nil {
		t.Fatal(err)
	}
	config := put([]byte("configuration"))
	add(runner.Opened{Version: "v1", Instance: "x", ConfigDigest: config, PolicyDigest: config, RootDigest: put(root)})

	since := at
	at = time.Date(year+1, 1, 20, 0, 0, 0, 0, time.UTC)
	add(runner.Gap{Since: since, Until: at})
	for range 2 {
		e, err := log.NewYear(t.Context(), at)
		if err != nil || e == nil {
			t.Fatalf("NewYear = %v, %v, want a record", e, err)
		}
		add(e)
	}
	if err := log.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	files := s.FS(t.Context())
	rep, err := evidence.VerifyOptions{Objects: files}.Verify(files, log.Root())
	if err != nil || !rep.OK() || len(rep.Notes) != 0 {
		t.Errorf("Verify = %v, %v, %v, want nothing", rep.Findings, rep.Notes, err)
	}
	name := evidence.BlobName(config)
	for shard, want := range map[evidence.Shard]time.Time{
		0:                        time.Date(year+8, 1, 1, 0, 0, 0, 0, time.UTC),
		evidence.Shard(year + 1): time.Date(year+8, 1, 8, 0, 0, 0, 0, time.UTC),
	} {
		objects, err := files.Objects(shard.Name(evidence.BlobFolder))
		if err != nil {
			t.Fatal(err)
		}
		if got := objects[shard.Name(name)]; !got.Compliance || !got.RetainUntil.Equal(want) {
			t.Errorf("%s is kept as %+v, want until %s", shard.Name(name), got, want)
		}
	}
}
