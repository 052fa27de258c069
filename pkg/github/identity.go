package github

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// IdentityConfig says whose tokens are verified.
type IdentityConfig struct {
	// Issuer is exactly the claim iss: https://token.actions.githubusercontent.com
	// on github.com.
	Issuer string
	// RootCAs replaces the system's roots when set.
	RootCAs *x509.CertPool
	// Proxy is as in [http.Transport]; nil takes it from the environment.
	Proxy func(*http.Request) (*url.URL, error)
	// Transport replaces the connection to the issuer, RootCAs and Proxy with it.
	Transport http.RoundTripper
	// Timeout bounds one request to the issuer; 0 is 10 s.
	Timeout time.Duration
}

// Identity implements supervisor.Identity. The issuer's keys are found through
// its discovery document at the first use and kept; an unknown key id makes it
// ask again once. It is safe for concurrent use.
type Identity struct {
	issuer string
	client *http.Client
	// keys holds the key set, nil before discovery. A channel and not a
	// mutex, so that waiting for a discovery ends with the context.
	keys chan oidc.KeySet
}

var _ supervisor.Identity = (*Identity)(nil)

// maxTokenAhead is how far in the future a token may begin: the clocks of
// GitHub and the host may differ by this much.
const maxTokenAhead = 60 * time.Second

// NewIdentity makes a verifier. It does no I/O.
func NewIdentity(cfg IdentityConfig) (*Identity, error) {
	u, err := url.Parse(cfg.Issuer)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("issuer: want https://HOST")
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	i := &Identity{
		issuer: cfg.Issuer,
		client: &http.Client{Transport: newTransport(cfg.Transport, cfg.RootCAs, cfg.Proxy), Timeout: cfg.Timeout, CheckRedirect: sameHost},
		keys:   make(chan oidc.KeySet, 1),
	}
	i.keys <- nil
	return i, nil
}

// Verify implements supervisor.Identity. An expired token is rejected to the
// second; one from the future may be a minute ahead.
func (i *Identity) Verify(ctx context.Context, token, audience string, now time.Time) (runner.Claims, error) {
	if audience == "" {
		return runner.Claims{}, errors.New("verify token: no audience to check")
	}
	keys, err := i.keySet(ctx)
	if err != nil {
		return runner.Claims{}, err
	}
	probe := &probedKeys{KeySet: keys}
	verifier := oidc.NewVerifier(i.issuer, probe, &oidc.Config{
		ClientID: audience, SupportedSigningAlgs: []string{oidc.RS256}, Now: func() time.Time { return now },
	})
	verified, err := verifier.Verify(ctx, token)
	switch {
	case probe.unknown:
		return runner.Claims{}, errors.New("verify token: the issuer's keys cannot be had")
	case err != nil:
		return runner.Claims{}, rejected(reason(err))
	case len(verified.Audience) != 1:
		return runner.Claims{}, rejected("it is for several audiences")
	}
	var raw json.RawMessage
	if err := verified.Claims(&raw); err != nil {
		return runner.Claims{}, rejected("its claims are not JSON")
	}
	claims, err := decodeClaims(raw, now)
	if err != nil {
		return runner.Claims{}, err
	}
	claims.Token = runner.DigestOf([]byte(token))
	return claims, nil
}

// rejected never says more of a token than the name of what is wrong.
func rejected(why string) error {
	return fmt.Errorf("%w: %s", supervisor.ErrTokenRejected, why)
}

// reason names a failed check; the library's own words hold claims.
func reason(err error) string {
	if _, expired := errors.AsType[*oidc.TokenExpiredError](err); expired {
		return "it is expired"
	}
	switch text := err.Error(); {
	case strings.Contains(text, "failed to verify signature"):
		return "its signature is not the issuer's"
	case strings.Contains(text, "different provider"):
		return "it is of another issuer"
	case strings.Contains(text, "expected audience"):
		return "it is for another audience"
	case strings.Contains(text, "malformed jwt"):
		return "it is not a token signed with RS256"
	}
	return "it is not acceptable"
}

// probedKeys notes whether a signature failed to verify or the keys could not
// be fetched: the verifier flattens the two into one.
type probedKeys struct {
	oidc.KeySet
	unknown bool
}

// VerifySignature implements oidc.KeySet.
func (p *probedKeys) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	payload, err := p.KeySet.VerifySignature(ctx, token)
	if err != nil && strings.HasPrefix(err.Error(), "fetching keys") {
		p.unknown = true
	}
	return payload, err
}

