package conformance

import (
	"bytes"
	"io"
	"net/http"
	"sync"
)

// Answer is what came over the wire, as plain HTTP sees it.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// wire keeps the last answer that the plain client got.
type wire struct {
	mu   sync.Mutex
	last *Answer
}

// tap is a client that shows its answers to the wire. It goes nowhere else when
// it is redirected.
func (w *wire) tap(c *http.Client) *http.Client {
	return &http.Client{
		Transport: tapped{w, c.Transport}, Timeout: c.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

type tapped struct {
	*wire
	http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t tapped) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.RoundTripper.RoundTrip(req)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last = nil; err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	if err := resp.Body.Close(); err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	t.last = &Answer{resp.StatusCode, resp.Header, body}
	return resp, err
}

// sees checks the last answer as plain HTTP saw it. Other clients show no more
// than what they made of it, so that there is nothing to check.
func (w *World) sees(what string, ok func(a Answer) bool) {
	w.Helper()
	if !w.plain() {
		return
	}
	w.To.wire.mu.Lock()
	defer w.To.wire.mu.Unlock()
	switch last := w.To.wire.last; {
	case last == nil:
		w.Errorf("nothing came over the wire, want %s", what)
	case !ok(*last):
		w.Errorf("over the wire came %d %v %s, want %s", last.Status, last.Header, last.Body, what)
	}
}

// plain says that the client under test is that of plain HTTP.
func (w *World) plain() bool {
	_, is := w.Client.(*raw)
	return is
}
