package s3store_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/ledger/s3store"
	"github.com/runnerward/runnerward/pkg/sim/s3"
)

const segment = "seg/00000000000000000000"

// script spoils the requests of one operation in turn; later ones pass.
type script struct {
	op     sims3.Op
	faults []sims3.Fault

	mu   sync.Mutex
	seen int
}

func (s *script) fault(op sims3.Op, _ string) sims3.Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	if op != s.op {
		return sims3.Fault{}
	}
	s.seen++
	if s.seen > len(s.faults) {
		return sims3.Fault{}
	}
	return s.faults[s.seen-1]
}

func (s *script) calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

// spoilt is a store whose S3 follows the script.
func spoilt(t *testing.T, op sims3.Op, faults ...sims3.Fault) (*s3store.Store, world, *script) {
	t.Helper()
	s := &script{op: op, faults: faults}
	sim := sims3.New(buckets())
	sim.Fault = s.fault
	w := newWorld(t, sim)
	return w.store(options()), w, s
}

func TestAPutThatFailsIsRepeatedOrLeftOpen(t *testing.T) {
	conflict := sims3.Fault{Status: 409, Code: "ConditionalRequestConflict"}
	down := sims3.Fault{Status: 503, Code: "SlowDown"}
	broken := sims3.Fault{Status: 500, Code: "InternalError"}
	lost := sims3.Fault{Lost: true}
	for name, tc := range map[string]struct {
		faults []sims3.Fault
		want   error // nil, or what Create reports
		open   bool  // the outcome is unknown, which is neither nil nor ErrExists
		calls  int
		stored bool
	}{
		"a conflict with another request is tried again": {[]sims3.Fault{conflict, conflict}, nil, false, 3, true},
		"S3 is busy":             {[]sims3.Fault{down, broken, down}, nil, false, 4, true},
		"no connection at first": {[]sims3.Fault{lost}, nil, false, 2, true},
		"the object landed and its answer was lost":       {[]sims3.Fault{{Lost: true, Applied: true}}, ledger.ErrExists, false, 2, true},
		"the object landed and S3 said that it is broken": {[]sims3.Fault{{Status: 500, Code: "InternalError", Applied: true}}, ledger.ErrExists, false, 2, true},
		"busy for ever":                                     {[]sims3.Fault{down, down, down, down}, nil, true, 4, false},
		"conflicts for ever":                                {[]sims3.Fault{conflict, conflict, conflict, conflict}, nil, true, 4, false},
		"a 412 that is not S3's precondition":               {[]sims3.Fault{{Status: 412, Code: "ProxyError"}}, nil, true, 1, false},
		"a precondition that S3 names under another status": {[]sims3.Fault{{Status: 400, Code: "PreconditionFailed", Applied: true}}, ledger.ErrExists, false, 1, true},
		"a refused precondition where nothing is":           {[]sims3.Fault{{Status: 412, Code: "PreconditionFailed"}}, nil, true, 1, false},
		"access denied":                                     {[]sims3.Fault{{Status: 403, Code: "AccessDenied"}}, nil, true, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			s, _, script := spoilt(t, sims3.PutObject, tc.faults...)
			err := s.Create(t.Context(), segment, []byte("data"))
			switch {
			case tc.open && (err == nil || errors.Is(err, ledger.ErrExists)):
				t.Errorf("Create = %v, want an error that leaves it open", err)
			case !tc.open && !errors.Is(err, tc.want):
				t.Errorf("Create = %v, want %v", err, tc.want)
			}
			if got := script.calls(); got != tc.calls {
				t.Errorf("%d requests, want %d", got, tc.calls)
			}
			data, err := s.Read(t.Context(), segment)
			if stored := err == nil && string(data) == "data"; stored != tc.stored || !stored && !errors.Is(err, ledger.ErrNotFound) {
				t.Errorf("Read = %q, %v, want it stored: %t", data, err, tc.stored)
			}
		})
	}
}

func TestAnObjectThatIsNotLockedIsNotCreated(t *testing.T) {
	forgetful := buckets()
	b := forgetful[evidenceBucket]
	b.Forgets = true
	forgetful[evidenceBucket] = b
	s := newWorld(t, sims3.New(forgetful)).store(options())
	for range 2 { // the second time it exists, as unlocked as before
		err := s.Create(t.Context(), segment, []byte("data"))
		if !errors.Is(err, s3store.ErrNotLocked) || errors.Is(err, ledger.ErrExists) || !strings.Contains(err.Error(), "put-object-retention") {
			t.Errorf("Create = %v, want ErrNotLocked with how to mend it", err)
		}
	}
}

func TestALockThatCannotBeReadBackIsNotBelieved(t *testing.T) {
	denied := sims3.Fault{Status: 403, Code: "AccessDenied"}
	for _, op := range []sims3.Op{sims3.GetObjectRetention, sims3.ListObjectVersions} {
		s, _, _ := spoilt(t, op, denied)
		if err := s.Create(t.Context(), segment, []byte("data")); err == nil || errors.Is(err, ledger.ErrExists) {
			t.Errorf("Create without %s = %v, want an error", op, err)
		}
		// The next attempt finds it, by when it can be confirmed.
		if err := s.Create(t.Context(), segment, []byte("data")); !errors.Is(err, ledger.ErrExists) {
			t.Errorf("Create after %s works again = %v, want ErrExists", op, err)
		}
	}
}

