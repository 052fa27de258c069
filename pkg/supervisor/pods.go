package supervisor

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
	"go.uber.org/zap"
)

// A pod's phase, reason and exit code are hints. They say when to look and what
// to tell people; whether a job succeeded is GitHub's to say, and that a host is
// gone the cloud's. The stock runner exits with 0 for a job that failed, for one
// that never came and for a listener that the kernel killed:
// run-helper.sh.template of actions/runner.

// podSight is what was last seen of a runner's pod.
type podSight struct {
	phase    runner.PodPhase
	reason   string
	deleting bool
	told     map[string]bool // what people were told of
}

// trouble is what somebody should look at, empty for nothing.
func (p podSight) trouble() string {
	waits := p.phase == runner.PodPending && p.reason != "" && p.reason != "PodInitializing" && p.reason != "ContainerCreating"
	switch {
	case p.phase.Terminal() || p.phase == "":
		return ""
	case p.deleting && p.reason != "":
		return fmt.Sprintf("the cluster takes the pod away: %s", p.reason)
	case p.deleting:
		return "somebody deletes the pod"
	case waits:
		return "the pod does not start: " + p.reason
	case p.phase == runner.PodRunning && p.reason != "":
		return "the cluster is about to take the pod away: " + p.reason
	}
	return ""
}

// sawPod remembers a look at the pod of a runner that has not ended, and tells
// of trouble when it first shows. A pod that is gone explains nothing any more:
// it gets the reason for which it was last seen to be going.
func (s *Supervisor) sawPod(r *runner.Runner, pod runner.Pod) runner.Pod {
	var trouble string
	s.sight.with(r.Name(), func(g *sighting) {
		if pod.Phase == runner.PodGone && pod.Reason == "" && g.pod.deleting {
			pod.Reason = g.pod.reason
		}
		g.pod.phase, g.pod.reason, g.pod.deleting = pod.Phase, pod.Reason, pod.Deleting
		if trouble = g.pod.trouble(); trouble == "" || g.pod.told[trouble] {
			trouble = ""
			return
		}
		if g.pod.told == nil {
			g.pod.told = map[string]bool{}
		}
		g.pod.told[trouble] = true
	})
	if trouble != "" {
		s.Logger.Warn("a runner's pod is in trouble", zap.String("runner", string(r.Name())), zap.String("phase", string(pod.Phase)),
			zap.String("reason", pod.Reason), zap.Bool("deleting", pod.Deleting))
		s.Cluster.Event(r.Name(), r.Claimed.Event.Host.NodeName, "PodTrouble", trouble)
	}
	return pod
}

// podReason is why the pod of a runner that is given up did not start, empty
// where that is not known. It must not keep the runner from being given up.
func (s *Supervisor) podReason(ctx context.Context, name runner.Name) (reason string) {
	ctx, cancel := context.WithTimeout(ctx, s.CallTimeout/4)
	defer cancel()
	if pod, err := s.Cluster.Pod(ctx, name); err == nil {
		return pod.Reason
	}
	s.sight.with(name, func(g *sighting) { reason = g.pod.reason })
	return reason
}

// silences remember hosts in use whose kubelet says nothing: the cluster shows
// the node as not ready, or not at all. They know only what this process saw;
// after a restart, or while nobody could look, the time begins anew. It is safe
// for concurrent use.
type silences struct {
	mu  sync.Mutex
	all map[runner.Name]silence
}

type silence struct {
	since, last time.Time
	asked       time.Time // when the cloud was last asked about the host
}

// blink is how long between two looks that a host was silent at it counts as
// silent meanwhile. A survey may fail in between, also where the tick is long.
func (s *Supervisor) blink() time.Duration { return max(2*time.Minute, 3*s.surveyEvery()) }

// saw takes one look: the hosts of these runners and no others are silent. It
// returns those that were not before, or not for longer than a blink.
func (s *silences) saw(silent []runner.Name, now time.Time, blink time.Duration) (fresh []runner.Name) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := map[runner.Name]silence{}
	for _, name := range silent {
		was, known := s.all[name]
		if !known || now.Sub(was.last) > blink {
			was = silence{since: now}
			fresh = append(fresh, name)
		}
		was.last = now
		next[name] = was
	}
	s.all = next
	return fresh
}

func (s *silences) of(name runner.Name) (silence, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, silent := s.all[name]
	return was, silent
}

