package simgithub

import (
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const restPath = "/api/v3"

// routeREST mounts the REST API; the paths are those of
// https://docs.github.com/en/rest.
func (s *Server) routeREST() {
	const (
		orgs  = restPath + "/orgs/{org}"
		repos = restPath + "/repos/{owner}/{repo}"
		runs  = repos + "/actions/runs/{run}"
	)
	handle := func(pattern string, h func(*http.Request) answer) {
		s.mux.HandleFunc(pattern, s.rest(h))
	}
	s.mux.HandleFunc("POST "+restPath+"/app/installations/{id}/access_tokens", s.allow(s.createInstallationToken, kindApp))
	s.mux.HandleFunc("POST "+restPath+"/actions/runner-registration", s.allow(s.registerService, kindRegistration))
	handle("POST "+orgs+"/actions/runners/registration-token", s.inOrg(s.createRegistrationToken))
	handle("GET "+orgs, s.inOrg(s.getOrg))
	handle("GET "+orgs+"/actions/runners", s.inOrg(s.listOrgRunners))
	handle("GET "+orgs+"/actions/runners/{runner}", s.inOrg(s.getOrgRunner))
	handle("DELETE "+orgs+"/actions/runners/{runner}", s.inOrg(s.deleteOrgRunner))
	handle("GET "+orgs+"/actions/runner-groups", s.inOrg(s.listGroups))
	handle("GET "+orgs+"/actions/runner-groups/{group}", s.inOrg(s.withGroup(s.getGroup)))
	handle("GET "+orgs+"/actions/runner-groups/{group}/repositories", s.inOrg(s.withGroup(s.listGroupRepos)))
	handle("GET "+orgs+"/actions/runner-groups/{group}/runners", s.inOrg(s.withGroup(s.listGroupRunners)))
	handle("GET "+orgs+"/teams/{slug}/memberships/{user}", s.inOrg(s.getMembership))
	handle("GET "+restPath+"/users/{user}", s.getUser)
	handle("GET "+repos+"/actions/oidc/customization/sub", s.inRepo(s.getSubject))
	handle("PUT "+repos+"/actions/oidc/customization/sub", s.inRepo(s.putSubject))
	handle("GET "+orgs+"/actions/oidc/customization/sub", s.inOrg(s.getOrgSubject))
	handle("PUT "+orgs+"/actions/oidc/customization/sub", s.inOrg(s.putOrgSubject))
	handle("GET "+repos+"/rulesets", s.inRepo(s.listRulesets))
	handle("GET "+repos+"/rulesets/{ruleset}", s.inRepo(s.getRuleset))
	handle("GET "+repos+"/contents/{path...}", s.inRepo(s.getContent))
	handle("GET "+repos, s.inRepo(s.getRepo))
	handle("GET "+repos+"/git/ref/tags/{tag...}", s.inRepo(s.getTagRef))
	handle("GET "+repos+"/git/ref/heads/{branch...}", s.inRepo(s.getBranchRef))
	handle("GET "+repos+"/git/tags/{sha}", s.inRepo(s.getTag))
	handle("GET "+repos+"/commits/{ref...}", s.inRepo(s.getCommit))
	handle("GET "+repos+"/commits/{ref}/pulls", s.inRepo(s.listCommitPulls))
	handle("GET "+repos+"/activity", s.inRepo(s.listActivity))
	handle("GET "+repos+"/environments", s.inRepo(s.listEnvironments))
	handle("GET "+repos+"/environments/{env}/deployment_protection_rules", s.inRepo(s.withEnv(s.listProtectionRules)))
	handle("GET "+orgs+"/audit-log", s.inOrg(s.listAuditLog))
	handle("POST "+runs+"/pending_deployments", s.inRepo(s.withRun(s.reviewPending)))
	handle("POST "+runs+"/deployment_protection_rule", s.inRepo(s.withRun(s.ruleDeployment)))
	s.mux.HandleFunc("GET "+restPath+"/app/hook/deliveries", s.restAs(s.listDeliveries, kindApp))
	s.mux.HandleFunc("GET "+restPath+"/app/hook/deliveries/{delivery}", s.restAs(s.getDelivery, kindApp))
	s.mux.HandleFunc("POST "+restPath+"/app/hook/deliveries/{delivery}/attempts", s.restAs(s.redeliver, kindApp))
	s.mux.HandleFunc("GET "+restPath+"/app/hook/config", s.restAs(s.getHookConfig, kindApp))
	s.mux.HandleFunc("GET "+restPath+"/rate_limit", s.allow(s.getRateLimit, kindInstallation, kindToken))
	handle("GET "+repos+"/environments/{env}", s.inRepo(s.withEnv(s.getEnvironment)))
	handle("GET "+repos+"/environments/{env}/deployment-branch-policies", s.inRepo(s.withEnv(s.listPolicies)))
	handle("GET "+repos+"/actions/jobs/{job}", s.inRepo(s.getJob))
	handle("GET "+runs, s.inRepo(s.withRun(s.getRun)))
	handle("GET "+runs+"/attempts/{attempt}", s.inRepo(s.withRun(s.getAttempt)))
	handle("GET "+runs+"/attempts/{attempt}/jobs", s.inRepo(s.withRun(s.listAttemptJobs)))
	handle("GET "+runs+"/jobs", s.inRepo(s.withRun(s.listRunJobs)))
	handle("GET "+runs+"/approvals", s.inRepo(s.withRun(s.listApprovals)))
	handle("GET "+runs+"/pending_deployments", s.inRepo(s.withRun(s.listPending)))
	handle("POST "+runs+"/cancel", s.inRepo(s.withRun(s.cancelRun)))
	handle("POST "+runs+"/force-cancel", s.inRepo(s.withRun(s.forceCancelRun)))
}

// rest lets installation and personal tokens in, and counts their calls.
func (s *Server) rest(h func(*http.Request) answer) http.HandlerFunc {
	return s.restAs(h, kindInstallation, kindToken)
}

// restAs lets these kinds of credential in.
func (s *Server) restAs(h func(*http.Request) answer, kinds ...string) http.HandlerFunc {
	return s.allow(func(r *http.Request) answer {
		header, exceeded := s.limit.count(time.Now(), s.cfg.RateLimit)
		a := restError(http.StatusForbidden, "API rate limit exceeded for installation.")
		if !exceeded {
			a = h(r)
		}
		if a.header == nil {
			a.header = map[string]string{}
		}
		maps.Copy(a.header, header)
		a.header["X-GitHub-Media-Type"] = "github.v3; format=json"
		return s.tag(r, a)
	}, kinds...)
}

func notFound() answer { return restError(http.StatusNotFound, "Not Found") }

func (s *Server) inOrg(h func(*http.Request) answer) func(*http.Request) answer {
	return func(r *http.Request) answer {
		if !strings.EqualFold(r.PathValue("org"), s.cfg.Org) {
			return notFound()
		}
		return h(r)
	}
}

func (s *Server) inRepo(h func(*http.Request, *repo) answer) func(*http.Request) answer {
	return func(r *http.Request) answer {
		x := s.state.repos[strings.ToLower(r.PathValue("repo"))]
		if x == nil || !strings.EqualFold(r.PathValue("owner"), s.cfg.Org) {
			return notFound()
		}
		return h(r, x)
	}
}

// createInstallationToken takes the JWT of the App and nothing else.
func (s *Server) createInstallationToken(r *http.Request) answer {
	if r.PathValue("id") != strconv.FormatInt(s.cfg.AppInstallationID, 10) {
		return notFound()
	}
	token := s.issue(credential{kind: kindInstallation}, installationTTL)
	return answer{status: http.StatusCreated, body: map[string]any{
		"token": token, "expires_at": stamp(time.Now().Add(installationTTL)), "repository_selection": "all",
		"permissions": map[string]string{"actions": "write", "organization_self_hosted_runners": "write", "metadata": "read"},
	}}
}

func (s *Server) createRegistrationToken(*http.Request) answer {
	token := s.issue(credential{kind: kindRegistration}, registrationTTL)
	return answer{status: http.StatusCreated, body: map[string]any{
		"token": token, "expires_at": stamp(time.Now().Add(registrationTTL)),
	}}
}

// registerService exchanges a registration token for the Actions service's
// address and token. It is not in the documentation; the shape is that of
// actions/runner CredentialManager.cs.
func (s *Server) registerService(r *http.Request) answer {
	var b struct {
		URL   string `json:"url"`
		Event string `json:"runner_event"`
	}
	if decode(r, &b) != nil || b.Event != "register" {
		return restError(http.StatusUnprocessableEntity, "Invalid request")
	}
	if u, err := url.Parse(b.URL); err != nil || !strings.EqualFold(strings.Trim(u.Path, "/"), s.cfg.Org) {
		return notFound()
	}
	return ok(map[string]any{
		"url": s.cfg.BaseURL + "/rest/", "token": s.issue(credential{kind: kindAdmin}, s.cfg.AdminTokenTTL),
		"token_schema": "OAuthAccessToken", "use_v2_flow": true,
	})
}
