package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"time"

	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/runnerward/runnerward/pkg/runner"
)

// evaluateBy bounds one evaluation. The default policy takes about a
// millisecond; a policy that needs this long does not end.
const evaluateBy = 5 * time.Second

// codeShape is the only shape of a reason: it goes into a log that nobody can edit.
var codeShape = regexp.MustCompile(`\A[a-z0-9][a-z0-9._-]{0,63}\z`)

// noDeadline is the context in which a bundle is prepared: that evaluates
// nothing and touches nothing outside the process.
func noDeadline() context.Context { return context.Background() }

// Evaluate asks the policy at this time and returns the sorted reasons
// against; none means allowed. An error means that there is no verdict, and
// the caller must refuse. The time must be the question's own Now: the default
// policy compares the two.
func (b *Bundle) Evaluate(ctx context.Context, q runner.Question, now time.Time) ([]string, error) {
	input, err := json.Marshal(q)
	if err != nil {
		return nil, fmt.Errorf("encode question: %w", err)
	}
	return b.evaluate(ctx, input, now)
}

// Replay asks a recorded question again, under the bundle in fsys and at the
// recorded time. The result equals the recorded decision when the bundle, the
// input and the time are those of the record; anything else in the record was
// changed or was never what the policy said.
func Replay(ctx context.Context, fsys fs.FS, input []byte, at time.Time) (runner.Decision, error) {
	b, err := Load(fsys)
	if err != nil {
		return runner.Decision{}, err
	}
	reasons, err := b.evaluate(ctx, input, at)
	if err != nil {
		return runner.Decision{}, err
	}
	return runner.Decision{
		Policy: b.Digest(), Input: runner.DigestOf(input), EvaluatedAt: at, Reasons: reasons,
	}, nil
}

// evaluate asks about any JSON, so that hostile input can be tried as it is.
func (b *Bundle) evaluate(ctx context.Context, input []byte, now time.Time) ([]string, error) {
	doc, err := decode(input)
	if err != nil {
		return nil, fmt.Errorf("read policy input: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, evaluateBy)
	defer cancel()
	results, err := b.query.Eval(ctx, rego.EvalInput(doc), rego.EvalTime(now))
	if err != nil {
		return nil, fmt.Errorf("evaluate policy: %w", err)
	}
	reasons, err := verdict(results)
	if err != nil {
		return nil, fmt.Errorf("policy verdict: %w", err)
	}
	return reasons, nil
}

// verdict accepts one well-formed answer whose two parts agree.
func verdict(results rego.ResultSet) ([]string, error) {
	if len(results) != 1 || len(results[0].Expressions) != 1 {
		return nil, fmt.Errorf("%d results, want exactly one: decision or violations of package runnerward.admission is undefined", len(results))
	}
	answer, ok := results[0].Expressions[0].Value.(map[string]any)
	if !ok {
		return nil, errors.New("not an object")
	}
	reasons, err := codes(answer["violations"])
	if err != nil {
		return nil, err
	}
	want := "allow"
	if len(reasons) > 0 {
		want = "deny"
	}
	if got := answer["decision"]; got != want {
		return nil, fmt.Errorf("decision is %v with %d violations, want %s", got, len(reasons), want)
	}
	return reasons, nil
}

// codes refuses an object too: in Rego `deny[msg] if ...` without "contains"
// defines one, and code that expects a list would see nothing in it.
func codes(v any) ([]string, error) {
	list, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("violations is a %T, want a set of strings", v)
	}
	out := make([]string, 0, len(list))
	for _, item := range list {
		s, ok := item.(string)
		if !ok || !codeShape.MatchString(s) {
			return nil, fmt.Errorf("violation %.80q does not have the shape %s", fmt.Sprint(item), codeShape)
		}
		out = append(out, s)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}
