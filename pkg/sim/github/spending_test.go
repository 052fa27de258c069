package simgithub_test

import (
	"fmt"
	"strings"
	"testing"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
)

const queue = "/scalesets/message"

// A fault that is asked for once must be seen once: it waits for an answer that
// it can spoil.
func TestAFaultIsSpentOnWhatItSpoilsOnly(t *testing.T) {
	for _, kind := range []simgithub.FaultKind{
		simgithub.FaultNullStatistics, simgithub.FaultStaleStatistics, simgithub.FaultUnknownItem, simgithub.FaultPoisonItem,
		simgithub.FaultUnknownMessage, simgithub.FaultTruncated, simgithub.FaultByteOrderMark, simgithub.FaultReversed,
	} {
		t.Run(string(kind), func(t *testing.T) {
			bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
				_, _, session := w.raw("POST", sets+"/1/sessions", "Bearer "+w.adminToken(), map[string]any{"ownerName": "h"})
				url, auth := session["messageQueueUrl"].(string), "Bearer "+session["messageQueueAccessToken"].(string)
				w.sim.Inject(simgithub.Fault{Kind: kind, Method: "GET", Path: queue})
				if status, _, _ := w.raw("GET", url, auth, nil); status != 202 {
					t.Fatalf("a poll without news = %d, want 202", status)
				}
				w.dispatch(nil)
				w.dispatch(nil)
				_, _, spoilt := w.raw("GET", url, auth, nil)
				_, _, whole := w.raw("GET", url, auth, nil)
				if fmt.Sprint(spoilt) == fmt.Sprint(whole) || whole["body"] == nil {
					t.Errorf("the first message was %v, then %v: the fault was spent on the empty poll", spoilt, whole)
				}
			})
		})
	}
}

func TestAFaultThatFindsNothingToDisturbStays(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		admin := "Bearer " + w.adminToken()
		w.sim.Inject(simgithub.Fault{Kind: simgithub.FaultSessionGone, Path: sets})
		w.raw("GET", sets+"/1", admin, nil)
		c := w.session() // its own creation finds no session either
		w.raw("GET", sets+"/1", admin, nil)
		if _, err := c.GetMessage(t.Context(), 0, 1); err == nil || !strings.Contains(err.Error(), "Expired") {
			t.Errorf("GetMessage() = %v, want the session gone", err)
		}
		w.session()
		if status, _, _ := w.raw("GET", sets+"/1", admin, nil); status != 200 {
			t.Fatalf("GET of the set = %d", status)
		}
		if status, _, _ := w.raw("POST", sets+"/1/sessions", admin, map[string]any{"ownerName": "h"}); status != 409 {
			t.Errorf("a second session = %d, want 409: the fault ended the first one twice", status)
		}
	})
}

func TestEveryKindSaysWhenItCanComeAndRefusesTheRest(t *testing.T) {
	sim := simgithub.New(simgithub.Config{BaseURL: "http://ghes.test", Org: "acme"})
	refused := func(f simgithub.Fault) (refused bool) {
		defer func() { refused = recover() != nil }()
		sim.Inject(f)
		return false
	}
	for _, spec := range simgithub.Menu() {
		if !spec.Before() && !spec.After() || spec.Rewrites && spec.Disturbs {
			t.Errorf("%s can come at no time", spec.Kind)
		}
		for moment, f := range map[string]simgithub.Fault{
			"whenever": {Kind: spec.Kind}, "before": {Kind: spec.Kind, BeforeEffect: true},
			"after": {Kind: spec.Kind, AfterEffect: true}, "both": {Kind: spec.Kind, BeforeEffect: true, AfterEffect: true},
		} {
			want := map[string]bool{"whenever": true, "before": spec.Before(), "after": spec.After(), "both": false}[moment]
			if (f.Check() == nil) != want || refused(f) == want {
				t.Errorf("%s %s: Check() = %v, want it allowed: %t", spec.Kind, moment, f.Check(), want)
			}
		}
	}
	for _, f := range []simgithub.Fault{{Kind: "pixies"}, {Kind: simgithub.FaultStatus, Skip: -1}} {
		if !refused(f) {
			t.Errorf("Inject(%+v) was allowed", f)
		}
	}
}

func TestAGroupFaultChangesTheGroupsThatItNames(t *testing.T) {
	for _, test := range []struct {
		name           string
		prod, test, no string // the names afterwards; "no" is the default group's
	}{{"", "prod-renamed", "test-renamed", "Default"}, {"TEST", "prod", "test-renamed", "Default"}} {
		bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
			w.sim.AddGroup(simgithub.Group{Name: "test"})
			w.sim.Inject(simgithub.Fault{Kind: simgithub.FaultGroupRenamed, Path: "/api/v3/orgs/acme/actions/runner-groups", Group: test.name, Count: -1})
			for range 2 {
				_, _, list := w.raw("GET", "/api/v3/orgs/acme/actions/runner-groups", "Bearer "+pat, nil)
				for i, want := range []string{test.no, test.prod, test.test} {
					if got := list["runner_groups"].([]any)[i].(map[string]any)["name"]; got != want {
						t.Errorf("group %q: name %v, want %s", test.name, got, want)
					}
				}
			}
		})
	}
}
