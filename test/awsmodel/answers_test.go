package awsmodel

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/smithy-go"

	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
)

func errorCode(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	return ""
}

// models are those of the simulated services.
func models(t *testing.T) map[string]model {
	t.Helper()
	out := map[string]model{}
	for _, d := range drives() {
		if _, known := out[d.service]; !known {
			out[d.service] = loadModel(t, d.service)
		}
	}
	return out
}

// The models are large, so they are read once.
func TestAnswersFitAWSsOwnModels(t *testing.T) {
	described := models(t)
	t.Run("answers", func(t *testing.T) { answersFit(t, described) })
	t.Run("faults", func(t *testing.T) { faultsFit(t, described) })
	t.Run("actions", func(t *testing.T) { everyActionIsDriven(t, described) })
	t.Run("mistakes", func(t *testing.T) { mistakesAreFound(t, described) })
}

func answersFit(t *testing.T, described map[string]model) {
	for _, d := range drives() {
		t.Run(d.service+" "+d.operation+" "+d.name, func(t *testing.T) {
			w := newWorld(t)
			if err := d.call(t.Context(), w); errorCode(err) != d.code || err != nil && d.code == "" {
				t.Fatalf("%s = %v, want %q", d.operation, err, d.code)
			}
			w.last.operation = d.operation
			for _, problem := range described[d.service].check(w.last) {
				t.Errorf("%s\n%s", problem, w.last.body)
			}
		})
	}
}

// faultsFit puts every fault of the menu that answers at all to every action.
func faultsFit(t *testing.T, described map[string]model) {
	for _, d := range drives() {
		if d.code != "" {
			continue
		}
		for _, kind := range []simaws.FaultKind{simaws.Throttle, simaws.Unavailable, simaws.Unauthorized, simaws.Stale} {
			w := newWorld(t)
			w.sim.Inject(simaws.Fault{Action: d.operation, Kind: kind})
			// Some services only have the answer of somebody who is wrong.
			err := d.call(t.Context(), w)
			if kind != simaws.Stale && err == nil {
				t.Errorf("%s %s under %s succeeded", d.service, d.operation, kind)
			}
			w.last.operation = d.operation
			for _, problem := range described[d.service].check(w.last) {
				t.Errorf("%s under %s: %s\n%s", d.service, kind, problem, w.last.body)
			}
		}
	}
}

// sign signs a request as the SDK does.
func sign(t *testing.T, r *http.Request, service string, body []byte) {
	t.Helper()
	sum := sha256.Sum256(body)
	err := v4.NewSigner().SignHTTP(t.Context(), aws.Credentials{AccessKeyID: keyID, SecretAccessKey: keySecret}, r,
		hex.EncodeToString(sum[:]), service, region, time.Now())
	if err != nil {
		t.Fatal(err)
	}
}

// send carries a signed request to the simulator.
func (w *world) send(t *testing.T, service, method, path string, header map[string]string, body string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "https://aws.example"+path, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		r.Header.Set(k, v)
	}
	sign(t, r, service, []byte(body))
	resp, err := w.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return w.last
}

// wireCode is the error's code, empty on success.
func (a answer) wireCode(t *testing.T) string {
	t.Helper()
	if a.status < 300 {
		return ""
	}
	if code := a.header.Get("X-Amzn-Errortype"); code != "" {
		return code
	}
	for _, frame := range [][2]string{{`"__type":"`, `"`}, {"<Code>", "</Code>"}} {
		if _, rest, ok := bytes.Cut(a.body, []byte(frame[0])); ok {
			code, _, _ := bytes.Cut(rest, []byte(frame[1]))
			return string(code)
		}
	}
	t.Fatalf("no code in %d %s", a.status, a.body)
	return ""
}

// unserved are the codes for an action that the simulator does not have.
func unserved(code string) bool {
	return code == "InvalidAction" || code == "UnknownOperationException"
}

// served asks for every operation of a model and returns those that are not
// refused as unknown.
func served(t *testing.T, service string, m model) []string {
	t.Helper()
	w := newWorld(t)
	var out []string
	for _, name := range slices.Sorted(maps.Keys(m.Operations)) {
		op := m.Operations[name]
		var got answer
		switch m.Metadata.Protocol {
		case "ec2", "query":
			form := url.Values{"Action": {name}, "Version": {m.Metadata.APIVersion}}
			got = w.send(t, service, http.MethodPost, "/", map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, form.Encode())
		case "json":
			got = w.send(t, service, http.MethodPost, "/", map[string]string{
				"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": m.Metadata.TargetPrefix + "." + name,
			}, "{}")
		default:
			path := strings.NewReplacer("{", "", "}", "").Replace(op.HTTP.RequestURI)
			if !strings.HasPrefix(path, "/clusters") {
				// Only paths of clusters are told from other services' here.
				continue
			}
			got = w.send(t, service, op.HTTP.Method, path, nil, "")
		}
		if !unserved(got.wireCode(t)) {
			out = append(out, name)
		}
	}
	return out
}

func everyActionIsDriven(t *testing.T, described map[string]model) {
	for service, m := range described {
		driven := map[string]bool{}
		for _, d := range drives() {
			if d.service == service && d.code == "" {
				driven[d.operation] = true
			}
		}
		got := served(t, service, m)
		for _, name := range got {
			if !driven[name] {
				t.Errorf("%s serves %s, which no drive of drive_test.go calls with success: add one", service, name)
			}
			delete(driven, name)
		}
		if len(driven) > 0 {
			t.Errorf("%s refuses %v as unknown, but drives call it", service, driven)
		}
	}
}
