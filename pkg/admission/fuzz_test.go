package admission_test

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/admission"
	"github.com/runnerward/runnerward/pkg/admission/wire"
)

// FuzzQuestion: whatever a hostile pod sends, it is answered with JSON, nothing
// panics, no answer repeats a token, and only the runner's own pod is let through.
func FuzzQuestion(f *testing.F) {
	for _, seed := range []struct{ verb, who, authorization, kind, body string }{
		{"claim", string(name), "Bearer " + podToken, "application/json", `{}`},
		{"start", string(name), "Bearer " + podToken, "application/json", `{"token":"` + jobToken + `"}`},
		{"start", string(name), "bearer " + podToken, "application/json; charset=utf-8", `{"token":""}`},
		{"claim", string(name), "Basic eDp5", "text/plain", `null`},
		{"start", "..", "Bearer  x", "application/json", `{"token":"a","token":"b"}`},
		{"claim", "A%00", "Bearer \x7f", "application/json;;", `{"x":` + strings.Repeat("[", 2000)},
		{"start", strings.Repeat("a", 300), "", "", "\xff\xfe"},
	} {
		f.Add(seed.verb, seed.who, seed.authorization, seed.kind, []byte(seed.body))
	}
	f.Fuzz(func(t *testing.T, verb, who, authorization, kind string, body []byte) {
		h := admission.NewHandler(&gate{}, zap.NewNop(), admission.Limits{})
		path := wire.ClaimPath(name)
		if verb == "start" {
			path = wire.StartPath(name)
		}
		r := httptest.NewRequest("POST", path, strings.NewReader(string(body)))
		r.URL.Path = strings.Replace(r.URL.Path, string(name), who, 1)
		r.Header["Authorization"] = []string{authorization}
		r.Header["Content-Type"] = []string{kind}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code >= 300 && w.Code < 400 || w.Code == 404 && w.Header().Get("Content-Type") != "application/json" {
			return // a path of nobody's
		}
		var answer map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			t.Errorf("HTTP %d with %q, want JSON", w.Code, w.Body)
		}
		_, token, _ := strings.Cut(authorization, " ")
		if w.Code == 200 && (who != string(name) || token != podToken) {
			t.Errorf("%s of %q with %q was answered %s", verb, who, authorization, w.Body)
		}
		if len(token) >= 16 && strings.Contains(w.Body.String(), token) {
			t.Errorf("the answer repeats the token: %s", w.Body)
		}
	})
}
