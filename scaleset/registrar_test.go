package scaleset_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/runnerward/runnerward/pkg/supervisor"
	"github.com/runnerward/runnerward/scaleset"
)

// app is an App whose token is always this one.
type app struct{}

func (app) Token(context.Context) (string, error) { return "ghs_of_the_app", nil }
func (app) Drop(string)                           {}

func TestConfigValidate(t *testing.T) {
	good := scaleset.Config{
		URL: "https://github.com/acme", Name: "hipaa-prod", Group: "hipaa prod", Owner: "host-1", App: app{},
	}
	if err := good.Validate(); err != nil {
		t.Fatalf("Validate() = %v, want nil", err)
	}
	tests := []struct {
		name string
		edit func(*scaleset.Config)
		says string
	}{
		{"a URL without a scheme", func(c *scaleset.Config) { c.URL = "github.com/acme" }, "url"},
		{"a URL with a credential", func(c *scaleset.Config) { c.URL = "https://u:p@github.com/acme" }, "url"},
		{"a group that would query another group", func(c *scaleset.Config) { c.Group = "R&D" }, "group"},
		{"a group that would drop the filter", func(c *scaleset.Config) { c.Group = "50%" }, "group"},
		{"a name with a fragment", func(c *scaleset.Config) { c.Name = "a#b" }, "name"},
		{"no name", func(c *scaleset.Config) { c.Name = "" }, "name"},
		{"a label with a plus", func(c *scaleset.Config) { c.Labels = []string{"a+b"} }, "label"},
		{"an owner with a line break", func(c *scaleset.Config) { c.Owner = "a\nb" }, "owner"},
		{"no credentials", func(c *scaleset.Config) { c.App = nil }, "no credentials"},
		{"two credentials", func(c *scaleset.Config) { c.Token = supervisor.NewSecret("x") }, "only one"},
		{"too many clients", func(c *scaleset.Config) { c.JITClients = 99 }, "jit clients"},
		{"an inverted back-off", func(c *scaleset.Config) { c.Timings.ConflictMin = time.Hour }, "timings"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := good
			test.edit(&c)
			if err := c.Validate(); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("Validate() = %v, want an error about %q", err, test.says)
			}
		})
	}
}

func TestOpenRefusesWhatItDidNotAskFor(t *testing.T) {
	swap := func(old, replacement string) http.HandlerFunc {
		return answer(200, `{"count":1,"value":[`+strings.Replace(scaleSetJSON, old, replacement, 1)+`]}`)
	}
	tests := []struct {
		name, route string
		answer      http.HandlerFunc
		says        string
	}{
		{"another group", routeGroups, answer(200, `{"count":1,"value":[{"id":3,"name":"default"}]}`), "answered with another"},
		{"a group without an id", routeGroups, answer(200, `{"count":1,"value":[{"name":"hipaa-prod"}]}`), "another"},
		{"no group", routeGroups, answer(200, `{"count":0,"value":[]}`), "sees no runner group"},
		{"a count without a value", routeFind, answer(200, `{"count":1,"value":[]}`), "panicked"},
		{"a registration token that is null", routeToken, answer(201, `null`), "panicked"},
		{"an admin token without an expiry", routeRegister, answer(200, `{"url":"http://sim/rest/","token":"`+jwt(`{}`)+`"}`), "panicked"},
		{"a scale set of another name", routeFind, swap(`"name":"hipaa-prod"`, `"name":"other"`), "another name"},
		{"a scale set of another group", routeFind, swap(`"runnerGroupId":3`, `"runnerGroupId":1`), "another runner group"},
		{"a scale set of another group's name", routeFind, swap(`"runnerGroupName":"hipaa-prod"`, `"runnerGroupName":"x"`), "another runner group"},
		{"a scale set whose label was dropped", routeFind, swap(`{"type":"System","name":"hipaa-prod"}`, ``), "missing"},
		{"a scale set with one label more", routeFind, swap(`[{`, `[{"type":"System","name":"x64"},{`), "not asked for"},
		{"HTML", routeFind, answer(200, `<html>`), "understood"},
		{"a refusal", routeGroups, answer(403, `{"message":"no"}`), "HTTP 403"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				svc := newService(t)
				svc.answers(test.route, test.answer)
				_, err := scaleset.Open(t.Context(), svc.config(t), zap.NewNop())
				if err == nil || !strings.Contains(err.Error(), test.says) {
					t.Errorf("Open() = %v, want an error that says %q", err, test.says)
				}
				if svc.count(routeCreate) != 0 {
					t.Error("Open() made a scale set")
				}
			})
		})
	}
}

