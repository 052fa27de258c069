package github

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/runnerward/runnerward/pkg/runner"
)

// maxConcurrent bounds the requests that one call has under way.
const maxConcurrent = 4

// Facts implements supervisor.GitHub. It asks for the run first, then for
// everything else at once, and fails when any of it stays unknown: what is
// unknown for a moment must not become a denial for good.
func (c *Client) Facts(ctx context.Context, offered runner.Offered, known []runner.Reviewed) (runner.Facts, []runner.Reviewed, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	q := query{Client: c, offered: offered, known: known, repo: "repos/" + offered.Repository, at: time.Now().UTC()}
	if err := q.askRun(ctx); err != nil {
		return runner.Facts{}, nil, err
	}
	g, groupCtx := errgroup.WithContext(ctx)
	g.SetLimit(maxConcurrent)
	for _, ask := range []func(context.Context) error{q.askReviews, q.askJobs, q.askRefAndPusher, q.askAuthor, q.askPulls, q.askGroup} {
		g.Go(func() error { return ask(groupCtx) })
	}
	if err := g.Wait(); err != nil {
		return runner.Facts{}, nil, err
	}
	fresh, err := q.attributeReviews(ctx)
	if err != nil {
		return runner.Facts{}, nil, err
	}
	f := q.facts()
	if err := runner.Validate(f); err != nil {
		return runner.Facts{}, nil, fmt.Errorf("facts of run %d: %w", offered.RunID, err)
	}
	return f, fresh, nil
}

// query is one call of Facts. Each ask method writes fields of its own.
type query struct {
	*Client
	offered runner.Offered
	known   []runner.Reviewed
	repo    string // path of the repository
	at      time.Time

	repository repository
	run        run
	env        *runner.Environment
	verdicts   []verdict
	approvals  []runner.Approval
	checkRun   int64
	ref        string
	pusher     *runner.Person
	author     *runner.Person
	pulls      []runner.Person
	group      *runner.Group
}

func (q *query) facts() runner.Facts {
	return runner.Facts{
		FetchedAt:    q.at,
		ServerURL:    q.server,
		Repository:   q.offered.Repository,
		RepositoryID: q.repository.ID,
		OwnerID:      q.repository.Owner.ID,
		RunID:        q.run.ID,
		RunAttempt:   q.run.Attempt,
		CheckRunID:   q.checkRun,
		Event:        q.run.Event,
		Ref:          q.ref,
		HeadSHA:      q.run.HeadSHA,
		WorkflowPath: q.run.Path,
		JobWorkflow:  q.run.workflow(q.repository.FullName, q.ref, q.offered.WorkflowRef),

		ReferencedWorkflows: q.run.referenced(),
		Actor:               *q.run.Actor.person(),
		TriggeringActor:     *q.run.TriggeringActor.person(),
		HeadAuthor:          q.author,
		TagPusher:           q.pusher,
		PullAuthors:         q.pulls,
		Environment:         q.env,
		Approvals:           q.approvals,
		Group:               q.group,
	}
}

// askRun finds the repository and the latest attempt of the run. The queue
// names no attempt, but only the latest one can have jobs to offer.
func (q *query) askRun(ctx context.Context) error {
	if err := runner.Validate(q.offered); err != nil {
		return &Error{Op: "read run", Cause: err}
	}
	var err error
	if q.repository, err = ask(ctx, q.Client, "read repository", q.repo, decodeRepository); err != nil {
		return err
	}
	latest, err := ask(ctx, q.Client, "read run", q.runPath(), decodeRun)
	if err != nil {
		return err
	}
	q.run, err = ask(ctx, q.Client, "read run attempt", q.attemptPath(latest.Attempt), decodeRun)
	if err != nil {
		return err
	}
	switch {
	case !strings.EqualFold(q.repository.FullName, q.offered.Repository):
		return &Error{Op: "read repository", Cause: errors.New("GitHub answered about a repository of another name")}
	case q.run.Repository.ID != q.repository.ID || q.run.Repository.Owner.ID != q.repository.Owner.ID:
		return &Error{Op: "read run", Cause: errors.New("the run is of another repository")}
	case q.run.ID != q.offered.RunID || latest.ID != q.run.ID || q.run.Attempt != latest.Attempt || q.run.HeadSHA != latest.HeadSHA:
		return &Error{Op: "read run", Cause: errors.New("GitHub contradicts itself about the run")}
	}
	return nil
}

