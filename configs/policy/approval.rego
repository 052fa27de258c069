# Who approved the deployment, and whether the environment asks anybody.
package runnerward.admission

# The account that the run is attributed to is not known.
violations contains "actor-unknown" if {
	has_facts
	not actor_known
}

# The account that triggered this attempt is not known.
violations contains "triggering-actor-unknown" if {
	has_facts
	not triggering_actor_known
}

# The author of the commit has no known GitHub account, so nobody can be shown not to be the author.
violations contains "author-unknown" if {
	has_facts
	not author_known
}

# Who pushed the tag is not known, so nobody can be shown not to have pushed it.
violations contains "tag-pusher-unknown" if {
	has_facts
	not pusher_known
}

# Who wrote the pull requests that brought the commit is not known.
violations contains "pull-authors-unknown" if {
	has_facts
	not pull_authors_known
}

# The protection of the deployment environment is not known.
violations contains "environment-unknown" if {
	has_facts
	not has_environment
}

# The job deploys to another environment than the one this pool serves.
violations contains "environment-differs" if {
	has_environment
	not environment_same
}

# The environment does not ask anybody for an approval.
violations contains "environment-unreviewed" if {
	has_environment
	not environment_reviewed
}

# The environment names single persons as reviewers, or it is not known whether it does.
violations contains "environment-reviewers" if {
	has_environment
	not reviewed_by_teams
}

# The environment lets whoever triggered the run approve it.
violations contains "environment-self-review" if {
	has_environment
	not self_review_prevented
}

# Nobody is known to have approved this deployment to the environment.
violations contains "approval-missing" if {
	has_environment
	not before_queue
	count(approved) == 0
}

# There is an approval, and it cannot be known for which attempt of the run it was given.
violations contains "approval-unattributed" if {
	has_environment
	not before_queue
	count(approved) == 0
	count(unattributed) > 0
}

# The environment asks for an approval and the job went on without one: somebody bypassed the protection.
violations contains "approval-bypassed" if {
	has_environment
	not before_queue
	input.facts.environment.hasReviewers == true
	is_array(input.facts.approvals)
	count(approved) == 0
	count(unattributed) == 0
}

# No approval is known to come from a person's account.
violations contains "approver-not-person" if {
	count(approved) > 0
	count(by_person) == 0
}

# Nobody who approved is known to be a member of an approver team.
violations contains "approver-not-in-team" if {
	count(by_person) > 0
	count(by_member) == 0
}

# Whoever could approve wrote the commit or its pull request, pushed the tag, or triggered the run.
violations contains "approver-is-author" if {
	count(by_member) > 0
	count(by_other) == 0
}

# The approval has not stood long enough, or it is not known since when it stands.
violations contains "approval-cooling-off" if {
	count(by_other) > 0
	count(cooled_off) == 0
}

has_environment if {
	is_object(input.facts.environment)
	is_id(input.facts.environment.id)
}

environment_ours(name) if {
	is_text(name)
	name == input.pool.environment
}

# The sets narrow one another: all conditions must hold of one single approval,
# not each of some approval. The first set that is empty names the violation.
approved contains i if {
	has_environment
	is_array(input.facts.approvals)
	some i, a in input.facts.approvals
	a.state == "approved"
	a.environmentId == input.facts.environment.id
}

# GitHub's list shows it, and nothing says that it is not of an earlier attempt.
unattributed contains i if {
	has_environment
	is_array(input.facts.approvals)
	some i, a in input.facts.approvals
	a.state == "unattributed"
}

by_person contains i if {
	some i in approved
	by := input.facts.approvals[i].by
	is_person(by)
	by.type == "User"
}

by_member contains i if {
	some i in by_person
	a := input.facts.approvals[i]
	a.inTeam == true
	is_text(a.team)
	some team in input.pool.approverTeams
	team == a.team
}

by_other contains i if {
	some i in by_member
	by := input.facts.approvals[i].by
	every author in authors {
		by.id != author.id
		lower(by.login) != lower(author.login)
	}
}

cooled_off contains i if {
	some i in by_other
	input.pool.coolOffSeconds == 0
}

# seenAt is when we first saw the approval, so it is never earlier than the
# approval itself and the wait is never shorter than configured.
cooled_off contains i if {
	some i in by_other
	is_seconds(input.pool.coolOffSeconds)
	input.pool.coolOffSeconds > 0
	age_ns(input.facts.approvals[i].seenAt) >= input.pool.coolOffSeconds * second_ns
}

# An author that is not known is a violation of its own.
authors contains p if {
	some name in ["actor", "triggeringActor", "headAuthor", "tagPusher"]
	p := input.facts[name]
	is_person(p)
}

authors contains p if {
	some p in input.facts.pullAuthors
	is_person(p)
}

actor_known if is_person(input.facts.actor)

triggering_actor_known if is_person(input.facts.triggeringActor)

author_known if is_person(input.facts.headAuthor)

pusher_known if is_person(input.facts.tagPusher)

# A ref that is no version tag is a violation of its own.
pusher_known if not on_version_tag

pull_authors_known if {
	is_array(input.facts.pullAuthors)
	every p in input.facts.pullAuthors {
		is_person(p)
	}
}

environment_same if environment_ours(input.facts.environment.name)

environment_reviewed if input.facts.environment.hasReviewers == true

reviewed_by_teams if input.facts.environment.reviewersAllTeams == true

self_review_prevented if input.facts.environment.preventSelfReview == true
