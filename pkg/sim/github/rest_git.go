package simgithub

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// annotation is a tag object: what an annotated tag's reference names, instead of
// the commit itself.
type annotation struct {
	tag, commit, message string
	by                   *user
	at                   time.Time
}

// text is the object as git stores it.
func (a annotation) text() string {
	return fmt.Sprintf("object %s\ntype commit\ntag %s\ntagger %s <%s> %d +0000\n\n%s\n", a.commit, a.tag, a.by.login, address(a.by), a.at.Unix(), a.message)
}

func address(u *user) string { return u.login + "@users.noreply.github.com" }

// gitID names an object as git does.
func gitID(kind, text string) string {
	sum := sha1.Sum(fmt.Appendf(nil, "%s %d\x00%s", kind, len(text), text))
	return hex.EncodeToString(sum[:])
}

// AnnotateTag turns a tag into an annotated one and returns the id of the tag
// object. A tag that does not exist is an error.
func (s *Server) AnnotateTag(repository, tag, by, message string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.addRepo(repository)
	commit, found := r.tags[tag]
	if !found {
		return "", fmt.Errorf("%s has no tag %s", s.fullName(r), tag)
	}
	a := annotation{tag, commit, message, s.addUser(by), s.now()}
	id := gitID("tag", a.text())
	if r.annotations == nil {
		r.annotations = map[string]annotation{}
	}
	r.annotations[id] = a
	return id, nil
}

// PushBranch makes a branch name a commit, as a push by this account.
func (s *Server) PushBranch(repository, branch, sha, by string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.addRepo(repository)
	before, kind := strings.Repeat("0", 40), "branch_creation"
	if old, exists := r.branches[branch]; exists {
		before, kind = old, "push"
	}
	if r.branches == nil {
		r.branches = map[string]string{}
	}
	r.branches[branch] = sha
	if _, known := r.commits[sha]; !known {
		r.commits[sha] = s.addUser(by)
	}
	r.activities = append(r.activities, activity{"refs/heads/" + branch, before, sha, s.addUser(by), kind, s.now()})
}

// branch is the commit that a branch names. main, which every repository has,
// names the commit of its latest run until somebody pushes.
func (s *Server) branch(x *repo, name string) (string, bool) {
	if sha, found := x.branches[name]; found {
		return sha, true
	}
	latest := (*run)(nil)
	for _, id := range sortedKeys(s.state.runs) {
		if r := s.state.runs[id]; r.repo == x && r.ref() == "refs/heads/"+name {
			latest = r
		}
	}
	if latest == nil {
		return "", false
	}
	return latest.spec.HeadSHA, true
}

// tagObject is the object that a tag's reference names: the commit, or the tag
// object in between.
func (x *repo) tagObject(tag string) (kind, sha string, found bool) {
	commit, found := x.tags[tag]
	for id, a := range x.annotations {
		if a.tag == tag && a.commit == commit {
			return "tag", id, found
		}
	}
	return "commit", commit, found
}

// https://docs.github.com/en/rest/git/refs#get-a-reference
func (s *Server) getTagRef(r *http.Request, x *repo) answer {
	kind, sha, found := x.tagObject(r.PathValue("tag"))
	return s.showRef(x, "refs/tags/"+r.PathValue("tag"), kind, sha, found)
}

func (s *Server) getBranchRef(r *http.Request, x *repo) answer {
	sha, found := s.branch(x, r.PathValue("branch"))
	return s.showRef(x, "refs/heads/"+r.PathValue("branch"), "commit", sha, found)
}

func (s *Server) showRef(x *repo, ref, kind, sha string, found bool) answer {
	if !found {
		return notFound()
	}
	base := s.rest3("/repos/" + s.fullName(x) + "/git")
	return ok(map[string]any{
		"ref": ref, "node_id": "REF_" + sha[:8], "url": base + "/" + ref,
		"object": map[string]any{"type": kind, "sha": sha, "url": base + "/" + kind + "s/" + sha},
	})
}

// getTag shows a tag object. A commit is none.
// https://docs.github.com/en/rest/git/tags#get-a-tag
func (s *Server) getTag(r *http.Request, x *repo) answer {
	id := r.PathValue("sha")
	a, found := x.annotations[id]
	if !found {
		return notFound()
	}
	base := s.rest3("/repos/" + s.fullName(x) + "/git")
	return ok(map[string]any{
		"node_id": "TA_" + id[:8], "tag": a.tag, "sha": id, "url": base + "/tags/" + id, "message": a.message + "\n",
		"tagger":       map[string]any{"name": a.by.login, "email": address(a.by), "date": stamp(a.at)},
		"object":       map[string]any{"type": "commit", "sha": a.commit, "url": base + "/commits/" + a.commit},
		"verification": unsigned(),
	})
}

// unsigned is what GitHub says of the signature of an object that has none.
func unsigned() map[string]any {
	return map[string]any{"verified": false, "reason": "unsigned", "signature": nil, "payload": nil, "verified_at": nil}
}
