package evidence

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

// The questions, in an auditor's words.
const (
	askApproval = "Who approved it?"
	askWhat     = "What was allowed to run?"
	askWhere    = "Where did it run, and did anything else run there?"
	askCourse   = "What happened, and is the host gone?"
)

func sortedNames(m map[runner.Name]*runner.Runner) []runner.Name {
	return slices.Sorted(maps.Keys(m))
}

func (t *teller) approval(job *runner.Job) Answer {
	var f facts
	at, g := job.Authorized.Index, job.Authorized.Event.Facts
	if len(g.Approvals) == 0 {
		f.add(at, "approvals", "none is recorded")
	}
	for _, a := range g.Approvals {
		f.add(at, a.State+" by", "%s", person(a.By))
		f.add(at, "for environment", "%s (id %d)", a.Environment, a.EnvironmentID)
		if a.Team != "" {
			f.add(at, "through team", "%s, %s", a.Team, membership(a.InTeam))
		}
		f.add(at, "known to its directory as", "%s", a.NameID)
		if a.Source == runner.SourceWebhook {
			f.add(at, "for attempt", "%d", g.RunAttempt)
			f.add(at, "told by GitHub", "%s, delivery %s", when(a.SeenAt), a.Delivery)
		} else {
			f.add(at, "learnt from", "%s", a.Source)
			f.add(at, a.State+" between", "%s", interval(a.NotBefore, a.SeenAt))
		}
	}
	t.reviews(&f, g)
	if g.HeadAuthor != nil {
		f.add(at, "commit author", "%s", person(*g.HeadAuthor))
	}
	for _, p := range g.PullAuthors {
		f.add(at, "pull request author", "%s", person(p))
	}
	if g.TagPusher != nil {
		f.add(at, "tag pushed by", "%s", person(*g.TagPusher))
	}
	f.add(at, "actor", "%s", person(g.Actor))
	f.add(at, "triggered by", "%s", person(g.TriggeringActor))
	return f.answer(askApproval)
}

// reviews are all that the log knows of the run: also those of other attempts,
// which did not count, and what GitHub was answered before the job was queued.
func (t *teller) reviews(f *facts, g runner.Facts) {
	run := t.state.Runs[g.RunID]
	if run == nil {
		return
	}
	for _, rec := range run.Reviews {
		e := rec.Event
		attempt := "an attempt that is not known"
		if e.RunAttempt > 0 {
			attempt = fmt.Sprintf("attempt %d", e.RunAttempt)
		}
		f.add(rec.Index, "review on record", "%s by %s for %s", e.State, person(e.By), attempt)
	}
	for _, delivery := range slices.Sorted(maps.Keys(run.Asks)) {
		if ask := run.Asks[delivery]; ask.Ruled != nil {
			f.add(ask.Ruled.Index, "told GitHub", "%s %s", ask.Ruled.Event.State, strings.Join(ask.Ruled.Event.Decision.Reasons, ", "))
		}
	}
}

func membership(in *bool) string {
	switch {
	case in == nil:
		return "membership unknown"
	case *in:
		return "a member"
	}
	return "not a member"
}

// interval is when something happened that was seen only between two looks.
func interval(from, to time.Time) string {
	switch {
	case from.IsZero() && to.IsZero():
		return "not known"
	case from.IsZero():
		return "not known and " + when(to)
	}
	return when(from) + " and " + when(to)
}

func admitted(job *runner.Job) Answer {
	var f facts
	at, e := job.Authorized.Index, job.Authorized.Event
	g := e.Facts
	f.add(at, "workflow", "%s", g.JobWorkflow.Ref)
	f.add(at, "workflow commit", "%s", g.JobWorkflow.SHA)
	for _, w := range g.ReferencedWorkflows {
		if w != g.JobWorkflow {
			f.add(at, "workflow of another job", "%s, commit %s", w.Ref, w.SHA)
		}
	}
	f.add(at, "called from", "%s", g.WorkflowPath)
	f.add(at, "head commit", "%s", g.HeadSHA)
	f.add(at, "ref", "%s", g.Ref)
	f.add(at, "event", "%s", g.Event)
	f.add(at, "run", "%d attempt %d, check run %d", g.RunID, g.RunAttempt, g.CheckRunID)
	f.add(at, "repository", "%s (id %d)", g.Repository, g.RepositoryID)
	if g.Environment != nil {
		f.add(at, "environment", "%s (id %d)", g.Environment.Name, g.Environment.ID)
	}
	if g.Group != nil {
		f.add(at, "runner group", "%s (id %d)", g.Group.Name, g.Group.ID)
	}
	decided(&f, at, e.Decision)
	return f.answer(askWhat)
}

