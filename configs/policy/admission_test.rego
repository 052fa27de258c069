# Tests of the default policy for stock opa: opa test configs/policy
package runnerward.admission_test

import data.runnerward.admission

workflow := {
	"ref": "acme/workflows/.github/workflows/deploy.yml@refs/tags/v1.2.3",
	"sha": "1111111111111111111111111111111111111111",
}

alice := {"id": "11", "login": "alice", "type": "User"}

bob := {"id": "12", "login": "bob", "type": "User"}

good := {
	"schema": "runnerward.policy/v1",
	"gate": "admission",
	"now": "2026-03-04T12:00:00Z",
	"pool": {
		"organizationId": "1",
		"group": "prod",
		"labels": ["prod"],
		"repositories": [{"name": "acme/app", "id": "2"}],
		"workflows": [workflow],
		"environment": "production",
		"approverTeams": ["release"],
		"events": ["push"],
		"maxFactsAgeSeconds": 60,
		"maxTokenAgeSeconds": 60,
		"maxStartAgeSeconds": 600,
		"coolOffSeconds": 0,
	},
	"job": {"repository": "acme/app", "runId": "3", "workflowRef": workflow.ref, "labels": ["prod"]},
	"facts": {
		"fetchedAt": "2026-03-04T11:59:30Z",
		"repository": "acme/app",
		"repositoryId": "2",
		"ownerId": "1",
		"runId": "3",
		"runAttempt": "1",
		"checkRunId": "0",
		"event": "push",
		"ref": "refs/tags/v9.0.0",
		"headSha": "2222222222222222222222222222222222222222",
		"jobWorkflow": workflow,
		"actor": alice,
		"triggeringActor": alice,
		"headAuthor": alice,
		"tagPusher": alice,
		"pullAuthors": [],
		"environment": {"id": "4", "name": "production", "hasReviewers": true, "reviewersAllTeams": true, "preventSelfReview": true},
		"approvals": [{"by": bob, "state": "approved", "environmentId": "4", "team": "release", "inTeam": true}],
		"group": {"id": "5", "name": "prod", "visibility": "selected", "allowsPublic": false, "restrictedToWorkflows": true, "repositoryIds": [2]},
	},
}

noon := time.parse_rfc3339_ns("2026-03-04T12:00:00Z")

test_good_question_is_allowed if {
	admission.decision == "allow" with input as good with time.now_ns as noon
	admission.violations == set() with input as good with time.now_ns as noon
}

test_empty_question_is_denied if {
	admission.decision == "deny" with input as {} with time.now_ns as noon
}

test_author_may_not_approve if {
	patch := [{"op": "replace", "path": "/facts/approvals/0/by", "value": alice}]
	violations := admission.violations with input as json.patch(good, patch) with time.now_ns as noon
	violations == {"approver-is-author"}
}

test_nobody_approved if {
	patch := [{"op": "replace", "path": "/facts/approvals", "value": []}]
	violations := admission.violations with input as json.patch(good, patch) with time.now_ns as noon
	violations == {"approval-bypassed", "approval-missing"}
}

test_moved_tag if {
	patch := [{"op": "replace", "path": "/facts/jobWorkflow/sha", "value": good.facts.headSha}]
	violations := admission.violations with input as json.patch(good, patch) with time.now_ns as noon
	violations == {"workflow-commit"}
}

test_start_needs_a_token_and_an_authorization if {
	patch := [{"op": "replace", "path": "/gate", "value": "start"}]
	violations := admission.violations with input as json.patch(good, patch) with time.now_ns as noon
	violations == {"claims-unknown", "job-not-authorized"}
}
