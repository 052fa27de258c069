package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/runnerward/runnerward/pkg/admission/wire"
)

// The pace of asking. A try is bounded above what the server allows itself.
const (
	firstWait = 500 * time.Millisecond
	longest   = 15 * time.Second
	tryFor    = 60 * time.Second
)

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 1 << 20

// Refused says that the supervisor refused for good.
type Refused struct {
	Status  int    // of HTTP
	Message string // a constant of the server, never a secret
}

func (r *Refused) Error() string {
	return fmt.Sprintf("the supervisor refuses for good: %.200s (status %d)", r.Message, r.Status)
}

// errToken is an answer that a newer token may change.
var errToken = errors.New("the supervisor does not accept a token")

// backoff spreads the tries of many agents.
type backoff struct{ next time.Duration }

// pause waits for the next try: half of the time certain, half random. It
// returns the context's cause when that ends first.
func (b *backoff) pause(ctx context.Context) error {
	b.next = min(longest, max(firstWait, b.next*2))
	return wait(ctx, b.next/2+rand.N(b.next/2))
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// asker puts questions to the supervisor. It is safe for concurrent use.
type asker struct {
	url, tokenFile string
	client         *http.Client
}

// ask puts one question to the supervisor. It returns a [*Refused] that is
// final; every other error says that the answer is unknown.
func (a *asker) ask(ctx context.Context, path string, question, answer any) error {
	// Read anew each time: the kubelet rotates the token.
	// https://kubernetes.io/docs/concepts/storage/projected-volumes/#serviceaccounttoken
	token, err := os.ReadFile(a.tokenFile)
	if err != nil {
		return fmt.Errorf("read the pod's token: %w", err)
	}
	bearer := strings.TrimSpace(string(token))
	if bearer == "" {
		return errors.New("the pod's token file is empty")
	}
	body, err := json.Marshal(question)
	if err != nil {
		return fmt.Errorf("encode the question: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("ask the supervisor: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+bearer)
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.client.Do(req)
	if err != nil {
		return fmt.Errorf("ask the supervisor: %w", err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read the supervisor's answer: %w", err)
	}
	if resp.StatusCode == http.StatusOK {
		return decode(got, answer)
	}
	return refusalOf(resp.StatusCode, got)
}

// decode never quotes what it could not read: it may hold a credential.
func decode(b []byte, answer any) error {
	if json.Unmarshal(b, answer) != nil {
		return errors.New("the supervisor's answer is not what was agreed")
	}
	if a, ok := answer.(interface{ Check() error }); ok {
		if err := a.Check(); err != nil {
			return fmt.Errorf("the supervisor's answer is unusable: %w", err)
		}
	}
	return nil
}

// refusalOf believes in finality only when the body says so: a 404 may also
// come from something that is not the supervisor.
func refusalOf(status int, body []byte) error {
	var no wire.Error
	if json.Unmarshal(body, &no) != nil || no.Error == "" {
		return fmt.Errorf("unexpected status %d", status)
	}
	switch {
	case no.Final:
		return &Refused{Status: status, Message: no.Error}
	case status == http.StatusUnauthorized:
		return errToken
	default:
		return fmt.Errorf("not answered: %.200s (status %d)", no.Error, status)
	}
}
