package s3store_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/ledger/s3store"
	"github.com/runnerward/runnerward/pkg/sim/s3"
)

// lockOf is what the store itself tells of an object.
func lockOf(t *testing.T, s *s3store.Store, name string) evidence.Object {
	t.Helper()
	folder, _, _ := strings.Cut(name, "/")
	objects, err := s.FS(t.Context()).Objects(folder + "/")
	if err != nil {
		t.Fatal(err)
	}
	object, ok := objects[name]
	if !ok {
		t.Fatalf("the store tells nothing of %s", name)
	}
	return object
}

func TestALockLastsAsTheYearOfWritingDoes(t *testing.T) {
	w := newWorld(t, sims3.New(buckets()))
	year := time.Now().UTC().Year() + 1 // a lock must lie in the future
	at := time.Date(year, 12, 31, 23, 59, 59, 0, time.UTC)
	opts := options()
	opts.Now = func() time.Time { return at }
	s := w.store(opts)
	if err := s.Create(t.Context(), "blobs/sha256/input", []byte("x")); err != nil {
		t.Fatal(err)
	}
	want := time.Date(year+7, 1, 31, 0, 0, 0, 0, time.UTC)
	if got := lockOf(t, s, "blobs/sha256/input"); !got.Compliance || !got.RetainUntil.Equal(want) {
		t.Errorf("lock = %+v, want COMPLIANCE until %s", got, want)
	}
	// Whoever meets the object in the next year needs it for a year longer.
	at = at.Add(time.Second)
	if err := s.Create(t.Context(), "blobs/sha256/input", []byte("x")); !errors.Is(err, ledger.ErrExists) {
		t.Fatalf("Create = %v, want ErrExists", err)
	}
	if got := lockOf(t, s, "blobs/sha256/input"); !got.RetainUntil.Equal(want.AddDate(1, 0, 0)) {
		t.Errorf("lock after the next year's use = %+v, want until %s", got, want.AddDate(1, 0, 0))
	}
}

func TestALockOfAThrowawayBucketIsAsLongAsItsOwnerSays(t *testing.T) {
	w := newWorld(t, sims3.New(buckets()))
	until := time.Now().Add(24 * time.Hour).Truncate(time.Second).UTC()
	opts := options()
	opts.KeepUntil = func(string, time.Time) time.Time { return until }
	s := w.store(opts)
	if err := s.Create(t.Context(), "blobs/sha256/input", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if got := lockOf(t, s, "blobs/sha256/input"); !got.Compliance || !got.RetainUntil.Equal(until) {
		t.Errorf("lock = %+v, want COMPLIANCE until %s", got, until)
	}
}

func TestExtendLengthensAndNeverShortens(t *testing.T) {
	w := newWorld(t, sims3.New(buckets()))
	s := w.store(options())
	const name = "blobs/sha256/config"
	if err := s.Create(t.Context(), name, []byte("x")); err != nil {
		t.Fatal(err)
	}
	begun := lockOf(t, s, name).RetainUntil
	for _, tc := range []struct{ until, want time.Time }{
		{begun.AddDate(0, 0, -1), begun},
		{begun, begun},
		{begun.AddDate(1, 0, 0), begun.AddDate(1, 0, 0)},
		{begun, begun.AddDate(1, 0, 0)},
	} {
		if err := s.Extend(t.Context(), []string{name}, tc.until); err != nil {
			t.Errorf("Extend until %s = %v", tc.until, err)
		}
		if got := lockOf(t, s, name); !got.Compliance || !got.RetainUntil.Equal(tc.want) {
			t.Errorf("lock after Extend until %s = %+v, want until %s", tc.until, got, tc.want)
		}
	}
	if err := s.Extend(t.Context(), []string{"blobs/sha256/none", name}, begun); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("Extend of what does not exist = %v, want ErrNotFound", err)
	}
	if err := s.Extend(t.Context(), []string{"view/checkpoint"}, begun); err == nil {
		t.Error("Extend of a derived object = nil, want a refusal")
	}
	w.Overwrite(t, "blobs/sha256/loose", []byte("x"))
	if err := s.Extend(t.Context(), []string{"blobs/sha256/loose"}, begun); !errors.Is(err, s3store.ErrNotLocked) {
		t.Errorf("Extend of an object that somebody put without a lock = %v, want ErrNotLocked", err)
	}
}

