package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
)

const (
	setsPath  = "/rest/_apis/runtime/runnerscalesets"
	queuePath = "/scalesets/message"
)

// RunFaults puts every kind of fault of the simulator's menu before the client:
// what is seen of it, and that all is well afterwards. A kind without a case
// fails, and so does a case without a kind.
func RunFaults(t *testing.T, o Options) {
	cases := faultCases()
	for _, spec := range simgithub.Menu() {
		test, has := cases[spec.Kind]
		if !has {
			t.Errorf("the fault %s has no case: %s", spec.Kind, spec.What)
			continue
		}
		delete(cases, spec.Kind)
		t.Run(string(spec.Kind), func(t *testing.T) {
			o.hold(t, Rule{Test: func(w *World) { test(w, spec.Kind) }})
		})
	}
	for kind := range cases {
		t.Errorf("the menu has no fault %s", kind)
	}
}

// faultCase injects a fault of the kind and says what the client sees.
type faultCase func(w *World, kind simgithub.FaultKind)

func faultCases() map[simgithub.FaultKind]faultCase {
	cases := answerCases()
	maps.Copy(cases, bootstrapCases())
	maps.Copy(cases, messageCases())
	maps.Copy(cases, worldCases())
	return cases
}

// find looks for the scale set, as [onFind] and others spoil it.
func (w *World) find(c Client) (*Set, error) { return c.FindSet(w.Context(), w.Group, setName) }

// finds says that all is well (again).
func (w *World) finds() {
	w.Helper()
	if set, err := w.find(w.Client); err != nil || set == nil || set.ID != w.Set.ID {
		w.Errorf("afterwards FindSet() = %+v, %v, want the scale set", set, err)
	}
}

// attempt is what the call says, its panic as an error: versions of the official
// client panic at answers that they did not expect.
func attempt(call func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return call()
}

// onFind spoils the search for the scale set: it fails with one of these words.
func onFind(over string, ok func(Answer) bool, words ...string) faultCase {
	return func(w *World, kind simgithub.FaultKind) {
		w.Sim.Inject(simgithub.Fault{Kind: kind, Method: "GET", Path: setsPath, Whole: true})
		_, err := w.find(w.Client)
		w.refusedWith("the search under the fault", err, words...)
		w.sees(over, ok)
		w.finds()
	}
}

func answerCases() map[simgithub.FaultKind]faultCase {
	return map[simgithub.FaultKind]faultCase{
		simgithub.FaultStatus: onFind("500 and GitHub's error", func(a Answer) bool {
			return a.Status == 500 && bytes.Contains(a.Body, []byte(`"message":"injected 500"`))
		}, "HTTP 500", "500 Internal Server Error", "giving up"),
		simgithub.FaultUnauthorized: onFind("401 as the service says it", func(a Answer) bool {
			return a.Status == 401 && a.Header.Get("WWW-Authenticate") != "" && bytes.Contains(a.Body, []byte("VssUnauthorizedException"))
		}, "401"),
		simgithub.FaultThrottled: onFind("429 and two seconds to wait", func(a Answer) bool {
			return a.Status == 429 && a.Header.Get("Retry-After") == "2"
		}, "HTTP 429", "429 Too Many Requests", "giving up"),
		simgithub.FaultTruncated: onFind("200 and half a document", func(a Answer) bool {
			return a.Status == 200 && len(a.Body) > 10 && !json.Valid(a.Body)
		}, "unexpected end", "unexpected EOF"),
		simgithub.FaultEmpty:     onFind("200 and nothing", func(a Answer) bool { return a.Status == 200 && len(a.Body) == 0 }, "unexpected end", "EOF"),
		simgithub.FaultWrongType: onFind("200 and a list", func(a Answer) bool { return a.Status == 200 && string(a.Body) == `["surprise"]` }, "cannot unmarshal array"),
		simgithub.FaultHTML: onFind("503 and a page", func(a Answer) bool {
			return a.Status == 503 && strings.HasPrefix(a.Header.Get("Content-Type"), "text/html") && bytes.Contains(a.Body, []byte("<html>"))
		}, "HTTP 503", "503 Service Unavailable", "giving up"),
		simgithub.FaultRedirect: onFind("302 to another host", func(a Answer) bool {
			return a.Status == 302 && a.Header.Get("Location") == "https://elsewhere.invalid"+setsPath
		}, "HTTP 302", "elsewhere.invalid", "gave HTTP response to HTTPS client"),
		simgithub.FaultEcho: onFind("400 and the credential", func(a Answer) bool {
			return a.Status == 400 && bytes.Contains(a.Body, []byte("cannot handle Bearer ey"))
		}, "cannot handle Bearer ey"),
		simgithub.FaultNull:          nullFound,
		simgithub.FaultCountOnly:     countedOnly,
		simgithub.FaultByteOrderMark: markedFound,
		simgithub.FaultClockSkew:     skewedFound,
		simgithub.FaultDrop:          dropped,
		simgithub.FaultHang:          hung,
		simgithub.FaultText:          misunderstood,
	}
}

