package admission_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/runnerward/runnerward/pkg/admission"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

const (
	name     = runner.Name("hipaa-prod-7k2m")
	podToken = "eyJhbGciOiJSUzI1NiJ9.CANARYPODPAYLOAD.CANARYPODSIGNATURE"
	jobToken = "eyJhbGciOiJSUzI1NiJ9.CANARYJOBPAYLOAD.CANARYJOBSIGNATURE"
	jit      = "CANARYJITCONFIG"
)

var errPanic = errors.New("panic with " + podToken)

// gate knows one runner, whose pod may claim once and whose job may start once.
type gate struct {
	err     error // what every question fails with
	started supervisor.StartAnswer
	bound   runner.Digest

	entered, proceed chan struct{} // when set, a claim waits in between
	deadline         chan bool     // when set, told whether a claim has one
}

func (g *gate) ask(ctx context.Context, n runner.Name, pod string) error {
	switch {
	case g.err == errPanic:
		panic(g.err)
	case g.err != nil:
		return g.err
	case n != name:
		return fmt.Errorf("runner %s: %w", n, supervisor.ErrConflict)
	case pod != podToken:
		return fmt.Errorf("review %s: %w", pod, supervisor.ErrTokenRejected)
	}
	return context.Cause(ctx)
}

func (g *gate) Claim(ctx context.Context, n runner.Name, pod string) (supervisor.ClaimAnswer, error) {
	if g.deadline != nil {
		_, has := ctx.Deadline()
		g.deadline <- has
	}
	if g.entered != nil {
		g.entered <- struct{}{}
		<-g.proceed
	}
	if err := g.ask(ctx, n, pod); err != nil {
		return supervisor.ClaimAnswer{}, err
	}
	return supervisor.ClaimAnswer{JITConfig: supervisor.NewSecret(jit), Bound: g.bound}, nil
}

func (g *gate) Start(ctx context.Context, n runner.Name, pod, job string) (supervisor.StartAnswer, error) {
	if err := g.ask(ctx, n, pod); err != nil {
		return supervisor.StartAnswer{}, err
	}
	switch job {
	case jobToken:
		return g.started, nil
	case "":
		return supervisor.StartAnswer{Verdict: supervisor.StartRefused, Reasons: []string{"no-oidc-token"}}, nil
	}
	return supervisor.StartAnswer{}, fmt.Errorf("verify %s: %w", job, supervisor.ErrTokenRejected)
}

type server struct {
	*httptest.Server
	logs *observer.ObservedLogs
}

func serve(t *testing.T, g *gate, limits admission.Limits) server {
	t.Helper()
	if g.bound == "" {
		g.bound = runner.DigestOf([]byte("bound"))
	}
	core, logs := observer.New(zapcore.DebugLevel)
	s := httptest.NewTLSServer(admission.NewHandler(g, zap.New(core), limits))
	t.Cleanup(s.Close)
	return server{s, logs}
}

type request struct {
	method, path, body string
	header             http.Header
}

func claim() request {
	return request{"POST", "/v1/runners/" + string(name) + "/claim", "{}", http.Header{
		"Authorization": {"Bearer " + podToken}, "Content-Type": {"application/json"},
	}}
}

func start(token string) request {
	r := claim()
	r.path, r.body = "/v1/runners/"+string(name)+"/start", `{"token":"`+token+`"}`
	return r
}

func (r request) with(change func(*request)) request { change(&r); return r }

func (s server) do(t *testing.T, r request) (status int, body string, header http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), r.method, s.URL+r.path, strings.NewReader(r.body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = r.header
	resp, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(b)), resp.Header
}

func (s server) wantNoCanary(t *testing.T, response string) {
	t.Helper()
	if strings.Contains(response, "CANARY") {
		t.Errorf("the response shows a token: %s", response)
	}
	for _, entry := range s.logs.All() {
		if text := fmt.Sprint(entry.Message, entry.ContextMap()); strings.Contains(text, "CANARY") {
			t.Errorf("the log shows a secret: %s", text)
		}
	}
}

