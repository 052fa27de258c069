package scaleset_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/sim/memnet"
	"github.com/runnerward/runnerward/pkg/supervisor"
	"github.com/runnerward/runnerward/scaleset"
)

// hub is a simulated GitHub with our group and repository, on in-memory
// connections.
type hub struct {
	*simgithub.Server
	net   *memnet.Listener
	group int64

	mu         sync.Mutex
	openTo     []string // what the group allows and must not
	renumbered int64    // how much higher the REST API numbers the group
}

const simToken = "ghp_sim"

func newHub(t *testing.T, edit ...func(*simgithub.Config)) *hub {
	t.Helper()
	cfg := simgithub.Config{BaseURL: "http://sim", Org: "acme", Token: simToken}
	for _, e := range edit {
		e(&cfg)
	}
	h := &hub{Server: simgithub.New(cfg)}
	h.AddRepository("deploy")
	h.AddUser("dev")
	h.group = h.AddGroup(simgithub.Group{Name: "hipaa-prod", Visibility: "selected", Repositories: []string{"deploy"}})
	h.net = listen(t, h.Server)
	return h
}

func (h *hub) config(t *testing.T) scaleset.Config {
	return scaleset.Config{
		URL: "http://sim/acme", Name: "hipaa-prod", Group: "hipaa-prod", Owner: "host-1", Labels: []string{"hipaa-prod", "x64"},
		Token: supervisor.NewSecret(simToken), Version: "test", Transport: pipe(t, h.net),
	}
}

func (h *hub) dispatch(t *testing.T) simgithub.Run {
	t.Helper()
	run, err := h.Dispatch(simgithub.RunSpec{
		Repository: "deploy", Tag: "v1.2.3", HeadSHA: strings.Repeat("a", 40), Actor: "dev",
		Labels: []string{"hipaa-prod"}, Group: "hipaa-prod", Duration: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	return run
}

// did is the log's requests whose path has one of the words, shortened.
func (h *hub) did(words ...string) []string {
	var out []string
	for _, r := range h.Requests() {
		for _, w := range words {
			if strings.Contains(r.Path, w) {
				out = append(out, r.Method+" "+w)
			}
		}
	}
	return out
}

func kinds(list []supervisor.Message) (out []runner.Kind) {
	for _, m := range list {
		for _, e := range m.Events {
			out = append(out, e.Kind())
		}
	}
	return out
}

func TestSimOneJobFromOfferToConclusion(t *testing.T) {
	for _, ghes := range []bool{false, true} {
		t.Run(fmt.Sprintf("GHES %t", ghes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHub(t, func(c *simgithub.Config) { c.GHES = ghes })
				cfg := h.config(t)
				cfg.PollFor = func() time.Duration { return 5 * time.Second }
				l := listenTo(t, cfg)
				pass(time.Minute)
				ackedAtRecord := -1
				l.mu.Lock()
				l.observe = func() { ackedAtRecord = strings.Count(strings.Join(h.did("/message/"), " "), "DELETE") }
				l.mu.Unlock()
				run := h.dispatch(t)
				pass(time.Second)
				if got := l.messages(); len(got) == 0 || l.Health().Statistics.Assigned != 1 {
					t.Fatalf("observed %+v, want one assigned job", got)
				}
				if want := []runner.Kind{runner.KindOffered}; !slices.Equal(kinds(l.messages()), want) || ackedAtRecord < 0 {
					t.Fatalf("observed %v, want %v", kinds(l.messages()), want)
				}
				if acks := strings.Count(strings.Join(h.did("/message/"), " "), "DELETE"); acks != len(l.messages()) || ackedAtRecord != acks-1 {
					t.Errorf("%d acknowledgements after %d messages, %d when the last was recorded", acks, len(l.messages()), ackedAtRecord)
				}
				if got := h.did("acquirejobs"); len(got) != map[bool]int{false: 0, true: 1}[ghes] {
					t.Errorf("acquisitions = %v", got)
				}

				reg, err := l.Register(t.Context(), "r-1")
				if err != nil {
					t.Fatal(err)
				}
				if _, err := l.Register(t.Context(), "r-1"); !errors.Is(err, supervisor.ErrRegistrationExists) {
					t.Errorf("second Register() = %v", err)
				}
				var app sync.WaitGroup
				app.Go(func() {
					transport := h.net.Transport()
					defer transport.CloseIdleConnections()
					simgithub.Runner{Client: &http.Client{Transport: transport}}.Run(context.WithoutCancel(t.Context()), reg.JITConfig.Reveal(), nil)
				})
				pass(20 * time.Second)
				if err := l.Deregister(t.Context(), "r-1", 0); !errors.Is(err, supervisor.ErrJobStillRunning) {
					t.Errorf("Deregister() of a busy runner = %v, want %v", err, supervisor.ErrJobStillRunning)
				}
				app.Wait()
				pass(2 * time.Minute)
				if ok, err := l.Registered(t.Context(), "r-1"); ok || err != nil {
					t.Errorf("Registered() after the job = %t, %v, want false", ok, err)
				}
				var reported, concluded bool
				for _, m := range l.messages() {
					for _, e := range m.Events {
						switch e := e.(type) {
						case runner.Reported:
							reported = e.Job == runner.JobID(run.JobID) && e.Runner == "r-1" && e.RunnerID == reg.RunnerID
						case runner.Concluded:
							concluded = e.Job == runner.JobID(run.JobID) && e.Result == runner.ResultSucceeded && e.Runner == "r-1"
						}
					}
				}
				if !reported || !concluded {
					t.Errorf("observed %v, want the job reported and concluded", kinds(l.messages()))
				}
			})
		})
	}
}

func TestSimAJobOfThreeQuietHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		l := listenTo(t, h.config(t))
		pass(3 * time.Hour) // the queue token lived 50 minutes, the admin token an hour
		h.dispatch(t)
		pass(time.Second)
		if got := kinds(l.messages()); !slices.Equal(got, []runner.Kind{runner.KindOffered}) {
			t.Errorf("observed %v, want the offer", got)
		}
		if got := l.Health(); got.Session != "open" || time.Since(got.SessionAge) < 3*time.Hour {
			t.Errorf("Health() = %+v, want the session of the beginning", got)
		}
	})
}

func TestSimNoJobIsAssignedAtCapacityZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		l := listenTo(t, h.config(t))
		l.mu.Lock()
		l.capacity = 0
		l.mu.Unlock()
		pass(time.Minute)
		run := h.dispatch(t)
		pass(5 * time.Minute)
		if j, _ := h.Job(run.JobID); j.ScaleSetID != 0 || len(kinds(l.messages())) != 0 {
			t.Errorf("the job is %+v after %v, want it unassigned", j, kinds(l.messages()))
		}
		l.mu.Lock()
		l.capacity = 1
		l.mu.Unlock()
		pass(2 * time.Minute)
		if got := kinds(l.messages()); !slices.Contains(got, runner.KindOffered) {
			t.Errorf("observed %v, want the offer", got)
		}
	})
}

// TestSimAKilledProcess leaves a session behind, as SIGKILL does, and a
// message that was recorded and not acknowledged.
func TestSimAKilledProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		h.Inject(simgithub.Fault{Kind: simgithub.FaultDrop, Method: "DELETE", Path: "/rest/_apis/runtime/runnerscalesets/*/sessions", Count: 1})
		h.Inject(simgithub.Fault{Kind: simgithub.FaultDrop, Method: "DELETE", Path: "/scalesets/message", Count: 1})
		first := listenTo(t, h.config(t))
		pass(time.Second)
		first.mu.Lock()
		first.observe = func() { first.stop(errors.New("killed")) }
		first.mu.Unlock()
		h.dispatch(t)
		err := <-first.done
		first.done <- err
		if got := kinds(first.messages()); !slices.Equal(got, []runner.Kind{runner.KindOffered}) {
			t.Fatalf("observed %v, want the offer", got)
		}
		began := time.Now()
		second := listenTo(t, h.config(t))
		pass(time.Minute)
		if got := second.Health(); got.Session != "conflict" {
			t.Errorf("Health() = %+v, want a conflict", got)
		}
		pass(5*time.Minute + 30*time.Second)
		if got := kinds(second.messages()); !slices.Contains(got, runner.KindOffered) {
			t.Errorf("observed %v %s after the kill, want the offer again", got, time.Since(began))
		}
		if got := second.Health(); got.Session != "open" || got.LastError != "" {
			t.Errorf("Health() = %+v, want an open session", got)
		}
	})
}

