package simgithub_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/actions/scaleset"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
)

func TestADroppedAnswerAfterTheEffectLeavesAnOrphan(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		w.sim.Inject(simgithub.Fault{
			Kind: simgithub.FaultDrop, Method: "POST", Path: sets + "/*/generatejitconfig", AfterEffect: true,
		})
		setting := &scaleset.RunnerScaleSetJitRunnerSetting{Name: "r1"}
		if _, err := w.admin.GenerateJitRunnerConfig(t.Context(), setting, w.set.ID); err == nil {
			t.Fatal("GenerateJitRunnerConfig() with a dropped answer succeeded")
		}
		if _, err := w.admin.GenerateJitRunnerConfig(t.Context(), setting, w.set.ID); !errors.Is(err, scaleset.RunnerExistsError) {
			t.Errorf("the same again = %v, want RunnerExistsError", err)
		}
		w.sim.Inject(simgithub.Fault{Kind: simgithub.FaultDrop, Method: "POST", Path: sets + "/*/generatejitconfig"})
		setting.Name = "r2"
		if _, err := w.admin.GenerateJitRunnerConfig(t.Context(), setting, w.set.ID); err == nil {
			t.Fatal("GenerateJitRunnerConfig() with a dropped answer succeeded")
		}
		if _, err := w.admin.GenerateJitRunnerConfig(t.Context(), setting, w.set.ID); err != nil {
			t.Errorf("again after a drop before the effect = %v", err)
		}
		for _, r := range w.sim.Requests() {
			if r.Status == 0 {
				t.Errorf("still in flight: %+v", r)
			}
		}
	})
}

func TestFaultsShowWhatTheyPromise(t *testing.T) {
	for name, c := range map[string]struct {
		fault simgithub.Fault
		check func(status int, h http.Header, body map[string]any) bool
	}{
		"status with Retry-After": {
			simgithub.Fault{Kind: simgithub.FaultStatus, Status: 429, RetryAfter: 7 * time.Second},
			func(s int, h http.Header, _ map[string]any) bool { return s == 429 && h.Get("Retry-After") == "7" },
		},
		"unauthorized": {
			simgithub.Fault{Kind: simgithub.FaultUnauthorized},
			func(s int, _ http.Header, _ map[string]any) bool { return s == 401 },
		},
		"drop": {
			simgithub.Fault{Kind: simgithub.FaultDrop, Count: 2}, // the transport repeats a GET once
			func(s int, _ http.Header, _ map[string]any) bool { return s == 0 },
		},
		"empty": {
			simgithub.Fault{Kind: simgithub.FaultEmpty},
			func(s int, _ http.Header, b map[string]any) bool { return s == 200 && b == nil },
		},
		"HTML": {
			simgithub.Fault{Kind: simgithub.FaultHTML},
			func(s int, h http.Header, _ map[string]any) bool {
				return s == 503 && strings.HasPrefix(h.Get("Content-Type"), "text/html")
			},
		},
		"text": {
			simgithub.Fault{Kind: simgithub.FaultText},
			func(s int, h http.Header, _ map[string]any) bool {
				return s == 500 && strings.HasPrefix(h.Get("Content-Type"), "text/plain")
			},
		},
		"null statistics": {
			simgithub.Fault{Kind: simgithub.FaultNullStatistics},
			func(s int, _ http.Header, b map[string]any) bool {
				v, there := b["statistics"]
				return s == 200 && there && v == nil
			},
		},
		"hang for a while": {
			simgithub.Fault{Kind: simgithub.FaultHang, Duration: time.Minute},
			func(s int, _ http.Header, b map[string]any) bool { return s == 200 && b["name"] == "prod-set" },
		},
		"byte order mark": {
			simgithub.Fault{Kind: simgithub.FaultByteOrderMark},
			func(s int, _ http.Header, b map[string]any) bool { return s == 200 && b == nil },
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
				admin := "Bearer " + w.adminToken()
				c.fault.Path, c.fault.Skip = sets+"/1", 1
				w.sim.Inject(c.fault)
				for i := range 3 {
					status, header, body := w.raw("GET", sets+"/1", admin, nil)
					spoiled := i == 1
					if spoiled && !c.check(status, header, body) || !spoiled && (status != 200 || body["name"] != "prod-set") {
						t.Errorf("request %d = %d %v", i+1, status, body)
					}
				}
			})
		})
	}
}

