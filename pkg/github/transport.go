package github

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/runnerward/runnerward/pkg/supervisor"
)

// maxBody bounds what is read of one answer, in bytes.
const maxBody = 8 << 20

// newTransport is the given one, else the default with our roots and proxy.
func newTransport(given http.RoundTripper, roots *x509.CertPool, proxy func(*http.Request) (*url.URL, error)) http.RoundTripper {
	if given != nil {
		return boundedTransport{given}
	}
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		TLSClientConfig:       &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 30 * time.Second,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConnsPerHost:   maxConcurrent,
		ForceAttemptHTTP2:     true,
	}
	if proxy != nil {
		t.Proxy = proxy
	}
	return boundedTransport{t}
}

// boundedTransport cuts answers that are too long; what is cut does not parse.
type boundedTransport struct{ http.RoundTripper }

func (t boundedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.RoundTripper.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxBody), resp.Body}
	return resp, nil
}

// signedIn adds a credential to requests for the API's own host.
type signedIn struct {
	next http.RoundTripper
	api  *url.URL
	// token is who we are, drop forgets one that GitHub refused.
	token func(context.Context) (string, error)
	drop  func(string)
}

// RoundTrip implements http.RoundTripper. A request without a body whose token
// was refused is made once more with a fresh one: tokens can be revoked.
func (t signedIn) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host != t.api.Host || req.URL.Scheme != t.api.Scheme {
		return nil, errRedirect
	}
	resp, token, err := t.try(req)
	if err != nil || resp.StatusCode != http.StatusUnauthorized || t.drop == nil || req.Body != nil {
		return resp, err
	}
	t.drop(token)
	_ = resp.Body.Close()
	resp, _, err = t.try(req)
	return resp, err
}

func (t signedIn) try(req *http.Request) (*http.Response, string, error) {
	token, err := t.token(req.Context())
	if err != nil {
		return nil, "", err
	}
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := t.next.RoundTrip(req)
	return resp, token, err
}

// meter notes how GitHub treats us, and holds requests back while it asks for
// patience: who goes on asking is throttled for longer.
// https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
type meter struct {
	next http.RoundTripper

	mu    sync.Mutex
	rates map[string]supervisor.Rate
	until time.Time // no request before this
	skew  time.Duration
}

func newMeter(next http.RoundTripper) *meter {
	return &meter{next: next, rates: map[string]supervisor.Rate{}}
}

// RoundTrip implements http.RoundTripper.
func (m *meter) RoundTrip(req *http.Request) (*http.Response, error) {
	m.mu.Lock()
	wait := time.Until(m.until)
	m.mu.Unlock()
	if wait > 0 {
		return nil, &held{wait}
	}
	resp, err := m.next.RoundTrip(req)
	if err == nil {
		m.note(resp)
	}
	return resp, err
}

// held says that the request was not made.
type held struct{ wait time.Duration }

func (*held) Error() string { return ErrRateLimited.Error() }

func (*held) Unwrap() error { return ErrRateLimited }

func (m *meter) note(resp *http.Response) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if at, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		// The header has whole seconds.
		m.skew = at.Sub(now.Truncate(time.Second)).Round(time.Second)
	}
	name := resourceOf(resp)
	r := m.rates[name]
	r.Resource = name
	count(&r, resp.Header)
	if limited(resp) {
		r.Throttled++
		if d := retryAfter(resp); d > 0 {
			r.RetryAfter = now.Add(d).UTC()
			if r.RetryAfter.After(m.until) {
				m.until = r.RetryAfter
			}
		}
	}
	m.rates[name] = r
}

