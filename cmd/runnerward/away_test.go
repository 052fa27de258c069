package main

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/runnerward/runnerward/pkg/config"
)

// answering is an AWS service that always answers this, to one try.
func answering(t *testing.T, status int, contentType, body string) *httptest.Server {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	return server
}

// caOf is a file with the certificate of this server.
func caOf(t *testing.T, server *httptest.Server) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// askS3 is how openStore fails at a bucket whose server answers like this.
func askS3(t *testing.T, server *httptest.Server) error {
	t.Helper()
	c := newCloud(t)
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	c.at.Endpoint, c.at.CAFile = server.URL, caOf(t, server)
	_, _, err := openStore(t.Context(), c.config())
	return err
}

// askKMS is how openKeys fails when KMS answers like this.
func askKMS(t *testing.T, server *httptest.Server) error {
	t.Helper()
	cfg, arn := ledgerIn(t.TempDir()), "arn:aws:kms:us-east-1:111122223333:key/x"
	inKMSAt(t, cfg, server, config.LedgerKMS{RecordKey: arn, CheckpointKey: arn})
	_, err := openKeys(t.Context(), cfg)
	return err
}

// TestWhatPassesByItselfIsWaitedFor holds unanswered to errors as the SDK makes
// them of real answers: the codes and statuses are those of S3's
// ErrorResponses.html and of KMS's API_GetPublicKey.html and CommonErrors.html.
func TestWhatPassesByItselfIsWaitedFor(t *testing.T) {
	for _, tc := range []struct {
		code   string
		status int
		ask    func(*testing.T, *httptest.Server) error
		want   bool
	}{
		{"InternalError", 500, askS3, true},
		{"SlowDown", 503, askS3, true},
		{"ServiceUnavailable", 503, askS3, true},
		{"SlowDown", 429, askS3, true},
		{"TooManyRequests", 429, askS3, true},
		{"RequestTimeout", 400, askS3, true},
		{"", 200, askS3, true}, // an answer that breaks off
		{"AccessDenied", 403, askS3, false},
		{"NoSuchBucket", 404, askS3, false},
		{"PermanentRedirect", 301, askS3, false},
		{"InvalidRequest", 400, askS3, false},
		{"ThrottlingException", 400, askKMS, true},
		{"KMSInternalException", 500, askKMS, true},
		{"DependencyTimeoutException", 503, askKMS, true},
		{"AccessDeniedException", 400, askKMS, false},
		{"NotFoundException", 400, askKMS, false},
		{"DisabledException", 409, askKMS, false},
		{"KMSInvalidStateException", 409, askKMS, false},
	} {
		t.Run(fmt.Sprint(tc.status, tc.code), func(t *testing.T) {
			contentType, body := "application/xml", "<Error><Code>"+tc.code+"</Code><Message>no</Message></Error>"
			if strings.HasSuffix(tc.code, "Exception") {
				contentType, body = "application/x-amz-json-1.1", `{"__type":"`+tc.code+`","message":"no"}`
			}
			if tc.status == http.StatusOK {
				body = "<VersioningConfiguration><Sta"
			}
			err := tc.ask(t, answering(t, tc.status, contentType, body))
			if err == nil || unanswered(err) != tc.want {
				t.Errorf("unanswered(%v) = %t, want %t", err, !tc.want, tc.want)
			}
		})
	}
	for name, ask := range map[string]func(*testing.T, *httptest.Server) error{"S3": askS3, "KMS": askKMS} {
		server := answering(t, http.StatusOK, "", "")
		server.Close()
		if err := ask(t, server); err == nil || !strings.Contains(err.Error(), "connection refused") || !unanswered(err) {
			t.Errorf("%s that nobody serves: %v, want it waited for", name, err)
		}
	}
	if unanswered(errors.New("bucket evidence has no Object Lock")) {
		t.Error("what no call failed at is waited for")
	}
}
