package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
)

const sets = "/rest/_apis/runtime/runnerscalesets"

// world is a simulated GitHub with a scale set that polls for its jobs.
type world struct {
	t    *testing.T
	sim  *simgithub.Server
	base string
	jit  string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, base: "http://" + l.Addr().String()}
	w.sim = simgithub.New(simgithub.Config{BaseURL: w.base, Org: "acme", Token: "ghp_pat", PollHold: time.Second})
	server := &http.Server{Handler: w.sim, ReadHeaderTimeout: time.Second}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() {
		w.sim.Close()
		_ = server.Close()
	})
	w.sim.AddUser("alice")
	w.sim.AddRepository("shop")
	w.sim.AddGroup(simgithub.Group{Name: "prod", Visibility: "all"})
	reg := w.call("POST", "/api/v3/orgs/acme/actions/runners/registration-token", "Bearer ghp_pat", nil)
	svc := w.call("POST", "/api/v3/actions/runner-registration", "RemoteAuth "+reg["token"].(string),
		map[string]any{"url": w.base + "/acme", "runner_event": "register"})
	admin := "Bearer " + svc["token"].(string)
	w.call("POST", sets, admin, map[string]any{
		"name": "prod", "runnerGroupId": 2, "labels": []map[string]any{{"type": "System", "name": "prod"}},
	})
	session := w.call("POST", sets+"/1/sessions", admin, map[string]any{"ownerName": "test"})
	w.jit = w.call("POST", sets+"/1/generatejitconfig", admin, map[string]any{"name": "r1"})["encodedJITConfig"].(string)
	go func() {
		// The set's poll is what gives it capacity.
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, session["messageQueueUrl"].(string), nil)
		if err != nil {
			return
		}
		req.Header.Set("Authorization", "Bearer "+session["messageQueueAccessToken"].(string))
		req.Header.Set("X-ScaleSetMaxCapacity", "5")
		for t.Context().Err() == nil {
			if resp, err := http.DefaultClient.Do(req); err == nil {
				_ = resp.Body.Close()
			}
		}
	}()
	return w
}

func (w *world) call(method, path, authorization string, in any) map[string]any {
	w.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		w.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.base+path, bytes.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", authorization)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode > 299 {
		w.t.Fatalf("%s %s: %s: %s, %v", method, path, resp.Status, text, err)
	}
	var out map[string]any
	_ = json.Unmarshal(text, &out) // an empty answer has nothing
	return out
}

