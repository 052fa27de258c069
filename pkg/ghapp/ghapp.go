// Package ghapp signs in to GitHub as an App: it makes the App's JSON Web Token
// and the tokens of its installation. The App's private key may lie anywhere
// that can sign a digest: in a file ([ParseKey]) or in AWS KMS (pkg/kms).
// https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app
package ghapp

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Signer is a private RSA key, wherever it is. It is safe for concurrent use.
type Signer interface {
	Public() crypto.PublicKey
	// Sign signs a SHA-256 digest with RSASSA-PKCS1-v1_5 (RFC 8017).
	Sign(ctx context.Context, digest []byte) ([]byte, error)
}

// Config says which App signs in and where.
type Config struct {
	// API is the base of GitHub's REST API, as [APIBase] gives it.
	API *url.URL
	// ClientID is the App's client id, or its numeric id.
	ClientID       string
	InstallationID int64
	Key            Signer
	// Transport carries the requests; nil is [http.DefaultTransport].
	Transport http.RoundTripper
}

// App makes tokens. It is safe for concurrent use.
type App struct {
	cfg Config
	url string
	// A slot holds what is cached; who has taken it may renew it. A channel
	// and not a mutex, so that waiting for it ends with the context.
	token, assertion chan cached

	mu   sync.Mutex
	skew *time.Duration
}

type cached struct {
	value   string
	expires time.Time
}

const (
	// renewBefore is how long before its expiry a token is replaced. GitHub
	// makes them for an hour.
	renewBefore = 5 * time.Minute
	// assertionLife is how long a JSON Web Token of ours lives. GitHub allows
	// ten minutes from its own now.
	assertionLife = 8 * time.Minute
	// backdate is for clocks that drift, as GitHub advises.
	backdate = time.Minute
	// maxBody bounds what is read of one answer, in bytes.
	maxBody = 1 << 20
)

