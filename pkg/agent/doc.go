// Package agent is what Runnerward runs inside a runner pod: it claims the
// just-in-time config of the stock runner, starts that runner, and is its
// job-started hook. On a host it is the [Witness], which presents what AWS
// signed about the instance.
//
//	init container   install   copies the agent and the hook's script to a volume
//	container        run       Claim ──▶ bound digest to a file ──▶ run.sh
//	the runner       hook      job's OIDC token ──▶ Start ──▶ returns, or never does
//
// The hook is the gate. A hook that fails is none: steps with if: always()
// still run (https://github.com/actions/runner/issues/2811), so [Agent.Hook]
// returns only when the supervisor allowed the job. Refused, unreachable or
// confused, it blocks, and the supervisor cancels the run and deletes the pod.
// Who may cancel the run makes the runner kill the hook, and the same steps
// run: so [Agent.Run] kills the whole runner when a hook ends that nobody
// allowed.
//
// The JIT config is a credential. It is in the environment of the runner's
// process, as actions/runner wants it, and nowhere else: not in an argument,
// which every user of the host may read in /proc, and not on disk. A step of
// the job runs as the same user and can read it there; it is good for one
// registration, which is in use by then.
package agent
