package runnerward.admission

# Numeric ids travel as strings of digits; zero means unknown.
is_id(x) if {
	is_string(x)
	regex.match(`^[1-9][0-9]{0,18}$`, x)
}

is_text(x) if {
	is_string(x)
	x != ""
}

is_commit(x) if {
	is_string(x)
	regex.match(`^[0-9a-f]{40}([0-9a-f]{24})?$`, x)
}

is_seconds(x) if {
	is_number(x)
	x >= 0
}

is_person(p) if {
	is_id(p.id)
	is_text(p.login)
}

# time_ns is undefined for anything but a timestamp of this century: the zero
# time of the caller's language is a timestamp too, and means "never".
time_ns(x) := ns if {
	is_string(x)
	regex.match(`^20[0-9]{2}-(0[1-9]|1[0-2])-([0-2][0-9]|3[01])T([01][0-9]|2[0-3])(:[0-5][0-9]){2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$`, x)
	ns := time.parse_rfc3339_ns(x)
}

# age_ns is how long ago a moment was, negative for one that is still to come.
age_ns(x) := time.now_ns() - time_ns(x)

second_ns := 1000000000

# within says that the moment is past, and not by more than so many seconds.
within(x, seconds) if {
	is_seconds(seconds)
	age := age_ns(x)
	age >= 0
	age <= seconds * second_ns
}

# The catalogue pins a workflow to a released version; a branch can be pushed
# to, and a tag of another form is not a release.
is_tag_pinned(ref) if {
	is_string(ref)
	regex.match(`^[^@]+@refs/tags/v[0-9]+\.[0-9]+\.[0-9]+$`, ref)
}

listed_repository(name, id) if {
	is_text(name)
	is_id(id)
	some r in input.pool.repositories
	r.name == name
	r.id == id
}

listed_workflow(ref) if {
	is_text(ref)
	some w in input.pool.workflows
	w.ref == ref
}

listed_commit(ref, sha) if {
	is_text(ref)
	is_commit(sha)
	some w in input.pool.workflows
	w.ref == ref
	w.sha == sha
}
