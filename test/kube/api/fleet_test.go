package api

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/sim/stage"
	"github.com/runnerward/runnerward/pkg/sim/world"
)

// TestFiveHundred has 500 deploys approved at once for 500 hosts. It is about
// what the daemon sees and costs, not about how fast this machine is.
// It has the machine to itself: the others wait for things to happen.
func TestFiveHundred(t *testing.T) {
	const (
		hosts = 500
		limit = 10 * time.Minute
	)
	ns := namespace(t, "restricted")
	crowd := newCrowd(t, ns)
	records := &tally{kinds: map[string]int{}}
	th := newTheatreWith(t, ns, stage.Options{OnRecord: records.add, World: func(o *world.Options) {
		o.Join, o.Leave, o.Hosts, o.Refill = crowd.join, crowd.leave, hosts, time.Hour
		o.HostGroup = func(g *simaws.Group) { g.Min, g.Max, g.Desired = hosts, hosts, hosts }
		// GitHub allows an App 5000 requests an hour, which 500 deploys exceed; how
		// the daemon meets that is told by the tests of pkg/github.
		o.GitHubServer = func(c *simgithub.Config) { c.RateLimit = 1 << 30 }
	}}, nil)
	startKwok(t)
	ctx, cancel := context.WithCancel(t.Context())
	crowd.container = th.World.Container
	crowd.run(ctx)
	t.Cleanup(func() {
		cancel()
		if err := crowd.close(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	})
	until(t, "every node is ready", limit, func() (bool, error) {
		n, err := crowd.ready(t.Context())
		if err != nil || n < hosts {
			return false, fmt.Errorf("%d are, %w", n, err)
		}
		return true, nil
	})
	// What wakes the daemon are changes; ticks are for what no watch tells.
	d := th.daemon(t, "runnerward", func(c stage.Config) {
		c.Set("limits.maxRunners", hosts)
		c.Set("supervisor.tick", "10s")
	})
	began := time.Now()
	for i := range hosts {
		th.deploy(t, world.Deploy(fmt.Sprintf("v5.0.%d", i), "bob", "bob", time.Second), "carol")
	}
	t.Logf("%d deploys approved after %.1f s", hosts, time.Since(began).Seconds())
	until(t, "every runner is sealed", limit, func() (bool, error) {
		if n := records.of(string(runner.KindSealed)); n < hosts {
			return false, fmt.Errorf("%d are: %s", n, records)
		}
		return true, nil
	})
	took := time.Since(began)
	now, peak := residentOf(t, d.PID())
	v, err := d.View(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range v.Runners {
		if r.Outcome != string(runner.OutcomeCompleted) || len(r.Rebuffed) > 0 {
			t.Errorf("runner %s ended %s, rebuffed %v", r.Name, r.Outcome, r.Rebuffed)
		}
	}
	if err := d.End(); err != nil {
		t.Error(err)
	}
	t.Logf("%d jobs sealed after %.1f s; the daemon holds %d MiB of memory and held %d at most", hosts, took.Seconds(), now>>20, peak>>20)
	if peak > memoryLimit {
		t.Errorf("the daemon took %d MiB of memory, and the chart gives it %d", peak>>20, memoryLimit>>20)
	}
	// One of each for every host: nothing that happened to a pod or node was missed.
	for _, kind := range []runner.Kind{
		runner.KindClaimed, runner.KindBound, runner.KindReleased, runner.KindStarted, runner.KindCompleted,
		runner.KindTeardown, runner.KindEnding, runner.KindTerminated, runner.KindSealed,
	} {
		if n := records.of(string(kind)); n != hosts {
			t.Errorf("%d records of kind %s, want %d: %s", n, kind, hosts, records)
		}
	}
	boundRequests(t, th.release.daemon, hosts)
	if err := th.Verify(t.Context()); err != nil {
		t.Error(err)
	}
}

// memoryLimit is what the chart gives the daemon.
const memoryLimit = 512 << 20

// boundRequests prints what the daemon asked the API server for and holds it to
// what a job may cost. Reads are what polling would multiply; the others are a
// few for each step of a job.
func boundRequests(t *testing.T, daemon string, jobs int) {
	t.Helper()
	const mostReads, most = 8, 40
	asked, reads, total := map[string]int{}, 0, 0
	for _, q := range requests(t, daemon) {
		asked[q.Verb+" "+q.ObjectRef.Resource]++
		total++
		if slices.Contains([]string{"get", "list", "watch"}, q.Verb) {
			reads++
		}
	}
	var lines strings.Builder
	for _, what := range slices.Sorted(maps.Keys(asked)) {
		fmt.Fprintf(&lines, "\n%8d %s", asked[what], what)
	}
	perJob := func(n int) float64 { return float64(n) / float64(jobs) }
	t.Logf("%.1f requests a job to the API server, %.1f of them reads:%s", perJob(total), perJob(reads), lines.String())
	if asked["create pods"] < jobs {
		t.Errorf("%d pods were made for %d jobs: the requests of %s are not in the audit log", asked["create pods"], jobs, daemon)
	}
	if perJob(reads) > mostReads || perJob(total) > most {
		t.Errorf("%.1f requests a job, %.1f of them reads; want at most %d and %d", perJob(total), perJob(reads), most, mostReads)
	}
}

// tally counts the records that a daemon says it has written.
type tally struct {
	mu    sync.Mutex
	kinds map[string]int
}

func (c *tally) add(_ uint64, kind, _ string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kinds[kind]++
}

func (c *tally) of(kind string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kinds[kind]
}

func (c *tally) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprint(c.kinds)
}
