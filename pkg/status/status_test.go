package status_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/status"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestProbes(t *testing.T) {
	w := start(t, healthy())
	for _, tc := range []struct {
		name, path string
		view       supervisor.View
		code       int
		body       string
	}{
		{"livez answers when all is well", "/livez", healthy(), 200, "ok\n"},
		{"livez answers when nothing is well", "/livez", empty(), 200, "ok\n"},
		{"readyz says ok", "/readyz", healthy(), 200, "ok\n"},
		{"a freeze is a choice and leaves the daemon ready", "/readyz", frozen(), 200, "ok\n"},
		{"a failing check makes the daemon unready and is named", "/readyz", busy(), 503,
			"[+]queue ok: last poll 4 s ago\n[+]ledger ok: 1234 records\n" +
				"[-]posture failed: runner group open to all repositories\nreadyz check failed\n"},
		{"no check at all is not ready", "/readyz", empty(), 503, "no check has run yet\nreadyz check failed\n"},
		{"verbose lists every check", "/readyz?verbose", healthy(), 200,
			"[+]queue ok: last poll 4 s ago\n[+]ledger ok: 1234 records\nreadyz check passed\n"},
		{"healthz is readyz", "/healthz?verbose", healthy(), 200,
			"[+]queue ok: last poll 4 s ago\n[+]ledger ok: 1234 records\nhealthz check passed\n"},
		{"healthz fails with readyz", "/healthz", empty(), 503, "no check has run yet\nhealthz check failed\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w.src.set(tc.view)
			got := w.get(t, tc.path)
			if got.code != tc.code || got.body != tc.body {
				t.Errorf("GET %s = %d %q, want %d %q", tc.path, got.code, got.body, tc.code, tc.body)
			}
		})
	}
}

func TestReadinessFlipsWithTheView(t *testing.T) {
	w := start(t, healthy())
	for _, step := range []struct {
		view supervisor.View
		want int
	}{{healthy(), 200}, {busy(), 503}, {healthy(), 200}} {
		w.src.set(step.view)
		if got := w.get(t, "/readyz"); got.code != step.want {
			t.Errorf("GET /readyz = %d, want %d", got.code, step.want)
		}
	}
}

func TestReadinessAsJSON(t *testing.T) {
	got := start(t, busy()).get(t, "/readyz", "Accept", "application/json")
	var body struct {
		Ready  bool
		Checks []supervisor.HealthCheck
	}
	if err := json.Unmarshal([]byte(got.body), &body); err != nil {
		t.Fatalf("GET /readyz as JSON: %v in %q", err, got.body)
	}
	if got.code != 503 || body.Ready || len(body.Checks) != 3 || body.Checks[2].Name != "posture" || body.Checks[2].OK {
		t.Errorf("GET /readyz as JSON = %d %+v, want 503 with posture failing", got.code, body)
	}
}

func TestADetailCannotPoseAsACheck(t *testing.T) {
	v := healthy()
	v.Checks = []supervisor.HealthCheck{{Name: "queue", Detail: "down\n[+]ledger ok\nreadyz check passed"}}
	got := start(t, v).get(t, "/readyz")
	want := "[-]queue failed: down [+]ledger ok readyz check passed\nreadyz check failed\n"
	if got.body != want {
		t.Errorf("GET /readyz = %q, want %q", got.body, want)
	}
}

