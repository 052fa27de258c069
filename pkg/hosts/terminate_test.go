package hosts_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/smithy-go"

	"github.com/runnerward/runnerward/pkg/hosts"
	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
)

func TestThrottlingIsWaitedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.sim.Inject(simaws.Fault{Action: "DescribeInstances", Kind: simaws.Throttle, Count: 2})
		w.sim.Inject(simaws.Fault{Action: "TerminateInstanceInAutoScalingGroup", Kind: simaws.Throttle, Count: 2})
		if _, err := w.driver.Describe(t.Context(), []string{w.first.ID}); err != nil {
			t.Errorf("Describe = %v, want success at the third attempt", err)
		}
		if _, err := w.driver.Terminate(t.Context(), w.first.ID, plainly); err != nil {
			t.Errorf("Terminate = %v, want success at the third attempt", err)
		}
	})
}

func TestAHostIsEndedAndSeenUntilItIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *simaws.Config) { c.VolumeDeleting = 10 * time.Second })
		receipt, err := w.driver.Terminate(t.Context(), w.first.ID, plainly)
		if err != nil || len(receipt.Requests) != 1 || receipt.ActivityID == "" {
			t.Fatalf("Terminate = %+v, %v, want a request and an activity id", receipt, err)
		}
		reqs := slices.DeleteFunc(w.sim.Requests(), func(r simaws.Request) bool { return r.Action != "TerminateInstanceInAutoScalingGroup" })
		if last := reqs[len(reqs)-1]; last.RequestID != receipt.Requests[0].RequestID {
			t.Errorf("the receipt names request %s, the service answered %s", receipt.Requests[0].RequestID, last.RequestID)
		}
		var states []string
		reason := ""
		for range 20 {
			got, err := w.driver.Describe(t.Context(), []string{w.first.ID})
			if err != nil {
				t.Fatal(err)
			}
			in := got[w.first.ID]
			if len(states) == 0 || states[len(states)-1] != in.State {
				states = append(states, in.State)
			}
			if reason = in.StateReason; in.State == "terminated" {
				break
			}
			wait(t, 5*time.Second)
		}
		if !slices.Equal(states, []string{"shutting-down", "terminated"}) {
			t.Errorf("states seen = %v, want shutting-down, terminated", states)
		}
		if reason != "Client.UserInitiatedShutdown" {
			t.Errorf("StateReason = %q, want Client.UserInitiatedShutdown", reason)
		}
		volumesGoOneByOne(t, w)
	})
}

func volumesGoOneByOne(t *testing.T, w world) {
	t.Helper()
	if gone, err := w.driver.VolumesGone(t.Context(), w.first.Volumes); err != nil || len(gone) != 0 {
		t.Errorf("VolumesGone while deleting = %v, %v, want none", gone, err)
	}
	wait(t, 10*time.Second)
	if gone, err := w.driver.VolumesGone(t.Context(), w.first.Volumes); err != nil || !slices.Equal(gone, w.first.Volumes) {
		t.Errorf("VolumesGone = %v, %v, want %v", gone, err, w.first.Volumes)
	}
}

func TestAVolumeAttachedLaterIsLeftOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		extra, err := w.sim.AttachVolume(w.first.ID)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.driver.Terminate(t.Context(), w.first.ID, plainly); err != nil {
			t.Fatal(err)
		}
		wait(t, time.Minute)
		gone, err := w.driver.VolumesGone(t.Context(), append(slices.Clone(w.first.Volumes), extra))
		if err != nil || !slices.Equal(gone, w.first.Volumes) {
			t.Errorf("VolumesGone = %v, %v, want %v without %s", gone, err, w.first.Volumes, extra)
		}
	})
}

func TestTerminateNeverDecrementsAndTheGroupRefills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		if _, err := w.driver.Terminate(t.Context(), w.first.ID, plainly); err != nil {
			t.Fatalf("Terminate at minimum size = %v, want success", err)
		}
		wait(t, time.Minute)
		running := 0
		for _, in := range w.sim.Instances() {
			if in.State == "running" {
				running++
			}
		}
		if running != 2 {
			t.Errorf("%d instances run after the refill, want 2", running)
		}
	})
}

func TestScalingActivityInProgressIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.sim.Inject(simaws.Fault{Action: "TerminateInstanceInAutoScalingGroup", Kind: simaws.InProgress, Count: 2})
		receipt, err := w.driver.Terminate(t.Context(), w.first.ID, plainly)
		if err != nil || receipt.ActivityID == "" {
			t.Errorf("Terminate = %+v, %v, want success at the third attempt", receipt, err)
		}
		want := []string{
			"DescribeAutoScalingInstances",
			"TerminateInstanceInAutoScalingGroup ScalingActivityInProgress",
			"TerminateInstanceInAutoScalingGroup ScalingActivityInProgress",
			"TerminateInstanceInAutoScalingGroup",
		}
		if got := actions(w.sim); !slices.Equal(got, want) {
			t.Errorf("calls = %v, want %v", got, want)
		}
	})
}

func TestTerminateIsASuccessWhenItsAnswerWasLost(t *testing.T) {
	for _, kind := range []simaws.FaultKind{simaws.Unavailable, simaws.Hang} {
		t.Run(string(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				w.sim.Inject(simaws.Fault{Action: "TerminateInstanceInAutoScalingGroup", Kind: kind, After: true})
				if _, err := w.driver.Terminate(t.Context(), w.first.ID, plainly); err != nil {
					t.Errorf("Terminate = %v, want success: the instance is ending", err)
				}
				if _, err := w.driver.Terminate(t.Context(), w.first.ID, plainly); err != nil {
					t.Errorf("Terminate again = %v, want success", err)
				}
			})
		})
	}
}

func TestAnAcceptedTerminationThatNeverHappensIsAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.sim.Inject(simaws.Fault{Action: "TerminateInstanceInAutoScalingGroup", Kind: simaws.Ignored})
		for _, want := range []string{"running", "shutting-down"} {
			if _, err := w.driver.Terminate(t.Context(), w.first.ID, plainly); err != nil {
				t.Fatal(err)
			}
			got, err := w.driver.Describe(t.Context(), []string{w.first.ID})
			if err != nil || got[w.first.ID].State != want {
				t.Errorf("state = %s, %v, want %s", got[w.first.ID].State, err, want)
			}
		}
	})
}

func TestAnAgedOutInstanceIsUnknownAndNotGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		if _, err := w.driver.Terminate(t.Context(), w.first.ID, plainly); err != nil {
			t.Fatal(err)
		}
		wait(t, 2*time.Hour)
		got, err := w.driver.Describe(t.Context(), []string{w.first.ID})
		if err != nil || len(got) != 0 {
			t.Fatalf("Describe = %v, %v, want nothing", got, err)
		}
		if receipt, err := w.driver.Terminate(t.Context(), w.first.ID, plainly); err == nil {
			t.Errorf("Terminate = %+v, want an error: nobody knows the instance", receipt)
		}
	})
}

func TestTerminateGoesToEC2OnlyOutsideOfGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		if err := w.sim.Detach(w.first.ID); err != nil {
			t.Fatal(err)
		}
		receipt, err := w.driver.Terminate(t.Context(), w.first.ID, plainly)
		if err != nil || len(receipt.Requests) != 2 || receipt.Requests[1].RequestID == "" || receipt.ActivityID != "" {
			t.Errorf("Terminate = %+v, %v, want a refused and an accepted request and no activity", receipt, err)
		}
		want := []string{
			"DescribeAutoScalingInstances", "DescribeInstances",
			"TerminateInstanceInAutoScalingGroup ValidationError", "DescribeInstances", "TerminateInstances",
		}
		if got := actions(w.sim); !slices.Equal(got, want) {
			t.Errorf("calls = %v, want %v", got, want)
		}
	})
}

func TestAMemberThatTheListLeftOutIsStillEndedByItsGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.sim.Inject(simaws.Fault{Action: "DescribeAutoScalingInstances", Kind: simaws.Stale})
		receipt, err := w.driver.Terminate(t.Context(), w.first.ID, plainly)
		if err != nil || receipt.ActivityID == "" || slices.Contains(actions(w.sim), "TerminateInstances") {
			t.Errorf("Terminate = %+v, %v by %v, want the group's activity", receipt, err, actions(w.sim))
		}
	})
}

