package github

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// reply is one answer of a pretend connection.
type reply struct {
	status int
	head   map[string]string
	body   string
}

// line answers with its replies in turn, the last one for ever, and keeps the
// requests.
type line struct {
	replies []reply
	asked   []*http.Request
}

func (l *line) RoundTrip(req *http.Request) (*http.Response, error) {
	l.asked = append(l.asked, req)
	r := l.replies[min(len(l.asked), len(l.replies))-1]
	resp := &http.Response{StatusCode: r.status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(r.body)), Request: req}
	for name, value := range r.head {
		resp.Header.Set(name, value)
	}
	return resp, nil
}

func get(t *testing.T, rt http.RoundTripper, url string) (string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Status + string(b), nil
}

const api = "https://api.github.com"

func TestWhoIsThrottledAsksNothingUntilItMay(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer reply
		wait   time.Duration
	}{
		{"for the time that GitHub asks", reply{429, map[string]string{"Retry-After": "5"}, ""}, 5 * time.Second},
		{"also when it forbids", reply{403, map[string]string{"Retry-After": "90"}, ""}, 90 * time.Second},
		{"for a minute when it does not say", reply{429, nil, ""}, time.Minute},
		{"or says it in words that we do not know", reply{429, map[string]string{"Retry-After": "soon"}, ""}, time.Minute},
		{"for a day at most", reply{429, map[string]string{"Retry-After": "4294967295"}, ""}, 24 * time.Hour},
		{"not over a refusal that is none of a limit", reply{403, map[string]string{"X-RateLimit-Remaining": "7"}, ""}, 0},
		{"nor over an exhausted budget, which go-github knows of", reply{403, map[string]string{"X-RateLimit-Remaining": "0"}, ""}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &line{replies: []reply{test.answer, {200, nil, "{}"}}}
				m := newMeter(l)
				if _, err := get(t, m, api+"/orgs/acme"); err != nil {
					t.Fatal(err)
				}
				if test.wait > 0 {
					<-time.After(test.wait - time.Second)
					_, err := get(t, m, api+"/user")
					h, ok := errors.AsType[*held](err)
					if !ok || !errors.Is(err, ErrRateLimited) || h.wait != time.Second || len(l.asked) != 1 {
						t.Fatalf("asked %d times, %v, want to be held back for another second", len(l.asked), err)
					}
					<-time.After(time.Second)
				}
				if _, err := get(t, m, api+"/user"); err != nil || len(l.asked) != 2 {
					t.Errorf("afterwards asked %d times, %v, want 2", len(l.asked), err)
				}
			})
		})
	}
}

func TestTheLongestThrottlingCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{}
		m := newMeter(l)
		for _, seconds := range []string{"3600", "5"} { // answers of requests under way at once
			m.note(&http.Response{StatusCode: 429, Header: http.Header{"Retry-After": {seconds}}})
		}
		if _, err := get(t, m, api); !errors.Is(err, ErrRateLimited) || time.Until(m.until) != time.Hour {
			t.Errorf("held back for %s, %v, want an hour", time.Until(m.until), err)
		}
		if h := m.health(); h.Rates[0].Throttled != 2 {
			t.Errorf("health() = %+v, want two throttlings", h)
		}
	})
}

func TestCountersOfLateAnswers(t *testing.T) {
	m := newMeter(nil)
	for _, c := range []struct{ path, limit, remaining, reset string }{
		{"/repos/acme/app/actions", "5000", "4000", "200"},
		{"/orgs/acme", "5000", "4002", "200"}, // counted before the one above
		{"/orgs/acme", "5000", "9", "100"},    // of the window before
		{"/orgs/acme", "5000", "-3", "300"},   // not a counter
		{"/orgs/acme", "", "17", "300"},       // half of one
		{"/api/v3/app/hook/deliveries", "60", "59", "200"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, api+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp := &http.Response{StatusCode: 200, Request: req, Header: http.Header{}}
		resp.Header.Set("X-RateLimit-Resource", "core")
		resp.Header.Set("X-RateLimit-Limit", c.limit)
		resp.Header.Set("X-RateLimit-Remaining", c.remaining)
		resp.Header.Set("X-RateLimit-Reset", c.reset)
		m.note(resp)
	}
	rates := m.health().Rates
	if len(rates) != 2 || rates[0].Resource != "core" || rates[0].Remaining != 4000 || rates[0].Reset.Unix() != 200 {
		t.Fatalf("rates = %+v, want core with 4000 left", rates)
	}
	if rates[1].Resource != "core_app" || rates[1].Limit != 60 || rates[1].Remaining != 59 {
		t.Errorf("rates = %+v, want what the App asks as itself apart", rates)
	}
}

func TestWhatHardlyChangesIsRevalidated(t *testing.T) {
	const groups, environment = api + "/orgs/acme/actions/runner-groups?page=1", api + "/repos/o/r/environments/production"
	tagged := func(body string) reply { return reply{200, map[string]string{"ETag": `W/"1"`}, body} }
	for _, test := range []struct {
		name, url string
		first     reply
		want      string // If-None-Match of the second request
	}{
		{"the runner groups", groups, tagged(`{"a":1}`), `W/"1"`},
		{"the environment", environment, tagged(`{"a":1}`), `W/"1"`},
		{"nothing without an ETag", groups, reply{200, nil, `{}`}, ""},
		{"no half answer", groups, tagged(`{"a":`), ""},
		{"none that is too long", groups, tagged(`"` + strings.Repeat("x", maxKeptBody) + `"`), ""},
		{"no refusal", groups, reply{404, map[string]string{"ETag": `W/"1"`}, `{}`}, ""},
		{"not who runs", api + "/orgs/acme/actions/runner-groups/1/runners", tagged(`{}`), ""},
		{"not the reviews", api + "/repos/o/r/actions/runs/1/approvals", tagged(`[]`), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := &line{replies: []reply{test.first, {304, map[string]string{"X-RateLimit-Remaining": "1"}, ""}}}
			rt := newRevalidating(l)
			first, err := get(t, rt, test.url)
			if err != nil {
				t.Fatal(err)
			}
			second, err := get(t, rt, test.url)
			if got := l.asked[1].Header.Get("If-None-Match"); err != nil || got != test.want {
				t.Errorf("asked with If-None-Match %q, %v, want %q", got, err, test.want)
			}
			if test.want != "" && second != "200 OK"+first {
				t.Errorf("the second answer is %q, want that of the first", second)
			}
		})
	}
}

func TestWhatIsKeptIsBounded(t *testing.T) {
	l := &line{replies: []reply{{200, map[string]string{"ETag": "x"}, `{}`}}}
	rt := newRevalidating(l)
	for i := range 10 * maxKept {
		if _, err := get(t, rt, api+"/orgs/acme/actions/runner-groups?page="+strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
		if len(rt.kept) > maxKept {
			t.Fatalf("%d documents are kept, want at most %d", len(rt.kept), maxKept)
		}
	}
}
