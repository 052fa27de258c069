package conformance

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
)

func sessionRules() []Rule {
	return []Rule{
		{Name: "rule 8: a scale set has one session at a time", Test: func(w *World) {
			first := w.open(w.Client)
			_, err := w.New().Open(w.Context(), w.Set.ID, "other")
			w.refusedWith("a second session", err, "RunnerScaleSetSessionConflictException")
			if err := first.Close(w.Context()); err != nil {
				w.Fatal(err)
			}
			w.open(w.New())
		}},
		{Name: "rule 8: a session outlives its client until it expires", Clock: true, Test: func(w *World) {
			first := w.open(w.Client)
			w.pass(2 * time.Minute)
			_, err := w.New().Open(w.Context(), w.Set.ID, "other")
			w.refusedWith("a session beside one whose client died", err, "409")
			w.pass(5 * time.Minute)
			w.open(w.New())
			_, err = first.Poll(w.Context(), 0, 1)
			w.refusedWith("a poll on the expired session", err, "400", "Expired")
		}},
		{Name: "rule 1: a poll without news is held and then answered with 202", Test: func(w *World) {
			began := time.Now()
			m := must(w.open(w.Client).Poll(w.Context(), 0, 1))(w)
			if held := time.Since(began); m != nil || held < 250*time.Millisecond {
				w.Errorf("Poll() = %+v after %s, want nothing after the hold", m, held)
			}
		}},
		{Name: "rule 8: an expired queue token is renewed by the session", Clock: true, Config: func(c *simgithub.Config) { c.QueueTokenTTL, c.SessionTTL = 2*time.Minute, time.Hour }, Test: func(w *World) {
			s := w.open(w.Client)
			w.pass(3 * time.Minute)
			_, err := s.Poll(w.Context(), 0, 1)
			if _, isRaw := s.(*rawSession); isRaw { // it renews nothing
				w.refusedWith("a poll with an expired token", err, "HTTP 401")
				return
			}
			if err != nil {
				w.Errorf("Poll() after the token's end = %v, want it renewed", err)
			}
		}},
		{Name: "rule 8: the session is renewed as a whole", Test: func(w *World) {
			s := w.open(NewRaw(w.To)).(*rawSession)
			var whole map[string]any
			if err := s.call(w.Context(), 200, "PATCH", s.path(), nil, &whole); err != nil {
				w.Fatal(err)
			}
			for _, key := range []string{"sessionId", "ownerName", "runnerScaleSet", "messageQueueUrl", "messageQueueAccessToken", "statistics"} {
				if whole[key] == nil || whole[key] == "" {
					w.Errorf("the renewed session has no %s", key)
				}
			}
			if whole["sessionId"] != s.session.ID {
				w.Errorf("the renewed session is %v, want %s", whole["sessionId"], s.session.ID)
			}
		}},
		{Name: "rule 8: a session that is not there is neither renewed, polled nor deleted", Test: func(w *World) {
			mine := w.open(w.Client)
			if err := mine.Close(w.Context()); err != nil {
				w.Fatal(err)
			}
			w.refusedWith("a second deletion", mine.Close(w.Context()), "400")
			_, err := mine.Poll(w.Context(), 0, 1)
			w.refusedWith("a poll", err, "400", "Expired")
			s := w.open(NewRaw(w.To)).(*rawSession)
			if err := s.Close(w.Context()); err != nil {
				w.Fatal(err)
			}
			for method, status := range map[string]int{"PATCH": 404, "DELETE": 400} {
				err := s.call(w.Context(), 200, method, s.path(), nil, nil)
				if answer, isRefused := errors.AsType[*refused](err); !isRefused || answer.status != status {
					w.Errorf("%s of a session that is gone: %v, want status %d", method, err, status)
				}
			}
			err = s.call(w.Context(), 200, "PATCH", s.path(), nil, nil)
			w.refusedWith("its renewal", err, "RunnerAdminException")
		}},
	}
}

