package endtoend

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/sim/world"
)

// eve is five minutes before the year 2001.
func eve() time.Duration {
	bubble := time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)
	return time.Date(2001, time.January, 1, 0, 0, 0, 0, time.UTC).Sub(bubble) - 5*time.Minute
}

// TestTheYearChangesAmidADeploy: the job is approved and starts in one year and
// ends in the next. Its records stand in two trees, and it is one story to an
// auditor and to the daemon that is started again.
func TestTheYearChangesAmidADeploy(t *testing.T) {
	run(t, options{at: -1, begin: eve()}, func(t *testing.T, b *bench) {
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 8*time.Minute), "carol")
		b.until("started", 4*time.Minute, func() bool { return b.startedOn(deploy.JobID) != nil })
		b.until("the new year", 20*time.Minute, func() bool {
			return time.Now().UTC().Year() == 2001 && b.report().State.Closed == nil && strings.Contains(b.report().Head, "/2001\n")
		})
		b.kill()
		b.start()
		b.until("sealed", 30*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })
		next := b.dispatch(world.Deploy("v1.0.1", "bob", "bob", 20*time.Second), "carol")
		b.until("the next deploy is sealed", 30*time.Minute, func() bool { return b.sealed(next.JobID) != nil })

		rep := b.report()
		var years []int
		for i, rec := range rep.Records {
			if e, closed := rec.Event.(runner.Closed); closed {
				years = append(years, e.Year)
				if rep.Records[i+1].Event.Kind() != runner.KindContinued {
					t.Errorf("record %d follows the end of the year: %s", i+1, rep.Records[i+1].Event.Kind())
				}
			}
		}
		if len(years) != 1 || years[0] != 2001 {
			t.Errorf("the log went on in the years %v, want 2001 once", years)
		}
		r := b.sealed(deploy.JobID)
		if r.Started.At.Year() != 2000 || r.Sealed.At.Year() != 2001 || r.Sealed.Event.Outcome != runner.OutcomeCompleted {
			t.Errorf("started %s, sealed %s as %s, want one year each, completed", r.Started.At, r.Sealed.At, r.Sealed.Event.Outcome)
		}
		x, err := evidence.Explain(rep, deploy.JobID, nil)
		if err != nil || !x.Verified || len(x.Stories) != 1 || !strings.Contains(x.Stories[0].Outcome, "sealed") {
			t.Errorf("Explain = %+v, %v, want one story to its seal", x, err)
		}
	})
}

// TestTroubleAtEveryWriteOfANewYear spoils one of the first writes of the new
// year after the other: the attachments in effect, the record that begins the
// year and its checkpoint, and those that follow.
func TestTroubleAtEveryWriteOfANewYear(t *testing.T) {
	for _, f := range flavours {
		for _, spool := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, spool=%t", f.name, spool), func(t *testing.T) {
				t.Parallel()
				for at := range 7 {
					run(t, options{at: at, flavour: f, only: "create 2001/", spool: spool, hosts: 3, begin: eve() + 2*time.Minute}, func(t *testing.T, b *bench) {
						deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 4*time.Minute), "carol")
						if fired := b.toItsEnd(deploy); !strings.HasPrefix(fired, "create 2001/") {
							t.Errorf("write %d: %q went wrong, want one of the new year", at, fired)
						}
						if closed := b.state().Closed; closed != nil {
							t.Errorf("write %d: the year was closed by record %d and nothing follows", at, closed.Index)
						}
					})
				}
			})
		}
	}
}

// TestTheStoreIsAwayOverNewYear: the job ends and its host is gone while the
// log's store is away, before and after midnight. What waits keeps its place in
// the old year, and the new one begins when the store is back.
func TestTheStoreIsAwayOverNewYear(t *testing.T) {
	for _, duration := range []time.Duration{time.Minute, 6 * time.Minute} {
		t.Run(duration.String(), func(t *testing.T) {
			run(t, options{at: -1, spool: true, begin: eve()}, func(t *testing.T, b *bench) {
				deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", duration), "carol")
				b.until("started", 4*time.Minute, func() bool { return b.startedOn(deploy.JobID) != nil })
				b.faults.setAway(true)
				b.until("the host is gone", time.Hour, func() bool {
					return time.Now().UTC().Year() == 2001 && b.phaseShown(b.startedOn(deploy.JobID).Name()) == runner.KindTerminated
				})
				if rep := b.report(); rep.LastAt.Year() != 2000 {
					t.Errorf("the store holds a record of %s, and it was away", rep.LastAt)
				}
				b.faults.setAway(false)
				b.until("sealed", time.Hour, func() bool { return b.sealed(deploy.JobID) != nil && b.state().Closed == nil })
				rep := b.report()
				if n := len(rep.State.Outages); n != 1 || !strings.Contains(rep.Head, "/2001\n") {
					t.Errorf("%d outages are told of, and the newest checkpoint is %q, want one and that of 2001", n, rep.Head)
				}
			})
		})
	}
}

// TestTheDaemonIsOffOverNewYear: the silence is explained in the year in which
// it began, before that year is closed.
func TestTheDaemonIsOffOverNewYear(t *testing.T) {
	run(t, options{at: -1, begin: eve()}, func(t *testing.T, b *bench) {
		b.until("opened", time.Minute, func() bool { return b.openings() == 1 })
		b.kill()
		pause(t.Context(), 3*time.Hour)
		b.start()
		b.until("opened again", time.Minute, func() bool { return b.openings() == 2 })
		var kinds []runner.Kind
		for _, rec := range b.report().Records {
			kinds = append(kinds, rec.Event.Kind())
		}
		want := []runner.Kind{runner.KindGap, runner.KindClosed, runner.KindContinued, runner.KindOpened}
		if i := slices.Index(kinds, runner.KindGap); i < 0 || !slices.Equal(kinds[i:], want) {
			t.Errorf("the log holds %v, want it to end with %v", kinds, want)
		}
	})
}