func decided(f *facts, at uint64, d runner.Decision) {
	f.add(at, "decided", "%s", when(d.EvaluatedAt))
	f.add(at, "policy", "%s", d.Policy)
	f.add(at, "policy input", "%s", d.Input)
}

// asked is what is known of a job that was never allowed.
func asked(job *runner.Job) Answer {
	var f facts
	o := job.Offered
	f.add(o.Index, "workflow, as the queue said", "%s", o.Event.WorkflowRef)
	f.add(o.Index, "run", "%d", o.Event.RunID)
	f.add(o.Index, "repository", "%s", o.Event.Repository)
	f.add(o.Index, "event", "%s", o.Event.EventName)
	f.add(o.Index, "labels", "%s", strings.Join(o.Event.Labels, " "))
	if job.Denied != nil {
		decided(&f, job.Denied.Index, job.Denied.Event.Decision)
	}
	return f.answer("What was asked for?")
}

func (t *teller) where(r *runner.Runner) Answer {
	var f facts
	at, h := r.Claimed.Index, r.Claimed.Event.Host
	f.add(at, "runner", "%s", r.Name())
	f.add(at, "made for job", "%s", r.Claimed.Event.Cause)
	f.add(at, "host", "%s %s, assurance %s", h.Provider, h.InstanceID, h.Assurance)
	f.add(at, "account", "%s", h.AccountID)
	f.add(at, "region", "%s", strings.TrimSpace(h.Region+" "+h.Zone))
	f.add(at, "image", "%s", strings.TrimSpace(h.ImageID+" "+h.ImageName))
	f.add(at, "instance type", "%s", h.InstanceType)
	f.add(at, "image named by", "%s", h.ImageParameter)
	f.add(at, "instance profile", "%s", h.Profile)
	f.add(at, "network", "%s", strings.Join(strings.Fields(strings.Join(append([]string{h.VPC, h.Subnet, h.PrivateIP}, h.NetworkInterfaces...), " ")), " "))
	f.add(at, "node", "%s, uid %s", h.NodeName, h.NodeUID)
	f.add(at, "NodeClaim", "%s", h.NodeClaim)
	f.add(at, "boot", "%s", h.BootID)
	identified(&f, at, h.Identity)
	f.add(at, "checks passed", "%s", passed(h.Checks))
	if b := r.Bound; b != nil {
		f.add(b.Index, "pod", "%s/%s, uid %s", b.Event.Namespace, b.Event.Runner, b.Event.PodUID)
		f.add(b.Index, "pod identity", "%s", b.Event.ServiceAccount)
	}
	runners, jobs := t.usesOf(h)
	f.add(at, "runners on this host, ever", "%d", runners)
	f.add(at, "jobs on this host, ever", "%d", jobs)
	return f.answer(askWhere)
}

func passed(checks []runner.Check) string {
	names := []string{}
	for _, c := range checks {
		if c.Verdict == runner.Pass {
			names = append(names, c.Name)
		}
	}
	return strings.Join(names, " ")
}

// usesOf counts over the whole log what ran on a host by any of its names.
func (t *teller) usesOf(h runner.Host) (runners, jobs int) {
	for _, r := range t.state.Runners {
		o := r.Claimed.Event.Host
		if o.InstanceID != h.InstanceID && o.NodeUID != h.NodeUID && (h.BootID == "" || o.BootID != h.BootID) {
			continue
		}
		runners++
		if r.Started != nil {
			jobs++
		}
	}
	return runners, jobs
}

func (t *teller) course(job *runner.Job, r *runner.Runner) Answer {
	var f facts
	if job != nil {
		courseOfJob(&f, job)
	}
	if r != nil {
		courseOfRunner(&f, r)
	}
	t.outages(&f)
	slices.SortStableFunc(f.list, func(a, b Fact) int { return cmp.Compare(a.Record, b.Record) })
	return f.answer(askCourse)
}

// outages says of which records the time is the daemon's word alone: while the
// log's store was away nobody else can have seen them.
func (t *teller) outages(f *facts) {
	said := map[uint64]bool{}
	for _, fact := range slices.Clone(f.list) {
		for _, o := range t.state.Outages {
			if fact.Record >= o.Event.First && fact.Record <= o.Event.Last && !said[fact.Record] {
				said[fact.Record] = true
				f.add(fact.Record, "kept on the daemon's disk until", "%s", when(o.Event.Until))
			}
		}
	}
}

