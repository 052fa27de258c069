package github

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

// The events that we read.
const (
	eventReview     = "deployment_review"
	eventProtection = "deployment_protection_rule"
)

// tells says that an event with this action tells us something: that a review
// was asked for is no review.
func tells(event, action string) bool {
	switch event {
	case eventReview:
		return action == runner.StateApproved || action == runner.StateRejected
	case eventProtection:
		return action == "requested"
	}
	return false
}

// payload is what we read of both events.
// https://docs.github.com/en/webhooks/webhook-events-and-payloads#deployment_review
// https://docs.github.com/en/webhooks/webhook-events-and-payloads#deployment_protection_rule
type payload struct {
	Action       string      `json:"action"`
	Repository   *repository `json:"repository"`
	Organization *account    `json:"organization"`
	Installation *struct {
		ID int64 `json:"id"`
	} `json:"installation"`

	// deployment_review
	Approver *account `json:"approver"`
	Run      *struct {
		ID      int64 `json:"id"`
		Attempt int64 `json:"run_attempt"`
	} `json:"workflow_run"`
	JobRun  *reviewed  `json:"workflow_job_run"`
	JobRuns []reviewed `json:"workflow_job_runs"`

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

// lacks says which field of an answer is missing or empty.
func lacks(field string) error { return fmt.Errorf("%w: no %s", errMalformed, field) }

// scope says which events are about us. The environment compares without case,
// as GitHub compares it; an installation of 0 is any.
type scope struct {
	org, environment string
	installation     int64
}

// decodeDelivery reads one delivery with its payload. No events and no error say
// that it is not about us.
func (o scope) decodeDelivery(body []byte, listed delivery) ([]runner.Event, error) {
	var d struct {
		delivery
		Request *struct {
			Payload json.RawMessage `json:"payload"`
		} `json:"request"`
	}
	if err := decode(body, &d); err != nil {
		return nil, err
	}
	switch {
	case d.check() != nil:
		return nil, d.check()
	case d.ID != listed.ID || d.GUID != listed.GUID || d.Event != listed.Event:
		return nil, fmt.Errorf("%w: another delivery than the list shows", errMalformed)
	case d.Request == nil:
		return nil, lacks("request")
	}
	return o.decodePayload(d.Event, d.Request.Payload, d.GUID, d.DeliveredAt.UTC())
}

// decodePayload reads the body of a webhook. What other events and actions look
// like is not asked.
func (o scope) decodePayload(event string, body []byte, guid string, at time.Time) ([]runner.Event, error) {
	if event != eventReview && event != eventProtection {
		return nil, nil
	}
	var p payload
	if err := decode(body, &p); err != nil {
		return nil, err
	}
	switch {
	case p.Action == "":
		return nil, lacks("action")
	case !tells(event, p.Action):
		return nil, nil
	}
	if mine, err := o.mine(p); err != nil || !mine {
		return nil, err
	}
	var events []runner.Event
	var err error
	if event == eventReview {
		events, err = p.reviews(guid, at, o.environment)
	} else {
		events, err = p.asks(guid, at, o.environment)
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

// mine says whether the payload is of our organization and installation.
func (o scope) mine(p payload) (bool, error) {
	switch {
	case p.Repository == nil || p.Repository.check() != nil:
		return false, lacks("repository")
	case p.Organization == nil || p.Organization.Login == "":
		return false, lacks("organization")
	case p.Installation == nil || p.Installation.ID <= 0:
		return false, lacks("installation")
	}
	owner, _, _ := strings.Cut(p.Repository.FullName, "/")
	return strings.EqualFold(owner, o.org) && strings.EqualFold(p.Organization.Login, o.org) &&
		(o.installation == 0 || p.Installation.ID == o.installation), nil
}

// reviews is one event for our environment, with the jobs in it. A review can
// decide jobs of several environments at once.
func (p payload) reviews(guid string, at time.Time, environment string) ([]runner.Event, error) {
	jobs := p.JobRuns
	if len(jobs) == 0 && p.JobRun != nil {
		jobs = []reviewed{*p.JobRun}
	}
	if len(jobs) == 0 {
		return nil, lacks("workflow_job_runs")
	}
	var ids []int64
	for _, j := range jobs {
		switch {
		case j.ID <= 0:
			return nil, lacks("workflow_job_runs.id")
		case j.Environment == "":
			return nil, lacks("workflow_job_runs.environment")
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
		return nil, lacks("approver")
	case p.Run == nil || p.Run.ID <= 0:
		return nil, lacks("workflow_run.id")
	case p.Run.Attempt <= 0:
		return nil, lacks("workflow_run.run_attempt")
	}
	return []runner.Event{runner.Reviewed{
		Repository: p.Repository.FullName, RunID: p.Run.ID, Environment: environment, By: *by, State: p.Action,
		Source: runner.SourceWebhook, RunAttempt: p.Run.Attempt, Delivery: guid, Jobs: ids, SeenAt: at,
	}}, nil
}

// callback is where GitHub wants the answer to a deployment_protection_rule. It
// is never called: only the run's id is taken from it, because the address comes
// with the payload, and an answer sent there with our token could go anywhere.
var callback = regexp.MustCompile(`\Ahttps?://[^/?#]+/(?:api/v3/)?repos/([^/?#]+/[^/?#]+)/actions/runs/([0-9]{1,18})/deployment_protection_rule\z`)

func (p payload) asks(guid string, at time.Time, environment string) ([]runner.Event, error) {
	switch {
	case p.Environment == "":
		return nil, lacks("environment")
	case !strings.EqualFold(p.Environment, environment):
		return nil, nil
	}
	m := callback.FindStringSubmatch(p.Callback)
	if m == nil || !strings.EqualFold(m[1], p.Repository.FullName) {
		return nil, fmt.Errorf("%w: deployment_callback_url does not name a run of the repository", errMalformed)
	}
	id, err := strconv.ParseInt(m[2], 10, 64)
	if err != nil || id <= 0 {
		return nil, lacks("run in deployment_callback_url")
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
