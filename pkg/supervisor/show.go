package supervisor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

// View is what on-call sees. It never waits for the ledger or the network: it
// is made when the state changes and handed out as it is. Its lists may be behind
// by the moment that they take to make, and a record that is being written.
func (s *Supervisor) View() View {
	s.refresh()
	v := *s.view.Load()
	v.Now, v.LoopAt = time.Now(), *s.looked.Load()
	v.Queue, v.GitHub, v.Cluster = s.Queue.Health(), s.GitHub.Health(), s.Cluster.Health()
	if heard := s.heard.Load(); heard != nil {
		v.HeardAt = *heard
	}
	v.Warnings = slices.Clone(v.Queue.Warnings)
	if w := s.unheard.Load().warning(v.Now); w != "" {
		v.Warnings = append(v.Warnings, w)
	}
	for _, w := range v.Cluster.Watches {
		if warning := w.warning(v.Now); warning != "" {
			v.Warnings = append(v.Warnings, warning)
		}
	}
	unfit := s.unfit.list()
	for _, f := range unfit {
		v.Warnings = append(v.Warnings, f.warning())
	}
	for _, r := range v.Runners {
		v.Warnings = append(v.Warnings, r.rebuffWarnings()...)
		v.Warnings = append(v.Warnings, s.podWarnings(r, v.Now)...)
	}
	v.Hosts, v.Pool = *s.hosts.Load(), s.pool.view()
	v.Checks = s.checks(v)
	v.Why = []string{}
	if v.Frozen != nil {
		v.Why = append(v.Why, fmt.Sprintf("admission is frozen by %s: %s", v.Frozen.By, v.Frozen.Reason))
	}
	for _, c := range v.Checks {
		if !c.OK {
			v.Why = append(v.Why, c.Name+": "+c.Detail)
		}
	}
	if len(v.Hosts) > 0 && !slices.ContainsFunc(v.Hosts, func(h HostView) bool { return h.Vetted }) {
		v.Why = append(v.Why, "no waiting host passes its checks")
	} else if len(v.Hosts) == 0 && !s.starts(v.Pool, unfit) {
		v.Why = append(v.Why, "no host is waiting: the group has to start one first")
	}
	if v.Capacity <= 0 {
		v.Why = append(v.Why, fmt.Sprintf("all %d hosts that may be in use at once are in use", v.Max))
	}
	v.CanDeploy = len(v.Why) == 0
	return v
}

// starts says that a host is launched for whoever comes, so that none has to wait
// for them. Where those that were launched are of no use, the next may be as well.
func (s *Supervisor) starts(pool HostsPool, useless []unfit) bool {
	return s.Limits.Scales() && len(useless) == 0 && slices.ContainsFunc(pool.Groups, func(g GroupView) bool { return g.Desired < g.Max })
}

// watchPatience is how long a watch may be broken before on-call hears of it: an
// API server that restarts is back sooner.
const watchPatience = time.Minute

// warning is what on-call is told of a watch that is broken, empty when it is
// not. No deploy waits for it: the API server is asked each time then.
func (w WatchHealth) warning(now time.Time) string {
	if w.Open || now.Sub(w.Since) < watchPatience {
		return ""
	}
	return fmt.Sprintf("the cluster's %s are asked for each time, for they cannot be watched: %s", w.What, w.Problem)
}

// pollStale is how old the last answered poll may be. A poll that may not be
// cut short comes at least every 60 s and lasts up to 50 s.
const pollStale = 3 * time.Minute

// loopStale is how long a round of the settle loop may take. It waits for the
// ledger, and for a place when all are taken by calls that hang.
const loopStale = 2 * time.Minute

