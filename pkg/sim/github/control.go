package simgithub

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"strconv"
	"time"
)

const controlPath = "/_sim/"

// Control is one thing that can be done to the simulator over HTTP: Path is
// below /_sim/, Example a body.
type Control struct {
	Method, Path, What, Example string
	do                          func(s *Server, r *http.Request) (any, error)
}

// Controls is the control API: what tests in Go do with methods, others do over
// HTTP. The page at /_sim/ is made of the same table.
func Controls() []Control { return append(deployControls(), worldControls()...) }

// deployControls set up a repository with its protection and play deploys.
func deployControls() []Control {
	return []Control{
		{"POST", "users", "add an account", `{"login":"alice"}`, func(s *Server, r *http.Request) (any, error) {
			in, err := strictly[struct{ Login string }](r)
			return map[string]int64{"id": s.AddUser(in.Login)}, err
		}},
		{"POST", "teams", "add a team or replace its members", `{"slug":"deployers","members":["alice"]}`, func(s *Server, r *http.Request) (any, error) {
			in, err := strictly[struct {
				Slug    string
				Members []string
			}](r)
			s.AddTeam(in.Slug, in.Members...)
			return done{}, err
		}},
		{"POST", "repositories", "add a private repository", `{"name":"shop"}`, func(s *Server, r *http.Request) (any, error) {
			in, err := strictly[struct{ Name string }](r)
			return map[string]int64{"id": s.AddRepository(in.Name)}, err
		}},
		{"POST", "groups", "add or replace a runner group", `{"Name":"prod","Visibility":"selected","Repositories":["shop"]}`, func(s *Server, r *http.Request) (any, error) {
			in, err := strictly[Group](r)
			return map[string]int64{"id": s.AddGroup(in)}, err
		}},
		{"POST", "environments", "add or replace an environment; waitTimer is a duration", `{"repository":"shop","name":"production","reviewerTeams":["deployers"]}`, setEnvironment},
		{"POST", "workflow-tags", "make a reusable workflow's tag name a commit", `{"ref":"acme/ci/.github/workflows/d.yml@refs/tags/v1.0.0","sha":"1111111111111111111111111111111111111111"}`, func(s *Server, r *http.Request) (any, error) {
			in, err := strictly[struct{ Ref, SHA string }](r)
			s.SetWorkflowTag(in.Ref, in.SHA)
			return done{}, err
		}},
		{"POST", "runs", "start a workflow run; duration is how long its steps take, empty until it is finished", `{"repository":"shop","tag":"v1.0.0","actor":"alice","labels":["prod"],"duration":"20s"}`, startRun},
		{"POST", "runs/{run}/approve", "approve its waiting deployment", `{"login":"alice"}`, onRun(func(s *Server, id int64, login string) error { return s.Approve(id, login) })},
		{"POST", "runs/{run}/reject", "reject its waiting deployment", `{"login":"alice"}`, onRun(func(s *Server, id int64, login string) error { return s.Reject(id, login) })},
		{"POST", "runs/{run}/bypass", "start its waiting job as an administrator", ``, onRun(func(s *Server, id int64, _ string) error { return s.Bypass(id) })},
		{"POST", "runs/{run}/cancel", "cancel it", ``, onRun(func(s *Server, id int64, _ string) error { return s.Cancel(id) })},
		{"POST", "runs/{run}/rerun", "run all its jobs again", `{"login":"alice"}`, func(s *Server, r *http.Request) (any, error) {
			id, login, err := runAnd(r)
			if err != nil {
				return nil, err
			}
			return answerOf(s.Rerun(id, login))
		}},
		{"POST", "jobs/{job}/finish", "end the steps of a running job", `{"conclusion":"success"}`, func(s *Server, r *http.Request) (any, error) {
			in, err := strictly[struct{ Conclusion string }](r)
			if err != nil {
				return nil, err
			}
			return done{}, s.FinishJob(r.PathValue("job"), in.Conclusion)
		}},
		{"GET", "jobs", "all jobs", ``, func(s *Server, _ *http.Request) (any, error) { return s.Jobs(), nil }},
		{"GET", "runners", "all registered runners", ``, func(s *Server, _ *http.Request) (any, error) { return s.Runners(), nil }},
		{"GET", "deliveries", "the App's webhooks, with their payloads", ``, func(s *Server, _ *http.Request) (any, error) {
			var out []any
			for _, d := range s.Deliveries() {
				out = append(out, map[string]any{"id": d.ID, "guid": d.GUID, "at": d.At, "event": d.Event, "action": d.Action, "payload": json.RawMessage(d.Payload)})
			}
			return out, nil
		}},
		{"GET", "requests", "the log of requests; ?since=SEQ leaves out earlier ones", ``, listRequests},
		{"GET", "menu", "the fault menu", ``, func(*Server, *http.Request) (any, error) {
			var out []map[string]any
			for _, f := range Menu() {
				out = append(out, map[string]any{"kind": f.Kind, "what": f.What, "seen": f.Seen, "beforeEffect": f.Before(), "afterEffect": f.After()})
			}
			return out, nil
		}},
		{"POST", "faults", "make the next matching requests fail", `{"kind":"status","method":"POST","path":"/rest/_apis/runtime/runnerscalesets/*/sessions","status":500,"count":2}`, injectFault},
		{"DELETE", "faults", "take all faults back", ``, func(s *Server, _ *http.Request) (any, error) { s.ClearFaults(); return done{}, nil }},
		{"POST", "keys/rotate", "sign ID tokens with a new key", ``, func(s *Server, _ *http.Request) (any, error) { s.RotateKeys(); return done{}, nil }},
	}
}

