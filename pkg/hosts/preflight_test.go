package hosts_test

import (
	"reflect"
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

func TestPreflight(t *testing.T) {
	tests := map[string]struct {
		change  func(*simaws.Group)
		problem string // what it refuses for, empty if it does not
		note    string
	}{
		"two zones":             {func(*simaws.Group) {}, "", "rebalances over 2 zones"},
		"one zone":              {func(g *simaws.Group) { g.SubnetIDs = g.SubnetIDs[:1] }, "", ""},
		"AZRebalance suspended": {func(g *simaws.Group) { g.Suspended = []string{"AZRebalance"} }, "", ""},
		"a pool that reuses": {func(g *simaws.Group) { g.Pool = &simaws.WarmPool{MinSize: 1, Reuse: true} },
			"returns used hosts to its warm pool", "rebalances"},
		"a pool that does not":           {func(g *simaws.Group) { g.Pool = &simaws.WarmPool{MinSize: 1} }, "", "has a warm pool"},
		"retains what its hook abandons": {func(g *simaws.Group) { g.Retains, g.TerminateHook = true, time.Minute }, "Terminating:Retained", "hook Terminate-LC-Hook"},
		"a hook":                         {func(g *simaws.Group) { g.TerminateHook = 15 * time.Minute }, "", "for up to 900 s"},
		"may not launch":                 {func(g *simaws.Group) { g.Suspended = []string{"Launch"} }, "resume-processes --scaling-processes Launch", "rebalances"},
		"may not terminate":              {func(g *simaws.Group) { g.Suspended = []string{"Terminate"} }, "resume-processes --scaling-processes Terminate", "rebalances"},
		"no instance allowed":            {func(g *simaws.Group) { g.Min, g.Desired, g.Max = 0, 0, 0 }, "raise its maximum size", "rebalances"},
		"protects new ones":              {func(g *simaws.Group) { g.ProtectsNew = true }, "", "protects new instances from scale in"},
		"does not exist":                 {func(g *simaws.Group) { g.Name = "another" }, "does not exist in us-east-1", ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sim := simaws.New(simConfig())
				g := testGroup()
				tc.change(&g)
				sim.AddGroup(g)
				pool, err := world{sim: sim}.with(t, nil, nil).Preflight(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if problems := strings.Join(pool.Problems, "\n"); (problems == "") != (tc.problem == "") || !strings.Contains(problems, tc.problem) {
					t.Errorf("problems = %q, want %q", problems, tc.problem)
				}
				if notes := strings.Join(pool.Notes, "\n"); (notes == "") != (tc.note == "") || !strings.Contains(notes, tc.note) {
					t.Errorf("notes = %q, want %q", notes, tc.note)
				}
				want := supervisor.GroupView{Name: groupName, Min: g.Min, Desired: g.Desired, Max: g.Max}
				if g.Name == groupName && (len(pool.Groups) != 1 || !reflect.DeepEqual(pool.Groups[0], want)) {
					t.Errorf("groups = %+v, want the sizes of %+v", pool.Groups, g)
				}
			})
		})
	}
}

// TestPreflightThatCannotBeHadIsAnError: never a pool without problems.
func TestPreflightThatCannotBeHadIsAnError(t *testing.T) {
	for _, action := range []string{"DescribeAutoScalingGroups", "DescribeWarmPool", "DescribeLifecycleHooks"} {
		for kind, attempts := range map[simaws.FaultKind]int{simaws.Throttle: 3, simaws.Unavailable: 3, simaws.Unauthorized: 1, simaws.Hang: 1} {
			t.Run(action+" "+string(kind), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorldOf(t, nil, func(g *simaws.Group) { g.Pool = &simaws.WarmPool{} })
					w.sim.Inject(simaws.Fault{Action: action, Kind: kind, Count: attempts})
					if pool, err := w.driver.Preflight(t.Context()); err == nil || len(pool.Groups) > 0 {
						t.Errorf("Preflight = %+v, %v, want an error and nothing believed", pool, err)
					}
					if pool, err := w.driver.Preflight(t.Context()); err != nil || len(pool.Problems) > 0 {
						t.Errorf("Preflight afterwards = %+v, %v, want success", pool, err)
					}
				})
			})
		}
	}
}

func TestProtectKeepsTheGroupFromTakingAHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldOf(t, nil, func(g *simaws.Group) { g.Min = 0 })
		for range 2 {
			if err := w.driver.Protect(t.Context(), w.first.ID); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(slices.DeleteFunc(actions(w.sim), func(a string) bool { return a != "SetInstanceProtection" })); n != 1 {
			t.Errorf("protection was set %d times, want once", n)
		}
		// Zone rebalancing and scale in take the other one, and then none.
		for _, take := range []func(string) (string, error){w.sim.Rebalance, w.sim.ScaleIn, w.sim.ScaleIn} {
			if id, err := take(groupName); err != nil || id == w.first.ID {
				t.Errorf("the group took %s, %v, want it never to take the protected host", id, err)
			}
			wait(t, 2*time.Minute)
		}
		if in, _ := w.sim.Instance(w.first.ID); in.State != "running" {
			t.Errorf("the protected host is %s, want running", in.State)
		}
		if _, err := w.driver.Terminate(t.Context(), w.first.ID, plainly); err != nil {
			t.Errorf("Terminate of a protected host = %v, want success: we may end it", err)
		}
	})
}

func TestProtectRefusesAHostThatWillNotServe(t *testing.T) {
	lost := func(err error) bool { return errIs(err, supervisor.ErrConflict) }
	passing := func(err error) bool { return err != nil && !errIs(err, supervisor.ErrConflict) }
	tests := map[string]struct {
		change func(*testing.T, world) string // which instance to protect
		want   func(error) bool
	}{
		"its group is ending it": {func(t *testing.T, w world) string {
			if err := w.sim.Replace(w.first.ID); err != nil {
				t.Fatal(err)
			}
			return w.first.ID
		}, lost},
		"in the warm pool": {func(t *testing.T, w world) string {
			id, err := w.sim.AddWarmed(groupName)
			if err != nil {
				t.Fatal(err)
			}
			wait(t, time.Minute)
			return id
		}, lost},
		"left its group": {func(t *testing.T, w world) string {
			if err := w.sim.Detach(w.first.ID); err != nil {
				t.Fatal(err)
			}
			return w.first.ID
		}, passing},
		"the list is stale": {func(_ *testing.T, w world) string {
			w.sim.Inject(simaws.Fault{Action: "DescribeAutoScalingInstances", Kind: simaws.Stale})
			return w.first.ID
		}, passing},
		"not answered": {func(_ *testing.T, w world) string {
			w.sim.Inject(simaws.Fault{Action: "SetInstanceProtection", Kind: simaws.Throttle, Count: 3})
			return w.first.ID
		}, passing},
		"of a foreign group": {func(_ *testing.T, w world) string {
			g := testGroup()
			g.Name = "database"
			w.sim.AddGroup(g)
			return w.sim.Instances()[2].ID
		}, func(err error) bool { return errIs(err, hosts.ErrForeignGroup) }},
		"no id": {func(*testing.T, world) string { return "i-*" }, passing},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorldOf(t, nil, func(g *simaws.Group) { g.TerminateHook, g.Pool = time.Hour, &simaws.WarmPool{MinSize: 1} })
				if err := w.driver.Protect(t.Context(), tc.change(t, w)); !tc.want(err) {
					t.Errorf("Protect = %v, want another answer", err)
				}
			})
		})
	}
}

// sizes are what the group wants and how many of its instances run.
func sizes(t *testing.T, w world) (desired, running int) {
	t.Helper()
	pool, err := w.driver.Preflight(t.Context())
	if err != nil || len(pool.Groups) != 1 {
		t.Fatalf("Preflight = %+v, %v, want one group", pool, err)
	}
	for _, in := range w.sim.Instances() {
		if in.State == "running" || in.State == "pending" {
			running++
		}
	}
	return pool.Groups[0].Desired, running
}

