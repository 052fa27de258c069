package s3store_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/runnerward/runnerward/pkg/sim/s3"
)

// TestAFolderIsReadAhead: S3 answers only when eight objects are asked for at
// once, so a reader that asks for one after the other gets none.
func TestAFolderIsReadAhead(t *testing.T) {
	for _, folder := range []string{"seg/", "2027/seg/"} {
		t.Run(folder, func(t *testing.T) { readAhead(t, folder) })
	}
}

func readAhead(t *testing.T, folder string) {
	const objects, atOnce = 40, 8
	sim := sims3.New(buckets())
	asked, enough := 0, make(chan struct{})
	var mu sync.Mutex
	sim.Fault = func(op sims3.Op, _ string) sims3.Fault {
		if op != sims3.GetObject {
			return sims3.Fault{}
		}
		mu.Lock()
		if asked++; asked == atOnce {
			close(enough)
		}
		mu.Unlock()
		<-enough
		return sims3.Fault{}
	}
	s := newWorld(t, sim).store(options())
	name := func(i int) string { return fmt.Sprintf("%s%020d", folder, i) }
	for i := range objects {
		if err := s.Create(t.Context(), name(i), fmt.Appendf(nil, "record %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		names, err := s.List(t.Context(), folder)
		if err != nil || len(names) != objects {
			t.Fatalf("List = %d names, %v, want %d", len(names), err, objects)
		}
		for i := range objects {
			if got, err := s.Read(t.Context(), name(i)); err != nil || string(got) != fmt.Sprintf("record %d", i) {
				t.Fatalf("Read(%d) = %q, %v", i, got, err)
			}
		}
	}
	if asked != 2*objects {
		t.Errorf("%d requests for %d objects read twice, want one each", asked, objects)
	}
}

// TestWhatCouldNotBeReadAheadIsReadAgain, for whoever really asks for it.
func TestWhatCouldNotBeReadAheadIsReadAgain(t *testing.T) {
	sim := sims3.New(buckets())
	var mu sync.Mutex
	failed := 0
	sim.Fault = func(op sims3.Op, key string) sims3.Fault {
		mu.Lock()
		defer mu.Unlock()
		if op == sims3.GetObject && key == prefix+"/seg/b" && failed < 4 {
			failed++
			return sims3.Fault{Status: 503, Code: "SlowDown"}
		}
		return sims3.Fault{}
	}
	s := newWorld(t, sim).store(options())
	for _, name := range []string{"seg/a", "seg/b"} {
		if err := s.Create(t.Context(), name, []byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.List(t.Context(), "seg/"); err != nil {
		t.Fatal(err)
	}
	wantRead := func(name string) {
		if got, err := s.Read(t.Context(), name); err != nil || string(got) != name {
			t.Errorf("Read(%s) = %q, %v", name, got, err)
		}
	}
	wantRead("seg/a")
	wantRead("seg/b")
	if failed != 4 {
		t.Errorf("%d failures, want every attempt of the reading ahead", failed)
	}
}
