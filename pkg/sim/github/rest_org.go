package simgithub

import (
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
	return map[string]any{
		"login": u.login, "id": u.id, "node_id": fmt.Sprintf("U_%d", u.id), "type": "User", "site_admin": false,
		"url": s.rest3("/users/" + u.login), "html_url": s.cfg.BaseURL + "/" + u.login,
	}
}

func (s *Server) showOrg() map[string]any {
	return map[string]any{
		"login": s.cfg.Org, "id": s.cfg.OrgID, "node_id": fmt.Sprintf("O_%d", s.cfg.OrgID), "type": "Organization",
		"url": s.rest3("/orgs/" + s.cfg.Org), "html_url": s.cfg.BaseURL + "/" + s.cfg.Org,
	}
}

func (s *Server) showRepo(r *repo) map[string]any {
	return map[string]any{
		"id": r.id, "node_id": fmt.Sprintf("R_%d", r.id), "name": r.name, "full_name": s.fullName(r),
		"private": true, "visibility": "private", "owner": s.showOrg(), "default_branch": "main", "fork": false,
		"url": s.rest3("/repos/" + s.fullName(r)), "html_url": s.cfg.BaseURL + "/" + s.fullName(r),
	}
}

func (s *Server) getOrg(*http.Request) answer { return ok(s.showOrg()) }

func (s *Server) getRepo(_ *http.Request, r *repo) answer { return ok(s.showRepo(r)) }

func (s *Server) getUser(r *http.Request) answer {
	if u := s.user(r.PathValue("user")); u != nil {
		return ok(s.showUser(u))
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
	if a.online() {
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

func (s *Server) getTagRef(r *http.Request, x *repo) answer {
	tag := r.PathValue("tag")
	sha, found := x.tags[tag]
	if !found {
		return notFound()
	}
	base := s.rest3("/repos/" + s.fullName(x) + "/git")
	return ok(map[string]any{
		"ref": "refs/tags/" + tag, "node_id": "REF_" + sha[:8], "url": base + "/refs/tags/" + tag,
		"object": map[string]any{"type": "commit", "sha": sha, "url": base + "/commits/" + sha},
	})
}

// getCommit takes a commit id or a tag. The author is null when GitHub knows
// no account for the commit's address.
func (s *Server) getCommit(r *http.Request, x *repo) answer {
	ref := r.PathValue("ref")
	sha := ref
	if tagged, found := x.tags[strings.TrimPrefix(ref, "tags/")]; found {
		sha = tagged
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
	return ok(map[string]any{
		"sha": sha, "node_id": "C_" + sha[:8], "parents": []any{},
		"url":    s.rest3("/repos/" + s.fullName(x) + "/commits/" + sha),
		"author": s.showUser(author), "committer": s.showUser(author),
		"commit": map[string]any{
			"author": signature, "committer": signature, "message": "release", "comment_count": 0,
			"verification": map[string]any{"verified": false, "reason": "unsigned"},
		},
	})
}
