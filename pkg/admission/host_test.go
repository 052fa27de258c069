package admission_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/runnerward/runnerward/pkg/admission"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// Host accepts one document.
func (g *gate) Host(ctx context.Context, token string, claim supervisor.HostClaim) (runner.HostIdentity, error) {
	if err := g.ask(ctx, name, token); err != nil {
		return runner.HostIdentity{}, err
	}
	if string(claim.Document) != "document" || string(claim.Signature) != "signature" || claim.BootID != "boot" {
		return runner.HostIdentity{}, fmt.Errorf("of another instance, says %s: %w", token, supervisor.ErrConflict)
	}
	return runner.HostIdentity{InstanceID: "i-0123456789abcdef0", Document: runner.DigestOf(claim.Document)}, nil
}

func host(document, signature, boot string) request {
	r := claim()
	b64 := base64.StdEncoding.EncodeToString
	r.path = "/v1/host"
	r.body = fmt.Sprintf(`{"document":%q,"signature":%q,"bootId":%q}`, b64([]byte(document)), b64([]byte(signature)), boot)
	return r
}

// as changes who asks.
func as(authorization string) func(*request) {
	return func(r *request) {
		r.header = r.header.Clone()
		r.header.Set("Authorization", authorization)
	}
}

func TestHostAnswers(t *testing.T) {
	good := host("document", "signature", "boot")
	long := strings.Repeat("x", 16<<10+1)
	for what, tc := range map[string]struct {
		r      request
		err    error
		status int
		says   string
	}{
		"accepted":                {good, nil, 200, `{"document":"` + string(runner.DigestOf([]byte("document"))) + `"}`},
		"refused for good":        {host("other", "signature", "boot"), nil, 409, `"final":true`},
		"a token of somebody":     {good.with(as("Bearer x.y.z")), nil, 401, `"final":false`},
		"no token":                {good.with(as("")), nil, 401, `"final":false`},
		"nobody knows":            {good, errors.New("the API server is away"), 503, `"final":false`},
		"a panic":                 {good, errPanic, 503, `"final":false`},
		"no document":             {host("", "signature", "boot"), nil, 400, `"final":true`},
		"no signature":            {host("document", "", "boot"), nil, 400, `"final":true`},
		"no boot id":              {host("document", "signature", ""), nil, 400, `"final":true`},
		"a boot id with a space":  {host("document", "signature", "a b"), nil, 400, `"final":true`},
		"a document that is long": {host(long, "signature", "boot"), nil, 400, `"final":true`},
		"a body that is long":     {host(strings.Repeat("x", 64<<10), "signature", "boot"), nil, 413, `"final":true`},
		"a node in the request":   {good.with(func(r *request) { r.body = strings.Replace(r.body, "{", `{"node":"n",`, 1) }), nil, 400, `"final":true`},
		"another method":          {good.with(func(r *request) { r.method = "PUT" }), nil, 405, `"final":true`},
		"a name in the path":      {good.with(func(r *request) { r.path = "/v1/host/node-1" }), nil, 404, `"final":true`},
	} {
		t.Run(what, func(t *testing.T) {
			s := serve(t, &gate{err: tc.err}, admission.Limits{})
			status, body, _ := s.do(t, tc.r)
			if status != tc.status || !strings.Contains(body, tc.says) {
				t.Errorf("answer = %d %s, want %d and %s", status, body, tc.status, tc.says)
			}
			s.wantNoCanary(t, body)
		})
	}
}

func TestWitnessesHaveBudgetsOfTheirOwn(t *testing.T) {
	s := serve(t, &gate{}, admission.Limits{Burst: 1})
	good := host("document", "signature", "boot")
	if status, body, _ := s.do(t, good); status != http.StatusOK {
		t.Fatalf("first answer = %d %s", status, body)
	}
	if status, body, _ := s.do(t, good); status != http.StatusTooManyRequests {
		t.Errorf("second answer = %d %s, want 429", status, body)
	}
	other := good.with(as("Bearer x.y.z"))
	if status, body, _ := s.do(t, other); status != http.StatusUnauthorized {
		t.Errorf("another witness's answer = %d %s, want its token to be looked at", status, body)
	}
}