// done is an answer that says nothing more.
type done struct{}

func answerOf[T any](v T, err error) (any, error) { return v, err }

// strictly reads a body that has these fields and no others; none is an empty
// object.
func strictly[T any](r *http.Request) (in T, err error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil || len(bytes.TrimSpace(body)) == 0 {
		return in, err
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return in, fmt.Errorf("the body: %w", err)
	}
	return in, nil
}

func runAnd(r *http.Request) (id int64, login string, err error) {
	in, err := strictly[struct{ Login string }](r)
	if err != nil {
		return 0, "", err
	}
	id, err = strconv.ParseInt(r.PathValue("run"), 10, 64)
	if err != nil {
		return 0, "", errors.New("the run is not a number")
	}
	return id, in.Login, nil
}

func onRun(do func(*Server, int64, string) error) func(*Server, *http.Request) (any, error) {
	return func(s *Server, r *http.Request) (any, error) {
		id, login, err := runAnd(r)
		if err != nil {
			return nil, err
		}
		return done{}, do(s, id, login)
	}
}

// span is a duration as people write it: "20s".
type span time.Duration

// UnmarshalJSON reads a text that [time.ParseDuration] reads.
func (d *span) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return errors.New(`a duration is a text like "20s"`)
	}
	parsed, err := time.ParseDuration(text)
	*d = span(parsed)
	return err
}

func setEnvironment(s *Server, r *http.Request) (any, error) {
	in, err := strictly[struct {
		Repository, Name                             string
		ReviewerTeams, ReviewerUsers, ProtectionApps []string
		PreventSelfReview, CanAdminsBypass           bool
		WaitTimer                                    span
		Policies                                     []BranchPolicy
	}](r)
	if err != nil {
		return nil, err
	}
	return map[string]int64{"id": s.SetEnvironment(in.Repository, Environment{
		Name: in.Name, ReviewerTeams: in.ReviewerTeams, ReviewerUsers: in.ReviewerUsers, ProtectionApps: in.ProtectionApps,
		PreventSelfReview: in.PreventSelfReview, CanAdminsBypass: in.CanAdminsBypass, WaitTimer: time.Duration(in.WaitTimer), Policies: in.Policies,
	})}, nil
}

func startRun(s *Server, r *http.Request) (any, error) {
	in, err := strictly[struct {
		Repository, Tag, HeadSHA, HeadAuthor, Actor, TriggeringActor, Event, WorkflowPath string
		JobWorkflowRef, Environment, Group, Job, Conclusion                               string
		Labels                                                                            []string
		Duration                                                                          *span
		IDToken, IgnoreGroupRules                                                         bool
	}](r)
	if err != nil {
		return nil, err
	}
	spec := RunSpec{
		Repository: in.Repository, Tag: in.Tag, HeadSHA: in.HeadSHA, HeadAuthor: in.HeadAuthor, Actor: in.Actor, TriggeringActor: in.TriggeringActor,
		Event: in.Event, WorkflowPath: in.WorkflowPath, JobWorkflowRef: in.JobWorkflowRef, Environment: in.Environment, Labels: in.Labels,
		Group: in.Group, Job: in.Job, Duration: -1, IDToken: in.IDToken, Conclusion: in.Conclusion, IgnoreGroupRules: in.IgnoreGroupRules,
	}
	if in.Duration != nil {
		spec.Duration = time.Duration(*in.Duration)
	}
	if spec.HeadSHA == "" {
		spec.HeadSHA = "1111111111111111111111111111111111111111"
	}
	return answerOf(s.Dispatch(spec))
}

