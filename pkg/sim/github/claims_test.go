package simgithub_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
)

// tokenKey signs the tokens of these tests: making one takes longer than a test.
var tokenKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

func withKey(t *testing.T, cfg simgithub.Config) simgithub.Config {
	t.Helper()
	key, err := tokenKey()
	if err != nil {
		t.Fatal(err)
	}
	cfg.SigningKey = key
	return cfg
}

// Each claim that depends on how a repository is set up, or on what started the
// run. https://docs.github.com/en/actions/reference/security/oidc
func TestClaimsFollowTheWorld(t *testing.T) {
	pull := func(s *simgithub.RunSpec) { s.Event, s.Tag = "pull_request", "" }
	branch := func(s *simgithub.RunSpec) { s.Event, s.Tag = "push", "" }
	rules := func(r simgithub.Ruleset) func(*world) {
		return func(w *world) { w.sim.AddRuleset("shop", r) }
	}
	for _, test := range []struct {
		name  string
		cfg   simgithub.Config
		set   func(*world)
		run   func(*simgithub.RunSpec)
		claim string
		want  any // nil: the token has no such claim
	}{
		{"a pull request is the context", simgithub.Config{}, nil, pull, "sub", "repo:acme/shop:pull_request"},
		{"a pull request's ref is its merge", simgithub.Config{}, nil, pull, "ref", "refs/pull/1/merge"},
		{"a pull request has a base", simgithub.Config{}, nil, pull, "base_ref", "main"},
		{"a pull request has a head", simgithub.Config{}, nil, pull, "head_ref", "topic"},
		{"a push has no base", simgithub.Config{}, nil, nil, "base_ref", ""},
		{"an environment goes before a pull request", simgithub.Config{}, func(w *world) { w.sim.SetEnvironment("shop", simgithub.Environment{Name: "a:b"}) },
			func(s *simgithub.RunSpec) { pull(s); s.Environment = "a:b" }, "sub", "repo:acme/shop:environment:a%3Ab"},
		{"a branch", simgithub.Config{}, nil, branch, "sub", "repo:acme/shop:ref:refs/heads/main"},
		{"the common issuer", simgithub.Config{Enterprise: "octo", EnterpriseID: 5}, nil, nil, "iss", "http://ghes.test/oidc"},
		{"an issuer of the enterprise", simgithub.Config{Enterprise: "octo", EnterpriseID: 5, EnterpriseIssuer: true}, nil, nil, "iss", "http://ghes.test/oidc/octo"},
		{"the enterprise", simgithub.Config{Enterprise: "octo", EnterpriseID: 5}, nil, nil, "enterprise", "octo"},
		{"the enterprise's id is text", simgithub.Config{Enterprise: "octo", EnterpriseID: 5}, nil, nil, "enterprise_id", "5"},
		{"no enterprise", simgithub.Config{}, nil, nil, "enterprise", nil},
		{"a property", simgithub.Config{}, func(w *world) {
			w.sim.ClaimProperties("team", "regions", "pci")
			w.sim.SetProperties("shop", map[string]string{"team": "payments", "secret": "x"})
		}, nil, "repo_property_team", "payments"},
		{"a property of several values", simgithub.Config{}, func(w *world) {
			w.sim.ClaimProperties("regions")
			w.sim.SetProperties("shop", map[string]string{"regions": "us-east-1,eu-west-1"})
		}, nil, "repo_property_regions", "us-east-1,eu-west-1"},
		{"a property without a value", simgithub.Config{}, func(w *world) { w.sim.ClaimProperties("team") }, nil, "repo_property_team", nil},
		{"a property that is not included", simgithub.Config{}, func(w *world) {
			w.sim.SetProperties("shop", map[string]string{"team": "payments"})
		}, nil, "repo_property_team", nil},
		{"a property in the subject", simgithub.Config{}, func(w *world) {
			w.sim.ClaimProperties("team")
			w.sim.SetProperties("shop", map[string]string{"team": "payments"})
			w.sim.SetSubject("shop", &simgithub.SubjectTemplate{Keys: []string{"repo", "repo_property_team"}})
		}, nil, "sub", "repo:acme/shop:repo_property_team:payments"},
		{"keys do not take the ids away", simgithub.Config{}, func(w *world) {
			w.sim.SetSubject("shop", &simgithub.SubjectTemplate{Keys: []string{"repo"}, Immutable: true})
		}, nil, "sub", "repo:acme@65/shop@500000001"},
		{"no ruleset", simgithub.Config{}, nil, nil, "ref_protected", "false"},
		{"a ruleset of these tags", simgithub.Config{}, rules(simgithub.Ruleset{Target: "tag", Enforcement: "active", Include: []string{"refs/tags/v*"}}), nil, "ref_protected", "true"},
		{"a ruleset of all tags", simgithub.Config{}, rules(simgithub.Ruleset{Target: "tag", Enforcement: "active", Include: []string{"~ALL"}}), nil, "ref_protected", "true"},
		{"a ruleset of other tags", simgithub.Config{}, rules(simgithub.Ruleset{Target: "tag", Enforcement: "active", Include: []string{"refs/tags/rc*"}}), nil, "ref_protected", "false"},
		{"a ruleset that excludes the tag", simgithub.Config{}, rules(simgithub.Ruleset{Target: "tag", Enforcement: "active", Include: []string{"~ALL"}, Exclude: []string{"refs/tags/v1.*"}}), nil, "ref_protected", "false"},
		{"a ruleset of folders of tags", simgithub.Config{}, rules(simgithub.Ruleset{Target: "tag", Enforcement: "active", Include: []string{"refs/tags/**/v*"}}), nil, "ref_protected", "true"},
		{"a ruleset that only evaluates", simgithub.Config{}, rules(simgithub.Ruleset{Target: "tag", Enforcement: "evaluate", Include: []string{"~ALL"}}), nil, "ref_protected", "false"},
		{"a ruleset of branches, for a tag", simgithub.Config{}, rules(simgithub.Ruleset{Target: "branch", Enforcement: "active", Include: []string{"~ALL"}}), nil, "ref_protected", "false"},
		{"a ruleset of the default branch", simgithub.Config{}, rules(simgithub.Ruleset{Enforcement: "active", Include: []string{"~DEFAULT_BRANCH"}}), branch, "ref_protected", "true"},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, withKey(t, test.cfg), func(t *testing.T, w *world) {
				if test.set != nil {
					test.set(w)
				}
				run := func(s *simgithub.RunSpec) {
					if test.run != nil {
						test.run(s)
					}
				}
				if got := claimsOf(t, w, run)[test.claim]; got != test.want {
					t.Errorf("%s = %v, want %v", test.claim, got, test.want)
				}
			})
		})
	}
}