func TestEveryQuestionIsAnsweredAsDocumented(t *testing.T) {
	record := runner.DigestOf([]byte("started"))
	allowed := supervisor.StartAnswer{Verdict: supervisor.StartAllowed, Record: record}
	long := strings.Repeat("a", 17<<10)
	final := func(message string) string { return `{"error":"` + message + `","final":true}` }
	later := func(message string) string { return `{"error":"` + message + `","final":false}` }
	down := later("no answer can be had now")
	noBody := final("the body is not the JSON object that is wanted")
	for what, tt := range map[string]struct {
		gate   gate
		ask    request
		status int
		body   string
	}{
		"a claim": {ask: claim(), status: 200,
			body: `{"jitConfig":"` + jit + `","bound":"` + string(runner.DigestOf([]byte("bound"))) + `"}`},
		"an allowed start": {gate: gate{started: allowed}, ask: start(jobToken), status: 200,
			body: `{"verdict":"allowed","reasons":[],"record":"` + string(record) + `"}`},
		"a pending start": {gate: gate{started: supervisor.StartAnswer{Verdict: supervisor.StartPending}}, ask: start(jobToken),
			status: 200, body: `{"verdict":"pending","reasons":[]}`},
		"a job without a token is the gate's to refuse": {ask: start(""), status: 200,
			body: `{"verdict":"refused","reasons":["no-oidc-token"]}`},

		"a rejected pod token": {ask: claim().with(func(r *request) {
			r.header.Set("Authorization", "Bearer other")
		}), status: 401, body: later("the token was not accepted")},
		"a rejected job token":           {ask: start("CANARYOTHER"), status: 401, body: later("the token was not accepted")},
		"a conflict":                     {gate: gate{err: fmt.Errorf("bind: %w", supervisor.ErrConflict)}, ask: claim(), status: 409, body: final("this runner is not for you")},
		"any other error":                {gate: gate{err: errors.New("dial " + podToken)}, ask: claim(), status: 503, body: down},
		"an error that quotes a payload": {gate: gate{err: errors.New("decode CANARYJOBPAYLOAD")}, ask: start(jobToken), status: 503, body: down},
		"a panic":                        {gate: gate{err: errPanic}, ask: start(jobToken), status: 503, body: down},
		"a bound digest of no shape":     {gate: gate{bound: "CANARY"}, ask: claim(), status: 503, body: down},
		"an unknown verdict":             {gate: gate{started: supervisor.StartAnswer{Verdict: "yes", Record: record}}, ask: start(jobToken), status: 503, body: down},
		"no verdict":                     {ask: start(jobToken), status: 503, body: down},
		"an allowance without a record":  {gate: gate{started: supervisor.StartAnswer{Verdict: supervisor.StartAllowed}}, ask: start(jobToken), status: 503, body: down},
		"an allowance with a reason against it": {gate: gate{started: supervisor.StartAnswer{Verdict: supervisor.StartAllowed, Record: record, Reasons: []string{"x"}}},
			ask: start(jobToken), status: 503, body: down},
		"a refusal without a reason": {gate: gate{started: supervisor.StartAnswer{Verdict: supervisor.StartRefused}}, ask: start(jobToken), status: 503, body: down},
		"a reason that the runner would obey": {gate: gate{started: supervisor.StartAnswer{Verdict: supervisor.StartRefused, Reasons: []string{"::add-path::/tmp"}}},
			ask: start(jobToken), status: 503, body: down},

		"another path":                  {ask: claim().with(func(r *request) { r.path = "/v1/runners" }), status: 404, body: final("no such path")},
		"another version":               {ask: claim().with(func(r *request) { r.path = "/v2/runners/x/claim" }), status: 404, body: final("no such path")},
		"a name of another shape":       {ask: claim().with(func(r *request) { r.path = "/v1/runners/Not_A_Name/claim" }), status: 404, body: final("no such runner")},
		"a name with an escaped slash":  {ask: claim().with(func(r *request) { r.path = "/v1/runners/a%2Fb/claim" }), status: 404, body: final("no such runner")},
		"another method":                {ask: claim().with(func(r *request) { r.method = "PUT" }), status: 405, body: final("POST only")},
		"another content type":          {ask: claim().with(func(r *request) { r.header.Set("Content-Type", "text/plain") }), status: 415, body: final("application/json only")},
		"no content type":               {ask: claim().with(func(r *request) { r.header.Del("Content-Type") }), status: 415, body: final("application/json only")},
		"no bearer":                     {ask: claim().with(func(r *request) { r.header.Del("Authorization") }), status: 401, body: later("no bearer token")},
		"an empty bearer":               {ask: claim().with(func(r *request) { r.header.Set("Authorization", "Bearer ") }), status: 401, body: later("no bearer token")},
		"another scheme":                {ask: claim().with(func(r *request) { r.header.Set("Authorization", "Basic "+podToken) }), status: 401, body: later("no bearer token")},
		"a bearer with a space":         {ask: claim().with(func(r *request) { r.header.Set("Authorization", "Bearer a b") }), status: 401, body: later("no bearer token")},
		"two bearers":                   {ask: claim().with(func(r *request) { r.header.Add("Authorization", "Bearer x") }), status: 401, body: later("no bearer token")},
		"a bearer that is too long":     {ask: claim().with(func(r *request) { r.header.Set("Authorization", "Bearer "+long) }), status: 401, body: later("no bearer token")},
		"a job token that is too long":  {ask: start(long), status: 400, body: final("the job's token is malformed")},
		"a job token with a line break": {ask: start(`CANARY\nX`), status: 400, body: final("the job's token is malformed")},
		"a body that is too large":      {ask: start(strings.Repeat(long, 4)), status: 413, body: final("the body is too large")},
		"an unknown field":              {ask: claim().with(func(r *request) { r.body = `{"x":1}` }), status: 400, body: noBody},
		"an unknown field beside":       {ask: claim().with(func(r *request) { *r = start(""); r.body = `{"token":"","x":1}` }), status: 400, body: noBody},
		"two documents":                 {ask: claim().with(func(r *request) { r.body = `{}{}` }), status: 400, body: noBody},
		"something after the document":  {ask: claim().with(func(r *request) { r.body = `{}]` }), status: 400, body: noBody},
		"no body":                       {ask: claim().with(func(r *request) { r.body = "" }), status: 400, body: noBody},
		"another type":                  {ask: claim().with(func(r *request) { *r = start(""); r.body = `{"token":1}` }), status: 400, body: noBody},
	} {
		t.Run(what, func(t *testing.T) {
			s := serve(t, &tt.gate, admission.Limits{})
			status, body, header := s.do(t, tt.ask)
			if status != tt.status || body != tt.body {
				t.Errorf("answer = %d %s, want %d %s", status, body, tt.status, tt.body)
			}
			if got := header.Get("Cache-Control"); got != "no-store" {
				t.Errorf("Cache-Control = %q, want no-store", got)
			}
			if got := header.Get("WWW-Authenticate"); (status == 401) != (got == "Bearer") {
				t.Errorf("status %d with WWW-Authenticate %q", status, got)
			}
			s.wantNoCanary(t, strings.ReplaceAll(body, `"jitConfig":"`+jit, ""))
		})
	}
}