func injectFault(s *Server, r *http.Request) (any, error) {
	in, err := strictly[struct {
		Kind                             FaultKind
		Method, Path, Caller, Group      string
		Whole, BeforeEffect, AfterEffect bool
		Skip, Count, Status              int
		RetryAfter, Duration             span
	}](r)
	if err != nil {
		return nil, err
	}
	f := Fault{
		Kind: in.Kind, Method: in.Method, Path: in.Path, Caller: in.Caller, Group: in.Group, Whole: in.Whole, BeforeEffect: in.BeforeEffect,
		AfterEffect: in.AfterEffect, Skip: in.Skip, Count: in.Count, Status: in.Status, RetryAfter: time.Duration(in.RetryAfter), Duration: time.Duration(in.Duration),
	}
	if err := f.Check(); err != nil {
		return nil, err
	}
	s.Inject(f)
	return done{}, nil
}

func listRequests(s *Server, r *http.Request) (any, error) {
	since, err := strconv.Atoi(r.URL.Query().Get("since"))
	if text := r.URL.Query().Get("since"); text != "" && err != nil {
		return nil, errors.New("since is not a number")
	}
	all := s.Requests()
	return all[min(max(since, 0), len(all)):], nil
}

// Control serves the control API and its page under /_sim/. It is not part of
// [Server.ServeHTTP]: whoever may talk to GitHub may not make it. token, if not
// empty, has to come as a bearer token.
func (s *Server) Control(token string) http.Handler {
	mux := http.NewServeMux()
	table := Controls()
	for _, c := range table {
		mux.HandleFunc(c.Method+" "+controlPath+c.Path, func(w http.ResponseWriter, r *http.Request) {
			out, err := c.do(s, r)
			if err != nil {
				answer{status: http.StatusBadRequest, body: map[string]string{"error": err.Error()}}.write(w)
				return
			}
			ok(out).write(w)
		})
	}
	mux.HandleFunc("GET "+controlPath+"{$}", func(w http.ResponseWriter, _ *http.Request) {
		var page bytes.Buffer
		if err := controlPage().Execute(&page, map[string]any{"Base": s.cfg.BaseURL, "Controls": table, "Menu": Menu(), "Org": s.cfg.Org}); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(page.Bytes())
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if token != "" && r.Header.Get("Authorization") != "Bearer "+token {
			answer{status: http.StatusUnauthorized, body: map[string]string{"error": "the control API wants its bearer token"}}.write(w)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func controlPage() *template.Template {
	return template.Must(template.New("page").Parse(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Simulated GitHub</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}td,th{text-align:left;vertical-align:top;padding:.2rem 1rem .2rem 0}code{font-size:.9em}</style></head><body>
<h1>Simulated GitHub</h1>
<p>REST API <code>{{.Base}}/api/v3</code>, runners belong to <code>{{.Base}}/{{.Org}}</code>, ID tokens are issued by <code>{{.Base}}/oidc</code>.</p>
<h2>Control API</h2>
<table><tr><th>Call</th><th>What it does</th><th>Body</th></tr>{{range .Controls}}
<tr><td><code>{{.Method}} /_sim/{{.Path}}</code></td><td>{{.What}}</td><td><code>{{.Example}}</code></td></tr>{{end}}</table>
<h2>Fault menu</h2>
<table><tr><th>Kind</th><th>What it looks like</th><th>Where it was seen</th><th>Effect</th></tr>{{range .Menu}}
<tr><td><code>{{.Kind}}</code></td><td>{{.What}}</td><td>{{.Seen}}</td><td>{{if .Rewrites}}comes first{{else if .Disturbs}}comes after the fault{{else}}before or after the fault{{end}}</td></tr>{{end}}</table>
</body></html>`))
}
