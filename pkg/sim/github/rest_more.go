package simgithub

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// pull is a merged pull request that brought a commit.
type pull struct {
	number int64
	author *user
	merged time.Time
}

// AddPull says that a merged pull request of this author brought the commit.
func (s *Server) AddPull(repository, sha, author string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.addRepo(repository)
	if r.pulls == nil {
		r.pulls = map[string][]pull{}
	}
	r.pulls[sha] = append(r.pulls[sha], pull{int64(len(r.pulls)) + 1, s.addUser(author), s.now()})
}

// listCommitPulls shows the merged ones; open ones are not simulated.
// https://docs.github.com/en/rest/commits/commits#list-pull-requests-associated-with-a-commit
func (s *Server) listCommitPulls(r *http.Request, x *repo) answer {
	out := []map[string]any{}
	for _, p := range x.pulls[r.PathValue("ref")] {
		out = append(out, s.showPull(x, p, r.PathValue("ref")))
	}
	return pageOf(s, r, out)
}

func (s *Server) showPull(x *repo, p pull, sha string) map[string]any {
	base := s.rest3(fmt.Sprintf("/repos/%s/pulls/%d", s.fullName(x), p.number))
	issue := s.rest3(fmt.Sprintf("/repos/%s/issues/%d", s.fullName(x), p.number))
	html := fmt.Sprintf("%s/%s/pull/%d", s.cfg.BaseURL, s.fullName(x), p.number)
	end := func(ref string) map[string]any {
		return map[string]any{"label": s.cfg.Org + ":" + ref, "ref": ref, "sha": sha, "repo": s.showWholeRepo(x), "user": s.showOwner()}
	}
	links := map[string]any{}
	for name, url := range map[string]string{
		"self": base, "html": html, "issue": issue, "comments": issue + "/comments", "review_comments": base + "/comments",
		"review_comment": base + "/comments{/number}", "commits": base + "/commits", "statuses": s.rest3("/repos/" + s.fullName(x) + "/statuses/" + sha),
	} {
		links[name] = map[string]any{"href": url}
	}
	return map[string]any{
		"id": 7000 + p.number, "node_id": fmt.Sprintf("PR_%d", p.number), "number": p.number, "state": "closed", "locked": false,
		"title": "change", "body": nil, "user": s.showUser(p.author), "labels": []any{}, "milestone": nil, "assignee": nil, "assignees": []any{},
		"requested_reviewers": []any{}, "requested_teams": []any{}, "created_at": stamp(p.merged), "updated_at": stamp(p.merged),
		"closed_at": stamp(p.merged), "merged_at": stamp(p.merged), "merge_commit_sha": sha, "draft": false, "author_association": "MEMBER",
		"auto_merge": nil, "active_lock_reason": nil, "head": end("topic"), "base": end("main"), "_links": links,
		"url": base, "html_url": html, "diff_url": html + ".diff", "patch_url": html + ".patch", "issue_url": issue,
		"commits_url": base + "/commits", "review_comments_url": base + "/comments", "review_comment_url": base + "/comments{/number}",
		"comments_url": issue + "/comments", "statuses_url": s.rest3("/repos/" + s.fullName(x) + "/statuses/" + sha),
	}
}

// activity is who made a ref name a commit.
type activity struct {
	ref, before, after string
	actor              *user
	kind               string
	at                 time.Time
}

// PushTag makes a tag name a commit, as a push by this account.
func (s *Server) PushTag(repository, tag, sha, by string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pushTag(s.addRepo(repository), tag, sha, s.addUser(by))
}

func (s *Server) pushTag(r *repo, tag, sha string, by *user) {
	before, kind := strings.Repeat("0", 40), "branch_creation"
	if old, exists := r.tags[tag]; exists {
		before, kind = old, "force_push"
	}
	r.tags[tag] = sha
	r.activities = append(r.activities, activity{"refs/tags/" + tag, before, sha, by, kind, s.now()})
}

