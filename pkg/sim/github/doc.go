// Package simgithub simulates GitHub as far as a runner scale set client, a
// REST facts client and a runner application need it. It is stateful and
// strict: it refuses what GitHub refuses, and nothing in it is shaped to one
// client. [Server] is one [net/http.Handler] with these path spaces:
//
//	/api/v3/**           REST API (also without the prefix for Host api.github.com)
//	/rest/_apis/**       Actions service: scale sets, sessions, agents
//	/scalesets/message   message queue of a scale set
//	/broker/**           runner side: broker and run service (protocol V2)
//	/oidc/**             token issuer: discovery document, JWKS, tokens of jobs
//
// # Simulated
//
// The life of a job: waiting (reviewers, wait timer) -> queued -> assigned to
// a scale set -> acquired by any idle runner of the set -> in progress ->
// completed, with the queue messages, counters, REST views and OIDC tokens
// that belong to each step. Capacity, sessions, acknowledgement and
// redelivery, requeueing, runner leases, just-in-time registrations, groups
// with their repository and workflow restrictions, reviews with self-review
// prevention, administrators' bypass, re-runs, cancellation, rate limits and
// pagination, ETags, webhooks of reviews and of deployment protection rules with
// their deliveries, rulesets, contents, the audit log as far as it names people,
// customised and immutable subjects of ID tokens. [Fault] is a menu of what goes wrong in the field. [Runner] is a
// stand-in for the runner application that speaks the broker protocol only.
//
// # Assumed, because GitHub documents no value
//
//   - a session survives its client by [Config.SessionTTL] (5 minutes: the old
//     ARC listener retried a conflict 10 times every 30 s);
//   - the admin token lives one hour, the queue token 50 minutes
//     (actions/scaleset#123 reports 50 to 60);
//   - an assigned job that no runner takes within 5 minutes is taken back and
//     assigned again, three times, under its old job id
//     (actions-runner-controller#4602);
//   - a job offered to a runner that does not acquire it within one minute is
//     offered to another;
//   - a runner that has not polled for one minute and runs nothing is offline;
//   - a new session is told again of jobs on offer (the older flow) whose
//     message is gone;
//   - before a scale set's first poll of a session its capacity is 0;
//   - removal of a busy runner is answered with 400; see
//     [Config.JobStillRunningStatus];
//   - an ID token asked for while the job is not in progress is refused
//     with 403;
//   - the errors for a duplicate scale set name and for deleting a set with a
//     busy runner have no published type name.
//
// # Not simulated
//
// Checkouts and folders of contents, webhooks other than deployment_review and
// deployment_protection_rule, deployments and their statuses, several jobs in
// one run, enterprise and repository scopes, logs and artifacts, runner updates
// and refused runner versions, encryption of broker messages, the five day limit
// of a job, pages of the audit log and of activities. Permissions of a token are
// not told apart: an installation token may do whatever is served here.
//
// The server starts no goroutine. Transitions that fall due with time are made
// when somebody looks (a request, an accessor) or while a long poll waits, each
// at its own time and in their order. The whole simulator therefore runs inside
// a testing/synctest bubble, over an in-memory network.
package simgithub