func courseOfJob(f *facts, job *runner.Job) {
	f.add(job.Offered.Index, "offered", "%s, queued %s", when(job.Offered.At), when(job.Offered.Event.QueuedAt))
	if job.Spent > 0 {
		f.add(job.Offered.Index, "hosts that failed it", "%d", job.Spent)
	}
	if e := job.Authorized; e != nil {
		f.add(e.Index, "authorized", "%s", when(e.At))
	}
	if e := job.Denied; e != nil {
		f.add(e.Index, "denied", "%s", when(e.At))
	}
	if e := job.Reported; e != nil {
		f.add(e.Index, "GitHub said started", "%s on %s", when(e.At), e.Event.Runner)
	}
	if e := job.Concluded; e != nil {
		f.add(e.Index, "GitHub said concluded", "%s, result %s", when(e.At), e.Event.Result)
	}
	if e := job.Cancelled; e != nil {
		f.add(e.Index, "run cancelled", "%s%s", when(e.At), byForce(e.Event))
	}
}

func courseOfRunner(f *facts, r *runner.Runner) {
	f.add(r.Claimed.Index, "host claimed", "%s", when(r.Claimed.At))
	if e := r.Bound; e != nil {
		f.add(e.Index, "pod bound", "%s", when(e.At))
	}
	if e := r.Released; e != nil {
		f.add(e.Index, "JIT config released", "%s, runner id %d", when(e.At), e.Event.RunnerID)
	}
	if e := r.Started; e != nil {
		f.add(e.Index, "started", "%s, GitHub signed at %s", when(e.At), when(e.Event.Claims.IssuedAt))
		f.add(e.Index, "allowed to start by policy", "%s", e.Event.Decision.Policy)
	}
	if e := r.Refused; e != nil {
		f.add(e.Index, "refused", "%s", when(e.At))
	}
	if e := r.Retired; e != nil {
		f.add(e.Index, "retired", "%s, %s", when(e.At), e.Event.Cause)
		f.add(e.Index, "pod, as the cluster said", "%s", e.Event.PodReason)
	}
	if e := r.Completed; e != nil {
		f.add(e.Index, "completed", "%s, pod %s", when(e.At), strings.TrimSpace(fmt.Sprint(e.Event.PodPhase, " ", e.Event.PodReason)))
	}
	if e := r.Cancelled; e != nil {
		f.add(e.Index, "run cancelled", "%s%s", when(e.At), byForce(e.Event))
	}
	for _, e := range r.Rebuffs {
		f.add(e.Index, "turned away", "%s, at gate %s: %s", when(e.At), e.Event.Gate, rebuffText(e.Event))
	}
	courseOfHost(f, r)
}

func byForce(e runner.Cancelled) string {
	if e.Forced {
		return ", by force"
	}
	return ""
}

func courseOfHost(f *facts, r *runner.Runner) {
	if e := r.Teardown; e != nil {
		f.add(e.Index, "teardown begun", "%s", when(e.At))
	}
	if e := r.Overdue; e != nil {
		f.add(e.Index, "teardown overdue", "%s, waiting for %v", when(e.At), e.Event.Pending)
	}
	if e := r.Terminated; e != nil {
		for _, q := range e.Event.Requests {
			f.add(e.Index, "asked to end", "%s", requestText(q))
		}
		f.add(e.Index, "scaling activity", "%s", e.Event.ActivityID)
		f.add(e.Index, "reason, as the cloud says", "%s", e.Event.ReasonCode)
		for _, s := range e.Event.States {
			f.add(e.Index, "host "+s.State, "%s", when(s.At))
		}
		f.add(e.Index, "volumes gone", "%s", strings.Join(e.Event.VolumesGone, " "))
		f.add(e.Index, "pod gone", "%s", yesNo(e.Event.PodGone))
		f.add(e.Index, "node gone", "%s", yesNo(e.Event.NodeGone))
		f.add(e.Index, "registration gone", "%s", yesNo(e.Event.RegistrationGone))
	}
	if e := r.Sealed; e != nil {
		f.add(e.Index, "sealed", "%s, record %s", when(e.At), e.Digest)
	}
}

// requestText is what an auditor looks for in the cloud's own trail.
func requestText(q runner.Request) string {
	out := fmt.Sprintf("%s, %s", when(q.At), q.Call)
	for _, part := range []struct{ name, value string }{
		{"request", q.RequestID}, {"key", q.AccessKeyID}, {"session", q.Session}, {"refused with", q.Code},
	} {
		if part.value != "" {
			out += ", " + part.name + " " + part.value
		}
	}
	return out
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