func TestPage(t *testing.T) {
	for name, view := range map[string]supervisor.View{"busy": busy(), "empty": empty(), "frozen": frozen()} {
		t.Run(name, func(t *testing.T) {
			got := start(t, view).get(t, "/statusz", "Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
			if kind := got.header.Get("Content-Type"); got.code != 200 || kind != "text/html; charset=utf-8" {
				t.Fatalf("GET /statusz = %d %s, want 200 text/html", got.code, kind)
			}
			golden := filepath.Join("testdata", name+".golden.html")
			if *update {
				if err := os.WriteFile(golden, []byte(got.body), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got.body != string(want) {
				t.Errorf("GET /statusz differs from %s; run go test with -update and look at the difference\n%s", golden, got.body)
			}
		})
	}
}

func TestHeadlineAnswersOnCallsFirstQuestion(t *testing.T) {
	brokenAndFrozen := busy()
	brokenAndFrozen.Frozen = frozen().Frozen
	unexplained := frozen()
	unexplained.Why = nil
	full := healthy()
	full.CanDeploy, full.Capacity, full.Why = false, 0, []string{"all 4 hosts that may be in use at once are in use"}
	for _, tc := range []struct {
		name string
		view supervisor.View
		want string
	}{
		{"a full pool means not now", full, "Can we deploy now? Not now, because all 4 hosts that may be in use at once are in use.</h1>"},
		{"yes", healthy(), "Can we deploy now? Yes.</h1>"},
		{"a freeze means not now", frozen(), "Can we deploy now? Not now, because admission is frozen.</h1>"},
		{"a freeze needs no reason to be told", unexplained, "Can we deploy now? Not now, because admission is frozen.</h1>"},
		{"what is broken means no", busy(), "Can we deploy now? No, because 1 host is overdue for teardown, and 1 more.</h1>"},
		{"broken outweighs frozen", brokenAndFrozen, "Can we deploy now? No, because"},
		{"nothing known means no", empty(), "Can we deploy now? No, because the daemon is not ready: see the checks.</h1>"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := start(t, tc.view).get(t, "/statusz"); !strings.Contains(got.body, tc.want) {
				t.Errorf("GET /statusz lacks %q", tc.want)
			}
		})
	}
}

func TestViewAsJSON(t *testing.T) {
	w := start(t, busy())
	want, err := json.MarshalIndent(busy(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, path, accept string }{
		{"by format", "/statusz?format=json", "text/html"},
		{"by Accept", "/statusz", "application/json"},
		{"by Accept among others", "/statusz", "application/yaml, application/json;q=0.9, */*"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := w.get(t, tc.path, "Accept", tc.accept)
			if got.header.Get("Content-Type") != "application/json" || strings.TrimSpace(got.body) != string(want) {
				t.Errorf("GET %s = %s %s, want the View", tc.path, got.header.Get("Content-Type"), got.body)
			}
		})
	}
	if got := w.get(t, "/statusz?format=xml"); got.code != 400 {
		t.Errorf("GET /statusz?format=xml = %d, want 400", got.code)
	}
	if got := w.get(t, "/statusz?format=html", "Accept", "application/json"); !strings.HasPrefix(got.body, "<!DOCTYPE html>") {
		t.Errorf("GET /statusz?format=html = %.40q, want the page", got.body)
	}
}

func TestReloadingCanBeStopped(t *testing.T) {
	w := start(t, healthy())
	const tag = `<meta http-equiv="refresh" content="5">`
	if got := w.get(t, "/statusz"); !strings.Contains(got.body, tag) {
		t.Errorf("GET /statusz does not reload")
	}
	if got := w.get(t, "/statusz?refresh=off"); strings.Contains(got.body, tag) {
		t.Errorf("GET /statusz?refresh=off reloads")
	}
}

// Everything in a View that somebody outside can influence is shown as text.
func TestNothingInTheViewBecomesMarkup(t *testing.T) {
	const canary = `"><script>alert(1)</script><img src=x onerror=alert(1)>'`
	v := busy()
	v.Why = []string{canary, canary}
	v.Checks[0].Name, v.Checks[0].Detail = canary, canary
	v.Frozen = &supervisor.FreezeView{By: canary, Reason: canary, Since: noon}
	v.Queue.LastError, v.Ledger.LastError, v.Ledger.Head, v.Queue.Session = canary, canary, canary, canary
	for i := range v.Jobs {
		j := &v.Jobs[i]
		j.ID, j.Repository, j.Phase, j.Runner, j.Result = canary, canary, canary, canary, canary
		j.Problem, j.URL = canary, "javascript:alert(1)"
		if i%2 == 0 {
			j.Reasons = []string{canary}
		} else {
			j.URL = "https://github.com/" + canary
		}
	}
	for i := range v.Runners {
		r := &v.Runners[i]
		r.Name, r.Phase, r.Instance, r.Node, r.Job, r.Outcome, r.Problem = canary, canary, canary, canary, canary, canary, canary
		r.Pending = []runner.Stage{canary}
	}
	for i := range v.Hosts {
		v.Hosts[i] = supervisor.HostView{Node: canary, Instance: canary, Failing: []runner.Check{{Name: canary, Verdict: canary}}}
	}
	got := start(t, v).get(t, "/statusz")
	if got.code != 200 || !strings.HasSuffix(strings.TrimSpace(got.body), "</html>") {
		t.Fatalf("GET /statusz = %d, want the whole page", got.code)
	}
	for _, markup := range []string{"<script", "<img", "javascript:", "ZgotmplZ"} {
		if strings.Contains(got.body, markup) {
			t.Errorf("GET /statusz holds %q", markup)
		}
	}
	if n := strings.Count(got.body, "&lt;script&gt;"); n < 30 {
		t.Errorf("GET /statusz shows the text %d times as text, want it in every field", n)
	}
}

func TestSecurityHeaders(t *testing.T) {
	w := start(t, busy())
	for _, path := range []string{"/livez", "/readyz", "/metrics", "/statusz", "/statusz?format=json", "/nothing", "/v1/freeze"} {
		h := w.get(t, path).header
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
		} {
			if got := h.Get(name); got != want {
				t.Errorf("GET %s: %s = %q, want %q", path, name, got, want)
			}
		}
		if got := h.Get("Content-Security-Policy"); !strings.HasPrefix(got, "default-src 'none'; style-src 'sha256-") {
			t.Errorf("GET %s: Content-Security-Policy = %q", path, got)
		}
	}
}

// The policy names the style sheet by the hash of what the browser receives.
func TestThePolicyAllowsTheStyleSheet(t *testing.T) {
	got := start(t, healthy()).get(t, "/statusz")
	_, rest, _ := strings.Cut(got.body, "<style>")
	style, _, found := strings.Cut(rest, "</style>")
	sum := sha256.Sum256([]byte(style))
	want := "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	if policy := got.header.Get("Content-Security-Policy"); !found || !strings.Contains(policy, want) {
		t.Errorf("Content-Security-Policy = %q, want it to allow %s", policy, want)
	}
}

