package s3test

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/ledger/s3store"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/runner/runnertest"
)

const segment = "seg/00000000000000000000"

func code(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	return ""
}

func create(t *testing.T, s ledger.Store, name, data string) {
	t.Helper()
	if err := s.Create(t.Context(), name, []byte(data)); err != nil {
		t.Fatal(err)
	}
}

func TestALockedVersionCannotBeRemovedOrUnlocked(t *testing.T) {
	p := newPlace(t)
	s := p.store()
	create(t, s, segment, "record")
	version := p.versions(t, segment)[0].VersionId
	_, err := p.client.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &p.bucket, Key: key(segment), VersionId: version})
	if code(err) != "AccessDenied" {
		t.Errorf("DeleteObject of a locked version = %v, want AccessDenied", err)
	}
	_, err = p.client.DeleteObject(t.Context(), &s3.DeleteObjectInput{
		Bucket: &p.bucket, Key: key(segment), VersionId: version, BypassGovernanceRetention: aws.Bool(true),
	})
	if code(err) != "AccessDenied" {
		t.Errorf("DeleteObject with every right = %v, want AccessDenied", err)
	}
	until := ledger.RetainUntil(time.Now(), 30)
	for name, want := range map[string]types.ObjectLockRetention{
		"a shorter lock":  {Mode: types.ObjectLockRetentionModeCompliance, RetainUntilDate: aws.Time(until.AddDate(0, 0, -1))},
		"a softer lock":   {Mode: types.ObjectLockRetentionModeGovernance, RetainUntilDate: aws.Time(until.AddDate(1, 0, 0))},
		"no lock at last": {Mode: types.ObjectLockRetentionModeCompliance, RetainUntilDate: aws.Time(time.Now().Add(time.Hour))},
	} {
		_, err := p.client.PutObjectRetention(t.Context(), &s3.PutObjectRetentionInput{
			Bucket: &p.bucket, Key: key(segment), VersionId: version, Retention: &want,
		})
		if err == nil {
			t.Errorf("PutObjectRetention of %s = nil, want a refusal", name)
		}
	}
	objects, err := s.FS(t.Context()).Objects(evidence.SegmentFolder)
	if got := objects[segment]; err != nil || !got.Compliance || !got.RetainUntil.Equal(until) || got.Versions != 1 {
		t.Errorf("after all that: %+v, %v, want one version in COMPLIANCE until %s", got, err, until)
	}
	if b, err := s.Read(t.Context(), segment); err != nil || string(b) != "record" {
		t.Errorf("Read = %q, %v, want the record", b, err)
	}
}

func TestALockIsLengthened(t *testing.T) {
	p := newPlace(t)
	s := p.store()
	create(t, s, "blobs/sha256/config", "configuration")
	until := ledger.RetainUntil(time.Now(), 30)
	for _, want := range []time.Time{until, until.AddDate(1, 0, 0), until.AddDate(2, 0, 0)} {
		if err := s.Extend(t.Context(), []string{"blobs/sha256/config"}, want); err != nil {
			t.Errorf("Extend until %s = %v", want, err)
		}
		objects, err := s.FS(t.Context()).Objects("blobs/")
		if got := objects["blobs/sha256/config"]; err != nil || !got.RetainUntil.Equal(want) {
			t.Errorf("lock = %+v, %v, want until %s", got, err, want)
		}
	}
	if err := s.Extend(t.Context(), []string{"blobs/sha256/config"}, until); err != nil {
		t.Errorf("Extend until an earlier time = %v, want nothing to do", err)
	}
}

func TestBucketsAreCheckedBeforeAnythingIsWritten(t *testing.T) {
	p := newPlace(t)
	if err := p.store().Check(t.Context()); err != nil {
		t.Errorf("Check of buckets as they should be = %v", err)
	}
	opts := p.options()
	opts.Bucket, opts.ViewBucket = p.view, p.bucket // the view's bucket has neither versions nor lock
	s := s3store.New(gateway.cfg, opts)
	err := s.Check(t.Context())
	for _, says := range []string{"put-bucket-versioning --bucket " + p.view, "put-object-lock-configuration --bucket " + p.view} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("Check of a bucket without a lock = %v, want it to say %q", err, says)
		}
	}
	if err := s.Create(t.Context(), segment, []byte("x")); err == nil || errors.Is(err, ledger.ErrExists) {
		t.Errorf("Create in a bucket without a lock = %v, want an error", err)
	}
	missing := p.options()
	missing.Bucket = "no-such-bucket"
	if err := s3store.New(gateway.cfg, missing).Check(t.Context()); err == nil || !strings.Contains(err.Error(), "no-such-bucket") {
		t.Errorf("Check of a bucket that does not exist = %v, want its name", err)
	}
}

