package simgithub

import (
	"fmt"
	"strings"
)

// AddUser adds an account and returns its id; one that exists keeps its id.
func (s *Server) AddUser(login string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addUser(login).id
}

func (s *Server) addUser(login string) *user {
	key := strings.ToLower(login)
	if u := s.state.users[key]; u != nil {
		return u
	}
	u := &user{id: s.state.nextUser, login: login}
	s.state.nextUser++
	s.state.users[key] = u
	return u
}

// AddTeam adds a team or replaces its members; accounts that do not exist yet
// are added.
func (s *Server) AddTeam(slug string, members ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.state.teams[slug]
	if t == nil {
		t = &team{id: s.state.nextTeam, slug: slug}
		s.state.nextTeam++
		s.state.teams[slug] = t
	}
	t.members = nil
	for _, m := range members {
		t.members = append(t.members, s.addUser(m))
	}
}

// AddRepository adds a private repository to the organization and returns its
// id; one that exists keeps its id.
func (s *Server) AddRepository(name string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addRepo(name).id
}

func (s *Server) addRepo(name string) *repo {
	name = s.shortName(name)
	key := strings.ToLower(name)
	if r := s.state.repos[key]; r != nil {
		return r
	}
	r := &repo{
		id: s.state.nextRepo, name: name, envs: map[string]*environment{},
		tags: map[string]string{}, commits: map[string]*user{},
	}
	s.state.nextRepo++
	s.state.repos[key] = r
	return r
}

// shortName strips the organization off a full name.
func (s *Server) shortName(name string) string {
	if owner, rest, ok := strings.Cut(name, "/"); ok && strings.EqualFold(owner, s.cfg.Org) {
		return rest
	}
	return name
}

func (s *Server) fullName(r *repo) string { return s.cfg.Org + "/" + r.name }

// AddGroup adds a runner group, or replaces the one of this name, and returns
// its id.
func (s *Server) AddGroup(g Group) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g.Visibility == "" {
		g.Visibility = "selected"
	}
	defer s.changed()
	if old := s.state.groupByName(g.Name); old != nil {
		old.Group = g
		return old.id
	}
	n := &group{id: s.state.nextGroup, Group: g}
	s.state.nextGroup++
	s.state.groups[n.id] = n
	return n.id
}

// UpdateGroup changes a runner group, its name included, as an administrator
// would. It returns an error if there is no such group.
func (s *Server) UpdateGroup(id int64, change func(*Group)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.state.groups[id]
	if g == nil {
		return fmt.Errorf("no runner group %d", id)
	}
	change(&g.Group)
	s.changed()
	return nil
}

// SetEnvironment adds or replaces an environment of a repository, which is
// added if it does not exist, and returns the environment's id.
func (s *Server) SetEnvironment(repository string, e Environment) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.setEnvironment(s.addRepo(repository), e).id
}

func (s *Server) setEnvironment(r *repo, e Environment) *environment {
	key := strings.ToLower(e.Name)
	if old := r.envs[key]; old != nil {
		old.Environment = e
		return old
	}
	n := &environment{Environment: e, id: s.state.nextEnv, created: s.now()}
	s.state.nextEnv++
	r.envs[key] = n
	return n
}

// SetWorkflowTag makes a reusable workflow's ref (owner/repo/path@refs/tags/T
// or @T) resolve to sha from now on: it sets the tag T of that repository.
// Calling it again moves the tag.
func (s *Server) SetWorkflowTag(ref, sha string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w, ok := parseWorkflow(ref)
	if !ok {
		return
	}
	r := s.addRepo(w.owner + "/" + w.repo)
	r.tags[strings.TrimPrefix(w.ref, "refs/tags/")] = sha
	if _, known := r.commits[sha]; !known {
		r.commits[sha] = nil
	}
}

// workflow is owner/repo/path@ref taken apart.
type workflow struct{ owner, repo, path, ref string }

func parseWorkflow(s string) (workflow, bool) {
	file, ref, ok := strings.Cut(s, "@")
	parts := strings.SplitN(file, "/", 3)
	if !ok || ref == "" || len(parts) != 3 {
		return workflow{}, false
	}
	return workflow{parts[0], parts[1], parts[2], ref}, true
}

// fullRef is the ref as the claim job_workflow_ref spells it.
func (w workflow) fullRef() string {
	if strings.HasPrefix(w.ref, "refs/") || isSHA(w.ref) {
		return w.ref
	}
	return "refs/tags/" + w.ref
}

// String is the form of the claim job_workflow_ref.
func (w workflow) String() string {
	return w.owner + "/" + w.repo + "/" + w.path + "@" + w.fullRef()
}

func isSHA(s string) bool {
	return len(s) == 40 && strings.Trim(s, "0123456789abcdef") == ""
}

// resolve is the commit that a workflow's ref stands for now.
func (s *Server) resolve(w workflow) (string, bool) {
	if isSHA(w.ref) {
		return w.ref, true
	}
	if !strings.EqualFold(w.owner, s.cfg.Org) {
		return "", false
	}
	r := s.state.repos[strings.ToLower(w.repo)]
	if r == nil {
		return "", false
	}
	sha, ok := r.tags[strings.TrimPrefix(w.fullRef(), "refs/tags/")]
	return sha, ok
}
