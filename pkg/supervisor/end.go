package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

const (
	// podGrace is how long a pod may take to end by itself. With a blocked
	// hook a graceful end reports the job as failed at once; killing it would
	// leave GitHub waiting for the lease.
	podGrace = 30 * time.Second
	// podPatience is how long after its runner ended a pod may exist before
	// the host is ended under it.
	podPatience = 2 * time.Minute
)

// taskWatch sees whether a runner is over. Two signals must agree: the pod can
// never run again, and the registration is gone. Either alone has been wrong.
func (s *Supervisor) taskWatch(ctx context.Context, name runner.Name) (bool, error) {
	r, err := s.runnerOf(ctx, name)
	if err != nil || r == nil {
		return false, err
	}
	pod, err := s.Cluster.Pod(ctx, name)
	if err != nil {
		return false, fmt.Errorf("look at the pod: %w", err)
	}
	if !pod.Phase.Terminal() {
		return false, nil
	}
	if r.Started == nil {
		return s.retire(ctx, name, runner.CausePodFailed, pod.Reason)
	}
	if err := s.Registrar.Deregister(ctx, name); err != nil {
		if errors.Is(err, ErrJobStillRunning) {
			return false, nil
		}
		return false, fmt.Errorf("remove the registration: %w", err)
	}
	err = s.record(ctx, runner.Completed{Runner: name, Job: r.Started.Event.Job, PodPhase: pod.Phase, PodReason: pod.Reason})
	return err == nil, err
}

// taskRetire ends a runner on which no job will run to its end. An idle runner
// loses its registration first: GitHub refuses that while a job holds it, and
// then the job's hook gets its time to ask.
func (s *Supervisor) taskRetire(ctx context.Context, name runner.Name, cause runner.Cause) (bool, error) {
	r, err := s.runnerOf(ctx, name)
	if err != nil || r == nil {
		return false, err
	}
	polite := cause == runner.CauseIdle || cause == runner.CauseSurplus
	if polite && r.Released != nil {
		err := s.Registrar.Deregister(ctx, name)
		late := time.Since(r.Released.At) > s.Limits.IdleTTL+s.Limits.HookGrace
		switch {
		case err == nil:
		case !late && errors.Is(err, ErrJobStillRunning):
			return false, nil
		case !late:
			return false, fmt.Errorf("remove the registration: %w", err)
		default:
			cause = runner.CauseHookMissing
		}
	}
	return s.retire(ctx, name, cause, "")
}

// taskTeardown ends the host and looks until it is gone. Asking is not
// knowing: only what was observed is recorded as terminated.
func (s *Supervisor) taskTeardown(ctx context.Context, task runner.Task) (bool, error) {
	r, err := s.runnerOf(ctx, task.Runner)
	if err != nil || r == nil {
		return false, err
	}
	if r.Teardown == nil {
		return s.intend(ctx, r)
	}
	end := ending{Supervisor: s, r: r, host: r.Claimed.Event.Host}
	problem := end.advance(ctx)
	pending := end.pending()
	s.sight.pending(task.Runner, pending)
	if len(pending) == 0 {
		err := s.record(ctx, end.terminated())
		return err == nil, err
	}
	if task.Overdue {
		since, _ := r.Ended()
		if err := s.record(ctx, runner.Overdue{Runner: task.Runner, Pending: pending, Since: since}); err != nil {
			problem = errors.Join(problem, err)
		}
		s.Cluster.Event(task.Runner, end.host.NodeName, "TeardownOverdue", "the host is not gone in time")
	}
	return false, problem
}

// intend records what must be gone before anything is asked to go.
func (s *Supervisor) intend(ctx context.Context, r *runner.Runner) (bool, error) {
	host := r.Claimed.Event.Host
	e := runner.Teardown{Runner: r.Name(), InstanceID: host.InstanceID, Volumes: slices.Clone(host.Volumes)}
	if host.Provider != "none" {
		instances, err := s.Hosts.Describe(ctx, []string{host.InstanceID})
		if err != nil {
			return false, fmt.Errorf("describe the host: %w", err)
		}
		if in, ok := instances[host.InstanceID]; ok {
			e.Volumes = append(e.Volumes, in.Volumes...)
			e.Interfaces = in.NetworkInterfaces
		}
	}
	slices.Sort(e.Volumes)
	e.Volumes = slices.Compact(e.Volumes)
	if e.Volumes == nil {
		e.Volumes = []string{}
	}
	err := s.record(ctx, e)
	return err == nil, err
}

