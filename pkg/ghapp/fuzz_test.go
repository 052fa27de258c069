package ghapp_test

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/ghapp"
)

// FuzzSignIn: whatever GitHub answers to a sign-in, nothing panics, what is taken
// for a token is one, and no error repeats the answer.
func FuzzSignIn(f *testing.F) {
	key, err := appKey()
	if err != nil {
		f.Fatal(err)
	}
	signer, err := ghapp.ParseKey(pemOf(key))
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		``, `null`, `{}`, `{"token":"ghs_x","expires_at":"2026-01-02T03:04:05Z"}`, `{"token":5}`, `{"token":"x","expires_at":"never"}`, "\xff", `[`,
	} {
		f.Add(201, "", seed)
		f.Add(403, "60", seed)
	}
	f.Add(429, "99999999999999999999", `{"message":"slow down"}`)
	f.Fuzz(func(t *testing.T, status int, retryAfter, body string) {
		if status < 200 || status > 599 {
			return
		}
		app, err := ghapp.New(ghapp.Config{
			API: &url.URL{Scheme: "https", Host: "github.example", Path: "/"}, ClientID: "Iv1.x", InstallationID: 99, Key: signer,
			Transport: answering(func(r *http.Request) (*http.Response, error) {
				header := http.Header{"Retry-After": {retryAfter}, "Date": {retryAfter}}
				return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
			}),
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		token, err := app.Token(ctx)
		if err == nil && (token == "" || status != http.StatusCreated) {
			t.Errorf("HTTP %d with %q was taken for the token %q", status, body, token)
		}
		if err != nil && len(body) > 24 && strings.Contains(err.Error(), body) {
			t.Errorf("the error repeats the answer: %v", err)
		}
	})
}

// FuzzParseKey: no file of a key makes it panic, and no error repeats the file.
func FuzzParseKey(f *testing.F) {
	key, err := appKey()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(pemOf(key))
	f.Add([]byte("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, text []byte) {
		_, err := ghapp.ParseKey(text)
		if err != nil && len(text) > 64 && strings.Contains(err.Error(), string(text[:64])) {
			t.Errorf("the error repeats the file: %v", err)
		}
	})
}

type answering func(*http.Request) (*http.Response, error)

func (f answering) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