// keySet discovers the issuer's keys once.
func (i *Identity) keySet(ctx context.Context) (keys oidc.KeySet, err error) {
	select {
	case keys = <-i.keys:
	case <-ctx.Done():
		return nil, fmt.Errorf("discover issuer: %w", context.Cause(ctx))
	}
	defer func() { i.keys <- keys }()
	if keys != nil {
		return keys, nil
	}
	ctx = oidc.ClientContext(ctx, i.client)
	provider, err := oidc.NewProvider(ctx, i.issuer)
	if err != nil {
		return nil, errors.New("discover issuer: its discovery document cannot be had")
	}
	var document struct {
		Keys string `json:"jwks_uri"`
	}
	if err := provider.Claims(&document); err != nil || !sameScheme(i.issuer, document.Keys) {
		return nil, errors.New("discover issuer: its discovery document names no keys")
	}
	keys = oidc.NewRemoteKeySet(ctx, document.Keys)
	return keys, nil
}

func sameScheme(issuer, keys string) bool {
	scheme, _, _ := strings.Cut(issuer, "://")
	return strings.HasPrefix(keys, scheme+"://")
}

// claimSet is the token as GitHub documents it: every id is a string.
// https://docs.github.com/en/actions/reference/security/oidc
type claimSet struct {
	ID                string  `json:"jti"`
	Subject           string  `json:"sub"`
	Expiry            float64 `json:"exp"`
	IssuedAt          float64 `json:"iat"`
	NotBefore         float64 `json:"nbf"`
	Repository        string  `json:"repository"`
	RepositoryID      string  `json:"repository_id"`
	OwnerID           string  `json:"repository_owner_id"`
	RunID             string  `json:"run_id"`
	RunAttempt        string  `json:"run_attempt"`
	CheckRunID        string  `json:"check_run_id"`
	Environment       string  `json:"environment"`
	Event             string  `json:"event_name"`
	Ref               string  `json:"ref"`
	SHA               string  `json:"sha"`
	JobWorkflowRef    string  `json:"job_workflow_ref"`
	JobWorkflowSHA    string  `json:"job_workflow_sha"`
	WorkflowRef       string  `json:"workflow_ref"`
	ActorID           string  `json:"actor_id"`
	RunnerEnvironment string  `json:"runner_environment"`
}

// decodeClaims maps the claims of a token whose signature was verified. It
// returns ErrTokenRejected for claims that are missing, of another shape, or
// out of time.
func decodeClaims(payload []byte, now time.Time) (runner.Claims, error) {
	var c claimSet
	if err := json.Unmarshal(payload, &c); err != nil {
		return runner.Claims{}, rejected("a claim is not of its documented type")
	}
	expires, issued := seconds(c.Expiry), seconds(c.IssuedAt)
	switch {
	case c.ID == "":
		return runner.Claims{}, rejected("it has no jti")
	case c.Expiry <= 0 || !now.Before(expires):
		return runner.Claims{}, rejected("it is expired")
	case c.IssuedAt <= 0:
		return runner.Claims{}, rejected("it has no iat")
	case issued.After(now.Add(maxTokenAhead)) || seconds(c.NotBefore).After(now.Add(maxTokenAhead)):
		return runner.Claims{}, rejected("it is from the future")
	}
	out := runner.Claims{
		Subject: c.Subject, Repository: c.Repository, Environment: c.Environment, Event: c.Event,
		Ref: c.Ref, SHA: c.SHA, WorkflowRef: c.WorkflowRef, RunnerEnvironment: c.RunnerEnvironment,
		JobWorkflow: runner.Workflow{Ref: c.JobWorkflowRef, SHA: c.JobWorkflowSHA},
		IssuedAt:    issued, ExpiresAt: expires, TokenID: runner.DigestOf([]byte(c.ID)),
	}
	for _, id := range []struct {
		name     string
		text     string
		to       *int64
		optional bool
	}{
		{"repository_id", c.RepositoryID, &out.RepositoryID, false},
		{"repository_owner_id", c.OwnerID, &out.OwnerID, false},
		{"run_id", c.RunID, &out.RunID, false},
		{"run_attempt", c.RunAttempt, &out.RunAttempt, false},
		{"actor_id", c.ActorID, &out.ActorID, false},
		// Since November 2025; older servers do not send it.
		{"check_run_id", c.CheckRunID, &out.CheckRunID, true},
	} {
		if id.text == "" && id.optional {
			continue
		}
		n, err := strconv.ParseInt(id.text, 10, 64)
		if err != nil || n <= 0 || strconv.FormatInt(n, 10) != id.text {
			return runner.Claims{}, rejected(id.name + " is not an id")
		}
		*id.to = n
	}
	unsigned := out
	unsigned.Token = out.TokenID // set by the caller, who holds the token
	if err := runner.Validate(unsigned); err != nil {
		return runner.Claims{}, rejected(err.Error())
	}
	return out, nil
}

// seconds is a NumericDate of RFC 7519, cut to whole seconds.
func seconds(n float64) time.Time {
	// Beyond this a time cannot be written in the ledger's format.
	const latest = 253402300799
	return time.Unix(int64(min(max(n, 0), latest)), 0).UTC()
}
