package supervisor

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

// told is a cluster that keeps the events it was asked to show.
type told struct {
	Cluster
	events [][4]string
}

func (c *told) Event(name runner.Name, node, reason, note string) {
	c.events = append(c.events, [4]string{string(name), node, reason, note})
}

// TestEveryDecisionIsShown goes through all kinds of records: what was decided
// about a runner or its host is an event on both, and what was not has a reason
// to be silent.
func TestEveryDecisionIsShown(t *testing.T) {
	cluster := &told{}
	s := &Supervisor{Options: Options{Cluster: cluster}, state: runner.NewState()}
	r := &runner.Runner{}
	r.Claimed.Event = runner.Claimed{Runner: "r1", Cause: "job-1", Host: runner.Host{NodeName: "node-1"}}
	s.state.Runners["r1"] = r
	for _, c := range []struct {
		event                      runner.Event
		pod, node, reason, contain string
	}{
		{r.Claimed.Event, "", "node-1", "Claimed", "runner r1, for job job-1"},
		{runner.Bound{Runner: "r1", PodUID: "uid-1", NodeName: "node-1"}, "r1", "node-1", "Bound", "uid-1"},
		{runner.Released{Runner: "r1", RunnerID: 12}, "r1", "node-1", "Released", "12"},
		{runner.Started{Runner: "r1", Job: "job-1"}, "r1", "node-1", "Started", "job-1"},
		{runner.Refused{Runner: "r1", Decision: runner.Decision{Reasons: []string{"a", "b"}}}, "r1", "node-1", "Refused", "a, b"},
		{runner.Retired{Runner: "r1", Cause: runner.CausePodFailed, PodReason: "OOMKilled"}, "r1", "node-1", "Retired", "OOMKilled"},
		{runner.Completed{Runner: "r1", Job: "job-1", PodPhase: runner.PodSucceeded}, "r1", "node-1", "Completed", "Succeeded"},
		{runner.Cancelled{Runner: "r1", Repository: "org/app", RunID: 7}, "r1", "node-1", "Cancelled", "run 7 of org/app"},
		{runner.Rebuffed{Runner: "r1", Gate: runner.GateClaim, Cause: runner.RebuffReplay}, "r1", "node-1", "Rebuffed", "gate claim: replay"},
		{runner.Teardown{Runner: "r1", InstanceID: "i-1"}, "r1", "node-1", "Teardown", "i-1"},
		{runner.Overdue{Runner: "r1", Pending: []runner.Stage{runner.StageVolumes, runner.StageInstance}}, "r1", "node-1", "TeardownOverdue", "instance, volumes"},
		{runner.Terminated{Runner: "r1", InstanceID: "i-1"}, "r1", "node-1", "Terminated", "i-1"},
		{runner.Stray{What: runner.StrayPod, ID: "uid-2", Name: "r9", Node: "node-2"}, "r9", "node-2", "StrayPod", "no open runner"},
		{event: runner.Denied{Job: "job-2"}},                         // has neither pod nor node
		{event: runner.Cancelled{Job: "job-2"}},                      // nor has this
		{event: runner.Stray{What: runner.StrayForeign, ID: "4711"}}, // is none of ours
		{event: runner.Ending{Runner: "r1", State: "shutting-down"}}, // seen, not decided
		{event: runner.Heartbeat{}},
	} {
		cluster.events = nil
		s.announce(runner.Record{Event: c.event, At: time.Now()})
		if c.reason == "" {
			if len(cluster.events) > 0 {
				t.Errorf("%s is shown as %q, want nothing", c.event.Kind(), cluster.events)
			}
			continue
		}
		if len(cluster.events) != 1 || !reflect.DeepEqual(cluster.events[0][:3], []string{c.pod, c.node, c.reason}) || !strings.Contains(cluster.events[0][3], c.contain) {
			t.Errorf("%s is shown as %q, want %q with %q", c.event.Kind(), cluster.events, []string{c.pod, c.node, c.reason}, c.contain)
		}
	}
}

func TestAChangeShortensTheWaitOfWhatItIsAbout(t *testing.T) {
	now := time.Now()
	s := &Supervisor{lanes: newLanes(time.Hour), poke: make(chan struct{}, 1)}
	chain := string(runner.RunnerChain("r1"))
	idle := func(name string, err error) {
		if !s.lanes.enter(name, now) {
			t.Fatalf("%s may not be entered", name)
		}
		s.lanes.leave(name, now, false, err)
		if s.lanes.enter(name, now) {
			t.Fatalf("%s may be entered at once after work that changed nothing", name)
		}
	}
	idle(chain, nil)
	idle("runner/other", nil)
	idle(laneClaim, errNoHost)
	s.Changed(Change{Runners: []runner.Name{"r1"}})
	select {
	case <-s.poke:
	default:
		t.Error("a change did not wake the settle loop")
	}
	if s.lanes.enter("runner/other", now) || s.lanes.enter(laneClaim, now) {
		t.Error("what did not change may be entered")
	}
	if !s.lanes.enter(chain, now) {
		t.Error("what changed has to wait")
	}
	// A change while it is looked at may have come after the look.
	s.Changed(Change{Runners: []runner.Name{"r1"}})
	s.lanes.leave(chain, now, false, nil)
	if !s.lanes.enter(chain, now) {
		t.Error("what changed while it was looked at has to wait")
	}
	s.lanes.leave(chain, now, false, nil)
	if s.lanes.enter(chain, now) {
		t.Error("one change counts twice")
	}
	s.Changed(Change{Nodes: true})
	if !s.lanes.enter(laneClaim, now) {
		t.Error("a claim has to wait though a node changed")
	}
	// The node that joins while a claim looks in vain came after the look.
	s.Changed(Change{Nodes: true})
	s.lanes.leave(laneClaim, now, false, fmt.Errorf("claim: %w", errNoHost))
	if !s.lanes.enter(laneClaim, now) {
		t.Error("a claim has to wait though a node changed while it looked")
	}
	s.lanes.leave(laneClaim, now, false, errNoHost)
	if s.lanes.enter(laneClaim, now) {
		t.Error("one change of a node counts twice")
	}
	s.Changed(Change{Nodes: true})
	if !s.lanes.enter(laneClaim, now) {
		t.Error("a claim that failed again has to wait though a node changed")
	}
	// What fails otherwise keeps its wait: the change did not mend GitHub, nor EC2.
	s.Changed(Change{Nodes: true})
	s.lanes.leave(laneClaim, now, false, errDown)
	idle("cancel/"+chain, errDown)
	for range 3 {
		s.Changed(Change{Nodes: true, Runners: []runner.Name{"r1"}})
		if s.lanes.enter(laneClaim, now) || s.lanes.enter("cancel/"+chain, now) {
			t.Error("work that failed may be entered because of a change")
		}
	}
}

func TestAWatchThatStaysBrokenIsAWarning(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		watch WatchHealth
		want  string
	}{
		"open":            {WatchHealth{What: "pods", Open: true, Since: now.Add(-time.Hour)}, ""},
		"broken just now": {WatchHealth{What: "pods", Since: now.Add(-time.Second), Problem: "x"}, ""},
		"broken":          {WatchHealth{What: "pods", Since: now.Add(-2 * time.Minute), Problem: "forbidden"}, "pods are asked for each time"},
	} {
		if got := c.watch.warning(now); (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: warning = %q, want %q", name, got, c.want)
		}
	}
}
