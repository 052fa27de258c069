package sims3_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	sims3 "github.com/runnerward/runnerward/pkg/sim/s3"
)

// TestWhatIsNotServedIsRefused: an operation that only resembles one that is
// served would otherwise succeed and do something else.
func TestWhatIsNotServedIsRefused(t *testing.T) {
	server := sims3.New(map[string]sims3.Bucket{"log": {}})
	ask := func(method, path, copySource string) int {
		r := httptest.NewRequest(method, path, strings.NewReader("x"))
		if copySource != "" {
			r.Header.Set("x-amz-copy-source", copySource)
		}
		w := httptest.NewRecorder()
		server.ServeHTTP(w, r)
		if w.Code == http.StatusNotImplemented && !strings.Contains(w.Body.String(), "<Code>NotImplemented</Code>") {
			t.Errorf("%s %s answered %s, want S3's own code", method, path, w.Body)
		}
		return w.Code
	}
	for _, tc := range []struct{ method, path, copySource string }{
		{http.MethodPut, "/log/k?tagging", ""}, {http.MethodPut, "/log/k?legal-hold", ""}, {http.MethodPut, "/log/k", "/log/other"},
		{http.MethodPut, "/log/k?partNumber=1&uploadId=u", ""}, {http.MethodGet, "/log/k?acl", ""}, {http.MethodDelete, "/log/k?tagging", ""},
		{http.MethodPost, "/log?delete", ""}, {http.MethodGet, "/log?policy", ""},
	} {
		if got := ask(tc.method, tc.path, tc.copySource); got != http.StatusNotImplemented {
			t.Errorf("%s %s = %d, want 501", tc.method, tc.path, got)
		}
	}
	if got := ask(http.MethodGet, "/log/k", ""); got != http.StatusNotFound {
		t.Errorf("GET afterwards = %d, want that nothing was written", got)
	}
}