func TestOpenMakesTheScaleSetAsConfigured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService(t)
		svc.answers(routeFind, answer(200, `{"count":0,"value":[]}`))
		var sent string
		svc.answers(routeCreate, func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			sent = string(b)
			answer(200, strings.Replace(scaleSetJSON, `[{`, `[{"type":"System","name":"X64"},{`, 1))(w, r)
		})
		cfg := svc.config(t)
		cfg.Labels = []string{"hipaa-prod", "x64"}
		open(t, cfg)
		want := `"labels":[{"type":"System","name":"hipaa-prod"},{"type":"System","name":"x64"}],"RunnerSetting":{"disableUpdate":true}`
		if !strings.Contains(sent, want) {
			t.Errorf("created %s, want it to hold %s", sent, want)
		}
	})
}

func TestRegistrar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService(t)
		set := open(t, svc.config(t))
		ctx := t.Context()
		got, err := set.Register(ctx, "r-1")
		if err != nil || got.RunnerID != 1 || got.ScaleSetID != 7 || got.JITConfig.Reveal() != "eyJhIjoiYiJ9" {
			t.Fatalf("Register() = %+v, %v", got, err)
		}
		if _, err := set.Register(ctx, "r-1"); !errors.Is(err, supervisor.ErrRegistrationExists) {
			t.Errorf("second Register() = %v, want %v", err, supervisor.ErrRegistrationExists)
		}
		if ok, err := set.Registered(ctx, "r-1"); !ok || err != nil {
			t.Errorf("Registered() = %t, %v, want true", ok, err)
		}
		for range 2 { // the second time nothing is left to remove
			if err := set.Deregister(ctx, "r-1", 0); err != nil {
				t.Errorf("Deregister() = %v", err)
			}
		}
		if ok, err := set.Registered(ctx, "r-1"); ok || err != nil {
			t.Errorf("Registered() = %t, %v, want false", ok, err)
		}
	})
}

