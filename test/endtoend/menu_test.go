package endtoend

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/runnerward/runnerward/pkg/runner"
	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/sim/world"
)

// point is a request of the daemon to GitHub at one step of a deploy: the n-th
// request of its kind.
type point struct {
	method, path string
	nth          int
	step         runner.Kind // what was recorded last before it
	ofRunner     bool        // the runner made it, not the daemon
}

func (p point) String() string { return fmt.Sprintf("%s %s after %s", p.method, p.path, p.step) }

var numbered = regexp.MustCompile(`/([0-9]+|[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{40})(/|$)`)

// story is one way in which a job can go, up to where nobody has to do anything
// any more.
type story struct {
	name    string
	options func(*options)
	// play starts it and returns the job whose end is waited for. It is called
	// once; what it waits for may never come.
	play func(*bench) string
}

// stories are the ways of a job that differ in what the daemon asks of GitHub.
func stories() []story {
	good := func() simgithub.RunSpec { return world.Deploy("v1.0.0", "bob", "bob", 20*time.Second) }
	never := func(o *options) { o.assign = func(string, []string) string { return "" } }
	return []story{
		{"approved", nil, func(b *bench) string { return b.dispatch(good(), "carol").JobID }},
		{"approved on Enterprise Server", func(o *options) { o.ghes = true }, func(b *bench) string { return b.dispatch(good(), "carol").JobID }},
		{"approved by its author", nil, func(b *bench) string {
			return b.dispatch(world.Deploy("v1.0.0", "bob", "alice", 20*time.Second), "alice").JobID
		}},
		{"denied and outliving its cancellation", nil, func(b *bench) string {
			spec := good()
			spec.JobWorkflowRef, spec.Always = world.BranchWorkflow, true
			b.environment(func(*simgithub.Environment) {}) // or we would reject it before it is queued
			return b.dispatch(spec, "carol").JobID
		}},
		{"cancelled before it starts", never, func(b *bench) string {
			deploy := b.dispatch(good(), "carol")
			b.eventually(func() bool { return b.phase(runner.KindReleased) != nil })
			_ = b.world.GitHub.Cancel(deploy.ID) // it may be over
			return deploy.JobID
		}},
		{"killed in the middle", nil, func(b *bench) string {
			spec := good()
			spec.Duration = time.Hour
			deploy := b.dispatch(spec, "carol")
			if b.eventually(func() bool { return b.phase(runner.KindStarted) != nil }) {
				name := string(b.phase(runner.KindStarted).Name())
				_ = b.world.Cluster.Client().CoreV1().Pods(world.Namespace).Delete(b.t.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))})
			}
			return deploy.JobID
		}},
	}
}

func (s story) run(t *testing.T, f func(t *testing.T, b *bench)) {
	opts := options{at: -1, hosts: 3}
	if s.options != nil {
		s.options(&opts)
	}
	run(t, opts, func(t *testing.T, b *bench) {
		b.environment(func(e *simgithub.Environment) { e.ProtectionApps = []string{"runnerward"} })
		f(t, b)
	})
}

// eventually waits for half an hour of the bubble's time.
func (b *bench) eventually(ok func() bool) bool {
	for waited := time.Duration(0); waited < 30*time.Minute; waited += 2 * time.Second {
		if ok() {
			return true
		}
		pause(b.t.Context(), 2*time.Second)
	}
	return false
}

// points plays a story undisturbed and lists every kind of request that the
// daemon and its runner make at every step of it.
func (s story) points(t *testing.T) (out []point) {
	s.run(t, func(t *testing.T, b *bench) {
		job := s.play(b)
		if end := b.end(job); end == "stuck" {
			t.Fatalf("%s: does not end even undisturbed\n%s", s.name, b.describe())
		}
		records := b.report().Records
		nth := map[string]int{}
		seen := map[string]bool{}
		for _, r := range b.world.GitHub.Requests() {
			ofRunner := strings.HasPrefix(r.Path, "/broker/")
			if !ofRunner && !slices.Contains([]string{"app", "installation", "registration", "admin", "queue", "anonymous"}, r.Caller) {
				continue
			}
			path := r.Path
			for range 3 {
				path = numbered.ReplaceAllString(path, "/*$2")
			}
			p := point{method: r.Method, path: path, nth: nth[r.Method+path], ofRunner: ofRunner}
			nth[r.Method+path]++
			for _, rec := range records {
				if !rec.At.After(r.Time) {
					p.step = rec.Event.Kind()
				}
			}
			if key := p.String(); !seen[key] {
				seen[key] = true
				out = append(out, p)
			}
		}
	})
	return out
}

