package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"time"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
)

// gitHubOptions are the flags of "runnerward-demo github".
type gitHubOptions struct {
	listen, url, dir, org, token, tokenUser, controlToken, assign, readyFile, webhookEvents string
	plain                                                                                   bool
	config                                                                                  simgithub.Config
}

const gitHubUsage = `runnerward-demo github serves the simulated GitHub alone, for other scale set
clients, runners and REST clients: see docs/simulator.md and the page at /_sim/.

`

func gitHubCommand(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o gitHubOptions
	flags := flag.NewFlagSet("runnerward-demo github", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, gitHubUsage); flags.PrintDefaults() }
	o.register(flags)
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	err := o.check(flags.Args())
	if err == nil {
		err = o.serve(ctx, stdout)
	}
	if misuse, ok := errors.AsType[*usageError](err); ok {
		fmt.Fprintln(stderr, "runnerward-demo github:", misuse.what)
		return 2
	}
	if err != nil {
		fmt.Fprintln(stderr, "runnerward-demo github:", err)
		return 1
	}
	return 0
}

func (o *gitHubOptions) register(flags *flag.FlagSet) {
	flags.StringVar(&o.listen, "listen", "127.0.0.1:8443", "address to listen on; other than loopback only with --control-token")
	flags.StringVar(&o.url, "url", "", "scheme://host[:port] by which clients reach it: it is put into every answer, and the certificate is for its host (default: the address that is listened on)")
	flags.StringVar(&o.dir, "dir", "runnerward-github", "folder for ca.crt, app.pem and token")
	flags.StringVar(&o.token, "token", "", "personal access token to accept (default: a random one)")
	flags.StringVar(&o.tokenUser, "token-user", "", "account whose token it is, so that it can review deployments (default: nobody's)")
	flags.StringVar(&o.controlToken, "control-token", "", "bearer token of the control API (default: none)")
	flags.StringVar(&o.readyFile, "ready-file", "", "file to write the base URL and the address that is listened on to, once it is served")
	flags.BoolVar(&o.plain, "plain-http", false, "serve HTTP without TLS")

	c := &o.config
	flags.StringVar(&o.org, "org", "octo-org", "the organization")
	flags.Int64Var(&c.OrgID, "org-id", 65, "its numeric id")
	flags.StringVar(&c.Enterprise, "enterprise", "", "slug of the enterprise that it is of (default: none)")
	flags.Int64Var(&c.EnterpriseID, "enterprise-id", 1, "numeric id of the enterprise")
	flags.BoolVar(&c.GHES, "ghes", false, "the flow of GitHub Enterprise Server: JobAvailable, acquire, JobAssigned")
	flags.StringVar(&o.assign, "assign", "random", "which idle runner gets a job: random, as on GitHub, or oldest")
	flags.BoolVar(&c.ShuffleJobs, "shuffle-jobs", false, "consider waiting jobs in a random order instead of oldest first")
	flags.BoolVar(&c.StrictRedelivery, "strict-redelivery", false, "repeat an unacknowledged message whatever lastMessageId says")
	flags.IntVar(&c.JobStillRunningStatus, "job-still-running-status", 400, "status of the refusal to remove a busy runner: 400 or 409")
	flags.BoolVar(&c.PKCS1Runners, "runner-pkcs1", false, "have runners sign with PKCS #1 v1.5 (RS256) instead of PSS (PS256)")
	flags.IntVar(&c.RateLimit, "rate-limit", 5000, "REST calls an hour")
	flags.Uint64Var(&c.Seed, "seed", 1, "of everything that is random and no credential")

	flags.DurationVar(&c.PollHold, "poll-hold", 50*time.Second, "how long a poll without news is held")
	flags.DurationVar(&c.SessionTTL, "session-ttl", 5*time.Minute, "how long a session outlives its client")
	flags.DurationVar(&c.AdminTokenTTL, "admin-token-ttl", time.Hour, "life of the Actions service's token")
	flags.DurationVar(&c.QueueTokenTTL, "queue-token-ttl", 50*time.Minute, "life of a session's queue token")
	flags.DurationVar(&c.OIDCTokenTTL, "oidc-token-ttl", 5*time.Minute, "life of a job's ID token")
	flags.DurationVar(&c.AssignTimeout, "assign-timeout", 5*time.Minute, "how long an assigned job waits for a runner before it is taken back")
	flags.DurationVar(&c.LeaseTTL, "lease", 10*time.Minute, "life of a job's lease after acquisition or renewal")
	flags.DurationVar(&c.IdleReap, "idle-reap", 0, "age at which a runner that never got a job is deleted (default: never)")

	flags.StringVar(&c.Webhook.URL, "webhook-url", "", "address of the App's webhook, as its deliveries show it; nothing is sent there")
	flags.IntVar(&c.Webhook.StatusCode, "webhook-status", 0, "what the receiver is said to have answered; 0 is no answer")
	flags.StringVar(&o.webhookEvents, "webhook-events", "deployment_review,deployment_protection_rule", "events that the App subscribed to, separated by commas; empty for none")
}

