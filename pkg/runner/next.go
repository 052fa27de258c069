package runner

import (
	"cmp"
	"slices"
	"time"
)

// Limits bound every phase of a job and a runner. All are configuration; see
// configs/runnerward.example.yaml for what each costs.
type Limits struct {
	MaxRunners    int           // hosts in use at once
	MaxAttempts   int           // hosts spent on one job before it is given up
	AuthorizedFor time.Duration // authorized to started; no host is taken after it
	DecideBy      time.Duration // an offered job whose facts stay unknown is denied
	BindBy        time.Duration // claimed to bound
	ReleaseBy     time.Duration // bound to released
	IdleTTL       time.Duration // released to started
	SurplusGrace  time.Duration // released to retired when no job waits any more
	HookGrace     time.Duration // GitHub says started, the hook has not asked
	JobTTL        time.Duration // started to ended
	SilentFor     time.Duration // a host whose kubelet says nothing, before its runner is given up
	EscalateAfter time.Duration // teardown to the direct request, around the group
	TeardownBy    time.Duration // ended to terminated, before the alarm
	ConcludeGrace time.Duration // terminated to sealed while GitHub's result is missing

	Warm         int           // unclaimed hosts kept ready beyond those that are waited for
	PrelaunchFor time.Duration // how long a host is kept ready for a deployment that waits; 0 is never
	OnDemand     bool          // there is no host but those that are asked for
}

// TaskKind names a piece of outstanding work.
type TaskKind string

// The kinds of outstanding work.
const (
	TaskDecide   TaskKind = "decide"   // gather facts, ask the policy, record
	TaskDeny     TaskKind = "deny"     // facts stayed unknown for too long
	TaskCancel   TaskKind = "cancel"   // ask GitHub to cancel a run that may not run
	TaskClaim    TaskKind = "claim"    // take a vetted host for a waiting job
	TaskLaunch   TaskKind = "launch"   // make sure that the pod exists on its host
	TaskWatch    TaskKind = "watch"    // see whether the pod and the registration are over
	TaskRetire   TaskKind = "retire"   // end a runner that no job will run on
	TaskTeardown TaskKind = "teardown" // end the host and observe that it is gone
	TaskSeal     TaskKind = "seal"     // write the job-to-host statement
	TaskRule     TaskKind = "rule"     // decide about a deployment that GitHub asked about
	TaskAnswer   TaskKind = "answer"   // tell GitHub the ruling
)

// Task is one piece of outstanding work. Doing a task twice must be harmless;
// a task that failed is simply still outstanding.
type Task struct {
	Kind   TaskKind
	Job    JobID
	Runner Name
	// Cause is set for TaskRetire, Overdue for a TaskTeardown that is late and
	// not yet recorded as such.
	Cause   Cause
	Overdue bool
	// Force is set for a TaskCancel that a plain cancellation did not do.
	Force bool
	// Run and Delivery name a question of GitHub.
	Run      int64
	Delivery string
}

// Subject is the chain that the task works on: tasks of one subject are done
// one after another, tasks of different subjects independently.
func (t Task) Subject() Chain {
	switch {
	case t.Runner != "":
		return RunnerChain(t.Runner)
	case t.Run != 0:
		return RunChain(t.Run)
	}
	return JobChain(t.Job)
}

// Next is the work outstanding in this state at this time, and the next moment
// at which the passing of time alone makes more (zero if none does). It
// depends on nothing else: not on how the state came about, so a restart needs
// no memory. Tasks come in a stable order, teardown first.
func (s *State) Next(now time.Time, lim Limits) ([]Task, time.Time) {
	p := planner{State: s, now: now, lim: lim, reported: s.reported()}
	for _, name := range sortedKeys(s.Runners) {
		p.runner(s.Runners[name])
	}
	for _, id := range sortedKeys(s.Jobs) {
		p.job(id, s.Jobs[id])
	}
	for _, id := range sortedKeys(s.Runs) {
		p.asks(id, s.Runs[id])
	}
	p.demand()
	slices.SortStableFunc(p.tasks, func(a, b Task) int { return cmp.Compare(rank(a.Kind), rank(b.Kind)) })
	return p.tasks, p.wake
}

