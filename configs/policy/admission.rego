# The default admission policy. It is asked at the gate "admission", before a
# runner exists, and at the gate "start", when a job has reached one. Where we
# answer GitHub as a deployment protection rule it is asked before both, at the
# gate "deployment": reviewers have not decided then, and no job is queued.
#
# Every rule has the form "a violation unless proven": it negates a positive
# helper, so whatever is missing, of another type or malformed is a violation.
# Rego orders values across types and an undefined body denies nothing, so a
# rule that asked for the bad case would let through what it did not foresee.
#
# Only a helper without arguments may be negated. The arguments of a call are
# evaluated outside the negation: `not is_id(input.x)` is undefined, not true,
# when input.x is missing, and the violation never comes.
#
# A rule may stand back only behind a has_* helper whose own absence is a
# violation of its own. The comment above each rule is its explanation.
package runnerward.admission

# decision is defined for every question; the caller compares it with the
# violations and refuses when the two disagree.
decision := "allow" if count(violations) == 0

decision := "deny" if count(violations) > 0

# The question has a form that this policy does not know.
violations contains "schema-unknown" if not schema_known

# The question names no gate that this policy knows.
violations contains "gate-unknown" if not gate_known

# The question was written for another moment than the one it is judged at.
violations contains "clock-differs" if not clock_agrees

# GitHub's queue never told us of this job.
violations contains "job-unknown" if not job_explained

# What GitHub says about the run is not known.
violations contains "facts-unknown" if not facts_explained

# What GitHub said about the run is too old to decide on, or has no credible time.
violations contains "facts-stale" if {
	has_facts
	not facts_fresh
}

clock_agrees if {
	ns := time_ns(input.now)
	ns == time.now_ns()
}

has_job if is_object(input.job)

job_explained if has_job

job_explained if never_offered

job_explained if before_queue

facts_explained if has_facts

facts_explained if never_offered

# A token can arrive before the queue has told us of its job. That is one
# violation, job-not-authorized, and not also that nothing else is known: the
# caller waits a little for a job that has no other reason against it.
never_offered if {
	at_start
	not has_job
	not has_facts
	not is_authorized
}

has_facts if is_object(input.facts)

schema_known if input.schema == "runnerward.policy/v1"

gate_known if input.gate in {"deployment", "admission", "start"}

before_queue if input.gate == "deployment"

facts_fresh if within(input.facts.fetchedAt, input.pool.maxFactsAgeSeconds)
