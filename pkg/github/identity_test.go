package github_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/runnerward/runnerward/pkg/github"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

const audience = "urn:runnerward:record:sha256:0000000000000000000000000000000000000000000000000000000000000000"

// issuer signs tokens and publishes its keys. Its answers can be replaced.
type issuer struct {
	*httptest.Server
	key     *rsa.PrivateKey
	jwks    http.HandlerFunc
	fetches int
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{key: key}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		body(200, fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, i.URL, i.URL+"/jwks"))(w, r)
	})
	mux.HandleFunc("/jwks", func(w http.ResponseWriter, r *http.Request) {
		i.fetches++
		if i.jwks != nil {
			i.jwks(w, r)
			return
		}
		set, _ := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &i.key.PublicKey, KeyID: "k1", Algorithm: "RS256", Use: "sig"}}})
		body(200, string(set))(w, r)
	})
	i.Server = httptest.NewTLSServer(mux)
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) verifier(t *testing.T) *github.Identity {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(i.Certificate())
	v, err := github.NewIdentity(github.IdentityConfig{Issuer: i.URL, RootCAs: pool})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

var verifiedAt = time.Unix(1_800_000_000, 0)

func (i *issuer) claims() map[string]any {
	return map[string]any{
		"iss": i.URL, "aud": audience, "jti": "id-1", "sub": "repo:acme/app:environment:production",
		"iat": verifiedAt.Unix(), "nbf": verifiedAt.Unix() - 300, "exp": verifiedAt.Unix() + 300,
		"repository": "acme/app", "repository_id": "5", "repository_owner_id": "65", "run_id": "9", "run_attempt": "1",
		"actor_id": "3", "job_workflow_ref": workflow, "job_workflow_sha": workflowSHA, "runner_environment": "self-hosted",
	}
}

func sign(t *testing.T, alg jose.SignatureAlgorithm, key any, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: "k1"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	payload, _ := json.Marshal(claims)
	jws, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	s, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestVerifyMapsTheClaims(t *testing.T) {
	i := newIssuer(t)
	v := i.verifier(t)
	raw := sign(t, jose.RS256, i.key, i.claims())
	for range 2 {
		got, err := v.Verify(t.Context(), raw, audience, verifiedAt)
		if err != nil {
			t.Fatalf("Verify() = %v", err)
		}
		want := runner.Claims{
			Subject: "repo:acme/app:environment:production", Repository: "acme/app", RepositoryID: 5, OwnerID: 65, RunID: 9,
			RunAttempt: 1, ActorID: 3, JobWorkflow: runner.Workflow{Ref: workflow, SHA: workflowSHA}, RunnerEnvironment: "self-hosted",
			IssuedAt: verifiedAt.UTC(), ExpiresAt: verifiedAt.UTC().Add(5 * time.Minute),
			TokenID: runner.DigestOf([]byte("id-1")), Token: runner.DigestOf([]byte(raw)),
		}
		if got != want {
			t.Errorf("Verify() = %+v, want %+v", got, want)
		}
	}
	if i.fetches != 1 {
		t.Errorf("the keys were fetched %d times, want once", i.fetches)
	}
}

func TestVerifyRejects(t *testing.T) {
	i := newIssuer(t)
	v := i.verifier(t)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	with := func(name string, value any) string {
		c := maps.Clone(i.claims())
		c[name] = value
		return sign(t, jose.RS256, i.key, c)
	}
	good := sign(t, jose.RS256, i.key, i.claims())
	for name, raw := range map[string]string{
		"another key":            sign(t, jose.RS256, other, i.claims()),
		"another algorithm":      sign(t, jose.RS512, i.key, i.claims()),
		"a shared secret":        sign(t, jose.HS256, []byte(strings.Repeat("k", 32)), i.claims()),
		"no signature":           strings.Join(strings.Split(good, ".")[:2], ".") + ".",
		"a changed payload":      strings.Replace(good, ".", ".e", 1),
		"no token":               "",
		"another issuer":         with("iss", "https://evil.example"),
		"another audience":       with("aud", "urn:other"),
		"several audiences":      with("aud", []string{audience, "urn:other"}),
		"an expired token":       with("exp", verifiedAt.Unix()),
		"a token of the future":  with("nbf", verifiedAt.Unix()+61),
		"an id that is a number": with("run_id", 9),
		"no jti":                 with("jti", ""),
		"free text":              with("repository", "Jane Doe"),
	} {
		if c, err := v.Verify(t.Context(), raw, audience, verifiedAt); !errors.Is(err, supervisor.ErrTokenRejected) {
			t.Errorf("%s: Verify() = %+v, %v, want it rejected", name, c, err)
		} else if strings.Contains(err.Error(), "Jane") || strings.Contains(err.Error(), "evil") || raw != "" && strings.Contains(err.Error(), raw) {
			t.Errorf("%s: the error repeats the token: %v", name, err)
		}
	}
	if _, err := v.Verify(t.Context(), good, "", verifiedAt); err == nil {
		t.Error("Verify() without an audience = nil, want an error")
	}
	if _, err := v.Verify(t.Context(), good, audience, verifiedAt.Add(5*time.Minute-time.Second)); err != nil {
		t.Errorf("Verify() in the last second = %v, want nil", err)
	}
}

func TestVerifyDoesNotRejectWhatItCannotCheck(t *testing.T) {
	i := newIssuer(t)
	good := sign(t, jose.RS256, i.key, i.claims())
	unknown := func(v *github.Identity) {
		t.Helper()
		if _, err := v.Verify(t.Context(), good, audience, verifiedAt); err == nil || errors.Is(err, supervisor.ErrTokenRejected) || strings.Contains(err.Error(), "canary") {
			t.Errorf("Verify() = %v, want an error that is no rejection", err)
		}
	}
	v := i.verifier(t)
	for _, broken := range []http.HandlerFunc{body(500, "canary"), body(200, "canary"), func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }} {
		i.jwks = broken
		unknown(v)
	}
	i.jwks = nil
	if _, err := v.Verify(t.Context(), good, audience, verifiedAt); err != nil {
		t.Errorf("Verify() after the issuer came back = %v", err)
	}
	fresh := i.verifier(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := fresh.Verify(ctx, good, audience, verifiedAt); err == nil || errors.Is(err, supervisor.ErrTokenRejected) {
		t.Errorf("Verify() with an ended context = %v, want an error that is no rejection", err)
	}
	i.Close()
	unknown(fresh)
	if _, err := github.NewIdentity(github.IdentityConfig{Issuer: "not a url"}); err == nil {
		t.Error("NewIdentity() of no URL = nil, want an error")
	}
}
