package ghapp_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/runnerward/runnerward/pkg/ghapp"
	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/sim/memnet"
)

var appKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

func pemOf(key *rsa.PrivateKey) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
}

// counted counts the signatures that are made, as KMS bills them.
type counted struct {
	ghapp.Signer
	made int
}

func (c *counted) Sign(ctx context.Context, digest []byte) ([]byte, error) {
	c.made++
	return c.Signer.Sign(ctx, digest)
}

// world is a GitHub that knows the App, and the App.
type world struct {
	sim *simgithub.Server
	key *counted
	app *ghapp.App
}

func bubble(t *testing.T, edit func(*ghapp.Config), f func(t *testing.T, w world)) {
	t.Helper()
	key, err := appKey()
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		l := memnet.Listen()
		w := world{sim: simgithub.New(simgithub.Config{
			BaseURL: "http://github.sim", Org: "acme", AppClientID: "Iv1.x", AppInstallationID: 99, AppKey: &key.PublicKey,
		})}
		stop := l.Serve(w.sim)
		transport := l.Transport()
		defer func() {
			transport.CloseIdleConnections()
			stop()
		}()
		signer, err := ghapp.ParseKey(pemOf(key))
		if err != nil {
			t.Fatal(err)
		}
		w.key = &counted{Signer: signer}
		api, err := ghapp.APIBase("http://github.sim")
		if err != nil {
			t.Fatal(err)
		}
		cfg := ghapp.Config{API: api, ClientID: "Iv1.x", InstallationID: 99, Key: w.key, Transport: transport}
		if edit != nil {
			edit(&cfg)
		}
		if w.app, err = ghapp.New(cfg); err != nil {
			t.Fatal(err)
		}
		f(t, w)
	})
}

func after(d time.Duration) { <-time.After(d) }

func TestTokensAreKeptUntilShortlyBeforeTheyEnd(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w world) {
		first, err := w.app.Token(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		after(54 * time.Minute)
		if again, err := w.app.Token(t.Context()); err != nil || again != first {
			t.Errorf("Token() after 54 minutes = another, %v, want the same", err)
		}
		after(2 * time.Minute)
		if again, err := w.app.Token(t.Context()); err != nil || again == first {
			t.Errorf("Token() after 56 minutes = the same, %v, want another", err)
		}
		w.app.Drop(first) // not the one in use
		made := len(w.sim.Requests())
		second, err := w.app.Token(t.Context())
		if err != nil || len(w.sim.Requests()) != made {
			t.Errorf("Token() = %v after %d requests, want the one in use", err, len(w.sim.Requests())-made)
		}
		w.app.Drop(second)
		if third, err := w.app.Token(t.Context()); err != nil || third == second {
			t.Errorf("Token() after Drop = the same, %v, want another", err)
		}
		if w.key.made != 2 {
			t.Errorf("%d signatures, want 2: the JSON Web Token is kept as well", w.key.made)
		}
	})
}

func TestOneRenewalServesAllWhoWait(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w world) {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if _, err := w.app.Token(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := len(w.sim.Requests()); n != 1 {
			t.Errorf("%d requests for eight callers, want 1", n)
		}
	})
}

func TestSignInErrorsSayHowToMendThem(t *testing.T) {
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		edit  func(*ghapp.Config)
		fault *simgithub.Fault
		says  string
		is    error
	}{
		{"another key", func(c *ghapp.Config) {
			if c.Key, err = ghapp.ParseKey(pemOf(other)); err != nil {
				t.Fatal(err)
			}
		}, nil, "private key is one of its keys", nil},
		{"another client id", func(c *ghapp.Config) { c.ClientID = "Iv1.other" }, nil, "check the client id", nil},
		{"another installation", func(c *ghapp.Config) { c.InstallationID = 7 }, nil, "check the installation id", nil},
		{"suspended", nil, &simgithub.Fault{Kind: simgithub.FaultStatus, Status: 403}, "suspended", nil},
		{"rate limited", nil, &simgithub.Fault{Kind: simgithub.FaultThrottled}, "rate limited", ghapp.ErrRateLimited},
		{"a token that is null", nil, &simgithub.Fault{Kind: simgithub.FaultNoToken}, "could not be understood", nil},
		{"half an answer", nil, &simgithub.Fault{Kind: simgithub.FaultTruncated}, "could not be understood", nil},
		{"no answer", nil, &simgithub.Fault{Kind: simgithub.FaultDrop, Count: 3}, "no answer", nil},
		{"an answer that repeats the assertion", nil, &simgithub.Fault{Kind: simgithub.FaultEcho}, "HTTP 400: GitHub answered with an error", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, test.edit, func(t *testing.T, w world) {
				if test.fault != nil {
					w.sim.Inject(*test.fault)
				}
				_, err := w.app.Token(t.Context())
				if err == nil || !strings.Contains(err.Error(), test.says) || test.is != nil && !errors.Is(err, test.is) {
					t.Fatalf("Token() = %v, want an error that says %q", err, test.says)
				}
				if strings.Contains(err.Error(), "eyJ") || strings.Contains(err.Error(), "github.sim") {
					t.Errorf("the error holds a token or an address: %v", err)
				}
			})
		})
	}
}

