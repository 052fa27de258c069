package github

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

type example struct {
	Name     string            `json:"name"`
	Examples []json.RawMessage `json:"examples"`
}

// examples are GitHub's published webhook payloads.
func examples(tb testing.TB) []example {
	tb.Helper()
	f, err := os.Open("testdata/webhooks-examples.json.gz")
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		tb.Fatal(err)
	}
	var list []example
	if err := json.NewDecoder(z).Decode(&list); err != nil {
		tb.Fatal(err)
	}
	return list
}

// approved is the published request for a review as it looks once it was given:
// GitHub publishes no example of that.
func approved(tb testing.TB, payload []byte) []byte {
	tb.Helper()
	var doc map[string]any
	if err := json.Unmarshal(payload, &doc); err != nil {
		tb.Fatal(err)
	}
	doc["action"], doc["approver"], doc["comment"] = "approved", doc["requestor"], "looks good"
	out, err := json.Marshal(doc)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// Every payload that GitHub publishes goes through: those that are not ours are
// passed over, and the review of a deployment is read to the end.
func TestPublishedWebhooksDecode(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	kinds, passed, ours := 0, 0, 0
	for _, e := range examples(t) {
		kinds++
		for i, payload := range e.Examples {
			var about struct {
				Organization struct{ Login string }
				Repository   struct {
					Owner struct{ Login string }
				}
				Jobs []reviewed `json:"workflow_job_runs"`
				Job  reviewed   `json:"workflow_job_run"`
			}
			environment := "production"
			if e.Name == eventReview || e.Name == eventProtection {
				payload = approved(t, payload)
				if err := json.Unmarshal(payload, &about); err != nil {
					t.Fatal(err)
				}
				for _, j := range append(about.Jobs, about.Job) {
					if j.Environment != "" {
						environment = j.Environment
					}
				}
			}
			events, err := decodePayload(payload, e.Name, "guid", at, about.Repository.Owner.Login, environment)
			switch {
			case err != nil:
				t.Errorf("%s #%d: %v", e.Name, i, err)
			case len(events) == 0:
				passed++
			default:
				ours++
			}
			for _, event := range events {
				if err := runner.Validate(event); err != nil {
					t.Errorf("%s #%d: %+v: %v", e.Name, i, event, err)
				}
			}
		}
	}
	t.Logf("%d kinds of webhook: %d payloads passed over, %d read", kinds, passed, ours)
	if kinds < 50 || passed < 300 || ours == 0 {
		t.Error("the examples are not what they were")
	}
}

// decoders are all that read what GitHub sends, under names for the fuzzer.
func decoders() map[string]func([]byte) (any, error) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return map[string]func([]byte) (any, error){
		"repository":  func(b []byte) (any, error) { return decodeRepository(b) },
		"run":         func(b []byte) (any, error) { return decodeRun(b) },
		"environment": func(b []byte) (any, error) { return decodeEnvironment(b) },
		"reviews":     func(b []byte) (any, error) { return decodeApprovals(b, 7) },
		"groups":      func(b []byte) (any, error) { return decodeGroups(b) },
		"group repos": func(b []byte) (any, error) { return decodeRepositoryIDs(b) },
		"jobs":        func(b []byte) (any, error) { return decodeJobs(b) },
		"commit":      func(b []byte) (any, error) { return decodeAuthor(b, strings.Repeat("a", 40)) },
		"object":      func(b []byte) (any, error) { return decodeObject(b) },
		"activity":    func(b []byte) (any, error) { return decodePusher(b, "refs/tags/v1", strings.Repeat("a", 40)) },
		"pulls":       func(b []byte) (any, error) { return decodePulls(b) },
		"audit log":   func(b []byte) (any, error) { return decodeNameID(b, 1) },
		"runners":     func(b []byte) (any, error) { return decodeRunners(b) },
		"pending":     func(b []byte) (any, error) { return decodeWaits(b, "production") },
		"deliveries":  func(b []byte) (any, error) { return decodeDeliveries(b) },
		"delivery": func(b []byte) (any, error) {
			return decodeDelivery(b, delivery{GUID: "g", Event: eventReview}, "acme", "production")
		},
		"review":     func(b []byte) (any, error) { return decodePayload(b, eventReview, "g", at, "acme", "production") },
		"protection": func(b []byte) (any, error) { return decodePayload(b, eventProtection, "g", at, "acme", "production") },
		"claims":     func(b []byte) (any, error) { return decodeClaims(b, at) },
	}
}

// FuzzDecode: no decoder panics over anything, and what it lets through has the
// shape that the log wants.
func FuzzDecode(f *testing.F) {
	all := decoders()
	for name := range all {
		for _, seed := range []string{
			`{}`, `[]`, `null`, `[{"id":1}]`, `{"id":1,"guid":"g","event":"deployment_review","delivered_at":"2026-01-02T03:04:05Z","request":{"payload":{}}}`,
			`{"action":"approved","repository":{"id":1,"full_name":"acme/app","owner":{"id":2,"login":"acme"}},"approver":{"id":3,"login":"a"},` +
				`"workflow_run":{"id":4,"run_attempt":1},"workflow_job_runs":[{"id":5,"environment":"production"}]}`,
			`{"action":"requested","environment":"production","deployment_callback_url":"https://h/repos/acme/app/actions/runs/4/deployment_protection_rule",` +
				`"repository":{"id":1,"full_name":"acme/app","owner":{"id":2,"login":"acme"}},"deployment":{"sha":"` + strings.Repeat("a", 40) + `","ref":"refs/tags/v1"}}`,
		} {
			f.Add(name, []byte(seed))
		}
	}
	for _, e := range examples(f) {
		if strings.HasPrefix(e.Name, "deployment") {
			for _, payload := range e.Examples {
				f.Add("review", []byte(payload))
				f.Add("review", approved(f, payload))
			}
		}
	}
	f.Fuzz(func(t *testing.T, name string, body []byte) {
		decode := all[name]
		if decode == nil {
			return
		}
		got, err := decode(body)
		if err != nil {
			if len(body) > 32 && bytes.Contains([]byte(err.Error()), body) {
				t.Errorf("%s: the error repeats the answer: %v", name, err)
			}
			return
		}
		if events, ok := got.([]runner.Event); ok {
			for _, e := range events {
				if err := runner.Validate(e); err != nil {
					t.Errorf("%s: %+v: %v", name, e, err)
				}
			}
		}
	})
}
