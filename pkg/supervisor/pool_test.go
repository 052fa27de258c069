package supervisor

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
	"go.uber.org/zap"
)

// fallingHosts are a cloud whose library falls over an odd answer.
type fallingHosts struct{ Hosts }

func (fallingHosts) Preflight(context.Context) (HostsPool, error) { panic("index out of range") }

// TestALookThatPanicsIsALookThatFailed: the queue is listened to after the first
// look, and the status says why nothing begins.
func TestALookThatPanicsIsALookThatFailed(t *testing.T) {
	s := &Supervisor{Options: Options{Hosts: fallingHosts{}, Logger: zap.NewNop()}, pool: newPoolLooks()}
	if _, err := s.survive(func() (bool, error) { return s.preflight(t.Context(), runner.Task{}) }); !errors.Is(err, errPanicked) {
		t.Errorf("preflight = %v, want the panic as an error", err)
	}
	select {
	case <-s.pool.tried:
	default:
		t.Error("the first look does not count as tried: the queue is never listened to")
	}
	if why := s.pool.problems(time.Now()); len(why) != 1 || !strings.Contains(why[0], "cannot be looked at: the task panicked") {
		t.Errorf("problems = %q, want the panic", why)
	}
}

func TestAHostIsStartedForWhoComes(t *testing.T) {
	ahead, full, room := runner.Limits{PrelaunchFor: time.Hour}, GroupView{Desired: 3, Max: 3}, GroupView{Max: 3}
	for name, tc := range map[string]struct {
		limits runner.Limits
		groups []GroupView
		unfit  []unfit
		want   bool
	}{
		"the size is not ours":          {runner.Limits{}, []GroupView{room}, nil, false},
		"no group is known":             {ahead, nil, nil, false},
		"no group may grow":             {ahead, []GroupView{full, full}, nil, false},
		"an empty one may":              {ahead, []GroupView{room}, nil, true},
		"the second may":                {ahead, []GroupView{full, room}, nil, true},
		"hosts are kept warm":           {runner.Limits{Warm: 1}, []GroupView{room}, nil, true},
		"none of no size at all":        {ahead, []GroupView{{}}, nil, false},
		"what was started is of no use": {ahead, []GroupView{room}, []unfit{{instance: "i-1"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := &Supervisor{Options: Options{Limits: tc.limits}}
			if got := s.starts(HostsPool{Groups: tc.groups}, tc.unfit); got != tc.want {
				t.Errorf("starts = %t, want %t", got, tc.want)
			}
		})
	}
}

// askedHosts are a cloud that counts how often it is asked for hosts.
type askedHosts struct {
	Hosts
	asked int
}

func (h *askedHosts) Ensure(context.Context, Demand) error { h.asked++; return nil }

// soleLog is a log that says whether another daemon writes to it.
type soleLog struct {
	Ledger
	err error
}

func (l soleLog) Alone(context.Context) error { return l.err }

// calmQueue is GitHub's queue without a problem.
type calmQueue struct{ Queue }

func (calmQueue) Health() QueueHealth { return QueueHealth{} }

// calmGitHub has a right clock.
type calmGitHub struct{ GitHub }

func (calmGitHub) Health() GitHubHealth { return GitHubHealth{} }

// TestOnlyOneStartsHosts: with Karpenter nothing but the daemons' own counts bounds
// what two of them start.
func TestOnlyOneStartsHosts(t *testing.T) {
	for name, c := range map[string]struct {
		warm, asked int
		err         error
	}{
		"nobody else writes":               {1, 1, nil},
		"another daemon writes":            {1, 0, ErrFenced},
		"nobody knows":                     {1, 0, errDown},
		"none is to be started, and so on": {0, 1, errDown},
	} {
		hosts := &askedHosts{}
		s := at(late{})
		s.Hosts, s.Ledger, s.Queue, s.GitHub, s.pool, s.unfit = hosts, soleLog{err: c.err}, calmQueue{}, calmGitHub{}, newPoolLooks(), newUnfits()
		s.Limits = runner.Limits{MaxRunners: 2, Warm: c.warm, PrelaunchFor: time.Hour}
		s.fatal = make(chan error, 1)
		s.view.Store(&View{})
		s.pool.saw(HostsPool{}, nil, time.Now())
		_, err := s.scale(t.Context(), runner.Task{})
		if hosts.asked != c.asked || c.asked == 0 && !errors.Is(err, c.err) || c.asked == 1 && err != nil {
			t.Errorf("%s: hosts were asked for %d times, %v, want %d", name, hosts.asked, err, c.asked)
		}
	}
}