// A clock that is ahead makes tokens from the future, which GitHub refuses.
func TestASkewedClockIsNamed(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w world) {
		if _, known := w.app.Skew(); known {
			t.Error("Skew() is known before anybody was asked")
		}
		w.sim.Inject(simgithub.Fault{Kind: simgithub.FaultClockSkew, Duration: -10 * time.Minute})
		if _, err := w.app.Token(t.Context()); err != nil {
			t.Fatal(err)
		}
		if skew, known := w.app.Skew(); !known || skew > -9*time.Minute || skew < -11*time.Minute {
			t.Errorf("Skew() = %s, %t, want ten minutes behind", skew, known)
		}
	})
	refuses := roundTripper(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 401, Header: http.Header{"Date": {time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat)}}, Body: http.NoBody}, nil
	})
	bubble(t, func(c *ghapp.Config) { c.Transport = refuses }, func(t *testing.T, w world) {
		if _, err := w.app.Token(t.Context()); err == nil || !strings.Contains(err.Error(), "mend the clock") {
			t.Errorf("Token() = %v, want the clock named", err)
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestWaitingForATokenEndsWithTheContext(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w world) {
		w.sim.Inject(simgithub.Fault{Kind: simgithub.FaultHang, Duration: time.Minute})
		go func() { _, _ = w.app.Token(t.Context()) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := w.app.Token(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Token() behind one that hangs = %v, want a deadline", err)
		}
		after(2 * time.Minute)
	})
}

// lying signs with another key than it shows.
type lying struct{ ghapp.Signer }

func (lying) Sign(context.Context, []byte) ([]byte, error) { return make([]byte, 256), nil }

func TestASignatureIsCheckedBeforeItIsUsed(t *testing.T) {
	bubble(t, func(c *ghapp.Config) { c.Key = lying{c.Key} }, func(t *testing.T, w world) {
		if _, err := w.app.JWT(t.Context()); err == nil || !strings.Contains(err.Error(), "not by the key") {
			t.Errorf("JWT() = %v, want the signature refused", err)
		}
	})
}

func TestParseKey(t *testing.T) {
	key, err := appKey()
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	good := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	signer, err := ghapp.ParseKey(good)
	if err != nil {
		t.Fatalf("ParseKey(PKCS#8) = %v", err)
	}
	if !key.PublicKey.Equal(signer.Public().(crypto.PublicKey)) {
		t.Error("the signer has another public key")
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(format, signer); strings.Contains(text, key.D.String()[:20]) || !strings.Contains(text, "private key") {
			t.Errorf("%s prints %.60s", format, text)
		}
	}
	for says, bad := range map[string][]byte{"not PEM": []byte("x"), "not an RSA key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")})} {
		if _, err := ghapp.ParseKey(bad); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("ParseKey() = %v, want %q", err, says)
		}
	}
}

func TestAPIBase(t *testing.T) {
	for server, want := range map[string]string{
		"https://github.com/acme": "https://api.github.com/", "https://www.github.com/acme": "https://api.github.com/",
		"https://acme.ghe.com/enterprises/acme": "https://api.acme.ghe.com/", "https://ghes.example:8443/acme": "https://ghes.example:8443/api/v3/",
	} {
		if got, err := ghapp.APIBase(server); err != nil || got.String() != want {
			t.Errorf("APIBase(%s) = %v, %v, want %s", server, got, err, want)
		}
	}
	for _, bad := range []string{"github.com", "ftp://x/y", "https://u:p@github.com"} {
		if got, err := ghapp.APIBase(bad); err == nil {
			t.Errorf("APIBase(%s) = %v, want an error", bad, got)
		}
	}
}
