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