// TestAHiddenObjectIsNotCreatedAgain: If-None-Match looks past a delete marker,
// so the put of a second writer succeeds, and it must not believe that.
func TestAHiddenObjectIsNotCreatedAgain(t *testing.T) {
	s, w, script := spoilt(t, sims3.PutObject)
	if err := s.Create(t.Context(), segment, []byte("first")); err != nil {
		t.Fatal(err)
	}
	w.Hide(t, segment)
	other := w.store(options())
	if err := other.Create(t.Context(), segment, []byte("second")); !errors.Is(err, ledger.ErrExists) {
		t.Errorf("Create over a delete marker = %v, want ErrExists", err)
	}
	if got, err := other.Read(t.Context(), segment); err != nil || string(got) != "first" {
		t.Errorf("Read = %q, %v, want the first version", got, err)
	}
	if script.calls() != 2 {
		t.Errorf("%d puts, want two that both succeeded", script.calls())
	}
}

// TestADeleteMarkerIsNoAbsence: S3 puts one where nothing ever was, too.
func TestADeleteMarkerIsNoAbsence(t *testing.T) {
	s, w, _ := spoilt(t, sims3.PutObject)
	w.Hide(t, segment)
	if got, err := s.Read(t.Context(), segment); err == nil || errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("Read where only a delete marker is = %q, %v, want neither bytes nor ErrNotFound", got, err)
	}
	if got, err := s.List(t.Context(), "seg/"); err != nil || len(got) != 0 {
		t.Errorf("List = %q, %v, want no object", got, err)
	}
	if err := s.Create(t.Context(), segment, []byte("first")); err != nil {
		t.Errorf("Create where only a delete marker is = %v", err)
	}
	if got, err := s.Read(t.Context(), segment); err != nil || string(got) != "first" {
		t.Errorf("Read = %q, %v, want what was created", got, err)
	}
}

func TestAnAnswerThatDoesNotComeIsWaitedForOnlySoLong(t *testing.T) {
	hang := sims3.Fault{Hangs: true, Applied: true}
	for op, call := range map[sims3.Op]func(context.Context, *s3store.Store) error{
		sims3.PutObject:          func(ctx context.Context, s *s3store.Store) error { return s.Create(ctx, "seg/new", []byte("x")) },
		sims3.GetObjectRetention: func(ctx context.Context, s *s3store.Store) error { return s.Create(ctx, "seg/new", []byte("x")) },
		sims3.GetObject:          func(ctx context.Context, s *s3store.Store) error { _, err := s.Read(ctx, segment); return err },
		sims3.ListObjectVersions: func(ctx context.Context, s *s3store.Store) error { _, err := s.List(ctx, "seg/"); return err },
		sims3.ListObjectsV2:      func(ctx context.Context, s *s3store.Store) error { _, err := s.List(ctx, "view/"); return err },
		sims3.DeleteObject:       func(ctx context.Context, s *s3store.Store) error { return s.Unpublish(ctx, "view/a") },
	} {
		s, w, _ := spoilt(t, op, slices.Repeat([]sims3.Fault{hang}, 9)...)
		if op != sims3.PutObject && op != sims3.GetObjectRetention && op != sims3.ListObjectVersions {
			if err := s.Create(t.Context(), segment, []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		short := options()
		short.CallTimeout = 50 * time.Millisecond
		if err := call(t.Context(), w.store(short)); err == nil || !strings.Contains(err.Error(), "no answer within 50ms") {
			t.Errorf("%s that hangs = %v, want that no answer came", op, err)
		}
		gone := errors.New("the daemon ends")
		ctx, cancel := context.WithCancelCause(t.Context())
		timer := time.AfterFunc(20*time.Millisecond, func() { cancel(gone) })
		if err := call(ctx, s); !errors.Is(err, gone) {
			t.Errorf("%s that hangs when the caller ends = %v, want its cause", op, err)
		}
		timer.Stop()
	}
}

func TestAReadThatFailsIsRepeated(t *testing.T) {
	s, _, script := spoilt(t, sims3.GetObject, sims3.Fault{Status: 503, Code: "SlowDown"}, sims3.Fault{Lost: true})
	if err := s.Create(t.Context(), segment, []byte("data")); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Read(t.Context(), segment); err != nil || string(got) != "data" || script.calls() != 3 {
		t.Errorf("Read = %q, %v after %d requests, want the data at the third", got, err, script.calls())
	}
}

func TestABucketOfSomebodyElseIsRefused(t *testing.T) {
	w := newWorld(t, sims3.New(buckets()))
	opts := options()
	opts.Owner = "999999999999"
	s := w.store(opts)
	for name, err := range map[string]error{
		"Create":    s.Create(t.Context(), segment, []byte("x")),
		"Publish":   s.Publish(t.Context(), "view/a", []byte("x")),
		"Unpublish": s.Unpublish(t.Context(), "view/a"),
		"Extend":    s.Extend(t.Context(), []string{segment}, time.Now().AddDate(1, 0, 0)),
		"Check":     s.Check(t.Context()),
	} {
		if err == nil || !strings.Contains(err.Error(), "bucketOwner") {
			t.Errorf("%s in a bucket of another account = %v, want a refusal that names bucketOwner", name, err)
		}
	}
	if _, err := s.List(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "bucketOwner") {
		t.Errorf("List in a bucket of another account = %v, want a refusal that names bucketOwner", err)
	}
	if _, err := s.Read(t.Context(), segment); err == nil || errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("Read in a bucket of another account = %v, want an error and not ErrNotFound", err)
	}
}
