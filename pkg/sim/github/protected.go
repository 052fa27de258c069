package simgithub

import (
	"path"
	"slices"
	"strings"
)

// refProtected says that an active ruleset is about the reference of the run:
// docs, "true if branch protections or rulesets are configured for the ref that
// triggered the workflow run".
// https://docs.github.com/en/actions/reference/workflows-and-actions/contexts#github-context
func (r *run) refProtected() bool {
	return slices.ContainsFunc(r.repo.rulesets, func(set ruleset) bool { return set.Enforcement == "active" && set.covers(r.ref()) })
}

// covers says that the ruleset is about a reference: one that is included and not
// excluded.
// https://docs.github.com/en/rest/repos/rules#create-a-repository-ruleset
func (r Ruleset) covers(ref string) bool {
	of := "refs/heads/"
	if r.Target == "tag" {
		of = "refs/tags/"
	}
	if !strings.HasPrefix(ref, of) {
		return false
	}
	names := func(pattern string) bool { return namesRef(pattern, ref) }
	return slices.ContainsFunc(r.Include, names) && !slices.ContainsFunc(r.Exclude, names)
}

// namesRef matches as Ruby's File.fnmatch with FNM_PATHNAME does, where ** stands
// for any folders. The default branch is main.
func namesRef(pattern, ref string) bool {
	switch pattern {
	case "~ALL":
		return true
	case "~DEFAULT_BRANCH":
		return ref == "refs/heads/main"
	}
	return matchParts(strings.Split(pattern, "/"), strings.Split(ref, "/"))
}

func matchParts(pattern, name []string) bool {
	switch {
	case len(pattern) == 0:
		return len(name) == 0
	case pattern[0] == "**" && len(pattern) > 1:
		return matchParts(pattern[1:], name) || len(name) > 0 && matchParts(pattern, name[1:])
	case len(name) == 0:
		return false
	}
	ok, err := path.Match(pattern[0], name[0])
	return err == nil && ok && matchParts(pattern[1:], name[1:])
}