func TestATemplateOfTheOrganizationNeedsTheRepositorysWord(t *testing.T) {
	const org, shop = "/api/v3/orgs/acme/actions/oidc/customization/sub", "/api/v3/repos/acme/shop/actions/oidc/customization/sub"
	type put struct {
		path string
		body map[string]any
	}
	for name, test := range map[string]struct {
		puts []put
		sub  string
	}{
		"alone it does nothing":         {[]put{{org, map[string]any{"include_claim_keys": []string{"repository_owner"}}}}, "repo:acme/shop:ref:refs/tags/v1.2.3"},
		"the repository asks for it":    {[]put{{org, map[string]any{"include_claim_keys": []string{"repository_owner"}}}, {shop, map[string]any{"use_default": false}}}, "repository_owner:acme"},
		"the repository has its own":    {[]put{{org, map[string]any{"include_claim_keys": []string{"repository_owner"}}}, {shop, map[string]any{"use_default": false, "include_claim_keys": []string{"repository_id"}}}}, "repository_id:500000001"},
		"the default may be immutable":  {[]put{{shop, map[string]any{"use_default": true, "use_immutable_subject": true}}}, "repo:acme@65/shop@500000001:ref:refs/tags/v1.2.3"},
		"what is immutable stays it":    {[]put{{shop, map[string]any{"use_default": true, "use_immutable_subject": true}}, {shop, map[string]any{"use_default": false, "include_claim_keys": []string{"repo"}}}}, "repo:acme@65/shop@500000001"},
		"the organization is immutable": {[]put{{org, map[string]any{"use_immutable_subject": true}}}, "repo:acme@65/shop@500000001:ref:refs/tags/v1.2.3"},
		"the repository opts out":       {[]put{{org, map[string]any{"use_immutable_subject": true}}, {shop, map[string]any{"use_default": true, "use_immutable_subject": false}}}, "repo:acme/shop:ref:refs/tags/v1.2.3"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, withKey(t, simgithub.Config{}), func(t *testing.T, w *world) {
				for _, p := range test.puts {
					if status, _, _ := w.raw("PUT", p.path, "Bearer "+pat, p.body); status != http.StatusCreated {
						t.Fatalf("PUT %s = %d", p.path, status)
					}
				}
				sub := claimsOf(t, w)["sub"].(string)
				_, _, shown := w.raw("GET", shop, "Bearer "+pat, nil)
				prefix, _ := shown["sub_claim_prefix"].(string)
				if sub != test.sub || strings.Contains(sub, "repo:") && !strings.HasPrefix(sub, prefix) || shown["use_immutable_subject"] != strings.Contains(prefix, "@") {
					t.Errorf("sub = %s, shown as %v, want %s", sub, shown, test.sub)
				}
			})
		})
	}
}

