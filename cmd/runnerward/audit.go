package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/policy"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// evidenceFlags name a ledger, or a copy of one, and the keys to trust.
type evidenceFlags struct {
	ledger, root, witnessed, certificates, output string
	s3                                            s3Flags
}

func (f *evidenceFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.ledger, "ledger", "", "the ledger: a folder, or a copy of one, or s3://BUCKET/PREFIX")
	f.s3.add(cmd)
	cmd.Flags().StringVar(&f.root, "root", "", "root.json: the keys to trust, had by another way than the ledger")
	cmd.Flags().StringVar(&f.witnessed, "witnessed", "", "a checkpoint kept from before, which the ledger must contain (finds a rollback)")
	cmd.Flags().StringVar(&f.certificates, "aws-certificates", "", "pinned certificates of AWS, to verify the identity documents of hosts again")
	cmd.Flags().StringVarP(&f.output, "output", "o", "text", "text or json")
}

// verify reads the whole ledger and checks it. The daemon is not needed. What
// cannot even be tried, such as a root that cannot be read, is wrong usage.
func (f *evidenceFlags) verify(cmd *cobra.Command) (*evidence.Report, error) {
	if err := required(cmd, "ledger", "root"); err != nil {
		return nil, err
	}
	if err := textOrJSON(cmd, f.output); err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(f.root)
	if err != nil {
		return nil, failWith(exitUsage, fmt.Errorf("--root: %w", err))
	}
	root, err := evidence.ParseRoot(raw)
	if err != nil {
		return nil, failWith(exitUsage, fmt.Errorf("--root: %s is not the root.json of a log: %w", f.root, err))
	}
	from, err := f.s3.open(cmd.Context(), f.ledger)
	if err != nil {
		return nil, failWith(exitUsage, fmt.Errorf("--ledger: %w", err))
	}
	opts := evidence.VerifyOptions{Objects: from.objects}
	if f.witnessed != "" {
		if opts.Witnessed, err = os.ReadFile(f.witnessed); err != nil {
			return nil, failWith(exitUsage, fmt.Errorf("--witnessed: %w", err))
		}
	}
	if f.certificates != "" {
		pinned, err := readCertificates(f.certificates)
		if err != nil {
			return nil, failWith(exitUsage, fmt.Errorf("--aws-certificates: %w", err))
		}
		opts.Documents = pinned.Verify
	}
	report, err := opts.Verify(from.files, root)
	if err != nil {
		return nil, failWith(exitUsage, fmt.Errorf("--ledger %s: %w", f.ledger, err))
	}
	report.Notes = append(report.Notes, from.notes...)
	return report, nil
}

// verdict is the error of a ledger that proves nothing: one with findings, and
// one without a record.
func verdict(report *evidence.Report) error {
	switch {
	case !report.OK():
		return failWith(exitUnproven, fmt.Errorf("the ledger does not verify, findings: %d", len(report.Findings)))
	case report.Size == 0:
		return failWith(exitUnproven, errors.New("the ledger holds no record, so it proves nothing"))
	}
	return nil
}

func verifyCommand() *cobra.Command {
	var flags evidenceFlags
	cmd := &cobra.Command{
		Use:   "verify --ledger DIR|s3://BUCKET/PREFIX --root ROOT.json",
		Short: "Check that a ledger is whole, signed and breaks no invariant (exit 3 when it does)",
		Long: `Check that a ledger is whole, signed and breaks no invariant. It only
reads: a copy of the ledger will do, and the daemon need not run.

Every finding names the record, the file, the invariant that is broken and what
is wrong. Exit 0: nothing was found. Exit 3: the ledger does not verify. Exit 2:
there was nothing to verify, because a file or folder could not be read.

A ledger in S3 is read with the credentials that every AWS tool finds. Of every
object the oldest version counts; that there are others, delete markers, or no
lock in COMPLIANCE mode for six years after the last record that rests on it,
are findings.

A ledger that was rolled back as a whole to an earlier state is consistent in
itself. Keep a copy of its newest checkpoint elsewhere and give it as
--witnessed next time.

Where hosts have a witness, the ledger holds the identity documents that AWS
signed. With --aws-certificates, a file of the certificates that AWS publishes
with a line "# REGION" before each, every one of them is verified again and
compared with the record. Take them from AWS, not from whom you audit.`,
		Example: `  runnerward verify --ledger /var/lib/runnerward/ledger --root root.json
  runnerward verify --ledger ./copy --root root.json --witnessed ./checkpoint-of-last-month
  runnerward verify --ledger ./copy --root root.json --aws-certificates aws.pem
  runnerward verify --ledger s3://evidence/prod --view s3://evidence-view/prod --region us-east-1 --root root.json
  runnerward verify --ledger ./copy --root root.json -o json | jq '.findings[]'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			report, err := flags.verify(cmd)
			if err != nil {
				return err
			}
			if err := write(cmd, flags.output, report); err != nil {
				return err
			}
			return verdict(report)
		},
	}
	flags.add(cmd)
	return cmd
}

func explainCommand() *cobra.Command {
	var flags evidenceFlags
	cmd := &cobra.Command{
		Use:   "explain --ledger DIR|s3://BUCKET/PREFIX --root ROOT.json QUERY",
		Short: "Answer an auditor: who approved, what ran, on which host, and that it is gone",
		Long: `Answer an auditor's questions about one job or runner: who approved it, what was
allowed to run, on which host, and that the host is gone. Every answer names the
record it rests on. The ledger is verified first; when it does not verify, the
answers are printed all the same and the exit code is 3.

QUERY is the address of a run or a job on GitHub, a run id, a job id, a runner's
name or an instance id.`,
		Example: `  runnerward explain --ledger ./copy --root root.json https://github.com/ORG/REPO/actions/runs/7000000000
  runnerward explain --ledger ./copy --root root.json i-0a1b2c3d4e5f60718
  runnerward explain --ledger ./copy --root root.json 7000000000 -o json`,
		Args: exactArgs(1, "one run URL, job URL, run id, job id, runner name or instance id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			report, err := flags.verify(cmd)
			if err != nil {
				return err
			}
			unproven := verdict(report)
			explanation, err := evidence.Explain(report, args[0], inPlainWords)
			switch {
			case err != nil && unproven != nil:
				return failWith(exitUnproven, fmt.Errorf("%w; and %w", err, unproven))
			case err != nil:
				return err
			}
			if err := write(cmd, flags.output, explanation); err != nil {
				return err
			}
			if unproven != nil {
				return failWith(exitUnproven, fmt.Errorf("these answers are no evidence: %w; run 'runnerward verify' and read them", unproven))
			}
			return nil
		},
	}
	flags.add(cmd)
	return cmd
}

// textual is what can be shown to a person; everything else about it is JSON.
type textual interface{ WriteText(w io.Writer) error }

func write(cmd *cobra.Command, format string, what textual) error {
	if format == "text" {
		return what.WriteText(cmd.OutOrStdout())
	}
	enc := json.NewEncoder(cmd.OutOrStdout())
	enc.SetIndent("", "  ")
	return enc.Encode(what)
}

// inPlainWords explains a reason, whoever gave it.
func inPlainWords(code string) string {
	return cmp.Or(policy.Explain(code), supervisor.Explain(code))
}
