package supervisor

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
	"go.uber.org/zap"
)

// sweepEvery is how often the three inventories are compared: the pods, the
// registrations and the log. The first time is at start.
const sweepEvery = 30 * time.Second

// maxStrays bounds how many new strays one sweep records: who can make pods
// must not be able to fill a log that nobody can shorten.
const maxStrays = 16

// sweep finds what carries our marks and no open runner explains, records it,
// removes it, and records when it is gone. A runner that the log knows and whose
// pod or registration is missing is no stray: its own task sees that.
func (s *Supervisor) sweep(ctx context.Context, _ runner.Task) (bool, error) {
	// A daemon that has nothing to write would not find out by itself that it was
	// overtaken, and would keep the queue from the other one.
	if err := s.alone(ctx); errors.Is(err, ErrFenced) {
		return false, err
	}
	over, err := s.over(ctx)
	if err != nil {
		return false, err
	}
	pods, podErr := s.strayPods(ctx, over)
	runners, runnerErr := s.strayRunners(ctx, over)
	var problems []error
	for what, list := range map[runner.StrayKind]listing{
		runner.StrayPod:          {pods, podErr},
		runner.StrayRegistration: {only(runners, runner.StrayRegistration), runnerErr},
		runner.StrayForeign:      {only(runners, runner.StrayForeign), runnerErr},
	} {
		if list.err != nil {
			continue
		}
		problems = append(problems, s.settleStrays(ctx, what, list.found))
	}
	return false, errors.Join(append(problems, podErr, runnerErr)...)
}

// listing is what one inventory shows; with an error nothing may be concluded.
type listing struct {
	found []runner.Stray
	err   error
}

func only(list []runner.Stray, what runner.StrayKind) []runner.Stray {
	var out []runner.Stray
	for _, stray := range list {
		if stray.What == what {
			out = append(out, stray)
		}
	}
	return out
}

// over are the runners whose end is on record now, before anything is listed.
// What is listed later under one of these names outlived its runner; and a name
// that the log does not know after the listing was never ours, because a name
// is recorded before anything is made under it.
func (s *Supervisor) over(ctx context.Context) (map[runner.Name]bool, error) {
	over := map[runner.Name]bool{}
	err := s.locked(ctx, func() error {
		for name, r := range s.state.Runners {
			over[name] = r.Terminated != nil
		}
		return nil
	})
	return over, err
}

// astray says that no open runner has the name.
func (s *Supervisor) astray(ctx context.Context, over map[runner.Name]bool, name string) (yes bool, err error) {
	err = s.locked(ctx, func() error {
		yes = s.state.Runners[runner.Name(name)] == nil || over[runner.Name(name)]
		return nil
	})
	return yes, err
}

func (s *Supervisor) strayPods(ctx context.Context, over map[runner.Name]bool) ([]runner.Stray, error) {
	pods, err := s.Cluster.Pods(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the runners' pods: %w", err)
	}
	var found []runner.Stray
	for _, pod := range pods {
		astray, err := s.astray(ctx, over, pod.Name)
		if err != nil {
			return nil, err
		}
		if !astray {
			continue
		}
		// A list may be late, and a pod that ended as it should is no stray.
		now, err := s.Cluster.PodNow(ctx, runner.Name(pod.Name))
		if err != nil {
			return nil, fmt.Errorf("look at stray pod %s: %w", pod.Name, err)
		}
		if now.Phase != runner.PodGone && now.UID == pod.UID {
			found = append(found, runner.Stray{What: runner.StrayPod, ID: pod.UID, Name: pod.Name, Node: pod.NodeName})
		}
	}
	return found, nil
}

// strayRunners asks GitHub for the runners of our group. One that the log does
// not explain is ours to remove only if it is in our scale set.
func (s *Supervisor) strayRunners(ctx context.Context, over map[runner.Name]bool) ([]runner.Stray, error) {
	registered, err := s.GitHub.Runners(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the runners of the group: %w", err)
	}
	var found []runner.Stray
	for _, r := range registered {
		astray, err := s.astray(ctx, over, r.Name)
		if err != nil {
			return nil, err
		}
		if !astray {
			continue
		}
		stray, err := s.strayRunner(ctx, r)
		if err != nil {
			return nil, fmt.Errorf("look up runner %d: %w", r.ID, err)
		}
		if stray != nil {
			found = append(found, *stray)
		}
	}
	return found, nil
}

