package simgithub

import (
	"cmp"
	"fmt"
	"net/http"
	"strings"
	"time"
)

func (s *Server) withEnv(h func(*http.Request, *repo, *environment) answer) func(*http.Request, *repo) answer {
	return func(r *http.Request, x *repo) answer {
		if e := x.envs[strings.ToLower(r.PathValue("env"))]; e != nil {
			return h(r, x, e)
		}
		return notFound()
	}
}

func (s *Server) envURL(x *repo, e *environment) string {
	return s.rest3("/repos/" + s.fullName(x) + "/environments/" + e.Name)
}

func (s *Server) showTeam(slug string) map[string]any {
	id := int64(0)
	if t := s.state.teams[slug]; t != nil {
		id = t.id
	}
	base := s.rest3(fmt.Sprintf("/organizations/%d/team/%d", s.cfg.OrgID, id))
	return map[string]any{
		"id": id, "node_id": fmt.Sprintf("T_%d", id), "name": slug, "slug": slug, "description": "", "privacy": "closed",
		"notification_setting": "notifications_enabled", "permission": "pull", "parent": nil, "url": base,
		"html_url":    fmt.Sprintf("%s/orgs/%s/teams/%s", s.cfg.BaseURL, s.cfg.Org, slug),
		"members_url": base + "/members{/member}", "repositories_url": base + "/repos",
		"type": "organization", "organization_id": s.cfg.OrgID,
	}
}

func (s *Server) reviewers(e *environment) []map[string]any {
	out := []map[string]any{}
	for _, slug := range e.ReviewerTeams {
		out = append(out, map[string]any{"type": "Team", "reviewer": s.showTeam(slug)})
	}
	for _, login := range e.ReviewerUsers {
		out = append(out, map[string]any{"type": "User", "reviewer": s.showUser(s.user(login))})
	}
	return out
}

// getEnvironment shows only the rules that are set, as GitHub does.
// https://docs.github.com/en/rest/deployments/environments
func (s *Server) getEnvironment(_ *http.Request, x *repo, e *environment) answer {
	rules := []map[string]any{}
	rule := func(kind string, n int64) map[string]any {
		id := e.id*10 + n
		m := map[string]any{"id": id, "node_id": fmt.Sprintf("GA_%d", id), "type": kind}
		rules = append(rules, m)
		return m
	}
	if e.WaitTimer > 0 {
		rule("wait_timer", 1)["wait_timer"] = e.waitMinutes()
	}
	if e.hasReviewers() {
		m := rule("required_reviewers", 2)
		m["prevent_self_review"], m["reviewers"] = e.PreventSelfReview, s.reviewers(e)
	}
	var policy any
	if len(e.Policies) > 0 {
		rule("branch_policy", 3)
		policy = map[string]any{"protected_branches": false, "custom_branch_policies": true}
	}
	return ok(map[string]any{
		"id": e.id, "node_id": fmt.Sprintf("EN_%d", e.id), "name": e.Name, "url": s.envURL(x, e),
		"html_url":   s.cfg.BaseURL + "/" + s.fullName(x) + "/deployments/activity_log?environments_filter=" + e.Name,
		"created_at": stamp(e.created), "updated_at": stamp(e.created), "can_admins_bypass": e.CanAdminsBypass,
		"protection_rules": rules, "deployment_branch_policy": policy,
	})
}

func (e *environment) waitMinutes() int {
	return int((e.WaitTimer + time.Minute - 1) / time.Minute)
}

func (s *Server) listPolicies(r *http.Request, _ *repo, e *environment) answer {
	var out []map[string]any
	for i, p := range e.Policies {
		id := e.id*100 + int64(i)
		out = append(out, map[string]any{
			"id": id, "node_id": fmt.Sprintf("GBP_%d", id), "name": p.Name, "type": cmp.Or(p.Type, "branch"),
		})
	}
	return page(s, r, "branch_policies", out)
}

// listApprovals is the review history of the run over all its attempts. It
// holds no time, no attempt and no job, and it has no pages: the operation takes
// neither per_page nor page.
// https://docs.github.com/en/rest/actions/workflow-runs#get-the-review-history-for-a-workflow-run
func (s *Server) listApprovals(_ *http.Request, r *run) answer {
	out := []map[string]any{}
	for _, a := range r.approvals {
		out = append(out, map[string]any{
			"state": a.state, "comment": a.comment, "user": s.showUser(a.by),
			"environments": []map[string]any{{
				"id": a.env.id, "node_id": fmt.Sprintf("EN_%d", a.env.id), "name": a.env.Name,
				"url":        s.envURL(r.repo, a.env),
				"html_url":   s.cfg.BaseURL + "/" + s.fullName(r.repo) + "/deployments/activity_log?environments_filter=" + a.env.Name,
				"created_at": stamp(a.env.created), "updated_at": stamp(a.env.created),
			}},
		})
	}
	return ok(out)
}

func (s *Server) listPending(_ *http.Request, r *run) answer {
	out := []map[string]any{}
	if j := r.latest().job; j.Status == "waiting" {
		m := map[string]any{
			"environment": map[string]any{
				"id": j.env.id, "node_id": fmt.Sprintf("EN_%d", j.env.id), "name": j.env.Name, "url": s.envURL(r.repo, j.env),
				"html_url": s.cfg.BaseURL + "/" + s.fullName(r.repo) + "/deployments",
			},
			"wait_timer": j.env.waitMinutes(), "wait_timer_started_at": nil,
			"current_user_can_approve": false, "reviewers": s.reviewers(j.env),
		}
		if j.env.WaitTimer > 0 {
			m["wait_timer_started_at"] = stamp(j.CreatedAt)
		}
		out = append(out, m)
	}
	return ok(out)
}
