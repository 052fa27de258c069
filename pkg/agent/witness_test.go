package agent_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/admission"
	"github.com/runnerward/runnerward/pkg/agent"
	simimds "github.com/runnerward/runnerward/pkg/sim/imds"
	"github.com/runnerward/runnerward/pkg/sim/memnet"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

var (
	document  = []byte("{\n  \"instanceId\" : \"i-1\"\n}") // bytes are passed on, not read
	signature = []byte("MIAG\nAAAA")
)

const bootID = "0f5f2a5c-7c7d-4d5e-9f57-7d1f6f6f0001"

// host is a world with an instance in it.
type host struct {
	*world
	imds *simimds.Server
	log  *lockedBuffer
}

// hostTest gives f a host inside a bubble, and ends its metadata service.
func hostTest(t *testing.T, signature []byte, f func(t *testing.T, h *host, w *agent.Witness)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := &host{newWorld(t), simimds.NewServer(document, signature), &lockedBuffer{}}
		h.write(t, "boot_id", bootID+"\n", 0o444)
		line := memnet.Listen()
		stop := line.Serve(h.imds)
		defer stop()
		supervised := transport{h.world, admission.NewHandler(h, zap.NewNop(), admission.Limits{})}
		w, err := agent.NewWitness(agent.WitnessConfig{
			URL: "https://admission.example:8443", TokenFile: h.path("token"), BootIDFile: h.path("boot_id"), Every: 3 * time.Minute,
			Client: &http.Client{Transport: supervised}, Dial: line.DialContext, Log: slog.New(slog.NewTextHandler(h.log, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		f(t, h, w)
	})
}

// runFor runs the witness for so long and returns what ended it.
func runFor(t *testing.T, w *agent.Witness, d time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(t.Context(), d, errKilled)
	defer cancel()
	return w.Run(ctx)
}

func (h *host) presented() []supervisor.HostClaim {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.hosts)
}

func TestTheWitnessPresentsWhatTheInstanceSays(t *testing.T) {
	hostTest(t, signature, func(t *testing.T, h *host, w *agent.Witness) {
		if err := runFor(t, w, 30*time.Minute); !errors.Is(err, errKilled) {
			t.Errorf("Run = %v, want the context's cause", err)
		}
		got := h.presented()
		if len(got) < 9 || len(got) > 12 {
			t.Errorf("presented %d times in half an hour, want about every three minutes", len(got))
		}
		for _, claim := range got {
			if !bytes.Equal(claim.Document, document) || !bytes.Equal(claim.Signature, signature) || claim.BootID != bootID {
				t.Fatalf("presented %+v, want the bytes of the instance", claim)
			}
		}
		want := []string{
			"PUT /latest/api/token 200",
			"GET /latest/dynamic/instance-identity/document 200",
			"GET /latest/dynamic/instance-identity/rsa2048 200",
		}
		// Nothing else is asked of the service, above all no credential.
		if requests := h.imds.Requests(); !slices.Equal(slices.Compact(slices.Sorted(slices.Values(requests))), slices.Sorted(slices.Values(want))) {
			t.Errorf("asked the metadata service %q, want only %q", requests, want)
		}
	})
}

func TestTheWitnessSaysWhatIsWrongAndTriesAgain(t *testing.T) {
	status := func(code int) func(*host) {
		return func(h *host) {
			h.imds.Answer(func(w http.ResponseWriter, _ *http.Request) bool {
				w.WriteHeader(code)
				return true
			})
		}
	}
	for what, tc := range map[string]struct {
		spoil func(*host)
		says  string
	}{
		"its token is forgotten between two requests": {func(h *host) {
			h.imds.Answer(func(_ http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodGet {
					h.imds.Forget()
				}
				return false
			})
		}, "session token any more (401"},
		"it is switched off": {status(http.StatusForbidden), "switched off"},
		"it is broken":       {status(http.StatusInternalServerError), "status 500"},
		"it sends elsewhere": {func(h *host) {
			h.imds.Answer(func(w http.ResponseWriter, r *http.Request) bool {
				http.Redirect(w, r, "http://metadata.example/", http.StatusFound)
				return true
			})
		}, "status 302"},
		"it never answers": {func(h *host) {
			h.imds.Answer(func(_ http.ResponseWriter, r *http.Request) bool {
				<-r.Context().Done()
				return true
			})
		}, "does not answer in time"},
		"it answers without end": {func(h *host) {
			h.imds.Answer(func(w http.ResponseWriter, r *http.Request) bool {
				_, _ = w.Write(bytes.Repeat([]byte("x"), 1<<20)) // the witness hangs up before the end
				return true
			})
		}, "bytes or more"},
		"it answers nothing": {status(http.StatusOK), "0 bytes"},
	} {
		t.Run(what, func(t *testing.T) {
			hostTest(t, signature, func(t *testing.T, h *host, w *agent.Witness) {
				tc.spoil(h)
				time.AfterFunc(5*time.Minute, func() {
					if got := h.presented(); len(got) != 0 {
						t.Errorf("presented %+v from a service of which %s", got, what)
					}
					h.imds.Answer(nil)
				})
				if err := runFor(t, w, 6*time.Minute); !errors.Is(err, errKilled) {
					t.Errorf("Run = %v, want the context's cause", err)
				}
				if log := h.log.String(); !strings.Contains(log, tc.says) {
					t.Errorf("log = %s, want it to say %q", log, tc.says)
				}
				if tries := strings.Count(h.log.String(), "trying again"); tries < 15 || tries > 60 {
					t.Errorf("%d tries in five minutes, want one at least every 20 s and no flood", tries)
				}
				if len(h.presented()) == 0 {
					t.Error("not presented after the service was mended")
				}
			})
		})
	}
}

func TestAnInstanceWithoutTheSignatureIsReportedPlainly(t *testing.T) {
	hostTest(t, nil, func(t *testing.T, h *host, w *agent.Witness) {
		_, err := w.Present(t.Context())
		if err == nil || !strings.Contains(err.Error(), "no rsa2048 signature (404)") || len(h.presented()) != 0 {
			t.Errorf("Present = %v after %v, want a plain word about the missing signature", err, h.presented())
		}
	})
}

func TestTheWitnessOutlivesTheSupervisor(t *testing.T) {
	for what, tc := range map[string]struct {
		spoil, mend func(*host)
	}{
		"down":                      {func(h *host) { h.unreachable = 1 << 30 }, func(h *host) { h.unreachable = 0 }},
		"something else answers":    {func(h *host) { h.foreign = 1 << 30 }, func(h *host) { h.foreign = 0 }},
		"does not know":             {func(h *host) { h.hostErr = errors.New("the API server is away") }, func(h *host) { h.hostErr = nil }},
		"refuses for good":          {func(h *host) { h.hostErr = supervisor.ErrConflict }, func(h *host) { h.hostErr = nil }},
		"does not accept the token": {func(h *host) { h.podToken = "another" }, func(h *host) { h.podToken = "pod-token-1" }},
	} {
		t.Run(what, func(t *testing.T) {
			hostTest(t, signature, func(t *testing.T, h *host, w *agent.Witness) {
				tc.spoil(h)
				mended := 0
				time.AfterFunc(10*time.Minute, func() {
					h.mu.Lock()
					defer h.mu.Unlock()
					tc.mend(h)
					mended = len(h.hosts)
				})
				if err := runFor(t, w, 14*time.Minute); !errors.Is(err, errKilled) {
					t.Errorf("Run = %v, want the context's cause", err)
				}
				if got := len(h.presented()); got <= mended {
					t.Errorf("presented %d times, %d before it was mended: want it to go on", got, mended)
				}
			})
		})
	}
}

func TestTheWitnessRefusesAConfigurationThatCannotWork(t *testing.T) {
	good := agent.WitnessConfig{URL: "https://a.example", TokenFile: "/t", Client: http.DefaultClient}
	for what, change := range map[string]func(*agent.WitnessConfig){
		"plain http":                func(c *agent.WitnessConfig) { c.URL = "http://a.example" },
		"no CA":                     func(c *agent.WitnessConfig) { c.Client = nil },
		"a metadata service by TLS": func(c *agent.WitnessConfig) { c.IMDS = "https://169.254.169.254" },
		"a path of the service":     func(c *agent.WitnessConfig) { c.IMDS = "http://169.254.169.254/latest" },
		"time that runs backwards":  func(c *agent.WitnessConfig) { c.Every = -time.Second },
	} {
		cfg := good
		change(&cfg)
		if _, err := agent.NewWitness(cfg); err == nil {
			t.Errorf("%s: NewWitness = nil error", what)
		}
	}
	if _, err := agent.NewWitness(good); err != nil {
		t.Errorf("NewWitness = %v, want nil", err)
	}
	_, err := agent.WitnessFromEnv(func(name string) string { return map[string]string{"RUNNERWARD_TOKEN_FILE": "token"}[name] })
	for _, want := range []string{"RUNNERWARD_URL is not set", "RUNNERWARD_CA_FILE is not set", "not an absolute path"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("WitnessFromEnv = %v, want it to say %q", err, want)
		}
	}
}
