package simgithub

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// SubjectTemplate is how the claim sub of a repository's ID tokens is made.
// https://docs.github.com/en/actions/reference/security/oidc
type SubjectTemplate struct {
	// Keys are the claims that sub consists of, in this order; none is the
	// default, repo and context.
	Keys []string
	// Immutable writes names with their numeric ids, ORG@ID/REPO@ID: the
	// default of repositories since 15 July 2026.
	Immutable bool
}

// SetSubject sets the template of a repository; nil gives it back to GitHub's
// default. A template of the organization does nothing until a repository says
// so by use_default=false without keys of its own.
func (s *Server) SetSubject(repository string, t *SubjectTemplate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.addRepo(repository)
	r.subject, r.immutable = t, nil
	if t != nil {
		r.immutable = &t.Immutable
	}
}

// SetProperties replaces the custom properties of a repository. Those of several
// values are joined by commas, and a boolean is the text true or false, as ID
// tokens show them.
func (s *Server) SetProperties(repository string, properties map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addRepo(repository).properties = maps.Clone(properties)
}

// ClaimProperties says which custom properties of repositories ID tokens show.
func (s *Server) ClaimProperties(names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.claimedProperties = names
}

// isImmutable says that the subject holds ids beside names. A repository counts as
// made before 15 July 2026, when that was not the default yet.
func (s *Server) isImmutable(x *repo) bool {
	if x.immutable == nil {
		return s.orgImmutable
	}
	return *x.immutable
}

// subjectRepo is the repository as sub names it; keys do not take the ids away.
func (s *Server) subjectRepo(x *repo) string {
	if s.isImmutable(x) {
		return fmt.Sprintf("repo:%s@%d/%s@%d", s.cfg.Org, s.cfg.OrgID, x.name, x.id)
	}
	return "repo:" + s.fullName(x)
}

// subject is the claim sub of a job; missing names a claim that the template
// wants and the token does not have.
func (s *Server) subject(j *job, claims map[string]any) (sub, missing string) {
	x := j.run.repo
	var keys []string
	if x.subject != nil {
		if keys = x.subject.Keys; len(keys) == 0 {
			keys = s.orgSubject
		}
	}
	if len(keys) == 0 {
		keys = defaultSubject()
	}
	var parts []string
	for _, key := range keys {
		value, has := claims[key]
		switch {
		case key == "repo":
			parts = append(parts, s.subjectRepo(x))
		case key == "context":
			parts = append(parts, j.subjectContext())
		case !has:
			return "", key
		default:
			parts = append(parts, key+":"+escapeClaim(fmt.Sprint(value)))
		}
	}
	return strings.Join(parts, ":"), ""
}

func defaultSubject() []string { return []string{"repo", "context"} }

// subjectContext is what the job runs for: its environment, else a pull request, else
// the reference. docs, "Example subject claims".
func (j *job) subjectContext() string {
	switch {
	case j.env != nil:
		return "environment:" + escapeClaim(j.env.Name)
	case j.run.ofPull():
		return "pull_request"
	}
	return "ref:" + j.run.ref()
}

// escapeClaim keeps a value from looking like two: docs, "any : within the
// context values is replaced with %3A".
func escapeClaim(v string) string { return strings.ReplaceAll(v, ":", "%3A") }

// getSubject shows the template. https://docs.github.com/en/rest/actions/oidc
func (s *Server) getSubject(_ *http.Request, x *repo) answer {
	m := map[string]any{"use_default": x.subject == nil, "use_immutable_subject": s.isImmutable(x), "sub_claim_prefix": s.subjectRepo(x)}
	if x.subject != nil && len(x.subject.Keys) > 0 {
		m["include_claim_keys"] = x.subject.Keys
	}
	return ok(m)
}

// putSubject keeps the two settings apart: the default template may be immutable,
// and one that does not say whether it is stays what it was.
func (s *Server) putSubject(r *http.Request, x *repo) answer {
	var b struct {
		UseDefault *bool    `json:"use_default"`
		Keys       []string `json:"include_claim_keys"`
		Immutable  *bool    `json:"use_immutable_subject"`
	}
	if err := decode(r, &b); err != nil || b.UseDefault == nil || !claimKeys(b.Keys) {
		return restError(http.StatusUnprocessableEntity, "Invalid request")
	}
	x.subject = nil
	if !*b.UseDefault {
		x.subject = &SubjectTemplate{Keys: b.Keys}
	}
	if b.Immutable != nil {
		x.immutable = b.Immutable
	}
	return answer{status: http.StatusCreated, body: map[string]any{}}
}

func (s *Server) getOrgSubject(*http.Request) answer {
	keys := s.orgSubject
	if len(keys) == 0 {
		keys = defaultSubject()
	}
	return ok(map[string]any{"include_claim_keys": keys, "use_immutable_subject": s.orgImmutable})
}

func (s *Server) putOrgSubject(r *http.Request) answer {
	var b struct {
		Keys      []string `json:"include_claim_keys"`
		Immutable *bool    `json:"use_immutable_subject"`
	}
	if err := decode(r, &b); err != nil || len(b.Keys) == 0 && b.Immutable == nil || !claimKeys(b.Keys) {
		return restError(http.StatusUnprocessableEntity, "Invalid request")
	}
	if len(b.Keys) > 0 {
		s.orgSubject = b.Keys
	}
	if b.Immutable != nil {
		s.orgImmutable = *b.Immutable
	}
	return answer{status: http.StatusCreated, body: map[string]any{}}
}

// claimKeys says that the keys have letters, digits and underscores only, as
// GitHub wants them.
func claimKeys(keys []string) bool {
	return !slices.ContainsFunc(keys, func(k string) bool {
		return k == "" || strings.Trim(k, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != ""
	})
}
