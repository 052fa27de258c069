package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/runnerward/runnerward/pkg/admission/wire"
)

// pollEvery is how often a pending hook asks again.
const pollEvery = 2 * time.Second

// The reasons that the supervisor gives are codes; these say more about the
// one that this end knows the cause of.
const noTokenHelp = `This job cannot prove what it is: it has no permission to ask for an OIDC token.
Add this to the job (or to the workflow that calls it):

    permissions:
      id-token: write`

// Hook asks whether the job that holds this environment may start. It returns
// nil when the supervisor allowed it and at no other time, except with the
// context's cause when the context ends: a refusal blocks, because a hook that
// fails lets steps with if: always() run. Run hears of the hook before anybody
// is asked, and kills the runner when it ends otherwise than allowed.
func (a *Agent) Hook(ctx context.Context, getenv func(string) string) error {
	line, err := Announce(ctx, a.cfg.Dial)
	if err != nil {
		return err
	}
	defer line.Close()
	if err := a.untilAllowed(ctx, getenv); err != nil {
		hangUp(line)
		return err
	}
	if _, err := io.WriteString(line, saidAllowed); err != nil {
		// Run is gone, or kills the runner already.
		a.cfg.Log.Error("allowed, but nobody hears it, blocking", slog.Any("error", err))
		return Block(ctx)
	}
	return nil
}

// untilAllowed asks until the answer is yes or the context ends.
func (a *Agent) untilAllowed(ctx context.Context, getenv func(string) string) error {
	// The runner sets both when the job may ask for a token:
	// src/Runner.Worker/Handlers/ScriptHandler.cs.
	tokens := tokenSource{agent: a, url: getenv("ACTIONS_ID_TOKEN_REQUEST_URL"), secret: getenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN")}
	if !tokens.possible() {
		a.say(noTokenHelp)
	}
	a.say("Runnerward checks whether this job may run here.")
	var pace backoff
	for told := false; ; {
		answer, err := a.mayStart(ctx, &tokens)
		if _, refused := errors.AsType[*Refused](err); refused {
			a.say(fmt.Sprintf("This job may not run here: %v.", err))
			return Block(ctx)
		}
		switch {
		case err != nil:
			a.cfg.Log.Warn("start not answered, asking again", slog.Any("error", err))
			err = pace.pause(ctx)
		case answer.Verdict == wire.Allowed && tokens.possible():
			a.say("Allowed. The evidence is " + string(answer.Record) + ".")
			return nil
		case answer.Verdict == wire.Refused:
			a.explain(answer.Reasons)
			return Block(ctx)
		default:
			// Pending, or an allowance that no token stands behind.
			pace = backoff{}
			if !told {
				a.say("Not decided yet. Waiting.")
				told = true
			}
			err = wait(ctx, pollEvery)
		}
		if err != nil {
			return err
		}
	}
}

// mayStart asks once, with a token that is still good.
func (a *Agent) mayStart(ctx context.Context, tokens *tokenSource) (wire.StartAnswer, error) {
	token, err := tokens.token(ctx)
	if err != nil {
		return wire.StartAnswer{}, err
	}
	var answer wire.StartAnswer
	err = a.ask(ctx, wire.StartPath(a.cfg.Runner), wire.StartRequest{Token: token}, &answer)
	if errors.Is(err, errToken) {
		tokens.forget()
	}
	return answer, err
}

func (a *Agent) explain(reasons []string) {
	a.say("This job may not run here. Runnerward cancels the run and removes this runner.")
	a.say("Reasons:")
	for _, r := range reasons {
		a.say("  - " + r)
	}
}

// say writes to the job's log. That the log cannot be written changes nothing.
func (a *Agent) say(text string) { _, _ = fmt.Fprintln(a.cfg.Out, text) }

// Block returns only when the context ends, with its cause. It wakes now and
// then, because the Go runtime ends a process, with an exit code that is not
// 0, in which every goroutine waits for what can never happen.
func Block(ctx context.Context) error {
	for {
		if err := wait(ctx, time.Hour); err != nil {
			return err
		}
	}
}
