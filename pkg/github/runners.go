package github

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// Runners implements supervisor.GitHub.
// https://docs.github.com/en/rest/actions/self-hosted-runner-groups#list-self-hosted-runners-in-a-group-for-an-organization
func (c *Client) Runners(ctx context.Context) ([]supervisor.RegisteredRunner, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	groups, err := c.groups(ctx, "", func(g group) bool { return g.Name == c.cfg.Group })
	if err != nil {
		return nil, err
	}
	if len(groups) != 1 {
		return nil, &Error{Op: "list runner groups", Cause: fmt.Errorf("%d runner groups have the configured name", len(groups))}
	}
	var out []supervisor.RegisteredRunner
	err = c.pages(ctx, "list runners of the group", fmt.Sprintf("%s/%d/runners", c.groupsPath(), groups[0].ID), func(body []byte) error {
		page, err := decodeRunners(body)
		out = append(out, page...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func decodeRunners(body []byte) ([]supervisor.RegisteredRunner, error) {
	var page struct {
		Runners *[]struct {
			ID   int64  `json:"id"`
			Name string `json:"name"`
			Busy *bool  `json:"busy"`
		} `json:"runners"`
	}
	if err := decode(body, &page); err != nil || page.Runners == nil {
		return nil, errMalformed
	}
	var out []supervisor.RegisteredRunner
	for _, r := range *page.Runners {
		if r.ID <= 0 || r.Name == "" || r.Busy == nil {
			return nil, errMalformed
		}
		out = append(out, supervisor.RegisteredRunner{ID: r.ID, Name: r.Name, Busy: *r.Busy})
	}
	return out, nil
}

// Boundary reads who may use our runner group, and which other groups our
// repositories may use. It asks GitHub about our repositories, not about every
// group: an organization can have thousands. Each list has a time-out of its own.
// https://docs.github.com/en/rest/actions/self-hosted-runner-groups
func (c *Client) Boundary(ctx context.Context) (supervisor.Boundary, error) {
	found, err := c.bounded(ctx, "", func(g group) bool { return g.Name == c.cfg.Group })
	if err != nil {
		return supervisor.Boundary{}, err
	}
	if len(found) != 1 {
		return supervisor.Boundary{}, &Error{Op: "list runner groups", Cause: fmt.Errorf("%d runner groups have the configured name", len(found))}
	}
	ours := found[0]
	listCtx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	repositories, err := c.repositoriesOf(listCtx, ours.ID)
	if err != nil {
		return supervisor.Boundary{}, err
	}
	out := supervisor.Boundary{Group: supervisor.RunnerGroup{ID: ours.ID, Name: ours.Name}, Open: c.open(ours, repositories)}
	for _, repo := range c.cfg.Repositories {
		visible, err := c.visibleTo(ctx, repo, ours, slices.Contains(repositories, repo.ID))
		if err != nil {
			return supervisor.Boundary{}, err
		}
		for _, g := range visible {
			if rival := (supervisor.RunnerGroup{ID: g.ID, Name: g.Name}); g.ID != ours.ID && !slices.Contains(out.Rivals, rival) {
				out.Rivals = append(out.Rivals, rival)
			}
		}
	}
	return out, nil
}

// visibleTo lists the groups that the repository may use. An answer that leaves
// out ours, which it is listed for, has another repository in mind or none.
func (c *Client) visibleTo(ctx context.Context, repo runner.Repository, ours group, listed bool) ([]group, error) {
	// The name without the owner, as the runner controller found:
	// https://github.com/actions/actions-runner-controller/blob/master/github/github.go
	_, name, _ := strings.Cut(repo.Name, "/")
	visible, err := c.bounded(ctx, name, func(group) bool { return true })
	if err != nil {
		return nil, err
	}
	if listed && !slices.ContainsFunc(visible, func(g group) bool { return g.ID == ours.ID }) {
		return nil, &Error{Op: "list runner groups", Cause: fmt.Errorf("GitHub leaves out the configured group for %s, which may use it", repo.Name)}
	}
	return visible, nil
}

// bounded is groups within a time-out of its own.
func (c *Client) bounded(ctx context.Context, repository string, want func(group) bool) ([]group, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	return c.groups(ctx, repository, want)
}

// open lists what the group allows beyond the pool's repositories. What GitHub
// does not say counts as allowed. Whether the group is restricted to workflows
// is the policy's to judge: not every GitHub can restrict it.
func (c *Client) open(g group, repositories []int64) []string {
	var open []string
	shown := g.shown()
	if g.Visibility != "selected" {
		open = append(open, "it is open to more than selected repositories")
	}
	if shown.AllowsPublic == nil || *shown.AllowsPublic {
		open = append(open, "it is not known to refuse public repositories")
	}
	for _, id := range repositories {
		ofPool := slices.ContainsFunc(c.cfg.Repositories, func(r runner.Repository) bool { return r.ID == id })
		if g.Visibility == "selected" && !ofPool {
			open = append(open, fmt.Sprintf("repository %d may use it and is not one of the pool's", id))
		}
	}
	return open
}

func (c *Client) groupsPath() string {
	return "orgs/" + url.PathEscape(c.cfg.Org) + "/actions/runner-groups"
}

// groups lists the runner groups of the organization that are wanted, of all or
// of those that a repository, named without its owner, may use.
func (c *Client) groups(ctx context.Context, repository string, want func(group) bool) ([]group, error) {
	var found []group
	var query []string
	if repository != "" {
		query = append(query, "visible_to_repository="+url.QueryEscape(repository))
	}
	err := c.pages(ctx, "list runner groups", c.groupsPath(), func(body []byte) error {
		page, err := decodeGroups(body)
		for _, g := range page {
			if want(g) {
				found = append(found, g)
			}
		}
		return err
	}, query...)
	return found, err
}

// repositoriesOf lists the repositories that may use the group, by id.
func (c *Client) repositoriesOf(ctx context.Context, id int64) ([]int64, error) {
	var out []int64
	err := c.pages(ctx, "list repositories of runner group", fmt.Sprintf("%s/%d/repositories", c.groupsPath(), id), func(body []byte) error {
		ids, err := decodeRepositoryIDs(body)
		out = append(out, ids...)
		return err
	})
	return out, err
}

// askGroup finds the runner group by its name, with the repositories that may
// use it.
func (q *query) askGroup(ctx context.Context) error {
	found, err := q.groups(ctx, "", func(g group) bool { return g.Name == q.cfg.Group })
	if err != nil {
		return err
	}
	if len(found) != 1 {
		return &Error{Op: "list runner groups", Cause: fmt.Errorf("%d runner groups have the configured name", len(found))}
	}
	q.group = found[0].shown()
	if q.group.Visibility != "selected" {
		return nil
	}
	q.group.RepositoryIDs, err = q.repositoriesOf(ctx, q.group.ID)
	return err
}

// shown is the group as the policy sees it.
func (g group) shown() *runner.Group {
	out := &runner.Group{
		ID: g.ID, Name: g.Name, Visibility: g.Visibility, AllowsPublic: g.AllowsPublic,
		RestrictedToWorkflows: g.RestrictedToWorkflows, SelectedWorkflows: g.SelectedWorkflows,
	}
	if g.InheritedAllowsPublic != nil && *g.InheritedAllowsPublic {
		out.AllowsPublic = g.InheritedAllowsPublic
	}
	return out
}
