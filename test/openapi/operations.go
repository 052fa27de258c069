package main

// operations are those that the simulator serves, as the description names
// them. The tests of the simulator fail for a route that is not among them.
var operations = []string{
	"POST /app/installations/{installation_id}/access_tokens",
	"GET /app/hook/config",
	"GET /app/hook/deliveries",
	"GET /app/hook/deliveries/{delivery_id}",
	"POST /app/hook/deliveries/{delivery_id}/attempts",
	"GET /rate_limit",
	"GET /users/{username}",
	"GET /orgs/{org}",
	"GET /orgs/{org}/actions/runners",
	"GET /orgs/{org}/actions/runners/{runner_id}",
	"DELETE /orgs/{org}/actions/runners/{runner_id}",
	"POST /orgs/{org}/actions/runners/registration-token",
	"GET /orgs/{org}/actions/runner-groups",
	"GET /orgs/{org}/actions/runner-groups/{runner_group_id}",
	"GET /orgs/{org}/actions/runner-groups/{runner_group_id}/repositories",
	"GET /orgs/{org}/actions/runner-groups/{runner_group_id}/runners",
	"GET /orgs/{org}/audit-log",
	"GET /orgs/{org}/teams/{team_slug}/memberships/{username}",
	"GET /repos/{owner}/{repo}",
	"GET /repos/{owner}/{repo}/activity",
	"GET /repos/{owner}/{repo}/actions/jobs/{job_id}",
	"GET /repos/{owner}/{repo}/actions/runs/{run_id}",
	"GET /repos/{owner}/{repo}/actions/runs/{run_id}/approvals",
	"GET /repos/{owner}/{repo}/actions/runs/{run_id}/attempts/{attempt_number}",
	"GET /repos/{owner}/{repo}/actions/runs/{run_id}/attempts/{attempt_number}/jobs",
	"POST /repos/{owner}/{repo}/actions/runs/{run_id}/cancel",
	"POST /repos/{owner}/{repo}/actions/runs/{run_id}/deployment_protection_rule",
	"POST /repos/{owner}/{repo}/actions/runs/{run_id}/force-cancel",
	"GET /repos/{owner}/{repo}/actions/runs/{run_id}/jobs",
	"GET /repos/{owner}/{repo}/actions/runs/{run_id}/pending_deployments",
	"POST /repos/{owner}/{repo}/actions/runs/{run_id}/pending_deployments",
	"GET /repos/{owner}/{repo}/commits/{commit_sha}/pulls",
	"GET /repos/{owner}/{repo}/commits/{ref}",
	"GET /repos/{owner}/{repo}/environments",
	"GET /repos/{owner}/{repo}/environments/{environment_name}",
	"GET /repos/{owner}/{repo}/environments/{environment_name}/deployment-branch-policies",
	"GET /repos/{owner}/{repo}/environments/{environment_name}/deployment_protection_rules",
	"GET /repos/{owner}/{repo}/git/ref/{ref}",
}

// webhooks are those that the simulator sends.
var webhooks = []string{
	"deployment-protection-rule-requested",
	"deployment-review-approved",
	"deployment-review-rejected",
	"deployment-review-requested",
}