func TestEnsureRaisesTheGroupAsFarAsItMay(t *testing.T) {
	tests := map[string]struct {
		ready, used, want int
	}{
		"nothing wanted":            {0, 0, 2},
		"enough there":              {2, 0, 2},
		"one more":                  {3, 0, 3},
		"those in use do not count": {2, 1, 3},
		"all in use":                {2, 2, 4},
		"never above its maximum":   {50, 2, 6},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				d := supervisor.Demand{Ready: tc.ready}
				for _, in := range w.sim.Instances()[:tc.used] {
					d.Used = append(d.Used, in.ID)
				}
				// What is on its way counts, so to ask again changes nothing.
				for range 3 {
					if err := w.driver.Ensure(t.Context(), d); err != nil {
						t.Fatal(err)
					}
					wait(t, 11*time.Second)
				}
				wait(t, 2*time.Minute)
				if desired, running := sizes(t, w); desired != tc.want || running != tc.want {
					t.Errorf("the group wants %d and runs %d, want %d", desired, running, tc.want)
				}
			})
		})
	}
}

func TestEnsureCountsNoHostThatIsLeavingOrWarmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldOf(t, func(c *simaws.Config) { c.RefillDelay = time.Hour }, func(g *simaws.Group) {
			g.TerminateHook, g.Pool = time.Hour, &simaws.WarmPool{MinSize: 1}
		})
		if err := w.sim.Replace(w.first.ID); err != nil {
			t.Fatal(err)
		}
		if id, err := w.sim.AddWarmed(groupName); err != nil || id == "" {
			t.Fatal(id, err)
		}
		// One stays, one is to be launched for the one that leaves.
		if err := w.driver.Ensure(t.Context(), supervisor.Demand{Ready: 2}); err != nil {
			t.Fatal(err)
		}
		if desired, _ := sizes(t, w); desired != 2 {
			t.Errorf("the group wants %d, want 2: the one to come counts", desired)
		}
		if err := w.driver.Ensure(t.Context(), supervisor.Demand{Ready: 3}); err != nil {
			t.Fatal(err)
		}
		if desired, _ := sizes(t, w); desired != 3 {
			t.Errorf("the group wants %d, want 3", desired)
		}
	})
}

func TestEnsureFillsGroupsInTheirOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		second := testGroup()
		second.Name, second.Min, second.Desired = "second", 0, 0
		w.sim.AddGroup(second)
		driver := w.with(t, nil, func(_ *aws.Config, o *hosts.Options) { o.Groups = []string{groupName, "gone", "second"} })
		if err := driver.Ensure(t.Context(), supervisor.Demand{Ready: 9}); err != nil {
			t.Fatal(err)
		}
		pool, err := driver.Preflight(t.Context())
		if err != nil || len(pool.Groups) != 2 || pool.Groups[0].Desired != 6 || pool.Groups[1].Desired != 3 {
			t.Errorf("groups = %+v, %v, want 6 and 3 wanted", pool.Groups, err)
		}
	})
}

// TestEnsureGoesOnWhenAGroupRefuses: the next group starts what the first did not.
func TestEnsureGoesOnWhenAGroupRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		second := testGroup()
		second.Name, second.Min, second.Desired = "second", 0, 0
		w.sim.AddGroup(second)
		driver := w.with(t, nil, func(_ *aws.Config, o *hosts.Options) { o.Groups = []string{groupName, "second"} })
		w.sim.Inject(simaws.Fault{Action: "SetDesiredCapacity", Kind: simaws.Unauthorized})
		if err := driver.Ensure(t.Context(), supervisor.Demand{Ready: 4}); code(err) != "AccessDenied" || !strings.Contains(err.Error(), groupName) {
			t.Errorf("Ensure = %v, want AccessDenied for %s", err, groupName)
		}
		pool, err := driver.Preflight(t.Context())
		if err != nil || pool.Groups[0].Desired != 2 || pool.Groups[1].Desired != 2 {
			t.Errorf("groups = %+v, %v, want two wanted of each", pool.Groups, err)
		}
	})
}

func TestEnsureFailsWhenItCannotSee(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		for _, action := range []string{"DescribeAutoScalingGroups", "SetDesiredCapacity"} {
			w.sim.Inject(simaws.Fault{Action: action, Kind: simaws.Unauthorized})
			if err := w.driver.Ensure(t.Context(), supervisor.Demand{Ready: 4}); code(err) != "AccessDenied" {
				t.Errorf("Ensure = %v, want AccessDenied of %s", err, action)
			}
		}
		if desired, _ := sizes(t, w); desired != 2 {
			t.Errorf("the group wants %d, want 2", desired)
		}
	})
}
