package github

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

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

// authTransport adds the credential to requests for the API's own host.
type authTransport struct {
	next http.RoundTripper
	api  *url.URL
	// token is who we are: given, or made for an installation and cached.
	token func(context.Context) (string, error)
}

func newAuthTransport(cfg Config, api *url.URL, next http.RoundTripper) (*authTransport, error) {
	t := &authTransport{next: next, api: api}
	if cfg.App == nil {
		token := cfg.Token
		t.token = func(context.Context) (string, error) { return token.Reveal(), nil }
		return t, nil
	}
	app, err := newInstallation(*cfg.App, api, next)
	if err != nil {
		return nil, err
	}
	t.token = app.token
	return t, nil
}

// RoundTrip implements http.RoundTripper.
func (t *authTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host != t.api.Host || req.URL.Scheme != t.api.Scheme {
		return nil, errRedirect
	}
	token, err := t.token(req.Context())
	if err != nil {
		return nil, err
	}
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", "Bearer "+token)
	return t.next.RoundTrip(req)
}

// installation makes tokens of an App's installation.
// https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app
type installation struct {
	app    AppAuth
	url    string
	next   http.RoundTripper
	signer jose.Signer
	// slot holds the cached token; who has taken it may renew it. A channel
	// and not a mutex, so that waiting for it ends with the context.
	slot chan cachedToken
}

type cachedToken struct {
	value   supervisor.Secret
	expires time.Time
}

// renewBefore is how long before its expiry a token is replaced. GitHub makes
// them for an hour.
const renewBefore = 5 * time.Minute

func newInstallation(app AppAuth, api *url.URL, next http.RoundTripper) (*installation, error) {
	block, _ := pem.Decode([]byte(app.PrivateKeyPEM.Reveal()))
	if block == nil {
		return nil, errors.New("app: the private key is not PEM")
	}
	key, err := parseRSA(block.Bytes)
	if err != nil {
		return nil, err
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return nil, errors.New("app: the private key cannot sign")
	}
	i := &installation{
		app: app, next: next, signer: signer, slot: make(chan cachedToken, 1),
		url: api.JoinPath("app", "installations", fmt.Sprint(app.InstallationID), "access_tokens").String(),
	}
	i.slot <- cachedToken{}
	return i, nil
}

func parseRSA(der []byte) (any, error) {
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		return key, nil
	}
	return nil, errors.New("app: the private key is not an RSA key in PKCS#1 or PKCS#8")
}

// token is the installation's token, at least renewBefore from its expiry.
func (i *installation) token(ctx context.Context) (string, error) {
	var cached cachedToken
	select {
	case cached = <-i.slot:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	defer func() { i.slot <- cached }()
	if time.Until(cached.expires) > renewBefore {
		return cached.value.Reveal(), nil
	}
	fresh, err := i.fetch(ctx)
	if err != nil {
		return "", err
	}
	cached = fresh
	return cached.value.Reveal(), nil
}

func (i *installation) fetch(ctx context.Context) (cachedToken, error) {
	const op = "make installation token"
	// A minute back, as GitHub advises against clock drift; at most ten
	// minutes of life are allowed.
	now := time.Now()
	assertion, err := jwt.Signed(i.signer).Claims(jwt.Claims{
		Issuer:   i.app.ClientID,
		IssuedAt: jwt.NewNumericDate(now.Add(-time.Minute)),
		Expiry:   jwt.NewNumericDate(now.Add(8 * time.Minute)),
	}).Serialize()
	if err != nil {
		return cachedToken{}, &Error{Op: op, Cause: errors.New("the private key cannot sign")}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, i.url, nil)
	if err != nil {
		return cachedToken{}, &Error{Op: op, Cause: errNoAnswer}
	}
	req.Header.Set("Authorization", "Bearer "+assertion)
	req.Header.Set("Accept", "application/vnd.github+json")
	resp, err := i.next.RoundTrip(req)
	if err != nil {
		return cachedToken{}, failed(op, nil, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		return cachedToken{}, failed(op, resp, errRejected)
	}
	var answer struct {
		Token     string    `json:"token"`
		ExpiresAt time.Time `json:"expires_at"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.Token == "" || answer.ExpiresAt.IsZero() {
		return cachedToken{}, &Error{Op: op, Status: resp.StatusCode, Cause: errMalformed}
	}
	return cachedToken{supervisor.NewSecret(answer.Token), answer.ExpiresAt}, nil
}
