# Where the job comes from: repository, workflow, version, runner group.
package runnerward.admission

# The repository is not one that may deploy from here, by name and by id.
violations contains "repository-not-listed" if {
	has_facts
	not repository_listed
}

# The repository belongs to another organization than ours.
violations contains "owner-differs" if {
	has_facts
	not owner_same
}

# The run was triggered by an event that may not deploy.
violations contains "event-not-listed" if {
	has_facts
	not event_listed
}

# It is not known which attempt of the run this is.
violations contains "attempt-unknown" if {
	has_facts
	not attempt_known
}

# The commit that the run works on is not known.
violations contains "head-unknown" if {
	has_facts
	not head_known
}

# The run does not work on a version tag (refs/tags/v...).
violations contains "ref-not-tag" if {
	has_facts
	not on_version_tag
}

# The job asks for a runner label that this pool does not serve, or for none.
violations contains "labels-not-served" if {
	has_job
	not labels_served
}

# What GitHub says is about another run or repository than the job we were offered.
violations contains "job-differs" if {
	has_job
	has_facts
	not same_job
}

# The queue and the REST API of GitHub disagree about the workflow that defines the job.
violations contains "workflow-differs" if {
	has_job
	has_facts
	not same_workflow
}

# The workflow that defines the job is not pinned to a version tag.
violations contains "workflow-not-tag-pinned" if {
	has_workflow
	not workflow_tag_pinned
}

# The workflow that defines the job is not in the catalogue of deploy workflows.
violations contains "workflow-not-listed" if {
	has_workflow
	not workflow_listed
}

# The workflow's tag no longer names the commit that was catalogued: the tag was moved.
violations contains "workflow-commit" if {
	has_workflow
	listed_workflow(workflow.ref)
	not workflow_commit_listed
}

# The runner group, its visibility or its admission of public repositories is not known.
violations contains "group-unknown" if {
	has_facts
	not has_group
}

# The runner group that GitHub shows is not the one of this pool.
violations contains "group-differs" if {
	has_group
	not group_ours
}

# The runner group is open to more than selected repositories.
violations contains "group-visibility" if {
	has_group
	not group_selected
}

# The runner group admits public repositories.
violations contains "group-public" if {
	has_group
	not group_private
}

# The runner group is not known to be restricted to selected workflows.
violations contains "group-workflows" if {
	has_group
	not group_restricted
}

# The runner group is not known to serve only repositories of this pool.
violations contains "group-repositories" if {
	has_group
	not group_repositories_listed
}

owner_ours(id) if {
	is_id(id)
	id == input.pool.organizationId
}

event_listed if {
	is_text(input.facts.event)
	some e in input.pool.events
	e == input.facts.event
}

on_version_tag if {
	is_string(input.facts.ref)
	regex.match(`^refs/tags/v[0-9][0-9A-Za-z.+-]*$`, input.facts.ref)
}

labels_served if {
	is_array(input.job.labels)
	count(input.job.labels) > 0
	every label in input.job.labels {
		is_text(label)
		some served in input.pool.labels
		served == label
	}
}

same_job if {
	is_id(input.facts.runId)
	input.job.runId == input.facts.runId
	is_text(input.facts.repository)
	input.job.repository == input.facts.repository
}

same_workflow if {
	is_text(input.facts.jobWorkflow.ref)
	input.job.workflowRef == input.facts.jobWorkflow.ref
}

# workflow is what GitHub told us; only for a job that was never offered is it
# what the token says, so that the refusal names what arrived.
workflow := input.facts.jobWorkflow if has_facts

workflow := input.claims.jobWorkflow if {
	not has_facts
	at_start
	has_claims
}

# Known facts without a workflow are a violation, not a reason to stand back.
has_workflow if has_facts

has_workflow if {
	at_start
	has_claims
}

has_group if {
	is_object(input.facts.group)
	is_id(input.facts.group.id)
	is_text(input.facts.group.visibility)
	is_boolean(input.facts.group.allowsPublic)
}

group_repositories_listed if {
	is_array(input.facts.group.repositoryIds)
	count(input.facts.group.repositoryIds) > 0
	every id in input.facts.group.repositoryIds {
		is_number(id)
		some r in input.pool.repositories
		is_id(r.id)
		to_number(r.id) == id
	}
}

repository_listed if listed_repository(input.facts.repository, input.facts.repositoryId)

owner_same if owner_ours(input.facts.ownerId)

attempt_known if is_id(input.facts.runAttempt)

head_known if is_commit(input.facts.headSha)

workflow_tag_pinned if is_tag_pinned(workflow.ref)

workflow_listed if listed_workflow(workflow.ref)

workflow_commit_listed if listed_commit(workflow.ref, workflow.sha)

group_ours if input.facts.group.name == input.pool.group

group_selected if input.facts.group.visibility == "selected"

group_private if input.facts.group.allowsPublic == false

group_restricted if input.facts.group.restrictedToWorkflows == true
