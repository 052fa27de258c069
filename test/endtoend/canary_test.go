package endtoend

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/sim/world"
)

// TestNoSecretGetsOut runs deploys during which GitHub answers with errors that
// repeat the request's credential and body. No token that was ever handed out,
// no JIT configuration and nothing of the App's key may stand in a log line, in
// the ledger, in the status or in a runner's log.
func TestNoSecretGetsOut(t *testing.T) {
	endpoints := map[string]point{}
	daemon, _ := points(t)
	for _, p := range daemon {
		endpoints[p.method+" "+p.path] = p
	}
	if len(endpoints) < 20 {
		t.Fatalf("%d endpoints, want all that a deploy uses", len(endpoints))
	}
	checked := 0
	for name, p := range endpoints {
		t.Run(strings.ReplaceAll(name, "/", "-"), func(t *testing.T) {
			var logs, jobLog bytes.Buffer
			core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&logs), zap.DebugLevel)
			var secrets []string
			said := func(_, line string) { jobLog.WriteString(line + "\n") }
			var views bytes.Buffer
			var ledger []byte
			run(t, options{at: -1, hosts: 3, logger: zap.New(core), stepsHook: said}, func(t *testing.T, b *bench) {
				b.environment(func(e *simgithub.Environment) { e.ProtectionApps = []string{"runnerward"} })
				b.world.GitHub.Inject(simgithub.Fault{Kind: simgithub.FaultEcho, Method: p.method, Path: p.path, Whole: true, Count: 4})
				deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 20*time.Second), "carol")
				for waited := 0; waited < 400 && b.sealed(deploy.JobID) == nil; waited++ {
					pause(t.Context(), 10*time.Second)
					view, err := json.Marshal(b.view())
					if err != nil {
						t.Fatal(err)
					}
					views.Write(view)
				}
				if b.sealed(deploy.JobID) == nil {
					t.Errorf("the deploy is not sealed after the errors\n%s", b.describe())
				}
				secrets = append(b.world.GitHub.Credentials(), b.faults.jits...)
				for _, line := range strings.Split(string(b.keyPEM), "\n") {
					if len(line) == 64 {
						secrets = append(secrets, line)
					}
				}
				b.kill()
				ledger = everything(t, b.dir+"/ledger")
			})
			if len(secrets) < 10 || logs.Len() == 0 || views.Len() == 0 || len(ledger) == 0 {
				t.Fatalf("%d secrets, %d bytes of log, %d of status, %d of ledger: nothing was looked at", len(secrets), logs.Len(), views.Len(), len(ledger))
			}
			for place, text := range map[string][]byte{"log": logs.Bytes(), "status": views.Bytes(), "ledger": ledger, "job log": jobLog.Bytes()} {
				for _, secret := range secrets {
					if bytes.Contains(text, []byte(secret)) {
						t.Errorf("the %s holds a secret of %d characters: %.12s...", place, len(secret), secret)
					}
				}
				checked += len(text)
			}
		})
	}
	t.Logf("%d endpoints that repeat secrets, %d bytes looked at", len(endpoints), checked)
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
