package s3store_test

import (
	"io/fs"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/ledger/ledgertest"
	"github.com/runnerward/runnerward/pkg/ledger/s3store"
	"github.com/runnerward/runnerward/pkg/sim/s3"
)

const (
	evidenceBucket, viewBucket = "evidence", "evidence-view"
	prefix, account            = "prod/runnerward", "111122223333"
)

// buckets are as docs/install.md makes them.
func buckets() map[string]sims3.Bucket {
	return map[string]sims3.Bucket{
		evidenceBucket: {Owner: account, Versioned: true, Locked: true},
		viewBucket:     {Owner: account},
	}
}

// world is a simulated S3, on loopback over TLS, behind the real SDK.
type world struct {
	sim *sims3.Server
	cfg aws.Config
}

func newWorld(t testing.TB, sim *sims3.Server) world {
	t.Helper()
	server := httptest.NewTLSServer(sim)
	t.Cleanup(server.Close)
	return world{sim, aws.Config{
		Region: "us-east-1", BaseEndpoint: &server.URL, HTTPClient: server.Client(),
		Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "a secret of the test", ""),
	}}
}

func options() s3store.Options {
	return s3store.Options{
		Bucket: evidenceBucket, Prefix: prefix, ViewBucket: viewBucket, Owner: account, PathStyle: true, SlackDays: 30,
		CallTimeout: 20 * time.Second, MaxBackoff: time.Millisecond,
	}
}

func (w world) store(opts s3store.Options) *s3store.Store { return s3store.New(w.cfg, opts) }

// Overwrite implements [ledgertest.Versions].
func (w world) Overwrite(_ testing.TB, name string, data []byte) {
	w.sim.Overwrite(evidenceBucket, prefix+"/"+name, data)
}

// Hide implements [ledgertest.Versions].
func (w world) Hide(_ testing.TB, name string) { w.sim.Hide(evidenceBucket, prefix+"/"+name) }

func TestS3KeepsTheContract(t *testing.T) {
	ledgertest.TestStore(t, func(t *testing.T) ledgertest.Subject {
		sim := sims3.New(buckets())
		sim.Page = 3
		w := newWorld(t, sim)
		return ledgertest.Subject{
			Open:     func(testing.TB) ledger.Store { return w.store(options()) },
			FS:       func(t testing.TB) fs.FS { return w.store(options()).FS(t.Context()) },
			Versions: w,
		}
	})
}
