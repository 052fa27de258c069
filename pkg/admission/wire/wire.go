// Package wire is what travels between the supervisor's admission API and the
// agent, in a runner pod or as the witness on a host. Both ends import it, so that the agent links neither
// the supervisor nor its logger.
//
// Version 1, JSON over HTTPS. {name} is the runner's name and the bearer is
// the pod's projected service-account token (RFC 6750):
//
//	POST /v1/runners/{name}/claim  {}              200 ClaimAnswer
//	POST /v1/runners/{name}/start  {"token":"…"}   200 StartAnswer
//
// The witness on a host asks one question of its own, with a projected token
// whose audience is runnerward-host. Which node it speaks for is in the token:
//
//	POST /v1/host                  HostRequest     200 HostAnswer
//
// Any other answer has the body [Error]. Final is true for 400, 404, 405, 409,
// 413 and 415: the same question will never be answered otherwise. It is false
// for 401, because the kubelet rotates the pod's token and a job can ask for
// a new one, for 429, and for 503, which says that the answer is unknown.
// An answer that does not decode is unknown too.
//
// A server refuses fields that it does not know; a client ignores them, so
// that a supervisor may be upgraded while runners are alive.
package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"

	"github.com/runnerward/runnerward/pkg/runner"
)

// The bounds of what either end accepts, in bytes.
const (
	MaxBody  = 64 << 10
	MaxToken = 16 << 10
)

// The paths that the server routes.
const (
	ClaimPattern = "/v1/runners/{name}/claim"
	StartPattern = "/v1/runners/{name}/start"
)

// ClaimPath is where the runner claims its JIT config.
func ClaimPath(name runner.Name) string { return path(name, "claim") }

// StartPath is where the runner's hook asks whether a job may start.
func StartPath(name runner.Name) string { return path(name, "start") }

func path(name runner.Name, verb string) string {
	return "/v1/runners/" + url.PathEscape(string(name)) + "/" + verb
}

// ClaimRequest is the body of a claim: everything is in the path and bearer.
type ClaimRequest struct{}

// ClaimAnswer hands over the credential of one runner.
type ClaimAnswer struct {
	// JITConfig is a credential: for the environment of the runner alone.
	JITConfig string `json:"jitConfig"`
	// Bound is the digest of the pod's bound record.
	Bound runner.Digest `json:"bound"`
}

// Check says whether the answer can be used.
func (a ClaimAnswer) Check() error {
	if a.JITConfig == "" {
		return errors.New("no JIT config")
	}
	// An environment variable ends at the first NUL: execve(2).
	if bytes.IndexByte([]byte(a.JITConfig), 0) >= 0 {
		return errors.New("a JIT config with a NUL byte")
	}
	return CheckDigest(a.Bound)
}

// StartRequest carries the token that GitHub signed for the job. An empty
// token says that the job cannot have one: it lacks id-token: write.
type StartRequest struct {
	Token string `json:"token"`
}

// Verdict answers the job-started hook.
type Verdict string

// The verdicts of [StartAnswer].
const (
	Allowed Verdict = "allowed"
	Refused Verdict = "refused"
	Pending Verdict = "pending" // ask again, do not return
)

// StartAnswer says whether the job may start.
type StartAnswer struct {
	Verdict Verdict `json:"verdict"`
	// Reasons are codes, at least one when refused.
	Reasons []string `json:"reasons"`
	// Record is the digest of the started record when allowed.
	Record runner.Digest `json:"record,omitempty"`
}

// Check says whether the answer can be used.
func (a StartAnswer) Check() error {
	// The hook prints the reasons to the job's log, where the runner would
	// obey a line that starts with "::" as a workflow command.
	if err := runner.Validate(struct {
		Reasons []string `pat:"word"`
	}{a.Reasons}); err != nil {
		return err
	}
	switch a.Verdict {
	case Allowed:
		if len(a.Reasons) != 0 {
			return errors.New("allowed with reasons against it")
		}
		return CheckDigest(a.Record)
	case Refused:
		if len(a.Reasons) == 0 {
			return errors.New("refused without a reason")
		}
		return nil
	case Pending:
		return nil
	}
	return fmt.Errorf("unknown verdict %.20q", a.Verdict)
}

// Error is the body of every answer that is not 200.
type Error struct {
	Error string `json:"error"`
	// Final says that asking again is useless.
	Final bool `json:"final"`
}

// CheckName says whether this can be the name of a runner.
func CheckName(name runner.Name) error {
	return runner.Validate(struct {
		Name runner.Name `pat:"name"`
	}{name})
}

// CheckDigest says whether d has the shape of a digest.
func CheckDigest(d runner.Digest) error {
	return runner.Validate(struct {
		Digest runner.Digest `pat:"digest"`
	}{d})
}

// DecodeStrict decodes exactly one JSON object without unknown fields.
func DecodeStrict(r io.Reader, into any) error {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = errors.New("more than one document")
		}
		return err
	}
	return nil
}
