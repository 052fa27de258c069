// Package foreignrunner is a client of the runner's protocol written from the
// source of actions/runner, file by file, without a type of the simulator or of
// its stand-in: it finds out whether the simulated GitHub serves a runner that
// the simulator's authors did not write. Where the source refuses something,
// this client refuses it. It runs no scripts.
package foreignrunner

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// The refusals that the source has an exception for.
var (
	ErrSessionConflict = errors.New("TaskAgentSessionConflictException")
	ErrRunnerNotFound  = errors.New("RunnerNotFoundException")
	ErrVersionTooOld   = errors.New("AccessDeniedException with error code 1")
	ErrSessionInvalid  = errors.New("TaskAgentSessionExpiredException")
	ErrNothingToAck    = errors.New("RunnerRequestJobNotFoundException")
	ErrJobNotFound     = errors.New("TaskOrchestrationJobNotFoundException")
	ErrAlreadyAcquired = errors.New("TaskOrchestrationJobAlreadyAcquiredException")
	ErrInvalidClient   = errors.New("invalid_client: the registration has been deleted")
)

// Runner is a configured runner. Configure, Authenticate and CreateSession come
// first and one after another; what follows may be used concurrently.
type Runner struct {
	HTTP *http.Client

	settings settings
	client   string
	tokenURL *url.URL
	fips     bool
	key      *rsa.PrivateKey
	token    string
	session  string
}

// settings is RunnerSettings in ConfigurationStore.cs. Newtonsoft reads texts as
// the numbers and truth values that they name.
type settings struct {
	AgentID     uint64 `json:"AgentId,string"`
	AgentName   string
	PoolID      int `json:"PoolId,string"`
	ServerURLV2 string
	WorkFolder  string
	UseV2Flow   truth
	Ephemeral   truth
}

type truth bool

func (b *truth) UnmarshalJSON(text []byte) error {
	*b = truth(strings.EqualFold(strings.Trim(string(text), `"`), "true"))
	return nil
}

// Configure takes a JIT configuration as Runner.cs does: a map of file names to
// their content, each in base64.
func Configure(client *http.Client, encoded string) (*Runner, error) {
	text, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, fmt.Errorf("decode the JIT config: %w", err)
	}
	var files map[string][]byte
	if err := json.Unmarshal(text, &files); err != nil {
		return nil, fmt.Errorf("decode the JIT config: %w", err)
	}
	r := &Runner{HTTP: client}
	if err := json.Unmarshal(files[".runner"], &r.settings); err != nil {
		return nil, fmt.Errorf("read .runner: %w", err)
	}
	if s := r.settings; s.AgentID == 0 || s.AgentName == "" || s.ServerURLV2 == "" || !s.UseV2Flow || !s.Ephemeral || s.WorkFolder == "" {
		return nil, fmt.Errorf("read .runner: %+v is not the V2 flow of an ephemeral runner", s)
	}
	if err := r.credentials(files[".credentials"]); err != nil {
		return nil, fmt.Errorf("read .credentials: %w", err)
	}
	if r.key, err = importParameters(files[".credentials_rsaparams"]); err != nil {
		return nil, fmt.Errorf("read .credentials_rsaparams: %w", err)
	}
	return r, nil
}

// Name is the runner's.
func (r *Runner) Name() string { return r.settings.AgentName }

// credentials is CredentialData.cs, read by OAuthCredential.cs.
func (r *Runner) credentials(file []byte) error {
	var c struct {
		Scheme string
		Data   map[string]string
	}
	if err := json.Unmarshal(file, &c); err != nil {
		return err
	}
	r.client = c.Data["clientId"]
	r.fips = strings.EqualFold(c.Data["requireFipsCryptography"], "true")
	var err error
	r.tokenURL, err = url.Parse(c.Data["authorizationUrl"])
	if err != nil || c.Scheme != "OAuth" || r.client == "" || !r.tokenURL.IsAbs() {
		return fmt.Errorf("scheme %s, client %q, authorization URL %v: %w", c.Scheme, r.client, r.tokenURL, err)
	}
	return nil
}

