package ledgertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"testing"

	"github.com/runnerward/runnerward/pkg/ledger"
)

// Subject is the storage that one part of the suite is about.
type Subject struct {
	// Open opens the storage as another process would, every time anew.
	Open func(t testing.TB) ledger.Store
	// FS shows the storage to a verifier. Where it is an [evidence.Objects]
	// too, versions and locks are verified with it.
	FS func(t testing.TB) fs.FS
	// Versions is nil for storage that keeps no versions.
	Versions Versions
}

// Versions is what somebody with rights of their own can do to an object.
type Versions interface {
	// Overwrite adds a version, Hide a delete marker.
	Overwrite(t testing.TB, name string, data []byte)
	Hide(t testing.TB, name string)
}

// TestStore is the conformance suite of [ledger.Store], on its own and under a
// [ledger.Log]. The factory makes empty storage for each part. Durability over
// the loss of power is the one duty that it cannot test.
func TestStore(t *testing.T, factory func(t *testing.T) Subject) {
	parts := map[string]func(*testing.T, ledger.Store){
		"an object is read as it was created":                testRead,
		"a second create changes nothing":                    testCreateOnce,
		"of racing writers one wins each name":               testRace,
		"a list is sorted and keeps to its prefix":           testList,
		"a derived object is replaced and removed":           testPublish,
		"names outside the contract are refused":             testNames,
		"a cancelled call has no effect and says the cause":  testCancelled,
		"objects do not share memory with their caller":      testAlias,
		"an object that does not exist is said not to exist": testMissing,
	}
	for name, part := range parts {
		t.Run(name, func(t *testing.T) { part(t, factory(t).Open(t)) })
	}
	for name, part := range map[string]func(*testing.T, Subject){
		"what was created is there for the next process":        testReopen,
		"writers of several processes race for a name":          testRaceOfProcesses,
		"a newer version and a delete marker change nothing":    testVersions,
		"a log goes on over restarts and verifies":              testLogGoesOn,
		"a log goes on over New Year":                           testNewYear,
		"an answer that was lost is recognised":                 testLostAnswers,
		"a crash at any write is mended by the next process":    testCrashes,
		"a second writer fences the first":                      testFence,
		"a log that was rolled back is found with a checkpoint": testRollback,
	} {
		t.Run(name, func(t *testing.T) { part(t, factory(t)) })
	}
}

func create(t *testing.T, s ledger.Store, name string, data []byte) {
	t.Helper()
	if err := s.Create(t.Context(), name, data); err != nil {
		t.Fatalf("Create(%s) = %v", name, err)
	}
}

func wantContent(t *testing.T, s ledger.Store, name string, want []byte) {
	t.Helper()
	got, err := s.Read(t.Context(), name)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("Read(%s) = %q, %v, want %q", name, got, err, want)
	}
}

func testRead(t *testing.T, s ledger.Store) {
	for name, data := range map[string][]byte{
		"seg/00000000000000000000": bytes.Repeat([]byte{0, 1, 0xff}, 40_000),
		"blobs/sha256/empty":       {},
		"other/deep/folder/object": []byte("x"),
	} {
		create(t, s, name, data)
		wantContent(t, s, name, data)
	}
}

func testCreateOnce(t *testing.T, s ledger.Store) {
	const name = "seg/00000000000000000001"
	create(t, s, name, []byte("first"))
	for _, again := range []string{"second", "first", ""} {
		if err := s.Create(t.Context(), name, []byte(again)); !errors.Is(err, ledger.ErrExists) {
			t.Errorf("Create of an object that exists, with %q = %v, want ErrExists", again, err)
		}
	}
	wantContent(t, s, name, []byte("first"))
}

func testRace(t *testing.T, s ledger.Store) { race(t, s) }

// race lets writers create the same names, each through one of the stores.
func race(t *testing.T, stores ...ledger.Store) {
	t.Helper()
	const writers, rounds = 24, 6
	s := stores[0]
	for round := range rounds {
		name := fmt.Sprintf("seg/%020d", round)
		errs := make([]error, writers)
		start := make(chan struct{})
		var group sync.WaitGroup
		for w := range writers {
			group.Go(func() {
				<-start
				errs[w] = stores[w%len(stores)].Create(t.Context(), name, fmt.Appendf(nil, "writer %d", w))
			})
		}
		close(start)
		group.Wait()
		winner := -1
		for w, err := range errs {
			switch {
			case err == nil && winner < 0:
				winner = w
			case err == nil:
				t.Errorf("writers %d and %d both created %s", winner, w, name)
			case !errors.Is(err, ledger.ErrExists):
				t.Errorf("writer %d of %s = %v, want ErrExists", w, name, err)
			}
		}
		if winner < 0 {
			t.Fatalf("nobody created %s", name)
		}
		wantContent(t, s, name, fmt.Appendf(nil, "writer %d", winner))
	}
}

