package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
)

// gitHubOptions are the flags of "runnerward-demo github".
type gitHubOptions struct {
	listen, dir, org, token, controlToken, assign, readyFile string
	ghes, plain                                              bool
	pollHold, sessionTTL                                     time.Duration
	seed                                                     uint64
}

const gitHubUsage = `runnerward-demo github serves the simulated GitHub alone, for other scale set
clients, runners and REST clients: see docs/simulator.md and the page at /_sim/.

`

func gitHubCommand(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o gitHubOptions
	flags := flag.NewFlagSet("runnerward-demo github", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, gitHubUsage); flags.PrintDefaults() }
	flags.StringVar(&o.listen, "listen", "127.0.0.1:8443", "address to listen on; other than loopback only with --control-token")
	flags.StringVar(&o.dir, "dir", "runnerward-github", "folder for ca.crt, app.pem and token")
	flags.StringVar(&o.org, "org", "octo-org", "the organization")
	flags.StringVar(&o.token, "token", "", "personal access token to accept (default: a random one)")
	flags.StringVar(&o.controlToken, "control-token", "", "bearer token of the control API (default: none)")
	flags.StringVar(&o.assign, "assign", "random", "which idle runner gets a job: random, as on GitHub, or oldest")
	flags.StringVar(&o.readyFile, "ready-file", "", "file to write the base URL to once it is served")
	flags.BoolVar(&o.ghes, "ghes", false, "the flow of GitHub Enterprise Server: JobAvailable, acquire, JobAssigned")
	flags.BoolVar(&o.plain, "plain-http", false, "serve HTTP without TLS")
	flags.DurationVar(&o.pollHold, "poll-hold", 50*time.Second, "how long a poll without news is held")
	flags.DurationVar(&o.sessionTTL, "session-ttl", 5*time.Minute, "how long a session outlives its client")
	flags.Uint64Var(&o.seed, "seed", 1, "of everything that is random and no credential")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	err := o.check(flags.Args())
	if err == nil {
		err = o.serve(ctx, stdout)
	}
	if misuse, ok := errors.AsType[*usageError](err); ok {
		fmt.Fprintln(stderr, "runnerward-demo github:", misuse.what)
		return 2
	}
	if err != nil {
		fmt.Fprintln(stderr, "runnerward-demo github:", err)
		return 1
	}
	return 0
}

func (o gitHubOptions) check(rest []string) error {
	host, _, err := net.SplitHostPort(o.listen)
	ip := net.ParseIP(host)
	switch {
	case len(rest) > 0:
		return &usageError{fmt.Sprintf("unexpected argument %q", rest[0])}
	case err != nil:
		return &usageError{fmt.Sprintf("--listen %q is not HOST:PORT", o.listen)}
	case o.controlToken == "" && host != "localhost" && (ip == nil || !ip.IsLoopback()):
		return &usageError{fmt.Sprintf("--listen %s is reachable from outside, and whoever reaches the control API can do everything: give --control-token, or listen on 127.0.0.1", o.listen)}
	case o.assign != "random" && o.assign != "oldest":
		return &usageError{fmt.Sprintf("--assign %q is neither random nor oldest", o.assign)}
	}
	return nil
}

// serve runs until the context ends.
func (o gitHubOptions) serve(ctx context.Context, stdout io.Writer) error {
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return fmt.Errorf("make --dir: %w", err)
	}
	listener, err := net.Listen("tcp", o.listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer listener.Close()
	base := "https://" + listener.Addr().String()
	var config *tls.Config
	if o.plain {
		base = "http://" + listener.Addr().String()
	} else if config, err = o.certificate(); err != nil {
		return err
	}
	sim, err := o.simulator(base)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/_sim/", sim.Control(o.controlToken))
	mux.Handle("/", sim)
	server := &http.Server{Handler: mux, TLSConfig: config, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() {
		if config == nil {
			ended <- server.Serve(listener)
			return
		}
		ended <- server.ServeTLS(listener, "", "")
	}()
	o.introduce(stdout, base)
	if o.readyFile != "" {
		if err := os.WriteFile(o.readyFile, []byte(base+"\n"), 0o600); err != nil {
			return fmt.Errorf("write --ready-file: %w", err)
		}
	}
	select {
	case err := <-ended:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	sim.Close() // ends held polls, so that clients can go
	shut, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return server.Shutdown(shut)
}

func (o gitHubOptions) certificate() (*tls.Config, error) {
	ca, err := newAuthority()
	if err != nil {
		return nil, fmt.Errorf("make a certificate authority: %w", err)
	}
	if err := os.WriteFile(filepath.Join(o.dir, "ca.crt"), ca.pem, 0o644); err != nil {
		return nil, fmt.Errorf("write ca.crt: %w", err)
	}
	return ca.server("github.sim")
}

// simulator is a GitHub with the key and the token that are written to the folder.
func (o *gitHubOptions) simulator(base string) (*simgithub.Server, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("make the App's key: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	if o.token == "" {
		var b [16]byte
		if _, err := rand.Read(b[:]); err != nil {
			return nil, err
		}
		o.token = "ghp_" + hex.EncodeToString(b[:])
	}
	for name, content := range map[string][]byte{"app.pem": text, "token": []byte(o.token + "\n")} {
		if err := os.WriteFile(filepath.Join(o.dir, name), content, 0o600); err != nil {
			return nil, fmt.Errorf("write %s: %w", name, err)
		}
	}
	assign := simgithub.AssignRandom(o.seed)
	if o.assign == "oldest" {
		assign = simgithub.AssignOldest
	}
	return simgithub.New(simgithub.Config{
		BaseURL: base, Org: o.org, GHES: o.ghes, PollHold: o.pollHold, SessionTTL: o.sessionTTL, Token: o.token,
		AppClientID: gitHubClientID, AppInstallationID: gitHubInstallation, AppKey: &key.PublicKey, Assign: assign, Seed: o.seed,
	}), nil
}

// The App that the simulator knows.
const (
	gitHubClientID     = "Iv23simulated0000000"
	gitHubInstallation = 4711
)

func (o gitHubOptions) introduce(stdout io.Writer, base string) {
	curl := "curl"
	if !o.plain {
		curl += " --cacert " + filepath.Join(o.dir, "ca.crt")
	}
	auth := ""
	if o.controlToken != "" {
		auth = " -H 'Authorization: Bearer " + strings.Repeat("*", 8) + "'"
	}
	fmt.Fprintf(stdout, `A simulated GitHub is served.

  runners belong to  %[1]s/%[2]s   (the URL for a scale set client)
  REST API           %[1]s/api/v3
  ID tokens          %[1]s/oidc
  control API, docs  %[1]s/_sim/

  GitHub App         client id %[3]s, installation %[4]d, key %[5]s
  token              in %[6]s

  %[7]s%[8]s -d '{"login":"alice"}' %[1]s/_sim/users
  %[7]s -H "Authorization: Bearer $(cat %[6]s)" %[1]s/api/v3/orgs/%[2]s

Ctrl-C ends it.
`, base, o.org, gitHubClientID, gitHubInstallation, filepath.Join(o.dir, "app.pem"), filepath.Join(o.dir, "token"), curl, auth)
}
