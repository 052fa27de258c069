package endtoend

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/sim/world"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// startedOn is the runner that this job started on, nil until then.
func (b *bench) startedOn(job string) *runner.Runner {
	for _, r := range b.state().Runners {
		if r.Started != nil && r.Started.Event.Job == runner.JobID(job) {
			return r
		}
	}
	return nil
}

// segments is how many records the store holds, in all years.
func (b *bench) segments() (n int) {
	b.t.Helper()
	for _, pattern := range []string{"seg/*", "[0-9]*/seg/*"} {
		names, err := fs.Glob(os.DirFS(b.dir+"/ledger"), pattern)
		if err != nil {
			b.t.Fatal(err)
		}
		n += len(names)
	}
	return n
}

// acknowledged counts the messages that GitHub was told are taken.
func (b *bench) acknowledged() (n int) {
	for _, r := range b.world.GitHub.Requests() {
		if r.Method == "DELETE" && strings.HasPrefix(r.Path, "/scalesets/message") {
			n++
		}
	}
	return n
}

// phaseShown is what the status page says of a runner.
func (b *bench) phaseShown(name runner.Name) runner.Kind {
	for _, r := range b.view().Runners {
		if r.Name == name {
			return r.Phase
		}
	}
	return ""
}

// spooledRecords are the records that tell of an outage.
func (b *bench) spooledRecords() (out []runner.Spooled) {
	for _, rec := range b.report().Records {
		if e, ok := rec.Event.(runner.Spooled); ok {
			out = append(out, e)
		}
	}
	return out
}

// TestStoreIsAwayForHalfAnHour: one job is running when the log's store goes
// away, a second one is then given to a runner that waits, a third one is only
// then approved.
func TestStoreIsAwayForHalfAnHour(t *testing.T) {
	var held atomic.Value // the job that GitHub gives to nobody yet
	held.Store("")
	run(t, options{at: -1, hosts: 4, spool: true, assign: func(job string, idle []string) string {
		if job == held.Load() {
			return ""
		}
		return idle[0]
	}}, func(t *testing.T, b *bench) {
		running := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 5*time.Minute), "carol")
		b.until("the first job runs", 20*time.Minute, func() bool { return b.startedOn(running.JobID) != nil })
		blocked, err := b.world.GitHub.Dispatch(world.Deploy("v1.0.1", "bob", "bob", 10*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		held.Store(blocked.JobID)
		if err := b.world.GitHub.Approve(blocked.ID, "carol"); err != nil {
			t.Fatal(err)
		}
		b.until("a runner waits for the second", 4*time.Minute, func() bool { return b.phase(runner.KindReleased) != nil })
		waits := b.phase(runner.KindReleased).Name()

		first := b.startedOn(running.JobID)
		b.faults.setAway(true)
		held.Store("")
		late := b.dispatch(world.Deploy("v1.0.2", "bob", "bob", 10*time.Second), "carol")
		records, acks, registered := b.segments(), b.acknowledged(), b.count("POST", "/generatejitconfig")
		pause(t.Context(), 30*time.Minute)

		if !b.over(first) || b.phaseShown(first.Name()) != runner.KindTerminated {
			t.Errorf("EC2 shows the host terminated: %t, seen in phase %s; want it ended and seen terminated\n%s",
				b.over(first), b.phaseShown(first.Name()), b.describe())
		}
		if n := b.segments(); n != records {
			t.Errorf("the store holds %d records, %d before it went away", n, records)
		}
		if n := b.acknowledged(); n != acks {
			t.Errorf("%d messages were acknowledged while nothing could be recorded", n-acks)
		}
		if n := b.count("POST", "/generatejitconfig"); n != registered {
			t.Errorf("%d runners were registered while the store was away", n-registered)
		}
		if j, _ := b.world.GitHub.Job(blocked.JobID); j.Status != "in_progress" || j.RunnerName != string(waits) || j.StepsRan {
			t.Errorf("the second job is %s on %q, steps ran %t; want its hook to block on %s", j.Status, j.RunnerName, j.StepsRan, waits)
		}
		b.shownAway()

		b.faults.setAway(false)
		b.until("all three are sealed", 2*time.Hour, func() bool {
			return b.sealed(running.JobID) != nil && b.sealed(blocked.JobID) != nil && b.sealed(late.JobID) != nil && b.quiet()
		})
		if r := b.sealed(blocked.JobID); r.Name() != waits {
			t.Errorf("the second job ran on %s, its hook had waited on %s", r.Name(), waits)
		}
		if r := b.sealed(running.JobID); r.Sealed.Event.Job.Result != runner.ResultSucceeded || r.Overdue != nil {
			t.Errorf("the first job is sealed as %s, overdue %t; want succeeded and in time", r.Sealed.Event.Job.Result, r.Overdue != nil)
		}
		b.toldOnce(first)
	})
}

