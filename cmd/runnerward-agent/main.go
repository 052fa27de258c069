// Command runnerward-agent runs inside a runner pod.
//
//	runnerward-agent install DIR      copy the agent and the hook's script to DIR
//	runnerward-agent run -- COMMAND   claim the runner, then run COMMAND as it
//	runnerward-agent hook             may the job start? returns only if it may
//	runnerward-agent version
//
// install is for an init container whose volume the runner's container mounts
// read-only; run finds the hook's script beside its own executable. run and
// hook read RUNNERWARD_URL, RUNNERWARD_RUNNER, RUNNERWARD_TOKEN_FILE,
// RUNNERWARD_CA_FILE and, unless it is /run/runnerward/bound,
// RUNNERWARD_BOUND_FILE.
//
// Exit codes: 0 success; 1 ended before the runner was started; 2 usage; 3 the
// supervisor refused this pod for good; otherwise that of COMMAND, or 128 and
// the number of the signal that ended it. hook has no exit code but 0, save
// for arguments that it does not take.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
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
  runnerward-agent hook
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
	case verb == "hook" && len(rest) == 0:
		hook(stdout, stderr)
		return 0
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
	if _, refused := errors.AsType[*agent.Refused](err); refused {
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

func newAgent(stdout, stderr io.Writer) (*agent.Agent, error) {
	cfg, err := agent.FromEnv(os.Getenv)
	if err != nil {
		return nil, err
	}
	executable, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the hook: %w", err)
	}
	cfg.HookScript = filepath.Join(filepath.Dir(executable), agent.ScriptName)
	cfg.Out = stdout
	cfg.Log = slog.New(slog.NewTextHandler(stderr, nil))
	return agent.New(cfg)
}

func run(argv []string, stdout, stderr *os.File) int {
	// Both from here on: a signal that comes between claim and start waits in
	// the channel for the child.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	a, err := newAgent(stdout, stderr)
	if err != nil {
		report(stderr, err)
		return exitUsage
	}
	code, err := a.Run(ctx, func(_ context.Context, env map[string]string) (int, error) {
		child := exec.Command(argv[0], argv[1:]...)
		child.Env = agent.Environ(os.Environ(), env)
		child.Stdout, child.Stderr = stdout, stderr
		return supervise(child, signals)
	})
	if err != nil {
		return report(stderr, err)
	}
	return code
}

// hook returns only when the job may start. Whatever else happens here, a bad
// environment and a bug of ours included, it blocks: the end of a hook is the
// start of the job's always() steps.
func hook(stdout, stderr io.Writer) {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	for !allowed(stdout, stderr) {
		_ = agent.Block(context.Background())
	}
}

func allowed(stdout, stderr io.Writer) (ok bool) {
	defer func() {
		if r := recover(); r != nil {
			fmt.Fprintf(stderr, "runnerward-agent: internal error, blocking\n%s", debug.Stack())
			ok = false
		}
	}()
	a, err := newAgent(stdout, stderr)
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
