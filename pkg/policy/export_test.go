package policy

import (
	"context"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
)

// EvaluateJSON asks about any JSON.
func (b *Bundle) EvaluateJSON(ctx context.Context, input []byte, now time.Time) ([]string, error) {
	return b.evaluate(ctx, input, now)
}

// Explanations is the table behind Explain.
var Explanations = explanations

// Capabilities are the builtins that a bundle may use.
func Capabilities() *ast.Capabilities { return capabilities() }
