package supervisor

import "github.com/runnerward/runnerward/pkg/runner"

// ClaimAnswer is what a bound pod receives. Bound is the digest of its bound
// record: the audience for which the job must ask GitHub to sign.
type ClaimAnswer struct {
	JITConfig Secret
	Bound     runner.Digest
}

// StartVerdict answers the job-started hook.
type StartVerdict string

// The verdicts of the start gate. Pending means "ask again, do not return":
// the hook blocks until it is allowed or killed.
const (
	StartAllowed StartVerdict = "allowed"
	StartRefused StartVerdict = "refused"
	StartPending StartVerdict = "pending"
)

// StartAnswer is what the job-started hook is told.
type StartAnswer struct {
	Verdict StartVerdict
	Reasons []string
	// Record is the digest of the started record when allowed.
	Record runner.Digest
}
