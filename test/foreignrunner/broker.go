package foreignrunner

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

// Message is TaskAgentMessage.cs.
type Message struct {
	MessageID   int64
	MessageType string
	Body        string
}

// Offer is RunnerJobRequestRef.cs, the body of a RunnerJobRequest.
type Offer struct {
	ID                string `json:"id"`
	RunnerRequestID   string `json:"runner_request_id"`
	ShouldAcknowledge bool   `json:"should_acknowledge"`
	RunServiceURL     string `json:"run_service_url"`
	BillingOwnerID    string `json:"billing_owner_id"`
}

// CreateSession is BrokerHttpClient.CreateSessionAsync.
func (r *Runner) CreateSession(ctx context.Context) error {
	status, body, err := r.post(ctx, r.settings.ServerURLV2, "session", r.token, map[string]any{
		"sessionId": "00000000-0000-0000-0000-000000000000", "ownerName": "host (PID: 1)", "useFipsEncryption": false,
		"agent": map[string]any{"id": r.settings.AgentID, "name": r.settings.AgentName, "version": "2.336.0", "osDescription": "Linux"},
	})
	switch {
	case err != nil:
		return fmt.Errorf("create the session: %w", err)
	case status == http.StatusConflict:
		return ErrSessionConflict
	case status < 200 || status > 299:
		return fmt.Errorf("create the session: status %d: %s", status, body)
	}
	var session struct{ SessionID string }
	if err := json.Unmarshal(body, &session); err != nil || !isGUID(session.SessionID) {
		return fmt.Errorf("create the session: %q is no id: %w", session.SessionID, err)
	}
	r.session = session.SessionID
	return nil
}

// DeleteSession is BrokerHttpClient.DeleteSessionAsync.
func (r *Runner) DeleteSession(ctx context.Context) error {
	u, err := under(r.settings.ServerURLV2, "session")
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, u, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+r.token)
	if status, body, err := r.send(req); err != nil || status > 299 {
		return fmt.Errorf("delete the session: status %d: %s: %w", status, body, err)
	}
	return nil
}

// about is the query of a poll and of an acknowledgement.
func (r *Runner) about(status string) string {
	return url.Values{
		"sessionId": {r.session}, "status": {status}, "runnerVersion": {"2.336.0"}, "os": {"Linux"}, "architecture": {"X64"},
	}.Encode()
}

// GetMessage is BrokerHttpClient.GetRunnerMessageAsync: nil is no news.
func (r *Runner) GetMessage(ctx context.Context, status string) (*Message, error) {
	u, err := under(r.settings.ServerURLV2, "message")
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u+"?"+r.about(status)+"&disableUpdate=true", nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Authorization", "Bearer "+r.token)
	code, body, err := r.send(req)
	if err != nil {
		return nil, fmt.Errorf("get a message: %w", err)
	}
	if code >= 200 && code <= 299 {
		var m *Message
		if len(body) > 0 {
			err = json.Unmarshal(body, &m)
		}
		return m, err
	}
	if err := brokerError(body); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("get a message: status %d: %s", code, body)
}

// brokerError is what BrokerHttpClient.cs makes of an error's body, nil if it is
// none of the broker's.
func brokerError(body []byte) error {
	var e struct{ Source, ErrorKind, ErrorMessage string }
	if json.Unmarshal(body, &e) != nil || e.Source != "actions-broker-listener" {
		return nil
	}
	return map[string]error{
		"RunnerNotFound": ErrRunnerNotFound, "RunnerVersionTooOld": ErrVersionTooOld, "RunnerSessionInvalid": ErrSessionInvalid,
		"AcknowledgeJobNotFound": ErrNothingToAck,
	}[e.ErrorKind]
}

// Offer reads the body of a message that offers a job.
func (m *Message) Offer() (*Offer, error) {
	if m == nil || m.MessageType != "RunnerJobRequest" || m.MessageID <= 0 {
		return nil, fmt.Errorf("%+v offers no job", m)
	}
	var o Offer
	if err := json.Unmarshal([]byte(m.Body), &o); err != nil {
		return nil, err
	}
	if o.RunnerRequestID == "" || o.RunServiceURL == "" {
		return nil, fmt.Errorf("%+v is no offer", o)
	}
	return &o, nil
}

// Cancellation reads the body of JobCancelMessage.cs: the job's id and how long
// it may take.
func (m *Message) Cancellation() (jobID, timeout string, err error) {
	if m == nil || m.MessageType != "JobCancellation" {
		return "", "", fmt.Errorf("%+v cancels no job", m)
	}
	var c struct{ JobID, Timeout string }
	if err := json.Unmarshal([]byte(m.Body), &c); err != nil {
		return "", "", err
	}
	if !isGUID(c.JobID) || !regexp.MustCompile(`^\d\d:\d\d:\d\d$`).MatchString(c.Timeout) { // a .NET TimeSpan
		return "", "", fmt.Errorf("%s is no cancellation", m.Body)
	}
	return c.JobID, c.Timeout, nil
}

// Acknowledge is BrokerHttpClient.AcknowledgeRunnerRequestAsync.
func (r *Runner) Acknowledge(ctx context.Context, o *Offer) error {
	u, err := under(r.settings.ServerURLV2, "acknowledge")
	if err != nil {
		return err
	}
	code, body, err := r.postTo(ctx, u+"?"+r.about("Online"), r.token, map[string]string{"runnerRequestId": o.RunnerRequestID})
	switch {
	case err != nil:
		return fmt.Errorf("acknowledge the offer: %w", err)
	case code >= 200 && code <= 299:
		return nil
	}
	if err := brokerError(body); err != nil {
		return err
	}
	return fmt.Errorf("acknowledge the offer: status %d: %s", code, body)
}

var guid = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// isGUID says that s is one and not the empty one.
func isGUID(s string) bool { return guid.MatchString(s) && strings.Trim(s, "0-") != "" }
