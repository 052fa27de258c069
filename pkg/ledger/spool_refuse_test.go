package ledger_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/ledger/ledgertest"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// TestAnotherWriterTookThePlaceOfWhatWaits is the end for this writer. The
// files stay for a human, who is told where they are.
func TestAnotherWriterTookThePlaceOfWhatWaits(t *testing.T) {
	a := newAway(t, newKeys(t), trouble{at: -1})
	if err := errors.Join(a.open(), a.before(), a.outage()); err != nil {
		t.Fatal(err)
	}
	size, _ := a.log.Head()
	taken := a.otherWriter(size)
	a.down = false
	_, err := a.log.Recover(t.Context())
	if !errors.Is(err, supervisor.ErrFenced) || !strings.Contains(err.Error(), a.spool.Where()) {
		t.Errorf("Recover = %v, want ErrFenced and the place of the spool", err)
	}
	if _, err := a.log.Append(t.Context(), a.s.Now, runner.Frozen{By: "x", Reason: "y"}); !errors.Is(err, supervisor.ErrFenced) {
		t.Errorf("Append = %v, want ErrFenced", err)
	}
	if n := len(a.spool.Files()); n != 3 {
		t.Fatalf("%d files are left, want all three", n)
	}
	if _, _, err := ledger.Open(t.Context(), taken, a.keys, spoolOptions(a.spool)); !errors.Is(err, supervisor.ErrFenced) ||
		!strings.Contains(err.Error(), a.spool.Where()) || !strings.Contains(err.Error(), "move") {
		t.Errorf("Open = %v, want a refusal that says where the files are and what to do", err)
	}
	for index := range a.spool.Files() {
		a.spool.Set(index, nil)
	}
	if _, _, err := ledger.Open(t.Context(), taken, a.keys, spoolOptions(a.spool)); err != nil {
		t.Errorf("Open after the files were moved away = %v", err)
	}
}

// otherWriter writes another record where the spool's first one belongs.
func (a *away) otherWriter(size uint64) *ledgertest.Mem {
	t := a.t
	t.Helper()
	twin := a.mem.With(nil)
	log := openLog(t, twin, a.keys)
	rec, err := log.Append(t.Context(), a.s.Now, runner.Heartbeat{OpenJobs: 9})
	if err != nil || rec.Index != size {
		t.Fatalf("the other writer wrote record %d, %v, want %d", rec.Index, err, size)
	}
	segment, err := twin.Read(t.Context(), evidence.SegmentName(size))
	if err != nil {
		t.Fatal(err)
	}
	a.down = false
	if err := a.mem.Create(t.Context(), evidence.SegmentName(size), segment); err != nil {
		t.Fatal(err)
	}
	return twin
}

func TestASpoolThatIsNotWhatWasWrittenIsRefused(t *testing.T) {
	keys := newKeys(t)
	for name, damage := range map[string]struct {
		do   func(spool *ledgertest.MemSpool, first uint64)
		says string
	}{
		"a flipped bit": {func(s *ledgertest.MemSpool, first uint64) {
			b := s.Files()[first+1]
			b[len(b)/2] ^= 1
			s.Set(first+1, b)
		}, "is not what this daemon signed"},
		"cut off":   {func(s *ledgertest.MemSpool, first uint64) { s.Set(first, s.Files()[first][:100]) }, "is not what this daemon signed"},
		"empty":     {func(s *ledgertest.MemSpool, first uint64) { s.Set(first, []byte{}) }, "is not what this daemon signed"},
		"a hole":    {func(s *ledgertest.MemSpool, first uint64) { s.Set(first+1, nil) }, "does not follow the log"},
		"two alike": {func(s *ledgertest.MemSpool, first uint64) { s.Set(first+1, s.Files()[first]) }, "is not what this daemon signed"},
		"changed places": {func(s *ledgertest.MemSpool, first uint64) {
			one, two := s.Files()[first], s.Files()[first+1]
			s.Set(first, two)
			s.Set(first+1, one)
		}, "is not what this daemon signed"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAway(t, keys, trouble{at: -1})
			if err := errors.Join(a.open(), a.before(), a.outage()); err != nil {
				t.Fatal(err)
			}
			a.down = false
			first := a.log.Spool().First
			damage.do(a.spool, first)
			_, _, err := ledger.Open(t.Context(), a.mem, keys, spoolOptions(a.spool))
			if err == nil || errors.Is(err, supervisor.ErrAway) || !strings.Contains(err.Error(), damage.says) || !strings.Contains(err.Error(), "move this record and those after it away") {
				t.Errorf("Open = %v, want %q and how to mend it", err, damage.says)
			}
			if rep := wantClean(t, a.mem.FS(), keys); rep.Size != first {
				t.Errorf("the log grew to %d records by a spool that was refused, want %d", rep.Size, first)
			}
		})
	}
}
