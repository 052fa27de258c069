package github

import (
	"compress/gzip"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

type example struct {
	Name     string            `json:"name"`
	Examples []json.RawMessage `json:"examples"`
}

// examples are GitHub's published webhook payloads.
func examples(tb testing.TB) (list []example) {
	tb.Helper()
	unpack(tb, "testdata/webhooks-examples.json.gz", &list)
	return list
}

// answers are GitHub's published answers, by the names of readers.
func answers(tb testing.TB) (by map[string][]json.RawMessage) {
	tb.Helper()
	unpack(tb, "testdata/openapi-examples.json.gz", &by)
	return by
}

func unpack(tb testing.TB, name string, v any) {
	tb.Helper()
	f, err := os.Open(name)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		tb.Fatal(err)
	}
	if err := json.NewDecoder(z).Decode(v); err != nil {
		tb.Fatal(err)
	}
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
	doc["installation"] = map[string]any{"id": 99} // as an App gets it
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
		for i, body := range e.Examples {
			var about struct {
				Organization struct{ Login string }
				Repository   struct {
					Owner struct{ Login string }
				}
				Jobs []reviewed `json:"workflow_job_runs"`
				Job  reviewed   `json:"workflow_job_run"`
			}
			// Of every kind, what we would read of it has the type that we expect.
			var p payload
			if err := decode(body, &p); err != nil {
				t.Errorf("%s #%d: %v", e.Name, i, err)
			}
			environment := "production"
			if e.Name == eventReview || e.Name == eventProtection {
				body = approved(t, body)
				if err := json.Unmarshal(body, &about); err != nil {
					t.Fatal(err)
				}
				for _, j := range append(about.Jobs, about.Job) {
					if j.Environment != "" {
						environment = j.Environment
					}
				}
			}
			events, err := scope{org: about.Repository.Owner.Login, environment: environment}.decodePayload(e.Name, body, "guid", at)
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
