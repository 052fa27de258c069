package supervisor

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

// late is a cluster whose lists are behind what it says when it is asked now.
type late struct {
	Cluster
	listed []runner.Pod
	pod    runner.Pod
	nodes  []runner.Node
	hidden []runner.Node // without the pool's label
	err    error
}

func (c late) Pods(context.Context) ([]runner.Pod, error)              { return c.listed, nil }
func (c late) PodNow(context.Context, runner.Name) (runner.Pod, error) { return c.pod, c.err }
func (c late) NodesNow(context.Context) ([]runner.Node, error)         { return c.nodes, c.err }
func (c late) NodeNow(_ context.Context, name string) (runner.Node, bool, error) {
	for _, n := range slices.Concat(c.nodes, c.hidden) {
		if n.Name == name {
			return n, true, c.err
		}
	}
	return runner.Node{}, false, c.err
}

var errDown = errors.New("the API server is down")

func at(cluster Cluster) *Supervisor {
	s := &Supervisor{Options: Options{Cluster: cluster}, state: runner.NewState(), turn: make(chan struct{}, 1)}
	s.turn <- struct{}{}
	return s
}

// TestAStrayIsOneNow: a list that is late shows pods that have ended as they should.
func TestAStrayIsOneNow(t *testing.T) {
	listed := []runner.Pod{{Name: "r9", UID: "uid-1", NodeName: "node-1", Phase: runner.PodRunning}}
	for name, c := range map[string]struct {
		pod  runner.Pod
		err  error
		want int
	}{
		"it is there":              {listed[0], nil, 1},
		"it is gone":               {runner.Pod{Name: "r9", Phase: runner.PodGone}, nil, 0},
		"another has come instead": {runner.Pod{Name: "r9", UID: "uid-2", Phase: runner.PodRunning}, nil, 0},
		"nobody knows":             {runner.Pod{}, errDown, 0},
	} {
		found, err := at(late{listed: listed, pod: c.pod, err: c.err}).strayPods(t.Context(), map[runner.Name]bool{})
		if len(found) != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %d strays, %v, want %d and %v", name, len(found), err, c.want, c.err)
		}
	}
}

// TestASilentHostIsSilentNow: a job ends by it, and the surveys may have been late.
func TestASilentHostIsSilentNow(t *testing.T) {
	r := &runner.Runner{}
	r.Claimed.Event = runner.Claimed{Runner: "r1", Host: runner.Host{Provider: "aws", NodeName: "node-1", NodeUID: "uid-1", InstanceID: "i-0000000000000001"}}
	speaks := runner.Node{Name: "node-1", UID: "uid-1", Ready: true}
	mute := runner.Node{Name: "node-1", UID: "uid-1"}
	anew := func(name string) runner.Node {
		return runner.Node{Name: name, UID: "uid-3", Ready: true, ProviderID: "aws:///eu-west-1a/i-0000000000000001"}
	}
	other := runner.Node{Name: "node-1", UID: "uid-2", Ready: true, ProviderID: "aws:///eu-west-1a/i-0000000000000002"}
	for name, c := range map[string]struct {
		nodes, hidden []runner.Node
		err           error
		want          runner.Cause
	}{
		"no node":                            {want: runner.CauseHostSilent},
		"it is not ready":                    {nodes: []runner.Node{mute}, want: runner.CauseHostSilent},
		"another speaks":                     {nodes: []runner.Node{other}, want: runner.CauseHostSilent},
		"it speaks":                          {nodes: []runner.Node{speaks}},
		"it lost its label and speaks":       {hidden: []runner.Node{speaks}},
		"it lost its label and is not ready": {hidden: []runner.Node{mute}, want: runner.CauseHostSilent},
		"another without the label speaks":   {hidden: []runner.Node{other}, want: runner.CauseHostSilent},
		"registered anew, it speaks":         {nodes: []runner.Node{anew("node-1")}},
		"so it does under another name":      {nodes: []runner.Node{anew("node-3")}},
		"nobody knows":                       {err: errDown},
	} {
		s := at(late{nodes: c.nodes, hidden: c.hidden, err: c.err})
		s.Limits.SilentFor = time.Minute
		began := time.Now().Add(-time.Hour)
		for look := time.Duration(0); look <= time.Minute; look += 30 * time.Second {
			s.silence.saw([]runner.Name{"r1"}, began.Add(look), s.blink())
		}
		cause, err := s.hostOver(t.Context(), r)
		if cause != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: given up for %q, %v, want %q and %v", name, cause, err, c.want, c.err)
		}
	}
}