// ending is one look at a host that is being ended.
type ending struct {
	*Supervisor
	r    *runner.Runner
	host runner.Host

	pod, registration, node bool // observed gone
	states                  []runner.Transition
	reason                  string
	volumes                 []string
	receipts                []TerminateReceipt
	instance                bool
}

// advance does what is left to do and observes. Every step is tried even when
// another failed; the errors are joined.
func (e *ending) advance(ctx context.Context) error {
	return errors.Join(e.endPod(ctx), e.endRegistration(ctx), e.endInstance(ctx), e.endNode(ctx))
}

func (e *ending) endPod(ctx context.Context) error {
	pod, err := e.Cluster.Pod(ctx, e.r.Name())
	if e.pod = err == nil && pod.Phase == runner.PodGone; e.pod {
		return nil
	}
	grace := podGrace
	if since, _ := e.r.Ended(); time.Since(since) > podPatience {
		grace = 0
	}
	if err := e.Cluster.DeletePod(ctx, e.r.Name(), grace); err != nil {
		return fmt.Errorf("delete the pod: %w", err)
	}
	pod, err = e.Cluster.Pod(ctx, e.r.Name())
	if err != nil {
		return fmt.Errorf("look at the pod: %w", err)
	}
	e.pod = pod.Phase == runner.PodGone
	return nil
}

// endRegistration removes the registration even of a runner that never had
// one: an answer that was lost may have made it. Names are never used twice,
// so what is gone once the pod is gone stays gone and is not asked for again.
func (e *ending) endRegistration(ctx context.Context) error {
	if e.sight.deregistered(e.r.Name()) {
		e.registration = true
		return nil
	}
	err := e.Registrar.Deregister(ctx, e.r.Name())
	switch {
	case err == nil:
		e.registration = true
		if e.pod {
			e.sight.with(e.r.Name(), func(g *sighting) { g.deregistered = true })
		}
		return nil
	case errors.Is(err, ErrJobStillRunning):
		return nil
	}
	return fmt.Errorf("remove the registration: %w", err)
}

// endInstance asks once and then only looks, until the instance was seen
// terminated and its volumes are gone. The pod goes first, so that draining
// the node is instant, but not for ever.
func (e *ending) endInstance(ctx context.Context) error {
	name := e.r.Name()
	if e.host.Provider == "none" {
		e.states = []runner.Transition{{State: "cordoned", At: time.Now().UTC().Round(0)}}
		e.instance, e.volumes = true, []string{}
		return nil
	}
	since, _ := e.r.Ended()
	if !e.pod && time.Since(since) < podPatience {
		return nil
	}
	var problem error
	if !e.sight.ending(name) {
		receipt, err := e.Hosts.Terminate(ctx, e.host.InstanceID)
		if err != nil {
			problem = fmt.Errorf("terminate the instance: %w", err)
		} else {
			e.sight.asked(name, receipt)
		}
	}
	instances, err := e.Hosts.Describe(ctx, []string{e.host.InstanceID})
	if err != nil {
		return errors.Join(problem, fmt.Errorf("look at the instance: %w", err))
	}
	if in, ok := instances[e.host.InstanceID]; ok {
		e.sight.saw(name, in, time.Now().UTC().Round(0))
	}
	e.states, e.reason, e.receipts = e.sight.of(name)
	e.instance = len(e.states) > 0 && e.states[len(e.states)-1].State == "terminated"
	if !e.instance {
		return problem
	}
	e.volumes, err = e.Hosts.VolumesGone(ctx, e.r.Teardown.Event.Volumes)
	if err != nil {
		return fmt.Errorf("look at the volumes: %w", err)
	}
	return nil
}

// endNode removes the node object once its machine is gone; the cloud
// controller does the same, and either way it must not be there.
func (e *ending) endNode(ctx context.Context) error {
	if e.host.Provider == "none" {
		e.node = true
		return nil
	}
	if !e.instance {
		return nil
	}
	if err := e.Cluster.DeleteNode(ctx, e.host.NodeName, e.host.NodeUID); err != nil {
		return fmt.Errorf("delete the node object: %w", err)
	}
	gone, err := e.Cluster.NodeGone(ctx, e.host.NodeName, e.host.NodeUID)
	if err != nil {
		return fmt.Errorf("look at the node object: %w", err)
	}
	e.node = gone
	return nil
}

