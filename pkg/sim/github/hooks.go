package simgithub

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Webhook says which webhooks the App has. GitHub keeps each delivery for three
// days and hands it out again, whether it arrived or not.
// https://docs.github.com/en/webhooks/testing-and-troubleshooting-webhooks/viewing-webhook-deliveries
type Webhook struct {
	// Events are those that the App subscribed to; nil is deployment_review
	// and deployment_protection_rule, the two that are simulated.
	Events []string
	URL    string
	// StatusCode is what the receiver answers; 0 means that there is none.
	StatusCode int
}

const deliveryLife = 3 * 24 * time.Hour

// happening is something that GitHub tells Apps of by webhook.
type happening struct {
	event  string // as in X-GitHub-Event
	action string
	jobs   []*job // those that it is about, all of one run
	by     *user  // who caused it: the approver of a review
	// comment is what a reviewer wrote.
	comment string
}

// delivery is one webhook that was sent.
type delivery struct {
	id      int64
	guid    string
	at      time.Time
	again   bool // it repeats an earlier one
	event   string
	action  string
	repo    int64
	payload json.RawMessage
}

// emit tells the App. The caller holds the lock.
func (s *Server) emit(h happening) {
	events := s.cfg.Webhook.Events
	if events == nil {
		events = []string{"deployment_review", "deployment_protection_rule"}
	}
	if s.cfg.AppInstallationID == 0 || !slices.Contains(events, h.event) {
		return
	}
	payload, err := json.Marshal(s.payload(h))
	if err != nil {
		panic(err) // maps of strings and numbers always marshal
	}
	s.nextDelivery++
	s.deliveries = append(s.deliveries, delivery{
		id: s.nextDelivery, guid: newGUID(), at: s.now(), event: h.event, action: h.action,
		repo: h.jobs[0].run.repo.id, payload: payload,
	})
}

// payload is the body of the webhook in the shape of GitHub's description.
// https://docs.github.com/en/webhooks/webhook-events-and-payloads
func (s *Server) payload(h happening) map[string]any {
	j := h.jobs[0]
	p := map[string]any{
		"action": h.action, "repository": s.showWholeRepo(j.run.repo), "organization": s.showOrg(),
		"installation": map[string]any{"id": s.cfg.AppInstallationID, "node_id": "MDIz"}, "sender": s.showUser(j.attempt.triggering),
	}
	if h.event == "deployment_protection_rule" {
		p["environment"], p["event"] = j.env.Name, j.run.spec.Event
		p["deployment_callback_url"] = s.rest3(fmt.Sprintf("/repos/%s/actions/runs/%d/deployment_protection_rule", s.fullName(j.run.repo), j.RunID))
		p["deployment"], p["pull_requests"] = s.showDeployment(j), []any{}
		return p
	}
	var runs []map[string]any
	for _, j := range h.jobs {
		runs = append(runs, map[string]any{
			"id": j.CheckRunID, "name": j.Name, "status": "waiting", "conclusion": nil, "environment": j.env.Name,
			"html_url":   s.jobURL(j),
			"created_at": stamp(j.CreatedAt), "updated_at": stamp(s.now()),
		})
	}
	p["workflow_run"], p["since"] = s.hookRun(j), stamp(j.CreatedAt)
	if h.action == "requested" {
		p["environment"], p["requestor"], p["reviewers"] = j.env.Name, s.showUser(j.attempt.triggering), s.hookReviewers(j.env)
		p["workflow_job_run"] = runs[0]
		return p
	}
	p["sender"], p["approver"], p["comment"] = s.showUser(h.by), s.showUser(h.by), h.comment
	p["workflow_job_runs"], p["reviewers"] = runs, s.hookReviewers(j.env)
	return p
}

// hookRun shows the repository of the run shorter than the API does: the
// description calls it repository-lite.
func (s *Server) hookRun(j *job) map[string]any {
	m := s.showRun(j.run, j.attempt)
	for _, key := range []string{"repository", "head_repository"} {
		repo := s.showRepo(j.run.repo)
		delete(repo, "visibility")
		delete(repo, "default_branch")
		m[key] = repo
	}
	return m
}

// hookReviewers shows teams without their type, which webhooks do not have:
// https://github.com/octokit/webhooks, recorded delivery deployment_review
// requested.
func (s *Server) hookReviewers(e *environment) []map[string]any {
	out := s.reviewers(e)
	for _, r := range out {
		if team, isMap := r["reviewer"].(map[string]any); isMap && r["type"] == "Team" {
			delete(team, "type")
			delete(team, "organization_id")
		}
	}
	return out
}