// listActivity shows the newest first unless it is asked for the other direction.
// https://docs.github.com/en/rest/repos/repos#list-repository-activities
func (s *Server) listActivity(r *http.Request, x *repo) answer {
	q := r.URL.Query()
	out := []map[string]any{}
	for i, a := range slices.Backward(x.activities) {
		if want := q.Get("ref"); want != "" && want != a.ref && "refs/heads/"+want != a.ref {
			continue
		}
		if want := q.Get("actor"); want != "" && !strings.EqualFold(want, a.actor.login) {
			continue
		}
		out = append(out, map[string]any{
			"id": x.id*1000 + int64(i), "node_id": fmt.Sprintf("PSH_%d", i), "before": a.before, "after": a.after, "ref": a.ref,
			"timestamp": stamp(a.at), "activity_type": a.kind, "actor": s.showUser(a.actor),
		})
	}
	if q.Get("direction") == "asc" {
		slices.Reverse(out)
	}
	return s.cursorPage(r, out, "id")
}

func (s *Server) listEnvironments(r *http.Request, x *repo) answer {
	var out []any
	for _, e := range x.envs {
		out = append(out, s.getEnvironment(r, x, e).body)
	}
	slices.SortFunc(out, func(a, b any) int {
		return strings.Compare(fmt.Sprint(a.(map[string]any)["name"]), fmt.Sprint(b.(map[string]any)["name"]))
	})
	return page(s, r, "environments", out)
}

// listProtectionRules shows the Apps that protect the environment.
// https://docs.github.com/en/rest/deployments/protection-rules
func (s *Server) listProtectionRules(_ *http.Request, _ *repo, e *environment) answer {
	out := []map[string]any{}
	for i, slug := range e.ProtectionApps {
		id := e.id*10 + int64(i)
		out = append(out, map[string]any{
			"id": id, "node_id": fmt.Sprintf("GA_%d", id), "enabled": true,
			"app": map[string]any{"id": 100 + i, "slug": slug, "integration_url": s.rest3("/apps/" + slug), "node_id": fmt.Sprintf("A_%d", i)},
		})
	}
	return ok(map[string]any{"total_count": len(out), "custom_deployment_protection_rules": out})
}

// SetSAML says whom the organization's identity provider knows an account as.
func (s *Server) SetSAML(login, nameID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addUser(login).nameID = nameID
}