// checks are the conditions of readiness. Each can fail.
func (s *Supervisor) checks(v View) []HealthCheck {
	poll := HealthCheck{Name: "poll", OK: true, Detail: "GitHub's queue answers"}
	switch age := v.Now.Sub(v.Queue.LastPoll); {
	case v.Queue.LastPoll.IsZero():
		poll.OK, poll.Detail = false, "GitHub's queue was never polled"
	case age > pollStale:
		poll.OK, poll.Detail = false, fmt.Sprintf("GitHub's queue was last polled %s ago", age.Round(time.Second))
	}
	session := HealthCheck{Name: "session", OK: v.Queue.Session == "open", Detail: "the message session is " + v.Queue.Session}
	if !session.OK && v.Queue.LastError != "" {
		session.Detail += ": " + v.Queue.LastError
	}
	ledger := HealthCheck{Name: "ledger", OK: v.Ledger.LastError == "" && v.Ledger.Size > 0, Detail: fmt.Sprintf("%d records are durable", v.Ledger.Size)}
	if v.Ledger.LastError != "" {
		ledger.Detail = v.Ledger.LastError
	}
	hosts := HealthCheck{Name: "hosts", OK: true, Detail: "the pool's nodes can be listed"}
	if problem := s.lanes.problem(laneSurvey); problem != "" {
		hosts.OK, hosts.Detail = false, problem
	}
	groups := HealthCheck{Name: "groups", OK: true, Detail: "the groups of hosts keep one job to one host"}
	if why := s.pool.problems(v.Now); len(why) > 0 {
		groups.OK, groups.Detail = false, strings.Join(why, "; ")
	} else if problem := s.lanes.problem(laneScale); problem != "" {
		groups.OK, groups.Detail = false, problem
	}
	loop := HealthCheck{Name: "loop", OK: true, Detail: "the supervisor looks at its work"}
	if age := v.Now.Sub(v.LoopAt); age > loopStale {
		loop.OK, loop.Detail = false, fmt.Sprintf("the supervisor last looked at its work %s ago", age.Round(time.Second))
	}
	clock := HealthCheck{Name: "clock", OK: true, Detail: "the clock agrees with the log"}
	if problem := s.clockProblem(v.Ledger.LastAt); problem != "" {
		clock.OK, clock.Detail = false, problem
	}
	pods := HealthCheck{Name: "pods", OK: v.HeldBack == "", Detail: "the runners' pods start"}
	if !pods.OK {
		pods.Detail = v.HeldBack
	}
	late := HealthCheck{Name: "teardown", OK: true, Detail: "no host is overdue"}
	for _, r := range v.Runners {
		if r.Overdue && r.Phase != runner.KindTerminated && r.Phase != runner.KindSealed {
			late.OK, late.Detail = false, fmt.Sprintf("host %s should be gone and is not", r.Instance)
		}
	}
	return append([]HealthCheck{poll, session, ledger, hosts, groups, loop, clock, late, pods}, s.boundaryChecks(v)...)
}

// boundaryChecks say whether GitHub still holds what we rely on and answers us.
func (s *Supervisor) boundaryChecks(v View) []HealthCheck {
	boundary := HealthCheck{Name: "boundary", OK: true, Detail: "the scale set and the runner group are as configured"}
	if why := append(slices.Clone(v.Queue.Problems), v.Closed...); len(why) > 0 {
		boundary.OK, boundary.Detail = false, strings.Join(why, "; ")
	} else if problem := s.lanes.problem(laneSweep); problem != "" {
		boundary.OK, boundary.Detail = false, problem
	}
	rate := HealthCheck{Name: "rate", OK: true, Detail: "GitHub's rate limits leave room"}
	for _, r := range append(slices.Clone(v.Queue.Rates), v.GitHub.Rates...) {
		switch {
		case r.Limit > 0 && r.Remaining <= 0 && v.Now.Before(r.Reset):
			rate.OK, rate.Detail = false, fmt.Sprintf("the limit %s is used up until %s", r.Resource, r.Reset.UTC().Format(time.RFC3339))
		case v.Now.Before(r.RetryAfter):
			rate.OK, rate.Detail = false, fmt.Sprintf("GitHub asks for patience (%s) until %s", r.Resource, r.RetryAfter.UTC().Format(time.RFC3339))
		}
	}
	checks := []HealthCheck{boundary, rate}
	if s.NewsEvery > 0 {
		news := HealthCheck{Name: "news", OK: true, Detail: "the App's webhook deliveries can be read"}
		if problem := s.lanes.problem(laneNews); problem != "" {
			news.OK, news.Detail = false, problem
		}
		checks = append(checks, news)
	}
	return checks
}

// publish makes the view anew. It takes the turn; publishLocked has it.
func (s *Supervisor) publish() {
	<-s.turn
	defer func() { s.turn <- struct{}{} }()
	s.publishLocked()
}