func testList(t *testing.T, s ledger.Store) {
	for _, name := range []string{"seg/b", "seg/a", "segment", "blobs/sha256/c"} {
		create(t, s, name, []byte(name))
	}
	for prefix, want := range map[string][]string{
		"seg/":   {"seg/a", "seg/b"},
		"seg":    {"seg/a", "seg/b", "segment"},
		"seg/b":  {"seg/b"},
		"":       {"blobs/sha256/c", "seg/a", "seg/b", "segment"},
		"none/":  {},
		"blobs/": {"blobs/sha256/c"},
	} {
		got, err := s.List(t.Context(), prefix)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("List(%q) = %q, %v, want %q", prefix, got, err, want)
		}
	}
}

func testPublish(t *testing.T, s ledger.Store) {
	const name = "view/tile/0/000.p/3"
	for _, data := range []string{"a longer text at first", "short", ""} {
		if err := s.Publish(t.Context(), name, []byte(data)); err != nil {
			t.Fatalf("Publish = %v", err)
		}
		wantContent(t, s, name, []byte(data))
	}
	for range 2 {
		if err := s.Unpublish(t.Context(), name); err != nil {
			t.Errorf("Unpublish = %v", err)
		}
	}
	if _, err := s.Read(t.Context(), name); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("Read of an object that was removed = %v, want ErrNotFound", err)
	}
}

func testNames(t *testing.T, s ledger.Store) {
	for _, name := range []string{"", ".", "/seg/x", "../x", "seg/../../x", "seg//x", "seg/", "tmp/x", "view/checkpoint"} {
		if err := s.Create(t.Context(), name, []byte("x")); err == nil {
			t.Errorf("Create(%q) = nil, want a refusal", name)
		}
	}
	for _, name := range []string{"", "view/", "view/../seg/x", "seg/x", "tmp/x"} {
		if err := s.Publish(t.Context(), name, []byte("x")); err == nil {
			t.Errorf("Publish(%q) = nil, want a refusal", name)
		}
		if err := s.Unpublish(t.Context(), name); err == nil {
			t.Errorf("Unpublish(%q) = nil, want a refusal", name)
		}
	}
	if got, err := s.List(t.Context(), ""); err != nil || len(got) != 0 {
		t.Errorf("List after refusals = %q, %v, want nothing", got, err)
	}
}

func testCancelled(t *testing.T, s ledger.Store) {
	cause := errors.New("because")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if err := s.Create(ctx, "seg/a", []byte("x")); !errors.Is(err, cause) {
		t.Errorf("Create = %v, want the cause", err)
	}
	if err := s.Publish(ctx, "view/a", []byte("x")); !errors.Is(err, cause) {
		t.Errorf("Publish = %v, want the cause", err)
	}
	if _, err := s.Read(ctx, "seg/a"); !errors.Is(err, cause) {
		t.Errorf("Read = %v, want the cause", err)
	}
	if _, err := s.List(ctx, ""); !errors.Is(err, cause) {
		t.Errorf("List = %v, want the cause", err)
	}
	if got, err := s.List(t.Context(), ""); err != nil || len(got) != 0 {
		t.Errorf("List after cancelled writes = %q, %v, want nothing", got, err)
	}
}

func testAlias(t *testing.T, s ledger.Store) {
	data := []byte("given")
	create(t, s, "seg/a", data)
	data[0] = 'X'
	wantContent(t, s, "seg/a", []byte("given"))
	got, err := s.Read(t.Context(), "seg/a")
	if err != nil {
		t.Fatal(err)
	}
	got[0] = 'X'
	wantContent(t, s, "seg/a", []byte("given"))
}

func testMissing(t *testing.T, s ledger.Store) {
	for _, name := range []string{"seg/a", "nowhere/b", "view/checkpoint"} {
		if _, err := s.Read(t.Context(), name); !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("Read(%s) = %v, want ErrNotFound", name, err)
		}
	}
}