// listAuditLog shows what accounts did that this simulator knows: reviews. It
// needs Enterprise Cloud.
// https://docs.github.com/en/enterprise-cloud@latest/rest/orgs/orgs#get-the-audit-log-for-an-organization
func (s *Server) listAuditLog(r *http.Request) answer {
	out := []map[string]any{}
	for _, id := range sortedKeys(s.state.runs) {
		for i, a := range s.state.runs[id].approvals {
			if e := s.auditEntry(id, i, a); inAudit(r.URL.Query().Get("phrase"), e) {
				out = append(out, e)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b map[string]any) int { return cmp.Compare(b["@timestamp"].(int64), a["@timestamp"].(int64)) })
	if r.URL.Query().Get("order") == "asc" {
		slices.Reverse(out)
	}
	return s.cursorPage(r, out, "_document_id")
}

// auditEntry names the action as the list of audit log events does.
// https://docs.github.com/en/enterprise-cloud@latest/organizations/keeping-your-organization-secure/managing-security-settings-for-your-organization/audit-log-events-for-your-organization#workflows
func (s *Server) auditEntry(runID int64, i int, a approval) map[string]any {
	e := map[string]any{
		"@timestamp": a.at.UnixMilli(), "created_at": a.at.UnixMilli(), "action": "workflows.approve_workflow_job",
		"actor": a.by.login, "actor_id": a.by.id, "org": s.cfg.Org, "org_id": s.cfg.OrgID, "_document_id": fmt.Sprintf("%d-%d", runID, i),
	}
	if a.state == "rejected" {
		e["action"] = "workflows.reject_workflow_job"
	}
	if a.by.nameID != "" {
		e["external_identity_nameid"] = a.by.nameID
	}
	return e
}

// inAudit says that an entry has what the phrase asks for. Of GitHub's qualifiers
// it knows actor and action.
func inAudit(phrase string, e map[string]any) bool {
	for term := range strings.FieldsSeq(phrase) {
		key, want, _ := strings.Cut(term, ":")
		if have, isText := e[key].(string); (key == "actor" || key == "action") && (!isText || !strings.EqualFold(have, want)) {
			return false
		}
	}
	return true
}

// reviewPending approves or rejects waiting deployments, by a person: an
// installation token is not one and gets 403.
// https://docs.github.com/en/rest/actions/workflow-runs#review-pending-deployments-for-a-workflow-run
func (s *Server) reviewPending(req *http.Request, r *run) answer {
	var b struct {
		IDs     []int64 `json:"environment_ids"`
		State   string  `json:"state"`
		Comment *string `json:"comment"`
	}
	j := r.latest().job
	if err := decode(req, &b); err != nil || b.Comment == nil || len(b.IDs) == 0 || b.State != "approved" && b.State != "rejected" {
		return restError(http.StatusUnprocessableEntity, "Invalid request")
	}
	if callerOf(req).kind != kindToken || s.cfg.TokenUser == "" {
		return restError(http.StatusForbidden, "Resource not accessible by integration")
	}
	if j.env == nil || !slices.Contains(b.IDs, j.env.id) {
		return restError(http.StatusUnprocessableEntity, "No pending deployment requests to approve or reject")
	}
	if err := s.decideReview(r, s.cfg.TokenUser, b.State, *b.Comment); err != nil {
		return restError(http.StatusUnprocessableEntity, err.Error())
	}
	return ok([]map[string]any{s.showDeployment(j)})
}

// maxReports is how many reports without a verdict an App may give of one
// deployment, maxComment how long each comment may be.
// https://docs.github.com/en/actions/how-tos/deploy/configure-and-manage-deployments/create-custom-protection-rules
const (
	maxReports = 10
	maxComment = 1024
)

// ruleDeployment takes the verdict of an App that protects the environment, or
// a report without one.
func (s *Server) ruleDeployment(req *http.Request, r *run) answer {
	var b struct {
		Environment string `json:"environment_name"`
		State       string `json:"state"`
		Comment     string `json:"comment"`
	}
	j := r.latest().job
	if err := decode(req, &b); err != nil || b.Environment == "" || b.State == "" && b.Comment == "" || len([]rune(b.Comment)) > maxComment {
		return restError(http.StatusUnprocessableEntity, "Invalid request")
	}
	if callerOf(req).kind != kindInstallation {
		return restError(http.StatusForbidden, "Resource not accessible by personal access token")
	}
	waits := j.Status == "waiting" && j.env != nil && strings.EqualFold(j.env.Name, b.Environment) && j.rules[s.cfg.AppSlug] != nil
	if !waits || j.rules[s.cfg.AppSlug].state != "" {
		return restError(http.StatusUnprocessableEntity, "No pending deployment protection rule for this environment")
	}
	rule := j.rules[s.cfg.AppSlug]
	rule.comments = append(rule.comments, b.Comment)
	switch b.State {
	case "approved":
		rule.state = b.State
	case "rejected":
		rule.state = b.State
		s.complete(j, "failure", s.now())
	case "":
		if rule.reports++; rule.reports > maxReports {
			return restError(http.StatusUnprocessableEntity, "Too many status reports")
		}
	default:
		return restError(http.StatusUnprocessableEntity, "Invalid state")
	}
	s.changed()
	return noContent()
}

// protection is what an App said about a job's deployment.
type protection struct {
	state    string // approved, rejected, or empty while it waits
	comments []string
	reports  int
}

// Ruling is what this App said about the latest deployment of a run: its state
// and its comments.
func (s *Server) Ruling(runID int64) (state string, comments []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.state.runs[runID]; r != nil {
		if p := r.latest().job.rules[s.cfg.AppSlug]; p != nil {
			return p.state, slices.Clone(p.comments)
		}
	}
	return "", nil
}
