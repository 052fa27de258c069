package runner_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/runnerward/runnerward/pkg/runner"
)

// TestARebuffAgreesWithTheRecord: what the cause says of the caller must be so.
func TestARebuffAgreesWithTheRecord(t *testing.T) {
	for name, c := range map[string]struct {
		cause  runner.RebuffCause
		change func(*runner.Rebuffed)
		rule   string
	}{
		"the bound pod called another":        {runner.RebuffOtherPod, func(e *runner.Rebuffed) { e.Caller.PodUID = "pod-r1" }, "rebuff"},
		"the bound pod called a second":       {runner.RebuffSecondPod, func(e *runner.Rebuffed) { e.Caller.PodUID = "pod-r1" }, "rebuff"},
		"a stranger's replay":                 {runner.RebuffReplay, func(e *runner.Rebuffed) { e.Caller.PodUID = "pod-other" }, "rebuff"},
		"the claimed node called another":     {runner.RebuffOtherNode, func(e *runner.Rebuffed) { e.Caller.NodeName, e.Caller.NodeUID = "node-h1", "uid-h1" }, "rebuff"},
		"a new node under the name":           {runner.RebuffOtherNode, func(e *runner.Rebuffed) { e.Caller.NodeName = "node-h1" }, ""},
		"no pod where one is accused":         {runner.RebuffOtherPod, func(e *runner.Rebuffed) { e.Caller.PodUID = "" }, "rebuff"},
		"nobody where the cluster vouches":    {runner.RebuffOtherPod, func(e *runner.Rebuffed) { e.Caller = nil }, "rebuff"},
		"a name where nobody vouches":         {runner.RebuffRejected, func(e *runner.Rebuffed) { e.Caller = &runner.Caller{PodUID: "pod-1"} }, "rebuff"},
		"a cause of the other gate":           {runner.RebuffNotBound, func(*runner.Rebuffed) {}, "rebuff"},
		"a gate that nobody asks at":          {runner.RebuffRejected, func(e *runner.Rebuffed) { e.Gate = runner.GateDeployment }, "rebuff"},
		"a sentence for an account":           {runner.RebuffOtherAccount, func(e *runner.Rebuffed) { e.Caller.ServiceAccount = "John Doe" }, "closed-fields"},
		"a person, of whom nothing is stored": {runner.RebuffOtherAccount, func(e *runner.Rebuffed) { e.Caller = &runner.Caller{} }, ""},
	} {
		w := newWorld()
		for _, event := range lifeUpto(runner.KindReleased) {
			if err := w.add(event(w)); err != nil {
				t.Fatal(err)
			}
		}
		e := w.rebuffed("r1", runner.GateClaim, c.cause)
		c.change(&e)
		err := w.add(e)
		violation, broken := errors.AsType[*runner.Violation](err)
		switch {
		case c.rule == "" && err != nil:
			t.Errorf("%s: %v, want it recorded", name, err)
		case c.rule != "" && (!broken || violation.Rule != c.rule):
			t.Errorf("%s: %v, want a violation of %s", name, err, c.rule)
		}
	}
}

// TestRebuffsCannotFillTheLog: whatever is asked at a runner's gates, for however
// long, its chain takes as many records as there are gates and causes.
func TestRebuffsCannotFillTheLog(t *testing.T) {
	w := newWorld()
	for _, event := range lifeUpto(runner.KindCompleted) {
		if err := w.add(event(w)); err != nil {
			t.Fatal(err)
		}
	}
	before, want := w.Size, 0
	for _, gate := range []runner.Gate{runner.GateClaim, runner.GateStart} {
		want += len(runner.RebuffCauses(gate))
	}
	for range 3 {
		for _, gate := range []runner.Gate{runner.GateClaim, runner.GateStart} {
			for _, cause := range runner.RebuffCauses(gate) {
				if err := w.add(w.rebuffed("r1", gate, cause)); err != nil && !errors.Is(err, runner.ErrRecorded) {
					t.Fatalf("%s at %s: %v", cause, gate, err)
				}
			}
		}
	}
	if got := int(w.Size - before); got != want || want != 16 {
		t.Errorf("%d records, want %d of 16", got, want)
	}
}

func TestACallerIsRecordedAsFarAsItHasAShape(t *testing.T) {
	whole := runner.Caller{Namespace: "prod", ServiceAccount: "deployer", PodUID: "6e1f", NodeName: "ip-10-0-1-5.ec2.internal", NodeUID: "9b2d"}
	if got := whole.Recordable(); got != whole {
		t.Errorf("Recordable = %+v, want all of %+v", got, whole)
	}
	odd := whole
	odd.Namespace, odd.NodeUID = "patient John Doe", strings.Repeat("x", 200)
	want := whole
	want.Namespace, want.NodeUID = "", ""
	if got := odd.Recordable(); got != want {
		t.Errorf("Recordable = %+v, want %+v", got, want)
	}
}
