package simgithub

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// The kinds of credential. They are not interchangeable.
const (
	kindAnonymous    = "anonymous"
	kindUnknown      = "unknown"
	kindApp          = "app"
	kindInstallation = "installation"
	kindToken        = "token"
	kindRegistration = "registration"
	kindAdmin        = "admin"
	kindQueue        = "queue"
	kindRunner       = "runner"
	kindJob          = "job"
)

// credential is what a token stands for.
type credential struct {
	kind    string
	expires time.Time
	session string // queue tokens
	agent   int64  // runner tokens
	job     string // job tokens, and the GITHUB_TOKEN of a job
}

type caller struct {
	kind string
	cred credential
}

type callerKey struct{}

func withCaller(ctx context.Context, c caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

func callerOf(r *http.Request) caller {
	c, _ := r.Context().Value(callerKey{}).(caller)
	return c
}

// identify finds out what kind of credential a request carries. A registration
// token is known under the scheme RemoteAuth only, every other one under
// Bearer, or also under token in the REST API.
func (s *Server) identify(r *http.Request) (string, credential) {
	h := r.Header.Get("Authorization")
	if h == "" {
		return kindAnonymous, credential{}
	}
	scheme, token, _ := strings.Cut(h, " ")
	scheme = strings.ToLower(scheme)
	rest := strings.HasPrefix(r.URL.Path, "/api/v3/")
	if scheme != "bearer" && scheme != "remoteauth" && (scheme != "token" || !rest) || token == "" {
		return kindUnknown, credential{}
	}
	if s.cfg.Token != "" && token == s.cfg.Token && rest && scheme != "remoteauth" {
		return kindToken, credential{kind: kindToken}
	}
	s.mu.Lock()
	cred, known := s.creds[token]
	s.mu.Unlock()
	if known && s.now().Before(cred.expires) && (cred.kind == kindRegistration) == (scheme == "remoteauth") {
		return cred.kind, cred
	}
	if !known && scheme == "bearer" && rest && s.checkApp(token) == "" {
		return kindApp, credential{kind: kindApp}
	}
	return kindUnknown, credential{}
}

// checkApp verifies the JWT of a GitHub App and returns GitHub's complaint.
// https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/generating-a-json-web-token-jwt-for-a-github-app
func (s *Server) checkApp(token string) string {
	const undecodable = "A JSON web token could not be decoded"
	if s.cfg.AppKey == nil {
		return undecodable
	}
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return undecodable
	}
	payload, err := jws.Verify(s.cfg.AppKey)
	if err != nil {
		return undecodable
	}
	var c struct {
		Issuer   any      `json:"iss"`
		IssuedAt *float64 `json:"iat"`
		Expires  *float64 `json:"exp"`
	}
	if json.Unmarshal(payload, &c) != nil {
		return undecodable
	}
	now := float64(time.Now().Unix())
	switch {
	case c.IssuedAt == nil || *c.IssuedAt > now:
		return "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued"
	case c.Expires == nil || *c.Expires <= now:
		return "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires"
	case *c.Expires > now+600:
		return "'Expiration time' claim ('exp') is too far in the future"
	}
	if iss, isString := c.Issuer.(string); !isString || iss != s.cfg.AppClientID {
		return "'Issuer' claim ('iss') must be the client id or id of an App"
	}
	return ""
}

// issue makes a token. Those that clients look into (admin, queue, runner, job)
// are JWTs with an expiry. The caller holds the lock.
func (s *Server) issue(c credential, ttl time.Duration) string {
	c.expires = s.now().Add(ttl)
	var token string
	switch c.kind {
	case kindInstallation:
		token = "ghs_" + strings.ReplaceAll(newGUID(), "-", "")
	case kindRegistration:
		token = strings.ToUpper(strings.ReplaceAll(newGUID(), "-", ""))[:29]
	default:
		token = s.opaqueJWT(c.kind, time.Now().Add(ttl))
	}
	s.creds[token] = c
	return token
}

// opaqueJWT is a JWT that only the simulator itself believes. Its exp is for
// clients, by the clock that they have.
func (s *Server) opaqueJWT(kind string, expires time.Time) string {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: s.secret}, nil)
	if err != nil {
		panic(err) // a 32 byte key always suits HS256
	}
	payload, err := json.Marshal(map[string]any{
		"iss": s.cfg.BaseURL, "jti": newGUID(), "exp": expires.Unix(), "kind": kind,
	})
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		panic(err)
	}
	token, err := jws.CompactSerialize()
	if err != nil {
		panic(err)
	}
	return token
}

// allow runs h under the lock, after due transitions, if the caller carries
// one of these kinds of credential.
func (s *Server) allow(h func(*http.Request) answer, kinds ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !s.carries(r, kinds...) {
			s.unauthorized(r).write(w)
			return
		}
		func() answer {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.settle()
			a := h(r)
			s.settle()
			return a
		}().write(w)
	}
}

func (s *Server) carries(r *http.Request, kinds ...string) bool {
	c := callerOf(r)
	return slices.Contains(kinds, c.kind)
}

func (s *Server) unauthorized(r *http.Request) answer {
	if !strings.HasPrefix(r.URL.Path, "/api/v3/") {
		a := vssError(http.StatusUnauthorized, "VssUnauthorizedException", "the token is not valid for this resource")
		a.header["WWW-Authenticate"] = "Bearer"
		return a
	}
	msg := "Bad credentials"
	if token, found := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); !found && r.Header.Get("Authorization") == "" {
		msg = "Requires authentication"
	} else if strings.Count(token, ".") == 2 {
		msg = s.checkApp(token)
		if msg == "" {
			msg = "A JSON web token could not be decoded"
		}
	}
	return restError(http.StatusUnauthorized, msg)
}
