// Command runnerward is the daemon that runs one restricted runner pool, and
// the command line of the people around it: operators and auditors.
//
// Exit codes: 0 done; 1 it failed; 2 wrong usage or configuration; 3 the
// evidence does not verify; 4 the daemon says that it is not ready.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker for releases.
var version string

const (
	exitOK       = 0
	exitFailed   = 1
	exitUsage    = 2
	exitUnproven = 3
	exitNotReady = 4
)

// exitError is an error that knows its exit code.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func failWith(code int, err error) error { return &exitError{code, err} }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is main without the process: the tests call it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:           "runnerward",
		Short:         "A supervisor for one restricted pool of GitHub Actions runners: one job, one pod, one host, one record",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetArgs(args)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return failWith(exitUsage, err) })
	root.AddCommand(serveCommand(), checkConfigCommand(), verifyCommand(), explainCommand(),
		statusCommand(), freezeCommand(), unfreezeCommand(), versionCommand())
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if text := err.Error(); text != "" {
		fmt.Fprintln(stderr, "runnerward:", text)
	}
	if coded, ok := errors.AsType[*exitError](err); ok {
		return coded.code
	}
	return exitFailed
}

// exactArgs is cobra.ExactArgs with our exit code and a sentence.
func exactArgs(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return failWith(exitUsage, fmt.Errorf("%s wants %s; see '%s --help'", cmd.CommandPath(), what, cmd.CommandPath()))
		}
		return nil
	}
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return failWith(exitUsage, fmt.Errorf("%s takes no argument %q; see '%s --help'", cmd.CommandPath(), args[0], cmd.CommandPath()))
	}
	return nil
}

// required makes a missing flag a usage error that names it.
func required(cmd *cobra.Command, names ...string) error {
	var problems []error
	for _, name := range names {
		if cmd.Flags().Lookup(name).Value.String() == "" {
			problems = append(problems, fmt.Errorf("--%s is needed", name))
		}
	}
	if len(problems) > 0 {
		return failWith(exitUsage, errors.Join(problems...))
	}
	return nil
}

// buildVersion is the release, or what the build knows of its commit.
func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return "devel-" + s.Value[:min(12, len(s.Value))]
		}
	}
	return "devel"
}
