package scaleset_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

// since is the requests after the first n.
func since(s *service, n int) []string { return s.requests()[n:] }

func TestAcknowledgesOnlyWhatWasRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService(t)
		l := listenTo(t, svc.config(t))
		synctest.Wait()
		before := len(svc.requests())
		acked := -1
		l.mu.Lock()
		l.observe = func() { acked = svc.count(routeAck) }
		l.mu.Unlock()
		svc.send(100000001, items(item("JobAssigned", "")))
		synctest.Wait()

		if got := l.messages(); len(got) != 1 || got[0].ID != 100000001 {
			t.Fatalf("observed %+v, want message 100000001 with one assigned job", got)
		} else if o, ok := got[0].Events[0].(runner.Offered); !ok || o.Job != jobID || o.Repository != "acme/deploy" {
			t.Errorf("observed %+v, want the offered job", got[0].Events)
		}
		if acked != 0 {
			t.Errorf("%d acknowledgements had arrived when the message was recorded, want 0", acked)
		}
		if got, want := since(svc, before), []string{routeAck, routePoll}; !slices.Equal(got, want) {
			t.Errorf("requests after the message = %v, want %v", got, want)
		}
		if h := l.Health(); h.Session != "open" || h.LastID != 100000001 || h.LastError != "" || h.ScaleSetID != 7 || h.Statistics.Assigned != 1 {
			t.Errorf("Health() = %+v", h)
		}
	})
}

func TestAFailedRecordBringsTheMessageAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService(t)
		l := listenTo(t, svc.config(t))
		l.failWith(errors.New("disk full"))
		svc.send(5, items(item("JobAssigned", "")))
		pass(10 * time.Minute)
		if n := svc.count(routeAck); n != 0 {
			t.Errorf("%d acknowledgements, want none", n)
		}
		// One try at least in every BackoffMax of a minute, and no storm.
		if n := svc.count(routePoll); n < 12 || n > 40 {
			t.Errorf("%d polls in ten minutes, want a few more than one a minute", n)
		}
		if h := l.Health(); !strings.Contains(h.LastError, "disk full") || !strings.Contains(h.LastError, "in a row") || h.LastID != 0 {
			t.Errorf("Health() = %+v, want the failure", h)
		}
		l.failWith(nil)
		pass(time.Minute)
		if got := l.messages(); len(got) != 1 || svc.count(routeAck) != 1 {
			t.Errorf("observed %d messages and %d acknowledgements, want one of each", len(got), svc.count(routeAck))
		}
		if h := l.Health(); h.LastError != "" || h.LastID != 5 {
			t.Errorf("Health() = %+v, want no failure", h)
		}
	})
}

func TestCapacityIsToldToGitHub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService(t)
		l := listenTo(t, svc.config(t))
		pass(10 * time.Second)
		l.mu.Lock()
		l.capacity = 0
		l.mu.Unlock()
		pass(time.Minute)
		var got []string
		svc.mu.Lock()
		for i, route := range svc.log {
			if route == routePoll {
				got = append(got, svc.headers[i].Get("X-ScaleSetMaxCapacity"))
			}
		}
		svc.mu.Unlock()
		if want := []string{"2", "0"}; !slices.Equal(got, want) {
			t.Errorf("capacities = %v, want %v", got, want)
		}
	})
}

func TestAvailableJobsAreAcquiredBetweenRecordAndAcknowledgement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService(t)
		l := listenTo(t, svc.config(t))
		synctest.Wait()
		before := len(svc.requests())
		svc.answers(routeAcquire, answer(503, ""))
		svc.send(5, items(item("JobAvailable", "")))
		synctest.Wait()
		if len(l.messages()) != 1 || svc.count(routeAcquire) != 1 || svc.count(routeAck) != 0 {
			t.Fatalf("requests = %v, want a failed acquisition and no acknowledgement", since(svc, before))
		}
		svc.answers(routeAcquire, nil)
		pass(5 * time.Second)
		want := []string{routeAcquire, routePoll, routeAcquire, routeAck, routePoll}
		if got := since(svc, before); !slices.Equal(got, want) {
			t.Errorf("requests = %v, want %v", got, want)
		}
	})
}

func TestAMissingMessageCountsAsAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService(t)
		l := listenTo(t, svc.config(t))
		svc.answers(routeAck, func(w http.ResponseWriter, r *http.Request) {
			svc.ack(discard{}, r) // the message goes, the answer says 404
			answer(404, `{}`)(w, r)
		})
		svc.send(5, items(item("JobAssigned", "")))
		synctest.Wait()
		if h := l.Health(); h.LastID != 5 || h.LastError != "" || len(l.messages()) != 1 {
			t.Errorf("Health() = %+v after %d messages, want 5 acknowledged", h, len(l.messages()))
		}
	})
}

// discard is a response that nobody sees.
type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) WriteHeader(int)             {}

// silent answers when the client has gone.
func silent(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

func TestASessionHeldElsewhereIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService(t)
		svc.answers(routeOpen, exception(409, "GitHub.Actions.Runtime.WebApi.RunnerScaleSetSessionConflictException"))
		l := listenTo(t, svc.config(t))
		began := time.Now()
		pass(10 * time.Minute)
		if n := svc.count(routeOpen); n < 20 || n > 41 {
			t.Errorf("%d attempts in ten minutes, want one in 15 to 30 s", n)
		}
		h := l.Health()
		if h.Session != "conflict" || h.SessionAge.Sub(began) > time.Second || !strings.Contains(h.LastError, "another process holds") {
			t.Errorf("Health() = %+v, want a conflict that lasts", h)
		}
		svc.answers(routeOpen, nil)
		pass(31 * time.Second)
		if h := l.Health(); h.Session != "open" {
			t.Errorf("Health() = %+v, want an open session", h)
		}
	})
}

func TestALostSessionIsReplaced(t *testing.T) {
	expired := exception(400, "GitHub.Actions.Runtime.WebApi.RunnerScaleSetSessionExpiredException")
	tests := []struct {
		name   string
		damage func(*service)
	}{
		{"the poll says that the session expired", func(s *service) { s.answers(routePoll, expired) }},
		{"the poll says that the session is unknown", func(s *service) { s.answers(routePoll, answer(404, "")) }},
		{"the acknowledgement says that the session expired", func(s *service) { s.answers(routeAck, expired) }},
		{"the token stays expired after a refresh", func(s *service) { s.answers(routePoll, answer(401, "no")) }},
		{"the refresh does not know the session", func(s *service) {
			s.answers(routePoll, answer(401, "no"))
			s.answers(routeRefresh, answer(404, `{"typeName":"RunnerAdminException","message":"runner referenced a session ID that doesn't exist in redis"}`))
		}},
		{"the refreshed session has no statistics", func(s *service) {
			s.answers(routePoll, answer(401, "no"))
			s.answers(routeRefresh, answer(200, strings.Replace(sessionJSON, stats, "null", 1)))
		}},
		{"the refreshed session has no queue", func(s *service) {
			s.answers(routePoll, answer(401, "no"))
			s.answers(routeRefresh, answer(200, strings.Replace(sessionJSON, "http://sim/scalesets/message?sessionId=1", "", 1)))
		}},
		{"the answer to an acquisition makes the client panic", func(s *service) {
			s.answers(routeRegister, answer(200, `{"url":"http://sim/rest/","token":"`+jwt(`{}`)+`"}`))
			s.send(4, items(item("JobAvailable", "")))
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				svc := newService(t)
				l := listenTo(t, svc.config(t))
				pass(59*time.Minute + 10*time.Second) // the admin token is about to expire
				opened := svc.count(routeOpen)
				test.damage(svc)
				pass(time.Minute) // the poll that was held before is over
				svc.send(5, items(item("JobAssigned", "")))
				pass(2 * time.Minute)
				if h := l.Health(); h.LastError == "" {
					t.Errorf("Health() = %+v, want a failure", h)
				}
				svc.mu.Lock()
				clear(svc.odd)
				svc.mu.Unlock()
				pass(2 * time.Minute)
				if n := svc.count(routeOpen); n <= opened {
					t.Errorf("%d sessions opened, want more than %d", n, opened)
				}
				if h := l.Health(); h.Session != "open" || h.LastID != 5 || h.LastError != "" {
					t.Errorf("Health() = %+v, want message 5 dealt with", h)
				}
			})
		})
	}
}