func TestTheLogSaysWhoAskedAndWhatWasAnswered(t *testing.T) {
	s := serve(t, &gate{started: supervisor.StartAnswer{Verdict: supervisor.StartRefused, Reasons: []string{"run.attempt"}}}, admission.Limits{})
	s.do(t, start(jobToken))
	entries := s.logs.FilterMessage("admission question answered").All()
	if len(entries) != 1 {
		t.Fatalf("%d log entries, want 1", len(entries))
	}
	got := entries[0].ContextMap()
	if got["runner"] != string(name) || got["question"] != "start" || got["verdict"] != "refused" ||
		fmt.Sprint(got["reasons"]) != "[run.attempt]" || got["latency"] == nil {
		t.Errorf("log entry = %v, want runner, question, verdict, reasons and latency", got)
	}
	s.wantNoCanary(t, "")
}

func TestASecondClaimOfARunnerWaitsForTheFirst(t *testing.T) {
	g := &gate{entered: make(chan struct{}), proceed: make(chan struct{}), started: supervisor.StartAnswer{Verdict: supervisor.StartPending}}
	s := serve(t, g, admission.Limits{})
	first := make(chan int, 1)
	go func() {
		status, _, _ := s.do(t, claim())
		first <- status
	}()
	<-g.entered
	if status, body, _ := s.do(t, claim()); status != 429 || !strings.Contains(body, `"final":false`) {
		t.Errorf("claim beside a claim = %d %s, want 429, not final", status, body)
	}
	if status, _, _ := s.do(t, start(jobToken)); status != 200 {
		t.Errorf("start beside a claim = %d, want 200", status)
	}
	close(g.proceed)
	if status := <-first; status != 200 {
		t.Errorf("first claim = %d, want 200", status)
	}
	go func() { <-g.entered }()
	if status, _, _ := s.do(t, claim()); status != 200 {
		t.Errorf("claim after the claim = %d, want 200", status)
	}
}

func TestAFullServerSaysAskAgain(t *testing.T) {
	g := &gate{entered: make(chan struct{}), proceed: make(chan struct{})}
	s := serve(t, g, admission.Limits{Calls: 1})
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.do(t, claim())
	}()
	<-g.entered
	if status, _, _ := s.do(t, start(jobToken)); status != 503 {
		t.Errorf("question to a full server = %d, want 503", status)
	}
	close(g.proceed)
	<-done
}

func TestARunnerThatAsksTooOftenIsSlowedAlone(t *testing.T) {
	s := serve(t, &gate{}, admission.Limits{Burst: 2, Refill: time.Hour, Runners: 2})
	other := start("").with(func(r *request) { r.path = "/v1/runners/other/start" })
	for i, tt := range []struct {
		ask  request
		want int
	}{{start(""), 200}, {start(""), 200}, {start(""), 429}, {other, 409}, {start(""), 429}, {claim(), 200}} {
		if status, _, _ := s.do(t, tt.ask); status != tt.want {
			t.Errorf("question %d = %d, want %d", i, status, tt.want)
		}
	}
}

func TestTheGateIsAskedWithADeadline(t *testing.T) {
	g := &gate{deadline: make(chan bool, 1)}
	s := serve(t, g, admission.Limits{})
	s.do(t, claim())
	if !<-g.deadline {
		t.Error("the gate was asked without a deadline")
	}
}
