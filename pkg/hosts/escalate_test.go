package hosts_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/runnerward/runnerward/pkg/hosts"
	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

func errIs(err, target error) bool { return errors.Is(err, target) }

var forced = supervisor.TerminateOptions{Force: true}

func (w world) stateOf(t *testing.T, id string) string {
	t.Helper()
	got, err := w.driver.Describe(t.Context(), []string{id})
	if err != nil {
		t.Fatal(err)
	}
	return got[id].State
}

// terminations are the calls that end something, with their error codes.
func terminations(w world) []string {
	return slices.DeleteFunc(actions(w.sim), func(a string) bool { return !strings.HasPrefix(a, "Terminate") })
}

// TestForceGoesAroundWhatKeepsAHostAlive: the group accepted the request, and
// nothing comes of it.
func TestForceGoesAroundWhatKeepsAHostAlive(t *testing.T) {
	tests := map[string]func(*testing.T, world){
		"its lifecycle hook waits": func(*testing.T, world) {},
		"the group is busy for ever": func(_ *testing.T, w world) {
			w.sim.Inject(simaws.Fault{Action: "TerminateInstanceInAutoScalingGroup", Kind: simaws.InProgress, Count: 99})
		},
		"the group accepts and forgets": func(_ *testing.T, w world) {
			w.sim.Inject(simaws.Fault{Action: "TerminateInstanceInAutoScalingGroup", Kind: simaws.Ignored, Count: 99})
		},
		"Auto Scaling is away": func(_ *testing.T, w world) {
			w.sim.Inject(simaws.Fault{Action: "DescribeAutoScalingInstances", Kind: simaws.Unavailable, Count: 99})
		},
		"Auto Scaling never answers": func(_ *testing.T, w world) {
			w.sim.Inject(simaws.Fault{Action: "DescribeAutoScalingInstances", Kind: simaws.Hang, Count: 99})
		},
		"Auto Scaling denies": func(_ *testing.T, w world) {
			w.sim.Inject(simaws.Fault{Action: "TerminateInstanceInAutoScalingGroup", Kind: simaws.Unauthorized, Count: 99})
		},
	}
	for name, breakIt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorldOf(t, nil, func(g *simaws.Group) { g.TerminateHook = 48 * time.Hour })
				breakIt(t, w)
				for range 3 {
					_, _ = w.driver.Terminate(t.Context(), w.first.ID, plainly) // whatever it says
					wait(t, 30*time.Second)
				}
				if in, _ := w.sim.Instance(w.first.ID); in.State != "running" {
					t.Fatalf("the host is %s, want it to be kept alive", in.State)
				}
				// The supervisor gives each step of an end its share of the time.
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				receipt, err := w.driver.Terminate(ctx, w.first.ID, forced)
				if err != nil || len(receipt.Requests) != 1 || receipt.Requests[0].Call != "ec2:TerminateInstances" {
					t.Fatalf("Terminate by force = %+v, %v, want one request to EC2", receipt, err)
				}
				if in, _ := w.sim.Instance(w.first.ID); in.State != "shutting-down" {
					t.Errorf("the host is %s after the forced request, want shutting-down", in.State)
				}
			})
		})
	}
}

// TestForceSparesWhatIsNotOurs, by the list of members and by the tag alone.
func TestForceSparesWhatIsNotOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		foreign := testGroup()
		foreign.Name = "database"
		w.sim.AddGroup(foreign)
		wait(t, 30*time.Second)
		id := w.sim.Instances()[2].ID
		for _, kind := range []simaws.FaultKind{"", simaws.Stale, simaws.Unauthorized} {
			if kind != "" {
				w.sim.Inject(simaws.Fault{Action: "DescribeAutoScalingInstances", Kind: kind})
			}
			if _, err := w.driver.Terminate(t.Context(), id, forced); !errors.Is(err, hosts.ErrForeignGroup) {
				t.Errorf("%q: Terminate by force = %v, want ErrForeignGroup", kind, err)
			}
		}
		if got := terminations(w); len(got) != 0 {
			t.Errorf("calls = %v, want none", got)
		}
	})
}