// rowsShare bounds what the lists of jobs and runners cost: one part in so many
// of the time. With a few hundred of them they cost more than a record does.
// rowsPause bounds the time between two of them, for a process that was paused
// while it made some.
const (
	rowsShare = 20
	rowsPause = 2 * time.Second
)

// rows remember when the lists of the view were made. Their fields but stale
// belong to who has the turn.
type rows struct {
	madeAt time.Time
	took   time.Duration
	stale  atomic.Bool // something changed since
}

func (s *Supervisor) publishLocked() {
	now := time.Now()
	v := s.summary(now)
	if last := s.view.Load(); last != nil && now.Sub(s.rows.madeAt) < min(rowsShare*s.rows.took, rowsPause) {
		v.Asks, v.Jobs, v.Runners = last.Asks, last.Jobs, last.Runners
		s.rows.stale.Store(true)
	} else {
		v.Asks, v.Jobs, v.Runners = s.asks(now), s.jobViews(now), s.runnerViews(now)
		s.rows.madeAt, s.rows.took = now, time.Since(now)
		s.rows.stale.Store(false)
	}
	s.view.Store(&v)
}

// refresh makes the lists anew for who looks at them, unless a record is being
// written right now: nobody who looks waits for the log.
func (s *Supervisor) refresh() {
	if !s.rows.stale.Load() {
		return
	}
	select {
	case <-s.turn:
	default:
		return
	}
	defer func() { s.turn <- struct{}{} }()
	s.rows.took = 0
	s.publishLocked()
}

// summary is the view without its lists, and is as new as the newest record: what
// it says decides whether anything may begin.
func (s *Supervisor) summary(now time.Time) View {
	st := s.state
	v := View{
		Version: s.Version, FIPS: s.FIPS, StartedAt: s.started, Leading: true, Max: s.Limits.MaxRunners,
		Ledger: LedgerView{Size: st.Size, Head: string(st.Last), LastAt: st.LastAt},
	}
	s.showAway(&v.Ledger)
	if st.Frozen != nil {
		v.Frozen = &FreezeView{By: st.Frozen.Event.By, Reason: st.Frozen.Event.Reason, Since: st.Frozen.At}
	}
	v.Closed = closed(QueueHealth{}, st.Strays)
	slices.Sort(v.Closed)
	v.HeldBack = st.HeldBack(now, s.Limits)
	for _, rec := range st.Strays {
		v.Strays = append(v.Strays, StrayView{rec.Event.What, rec.Event.ID, rec.Event.Name, rec.Event.Node, rec.At})
	}
	slices.SortFunc(v.Strays, func(a, b StrayView) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID)) })
	v.Capacity = s.Limits.MaxRunners
	for _, r := range st.Runners {
		if r.Terminated == nil {
			v.Capacity--
		}
		if phase := r.Phase(); phase == runner.KindReleased || phase == runner.KindStarted {
			v.unbound = true
		}
	}
	return v
}

func (s *Supervisor) runnerViews(now time.Time) []RunnerView {
	views := []RunnerView{}
	for name, r := range s.state.Runners {
		if r.Sealed == nil || now.Sub(r.Sealed.At) < s.History {
			views = append(views, s.runnerView(name, r))
		}
	}
	slices.SortFunc(views, func(a, b RunnerView) int { return cmp.Or(b.Since.Compare(a.Since), cmp.Compare(a.Name, b.Name)) })
	return views
}

func (s *Supervisor) jobViews(now time.Time) []JobView {
	refused := map[runner.JobID][]string{}
	for _, r := range s.state.Runners {
		if r.Refused != nil {
			refused[r.Refused.Event.Job] = r.Refused.Event.Decision.Reasons
		}
	}
	views := []JobView{}
	for id, j := range s.state.Jobs {
		if j.Concluded != nil && now.Sub(j.Concluded.At) >= s.History || j.Denied != nil && now.Sub(j.Denied.At) >= s.History {
			continue
		}
		v := s.jobView(id, j)
		if reasons, ok := refused[id]; ok {
			v.Reasons = reasons
		}
		v.Problem = cmp.Or(s.state.GivenUp(j, now, s.Limits), v.Problem)
		views = append(views, v)
	}
	slices.SortFunc(views, func(a, b JobView) int { return cmp.Or(b.Since.Compare(a.Since), cmp.Compare(a.ID, b.ID)) })
	return views
}

