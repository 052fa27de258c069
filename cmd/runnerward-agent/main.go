// Command runnerward-agent runs inside a runner pod, and on a host as its witness.
//
//	runnerward-agent install DIR      copy the agent and the hook's script to DIR
//	runnerward-agent run -- COMMAND   claim the runner, then run COMMAND as it
//	runnerward-agent hook PID         may the job start? returns only if it may
//	runnerward-agent host             present the host's identity until a signal ends it
//	runnerward-agent version
//
// install is for an init container whose volume the runner's container mounts
// read-only; run finds the hook's script beside its own executable. run and
// hook read RUNNERWARD_URL, RUNNERWARD_RUNNER, RUNNERWARD_TOKEN_FILE,
// RUNNERWARD_CA_FILE and, unless it is /run/runnerward/bound,
// RUNNERWARD_BOUND_FILE.
//
// run is to be the first process of its container. It kills every other one at
// once when a hook ends otherwise than by being allowed: a run that somebody
// cancels while its hook blocks would go on to its if: always() steps. hook
// tells run that it began, over hook.sock beside the bound file, and dies with
// the process PID, which is the script that started it.
//
// host is for a DaemonSet with hostNetwork: it reads the identity document that
// AWS signed from the instance metadata service (--imds), the boot id
// (--boot-id), and presents both every three minutes (--every). It reads
// RUNNERWARD_URL, RUNNERWARD_TOKEN_FILE and RUNNERWARD_CA_FILE.
//
// Exit codes: 0 success; 1 ended before the runner was started; 2 usage; 3 the
// supervisor refused this pod for good, or the runner was killed because its
// hook ended without being allowed; otherwise that of COMMAND, or 128 and the
// number of the signal that ended it. hook has no exit code but 0, save for
// arguments that it does not take.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"

	"github.com/runnerward/runnerward/pkg/agent"
)

const (
	exitFailed  = 1
	exitUsage   = 2
	exitRefused = 3
)

const usage = `usage:
  runnerward-agent install DIR
  runnerward-agent run -- COMMAND [ARGUMENT...]
  runnerward-agent hook PID
  runnerward-agent host [--imds URL] [--boot-id FILE] [--every DURATION]
  runnerward-agent version
`

func main() { os.Exit(command(os.Args[1:], os.Stdout, os.Stderr)) }

func command(args []string, stdout, stderr *os.File) int {
	flags := flag.NewFlagSet("runnerward-agent", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage) }
	if err := flags.Parse(args); err != nil || flags.NArg() == 0 {
		if err == nil {
			flags.Usage()
		}
		return exitUsage
	}
	rest := flags.Args()[1:]
	switch verb := flags.Arg(0); {
	case verb == "install" && len(rest) == 1:
		return report(stderr, install(rest[0]))
	case verb == "run" && len(rest) > 1 && rest[0] == "--":
		return run(rest[1:], stdout, stderr)
	case verb == "hook" && len(rest) == 1:
		hook(rest[0], stdout, stderr)
		return 0
	case verb == "host":
		return host(rest, stderr)
	case verb == "version" && len(rest) == 0:
		fmt.Fprintln(stdout, version())
		return 0
	}
	flags.Usage()
	return exitUsage
}

func report(stderr io.Writer, err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "runnerward-agent:", err)
	if _, refused := errors.AsType[*agent.Refused](err); refused || errors.Is(err, agent.ErrKilled) {
		return exitRefused
	}
	return exitFailed
}

func install(dir string) error {
	executable, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the agent: %w", err)
	}
	return agent.Install(executable, dir)
}

func config(stdout, stderr io.Writer) (agent.Config, error) {
	cfg, err := agent.FromEnv(os.Getenv)
	cfg.Out = stdout
	cfg.Log = slog.New(slog.NewTextHandler(stderr, nil))
	return cfg, err
}

func newRunAgent(stdout, stderr io.Writer) (*agent.Agent, error) {
	cfg, err := config(stdout, stderr)
	if err != nil {
		return nil, err
	}
	executable, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the hook: %w", err)
	}
	cfg.HookScript = filepath.Join(filepath.Dir(executable), agent.ScriptName)
	return agent.New(cfg)
}

func run(argv []string, stdout, stderr *os.File) int {
	// Both from here on, so that no signal is lost between claim and start.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	ctx, release := untilSignal()
	defer release()
	a, err := newRunAgent(stdout, stderr)
	if err != nil {
		report(stderr, err)
		return exitUsage
	}
	if err := adopt(); err != nil {
		return report(stderr, err)
	}
	code, err := a.Run(ctx, func(ctx context.Context, env map[string]string) (int, error) {
		release()
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		child := exec.Command(argv[0], argv[1:]...)
		child.Env = agent.Environ(os.Environ(), env)
		child.Stdout, child.Stderr = stdout, stderr
		return supervise(ctx, child, signals)
	})
	if err != nil {
		return report(stderr, err)
	}
	return code
}

// untilSignal is a context that a signal ends, with that as its cause. After
// release a signal ends it no more: from then on it is the runner's, which has
// to outlive SIGTERM and must still be killed for its hook. Release may be
// called again.
func untilSignal() (ctx context.Context, release func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if s, ok := <-signals; ok {
			cancel(fmt.Errorf("ended by a signal: %s", s))
		}
	}()
	return ctx, sync.OnceFunc(func() {
		signal.Stop(signals)
		close(signals)
		<-done
	})
}

// hook returns only when the job may start. Whatever else happens here, a bad
// environment and a bug of ours included, it blocks: the end of a hook is the
// start of the job's always() steps, or the end of the runner.
func hook(parent string, stdout, stderr io.Writer) {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	line, err := agent.Announce(context.Background(), agent.Dialer(os.Getenv))
	if err == nil {
		// Only now: a script that was killed before is found out here, and
		// later its end is this process's; either way run hears of it.
		err = dieWith(parent)
	}
	if err != nil {
		fmt.Fprintln(stderr, "runnerward-agent:", err)
		if line != nil {
			_ = line.Close()
		}
	}
	for err != nil || !allowed(line, stdout, stderr) {
		_ = agent.Block(context.Background())
	}
}

func allowed(line net.Conn, stdout, stderr io.Writer) (ok bool) {
	defer func() {
		if r := recover(); r != nil {
			fmt.Fprintf(stderr, "runnerward-agent: internal error, blocking\n%s", debug.Stack())
			ok = false
		}
	}()
	cfg, err := config(stdout, stderr)
	cfg.Dial = func(context.Context) (net.Conn, error) { return line, nil }
	var a *agent.Agent
	if err == nil {
		a, err = agent.New(cfg)
	}
	if err == nil {
		err = a.Hook(context.Background(), os.Getenv)
	}
	if err != nil {
		fmt.Fprintln(stdout, "Runnerward cannot be asked whether this job may run here:", err)
	}
	return err == nil
}

// version is what the toolchain knows of the build.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	out := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			out += " " + s.Value
		}
	}
	return out
}
