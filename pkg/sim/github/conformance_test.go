package simgithub_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/actions/scaleset"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
)

const sets = "/rest/_apis/runtime/runnerscalesets"

func TestRule1StatusCodesAndContentType(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		admin := "Bearer " + w.adminToken()
		for _, c := range []struct {
			method, path string
			body         any
			want         int
		}{
			{"POST", sets, map[string]any{"name": "x", "runnerGroupId": 1, "labels": []any{map[string]any{"name": "x"}}}, 200},
			{"GET", sets + "?name=x&runnerGroupId=1", nil, 200},
			{"DELETE", sets + "/2", nil, 204},
			{"GET", sets + "/2", nil, 404},
			{"GET", "/rest/_apis/runtime/runnergroups/?groupName=prod", nil, 200},
			{"GET", "/rest/_apis/nonsense", nil, 404},
		} {
			status, header, _ := w.raw(c.method, c.path, admin, c.body)
			if status != c.want {
				t.Errorf("%s %s = %d, want %d", c.method, c.path, status, c.want)
			}
			if got := header.Get("Content-Type"); status != 204 && got != "application/json; charset=utf-8" {
				t.Errorf("%s %s Content-Type = %q", c.method, c.path, got)
			}
		}
		c, begin := w.session(), time.Now()
		if m, err := c.GetMessage(t.Context(), 0, 1); m != nil || err != nil {
			t.Fatalf("GetMessage() = %v, %v, want nothing", m, err)
		}
		wantNear(t, "an idle poll", time.Since(begin), 50*time.Second)
	})
}

func TestRule2CredentialsAreNotInterchangeable(t *testing.T) {
	bubble(t, simgithub.Config{AdminTokenTTL: time.Hour, QueueTokenTTL: 10 * time.Minute}, func(t *testing.T, w *world) {
		admin := w.adminToken()
		_, _, reg := w.raw("POST", "/api/v3/orgs/acme/actions/runners/registration-token", "Bearer "+pat, nil)
		registration := reg["token"].(string)
		_, _, ses := w.raw("POST", sets+"/1/sessions", "Bearer "+admin, map[string]any{"ownerName": "h"})
		queue, path := ses["messageQueueAccessToken"].(string), strings.TrimPrefix(ses["messageQueueUrl"].(string), "http://ghes.test")
		for _, c := range []struct{ name, method, path, auth string }{
			{"a registration token as bearer", "POST", "/api/v3/actions/runner-registration", "Bearer " + registration},
			{"a personal token as RemoteAuth", "POST", "/api/v3/actions/runner-registration", "RemoteAuth " + pat},
			{"a personal token for an installation", "POST", "/api/v3/app/installations/7/access_tokens", "Bearer " + pat},
			{"the queue token for a scale set", "GET", sets + "/1", "Bearer " + queue},
			{"the admin token for the queue", "GET", path, "Bearer " + admin},
			{"the admin token for an acknowledgement", "DELETE", strings.Replace(path, "?", "/100000001?", 1), "Bearer " + admin},
			{"the admin token for acquirejobs", "POST", sets + "/1/acquirejobs", "Bearer " + admin},
			{"the admin token for REST", "GET", "/api/v3/orgs/acme", "Bearer " + admin},
			{"the admin token for a runner's session", "POST", "/broker/session", "Bearer " + admin},
			{"nothing at all", "GET", "/api/v3/orgs/acme", ""},
			{"basic authentication", "GET", "/api/v3/orgs/acme", "Basic abc"},
		} {
			if status, _, _ := w.raw(c.method, c.path, c.auth, nil); status != http.StatusUnauthorized {
				t.Errorf("%s: status %d, want 401", c.name, status)
			}
		}
		sleep(time.Minute + 59*time.Minute)
		if status, _, _ := w.raw("GET", sets+"/1", "Bearer "+admin, nil); status != http.StatusUnauthorized {
			t.Errorf("an expired admin token: status %d, want 401", status)
		}
		for _, r := range w.sim.Requests() {
			if strings.Contains(r.Query+r.Path, queue) || strings.Contains(r.Query+r.Path, admin) {
				t.Errorf("the log holds a credential: %+v", r)
			}
		}
	})
}

func TestRule2AnExpiredQueueTokenIsRefreshedByTheClient(t *testing.T) {
	bubble(t, simgithub.Config{QueueTokenTTL: time.Minute}, func(t *testing.T, w *world) {
		c := w.session()
		old := c.Session().MessageQueueAccessToken
		sleep(time.Minute)
		w.dispatch(nil)
		w.poll(c, 0, 1)
		if c.Session().MessageQueueAccessToken == old {
			t.Error("the queue token is still the expired one")
		}
	})
}

