package evidence_test

import (
	"testing"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/runner/runnertest"
)

// BenchmarkVerify verifies a ledger of completed jobs and reports the time of
// one record.
func BenchmarkVerify(b *testing.B) {
	f := newForge(b)
	s := f.script()
	for i := range 20 {
		if err := s.Tell(runnertest.NewCast(i), runnertest.CompletedStory()); err != nil {
			b.Fatal(err)
		}
	}
	f.publish()
	for b.Loop() {
		rep, err := evidence.Verify(f.files, f.root)
		if err != nil || !rep.OK() {
			b.Fatal(rep.Findings, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(s.Records)), "ns/record")
}
