package admission

import (
	"context"
	"errors"
	"net/http"

	"github.com/runnerward/runnerward/pkg/admission/wire"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// Gate decides. Its errors are classified with errors.Is:
// [supervisor.ErrTokenRejected] is a token that nobody vouches for,
// [supervisor.ErrConflict] a refusal for good (a second claim, another pod, a
// runner that is over) and every other error says that the answer is unknown.
// It is called concurrently, but with at most one call of each method for a
// runner at a time. A call that was answered and got lost is asked again.
type Gate interface {
	// Claim exchanges a pod's projected token for the JIT config of its runner.
	Claim(ctx context.Context, name runner.Name, podToken string) (supervisor.ClaimAnswer, error)
	// Start asks whether the job that holds this GitHub OIDC token may start
	// on this runner. The job token is empty when the job can have none.
	Start(ctx context.Context, name runner.Name, podToken, jobToken string) (supervisor.StartAnswer, error)
	// Host takes what the witness of a host presents with its projected token.
	// [supervisor.ErrConflict] says that these bytes will never be accepted.
	Host(ctx context.Context, token string, claim supervisor.HostClaim) (runner.HostIdentity, error)
}

// refusal is an answer other than 200.
type refusal struct {
	status int
	wire.Error
}

func final(status int, message string) *refusal {
	return &refusal{status, wire.Error{Error: message, Final: true}}
}

func later(status int, message string) *refusal {
	return &refusal{status, wire.Error{Error: message}}
}

// classify turns an error of the gate into an answer. The messages are
// constants: an error's own text may quote a token.
func classify(err error) *refusal {
	switch {
	case errors.Is(err, supervisor.ErrTokenRejected):
		return later(http.StatusUnauthorized, "the token was not accepted")
	case errors.Is(err, supervisor.ErrConflict):
		return final(http.StatusConflict, "this runner is not for you")
	default:
		return unknown()
	}
}

func unknown() *refusal {
	return later(http.StatusServiceUnavailable, "no answer can be had now")
}
