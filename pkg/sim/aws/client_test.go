package simaws_test

import (
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/smithy-go"

	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
)

// The tests in the files named after services use the real SDK, so that a
// request and an answer mean what the SDK takes them for.

const (
	keyID     = "AKIDEXAMPLE"
	keySecret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
	account   = "111122223333"
)

// inProcess carries requests straight to a handler: sockets would stop a
// synctest bubble's clock.
type inProcess struct{ handler http.Handler }

func (p inProcess) RoundTrip(out *http.Request) (*http.Response, error) {
	in := out.Clone(out.Context())
	in.Host = out.URL.Host
	if in.Body == nil {
		in.Body = http.NoBody
	}
	w := httptest.NewRecorder()
	p.handler.ServeHTTP(w, in)
	if err := out.Context().Err(); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

func newServer() *simaws.Server {
	return simaws.New(simaws.Config{AccessKeyID: keyID, SecretAccessKey: keySecret, Seed: 5})
}

// clientConfig signs with the account's own key and never tries again.
func clientConfig(s *simaws.Server) aws.Config {
	return aws.Config{
		Region:       "us-east-1",
		Credentials:  credentials.NewStaticCredentialsProvider(keyID, keySecret, ""),
		HTTPClient:   &http.Client{Transport: inProcess{s}},
		BaseEndpoint: aws.String("https://aws.example"),
		Retryer:      func() aws.Retryer { return aws.NopRetryer{} },
	}
}

func errorCode(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	return ""
}

// faultsAreTold checks that the fault menu reaches the action under the codes
// of its service, that the fault is used up, and that a call that nobody
// answers is in the log.
func faultsAreTold(t *testing.T, s *simaws.Server, action string, codes map[simaws.FaultKind]string, run func() error) {
	t.Helper()
	for _, kind := range slices.Sorted(maps.Keys(codes)) {
		s.Inject(simaws.Fault{Action: action, Kind: kind})
		if err := run(); errorCode(err) != codes[kind] {
			t.Errorf("%s under %s = %v, want %s", action, kind, err, codes[kind])
		}
		if err := run(); err != nil {
			t.Errorf("%s after %s = %v, want success", action, kind, err)
		}
		calls := s.Requests()
		if spoilt := calls[len(calls)-2]; spoilt.Action != action || spoilt.Code != codes[kind] {
			t.Errorf("the log says %+v, want %s %s", spoilt, action, codes[kind])
		}
	}
}

// hangs checks that a call is answered by nobody once the fault is injected.
func hangs(t *testing.T, s *simaws.Server, action string, run func() error) {
	t.Helper()
	s.Inject(simaws.Fault{Action: action, Kind: simaws.Hang})
	if err := run(); err == nil {
		t.Errorf("%s under hang succeeded", action)
	}
	calls := s.Requests()
	if last := calls[len(calls)-1]; last.Action != action || last.Status != 0 {
		t.Errorf("the log says %+v, want %s without an answer", last, action)
	}
}

const callTimeout = 10 * time.Second
