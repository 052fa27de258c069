package supervisor

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
	"go.uber.org/zap"
)

// parallel bounds how many tasks run at once.
const parallel = 8

// settle does the outstanding work, over and over. It never remembers what
// happened: each round asks the state anew.
func (s *Supervisor) settle(ctx context.Context) error {
	slots := make(chan struct{}, parallel)
	var running sync.WaitGroup
	defer running.Wait()
	rounds := s.rounds()
	for ctx.Err() == nil {
		if err := s.heartbeat(ctx); err != nil && !errors.Is(err, ErrAway) && ctx.Err() == nil {
			s.Logger.Error("cannot write a heartbeat", zap.Error(err))
		}
		tasks, next, err := s.plan(ctx)
		if err != nil {
			return err
		}
		for i := range rounds {
			r := &rounds[i]
			if now := time.Now(); now.Sub(r.last) >= r.every && s.lanes.enter(r.lane, now) {
				r.last = now
				running.Go(func() { s.do(ctx, r.lane, runner.Task{}, r.do) })
			}
		}
		for _, task := range tasks {
			lane := laneOf(task)
			if !s.lanes.enter(lane, time.Now()) {
				continue
			}
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
			running.Go(func() {
				defer func() { <-slots }()
				s.do(ctx, lane, task, s.perform)
			})
		}
		s.pause(ctx, next)
	}
	return nil
}

// round is a look at the world that no single job or runner asks for.
type round struct {
	lane  string
	every time.Duration
	do    func(context.Context, runner.Task) (bool, error)
	last  time.Time
}

func (s *Supervisor) rounds() []round {
	rounds := []round{
		{lane: laneSurvey, every: s.surveyEvery(), do: s.survey},
		{lane: laneSweep, every: sweepEvery, do: s.sweep},
		{lane: lanePreflight, every: preflightRetry, do: s.preflight},
		{lane: laneRebuffs, every: s.Tick, do: s.recordRebuffs},
	}
	if s.Limits.Scales() {
		rounds = append(rounds, round{lane: laneScale, every: 5 * s.Tick, do: s.scale})
	}
	if s.NewsEvery > 0 {
		rounds = append(rounds, round{lane: laneNews, every: s.NewsEvery, do: s.hear})
	}
	return rounds
}

// surveyEvery is how often all hosts are looked at.
func (s *Supervisor) surveyEvery() time.Duration { return 5 * s.Tick }

// The lanes of the rounds, and of claiming.
const (
	laneSurvey = "survey"
	laneSweep  = "sweep"
	laneNews   = "news"

	laneRebuffs = "rebuffs"

	lanePreflight = "preflight"
	laneScale     = "scale"
	laneClaim     = "claim"
)

func (s *Supervisor) plan(ctx context.Context) (tasks []runner.Task, next time.Time, err error) {
	err = s.locked(ctx, func() error {
		bounded, cancel := context.WithTimeout(ctx, s.CallTimeout)
		away := s.drain(bounded)
		cancel()
		tasks, next = s.state.Next(time.Now(), s.Limits)
		if away != nil {
			// Nothing new may begin, and what was begun must end.
			s.Logger.Error("the log is away; only ending what is to end", zap.Error(away))
			tasks = slices.DeleteFunc(tasks, func(t runner.Task) bool { return !goesOn(t, errors.Is(away, ErrAway)) })
		}
		s.looked.Store(new(time.Now()))
		s.publishLocked()
		return nil
	})
	return tasks, next, err
}

// pause waits for a change, the next deadline or the next look at the world.
func (s *Supervisor) pause(ctx context.Context, next time.Time) {
	d := s.Tick
	if until := time.Until(next); !next.IsZero() && until < d {
		d = max(until, time.Millisecond)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-s.poke:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// wake makes the settle loop look at once.
func (s *Supervisor) wake() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

// Changed makes the settle loop look at what changed in the cluster at once,
// and not with its next tick. It never waits.
func (s *Supervisor) Changed(ch Change) {
	for _, name := range ch.Runners {
		chain := string(runner.RunnerChain(name))
		s.lanes.hasten(chain)
		s.lanes.hasten("cancel/" + chain)
	}
	if ch.Nodes {
		s.lanes.hasten(laneClaim)
	}
	s.wake()
}

// do runs one task, bounded in time, and books how it went on its lane.
func (s *Supervisor) do(ctx context.Context, lane string, task runner.Task, f func(context.Context, runner.Task) (bool, error)) {
	callCtx, cancel := context.WithTimeoutCause(ctx, s.CallTimeout, fmt.Errorf("no answer within %s", s.CallTimeout))
	defer cancel()
	progress, err := s.survive(func() (bool, error) { return f(callCtx, task) })
	if errors.Is(err, runner.ErrRecorded) {
		progress, err = true, nil
	}
	if err != nil && ctx.Err() == nil {
		s.Logger.Warn("task failed, will be tried again", zap.String("task", string(task.Kind)),
			zap.String("subject", string(task.Subject())), zap.Error(err))
	}
	s.lanes.leave(lane, time.Now(), progress, err)
	if progress || err != nil {
		s.wake()
	}
}

// survive makes a panic of one task its error: a client library that falls over
// an odd answer must not keep the other hosts from being ended. The value may
// hold parts of the answer and is told only where it is the runtime's own text.
func (s *Supervisor) survive(f func() (bool, error)) (progress bool, err error) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		err = errPanicked
		if fault, ok := p.(runtime.Error); ok {
			err = fmt.Errorf("%w: %w", errPanicked, fault)
		}
		s.Logger.Error("a task panicked", zap.Error(err), zap.StackSkip("stack", 1))
	}()
	return f()
}

