package api

import (
	"context"
	"fmt"
	"maps"
	"slices"
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
func TestFiveHundred(t *testing.T) {
	const (
		hosts = 500
		limit = 5 * time.Minute
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
	}})
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
	d := th.daemon(t, "runnerward", func(c stage.Config) {
		c.Set("limits.maxRunners", hosts)
		c.Set("supervisor.tick", "2s")
	})
	until(t, "every host is vetted", limit, func() (bool, error) {
		v, err := d.View(t.Context())
		vetted := 0
		for _, h := range v.Hosts {
			if h.Vetted {
				vetted++
			}
		}
		if vetted < hosts {
			return false, fmt.Errorf("%d are, %v", vetted, err)
		}
		return true, nil
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
	if err := d.End(); err != nil {
		t.Error(err)
	}
	asked := map[string]int{}
	for _, q := range requests(t, th.release.daemon) {
		asked[q.Verb+" "+q.ObjectRef.Resource]++
	}
	total := 0
	for _, what := range slices.Sorted(maps.Keys(asked)) {
		t.Logf("%8d %s", asked[what], what)
		total += asked[what]
	}
	t.Logf("%d jobs sealed after %.1f s; %.1f requests a job to the API server; the daemon holds %d MiB, at most %d MiB; records: %s",
		hosts, took.Seconds(), float64(total)/hosts, now>>20, peak>>20, records)
	if err := th.Verify(t.Context()); err != nil {
		t.Error(err)
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
