package simgithub

import (
	"maps"
	"strings"
)

// The links that every account and repository carries, after its own address.
// Braces are URI templates for the client to fill in. They are those that
// simple-user, organization-simple and minimal-repository of GitHub's OpenAPI
// description require: https://github.com/github/rest-api-description
const (
	userLinks = "events{/privacy} followers following{/other_user} gists{/gist_id} organizations=/orgs received_events repos " +
		"starred{/owner}{/repo} subscriptions"
	orgLinks  = "events hooks issues repos members{/member} public_members{/member}"
	repoLinks = "archive=/{archive_format}{/ref} assignees{/user} blobs=/git/blobs{/sha} branches{/branch} " +
		"collaborators{/collaborator} comments{/number} commits{/sha} compare/{base}...{head} contents/{+path} contributors " +
		"deployments downloads events forks git_commits=/git/commits{/sha} git_refs=/git/refs{/sha} git_tags=/git/tags{/sha} " +
		"hooks issue_comment=/issues/comments{/number} issue_events=/issues/events{/number} issues{/number} keys{/key_id} " +
		"labels{/name} languages merges milestones{/number} notifications{?since,all,participating} pulls{/number} " +
		"releases{/id} stargazers statuses/{sha} subscribers subscription tags teams trees=/git/trees{/sha}"
)

// links makes name_url of each of the names: base/name and what follows the
// name, or base and what follows an equals sign.
func links(base, names string) map[string]any {
	out := map[string]any{}
	for text := range strings.FieldsSeq(names) {
		name, path, isOther := strings.Cut(text, "=")
		if !isOther {
			name, path = text, "/"+text
			if end := strings.IndexAny(text, "{/"); end > 0 {
				name = text[:end]
			}
		}
		out[name+"_url"] = base + path
	}
	return out
}

func merged(m map[string]any, more map[string]any) map[string]any {
	maps.Copy(m, more)
	return m
}
