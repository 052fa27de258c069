package simgithub

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

func (s *Server) rest3(path string) string { return s.cfg.BaseURL + restPath + path }

func (s *Server) showUser(u *user) any {
	if u == nil {
		return nil
	}
	return s.showAccount(u)
}

func (s *Server) showAccount(u *user) map[string]any {
	base := s.rest3("/users/" + u.login)
	return merged(links(base, userLinks), map[string]any{
		"login": u.login, "id": u.id, "node_id": fmt.Sprintf("U_%d", u.id), "type": "User", "site_admin": false,
		"url": base, "html_url": s.cfg.BaseURL + "/" + u.login, "gravatar_id": "", "user_view_type": "public",
		"avatar_url": fmt.Sprintf("%s/avatars/u/%d", s.cfg.BaseURL, u.id),
	})
}

// showOrg is the organization where webhooks name it.
func (s *Server) showOrg() map[string]any {
	base := s.rest3("/orgs/" + s.cfg.Org)
	return merged(links(base, orgLinks), map[string]any{
		"login": s.cfg.Org, "id": s.cfg.OrgID, "node_id": fmt.Sprintf("O_%d", s.cfg.OrgID), "description": nil, "url": base,
		"avatar_url": fmt.Sprintf("%s/avatars/u/%d", s.cfg.BaseURL, s.cfg.OrgID),
	})
}

// showOwner is the organization as an account among others.
func (s *Server) showOwner() map[string]any {
	base := s.rest3("/users/" + s.cfg.Org)
	return merged(links(base, userLinks), map[string]any{
		"login": s.cfg.Org, "id": s.cfg.OrgID, "node_id": fmt.Sprintf("O_%d", s.cfg.OrgID), "type": "Organization", "site_admin": false,
		"url": base, "html_url": s.cfg.BaseURL + "/" + s.cfg.Org, "gravatar_id": "", "user_view_type": "public",
		"avatar_url": fmt.Sprintf("%s/avatars/u/%d", s.cfg.BaseURL, s.cfg.OrgID),
	})
}

func (s *Server) showRepo(r *repo) map[string]any {
	base := s.rest3("/repos/" + s.fullName(r))
	return merged(links(base, repoLinks), map[string]any{
		"id": r.id, "node_id": fmt.Sprintf("R_%d", r.id), "name": r.name, "full_name": s.fullName(r), "description": nil,
		"private": true, "visibility": "private", "owner": s.showOwner(), "default_branch": "main", "fork": false,
		"url": base, "html_url": s.cfg.BaseURL + "/" + s.fullName(r),
	})
}

// founded is when the organization and what the simulator is set up with were
// made, where GitHub shows a time that nothing here depends on.
const founded = "2020-01-02T03:04:05Z"

func (s *Server) getOrg(*http.Request) answer {
	return ok(merged(s.showOrg(), map[string]any{
		"type": "Organization", "html_url": s.cfg.BaseURL + "/" + s.cfg.Org, "has_organization_projects": true,
		"has_repository_projects": true, "public_repos": 0, "public_gists": 0, "followers": 0, "following": 0,
		"created_at": founded, "updated_at": founded, "archived_at": nil,
	}))
}

func (s *Server) getRepo(_ *http.Request, r *repo) answer {
	return ok(merged(s.showWholeRepo(r), map[string]any{"network_count": 0, "subscribers_count": 0}))
}