func TestOddAnswersToAPollAreSurvived(t *testing.T) {
	tests := []struct {
		name   string
		answer http.HandlerFunc
		says   string
	}{
		{"an empty body", answer(200, ""), "empty"},
		{"a message without its number", answer(200, `{"messageType":"RunnerScaleSetJobMessages","body":7}`), "understood"},
		{"an HTML page", answer(502, "<html>"), "HTTP 502"},
		{"an HTML page with a good status", answer(200, "<html>"), "understood"},
		{"a refusal", answer(403, `{"message":"no"}`), "HTTP 403"},
		{"silence", silent, "deadline"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				svc := newService(t)
				svc.answers(routePoll, test.answer)
				l := listenTo(t, svc.config(t))
				pass(10 * time.Minute)
				if h := l.Health(); !strings.Contains(h.LastError, test.says) || !strings.Contains(h.LastError, "in a row") || !h.LastPoll.IsZero() {
					t.Errorf("Health() = %+v, want a lasting failure that says %q", h, test.says)
				}
				if n := svc.count(routePoll); n < 4 || n > 60 {
					t.Errorf("%d polls in ten minutes, want neither silence nor a storm", n)
				}
				svc.answers(routePoll, nil)
				svc.send(5, items(item("JobAssigned", "")))
				pass(3 * time.Minute)
				if h := l.Health(); h.Session != "open" || h.LastID != 5 || h.LastError != "" || h.LastPoll.IsZero() {
					t.Errorf("Health() = %+v, want message 5 dealt with", h)
				}
			})
		})
	}
}

// One item that cannot be read must not hold up the jobs beside and behind it.
func TestWhatCannotBeReadIsPutAside(t *testing.T) {
	poison := strings.Replace(item("JobAssigned", ""), `"workflowRunId":`, `"workflowRunId":"x","was":`, 1)
	for _, test := range []struct {
		name, body string
		offers     int
		says       string
	}{
		{"an item with a field of another type", items(poison, item("JobAssigned", "")), 1, "item 0 of the message: its workflowRunId is not of the right type"},
		{"an item that is no object", items(item("JobAssigned", ""), `7`), 1, "item 1 of the message"},
		{"a body that is no list", `{}`, 0, "the body of the message"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				svc := newService(t)
				l := listenTo(t, svc.config(t))
				svc.send(5, test.body)
				svc.send(6, items(item("JobAssigned", "")))
				pass(time.Minute)
				got := l.messages()
				if len(got) != 2 || len(got[0].Events) != test.offers || got[0].ID != 5 || len(got[1].Events) != 1 {
					t.Errorf("observed %+v, want %d offers and then the message behind", got, test.offers)
				}
				if h := l.Health(); h.LastID != 6 || !strings.Contains(strings.Join(h.Warnings, ""), test.says) {
					t.Errorf("Health() = %+v, want both acknowledged and %q told", h, test.says)
				}
			})
		})
	}
}

func TestAnAcknowledgedMessageThatComesAgainMakesNoStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService(t)
		svc.answers(routePoll, answer(200, `{"messageId":1,"messageType":"RunnerScaleSetJobMessages","body":"","statistics":`+stats+`}`))
		l := listenTo(t, svc.config(t))
		pass(10 * time.Minute)
		if h := l.Health(); !strings.Contains(h.LastError, "came again") {
			t.Errorf("Health() = %+v, want it told", h)
		}
		if n := svc.count(routePoll); n < 4 || n > 120 {
			t.Errorf("%d polls in ten minutes, want neither silence nor a storm", n)
		}
	})
}