func TestRouting(t *testing.T) {
	w := start(t, healthy())
	if got := w.get(t, "/"); got.code != http.StatusFound || got.header.Get("Location") != "/statusz" {
		t.Errorf("GET / = %d to %q, want 302 to /statusz", got.code, got.header.Get("Location"))
	}
	if got := w.get(t, "/debug/pprof/"); got.code != 404 {
		t.Errorf("GET /debug/pprof/ = %d, want 404", got.code)
	}
	if got := w.do(t, w.client(), http.MethodPost, "/statusz", ""); got.code != 405 {
		t.Errorf("POST /statusz = %d, want 405", got.code)
	}
}

func TestPlainHTTPIsAnsweredWithNothing(t *testing.T) {
	h := status.New(status.Options{Source: &source{view: busy()}, Logger: zap.NewNop()}).Handler()
	for _, path := range []string{"/livez", "/statusz", "/metrics"} {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "http://localhost"+path, nil))
		if rec.Code != http.StatusForbidden || rec.Body.String() != "this endpoint speaks HTTPS only\n" {
			t.Errorf("GET http://localhost%s = %d %q, want 403", path, rec.Code, rec.Body)
		}
	}
}

// TestAStandbySaysWhoLeads, is ready, and raises no alarm of a daemon that
// lost GitHub.
func TestAStandbySaysWhoLeads(t *testing.T) {
	v := empty()
	v.StandingBy, v.Leader, v.Why = true, "runnerward-1_x", []string{"this daemon stands by; ask the one that leads, runnerward-1_x"}
	v.Checks = []supervisor.HealthCheck{{Name: "standby", OK: true, Detail: "ready to take over from runnerward-1_x"}}
	w := start(t, v)
	for path, want := range map[string]string{
		"/readyz":              "ok\n",
		"/statusz?format=html": "stands by, and <code>runnerward-1_x</code> leads",
		"/statusz?format=json": `"standingBy": true`,
		"/metrics":             "\nrunnerward_seconds_since_last_poll 0\n",
	} {
		if got := w.get(t, path); got.code != http.StatusOK || !strings.Contains(got.body, want) {
			t.Errorf("GET %s = %d %s, want %q", path, got.code, got.body, want)
		}
	}
	if got := w.get(t, "/metrics"); !strings.Contains(got.body, "\nrunnerward_leader 0\n") {
		t.Error("a standby counts as the leader")
	}
}