func TestABucketThatIsNotFitIsRefusedWithHowToMendIt(t *testing.T) {
	for name, tc := range map[string]struct {
		evidence, view sims3.Bucket
		says           []string
	}{
		"as it should be":       {sims3.Bucket{Owner: account, Versioned: true, Locked: true}, sims3.Bucket{Owner: account}, nil},
		"locked for longer":     {sims3.Bucket{Owner: account, Versioned: true, Locked: true, DefaultDays: 9}, sims3.Bucket{Owner: account}, nil},
		"a view with versions":  {sims3.Bucket{Owner: account, Versioned: true, Locked: true}, sims3.Bucket{Owner: account, Versioned: true, Locked: true}, nil},
		"an ordinary bucket":    {sims3.Bucket{Owner: account}, sims3.Bucket{Owner: account}, []string{"put-bucket-versioning --bucket evidence", "put-object-lock-configuration --bucket evidence "}},
		"versions and no lock":  {sims3.Bucket{Owner: account, Versioned: true}, sims3.Bucket{Owner: account}, []string{"put-object-lock-configuration --bucket evidence "}},
		"a view that is locked": {sims3.Bucket{Owner: account, Versioned: true, Locked: true}, sims3.Bucket{Owner: account, Versioned: true, Locked: true, DefaultDays: 1}, []string{"bucket evidence-view locks every object"}},
		"somebody else's":       {sims3.Bucket{Owner: "999999999999", Versioned: true, Locked: true}, sims3.Bucket{Owner: account}, []string{"iam-policy.json on bucket evidence,", "bucketOwner"}},
		"somebody else's view":  {sims3.Bucket{Owner: account, Versioned: true, Locked: true}, sims3.Bucket{Owner: "999999999999"}, []string{"iam-policy.json on bucket evidence-view,"}},
	} {
		w := newWorld(t, sims3.New(map[string]sims3.Bucket{evidenceBucket: tc.evidence, viewBucket: tc.view}))
		err := w.store(options()).Check(t.Context())
		if (err == nil) != (len(tc.says) == 0) {
			t.Errorf("Check of %s = %v, want problems: %q", name, err, tc.says)
			continue
		}
		for _, says := range tc.says {
			if !strings.Contains(err.Error(), says) {
				t.Errorf("Check of %s = %v, want it to say %q", name, err, says)
			}
		}
	}
	for name, change := range map[string]func(*s3store.Options){
		"of the log":  func(o *s3store.Options) { o.Bucket = "elsewhere" },
		"of the view": func(o *s3store.Options) { o.ViewBucket = "elsewhere" },
	} {
		opts := options()
		change(&opts)
		err := newWorld(t, sims3.New(buckets())).store(opts).Check(t.Context())
		if err == nil || !strings.Contains(err.Error(), "there is no bucket elsewhere") || strings.Contains(err.Error(), "no bucket evidence") {
			t.Errorf("Check of a bucket %s that does not exist = %v, want that", name, err)
		}
	}
}

func TestABucketWithoutVersionsTakesNoRecord(t *testing.T) {
	for name, b := range map[string]sims3.Bucket{
		"no versions": {Owner: account}, "no lock": {Owner: account, Versioned: true},
		"a lock without versions": {Owner: account, Locked: true},
	} {
		w := newWorld(t, sims3.New(map[string]sims3.Bucket{evidenceBucket: b, viewBucket: {Owner: account}}))
		if err := w.store(options()).Create(t.Context(), segment, []byte("x")); err == nil || !strings.Contains(err.Error(), "run aws s3api") {
			t.Errorf("Create in a bucket with %s = %v, want how to mend it", name, err)
		}
	}
}

// TestTheFolderOfAnAuditShowsEverything: names that are no object of a ledger
// are for the verifier to report.
func TestTheFolderOfAnAuditShowsEverything(t *testing.T) {
	w := newWorld(t, sims3.New(buckets()))
	s := w.store(options())
	for _, name := range []string{"seg/a", "seg/b", "blobs/sha256/c"} {
		if err := s.Create(t.Context(), name, []byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Publish(t.Context(), "view/tile/0/000", []byte("tile")); err != nil {
		t.Fatal(err)
	}
	w.Overwrite(t, "surprise", []byte("x"))
	w.Hide(t, "seg/b")
	files := s.FS(t.Context())
	var got []string
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			got = append(got, name)
		}
		return err
	})
	if want := "blobs/sha256/c seg/a seg/b surprise view/tile/0/000"; err != nil || strings.Join(got, " ") != want {
		t.Errorf("files = %q, %v, want %s", got, err, want)
	}
	if b, err := fs.ReadFile(files, "seg/b"); err != nil || string(b) != "seg/b" {
		t.Errorf("ReadFile of a hidden object = %q, %v", b, err)
	}
	// What comes later is found by its name, as a verifier asks for it.
	if err := s.Create(t.Context(), "seg/late", []byte("late")); err != nil {
		t.Fatal(err)
	}
	if info, err := fs.Stat(files, "seg/late"); err != nil || info.IsDir() {
		t.Errorf("Stat of a later object = %v, %v, want a file", info, err)
	}
	for _, name := range []string{"seg/none", "nowhere", "view/none"} {
		if _, err := fs.Stat(files, name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Stat(%s) = %v, want ErrNotExist", name, err)
		}
		if _, err := fs.ReadFile(files, name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("ReadFile(%s) = %v, want ErrNotExist", name, err)
		}
	}
}