func (q *query) runPath() string { return fmt.Sprintf("%s/actions/runs/%d", q.repo, q.offered.RunID) }

func (q *query) attemptPath(n int64) string { return fmt.Sprintf("%s/attempts/%d", q.runPath(), n) }

// ask reads one document and decodes it.
func ask[T any](ctx context.Context, c *Client, op, path string, decode func([]byte) (T, error)) (T, error) {
	body, err := c.get(ctx, op, path)
	if err != nil {
		var zero T
		return zero, err
	}
	v, err := decode(body)
	if err != nil {
		return v, &Error{Op: op, Cause: err}
	}
	return v, nil
}

// askEnvironment reads the environment. One that is not found is unknown:
// GitHub answers the same when the credential may not see it.
func (q *query) askEnvironment(ctx context.Context) (err error) {
	path := q.repo + "/environments/" + url.PathEscape(q.cfg.Environment)
	q.env, err = ask(ctx, q.Client, "read environment", path, decodeEnvironment)
	return err
}

// askReviews reads the environment and the reviews of it in this run.
func (q *query) askReviews(ctx context.Context) (err error) {
	if err := q.askEnvironment(ctx); err != nil {
		return err
	}
	q.verdicts, err = ask(ctx, q.Client, "read approvals", q.runPath()+"/approvals", func(body []byte) ([]verdict, error) {
		return decodeApprovals(body, q.env.ID)
	})
	return err
}

// attributeReviews finds out which reviews count, and whether those who gave
// them may review.
func (q *query) attributeReviews(ctx context.Context) (fresh []runner.Reviewed, err error) {
	q.approvals, fresh, err = reviews{
		attempt: q.run.Attempt, list: q.verdicts, known: q.known, checkRun: q.checkRun, now: time.Now().UTC(),
		repository: q.repository.FullName, environment: q.env.Name, run: q.run.ID,
	}.attribute()
	if err != nil {
		return nil, &Error{Op: "read approvals", Cause: err}
	}
	if err := q.stillFirst(ctx, fresh); err != nil {
		return nil, err
	}
	for i := range q.approvals {
		a := &q.approvals[i]
		a.EnvironmentID, a.Environment = q.env.ID, q.env.Name
		if a.Team, a.InTeam, err = q.askTeams(ctx, a.By.Login); err != nil {
			return nil, err
		}
	}
	for i := range q.approvals { // last, because nothing depends on it
		q.approvals[i].NameID = q.nameID(ctx, q.approvals[i].By)
	}
	return fresh, nil
}

// stillFirst makes sure that what the list showed for the first time is of the
// first attempt: the run may have been run again, and approved again, between
// our questions about the run and about its reviews.
func (q *query) stillFirst(ctx context.Context, fresh []runner.Reviewed) error {
	if q.run.Attempt != 1 || len(fresh) == 0 {
		return nil
	}
	again, err := ask(ctx, q.Client, "read run", q.runPath(), decodeRun)
	if err != nil {
		return err
	}
	if again.Attempt != 1 {
		return &Error{Op: "read approvals", Cause: errors.New("the run was run again meanwhile")}
	}
	return nil
}

// askTeams finds a configured team that the account is an active member of.
// The answer is no only when every team said no.
func (q *query) askTeams(ctx context.Context, login string) (team string, member *bool, unknown error) {
	for _, slug := range q.cfg.ApproverTeams {
		active, err := q.askMembership(ctx, slug, login)
		switch {
		case err != nil:
			unknown = err
		case active:
			return slug, new(true), nil
		}
	}
	return "", new(false), unknown
}

// askMembership is no for 404: the account is in no team of this name. A
// membership that is pending is not active.
// https://docs.github.com/en/rest/teams/members#get-team-membership-for-a-user
func (q *query) askMembership(ctx context.Context, slug, login string) (bool, error) {
	const op = "read team membership"
	m, resp, err := q.rest.Teams.GetTeamMembershipBySlug(ctx, q.cfg.Org, slug, login)
	if err != nil {
		err = failed(op, httpResponse(resp), err)
		if notFound(err) {
			return false, nil
		}
		return false, err
	}
	if m.GetState() == "" {
		return false, &Error{Op: op, Cause: errMalformed}
	}
	return m.GetState() == "active", nil
}

