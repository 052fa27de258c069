package simgithub

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// settle makes every transition that has fallen due happen, each at its own
// time and in the order of these times, and returns when the next one falls
// due, zero if none does. The caller holds the lock.
func (s *Server) settle() (next time.Time) {
	now := s.now()
	for {
		c := &clock{now: s.settled}
		for _, j := range s.state.jobs {
			s.settleJob(j, c)
		}
		s.settleAgents(c)
		s.settleSets(c)
		s.assign(c)
		s.offer(c)
		switch {
		case c.moved:
			s.changed()
		case !c.next.IsZero() && !now.Before(c.next):
			s.settled = c.next
		case s.settled.Before(now):
			s.settled = now
		default:
			return c.next
		}
	}
}

// clock collects what one pass of settle did and what it has to wait for.
type clock struct {
	now, next time.Time
	moved     bool
}

// due says whether t has come; if not, settle has to come back at t.
func (c *clock) due(t time.Time) bool {
	if !c.now.Before(t) {
		c.moved = true
		return true
	}
	if c.next.IsZero() || t.Before(c.next) {
		c.next = t
	}
	return false
}

func (s *Server) settleJob(j *job, c *clock) {
	switch j.Status {
	case "waiting":
		if j.approved && j.admitted() && c.due(j.waitUntil) {
			j.Status, j.QueuedAt = "queued", c.now
		}
	case "queued":
		if limit := j.QueuedAt.Add(queueLimit); c.due(limit) {
			s.complete(j, "cancelled", limit)
			return
		}
		if j.offered != 0 && c.due(j.offeredAt.Add(offerTTL)) {
			s.withdraw(j)
		}
		if j.ScaleSetID != 0 && j.offered == 0 && c.due(j.AssignedAt.Add(s.cfg.AssignTimeout)) {
			s.requeue(j)
		}
	case "in_progress":
		if c.due(j.LeaseUntil) {
			// docs: "The self-hosted runner lost communication with the server".
			s.complete(j, "failure", j.LeaseUntil)
			return
		}
		if !j.CancelledAt.IsZero() && c.due(j.CancelledAt.Add(cancelTimeout)) {
			s.complete(j, "cancelled", j.CancelledAt.Add(cancelTimeout))
		}
	}
}

// admitted says that every App that protects the environment approved.
func (j *job) admitted() bool {
	for _, p := range j.rules {
		if p.state != "approved" {
			return false
		}
	}
	return true
}

// withdraw takes an offer back from a runner.
func (s *Server) withdraw(j *job) {
	if a := s.state.agents[j.offered]; a != nil && a.jobID == j.JobID {
		a.jobID = ""
	}
	j.offered, j.delivered = 0, false
}

// requeue takes an assigned job that no runner took back from its scale set.
func (s *Server) requeue(j *job) {
	s.announce(j, "JobCompleted", "canceled")
	j.ScaleSetID, j.AssignedAt = 0, time.Time{}
	if j.Requeues == maxRequeues {
		j.exhausted = true
		return
	}
	j.Requeues++
}

// complete ends a job, whatever state it is in. The runner of a job that ran
// is free to be removed; it is deregistered only by its own report.
func (s *Server) complete(j *job, conclusion string, at time.Time) {
	if j.offered != 0 {
		s.withdraw(j)
	}
	if a := s.state.agents[j.RunnerID]; a != nil {
		a.busy = false
		if !j.tellCancel {
			a.session = ""
		}
	}
	j.Status, j.Conclusion, j.CompletedAt, j.availableTo = "completed", conclusion, at, 0
	maps.DeleteFunc(s.creds, func(_ string, c credential) bool { return c.kind == kindInstallation && c.job == j.JobID })
	if j.ScaleSetID != 0 {
		s.announce(j, "JobCompleted", resultOf(conclusion))
	}
}

// resultOf spells a conclusion as queue messages and runners do.
func resultOf(conclusion string) string {
	return map[string]string{"success": "succeeded", "failure": "failed", "cancelled": "canceled", "skipped": "skipped"}[conclusion]
}

func (s *Server) settleAgents(c *clock) {
	if s.cfg.IdleReap <= 0 {
		return
	}
	for _, id := range sortedKeys(s.state.agents) {
		a := s.state.agents[id]
		if !a.hadJob && a.jobID == "" && c.due(a.created.Add(s.cfg.IdleReap)) {
			s.deregister(a)
		}
	}
}

func (s *Server) settleSets(c *clock) {
	for _, id := range sortedKeys(s.state.sets) {
		set := s.state.sets[id]
		if ses := set.session; ses != nil {
			if ses.polls == 0 && c.due(ses.seen.Add(s.cfg.SessionTTL)) {
				s.endSession(set, c.now)
			}
			continue
		}
		busy := slices.ContainsFunc(s.state.agentsOf(id), func(a *agent) bool { return a.busy })
		// ARC ADR 2022-10-27: a set without a connection for 7 days is
		// deleted unless one of its runners has a job.
		if !busy && c.due(set.lastSeen.Add(dormancy)) {
			s.deleteSet(set, c.now)
		}
	}
}

