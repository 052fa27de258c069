package agent

import (
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

	"github.com/runnerward/runnerward/pkg/admission/wire"
)

// renewBefore is how much life a token must have left to be presented.
const renewBefore = time.Minute

// tokenSource asks GitHub to sign this job's identity over the digest of the
// bound record, and keeps the token while it is good.
// https://docs.github.com/en/actions/reference/security/oidc#methods-for-requesting-the-oidc-token
type tokenSource struct {
	agent       *Agent
	url, secret string

	current string
	until   time.Time
}

// possible says whether the job may have a token. It has id-token: write
// exactly when the runner set both variables.
func (s *tokenSource) possible() bool { return s.url != "" && s.secret != "" }

func (s *tokenSource) forget() { s.current = "" }

// token is empty when the job can have none. An error is passing: GitHub
// refuses while it does not know yet that the job is in progress.
func (s *tokenSource) token(ctx context.Context) (string, error) {
	if !s.possible() {
		return "", nil
	}
	if s.current != "" && time.Now().Before(s.until) {
		return s.current, nil
	}
	bound, err := s.agent.readBound()
	if err != nil {
		return "", err
	}
	asked := time.Now()
	token, err := s.fetch(ctx, bound.Audience())
	if err != nil {
		return "", fmt.Errorf("ask GitHub for the job's token: %w", err)
	}
	s.current, s.until = token, asked.Add(max(0, lifetime(token)-renewBefore))
	return token, nil
}

func (s *tokenSource) fetch(ctx context.Context, audience string) (string, error) {
	u, err := url.Parse(s.url)
	if err != nil || u.Scheme != "https" {
		return "", errors.New("ACTIONS_ID_TOKEN_REQUEST_URL is not an https URL")
	}
	query := u.Query()
	query.Set("audience", audience)
	u.RawQuery = query.Encode()
	ctx, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "bearer "+s.secret)
	req.Header.Set("Accept", "application/json")
	resp, err := s.agent.github.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("unexpected status %d", resp.StatusCode)
	}
	var answer struct {
		Value string `json:"value"`
	}
	// The body may hold a token, so it is not quoted.
	if json.Unmarshal(body, &answer) != nil || answer.Value == "" || len(answer.Value) > wire.MaxToken {
		return "", errors.New("an answer without a token")
	}
	return answer.Value, nil
}

// lifetime is how long the token lives after it was issued, by its own claims;
// the difference of two of GitHub's times does not depend on our clock. It
// verifies nothing: that is the supervisor's part. A token that does not say
// is asked for anew each time.
func lifetime(token string) time.Duration {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return 0
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return 0
	}
	var claims struct {
		IssuedAt  int64 `json:"iat"`
		ExpiresAt int64 `json:"exp"`
	}
	if json.Unmarshal(payload, &claims) != nil {
		return 0
	}
	const sane = 3600
	return time.Duration(min(sane, max(0, claims.ExpiresAt-claims.IssuedAt))) * time.Second
}