// shownAway checks what on-call sees while the store is away.
func (b *bench) shownAway() {
	b.t.Helper()
	v := b.view()
	if v.CanDeploy || !v.Ledger.Away || v.Ledger.Spooled < 4 || v.Ledger.SpooledSince.IsZero() {
		b.t.Errorf("the view says can deploy %t, ledger %+v; want no, away, and at least four records", v.CanDeploy, v.Ledger)
	}
	says := fmt.Sprintf("the log's store is away, %d records wait in the spool", v.Ledger.Spooled)
	if !slices.ContainsFunc(v.Checks, func(c supervisor.HealthCheck) bool {
		return c.Name == "ledger" && !c.OK && strings.Contains(c.Detail, says) && strings.Contains(c.Detail, "503")
	}) {
		b.t.Errorf("no failing check says %q and why: %+v", says, v.Checks)
	}
}

// toldOnce checks that one record tells of the outage, with the records of the
// host's end among those it names, and that the spool is empty.
func (b *bench) toldOnce(r *runner.Runner) {
	b.t.Helper()
	told := b.spooledRecords()
	if len(told) != 1 {
		b.t.Fatalf("%d records tell of the outage, want one", len(told))
	}
	r = b.state().Runners[r.Name()]
	for _, index := range []uint64{r.Completed.Index, r.Teardown.Index, r.Ending.Index, r.Terminated.Index} {
		if index < told[0].First || index > told[0].Last {
			b.t.Errorf("record %d of the host's end is not among those that waited, %+v", index, told[0])
		}
	}
	if left, err := os.ReadDir(b.dir + "/spool"); err != nil || len(left) != 0 {
		b.t.Errorf("%d files are left in the spool, %v", len(left), err)
	}
}

// TestDaemonEndsWhileTheStoreIsAway and another one starts on its spool: it
// waits for the store, and then goes on from every record.
func TestDaemonEndsWhileTheStoreIsAway(t *testing.T) {
	run(t, options{at: -1, spool: true}, func(t *testing.T, b *bench) {
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", time.Minute), "carol")
		b.until("it runs", 20*time.Minute, func() bool { return b.startedOn(deploy.JobID) != nil })
		r := b.startedOn(deploy.JobID)
		b.faults.setAway(true)
		b.until("the teardown waits in the spool", 10*time.Minute, func() bool { return b.phaseShown(r.Name()) == runner.KindTeardown })
		b.crash()
		pause(t.Context(), 10*time.Minute)
		records := b.segments()
		if left, err := os.ReadDir(b.dir + "/spool"); err != nil || len(left) < 2 {
			t.Errorf("%d records are in the spool, %v; want what the killed daemon kept", len(left), err)
		}
		b.faults.setAway(false)
		b.until("sealed", time.Hour, func() bool { return b.sealed(deploy.JobID) != nil && b.quiet() })
		if told := b.spooledRecords(); len(told) != 1 || told[0].First != uint64(records) {
			t.Errorf("the log says %+v of the outage, want one record, of those from %d on", told, records)
		}
		kinds := []runner.Kind{}
		for _, rec := range b.report().Records[records:] {
			kinds = append(kinds, rec.Event.Kind())
		}
		if i := slices.Index(kinds, runner.KindOpened); i < 0 || i < slices.Index(kinds, runner.KindSpooled) {
			t.Errorf("the log goes on with %v, want what waited, what tells of it, and only then the new daemon", kinds)
		}
	})
}

