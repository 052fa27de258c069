package simgithub_test

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
)

// undocumented routes are not in GitHub's description.
var undocumented = []string{
	"POST /api/v3/actions/runner-registration", // the runner's own bootstrap: actions/runner CredentialManager.cs
}

// description is GitHub's own of the operations that the simulator serves.
type description struct {
	doc        *openapi3.T
	operations []operation // those with more fixed segments first
}

type operation struct {
	method, path string
	matches      *regexp.Regexp
	route        *routers.Route
}

// readDescription reads it once for all tests: nothing changes it.
var readDescription = sync.OnceValues(func() (*description, error) {
	f, err := os.Open("testdata/openapi.json.gz")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(z)
	if err != nil {
		return nil, err
	}
	doc, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		return nil, err
	}
	return &description{doc, operationsOf(doc)}, nil
})

func operationsOf(doc *openapi3.T) []operation {
	var out []operation
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			out = append(out, operation{method, path, matcher(path), &routers.Route{
				Spec: doc, Path: path, PathItem: item, Method: method, Operation: op,
			}})
		}
	}
	slices.SortFunc(out, func(a, b operation) int {
		return cmp.Or(strings.Count(a.path, "{")-strings.Count(b.path, "{"), strings.Count(b.path, "/")-strings.Count(a.path, "/"),
			strings.Compare(a.path, b.path))
	})
	return out
}

// matcher admits slashes in a ref and in a file's path, as GitHub does: OpenAPI
// has no way to say so.
func matcher(path string) *regexp.Regexp {
	pattern := regexp.QuoteMeta(path)
	pattern = strings.NewReplacer(`\{ref\}`, `.+`, `\{path\}`, `.+`).Replace(pattern)
	return regexp.MustCompile("^" + regexp.MustCompile(`\\\{[a-z_]+\\\}`).ReplaceAllString(pattern, "[^/]+") + "$")
}

func (d *description) find(method, path string) *routers.Route {
	for _, o := range d.operations {
		if o.method == method && o.matches.MatchString(path) {
			return o.route
		}
	}
	return nil
}

// check returns what is wrong with an answer. A refusal that the operation does
// not describe, as 401 hardly ever is, must have the shape of GitHub's errors.
func (d *description) check(a simgithub.Answered) error {
	if slices.Contains(undocumented, a.Request.Pattern) || a.Request.Pattern == "/" {
		return nil
	}
	path := strings.TrimPrefix(a.Request.URL.Path, "/api/v3")
	route := d.find(a.Request.Method, path)
	if route == nil {
		return fmt.Errorf("GitHub describes no %s %s", a.Request.Method, path)
	}
	if a.Status == http.StatusNotModified {
		return emptyBody(a)
	}
	documented := route.Operation.Responses.Status(a.Status)
	switch {
	case documented == nil && a.Status < http.StatusBadRequest:
		return fmt.Errorf("%s %s: status %d is not documented", a.Request.Method, route.Path, a.Status)
	case a.Status >= http.StatusBadRequest && (documented == nil || len(documented.Value.Content) == 0):
		return d.checkSchema("basic-error", a.Body)
	case len(documented.Value.Content) == 0:
		return emptyBody(a)
	}
	if err := openapi3filter.ValidateResponse(a.Request.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: a.Request, Route: route},
		Status:                 a.Status, Header: a.Header, Body: io.NopCloser(bytes.NewReader(a.Body)),
		Options: &openapi3filter.Options{
			MultiError:              true,
			SchemaValidationOptions: []openapi3.SchemaValidationOption{openapi3.EnableFormatValidation()},
		},
	}); err != nil {
		return err
	}
	return d.checkNames(documented.Value.Content.Get("application/json").Schema, a.Body)
}

func emptyBody(a simgithub.Answered) error {
	if len(a.Body) > 0 {
		return fmt.Errorf("%s %s: a body with status %d, which has none: %s", a.Request.Method, a.Request.Pattern, a.Status, a.Body)
	}
	return nil
}

