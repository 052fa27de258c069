package agent_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/runnerward/runnerward/pkg/agent"
)

func TestFromEnvNamesEveryProblem(t *testing.T) {
	good := map[string]string{
		"RUNNERWARD_URL": "https://admission:8443", "RUNNERWARD_RUNNER": "hipaa-prod-7k2m",
		"RUNNERWARD_TOKEN_FILE": "/var/run/secrets/token", "RUNNERWARD_CA_FILE": "/etc/ca.pem",
	}
	for what, tt := range map[string]struct {
		change map[string]string
		want   []string // in the error
	}{
		"all is well":          {},
		"nothing is set":       {map[string]string{"RUNNERWARD_URL": "", "RUNNERWARD_RUNNER": "", "RUNNERWARD_TOKEN_FILE": "", "RUNNERWARD_CA_FILE": ""}, []string{"RUNNERWARD_URL is not set", "RUNNERWARD_RUNNER is not set", "RUNNERWARD_TOKEN_FILE is not set", "RUNNERWARD_CA_FILE is not set"}},
		"plain http":           {map[string]string{"RUNNERWARD_URL": "http://admission"}, []string{"RUNNERWARD_URL", "not an https URL"}},
		"a URL with a query":   {map[string]string{"RUNNERWARD_URL": "https://admission?x=1"}, []string{"RUNNERWARD_URL", "more than"}},
		"no runner's name":     {map[string]string{"RUNNERWARD_RUNNER": "../x"}, []string{"RUNNERWARD_RUNNER"}},
		"relative paths":       {map[string]string{"RUNNERWARD_CA_FILE": "ca.pem", "RUNNERWARD_BOUND_FILE": "x"}, []string{"RUNNERWARD_CA_FILE", "RUNNERWARD_BOUND_FILE"}},
		"a password is hidden": {map[string]string{"RUNNERWARD_URL": "https://a:CANARY@b"}, []string{"RUNNERWARD_URL"}},
	} {
		t.Run(what, func(t *testing.T) {
			cfg, err := agent.FromEnv(func(name string) string {
				if v, ok := tt.change[name]; ok {
					return v
				}
				return good[name]
			})
			if len(tt.want) == 0 {
				if err != nil || cfg.BoundFile != agent.DefaultBoundFile || cfg.Runner != "hipaa-prod-7k2m" {
					t.Errorf("FromEnv = %+v, %v", cfg, err)
				}
				return
			}
			if err == nil {
				t.Fatal("FromEnv = nil, want an error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("FromEnv = %v, want %q in it", err, want)
				}
			}
			if strings.Contains(err.Error(), "CANARY") {
				t.Errorf("FromEnv = %v shows a password", err)
			}
		})
	}
}

func TestEnvironKeepsWhatTheHookNeedsAndNothingOfOurs(t *testing.T) {
	got := agent.Environ([]string{
		"PATH=/bin", "RUNNERWARD_URL=https://a", "RUNNERWARD_OTHER=x", "RUNNERWARD_BOUND_FILE=/old",
		"ACTIONS_RUNNER_INPUT_URL=https://evil", "ACTIONS_RUNNER_HOOK_JOB_STARTED=/evil.sh",
	}, map[string]string{"RUNNERWARD_BOUND_FILE": "/new", "ACTIONS_RUNNER_INPUT_JITCONFIG": "j"})
	slices.Sort(got)
	want := []string{"ACTIONS_RUNNER_INPUT_JITCONFIG=j", "PATH=/bin", "RUNNERWARD_BOUND_FILE=/new", "RUNNERWARD_URL=https://a"}
	if !slices.Equal(got, want) {
		t.Errorf("Environ = %q, want %q", got, want)
	}
}

func TestNewReadsTheCA(t *testing.T) {
	cfg := newWorld(t).config()
	cfg.Client = nil
	cfg.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	if _, err := agent.New(cfg); err == nil {
		t.Error("New without a CA file = nil")
	}
	if err := os.WriteFile(cfg.CAFile, []byte("not PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := agent.New(cfg); err == nil {
		t.Error("New with an empty CA file = nil")
	}
}

func TestTheTokenFollowsNoRedirect(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var paths []string
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer cancel()
		paths = append(paths, r.URL.Path)
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	}))
	cfg := newWorld(t).config()
	cfg.URL, cfg.Client = server.URL, nil
	cfg.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(cfg.CAFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := agent.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Claim(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Claim = %v, want it to ask until it is cancelled", err)
	}
	server.Close()
	if want := []string{"/v1/runners/hipaa-prod-7k2m/claim"}; !slices.Equal(paths, want) {
		t.Errorf("requests to %q, want %q", paths, want)
	}
}

func TestInstallIsRepeatable(t *testing.T) {
	source := filepath.Join(t.TempDir(), "source")
	dir := filepath.Join(t.TempDir(), "it's here")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{"first", "second"} {
		if err := os.WriteFile(source, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := agent.Install(source, dir); err != nil {
			t.Fatal(err)
		}
		binary := filepath.Join(dir, agent.BinaryName)
		if got, err := os.ReadFile(binary); err != nil || !bytes.Equal(got, []byte(content)) {
			t.Errorf("installed %q, %v, want %q", got, err, content)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Fatalf("installed %v, %v, want two files", entries, err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode() != 0o555 {
			t.Errorf("%s = %v, %v, want mode 0555", e.Name(), info.Mode(), err)
		}
	}
	script, err := os.ReadFile(filepath.Join(dir, agent.ScriptName))
	if err != nil || !strings.Contains(string(script), `/it'\''s here/runnerward-agent' hook`) || !strings.HasPrefix(string(script), "#!/bin/bash\ntrap '' INT TERM\n") {
		t.Errorf("hook = %q, %v", script, err)
	}
	if err := agent.Install(filepath.Join(dir, "missing"), dir); err == nil {
		t.Error("Install of a missing file = nil")
	}
	if err := agent.Install(source, filepath.Join(dir, "missing")); err == nil {
		t.Error("Install into a missing folder = nil")
	}
}

// The agent of this test is killed at its first try, fails at its second and
// allows at its third; sleep(1) is replaced by one that fails.
func TestTheHookEndsOnlyWhenTheAgentAllowed(t *testing.T) {
	dir, bin := t.TempDir(), t.TempDir()
	source := filepath.Join(dir, "source")
	tries := filepath.Join(dir, "tries")
	for path, content := range map[string]string{
		source: "#!/bin/bash\n" +
			"echo \"$1\" >> '" + tries + "'\n" +
			"mapfile -t lines < '" + tries + "'\n" +
			"case ${#lines[@]} in 1) kill -KILL $$ ;; 2) exit 1 ;; esac\n",
		filepath.Join(bin, "sleep"): "#!/bin/bash\nexit 1\n",
	} {
		if err := os.WriteFile(path, []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := agent.Install(source, dir); err != nil {
		t.Fatal(err)
	}
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("the hook needs bash, as the runner does")
	}
	hook := exec.CommandContext(t.Context(), bash, "-e", filepath.Join(dir, agent.ScriptName))
	hook.Env = []string{"PATH=" + bin}
	out, err := hook.CombinedOutput()
	if err != nil {
		t.Errorf("hook = %v: %s", err, out)
	}
	if got, err := os.ReadFile(tries); err != nil || string(got) != "hook\nhook\nhook\n" {
		t.Errorf("tries = %q, %v, want three of hook", got, err)
	}
}