// New makes an App. It does no I/O.
func New(cfg Config) (*App, error) {
	var problems []error
	if cfg.API == nil || cfg.API.Host == "" {
		problems = append(problems, errors.New("app: no API to sign in to"))
	}
	if cfg.ClientID == "" || cfg.InstallationID <= 0 {
		problems = append(problems, errors.New("app: client id and installation id are needed"))
	}
	if cfg.Key == nil {
		problems = append(problems, errors.New("app: no private key"))
	} else if _, isRSA := cfg.Key.Public().(*rsa.PublicKey); !isRSA {
		problems = append(problems, errors.New("app: the private key is not an RSA key, and GitHub takes no other"))
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	if cfg.Transport == nil {
		cfg.Transport = http.DefaultTransport
	}
	a := &App{
		cfg: cfg, token: make(chan cached, 1), assertion: make(chan cached, 1),
		url: cfg.API.JoinPath("app", "installations", fmt.Sprint(cfg.InstallationID), "access_tokens").String(),
	}
	a.token <- cached{}
	a.assertion <- cached{}
	return a, nil
}

// APIBase is the base of the REST API of the GitHub at this URL, with a slash at
// its end: api.HOST for github.com and for GHE.com, HOST/api/v3 for GitHub
// Enterprise Server. Only scheme and host of the URL count.
func APIBase(server string) (*url.URL, error) {
	u, err := url.Parse(server)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil {
		return nil, errors.New("url: want https://HOST")
	}
	host := strings.TrimPrefix(strings.ToLower(u.Host), "www.")
	if host == "github.com" || strings.HasSuffix(host, ".ghe.com") {
		return &url.URL{Scheme: u.Scheme, Host: "api." + host, Path: "/"}, nil
	}
	return &url.URL{Scheme: u.Scheme, Host: host, Path: "/api/v3/"}, nil
}

// JWT is the App's own token, with at least a quarter of its life left.
func (a *App) JWT(ctx context.Context) (string, error) {
	c, err := renewed(ctx, a.assertion, assertionLife/4, a.assert)
	return c.value, err
}

// Token is the installation's token, at least five minutes from its expiry.
func (a *App) Token(ctx context.Context) (string, error) {
	c, err := renewed(ctx, a.token, renewBefore, a.fetch)
	return c.value, err
}

// Drop forgets a token that GitHub refused, so that the next call makes another.
func (a *App) Drop(token string) {
	for _, slot := range []chan cached{a.token, a.assertion} {
		select {
		case c := <-slot:
			if c.value == token {
				c = cached{}
			}
			slot <- c
		default: // somebody renews it right now
		}
	}
}

// Skew is GitHub's clock minus ours at the last sign-in, false before one.
func (a *App) Skew() (time.Duration, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.skew == nil {
		return 0, false
	}
	return *a.skew, true
}

// renewed is what the slot holds, made anew when it ends soon. Others wait for
// it rather than make another.
func renewed(ctx context.Context, slot chan cached, before time.Duration, fresh func(context.Context) (cached, error)) (cached, error) {
	var c cached
	select {
	case c = <-slot:
	case <-ctx.Done():
		return cached{}, &Error{Op: "sign in", Cause: context.Cause(ctx)}
	}
	defer func() { slot <- c }()
	if time.Until(c.expires) > before {
		return c, nil
	}
	made, err := fresh(ctx)
	if err != nil {
		return cached{}, err
	}
	c = made
	return c, nil
}

// assert signs a JSON Web Token (RFC 7519) with RS256 (RFC 7518, section 3.3).
func (a *App) assert(ctx context.Context) (cached, error) {
	const op = "sign the App's token"
	now := time.Now()
	expires := now.Add(assertionLife)
	claims, err := json.Marshal(map[string]any{
		"iss": a.cfg.ClientID, "iat": now.Add(-backdate).Unix(), "exp": expires.Unix(),
	})
	if err != nil {
		return cached{}, &Error{Op: op, Cause: err}
	}
	const header = `{"alg":"RS256","typ":"JWT"}`
	signed := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString(claims)
	digest := sha256.Sum256([]byte(signed))
	signature, err := a.cfg.Key.Sign(ctx, digest[:])
	if err != nil {
		return cached{}, &Error{Op: op, Cause: err}
	}
	// A key elsewhere may be another than it was.
	if err := rsa.VerifyPKCS1v15(a.cfg.Key.Public().(*rsa.PublicKey), crypto.SHA256, digest[:], signature); err != nil {
		return cached{}, &Error{Op: op, Cause: errors.New("the signature is not by the key that it should be")}
	}
	return cached{signed + "." + base64.RawURLEncoding.EncodeToString(signature), expires}, nil
}

// fetch makes an installation token.
// https://docs.github.com/en/rest/apps/apps#create-an-installation-access-token-for-an-app
func (a *App) fetch(ctx context.Context) (cached, error) {
	const op = "make installation token"
	assertion, err := a.JWT(ctx)
	if err != nil {
		return cached{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url, nil)
	if err != nil {
		return cached{}, &Error{Op: op, Cause: errors.New("the address of the API is not one")}
	}
	req.Header.Set("Authorization", "Bearer "+assertion)
	req.Header.Set("Accept", "application/vnd.github+json")
	resp, err := a.cfg.Transport.RoundTrip(req)
	if err != nil {
		return cached{}, unanswered(op, err)
	}
	defer resp.Body.Close()
	skew := a.look(resp)
	if resp.StatusCode != http.StatusCreated {
		if resp.StatusCode == http.StatusUnauthorized {
			a.Drop(assertion)
		}
		return cached{}, refused(op, resp, skew)
	}
	var answer struct {
		Token     string    `json:"token"`
		ExpiresAt time.Time `json:"expires_at"`
	}
	err = json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&answer)
	if err != nil || answer.Token == "" || answer.ExpiresAt.IsZero() {
		return cached{}, &Error{Op: op, Status: resp.StatusCode, Cause: errMalformed}
	}
	return cached{answer.Token, answer.ExpiresAt}, nil
}

// look notes how far GitHub's clock is from ours.
func (a *App) look(resp *http.Response) time.Duration {
	at, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return 0
	}
	skew := time.Until(at).Round(time.Second)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.skew = &skew
	return skew
}

// Transport is a transport that trusts these roots, the system's when nil, and
// goes through this proxy, that of the environment when nil.
func Transport(roots *x509.CertPool, proxy func(*http.Request) (*url.URL, error)) http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if proxy != nil {
		t.Proxy = proxy
	}
	return t
}