// importParameters refuses what RSA.ImportParameters refuses (numbers of another
// width than the modulus asks for) and what VssSigningCredentials.cs refuses (less
// than 2048 bits).
func importParameters(file []byte) (*rsa.PrivateKey, error) {
	var p struct{ D, DP, DQ, Exponent, InverseQ, Modulus, P, Q []byte }
	if err := json.Unmarshal(file, &p); err != nil {
		return nil, err
	}
	if len(p.Modulus)*8 < 2048 {
		return nil, fmt.Errorf("a key of %d bits: at least 2048 are wanted", len(p.Modulus)*8)
	}
	half := (len(p.Modulus) + 1) / 2
	for name, number := range map[string][]byte{"P": p.P, "Q": p.Q, "DP": p.DP, "DQ": p.DQ, "InverseQ": p.InverseQ} {
		if len(number) != half {
			return nil, fmt.Errorf("%s has %d bytes, want %d", name, len(number), half)
		}
	}
	if len(p.D) != len(p.Modulus) || len(p.Exponent) == 0 {
		return nil, fmt.Errorf("D has %d bytes, want %d", len(p.D), len(p.Modulus))
	}
	number := func(b []byte) *big.Int { return new(big.Int).SetBytes(b) }
	k := &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: number(p.Modulus), E: int(number(p.Exponent).Int64())},
		D:         number(p.D), Primes: []*big.Int{number(p.P), number(p.Q)},
	}
	if err := k.Validate(); err != nil {
		return nil, err
	}
	k.Precompute()
	for name, pair := range map[string][2]*big.Int{
		"DP": {number(p.DP), k.Precomputed.Dp}, "DQ": {number(p.DQ), k.Precomputed.Dq}, "InverseQ": {number(p.InverseQ), k.Precomputed.Qinv},
	} {
		if pair[0].Cmp(pair[1]) != 0 {
			return nil, fmt.Errorf("%s does not belong to the key", name)
		}
	}
	return k, nil
}

// Authenticate gets an access token for a signed assertion
// (VssOAuthTokenHttpClient.cs, VssOAuthJwtBearerAssertion.cs).
func (r *Runner) Authenticate(ctx context.Context) error {
	assertion, err := r.assertion(time.Now())
	if err != nil {
		return fmt.Errorf("sign the assertion: %w", err)
	}
	form := url.Values{
		"grant_type": {"client_credentials"}, "client_assertion": {assertion},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.tokenURL.String(), strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	status, body, err := r.send(req)
	if err != nil {
		return fmt.Errorf("ask for a token: %w", err)
	}
	var answer struct {
		AccessToken      string `json:"access_token"`
		ExpiresIn        int    `json:"expires_in"`
		Error            string `json:"error"`
		ErrorDescription string `json:"error_description"`
	}
	if status != http.StatusOK && status != http.StatusBadRequest || json.Unmarshal(body, &answer) != nil {
		return fmt.Errorf("ask for a token: status %d: %s", status, body)
	}
	switch {
	case answer.AccessToken != "" && answer.ExpiresIn > 0:
		r.token = answer.AccessToken
		return nil
	case answer.Error == "invalid_client":
		return ErrInvalidClient
	}
	return fmt.Errorf("ask for a token: %s %s", answer.Error, answer.ErrorDescription)
}

// assertion is signed with PSS, its salt as long as the hash, under PS256 if
// FIPS cryptography is required, and with PKCS #1 v1.5 under RS256 otherwise
// (VssSigningCredentials.cs).
func (r *Runner) assertion(now time.Time) (string, error) {
	algorithm := "RS256"
	if r.fips {
		algorithm = "PS256"
	}
	encode := func(v map[string]any) string {
		b, err := json.Marshal(v)
		if err != nil {
			panic(err) // strings and numbers always marshal
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	signed := encode(map[string]any{"typ": "JWT", "alg": algorithm}) + "." + encode(map[string]any{
		"iss": r.client, "sub": r.client, "aud": r.tokenURL.String(), "jti": newGUID(),
		"nbf": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
	})
	hash := sha256.Sum256([]byte(signed))
	var signature []byte
	var err error
	if r.fips {
		signature, err = rsa.SignPSS(rand.Reader, r.key, crypto.SHA256, hash[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	} else {
		signature, err = rsa.SignPKCS1v15(nil, r.key, crypto.SHA256, hash[:])
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature), err
}

func newGUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand documents it
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// under resolves a name as new Uri(base, name) does: the last segment of a base
// without a slash at its end is replaced.
func under(base, name string) (string, error) {
	b, err := url.Parse(base)
	if err != nil || !b.IsAbs() {
		return "", fmt.Errorf("%q is no absolute URL", base)
	}
	return b.ResolveReference(&url.URL{Path: name}).String(), nil
}

// post sends JSON with a bearer token.
func (r *Runner) post(ctx context.Context, base, name, token string, in any) (int, []byte, error) {
	u, err := under(base, name)
	if err != nil {
		return 0, nil, err
	}
	return r.postTo(ctx, u, token, in)
}

func (r *Runner) postTo(ctx context.Context, u, token string, in any) (int, []byte, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	return r.send(req)
}

func (r *Runner) send(req *http.Request) (int, []byte, error) {
	req.Header.Set("User-Agent", "GitHubActionsRunner-linux-x64/2.336.0")
	resp, err := r.HTTP.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if len(body) > 0 && !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		return resp.StatusCode, nil, err // RawHttpClientBase.cs, IsJsonResponse
	}
	return resp.StatusCode, body, err
}
