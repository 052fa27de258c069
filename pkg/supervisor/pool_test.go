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