// TestFreezeWhileTheStoreIsAwayHolds at once, over a restart, and until the
// store is there again to take back what it says.
func TestFreezeWhileTheStoreIsAwayHolds(t *testing.T) {
	run(t, options{at: -1, spool: true}, func(t *testing.T, b *bench) {
		b.until("listening", time.Minute, func() bool { return b.state().Opened != nil })
		b.faults.setAway(true)
		if err := b.daemon.sup.Freeze(t.Context(), "cert:oncall", "CVE-2026-0001"); err != nil {
			t.Fatalf("Freeze = %v, want it in the spool", err)
		}
		if v := b.view(); v.Frozen == nil || v.Ledger.Spooled != 1 {
			t.Errorf("the view says frozen %+v, %d records in the spool; want the freeze", v.Frozen, v.Ledger.Spooled)
		}
		if err := b.daemon.sup.Unfreeze(t.Context(), "cert:oncall"); !errors.Is(err, supervisor.ErrAway) {
			t.Errorf("Unfreeze = %v, want that the store is away", err)
		}
		b.crash()
		pause(t.Context(), time.Minute)
		b.faults.setAway(false)
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", time.Second), "carol")
		pause(t.Context(), 8*time.Minute)
		if st := b.state(); st.Frozen == nil || len(st.Runners) != 0 {
			t.Fatalf("frozen %+v with %d runners, want the freeze and none", st.Frozen, len(st.Runners))
		}
		if err := b.daemon.sup.Unfreeze(t.Context(), "cert:oncall"); err != nil {
			t.Fatal(err)
		}
		b.until("sealed", time.Hour, func() bool { return b.sealed(deploy.JobID) != nil })
	})
}

// TestSilenceWhileTheStoreIsAwayIsExplained: nothing happens for hours, with
// one record in the spool before and one after. Their times are honest, and a
// gap record says that the log was silent between them.
func TestSilenceWhileTheStoreIsAwayIsExplained(t *testing.T) {
	run(t, options{at: -1, spool: true}, func(t *testing.T, b *bench) {
		b.until("listening", time.Minute, func() bool { return b.state().Opened != nil })
		b.faults.setAway(true)
		for range 2 {
			if err := b.daemon.sup.Freeze(t.Context(), "cert:oncall", "CVE-2026-0001"); err != nil {
				t.Fatal(err)
			}
			pause(t.Context(), 3*time.Hour)
		}
		b.faults.setAway(false)
		b.until("the store is back", 5*time.Minute, func() bool { return len(b.spooledRecords()) == 1 })
		var kinds []runner.Kind
		for _, rec := range b.report().Records {
			if k := rec.Event.Kind(); k == runner.KindFrozen || k == runner.KindGap || k == runner.KindSpooled {
				kinds = append(kinds, k)
			}
		}
		want := []runner.Kind{runner.KindFrozen, runner.KindGap, runner.KindFrozen, runner.KindGap, runner.KindSpooled}
		if !slices.Equal(kinds, want) {
			t.Errorf("the log says %v, want %v", kinds, want)
		}
	})
}

// TestHookThatWaitedBeforeAnOutageIsNotRefusedAfterIt: GitHub does not answer
// about the job when the store goes away, and a little longer than the store.
func TestHookThatWaitedBeforeAnOutageIsNotRefusedAfterIt(t *testing.T) {
	var give atomic.Bool
	run(t, options{at: -1, spool: true, assign: func(_ string, idle []string) string {
		if !give.Load() {
			return ""
		}
		return idle[0]
	}}, func(t *testing.T, b *bench) {
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 10*time.Second), "carol")
		b.until("a runner waits", 10*time.Minute, func() bool { return b.phase(runner.KindReleased) != nil })
		waits := b.phase(runner.KindReleased).Name()
		b.world.GitHub.Inject(simgithub.Fault{
			Kind: simgithub.FaultStatus, Method: http.MethodGet, Count: -1, Status: http.StatusBadGateway,
			Path: fmt.Sprintf("/api/v3/repos/%s/%s/actions/runs/%d", world.Org, world.Repository, deploy.ID),
		})
		give.Store(true)
		// GitHub's word that it started is on record too, so that no message is
		// left whose loss would open another session: that gives hooks time anew.
		b.until("its hook asks", 100*time.Second, func() bool {
			j := b.state().Jobs[runner.JobID(deploy.JobID)]
			return j != nil && j.Reported != nil
		})
		b.faults.setAway(true)
		if err := b.daemon.sup.Freeze(t.Context(), "cert:oncall", "CVE-2026-0001"); err != nil {
			t.Fatal(err)
		}
		pause(t.Context(), 30*time.Minute)
		b.faults.setAway(false)
		b.until("the store is back", 5*time.Minute, func() bool { return len(b.spooledRecords()) == 1 })
		if err := b.daemon.sup.Unfreeze(t.Context(), "cert:oncall"); err != nil {
			t.Fatal(err)
		}
		pause(t.Context(), time.Minute)
		b.world.GitHub.ClearFaults()
		b.until("sealed", time.Hour, func() bool { return b.sealed(deploy.JobID) != nil && b.quiet() })
		if r := b.sealed(deploy.JobID); r.Name() != waits {
			t.Errorf("the job ran on %s, its hook had waited on %s", r.Name(), waits)
		}
	})
}