func TestRule3CapacityBoundsAssignment(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		c := w.session()
		for range 3 {
			w.dispatch(nil)
		}
		if m, err := c.GetMessage(t.Context(), 0, 0); m != nil || err != nil {
			t.Errorf("GetMessage(capacity 0) = %v, %v, want nothing", m, err)
		}
		if m := w.take(c, 2); kinds(m) != "assigned,assigned" || m.Statistics.TotalAssignedJobs != 2 {
			t.Errorf("GetMessage(capacity 2) = %s %+v", kinds(m), m.Statistics)
		}
		if m := w.take(c, 3); kinds(m) != "assigned" || m.Statistics.TotalAssignedJobs != 3 {
			t.Errorf("GetMessage(capacity 3) = %s %+v", kinds(m), m.Statistics)
		}
	})
}

func TestRule3OnlyAMatchingSetGetsAJob(t *testing.T) {
	for name, change := range map[string]func(*simgithub.RunSpec){
		"another label":           func(s *simgithub.RunSpec) { s.Labels = []string{"other"} },
		"another group":           func(s *simgithub.RunSpec) { s.Group = "Default" },
		"an own workflow":         func(s *simgithub.RunSpec) { s.JobWorkflowRef = "" },
		"a repository not listed": func(s *simgithub.RunSpec) { s.Repository = "blog" },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
				w.sim.AddRepository("blog")
				c := w.session()
				w.dispatch(change)
				if m, err := c.GetMessage(t.Context(), 0, 5); m != nil || err != nil {
					t.Errorf("GetMessage() = %v, %v, want nothing", m, err)
				}
				if name == "an own workflow" {
					w.dispatch(func(s *simgithub.RunSpec) { change(s); s.IgnoreGroupRules = true })
					if m := w.poll(c, 0, 5); kinds(m) != "assigned" {
						t.Errorf("with IgnoreGroupRules = %s, want assigned", kinds(m))
					}
				}
			})
		})
	}
}

func TestRule4AMessageComesAgainUntilItIsDeleted(t *testing.T) {
	for _, strict := range []bool{false, true} {
		bubble(t, simgithub.Config{StrictRedelivery: strict}, func(t *testing.T, w *world) {
			c := w.session()
			w.dispatch(nil)
			first := w.poll(c, 0, 1)
			if again := w.poll(c, first.MessageID-1, 1); again.MessageID != first.MessageID || first.MessageID != 100000001 {
				t.Errorf("second poll = %d, want %d again", again.MessageID, first.MessageID)
			}
			m, err := c.GetMessage(t.Context(), first.MessageID, 1)
			if err != nil || (m != nil) != strict {
				t.Errorf("GetMessage(lastMessageId = its id, strict %v) = %v, %v", strict, m, err)
			}
			w.sim.Forge(w.sim.Jobs()[0].JobID, "JobStarted", "")
			if err := c.Close(context.WithoutCancel(t.Context())); err != nil {
				t.Fatal(err)
			}
			c = w.session()
			if again := w.poll(c, 0, 1); again.MessageID != first.MessageID {
				t.Errorf("poll of the next session = %d, want %d", again.MessageID, first.MessageID)
			}
			if err := c.DeleteMessage(t.Context(), first.MessageID); err != nil {
				t.Fatal(err)
			}
			if err := c.DeleteMessage(t.Context(), first.MessageID); err == nil || !strings.Contains(err.Error(), "404") {
				t.Errorf("second DeleteMessage() = %v, want 404", err)
			}
			if next := w.poll(c, 0, 1); next.MessageID != first.MessageID+1 {
				t.Errorf("next message = %d, want %d", next.MessageID, first.MessageID+1)
			}
		})
	}
}

