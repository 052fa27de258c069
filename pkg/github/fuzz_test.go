package github

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

const sha1 = "0123456789012345678901234567890123456789"

// Of the two events GitHub publishes one example, of a review that was asked for.
// These follow its schemas, deployment_review$approved and
// deployment_protection_rule$requested of @octokit/webhooks-schemas.
const (
	reviewPayload = `{"action":"approved","repository":{"id":1,"full_name":"acme/app","owner":{"id":2,"login":"acme"}},` +
		`"organization":{"id":2,"login":"acme"},"installation":{"id":99},"approver":{"id":3,"login":"a","type":"User"},"comment":"free text",` +
		`"workflow_run":{"id":4,"run_attempt":1},"workflow_job_runs":[{"id":5,"environment":"Production","name":null,"conclusion":null}]}`
	protectionPayload = `{"action":"requested","environment":"production","event":"push",` +
		`"deployment_callback_url":"https://api.github.com/repos/acme/app/actions/runs/4/deployment_protection_rule",` +
		`"repository":{"id":1,"full_name":"acme/app","owner":{"id":2,"login":"acme"}},"organization":{"id":2,"login":"acme"},` +
		`"installation":{"id":99},"deployment":{"sha":"` + sha1 + `","ref":"refs/tags/v1"},"pull_requests":[]}`
	reviewDelivery = `{"id":1,"guid":"g","event":"deployment_review","action":"approved","delivered_at":"2026-01-02T03:04:05Z",` +
		`"installation_id":99,"request":{"headers":{},"payload":` + reviewPayload + `}}`
)

// reader is a decoder of what GitHub sends.
type reader struct {
	read func([]byte) (any, error)
	// fit says that what was read is what the callers rely on.
	fit  func(any) bool
	seed string
}

func reads[T any](decode func([]byte) (T, error), fit func(T) bool, seed string) reader {
	return reader{func(b []byte) (any, error) { return decode(b) }, func(v any) bool { return fit(v.(T)) }, seed}
}

func valid[T any](events []T) bool {
	return !slices.ContainsFunc(events, func(e T) bool { return runner.Validate(e) != nil })
}

func ids[T any](id func(T) int64) func([]T) bool {
	return func(list []T) bool { return !slices.ContainsFunc(list, func(v T) bool { return id(v) <= 0 }) }
}

