package main

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "write the expected output anew")

// TestMain lets scripts run this test binary as the program itself.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"runnerward": main})
}

// TestScripts runs the program as its users do: as a process, with files, in a
// folder that holds a configuration (good.yaml) which nothing is wrong with.
func TestScripts(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	app := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			busy, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			env.Defer(func() { _ = busy.Close() })
			env.Setenv("BUSY", busy.Addr().String())
			prepare(t, env.WorkDir, app)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "edit": edit},
	})
}

// exits CODE COMMAND...: the command ends with this code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARGUMENT...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got, err := 0, ts.Exec(args[1], args[2:]...)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got, err = exit.ExitCode(), nil
	}
	ts.Check(err)
	if got != want {
		ts.Fatalf("%s exits %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

// edit FILE OLD NEW: write FILE as good.yaml with one text replaced, which
// must stand there once. A second edit of the same file goes on with it.
func edit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: edit FILE OLD NEW")
	}
	file := ts.MkAbs(args[0])
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		text, err = os.ReadFile(ts.MkAbs("good.yaml"))
	}
	ts.Check(err)
	if n := strings.Count(string(text), args[1]); n != 1 {
		ts.Fatalf("%q stands %d times in %s, want once", args[1], n, args[0])
	}
	ts.Check(os.WriteFile(file, []byte(strings.Replace(string(text), args[1], args[2], 1)), 0o600))
}

// prepare writes what good.yaml needs: the example of the manual, without a
// cloud, with files in this folder.
func prepare(t *testing.T, dir string, app []byte) {
	t.Helper()
	ca := newAuthority(t, dir)
	ca.issue(t, "server", "localhost")
	ca.issue(t, "oncall", "oncall")
	example, err := os.ReadFile("../../configs/runnerward.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(example)) {
		if text := strings.TrimSpace(line); text != "" && !strings.HasPrefix(text, "#") {
			lines = append(lines, line)
		}
	}
	config := strings.Join(lines, "")
	hosts := strings.Index(config, "hosts:\n")
	config = config[:hosts] + "hosts:\n  driver: none\n" + config[strings.Index(config, "ledger:\n"):]
	for key, value := range map[string]string{
		"url":            "https://127.0.0.1:1/hipaa-app-org", // port 1: nothing listens
		"oidcIssuer":     "https://127.0.0.1:1/_services/token",
		"privateKeyFile": "app.pem", "kubeconfigFile": "kubeconfig.yaml", "listen": "127.0.0.1:0",
		"certFile": "server.crt", "keyFile": "server.key", "clientCAFile": "ca.crt",
		"keysDir": dir + "/keys", "rootFile": dir + "/root.json",
	} {
		line := regexp.MustCompile(`(?m)^( +` + key + `: ).*$`)
		if !line.MatchString(config) {
			t.Fatalf("the example has no key %s", key)
		}
		config = line.ReplaceAllString(config, "${1}"+value)
	}
	ledger := regexp.MustCompile(`(?m)^(ledger:\n  dir: ).*$`)
	config = ledger.ReplaceAllString(config, "${1}"+dir+"/ledger")
	for name, content := range map[string]string{
		"good.yaml": config, "app.pem": string(app),
		"kubeconfig.yaml": `{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}],
 clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}], users: [{name: u, user: {}}]}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// result is what a call printed and how it ended.
type result struct {
	code        int
	out, errors string
}

// call runs the program inside the test.
func call(t *testing.T, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	code := run(t.Context(), args, &out, &errs)
	return result{code, out.String(), errs.String()}
}

// want checks the exit code, and that everything printed contains the texts.
func (r result) want(t *testing.T, code int, texts ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code = %d, want %d\nstdout: %s\nstderr: %s", r.code, code, r.out, r.errors)
	}
	all := strings.Join(strings.Fields(r.out+r.errors), " ")
	for _, text := range texts {
		if !strings.Contains(all, text) {
			t.Errorf("output lacks %q\nstdout: %s\nstderr: %s", text, r.out, r.errors)
		}
	}
}

// golden compares with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("output differs from %s, see -update; it is\n%s", file, got)
	}
}
