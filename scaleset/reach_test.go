package scaleset_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/ghapp"
	"github.com/runnerward/runnerward/pkg/supervisor"
	"github.com/runnerward/runnerward/scaleset"
)

// TestEverythingGoesThroughTheProxy reaches a host that does not exist: only the
// proxy knows the way.
func TestEverythingGoesThroughTheProxy(t *testing.T) {
	h := newHub(t)
	var asked atomic.Int64
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Host != "sim" { // a request to a proxy names the server
			t.Errorf("%s %s did not come as to a proxy", r.Method, r.URL)
		}
		asked.Add(1)
		h.ServeHTTP(w, r)
	}))
	defer proxy.Close()
	at, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	cfg := h.config(t)
	cfg.Transport, cfg.Proxy = nil, http.ProxyURL(at)
	set := open(t, cfg)
	if _, err := set.Register(t.Context(), "r-1"); err != nil {
		t.Errorf("Register() through the proxy = %v", err)
	}
	if asked.Load() < 6 {
		t.Errorf("the proxy was asked %d times, want all of it", asked.Load())
	}
}

// TestTheClientAndTheAppAskTheSameAPI compares where the official client goes
// with where the rest of the daemon does: for github.com, GHE.com and
// Enterprise Server.
func TestTheClientAndTheAppAskTheSameAPI(t *testing.T) {
	for _, server := range []string{
		"https://github.com/acme", "https://www.github.com/acme", "https://acme.ghe.com/acme",
		"https://github.internal/acme", "https://github.internal:8443/acme", "https://ghe.com.internal/acme",
	} {
		asked := make(chan *url.URL, 1)
		ctx, cancel := context.WithCancel(t.Context())
		set, err := scaleset.New(scaleset.Config{
			URL: server, Name: "hipaa-prod", Group: "hipaa-prod", Owner: "host-1", Token: supervisor.NewSecret("ghp_x"), Version: "test",
			Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				select {
				case asked <- r.URL:
				default:
				}
				cancel()
				return nil, errors.New("no network")
			}),
		}, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		if err := set.Ensure(ctx); err == nil {
			t.Fatal("Ensure() without a network = nil")
		}
		got := <-asked
		want, err := ghapp.APIBase(server)
		if err != nil {
			t.Fatal(err)
		}
		if got.Scheme != want.Scheme || got.Host != want.Host || !strings.HasPrefix(got.Path, want.Path) {
			t.Errorf("%s: the official client asks %v, the App %v", server, got, want)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
