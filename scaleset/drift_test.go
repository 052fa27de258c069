package scaleset_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	upstream "github.com/actions/scaleset"
	"github.com/hashicorp/go-retryablehttp"
	"go.uber.org/zap"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/supervisor"
	"github.com/runnerward/runnerward/scaleset"
)

// hand is somebody with the credential and the official client.
func (h *hub) hand(t *testing.T) *upstream.Client {
	t.Helper()
	rc := retryablehttp.NewClient()
	rc.Logger, rc.RetryMax = nil, 0
	transport := h.net.Transport()
	t.Cleanup(transport.CloseIdleConnections)
	rc.HTTPClient = &http.Client{Transport: transport}
	c, err := upstream.NewClientWithPersonalAccessToken(upstream.NewClientWithPersonalAccessTokenConfig{
		GitHubConfigURL: "http://sim/acme", PersonalAccessToken: simToken,
	}, upstream.WithRetryableHTTPClint(rc))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A scale set that is changed under a running daemon stops new work until it is
// changed back; the daemon never changes it itself.
func TestDriftIsFoundAndForgottenWhenItIsMended(t *testing.T) {
	for _, test := range []struct {
		name, says  string
		begin, mend func(h *hub, c *upstream.Client, set int) error
	}{
		{"moved to another group", "another runner group", func(_ *hub, c *upstream.Client, set int) error {
			_, err := c.UpdateRunnerScaleSet(context.Background(), set, &upstream.RunnerScaleSet{RunnerGroupID: 1})
			return err
		}, func(h *hub, c *upstream.Client, set int) error {
			g, err := c.GetRunnerGroupByName(context.Background(), "hipaa-prod")
			if err != nil {
				return err
			}
			_, err = c.UpdateRunnerScaleSet(context.Background(), set, &upstream.RunnerScaleSet{RunnerGroupID: g.ID})
			return err
		}},
		{"renamed", "another name", func(_ *hub, c *upstream.Client, set int) error {
			_, err := c.UpdateRunnerScaleSet(context.Background(), set, &upstream.RunnerScaleSet{Name: "renamed"})
			return err
		}, func(_ *hub, c *upstream.Client, set int) error {
			_, err := c.UpdateRunnerScaleSet(context.Background(), set, &upstream.RunnerScaleSet{Name: "hipaa-prod"})
			return err
		}},
		{"doubled in a group that our repositories may use", "remove or rename it", func(h *hub, c *upstream.Client, _ int) error {
			_, err := c.CreateRunnerScaleSet(context.Background(), &upstream.RunnerScaleSet{Name: "hipaa-prod", RunnerGroupID: 1})
			return err
		}, func(_ *hub, c *upstream.Client, _ int) error {
			set, err := c.GetRunnerScaleSet(context.Background(), 1, "hipaa-prod")
			if err != nil {
				return err
			}
			return c.DeleteRunnerScaleSet(context.Background(), set.ID)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHub(t)
				cfg := h.config(t)
				cfg.Boundary = h.boundary
				l := listenTo(t, cfg)
				pass(time.Minute)
				id := int(l.Health().ScaleSetID)
				if err := test.begin(h, h.hand(t), id); err != nil {
					t.Fatal(err)
				}
				pass(10 * time.Minute)
				if got := l.Health().Problems; len(got) != 1 || !strings.Contains(got[0], test.says) {
					t.Fatalf("Problems = %q, want one that says %q", got, test.says)
				}
				if _, err := l.Register(t.Context(), "r-1"); !errors.Is(err, scaleset.ErrDrift) {
					t.Errorf("Register() = %v, want %v", err, scaleset.ErrDrift)
				}
				if err := test.mend(h, h.hand(t), id); err != nil {
					t.Fatal(err)
				}
				pass(10 * time.Minute)
				if got := l.Health(); len(got.Problems) != 0 || got.Session != "open" {
					t.Errorf("Health() = %+v, want it well again", got)
				}
			})
		})
	}
}

// boundary is what the REST API would say of the hub's groups.
func (h *hub) boundary(context.Context) (supervisor.Boundary, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return supervisor.Boundary{
		Group: supervisor.RunnerGroup{ID: h.group + h.renumbered, Name: "hipaa-prod"}, Open: h.openTo,
		Rivals: []supervisor.RunnerGroup{{ID: 1, Name: "Default"}},
	}, nil
}

