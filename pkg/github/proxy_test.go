package github_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/ghapp"
	"github.com/runnerward/runnerward/pkg/github"
	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
)

// TestRESTAndSignInGoThroughTheProxy reaches a host that does not exist: only
// the proxy knows the way.
func TestRESTAndSignInGoThroughTheProxy(t *testing.T) {
	key, pem := appKey(t)
	sim := simgithub.New(simgithub.Config{
		BaseURL: "http://github.nowhere", Org: "acme", OrgID: 65, AppClientID: "Iv1.x", AppInstallationID: 99, AppKey: &key.PublicKey,
	})
	sim.AddGroup(simgithub.Group{Name: "hipaa-prod", Visibility: "selected"})
	var mu sync.Mutex
	hosts := map[string]int{}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		hosts[r.URL.Host]++ // a request to a proxy names the server
		mu.Unlock()
		sim.ServeHTTP(w, r)
	}))
	defer proxy.Close()
	at, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := ghapp.ParseKey([]byte(pem.Reveal()))
	if err != nil {
		t.Fatal(err)
	}
	api, err := ghapp.APIBase("http://github.nowhere")
	if err != nil {
		t.Fatal(err)
	}
	app, err := ghapp.New(ghapp.Config{API: api, ClientID: "Iv1.x", InstallationID: 99, Key: parsed, Transport: ghapp.Transport(nil, http.ProxyURL(at))})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{sim: sim}
	c := w.client(t, github.Config{
		URL: "http://github.nowhere", Org: "acme", App: app, InstallationID: 99, Proxy: http.ProxyURL(at), Environment: "production", Group: "hipaa-prod",
	})
	if _, err := c.Runners(t.Context()); err != nil {
		t.Errorf("Runners() through the proxy = %v", err)
	}
	identity, err := github.NewIdentity(github.IdentityConfig{Issuer: sim.Issuer(), Proxy: http.ProxyURL(at)})
	if err != nil {
		t.Fatal(err)
	}
	// The keys are fetched for the first token, whatever it is.
	_, _ = identity.Verify(t.Context(), "eyJhbGciOiJSUzI1NiIsImtpZCI6IngifQ.e30.c2ln", "aud", time.Now())
	mu.Lock()
	defer mu.Unlock()
	if len(hosts) != 1 || hosts["github.nowhere"] < 4 {
		t.Errorf("the proxy was asked for %v, want the sign-in, the runners and the keys", hosts)
	}
}
