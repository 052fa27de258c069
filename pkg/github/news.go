package github

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

// GitHub keeps what it tried to tell an App by webhook and hands it out to
// whoever holds the App's key. That it comes from GitHub's API over TLS makes it
// genuine: there is no signature of a payload to check, and no door to the
// internet to keep.
// https://docs.github.com/en/rest/apps/webhooks

// The events that we read.
const (
	eventReview     = "deployment_review"
	eventProtection = "deployment_protection_rule"
)

// maxNewsPages bounds how far one call reads, at 100 deliveries a page.
const maxNewsPages = 100

// delivery is one entry of the list, which has no payload.
type delivery struct {
	ID           int64     `json:"id"`
	GUID         string    `json:"guid"`
	DeliveredAt  time.Time `json:"delivered_at"`
	Event        string    `json:"event"`
	Action       *string   `json:"action"`
	Installation *int64    `json:"installation_id"`
}

// heardSet remembers the deliveries that need not be read again, by GUID: a
// redelivery has the same.
type heardSet struct {
	mu    sync.Mutex
	guids map[string]time.Time
}

// heardFor is longer than GitHub lists a delivery.
const heardFor = 4 * 24 * time.Hour

func (h *heardSet) has(guid string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, heard := h.guids[guid]
	return heard
}

func (h *heardSet) add(guid string, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.guids == nil {
		h.guids = map[string]time.Time{}
	}
	h.guids[guid] = now
	for old, at := range h.guids {
		if now.Sub(at) > heardFor {
			delete(h.guids, old)
		}
	}
}