// errPanicked says that a task ended in a fault of the program.
var errPanicked = errors.New("the task panicked; this is a fault of the program, please report it with the log")

// perform does one task. True says that the state changed.
func (s *Supervisor) perform(ctx context.Context, task runner.Task) (bool, error) {
	switch task.Kind {
	case runner.TaskDecide:
		return s.taskDecide(ctx, task.Job)
	case runner.TaskDeny:
		return s.taskDeny(ctx, task.Job)
	case runner.TaskCancel:
		return s.taskCancel(ctx, task)
	case runner.TaskClaim:
		return s.taskClaim(ctx, task.Job)
	case runner.TaskLaunch:
		return s.taskLaunch(ctx, task.Runner)
	case runner.TaskWatch:
		return s.taskWatch(ctx, task.Runner)
	case runner.TaskRetire:
		return s.taskRetire(ctx, task.Runner, task.Cause)
	case runner.TaskTeardown:
		return s.taskTeardown(ctx, task)
	case runner.TaskSeal:
		return s.taskSeal(ctx, task.Runner)
	case runner.TaskRule:
		return s.taskRule(ctx, task)
	case runner.TaskAnswer:
		return s.taskAnswer(ctx, task)
	}
	return false, fmt.Errorf("no way to do a task of kind %q", task.Kind)
}

// laneOf keeps the tasks of one subject in sequence. Cancelling has a lane of
// its own, so that GitHub being away never delays a teardown; claiming has
// one, so that two jobs never look at the same host.
func laneOf(t runner.Task) string {
	switch t.Kind {
	case runner.TaskClaim:
		return laneClaim
	case runner.TaskCancel:
		return "cancel/" + string(t.Subject())
	}
	return string(t.Subject())
}

// lanes remember which subjects are being worked on and which have to wait.
type lanes struct {
	mu   sync.Mutex
	tick time.Duration
	all  map[string]*lane
}

type lane struct {
	busy      bool
	again     bool // something changed while it was busy
	notBefore time.Time
	failures  int
	wantsHost bool // it failed for want of a host, and for nothing else
	problem   string
}

// maxBackoff bounds the wait after repeated failures.
const maxBackoff = time.Minute

func newLanes(tick time.Duration) *lanes { return &lanes{tick: tick, all: map[string]*lane{}} }

func (l *lanes) enter(name string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	ln := l.all[name]
	if ln == nil {
		ln = &lane{}
		l.all[name] = ln
	}
	if ln.busy || now.Before(ln.notBefore) {
		return false
	}
	ln.busy = true
	return true
}

func (l *lanes) leave(name string, now time.Time, progress bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ln := l.all[name]
	again := ln.again
	ln.busy, ln.again = false, false
	switch {
	case err != nil:
		ln.failures++
		ln.problem = err.Error()
		ln.wantsHost = errors.Is(err, errNoHost)
		if !again || !ln.wantsHost {
			ln.notBefore = now.Add(min(l.tick<<min(ln.failures-1, 10), maxBackoff))
		}
	case progress:
		delete(l.all, name)
	default:
		ln.failures, ln.problem = 0, ""
		if !again {
			ln.notBefore = now.Add(l.tick)
		}
	}
}

// hasten lets the subject be worked on before its time, because something about
// it changed; while it is being worked on, once more after that. Work that failed
// keeps its wait, because no change in the cluster mends GitHub or EC2, unless it
// failed for want of a host: the change may have brought one.
func (l *lanes) hasten(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch ln := l.all[name]; {
	case ln == nil:
	case ln.busy:
		ln.again = true
	case ln.failures == 0 || ln.wantsHost:
		ln.notBefore = time.Time{}
	}
}

// problem is why the subject does not move, empty when it does.
func (l *lanes) problem(names ...string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range names {
		if ln := l.all[name]; ln != nil && ln.problem != "" {
			return ln.problem
		}
	}
	return ""
}
