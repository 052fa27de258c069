package main

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/runnerward/runnerward/pkg/agent"
)

// host is the witness on a host. A signal ends it, and that is success.
func host(args []string, stderr io.Writer) int {
	cfg, err := agent.WitnessFromEnv(os.Getenv)
	flags := flag.NewFlagSet("runnerward-agent host", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&cfg.IMDS, "imds", agent.DefaultIMDS, "address of the instance metadata service")
	flags.StringVar(&cfg.BootIDFile, "boot-id", agent.DefaultBootIDFile, "file with the kernel's boot id")
	flags.DurationVar(&cfg.Every, "every", agent.DefaultEvery, "time between two presentations")
	if flags.Parse(args) != nil {
		return exitUsage
	}
	if flags.NArg() > 0 {
		fmt.Fprint(stderr, usage)
		return exitUsage
	}
	if err != nil {
		report(stderr, err)
		return exitUsage
	}
	cfg.Log = slog.New(slog.NewTextHandler(stderr, nil))
	w, err := agent.NewWitness(cfg)
	if err != nil {
		report(stderr, err)
		return exitUsage
	}
	ctx, release := untilSignal()
	defer release()
	cfg.Log.Info("ended", slog.Any("cause", w.Run(ctx)))
	return 0
}