func (o *gitHubOptions) check(rest []string) error {
	host, _, err := net.SplitHostPort(o.listen)
	ip := net.ParseIP(host)
	u, bad := url.Parse(o.url)
	status := o.config.JobStillRunningStatus
	switch {
	case len(rest) > 0:
		return &usageError{fmt.Sprintf("unexpected argument %q", rest[0])}
	case err != nil:
		return &usageError{fmt.Sprintf("--listen %q is not HOST:PORT", o.listen)}
	case o.controlToken == "" && host != "localhost" && (ip == nil || !ip.IsLoopback()):
		return &usageError{fmt.Sprintf("--listen %s is reachable from outside, and whoever reaches the control API can do everything: give --control-token, or listen on 127.0.0.1", o.listen)}
	case o.url == "" && (host == "" || ip != nil && ip.IsUnspecified()):
		return &usageError{fmt.Sprintf("--listen %s is no address that a client can be told: give --url, for example https://github.sim:8443", o.listen)}
	case o.url != "" && (bad != nil || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.Scheme != "https" && u.Scheme != "http"):
		return &usageError{fmt.Sprintf("--url %q is not scheme://host[:port]", o.url)}
	case o.assign != "random" && o.assign != "oldest":
		return &usageError{fmt.Sprintf("--assign %q is neither random nor oldest", o.assign)}
	case status != 400 && status != 409:
		return &usageError{fmt.Sprintf("--job-still-running-status %d is neither 400 nor 409", status)}
	}
	o.config.Webhook.Events = []string{}
	for event := range strings.SplitSeq(o.webhookEvents, ",") {
		switch event = strings.TrimSpace(event); event {
		case "":
		case "deployment_review", "deployment_protection_rule":
			o.config.Webhook.Events = append(o.config.Webhook.Events, event)
		default:
			return &usageError{fmt.Sprintf("--webhook-events: %q is not simulated", event)}
		}
	}
	return o.durations()
}

// durations refuses those that would silently mean their default.
func (o *gitHubOptions) durations() error {
	c := o.config
	for name, d := range map[string]time.Duration{
		"poll-hold": c.PollHold, "session-ttl": c.SessionTTL, "admin-token-ttl": c.AdminTokenTTL, "queue-token-ttl": c.QueueTokenTTL,
		"oidc-token-ttl": c.OIDCTokenTTL, "assign-timeout": c.AssignTimeout, "lease": c.LeaseTTL,
	} {
		if d <= 0 {
			return &usageError{fmt.Sprintf("--%s %v is no time", name, d)}
		}
	}
	if c.IdleReap < 0 || c.RateLimit <= 0 {
		return &usageError{"--idle-reap and --rate-limit are not negative, and a rate limit is not 0"}
	}
	return nil
}
