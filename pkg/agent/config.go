package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/runnerward/runnerward/pkg/admission/wire"
	"github.com/runnerward/runnerward/pkg/runner"
)

// The environment of the agent. None of the values is a secret.
const (
	EnvURL       = "RUNNERWARD_URL"        // https URL of the admission API
	EnvRunner    = "RUNNERWARD_RUNNER"     // the runner's name
	EnvTokenFile = "RUNNERWARD_TOKEN_FILE" // the projected service-account token
	EnvCAFile    = "RUNNERWARD_CA_FILE"    // PEM of the CA of the admission API
	EnvBoundFile = "RUNNERWARD_BOUND_FILE" // optional, DefaultBoundFile otherwise
)

// DefaultBoundFile is on a tmpfs that the pod mounts for its user.
const DefaultBoundFile = "/run/runnerward/bound"

// Config says who this runner is and whom it asks.
type Config struct {
	URL       string
	Runner    runner.Name
	TokenFile string
	// CAFile is read once, by New. It is ignored when Client is set.
	CAFile string
	// BoundFile passes the digest of the bound record from Run to Hook. Its
	// directory exists, on a tmpfs.
	BoundFile string
	// HookScript is the job-started hook that Run tells the runner of: what
	// [Install] wrote. Only Run needs it.
	HookScript string

	// Client asks the supervisor, GitHub asks for the job's token. Nil takes
	// a client of TLS 1.3 that trusts CAFile alone and no proxy, and one that
	// trusts the system's roots and follows the proxy variables.
	Client, GitHub *http.Client
	// Listen is where Run hears its hooks, Dial how a hook reaches it. Nil is
	// a Unix socket beside BoundFile.
	Listen func() (net.Listener, error)
	Dial   func(context.Context) (net.Conn, error)
	// Out is where the hook tells the developer what happens: the job's log.
	Out io.Writer
	Log *slog.Logger
}

// FromEnv reads the agent's environment. It names every variable that is
// missing or wrong.
func FromEnv(getenv func(string) string) (Config, error) {
	var problems []error
	need := func(name string) string {
		v := getenv(name)
		if v == "" {
			problems = append(problems, fmt.Errorf("%s is not set", name))
		}
		return v
	}
	cfg := Config{
		URL: need(EnvURL), Runner: runner.Name(need(EnvRunner)),
		TokenFile: need(EnvTokenFile), CAFile: need(EnvCAFile), BoundFile: getenv(EnvBoundFile),
	}
	if cfg.BoundFile == "" {
		cfg.BoundFile = DefaultBoundFile
	}
	if cfg.URL != "" {
		if err := checkURL(cfg.URL); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", EnvURL, err))
		}
	}
	if cfg.Runner != "" && wire.CheckName(cfg.Runner) != nil {
		problems = append(problems, fmt.Errorf("%s: %.80q is not the name of a runner", EnvRunner, cfg.Runner))
	}
	for name, path := range map[string]string{EnvTokenFile: cfg.TokenFile, EnvCAFile: cfg.CAFile, EnvBoundFile: cfg.BoundFile} {
		if path != "" && !filepath.IsAbs(path) {
			problems = append(problems, fmt.Errorf("%s: %.200q is not an absolute path", name, path))
		}
	}
	return cfg, errors.Join(problems...)
}

// Environ is the environment that the runner's process gets: all of environ
// except what configures a runner and what is of no use to the hook, and set
// on top.
func Environ(environ []string, set map[string]string) []string {
	var out []string
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if _, replaced := set[name]; !replaced && inherited(name) {
			out = append(out, entry)
		}
	}
	for name, value := range set {
		out = append(out, name+"="+value)
	}
	return out
}

func inherited(name string) bool {
	switch name {
	case EnvURL, EnvRunner, EnvTokenFile, EnvCAFile, EnvBoundFile:
		return true
	}
	return !strings.HasPrefix(name, "RUNNERWARD_") &&
		!strings.HasPrefix(name, "ACTIONS_RUNNER_INPUT_") && name != envHookStarted
}

func checkURL(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return errors.New("not a URL")
	case u.Scheme != "https" || u.Host == "":
		return fmt.Errorf("%.200q is not an https URL", u.Redacted())
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("%.200q has more than a host and a path", u.Redacted())
	}
	return nil
}

// Agent acts for one runner. Its methods are safe for concurrent use.
type Agent struct {
	asker
	cfg    Config
	github *http.Client
}

// New checks the config and reads the CA.
func New(cfg Config) (*Agent, error) {
	if err := checkURL(cfg.URL); err != nil {
		return nil, fmt.Errorf("URL of the admission API: %w", err)
	}
	if err := wire.CheckName(cfg.Runner); err != nil {
		return nil, fmt.Errorf("runner's name: %w", err)
	}
	if cfg.Out == nil {
		cfg.Out = io.Discard
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Listen == nil {
		cfg.Listen = listener(cfg.BoundFile)
	}
	if cfg.Dial == nil {
		cfg.Dial = dialer(cfg.BoundFile)
	}
	a := &Agent{cfg: cfg, github: cfg.GitHub}
	var err error
	if a.asker, err = newAsker(cfg.URL, cfg.TokenFile, cfg.CAFile, cfg.Client); err != nil {
		return nil, err
	}
	if a.github == nil {
		a.github = newClient(&tls.Config{MinVersion: tls.VersionTLS12}, true)
	}
	return a, nil
}

// newAsker makes a client of TLS 1.3 that trusts the CA file alone, unless one
// is given.
func newAsker(url, tokenFile, caFile string, client *http.Client) (asker, error) {
	if client == nil {
		roots, err := readRoots(caFile)
		if err != nil {
			return asker{}, err
		}
		client = newClient(&tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots}, false)
	}
	return asker{url: strings.TrimRight(url, "/"), tokenFile: tokenFile, client: client}, nil
}

func readRoots(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the CA of the admission API: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read the CA of the admission API: %s holds no certificate", file)
	}
	return roots, nil
}

// newClient follows no redirect: a token goes where it was meant to go.
func newClient(config *tls.Config, proxied bool) *http.Client {
	transport := &http.Transport{
		TLSClientConfig:     config,
		TLSHandshakeTimeout: 10 * time.Second,
		IdleConnTimeout:     30 * time.Second,
	}
	if proxied {
		transport.Proxy = http.ProxyFromEnvironment
	}
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
