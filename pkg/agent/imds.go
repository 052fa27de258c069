package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/runnerward/runnerward/pkg/admission/wire"
)

// DefaultIMDS is where every EC2 instance finds its metadata service.
const DefaultIMDS = "http://169.254.169.254"

// What is read of the metadata service. Version 2 only: without a session
// token a process that can be made to fetch a URL could read it too.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html
const (
	imdsToken     = "/latest/api/token"
	imdsDocument  = "/latest/dynamic/instance-identity/document"
	imdsSignature = "/latest/dynamic/instance-identity/rsa2048"

	headerTTL   = "X-aws-ec2-metadata-token-ttl-seconds"
	headerToken = "X-aws-ec2-metadata-token"
	// tokenTTL in seconds is for one round.
	tokenTTL = "60"

	// imdsFor bounds one request. The service is on the same machine.
	imdsFor = 3 * time.Second
)

// imds reads one instance's metadata service.
type imds struct {
	base   string
	client *http.Client
}

// newIMDS makes a client that uses no proxy, follows no redirect and keeps no
// connection: the address is the instance's own, and whatever sends us
// elsewhere is not the service.
func newIMDS(base string, dial func(context.Context, string, string) (net.Conn, error)) imds {
	if dial == nil {
		dial = (&net.Dialer{Timeout: imdsFor}).DialContext
	}
	return imds{strings.TrimRight(base, "/"), &http.Client{
		Transport:     &http.Transport{DialContext: dial, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// identity reads document and signature with one fresh session token.
func (i imds) identity(ctx context.Context) (document, signature []byte, err error) {
	token, err := i.get(ctx, http.MethodPut, imdsToken, headerTTL, tokenTTL)
	if err != nil {
		return nil, nil, err
	}
	session := strings.TrimSpace(string(token))
	if document, err = i.get(ctx, http.MethodGet, imdsDocument, headerToken, session); err != nil {
		return nil, nil, err
	}
	signature, err = i.get(ctx, http.MethodGet, imdsSignature, headerToken, session)
	return document, signature, err
}

func (i imds) get(ctx context.Context, method, path, header, value string) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, imdsFor, errors.New("the instance metadata service does not answer in time"))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, i.base+path, nil)
	if err != nil {
		return nil, fmt.Errorf("ask the instance metadata service: %w", err)
	}
	req.Header.Set(header, value)
	resp, err := i.client.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause // says more than that a deadline passed
		}
		return nil, fmt.Errorf("ask the instance metadata service for %s: %w", path, err)
	}
	defer resp.Body.Close()
	if err := imdsRefusal(resp.StatusCode, path); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, wire.MaxDocument+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %s of the instance metadata service: %w", path, err)
	case len(body) == 0 || len(body) > wire.MaxDocument:
		return nil, fmt.Errorf("%s of the instance metadata service has %d bytes or more, want 1 to %d", path, len(body), wire.MaxDocument)
	}
	return body, nil
}

// imdsRefusal says in words what a status means here; nil for 200.
func imdsRefusal(status int, path string) error {
	switch {
	case status == http.StatusOK:
		return nil
	case status == http.StatusNotFound && path == imdsSignature:
		return errors.New("this instance metadata service has no rsa2048 signature (404), and no weaker one is taken: the host stays at assurance L1")
	case status == http.StatusUnauthorized:
		return fmt.Errorf("the instance metadata service does not know its own session token any more (401 for %s)", path)
	case status == http.StatusForbidden:
		return fmt.Errorf("the instance metadata service is switched off or reached through a proxy (403 for %s)", path)
	}
	return fmt.Errorf("the instance metadata service answers %s with status %d", path, status)
}
