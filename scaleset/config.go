package scaleset

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"time"

	upstream "github.com/actions/scaleset"

	"github.com/runnerward/runnerward/pkg/supervisor"
)

// App signs in as an installation of a GitHub App; pkg/ghapp is one. It needs
// the organization permission "Self-hosted runners: read and write".
type App interface {
	Token(context.Context) (string, error)
	// Drop forgets a token that GitHub refused.
	Drop(token string)
}

// Config says which scale set to serve and how to reach it.
type Config struct {
	// URL is where the runners belong: https://HOST/ORG, or
	// https://HOST/enterprises/ENTERPRISE.
	URL string
	// Name, Group and Labels are the scale set's. They may hold letters,
	// digits, spaces and "._-": the official client writes them into queries
	// unescaped. No labels means the name alone.
	Name, Group string
	Labels      []string
	// Owner names this process in the message session.
	Owner string
	// Exactly one of App and Token authenticates.
	App   App
	Token supervisor.Secret
	// RootCAs replaces the system's roots when set.
	RootCAs *x509.CertPool
	// Proxy is as in [http.Transport]; nil takes it from the environment.
	Proxy func(*http.Request) (*url.URL, error)
	// Version is told to GitHub in the User-Agent.
	Version string
	// JITClients is how many registrar calls may be under way at once; 0 is 2.
	JITClients int
	// PollFor is asked before each poll how long it may last at most; nil and
	// 0 mean as long as the server holds it. GitHub does not wake a held poll
	// for JobStarted (actions/scaleset#122), so a short poll learns sooner
	// which runner took which job.
	PollFor func() time.Duration
	// Boundary says who may use the runner group. It is asked before a scale set
	// is made or served, and again and again: one in a group that is open to
	// others, or beside another of its name, gets no new work. nil leaves it
	// unchecked.
	Boundary func(context.Context) (supervisor.Boundary, error)
	// Transport replaces the connection to GitHub, RootCAs and Proxy with it.
	Transport http.RoundTripper
	Timings   Timings
}

// Timings are the waits and bounds of the adapter. A zero field takes the
// default that is written beside it.
type Timings struct {
	Call  time.Duration // one call that does not poll, with its retries: 60 s
	Poll  time.Duration // one uncut poll; the server holds it about 50 s: 90 s
	Close time.Duration // the last acknowledgement and closing the session: 10 s
	// An uncut poll is made when none was answered for this long, whatever
	// PollFor says, so that a dead queue is noticed: 60 s.
	Unanswered time.Duration
	// Between attempts to open a session that another process holds: 15 s to 30 s.
	ConflictMin, ConflictMax time.Duration
	// After failures, doubling from the first to the second: 1 s to 60 s.
	BackoffMin, BackoffMax time.Duration
}

func (t Timings) withDefaults() Timings {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&t.Call, 60 * time.Second},
		{&t.Poll, 90 * time.Second},
		{&t.Close, 10 * time.Second},
		{&t.Unanswered, 60 * time.Second},
		{&t.ConflictMin, 15 * time.Second},
		{&t.ConflictMax, 30 * time.Second},
		{&t.BackoffMin, time.Second},
		{&t.BackoffMax, 60 * time.Second},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	return t
}

// maxJITClients bounds the clients of the registrar: each keeps its own admin
// token and its own connections.
const maxJITClients = 16

var validName = regexp.MustCompile(`\A[A-Za-z0-9._-]([A-Za-z0-9 ._-]{0,98}[A-Za-z0-9._-])?\z`)

// forceGHES makes the official client treat every URL as GitHub Enterprise
// Server, while the rest of the daemon goes by the host.
const forceGHES = "GITHUB_ACTIONS_FORCE_GHES"

// Validate returns every problem of the configuration, joined.
func (c Config) Validate() error {
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }

	if u, err := url.Parse(c.URL); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		bad("url: want https://HOST/ORG")
	} else if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		bad("url: must not hold credentials, a query or a fragment")
	} else if _, forced := os.LookupEnv(forceGHES); forced && hosted(u) {
		bad("the environment has %s: the official client would look for the API of %s where it is not; unset it", forceGHES, u.Host)
	}
	for what, name := range map[string]string{"name": c.Name, "group": c.Group, "owner": c.Owner} {
		if !validName.MatchString(name) {
			bad("%s: %.80q may hold only letters, digits, spaces and ._-", what, name)
		}
	}
	for _, label := range c.Labels {
		if !validName.MatchString(label) {
			bad("label: %.80q may hold only letters, digits, spaces and ._-", label)
		}
	}
	switch {
	case c.App == nil && c.Token.Reveal() == "":
		bad("no credentials: an app or a token is needed")
	case c.App != nil && c.Token.Reveal() != "":
		bad("an app and a token are given; only one can be used")
	}
	if c.JITClients < 0 || c.JITClients > maxJITClients {
		bad("jit clients: %d is not between 0 and %d", c.JITClients, maxJITClients)
	}
	if t := c.Timings.withDefaults(); t.ConflictMax < t.ConflictMin || t.BackoffMax < t.BackoffMin || t.BackoffMin < 0 {
		bad("timings: a maximum is below its minimum")
	}
	return errors.Join(problems...)
}

// labels are the labels that the scale set must have.
func (c Config) labels() []string {
	if len(c.Labels) == 0 {
		return []string{c.Name}
	}
	return c.Labels
}

// Bounds of single HTTP attempts. A session call may be a poll, which the
// server holds for about 50 s.
const (
	adminTimeout   = 20 * time.Second
	sessionTimeout = 70 * time.Second
)

// client makes a new official client on the tap. It does no I/O. As an App it is
// given a token that nobody accepts: the tap puts the App's in its place.
func (c Config) client(t *tap, subsystem string, timeout time.Duration, scaleSetID int) (*upstream.Client, error) {
	token := c.Token.Reveal()
	if c.App != nil {
		token = "signed-in-by-the-tap"
	}
	return guard("make client", func() (*upstream.Client, error) {
		return upstream.NewClientWithPersonalAccessToken(upstream.NewClientWithPersonalAccessTokenConfig{
			GitHubConfigURL: c.URL, PersonalAccessToken: token,
			SystemInfo: upstream.SystemInfo{System: "runnerward", Version: c.Version, Subsystem: subsystem, ScaleSetID: scaleSetID},
		}, t.options(timeout)...)
	})
}