func TestRegistrarReadsOddAnswers(t *testing.T) {
	plain := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}
	register := func(s *scaleset.ScaleSet) error { _, err := s.Register(context.Background(), "r-1"); return err }
	registered := func(s *scaleset.ScaleSet) error { _, err := s.Registered(context.Background(), "r-1"); return err }
	deregister := func(s *scaleset.ScaleSet) error { return s.Deregister(context.Background(), "r-1", 0) }
	other := answer(200, `{"count":1,"value":[{"id":9,"name":"r-1","runnerScaleSetId":8}]}`)
	tests := []struct {
		name, route string
		answer      http.HandlerFunc
		do          func(*scaleset.ScaleSet) error
		want        error // nil: any error that is no sentinel
		succeeds    bool
	}{
		{"a conflict that came as text", routeJIT, plain(409, `{"typeName":"TaskAgentExistsException"}`), register, supervisor.ErrRegistrationExists, false},
		{"a conflict without a body", routeJIT, answer(409, ``), register, supervisor.ErrRegistrationExists, false},
		{"a registration that is null", routeJIT, answer(200, `null`), register, nil, false},
		{"a registration without a runner", routeJIT, answer(200, `{"encodedJITConfig":"x"}`), register, nil, false},
		{"a registration without a config", routeJIT, answer(200, `{"runner":{"id":1,"name":"r-1","runnerScaleSetId":7}}`), register, nil, false},
		{"a registration of another name", routeJIT, answer(200, `{"runner":{"id":1,"name":"r-2","runnerScaleSetId":7},"encodedJITConfig":"x"}`), register, nil, false},
		{"a registration of another scale set", routeJIT, answer(200, `{"runner":{"id":1,"name":"r-1","runnerScaleSetId":8},"encodedJITConfig":"x"}`), register, nil, false},
		{"a runner of another scale set is not ours to see", routeLookUp, other, registered, nil, false},
		{"a runner of another scale set is not ours to remove", routeLookUp, other, deregister, nil, false},
		{"a count without a value", routeLookUp, answer(200, `{"count":1,"value":[]}`), registered, nil, false},
		{"a list that is null", routeLookUp, answer(200, `null`), registered, nil, false},
		{"a 404 of the list is no answer", routeLookUp, answer(404, ``), registered, nil, false},
		{"a job that runs, said with 400", routeRemove, exception(400, "GitHub.DistributedTask.WebApi.TaskAgentJobStillRunningException"), deregister, supervisor.ErrJobStillRunning, false},
		{"a job that runs, said with 409", routeRemove, exception(409, "GitHub.DistributedTask.WebApi.TaskAgentJobStillRunningException"), deregister, supervisor.ErrJobStillRunning, false},
		{"a job that runs, said as text", routeRemove, plain(400, `TaskAgentJobStillRunningException`), deregister, supervisor.ErrJobStillRunning, false},
		{"a removal that fails", routeRemove, answer(500, ``), deregister, nil, false},
		{"a 404 while the runner is still listed", routeRemove, answer(404, ``), deregister, nil, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				svc := newService(t)
				set := open(t, svc.config(t))
				if test.route == routeRemove {
					svc.agents["r-1"] = 5
				}
				svc.answers(test.route, test.answer)
				err := test.do(set)
				if err == nil {
					t.Fatal("got nil, want an error")
				}
				for _, sentinel := range []error{supervisor.ErrRegistrationExists, supervisor.ErrJobStillRunning} {
					if got, want := errors.Is(err, sentinel), sentinel == test.want; got != want {
						t.Errorf("errors.Is(%v, %q) = %t, want %t", err, sentinel, got, want)
					}
				}
				// Whatever happened, the next call works.
				svc.answers(test.route, nil)
				if _, err := set.Registered(t.Context(), "r-1"); err != nil {
					t.Errorf("Registered() afterwards = %v", err)
				}
			})
		})
	}
	t.Run("a 404 after the runner went is a success", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			svc := newService(t)
			set := open(t, svc.config(t))
			svc.agents["r-1"] = 5
			svc.answers(routeRemove, func(w http.ResponseWriter, r *http.Request) {
				svc.remove(discard{}, r)
				answer(404, ``)(w, r)
			})
			if err := set.Deregister(t.Context(), "r-1", 0); err != nil {
				t.Errorf("Deregister() = %v, want nil", err)
			}
		})
	})
	t.Run("a name that would change the query never leaves", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			svc := newService(t)
			set := open(t, svc.config(t))
			if _, err := set.Registered(t.Context(), "a&b"); err == nil || svc.count(routeLookUp) != 0 {
				t.Errorf("Registered() = %v after %d requests, want an error and none", err, svc.count(routeLookUp))
			}
		})
	})
}

func TestARevokedAdminTokenIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService(t)
		cfg := svc.config(t)
		cfg.JITClients = 1
		set := open(t, cfg)
		svc.answers(routeLookUp, answer(401, `{"message":"revoked"}`))
		if _, err := set.Registered(t.Context(), "r-1"); err == nil {
			t.Fatal("Registered() = nil, want an error")
		}
		before := svc.count(routeRegister)
		svc.answers(routeLookUp, nil)
		if _, err := set.Registered(t.Context(), "r-1"); err != nil || svc.count(routeRegister) != before+1 {
			t.Errorf("Registered() = %v with %d new tokens, want one", err, svc.count(routeRegister)-before)
		}
	})
}

