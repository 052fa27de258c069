package simgithub_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
)

// TestControlPlaysADeploy does over HTTP what other tests do with methods.
func TestControlPlaysADeploy(t *testing.T) {
	sim := simgithub.New(simgithub.Config{BaseURL: "https://github.sim", Org: "acme", OrgID: 65, Token: pat})
	control := sim.Control("")
	call := func(want int, method, path, body string) map[string]any {
		t.Helper()
		rec := httptest.NewRecorder()
		control.ServeHTTP(rec, httptest.NewRequest(method, "/_sim/"+path, strings.NewReader(body)))
		if rec.Code != want {
			t.Fatalf("%s %s = %d %s, want %d", method, path, rec.Code, rec.Body, want)
		}
		var out map[string]any
		_ = json.Unmarshal(rec.Body.Bytes(), &out) // lists are looked at through methods
		return out
	}
	for _, step := range [][2]string{
		{"users", `{"login":"alice"}`}, {"users", `{"login":"bob"}`}, {"teams", `{"slug":"deployers","members":["bob"]}`},
		{"repositories", `{"name":"shop"}`}, {"groups", `{"Name":"prod","Visibility":"selected","Repositories":["shop"]}`},
		{"environments", `{"repository":"shop","name":"production","reviewerTeams":["deployers"],"waitTimer":"1m"}`},
		{"faults", `{"kind":"throttled","path":"/api/v3/rate_limit","retryAfter":"3s"}`},
	} {
		call(200, "POST", step[0], step[1])
	}
	run := call(200, "POST", "runs", `{"repository":"shop","tag":"v1.0.0","actor":"alice","environment":"production","labels":["prod"]}`)
	id := int64(run["ID"].(float64))
	call(400, "POST", fmt.Sprintf("runs/%d/approve", id), `{"login":"alice"}`)
	call(200, "POST", fmt.Sprintf("runs/%d/approve", id), `{"login":"bob"}`)
	call(200, "POST", fmt.Sprintf("runs/%d/cancel", id), ``)
	if again := call(200, "POST", fmt.Sprintf("runs/%d/rerun", id), `{"login":"bob"}`); again["Attempt"] != 2.0 {
		t.Errorf("rerun = %v, want attempt 2", again)
	}
	if jobs := sim.Jobs(); len(jobs) != 2 || jobs[0].Conclusion != "cancelled" {
		t.Errorf("jobs = %+v, want the first cancelled", jobs)
	}
	rec := httptest.NewRecorder()
	req := httptest.NewRequest("GET", "/api/v3/rate_limit", nil)
	req.Header.Set("Authorization", "Bearer "+pat)
	sim.ServeHTTP(rec, req)
	if rec.Code != http.StatusTooManyRequests || rec.Header().Get("Retry-After") != "3" {
		t.Errorf("the fault gave %d, Retry-After %q, want 429 and 3", rec.Code, rec.Header().Get("Retry-After"))
	}
	for body, says := range map[string]string{
		`{"kind":"session-gone","afterEffect":true}`: "before the effect", `{"kind":"truncated","beforeEffect":true}`: "the effect comes first",
		`{"kind":"drop","beforeEffect":true,"afterEffect":true}`: "say one", `{"kind":"drop","skip":-1}`: "say 0 or more",
		`{"kind":"pixies"}`: "no fault", `{"knd":"status"}`: "unknown field", `{"kind":"hang","duration":5}`: "a duration is a text",
	} {
		if out := call(400, "POST", "faults", body); !strings.Contains(fmt.Sprint(out["error"]), says) {
			t.Errorf("faults %s = %v, want %q", body, out, says)
		}
	}
}

func TestThePageOfTheControlAPIShowsAllOfIt(t *testing.T) {
	sim := simgithub.New(simgithub.Config{BaseURL: "https://github.sim", Org: "acme"})
	rec := httptest.NewRecorder()
	sim.Control("").ServeHTTP(rec, httptest.NewRequest("GET", "/_sim/", nil))
	for _, f := range simgithub.Menu() {
		if !strings.Contains(rec.Body.String(), "<code>"+string(f.Kind)+"</code>") {
			t.Errorf("the page does not show the fault %s", f.Kind)
		}
	}
	if n := strings.Count(rec.Body.String(), "/_sim/"); rec.Code != 200 || n < 20 {
		t.Errorf("GET /_sim/ = %d with %d calls, want all", rec.Code, n)
	}
	for path, handler := range map[string]http.Handler{"without its token": sim.Control("secret"), "as a part of GitHub": sim} {
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, httptest.NewRequest("GET", "/_sim/jobs", nil))
		if rec.Code == http.StatusOK {
			t.Errorf("the control API answers %s", path)
		}
	}
}