// asks are the questions without an answer, as long as GitHub waits for one.
func (s *Supervisor) asks(now time.Time) []AskView {
	var out []AskView
	for id, run := range s.state.Runs {
		for _, ask := range run.Asks {
			e := ask.Asked.Event
			if ask.Answered != nil || now.Sub(e.AskedAt) > runner.AskLife {
				continue
			}
			v := AskView{
				Repository: e.Repository, RunID: id, Environment: e.Environment, Since: e.AskedAt,
				URL:     fmt.Sprintf("%s/%s/actions/runs/%d", s.ServerURL, e.Repository, id),
				Problem: s.lanes.problem(string(runner.RunChain(id))),
			}
			if ask.Ruled != nil {
				v.Ruling = ask.Ruled.Event.State
			}
			out = append(out, v)
		}
	}
	slices.SortFunc(out, func(a, b AskView) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.RunID, b.RunID)) })
	return out
}

func (s *Supervisor) jobView(id runner.JobID, j *runner.Job) JobView {
	v := JobView{
		ID: id, Repository: j.Offered.Event.Repository, RunID: j.Offered.Event.RunID,
		URL:   fmt.Sprintf("%s/%s/actions/runs/%d", s.ServerURL, j.Offered.Event.Repository, j.Offered.Event.RunID),
		Phase: j.Phase(), Since: j.Offered.At, Runner: j.Runner,
		Problem: s.lanes.problem(string(runner.JobChain(id)), "cancel/"+string(runner.JobChain(id))),
	}
	switch {
	case j.Concluded != nil:
		v.Since, v.Result = j.Concluded.At, j.Concluded.Event.Result
	case j.Denied != nil:
		v.Since = j.Denied.At
	case j.Authorized != nil:
		v.Since = j.Authorized.At
		if j.Runner == "" && v.Problem == "" {
			v.Problem = s.lanes.problem(laneClaim)
		}
	}
	if j.Denied != nil {
		v.Reasons = j.Denied.Event.Decision.Reasons
	}
	return v
}

func (s *Supervisor) runnerView(name runner.Name, r *runner.Runner) RunnerView {
	claimed := r.Claimed.Event
	chain := string(runner.RunnerChain(name))
	v := RunnerView{
		Name: name, Phase: r.Phase(), Since: r.Claimed.At, Instance: claimed.Host.InstanceID, Node: claimed.Host.NodeName,
		Cause: claimed.Cause, Overdue: r.Overdue != nil, Problem: s.lanes.problem(chain, "cancel/"+chain),
		Pending: s.sight.stages(name),
	}
	for _, at := range []*time.Time{timeOf(r.Bound), timeOf(r.Released), timeOf(r.Started), timeOf(r.Refused), timeOf(r.Retired),
		timeOf(r.Completed), timeOf(r.Teardown), timeOf(r.Terminated), timeOf(r.Sealed)} {
		if at != nil {
			v.Since = *at
		}
	}
	if r.Started != nil {
		v.Job = r.Started.Event.Job
	}
	for _, rec := range r.Rebuffs {
		v.Rebuffed = append(v.Rebuffed, RebuffView{rec.Event.Gate, rec.Event.Cause, rec.At, rec.Event.Caller})
	}
	if _, ended := r.Ended(); !ended {
		v.Pod = s.sight.of(name).pod.trouble()
	}
	switch {
	case r.Refused != nil:
		v.Outcome = string(runner.OutcomeRefused)
	case r.Retired != nil:
		v.Outcome = sentence(string(r.Retired.Event.Cause), r.Retired.Event.PodReason)
	case r.Completed != nil:
		v.Outcome = sentence(string(runner.OutcomeCompleted), r.Completed.Event.PodReason)
	}
	return v
}

// sentence is an outcome with what the cluster said of the pod, if it did.
func sentence(outcome, podReason string) string {
	if podReason == "" {
		return outcome
	}
	return outcome + ", pod " + podReason
}

func timeOf[E runner.Event](rec *runner.Of[E]) *time.Time {
	if rec == nil {
		return nil
	}
	return &rec.At
}