// showDeployment is the deployment that a job with an environment makes.
// https://docs.github.com/en/rest/deployments/deployments
func (s *Server) showDeployment(j *job) map[string]any {
	base := s.rest3("/repos/" + s.fullName(j.run.repo))
	id := j.CheckRunID - 20000000000
	return map[string]any{
		"id": id, "node_id": fmt.Sprintf("DE_%d", id), "sha": j.run.spec.HeadSHA, "ref": strings.TrimPrefix(strings.TrimPrefix(j.run.ref(), "refs/tags/"), "refs/heads/"),
		"task": "deploy", "payload": map[string]any{}, "environment": j.env.Name, "original_environment": j.env.Name, "description": nil,
		"creator": s.showUser(j.attempt.triggering), "created_at": stamp(j.CreatedAt), "updated_at": stamp(j.CreatedAt),
		"url": fmt.Sprintf("%s/deployments/%d", base, id), "statuses_url": fmt.Sprintf("%s/deployments/%d/statuses", base, id),
		"repository_url": base, "transient_environment": false, "production_environment": true,
	}
}

// Delivery is a webhook as an accessor shows it.
type Delivery struct {
	ID            int64
	GUID          string
	At            time.Time
	Event, Action string
	Payload       []byte
}

// Deliveries are the webhooks that GitHub still lists, the oldest first.
func (s *Server) Deliveries() []Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	var out []Delivery
	for _, d := range s.listed() {
		out = append(out, Delivery{d.id, d.guid, d.at, d.event, d.action, slices.Clone(d.payload)})
	}
	return out
}

// LoseDeliveries forgets every webhook so far, as GitHub does after three days.
func (s *Server) LoseDeliveries() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deliveries = nil
}

func (s *Server) listed() []delivery {
	now := s.now()
	return slices.DeleteFunc(slices.Clone(s.deliveries), func(d delivery) bool { return now.Sub(d.at) > deliveryLife })
}

func (s *Server) showDelivery(d delivery) map[string]any {
	status := map[int]string{0: "failed to connect", http.StatusOK: "OK"}[s.cfg.Webhook.StatusCode]
	if status == "" {
		status = http.StatusText(s.cfg.Webhook.StatusCode)
	}
	return map[string]any{
		"id": d.id, "guid": d.guid, "delivered_at": d.at.UTC().Format(time.RFC3339), "redelivery": d.again, "duration": 0.03,
		"status": status, "status_code": s.cfg.Webhook.StatusCode, "event": d.event, "action": d.action,
		"installation_id": s.cfg.AppInstallationID, "repository_id": d.repo, "throttled_at": nil,
	}
}

// listDeliveries pages by a cursor, the newest first.
// https://docs.github.com/en/rest/apps/webhooks#list-deliveries-for-an-app-webhook
func (s *Server) listDeliveries(r *http.Request) answer {
	q := r.URL.Query()
	size := 30
	if n, err := strconv.Atoi(q.Get("per_page")); err == nil && n > 0 {
		size = min(n, 100)
	}
	before := int64(1) << 62
	if text, isCursor := strings.CutPrefix(q.Get("cursor"), "v1_"); isCursor {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return restError(http.StatusUnprocessableEntity, "Invalid cursor")
		}
		before = n
	} else if q.Get("cursor") != "" {
		return restError(http.StatusUnprocessableEntity, "Invalid cursor")
	}
	all := s.listed()
	slices.Reverse(all)
	all = slices.DeleteFunc(all, func(d delivery) bool { return d.id >= before })
	out := []map[string]any{}
	for _, d := range all[:min(size, len(all))] {
		out = append(out, s.showDelivery(d))
	}
	a := ok(out)
	if len(all) > size {
		q.Set("cursor", fmt.Sprintf("v1_%d", all[size-1].id))
		a.header = map[string]string{"Link": fmt.Sprintf(`<%s%s?%s>; rel="next"`, s.cfg.BaseURL, r.URL.EscapedPath(), q.Encode())}
	}
	return a
}

func (s *Server) deliveryOf(r *http.Request) (delivery, bool) {
	for _, d := range s.listed() {
		if strconv.FormatInt(d.id, 10) == r.PathValue("delivery") {
			return d, true
		}
	}
	return delivery{}, false
}

func (s *Server) getDelivery(r *http.Request) answer {
	d, found := s.deliveryOf(r)
	if !found {
		return notFound()
	}
	m := s.showDelivery(d)
	m["url"] = s.cfg.Webhook.URL
	m["request"] = map[string]any{
		"headers": map[string]any{
			"X-GitHub-Delivery": d.guid, "X-GitHub-Event": d.event, "Content-Type": "application/json",
			"X-GitHub-Hook-Installation-Target-Type": "integration",
		},
		"payload": d.payload,
	}
	m["response"] = map[string]any{"headers": map[string]any{}, "payload": nil}
	return ok(m)
}

// redeliver sends a webhook again under its GUID.
func (s *Server) redeliver(r *http.Request) answer {
	d, found := s.deliveryOf(r)
	if !found {
		return notFound()
	}
	s.nextDelivery++
	d.id, d.at, d.again = s.nextDelivery, s.now(), true
	s.deliveries = append(s.deliveries, d)
	return answer{status: http.StatusAccepted, body: map[string]any{}}
}

func (s *Server) getHookConfig(*http.Request) answer {
	return ok(map[string]any{"content_type": "json", "insecure_ssl": "0", "secret": "********", "url": s.cfg.Webhook.URL})
}
