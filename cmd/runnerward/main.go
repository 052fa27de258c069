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
	"strings"
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

// placed is an error of which every line begins with a file and a line number.
// It is printed as it is, so that editors and terminals can go there.
type placed struct{ err error }

func (e *placed) Error() string { return e.err.Error() }
func (e *placed) Unwrap() error { return e.err }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is main without the process: the tests call it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:   "runnerward",
		Short: "A supervisor for one restricted pool of GitHub Actions runners: one job, one pod, one host, one record",
		Long: `A supervisor for one restricted pool of GitHub Actions runners: one job, one pod,
one host, one record.

Exit codes: 0 done; 1 it failed; 2 wrong usage or configuration; 3 the evidence
does not verify; 4 the daemon says that it is not ready.`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetArgs(args)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usage(cmd, "%v", err) })
	// Without a RunE cobra takes no words at all for a call for help, and exits 0.
	root.Args, root.RunE, root.SuggestionsMinimumDistance = cobra.ArbitraryArgs, noCommand, 2
	root.AddCommand(serveCommand(), checkConfigCommand(), verifyCommand(), explainCommand(),
		statusCommand(), freezeCommand(), unfreezeCommand(), versionCommand())
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if _, ok := errors.AsType[*placed](err); ok {
		fmt.Fprintln(stderr, err)
	} else {
		fmt.Fprintln(stderr, "runnerward:", err)
	}
	if coded, ok := errors.AsType[*exitError](err); ok {
		return coded.code
	}
	return exitFailed
}

// noCommand is run when the first argument is no command.
func noCommand(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usage(root, "say what to do")
	}
	if similar := root.SuggestionsFor(args[0]); len(similar) > 0 {
		return usage(root, "unknown command %q, did you mean %s?", args[0], strings.Join(similar, " or "))
	}
	return usage(root, "unknown command %q", args[0])
}

// usage is the error of a command that was called wrongly, with a hint.
func usage(cmd *cobra.Command, format string, args ...any) error {
	return failWith(exitUsage, fmt.Errorf("%s; see '%s --help'", fmt.Sprintf(format, args...), cmd.CommandPath()))
}

// exactArgs is cobra.ExactArgs with our exit code and a sentence.
func exactArgs(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usage(cmd, "%s wants %s", cmd.CommandPath(), what)
		}
		return nil
	}
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage(cmd, "%s takes no argument %q", cmd.CommandPath(), args[0])
	}
	return nil
}

// required makes missing flags a usage error that names all of them.
func required(cmd *cobra.Command, names ...string) error {
	var missing []string
	for _, name := range names {
		if cmd.Flags().Lookup(name).Value.String() == "" {
			missing = append(missing, "--"+name)
		}
	}
	if len(missing) > 0 {
		return usage(cmd, "%s missing", strings.Join(missing, " and "))
	}
	return nil
}

// textOrJSON checks the value of --output.
func textOrJSON(cmd *cobra.Command, format string) error {
	if format != "text" && format != "json" {
		return usage(cmd, "--output %q is neither text nor json", format)
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