// TestAHostThatItsGroupRetainsIsEndedExplicitly: it runs on after its hook
// failed, and its group counts it no more.
func TestAHostThatItsGroupRetainsIsEndedExplicitly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldOf(t, nil, func(g *simaws.Group) { g.TerminateHook, g.HookAbandons, g.Retains = time.Minute, true, true })
		if _, err := w.driver.Terminate(t.Context(), w.first.ID, plainly); err != nil {
			t.Fatal(err)
		}
		wait(t, 5*time.Minute)
		got, err := w.driver.Describe(t.Context(), []string{w.first.ID})
		if in := got[w.first.ID]; err != nil || in.State != "running" || in.Lifecycle != "Terminating:Retained" {
			t.Fatalf("the host is %s, %s, %v, want it retained and running", in.State, in.Lifecycle, err)
		}
		receipt, err := w.driver.Terminate(t.Context(), w.first.ID, plainly)
		if err != nil || len(receipt.Requests) != 1 || receipt.ActivityID == "" {
			t.Errorf("Terminate of a retained host = %+v, %v, want the group asked again", receipt, err)
		}
		if state := w.stateOf(t, w.first.ID); state != "shutting-down" {
			t.Errorf("the host is %s, want shutting-down", state)
		}
	})
}

// TestAHostInAWarmPoolIsEndedByEC2: its group returned it there behind our back.
func TestAHostInAWarmPoolIsEndedByEC2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldOf(t, nil, func(g *simaws.Group) { g.Min, g.Pool = 0, &simaws.WarmPool{MinSize: 1, Reuse: true} })
		id, err := w.sim.ScaleIn(groupName)
		if err != nil || id == "" {
			t.Fatal(id, err)
		}
		if state := w.stateOf(t, id); state != "running" {
			t.Fatalf("the host is %s, want it running in the pool", state)
		}
		if _, err := w.driver.Terminate(t.Context(), id, plainly); err != nil {
			t.Fatal(err)
		}
		if got, want := terminations(w), []string{"TerminateInstances"}; !slices.Equal(got, want) {
			t.Errorf("calls = %v, want %v: the group's call cannot be made in a pool", got, want)
		}
		if state := w.stateOf(t, id); state != "shutting-down" {
			t.Errorf("the host is %s, want shutting-down", state)
		}
	})
}

// TestAHostThatItsGroupReplacesIsSeenEnding: nothing is asked for, and the end
// is observed all the same.
func TestAHostThatItsGroupReplacesIsSeenEnding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		if err := errors.Join(w.driver.Protect(t.Context(), w.first.ID), w.sim.Replace(w.first.ID)); err != nil {
			t.Fatal(err)
		}
		receipt, err := w.driver.Terminate(t.Context(), w.first.ID, plainly)
		if err != nil || len(receipt.Requests) != 0 || receipt.ActivityID == "" {
			t.Errorf("Terminate = %+v, %v, want nothing asked and the group's own activity", receipt, err)
		}
		wait(t, time.Minute)
		again, err := w.driver.Terminate(t.Context(), w.first.ID, plainly)
		if err != nil || again.ActivityID != receipt.ActivityID {
			t.Errorf("Terminate once it left the group = %+v, %v, want activity %s", again, err, receipt.ActivityID)
		}
		if state := w.stateOf(t, w.first.ID); state != "terminated" {
			t.Errorf("the host is %s, want terminated", state)
		}
	})
}

// TestAnUnknownActivityKeepsNoHostAlive: who ends it is asked in passing.
func TestAnUnknownActivityKeepsNoHostAlive(t *testing.T) {
	for _, kind := range []simaws.FaultKind{simaws.Unauthorized, simaws.Hang} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, nil)
			if err := w.sim.Replace(w.first.ID); err != nil {
				t.Fatal(err)
			}
			w.sim.Inject(simaws.Fault{Action: "DescribeScalingActivities", Kind: kind})
			began := time.Now()
			receipt, err := w.driver.Terminate(t.Context(), w.first.ID, plainly)
			if err != nil || receipt.ActivityID != "" || time.Since(began) > 5*time.Second {
				t.Errorf("%s: Terminate = %+v, %v after %s, want success at once without the activity", kind, receipt, err, time.Since(began))
			}
		})
	}
}