// readers are all of them, under names for the fuzzer and for the examples.
func readers() map[string]reader {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	us := scope{org: "acme", environment: "production"}
	known := func(p *runner.Person) bool { return p == nil || p.ID > 0 && p.Login != "" }
	return map[string]reader{
		"repository": reads(decodeRepository, func(r repository) bool { return r.ID > 0 && r.FullName != "" && r.Owner.ID > 0 }, `{"id":1}`),
		"run": reads(decodeRun, func(r run) bool {
			return r.ID > 0 && r.Attempt > 0 && r.Repository.ID > 0 && r.Actor.person() != nil && r.TriggeringActor.person() != nil
		}, goodRun),
		"environment": reads(decodeEnvironment, func(e *runner.Environment) bool {
			return e.ID > 0 && (e.ReviewersAllTeams == nil || e.HasReviewers != nil)
		}, `{"id":1,"name":"p","protection_rules":[{"type":"required_reviewers","reviewers":[{"reviewer":null}]}]}`),
		"reviews": reads(func(b []byte) ([]verdict, error) { return decodeApprovals(b, 161088068) }, func(list []verdict) bool {
			return !slices.ContainsFunc(list, func(v verdict) bool {
				return !known(&v.by) || v.state != runner.StateApproved && v.state != runner.StateRejected
			})
		}, `[{"state":"approved","user":{"id":1,"login":"a"},"environments":[{"id":161088068}]}]`),
		"groups":      reads(decodeGroups, ids(func(g group) int64 { return g.ID }), `{"runner_groups":[{"id":3,"name":"g"}]}`),
		"group repos": reads(decodeRepositoryIDs, ids(func(id int64) int64 { return id }), `{"repositories":[{"id":1}]}`),
		"jobs":        reads(decodeJobs, ids(func(j job) int64 { return j.checkRun() + 1 }), `{"jobs":[{"check_run_url":"https://x/check-runs/5"}]}`),
		"commit": reads(func(b []byte) (*runner.Person, error) {
			return decodeAuthor(b, "6dcb09b5b57875f334f61aebed695e2e4193db5e")
		}, known, `{"sha":"x"}`),
		"object":        reads(decodeObject, func(o object) bool { return o.SHA != "" }, `{"object":{"type":"commit","sha":"a"}}`),
		"annotated tag": reads(decodeObject, func(o object) bool { return o.SHA != "" }, `{"object":{"type":"tag","sha":"a"}}`),
		"activity": reads(func(b []byte) (*runner.Person, error) { return decodePusher(b, "refs/tags/v1", sha1) }, known,
			`[{"ref":"refs/tags/v1","after":"`+sha1+`","actor":{"id":1,"login":"a"}}]`),
		"pulls": reads(decodePulls, ids(func(p runner.Person) int64 { return p.ID }), `[{"number":1,"merged_at":"2026-01-02T03:04:05Z","user":{"id":1,"login":"a"}}]`),
		"audit log": reads(func(b []byte) (string, error) { return decodeNameID(b, 1) }, func(name string) bool {
			return name == "" || !strings.ContainsAny(name, " \n<>\"")
		}, `[{"actor_id":1,"external_identity_nameid":"a@example.com"}]`),
		"runners": reads(decodeRunners, ids(func(r supervisor.RegisteredRunner) int64 { return r.ID }), `{"runners":[{"id":1,"name":"r","busy":false}]}`),
		"pending": reads(func(b []byte) (bool, error) { return decodeWaits(b, "staging") }, func(bool) bool { return true }, `[{"environment":{"name":"p"}}]`),
		// Entries are checked one by one, so that a bad one does not hide the others.
		"deliveries": reads(decodeDeliveries, func(list []delivery) bool {
			return !slices.ContainsFunc(list, func(d delivery) bool {
				return d.check() == nil && (d.ID <= 0 || d.GUID == "" || d.DeliveredAt.IsZero() || d.Installation == nil)
			})
		}, `[{"id":"x"},{"id":1,"guid":"g","delivered_at":"2026-01-02T03:04:05Z","event":"push","installation_id":9}]`),
		"delivery": reads(func(b []byte) ([]runner.Event, error) {
			return us.decodeDelivery(b, delivery{ID: 1, GUID: "g", Event: eventReview})
		}, valid[runner.Event], reviewDelivery),
		"review":     reads(func(b []byte) ([]runner.Event, error) { return us.decodePayload(eventReview, b, "g", at) }, valid[runner.Event], reviewPayload),
		"protection": reads(func(b []byte) ([]runner.Event, error) { return us.decodePayload(eventProtection, b, "g", at) }, valid[runner.Event], protectionPayload),
		"claims": reads(func(b []byte) (runner.Claims, error) { return decodeClaims(b, tokenTime) }, func(c runner.Claims) bool {
			c.Token = c.TokenID
			return runner.Validate(c) == nil && c.RunID > 0 && c.RunAttempt > 0 && c.ExpiresAt.After(tokenTime)
		}, goodClaims),
	}
}

// Every answer that GitHub publishes as an example of what we read is read.
func TestPublishedAnswersDecode(t *testing.T) {
	all := readers()
	read := 0
	for name, examples := range answers(t) {
		if name == "membership" || name == "delivery" {
			continue // go-github's own, and of an event that is not ours
		}
		for _, body := range examples {
			v, err := all[name].read(body)
			if err != nil || !all[name].fit(v) {
				t.Errorf("%s: %+v, %v\n%s", name, v, err, body)
			}
			read++
		}
	}
	t.Logf("%d published answers read", read)
	if read < 16 {
		t.Error("the examples are not what they were")
	}
}

// FuzzDecode: no decoder panics over anything, what it lets through is what its
// callers rely on, and no error repeats what was sent.
func FuzzDecode(f *testing.F) {
	all := readers()
	published := answers(f)
	for name, r := range all {
		for _, seed := range []string{``, `null`, `{}`, `[]`, `[null]`, `{"id":1e99}`, r.seed} {
			f.Add(name, []byte(seed))
		}
		for _, body := range published[name] {
			f.Add(name, []byte(body))
		}
	}
	for _, e := range examples(f) {
		if e.Name == eventReview || e.Name == eventProtection {
			for _, payload := range e.Examples {
				f.Add("review", []byte(payload))
				f.Add("review", approved(f, payload))
			}
		}
	}
	f.Fuzz(func(t *testing.T, name string, body []byte) {
		r, known := all[name]
		if !known {
			return
		}
		v, err := r.read(body)
		switch {
		case err == nil && !r.fit(v):
			t.Errorf("%s: %q was read as %+v", name, body, v)
		case err != nil && len(body) > 32 && bytes.Contains([]byte(err.Error()), body):
			t.Errorf("%s: the error repeats the answer: %v", name, err)
		}
	})
}

// A fuzzer whose seeds are all refused finds little.
func TestTheSeedsOfTheEventsAreEvents(t *testing.T) {
	for _, name := range []string{"delivery", "review", "protection"} {
		r := readers()[name]
		v, err := r.read([]byte(r.seed))
		if events, _ := v.([]runner.Event); err != nil || len(events) != 1 {
			t.Errorf("%s: %+v, %v, want one event", name, v, err)
		}
	}
}