// showWholeRepo is the repository where GitHub does not shorten it: asked for
// by name, in pull requests and in webhooks.
func (s *Server) showWholeRepo(r *repo) map[string]any {
	clone := s.cfg.BaseURL + "/" + s.fullName(r)
	_, host, _ := strings.Cut(s.cfg.BaseURL, "://")
	return merged(s.showRepo(r), map[string]any{
		"clone_url": clone + ".git", "svn_url": clone, "git_url": "git://" + host + "/" + s.fullName(r) + ".git",
		"ssh_url": "git@" + host + ":" + s.fullName(r) + ".git", "mirror_url": nil, "homepage": nil, "language": nil, "license": nil,
		"forks": 0, "forks_count": 0, "open_issues": 0, "open_issues_count": 0, "stargazers_count": 0, "watchers": 0,
		"watchers_count": 0, "size": 0, "has_downloads": true, "archived": false, "disabled": false,
		"has_issues": true, "has_projects": true, "has_wiki": true, "has_pages": false, "has_discussions": false,
		"pushed_at": founded, "created_at": founded, "updated_at": founded,
	})
}

func (s *Server) getUser(r *http.Request) answer {
	if u := s.user(r.PathValue("user")); u != nil {
		return ok(merged(s.showAccount(u), map[string]any{
			"name": nil, "company": nil, "blog": "", "location": nil, "email": nil, "hireable": nil, "bio": nil,
			"public_repos": 0, "public_gists": 0, "followers": 0, "following": 0, "created_at": founded, "updated_at": founded,
		}))
	}
	return notFound()
}

// getMembership is 404 for an account that is not in the team: GitHub does
// not tell that from a team that does not exist.
func (s *Server) getMembership(r *http.Request) answer {
	t, u := s.state.teams[r.PathValue("slug")], s.user(r.PathValue("user"))
	if t == nil || u == nil || !slices.Contains(t.members, u) {
		return notFound()
	}
	return ok(map[string]any{
		"url":  s.rest3("/organizations/" + strconv.FormatInt(s.cfg.OrgID, 10) + "/team/" + strconv.FormatInt(t.id, 10) + "/memberships/" + u.login),
		"role": "member", "state": "active",
	})
}

func (s *Server) withGroup(h func(*http.Request, *group) answer) func(*http.Request) answer {
	return func(r *http.Request) answer {
		id, err := strconv.ParseInt(r.PathValue("group"), 10, 64)
		if g := s.state.groups[id]; err == nil && g != nil {
			return h(r, g)
		}
		return notFound()
	}
}

func (s *Server) showGroup(g *group) map[string]any {
	base := s.rest3(fmt.Sprintf("/orgs/%s/actions/runner-groups/%d", s.cfg.Org, g.id))
	workflows := g.Workflows
	if workflows == nil {
		workflows = []string{}
	}
	m := map[string]any{
		"id": g.id, "name": g.Name, "visibility": g.Visibility, "default": g.isDefault, "inherited": false,
		"runners_url": base + "/runners", "hosted_runners_url": base + "/hosted-runners",
		"allows_public_repositories": g.AllowsPublic, "restricted_to_workflows": g.RestrictedToWorkflows,
		"selected_workflows": workflows, "workflow_restrictions_read_only": false,
	}
	if g.Visibility == "selected" {
		m["selected_repositories_url"] = base + "/repositories"
	}
	return m
}

func (s *Server) listGroups(r *http.Request) answer {
	var out []map[string]any
	for _, id := range sortedKeys(s.state.groups) {
		g := s.state.groups[id]
		repo := r.URL.Query().Get("visible_to_repository")
		if repo != "" && g.Visibility == "selected" && !s.groupHas(g, repo) {
			continue
		}
		out = append(out, s.showGroup(g))
	}
	return page(s, r, "runner_groups", out)
}

func (s *Server) groupHas(g *group, repository string) bool {
	return slices.ContainsFunc(g.Repositories, func(n string) bool {
		return strings.EqualFold(s.shortName(n), s.shortName(repository))
	})
}

func (s *Server) getGroup(_ *http.Request, g *group) answer { return ok(s.showGroup(g)) }

func (s *Server) listGroupRepos(r *http.Request, g *group) answer {
	var out []map[string]any
	for _, name := range g.Repositories {
		if x := s.state.repos[strings.ToLower(s.shortName(name))]; x != nil && g.Visibility == "selected" {
			out = append(out, s.showRepo(x))
		}
	}
	return page(s, r, "repositories", out)
}