func TestSimEveryFaultIsSurvived(t *testing.T) {
	const queue, sessions = "/scalesets/message", "/rest/_apis/runtime/runnerscalesets/*/sessions"
	var faults []simgithub.Fault
	for _, kind := range []simgithub.FaultKind{
		simgithub.FaultStatus, simgithub.FaultUnauthorized, simgithub.FaultDrop, simgithub.FaultHang, simgithub.FaultEmpty,
		simgithub.FaultHTML, simgithub.FaultText, simgithub.FaultNullStatistics, simgithub.FaultDuplicateMessage,
		simgithub.FaultUnknownMessage, simgithub.FaultUnknownItem, simgithub.FaultByteOrderMark,
	} {
		faults = append(faults,
			simgithub.Fault{Kind: kind, Method: "GET", Path: queue, Count: 2},
			simgithub.Fault{Kind: kind, Method: "GET", Path: queue, Count: 2, AfterEffect: true})
	}
	for _, kind := range []simgithub.FaultKind{simgithub.FaultStatus, simgithub.FaultDrop, simgithub.FaultHang, simgithub.FaultHTML, simgithub.FaultText, simgithub.FaultUnauthorized} {
		for _, late := range []bool{false, true} {
			faults = append(faults,
				simgithub.Fault{Kind: kind, Method: "DELETE", Path: queue, Count: 2, AfterEffect: late},
				simgithub.Fault{Kind: kind, Method: "POST", Path: sessions, Count: 2, AfterEffect: late})
		}
	}
	faults = append(faults,
		simgithub.Fault{Kind: simgithub.FaultNullStatistics, Method: "POST", Path: sessions},
		simgithub.Fault{Kind: simgithub.FaultNoQueueURL, Method: "POST", Path: sessions})
	for _, f := range faults {
		t.Run(fmt.Sprintf("%s %s %s late %t", f.Kind, f.Method, f.Path, f.AfterEffect), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHub(t)
				// The scale set is there before anything goes wrong.
				open(t, h.config(t))
				h.Inject(f)
				l := listenTo(t, h.config(t))
				h.dispatch(t)
				pass(15 * time.Minute)
				offers := 0
				for _, k := range kinds(l.messages()) {
					if k == runner.KindOffered {
						offers++
					}
				}
				told := (len(l.Health().Warnings) == 1) == (f.Kind == simgithub.FaultUnknownMessage)
				if got := l.Health(); offers == 0 || got.Session != "open" || !told || strings.Contains(got.LastError, "in a row") || got.LastID == 0 || time.Since(got.LastPoll) > 2*time.Minute {
					t.Errorf("%d offers, Health() = %+v, want it to listen", offers, got)
				}
			})
		})
	}
}

func TestSimALostRegistrationIsFoundAndRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		set := open(t, h.config(t))
		h.Inject(simgithub.Fault{Kind: simgithub.FaultDrop, Method: "POST", Path: "/rest/_apis/runtime/runnerscalesets/*/generatejitconfig", AfterEffect: true})
		// The call is tried again, and finds what its first try made.
		if _, err := set.Register(t.Context(), "r-1"); !errors.Is(err, supervisor.ErrRegistrationExists) {
			t.Fatalf("Register() = %v, want %v", err, supervisor.ErrRegistrationExists)
		}
		if err := set.Deregister(t.Context(), "r-1", 0); err != nil || len(h.Runners()) != 0 {
			t.Errorf("Deregister() = %v with %d runners left, want none", err, len(h.Runners()))
		}
	})
}
