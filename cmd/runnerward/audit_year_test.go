package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/runner/runnertest"
)

// twoYears is a ledger in which job 0 was done over midnight of New Year's Eve
// and job 1 after it.
func twoYears(t *testing.T) books {
	t.Helper()
	return keep(t, func(s *runnertest.Script) {
		s.Now = time.Date(2026, time.December, 31, 23, 59, 55, 0, time.UTC)
		if err := s.Open(); err != nil {
			t.Fatal(err)
		}
		for job := range 2 {
			tell(t, s, runnertest.NewCast(job), runnertest.CompletedStory())
		}
	})
}

func TestAuditorsReadAllYearsOrTheLaterOnes(t *testing.T) {
	b := twoYears(t)
	checkpoints := b.files(t, "2027/checkpoints/")
	newest := filepath.Join(b.dir, checkpoints[len(checkpoints)-1])
	b.verify(t, "--witnessed", newest).want(t, exitOK, fmt.Sprintf("records %d", b.size), "no findings")
	first, next := string(runnertest.NewCast(0).Job), string(runnertest.NewCast(1).Job)
	b.explain(t, first).want(t, exitOK, "sealed")

	later := b.copied(t)
	later.remove(t, "seg", "checkpoints", "blobs", "view/checkpoint", "view/tile")
	alone := later.verify(t)
	alone.want(t, exitOK, "records before this year are not at hand", "no findings")
	later.explain(t, next).want(t, exitOK, "sealed")
	later.explain(t, first).want(t, exitFailed, "nothing in this log is about")

	torn := b.copied(t)
	torn.remove(t, "2027/"+evidence.SegmentName(0))
	torn.verify(t).want(t, exitUnproven, "2027/"+evidence.SegmentName(1)+": invariant 7 (segment-missing)")
}

func TestEveryYearOfABucketIsExamined(t *testing.T) {
	b, c := twoYears(t), newCloud(t)
	c.keep(t, b)
	verify := append([]string{"verify", "--root", b.root}, c.flags()...)
	whole := call(t, verify...)
	whole.want(t, exitOK, "no findings")
	if strings.Contains(whole.out, "note ") {
		t.Errorf("verify of the bucket itself has notes:\n%s", whole.out)
	}
	segment, checkpoint := "2027/"+evidence.SegmentName(2), "2027/"+evidence.CheckpointName(1)
	c.sim.Overwrite("evidence", "prod/"+segment, []byte("another record"))
	c.sim.Hide("evidence", "prod/"+checkpoint)
	c.sim.Overwrite("evidence", "prod/2027/surprise", []byte("x"))
	found := call(t, verify...)
	found.want(t, exitUnproven, segment+": invariant 7 (versions)")
	found.want(t, exitUnproven, checkpoint+": invariant 7 (delete-marker)")
	found.want(t, exitUnproven, "2027/surprise: invariant 7 (unexpected-file)")
}