// checkSchema holds a JSON text against a schema of the description.
func (d *description) checkSchema(name string, text []byte) error {
	schema := d.doc.Components.Schemas[name]
	if schema == nil {
		return fmt.Errorf("the description has no schema %s", name)
	}
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		return fmt.Errorf("reading what should be a %s: %w", name, err)
	}
	if err := schema.Value.VisitJSON(v, openapi3.MultiErrors(), openapi3.EnableFormatValidation()); err != nil {
		return err
	}
	return d.checkNames(schema, text)
}

// reasons lists what is wrong, one a line, each with its place in the answer.
func reasons(err error) string {
	if many, isMany := errors.AsType[openapi3.MultiError](err); isMany {
		var out []string
		for _, e := range many {
			out = append(out, reasons(e))
		}
		return strings.Join(out, "\n")
	}
	if one, isOne := errors.AsType[*openapi3.SchemaError](err); isOne {
		return "/" + strings.Join(one.JSONPointer(), "/") + ": " + one.Reason
	}
	return err.Error()
}

// conform holds every REST answer and every webhook of the simulator against
// GitHub's description until the test ends.
func conform(t *testing.T, sim *simgithub.Server) {
	t.Helper()
	d, err := readDescription()
	if err != nil {
		t.Fatalf("reading GitHub's description: %v", err)
	}
	sim.Observe(func(a simgithub.Answered) {
		if err := d.check(a); err != nil {
			t.Errorf("%s %s: status %d:\n%s", a.Request.Method, a.Request.URL.Path, a.Status, reasons(err))
		}
	})
}

// conformWebhooks holds what was sent against GitHub's description.
func conformWebhooks(t *testing.T, sim *simgithub.Server) {
	t.Helper()
	d, err := readDescription()
	if err != nil {
		t.Fatalf("reading GitHub's description: %v", err)
	}
	for _, x := range sim.Deliveries() {
		name := "webhook-" + strings.ReplaceAll(x.Event, "_", "-") + "-" + x.Action
		if err := d.checkSchema(name, withoutTeams(t, x)); err != nil {
			t.Errorf("webhook %s %s:\n%s", x.Event, x.Action, reasons(err))
		}
	}
}

// withoutTeams leaves out teams among the reviewers of a review that was made:
// the description knows users there only. octokit/webhooks has both in all
// three (schema deployment_review$approved), and teams in the delivery that it
// recorded of requested.
func withoutTeams(t *testing.T, x simgithub.Delivery) []byte {
	t.Helper()
	if x.Event != "deployment_review" || x.Action == "requested" {
		return x.Payload
	}
	var doc map[string]any
	if err := json.Unmarshal(x.Payload, &doc); err != nil {
		t.Fatalf("reading the webhook %s %s: %v", x.Event, x.Action, err)
	}
	reviewers, _ := doc["reviewers"].([]any)
	doc["reviewers"] = slices.DeleteFunc(reviewers, func(r any) bool { return r.(map[string]any)["type"] == "Team" })
	text, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestTheStepsOfAJobAreThoseOfTheDescription looks at a job with a step in
// progress and with one that was skipped: conform holds both answers against
// GitHub's description.
func TestTheStepsOfAJobAreThoseOfTheDescription(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		c := w.session()
		run := w.dispatch(nil)
		w.take(c, 1)
		_, jit := w.jit("r1")
		steps := func() []any {
			_, _, job := w.raw("GET", fmt.Sprintf("/api/v3/repos/acme/shop/actions/jobs/%d", run.CheckRunID), "Bearer "+pat, nil)
			out, _ := job["steps"].([]any)
			return out
		}
		want := func(got []any, number int, status string, conclusion any) {
			t.Helper()
			if len(got) < number {
				t.Fatalf("steps = %v, want %d", got, number)
			}
			st := got[number-1].(map[string]any)
			if said, has := st["conclusion"]; st["status"] != status || !has || said != conclusion {
				t.Errorf("step %d = %v, want %s, %v", number, st, status, conclusion)
			}
		}
		w.start(t.Context(), jit, func(context.Context, map[string]string) error {
			want(steps(), 2, "in_progress", nil)
			return errors.New("refused")
		})()
		got := steps()
		want(got, 2, "completed", "failure")
		want(got, 3, "completed", "skipped")
		want(got, 4, "completed", "success")
	})
}
