package github

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

func TestDecodePulls(t *testing.T) {
	const merged, ann = `"number":1,"merged_at":"2026-01-02T03:04:05Z"`, `"user":{"id":3,"login":"ann","type":"User"}`
	for _, test := range []struct {
		name, body string
		want       []runner.Person
		fails      bool
	}{
		{"merged", `[{` + merged + `,` + ann + `}]`, []runner.Person{{ID: 3, Login: "ann", Type: "User"}}, false},
		{"open ones did not bring it", `[{"number":1,"merged_at":null,` + ann + `}]`, nil, false},
		{"none", `[]`, nil, false},
		{"without its author", `[{` + merged + `,"user":null}]`, nil, true},
		{"without its number", `[{"merged_at":null}]`, nil, true},
		{"not a list", `{"message":"x"}`, nil, true},
	} {
		got, err := decodePulls([]byte(test.body))
		if test.fails != (err != nil) || !reflect.DeepEqual(got, test.want) && !test.fails {
			t.Errorf("%s: decodePulls() = %+v, %v, want %+v", test.name, got, err, test.want)
		}
	}
}

func TestDecodeNameID(t *testing.T) {
	for _, test := range []struct{ name, body, want string }{
		{"the first of this account", `[{"actor_id":4,"external_identity_nameid":"bob"},{"actor_id":3},{"actor_id":3,"external_identity_nameid":"ann@x.org"}]`, "ann@x.org"},
		{"of another account of that login", `[{"actor_id":4,"external_identity_nameid":"bob"}]`, ""},
		{"free text", `[{"actor_id":3,"external_identity_nameid":"Ann Other"}]`, ""},
		{"a credential", `[{"actor_id":3,"external_identity_nameid":"ghp_0123456789"}]`, ""},
	} {
		if got, err := decodeNameID([]byte(test.body), 3); err != nil || got != test.want {
			t.Errorf("%s: decodeNameID() = %q, %v, want %q", test.name, got, err, test.want)
		}
	}
}

func TestDecodeRunners(t *testing.T) {
	if got, err := decodeRunners([]byte(`{"runners":[{"id":1,"name":"r","busy":true}]}`)); err != nil || len(got) != 1 || !got[0].Busy {
		t.Errorf("decodeRunners() = %+v, %v, want one that is busy", got, err)
	}
	for _, bad := range []string{`{}`, `[]`, `{"runners":[{"id":1,"name":"r"}]}`, `{"runners":[{"id":1,"busy":true}]}`, `{"runners":[{"name":"r","busy":true}]}`} {
		if got, err := decodeRunners([]byte(bad)); err == nil {
			t.Errorf("decodeRunners(%s) = %+v, want an error", bad, got)
		}
	}
}

func TestARunOfAnUnknownReferenceHasAName(t *testing.T) {
	r, err := decodeRun([]byte(goodRun))
	if err != nil {
		t.Fatal(err)
	}
	w := r.workflow("acme/app", "", "")
	if want := "acme/app/.github/workflows/release.yml@" + r.HeadSHA; w.Ref != want || w.SHA != "" || runner.Validate(w) != nil {
		t.Errorf("workflow() = %+v, want %s", w, want)
	}
}

func TestListedWorkflow(t *testing.T) {
	at := func(path, ref string) referencedWorkflow { return referencedWorkflow{Path: path, SHA: sha1, Ref: ref} }
	const tagged, pinned = "acme/w/.github/workflows/d.yml@refs/tags/v1", "acme/w/.github/workflows/d.yml@" + sha1
	for _, test := range []struct {
		name string
		refs []referencedWorkflow
		want string
	}{
		{"one, besides others", []referencedWorkflow{at("acme/w/.github/workflows/d.yml@v1", "refs/tags/v1"), at("acme/w/.github/workflows/b.yml@v1", "refs/tags/v1")}, tagged},
		{"one, used twice", []referencedWorkflow{at("acme/w/.github/workflows/d.yml@v1", "refs/tags/v1"), at("acme/w/.github/workflows/d.yml@v1", "refs/tags/v1")}, tagged},
		{"one that is pinned by its commit", []referencedWorkflow{at(pinned, "")}, pinned},
		{"several", []referencedWorkflow{at("acme/w/.github/workflows/d.yml@v1", "refs/tags/v1"), at(pinned, "")}, ""},
		{"a branch of that name", []referencedWorkflow{at("acme/w/.github/workflows/d.yml@v1", "refs/heads/v1")}, ""},
		{"none", nil, ""},
	} {
		q := query{Client: &Client{cfg: Config{Workflows: []string{tagged, pinned}}}, run: run{Referenced: test.refs}}
		if got := q.listed(); got != test.want {
			t.Errorf("%s: listed() = %q, want %q", test.name, got, test.want)
		}
	}
}

func TestADeliveryIsTheOneThatTheListShows(t *testing.T) {
	us := scope{org: "acme", environment: "production"}
	for _, listed := range []delivery{
		{ID: 2, GUID: "g", Event: eventReview}, {ID: 1, GUID: "h", Event: eventReview}, {ID: 1, GUID: "g", Event: eventProtection},
	} {
		if got, err := us.decodeDelivery([]byte(reviewDelivery), listed); err == nil || !strings.Contains(err.Error(), "another delivery") {
			t.Errorf("decodeDelivery() for %+v = %+v, %v, want an error", listed, got, err)
		}
	}
}

func TestWhatWasHeardIsBounded(t *testing.T) {
	var h heardSet
	start := minute(0)
	for i := range maxHeard + 10 {
		h.add(fmt.Sprint(i), nil, start.Add(time.Duration(i)*time.Second))
	}
	_, oldest := h.get("9")
	_, newer := h.get("10")
	if len(h.said) != maxHeard || oldest || !newer {
		t.Errorf("%d deliveries are kept, the tenth %v, the one after %v, want the newest %d", len(h.said), oldest, newer, maxHeard)
	}
	h.add("late", nil, start.Add(2*heardFor))
	if len(h.said) != 1 {
		t.Errorf("%d deliveries are kept after they are no longer listed, want 1", len(h.said))
	}
}