// TestAnUnknownActivityIsNotAskedForAtEveryStep: an end is looked at every few
// seconds, and Auto Scaling throttles.
func TestAnUnknownActivityIsNotAskedForAtEveryStep(t *testing.T) {
	for _, kind := range []simaws.FaultKind{simaws.Unauthorized, simaws.Stale} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorldOf(t, nil, func(g *simaws.Group) { g.TerminateHook = 15 * time.Minute })
			if err := w.sim.Replace(w.first.ID); err != nil {
				t.Fatal(err)
			}
			w.sim.Inject(simaws.Fault{Action: "DescribeScalingActivities", Kind: kind})
			activity := ""
			end := func(times int) (asked int) {
				for range times {
					receipt, err := w.driver.Terminate(t.Context(), w.first.ID, plainly)
					if err != nil {
						t.Fatal(err)
					}
					activity = receipt.ActivityID
					wait(t, 5*time.Second)
				}
				for _, a := range actions(w.sim) {
					if strings.HasPrefix(a, "DescribeScalingActivities") {
						asked++
					}
				}
				return asked
			}
			if asked := end(12); asked != 1 || activity != "" {
				t.Errorf("%s: asked %d times within a minute, told %q, want once and nothing", kind, asked, activity)
			}
			if asked := end(12); asked != 2 || activity == "" {
				t.Errorf("%s: asked %d times in two minutes, told %q, want twice and the activity", kind, asked, activity)
			}
		})
	}
}

func TestShrinkingNeedsRoomAndAMetDemand(t *testing.T) {
	tests := map[string]struct {
		min, ready, used int // used besides the one that ends
		unfit            int // of the others
		want             int // wanted afterwards
	}{
		"enough are left":           {1, 2, 0, 0, 2},
		"one would be missing":      {1, 3, 0, 0, 3},
		"the others are in use":     {1, 1, 2, 0, 3},
		"one other is in use":       {1, 1, 1, 0, 2},
		"nothing is wanted":         {1, 0, 2, 0, 2},
		"at its minimum size":       {3, 0, 0, 0, 3},
		"one above its minimum":     {2, 0, 0, 0, 2},
		"more wanted than there is": {1, 9, 0, 0, 3},
		"one other is unfit":        {1, 2, 0, 1, 3},
		"one is wanted and fit":     {1, 1, 0, 1, 2},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorldOf(t, nil, func(g *simaws.Group) { g.Min, g.Desired = tc.min, 3 })
				d := &supervisor.Demand{Ready: tc.ready, Used: []string{w.first.ID}}
				for _, in := range w.sim.Instances()[1 : 1+tc.used] {
					d.Used = append(d.Used, in.ID)
				}
				for _, in := range w.sim.Instances()[1 : 1+tc.unfit] {
					d.Unfit = append(d.Unfit, in.ID)
				}
				if _, err := w.driver.Terminate(t.Context(), w.first.ID, supervisor.TerminateOptions{Demand: d}); err != nil {
					t.Fatal(err)
				}
				wait(t, 2*time.Minute)
				if desired, running := sizes(t, w); desired != tc.want || running != tc.want {
					t.Errorf("the group wants %d and runs %d, want %d", desired, running, tc.want)
				}
			})
		})
	}
}

// TestShrinkingFallsBackAtOnce: somebody raised the minimum size between the
// look and the request. The host ends with its next breath.
func TestShrinkingFallsBackAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		// The look shows a smaller minimum than the group has.
		driver := w.rewritten(t, "DescribeAutoScalingGroups", "<MinSize>2<", "<MinSize>1<")
		receipt, err := driver.Terminate(t.Context(), w.first.ID, supervisor.TerminateOptions{Demand: &supervisor.Demand{Used: []string{w.first.ID}}})
		if err != nil || len(receipt.Requests) != 2 || receipt.Requests[0].Code != "ValidationError" || receipt.Requests[1].Code != "" {
			t.Fatalf("Terminate = %+v, %v, want a refused and an accepted request", receipt, err)
		}
		if state := w.stateOf(t, w.first.ID); state != "shutting-down" {
			t.Errorf("the host is %s, want shutting-down", state)
		}
		wait(t, 2*time.Minute)
		if desired, running := sizes(t, w); desired != 2 || running != 2 {
			t.Errorf("the group wants %d and runs %d, want 2", desired, running)
		}
	})
}

// TestAnEndDoesNotWaitForTheSizeOfTheGroup: the look fails; the host ends.
func TestAnEndDoesNotWaitForTheSizeOfTheGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldOf(t, nil, func(g *simaws.Group) { g.Min = 0 })
		for i, kind := range []simaws.FaultKind{simaws.Unauthorized, simaws.Hang} {
			w.sim.Inject(simaws.Fault{Action: "DescribeAutoScalingGroups", Kind: kind})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			_, err := w.driver.Terminate(ctx, w.sim.Instances()[i].ID, supervisor.TerminateOptions{Demand: &supervisor.Demand{}})
			cancel()
			if err != nil {
				t.Errorf("%s: Terminate = %v, want success", kind, err)
			}
		}
		if desired, _ := sizes(t, w); desired != 2 {
			t.Errorf("the group wants %d, want 2: what is not known shrinks nothing", desired)
		}
	})
}