// life is one story with one fault at one of its points.
type life struct {
	story
	fault simgithub.Fault
}

func (l life) String() string {
	f := l.fault
	return fmt.Sprintf("%s/%s %s #%d late=%t x%d", l.story.name, f.Method, strings.ReplaceAll(f.Path, "/", "-"), f.Skip, f.AfterEffect, f.Count)
}

// forGood is how many endpoints there are to one that a kind of fault hits for
// good: hours go by in such a life. The endpoints differ from kind to kind.
const forGood = 12

// lives puts the i-th fault of the menu to every point of every story, twice in
// a row: Go's transport repeats a GET that is dropped on a kept connection.
// Points that an earlier story has are not repeated. Some endpoints it hits for
// good.
func lives(i int, spec simgithub.FaultSpec, all map[string][]point) (out []life) {
	seen := map[string]bool{}
	endpoints := 0
	for _, s := range stories() {
		for _, p := range all[s.name] {
			if p.ofRunner != (spec.Kind == simgithub.FaultVersion) || spec.Where != nil && !spec.Where(p.method, p.path) {
				continue // only a runner meets FaultVersion, and nothing else is put to it
			}
			f := simgithub.Fault{Kind: spec.Kind, Method: p.method, Path: p.path, Whole: true}
			if key := p.String(); !seen[key] {
				seen[key] = true
				f.Skip, f.Count = p.nth, 2
				out = append(out, life{s, f})
				if spec.Before() && spec.After() {
					f.AfterEffect = true
					out = append(out, life{s, f})
				}
			}
			if key := p.method + p.path; !seen[key] {
				seen[key] = true
				if endpoints++; (endpoints+i)%forGood != 0 {
					continue
				}
				f.Skip, f.Count, f.AfterEffect = 0, -1, false
				out = append(out, life{s, f})
			}
		}
	}
	return out
}

// TestEveryFaultAtEveryStep plays each story with each fault of the simulator's
// menu at each kind of request at each step, before and after its effect, and
// for good. The daemon must survive, the ledger must verify, every host that was
// used must be gone, and the job must end sealed, denied, refused or withdrawn,
// or be stuck loudly. By default each fault meets a part of the points, all of
// them in turn; ENDTOEND_FAULTS=all is every fault at every point.
func TestEveryFaultAtEveryStep(t *testing.T) {
	all := map[string][]point{}
	places := 0
	for _, s := range stories() {
		all[s.name] = s.points(t)
		places += len(all[s.name])
	}
	every, first := share(t, 32)
	outcomes := make(chan string, 1<<16)
	total := 0
	t.Run("lives", func(t *testing.T) {
		for i, spec := range simgithub.Menu() {
			t.Run(string(spec.Kind), func(t *testing.T) {
				met := lives(i, spec, all)
				if len(met) == 0 {
					t.Errorf("%s happens to no request of any story", spec.Kind)
				}
				var chosen []life
				for n, l := range met {
					if n == 0 || (n+i)%every == first {
						chosen = append(chosen, l)
					}
				}
				total += len(chosen)
				t.Parallel()
				for _, l := range chosen {
					t.Run(l.String(), func(t *testing.T) { outcomes <- l.live(t) })
				}
			})
		}
	})
	close(outcomes)
	count := map[string]int{}
	for o := range outcomes {
		count[o]++
	}
	t.Logf("%d stories, %d requests at their steps, %d kinds of fault: %d lives: %v", len(stories()), places, len(simgithub.Menu()), total, count)
	for _, end := range []string{"sealed", "denied", "withdrawn"} {
		if count[end] == 0 {
			t.Errorf("no life ended %s", end)
		}
	}
	if every == 1 && count["stuck"] == 0 {
		t.Error("no life was stuck: a fault that lasts did not reach the daemon")
	}
}

