package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// clientFlags say how to reach a daemon's status endpoint.
type clientFlags struct {
	url, ca, cert, key string
}

func (f *clientFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.url, "url", "https://127.0.0.1:9443", "status endpoint of the daemon")
	cmd.Flags().StringVar(&f.ca, "ca", "", "PEM file with the CA of the endpoint (the system's otherwise)")
	cmd.Flags().StringVar(&f.cert, "cert", "", "PEM file with your client certificate (freeze and unfreeze need one)")
	cmd.Flags().StringVar(&f.key, "key", "", "PEM file with its key")
}

func (f *clientFlags) client() (*http.Client, error) {
	u, err := url.Parse(f.url)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" {
		return nil, failWith(exitUsage, fmt.Errorf("--url %q is not https://HOST[:PORT]", f.url))
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.ca != "" {
		pem, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, failWith(exitUsage, fmt.Errorf("--ca: %w", err))
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, failWith(exitUsage, fmt.Errorf("--ca %s holds no certificate", f.ca))
		}
	}
	if (f.cert == "") != (f.key == "") {
		return nil, failWith(exitUsage, errors.New("--cert and --key go together"))
	}
	if f.cert != "" {
		pair, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return nil, failWith(exitUsage, fmt.Errorf("--cert and --key: %w", err))
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return &http.Client{Timeout: callLimit, Transport: &http.Transport{TLSClientConfig: config}}, nil
}

// callLimit is longer than the endpoint takes for a freeze at most, which waits
// for the ledger: its answer says whether the freeze is recorded.
const callLimit = 40 * time.Second

// maxAnswer bounds what is read from an endpoint, in bytes.
const maxAnswer = 16 << 20

// call sends a request and returns the body of a 200 answer.
func (f *clientFlags) call(ctx context.Context, method, path string, body any) ([]byte, error) {
	client, err := f.client()
	if err != nil {
		return nil, err
	}
	var payload io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		payload = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(f.url, "/")+path, payload)
	if err != nil {
		return nil, failWith(exitUsage, err)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return nil, f.unanswered(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the daemon's answer: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		return nil, fmt.Errorf("the daemon answers %s: %s", resp.Status, reason(answer))
	}
	return answer, nil
}

// unanswered says what can be done about a request that got no answer.
func (f *clientFlags) unanswered(err error) error {
	if inner, ok := errors.AsType[*url.Error](err); ok {
		err = inner.Err // its text repeats method and address
	}
	mend := "is the daemon running, and is --url right?"
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		mend = "give --ca, the PEM file of the authority that signed the daemon's certificate (status.certFile)"
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		mend = "give --url with a name that the daemon's certificate (status.certFile) is for"
	}
	return fmt.Errorf("ask the daemon at %s: %w: %s", f.url, err, mend)
}

// reason is what an answer that is no success says: the endpoint's own are
// JSON with an error, those of a proxy are not.
func reason(answer []byte) string {
	var said struct {
		Error string `json:"error"`
	}
	if err := json.Unmarshal(answer, &said); err == nil && said.Error != "" {
		return said.Error
	}
	return strings.TrimSpace(string(answer[:min(len(answer), 500)]))
}
