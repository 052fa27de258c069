package simgithub

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Ruleset is a repository ruleset as far as it is simulated: which refs it is
// about and which kinds of rule it has.
type Ruleset struct {
	Name, Target, Enforcement string // tag or branch; active, evaluate or disabled
	Include, Exclude          []string
	Rules                     []string // update, deletion, non_fast_forward, ...
	// BypassMode is always, pull_request or exempt, for one team; empty for nobody.
	BypassMode string
}

type ruleset struct {
	Ruleset
	id      int64
	created time.Time
}

// AddRuleset adds a ruleset to a repository and returns its id.
func (s *Server) AddRuleset(repository string, r Ruleset) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.addRepo(repository)
	x.rulesets = append(x.rulesets, ruleset{r, 9000 + x.id%1000*10 + int64(len(x.rulesets)), s.now()})
	return x.rulesets[len(x.rulesets)-1].id
}

// showRuleset leaves out who may bypass it unless the caller may change it: docs,
// "bypass_actors is only returned if the user has write access to the ruleset".
// The details are shown for a single ruleset only.
func (s *Server) showRuleset(req *http.Request, x *repo, r ruleset, whole bool) map[string]any {
	url := s.rest3(fmt.Sprintf("/repos/%s/rulesets/%d", s.fullName(x), r.id))
	m := map[string]any{
		"id": r.id, "name": r.Name, "target": r.Target, "source_type": "Repository", "source": s.fullName(x), "enforcement": r.Enforcement,
		"node_id": fmt.Sprintf("RRS_%d", r.id), "created_at": stamp(r.created), "updated_at": stamp(r.created),
		"_links": map[string]any{"self": map[string]any{"href": url}, "html": map[string]any{"href": s.cfg.BaseURL + "/" + s.fullName(x) + "/rules/" + strconv.FormatInt(r.id, 10)}},
	}
	if !whole {
		return m
	}
	rules := []map[string]any{}
	for _, kind := range r.Rules {
		rules = append(rules, map[string]any{"type": kind})
	}
	m["rules"], m["current_user_can_bypass"] = rules, "never"
	m["conditions"] = map[string]any{"ref_name": map[string]any{"include": append([]string{}, r.Include...), "exclude": append([]string{}, r.Exclude...)}}
	if callerOf(req).kind == kindToken {
		actors := []map[string]any{}
		if r.BypassMode != "" {
			actors = append(actors, map[string]any{"actor_id": 301, "actor_type": "Team", "bypass_mode": r.BypassMode})
		}
		m["bypass_actors"] = actors
	}
	return m
}

func (s *Server) listRulesets(r *http.Request, x *repo) answer {
	out := []map[string]any{}
	for _, set := range x.rulesets {
		out = append(out, s.showRuleset(r, x, set, false))
	}
	return pageOf(s, r, out)
}

func (s *Server) getRuleset(r *http.Request, x *repo) answer {
	for _, set := range x.rulesets {
		if strconv.FormatInt(set.id, 10) == r.PathValue("ruleset") {
			return ok(s.showRuleset(r, x, set, true))
		}
	}
	return notFound()
}

// AddFile puts a file into a repository at a ref: a commit id, or a tag or branch
// by its full or short name.
func (s *Server) AddFile(repository, ref, path, content string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.addRepo(repository)
	if x.files == nil {
		x.files = map[string]string{}
	}
	x.files[shortRef(ref)+":"+path] = content
}

func shortRef(ref string) string {
	return strings.TrimPrefix(strings.TrimPrefix(ref, "refs/heads/"), "refs/tags/")
}

// getContent shows one file; folders are not simulated.
// https://docs.github.com/en/rest/repos/contents#get-repository-content
func (s *Server) getContent(r *http.Request, x *repo) answer {
	path, ref := r.PathValue("path"), r.URL.Query().Get("ref")
	if ref == "" {
		ref = "main"
	}
	content, found := x.files[shortRef(ref)+":"+path]
	if !found {
		return notFound()
	}
	id := gitID("blob", content)
	url := s.rest3("/repos/"+s.fullName(x)+"/contents/"+path) + "?ref=" + ref
	git := s.rest3("/repos/" + s.fullName(x) + "/git/blobs/" + id)
	html := s.cfg.BaseURL + "/" + s.fullName(x) + "/blob/" + ref + "/" + path
	name := path[strings.LastIndexByte(path, '/')+1:]
	return ok(map[string]any{
		"type": "file", "encoding": "base64", "size": len(content), "name": name, "path": path, "sha": id,
		"content": base64.StdEncoding.EncodeToString([]byte(content)) + "\n", "url": url, "git_url": git, "html_url": html,
		"download_url": s.cfg.BaseURL + "/raw/" + s.fullName(x) + "/" + ref + "/" + path,
		"_links":       map[string]any{"self": url, "git": git, "html": html},
	})
}
