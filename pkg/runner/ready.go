package runner

import "time"

// Scales says that the size of the pool is ours to raise: without warm hosts
// and without starting them ahead it is left alone, unless nobody else starts any.
func (l Limits) Scales() bool { return l.OnDemand || l.Warm > 0 || l.PrelaunchFor > 0 }

// Ready is how many unclaimed hosts should be ready or on their way now: those
// kept warm, one for each authorized job that no idle runner can take, and one
// for each deployment that waits for its reviewers or its timer, so that its
// host boots meanwhile. No more than may be in use are started for what waits.
func (s *State) Ready(now time.Time, lim Limits) int {
	if !lim.Scales() {
		return 0
	}
	if s.Frozen != nil { // nothing that waits may begin
		return min(lim.Warm, lim.MaxRunners)
	}
	waiting, idle, open := 0, 0, 0
	for _, j := range s.Jobs {
		if j.waiting() && s.GivenUp(j, now, lim) == "" {
			waiting++
		}
	}
	reported := s.reported()
	for name, r := range s.Runners {
		if r.Terminated == nil {
			open++
		}
		if r.idle() && reported[name] == nil {
			idle++
		}
	}
	decided := s.decidedRuns()
	for id, run := range s.Runs {
		if run.awaited(decided[id], now, lim.PrelaunchFor) {
			waiting++
		}
	}
	demand := max(min(waiting-idle, lim.MaxRunners-open), 0)
	return min(lim.Warm+demand, lim.MaxRunners)
}

// decidedRuns are the runs of which a job was offered and decided, with the
// time of the newest offer: from there on the job itself asks for a host.
func (s *State) decidedRuns() map[int64]time.Time {
	out := map[int64]time.Time{}
	for _, j := range s.Jobs {
		id := j.Offered.Event.RunID
		if (j.Authorized != nil || j.Denied != nil || j.Concluded != nil) && j.Offered.At.After(out[id]) {
			out[id] = j.Offered.At
		}
	}
	return out
}

// awaited says that GitHub asked about a deployment of the run not long ago and
// after its last decided job, and that neither we nor a reviewer has refused it.
func (r *Run) awaited(decided, now time.Time, patience time.Duration) bool {
	newest := Asked{}
	for _, ask := range r.Asks {
		e := ask.Asked.Event
		refused := ask.Ruled != nil && ask.Ruled.Event.State == StateRejected
		if !refused && e.AskedAt.After(newest.AskedAt) {
			newest = e
		}
	}
	if !newest.AskedAt.After(decided) || now.Sub(newest.AskedAt) >= patience {
		return false
	}
	for _, review := range r.Reviews {
		if e := review.Event; e.State == StateRejected && e.Environment == newest.Environment && e.SeenAt.After(newest.AskedAt) {
			return false
		}
	}
	return true
}

// InUse are the instances of runners whose host is not yet seen gone: they
// count for no job that is still to come.
func (s *State) InUse() []string {
	var out []string
	for _, name := range sortedKeys(s.Runners) {
		if r := s.Runners[name]; r.Terminated == nil {
			out = append(out, r.Claimed.Event.Host.InstanceID)
		}
	}
	return out
}
