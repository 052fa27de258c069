package simgithub

import (
	"cmp"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const oidcPath = "/oidc"

type signingKey struct {
	id  string
	key *rsa.PrivateKey
}

// Issuer is the issuer of ID tokens: the base URL with /oidc, and behind it the
// enterprise if it has an issuer of its own.
func (s *Server) Issuer() string {
	if s.cfg.EnterpriseIssuer {
		return s.commonIssuer() + "/" + s.cfg.Enterprise
	}
	return s.commonIssuer()
}

func (s *Server) commonIssuer() string { return s.cfg.BaseURL + oidcPath }

func (s *Server) routeOIDC() {
	at := []string{s.commonIssuer()}
	if s.cfg.EnterpriseIssuer {
		at = append(at, s.Issuer()) // the common one stays, for everybody else
	}
	for _, issuer := range at {
		path := strings.TrimPrefix(issuer, s.cfg.BaseURL)
		s.mux.HandleFunc("GET "+path+"/.well-known/openid-configuration", s.public(discovery(issuer)))
		s.mux.HandleFunc("GET "+path+"/.well-known/jwks", s.public(s.jwks))
		s.mux.HandleFunc("GET "+path+"/idtoken/{plan}/{job}", s.allow(s.idToken, kindJob))
	}
}

func (s *Server) public(h func(*http.Request) answer) http.HandlerFunc {
	return s.allow(h, kindAnonymous, kindUnknown, kindApp, kindInstallation, kindToken,
		kindRegistration, kindAdmin, kindQueue, kindRunner, kindJob)
}

// RotateKeys makes a new signing key. Its predecessor stays published, older
// ones do not.
func (s *Server) RotateKeys() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.signing()
	s.newKey()
}

func (s *Server) newKey() {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err) // only for an impossible size
	}
	s.keys = append([]signingKey{{newGUID(), key}}, s.keys...)
	s.keys = s.keys[:min(len(s.keys), 2)]
}

// signing is the current key, made when it is first needed: a key costs more
// time than most tests.
func (s *Server) signing() signingKey {
	switch {
	case len(s.keys) > 0:
	case s.cfg.SigningKey != nil:
		s.keys = []signingKey{{newGUID(), s.cfg.SigningKey}}
	default:
		s.newKey()
	}
	return s.keys[0]
}

// discovery is the document of one issuer.
func discovery(issuer string) func(*http.Request) answer {
	return func(*http.Request) answer {
		return ok(map[string]any{
			"issuer": issuer, "jwks_uri": issuer + "/.well-known/jwks",
			"subject_types_supported":  []string{"public", "pairwise"},
			"response_types_supported": []string{"id_token"},
			"claims_supported": []string{
				"sub", "aud", "exp", "iat", "iss", "jti", "nbf", "ref", "sha", "repository", "repository_id",
				"repository_owner", "repository_owner_id", "run_id", "run_number", "run_attempt", "actor", "actor_id",
				"workflow", "workflow_ref", "workflow_sha", "head_ref", "base_ref", "event_name", "ref_type", "ref_protected",
				"environment", "job_workflow_ref", "job_workflow_sha", "repository_visibility", "runner_environment",
				"check_run_id", "enterprise", "enterprise_id",
			},
			"id_token_signing_alg_values_supported": []string{"RS256"},
			"scopes_supported":                      []string{"openid"},
		})
	}
}

func (s *Server) jwks(*http.Request) answer {
	s.signing()
	var set jose.JSONWebKeySet
	for _, k := range s.keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: &k.key.PublicKey, KeyID: k.id, Algorithm: "RS256", Use: "sig"})
	}
	return ok(set)
}

