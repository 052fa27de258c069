package github

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/runner"
)

// Whoever had a hand in what is deployed may not be the one who approves it.
// GitHub itself only keeps the initiator of a run from reviewing it; on a
// re-run by somebody else, that is no longer the author.

// askPusher finds who pushed the tag. For a push the run's actor is who pushed.
// Of any other event the repository's activity is asked, and it stays unknown
// when that does not show the tag.
// https://docs.github.com/en/rest/repos/repos#list-repository-activities
func (q *query) askPusher(ctx context.Context) error {
	tag, tagged := strings.CutPrefix(q.ref, "refs/tags/")
	switch {
	case !tagged:
		return nil
	case q.run.Event == "push":
		q.pusher = q.run.Actor.person()
		return nil
	}
	path := q.repo + "/activity?per_page=100&ref=" + url.QueryEscape("refs/tags/"+tag)
	pusher, err := ask(ctx, q.Client, "read activity of the tag", path, func(body []byte) (*runner.Person, error) {
		return decodePusher(body, q.ref, q.run.HeadSHA)
	})
	if notFound(err) {
		return nil
	}
	q.pusher = pusher
	return err
}

// decodePusher is who made the ref name this commit last, nil if nobody did.
func decodePusher(body []byte, ref, sha string) (*runner.Person, error) {
	var list []struct {
		Ref   string   `json:"ref"`
		After string   `json:"after"`
		Actor *account `json:"actor"`
	}
	if err := decode(body, &list); err != nil {
		return nil, err
	}
	for _, a := range list { // the newest first
		if a.Ref == ref && a.After == sha {
			return a.Actor.person(), nil
		}
	}
	return nil, nil
}

// askPulls finds who wrote the merged pull requests that brought the commit.
// https://docs.github.com/en/rest/commits/commits#list-pull-requests-associated-with-a-commit
func (q *query) askPulls(ctx context.Context) error {
	q.pulls = []runner.Person{}
	return q.pages(ctx, "list pull requests of the commit", q.repo+"/commits/"+url.PathEscape(q.run.HeadSHA)+"/pulls", func(body []byte) error {
		authors, err := decodePulls(body)
		q.pulls = append(q.pulls, authors...)
		return err
	})
}

func decodePulls(body []byte) ([]runner.Person, error) {
	var list []struct {
		Number int64      `json:"number"`
		Merged *time.Time `json:"merged_at"`
		User   *account   `json:"user"`
	}
	if err := decode(body, &list); err != nil {
		return nil, err
	}
	var out []runner.Person
	for _, pull := range list {
		switch by := pull.User.person(); {
		case pull.Number <= 0:
			return nil, errMalformed
		case pull.Merged == nil:
		case by == nil:
			// Nobody can be kept apart from an author who is not known.
			return nil, fmt.Errorf("%w: a pull request without its author", errMalformed)
		default:
			out = append(out, *by)
		}
	}
	return out, nil
}

// names remembers whom the identity provider knows an account as.
type names struct {
	mu  sync.Mutex
	all map[int64]knownName
}

type knownName struct {
	name string
	at   time.Time
}

const (
	// nameKept is how long a name is believed.
	nameKept = time.Hour
	// namePatience is how long a decision waits for a name at most.
	namePatience = 3 * time.Second
)

// nameID is whom the organization's identity provider knows the account as,
// empty when nobody says. It decides nothing, so nothing about it is an error.
// https://docs.github.com/en/enterprise-cloud@latest/rest/orgs/orgs#get-the-audit-log-for-an-organization
func (q *query) nameID(ctx context.Context, p runner.Person) string {
	if !q.cfg.SAMLNames {
		return ""
	}
	q.names.mu.Lock()
	known, ok := q.names.all[p.ID]
	q.names.mu.Unlock()
	if ok && time.Since(known.at) < nameKept {
		return known.name
	}
	path := fmt.Sprintf("orgs/%s/audit-log?include=web&per_page=30&phrase=%s", url.PathEscape(q.cfg.Org), url.QueryEscape("actor:"+p.Login))
	ctx, cancel := context.WithTimeout(ctx, namePatience)
	defer cancel()
	name, err := ask(ctx, q.Client, "read audit log", path, func(body []byte) (string, error) { return decodeNameID(body, p.ID) })
	if e, ok := errors.AsType[*Error](err); err != nil {
		q.log.Debug("no name by the identity provider", zap.Int64("account", p.ID), zap.Error(err))
		if !ok || e.Status != http.StatusNotFound && e.Status != http.StatusForbidden {
			return ""
		}
		// No audit log, or none for us: that does not change from call to call.
	}
	q.names.mu.Lock()
	defer q.names.mu.Unlock()
	if q.names.all == nil || len(q.names.all) > 1000 {
		q.names.all = map[int64]knownName{}
	}
	q.names.all[p.ID] = knownName{name, time.Now()}
	return name
}

// decodeNameID is the first name that an entry of this account carries.
func decodeNameID(body []byte, account int64) (string, error) {
	var list []struct {
		ActorID int64  `json:"actor_id"`
		NameID  string `json:"external_identity_nameid"`
	}
	if err := decode(body, &list); err != nil {
		return "", err
	}
	for _, e := range list {
		name := struct {
			V string `pat:"nameid"`
		}{e.NameID}
		if e.ActorID == account && e.NameID != "" && runner.Validate(name) == nil {
			return e.NameID, nil
		}
	}
	return "", nil
}
