package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/sim/world"
)

// unproven is the exit code of a ledger that does not verify.
const unproven = 3

// audit leaves the daemon and uses only its ledger and keys, as an auditor
// with a copy would.
func (s *show) audit(ctx context.Context, first simgithub.Run) error {
	ctx = context.WithoutCancel(ctx) // Ctrl-C ended the lingering, not the audit
	ledger, root := s.File("ledger"), s.File("root.json")
	s.tell.act(6, "The auditor, with a copy of the ledger and root.json")
	s.tell.does("runnerward verify --ledger %s --root %s", ledger, root)
	out, code, err := s.CLI(ctx, "verify", "--ledger", ledger, "--root", root)
	if err != nil {
		return err
	}
	s.quote(out)
	if code != 0 {
		return fmt.Errorf("verify exits %d, want 0", code)
	}
	url := fmt.Sprintf("%s/%s/%s/actions/runs/%d", s.GitHubURL, world.Org, world.Repository, first.ID)
	s.tell.does("runnerward explain %s", url)
	if out, code, err = s.CLI(ctx, "explain", "--ledger", ledger, "--root", root, url); err != nil {
		return err
	}
	s.quote(out)
	if code != 0 {
		return fmt.Errorf("explain exits %d, want 0", code)
	}
	for _, answer := range []string{"carol", world.DeployWorkflow, world.DeploySHA, "terminated"} {
		if !bytes.Contains(out, []byte(answer)) {
			return fmt.Errorf("explain does not say %q", answer)
		}
	}
	return s.tamper(ctx, ledger, root)
}

// tamper flips one bit of a copy and lets verify find it.
func (s *show) tamper(ctx context.Context, ledger, root string) error {
	forged, err := os.MkdirTemp("", "runnerward-forged-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(forged)
	if err := os.CopyFS(forged, os.DirFS(ledger)); err != nil {
		return fmt.Errorf("copy the ledger: %w", err)
	}
	segments, err := fs.Glob(os.DirFS(forged), "seg/*")
	if err != nil || len(segments) < 4 {
		return errors.Join(errors.New("the ledger has hardly any segment"), err)
	}
	victim := filepath.Join(forged, segments[3])
	content, err := os.ReadFile(victim)
	if err != nil {
		return err
	}
	content[len(content)/2] ^= 1
	if err := os.WriteFile(victim, content, 0o600); err != nil {
		return err
	}
	s.tell.does("somebody flips one bit of record 3 in a copy; runnerward verify")
	out, code, err := s.CLI(ctx, "verify", "--ledger", forged, "--root", root)
	if err != nil {
		return err
	}
	for line := range bytes.Lines(out) {
		if bytes.HasPrefix(line, []byte("FINDING   record 3,")) {
			s.quote(line)
			break
		}
	}
	if code != unproven || !bytes.Contains(out, []byte("FINDING   record 3,")) {
		return fmt.Errorf("verify of the forged copy exits %d and does not name record 3, want exit %d", code, unproven)
	}
	s.tell.held("found")
	fmt.Fprintln(s.tell.out, "\nEverything held.")
	if s.opts.keep {
		fmt.Fprintf(s.tell.out, "The evidence is in %s, the keys to check it with in %s.\n", ledger, root)
	}
	return nil
}

func (s *show) quote(out []byte) {
	for line := range bytes.Lines(out) {
		fmt.Fprintf(s.tell.out, "         %s\n", bytes.TrimRight(line, "\n"))
	}
}