// No scale set is made where others than the pool's repositories could use it,
// nor while that is not known.
func TestNoScaleSetIsMadeOutsideOfTheBoundary(t *testing.T) {
	for _, test := range []struct {
		name, says string
		spoil      func(*hub)
	}{
		{"the group is open", "open to all", func(h *hub) { h.openTo = []string{"it is open to all"} }},
		{"REST numbers groups otherwise", "is number", func(h *hub) { h.renumbered = 1 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHub(t)
				test.spoil(h)
				cfg := h.config(t)
				cfg.Boundary = h.boundary
				if _, err := scaleset.Open(t.Context(), cfg, zap.NewNop()); !errors.Is(err, scaleset.ErrDrift) || !strings.Contains(err.Error(), test.says) {
					t.Errorf("Open() = %v, want one that says %q", err, test.says)
				}
				if got := h.did("runnerscalesets"); slices.Contains(got, "POST runnerscalesets") {
					t.Errorf("requests = %v, want no scale set made", got)
				}
			})
		})
	}
	t.Run("nor again when it was deleted", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newHub(t)
			cfg := h.config(t)
			cfg.Boundary = h.boundary
			l := listenTo(t, cfg)
			pass(time.Minute)
			h.mu.Lock()
			h.openTo = []string{"it is open to all"}
			h.mu.Unlock()
			if err := h.hand(t).DeleteRunnerScaleSet(t.Context(), int(l.Health().ScaleSetID)); err != nil {
				t.Fatal(err)
			}
			made := func() int { return strings.Count(strings.Join(h.did("runnerscalesets"), ","), "POST runnerscalesets") }
			before := made()
			pass(20 * time.Minute)
			sets := must(h.hand(t).GetRunnerScaleSet(t.Context(), int(h.group), "hipaa-prod"))(t)
			if sets != nil {
				t.Errorf("the scale set was made again (%d posts more) in a group that is open to all", made()-before)
			}
			if got := l.Health(); !strings.Contains(got.LastError, "open to all") || got.Session == "open" {
				t.Errorf("Health() = %+v, want the reason", got)
			}
			h.mu.Lock()
			h.openTo = nil
			h.mu.Unlock()
			pass(5 * time.Minute)
			if got := l.Health(); got.Session != "open" || len(got.Problems) != 0 {
				t.Errorf("Health() = %+v, want it to listen again", got)
			}
		})
	})
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestARivalKeepsTheDaemonFromStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		if _, err := h.hand(t).CreateRunnerScaleSet(t.Context(), &upstream.RunnerScaleSet{Name: "hipaa-prod", RunnerGroupID: 1}); err != nil {
			t.Fatal(err)
		}
		cfg := h.config(t)
		cfg.Boundary = h.boundary
		if _, err := scaleset.Open(t.Context(), cfg, zap.NewNop()); !errors.Is(err, scaleset.ErrDrift) || !strings.Contains(err.Error(), `"Default"`) {
			t.Errorf("Open() beside a rival = %v, want it named", err)
		}
		// Not knowing is not enough to start.
		cfg.Boundary = func(context.Context) (supervisor.Boundary, error) {
			return supervisor.Boundary{}, errors.New("no answer")
		}
		if _, err := scaleset.Open(t.Context(), cfg, zap.NewNop()); err == nil {
			t.Error("Open() without knowing = nil, want an error")
		}
	})
}

// Not knowing for a while keeps the last verdict, not for ever.
func TestWhatCannotBeVerifiedForLongIsAProblem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		cfg := h.config(t)
		var away atomic.Bool
		cfg.Boundary = func(ctx context.Context) (supervisor.Boundary, error) {
			if away.Load() {
				return supervisor.Boundary{}, errors.New("no answer")
			}
			return h.boundary(ctx)
		}
		l := listenTo(t, cfg)
		pass(time.Minute)
		away.Store(true)
		pass(10 * time.Minute)
		if got := l.Health().Problems; len(got) != 0 {
			t.Errorf("Problems after ten minutes = %q, want the last verdict", got)
		}
		pass(15 * time.Minute)
		if got := l.Health().Problems; len(got) != 1 {
			t.Errorf("Problems after 25 minutes = %q, want one", got)
		}
	})
}

// While the queue is away nobody compares. A registration does, before it
// trusts a verdict that is too old.
func TestNoRunnerIsRegisteredOnAnOldVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		cfg := h.config(t)
		cfg.Boundary = h.boundary
		l := listenTo(t, cfg)
		pass(time.Minute)
		h.Inject(simgithub.Fault{Kind: simgithub.FaultStatus, Path: "/scalesets/message", Count: -1})
		h.Inject(simgithub.Fault{Kind: simgithub.FaultStatus, Method: "POST", Path: "/rest/_apis/runtime/runnerscalesets/*/sessions", Count: -1})
		pass(20 * time.Minute)
		if _, err := l.Register(t.Context(), "r-1"); err != nil {
			t.Errorf("Register() on a verdict that was renewed = %v", err)
		}
		h.mu.Lock()
		h.openTo = []string{"it is open to all"}
		h.mu.Unlock()
		pass(20 * time.Minute)
		if _, err := l.Register(t.Context(), "r-2"); !errors.Is(err, scaleset.ErrDrift) {
			t.Errorf("Register() in a group that was opened while the queue was away = %v, want %v", err, scaleset.ErrDrift)
		}
	})
}

func TestADormantScaleSetIsMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		set := open(t, h.config(t))
		first := set.Health().ScaleSetID
		pass(8 * 24 * time.Hour) // GitHub deletes what nobody listens to for seven days
		l := listenTo(t, h.config(t))
		h.dispatch(t)
		pass(2 * time.Minute)
		if got := l.Health(); got.Session != "open" || got.ScaleSetID == first || len(l.messages()) == 0 {
			t.Errorf("Health() = %+v, want a new scale set that gets the job", got)
		}
	})
}

func TestTheServersClockAndLimitsAreSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		l := listenTo(t, h.config(t))
		pass(time.Minute)
		if got := l.Health(); got.ClockSkew != 0 || len(got.Rates) != 1 || got.Rates[0].Resource != "core" || got.Rates[0].Limit != 5000 {
			t.Errorf("Health() = %+v, want the limit of the REST calls and no skew", got)
		}
		h.Inject(simgithub.Fault{Kind: simgithub.FaultThrottled, Method: "POST", Path: "/rest/_apis/runtime/runnerscalesets/*/generatejitconfig", RetryAfter: 7 * time.Second})
		began := time.Now()
		if _, err := l.Register(t.Context(), "r-1"); err != nil || time.Since(began) < 7*time.Second {
			t.Errorf("Register() = %v after %s, want it to wait as long as it was asked to", err, time.Since(began))
		}
		h.Inject(simgithub.Fault{Kind: simgithub.FaultClockSkew, Count: -1})
		pass(2 * time.Minute)
		got := l.Health()
		if got.ClockSkew < 9*time.Minute {
			t.Errorf("ClockSkew = %s, want ten minutes", got.ClockSkew)
		}
		if len(got.Rates) != 2 || got.Rates[1].Resource != "service" || got.Rates[1].Throttled != 1 {
			t.Errorf("Rates = %+v, want the service's throttling", got.Rates)
		}
	})
}

// What GitHub asks for after one call holds for the next ones, of whatever kind.
func TestAServerThatAsksForPatienceIsLeftAlone(t *testing.T) {
	const agents = "/rest/_apis/distributedtask/pools/0/agents"
	for _, test := range []struct {
		name       string
		retryAfter time.Duration
		refused    bool // rather than waited for
	}{
		{"within a call's time", 20 * time.Second, false},
		{"longer than a call may last", 10 * time.Minute, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHub(t)
				l := listenTo(t, h.config(t))
				pass(time.Minute)
				h.Inject(simgithub.Fault{Kind: simgithub.FaultThrottled, Method: "GET", Path: "/scalesets/message", RetryAfter: test.retryAfter})
				pass(time.Minute)
				h.Inject(simgithub.Fault{Kind: simgithub.FaultThrottled, Method: "GET", Path: agents, RetryAfter: test.retryAfter})
				if _, err := l.Registered(t.Context(), "r-1"); test.refused == (err == nil) {
					t.Errorf("Registered() = %v, want it refused: %t", err, test.refused)
				}
				asked := len(h.Requests())
				var until time.Time
				for _, r := range l.Health().Rates {
					if r.RetryAfter.After(until) {
						until = r.RetryAfter
					}
				}
				_, err := l.Register(t.Context(), "r-2")
				switch {
				case test.refused && (err == nil || !strings.Contains(err.Error(), "patience") || len(h.Requests()) != asked):
					t.Errorf("Register() = %v after %d requests, want it refused without one", err, len(h.Requests())-asked)
				case !test.refused && err != nil:
					t.Errorf("Register() = %v, want it to wait", err)
				}
				pass(time.Until(until) + time.Minute)
				if _, err := l.Register(t.Context(), "r-3"); err != nil || l.Health().Session != "open" {
					t.Errorf("Register() = %v in session %q after the wait, want a registration", err, l.Health().Session)
				}
				if test.refused {
					for _, r := range h.Requests()[asked:] {
						if r.Time.Before(until.Add(-time.Second)) {
							t.Errorf("%s %s at %s, %s too early", r.Method, r.Path, r.Time, until.Sub(r.Time))
						}
					}
				}
			})
		})
	}
}
