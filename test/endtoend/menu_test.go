package endtoend

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

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
}

func (p point) String() string { return fmt.Sprintf("%s %s after %s", p.method, p.path, p.step) }

var numbered = regexp.MustCompile(`/([0-9]+|[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{40})(/|$)`)

// points runs one deploy undisturbed and lists every kind of request that the
// daemon makes at every step of it, and those of its runner.
func points(t *testing.T) (daemon, runners []point) {
	run(t, options{at: -1, hosts: 3}, func(t *testing.T, b *bench) {
		b.environment(func(e *simgithub.Environment) { e.ProtectionApps = []string{"runnerward"} })
		b.oneDeploy()
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
			p := point{method: r.Method, path: path, nth: nth[r.Method+path]}
			nth[r.Method+path]++
			for _, rec := range records {
				if !rec.At.After(r.Time) {
					p.step = rec.Event.Kind()
				}
			}
			switch key := p.String(); {
			case seen[key]:
			case ofRunner:
				runners = append(runners, p)
			default:
				daemon = append(daemon, p)
			}
			seen[p.String()] = true
		}
	})
	return daemon, runners
}

// TestEveryFaultAtEveryStep runs one deploy for each fault of the simulator's
// menu at each kind of request at each step, before and after its effect. The
// daemon must survive, the ledger must verify, and the deploy must end sealed, or
// denied or refused with a reason, or be stuck loudly. By default each fault meets a part of the points,
// all of them in turn; RUNNERWARD_FAULTS=all is every fault at every point.
func TestEveryFaultAtEveryStep(t *testing.T) {
	all, runners := points(t)
	every := 8
	if os.Getenv("RUNNERWARD_FAULTS") == "all" {
		every = 1
	}
	outcomes := make(chan string, 1<<16)
	lives := 0
	t.Run("lives", func(t *testing.T) {
		for i, spec := range simgithub.Menu() {
			t.Run(string(spec.Kind), func(t *testing.T) {
				met := 0
				var faults []simgithub.Fault
				meets := all
				if spec.Kind == simgithub.FaultVersion { // which only a runner meets
					meets = runners
				}
				for _, p := range meets {
					if spec.Where != nil && !spec.Where(p.method, p.path) {
						continue
					}
					if met++; (met+i)%every != 0 && (met != 1 || every == 1) {
						continue
					}
					// Go's transport repeats a GET that is dropped on a kept
					// connection: two in a row are seen.
					f := simgithub.Fault{Kind: spec.Kind, Method: p.method, Path: p.path, Whole: true, Skip: p.nth, Count: 2}
					faults = append(faults, f)
					if !spec.Rewrites {
						f.AfterEffect = true
						faults = append(faults, f)
					}
				}
				if len(faults) == 0 {
					t.Errorf("%s happens to no request of a deploy", spec.Kind)
				}
				lives += len(faults)
				t.Parallel()
				for _, f := range faults {
					name := fmt.Sprintf("%s %s #%d late=%t", f.Method, strings.ReplaceAll(f.Path, "/", "-"), f.Skip, f.AfterEffect)
					t.Run(name, func(t *testing.T) { outcomes <- oneLife(t, f) })
				}
			})
		}
	})
	close(outcomes)
	count := map[string]int{}
	for o := range outcomes {
		count[o]++
	}
	t.Logf("%d requests at their steps, %d faults: %d lives: %v", len(all), len(simgithub.Menu()), lives, count)
	if count["sealed"] < lives/2 {
		t.Errorf("only %d of %d deploys ended sealed", count["sealed"], lives)
	}
}

// oneLife is one life with one fault. It says how the deploy ended.
func oneLife(t *testing.T, f simgithub.Fault) (outcome string) {
	run(t, options{at: -1, hosts: 3}, func(t *testing.T, b *bench) {
		b.environment(func(e *simgithub.Environment) { e.ProtectionApps = []string{"runnerward"} })
		b.world.GitHub.Inject(f)
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 20*time.Second), "carol")
		for waited := time.Duration(0); waited < 3*time.Hour && outcome == ""; waited += 20 * time.Second {
			pause(t.Context(), 20*time.Second)
			switch {
			case b.sealed(deploy.JobID) != nil && b.quiet():
				outcome = "sealed"
			case b.denied(deploy.JobID) != nil && b.quiet():
				outcome = "denied"
			case b.ended(runner.OutcomeRefused) != nil && b.quiet():
				outcome = "refused"
			}
		}
		b.world.GitHub.ClearFaults()
		if outcome == "" {
			outcome = "stuck"
			b.loud(deploy.JobID)
		}
		if outcome == "sealed" && len(b.world.GitHub.Runners()) != 0 {
			t.Errorf("%d registrations are left over", len(b.world.GitHub.Runners()))
		}
		b.singleUse(string(f.Kind))
	})
	return outcome
}

// loud checks that on-call can see that the job does not move, and why.
func (b *bench) loud(job string) {
	b.t.Helper()
	v := b.view()
	if len(v.Why) > 0 {
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
	b.t.Errorf("the deploy does not end and the status does not say why\n%s", b.describe())
}