// rank puts ending things before beginning things.
func rank(k TaskKind) int {
	return slices.Index([]TaskKind{TaskCancel, TaskTeardown, TaskSeal, TaskRetire, TaskWatch,
		TaskLaunch, TaskDeny, TaskDecide, TaskClaim, TaskAnswer, TaskRule}, k)
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

type planner struct {
	*State
	now   time.Time
	lim   Limits
	tasks []Task
	wake  time.Time
	idle  int // runners that could still take a job
	open  int // runners whose host is not yet gone
	// reported are the jobs that GitHub says run on these runners, see [State.reported].
	reported map[Name]*Job
}

func (p *planner) add(t Task) { p.tasks = append(p.tasks, t) }

// due says whether the deadline since+limit has passed, and otherwise
// remembers to wake then.
func (p *planner) due(since time.Time, limit time.Duration) bool {
	at := since.Add(limit)
	if !p.now.Before(at) {
		return true
	}
	if p.wake.IsZero() || at.Before(p.wake) {
		p.wake = at
	}
	return false
}

func (p *planner) runner(r *Runner) {
	name := r.Name()
	if r.Terminated == nil {
		p.open++
	}
	if r.idle() && p.reported[name] == nil {
		p.idle++
	}
	ended, isEnded := r.Ended()
	switch {
	case r.Sealed != nil:
	case r.Terminated != nil:
		p.seal(r)
	case isEnded:
		if p.mustCancel(r) {
			p.add(Task{Kind: TaskCancel, Runner: name})
		}
		late := p.due(ended, p.lim.TeardownBy) && r.Overdue == nil
		p.add(Task{Kind: TaskTeardown, Runner: name, Overdue: late})
	case r.Started != nil:
		p.retireOr(r, p.due(r.Started.At, p.lim.JobTTL), CauseJobDeadline, TaskWatch)
	case r.Released != nil:
		p.retireOr(r, p.due(p.Answerable(r.Released.At), p.lim.IdleTTL), CauseIdle, TaskWatch)
	case r.Bound != nil:
		p.retireOr(r, p.due(p.Answerable(r.Bound.At), p.lim.ReleaseBy), CauseNeverReleased, TaskWatch)
	default:
		p.retireOr(r, p.due(p.Answerable(r.Claimed.At), p.lim.BindBy), CauseNeverBound, TaskLaunch)
	}
}

func (p *planner) retireOr(r *Runner, late bool, cause Cause, otherwise TaskKind) {
	if late {
		p.add(Task{Kind: TaskRetire, Runner: r.Name(), Cause: cause})
		return
	}
	p.add(Task{Kind: otherwise, Runner: r.Name()})
}

// mustCancel says that a run reached this runner that may not run, and GitHub
// has not yet been asked to cancel it. Killing the pod alone would leave the
// job shown as running until its lease ends.
func (p *planner) mustCancel(r *Runner) bool {
	if r.Cancelled != nil {
		return false
	}
	_, run, known := p.runOn(r.Name(), p.reported[r.Name()])
	return known && r.Completed == nil && !p.deploying(run)
}

// RunOn is the workflow run that holds this runner according to a job's own
// token or, where none was shown, to GitHub.
func (s *State) RunOn(name Name) (repository string, runID int64, known bool) {
	return s.runOn(name, s.reported()[name])
}

func (s *State) runOn(name Name, reported *Job) (repository string, runID int64, known bool) {
	r := s.Runners[name]
	switch {
	case r == nil:
	case r.Refused != nil && r.Refused.Event.Claims != nil:
		return r.Refused.Event.Claims.Repository, r.Refused.Event.Claims.RunID, true
	case r.Started != nil && !(r.Retired != nil && r.Retired.Event.Cause == CauseSecondJob):
		return r.Started.Event.Claims.Repository, r.Started.Event.Claims.RunID, true
	case reported != nil:
		return reported.Offered.Event.Repository, reported.Offered.Event.RunID, true
	}
	return "", 0, false
}

// seal waits a little for GitHub's result, so that the statement carries it.
func (p *planner) seal(r *Runner) {
	if p.mustCancel(r) {
		p.add(Task{Kind: TaskCancel, Runner: r.Name()})
		if !p.due(p.Answerable(r.Terminated.At), p.lim.ConcludeGrace) {
			return
		}
	}
	if r.Started != nil {
		job := p.Jobs[r.Started.Event.Job]
		if job.Concluded == nil && !p.due(p.Answerable(r.Terminated.At), p.lim.ConcludeGrace) {
			return
		}
	}
	p.add(Task{Kind: TaskSeal, Runner: r.Name()})
}

// forceAfter is how long a job may outlive the cancellation of its run. One that
// no runner has ends at once unless it is if: always(), and then it waits for a
// host of ours; one that a runner has which is not ours is owed no patience.
// https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-cancellation
const forceAfter = 2 * time.Minute

func (p *planner) job(id JobID, j *Job) {
	if j.Concluded == nil && j.Reported != nil && j.Runner == "" {
		p.hookMissing(j)
	}
	switch {
	case j.Concluded != nil:
	case p.foreign(j) || j.Denied != nil && !p.deploying(j.Offered.Event.RunID):
		switch {
		case j.Cancelled == nil:
			p.add(Task{Kind: TaskCancel, Job: id})
		case !j.Cancelled.Event.Forced && p.due(j.Cancelled.At, forceAfter):
			p.add(Task{Kind: TaskCancel, Job: id, Force: true})
		}
	case j.Denied != nil:
	case p.stranded(j):
		if j.Cancelled == nil && p.holder(j).Cancelled == nil && !p.runsOn(j) {
			p.add(Task{Kind: TaskCancel, Job: id, Force: true})
		}
	case j.Authorized == nil:
		switch late := p.due(p.Answerable(j.Undecided), p.lim.DecideBy); {
		case p.Frozen != nil:
		case late:
			p.add(Task{Kind: TaskDeny, Job: id})
		default:
			p.add(Task{Kind: TaskDecide, Job: id})
		}
	}
}

// deploying says that a job of the run works on a runner of ours. GitHub can end
// a run only as a whole, and a deployment that was allowed is not to be cut in
// half for a job beside it that holds nothing.
func (s *State) deploying(run int64) bool {
	for _, r := range s.Runners {
		if _, ended := r.Ended(); r.Started != nil && !ended && r.Started.Event.Claims.RunID == run {
			return true
		}
	}
	return false
}

// hookMissing retires a runner that GitHub says is running a job whose hook
// never asked us: an image without the hook would otherwise run ungated.
func (p *planner) hookMissing(j *Job) {
	r := p.ran(j)
	if r == nil || !r.idle() || !p.due(j.Reported.At, p.lim.HookGrace) {
		return
	}
	p.drop(r.Name())
	p.add(Task{Kind: TaskRetire, Runner: r.Name(), Cause: CauseHookMissing})
}

// drop removes what was planned for a runner.
func (p *planner) drop(name Name) {
	p.tasks = slices.DeleteFunc(p.tasks, func(t Task) bool { return t.Runner == name })
}

// demand compares the jobs that wait with the runners that could take one.
// Which job a runner was made for does not matter: GitHub pairs them.
func (p *planner) demand() {
	var waiting []JobID
	for _, id := range sortedKeys(p.Jobs) {
		if j := p.Jobs[id]; j.waiting() && j.Spent < p.lim.MaxAttempts && !p.due(j.Authorized.At, p.lim.AuthorizedFor) {
			waiting = append(waiting, id)
		}
	}
	slices.SortStableFunc(waiting, func(a, b JobID) int {
		return cmp.Compare(p.Jobs[a].Authorized.Index, p.Jobs[b].Authorized.Index)
	})
	if p.Frozen == nil {
		missing := p.allowed(min(len(waiting)-p.idle, p.lim.MaxRunners-p.open))
		for _, id := range p.uncaused(waiting) {
			if missing <= 0 {
				break
			}
			p.add(Task{Kind: TaskClaim, Job: id})
			missing--
		}
	}
	if len(waiting) == 0 {
		p.surplus()
	}
}

// uncaused puts the jobs that no idle runner was made for first.
func (p *planner) uncaused(waiting []JobID) []JobID {
	caused := map[JobID]bool{}
	for _, r := range p.Runners {
		if r.idle() {
			caused[r.Claimed.Event.Cause] = true
		}
	}
	out := slices.Clone(waiting)
	slices.SortStableFunc(out, func(a, b JobID) int {
		return cmp.Compare(b2i(caused[a]), b2i(caused[b]))
	})
	return out
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// surplus retires runners that wait although no job does. The grace covers a
// job that GitHub has given to the runner and not yet told us of.
func (p *planner) surplus() {
	for _, name := range sortedKeys(p.Runners) {
		r := p.Runners[name]
		if !r.idle() || r.Released == nil || !p.due(p.Answerable(r.Released.At), p.lim.SurplusGrace) {
			continue
		}
		if p.reported[name] != nil || p.undecided() {
			continue
		}
		p.drop(name)
		p.add(Task{Kind: TaskRetire, Runner: name, Cause: CauseSurplus})
	}
}

// reported are the jobs that GitHub says run on runners of ours and that have not
// asked to start. Of two on one runner it is the same one each time.
func (s *State) reported() map[Name]*Job {
	on := map[Name]*Job{}
	for id, j := range s.Jobs {
		if j.Reported == nil || j.Concluded != nil || j.Runner != "" || s.ran(j) == nil {
			continue
		}
		name := j.Reported.Event.Runner
		if other := on[name]; other == nil || id < other.Offered.Event.Job {
			on[name] = j
		}
	}
	return on
}

func (p *planner) undecided() bool {
	for _, j := range p.Jobs {
		if j.Authorized == nil && j.Denied == nil && j.Concluded == nil {
			return true
		}
	}
	return false
}
