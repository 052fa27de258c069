package supervisor

// Reasons that the supervisor adds to those of the policy.
const (
	reasonFactsUnknown  = "facts-unknown"
	reasonCoolingOff    = "approval-cooling-off"  // the policy's own word
	reasonUnattributed  = "approval-unattributed" // the policy's own word
	reasonNoToken       = "no-oidc-token"
	reasonBadToken      = "oidc-token-rejected"
	reasonNotAuthorized = "job-not-authorized"
	reasonRunnerOver    = "runner-over"
)

// Explain says in plain words what a reason means that the supervisor gives by
// itself, among them the rules that a start would have broken. It is empty for
// a reason of the policy.
func Explain(code string) string {
	switch code {
	case reasonNoToken:
		return "The job has no permission 'id-token: write', so it cannot prove which job it is."
	case reasonBadToken:
		return "The token that the job showed is not one that GitHub signed for this runner, or it had expired."
	case reasonRunnerOver:
		return "The runner had already been ended."
	case "second-runner":
		return "The job has started on another runner."
	case "second-job":
		return "Another job has started on this runner."
	case "other-job":
		return "The token is of another run or attempt than the one that was authorized."
	case "unauthorized":
		return "The job was not authorized."
	case "audience":
		return "The token was signed for another runner."
	}
	return ""
}
