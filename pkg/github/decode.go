package github

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/runnerward/runnerward/pkg/runner"
)

// The documents below hold what we read of an answer. A pointer tells an
// absent field from a zero one.

// decode reads one document. A body without one is malformed: go-github would
// hand out an empty value for it.
func decode(body []byte, v any) error {
	body = bytes.TrimSpace(body)
	if len(body) == 0 || bytes.Equal(body, []byte("null")) {
		return errMalformed
	}
	err := json.Unmarshal(body, v)
	if odd, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && odd.Field != "" {
		// Its name is one of ours, its value is not repeated.
		return fmt.Errorf("%w: %s is of another type", errMalformed, odd.Field)
	}
	if err != nil {
		return errMalformed
	}
	return nil
}

type account struct {
	ID    int64  `json:"id"`
	Login string `json:"login"`
	Type  string `json:"type"`
}

// person is nil for an account that is absent or has no id.
func (a *account) person() *runner.Person {
	if a == nil || a.ID <= 0 || a.Login == "" {
		return nil
	}
	return &runner.Person{ID: a.ID, Login: a.Login, Type: a.Type}
}

// repository is https://docs.github.com/en/rest/repos/repos#get-a-repository.
type repository struct {
	ID       int64    `json:"id"`
	FullName string   `json:"full_name"`
	Owner    *account `json:"owner"`
}

func decodeRepository(body []byte) (repository, error) {
	var r repository
	if err := decode(body, &r); err != nil {
		return r, err
	}
	return r, r.check()
}

func (r repository) check() error {
	if r.ID <= 0 || r.FullName == "" || r.Owner == nil || r.Owner.ID <= 0 {
		return errMalformed
	}
	return nil
}

// run is https://docs.github.com/en/rest/actions/workflow-runs#get-a-workflow-run,
// also of one attempt. go-github v60 has no path.
type run struct {
	ID              int64                `json:"id"`
	Attempt         int64                `json:"run_attempt"`
	Event           string               `json:"event"`
	HeadBranch      string               `json:"head_branch"`
	HeadSHA         string               `json:"head_sha"`
	Path            string               `json:"path"`
	Repository      *repository          `json:"repository"`
	Actor           *account             `json:"actor"`
	TriggeringActor *account             `json:"triggering_actor"`
	Referenced      []referencedWorkflow `json:"referenced_workflows"`
}

type referencedWorkflow struct {
	Path string `json:"path"`
	SHA  string `json:"sha"`
	Ref  string `json:"ref"`
}

// fullRef is the workflow as the claim job_workflow_ref has it: path keeps the ref
// as the caller wrote it, ref is the full one, which is absent when the caller
// pinned a commit.
func (x referencedWorkflow) fullRef() string {
	if x.Ref == "" {
		return x.Path
	}
	file, _, _ := strings.Cut(x.Path, "@")
	return file + "@" + x.Ref
}

func decodeRun(body []byte) (run, error) {
	var r run
	if err := decode(body, &r); err != nil {
		return r, err
	}
	if r.ID <= 0 || r.Attempt <= 0 || r.HeadSHA == "" || r.Event == "" || r.Path == "" || r.Repository == nil ||
		r.Actor.person() == nil || r.TriggeringActor.person() == nil {
		return r, errMalformed
	}
	// Some answers show the path with its ref.
	r.Path, _, _ = strings.Cut(r.Path, "@")
	return r, r.Repository.check()
}

// workflow finds the commit of the workflow that a job is defined in. ref is
// what the queue said, as the claim job_workflow_ref has it. The SHA stays
// empty when the run refers to no such workflow.
func (r run) workflow(repository, ref, jobRef string) runner.Workflow {
	if ref == "" {
		ref = r.HeadSHA // a name that is right and that no catalogue lists
	}
	own := repository + "/" + r.Path + "@" + ref
	if jobRef == "" {
		// What the job runs is unknown; its own workflow is the best name for it.
		return runner.Workflow{Ref: own}
	}
	w := runner.Workflow{Ref: jobRef}
	if jobRef == own {
		w.SHA = r.HeadSHA
		return w
	}
	for _, x := range r.Referenced {
		if jobRef == x.fullRef() {
			if w.SHA != "" && w.SHA != x.SHA {
				return runner.Workflow{Ref: jobRef}
			}
			w.SHA = x.SHA
		}
	}
	return w
}

// referenced are the reusable workflows of the run.
func (r run) referenced() []runner.Workflow {
	var out []runner.Workflow
	for _, x := range r.Referenced {
		out = append(out, runner.Workflow{Ref: x.fullRef(), SHA: x.SHA})
	}
	return out
}

// review is https://docs.github.com/en/rest/actions/workflow-runs#get-the-review-history-for-a-workflow-run.
// It has no time, attempt or job. The comment is free text and not read.
type review struct {
	State        string   `json:"state"`
	User         *account `json:"user"`
	Environments []struct {
		ID   int64  `json:"id"`
		Name string `json:"name"`
	} `json:"environments"`
}

// verdict is one account's review of one environment.
type verdict struct {
	by    runner.Person
	state string
}

// decodeApprovals returns the reviews of the environment, in GitHub's order.
func decodeApprovals(body []byte, environment int64) ([]verdict, error) {
	var list []review
	if err := decode(body, &list); err != nil {
		return nil, err
	}
	var out []verdict
	for _, r := range list {
		for _, e := range r.Environments {
			if e.ID != environment || r.State != "approved" && r.State != "rejected" {
				continue
			}
			by := r.User.person()
			if by == nil {
				// Nobody can be held to a review whose account is gone.
				return nil, errors.New("a review names no account")
			}
			out = append(out, verdict{*by, r.State})
		}
	}
	return out, nil
}