func TestABucketOfSomebodyElseIsRefused(t *testing.T) {
	p := newPlace(t)
	opts := p.options()
	opts.Owner = "999999999999"
	s := s3store.New(gateway.cfg, opts)
	if err := s.Create(t.Context(), segment, []byte("x")); err == nil || !strings.Contains(err.Error(), "bucketOwner") {
		t.Errorf("Create in a bucket of another account = %v, want a refusal", err)
	}
	opts.Owner = accessKey // versitygw calls accounts by their access keys
	if err := s3store.New(gateway.cfg, opts).Create(t.Context(), segment, []byte("x")); err != nil {
		t.Errorf("Create with the right owner = %v", err)
	}
}

// told is a place that holds a log of one job.
func told(t *testing.T) (place, *ledger.Keys) {
	t.Helper()
	p := newPlace(t)
	keys, err := ledger.OpenKeys(t.TempDir(), "ledger.example.org/hipaa-prod/2026", runnertest.Start())
	if err != nil {
		t.Fatal(err)
	}
	log := openLog(t, p.store(), keys)
	s := runnertest.NewScript(
		func(at time.Time, e runner.Event) (runner.Record, error) { return log.Append(t.Context(), at, e) },
		func(b []byte) (runner.Digest, error) { return log.PutBlob(t.Context(), b) })
	root, err := log.Root().Encode()
	if err != nil {
		t.Fatal(err)
	}
	s.Root = root
	if err := errors.Join(s.Open(), s.Tell(runnertest.NewCast(0), runnertest.CompletedStory()), log.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	return p, keys
}

func openLog(t testing.TB, s ledger.Store, keys *ledger.Keys) *ledger.Log {
	t.Helper()
	log, _, err := ledger.Open(t.Context(), s, keys, ledger.Options{
		Recorder: evidence.Recorder{ID: "https://runnerward.github.io/runnerward", Version: "v0.1.0"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return log
}

func verify(t *testing.T, p place, keys *ledger.Keys) *evidence.Report {
	t.Helper()
	files := p.store().FS(t.Context())
	rep, err := evidence.VerifyOptions{Objects: files}.Verify(files, keys.Root())
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

// TestWhatWasDoneToALockedLogIsReported: none of it changes what is read, and
// all of it shows.
func TestWhatWasDoneToALockedLogIsReported(t *testing.T) {
	p, keys := told(t)
	if rep := verify(t, p, keys); !rep.OK() || len(rep.Notes) != 0 || rep.Size != 13 {
		t.Fatalf("findings %v, notes %v, %d records, want a clean log of 13", rep.Findings, rep.Notes, rep.Size)
	}
	changed, hidden := evidence.SegmentName(3), evidence.CheckpointName(5)
	p.Overwrite(t, changed, []byte("another record"))
	p.Hide(t, hidden)
	rep := verify(t, p, keys)
	var got []string
	for _, f := range rep.Findings {
		got = append(got, f.Rule+" "+f.File)
	}
	slices.Sort(got)
	if want := []string{"delete-marker " + hidden, "versions " + changed}; !slices.Equal(got, want) || rep.Size != 13 {
		t.Errorf("findings = %q of %d records, want %q of 13", got, rep.Size, want)
	}
	// The daemon goes on by the first versions, too.
	if size, _ := openLog(t, p.store(), keys).Head(); size != 13 {
		t.Errorf("records after reopening = %d, want 13", size)
	}
	p.Overwrite(t, "seg/surprise", []byte("x"))
	rep = verify(t, p, keys)
	for _, rule := range []string{"unexpected-file", "unlocked"} {
		if !slices.ContainsFunc(rep.Findings, func(f evidence.Finding) bool { return f.Rule == rule && f.File == "seg/surprise" }) {
			t.Errorf("findings = %v, want %s of a file that is none of ours", rep.Findings, rule)
		}
	}
}

// TestACopyHasNoVersionsAndVerifies: what an auditor downloads is a folder.
func TestACopyHasNoVersionsAndVerifies(t *testing.T) {
	p, keys := told(t)
	folder := t.TempDir()
	copied := openDir(t, folder)
	files := p.files(t)
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		if strings.HasPrefix(name, evidence.ViewFolder) {
			return copied.Publish(t.Context(), name, b)
		}
		return copied.Create(t.Context(), name, b)
	})
	if err != nil {
		t.Fatal(err)
	}
	rep, err := evidence.Verify(copied.FS(), keys.Root())
	if err != nil || !rep.OK() || rep.Size != 13 {
		t.Errorf("Verify of a copy = %+v, %v, want no findings", rep, err)
	}
}
