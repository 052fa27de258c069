package simgithub_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
)

// control calls the control API, which must answer with want, and returns what
// it says if that is an object.
func (w *world) control(want int, method, path, body string) map[string]any {
	w.t.Helper()
	rec := httptest.NewRecorder()
	req := httptest.NewRequest(method, "/_sim/"+path, strings.NewReader(body)).WithContext(w.t.Context())
	w.sim.Control("").ServeHTTP(rec, req)
	if rec.Code != want {
		w.t.Fatalf("%s %s %s = %d %s, want %d", method, path, body, rec.Code, rec.Body, want)
	}
	var out map[string]any
	_ = json.Unmarshal(rec.Body.Bytes(), &out) // lists are looked at through methods
	return out
}

// TestAScaleSetClientIsServedWithoutAnyRunner has the simulator run the runners
// that the client registers.
func TestAScaleSetClientIsServedWithoutAnyRunner(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		c := w.session()
		run := w.dispatch(func(s *simgithub.RunSpec) { s.Duration = -1 })
		w.take(c, 1)
		w.control(400, "POST", "runners/connect", `{"name":"r1"}`)
		_, jit := w.jit("r1")
		w.control(200, "POST", "runners/connect", `{"name":"r1"}`)
		w.control(400, "POST", "runners/connect", fmt.Sprintf(`{"jitConfig":%q}`, jit)) // it serves once
		synctest.Wait()
		if j := w.job(run.JobID); j.Status != "in_progress" || j.RunnerName != "r1" || !j.HookSucceeded {
			t.Fatalf("Job() = %+v, want r1 to run it", j)
		}
		if got := w.sim.StandIns(); !slices.Equal(got, []string{"r1"}) {
			t.Errorf("StandIns() = %v, want r1", got)
		}
		w.control(200, "POST", "jobs/"+run.JobID+"/finish", `{"conclusion":"failure"}`)
		synctest.Wait()
		if j := w.job(run.JobID); j.Conclusion != "failure" {
			t.Errorf("Job() = %+v, want it failed", j)
		}
		if got := w.sim.StandIns(); len(got) != 0 {
			t.Errorf("StandIns() = %v after the job, want none", got)
		}
		w.control(400, "POST", "runners/r1/stop", ``)
	})
}

func TestAStandInIsStoppedOrKilled(t *testing.T) {
	for _, c := range []struct {
		body       string
		conclusion string
		after      time.Duration
	}{{``, "failure", time.Second}, {`{"kill":true}`, "", 9 * time.Minute}, {`{"kill":true}`, "failure", 11 * time.Minute}} {
		bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
			s := w.session()
			run := w.dispatch(func(s *simgithub.RunSpec) { s.Duration = -1 })
			w.take(s, 1)
			_, jit := w.jit("r1")
			w.control(200, "POST", "runners/connect", fmt.Sprintf(`{"jitConfig":%q}`, jit))
			synctest.Wait()
			w.control(200, "POST", "runners/R1/stop", c.body)
			sleep(c.after)
			if j := w.job(run.JobID); j.Conclusion != c.conclusion {
				t.Errorf("%v after stop %s the conclusion is %q, want %q", c.after, c.body, j.Conclusion, c.conclusion)
			}
		})
	}
}

func TestAStandInWhoseHookFailsRunsOnlyAlwaysSteps(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		c := w.session()
		run := w.dispatch(nil)
		w.take(c, 1)
		w.jit("r1")
		w.control(200, "POST", "runners/connect", `{"name":"r1","hookFails":true}`)
		synctest.Wait()
		if j := w.job(run.JobID); j.Conclusion != "failure" || j.HookSucceeded || !j.StepsRan {
			t.Errorf("Job() = %+v, want a failed hook and the always() step", j)
		}
	})
}

// TestTheClockCanBeMovedAhead has everything fall due at its own time.
func TestTheClockCanBeMovedAhead(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		c := w.session()
		run := w.dispatch(nil)
		w.take(c, 1)
		w.jit("r1")
		begin := time.Now()
		w.control(200, "POST", "runners/connect", `{"name":"r1"}`)
		synctest.Wait()
		w.control(200, "POST", "runners/r1/stop", `{"kill":true}`)
		lease := w.job(run.JobID).LeaseUntil
		w.control(400, "POST", "clock/advance", `{"by":"-1s"}`)
		w.control(200, "POST", "clock/advance", `{"by":"30m"}`)
		j := w.job(run.JobID)
		if j.Conclusion != "failure" || !j.CompletedAt.Equal(lease) {
			t.Errorf("Job() = %+v, want it failed at %v, when its lease ended", j, lease)
		}
		if time.Since(begin) > time.Second {
			t.Errorf("%v passed for the machine", time.Since(begin))
		}
		// The session outlives its client by five minutes only: another one fits.
		w.session()
		if state := w.control(200, "GET", "state", ``); state["ahead"] != "30m0s" {
			t.Errorf("state = %v, want a clock that is 30m0s ahead", state["ahead"])
		}
	})
}

func TestTokensGrowOldWithTheClock(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		admin := "Bearer " + w.adminToken()
		if status, _, _ := w.raw("GET", sets, admin, nil); status != 200 {
			t.Fatalf("a fresh token: status %d, want 200", status)
		}
		w.control(200, "POST", "clock/advance", `{"by":"61m"}`)
		if status, _, _ := w.raw("GET", sets, admin, nil); status != 401 {
			t.Errorf("a token of 61 minutes: status %d, want 401", status)
		}
		if status, _, _ := w.raw("GET", sets, "Bearer "+w.adminToken(), nil); status != 200 {
			t.Errorf("a token after the clock moved: status %d, want 200", status)
		}
	})
}

