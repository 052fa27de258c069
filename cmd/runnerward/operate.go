package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/runnerward/runnerward/pkg/supervisor"
)

func statusCommand() *cobra.Command {
	var (
		flags  clientFlags
		output string
	)
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the daemon is doing and whether a deploy can run now (exit 4 when not)",
		Example: `  runnerward status --ca ca.pem
  runnerward status --ca ca.pem --url https://runnerward.example.org:9443 -o json | jq .why`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := textOrJSON(cmd, output); err != nil {
				return err
			}
			answer, err := flags.call(cmd.Context(), http.MethodGet, "/statusz", nil)
			if err != nil {
				return err
			}
			var view supervisor.View
			if err := json.Unmarshal(answer, &view); err != nil {
				return fmt.Errorf("what answers at %s is not the daemon: %w", flags.url, err)
			}
			if output == "json" {
				_, err = cmd.OutOrStdout().Write(answer)
			} else {
				err = writeStatus(cmd.OutOrStdout(), view)
			}
			switch {
			case err != nil:
				return err
			case view.StandingBy:
				return failWith(exitNotReady, errors.New("this daemon stands by and does not know: ask the one that leads"))
			case !view.CanDeploy:
				return failWith(exitNotReady, errors.New("no deploy can run now"))
			}
			return nil
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}

func freezeCommand() *cobra.Command {
	var flags clientFlags
	cmd := &cobra.Command{
		Use:   "freeze REASON",
		Short: "Stop admission now: nothing new starts, what runs goes on (REASON is one word, such as CVE-2026-1234)",
		Long: `Stop admission now: no job is admitted until unfreeze, what runs goes on to its
end. The freeze is recorded in the ledger with the name of your certificate and
survives a restart of the daemon. The name must be listed in status.admins.

REASON is one word, such as CVE-2026-1234: the ledger takes no free text.`,
		Example: `  runnerward freeze incident-4711 --ca ca.pem --cert me.crt --key me.key`,
		Args:    exactArgs(1, "one word as the reason"),
		RunE: func(cmd *cobra.Command, args []string) error {
			err := flags.control(cmd, "/v1/freeze", map[string]string{"reason": args[0]})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "frozen: no job is admitted until 'runnerward unfreeze'")
			return err
		},
	}
	flags.add(cmd)
	return cmd
}

func unfreezeCommand() *cobra.Command {
	var flags clientFlags
	cmd := &cobra.Command{
		Use:     "unfreeze",
		Short:   "Admit jobs again",
		Example: `  runnerward unfreeze --ca ca.pem --cert me.crt --key me.key`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flags.control(cmd, "/v1/unfreeze", map[string]string{}); err != nil {
				return err
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "no longer frozen: jobs are admitted again")
			return err
		},
	}
	flags.add(cmd)
	return cmd
}

// control sends what only an administrator may ask for.
func (f *clientFlags) control(cmd *cobra.Command, path string, body map[string]string) error {
	if err := required(cmd, "cert", "key"); err != nil {
		return fmt.Errorf("an administrator's client certificate is needed: %w", err)
	}
	_, err := f.call(cmd.Context(), http.MethodPost, path, body)
	return err
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version, and what Go's FIPS 140-3 module is in this binary",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "runnerward %s\n%s\n", buildVersion(), inWords(fips()))
			return err
		},
	}
}

// inWords says what the FIPS 140-3 module is and does.
func inWords(f supervisor.FIPS) string {
	state := "off"
	switch {
	case f.Enforced:
		state = "on and enforced"
	case f.Enabled:
		state = "on"
	}
	return fmt.Sprintf("FIPS 140-3 module %s, %s", f.Module, state)
}
