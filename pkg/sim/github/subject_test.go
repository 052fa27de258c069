package simgithub_test

import (
	"context"
	"strings"
	"testing"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
)

// claimsOf runs a job and returns the claims of an ID token that it asked for.
func claimsOf(t *testing.T, w *world, change ...func(*simgithub.RunSpec)) (claims map[string]any) {
	t.Helper()
	c := w.session()
	w.dispatch(func(spec *simgithub.RunSpec) {
		for _, f := range change {
			f(spec)
		}
	})
	w.take(c, 1)
	_, jit := w.jit("r1")
	w.start(t.Context(), jit, func(_ context.Context, env map[string]string) error {
		claims = w.idToken(env, "ward")
		if env["GITHUB_REF_PROTECTED"] != claims["ref_protected"] {
			t.Errorf("the job's context says ref_protected %q, its token %q", env["GITHUB_REF_PROTECTED"], claims["ref_protected"])
		}
		return nil
	})()
	return claims
}

// The examples are those of GitHub's OIDC reference.
func TestTheSubjectFollowsItsTemplate(t *testing.T) {
	for _, test := range []struct {
		name     string
		template *simgithub.SubjectTemplate
		want     string
	}{
		{"the default", nil, "repo:acme/shop:ref:refs/tags/v1.2.3"},
		{"keys of its own", &simgithub.SubjectTemplate{Keys: []string{"repo", "context", "job_workflow_ref"}},
			"repo:acme/shop:ref:refs/tags/v1.2.3:job_workflow_ref:" + deploy},
		{"a value with a colon", &simgithub.SubjectTemplate{Keys: []string{"iss"}}, "iss:http%3A//ghes.test/oidc"},
		{"immutable", &simgithub.SubjectTemplate{Immutable: true}, "repo:acme@65/shop@500000001:ref:refs/tags/v1.2.3"},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, simgithub.Config{Enterprise: "octo", EnterpriseID: 5}, func(t *testing.T, w *world) {
				w.sim.SetSubject("shop", test.template)
				c := claimsOf(t, w)
				if c["sub"] != test.want {
					t.Errorf("sub = %v, want %s", c["sub"], test.want)
				}
				for _, name := range []string{
					"jti", "aud", "iss", "exp", "iat", "nbf", "actor", "actor_id", "base_ref", "check_run_id", "enterprise", "enterprise_id", "event_name",
					"head_ref", "job_workflow_ref", "job_workflow_sha", "ref", "ref_protected", "ref_type", "repository", "repository_id", "repository_owner",
					"repository_owner_id", "repository_visibility", "run_attempt", "run_id", "run_number", "runner_environment", "sha", "workflow", "workflow_ref", "workflow_sha",
				} {
					if _, there := c[name]; !there {
						t.Errorf("the token has no %s", name)
					}
					if _, isNumber := c[name].(float64); isNumber && strings.HasSuffix(name, "_id") {
						t.Errorf("%s is a number, and GitHub writes ids as text", name)
					}
				}
			})
		})
	}
}

func TestRulesetsHideWhoMayBypassThem(t *testing.T) {
	key := mustKey(t)
	bubble(t, simgithub.Config{AppClientID: "Iv1", AppInstallationID: 7, AppKey: &key.PublicKey}, func(t *testing.T, w *world) {
		w.sim.AddRuleset("shop", simgithub.Ruleset{Name: "tags", Target: "tag", Enforcement: "active", Rules: []string{"update"}, BypassMode: "exempt"})
		_, _, token := w.raw("POST", "/api/v3/app/installations/7/access_tokens", "Bearer "+assertion(t, key), nil)
		for as, shown := range map[string]bool{"Bearer " + pat: true, "Bearer " + token["token"].(string): false} {
			_, _, body := w.raw("GET", "/api/v3/repos/acme/shop/rulesets/9010", as, nil)
			if _, there := body["bypass_actors"]; there != shown {
				t.Errorf("bypass_actors shown %t, want %t: %v", there, shown, body)
			}
		}
	})
}
