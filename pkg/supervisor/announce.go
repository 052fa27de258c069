package supervisor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/runnerward/runnerward/pkg/runner"
)

// announce shows a record where people look who do not have the log: as an event
// on the runner's pod and node. Each record is shown once, by whoever wrote it. A
// job that was denied has neither pod nor node. It needs the turn.
func (s *Supervisor) announce(rec runner.Record) {
	name, reason, note := notice(rec.Event)
	if reason == "" {
		return
	}
	node := ""
	switch e := rec.Event.(type) {
	case runner.Stray:
		node = e.Node
	case runner.Claimed: // there is no pod yet
		s.Cluster.Event("", e.Host.NodeName, reason, note)
		return
	default:
		if r := s.state.Runners[name]; r != nil {
			node = r.Claimed.Event.Host.NodeName
		}
	}
	s.Cluster.Event(name, node, reason, note)
}

// notice is what an event says of a record: the runner, a word for machines and
// a sentence. No word means that the record is not shown. Nothing in it is free
// text: it is made of fields of the record.
func notice(e runner.Event) (name runner.Name, reason, note string) {
	switch e := e.(type) {
	case runner.Claimed:
		return e.Runner, "Claimed", fmt.Sprintf("the host serves runner %s, for job %s, and nobody else ever", e.Runner, e.Cause)
	case runner.Bound:
		return e.Runner, "Bound", fmt.Sprintf("the pod proved that it is %s on node %s", e.PodUID, e.NodeName)
	case runner.Released:
		return e.Runner, "Released", fmt.Sprintf("the pod gets the credential of runner %d", e.RunnerID)
	case runner.Started:
		return e.Runner, "Started", fmt.Sprintf("job %s was allowed to start", e.Job)
	case runner.Refused:
		return e.Runner, "Refused", "the job may not run here: " + strings.Join(e.Decision.Reasons, ", ")
	case runner.Retired:
		return e.Runner, "Retired", "the runner is given up: " + sentence(string(e.Cause), e.PodReason)
	case runner.Completed:
		return e.Runner, "Completed", sentence(fmt.Sprintf("job %s is over and the pod is %s", e.Job, e.PodPhase), e.PodReason)
	case runner.Rebuffed:
		return e.Runner, "Rebuffed", fmt.Sprintf("turned away at gate %s: %s", e.Gate, e.Cause)
	case runner.Cancelled:
		if e.Runner != "" {
			return e.Runner, "Cancelled", fmt.Sprintf("run %d of %s is cancelled: its job was never authorized", e.RunID, e.Repository)
		}
	case runner.Teardown:
		return e.Runner, "Teardown", fmt.Sprintf("host %s is being ended", e.InstanceID)
	case runner.Overdue:
		return e.Runner, "TeardownOverdue", fmt.Sprintf("the host is not gone in time: %s left", stages(e.Pending))
	case runner.Terminated:
		return e.Runner, "Terminated", fmt.Sprintf("host %s was seen gone", e.InstanceID)
	case runner.Stray:
		if e.What == runner.StrayPod {
			return runner.Name(e.Name), "StrayPod", "the log knows no open runner of this name; the pod is removed"
		}
	}
	return "", "", ""
}

func stages(pending []runner.Stage) string {
	words := make([]string, len(pending))
	for i, p := range pending {
		words[i] = string(p)
	}
	slices.Sort(words)
	return strings.Join(words, ", ")
}