func TestAHangEndsWithTheClient(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		w.sim.Inject(simgithub.Fault{Kind: simgithub.FaultHang, Method: "POST", Path: sets + "/1/generatejitconfig", AfterEffect: true})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begin := time.Now()
		if _, err := w.admin.GenerateJitRunnerConfig(ctx, &scaleset.RunnerScaleSetJitRunnerSetting{Name: "r1"}, w.set.ID); err == nil {
			t.Error("GenerateJitRunnerConfig() while hanging succeeded")
		}
		wantNear(t, "the hang", time.Since(begin), time.Minute)
		synctest.Wait()
		if got := w.sim.Runners(); len(got) != 1 || got[0].Name != "r1" {
			t.Errorf("Runners() = %v, want the orphan r1", got)
		}
	})
}

func TestMessageFaults(t *testing.T) {
	inject := func(w *world, kind simgithub.FaultKind, method, path string) {
		w.sim.Inject(simgithub.Fault{Kind: kind, Method: method, Path: path})
	}
	bubble(t, simgithub.Config{QueueTokenTTL: 10 * time.Minute}, func(t *testing.T, w *world) {
		c := w.session()
		run := w.dispatch(nil)
		inject(w, simgithub.FaultUnknownMessage, "GET", "/scalesets/message")
		if _, err := c.GetMessage(t.Context(), 0, 1); err == nil || !strings.Contains(err.Error(), "RunnerScaleSetNews") {
			t.Errorf("an unknown message = %v, want an error that names it", err)
		}
		inject(w, simgithub.FaultUnknownItem, "GET", "/scalesets/message")
		if m := w.poll(c, 0, 1); kinds(m) != "assigned" {
			t.Errorf("a message with an unknown item = %s, want assigned", kinds(m))
		}
		inject(w, simgithub.FaultEmpty, "GET", "/scalesets/message")
		if _, err := c.GetMessage(t.Context(), 0, 1); err == nil || !strings.Contains(err.Error(), "EOF") {
			t.Errorf("an empty answer = %v, want EOF", err)
		}
		inject(w, simgithub.FaultDuplicateMessage, "GET", "/scalesets/message")
		first, second := w.take(c, 1), w.take(c, 1)
		if kinds(second) != "assigned" || second.MessageID == first.MessageID || second.JobAssignedMessages[0].JobID != run.JobID {
			t.Errorf("the duplicate = %d %s", second.MessageID, kinds(second))
		}
		if !w.sim.Forge(run.JobID, "JobCompleted", "canceled") {
			t.Fatal("Forge() = false")
		}
		if m := w.take(c, 1); kinds(m) != "completed" || m.Statistics.TotalAssignedJobs != 1 {
			t.Errorf("a forged completion = %s %+v", kinds(m), m.Statistics)
		}
		inject(w, simgithub.FaultNoQueueURL, "PATCH", sets+"/1/sessions")
		sleep(4 * time.Minute)
		w.sim.Inject(simgithub.Fault{Kind: simgithub.FaultUnauthorized, Path: "/scalesets/message"})
		if _, err := c.GetMessage(t.Context(), 0, 1); err == nil || !strings.Contains(err.Error(), "unsupported protocol scheme") {
			t.Errorf("a refresh without a queue URL = %v", err)
		}
	})
}

// TestARefusedVersionEndsTheRunner has the exit codes of actions/runner
// Program.cs and run-helper.sh.template: 7 only for a refused poll, and only if
// the runner was told to say so.
func TestARefusedVersionEndsTheRunner(t *testing.T) {
	for _, c := range []struct {
		path string
		told bool
		want int
	}{{"/broker/message", true, 7}, {"/broker/message", false, 0}, {"/broker/session", true, 0}} {
		bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
			w.sim.Inject(simgithub.Fault{Kind: simgithub.FaultVersion, Path: c.path, Count: -1})
			_, jit := w.jit("r1")
			if code := (simgithub.Runner{Client: w.http, VersionExitCode: c.told}).Run(t.Context(), jit, nil); code != c.want {
				t.Errorf("Run() with %s refused, told %t = %d, want %d", c.path, c.told, code, c.want)
			}
		})
	}
}
