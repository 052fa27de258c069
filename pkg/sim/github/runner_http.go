package simgithub

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// connect decodes the JIT config, gets a token for the runner's key and opens
// the session. A refusal is final, as for the real runner.
func (r Runner) connect(ctx context.Context, jit string) (*connection, error) {
	c := &connection{runner: r}
	var cred credentialsFile
	var params rsaParams
	if err := decodeJIT(jit, map[string]any{
		".runner": &c.file, ".credentials": &cred, ".credentials_rsaparams": &params,
	}); err != nil {
		return nil, fmt.Errorf("decode the JIT config: %w", err)
	}
	if !c.file.UseV2Flow || cred.Scheme != "OAuth" {
		return nil, errors.New("decode the JIT config: not for the V2 flow")
	}
	c.cred = cred.Data
	var err error
	if c.key, err = params.key(); err != nil {
		return nil, fmt.Errorf("decode the JIT config: %w", err)
	}
	if err := c.authenticate(ctx); err != nil {
		return nil, err
	}
	var session struct {
		ID string `json:"sessionId"`
	}
	if err := c.call(ctx, http.MethodPost, c.broker("session"), c.token, map[string]any{
		"ownerName": standInOwner, "agent": map[string]any{"id": c.file.AgentID, "name": c.file.AgentName},
	}, &session); err != nil {
		return nil, fmt.Errorf("open the session: %w", err)
	}
	c.session = session.ID
	return c, nil
}

// standInOwner is the owner of a stand-in's session, by which the simulator knows
// it from other runners.
const standInOwner = "simulated"

func decodeJIT(jit string, into map[string]any) error {
	b, err := base64.StdEncoding.DecodeString(jit)
	if err != nil {
		return err
	}
	var files map[string][]byte
	if err := json.Unmarshal(b, &files); err != nil {
		return err
	}
	for name, v := range into {
		if err := json.Unmarshal(files[name], v); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// authenticate gets a token for an assertion signed with the runner's key.
func (c *connection) authenticate(ctx context.Context) error {
	signed, err := c.assertion()
	if err != nil {
		return fmt.Errorf("sign the token request: %w", err)
	}
	form := url.Values{
		"grant_type":            {"client_credentials"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
		"client_assertion":      {signed},
	}
	var token struct {
		Value string `json:"access_token"`
	}
	if err := c.call(ctx, http.MethodPost, c.cred.AuthorizationURL, "", form, &token); err != nil {
		return fmt.Errorf("get the runner's token: %w", err)
	}
	c.token = token.Value
	return nil
}

func (c *connection) assertion() (string, error) {
	algorithm := jose.RS256
	if c.cred.RequireFipsCryptography {
		algorithm = jose.PS256
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: c.key}, nil)
	if err != nil {
		return "", err
	}
	now := time.Now()
	payload, err := json.Marshal(assertion{
		Issuer: c.cred.ClientID, Subject: c.cred.ClientID, Audience: c.cred.AuthorizationURL, ID: newGUID(),
		NotBefore: now.Unix(), Expires: now.Add(5 * time.Minute).Unix(),
	})
	if err != nil {
		return "", err
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

// statusError is a refusal that is final.
type statusError struct{ status int }

func (e statusError) Error() string { return fmt.Sprintf("status %d", e.status) }

// brokerRefusal is a refusal that says why.
type brokerRefusal struct {
	kind, message string
	// polling says that it came when the runner asked for a message: only then
	// does the runner look at the reason (actions/runner BrokerHttpClient.cs).
	polling bool
}

func (e brokerRefusal) Error() string { return e.kind + ": " + e.message }

// refusal is what an answer of this status says.
func refusal(status int, body []byte) error {
	var f brokerFailure
	if json.Unmarshal(body, &f) == nil && f.Source == brokerSource {
		return brokerRefusal{kind: f.Kind, message: f.Message}
	}
	return statusError{status}
}

// resolve finds a name against a base, as RFC 3986 has it and .NET's Uri does:
// the last segment of a base without a slash at its end is replaced.
func resolve(base, name string) string {
	b, err := url.Parse(base)
	if err != nil {
		return base
	}
	return b.ResolveReference(&url.URL{Path: name}).String()
}

// call sends one request. What may pass (no answer, 429, 5xx) is tried again
// until the context ends, waiting 1 to 30 s; any other refusal is an error.
func (c *connection) call(ctx context.Context, method, u, token string, in, out any) error {
	kind, body, err := encodeBody(in)
	if err != nil {
		return err
	}
	for wait := time.Second; ; wait = min(2*wait, 30*time.Second) {
		status, b, err := c.once(ctx, method, u, token, kind, body)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil || status == http.StatusTooManyRequests || status >= http.StatusInternalServerError:
		case status >= http.StatusBadRequest:
			return fmt.Errorf("%s: %w", method, refusal(status, b))
		case out == nil || len(b) == 0:
			return nil
		default:
			return json.Unmarshal(b, out)
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		case <-t.C:
		}
	}
}

func encodeBody(in any) (kind string, body []byte, err error) {
	switch v := in.(type) {
	case nil:
		return "", nil, nil
	case url.Values:
		return "application/x-www-form-urlencoded", []byte(v.Encode()), nil
	default:
		body, err = json.Marshal(v)
		return "application/json", body, err
	}
}

func (c *connection) once(ctx context.Context, method, u, token, kind string, body []byte) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, u, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	req.Header.Set("User-Agent", "GitHubActionsRunner-linux-x64/2.336.0")
	resp, err := c.runner.Client.Do(req)
	if err != nil {
		// The address of a request may hold what nobody should log.
		if e, isURL := errors.AsType[*url.Error](err); isURL {
			err = e.Err
		}
		return 0, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, []byte(strings.TrimPrefix(string(b), "\xef\xbb\xbf")), err
}
