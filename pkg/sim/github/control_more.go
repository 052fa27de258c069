package simgithub

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// worldControls change what people and machines around GitHub change: its
// clock, runners, a runner group, what a repository holds.
func worldControls() []Control {
	return []Control{
		{"GET", "state", "all that the simulator knows, without credentials", ``, func(s *Server, _ *http.Request) (any, error) { return s.Dump(), nil }},
		{"POST", "clock/advance", "move the simulator's clock ahead: all that falls due happens", `{"by":"10m"}`, advance},
		{"POST", "runners/connect", "run a stand-in for the runner of a JIT config, or of a registered name, inside the simulator", `{"name":"runner-1"}`, connectRunner},
		{"POST", "runners/{name}/stop", "send a stand-in SIGTERM, or kill it without a word", `{"kill":true}`, func(s *Server, r *http.Request) (any, error) {
			in, err := strictly[struct{ Kill bool }](r)
			if err != nil {
				return nil, err
			}
			return done{}, s.StopRunner(r.PathValue("name"), in.Kill)
		}},
		{"PATCH", "groups/{group}", "rename, open or restrict a runner group; what is left out stays", `{"Name":"renamed","Visibility":"all","RestrictedToWorkflows":false}`, patchGroup},
		{"POST", "jobs/{job}/forge", "queue a message about a job that does not fit its life", `{"type":"JobCompleted","result":"canceled"}`, forge},
		{"POST", "tags", "push a tag of a repository as an account", `{"repository":"shop","tag":"v1.0.0","sha":"1111111111111111111111111111111111111111","by":"alice"}`, pushTag},
		{"POST", "tags/annotate", "turn a tag into an annotated one", `{"repository":"shop","tag":"v1.0.0","by":"alice","message":"release"}`, annotateTag},
		{"POST", "branches", "push a branch of a repository as an account", `{"repository":"shop","branch":"main","sha":"1111111111111111111111111111111111111111","by":"alice"}`, pushBranch},
		{"POST", "properties", "replace a repository's custom properties; claims are those that ID tokens of the organization show", `{"repository":"shop","properties":{"team":"payments"},"claims":["team"]}`, setProperties},
		{"POST", "rulesets", "add a ruleset to a repository", `{"repository":"shop","name":"tags","target":"tag","enforcement":"active","include":["~ALL"],"rules":["update","deletion"]}`, addRuleset},
		{"POST", "files", "put a file into a repository at a ref", `{"repository":"shop","ref":"refs/tags/v1.0.0","path":"README.md","content":"text"}`, addFile},
		{"POST", "subjects", "say how sub of a repository's ID tokens is made; default gives it back to GitHub's", `{"repository":"shop","keys":["repo","context","job_workflow_ref"],"immutable":true}`, setSubject},
		{"POST", "pulls", "say that a merged pull request of an account brought a commit", `{"repository":"shop","sha":"1111111111111111111111111111111111111111","author":"alice"}`, addPull},
		{"POST", "saml", "say whom the identity provider knows an account as", `{"login":"alice","nameId":"alice@corp.example"}`, func(s *Server, r *http.Request) (any, error) {
			in, err := strictly[struct{ Login, NameID string }](r)
			if err == nil {
				s.SetSAML(in.Login, in.NameID)
			}
			return done{}, err
		}},
	}
}

func advance(s *Server, r *http.Request) (any, error) {
	in, err := strictly[struct{ By span }](r)
	if err != nil {
		return nil, err
	}
	now, err := s.Advance(time.Duration(in.By))
	return map[string]time.Time{"now": now}, err
}

func connectRunner(s *Server, r *http.Request) (any, error) {
	in, err := strictly[StandIn](r)
	if err != nil {
		return nil, err
	}
	return done{}, s.ConnectRunner(r.Context(), in)
}

