package status_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/status"
)

const asJSON = "application/json"

func TestFreezeAndUnfreeze(t *testing.T) {
	const uri = "spiffe://prod/ns/ops/sa/breakglass"
	w := start(t, healthy(), "oncall", uri, "Jane Doe")
	admin := w.issue(t, "oncall", "oncall")
	byURI := w.issue(t, "glass", "", uri)
	other := w.issue(t, "intern", "intern")
	spaced := w.issue(t, "jane", "Jane Doe")
	const good = `{"reason":"CVE-2026-0001"}`
	for _, tc := range []struct {
		name, path, body string
		cert             *tls.Certificate
		header           []string
		code             int
		says             string
		calls            []string
	}{
		{"an administrator freezes", "/v1/freeze", good, &admin, nil, 200, "", []string{"freeze cert:oncall CVE-2026-0001"}},
		{"an administrator unfreezes", "/v1/unfreeze", "{}", &admin, nil, 200, "", []string{"unfreeze cert:oncall"}},
		{"unfreeze needs no body", "/v1/unfreeze", "", &admin, nil, 200, "", []string{"unfreeze cert:oncall"}},
		{"a certificate may be listed by its URI", "/v1/freeze", good, &byURI, nil, 200, "",
			[]string{"freeze cert:" + uri + " CVE-2026-0001"}},
		{"no certificate", "/v1/freeze", good, nil, nil, 401, "present a client certificate", nil},
		{"another name", "/v1/freeze", good, &other, nil, 403, `of \"intern\" is genuine but not an administrator's`, nil},
		{"another name may not unfreeze", "/v1/unfreeze", "{}", &other, nil, 403, "not an administrator's", nil},
		{"a name that the ledger cannot hold", "/v1/freeze", good, &spaced, nil, 403, "cannot be recorded", nil},
		{"free text", "/v1/freeze", `{"reason":"patient John Smith complained"}`, &admin, nil, 400, "the ledger takes no free text", nil},
		{"a reason that looks like a credential", "/v1/freeze", `{"reason":"ghp_abcdef"}`, &admin, nil, 400, "not look like a credential", nil},
		{"a reason of 129 characters", "/v1/freeze", `{"reason":"` + strings.Repeat("a", 129) + `"}`, &admin, nil, 400, "must match", nil},
		{"no reason", "/v1/freeze", `{}`, &admin, nil, 400, "must be one word", nil},
		{"no body", "/v1/freeze", ``, &admin, nil, 400, "the body is empty", nil},
		{"a misspelt member", "/v1/freeze", `{"raison":"x"}`, &admin, nil, 400, "not the JSON object", nil},
		{"two objects", "/v1/freeze", good + good, &admin, nil, 400, "goes on after", nil},
		{"too long a body", "/v1/freeze", `{"reason":"` + strings.Repeat("a", 5000) + `"}`, &admin, nil, 413, "longer than 4096 bytes", nil},
		{"a form", "/v1/freeze", "reason=x", &admin, []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "Content-Type", nil},
		{"a hostile page in the administrator's browser", "/v1/freeze", good, &admin,
			[]string{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"}, 403, "a web page may not", nil},
		{"a page of a neighbouring site", "/v1/unfreeze", "{}", &admin, []string{"Sec-Fetch-Site", "same-site"}, 403, "a web page may not", nil},
		{"an old browser that only sends Origin", "/v1/unfreeze", "{}", &admin, []string{"Origin", "https://evil.example"}, 403, "a web page may not", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w.lever.calls = nil
			client := w.client()
			if tc.cert != nil {
				client = w.client(*tc.cert)
			}
			got := w.do(t, client, http.MethodPost, tc.path, tc.body, append([]string{"Content-Type", asJSON}, tc.header...)...)
			if got.code != tc.code || !strings.Contains(got.body, tc.says) {
				t.Errorf("POST %s = %d %s, want %d %q", tc.path, got.code, got.body, tc.code, tc.says)
			}
			if !slices.Equal(w.lever.calls, tc.calls) {
				t.Errorf("the supervisor was asked %q, want %q", w.lever.calls, tc.calls)
			}
			if got.code == 401 && got.header.Get("WWW-Authenticate") == "" {
				t.Errorf("a 401 without WWW-Authenticate")
			}
		})
	}
}

func TestAForeignAuthoritysCertificateIsTurnedAwayInTheHandshake(t *testing.T) {
	w := start(t, healthy(), "oncall")
	forged := newAuthority(t).issue(t, "oncall", "oncall")
	client := w.client()
	// Go's client sends no certificate that the server's list of authorities
	// does not ask for; a forger would.
	client.Transport.(*http.Transport).TLSClientConfig.GetClientCertificate =
		func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &forged, nil }
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.url+"/v1/unfreeze", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", asJSON)
	if resp, err := client.Do(req); err == nil {
		t.Errorf("POST /v1/unfreeze with a forged certificate = %d, want no connection", resp.StatusCode)
		resp.Body.Close()
	}
	if len(w.lever.calls) != 0 {
		t.Errorf("the supervisor was asked %q, want nothing", w.lever.calls)
	}
}

