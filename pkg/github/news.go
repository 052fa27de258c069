package github

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// GitHub keeps what it tried to tell an App by webhook and hands it out to
// whoever holds the App's key. That it comes from GitHub's API over TLS makes it
// genuine: there is no signature of a payload to check, and no door to the
// internet to keep.
// https://docs.github.com/en/rest/apps/webhooks

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

// check names what an entry that may concern us does not say.
func (d delivery) check() error {
	switch {
	case d.ID <= 0:
		return lacks("id")
	case d.GUID == "":
		return lacks("guid")
	case d.DeliveredAt.IsZero():
		return lacks("delivered_at")
	case d.Event == "":
		return lacks("event")
	case d.Installation == nil:
		return lacks("installation_id")
	}
	return nil
}

// decodeDeliveries reads one page of the list. An entry of another shape comes
// as far as it could be read and fails its check: it must not hold up the others.
func decodeDeliveries(body []byte) ([]delivery, error) {
	var raw []json.RawMessage
	if err := decode(body, &raw); err != nil {
		return nil, err
	}
	list := make([]delivery, len(raw))
	for i := range raw {
		_ = json.Unmarshal(raw[i], &list[i]) // what it does not say, check names
	}
	return list, nil
}

// heardSet keeps what deliveries said, by GUID: a redelivery has the same, and
// calls overlap. What was heard is told again to each call that reaches back to
// it, because a caller may have failed to make it durable; only GitHub is not
// asked again.
type heardSet struct {
	mu   sync.Mutex
	said map[string]heard
	// bad is since when a delivery has not been understood, by its id.
	bad map[int64]time.Time
}

type heard struct {
	events []runner.Event
	at     time.Time // when it was read
}

const (
	// heardFor is longer than GitHub lists a delivery.
	heardFor = 4 * 24 * time.Hour
	// maxHeard bounds the memory; beyond it the longest known is asked for again.
	maxHeard = 4096
)

func (h *heardSet) get(guid string) ([]runner.Event, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	said, known := h.said[guid]
	return said.events, known
}

func (h *heardSet) add(guid string, events []runner.Event, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.said == nil {
		h.said = map[string]heard{}
	}
	h.said[guid] = heard{events, now}
	oldest := guid
	for old, said := range h.said {
		if now.Sub(said.at) > heardFor {
			delete(h.said, old)
		} else if said.at.Before(h.said[oldest].at) {
			oldest = old
		}
	}
	if len(h.said) > maxHeard {
		delete(h.said, oldest)
	}
}

// unreadableAfter is how long a delivery is read again and again before it is
// given up: that it cannot be understood may be a passing fault on the way.
const unreadableAfter = 15 * time.Minute

// givenUp says that a delivery has not been understood for too long.
func (h *heardSet) givenUp(d delivery, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.bad == nil || len(h.bad) > maxHeard {
		h.bad = map[int64]time.Time{}
	}
	first, again := h.bad[d.ID]
	if !again {
		h.bad[d.ID] = now
	}
	return again && now.Sub(first) >= unreadableAfter
}

// News implements supervisor.GitHub. A delivery that cannot be understood does
// not hold up the others: it is named in the error, and read again by later
// calls for [unreadableAfter]. No delivery that was understood is read twice.
func (c *Client) News(ctx context.Context, since time.Time) ([]runner.Event, error) {
	if c.app == nil {
		return nil, &Error{Op: "list deliveries", Cause: errors.New("only an App has deliveries")}
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	wanted, err := c.deliveries(ctx, since)
	problems := []error{err}
	var unreadable []error
	var events []runner.Event
	done := map[string]bool{}
	for i := len(wanted) - 1; i >= 0; i-- { // the list has the newest first
		if d := wanted[i]; !done[d.GUID] {
			found, err := c.listen(ctx, d)
			if errors.Is(err, errMalformed) && c.heard.givenUp(d, time.Now()) {
				unreadable = append(unreadable, err)
				err = nil
			}
			problems = append(problems, err)
			done[d.GUID] = err == nil
			events = append(events, found...)
		}
	}
	if err := errors.Join(problems...); err != nil || len(unreadable) == 0 {
		return events, err
	}
	return events, fmt.Errorf("%w: %w", supervisor.ErrUnreadable, errors.Join(unreadable...))
}

// listen reads what one delivery said, unless that is known.
func (c *Client) listen(ctx context.Context, d delivery) ([]runner.Event, error) {
	if events, known := c.heard.get(d.GUID); known {
		return events, nil
	}
	op := fmt.Sprintf("read delivery %d", d.ID)
	if err := d.check(); err != nil {
		return nil, &Error{Op: op, Cause: err}
	}
	events, err := ask(ctx, c.app, op, fmt.Sprintf("app/hook/deliveries/%d", d.ID), func(body []byte) ([]runner.Event, error) {
		return c.scope().decodeDelivery(body, d)
	})
	if err == nil {
		c.heard.add(d.GUID, events, time.Now())
	}
	return events, err
}

// deliveries lists what may concern us, the newest first, back to since. What
// was read before an error comes with it.
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
			return wanted, err
		}
		list, err := decodeDeliveries(body)
		if err != nil {
			return wanted, &Error{Op: op, Cause: err}
		}
		for _, d := range list {
			if !d.DeliveredAt.IsZero() && d.DeliveredAt.Before(since) {
				return wanted, nil
			}
			if c.concerns(d) {
				wanted = append(wanted, d)
			}
		}
		if resp.Cursor == "" || len(list) == 0 {
			return wanted, nil
		}
		cursor = resp.Cursor
	}
	return wanted, &Error{Op: op, Cause: fmt.Errorf("more than %d pages", maxNewsPages)}
}

// concerns says whether a delivery has to be read: not one of another event,
// of an action that says nothing, or of another installation. An entry that
// does not say which it is has to be complained of.
func (c *Client) concerns(d delivery) bool {
	switch {
	case d.Event == "":
		return true
	case d.Installation != nil && c.cfg.InstallationID != 0 && *d.Installation != c.cfg.InstallationID:
		return false
	}
	return d.Action == nil && (d.Event == eventReview || d.Event == eventProtection) || d.Action != nil && tells(d.Event, *d.Action)
}

func (c *Client) scope() scope {
	return scope{org: c.cfg.Org, environment: c.cfg.Environment, installation: c.cfg.InstallationID}
}