func tokenRules() []Rule {
	return []Rule{
		{Name: "rule 2: the service's token and the queue's are not interchangeable", Test: func(w *World) {
			w.job()
			s := w.open(NewRaw(w.To)).(*rawSession)
			m := must(s.Poll(w.Context(), 0, 5))(w)
			service, queue := "Bearer "+s.token, "Bearer "+s.session.Token
			address, query, _ := strings.Cut(s.session.URL, "?")
			message := fmt.Sprintf("%s/%d?%s", address, m.ID, query)
			acquire := fmt.Sprintf("%s/_apis/%s/%d/acquirejobs", s.base, sets, s.set)
			for _, try := range []struct {
				method, where, auth string
				want                int
			}{
				{"GET", s.session.URL, service, 401}, {"DELETE", message, service, 401}, {"POST", acquire, service, 401},
				{"GET", s.base + "/_apis/" + sets, queue, 401}, {"PATCH", s.base + "/_apis/" + s.path(), queue, 401},
				{"POST", acquire, queue, 200}, {"GET", s.base + "/_apis/" + sets, service, 200}, {"DELETE", message, queue, 204},
			} {
				if err := exchange(w.Context(), w.To.HTTP, try.want, try.method, try.where, try.auth, []int64{}, nil); err != nil {
					w.Errorf("want %d: %v", try.want, err)
				}
			}
		}},
		{Name: "rule 1: answers say that they are JSON in UTF-8, and success is what it should be", Test: func(w *World) {
			plain := NewRaw(w.To).(*raw)
			if _, err := w.find(plain); err != nil {
				w.Fatal(err)
			}
			for _, ask := range []struct {
				method, path string
				body         any
				want         int
			}{
				{"GET", "runtime/runnergroups/?groupName=" + group, nil, 200}, {"GET", sets + "?name=" + setName, nil, 200}, {"GET", sets + "/99", nil, 404},
				{"POST", sets, map[string]any{"name": "x", "runnerGroupId": 1, "labels": []any{map[string]any{"name": "x"}}}, 200}, {"POST", sets, "nonsense", 400},
				{"DELETE", "distributedtask/pools/0/agents/99", nil, 404}, {"GET", "nonsense", nil, 404},
			} {
				if err := plain.call(w.Context(), ask.want, ask.method, ask.path, ask.body, nil); err != nil {
					w.Errorf("want %d: %v", ask.want, err)
				}
				if got := w.To.wire.last.Header.Get("Content-Type"); got != "application/json; charset=utf-8" {
					w.Errorf("%s %s: Content-Type %q", ask.method, ask.path, got)
				}
			}
		}},
		{Name: "rule 1: a byte order mark may come before any answer", Test: func(w *World) {
			w.Sim.Inject(simgithub.Fault{Kind: simgithub.FaultByteOrderMark, Path: "/rest", Count: -1})
			w.Sim.Inject(simgithub.Fault{Kind: simgithub.FaultByteOrderMark, Path: queuePath, Count: -1})
			run := w.job()
			c := w.New()
			if id := must(c.GroupID(w.Context(), group))(w); id != w.Group {
				w.Errorf("GroupID() = %d, want %d", id, w.Group)
			}
			if set := must(w.find(c))(w); set == nil || set.ID != w.Set.ID {
				w.Errorf("FindSet() = %+v, want %+v", set, w.Set)
			}
			jit := must(c.Register(w.Context(), w.Set.ID, "r-1"))(w)
			if id := must(c.FindRunner(w.Context(), "r-1"))(w); id != jit.ID {
				w.Errorf("FindRunner() = %d, want %d", id, jit.ID)
			}
			if m := w.next(w.open(c)); !slices.Equal(m.Assigned, []string{run.JobID}) {
				w.Errorf("Poll() = %+v, want job %s", m, run.JobID)
			}
		}},
	}
}
