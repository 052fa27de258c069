package github

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	gh "github.com/google/go-github/v60/github"
	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/ghapp"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// App signs in as a GitHub App; pkg/ghapp is one. It needs to read the
// organization's self-hosted runners and members, and of the repositories
// Actions, contents, deployments, pull requests and metadata; to cancel runs,
// Actions write; to answer as a protection rule, Deployments write.
// For news it subscribes to deployment_review and, to be asked as a protection
// rule, to deployment_protection_rule; its webhook may have no receiver. For
// SAMLNames it needs to read the organization's administration.
type App interface {
	// JWT is the App's own token, Token that of its installation.
	JWT(context.Context) (string, error)
	Token(context.Context) (string, error)
	// Drop forgets a token that GitHub refused.
	Drop(token string)
}

// Config says which organization to ask about and how to reach its GitHub.
type Config struct {
	// URL is the server, such as https://github.com. Only scheme and host count.
	URL string
	Org string
	// RootCAs replaces the system's roots when set.
	RootCAs *x509.CertPool
	// Proxy is as in [http.Transport]; nil takes it from the environment.
	Proxy func(*http.Request) (*url.URL, error)
	// Transport replaces the connection to GitHub, RootCAs and Proxy with it.
	Transport http.RoundTripper
	// Exactly one of App and Token authenticates.
	App   App
	Token supervisor.Secret
	// InstallationID is the App's installation whose news count; 0 is any.
	InstallationID int64
	// Environment is the deployment environment whose protection and
	// approvals count, ApproverTeams the teams whose members may approve.
	Environment   string
	ApproverTeams []string
	// Repositories are those that may use the runner group.
	Repositories []runner.Repository
	// Group is the runner group, Labels and RunnerScaleSetName what jobs ask
	// for in runs-on to come here.
	Group              string
	Labels             []string
	RunnerScaleSetName string
	// Workflows are the references of the catalogue of deploy workflows.
	Workflows []string
	// SAMLNames asks the audit log whom the identity provider knows an
	// approver as.
	SAMLNames bool
	// Timeout bounds all requests of one call together; 0 is 30 s.
	Timeout time.Duration
}

// Validate returns every problem of the configuration, joined.
func (c Config) Validate() error {
	var problems []error
	if _, _, err := c.urls(); err != nil {
		problems = append(problems, err)
	}
	for what, v := range map[string]string{"org": c.Org, "environment": c.Environment, "group": c.Group} {
		if v == "" {
			problems = append(problems, fmt.Errorf("%s: must not be empty", what))
		}
	}
	switch {
	case c.App == nil && c.Token.Reveal() == "":
		problems = append(problems, errors.New("no credentials: an app or a token is needed"))
	case c.App != nil && c.Token.Reveal() != "":
		problems = append(problems, errors.New("an app and a token are given; only one can be used"))
	}
	return errors.Join(problems...)
}

// urls are the server and the base of its REST API.
func (c Config) urls() (server string, api *url.URL, err error) {
	api, err = ghapp.APIBase(c.URL)
	if err != nil {
		return "", nil, err
	}
	host := api.Host
	if api.Path == "/" { // github.com and GHE.com have a host of its own for it
		host = strings.TrimPrefix(host, "api.")
	}
	return api.Scheme + "://" + host, api, nil
}

// Client implements supervisor.GitHub. It is safe for concurrent use.
type Client struct {
	cfg    Config
	server string
	rest   *gh.Client
	// app speaks as the App itself, nil without one.
	app   *Client
	log   *zap.Logger
	meter *meter
	heard *heardSet
	names *names
}

var _ supervisor.GitHub = (*Client)(nil)

const defaultTimeout = 30 * time.Second

// New makes a client. It does no I/O.
func New(cfg Config, logger *zap.Logger) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("github configuration: %w", err)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	server, api, err := cfg.urls()
	if err != nil {
		return nil, err
	}
	meter := newMeter(newTransport(cfg.Transport, cfg.RootCAs, cfg.Proxy))
	c := &Client{cfg: cfg, server: server, log: logger, meter: meter, heard: &heardSet{}, names: &names{}}
	as := func(token func(context.Context) (string, error), drop func(string)) *gh.Client {
		in := signedIn{next: newRevalidating(meter), api: api, token: token, drop: drop}
		rest := gh.NewClient(&http.Client{Transport: in, CheckRedirect: sameHost}) // every call has a deadline
		rest.BaseURL = api
		return rest
	}
	if cfg.App == nil {
		c.rest = as(func(context.Context) (string, error) { return cfg.Token.Reveal(), nil }, nil)
		return c, nil
	}
	c.rest = as(cfg.App.Token, cfg.App.Drop)
	itself := *c
	itself.rest = as(cfg.App.JWT, cfg.App.Drop)
	c.app = &itself
	return c, nil
}

