package supervisor

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/runnerward/runnerward/pkg/runner"
	"go.uber.org/zap"
)

// askOf is a copy of one question of GitHub.
func (s *Supervisor) askOf(ctx context.Context, task runner.Task) (ask runner.Ask, err error) {
	err = s.locked(ctx, func() error {
		run := s.state.Runs[task.Run]
		if run == nil || run.Asks[task.Delivery] == nil {
			return fmt.Errorf("question %s about run %d is not in the log", task.Delivery, task.Run)
		}
		ask = *run.Asks[task.Delivery]
		return nil
	})
	return ask, err
}

// taskRule decides about a deployment that GitHub asked about. What stays
// unknown is not answered: GitHub waits, and asking again costs nothing.
func (s *Supervisor) taskRule(ctx context.Context, task runner.Task) (bool, error) {
	ask, err := s.askOf(ctx, task)
	if err != nil {
		return false, err
	}
	facts, err := s.GitHub.DeploymentFacts(ctx, ask.Asked.Event)
	if err != nil {
		return false, fmt.Errorf("gather facts of the deployment: %w", err)
	}
	decision, err := s.decide(ctx, runner.Question{Gate: runner.GateDeployment, Facts: &facts})
	if err != nil {
		return false, err
	}
	ruled := runner.Ruled{RunID: task.Run, Delivery: task.Delivery, State: runner.StateRejected, Decision: decision}
	if decision.Allowed() {
		ruled.State = runner.StateApproved
	}
	err = s.record(ctx, ruled)
	return err == nil, err
}

// taskAnswer tells GitHub a ruling that is on record.
func (s *Supervisor) taskAnswer(ctx context.Context, task runner.Task) (bool, error) {
	ask, err := s.askOf(ctx, task)
	if err != nil {
		return false, err
	}
	ruling := ask.Ruled.Event
	// Attempts of a run share its number: an old ruling must not answer for a new one.
	if err := s.alone(ctx); err != nil {
		return false, err
	}
	err = s.GitHub.Answer(ctx, ask.Asked.Event, ruling.State, s.comment(ruling))
	moot := errors.Is(err, ErrMoot)
	if err != nil && !moot {
		return false, fmt.Errorf("answer about run %d: %w", task.Run, err)
	}
	s.Logger.Info("answered about a deployment", zap.Int64("run_id", task.Run), zap.String("state", ruling.State), zap.Bool("moot", moot))
	err = s.record(ctx, runner.Answered{RunID: task.Run, Delivery: task.Delivery, Moot: moot})
	return err == nil, err
}

// comment is what a developer reads on GitHub's page.
func (s *Supervisor) comment(r runner.Ruled) string {
	if r.State == runner.StateApproved {
		return "Runnerward: nothing speaks against this deployment. It is checked again when its job is queued and when it starts."
	}
	var b strings.Builder
	b.WriteString("Runnerward refuses this deployment:\n")
	for _, code := range r.Decision.Reasons {
		words := ""
		if s.Explain != nil {
			words = s.Explain(code)
		}
		fmt.Fprintf(&b, "\n- %s `%s`", words, code)
	}
	return b.String()
}
