package main

import (
	"io/fs"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/config"
	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/ledger/s3store"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/runner/runnertest"
	"github.com/runnerward/runnerward/pkg/sim/s3"
)

const s3Account = "111122223333"

// cloud is a simulated S3 over TLS, and how a configuration names it.
type cloud struct {
	sim *sims3.Server
	at  config.S3
}

// newCloud has a locked bucket called evidence and an open one called view.
func newCloud(t *testing.T) cloud {
	t.Helper()
	sim := sims3.New(map[string]sims3.Bucket{
		"evidence": {Owner: s3Account, Versioned: true, Locked: true}, "view": {Owner: s3Account},
	})
	server := httptest.NewTLSServer(sim)
	t.Cleanup(server.Close)
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "a secret of the test", "AWS_REGION": "",
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
	} {
		t.Setenv(name, value)
	}
	return cloud{sim, config.S3{
		Bucket: "evidence", Prefix: "prod", ViewBucket: "view", ViewPrefix: "tiles", Region: "us-east-1",
		Endpoint: server.URL, CAFile: caOf(t, server), BucketOwner: s3Account, SlackDays: 30,
	}}
}

func (c cloud) config() *config.Config { return &config.Config{Ledger: config.Ledger{S3: c.at}} }

// keep copies books into the bucket, as a daemon would have written them.
func (c cloud) keep(t *testing.T, b books) {
	t.Helper()
	store, _, err := openStore(t.Context(), c.config())
	if err != nil {
		t.Fatal(err)
	}
	files := os.DirFS(b.dir)
	err = fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		if strings.HasPrefix(name, evidence.ViewFolder) {
			return store.Publish(t.Context(), name, data)
		}
		return store.Create(t.Context(), name, data)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (c cloud) flags() []string {
	return []string{
		"--ledger", "s3://evidence/prod", "--view", "s3://view/tiles/", "--region", c.at.Region, "--endpoint", c.at.Endpoint,
		"--ca-file", c.at.CAFile, "--bucket-owner", s3Account,
	}
}

func TestALedgerInS3IsVerifiedAndExplained(t *testing.T) {
	b, c := fourStories(t), newCloud(t)
	c.keep(t, b)
	verify := append([]string{"verify", "--root", b.root}, c.flags()...)
	whole := call(t, verify...)
	whole.want(t, exitOK, "no findings")
	if strings.Contains(whole.out, "note ") {
		t.Errorf("verify of the bucket itself has notes:\n%s", whole.out)
	}
	b.verify(t).want(t, exitOK, "this is a folder, which has no versions and no locks")
	call(t, append(verify, "--view", "")...).want(t, exitOK, "the view was not read")
	explain := append([]string{"explain", "--root", b.root}, c.flags()...)
	call(t, append(explain, string(runnertest.NewCast(0).Job))...).want(t, exitOK, "terminated")

	c.sim.Overwrite("evidence", "prod/"+evidence.SegmentName(2), []byte("another record"))
	c.sim.Hide("evidence", "prod/"+evidence.CheckpointName(1))
	found := call(t, verify...)
	found.want(t, exitUnproven, evidence.SegmentName(2)+": invariant 7 (versions)")
	found.want(t, exitUnproven, evidence.CheckpointName(1)+": invariant 7 (delete-marker)")
	call(t, append(explain, string(runnertest.NewCast(0).Job))...).want(t, exitUnproven, "these answers are no evidence")
}

func TestABucketThatCannotBeReadIsWrongUsage(t *testing.T) {
	b, c := fourStories(t), newCloud(t)
	c.keep(t, b)
	replaced := func(old, new string) []string {
		args := append([]string{"--root", b.root}, c.flags()...)
		for i := range args {
			if args[i] == old {
				args[i] = new
			}
		}
		return args
	}
	for _, tc := range []struct {
		args []string
		want string
	}{
		{replaced("s3://evidence/prod", "s3://evidence/other"), "s3://evidence/other has nothing under seg/ and no folder of a year: it is not a ledger"},
		{replaced("s3://evidence/prod", "s3://elsewhere/prod"), "there is no bucket elsewhere"},
		{replaced("s3://evidence/prod", "s3:///prod"), `"s3:///prod" is not s3://BUCKET`},
		{replaced("s3://evidence/prod", "s3://evidence//prod"), "is not s3://BUCKET"},
		{replaced("s3://view/tiles/", "view/tiles"), "--view: "},
		{replaced(s3Account, "999999999999"), "bucketOwner"},
		{replaced("us-east-1", ""), "give --region"},
		{replaced("s3://evidence/prod", b.dir), "--bucket-owner, --ca-file, --endpoint, --region, --view is for s3://BUCKET/PREFIX"},
		{replaced(c.at.CAFile, b.root), "no certificate in " + b.root},
	} {
		call(t, append([]string{"verify"}, tc.args...)...).want(t, exitUsage, tc.want)
	}
}

func TestTheDaemonRefusesABucketThatIsNotFit(t *testing.T) {
	c := newCloud(t)
	if _, _, err := openStore(t.Context(), c.config()); err != nil {
		t.Errorf("openStore of buckets as they should be = %v", err)
	}
	c.at.Bucket, c.at.ViewBucket = c.at.ViewBucket, c.at.Bucket
	_, _, err := openStore(t.Context(), c.config())
	if err == nil || !strings.Contains(err.Error(), "ledger.s3: ") || !strings.Contains(err.Error(), "put-object-lock-configuration --bucket view") {
		t.Errorf("openStore of a bucket without a lock = %v, want how to mend it", err)
	}
}

func TestTheDaemonGoesOnInABucketAndKeepsWhatIsInEffect(t *testing.T) {
	c, folder := newCloud(t), t.TempDir()
	cfg := c.config()
	cfg.Ledger.KeysDir, cfg.Ledger.RootFile, cfg.Ledger.Origin = folder+"/keys", folder+"/root.json", "ledger.example.org/hipaa-prod/2026"
	until := ledger.RetainUntil(time.Now().AddDate(3, 0, 0), c.at.SlackDays)
	d := &daemon{documents: [][]byte{[]byte("configuration"), []byte("policy"), []byte("root")}}
	for starts := range 3 {
		records, err := d.openLedger(t.Context(), cfg, func(away error) { t.Error(away) })
		if err != nil || len(records) != starts {
			t.Fatalf("start %d: %d records, %v, want one of each start before", starts, len(records), err)
		}
		if _, err := d.log.Append(t.Context(), time.Now(), runner.Heartbeat{}); err != nil {
			t.Fatal(err)
		}
		if err := d.keepOnce(t.Context(), until); err != nil {
			t.Fatal(err)
		}
		if err := d.close(); err != nil {
			t.Fatal(err)
		}
	}
	store, _, err := openStore(t.Context(), cfg)
	s, ok := store.(*s3store.Store)
	if err != nil || !ok {
		t.Fatalf("the store is a %T, %v", store, err)
	}
	objects, err := s.FS(t.Context()).Objects(evidence.BlobFolder)
	if err != nil || len(objects) != 3 {
		t.Fatalf("attachments = %v, %v, want three", objects, err)
	}
	for _, document := range d.documents {
		if o := objects[evidence.BlobName(runner.DigestOf(document))]; !o.Compliance || !o.RetainUntil.Equal(until) {
			t.Errorf("%s: %+v, want it kept until %s", document, o, until)
		}
	}
}