func TestRule5HostedDoesNotWakeThePollForJobStarted(t *testing.T) {
	for _, ghes := range []bool{false, true} {
		bubble(t, simgithub.Config{GHES: ghes}, func(t *testing.T, w *world) {
			c := w.session()
			run := w.dispatch(func(s *simgithub.RunSpec) { s.Duration = time.Hour })
			m := w.take(c, 1)
			if ghes {
				if kinds(m) != "available" || m.Statistics.TotalAvailableJobs != 1 || m.Statistics.TotalAssignedJobs != 0 {
					t.Fatalf("first message = %s %+v", kinds(m), m.Statistics)
				}
				id := m.JobAvailableMessages[0].RunnerRequestID
				if got, err := c.AcquireJobs(t.Context(), []int64{id, 999}); err != nil || len(got) != 1 || got[0] != id {
					t.Fatalf("AcquireJobs() = %v, %v, want [%d]", got, err, id)
				}
				m = w.take(c, 1)
			}
			if kinds(m) != "assigned" {
				t.Fatalf("message = %s, want assigned", kinds(m))
			}
			_, jit := w.jit("r1")
			ctx, kill := context.WithCancel(t.Context())
			begin := time.Now()
			go func() {
				sleep(5 * time.Second)
				simgithub.Runner{Client: w.http}.Run(ctx, jit, nil)
			}()
			if m = w.take(c, 1); kinds(m) != "started" || m.JobStartedMessages[0].JobID != run.JobID {
				t.Errorf("message = %s, want started", kinds(m))
			}
			want := 50 * time.Second
			if ghes {
				want = 5 * time.Second
			}
			wantNear(t, "JobStarted", time.Since(begin), want)
			kill()
			synctest.Wait()
		})
	}
}

func TestRule6AnyIdleRunnerMayTakeAnyJob(t *testing.T) {
	swap := func(names map[string]string) simgithub.Assign {
		return func(job string, idle []string) string {
			if len(idle) == 1 && len(names) == 0 {
				return "" // wait until both are idle
			}
			if names[job] == "" {
				names[job] = idle[len(idle)-1]
			}
			return names[job]
		}
	}
	for name, c := range map[string]struct {
		assign simgithub.Assign
		want   string
	}{
		"the oldest runner": {nil, "r1"}, "the hook's choice": {swap(map[string]string{}), "r2"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, simgithub.Config{Assign: c.assign}, func(t *testing.T, w *world) {
				q := w.session()
				one, two := w.dispatch(nil), w.dispatch(nil)
				w.take(q, 2)
				_, a := w.jit("r1")
				_, b := w.jit("r2")
				first, second := w.start(t.Context(), a, nil), w.start(t.Context(), b, nil)
				first()
				second()
				if j, k := w.job(one.JobID), w.job(two.JobID); j.RunnerName != c.want || k.RunnerName == j.RunnerName {
					t.Errorf("first job ran on %s, second on %s; want the first on %s", j.RunnerName, k.RunnerName, c.want)
				}
			})
		})
	}
}

func TestRule7AnAssignedJobThatNobodyTakesIsRequeuedThreeTimes(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		c := w.session()
		run := w.dispatch(nil)
		w.take(c, 1)
		for i := range 3 {
			begin := time.Now()
			m := w.takeAfterIdle(c)
			wantNear(t, "the requeue", time.Since(begin), 5*time.Minute)
			if kinds(m) != "assigned,completed" || m.JobCompletedMessages[0].Result != "canceled" {
				t.Errorf("requeue %d = %s", i+1, kinds(m))
			}
		}
		if m := w.takeAfterIdle(c); kinds(m) != "completed" || m.Statistics.TotalAssignedJobs != 0 {
			t.Errorf("after the third requeue = %s %+v, want only completed", kinds(m), m.Statistics)
		}
		if err := c.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Fatal(err)
		}
		sleep(24 * time.Hour)
		if j := w.job(run.JobID); j.Conclusion != "cancelled" || j.Requeues != 3 || j.CompletedAt.Sub(j.QueuedAt) != 24*time.Hour {
			t.Errorf("Job() a day later = %+v", j)
		}
	})
}

func TestTransitionsHappenInTheirOrderWhenNobodyLooked(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		c := w.session()
		run := w.dispatch(nil)
		w.take(c, 1)
		sleep(48 * time.Hour)
		j := w.job(run.JobID)
		// The session expired with the first requeue, so that no other came.
		if j.Requeues != 1 || j.Conclusion != "cancelled" || j.CompletedAt.Sub(j.QueuedAt) != 24*time.Hour {
			t.Errorf("Job() = %+v, want one requeue and a cancellation after a day", j)
		}
	})
}

// takeAfterIdle polls through empty answers.
func (w *world) takeAfterIdle(c *scaleset.MessageSessionClient) *scaleset.RunnerScaleSetMessage {
	w.t.Helper()
	for {
		m, err := c.GetMessage(w.t.Context(), 0, 1)
		if err != nil {
			w.t.Fatalf("GetMessage() = %v", err)
		}
		if m != nil {
			if err := c.DeleteMessage(w.t.Context(), m.MessageID); err != nil {
				w.t.Fatal(err)
			}
			return m
		}
	}
}