func (s *Server) showRunner(a *agent) map[string]any {
	status := "offline"
	if a.online(s.now()) {
		status = "online"
	}
	labels := []map[string]any{}
	if set := s.state.sets[a.setID]; set != nil {
		for i, l := range set.labels {
			labels = append(labels, map[string]any{"id": i + 1, "name": l.Name, "type": "read-only"})
		}
	}
	return map[string]any{
		"id": a.id, "name": a.name, "os": "linux", "status": status, "busy": a.busy, "ephemeral": true,
		"runner_group_id": a.groupID, "version": "2.336.0", "labels": labels,
	}
}

func (s *Server) listOrgRunners(r *http.Request) answer {
	name := r.URL.Query().Get("name")
	return page(s, r, "runners", s.selectRunners(func(a *agent) bool { return name == "" || a.name == name }))
}

func (s *Server) listGroupRunners(r *http.Request, g *group) answer {
	return page(s, r, "runners", s.selectRunners(func(a *agent) bool { return a.groupID == g.id }))
}

func (s *Server) selectRunners(keep func(*agent) bool) []map[string]any {
	var out []map[string]any
	for _, id := range sortedKeys(s.state.agents) {
		if a := s.state.agents[id]; keep(a) {
			out = append(out, s.showRunner(a))
		}
	}
	return out
}

func (s *Server) orgRunner(r *http.Request) *agent {
	id, err := strconv.ParseInt(r.PathValue("runner"), 10, 64)
	if err != nil {
		return nil
	}
	return s.state.agents[id]
}

func (s *Server) getOrgRunner(r *http.Request) answer {
	if a := s.orgRunner(r); a != nil {
		return ok(s.showRunner(a))
	}
	return notFound()
}

func (s *Server) deleteOrgRunner(r *http.Request) answer {
	a := s.orgRunner(r)
	if a == nil {
		return notFound()
	}
	if a.busy {
		return restError(http.StatusUnprocessableEntity,
			"Bad request - Runner \""+a.name+"\" is currently running a job and cannot be deleted.")
	}
	s.deregister(a)
	return noContent()
}

// getCommit takes a commit id, a tag or a branch. The author is null when GitHub knows
// no account for the commit's address.
func (s *Server) getCommit(r *http.Request, x *repo) answer {
	ref := r.PathValue("ref")
	sha := ref
	if tagged, found := x.tags[strings.TrimPrefix(ref, "tags/")]; found {
		sha = tagged
	} else if head, found := s.branch(x, strings.TrimPrefix(ref, "heads/")); found {
		sha = head
	}
	author, known := x.commits[sha]
	if !known {
		return restError(http.StatusUnprocessableEntity, "No commit found for SHA: "+ref)
	}
	name := "Ghost"
	if author != nil {
		name = author.login
	}
	signature := map[string]any{"name": name, "email": name + "@users.noreply.github.com", "date": "2026-01-02T03:04:05Z"}
	base := s.rest3("/repos/" + s.fullName(x))
	return ok(map[string]any{
		"sha": sha, "node_id": "C_" + sha[:8], "parents": []any{},
		"url": base + "/commits/" + sha, "comments_url": base + "/commits/" + sha + "/comments",
		"html_url": s.cfg.BaseURL + "/" + s.fullName(x) + "/commit/" + sha,
		"author":   s.showUser(author), "committer": s.showUser(author),
		"commit": map[string]any{
			"author": signature, "committer": signature, "message": "release", "comment_count": 0,
			"url": base + "/git/commits/" + sha, "tree": map[string]any{"sha": treeOf(sha), "url": base + "/git/trees/" + treeOf(sha)},
			"verification": unsigned(),
		},
	})
}

// treeOf is a tree id of a commit: contents are not simulated, and nothing
// answers to it.
func treeOf(sha string) string {
	return fmt.Sprintf("%x", sha256.Sum256([]byte("tree "+sha)))[:40]
}