// News implements supervisor.GitHub. A delivery that cannot be understood does
// not hold up the others: it is named in the error, and tried again. What was
// returned once is not returned again by this client.
func (c *Client) News(ctx context.Context, since time.Time) ([]runner.Event, error) {
	if c.app == nil {
		return nil, &Error{Op: "list deliveries", Cause: errors.New("only an App has deliveries")}
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	wanted, err := c.deliveries(ctx, since)
	if err != nil {
		return nil, err
	}
	var events []runner.Event
	var problems []error
	for i := len(wanted) - 1; i >= 0; i-- { // the list has the newest first
		d := wanted[i]
		found, err := ask(ctx, c.app, fmt.Sprintf("read delivery %d", d.ID), fmt.Sprintf("app/hook/deliveries/%d", d.ID), func(body []byte) ([]runner.Event, error) {
			return decodeDelivery(body, d, c.cfg.Org, c.cfg.Environment)
		})
		if err != nil {
			problems = append(problems, err)
			continue
		}
		c.heard.add(d.GUID, time.Now())
		events = append(events, found...)
	}
	return events, errors.Join(problems...)
}

// deliveries lists what may concern us, the newest first, back to since.
func (c *Client) deliveries(ctx context.Context, since time.Time) ([]delivery, error) {
	const op = "list deliveries"
	var wanted []delivery
	cursor := ""
	for range maxNewsPages {
		path := "app/hook/deliveries?per_page=100"
		if cursor != "" {
			path += "&cursor=" + url.QueryEscape(cursor)
		}
		body, resp, err := c.app.page(ctx, op, path)
		if err != nil {
			return nil, err
		}
		list, err := decodeDeliveries(body)
		if err != nil {
			return nil, &Error{Op: op, Cause: err}
		}
		older := false
		for _, d := range list {
			older = older || d.DeliveredAt.Before(since)
			if !older && c.concerns(d) {
				wanted = append(wanted, d)
			}
		}
		if older || resp.Cursor == "" || len(list) == 0 {
			return wanted, nil
		}
		cursor = resp.Cursor
	}
	return nil, &Error{Op: op, Cause: fmt.Errorf("more than %d pages", maxNewsPages)}
}

func (c *Client) concerns(d delivery) bool {
	action := ""
	if d.Action != nil {
		action = *d.Action
	}
	switch {
	case d.Installation != nil && c.cfg.InstallationID != 0 && *d.Installation != c.cfg.InstallationID:
		return false
	case c.heard.has(d.GUID):
		return false
	case d.Event == eventReview:
		return action == runner.StateApproved || action == runner.StateRejected
	}
	return d.Event == eventProtection && action == "requested"
}

func decodeDeliveries(body []byte) ([]delivery, error) {
	var list []delivery
	if err := decode(body, &list); err != nil {
		return nil, err
	}
	for _, d := range list {
		if d.ID <= 0 || d.GUID == "" || d.DeliveredAt.IsZero() || d.Event == "" {
			return nil, errMalformed
		}
	}
	return list, nil
}

// payload is what we read of both events.
// https://docs.github.com/en/webhooks/webhook-events-and-payloads#deployment_review
// https://docs.github.com/en/webhooks/webhook-events-and-payloads#deployment_protection_rule
type payload struct {
	Action       string      `json:"action"`
	Repository   *repository `json:"repository"`
	Organization *account    `json:"organization"`

	// deployment_review
	Approver *account   `json:"approver"`
	Run      *run       `json:"workflow_run"`
	JobRun   *reviewed  `json:"workflow_job_run"`
	JobRuns  []reviewed `json:"workflow_job_runs"`

	// deployment_protection_rule
	Environment string  `json:"environment"`
	Event       *string `json:"event"`
	Callback    string  `json:"deployment_callback_url"`
	Deployment  *struct {
		SHA string `json:"sha"`
		Ref string `json:"ref"`
	} `json:"deployment"`
}

// reviewed is a job that a review decided.
type reviewed struct {
	ID          int64  `json:"id"`
	Environment string `json:"environment"`
}

// decodeDelivery reads one delivery with its payload. No events and no error say
// that it is not about us.
func decodeDelivery(body []byte, listed delivery, org, environment string) ([]runner.Event, error) {
	var d struct {
		delivery
		Request *struct {
			Payload *payload `json:"payload"`
		} `json:"request"`
	}
	if err := decode(body, &d); err != nil {
		return nil, err
	}
	if d.GUID != listed.GUID || d.Event != listed.Event || d.Request == nil || d.Request.Payload == nil {
		return nil, errMalformed
	}
	return decodePayload(*d.Request.Payload, d.Event, d.GUID, d.DeliveredAt.UTC(), org, environment)
}

func decodePayload(p payload, event, guid string, at time.Time, org, environment string) ([]runner.Event, error) {
	if p.Repository == nil || p.Repository.check() != nil {
		return nil, fmt.Errorf("%w: no repository", errMalformed)
	}
	if owner, _, _ := strings.Cut(p.Repository.FullName, "/"); !strings.EqualFold(owner, org) {
		return nil, nil
	}
	var events []runner.Event
	var err error
	switch event {
	case eventReview:
		events, err = p.reviews(guid, at, environment)
	case eventProtection:
		events, err = p.asks(guid, at, environment)
	}
	if err != nil {
		return nil, err
	}
	for _, e := range events {
		if err := runner.Validate(e); err != nil {
			return nil, fmt.Errorf("%w: %w", errMalformed, err)
		}
	}
	return events, nil
}

// reviews is one event for our environment, with the jobs in it. A review can
// decide jobs of several environments at once.
func (p payload) reviews(guid string, at time.Time, environment string) ([]runner.Event, error) {
	if p.Action != runner.StateApproved && p.Action != runner.StateRejected {
		return nil, nil
	}
	jobs := p.JobRuns
	if len(jobs) == 0 && p.JobRun != nil {
		jobs = []reviewed{*p.JobRun}
	}
	if len(jobs) == 0 {
		return nil, fmt.Errorf("%w: no job", errMalformed)
	}
	var ids []int64
	for _, j := range jobs {
		switch {
		case j.ID <= 0 || j.Environment == "":
			return nil, fmt.Errorf("%w: a job without its id or environment", errMalformed)
		case strings.EqualFold(j.Environment, environment):
			ids = append(ids, j.ID)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	by := p.Approver.person()
	switch {
	case by == nil:
		return nil, fmt.Errorf("%w: no approver", errMalformed)
	case p.Run == nil || p.Run.ID <= 0 || p.Run.Attempt <= 0:
		return nil, fmt.Errorf("%w: no run or no attempt", errMalformed)
	}
	return []runner.Event{runner.Reviewed{
		Repository: p.Repository.FullName, RunID: p.Run.ID, Environment: environment, By: *by, State: p.Action,
		Source: runner.SourceWebhook, RunAttempt: p.Run.Attempt, Delivery: guid, Jobs: ids, SeenAt: at,
	}}, nil
}

// callback is where GitHub wants the answer to a deployment_protection_rule. Only
// the run's id is taken from it: the address comes with the payload, and an
// answer sent there could go anywhere.
var callback = regexp.MustCompile(`\Ahttps?://[^/?#]+/(?:api/v3/)?repos/([^/?#]+/[^/?#]+)/actions/runs/([0-9]{1,18})/deployment_protection_rule\z`)

func (p payload) asks(guid string, at time.Time, environment string) ([]runner.Event, error) {
	if p.Action != "requested" || !strings.EqualFold(p.Environment, environment) {
		return nil, nil
	}
	m := callback.FindStringSubmatch(p.Callback)
	if m == nil || !strings.EqualFold(m[1], p.Repository.FullName) {
		return nil, fmt.Errorf("%w: the callback does not name a run of the repository", errMalformed)
	}
	id, err := strconv.ParseInt(m[2], 10, 64)
	if err != nil || id <= 0 {
		return nil, fmt.Errorf("%w: no run", errMalformed)
	}
	ask := runner.Asked{Repository: p.Repository.FullName, RunID: id, Environment: environment, Delivery: guid, AskedAt: at}
	if p.Event != nil {
		ask.Event = *p.Event
	}
	if p.Deployment != nil {
		// A short name says neither branch nor tag and is left out.
		ask.SHA, ask.Ref = p.Deployment.SHA, refOf("", p.Deployment.Ref)
	}
	return []runner.Event{ask}, nil
}