// beginnings counts what may not happen on the strength of a record that is in
// the spool only.
type beginnings struct{ acknowledged, pods, registrations, connected, stepsRan int }

func (b *bench) beginnings(job string) beginnings {
	n := beginnings{acknowledged: b.acknowledged(), registrations: b.count("POST", "/generatejitconfig")}
	for _, r := range b.world.GitHub.Requests() {
		if r.Method == "POST" && strings.HasPrefix(r.Path, "/broker/") && strings.HasSuffix(r.Path, "session") {
			n.connected++
		}
	}
	for _, r := range b.world.Cluster.Requests() {
		if r.Verb == "create" && r.Resource == "pods" {
			n.pods++
		}
	}
	if j, _ := b.world.GitHub.Job(job); j.StepsRan {
		n.stepsRan++
	}
	return n
}

// TestNothingBeginsOnARecordInTheSpool: the store goes away with the very
// record that lets something begin, which may have reached it or not. The
// record goes into the spool; what it allows waits for the store, for longer
// than any deadline that we alone could end, and then happens on the same host.
func TestNothingBeginsOnARecordInTheSpool(t *testing.T) {
	for _, kind := range []runner.Kind{runner.KindOffered, runner.KindAuthorized, runner.KindClaimed,
		runner.KindBound, runner.KindReleased, runner.KindStarted} {
		for _, applied := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, applied=%t", kind, applied), func(t *testing.T) {
				run(t, options{at: -1, hosts: 3, spool: true}, func(t *testing.T, b *bench) {
					b.faults.mu.Lock()
					b.faults.trap, b.faults.trapApplied = kind, applied
					b.faults.mu.Unlock()
					deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 20*time.Second), "carol")
					b.poll("the store goes away", 20*time.Minute, 100*time.Millisecond, b.faults.isAway)
					before := b.beginnings(deploy.JobID)
					pause(t.Context(), 10*time.Minute)
					if after := b.beginnings(deploy.JobID); after != before {
						t.Errorf("begun while the record was in the spool: %+v, before %+v", after, before)
					}
					if v := b.view(); !v.Ledger.Away || v.Ledger.Spooled < 1 {
						t.Errorf("the view says %+v, want a record in the spool", v.Ledger)
					}
					b.faults.setAway(false)
					b.until("sealed", time.Hour, func() bool { return b.sealed(deploy.JobID) != nil && b.quiet() })
					// A config whose release could not be recorded was never handed
					// out: its runner ends, and another one is made.
					want := 1
					if kind == runner.KindReleased {
						want = 2
					}
					if n := len(b.state().Runners); n != want {
						t.Errorf("%d runners were made, want %d", n, want)
					}
				})
			})
		}
	}
}

// TestTroubleAtEveryOperationOfTheSpool: a host ends while the store is away,
// and one operation of the spool goes wrong, in each flavour.
func TestTroubleAtEveryOperationOfTheSpool(t *testing.T) {
	for _, f := range flavours {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			operations := 0
			for at := 0; ; at++ {
				fired := ""
				ok := t.Run(fmt.Sprint(at), func(t *testing.T) {
					run(t, options{at: at, flavour: f, only: "spool", hosts: 3, spool: true}, func(t *testing.T, b *bench) {
						deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 20*time.Second), "carol")
						b.until("it runs", 20*time.Minute, func() bool { return b.startedOn(deploy.JobID) != nil })
						b.faults.setAway(true)
						pause(t.Context(), 10*time.Minute)
						b.faults.setAway(false)
						fired = b.toItsEnd(deploy)
					})
				})
				if !ok {
					t.Fatalf("operation %d (%s) %s", at, fired, f.name)
				}
				if fired == "" {
					break
				}
				operations++
			}
			t.Logf("%d operations, each of which %s", operations, f.name)
			if operations < 6 {
				t.Errorf("only %d operations went wrong: the outage does not reach the spool", operations)
			}
		})
	}
}
