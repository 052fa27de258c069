package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	other := func() bool { return r.Bound != nil && pod.Phase != runner.PodGone && pod.UID != r.Bound.Event.PodUID }
	if other() || pod.Phase.Terminal() && !s.sight.held(name, time.Now()) {
		// What follows cannot be undone.
		if pod, err = s.Cluster.PodNow(ctx, name); err != nil {
			return false, fmt.Errorf("look at the pod: %w", err)
		}
	}
	if other() {
		// The bound pod is gone, and another has come under its name.
		pod = runner.Pod{Name: pod.Name, Phase: runner.PodGone}
	}
	pod = s.sawPod(r, pod)
	if !pod.Phase.Terminal() {
		cause, err := s.hostOver(ctx, r)
		if err != nil || cause == "" {
			return false, err
		}
		return s.retire(ctx, name, cause, pod.Reason)
	}
	if r.Started == nil {
		return s.retire(ctx, name, runner.CausePodFailed, pod.Reason)
	}
	if err := s.deregister(ctx, name); err != nil {
		if errors.Is(err, ErrJobStillRunning) {
			return false, nil
		}
		return false, fmt.Errorf("remove the registration: %w", err)
	}
	err = s.record(ctx, runner.Completed{Runner: name, Job: r.Started.Event.Job, PodPhase: pod.Phase, PodReason: pod.Reason})
	return err == nil, err
}

// deregister removes a registration. While GitHub says that its job still runs
// it is asked less and less often: every attempt costs two calls, and the lease
// of a dead runner lasts for minutes.
func (s *Supervisor) deregister(ctx context.Context, name runner.Name) error {
	if s.sight.held(name, time.Now()) {
		return ErrJobStillRunning
	}
	var scaleSet int64
	if r, err := s.runnerOf(ctx, name); err != nil {
		return err
	} else if r != nil && r.Released != nil {
		scaleSet = r.Released.Event.ScaleSetID
	}
	err := s.Registrar.Deregister(ctx, name, scaleSet)
	if errors.Is(err, ErrJobStillRunning) {
		s.sight.refused(name, time.Now(), s.Tick)
	}
	return err
}

// taskRetire ends a runner on which no job will run to its end. An idle runner
// loses its registration first: GitHub refuses that while a job holds it, and
// then the job's hook gets its time to ask.
func (s *Supervisor) taskRetire(ctx context.Context, name runner.Name, cause runner.Cause) (bool, error) {
	r, err := s.runnerOf(ctx, name)
	if err != nil || r == nil {
		return false, err
	}
	if cause == runner.CauseHookMissing && s.gate.askedSince(name, s.started.Add(s.Limits.HookGrace), time.Now().Add(-s.Limits.HookGrace)) {
		return false, nil // the hook does ask, or had no time to since we started
	}
	polite := cause == runner.CauseIdle || cause == runner.CauseSurplus
	if polite && r.Released != nil {
		late, lateErr := s.late(ctx, r)
		if lateErr != nil {
			return false, lateErr
		}
		// To us alone it may look idle: another daemon may have given it a job.
		if err := s.alone(ctx); errors.Is(err, ErrFenced) {
			return false, err
		}
		err := s.deregister(ctx, name)
		switch {
		case err == nil:
		case late && errors.Is(err, ErrJobStillRunning):
			cause = runner.CauseHookMissing
		case late: // no job may run on it: ending it loses nothing
		case errors.Is(err, ErrJobStillRunning):
			return false, nil
		default:
			return false, fmt.Errorf("remove the registration: %w", err)
		}
	}
	var reason string
	if cause == runner.CauseNeverBound {
		reason = s.podReason(ctx, name)
	}
	return s.retire(ctx, name, cause, reason)
}