// Health implements supervisor.GitHub.
func (c *Client) Health() supervisor.GitHubHealth { return c.meter.health() }

// sameHost follows redirects of renamed repositories, and no others: the
// request carries a credential.
func sameHost(req *http.Request, via []*http.Request) error {
	if len(via) >= 5 || req.URL.Host != via[0].URL.Host || req.URL.Scheme != via[0].URL.Scheme {
		return errRedirect
	}
	return nil
}

// maxPages bounds every list; at 100 entries a page none of ours is near it.
const maxPages = 50

// get reads one document.
func (c *Client) get(ctx context.Context, op, path string) ([]byte, error) {
	body, _, err := c.page(ctx, op, path)
	return body, err
}

// page reads one page of a list; the answer says where the next is.
func (c *Client) page(ctx context.Context, op, path string) ([]byte, *gh.Response, error) {
	req, err := c.rest.NewRequest(http.MethodGet, path, nil)
	if err != nil {
		return nil, nil, &Error{Op: op, Cause: errNoAnswer}
	}
	var body bytes.Buffer
	resp, err := c.rest.Do(ctx, req, &body)
	if err != nil {
		return nil, nil, failed(op, httpResponse(resp), err)
	}
	return body.Bytes(), resp, nil
}

// pages reads a whole list, page by page. query are further parameters.
func (c *Client) pages(ctx context.Context, op, path string, add func([]byte) error, query ...string) error {
	next := 1
	for range maxPages {
		body, resp, err := c.page(ctx, op, path+"?"+strings.Join(append(query, "per_page=100", fmt.Sprintf("page=%d", next)), "&"))
		if err != nil {
			return err
		}
		if err := add(body); err != nil {
			return &Error{Op: op, Cause: err}
		}
		if resp.NextPage == 0 {
			return nil
		}
		next = resp.NextPage
	}
	return &Error{Op: op, Cause: fmt.Errorf("more than %d pages", maxPages)}
}

func httpResponse(r *gh.Response) *http.Response {
	if r == nil {
		return nil
	}
	return r.Response
}

// notFound says that GitHub answered 404.
func notFound(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Status == http.StatusNotFound
}

// CancelRun implements supervisor.GitHub. GitHub accepts a cancellation with
// 202, which go-github reports as an error, and refuses it with 409 when the
// run is over.
// https://docs.github.com/en/rest/actions/workflow-runs#cancel-a-workflow-run
func (c *Client) CancelRun(ctx context.Context, repository string, runID int64, force bool) error {
	const op = "cancel run"
	owner, name, ok := strings.Cut(repository, "/")
	if !ok {
		return &Error{Op: op, Cause: errors.New("the repository is not owner/name")}
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	for _, verb := range cancellations(force) {
		req, err := c.rest.NewRequest(http.MethodPost, fmt.Sprintf("repos/%s/%s/actions/runs/%d/%s", owner, name, runID, verb), nil)
		if err != nil {
			return &Error{Op: op, Cause: errors.New("the repository does not fit into a URL")}
		}
		resp, err := c.rest.Do(ctx, req, nil)
		_, accepted := errors.AsType[*gh.AcceptedError](err)
		over := resp != nil && resp.StatusCode == http.StatusConflict
		switch {
		case accepted || over:
		case err == nil: // somebody answered, and not as GitHub does
			return &Error{Op: op, Status: resp.StatusCode, Cause: errMalformed}
		default:
			return failed(op, httpResponse(resp), err)
		}
	}
	c.log.Info("cancelled run", zap.String("repository", repository), zap.Int64("run_id", runID), zap.Bool("forced", force))
	return nil
}

// cancellations are the calls that cancel a run. GitHub documents force-cancel
// for a run that does not answer the ordinary one:
// https://docs.github.com/en/rest/actions/workflow-runs#force-cancel-a-workflow-run
func cancellations(force bool) []string {
	if force {
		return []string{"cancel", "force-cancel"}
	}
	return []string{"cancel"}
}
