# The second gate: the job that reached a runner proves with a token that
# GitHub signed which job it is.
# https://docs.github.com/en/actions/reference/security/oidc
package runnerward.admission

# The job was never authorized to run here.
violations contains "job-not-authorized" if {
	at_start
	not is_authorized
}

# The job was authorized too long ago to start now.
violations contains "authorization-stale" if {
	at_start
	is_authorized
	not authorization_fresh
}

# The job presented no token.
violations contains "claims-unknown" if {
	at_start
	not has_claims
}

# The token is of another run or another attempt.
violations contains "claims-run" if {
	claims_and_facts
	not claimed_run
}

# The token is of another repository or another owner.
violations contains "claims-repository" if {
	at_start
	has_claims
	not claimed_repository
}

# The token is not of a job that deploys to the environment of this pool.
violations contains "claims-environment" if {
	at_start
	has_claims
	not claimed_environment
}

# The token is of another workflow, or of another commit of it.
violations contains "claims-workflow" if {
	claims_and_facts
	not claimed_workflow
}

# The token is of another job of the run.
violations contains "claims-check-run" if {
	claims_and_facts
	not claimed_check_run
}

# The token is of another commit.
violations contains "claims-commit" if {
	claims_and_facts
	not claimed_commit
}

# The token is of another branch or tag.
violations contains "claims-ref" if {
	claims_and_facts
	not claimed_ref
}

# The token was not issued to a self-hosted runner.
violations contains "claims-runner" if {
	at_start
	has_claims
	not claimed_self_hosted
}

# The token was issued too long ago, or has no credible time of issue.
violations contains "token-stale" if {
	at_start
	has_claims
	not token_fresh
}

# The token has expired, or does not say when it does.
violations contains "token-expired" if {
	at_start
	has_claims
	not token_alive
}

at_start if input.gate == "start"

has_claims if is_object(input.claims)

# Claims are compared with the facts where there are any; a job that was never
# offered has none, and job-not-authorized already refuses it.
claims_and_facts if {
	at_start
	has_claims
	has_facts
}

is_authorized if age_ns(input.authorizedAt) >= 0

claimed_run if {
	is_id(input.facts.runId)
	is_id(input.facts.runAttempt)
	input.claims.runId == input.facts.runId
	input.claims.runAttempt == input.facts.runAttempt
}

claimed_repository if {
	has_facts
	is_text(input.facts.repository)
	is_id(input.facts.repositoryId)
	is_id(input.facts.ownerId)
	input.claims.repository == input.facts.repository
	input.claims.repositoryId == input.facts.repositoryId
	input.claims.ownerId == input.facts.ownerId
}

claimed_repository if {
	not has_facts
	listed_repository(input.claims.repository, input.claims.repositoryId)
	owner_ours(input.claims.ownerId)
}

claimed_environment if environment_ours(input.claims.environment)

claimed_workflow if {
	is_text(input.facts.jobWorkflow.ref)
	is_commit(input.facts.jobWorkflow.sha)
	input.claims.jobWorkflow.ref == input.facts.jobWorkflow.ref
	input.claims.jobWorkflow.sha == input.facts.jobWorkflow.sha
}

# A check run id of 0 says that GitHub's answer did not name the job yet.
claimed_check_run if input.facts.checkRunId == "0"

claimed_check_run if {
	is_id(input.facts.checkRunId)
	input.claims.checkRunId == input.facts.checkRunId
}

claimed_commit if {
	is_commit(input.facts.headSha)
	input.claims.sha == input.facts.headSha
}

claimed_ref if {
	is_text(input.facts.ref)
	input.claims.ref == input.facts.ref
}

# GitHub's clock is not ours: a token may seem to be issued this much ahead.
skew_ns := 30 * second_ns

token_fresh if {
	is_seconds(input.pool.maxTokenAgeSeconds)
	age := age_ns(input.claims.issuedAt)
	age >= 0 - skew_ns
	age <= input.pool.maxTokenAgeSeconds * second_ns
}

token_alive if age_ns(input.claims.expiresAt) < 0

authorization_fresh if within(input.authorizedAt, input.pool.maxStartAgeSeconds)

claimed_self_hosted if input.claims.runnerEnvironment == "self-hosted"
