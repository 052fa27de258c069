package admission

import (
	"context"
	"errors"
	"net/http"

	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/admission/wire"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// caller is whose budget the question is taken from. A witness is known by its
// token: which node it speaks for is not known before the cluster was asked.
func (q *question) caller() string {
	if q.name == "" {
		return string(runner.DigestOf([]byte(q.pod)))
	}
	return string(q.name)
}

func (q *question) fields() []zap.Field {
	if q.name == "" {
		return nil
	}
	return []zap.Field{zap.String("runner", string(q.name))}
}

func (h *handler) host(ctx context.Context, q *question, r *http.Request) (any, []zap.Field, *refusal) {
	var body wire.HostRequest
	if no := readBody(r, &body); no != nil {
		return nil, nil, no
	}
	if err := body.Check(); err != nil {
		return nil, []zap.Field{zap.NamedError("error", err)}, final(http.StatusBadRequest, "the document, the signature or the boot id is malformed")
	}
	id, err := h.gate.Host(ctx, q.pod, supervisor.HostClaim{Document: body.Document, Signature: body.Signature, BootID: body.BootID})
	if errors.Is(err, supervisor.ErrConflict) {
		return nil, []zap.Field{q.errorField(err)}, final(http.StatusConflict, "this document is not accepted from this host")
	}
	if err != nil {
		return nil, []zap.Field{q.errorField(err)}, classify(err)
	}
	return wire.HostAnswer{Document: id.Document}, []zap.Field{
		zap.String("instance", id.InstanceID), zap.String("document", string(id.Document)),
	}, nil
}