// share is which part of a matrix is played: those whose number is first modulo
// every. ENDTOEND_FAULTS says it: "all", or "3/8" for the fourth of eight parts,
// of a matrix that is usually played in fewer parts one of these.
func share(t *testing.T, usual int) (every, first int) {
	t.Helper()
	switch text := os.Getenv("ENDTOEND_FAULTS"); text {
	case "":
		return usual, 0
	case "all":
		return 1, 0
	default:
		if n, err := fmt.Sscanf(text, "%d/%d", &first, &every); n != 2 || err != nil || first < 0 || first >= every {
			t.Fatalf(`ENDTOEND_FAULTS is %q, want "all" or a part such as "3/8"`, text)
		}
		every = min(every, usual)
		return every, first % every
	}
}

// live says how the story ended. A job that is stuck ends once the fault is
// gone, whatever it is then.
func (l life) live(t *testing.T) (outcome string) {
	l.run(t, func(t *testing.T, b *bench) {
		b.world.GitHub.Inject(l.fault)
		job := l.play(b)
		if outcome = b.end(job); outcome == "stuck" {
			b.loud(job)
		}
		b.world.GitHub.ClearFaults()
		b.closeGroup()
		if outcome == "stuck" && b.end(job) == "stuck" && !b.heeded(job) {
			t.Errorf("it does not end although the fault is gone\n%s", b.describe())
		}
		if n := len(b.world.GitHub.Runners()); n != 0 {
			t.Errorf("%d registrations are left over", n)
		}
		b.singleUse(string(l.fault.Kind))
	})
	return outcome
}

// closeGroup puts the runner group back as an administrator would after a fault
// that changed it.
func (b *bench) closeGroup() {
	b.t.Helper()
	if err := b.world.GitHub.UpdateGroup(b.world.GroupID, func(g *simgithub.Group) {
		g.Name, g.Visibility, g.RestrictedToWorkflows = world.Group, "selected", true
	}); err != nil {
		b.t.Fatal(err)
	}
}

// end waits for two hours of the bubble's time, longer than a job may last, until
// the job is over and every host that was used for it is gone.
func (b *bench) end(job string) string {
	for waited := time.Duration(0); waited < 2*time.Hour; waited += 20 * time.Second {
		pause(b.t.Context(), 20*time.Second)
		j := b.state().Jobs[runner.JobID(job)]
		switch gh, known := b.world.GitHub.Job(job); {
		case !b.quiet():
		case b.sealed(job) != nil:
			return "sealed"
		case j != nil && j.Denied != nil && gh.Status == "completed":
			return "denied"
		case b.ended(runner.OutcomeRefused) != nil && gh.Status == "completed":
			return "refused"
		case known && gh.Status == "completed":
			return "withdrawn" // it never started here
		}
	}
	return "stuck"
}

// heeded does what the status page says about a job that GitHub has given up,
// and says whether that ended it.
func (b *bench) heeded(job string) bool {
	b.t.Helper()
	for _, j := range b.view().Jobs {
		if j.ID == runner.JobID(job) && j.Phase == runner.KindConcluded && strings.Contains(j.Problem, "if its run still waits, cancel") {
			return b.world.GitHub.ForceCancel(j.RunID) == nil && b.end(job) != "stuck"
		}
	}
	return false
}

// loud checks that on-call can see that the job does not move, and why: a check
// of readiness fails, something was skipped, or the job, its runner or GitHub's
// question say what hinders.
func (b *bench) loud(job string) {
	b.t.Helper()
	b.mu.Lock()
	startErr := b.daemon.startErr
	b.mu.Unlock()
	if startErr != nil { // the process ends with it and is started again
		return
	}
	v := b.view()
	for _, c := range v.Checks {
		if !c.OK {
			return
		}
	}
	if len(v.Warnings) > 0 {
		return
	}
	for _, a := range v.Asks {
		if a.Problem != "" {
			return
		}
	}
	for _, j := range v.Jobs {
		if j.ID == runner.JobID(job) && j.Problem != "" {
			return
		}
	}
	for _, r := range v.Runners {
		if r.Problem != "" || r.Overdue {
			return
		}
	}
	b.t.Errorf("the job does not end and the status does not say why: %v\n%s", v.Why, b.describe())
}
