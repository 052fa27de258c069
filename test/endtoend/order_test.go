package endtoend

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/sim/world"
)

// TestEveryActFollowsItsRecord compares the times in the simulators' own
// request logs with the times at which the records became durable. In this
// world a record is durable two store writes after the time it carries, so an
// act that did not wait for its record would be seen.
func TestEveryActFollowsItsRecord(t *testing.T) {
	run(t, options{at: -1}, func(t *testing.T, b *bench) {
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 20*time.Second), "carol")
		b.until("sealed", 20*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })

		var chain []runner.Kind
		durable := map[runner.Kind]time.Time{}
		for _, rec := range b.report().Records {
			durable[rec.Event.Kind()] = rec.At.Add(2 * storeLatency)
			if rec.Event.Kind() != runner.KindReported && rec.Event.Chain() != runner.LogChain {
				chain = append(chain, rec.Event.Kind())
			}
		}
		want := []runner.Kind{runner.KindReviewed, runner.KindOffered, runner.KindAuthorized, runner.KindClaimed, runner.KindBound, runner.KindReleased,
			runner.KindStarted, runner.KindConcluded, runner.KindCompleted, runner.KindTeardown, runner.KindEnding, runner.KindTerminated, runner.KindSealed}
		if len(chain) != len(want) {
			t.Fatalf("the chain is %v, want %v", chain, want)
		}
		// Two pairs come in either order: the review by webhook and the job by
		// the queue, GitHub's report and the pod's end.
		for _, either := range [][2]int{{0, 2}, {7, 9}} {
			slices.Sort(chain[either[0]:either[1]])
			slices.Sort(want[either[0]:either[1]])
		}
		if !slices.Equal(chain, want) {
			t.Errorf("the chain is %v, want %v", chain, want)
		}

		acts := b.acts()
		for _, rule := range []struct {
			act    string
			record runner.Kind
		}{
			{"github: acknowledge the message", runner.KindOffered},
			{"cluster: claim the node", runner.KindClaimed},
			{"cluster: create the pod", runner.KindClaimed},
			{"github: generate the JIT config", runner.KindAuthorized},
			{"github: generate the JIT config", runner.KindBound},
			{"github: the runner connects", runner.KindReleased},
			{"github: a step of the job runs", runner.KindStarted},
			{"aws: end the instance", runner.KindTeardown},
			{"cluster: delete the node", runner.KindTeardown},
		} {
			at, ok := acts[rule.act]
			switch {
			case !ok:
				t.Errorf("%s was never seen", rule.act)
			case at.Before(durable[rule.record]):
				t.Errorf("%s at %s, but the %s record was durable only at %s", rule.act,
					at.Format(time.StampMilli), rule.record, durable[rule.record].Format(time.StampMilli))
			}
		}
		if seal, gone := durable[runner.KindSealed].Add(-2*storeLatency), b.world.AWS.Instances()[0].EndedAt; seal.Before(gone) {
			t.Errorf("sealed at %s, EC2 ended the instance at %s", seal, gone)
		}
	})
}

// acts is when each act was first seen by the simulator that it is done to.
func (b *bench) acts() map[string]time.Time {
	acts := map[string]time.Time{}
	first := func(name string, at time.Time) {
		if _, seen := acts[name]; !seen {
			acts[name] = at
		}
	}
	for _, r := range b.world.GitHub.Requests() {
		switch {
		case r.Method == "DELETE" && strings.HasPrefix(r.Path, "/scalesets/message"):
			first("github: acknowledge the message", r.Time)
		case strings.HasSuffix(r.Path, "/generatejitconfig"):
			first("github: generate the JIT config", r.Time)
		case r.Method == "POST" && strings.HasPrefix(r.Path, "/broker/") && strings.HasSuffix(r.Path, "session"):
			first("github: the runner connects", r.Time)
		}
	}
	for _, j := range b.world.GitHub.Jobs() {
		if !j.StepsStartedAt.IsZero() {
			first("github: a step of the job runs", j.StepsStartedAt)
		}
	}
	for _, r := range b.world.Cluster.Requests() {
		switch r.Verb + " " + r.Resource {
		case "update nodes":
			first("cluster: claim the node", r.Time)
		case "create pods":
			first("cluster: create the pod", r.Time)
		case "delete nodes":
			first("cluster: delete the node", r.Time)
		}
	}
	for _, r := range b.world.AWS.Requests() {
		if r.Action == "TerminateInstanceInAutoScalingGroup" {
			first("aws: end the instance", r.At)
		}
	}
	return acts
}