// GitHub may refuse for good to hand over a job that it has offered.
func TestJobsThatCannotBeAcquiredDoNotHoldUpTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService(t)
		svc.answers(routeAcquire, exception(400, "GitHub.Actions.Runtime.WebApi.SomethingElseException"))
		l := listenTo(t, svc.config(t))
		svc.send(5, items(item("JobAvailable", "")))
		svc.send(6, items(item("JobAssigned", "")))
		pass(5 * time.Minute)
		if h := l.Health(); h.LastID != 6 || !strings.Contains(strings.Join(h.Warnings, ""), "will not let us take 1 jobs") {
			t.Errorf("Health() = %+v, want the message put aside and told", h)
		}
		if n := svc.count(routeAcquire); n != 3 {
			t.Errorf("asked %d times, want 3", n)
		}
		before := svc.count(routeOpen)
		pass(8 * time.Minute)
		if n := svc.count(routeOpen) - before; n != 1 {
			t.Errorf("%d sessions were opened later, want one that the jobs are offered to again", n)
		}
	})
}

// An answer that does not even say that nothing was acquired says nothing: the
// message has to come again.
func TestAJobIsNotForgottenWhenAcquiringIsAnsweredWithNothing(t *testing.T) {
	for _, body := range []string{`null`, `{}`, `{"count":1,"value":null}`} {
		synctest.Test(t, func(t *testing.T) {
			svc := newService(t)
			svc.answers(routeAcquire, answer(200, body))
			l := listenTo(t, svc.config(t))
			svc.send(5, items(item("JobAvailable", "")))
			pass(5 * time.Minute)
			if n := svc.count(routeAck); n != 0 {
				t.Errorf("%s: the message was acknowledged, want it kept", body)
			}
			if h := l.Health(); !strings.Contains(h.LastError, "acquire jobs") {
				t.Errorf("%s: LastError = %q, want it told", body, h.LastError)
			}
			svc.answers(routeAcquire, nil)
			pass(5 * time.Minute)
			if n := svc.count(routeAck); n != 1 {
				t.Errorf("%s: acknowledged %d times once it was answered, want once", body, n)
			}
		})
	}
}

func TestAJobWithoutAnIdentityDoesNotHoldUpTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService(t)
		l := listenTo(t, svc.config(t))
		svc.send(5, items(strings.Replace(item("JobAssigned", ""), jobID, "not a job id", 1)))
		svc.send(6, items(item("JobAssigned", "")))
		synctest.Wait()
		if got := l.messages(); len(got) != 2 || len(got[0].Events) != 0 || len(got[1].Events) != 1 {
			t.Errorf("observed %+v, want an empty message and an offer", got)
		}
		if h := l.Health(); h.LastID != 6 || len(h.Warnings) != 1 || !strings.HasPrefix(h.Warnings[0], "1 jobs") {
			t.Errorf("Health() = %+v, want the skipped job told", h)
		}
		pass(25 * time.Hour)
		if h := l.Health(); h.LastError != "" || len(h.Warnings) != 0 {
			t.Errorf("Health() a day later = %+v, want nothing told", h)
		}
	})
}

func TestADeletedScaleSetIsMadeAgainInTheSameGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService(t)
		svc.answers(routeOpen, exception(404, "GitHub.Actions.Runtime.WebApi.RunnerScaleSetNotFoundException"))
		l := listenTo(t, svc.config(t))
		synctest.Wait()
		svc.answers(routeFind, answer(200, `{"count":0,"value":[]}`))
		svc.answers(routeCreate, answer(200, strings.Replace(scaleSetJSON, `"id":7`, `"id":8`, 1)))
		pass(2 * time.Second)
		svc.answers(routeOpen, nil)
		pass(5 * time.Second)
		if h := l.Health(); h.Session != "open" || h.ScaleSetID != 8 {
			t.Errorf("Health() = %+v, want scale set 8", h)
		}
		log := svc.requests()
		if made := slices.Index(log, routeCreate); made < 0 || !slices.Contains(log[slices.Index(log, routeOpen):made], routeGroups) {
			t.Errorf("requests = %v, want the group looked up before the scale set is made", log)
		}
	})
}

func TestShortPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService(t)
		cfg := svc.config(t)
		cfg.PollFor = func() time.Duration { return 5 * time.Second }
		l := listenTo(t, cfg)
		began := time.Now()
		pass(49 * time.Second) // the first poll of a session is left to its end
		if n := svc.count(routePoll); n != 1 {
			t.Errorf("%d polls at first, want 1", n)
		}
		pass(time.Minute)
		if n := svc.count(routePoll); n != 1+12 {
			t.Errorf("%d polls after another minute, want 12 more", n)
		}
		if h := l.Health(); h.LastError != "" || h.LastPoll.Sub(began) != 50*time.Second {
			t.Errorf("Health() = %+v, want no failure and one answered poll", h)
		}
		// A poll that nobody answered does not prove that the queue lives, so
		// one is left to its end after a minute.
		pass(53 * time.Second)
		if got := l.Health().LastPoll.Sub(began); got != 160*time.Second {
			t.Errorf("the second answered poll came after %s, want 2m40s", got)
		}
	})
}

func TestTheEndCancelsThePollAndClosesTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService(t)
		l := listenTo(t, svc.config(t))
		pass(10 * time.Second)
		began, over := time.Now(), errors.New("told to stop")
		l.stop(over)
		err := <-l.done
		l.done <- err
		if err != over || time.Since(began) != 0 {
			t.Errorf("Run() = %v after %s, want the cause at once", err, time.Since(began))
		}
		if log := svc.requests(); log[len(log)-1] != routeClose {
			t.Errorf("last request = %s, want the session closed", log[len(log)-1])
		}
		if h := l.Health(); h.Session != "none" {
			t.Errorf("Health() = %+v, want no session", h)
		}
	})
}

func TestWhatWasRecordedIsAcknowledgedEvenAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService(t)
		l := listenTo(t, svc.config(t))
		synctest.Wait()
		l.mu.Lock()
		l.observe = func() { l.stop(nil) }
		l.mu.Unlock()
		svc.send(5, items(item("JobAssigned", "")))
		err := <-l.done
		l.done <- err
		log := svc.requests()
		if got, want := log[len(log)-2:], []string{routeAck, routeClose}; !slices.Equal(got, want) || l.Health().LastID != 5 {
			t.Errorf("last requests = %v, want %v", got, want)
		}
	})
}

func TestASessionThatCannotBeUsedIsGivenBack(t *testing.T) {
	for name, body := range map[string]string{
		"no statistics": strings.Replace(sessionJSON, stats, "null", 1),
		"no queue":      strings.Replace(sessionJSON, "http://sim/scalesets/message?sessionId=1", "", 1),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				svc := newService(t)
				svc.answers(routeOpen, answer(200, body))
				l := listenTo(t, svc.config(t))
				synctest.Wait()
				if h := l.Health(); h.Session != "none" || svc.count(routeClose) != 1 || svc.count(routePoll) != 0 {
					t.Errorf("Health() = %+v after %v, want the session closed and not polled", h, svc.requests())
				}
				svc.answers(routeOpen, nil)
				pass(2 * time.Second)
				if h := l.Health(); h.Session != "open" {
					t.Errorf("Health() = %+v, want a new session", h)
				}
			})
		})
	}
}

func TestAServiceThatHangsDoesNotKeepTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService(t)
		svc.answers(routeClose, silent)
		l := listenTo(t, svc.config(t))
		pass(time.Second)
		began := time.Now()
		l.stop(nil)
		err := <-l.done
		l.done <- err
		if d := time.Since(began); d != 10*time.Second {
			t.Errorf("Run() took %s to end, want the 10 s of Timings.Close", d)
		}
	})
}
