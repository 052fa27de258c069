package hosts_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/runnerward/runnerward/pkg/hosts"
	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// TestWhatAGroupNeverLaunchesIsNotWaitedForForEver: for ten minutes it counts as on
// its way. Then the next group launches in its place, the status says so, and the
// group that lags is not raised however often it is asked.
func TestWhatAGroupNeverLaunchesIsNotWaitedForForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := testGroup(), testGroup()
		first.Min, first.Desired, first.Suspended = 0, 0, []string{"Launch"}
		second.Name, second.Min, second.Desired, second.Max = "second", 0, 0, 3
		w := world{sim: simaws.New(simConfig())}
		w.sim.AddGroup(first)
		w.sim.AddGroup(second)
		driver := w.with(t, nil, func(_ *aws.Config, o *hosts.Options) { o.Groups = []string{groupName, "second"} })
		ensure := func(ready, first, second int) (problem string) {
			t.Helper()
			if err := driver.Ensure(t.Context(), supervisor.Demand{Ready: ready}); err != nil {
				problem = err.Error()
			}
			pool, err := driver.Preflight(t.Context())
			if err != nil || pool.Groups[0].Desired != first || pool.Groups[1].Desired != second {
				t.Errorf("groups = %+v, %v, want %d and %d wanted", pool.Groups, err, first, second)
			}
			lag := slices.ContainsFunc(pool.Notes, func(n string) bool { return strings.Contains(n, "lacks 2 of 2 hosts") })
			if lag != (second > 0) {
				t.Errorf("notes = %q, want the lack of hosts among them once the second group launches: %t", pool.Notes, second > 0)
			}
			return problem
		}
		for range 10 {
			ensure(2, 2, 0)
			wait(t, time.Minute)
		}
		if problem := ensure(2, 2, 2); problem != "" {
			t.Errorf("Ensure = %s, want success by the second group", problem)
		}
		wait(t, time.Minute)
		if problem := ensure(4, 2, 3); !strings.Contains(problem, "group "+groupName+" lacks 2 of 2 hosts") {
			t.Errorf("Ensure beyond what the second group may have = %q, want why the first brings none", problem)
		}
	})
}

// TestAGroupThatLaunchesSlowlyIsWaitedFor: it always lacks some, and brings others.
func TestAGroupThatLaunchesSlowlyIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldOf(t, func(c *simaws.Config) { c.RefillDelay = 4 * time.Minute }, nil)
		for range 10 {
			if err := w.driver.Ensure(t.Context(), supervisor.Demand{Ready: 2}); err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(w.sim.Instances(), func(in simaws.Instance) bool { return in.State == "running" })
			if i >= 0 {
				if err := w.sim.Replace(w.sim.Instances()[i].ID); err != nil {
					t.Fatal(err)
				}
			}
			wait(t, 3*time.Minute)
		}
		if desired, _ := sizes(t, w); desired != 2 {
			t.Errorf("the group wants %d, want 2: it goes on launching", desired)
		}
	})
}

// TestUnfitHostsAreReplacedWithinBounds: a host that fails its checks for long is
// no host that is ready, and keeps the group from shrinking below what is wanted.
func TestUnfitHostsAreReplacedWithinBounds(t *testing.T) {
	tests := map[string]struct {
		ready, unfit, used int
		want               int
		problem            string
	}{
		"one of two":             {2, 1, 0, 3, ""},
		"all":                    {2, 2, 0, 4, ""},
		"more than are wanted":   {1, 2, 0, 3, ""},
		"not wanted anyway":      {1, 1, 0, 2, ""},
		"in use besides":         {1, 1, 1, 3, ""},
		"up to the maximum size": {9, 2, 0, 6, "5 hosts too few may be launched, and hosts that fail their checks take up room"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				d, all := supervisor.Demand{Ready: tc.ready}, w.sim.Instances()
				for _, in := range all[:tc.unfit] {
					d.Unfit = append(d.Unfit, in.ID)
				}
				for _, in := range slices.Backward(all) {
					if len(d.Used) < tc.used {
						d.Used = append(d.Used, in.ID)
					}
				}
				for range 3 {
					problem := ""
					if err := w.driver.Ensure(t.Context(), d); err != nil {
						problem = err.Error()
					}
					if (problem == "") != (tc.problem == "") || !strings.Contains(problem, tc.problem) {
						t.Errorf("Ensure = %q, want %q", problem, tc.problem)
					}
					wait(t, time.Minute)
				}
				if desired, running := sizes(t, w); desired != tc.want || running != tc.want {
					t.Errorf("the group wants %d and runs %d, want %d", desired, running, tc.want)
				}
			})
		})
	}
}