// count takes over the counters of an answer. Answers of one window can arrive in
// another order than GitHub counted them, so the lowest rest is the latest.
func count(r *supervisor.Rate, head http.Header) {
	number := func(name string) (int64, bool) {
		n, err := strconv.ParseInt(head.Get(name), 10, 64)
		return n, err == nil && n >= 0
	}
	limit, hasLimit := number("X-RateLimit-Limit")
	remaining, hasRemaining := number("X-RateLimit-Remaining")
	seconds, hasReset := number("X-RateLimit-Reset")
	reset := time.Unix(seconds, 0).UTC()
	switch {
	case !hasLimit || !hasRemaining || !hasReset || reset.Before(r.Reset):
		return // not a counter, or one of a window that is over
	case reset.Equal(r.Reset):
		remaining = min(remaining, int64(r.Remaining))
	}
	r.Limit, r.Remaining, r.Reset = int(limit), int(remaining), reset
}

// resourceOf is GitHub's name of the limit that an answer counts against. What
// an App asks as itself is counted apart from what its installation asks.
func resourceOf(resp *http.Response) string {
	name := resp.Header.Get("X-RateLimit-Resource")
	if !machineWord(name) {
		name = "core"
	}
	if resp.Request != nil && strings.HasPrefix(strings.TrimPrefix(resp.Request.URL.Path, "/api/v3"), "/app/") {
		name += "_app"
	}
	return name
}

func (m *meter) health() supervisor.GitHubHealth {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := supervisor.GitHubHealth{ClockSkew: m.skew}
	for _, name := range slices.Sorted(maps.Keys(m.rates)) {
		h.Rates = append(h.Rates, m.rates[name])
	}
	return h
}

// machineWord bounds what of a header may become a label of a metric.
func machineWord(s string) bool {
	return s != "" && len(s) <= 40 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz_") == ""
}

// revalidating asks for documents that hardly change with the ETag of the last
// answer: 304 does not count against the rate limit.
// https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api
type revalidating struct {
	next http.RoundTripper

	mu   sync.Mutex
	kept map[string]keptAnswer
}

type keptAnswer struct {
	etag string
	head http.Header
	body []byte
}

// maxKept bounds the documents that are kept, maxKeptBody the bytes of each.
const (
	maxKept     = 64
	maxKeptBody = 1 << 20
)

func newRevalidating(next http.RoundTripper) *revalidating {
	return &revalidating{next: next, kept: map[string]keptAnswer{}}
}

// RoundTrip implements http.RoundTripper.
func (t *revalidating) RoundTrip(req *http.Request) (*http.Response, error) {
	path := req.URL.Path
	if req.Method != http.MethodGet || !strings.Contains(path, "/runner-groups") && !strings.Contains(path, "/environments/") || strings.HasSuffix(path, "/runners") {
		return t.next.RoundTrip(req)
	}
	key := req.URL.String()
	t.mu.Lock()
	old, known := t.kept[key]
	t.mu.Unlock()
	if known {
		req = req.Clone(req.Context())
		req.Header.Set("If-None-Match", old.etag)
	}
	resp, err := t.next.RoundTrip(req)
	switch {
	case err != nil:
		return nil, err
	case known && resp.StatusCode == http.StatusNotModified:
		_ = resp.Body.Close()
		return revived(resp, old), nil
	case resp.StatusCode != http.StatusOK || resp.Header.Get("ETag") == "":
		return resp, nil
	}
	return t.keep(key, resp)
}

// revived is the kept answer under the counters and the date of the new one.
func revived(resp *http.Response, old keptAnswer) *http.Response {
	head := old.head.Clone()
	for name, values := range resp.Header {
		if strings.HasPrefix(name, "X-Ratelimit-") || name == "Date" {
			head[name] = values
		}
	}
	resp.StatusCode, resp.Status = http.StatusOK, "200 OK"
	resp.Header, resp.ContentLength = head, int64(len(old.body))
	resp.Body = io.NopCloser(bytes.NewReader(old.body))
	return resp
}

func (t *revalidating) keep(key string, resp *http.Response) (*http.Response, error) {
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	if len(body) > maxKeptBody || !json.Valid(body) {
		// Half an answer that is kept would be confirmed by 304 for ever.
		return resp, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.kept) >= maxKept {
		clear(t.kept)
	}
	t.kept[key] = keptAnswer{resp.Header.Get("ETag"), resp.Header.Clone(), body}
	return resp, nil
}
