package conformance

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// Rules are what the service is held to, in twelve numbered groups: statuses (1),
// credentials (2), capacity (3), redelivery (4), the two flows (5), any idle runner
// (6), requeueing (7), sessions (8), registrations (9), just-in-time configurations
// (10), scale sets (11) and the REST API (12). Their sources are the official client
// (github.com/actions/scaleset), actions-runner-controller, the runner
// (github.com/actions/runner) and what their issues report.
func Rules() []Rule {
	return slices.Concat(setRules(), sessionRules(), tokenRules(), queueRules(), runnerRules(), restRules(), selectorRules())
}

func setRules() []Rule {
	return []Rule{
		{Name: "a scale set is found by name in its group and nowhere else", Test: func(w *World) {
			found := must(w.Client.FindSet(w.Context(), w.Group, setName))(w)
			if found == nil || found.ID != w.Set.ID || found.GroupID != w.Group || !slices.Contains(found.Labels, setName) {
				w.Errorf("found %+v, want %+v", found, w.Set)
			}
			if other := must(w.Client.FindSet(w.Context(), 1, setName))(w); other != nil {
				w.Errorf("found %+v in another group", other)
			}
			if none := must(w.Client.FindSet(w.Context(), w.Group, "nobody"))(w); none != nil {
				w.Errorf("found %+v under a name that nobody has", none)
			}
		}},
		{Name: "a group that does not exist is not found", Test: func(w *World) {
			_, err := w.Client.GroupID(w.Context(), "nobody")
			w.refusedWith("a group that nobody made", err, "no runner group", "0 groups")
		}},
		{Name: "rule 11: a second scale set of a name in a group is refused, in another group not", Test: func(w *World) {
			_, err := w.Client.CreateSet(w.Context(), Set{Name: setName, GroupID: w.Group, Labels: []string{setName}})
			w.refusedWith("a second set", err, "400")
			must(w.Client.CreateSet(w.Context(), Set{Name: setName, GroupID: 1, Labels: []string{setName}}))(w)
		}},
		{Name: "a scale set that is deleted is gone", Test: func(w *World) {
			if err := w.Client.DeleteSet(w.Context(), w.Set.ID); err != nil {
				w.Fatal(err)
			}
			if found := must(w.Client.FindSet(w.Context(), w.Group, setName))(w); found != nil {
				w.Errorf("found %+v", found)
			}
			_, err := w.Client.Open(w.Context(), w.Set.ID, "host")
			w.refusedWith("a session of a set that is gone", err, "404")
		}},
		{Name: "rule 11: a scale set that nobody listens to for seven days is deleted", Clock: true, Test: func(w *World) {
			w.pass(8 * 24 * time.Hour)
			if found := must(w.New().FindSet(w.Context(), w.Group, setName))(w); found != nil {
				w.Errorf("found %+v after eight days", found)
			}
		}},
		{Name: "rule 2: tokens of one path space are refused in another", Test: func(w *World) {
			for path, auth := range map[string]string{
				"/api/v3/orgs/" + org + "/actions/runners/registration-token": "RemoteAuth " + token,
				"/rest/_apis/runtime/runnerscalesets?name=x":                  "Bearer " + token,
				"/api/v3/orgs/" + org:                                         "Bearer nonsense",
			} {
				method := http.MethodGet
				if strings.HasSuffix(path, "-token") {
					method = http.MethodPost
				}
				base := strings.TrimSuffix(w.To.URL, "/"+org)
				err := exchange(w.Context(), w.To.HTTP, 200, method, base+path, auth, nil, nil)
				w.refusedWith(path+" with another token", err, "HTTP 401")
			}
		}},
	}
}