func TestRegistrationsRunBesideEachOtherAndTheirWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService(t)
		set := open(t, svc.config(t))
		svc.answers(routeLookUp, silent)
		began := time.Now()
		var calls sync.WaitGroup
		for range 3 { // one more than there are clients
			calls.Go(func() {
				if _, err := set.Registered(t.Context(), "r-1"); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Registered() = %v, want a deadline", err)
				}
			})
		}
		pass(time.Second)
		if n := svc.count(routeLookUp); n != 2 {
			t.Errorf("%d calls under way, want 2", n)
		}
		calls.Wait()
		if d := time.Since(began); d > 61*time.Second {
			t.Errorf("all calls ended after %s, want within the minute of Timings.Call", d)
		}
	})
}

// TestNothingOfAnAnswerIsRepeated sends a canary in the body, the headers and
// the URL of every answer that can go wrong.
func TestNothingOfAnAnswerIsRepeated(t *testing.T) {
	const canary = "ghs_canary0123456789"
	bodies := map[string]http.HandlerFunc{
		"a JSON error": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ActivityId", canary)
			answer(400, `{"typeName":"X","message":"`+canary+`"}`)(w, r)
		},
		"a text error":      func(w http.ResponseWriter, _ *http.Request) { http.Error(w, canary, 403) },
		"an expired token":  answer(401, canary),
		"a malformed body":  answer(200, canary),
		"a typed exception": exception(409, "TaskAgentExistsException "+canary),
	}
	for name, body := range bodies {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				svc := newService(t)
				cfg := svc.config(t)
				cfg.Token = supervisor.NewSecret(canary)
				core, logs := observer.New(zap.DebugLevel)
				set, err := scaleset.Open(t.Context(), cfg, zap.New(core))
				if err != nil {
					t.Fatal(err)
				}
				for _, route := range []string{routeOpen, routePoll, routeJIT, routeLookUp, routeGroups, routeFind, routeClose, routeAck} {
					svc.answers(route, body)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				var said []string
				_, err = set.Register(ctx, "r-1")
				said = append(said, err.Error())
				_, err = set.Registered(ctx, "r-1")
				said = append(said, err.Error(), set.Deregister(ctx, "r-1", 0).Error())
				_, err = scaleset.Open(ctx, cfg, zap.New(core))
				said = append(said, err.Error())
				for _, route := range []string{"", routeOpen} { // first the opening fails, then the poll
					svc.answers(route, nil)
					runCtx, stop := context.WithTimeout(ctx, 20*time.Second)
					_ = set.Run(runCtx, func() int { return 1 }, func(context.Context, supervisor.Message) error { return nil })
					stop()
					said = append(said, set.Health().LastError)
				}
				for _, entry := range logs.All() {
					said = append(said, entry.Message)
					for _, v := range entry.ContextMap() {
						said = append(said, fmt.Sprint(v))
					}
				}
				for _, s := range said {
					if strings.Contains(s, "canary") || strings.Contains(s, "http://") {
						t.Errorf("said %q, want neither the canary nor a URL", s)
					}
				}
			})
		})
	}
}

// A scale set that GitHub deleted and we made anew has another id. The runners
// of the one before are still ours to remove, if we know that they are.
func TestARunnerOfTheScaleSetBeforeIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService(t)
		set := open(t, svc.config(t))
		if _, err := set.Register(t.Context(), "r-1"); err != nil {
			t.Fatal(err)
		}
		svc.answers(routeLookUp, func(w http.ResponseWriter, r *http.Request) {
			answer(200, `{"count":1,"value":[{"id":5,"name":"r-1","runnerScaleSetId":6}]}`)(w, r)
		})
		if err := set.Deregister(t.Context(), "r-1", 0); !errors.Is(err, supervisor.ErrForeignRunner) || svc.count(routeRemove) != 0 {
			t.Errorf("Deregister() of another set's runner = %v with %d removals, want %v", err, svc.count(routeRemove), supervisor.ErrForeignRunner)
		}
		removed := false
		svc.answers(routeRemove, func(w http.ResponseWriter, r *http.Request) {
			removed = true
			answer(204, ``)(w, r)
		})
		if err := set.Deregister(t.Context(), "r-1", 6); err != nil || !removed {
			t.Errorf("Deregister() with the scale set of its record = %v, removed %t, want it removed", err, removed)
		}
	})
}
