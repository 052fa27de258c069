package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/runnerward/runnerward/pkg/admission/wire"
)

// DefaultBootIDFile is where the kernel tells which boot this is. It is not
// namespaced: a container reads its host's. random(4).
const DefaultBootIDFile = "/proc/sys/kernel/random/boot_id"

// DefaultEvery is how often a witness presents its host. The supervisor keeps
// what it was told in memory, so this is how long it goes without after a
// restart.
const DefaultEvery = 3 * time.Minute

// WitnessConfig says whom the witness asks and where it reads.
type WitnessConfig struct {
	URL       string // of the admission API, https
	TokenFile string // the projected token with the audience runnerward-host
	CAFile    string // PEM of the CA of the admission API; ignored when Client is set
	// IMDS and BootIDFile are where the host tells who it is; empty takes
	// [DefaultIMDS] and [DefaultBootIDFile].
	IMDS, BootIDFile string
	// Every is the time between two presentations; 0 is [DefaultEvery].
	Every time.Duration
	// Client asks the supervisor; nil takes one of TLS 1.3 that trusts CAFile alone.
	Client *http.Client
	// Dial connects to the metadata service; nil is the network.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	Log  *slog.Logger
}

// WitnessFromEnv reads the witness's environment. It names every variable that
// is missing or wrong.
func WitnessFromEnv(getenv func(string) string) (WitnessConfig, error) {
	cfg := WitnessConfig{URL: getenv(EnvURL), TokenFile: getenv(EnvTokenFile), CAFile: getenv(EnvCAFile)}
	var problems []error
	if cfg.URL == "" {
		problems = append(problems, fmt.Errorf("%s is not set", EnvURL))
	} else if err := checkURL(cfg.URL); err != nil {
		problems = append(problems, fmt.Errorf("%s: %w", EnvURL, err))
	}
	for _, file := range []struct{ name, path string }{{EnvTokenFile, cfg.TokenFile}, {EnvCAFile, cfg.CAFile}} {
		switch {
		case file.path == "":
			problems = append(problems, fmt.Errorf("%s is not set", file.name))
		case !filepath.IsAbs(file.path):
			problems = append(problems, fmt.Errorf("%s: %.200q is not an absolute path", file.name, file.path))
		}
	}
	return cfg, errors.Join(problems...)
}

// Witness tells the supervisor which instance this host is: the identity
// document that AWS signed, and the boot that the kernel is in. It holds no
// credential of the instance and asks the metadata service for none.
type Witness struct {
	asker
	cfg  WitnessConfig
	imds imds
}

// NewWitness checks the config and reads the CA.
func NewWitness(cfg WitnessConfig) (*Witness, error) {
	if err := checkURL(cfg.URL); err != nil {
		return nil, fmt.Errorf("URL of the admission API: %w", err)
	}
	if cfg.IMDS == "" {
		cfg.IMDS = DefaultIMDS
	}
	if u, err := url.Parse(cfg.IMDS); err != nil || u.Scheme != "http" || u.Host == "" || u.Path != "" && u.Path != "/" {
		return nil, fmt.Errorf("address of the instance metadata service: %.100q is not http://HOST", cfg.IMDS)
	}
	if cfg.BootIDFile == "" {
		cfg.BootIDFile = DefaultBootIDFile
	}
	if cfg.Every < 0 {
		return nil, fmt.Errorf("time between presentations: %s is not a time to wait", cfg.Every)
	}
	if cfg.Every == 0 {
		cfg.Every = DefaultEvery
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	asker, err := newAsker(cfg.URL, cfg.TokenFile, cfg.CAFile, cfg.Client)
	if err != nil {
		return nil, err
	}
	return &Witness{asker, cfg, newIMDS(cfg.IMDS, cfg.Dial)}, nil
}

// Run presents the host again and again until the context ends, and returns
// its cause. After an error it tries again soon, at growing distances; after a
// refusal for good at the next turn, because what was refused may be mended at
// the other end. It never ends by itself: a witness that restarts in a loop
// tells less than one that says what is wrong.
func (w *Witness) Run(ctx context.Context) error {
	var pace backoff
	for {
		answer, err := w.Present(ctx)
		switch _, refused := errors.AsType[*Refused](err); {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil:
			w.cfg.Log.Info("host presented", slog.String("document", string(answer.Document)))
		case refused:
			w.cfg.Log.Error("host refused", slog.Any("error", err))
		default:
			w.cfg.Log.Warn("host not presented, trying again", slog.Any("error", err))
			if err := pace.pause(ctx); err != nil {
				return err
			}
			continue
		}
		pace = backoff{}
		// Spread, so that hosts that booted together do not ask together.
		if err := wait(ctx, w.cfg.Every*9/10+rand.N(w.cfg.Every/5+1)); err != nil {
			return err
		}
	}
}

// Present reads the host's identity and presents it once. It returns a
// [*Refused] that is final for what was presented; every other error is
// passing.
func (w *Witness) Present(ctx context.Context) (wire.HostAnswer, error) {
	boot, err := os.ReadFile(w.cfg.BootIDFile)
	if err != nil {
		return wire.HostAnswer{}, fmt.Errorf("read the boot id: %w", err)
	}
	document, signature, err := w.imds.identity(ctx)
	if err != nil {
		return wire.HostAnswer{}, err
	}
	request := wire.HostRequest{Document: document, Signature: signature, BootID: strings.TrimSpace(string(boot))}
	if err := request.Check(); err != nil {
		return wire.HostAnswer{}, fmt.Errorf("what this host says of itself cannot be presented: %w", err)
	}
	var answer wire.HostAnswer
	if err := w.ask(ctx, wire.HostPattern, request, &answer); err != nil {
		return wire.HostAnswer{}, fmt.Errorf("present the host: %w", err)
	}
	return answer, nil
}
