package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/runnerward/runnerward/pkg/supervisor"
)

// clientFlags say how to reach a daemon's status endpoint.
type clientFlags struct {
	url, ca, cert, key, output string
}

func (f *clientFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.url, "url", "https://127.0.0.1:9443", "status endpoint of the daemon")
	cmd.Flags().StringVar(&f.ca, "ca", "", "PEM file with the CA of the endpoint (the system's otherwise)")
	cmd.Flags().StringVar(&f.cert, "cert", "", "PEM file with your client certificate (freeze and unfreeze need one)")
	cmd.Flags().StringVar(&f.key, "key", "", "PEM file with its key")
}

func (f *clientFlags) client() (*http.Client, error) {
	u, err := url.Parse(f.url)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, failWith(exitUsage, fmt.Errorf("--url %q is not https://HOST[:PORT]", f.url))
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.ca != "" {
		pem, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, failWith(exitUsage, fmt.Errorf("read --ca: %w", err))
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, failWith(exitUsage, fmt.Errorf("--ca %s holds no certificate", f.ca))
		}
	}
	if (f.cert == "") != (f.key == "") {
		return nil, failWith(exitUsage, errors.New("--cert and --key go together"))
	}
	if f.cert != "" {
		pair, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return nil, failWith(exitUsage, fmt.Errorf("read --cert and --key: %w", err))
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{TLSClientConfig: config}}, nil
}

// maxAnswer bounds what is read from an endpoint, in bytes.
const maxAnswer = 16 << 20

// call sends a request and returns the body of a 200 answer.
func (f *clientFlags) call(ctx context.Context, method, path string, body any) ([]byte, error) {
	client, err := f.client()
	if err != nil {
		return nil, err
	}
	var payload io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		payload = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(f.url, "/")+path, payload)
	if err != nil {
		return nil, failWith(exitUsage, err)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the daemon: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the daemon's answer: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		return nil, fmt.Errorf("the daemon answers %s: %s", resp.Status, strings.TrimSpace(string(answer)))
	}
	return answer, nil
}

func statusCommand() *cobra.Command {
	var flags clientFlags
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the daemon is doing and whether a deploy can run now (exit 4 when not)",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			answer, err := flags.call(cmd.Context(), http.MethodGet, "/statusz", nil)
			if err != nil {
				return err
			}
			var view supervisor.View
			if err := json.Unmarshal(answer, &view); err != nil {
				return fmt.Errorf("read the daemon's answer: %w", err)
			}
			switch flags.output {
			case "json":
				if _, err := cmd.OutOrStdout().Write(answer); err != nil {
					return err
				}
			case "text":
				if err := writeStatus(cmd.OutOrStdout(), view); err != nil {
					return err
				}
			default:
				return failWith(exitUsage, fmt.Errorf("--output %q is neither text nor json", flags.output))
			}
			if !view.CanDeploy {
				return failWith(exitNotReady, errors.New(""))
			}
			return nil
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVarP(&flags.output, "output", "o", "text", "text or json")
	return cmd
}

func writeStatus(out io.Writer, v supervisor.View) error {
	if v.CanDeploy {
		fmt.Fprintln(out, "Can we deploy now? Yes.")
	} else {
		fmt.Fprintln(out, "Can we deploy now? No.")
	}
	for _, why := range v.Why {
		fmt.Fprintln(out, "  -", why)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	age := func(t time.Time) string { return v.Now.Sub(t).Round(time.Second).String() }
	fmt.Fprintf(w, "\nJOB\tREPOSITORY\tRUN\tPHASE\tFOR\tRUNNER\tSAYS\n")
	for _, j := range v.Jobs {
		says := strings.Join(j.Reasons, " ")
		if j.Problem != "" {
			says = strings.TrimSpace(says + " " + j.Problem)
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\t%s\n", j.ID, j.Repository, j.RunID, j.Phase, age(j.Since), j.Runner, says)
	}
	fmt.Fprintf(w, "\nRUNNER\tHOST\tPHASE\tFOR\tJOB\tSAYS\n")
	for _, r := range v.Runners {
		says := r.Problem
		if r.Overdue {
			says = strings.TrimSpace("OVERDUE " + says)
		}
		if len(r.Pending) > 0 {
			says = strings.TrimSpace(fmt.Sprintf("%s waiting for %v to be gone", says, r.Pending))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Name, r.Instance, r.Phase, age(r.Since), r.Job, says)
	}
	fmt.Fprintf(w, "\nWAITING HOST\tINSTANCE\tVETTED\tFAILS\n")
	for _, h := range v.Hosts {
		fmt.Fprintf(w, "%s\t%s\t%t\t%v\n", h.Node, h.Instance, h.Vetted, h.Failing)
	}
	return w.Flush()
}

func freezeCommand() *cobra.Command {
	var flags clientFlags
	cmd := &cobra.Command{
		Use:   "freeze REASON",
		Short: "Stop admission now: nothing new starts, what runs goes on (REASON is one word, such as CVE-2026-1234)",
		Args:  exactArgs(1, "one word as the reason"),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := flags.call(cmd.Context(), http.MethodPost, "/v1/freeze", map[string]string{"reason": args[0]})
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
		Use:   "unfreeze",
		Short: "Admit jobs again",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := flags.call(cmd.Context(), http.MethodPost, "/v1/unfreeze", map[string]string{}); err != nil {
				return err
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "admission is open")
			return err
		},
	}
	flags.add(cmd)
	return cmd
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "runnerward", buildVersion())
			return err
		},
	}
}