// environment is https://docs.github.com/en/rest/deployments/environments.
// go-github v60 panics over a reviewer without a type and refuses the whole
// answer for an unknown one.
type environment struct {
	ID    int64   `json:"id"`
	Name  string  `json:"name"`
	Rules *[]rule `json:"protection_rules"`
}

type rule struct {
	Type              string      `json:"type"`
	PreventSelfReview *bool       `json:"prevent_self_review"`
	Reviewers         *[]reviewer `json:"reviewers"`
}

type reviewer struct {
	Type     string `json:"type"`
	Reviewer *struct {
		Slug string `json:"slug"`
	} `json:"reviewer"`
}

func decodeEnvironment(body []byte) (*runner.Environment, error) {
	var e environment
	if err := decode(body, &e); err != nil {
		return nil, err
	}
	if e.ID <= 0 || e.Name == "" {
		return nil, errMalformed
	}
	out := &runner.Environment{ID: e.ID, Name: e.Name}
	if e.Rules == nil {
		return out, nil // absent rules say nothing about reviewers
	}
	out.HasReviewers, out.PreventSelfReview = new(false), new(false)
	for _, r := range *e.Rules {
		if r.Type != "required_reviewers" {
			continue
		}
		out.PreventSelfReview = r.PreventSelfReview
		if r.Reviewers == nil {
			out.HasReviewers = nil
			continue
		}
		teams, all := reviewerTeams(*r.Reviewers)
		out.HasReviewers = new(len(*r.Reviewers) > 0)
		out.ReviewerTeams, out.ReviewersAllTeams = teams, all
	}
	return out, nil
}

// reviewerTeams are the slugs of the reviewing teams, and whether all
// reviewers are teams: nil when one of them is of no type that we know.
func reviewerTeams(reviewers []reviewer) ([]string, *bool) {
	var teams []string
	all := new(true)
	for _, r := range reviewers {
		switch {
		case r.Type == "Team" && r.Reviewer != nil && r.Reviewer.Slug != "":
			teams = append(teams, r.Reviewer.Slug)
		case r.Type == "User":
			return teams, new(false)
		default:
			all = nil
		}
	}
	return teams, all
}

// group is https://docs.github.com/en/rest/actions/self-hosted-runner-groups.
// inherited_allows_public_repositories is not in go-github v60.
type group struct {
	ID                    int64    `json:"id"`
	Name                  string   `json:"name"`
	Visibility            string   `json:"visibility"`
	AllowsPublic          *bool    `json:"allows_public_repositories"`
	InheritedAllowsPublic *bool    `json:"inherited_allows_public_repositories"`
	RestrictedToWorkflows *bool    `json:"restricted_to_workflows"`
	SelectedWorkflows     []string `json:"selected_workflows"`
}

// decodeGroups reads one page of the list.
func decodeGroups(body []byte) ([]group, error) {
	var page struct {
		Groups *[]group `json:"runner_groups"`
	}
	if err := decode(body, &page); err != nil || page.Groups == nil {
		return nil, errMalformed
	}
	for _, g := range *page.Groups {
		if g.ID <= 0 || g.Name == "" {
			return nil, errMalformed
		}
	}
	return *page.Groups, nil
}

// decodeRepositoryIDs reads one page of a group's repositories.
func decodeRepositoryIDs(body []byte) ([]int64, error) {
	var page struct {
		Repositories *[]struct {
			ID int64 `json:"id"`
		} `json:"repositories"`
	}
	if err := decode(body, &page); err != nil || page.Repositories == nil {
		return nil, errMalformed
	}
	var ids []int64
	for _, r := range *page.Repositories {
		if r.ID <= 0 {
			return nil, errMalformed
		}
		ids = append(ids, r.ID)
	}
	return ids, nil
}

// job is https://docs.github.com/en/rest/actions/workflow-jobs.
type job struct {
	RunID       int64    `json:"run_id"`
	Status      string   `json:"status"`
	CheckRunURL string   `json:"check_run_url"`
	Labels      []string `json:"labels"`
	Group       *string  `json:"runner_group_name"`
}

func decodeJobs(body []byte) ([]job, error) {
	var page struct {
		Jobs *[]job `json:"jobs"`
	}
	if err := decode(body, &page); err != nil || page.Jobs == nil {
		return nil, errMalformed
	}
	return *page.Jobs, nil
}

// checkRun is the number at the end of check_run_url, as in the claim
// check_run_id; 0 when there is none.
func (j job) checkRun() int64 {
	_, number, found := strings.Cut(j.CheckRunURL, "/check-runs/")
	id, err := strconv.ParseInt(number, 10, 64)
	if !found || err != nil || id < 0 {
		return 0
	}
	return id
}

// decodeAuthor is the account of a commit's author, nil when GitHub knows none.
// https://docs.github.com/en/rest/commits/commits#get-a-commit
func decodeAuthor(body []byte, sha string) (*runner.Person, error) {
	var c struct {
		SHA    string   `json:"sha"`
		Author *account `json:"author"`
	}
	if err := decode(body, &c); err != nil {
		return nil, err
	}
	if c.SHA != sha {
		return nil, fmt.Errorf("%w: another commit", errMalformed)
	}
	return c.Author.person(), nil
}

// object is what a git reference or an annotated tag points at.
// https://docs.github.com/en/rest/git/refs#get-a-reference
type object struct {
	Type string `json:"type"`
	SHA  string `json:"sha"`
}

func decodeObject(body []byte) (object, error) {
	var r struct {
		Object *object `json:"object"`
	}
	if err := decode(body, &r); err != nil || r.Object == nil || r.Object.SHA == "" {
		return object{}, errMalformed
	}
	return *r.Object, nil
}
