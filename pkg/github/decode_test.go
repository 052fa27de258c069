package github

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

func TestDecodeEnvironment(t *testing.T) {
	const head = `{"id":1,"name":"production"`
	rules := func(s string) string { return head + `,"protection_rules":[` + s + `]}` }
	yes, no := new(true), new(false)
	tests := []struct {
		name, body string
		want       *runner.Environment // nil: an error
	}{
		{"absent rules say nothing", head + `}`, &runner.Environment{}},
		{"no rules are a no", rules(``), &runner.Environment{HasReviewers: no, PreventSelfReview: no}},
		{"a team that reviews, without self-review", rules(`{"type":"wait_timer"},{"type":"required_reviewers","prevent_self_review":true,"reviewers":[{"type":"Team","reviewer":{"slug":"a"}}]}`),
			&runner.Environment{HasReviewers: yes, ReviewerTeams: []string{"a"}, ReviewersAllTeams: yes, PreventSelfReview: yes}},
		{"a user among the reviewers", rules(`{"type":"required_reviewers","prevent_self_review":false,"reviewers":[{"type":"Team","reviewer":{"slug":"a"}},{"type":"User","reviewer":{"login":"x"}}]}`),
			&runner.Environment{HasReviewers: yes, ReviewerTeams: []string{"a"}, ReviewersAllTeams: no, PreventSelfReview: no}},
		{"a reviewer without a type leaves it unknown whether all are teams", rules(`{"type":"required_reviewers","reviewers":[{"reviewer":{"slug":"a"}}]}`),
			&runner.Environment{HasReviewers: yes}},
		{"a reviewer of a new type leaves it unknown too", rules(`{"type":"required_reviewers","reviewers":[{"type":"Robot","reviewer":null}]}`),
			&runner.Environment{HasReviewers: yes}},
		{"a rule without its list says nothing", rules(`{"type":"required_reviewers"}`), &runner.Environment{}},
		{"no id", `{"name":"production"}`, nil},
		{"null", `null`, nil},
		{"nothing", ``, nil},
		{"HTML", `<html>`, nil},
		{"a list", `[]`, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := decodeEnvironment([]byte(test.body))
			if test.want == nil {
				if err == nil {
					t.Errorf("decodeEnvironment(%s) = %+v, want an error", test.body, got)
				}
				return
			}
			test.want.ID, test.want.Name = 1, "production"
			if err != nil || !reflect.DeepEqual(got, test.want) {
				t.Errorf("decodeEnvironment(%s) = %s, %v, want %s", test.body, show(got), err, show(test.want))
			}
		})
	}
}

func show(v any) string { b, _ := json.Marshal(v); return string(b) }

const goodRun = `{"id":9,"run_attempt":2,"event":"push","head_branch":"v1.2.3","head_sha":"0123456789012345678901234567890123456789",` +
	`"path":".github/workflows/release.yml@main","repository":{"id":5,"full_name":"acme/app","owner":{"id":65,"login":"acme"}},` +
	`"actor":{"id":1,"login":"dev","type":"User"},"triggering_actor":{"id":2,"login":"ops","type":"User"},` +
	`"referenced_workflows":[{"path":"acme/w/.github/workflows/d.yml@v1","sha":"aa","ref":"refs/tags/v1"},{"path":"acme/w/.github/workflows/d.yml@cc","sha":"cc"}]}`

func TestDecodeRun(t *testing.T) {
	r, err := decodeRun([]byte(goodRun))
	if err != nil || r.Path != ".github/workflows/release.yml" || r.Attempt != 2 || r.TriggeringActor.Login != "ops" {
		t.Fatalf("decodeRun() = %+v, %v", r, err)
	}
	for _, field := range []string{"id", "run_attempt", "event", "head_sha", "path", "repository", "actor", "triggering_actor"} {
		var doc map[string]any
		if err := json.Unmarshal([]byte(goodRun), &doc); err != nil {
			t.Fatal(err)
		}
		delete(doc, field)
		if _, err := decodeRun([]byte(show(doc))); err == nil {
			t.Errorf("decodeRun() without %s = nil, want an error", field)
		}
	}
	for jobRef, want := range map[string]string{
		"acme/w/.github/workflows/d.yml@refs/tags/v1":           "aa",
		"acme/w/.github/workflows/d.yml@cc":                     "cc",
		"acme/app/.github/workflows/release.yml@refs/tags/v1.2": r.HeadSHA,
		"acme/w/.github/workflows/d.yml@refs/heads/v1":          "", // the branch is not the tag
		"acme/w/.github/workflows/d.yml@v1":                     "", // nor is the short ref
		"acme/w/.github/workflows/e.yml@refs/tags/v1":           "",
		"evil/w/.github/workflows/d.yml@refs/tags/v1":           "",
		"": "",
	} {
		if got := r.workflow("acme/app", "refs/tags/v1.2", jobRef); got.SHA != want || jobRef != "" && got.Ref != jobRef {
			t.Errorf("workflow(%q) = %+v, want sha %q", jobRef, got, want)
		}
	}
}