// docs: "If the environment claim is included (also via include_claim_keys), an
// environment is required and must be provided."
func TestASubjectNeedsItsClaims(t *testing.T) {
	bubble(t, simgithub.Config{}, func(t *testing.T, w *world) {
		w.sim.SetSubject("shop", &simgithub.SubjectTemplate{Keys: []string{"repo", "environment"}})
		c := w.session()
		w.dispatch(nil)
		w.take(c, 1)
		_, jit := w.jit("r1")
		w.start(t.Context(), jit, func(_ context.Context, env map[string]string) error {
			status, _, body := w.raw("GET", env["ACTIONS_ID_TOKEN_REQUEST_URL"]+"&audience=ward", "Bearer "+env["ACTIONS_ID_TOKEN_REQUEST_TOKEN"], nil)
			if status != http.StatusBadRequest {
				t.Errorf("a token without the claim environment = %d %v, want 400", status, body)
			}
			return nil
		})()
	})
}

func TestAnIssuerPublishesItsOwnDocument(t *testing.T) {
	bubble(t, simgithub.Config{Enterprise: "octo", EnterpriseIssuer: true}, func(t *testing.T, w *world) {
		for _, issuer := range []string{"http://ghes.test/oidc", "http://ghes.test/oidc/octo"} {
			_, _, doc := w.raw("GET", issuer+"/.well-known/openid-configuration", "", nil)
			_, _, keys := w.raw("GET", issuer+"/.well-known/jwks", "", nil)
			if doc["issuer"] != issuer || doc["jwks_uri"] != issuer+"/.well-known/jwks" || len(keys["keys"].([]any)) != 1 {
				t.Errorf("issuer %s publishes %v with keys %v", issuer, doc, keys)
			}
		}
	})
}

func TestTokensLiveAsLongAsConfigured(t *testing.T) {
	bubble(t, simgithub.Config{AdminTokenTTL: 90 * time.Second, OIDCTokenTTL: 42 * time.Second}, func(t *testing.T, w *world) {
		admin := "Bearer " + w.adminToken()
		sleep(89 * time.Second)
		if status, _, _ := w.raw("GET", sets+"/1", admin, nil); status != http.StatusOK {
			t.Errorf("an admin token of 89 s = %d, want 200", status)
		}
		sleep(time.Second)
		if status, _, _ := w.raw("GET", sets+"/1", admin, nil); status != http.StatusUnauthorized {
			t.Errorf("an admin token of 90 s = %d, want 401", status)
		}
		c := claimsOf(t, w)
		if life := c["exp"].(float64) - c["iat"].(float64); life != 42 {
			t.Errorf("an ID token lives %v s, want 42", life)
		}
	})
}