// until polls a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func TestAJobRunsItsScripts(t *testing.T) {
	for name, c := range map[string]struct {
		hook, script string
		during       func(w *world, run simgithub.Run, stop chan struct{}) // once the step runs
		conclusion   string
		says         []string
		saysNot      []string
	}{
		"it succeeds": {
			hook: "echo hook $GITHUB_REPOSITORY $GITHUB_RUN_ATTEMPT ${ACTIONS_ID_TOKEN_REQUEST_URL%%//*} $MARK", script: "echo step $0 $- $GITHUB_JOB; pwd; env",
			conclusion: "success", says: []string{"hook acme/shop 1 http: of-the-pod", "/_work/_temp/", "ehB deploy", "/_work/workspace", "cleaning up"},
			saysNot: []string{"INPUT_JITCONFIG"},
		},
		"a step fails": {script: "exit 3", conclusion: "failure", says: []string{"exit status 3", "cleaning up"}},
		"bash -e":      {script: "false\necho went on", conclusion: "failure", says: []string{"cleaning up"}, saysNot: []string{"went on"}},
		"the hook fails": {
			hook: "exit 1", script: "echo deployed", conclusion: "failure", says: []string{"cleaning up"}, saysNot: []string{"deployed"},
		},
		"it is cancelled": {
			script: "trap 'echo interrupted' INT; echo ready; while :; do sleep 0.1; done", conclusion: "cancelled", says: []string{"interrupted", "signal: ", "cleaning up"},
			during: func(w *world, run simgithub.Run, _ chan struct{}) {
				if err := w.sim.Cancel(run.ID); err != nil {
					w.t.Error(err)
				}
			},
		},
		"its runner is told to end": {
			script: "echo ready; while :; do sleep 0.1; done", conclusion: "failure", saysNot: []string{"cleaning up"},
			during: func(_ *world, _ simgithub.Run, stop chan struct{}) { close(stop) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			run, err := w.sim.Dispatch(simgithub.RunSpec{
				Repository: "shop", Tag: "v1.0.0", HeadSHA: strings.Repeat("a", 40), Actor: "alice", Labels: []string{"prod"}, IDToken: true, Script: c.script,
			})
			if err != nil {
				t.Fatal(err)
			}
			a, out := newApp(t, c.hook)
			stop := make(chan struct{})
			a.stop = stop
			code := make(chan int, 1)
			go func() { code <- a.run(t.Context(), w.jit) }()
			if c.during != nil {
				until(t, "the step runs", func() bool { return strings.Contains(read(t, out), "ready") })
				c.during(w, run, stop)
			}
			until(t, "the job ends", func() bool { j, _ := w.sim.Job(run.JobID); return j.Status == "completed" })
			if got := <-code; got != exitSuccess {
				t.Errorf("exit code %d, want 0", got)
			}
			if j, _ := w.sim.Job(run.JobID); j.Conclusion != c.conclusion || j.HookSucceeded != (c.hook != "" && c.hook != "exit 1") {
				t.Errorf("the job ended %q, hook %t; want %q", j.Conclusion, j.HookSucceeded, c.conclusion)
			}
			said := read(t, out)
			for _, text := range c.says {
				if !strings.Contains(said, text) {
					t.Errorf("its log lacks %q:\n%s", text, said)
				}
			}
			for _, text := range c.saysNot {
				if strings.Contains(said, text) {
					t.Errorf("its log has %q:\n%s", text, said)
				}
			}
		})
	}
}

// newApp is a runner with short patience.
func newApp(t *testing.T, hook string) (*app, *os.File) {
	t.Helper()
	dir := t.TempDir()
	out, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = out.Close() })
	a := &app{
		client: &http.Client{}, home: dir, out: out, environ: []string{"PATH=" + os.Getenv("PATH"), "MARK=of-the-pod"},
		endings: []ending{{syscall.SIGINT, 200 * time.Millisecond}, {syscall.SIGTERM, 200 * time.Millisecond}, {syscall.SIGKILL, 0}},
	}
	if hook != "" {
		a.hook = filepath.Join(dir, "hook.sh")
		if err := os.WriteFile(a.hook, []byte(hook), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return a, out
}

func read(t *testing.T, f *os.File) string {
	t.Helper()
	content, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestAHookThatIgnoresSignalsIsKilled(t *testing.T) {
	a, out := newApp(t, "trap '' INT TERM; echo ready; while :; do sleep 0.1; done")
	stop := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- script{file: a.hook, dir: a.home, env: a.environ, out: out, endings: a.endings}.run(stop)
	}()
	until(t, "it ignores signals", func() bool { return strings.Contains(read(t, out), "ready") })
	began := time.Now()
	close(stop)
	if err := <-ended; err == nil || err.Error() != "signal: killed" || time.Since(began) < 400*time.Millisecond {
		t.Errorf("it ended with %v after %s, want killed after 400 ms", err, time.Since(began))
	}
}

func TestAnIdleRunnerEndsWhenTold(t *testing.T) {
	w := newWorld(t)
	a, out := newApp(t, "")
	stop := make(chan struct{})
	a.stop = stop
	code := make(chan int, 1)
	go func() { code <- a.run(t.Context(), w.jit) }()
	until(t, "it listens", func() bool { return strings.Contains(read(t, out), "listening") })
	close(stop)
	if got := <-code; got != exitSuccess {
		t.Errorf("exit code %d, want 0:\n%s", got, read(t, out))
	}
	if code := a.run(t.Context(), w.jit); code != exitSessionConflict {
		t.Errorf("the same configuration again gives %d, want the conflict's %d", code, exitSessionConflict)
	}
}