func TestDecodeApprovals(t *testing.T) {
	const body = `[{"state":"approved","user":{"id":1,"login":"a","type":"User"},"environments":[{"id":7,"name":"p"},{"id":8,"name":"q"}],"comment":"free text"},
		{"state":"pending","user":{"id":2,"login":"b"},"environments":[{"id":7}]},
		{"state":"rejected","user":{"id":3,"login":"c"},"environments":[{"id":7}]},
		{"state":"approved","user":null,"environments":[{"id":9}]}]`
	got, err := decodeApprovals([]byte(body), 7)
	want := []verdict{{runner.Person{ID: 1, Login: "a", Type: "User"}, "approved"}, {runner.Person{ID: 3, Login: "c"}, "rejected"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("decodeApprovals() = %+v, %v, want %+v", got, err, want)
	}
	if got, err := decodeApprovals([]byte(body), 9); err == nil {
		t.Errorf("decodeApprovals() of a review without an account = %+v, want an error", got)
	}
	if got, err := decodeApprovals([]byte(`[]`), 7); err != nil || len(got) != 0 {
		t.Errorf("decodeApprovals([]) = %+v, %v, want none", got, err)
	}
	for _, bad := range []string{``, `null`, `{}`, `{"message":"x"}`, `[1]`} {
		if _, err := decodeApprovals([]byte(bad), 7); err == nil {
			t.Errorf("decodeApprovals(%s) = nil, want an error", bad)
		}
	}
}

var tokenTime = time.Unix(1_800_000_000, 0).UTC()

const goodClaims = `{"jti":"example-id","sub":"repo:acme/app:environment:production","exp":1800000300,"iat":1800000000,"nbf":1799999700,` +
	`"repository":"acme/app","repository_id":"5","repository_owner_id":"65","run_id":"9","run_attempt":"1","check_run_id":"26",` +
	`"environment":"production","event_name":"push","ref":"refs/tags/v1","sha":"0123456789012345678901234567890123456789",` +
	`"job_workflow_ref":"acme/w/.github/workflows/d.yml@refs/tags/v1","job_workflow_sha":"0123456789012345678901234567890123456789",` +
	`"workflow_ref":"acme/app/.github/workflows/r.yml@refs/tags/v1","actor_id":"3","runner_environment":"self-hosted"}`

func TestDecodeClaims(t *testing.T) {
	c, err := decodeClaims([]byte(goodClaims), tokenTime)
	if err != nil || c.RunID != 9 || c.CheckRunID != 26 || c.OwnerID != 65 || c.ActorID != 3 || c.TokenID != runner.DigestOf([]byte("example-id")) {
		t.Fatalf("decodeClaims() = %+v, %v", c, err)
	}
	if c, err := decodeClaims([]byte(strings.Replace(goodClaims, `"check_run_id":"26",`, ``, 1)), tokenTime); err != nil || c.CheckRunID != 0 {
		t.Errorf("decodeClaims() without check_run_id = %+v, %v, want id 0", c, err)
	}
	for name, edit := range map[string][2]string{
		"no jti":                     {`"jti":"example-id",`, ``},
		"no exp":                     {`"exp":1800000300,`, ``},
		"no iat":                     {`"iat":1800000000,`, ``},
		"an expiry that is now":      {`"exp":1800000300`, `"exp":1800000000`},
		"an issue in the future":     {`"iat":1800000000`, `"iat":1800000061`},
		"a beginning in the future":  {`"nbf":1799999700`, `"nbf":1800000061`},
		"an id that is a number":     {`"run_id":"9"`, `"run_id":9`},
		"an id that is missing":      {`"run_id":"9",`, ``},
		"an id of zero":              {`"run_id":"9"`, `"run_id":"0"`},
		"an id with a sign":          {`"run_id":"9"`, `"run_id":"+9"`},
		"an id with leading zeros":   {`"run_id":"9"`, `"run_id":"09"`},
		"an id with a line break":    {`"run_id":"9"`, `"run_id":"9\n"`},
		"an attempt that is missing": {`"run_attempt":"1",`, ``},
		"an owner that is a word":    {`"repository_owner_id":"65"`, `"repository_owner_id":"acme"`},
		"a repository of free text":  {`"repository":"acme/app"`, `"repository":"Jane Doe"`},
		"no job workflow":            {`"job_workflow_ref":"acme/w/.github/workflows/d.yml@refs/tags/v1",`, ``},
		"an environment of its own":  {`"environment":"production"`, `"environment":"pro duction"`},
		"a list for a string":        {`"ref":"refs/tags/v1"`, `"ref":["refs/tags/v1"]`},
	} {
		body := strings.Replace(goodClaims, edit[0], edit[1], 1)
		if body == goodClaims {
			t.Fatalf("%s: the edit changes nothing", name)
		}
		if c, err := decodeClaims([]byte(body), tokenTime); !errors.Is(err, supervisor.ErrTokenRejected) {
			t.Errorf("%s: decodeClaims() = %+v, %v, want it rejected", name, c, err)
		}
	}
}

func FuzzDecodeRun(f *testing.F) {
	f.Add([]byte(goodRun))
	f.Add([]byte(`{"repository":null,"actor":{}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := decodeRun(body)
		if err == nil && (r.ID <= 0 || r.Attempt <= 0 || r.Repository.Owner.ID <= 0 || r.Actor.person() == nil || r.TriggeringActor.person() == nil) {
			t.Errorf("decodeRun(%q) = %+v without an error", body, r)
		}
	})
}

func FuzzDecodeEnvironment(f *testing.F) {
	f.Add([]byte(`{"id":1,"name":"p","protection_rules":[{"type":"required_reviewers","reviewers":[{"reviewer":null}]}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := decodeEnvironment(body)
		if err == nil && (e.ID <= 0 || e.ReviewersAllTeams != nil && *e.ReviewersAllTeams && e.HasReviewers == nil) {
			t.Errorf("decodeEnvironment(%q) = %+v without an error", body, e)
		}
	})
}

func FuzzDecodeApprovals(f *testing.F) {
	f.Add([]byte(`[{"state":"approved","user":{"id":1,"login":"a"},"environments":[{"id":7}]}]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		list, _ := decodeApprovals(body, 7)
		for _, v := range list {
			if v.by.ID <= 0 || v.by.Login == "" || v.state != "approved" && v.state != "rejected" {
				t.Errorf("decodeApprovals(%q) = %+v", body, v)
			}
		}
	})
}

func FuzzDecodeClaims(f *testing.F) {
	f.Add([]byte(goodClaims))
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := decodeClaims(body, tokenTime)
		if err != nil {
			if !errors.Is(err, supervisor.ErrTokenRejected) {
				t.Errorf("decodeClaims(%q) = %v, want a rejection", body, err)
			}
			return
		}
		c.Token = c.TokenID
		if runner.Validate(c) != nil || c.RunID <= 0 || !c.ExpiresAt.After(tokenTime) {
			t.Errorf("decodeClaims(%q) = %+v without an error", body, c)
		}
	})
}

func FuzzDecodeLists(f *testing.F) {
	f.Add([]byte(`{"runner_groups":[{"id":3,"name":"g"}],"repositories":[{"id":1}],"jobs":[{"check_run_url":"https://x/check-runs/5"}],"object":{"type":"commit","sha":"a"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		groups, _ := decodeGroups(body)
		for _, g := range groups {
			if g.ID <= 0 || g.Name == "" {
				t.Errorf("decodeGroups(%q) = %+v", body, g)
			}
		}
		ids, _ := decodeRepositoryIDs(body)
		for _, id := range ids {
			if id <= 0 {
				t.Errorf("decodeRepositoryIDs(%q) = %v", body, ids)
			}
		}
		jobs, _ := decodeJobs(body)
		for _, j := range jobs {
			if j.checkRun() < 0 {
				t.Errorf("checkRun(%q) = %d", j.CheckRunURL, j.checkRun())
			}
		}
		if o, err := decodeObject(body); err == nil && o.SHA == "" {
			t.Errorf("decodeObject(%q) = %+v", body, o)
		}
	})
}