func TestTerminateSurfacesTerminationProtection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		if err := errors.Join(w.sim.Detach(w.first.ID), w.sim.Protect(w.first.ID, true)); err != nil {
			t.Fatal(err)
		}
		_, err := w.driver.Terminate(t.Context(), w.first.ID, plainly)
		if e, ok := errors.AsType[smithy.APIError](err); !ok || e.ErrorCode() != "OperationNotPermitted" {
			t.Fatalf("Terminate = %v, want OperationNotPermitted", err)
		}
		for _, mend := range []string{"switch disableApiTermination off", "--no-disable-api-termination", w.first.ID} {
			if !strings.Contains(err.Error(), mend) {
				t.Errorf("error %q does not say %q", err, mend)
			}
		}
		if err := w.sim.Protect(w.first.ID, false); err != nil {
			t.Fatal(err)
		}
		if _, err := w.driver.Terminate(t.Context(), w.first.ID, plainly); err != nil {
			t.Errorf("Terminate once protection is off = %v, want success", err)
		}
	})
}

func TestTerminateRefusesAForeignGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		foreign := testGroup()
		foreign.Name = "database"
		w.sim.AddGroup(foreign)
		id := w.sim.Instances()[2].ID
		w.sim.Inject(simaws.Fault{Action: "DescribeAutoScalingInstances", Kind: simaws.Stale})
		for _, how := range []string{"by its tag while the list is stale", "by the list of members"} {
			if _, err := w.driver.Terminate(t.Context(), id, plainly); !errors.Is(err, hosts.ErrForeignGroup) {
				t.Errorf("%s: Terminate = %v, want ErrForeignGroup", how, err)
			}
		}
		for _, a := range actions(w.sim) {
			if strings.HasPrefix(a, "Terminate") {
				t.Errorf("%s was called for an instance that is not ours", a)
			}
		}
	})
}

func TestAHostInItsTerminationHookIsEnding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		hooked := testGroup()
		hooked.Name, hooked.TerminateHook = "hooked", 15*time.Minute
		w.sim.AddGroup(hooked)
		wait(t, 30*time.Second)
		id := w.sim.Instances()[2].ID
		driver, err := hosts.NewAutoScaling(awsConfig(w.sim), hosts.Options{Region: region, Groups: []string{"hooked"}})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := driver.Terminate(t.Context(), id, plainly); err != nil {
				t.Errorf("Terminate = %v, want success", err)
			}
		}
		got, err := driver.Describe(t.Context(), []string{id})
		if err != nil || got[id].State != "running" {
			t.Errorf("state in the hook = %s, %v, want running", got[id].State, err)
		}
		wait(t, 15*time.Minute)
		if got, err = driver.Describe(t.Context(), []string{id}); err != nil || got[id].State != "shutting-down" {
			t.Errorf("state after the hook = %s, %v, want shutting-down", got[id].State, err)
		}
	})
}

func TestTerminateAsksForNothingWhenTheInstanceIsEnding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		id := w.sim.AddInstance(testGroup()) // of no group, and without its tag
		for range 3 {
			if _, err := w.driver.Terminate(t.Context(), id, plainly); err != nil {
				t.Fatal(err)
			}
			wait(t, 30*time.Second)
		}
		asked := slices.DeleteFunc(actions(w.sim), func(a string) bool { return !strings.HasPrefix(a, "TerminateInstances") })
		if !slices.Equal(asked, []string{"TerminateInstances"}) {
			t.Errorf("calls = %v, want TerminateInstances once", actions(w.sim))
		}
	})
}

func TestNoneKnowsNothingAndClaimsNothing(t *testing.T) {
	var none hosts.None
	if got, err := none.Describe(t.Context(), []string{"node-uid"}); err != nil || len(got) != 0 {
		t.Errorf("Describe = %v, %v, want nothing", got, err)
	}
	if got, err := none.Terminate(t.Context(), "node-uid", plainly); err != nil || got.ActivityID != "" || len(got.Requests) != 0 {
		t.Errorf("Terminate = %+v, %v, want an empty receipt", got, err)
	}
	if got, err := none.VolumesGone(t.Context(), []string{"vol-0123456789abcdef0"}); err == nil {
		t.Errorf("VolumesGone = %v, want an error", got)
	}
	if got, err := none.VolumesGone(t.Context(), nil); err != nil || len(got) != 0 {
		t.Errorf("VolumesGone(nil) = %v, %v, want nothing", got, err)
	}
}