// strayRunner says what a runner is that the log does not explain; nil when it
// is gone since it was listed.
func (s *Supervisor) strayRunner(ctx context.Context, r RegisteredRunner) (*runner.Stray, error) {
	stray := &runner.Stray{What: runner.StrayForeign, ID: strconv.FormatInt(r.ID, 10), Name: r.Name}
	if runner.Validate(*stray) != nil {
		stray.Name = ""
	}
	named := struct {
		Name runner.Name `pat:"name"`
	}{runner.Name(r.Name)}
	if runner.Validate(named) != nil {
		return stray, nil // none of ours is called like this
	}
	switch ours, err := s.Registrar.Registered(ctx, named.Name); {
	case errors.Is(err, ErrForeignRunner):
		return stray, nil
	case err != nil:
		return nil, err
	case !ours:
		return nil, nil
	}
	stray.What = runner.StrayRegistration
	return stray, nil
}

// settleStrays brings the record of one kind of stray up to what was found.
func (s *Supervisor) settleStrays(ctx context.Context, what runner.StrayKind, found []runner.Stray) error {
	var problems []error
	seen := map[string]bool{}
	fresh := 0
	for _, stray := range found {
		seen[stray.ID] = true
		known, err := s.recordStray(ctx, stray, fresh < maxStrays)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if !known {
			fresh++
		}
		problems = append(problems, s.removeStray(ctx, stray))
	}
	var gone []runner.Stray
	err := s.locked(ctx, func() error {
		for _, rec := range s.state.Strays {
			if rec.Event.What == what && !seen[rec.Event.ID] {
				gone = append(gone, rec.Event)
			}
		}
		return nil
	})
	for _, stray := range gone {
		problems = append(problems, s.swept(ctx, stray))
	}
	return errors.Join(append(problems, err)...)
}

// swept records that a stray is gone. A list may be late; that a pod is gone is
// for the cluster itself to say.
func (s *Supervisor) swept(ctx context.Context, stray runner.Stray) error {
	if stray.What == runner.StrayPod && stray.Name != "" {
		pod, err := s.Cluster.PodNow(ctx, runner.Name(stray.Name))
		switch {
		case err != nil:
			return fmt.Errorf("look at stray pod %s: %w", stray.Name, err)
		case pod.Phase != runner.PodGone && pod.UID == stray.ID:
			return s.removeStray(ctx, stray) // it lost our labels and lives
		}
	}
	return s.record(ctx, runner.Swept{What: stray.What, ID: stray.ID})
}

// errTooMany says that a stray has to wait for the next sweep.
var errTooMany = errors.New("too many strays at once; the others wait for the next sweep")

func (s *Supervisor) recordStray(ctx context.Context, stray runner.Stray, room bool) (known bool, err error) {
	_, err = s.recordFrom(ctx, func(st *runner.State) (runner.Event, error) {
		switch {
		case st.Strays[runner.StrayKey(stray.What, stray.ID)] != nil:
			return nil, runner.ErrRecorded
		case !room:
			return nil, errTooMany
		}
		return stray, nil
	})
	if errors.Is(err, runner.ErrRecorded) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("record stray %s %s: %w", stray.What, stray.ID, err)
	}
	s.Logger.Error("found a stray", zap.String("what", string(stray.What)), zap.String("id", stray.ID), zap.String("name", stray.Name))
	return false, nil
}

// removeStray removes what is ours. A registration whose job still runs stays
// until GitHub lets go of it; a foreign runner is not ours to touch.
func (s *Supervisor) removeStray(ctx context.Context, stray runner.Stray) error {
	switch stray.What {
	case runner.StrayPod:
		if err := s.Cluster.DeletePod(ctx, runner.Name(stray.Name), 0); err != nil {
			return fmt.Errorf("remove stray pod %s: %w", stray.Name, err)
		}
	case runner.StrayRegistration:
		if err := s.Registrar.Deregister(ctx, runner.Name(stray.Name), 0); err != nil {
			return fmt.Errorf("remove stray registration %s: %w", stray.ID, err)
		}
	}
	return nil
}
