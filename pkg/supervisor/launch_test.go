package supervisor

import (
	"context"
	"errors"
	"testing"

	"github.com/runnerward/runnerward/pkg/runner"
)

// pods is a cluster with one pod in it, or none.
type pods struct {
	Cluster
	pod  runner.Pod
	err  error
	made int // how often a pod was to be made
}

func (p *pods) ClaimNode(context.Context, runner.Host, runner.Name) error { return nil }

func (p *pods) Pod(context.Context, runner.Name) (runner.Pod, error) { return p.pod, p.err }

func (p *pods) EnsurePod(_ context.Context, spec PodSpec) error {
	p.made++
	if p.pod.Phase != runner.PodGone {
		return ErrConflict
	}
	p.pod = runner.Pod{Name: string(spec.Runner), NodeName: spec.NodeName, Authorized: spec.Authorized, Phase: runner.PodPending}
	return nil
}

// asked counts how often the log's store is asked who writes to it.
type asked struct {
	Ledger
	times int
	err   error
}

func (a *asked) Alone(context.Context) error { a.times++; return a.err }

// TestTheStoreIsAskedOnlyBeforeAPodIsMade: a pod may take minutes to start, and
// whoever writes to the log waits for the question.
func TestTheStoreIsAskedOnlyBeforeAPodIsMade(t *testing.T) {
	there := runner.Pod{Name: "r1", NodeName: "node-1", Authorized: "record-1", Phase: runner.PodPending}
	elsewhere, another := there, there
	elsewhere.NodeName, another.Authorized = "node-2", "record-2"
	running := there
	running.Phase = runner.PodRunning
	gone := runner.Pod{Name: "r1", Phase: runner.PodGone}
	for name, c := range map[string]struct {
		pod         runner.Pod
		podErr, err error // of the look at the pod, of the store
		made, asked int
		want        error
	}{
		"none is there":                {pod: gone, made: 1, asked: 1},
		"none, and another writes":     {pod: gone, err: ErrFenced, asked: 1, want: ErrFenced},
		"none, and nobody knows":       {pod: gone, err: errDown, asked: 1, want: errDown},
		"it waits":                     {pod: there, err: ErrFenced},
		"it runs":                      {pod: running, err: ErrFenced},
		"it is on another node":        {pod: elsewhere, made: 1, asked: 1, want: ErrConflict},
		"it is for another record":     {pod: another, made: 1, asked: 1, want: ErrConflict},
		"whether it is nobody can say": {podErr: errDown, want: errDown},
	} {
		cluster, ledger := &pods{pod: c.pod, err: c.podErr}, &asked{err: c.err}
		s := at(cluster)
		s.Ledger = ledger
		r := &runner.Runner{}
		r.Claimed.Event = runner.Claimed{Runner: "r1", Cause: "job-1", Authorized: "record-1", Host: runner.Host{Provider: "none", NodeName: "node-1"}}
		for range 3 { // ticks
			_, err := s.makePod(t.Context(), r)
			if !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", name, err, c.want)
			}
			if err != nil {
				break
			}
		}
		if cluster.made != c.made || ledger.times != c.asked {
			t.Errorf("%s: a pod was to be made %d times, the store asked %d times, want %d and %d", name, cluster.made, ledger.times, c.made, c.asked)
		}
	}
}