func TestNobodyIsAnAdministratorUnlessListed(t *testing.T) {
	w := start(t, healthy())
	cert := w.issue(t, "oncall", "oncall")
	got := w.do(t, w.client(cert), http.MethodPost, "/v1/freeze", `{"reason":"x"}`, "Content-Type", asJSON)
	if got.code != 403 || !strings.Contains(got.body, "names no administrator") || len(w.lever.calls) != 0 {
		t.Errorf("POST /v1/freeze = %d %s after %q, want 403 and no call", got.code, got.body, w.lever.calls)
	}
}

func TestControlIsNeverReadOnly(t *testing.T) {
	w := start(t, healthy(), "oncall")
	client := w.client(w.issue(t, "oncall", "oncall"))
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete} {
		for _, path := range []string{"/v1/freeze", "/v1/unfreeze"} {
			got := w.do(t, client, method, path, "")
			if got.code != 405 || got.header.Get("Allow") != "POST" {
				t.Errorf("%s %s = %d, Allow %q, want 405 and POST", method, path, got.code, got.header.Get("Allow"))
			}
		}
	}
	if len(w.lever.calls) != 0 {
		t.Errorf("the supervisor was asked %q, want nothing", w.lever.calls)
	}
}

func TestAFailedFreezeIsNotCalledFrozen(t *testing.T) {
	w := start(t, healthy(), "oncall")
	for _, tc := range []struct {
		err   error
		says  string
		doubt bool
	}{
		{errors.New("append: disk full"), "disk full", true},
		{fmt.Errorf("%w: the daemon starts", status.ErrUntouched), "nothing was recorded: the daemon starts", false},
	} {
		w.lever.err = tc.err
		got := w.do(t, w.client(w.issue(t, "oncall", "oncall")), http.MethodPost, "/v1/freeze", `{"reason":"x"}`, "Content-Type", asJSON)
		var body struct {
			OK    bool
			Error string
		}
		if err := json.Unmarshal([]byte(got.body), &body); err != nil {
			t.Fatal(err)
		}
		if got.code != 503 || body.OK || strings.Contains(body.Error, "may or may not") != tc.doubt || !strings.Contains(body.Error, tc.says) {
			t.Errorf("POST /v1/freeze = %d %+v, want 503, %q, doubt %t", got.code, body, tc.says, tc.doubt)
		}
	}
}

// Whether a freeze is durable must not depend on the patience of who asked.
func TestAClientThatHangsUpDoesNotTakeItBack(t *testing.T) {
	heard := &contextLever{}
	h := status.New(status.Options{Source: &source{}, Control: heard, Admins: []string{"oncall"}, Logger: zap.NewNop()}).Handler()
	gone, hangUp := context.WithCancel(t.Context())
	hangUp()
	req := httptest.NewRequestWithContext(gone, http.MethodPost, "https://localhost/v1/freeze", strings.NewReader(`{"reason":"x"}`))
	req.Header.Set("Content-Type", asJSON)
	req.TLS.VerifiedChains = [][]*x509.Certificate{{newAuthority(t).issue(t, "oncall", "oncall").Leaf}}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, req)
	if rec.Code != 200 || heard.err != nil || !heard.bounded {
		t.Errorf("POST /v1/freeze by a client that is gone = %d; the supervisor's context: %v, bounded %t; want it live and bounded",
			rec.Code, heard.err, heard.bounded)
	}
}

// contextLever looks at the context it is given.
type contextLever struct {
	lever
	err     error
	bounded bool
}

func (l *contextLever) Freeze(ctx context.Context, _, _ string) error {
	l.err = ctx.Err()
	_, l.bounded = ctx.Deadline()
	return nil
}
