package conformance

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"maps"
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
		t.Run(rule.Name, func(t *testing.T) { o.hold(t, rule) })
	}
	t.Logf("%d rules held, %d left out because they need a clock that the client does not share", held, left)
	if held < 30 {
		t.Errorf("only %d rules were held", held)
	}
}

// hold runs one rule in a world of its own.
func (o Options) hold(t *testing.T, rule Rule) {
	if o.Sockets {
		t.Parallel() // its time is the machine's
		overSockets(t, o, rule)
		return
	}
	synctest.Test(t, func(t *testing.T) { overPipes(t, o, rule) })
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
	if cfg.PollHold == 0 {
		cfg.PollHold = 300 * time.Millisecond
	}
	sim := simgithub.New(cfg)
	server.Config.Handler = sim
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that went away are part of the rules
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
	to.wire = &wire{}
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
	jit, kill := w.mortal(name)
	w.Cleanup(kill)
	return jit
}

// mortal is a runner that can be killed.
func (w *World) mortal(name string) (jit Registration, kill func()) {
	w.Helper()
	jit = must(w.Client.Register(w.Context(), w.Set.ID, name))(w)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		simgithub.Runner{Client: w.To.HTTP}.Run(ctx, jit.Encoded, nil)
	}()
	w.until("the runner is online", func() bool {
		for _, r := range w.Sim.Runners() {
			if r.Name == name && r.Online {
				return true
			}
		}
		return false
	})
	return jit, func() {
		cancel()
		<-ended
	}
}

// runs waits until the job is in progress.
func (w *World) runs(job string) {
	w.Helper()
	w.until("the job runs", func() bool { return w.status(job) == "in_progress" })
}

func (w *World) status(job string) string {
	j, _ := w.Sim.Job(job)
	return j.Status
}

// next is the next message, which must come, acknowledged.
func (w *World) next(s Session) *Message {
	w.Helper()
	for range 5 {
		m := must(s.Poll(w.Context(), 0, 5))(w)
		if m == nil {
			continue
		}
		if err := s.Acknowledge(w.Context(), m.ID); err != nil {
			w.Fatal(err)
		}
		return m
	}
	w.Fatal("no message came")
	return nil
}

// base is where the simulator is.
func (w *World) base() string { return strings.TrimSuffix(w.To.URL, "/"+org) }

// rest makes a request of the REST API and decodes its answer.
func (w *World) rest(method, path string, header http.Header, out any) (status int, got http.Header) {
	w.Helper()
	req, err := http.NewRequestWithContext(w.Context(), method, w.base()+"/api/v3"+path, nil)
	if err != nil {
		w.Fatal(err)
	}
	maps.Copy(req.Header, header)
	req.Header.Set("Authorization", "Bearer "+w.To.Token)
	resp := must(w.To.HTTP.Do(req))(w)
	defer resp.Body.Close()
	if out != nil {
		if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
			w.Fatalf("%s %s: %v", method, path, err)
		}
	}
	return resp.StatusCode, resp.Header
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