// idToken mints a token for the job that the request token belongs to, while
// it is in progress (actions/runner JobRunner.cs waits for that).
func (s *Server) idToken(r *http.Request) answer {
	j := s.state.job(callerOf(r).cred.job)
	if j == nil || j.JobID != r.PathValue("job") || j.planID != r.PathValue("plan") || !j.run.spec.IDToken {
		return vssError(http.StatusNotFound, "TaskOrchestrationJobNotFoundException", "no such job")
	}
	if j.Status != "in_progress" {
		return vssError(http.StatusForbidden, "InvalidOperationException", "the job is not in progress")
	}
	audience := cmp.Or(r.URL.Query().Get("audience"), s.cfg.BaseURL+"/"+s.cfg.Org)
	claims := s.claims(j, audience)
	sub, missing := s.subject(j, claims)
	if missing != "" {
		// docs: "If the environment claim is included (also via include_claim_keys),
		// an environment is required and must be provided." Status and name of the
		// refusal, and that other claims are treated alike, are assumed.
		return vssError(http.StatusBadRequest, "VssPropertyValidationException", "the token has no claim "+missing+" to put into its subject")
	}
	claims["sub"] = sub
	token, err := s.sign(claims)
	if err != nil {
		return vssError(http.StatusInternalServerError, "Exception", err.Error())
	}
	j.IDTokens++
	return ok(map[string]any{"count": 1, "value": token})
}

func (s *Server) sign(claims map[string]any) (string, error) {
	k := s.signing()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: k.key, KeyID: k.id}},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

// claims are those of a self-hosted job, without sub; every id is a string.
// https://docs.github.com/en/actions/reference/security/oidc
func (s *Server) claims(j *job, audience string) map[string]any {
	r, now := j.run, time.Now()
	id := func(n int64) string { return strconv.FormatInt(n, 10) }
	repository := s.fullName(r.repo)
	refType := "branch"
	if r.spec.Tag != "" {
		refType = "tag"
	}
	c := map[string]any{
		"iss": s.Issuer(), "aud": audience, "jti": newGUID(),
		"iat": now.Unix(), "nbf": now.Add(-5 * time.Minute).Unix(), "exp": now.Add(s.cfg.OIDCTokenTTL).Unix(),
		"actor": r.actor.login,
		"ref":   r.ref(), "ref_type": refType, "sha": r.spec.HeadSHA, "base_ref": "", "head_ref": "",
		"actor_id": id(r.actor.id), "check_run_id": id(j.CheckRunID), "event_name": r.spec.Event,
		"job_workflow_ref": s.jobWorkflowRef(j), "job_workflow_sha": j.attempt.workflowSHA,
		"repository": repository, "repository_id": id(r.repo.id), "repository_owner": s.cfg.Org,
		"repository_owner_id": id(s.cfg.OrgID), "repository_visibility": "private",
		"run_id": id(r.id), "run_number": id(r.number), "run_attempt": id(j.RunAttempt),
		"runner_environment": "self-hosted", "workflow": r.spec.WorkflowPath,
		"workflow_ref": s.workflowRef(r), "workflow_sha": r.spec.HeadSHA,
	}
	if j.env != nil {
		c["environment"] = j.env.Name
	}
	if s.cfg.Enterprise != "" {
		c["enterprise"], c["enterprise_id"] = s.cfg.Enterprise, id(s.cfg.EnterpriseID)
	}
	if r.ofPull() {
		c["base_ref"], c["head_ref"] = "main", "topic" // as the API shows it
	}
	s.propertyClaims(r.repo, c)
	c["ref_protected"] = strconv.FormatBool(r.refProtected())
	return c
}

// propertyClaims adds the custom properties that the organization includes and
// the repository has a value for.
// https://docs.github.com/en/actions/reference/security/oidc#including-repository-custom-properties-in-oidc-tokens
func (s *Server) propertyClaims(r *repo, c map[string]any) {
	for _, name := range s.claimedProperties {
		if value, has := r.properties[name]; has {
			c["repo_property_"+name] = value
		}
	}
}

func (s *Server) workflowRef(r *run) string {
	return s.fullName(r.repo) + "/" + r.spec.WorkflowPath + "@" + r.ref()
}

// jobWorkflowRef is the workflow that defines the job, with its full ref.
func (s *Server) jobWorkflowRef(j *job) string {
	if w, isReusable := parseWorkflow(j.run.spec.JobWorkflowRef); isReusable {
		return w.String()
	}
	return s.workflowRef(j.run)
}