// askJobs finds the numeric id of the one job of this attempt that waits for
// or runs on our runners. Several such jobs cannot be told apart: the queue
// knows a job by another id.
func (q *query) askJobs(ctx context.Context) error {
	var ours []job
	err := q.pages(ctx, "list jobs", q.attemptPath(q.run.Attempt)+"/jobs", func(body []byte) error {
		jobs, err := decodeJobs(body)
		for _, j := range jobs {
			if q.ours(j) {
				ours = append(ours, j)
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	if len(ours) == 1 {
		q.checkRun = ours[0].checkRun()
	}
	return nil
}

func (q *query) ours(j job) bool {
	if j.Status != "queued" && j.Status != "in_progress" || j.RunID != q.run.ID || len(j.Labels) == 0 {
		return false
	}
	if j.Group != nil && *j.Group != "" && *j.Group != q.cfg.Group {
		return false
	}
	if len(q.offered.Labels) > 0 {
		return subset(j.Labels, q.offered.Labels) && subset(q.offered.Labels, j.Labels)
	}
	return subset(j.Labels, append(slices.Clone(q.cfg.Labels), q.cfg.RunnerScaleSetName))
}

func subset(part, whole []string) bool {
	for _, s := range part {
		if !slices.ContainsFunc(whole, func(w string) bool { return strings.EqualFold(s, w) }) {
			return false
		}
	}
	return true
}

// askRefAndPusher finds the reference, and who pushed it if it is a tag.
func (q *query) askRefAndPusher(ctx context.Context) error {
	if err := q.askRef(ctx); err != nil {
		return err
	}
	return q.askPusher(ctx)
}

// askRef says which reference the run was started for. The API shows branch
// and tag alike in head_branch, so a tag counts only if it names the commit.
func (q *query) askRef(ctx context.Context) error {
	name := q.run.HeadBranch
	if name == "" {
		return nil
	}
	tagged, err := q.askTag(ctx, name)
	switch {
	case err != nil:
		return err
	case tagged != q.run.HeadSHA:
		q.ref = refOf("refs/heads/", name)
		return nil
	case q.run.Event != "push":
		// Such a run can as well be of a branch of the tag's name; which of the
		// two it is of, the API does not say.
		if exists, err := q.isBranch(ctx, name); err != nil || exists {
			return err
		}
	}
	q.ref = refOf("refs/tags/", name)
	return nil
}

// isBranch says whether a branch of this name exists.
func (q *query) isBranch(ctx context.Context, name string) (bool, error) {
	_, err := ask(ctx, q.Client, "read branch", q.repo+"/git/ref/heads/"+escaped(name), decodeObject)
	if notFound(err) {
		return false, nil
	}
	return err == nil, err
}

// escaped is the name of a reference as a path; its slashes stay.
func escaped(name string) string {
	segments := strings.Split(name, "/")
	for i, s := range segments {
		segments[i] = url.PathEscape(s)
	}
	return strings.Join(segments, "/")
}

// refOf is empty for a name that the ledger's pattern does not admit.
func refOf(prefix, name string) string {
	ref := struct {
		V string `pat:"gitref"`
	}{prefix + name}
	if runner.Validate(ref) != nil {
		return ""
	}
	return ref.V
}

// askTag is the commit that a tag names, empty when there is no such tag. An
// annotated tag is an object of its own that names the commit.
func (q *query) askTag(ctx context.Context, tag string) (string, error) {
	o, err := ask(ctx, q.Client, "read tag", q.repo+"/git/ref/tags/"+escaped(tag), decodeObject)
	if notFound(err) {
		return "", nil
	}
	for range 5 { // a tag may name a tag
		if err != nil || o.Type != "tag" {
			break
		}
		o, err = ask(ctx, q.Client, "read annotated tag", q.repo+"/git/tags/"+url.PathEscape(o.SHA), decodeObject)
	}
	if err != nil || o.Type != "commit" {
		return "", err
	}
	return o.SHA, nil
}

func (q *query) askAuthor(ctx context.Context) (err error) {
	q.author, err = ask(ctx, q.Client, "read head commit", q.repo+"/commits/"+url.PathEscape(q.run.HeadSHA), func(body []byte) (*runner.Person, error) {
		return decodeAuthor(body, q.run.HeadSHA)
	})
	return err
}
