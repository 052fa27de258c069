package github_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/github"
	"github.com/runnerward/runnerward/pkg/runner"
)

// FuzzToken: no token but the issuer's own is taken, whatever it looks like and
// whatever keys are published, nothing panics, and no error repeats the token.
func FuzzToken(f *testing.F) {
	const discovery = `{"issuer":"https://issuer.example","jwks_uri":"https://issuer.example/jwks"}`
	const rsaKey = `{"keys":[{"kty":"RSA","kid":"k","alg":"RS256","use":"sig","e":"AQAB","n":"` +
		"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw" + `"}]}`
	for _, keys := range []string{rsaKey, `{"keys":[]}`, `null`, `{"keys":[{"kty":"oct","k":"AAAA","kid":"k","alg":"HS256"}]}`, `{`} {
		for _, token := range []string{
			"", "x", "..", "eyJhbGciOiJub25lIn0.e30.", "eyJhbGciOiJSUzI1NiIsImtpZCI6ImsifQ.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIn0.c2ln",
			"eyJhbGciOiJIUzI1NiIsImtpZCI6ImsifQ.e30.c2ln", "eyJhbGciOlsiUlMyNTYiXX0.e30.c2ln", "{\"payload\":\"e30\",\"signatures\":[]}",
		} {
			f.Add(token, discovery, keys)
		}
	}
	f.Add("eyJhbGciOiJSUzI1NiIsImtpZCI6ImsifQ.e30.c2ln", `{"issuer":"https://other.example","jwks_uri":"http://169.254.169.254/"}`, rsaKey)
	f.Fuzz(func(t *testing.T, token, config, keys string) {
		identity, err := github.NewIdentity(github.IdentityConfig{Issuer: "https://issuer.example", Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			if !strings.HasPrefix(r.URL.Scheme+"://"+r.URL.Host, "https://") {
				t.Errorf("asked %s, which is not over TLS", r.URL)
			}
			text := keys
			if strings.HasSuffix(r.URL.Path, "/openid-configuration") {
				text = config
			}
			return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(text)), Request: r}, nil
		})})
		if err != nil {
			t.Fatal(err)
		}
		claims, err := identity.Verify(t.Context(), token, audience, time.Now())
		if err == nil {
			t.Errorf("%q was taken for a token: %+v", token, claims)
		}
		if claims != (runner.Claims{}) {
			t.Errorf("%+v came with %v", claims, err)
		}
		if err != nil && len(token) > 24 && strings.Contains(err.Error(), token) {
			t.Errorf("the error repeats the token: %v", err)
		}
	})
}
