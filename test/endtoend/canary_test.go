package endtoend

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/sim/world"
	"github.com/runnerward/runnerward/pkg/status"
)

// TestNoSecretGetsOut runs deploys during which GitHub answers with errors that
// repeat the request's credential and body, and with headers that nobody asked
// for. Nothing that went over any wire as a credential, no JIT configuration, no
// key and no such header may stand in a log line of any part, in the ledger, in
// the status, its page and metrics, in an event of the cluster or in a runner's log.
func TestNoSecretGetsOut(t *testing.T) {
	endpoints := map[string]point{}
	for _, p := range stories()[0].points(t) {
		if !p.ofRunner {
			endpoints[p.method+" "+p.path] = p
		}
	}
	if len(endpoints) < 20 {
		t.Fatalf("%d endpoints, want all that a deploy uses", len(endpoints))
	}
	checked, secrets := 0, 0
	for name, p := range endpoints {
		t.Run(strings.ReplaceAll(name, "/", "-"), func(t *testing.T) {
			leak := newLeaks()
			run(t, options{at: -1, hosts: 3, logger: leak.logger(), stepsHook: leak.step}, func(t *testing.T, b *bench) {
				b.environment(func(e *simgithub.Environment) { e.ProtectionApps = []string{"runnerward"} })
				b.world.GitHub.Inject(simgithub.Fault{Kind: simgithub.FaultEcho, Method: p.method, Path: p.path, Whole: true, Count: 4})
				deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 20*time.Second), "carol")
				for waited := 0; waited < 400 && b.sealed(deploy.JobID) == nil; waited++ {
					pause(t.Context(), 10*time.Second)
					leak.look(b)
				}
				if b.sealed(deploy.JobID) == nil {
					t.Errorf("the deploy is not sealed after the errors\n%s", b.describe())
				}
				leak.end(b)
			})
			looked := leak.check(t)
			checked += looked
			secrets = max(secrets, len(leak.secrets))
		})
	}
	t.Logf("%d endpoints that repeat secrets, %d secrets, %d bytes looked at", len(endpoints), secrets, checked)
}

// leaks are the places where a secret could stand, and the secrets.
type leaks struct {
	mu      sync.Mutex
	places  map[string]*bytes.Buffer
	secrets map[string]string // with what they are
}

func newLeaks() *leaks {
	l := &leaks{places: map[string]*bytes.Buffer{}, secrets: map[string]string{canary: "header of an answer", world.SecretKey: "AWS secret key"}}
	for _, place := range []string{"log", "job log", "status", "page", "metrics", "events", "errors", "ledger"} {
		l.places[place] = &bytes.Buffer{}
	}
	return l
}

func (l *leaks) add(place string, text []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.places[place].Write(text)
}

// Write takes lines of the log.
func (l *leaks) Write(line []byte) (int, error) {
	l.add("log", line)
	return len(line), nil
}

func (l *leaks) logger() *zap.Logger {
	return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(l), zap.DebugLevel))
}

func (l *leaks) step(_, line string) { l.add("job log", []byte(line+"\n")) }

// look takes what on-call sees at this moment.
func (l *leaks) look(b *bench) {
	b.t.Helper()
	view, err := json.Marshal(b.view())
	if err != nil {
		b.t.Fatal(err)
	}
	l.add("status", view)
	b.mu.Lock()
	sup := b.daemon.sup
	l.add("errors", fmt.Append(nil, b.daemon.err, b.daemon.startErr))
	b.mu.Unlock()
	if sup == nil {
		return
	}
	h := status.New(status.Options{Source: sup, Logger: l.logger(), Registry: prometheus.NewRegistry()}).Handler()
	for path, place := range map[string]string{"/metrics": "metrics", "/statusz?format=html": "page", "/readyz?verbose": "page"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		l.add(place, w.Body.Bytes())
	}
}

// end takes the rest, and the secrets.
func (l *leaks) end(b *bench) {
	b.t.Helper()
	b.kill()
	events, err := b.world.Cluster.Client().EventsV1().Events(world.Namespace).List(b.t.Context(), metav1.ListOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	for _, e := range events.Items {
		l.add("events", fmt.Appendf(nil, "%+v\n", e))
	}
	l.add("ledger", everything(b.t, b.dir+"/ledger"))
	for _, secret := range b.world.GitHub.Credentials() {
		l.secrets[secret] = "token of GitHub"
	}
	for _, secret := range b.faults.jits {
		l.secrets[secret] = "JIT configuration"
	}
	for secret := range b.heard {
		l.secrets[secret] = "credential of a request"
	}
	for _, line := range strings.Split(string(b.keyPEM), "\n") {
		if len(line) == 64 {
			l.secrets[line] = "line of the App's key"
		}
	}
}

// check looks for every secret in every place and returns the bytes looked at.
func (l *leaks) check(t *testing.T) (looked int) {
	kinds := map[string]int{}
	for _, what := range l.secrets {
		kinds[what]++
	}
	if len(kinds) != 6 {
		t.Fatalf("secrets of %d kinds, want 6: %v", len(kinds), kinds)
	}
	for place, text := range l.places {
		if text.Len() == 0 {
			t.Errorf("nothing of the %s was looked at", place)
		}
		for secret, what := range l.secrets {
			if bytes.Contains(text.Bytes(), []byte(secret)) {
				t.Errorf("the %s holds a %s of %d characters: %.12s...", place, what, len(secret), secret)
			}
		}
		looked += text.Len()
	}
	return looked
}

// everything is all bytes of all files of a folder.
func everything(t *testing.T, dir string) []byte {
	t.Helper()
	var all []byte
	fsys := os.DirFS(dir)
	err := fs.WalkDir(fsys, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(fsys, path)
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		all = append(all, b...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
