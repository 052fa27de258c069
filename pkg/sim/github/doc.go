// Package simgithub simulates GitHub as far as a runner scale set client, a
// REST facts client and a runner application need it. It is stateful and
// strict: it refuses what GitHub refuses, and nothing in it is shaped to one
// client. [Server] is one [net/http.Handler] with these path spaces:
//
//	/api/v3/**           REST API (also without the prefix for Host api.github.com)
//	/rest/_apis/**       Actions service: scale sets, sessions, agents
//	/scalesets/message   message queue of a scale set
//	/broker/**           runner side: broker, run service, results service (protocol V2)
//	/oidc/**             token issuer: discovery document, JWKS, tokens of jobs
//
// [Server.Control] is another handler, for /_sim/**.
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
// customised and immutable subjects of ID tokens. [Fault] is a menu of what goes
// wrong in the field.
//
// The runner's side serves what actions/runner 2.336.0 asks for, by its source:
// the three files of a JIT config with 2048 bit keys, assertions signed as the
// credentials say (PSS, or PKCS #1 v1.5 with [Config.PKCS1Runners]), session,
// long poll, acknowledgement, the whole job message, renewal, every TaskResult,
// step updates in numbers, addresses for logs, and errors in the shapes that its
// clients tell apart. test/foreignrunner is a client written from that source
// alone, and the protocol code of an independent runner
// (ChristopherHX/github-act-runner, commit 25b9930) has run a job against it. The
// stock runner itself has not. [Runner] is a
// stand-in for it that speaks the same protocol over HTTP only;
// [Server.ConnectRunner] runs one inside the simulator.
//
// # Assumed, because GitHub documents no value
//
//   - a session survives its client by [Config.SessionTTL] (5 minutes: the old
//     ARC listener retried a conflict 10 times every 30 s);
//   - the admin token lives one hour, the queue token 50 minutes
//     (actions/scaleset#123 reports 50 to 60), a runner's token one hour, the
//     tokens of a job five days;
//   - an assigned job that no runner takes within 5 minutes is taken back and
//     assigned again, three times, under its old job id
//     (actions-runner-controller#4602);
//   - a job offered to a runner that does not acquire it within one minute is
//     offered to another;
//   - a runner that has not polled for one minute and runs nothing is offline;
//   - a runner whose offer fell through may be offered another job, where GitHub
//     may have deregistered it (actions/runner#4617);
//   - a new session is told again of jobs on offer (the older flow) whose
//     message is gone;
//   - before a scale set's first poll of a session its capacity is 0;
//   - removal of a busy runner is answered with 400; see
//     [Config.JobStillRunningStatus];
//   - an ID token asked for while the job is not in progress is refused
//     with 403;
//   - the statuses of the broker's errors (404 for a runner or an offer that is
//     gone, 400 for a session, 403 for a version): a runner looks at errorKind;
//   - a runner's poll in progress is not broken off by the end of its own job;
//   - a JIT config opens one session, ever: a session that the server ended
//     cannot be recreated;
//   - the server verifies an assertion by the algorithm of the credentials and
//     refuses the other one;
//   - a job that its runner abandoned failed; a job's GITHUB_TOKEN is an
//     installation token that ends with the job;
//   - the numbers of ids: users from 1001, teams 301, repositories 500000001,
//     environments 70001, runners 11, runs 9000000001, jobs 26000000001,
//     messages 100000001.
//
// # Invented names
//
// Nothing published gives these, and no client may depend on them:
// RunnerScaleSetBusyException, MessageNotFoundException and ServiceUnavailableException
// as type names of the Actions service, and that it gives the runner SDK's
// TaskAgentPoolNotFoundException for an unknown group and its
// VssPropertyValidationException for values that do not do; the paths below
// /broker/ and /oidc/idtoken/, and ServerUrl being the broker's; the runner
// message SimulatedFinish and the field x-simulated of the job message, which
// tell the stand-in how its job ends; planType actions, billing owner ids that
// begin with O_, and the names of the two steps of every job; /raw/ in
// download_url of a file.
//
// # Not simulated
//
// Checkouts and folders of contents, webhooks other than deployment_review and
// deployment_protection_rule, and their sending; deployments and their statuses,
// several jobs in one run, enterprise and repository scopes, logs (they are taken
// and thrown away), the live console, artifacts, caches, the download of actions,
// job containers, runner updates, encryption of broker messages, the older runner
// protocol with its location service, registration of runners other than just in
// time, the five day limit of a job.
// Permissions of a token are not told apart: an installation token may do
// whatever is served here. A job always has the same two steps; one whose length
// is not given ends only in the stand-in by [Server.FinishJob], in another runner
// by a cancellation.
//
// The server starts no goroutine, except for runners of [Server.ConnectRunner].
// Transitions that fall due with time are made when somebody looks (a request, an
// accessor) or while a long poll waits, each at its own time and in their order.
// The whole simulator therefore runs inside a testing/synctest bubble, over an
// in-memory network. [Server.Advance] moves its clock.
package simgithub