// pending are the parts that were not observed gone.
func (e *ending) pending() []runner.Stage {
	var out []runner.Stage
	for _, part := range []struct {
		stage runner.Stage
		gone  bool
	}{
		{runner.StagePod, e.pod},
		{runner.StageRegistration, e.registration},
		{runner.StageInstance, e.instance},
		{runner.StageVolumes, e.volumesGone()},
		{runner.StageNode, e.node},
	} {
		if !part.gone {
			out = append(out, part.stage)
		}
	}
	return out
}

func (e *ending) volumesGone() bool {
	if e.volumes == nil {
		return false
	}
	for _, vol := range e.r.Teardown.Event.Volumes {
		if !slices.Contains(e.volumes, vol) {
			return false
		}
	}
	return true
}

func (e *ending) terminated() runner.Terminated {
	out := runner.Terminated{
		Runner: e.r.Name(), InstanceID: e.host.InstanceID, States: e.states, ReasonCode: e.reason,
		VolumesGone: e.volumes, PodGone: e.pod, RegistrationGone: e.registration, NodeGone: e.node && e.host.Provider != "none",
	}
	for _, r := range e.receipts {
		out.ActivityID = r.ActivityID
		if r.RequestID != "" {
			out.RequestIDs = append(out.RequestIDs, r.RequestID)
		}
	}
	return out
}

// taskSeal writes the job-to-host statement.
func (s *Supervisor) taskSeal(ctx context.Context, name runner.Name) (bool, error) {
	_, err := s.recordFrom(ctx, func(st *runner.State) (runner.Event, error) { return st.Seal(name), nil })
	if err == nil {
		s.sight.forget(name)
	}
	return err == nil, err
}

// sightings remember what was seen of instances that are ending. They are
// memory only: after a restart the instance is looked at again, which EC2
// allows for about an hour after its end.
type sightings struct {
	mu  sync.Mutex
	all map[runner.Name]*sighting
}

type sighting struct {
	states   []runner.Transition
	reason   string
	receipts []TerminateReceipt
	pending  []runner.Stage
	// deregistered: the registration was seen gone after the pod was.
	deregistered bool
}

func newSightings() *sightings { return &sightings{all: map[runner.Name]*sighting{}} }

func (s *sightings) with(name runner.Name, f func(*sighting)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all[name] == nil {
		s.all[name] = &sighting{}
	}
	f(s.all[name])
}

// ending says that the instance was seen on its way out, so that there is
// nothing more to ask for. A request alone does not count: it may have had no
// effect.
func (s *sightings) ending(name runner.Name) (yes bool) {
	s.with(name, func(g *sighting) {
		yes = slices.ContainsFunc(g.states, func(t runner.Transition) bool {
			return t.State == "shutting-down" || t.State == "terminated"
		})
	})
	return yes
}

func (s *sightings) asked(name runner.Name, receipt TerminateReceipt) {
	s.with(name, func(g *sighting) {
		if receipt != (TerminateReceipt{}) && len(g.receipts) < 8 {
			g.receipts = append(g.receipts, receipt)
		}
	})
}

func (s *sightings) saw(name runner.Name, in runner.Instance, at time.Time) {
	s.with(name, func(g *sighting) {
		if in.StateReason != "" {
			g.reason = in.StateReason
		}
		if n := len(g.states); n == 0 || g.states[n-1].State != in.State {
			g.states = append(g.states, runner.Transition{State: in.State, At: at})
		}
	})
}

func (s *sightings) of(name runner.Name) (states []runner.Transition, reason string, receipts []TerminateReceipt) {
	s.with(name, func(g *sighting) {
		states, reason, receipts = slices.Clone(g.states), g.reason, slices.Clone(g.receipts)
	})
	return states, reason, receipts
}

func (s *sightings) deregistered(name runner.Name) (yes bool) {
	s.with(name, func(g *sighting) { yes = g.deregistered })
	return yes
}

func (s *sightings) pending(name runner.Name, stages []runner.Stage) {
	s.with(name, func(g *sighting) { g.pending = stages })
}

func (s *sightings) stages(name runner.Name) []runner.Stage {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.all[name]; g != nil {
		return g.pending
	}
	return nil
}

func (s *sightings) forget(name runner.Name) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, name)
}