// taskTeardown ends the host and looks until it is gone. Asking is not
// knowing: only what was observed is recorded as terminated.
func (s *Supervisor) taskTeardown(ctx context.Context, task runner.Task) (bool, error) {
	r, err := s.runnerOf(ctx, task.Runner)
	if err != nil || r == nil {
		return false, err
	}
	if r.Teardown == nil {
		// The pod goes whatever the cloud says: a job may be in it that was
		// never allowed.
		podCtx, cancel := context.WithTimeout(ctx, s.CallTimeout/4)
		podErr := s.Cluster.DeletePod(podCtx, task.Runner, podGrace)
		cancel()
		progress, err := s.intend(ctx, r)
		return progress, errors.Join(err, podErr)
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
	seen                    sighting
	states                  []runner.Transition
	volumes                 []string
	instance                bool
}

// advance does what is left to do and observes. Every step is tried, each with
// a time of its own, even when another failed or hung; the errors are joined.
// The instance comes before the registration: GitHub being away must not keep
// a host alive.
func (e *ending) advance(ctx context.Context) error {
	var problems []error
	for _, step := range []func(context.Context) error{e.endPod, e.endInstance, e.endNode, e.endRegistration} {
		stepCtx, cancel := context.WithTimeout(ctx, e.CallTimeout/4)
		problems = append(problems, step(stepCtx))
		cancel()
	}
	return errors.Join(problems...)
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
	err := e.deregister(ctx, e.r.Name())
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

// endInstance asks until the instance was seen on its way out, and then only
// looks, until it was seen terminated and its volumes are gone. The pod goes
// first, so that draining the node is instant, but not for ever. What manages
// the pool is asked first, and gone around once it had its time.
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
		receipt, err := e.Hosts.Terminate(ctx, e.host.InstanceID, e.how(ctx))
		if err != nil {
			problem = fmt.Errorf("terminate the instance: %w", err)
		}
		e.sight.asked(name, receipt)
	}
	instances, err := e.Hosts.Describe(ctx, []string{e.host.InstanceID})
	if err != nil {
		return errors.Join(problem, fmt.Errorf("look at the instance: %w", err))
	}
	now := time.Now().UTC().Round(0)
	in, listed := instances[e.host.InstanceID]
	switch {
	case listed:
		e.sight.saw(name, in, now)
		if err := e.remember(ctx, in); err != nil {
			problem = errors.Join(problem, err)
		}
	case e.r.Ending != nil:
		// The cloud lists a terminated instance for about an hour. This one
		// was seen ending, and we have a record of it.
		e.sight.saw(name, runner.Instance{State: "unlisted"}, now)
	}
	e.seen = e.sight.of(name)
	e.states = e.seen.states
	last := ""
	if n := len(e.states); n > 0 {
		last = e.states[n-1].State
	}
	if e.instance = last == "terminated" || last == "unlisted" && e.r.Ending != nil; !e.instance {
		return problem
	}
	if e.volumes, err = e.Hosts.VolumesGone(ctx, e.r.Teardown.Event.Volumes); err != nil {
		return fmt.Errorf("look at the volumes: %w", err)
	}
	if e.volumes == nil {
		e.volumes = []string{} // there were none to wait for
	}
	return nil
}

// how is the way in which the host is ended. That the demand cannot be had is no
// reason to wait: then the pool keeps its size.
func (e *ending) how(ctx context.Context) TerminateOptions {
	escalate := e.Limits.EscalateAfter
	opt := TerminateOptions{Force: escalate > 0 && time.Since(e.r.Teardown.At) >= escalate}
	if d, err := e.demand(ctx); err == nil {
		opt.Demand = d
	}
	return opt
}

// remember makes the first sight of the host's end durable.
func (e *ending) remember(ctx context.Context, in runner.Instance) error {
	if e.r.Ending != nil || in.State != "shutting-down" && in.State != "terminated" {
		return nil
	}
	return e.record(ctx, runner.Ending{Runner: e.r.Name(), InstanceID: in.ID, State: in.State})
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
		Runner: e.r.Name(), InstanceID: e.host.InstanceID, States: e.states, ReasonCode: e.seen.reason,
		VolumesGone: e.volumes, PodGone: e.pod, RegistrationGone: e.registration, NodeGone: e.node && e.host.Provider != "none",
	}
	out.ActivityID, out.Requests, out.Omitted = e.seen.activity, e.seen.requests, e.seen.omitted
	return out
}

// taskSeal writes the job-to-host statement.
func (s *Supervisor) taskSeal(ctx context.Context, name runner.Name) (bool, error) {
	_, err := s.recordFrom(ctx, func(st *runner.State) (runner.Event, error) { return st.Seal(name), nil })
	if err == nil {
		s.sight.forget(name)
		s.gate.forget(name)
	}
	return err == nil, err
}