// due says that the cloud is to be asked about this host again.
func (s *silences) due(name runner.Name, now time.Time, every time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, silent := s.all[name]
	if !silent || now.Sub(was.asked) < every {
		return false
	}
	was.asked = now
	s.all[name] = was
	return true
}

// noteSilence books one survey. It needs the turn.
func (s *Supervisor) noteSilence(hosts []runner.Host, now time.Time) {
	ready := map[string]bool{}
	for _, h := range hosts {
		for _, c := range h.Checks {
			if c.Name == runner.CheckNodeReady && c.Verdict == runner.Pass {
				// A node that was registered anew has another UID, and its kubelet speaks.
				ready[h.NodeUID], ready[h.InstanceID] = true, true
			}
		}
	}
	var silent []runner.Name
	for name, r := range s.state.Runners {
		host := r.Claimed.Event.Host
		if _, ended := r.Ended(); !ended && !ready[host.NodeUID] && !ready[host.InstanceID] {
			silent = append(silent, name)
		}
	}
	for _, name := range s.silence.saw(silent, now, s.blink()) {
		host := s.state.Runners[name].Claimed.Event.Host
		s.Logger.Warn("a host in use is silent", zap.String("runner", string(name)), zap.String("node", host.NodeName), zap.String("instance", host.InstanceID))
		s.Cluster.Event(name, host.NodeName, "HostSilent", fmt.Sprintf("the kubelet says nothing; the runner is given up after %s", s.Limits.SilentFor))
	}
}

// askCloud is how often the cloud is asked about a silent host.
const askCloud = 15 * time.Second

// hostOver says why a host can run no job any more although its pod is said to
// be there. A kubelet that is silent may come back, so it is given time; a host
// that the cloud itself shows over is not. What the cloud does not know is
// neither.
func (s *Supervisor) hostOver(ctx context.Context, r *runner.Runner) (runner.Cause, error) {
	was, silent := s.silence.of(r.Name())
	now := time.Now()
	switch {
	case !silent:
		return "", nil
	}
	host := r.Claimed.Event.Host
	if s.Limits.SilentFor > 0 && was.last.Sub(was.since) >= s.Limits.SilentFor {
		if speaks, err := s.speaks(ctx, host); err != nil || speaks {
			return "", err
		}
		return runner.CauseHostSilent, nil
	}
	if host.Provider == "none" || !s.silence.due(r.Name(), now, askCloud) {
		return "", nil
	}
	instances, err := s.Hosts.Describe(ctx, []string{host.InstanceID})
	if err != nil {
		return "", fmt.Errorf("look at the silent host: %w", err)
	}
	if in, listed := instances[host.InstanceID]; listed && (in.State == "terminated" || in.State == "stopped") {
		return runner.CauseHostEnded, nil
	}
	return "", nil
}

// speaks asks the cluster itself whether the host's kubelet is heard: the surveys
// before may have been of a copy, and a job ends by the answer. The node is asked
// for by its name first, because one that lost the pool's label is in no list;
// then the list, because a host may be registered anew under another name.
func (s *Supervisor) speaks(ctx context.Context, host runner.Host) (bool, error) {
	ours := func(n runner.Node) bool {
		id, _ := n.InstanceID()
		return n.UID == host.NodeUID || id == host.InstanceID
	}
	node, there, err := s.Cluster.NodeNow(ctx, host.NodeName)
	if err != nil {
		return false, fmt.Errorf("look at the silent host: %w", err)
	}
	if there && ours(node) && node.Ready {
		return true, nil
	}
	nodes, err := s.Cluster.NodesNow(ctx)
	if err != nil {
		return false, fmt.Errorf("look at the silent host: %w", err)
	}
	return slices.ContainsFunc(nodes, func(n runner.Node) bool { return n.Ready && ours(n) }), nil
}

// podWarnings are what on-call is told of the pod and host of a runner in use.
func (s *Supervisor) podWarnings(r RunnerView, now time.Time) (out []string) {
	if r.Pod != "" {
		out = append(out, fmt.Sprintf("runner %s: %s", r.Name, r.Pod))
	}
	if was, silent := s.silence.of(r.Name); silent && r.Outcome == "" {
		out = append(out, fmt.Sprintf("host %s (%s): its kubelet has said nothing for %s; runner %s is given up after %s",
			r.Instance, r.Node, now.Sub(was.since).Round(time.Second), r.Name, s.Limits.SilentFor))
	}
	return out
}