// assign gives queued jobs to scale sets with a session and capacity left.
// Which of several matching sets gets a job is arbitrary
// (actions-runner-controller#4004).
func (s *Server) assign(c *clock) {
	for _, j := range s.state.jobs {
		if j.Status != "queued" || j.ScaleSetID != 0 || j.availableTo != 0 || j.exhausted {
			continue
		}
		var fit []*scaleSet
		for _, id := range sortedKeys(s.state.sets) {
			set := s.state.sets[id]
			if set.session != nil && s.load(set) < set.session.capacity && s.admits(set, j) {
				fit = append(fit, set)
			}
		}
		if len(fit) == 0 {
			continue
		}
		set := fit[s.rng.IntN(len(fit))]
		c.moved = true
		if s.cfg.GHES {
			j.availableTo = set.id
			s.enqueue(set, s.jobMessage(j, "JobAvailable", ""), false)
			continue
		}
		s.assignTo(set, j, c.now)
	}
}

func (s *Server) assignTo(set *scaleSet, j *job, at time.Time) {
	j.availableTo, j.ScaleSetID, j.AssignedAt = 0, set.id, at
	s.announce(j, "JobAssigned", "")
}

// load counts the jobs that take from the capacity of a set.
func (s *Server) load(set *scaleSet) int {
	n := 0
	for _, j := range s.state.jobs {
		if j.Status != "completed" && (j.ScaleSetID == set.id || j.availableTo == set.id) {
			n++
		}
	}
	return n
}

// admits says whether the set's labels and group let it have the job.
func (s *Server) admits(set *scaleSet, j *job) bool {
	for _, want := range j.Labels {
		if !slices.ContainsFunc(set.labels, func(l label) bool { return strings.EqualFold(l.Name, want) }) {
			return false
		}
	}
	g := s.state.groups[set.groupID]
	if g == nil || j.run.spec.Group != "" && !strings.EqualFold(g.Name, j.run.spec.Group) {
		return false
	}
	if len(j.Labels) == 0 && j.run.spec.Group == "" {
		return false
	}
	return j.run.spec.IgnoreGroupRules || s.groupAdmits(g, j)
}

// groupAdmits applies the group's restrictions: "Only jobs directly defined
// within the selected workflows will have access to the runner group".
// https://docs.github.com/en/actions/how-tos/manage-runners/self-hosted-runners/manage-access
func (s *Server) groupAdmits(g *group, j *job) bool {
	if g.Visibility == "selected" && !slices.ContainsFunc(g.Repositories, func(n string) bool {
		return strings.EqualFold(s.shortName(n), j.run.repo.name)
	}) {
		return false
	}
	if !g.RestrictedToWorkflows {
		return true
	}
	have, ok := parseWorkflow(s.jobWorkflowRef(j))
	if !ok {
		return false
	}
	return slices.ContainsFunc(g.Workflows, func(entry string) bool {
		w, ok := parseWorkflow(entry)
		if !ok || !strings.EqualFold(w.owner+"/"+w.repo, have.owner+"/"+have.repo) || w.path != have.path {
			return false
		}
		return w.fullRef() == have.fullRef() || w.ref == j.attempt.workflowSHA
	})
}

// offer hands assigned jobs to idle runners that are polling right now.
func (s *Server) offer(c *clock) {
	jobs := slices.Clone(s.state.jobs)
	if s.cfg.ShuffleJobs {
		s.rng.Shuffle(len(jobs), func(i, k int) { jobs[i], jobs[k] = jobs[k], jobs[i] })
	}
	for _, j := range jobs {
		if j.Status != "queued" || j.ScaleSetID == 0 || j.offered != 0 {
			continue
		}
		idle := s.idle(j.ScaleSetID)
		if len(idle) == 0 {
			continue
		}
		names := make([]string, len(idle))
		for i, a := range idle {
			names[i] = a.name
		}
		i := slices.Index(names, s.cfg.Assign(j.JobID, names))
		if i < 0 {
			continue
		}
		idle[i].jobID, j.offered, j.offeredAt, c.moved = j.JobID, idle[i].id, c.now, true
	}
}

// idle lists the set's runners that wait for a job, longest first.
func (s *Server) idle(setID int64) []*agent {
	out := slices.DeleteFunc(s.state.agentsOf(setID), func(a *agent) bool {
		return a.polls == 0 || a.jobID != "" || a.hadJob
	})
	slices.SortStableFunc(out, func(a, b *agent) int { return a.idleAt.Compare(b.idleAt) })
	return out
}

// errClosed ends a held poll after [Server.Close].
var errClosed = errors.New("the simulator is closed")

// writePoll answers a poll unless its client is gone.
func writePoll(w http.ResponseWriter, out answer, err error) {
	switch {
	case err == nil:
		out.write(w)
	case errors.Is(err, errClosed):
		vssError(http.StatusServiceUnavailable, "ServiceUnavailableException", err.Error()).write(w)
	}
}

// await holds a poll: it calls ready under the lock, now and after each
// change, until it returns true, or once more with expired after the hold.
// It returns the context's error if the caller went away.
func (s *Server) await(ctx context.Context, hold time.Duration, ready func(expired bool) bool) error {
	deadline := time.Now().Add(hold)
	for {
		s.mu.Lock()
		next := s.settle()
		closed, expired := s.closed, !time.Now().Before(deadline)
		done := ctx.Err() == nil && ready(expired)
		wake := s.wake
		s.mu.Unlock()
		if err := ctx.Err(); err != nil && !done {
			return err
		}
		if done || expired {
			return nil
		}
		if closed {
			return errClosed
		}
		wait := time.Until(deadline)
		if !next.IsZero() {
			wait = min(wait, next.Sub(s.now()))
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}
