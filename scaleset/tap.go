package scaleset

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	upstream "github.com/actions/scaleset"
	"github.com/hashicorp/go-retryablehttp"

	"github.com/runnerward/runnerward/pkg/supervisor"
)

// tap stands under the official client, which takes no round tripper but an
// [http.Transport]: a transport of its own hands every request on to the tap
// by [http.Transport.RegisterProtocol]. The tap signs in as the App, so that a
// private key in a file and one in KMS go the same way, and it notes what the
// client throws away. It is safe for concurrent use.
type tap struct {
	next http.RoundTripper
	app  App // nil with a personal access token

	mu    sync.Mutex
	skew  time.Duration
	rates map[string]supervisor.Rate
	// message is the body of the last message that the queue answered with.
	message []byte
}

const (
	// maxAnswer bounds what is read of one answer, in bytes.
	maxAnswer = 8 << 20
	// rateService names the limits of the scale set service, which names none.
	rateService = "service"
)

func newTap(c Config) *tap {
	next := c.Transport
	if next == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.TLSClientConfig = &tls.Config{RootCAs: c.RootCAs, MinVersion: tls.VersionTLS12}
		if c.Proxy != nil {
			t.Proxy = c.Proxy
		}
		next = t
	}
	return &tap{next: next, app: c.App, rates: map[string]supervisor.Rate{}}
}

// options make one official client use the tap. The HTTP client is its own: the
// client's registration call changes the retry policy of the one it is given.
// Nothing is retried below us, because the client honours Retry-After without a
// bound and loses the status of what it gave up on. timeout bounds each attempt.
func (t *tap) options(timeout time.Duration) []upstream.HTTPOption {
	spout := spout{t, timeout}
	outer := &http.Transport{}
	outer.RegisterProtocol("https", spout)
	outer.RegisterProtocol("http", spout)
	c := retryablehttp.NewClient()
	c.HTTPClient = &http.Client{Transport: outer}
	c.RetryMax, c.ErrorHandler = 0, retryablehttp.PassthroughErrorHandler
	c.CheckRetry = func(context.Context, *http.Response, error) (bool, error) { return false, nil }
	return []upstream.HTTPOption{upstream.WithRetryableHTTPClint(c), upstream.WithTimeout(0)}
}

// spout is the tap as one official client sees it.
type spout struct {
	*tap
	timeout time.Duration
}

// RoundTrip implements http.RoundTripper. The answer has been read whole when it
// returns. What the client would retry comes as an error that keeps the status.
func (s spout) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(req.Context(), s.timeout)
	defer cancel()
	resp, err := s.exchange(req.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests {
		return nil, statusError(resp.StatusCode)
	}
	resp.Request = req
	return resp, nil
}

// statusError is an answer that says nothing but its status.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("HTTP %d", int(e)) }

func (t *tap) exchange(req *http.Request) (*http.Response, error) {
	signsIn := t.app != nil && strings.HasSuffix(req.URL.Path, "/registration-token")
	token := ""
	if signsIn {
		var err error
		if token, err = t.app.Token(req.Context()); err != nil {
			return nil, &signInError{err}
		}
		req = req.Clone(req.Context())
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := t.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if signsIn && resp.StatusCode == http.StatusUnauthorized {
		t.app.Drop(token)
	}
	t.note(resp)
	return t.keep(req, resp)
}

// signInError is why the App could not sign in. Its text names no secret.
type signInError struct{ error }

func (e *signInError) Unwrap() error { return e.error }

// keep bounds the answer, and remembers what the queue said.
func (t *tap) keep(req *http.Request, resp *http.Response) (*http.Response, error) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	if req.Method == http.MethodGet && resp.StatusCode == http.StatusOK && req.Header.Get(upstream.HeaderScaleSetMaxCapacity) != "" {
		t.mu.Lock()
		t.message = body
		t.mu.Unlock()
	}
	return resp, nil
}

// took is the body of the last message, once.
func (t *tap) took() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	body := t.message
	t.message = nil
	return body
}

// note keeps the server's clock and its rate limits.
// https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
func (t *tap) note(resp *http.Response) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if at, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		t.skew = at.Sub(now.Truncate(time.Second)).Round(time.Second) // the header has whole seconds
	}
	throttled := resp.StatusCode == http.StatusTooManyRequests ||
		resp.StatusCode == http.StatusForbidden && (resp.Header.Get("Retry-After") != "" || resp.Header.Get("X-RateLimit-Remaining") == "0")
	name := resp.Header.Get("X-RateLimit-Resource")
	if name == "" || len(name) > 40 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz_") != "" {
		name = rateService
	}
	if name == rateService && !throttled && resp.Header.Get("X-RateLimit-Limit") == "" {
		return
	}
	r := t.rates[name]
	r.Resource = name
	if n, err := strconv.Atoi(resp.Header.Get("X-RateLimit-Limit")); err == nil {
		r.Limit = n
	}
	if n, err := strconv.Atoi(resp.Header.Get("X-RateLimit-Remaining")); err == nil {
		r.Remaining = n
	}
	if n, err := strconv.ParseInt(resp.Header.Get("X-RateLimit-Reset"), 10, 64); err == nil && n > 0 {
		r.Reset = time.Unix(n, 0).UTC()
	}
	if throttled {
		r.Throttled++
		r.RetryAfter = now.Add(retryAfter(resp)).UTC()
	}
	t.rates[name] = r
}

func retryAfter(resp *http.Response) time.Duration {
	if d, err := time.ParseDuration(resp.Header.Get("Retry-After") + "s"); err == nil && d > 0 {
		return min(d, time.Hour)
	}
	return 0
}

// patience is how long the server last asked to wait, 0 when that is over.
func (t *tap) patience() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	var wait time.Duration
	for _, r := range t.rates {
		wait = max(wait, time.Until(r.RetryAfter))
	}
	return wait
}

func (t *tap) seen() (time.Duration, []supervisor.Rate) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var rates []supervisor.Rate
	for _, name := range slices.Sorted(maps.Keys(t.rates)) {
		rates = append(rates, t.rates[name])
	}
	return t.skew, rates
}

// hosted says that the official client takes the URL for github.com or GHE.com,
// whose API has a host of its own.
func hosted(u *url.URL) bool {
	return u.Host == "github.com" || u.Host == "www.github.com" || u.Host == "github.localhost" || strings.HasSuffix(u.Host, ".ghe.com")
}
