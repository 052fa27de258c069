package scaleset_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	upstream "github.com/actions/scaleset"
	"github.com/hashicorp/go-retryablehttp"
	"go.uber.org/zap"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
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
				cfg.Rivals = func(context.Context) ([]scaleset.Group, error) {
					return []scaleset.Group{{ID: 1, Name: "Default"}}, nil
				}
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

func TestARivalKeepsTheDaemonFromStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		if _, err := h.hand(t).CreateRunnerScaleSet(t.Context(), &upstream.RunnerScaleSet{Name: "hipaa-prod", RunnerGroupID: 1}); err != nil {
			t.Fatal(err)
		}
		cfg := h.config(t)
		cfg.Rivals = func(context.Context) ([]scaleset.Group, error) {
			return []scaleset.Group{{ID: 1, Name: "Default"}}, nil
		}
		if _, err := scaleset.Open(t.Context(), cfg, zap.NewNop()); !errors.Is(err, scaleset.ErrDrift) || !strings.Contains(err.Error(), `"Default"`) {
			t.Errorf("Open() beside a rival = %v, want it named", err)
		}
		// Not knowing is not enough to start.
		cfg.Rivals = func(context.Context) ([]scaleset.Group, error) { return nil, errors.New("no answer") }
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
		away := false
		cfg.Rivals = func(context.Context) ([]scaleset.Group, error) {
			if away {
				return nil, errors.New("no answer")
			}
			return nil, nil
		}
		l := listenTo(t, cfg)
		pass(time.Minute)
		away = true
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
