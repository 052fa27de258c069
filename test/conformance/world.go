package conformance

import (
	"context"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/sim/memnet"
)

// Options say how a client can be run.
type Options struct {
	// New makes a client that connects to the target.
	New func(t *testing.T, to Target) Client
	// Sockets says that the client takes no HTTP client of ours: it gets a real
	// TLS server, and the rules that need minutes to pass are left out.
	Sockets bool
}

// World is a fresh simulator with an organization, a group and a scale set.
type World struct {
	*testing.T
	Sim    *simgithub.Server
	Client Client
	To     Target
	Group  int
	Set    *Set
	// New makes another client of the same kind.
	New func() Client
}

const (
	org, group, setName, token = "acme", "prod", "prod-set", "ghp_conformance"
)

// Rule is one thing that the service does.
type Rule struct {
	Name string
	// Clock says that minutes have to pass, GHES that it is of the older flow.
	Clock, GHES bool
	Config      func(*simgithub.Config)
	Test        func(w *World)
}

// Run runs every rule that the client can be held to and reports how many.
func Run(t *testing.T, o Options) {
	held, left := 0, 0
	for _, rule := range Rules() {
		if rule.Clock && o.Sockets {
			left++
			continue
		}
		held++
		t.Run(rule.Name, func(t *testing.T) {
			if o.Sockets {
				overSockets(t, o, rule)
				return
			}
			synctest.Test(t, func(t *testing.T) { overPipes(t, o, rule) })
		})
	}
	t.Logf("%d rules held, %d left out because they need a clock that the client does not share", held, left)
	if held < 15 {
		t.Errorf("only %d rules were held", held)
	}
}

func (r Rule) config(url string) simgithub.Config {
	cfg := simgithub.Config{BaseURL: url, Org: org, Token: token, GHES: r.GHES}
	if r.Config != nil {
		r.Config(&cfg)
	}
	return cfg
}

func overPipes(t *testing.T, o Options, rule Rule) {
	l := memnet.Listen()
	sim := simgithub.New(rule.config("http://ghes.sim"))
	stop := l.Serve(sim)
	transport := l.Transport()
	defer func() {
		sim.Close()
		transport.CloseIdleConnections()
		stop()
	}()
	play(t, o, rule, sim, Target{URL: "http://ghes.sim/" + org, Token: token, HTTP: &http.Client{Transport: transport}, Timeout: 10 * time.Minute})
}

func overSockets(t *testing.T, o Options, rule Rule) {
	server := httptest.NewUnstartedServer(nil)
	cfg := rule.config("https://" + server.Listener.Addr().String())
	cfg.PollHold = 300 * time.Millisecond
	sim := simgithub.New(cfg)
	server.Config.Handler = sim
	server.StartTLS()
	defer func() {
		sim.Close()
		server.Close()
	}()
	play(t, o, rule, sim, Target{
		URL: server.URL + "/" + org, Token: token, HTTP: server.Client(), Timeout: 20 * time.Second,
		RootsPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
	})
}

func play(t *testing.T, o Options, rule Rule, sim *simgithub.Server, to Target) {
	sim.AddUser("alice")
	sim.AddRepository("shop")
	sim.AddGroup(simgithub.Group{Name: group, Visibility: "all"})
	w := &World{T: t, Sim: sim, To: to, New: func() Client { return o.New(t, to) }}
	w.Client = w.New()
	var err error
	if w.Group, err = w.Client.GroupID(t.Context(), group); err != nil {
		t.Fatal(err)
	}
	if w.Set, err = w.Client.CreateSet(t.Context(), Set{Name: setName, GroupID: w.Group, Labels: []string{setName}}); err != nil {
		t.Fatal(err)
	}
	rule.Test(w)
}

// must ends the rule when something that is not its point fails.
func must[T any](v T, err error) func(*World) T {
	return func(w *World) T {
		w.Helper()
		if err != nil {
			w.Fatal(err)
		}
		return v
	}
}

// refusedWith says that the call failed with one of these in its text.
func (w *World) refusedWith(what string, err error, words ...string) {
	w.Helper()
	if err == nil {
		w.Errorf("%s was allowed", what)
		return
	}
	for _, word := range words {
		if strings.Contains(err.Error(), word) {
			return
		}
	}
	w.Errorf("%s: %v, want one of %q", what, err, words)
}

// job starts a run with one job for the scale set.
func (w *World) job() simgithub.Run {
	w.Helper()
	return must(w.Sim.Dispatch(simgithub.RunSpec{
		Repository: "shop", HeadSHA: strings.Repeat("a", 40), Actor: "alice", Labels: []string{setName}, Duration: -1,
	}))(w)
}

func (w *World) open(c Client) Session {
	w.Helper()
	return must(c.Open(w.Context(), w.Set.ID, "host"))(w)
}

// runner registers a runner and lets it wait for jobs until the rule ends.
func (w *World) runner(name string) Registration {
	w.Helper()
	jit := must(w.Client.Register(w.Context(), w.Set.ID, name))(w)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		simgithub.Runner{Client: w.To.HTTP}.Run(ctx, jit.Encoded, nil)
	}()
	w.Cleanup(func() {
		cancel()
		<-ended
	})
	w.until("the runner is online", func() bool {
		for _, r := range w.Sim.Runners() {
			if r.Name == name && r.Online {
				return true
			}
		}
		return false
	})
	return jit
}

// until looks every few milliseconds, of the bubble's time where there is one.
func (w *World) until(what string, ok func() bool) {
	w.Helper()
	for range 2000 {
		if ok() {
			return
		}
		w.pass(5 * time.Millisecond)
	}
	w.Fatalf("never: %s", what)
}

func (w *World) pass(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}