func patchGroup(s *Server, r *http.Request) (any, error) {
	in, err := strictly[struct {
		Name, Visibility                    *string
		Repositories, Workflows             *[]string
		RestrictedToWorkflows, AllowsPublic *bool
	}](r)
	if err != nil {
		return nil, err
	}
	id, err := strconv.ParseInt(r.PathValue("group"), 10, 64)
	if err != nil {
		return nil, errors.New("the group is not a number")
	}
	return done{}, s.UpdateGroup(id, func(g *Group) {
		put(&g.Name, in.Name)
		put(&g.Visibility, in.Visibility)
		put(&g.Repositories, in.Repositories)
		put(&g.Workflows, in.Workflows)
		put(&g.RestrictedToWorkflows, in.RestrictedToWorkflows)
		put(&g.AllowsPublic, in.AllowsPublic)
	})
}

// put sets what was given.
func put[T any](to, given *T) {
	if given != nil {
		*to = *given
	}
}

func forge(s *Server, r *http.Request) (any, error) {
	in, err := strictly[struct{ Type, Result string }](r)
	if err != nil {
		return nil, err
	}
	if in.Type == "" {
		return nil, errors.New("type is missing: JobAvailable, JobAssigned, JobStarted or JobCompleted")
	}
	if !s.Forge(r.PathValue("job"), in.Type, in.Result) {
		return nil, fmt.Errorf("job %s is unknown or assigned to no scale set", r.PathValue("job"))
	}
	return done{}, nil
}

func pushTag(s *Server, r *http.Request) (any, error) {
	in, err := strictly[struct{ Repository, Tag, SHA, By string }](r)
	switch {
	case err != nil:
		return nil, err
	case in.Repository == "" || in.Tag == "" || in.By == "" || !isSHA(in.SHA):
		return nil, errors.New("repository, tag, by and a sha of 40 hexadecimal digits are wanted")
	}
	s.PushTag(in.Repository, in.Tag, in.SHA, in.By)
	return done{}, nil
}

func addRuleset(s *Server, r *http.Request) (any, error) {
	in, err := strictly[struct {
		Repository string
		Ruleset
	}](r)
	switch {
	case err != nil:
		return nil, err
	case in.Repository == "" || in.Target != "tag" && in.Target != "branch":
		return nil, errors.New("repository and target, which is tag or branch, are wanted")
	}
	return map[string]int64{"id": s.AddRuleset(in.Repository, in.Ruleset)}, nil
}

func addFile(s *Server, r *http.Request) (any, error) {
	in, err := strictly[struct{ Repository, Ref, Path, Content string }](r)
	switch {
	case err != nil:
		return nil, err
	case in.Repository == "" || in.Ref == "" || in.Path == "":
		return nil, errors.New("repository, ref and path are wanted")
	}
	s.AddFile(in.Repository, in.Ref, in.Path, in.Content)
	return done{}, nil
}

func setSubject(s *Server, r *http.Request) (any, error) {
	in, err := strictly[struct {
		Repository         string
		Keys               []string
		Immutable, Default bool
	}](r)
	switch {
	case err != nil:
		return nil, err
	case in.Repository == "" || !claimKeys(in.Keys):
		return nil, errors.New("repository is wanted, and keys of letters, digits and underscores")
	case in.Default:
		s.SetSubject(in.Repository, nil)
	default:
		s.SetSubject(in.Repository, &SubjectTemplate{Keys: in.Keys, Immutable: in.Immutable})
	}
	return done{}, nil
}

func addPull(s *Server, r *http.Request) (any, error) {
	in, err := strictly[struct{ Repository, SHA, Author string }](r)
	switch {
	case err != nil:
		return nil, err
	case in.Repository == "" || in.Author == "" || !isSHA(in.SHA):
		return nil, errors.New("repository, author and a sha of 40 hexadecimal digits are wanted")
	}
	s.AddPull(in.Repository, in.SHA, in.Author)
	return done{}, nil
}
