// Command runnerward-demo runs the production binary against simulators of
// GitHub, AWS and Kubernetes on loopback, plays five deploys and hands the
// evidence to the auditor's command. "runnerward-demo github" serves the simulated
// GitHub alone. It is never part of the production image.
//
// Exit codes: 0 everything held; 1 something did not; 2 wrong usage.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

type options struct {
	dir, binary string
	keepRunning bool
	keep        bool // the folder is the user's own
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == "github" {
		return gitHubCommand(ctx, args[1:], stdout, stderr)
	}
	var opts options
	flags := flag.NewFlagSet("runnerward-demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&opts.dir, "dir", "", "folder to work in and to keep: ledger, root.json, configuration, logs (default: a temporary one)")
	flags.StringVar(&opts.binary, "runnerward", "", "the runnerward binary (default: the one beside this program)")
	flags.BoolVar(&opts.keepRunning, "keep-running", false, "leave everything up after the story and print the status page's address")
	flags.Usage = func() {
		fmt.Fprint(stderr, "runnerward-demo [FLAGS]: play the story\nrunnerward-demo github [FLAGS]: serve the simulated GitHub alone; --help lists its flags\n\n")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "runnerward-demo: unexpected argument %q\n", flags.Arg(0))
		return 2
	}
	err := demo(ctx, opts, stdout)
	if misuse, ok := errors.AsType[*usageError](err); ok {
		fmt.Fprintln(stderr, "runnerward-demo:", misuse.what)
		return 2
	}
	if err != nil {
		fmt.Fprintln(stderr, "\nrunnerward-demo: the story did not hold:", err)
		return 1
	}
	return 0
}

// usageError is a story that could not begin.
type usageError struct{ what string }

func (e *usageError) Error() string { return e.what }

// demo plays the story in a folder, which is removed when nobody asked for it
// and nothing failed.
func demo(ctx context.Context, opts options, out io.Writer) (err error) {
	if opts.binary == "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		opts.binary = filepath.Join(filepath.Dir(self), "runnerward")
	}
	if _, err := os.Stat(opts.binary); err != nil {
		return &usageError{fmt.Sprintf("the production binary is needed: %v (build it with 'make build')", err)}
	}
	if opts.keep = opts.dir != ""; !opts.keep {
		if opts.dir, err = os.MkdirTemp("", "runnerward-demo-"); err != nil {
			return err
		}
		defer func() {
			if err == nil {
				err = os.RemoveAll(opts.dir)
			} else {
				fmt.Fprintln(out, "\neverything is kept for a look in", opts.dir)
			}
		}()
	}
	if opts.dir, err = filepath.Abs(opts.dir); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(opts.dir, "ledger")); err == nil {
		return &usageError{opts.dir + " holds a ledger already: a log is never begun twice; give another --dir"}
	}
	s, err := newShow(ctx, opts, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return s.play(ctx)
}
