package leader

import (
	"syscall"
	"time"

	"github.com/runnerward/runnerward/pkg/supervisor"
)

// Scenarios are all of them by name.
func Scenarios() map[string]func(*Pair) {
	return map[string]func(*Pair){
		"it ends": (*Pair).Ended, "it is killed": (*Pair).Killed, "it is stopped and goes on": (*Pair).Stopped,
		"it loses the API server": (*Pair).Partitioned, "it loses the API server for a moment": (*Pair).Flaky,
	}
}

// jobLasts is longer than it takes another to take over.
const jobLasts = leaseDuration + 20*time.Second

// Ended: the leader is told to end while a job runs. The other leads at once.
func (p *Pair) Ended() {
	p.t.Helper()
	leader, standby := p.roles()
	run := p.running("v3.0.0", jobLasts)
	p.must(leader.End())
	began := time.Now()
	p.until("the other leads", leaseDuration, func() bool {
		v, err := standby.view(p.t.Context())
		return err == nil && v.Leading
	})
	p.t.Logf("handed over within %s", time.Since(began).Round(10*time.Millisecond))
	p.leads(standby)
	p.standsBy(leader)
	p.done(run)
}

// Killed: the leader dies while a job runs, without a last word.
func (p *Pair) Killed() {
	p.t.Helper()
	leader, standby := p.roles()
	run := p.running("v3.1.0", jobLasts)
	p.must(leader.Kill())
	p.leads(standby)
	p.standsBy(leader)
	p.done(run, p.running("v3.1.1", time.Second))
}

// Stopped: the leader is stopped while a job runs, for so long that the other
// has finished it, and goes on then. It believes to lead, and must end without
// having done anything.
func (p *Pair) Stopped() {
	p.t.Helper()
	leader, standby := p.roles()
	run := p.running("v3.2.0", jobLasts)
	p.must(leader.Signal(syscall.SIGSTOP))
	p.leads(standby)
	p.sealed(run)
	next := p.running("v3.2.1", jobLasts) // under way when the old leader wakes
	before := len(leader.records(p.t))
	p.must(leader.Signal(syscall.SIGCONT))
	p.ends(leader, 30*time.Second, "the lease was lost", supervisor.ErrFenced.Error())
	if after := len(leader.records(p.t)); after != before {
		p.t.Errorf("the old leader wrote %d records after it was overtaken", after-before)
	}
	p.standsBy(leader)
	p.done(next)
}

// Partitioned: the leader loses the API server, and nothing else, while a job
// runs. It ends before the other can have taken over.
func (p *Pair) Partitioned() {
	p.t.Helper()
	leader, standby := p.roles()
	run := p.running("v3.3.0", jobLasts)
	leader.api.Cut()
	p.ends(leader, patience, "the lease was lost")
	p.leads(standby)
	leader.api.Mend()
	p.standsBy(leader)
	p.done(run, p.running("v3.3.1", time.Second))
}

// Flaky: the leader loses the API server for less than it may go on without
// having renewed its lease. Nobody takes over.
func (p *Pair) Flaky() {
	p.t.Helper()
	leader, standby := p.roles()
	run := p.running("v3.4.0", jobLasts)
	leader.api.Cut()
	p.wait(renewDeadline / 2)
	leader.api.Mend()
	p.wait(leaseDuration)
	if v, err := leader.view(p.t.Context()); err != nil || !v.Leading {
		p.t.Errorf("the leader = %+v, %v, want it to lead on", v, err)
	}
	p.must(leader.Kill()) // so that there are two terms, as in the others
	p.leads(standby)
	p.done(run)
}