// nullFound: null reads as a list without a scale set. It is there all the same.
func nullFound(w *World, kind simgithub.FaultKind) {
	w.Sim.Inject(simgithub.Fault{Kind: kind, Method: "GET", Path: setsPath, Whole: true})
	if set, err := w.find(w.Client); set != nil || err != nil {
		w.Errorf("FindSet() = %+v, %v, want nothing", set, err)
	}
	w.sees("200 and null", func(a Answer) bool { return a.Status == 200 && string(a.Body) == "null" })
	w.finds()
}

// countedOnly: the official client reaches for the first of no elements.
func countedOnly(w *World, kind simgithub.FaultKind) {
	w.Sim.Inject(simgithub.Fault{Kind: kind, Method: "GET", Path: setsPath, Whole: true})
	var set *Set
	err := attempt(func() (err error) {
		set, err = w.find(w.New())
		return err
	})
	switch {
	case w.plain() && (set != nil || err != nil):
		w.Errorf("FindSet() = %+v, %v, want nothing", set, err)
	case !w.plain():
		w.refusedWith("a list without its element", err, "index out of range")
	}
	w.sees("count 1 of none", func(a Answer) bool {
		return bytes.Contains(a.Body, []byte(`"count":1`)) && bytes.Contains(a.Body, []byte(`"value":[]`))
	})
	w.finds()
}

func markedFound(w *World, kind simgithub.FaultKind) {
	w.Sim.Inject(simgithub.Fault{Kind: kind, Method: "GET", Path: setsPath, Whole: true})
	w.finds() // clients take the mark away
	w.sees("a byte order mark", func(a Answer) bool { return bytes.HasPrefix(a.Body, []byte("\xef\xbb\xbf{")) })
	w.finds()
	w.sees("no byte order mark", func(a Answer) bool { return bytes.HasPrefix(a.Body, []byte("{")) })
}

func skewedFound(w *World, kind simgithub.FaultKind) {
	ahead := func(a Answer) time.Duration {
		date, err := http.ParseTime(a.Header.Get("Date"))
		if err != nil {
			w.Errorf("Date = %q: %v", a.Header.Get("Date"), err)
		}
		return time.Until(date)
	}
	w.Sim.Inject(simgithub.Fault{Kind: kind, Method: "GET", Path: setsPath, Whole: true})
	w.finds() // these clients do not look at it
	w.sees("a Date in ten minutes", func(a Answer) bool { return ahead(a) > 9*time.Minute && ahead(a) < 11*time.Minute })
	w.finds()
	w.sees("a Date of now", func(a Answer) bool { return ahead(a) < time.Minute })
}

