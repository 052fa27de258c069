package github

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// DeploymentFacts implements supervisor.GitHub: what is known of a run while its
// reviewers have not decided. The workflow is the one listed workflow that the
// run refers to; a run that refers to none, or to several, is shown under its
// own workflow, which no catalogue lists.
func (c *Client) DeploymentFacts(ctx context.Context, asked runner.Asked) (runner.Facts, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	q := query{
		Client: c, repo: "repos/" + asked.Repository, at: time.Now().UTC(),
		offered: runner.Offered{Job: "unknown", Repository: asked.Repository, RunID: asked.RunID, Labels: []string{}},
	}
	if err := q.askRun(ctx); err != nil {
		return runner.Facts{}, err
	}
	if asked.SHA != "" && asked.SHA != q.run.HeadSHA {
		return runner.Facts{}, &Error{Op: "read run", Cause: errors.New("the question is about another commit")}
	}
	g, groupCtx := errgroup.WithContext(ctx)
	g.SetLimit(maxConcurrent)
	for _, ask := range []func(context.Context) error{q.askEnvironment, q.askRefAndPusher, q.askAuthor, q.askPulls, q.askGroup} {
		g.Go(func() error { return ask(groupCtx) })
	}
	if err := g.Wait(); err != nil {
		return runner.Facts{}, err
	}
	if asked.Ref != "" && q.ref != "" && asked.Ref != q.ref {
		return runner.Facts{}, &Error{Op: "read run", Cause: errors.New("the question is about another reference")}
	}
	q.offered.WorkflowRef = q.listed()
	f := q.facts()
	f.Approvals = []runner.Approval{}
	if err := runner.Validate(f); err != nil {
		return runner.Facts{}, fmt.Errorf("facts of run %d: %w", asked.RunID, err)
	}
	return f, nil
}

// listed is the one workflow of the catalogue that the run refers to, else empty.
func (q *query) listed() string {
	var found []string
	for _, x := range q.run.Referenced {
		if ref := x.fullRef(); slices.Contains(q.cfg.Workflows, ref) && !slices.Contains(found, ref) {
			found = append(found, ref)
		}
	}
	if len(found) != 1 {
		return ""
	}
	return found[0]
}

// maxComment is how long the comment of an answer may be, in characters.
const maxComment = 1024

// maybeMoot are the refusals that can mean that nothing waits for the answer.
// GitHub documents none of them, and each also means other things, such as a
// missing permission; so they are believed only when no deployment is pending.
var maybeMoot = []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity}

// Answer implements supervisor.GitHub. The address is made of the run's id and
// the configured server.
// https://docs.github.com/en/rest/actions/workflow-runs#review-custom-deployment-protection-rules-for-a-workflow-run
func (c *Client) Answer(ctx context.Context, asked runner.Asked, state, comment string) error {
	const op = "answer about the deployment"
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	if err := runner.Validate(asked); err != nil {
		return &Error{Op: op, Cause: err}
	}
	if state != runner.StateApproved && state != runner.StateRejected {
		return &Error{Op: op, Cause: errors.New("an answer is approved or rejected")} // GitHub takes none for a report
	}
	if utf8.RuneCountInString(comment) > maxComment {
		comment = string([]rune(comment)[:maxComment-1]) + "…"
	}
	run := fmt.Sprintf("repos/%s/actions/runs/%d", asked.Repository, asked.RunID)
	req, err := c.rest.NewRequest(http.MethodPost, run+"/deployment_protection_rule", map[string]string{
		"environment_name": asked.Environment, "state": state, "comment": comment,
	})
	if err != nil {
		return &Error{Op: op, Cause: errNoAnswer}
	}
	resp, err := c.rest.Do(ctx, req, nil)
	switch {
	case err == nil && resp.StatusCode == http.StatusNoContent:
		return nil
	case err == nil: // somebody answered, and not as GitHub does
		return &Error{Op: op, Status: resp.StatusCode, Cause: errMalformed}
	}
	err = failed(op, httpResponse(resp), err)
	if e, ok := errors.AsType[*Error](err); ok && slices.Contains(maybeMoot, e.Status) {
		waits, askErr := ask(ctx, c, "read pending deployments", run+"/pending_deployments", func(body []byte) (bool, error) {
			return decodeWaits(body, asked.Environment)
		})
		if askErr == nil && !waits {
			return &Error{Op: op, Status: e.Status, Cause: supervisor.ErrMoot}
		}
	}
	return err
}

// decodeWaits says whether a job of the run waits for the environment.
// https://docs.github.com/en/rest/actions/workflow-runs#get-pending-deployments-for-a-workflow-run
func decodeWaits(body []byte, environment string) (bool, error) {
	var list []struct {
		Environment *struct {
			Name string `json:"name"`
		} `json:"environment"`
	}
	if err := decode(body, &list); err != nil {
		return false, err
	}
	for _, p := range list {
		if p.Environment == nil || p.Environment.Name == "" {
			return false, errMalformed
		}
		if strings.EqualFold(p.Environment.Name, environment) {
			return true, nil
		}
	}
	return false, nil
}