// TestControlChangesWhatIsAroundAJob looks at each effect where a client does.
func TestControlChangesWhatIsAroundAJob(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		get := func(path string) string {
			t.Helper()
			status, _, doc := w.raw("GET", "/api/v3"+path, "Bearer "+pat, nil)
			return fmt.Sprint(status, " ", doc)
		}
		for _, c := range []struct {
			method, call, body, path, shows string
		}{
			{"PATCH", fmt.Sprintf("groups/%d", w.group), `{"Name":"renamed","RestrictedToWorkflows":false}`, fmt.Sprintf("/orgs/acme/actions/runner-groups/%d", w.group), "restricted_to_workflows:false"},
			{"PATCH", fmt.Sprintf("groups/%d", w.group), `{}`, fmt.Sprintf("/orgs/acme/actions/runner-groups/%d", w.group), "name:renamed"},
			{"POST", "files", `{"repository":"shop","ref":"v9","path":"a.txt","content":"hello"}`, "/repos/acme/shop/contents/a.txt?ref=v9", "aGVsbG8="},
			{"POST", "subjects", `{"repository":"shop","keys":["repo"],"immutable":true}`, "/repos/acme/shop/actions/oidc/customization/sub", "use_immutable_subject:true"},
			{"POST", "branches", `{"repository":"shop","branch":"dev","sha":"` + sha1 + `","by":"alice"}`, "/repos/acme/shop/git/ref/heads/dev", sha1},
			{"POST", "subjects", `{"repository":"shop","default":true}`, "/repos/acme/shop/actions/oidc/customization/sub", "use_default:true"},
		} {
			w.control(200, c.method, c.call, c.body)
			if got := get(c.path); !strings.HasPrefix(got, "200 ") || !strings.Contains(got, c.shows) {
				t.Errorf("after %s %s, GET %s = %s, want %s", c.call, c.body, c.path, got, c.shows)
			}
		}
		w.control(200, "POST", "rulesets", `{"repository":"shop","name":"tags","target":"tag","enforcement":"active","rules":["update"]}`)
		w.control(200, "POST", "tags", `{"repository":"shop","tag":"v9","sha":"`+sha1+`","by":"mallory"}`)
		object := w.control(200, "POST", "tags/annotate", `{"repository":"shop","tag":"v9","by":"mallory","message":"m"}`)
		if got := get("/repos/acme/shop/git/ref/tags/v9"); !strings.Contains(got, fmt.Sprint(object["sha"])) {
			t.Errorf("the annotated tag is %s, want %v", got, object)
		}
		w.control(400, "POST", "tags/annotate", `{"repository":"shop","tag":"nothing","by":"mallory"}`)
		w.control(400, "POST", "branches", `{"repository":"shop","branch":"dev","sha":"short","by":"alice"}`)
		w.control(200, "POST", "pulls", `{"repository":"shop","sha":"`+sha1+`","author":"bob"}`)
		w.control(200, "POST", "saml", `{"login":"bob","nameId":"bob@corp.example"}`)
		state := fmt.Sprint(w.control(200, "GET", "state", ``))
		for _, want := range []string{"v9:" + sha1, "Enforcement:active", "v9:a.txt", "Name:renamed", "prod-set"} {
			if !strings.Contains(state, want) {
				t.Errorf("state = %s, want %s in it", state, want)
			}
		}
		for _, secret := range w.sim.Credentials() {
			if strings.Contains(state, secret) {
				t.Error("state shows a credential")
			}
		}
	})
}

func TestControlForgesMessages(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		c := w.session()
		run := w.dispatch(nil)
		w.control(400, "POST", "jobs/"+run.JobID+"/forge", `{"type":"JobCompleted"}`) // no set has it yet
		w.take(c, 1)
		w.control(200, "POST", "jobs/"+run.JobID+"/forge", `{"type":"JobCompleted","result":"canceled"}`)
		if m := w.take(c, 1); kinds(m) != "completed" || m.JobCompletedMessages[0].Result != "canceled" {
			t.Errorf("message = %s, want the forged completion", kinds(m))
		}
		if j := w.job(run.JobID); j.Status != "queued" {
			t.Errorf("Job() = %+v, want it queued", j)
		}
	})
}

func TestControlRefusesWhatItDoesNotUnderstand(t *testing.T) {
	bubble(t, simgithub.Config{}, func(_ *testing.T, w *world) {
		for call, body := range map[string]string{
			"POST tags": `{"repository":"shop","tag":"v1","sha":"short","by":"alice"}`, "POST rulesets": `{"repository":"shop","target":"sky"}`,
			"POST files": `{"repository":"shop"}`, "POST subjects": `{"repository":"shop","keys":["a b"]}`, "POST pulls": `{}`,
			"POST runners/connect": `{"jitConfig":"%%%"}`, "PATCH groups/99": `{}`, "PATCH groups/x": `{}`, "POST clock/advance": `{"by":10}`,
			"POST jobs/none/forge": `{}`, "POST saml": `{"who":1}`,
		} {
			method, path, _ := strings.Cut(call, " ")
			w.control(400, method, path, body)
		}
	})
}

func TestControlSetsWhatTokensShow(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		w.control(400, "POST", "properties", `{"properties":{"team":"payments"}}`)
		w.control(200, "POST", "properties", `{"repository":"shop","properties":{"team":"payments"},"claims":["team"]}`)
		if c := claimsOf(t, w); c["repo_property_team"] != "payments" {
			t.Errorf("the token shows %v, want the team", c)
		}
	})
}