// dropped: a POST is not repeated by the transport, so one drop is seen.
func dropped(w *World, kind simgithub.FaultKind) {
	w.Sim.Inject(simgithub.Fault{Kind: kind, Method: "POST", Path: setsPath + "/*/generatejitconfig"})
	_, err := w.Client.Register(w.Context(), w.Set.ID, "r-1")
	w.refusedWith("a registration without an answer", err, "EOF", "closed", "reset")
	if id := must(w.Client.FindRunner(w.Context(), "r-1"))(w); id != 0 {
		w.Errorf("FindRunner() = %d, want nothing registered", id)
	}
	must(w.Client.Register(w.Context(), w.Set.ID, "r-1"))(w)
}

func hung(w *World, kind simgithub.FaultKind) {
	w.Sim.Inject(simgithub.Fault{Kind: kind, Method: "GET", Path: setsPath, Whole: true})
	ctx, cancel := context.WithTimeout(w.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := w.Client.FindSet(ctx, w.Group, setName)
	w.refusedWith("a search without an answer", err, "deadline exceeded")
	if took := time.Since(began); took < 150*time.Millisecond {
		w.Errorf("the search ended after %s, want it to hang until its client gave up", took)
	}
	w.finds()
}

// misunderstood: the official client does not read errors that come as text, so
// that a name that is taken does not look like one.
func misunderstood(w *World, kind simgithub.FaultKind) {
	must(w.Client.Register(w.Context(), w.Set.ID, "r-1"))(w)
	w.Sim.Inject(simgithub.Fault{Kind: kind, Method: "POST", Path: setsPath + "/*/generatejitconfig", AfterEffect: true})
	_, err := w.Client.Register(w.Context(), w.Set.ID, "r-1")
	w.refusedWith("a name that is taken", err, "unexpected status code: 409", "HTTP 409")
	w.sees("the service's error as text", func(a Answer) bool {
		return a.Status == 409 && strings.HasPrefix(a.Header.Get("Content-Type"), "text/plain") && bytes.Contains(a.Body, []byte("TaskAgentExistsException"))
	})
	_, err = w.Client.Register(w.Context(), w.Set.ID, "r-1")
	w.refusedWith("a name that is taken", err, "runner exists", "TaskAgentExistsException")
}

// onConnect spoils the first calls of a new client.
func onConnect(path, over string, ok func(Answer) bool, words ...string) faultCase {
	return func(w *World, kind simgithub.FaultKind) {
		w.Sim.Inject(simgithub.Fault{Kind: kind, Method: "POST", Path: path})
		err := attempt(func() error {
			_, err := w.find(w.New())
			return err
		})
		w.refusedWith("a client's connection under the fault", err, words...)
		w.sees(over, ok)
		set, err := w.find(w.New())
		if err != nil || set == nil {
			w.Errorf("the next client: FindSet() = %+v, %v, want the scale set", set, err)
		}
	}
}

func bootstrapCases() map[simgithub.FaultKind]faultCase {
	const registration, service = "/api/v3/orgs/*/actions/runners/registration-token", "/api/v3/actions/runner-registration"
	refusedNext := func(a Answer) bool { return a.Status == 401 }
	return map[simgithub.FaultKind]faultCase{
		simgithub.FaultRateLimited: onConnect(registration, "403 and nothing left", func(a Answer) bool {
			return a.Status == 403 && a.Header.Get("X-RateLimit-Remaining") == "0" && a.Header.Get("X-RateLimit-Reset") > fmt.Sprint(time.Now().Unix())
		}, "403"),
		simgithub.FaultSecondaryLimit: onConnect(registration, "403, five seconds to wait, and why", func(a Answer) bool {
			return a.Status == 403 && a.Header.Get("Retry-After") == "5" && bytes.Contains(a.Body, []byte("about-secondary-rate-limits"))
		}, "403"),
		// The official client panics at both; plain HTTP goes on with what it
		// was given, and is refused.
		simgithub.FaultNoToken:  onConnect(registration, "the next request refused", refusedNext, "nil pointer", "HTTP 401"),
		simgithub.FaultNoExpiry: onConnect(service, "the next request refused", refusedNext, "nil pointer", "HTTP 401"),
	}
}

func worldCases() map[simgithub.FaultKind]faultCase {
	return map[simgithub.FaultKind]faultCase{
		simgithub.FaultGroupRenamed: func(w *World, kind simgithub.FaultKind) {
			w.Sim.Inject(simgithub.Fault{Kind: kind, Method: "GET", Path: setsPath, Whole: true, Skip: 1})
			w.finds()
			if id := must(w.Client.GroupID(w.Context(), group))(w); id != w.Group {
				w.Errorf("GroupID() = %d before its time, want %d", id, w.Group)
			}
			w.finds() // the request itself is answered
			_, err := w.Client.GroupID(w.Context(), group)
			w.refusedWith("the former name", err, "no runner group", "0 groups")
			if err := w.Sim.UpdateGroup(int64(w.Group), func(g *simgithub.Group) { g.Name = group }); err != nil {
				w.Fatal(err)
			}
			if id := must(w.Client.GroupID(w.Context(), group))(w); id != w.Group {
				w.Errorf("afterwards GroupID() = %d, want %d", id, w.Group)
			}
		},
		simgithub.FaultGroupOpened: func(w *World, kind simgithub.FaultKind) {
			closed := func(g *simgithub.Group) {
				g.Visibility, g.Repositories, g.RestrictedToWorkflows = "selected", []string{"other"}, true
			}
			if err := w.Sim.UpdateGroup(int64(w.Group), closed); err != nil {
				w.Fatal(err)
			}
			foreign := w.job() // of a repository that the group does not admit
			s := w.open(w.Client)
			w.Sim.Inject(simgithub.Fault{Kind: kind, Method: "GET", Path: queuePath, Skip: 1, Group: group})
			if m := must(s.Poll(w.Context(), 0, 5))(w); m != nil {
				w.Fatalf("Poll() = %+v, want nothing for a closed group", m)
			}
			if m := w.next(s); !slices.Equal(m.Assigned, []string{foreign.JobID}) {
				w.Errorf("Poll() of the opened group = %+v, want the foreign job %s", m, foreign.JobID)
			}
			if err := w.Sim.UpdateGroup(int64(w.Group), closed); err != nil {
				w.Fatal(err)
			}
			w.job()
			if m := must(s.Poll(w.Context(), 0, 5))(w); m != nil {
				w.Errorf("afterwards Poll() = %+v, want nothing", m)
			}
		},
		// The runner is told what its version is worth (actions/runner
		// Program.cs), and the next one is none the worse.
		simgithub.FaultVersion: func(w *World, kind simgithub.FaultKind) {
			w.Sim.Inject(simgithub.Fault{Kind: kind, Method: "GET", Path: "/broker/message"})
			jit := must(w.Client.Register(w.Context(), w.Set.ID, "r-1"))(w)
			if code := (simgithub.Runner{Client: w.To.HTTP, VersionExitCode: true}).Run(w.Context(), jit.Encoded, nil); code != 7 {
				w.Errorf("the refused runner ended with %d, want 7", code)
			}
			last := w.Sim.Requests()
			if !slices.ContainsFunc(last, func(r simgithub.Request) bool { return r.Path == "/broker/message" && r.Status == 403 }) {
				w.Error("no runner's poll was answered with 403")
			}
			w.runner("r-2")
		},
		simgithub.FaultSessionGone: func(w *World, kind simgithub.FaultKind) {
			s := w.open(w.Client)
			w.Sim.Inject(simgithub.Fault{Kind: kind, Method: "GET", Path: queuePath})
			_, err := s.Poll(w.Context(), 0, 5)
			w.refusedWith("a poll on the session that is gone", err, "Expired", "400")
			w.sees("400 as the service says it", func(a Answer) bool {
				return a.Status == 400 && bytes.Contains(a.Body, []byte("RunnerScaleSetSessionExpiredException"))
			})
			w.job()
			if m := must(w.open(w.New()).Poll(w.Context(), 0, 5))(w); m == nil || len(m.Assigned) != 1 {
				w.Errorf("the next session's Poll() = %+v, want the job", m)
			}
		},
	}
}
