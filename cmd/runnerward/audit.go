package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/policy"
)

// evidenceFlags name a copy of a ledger and the keys to trust.
type evidenceFlags struct {
	ledger, root, witnessed, output string
}

func (f *evidenceFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.ledger, "ledger", "", "folder of the ledger, or of a copy of it")
	cmd.Flags().StringVar(&f.root, "root", "", "root.json: the keys to trust, had by another way than the ledger")
	cmd.Flags().StringVar(&f.witnessed, "witnessed", "", "a checkpoint kept from before, which the ledger must contain (finds a rollback)")
	cmd.Flags().StringVarP(&f.output, "output", "o", "text", "text or json")
}

// verify reads the whole ledger and checks it. The daemon is not needed.
func (f *evidenceFlags) verify(cmd *cobra.Command) (*evidence.Report, error) {
	if err := required(cmd, "ledger", "root"); err != nil {
		return nil, err
	}
	if f.output != "text" && f.output != "json" {
		return nil, failWith(exitUsage, fmt.Errorf("--output %q is neither text nor json", f.output))
	}
	raw, err := os.ReadFile(f.root)
	if err != nil {
		return nil, failWith(exitUsage, fmt.Errorf("read the root of trust: %w", err))
	}
	root, err := evidence.ParseRoot(raw)
	if err != nil {
		return nil, failWith(exitUsage, fmt.Errorf("%s: %w", f.root, err))
	}
	if info, err := os.Stat(f.ledger); err != nil || !info.IsDir() {
		return nil, failWith(exitUsage, fmt.Errorf("--ledger %s is not a folder that can be read", f.ledger))
	}
	var opts evidence.VerifyOptions
	if f.witnessed != "" {
		if opts.Witnessed, err = os.ReadFile(f.witnessed); err != nil {
			return nil, failWith(exitUsage, fmt.Errorf("read the witnessed checkpoint: %w", err))
		}
	}
	return opts.Verify(os.DirFS(f.ledger), root)
}

func verifyCommand() *cobra.Command {
	var flags evidenceFlags
	cmd := &cobra.Command{
		Use:   "verify --ledger DIR --root ROOT.json",
		Short: "Check that a ledger is whole, signed and breaks no invariant (exit 3 when it does)",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			report, err := flags.verify(cmd)
			if err != nil {
				return err
			}
			if err := writeReport(cmd.OutOrStdout(), report, flags.output); err != nil {
				return err
			}
			if !report.OK() {
				return failWith(exitUnproven, fmt.Errorf("the ledger does not verify: %d findings", len(report.Findings)))
			}
			return nil
		},
	}
	flags.add(cmd)
	return cmd
}

func writeReport(w io.Writer, report *evidence.Report, format string) error {
	if format == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(report)
	}
	for _, finding := range report.Findings {
		fmt.Fprintln(w, "BROKEN ", finding)
	}
	for _, note := range report.Notes {
		fmt.Fprintln(w, "note   ", note)
	}
	fmt.Fprintf(w, "log     %s\n", report.Origin)
	fmt.Fprintf(w, "records %d, from %s to %s\n", report.Size, report.FirstAt.Format("2006-01-02 15:04:05Z"), report.LastAt.Format("2006-01-02 15:04:05Z"))
	fmt.Fprintf(w, "holds   %d jobs, %d runners, %d hosts, each host used once\n", report.Jobs, report.Runners, report.Hosts)
	fmt.Fprintf(w, "root    %s\n", report.RootHash)
	if report.OK() {
		_, err := fmt.Fprintln(w, "OK      every record is signed, in its place and allowed by those before it")
		return err
	}
	return nil
}

func explainCommand() *cobra.Command {
	var flags evidenceFlags
	cmd := &cobra.Command{
		Use:   "explain --ledger DIR --root ROOT.json RUN-URL|RUN-ID|JOB-ID|RUNNER|INSTANCE",
		Short: "Answer an auditor: who approved, what ran, on which host, and that it is gone",
		Args:  exactArgs(1, "one run URL, run id, job id, runner name or instance id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			report, err := flags.verify(cmd)
			if err != nil {
				return err
			}
			explanation, err := evidence.Explain(report, args[0], policy.Explain)
			if err != nil {
				return err
			}
			if err := writeExplanation(cmd.OutOrStdout(), explanation, flags.output); err != nil {
				return err
			}
			if !report.OK() {
				return failWith(exitUnproven, errors.New("these answers come from a ledger that does not verify: run 'runnerward verify' and read its findings first"))
			}
			return nil
		},
	}
	flags.add(cmd)
	return cmd
}

func writeExplanation(w io.Writer, e *evidence.Explanation, format string) error {
	if format == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(e)
	}
	return e.WriteText(w)
}
