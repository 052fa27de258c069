package github

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

// The list of a run's reviews has no time, no attempt and no job, and keeps the
// reviews of all attempts for ever. So a review counts for an attempt only when
// something else says that it was given in it:
//
//   - a webhook, which names the attempt; the list has to confirm that such a
//     review exists, because the list is what GitHub acts on;
//   - the list itself, seen while the run is in its first attempt: there was no
//     other attempt that the review could be of.
//
// Everything else is unattributed and approves nothing. Seeing a review for the
// first time during a later attempt proves nothing: it can have been given at
// the end of the attempt before, after we had looked.
//
// For the same reason NotBefore stays empty. That an earlier look did not show a
// review follows from nothing in the log: a look that showed nothing leaves no
// record, and one whose records were cut off by a crash leaves some of them.

// reviewKey is what tells reviews of a list apart. A login can be renamed, so it
// is not part of it.
type reviewKey struct {
	account int64
	state   string
}

// reviews is what is known about the reviews of one environment in one run.
type reviews struct {
	attempt int64
	// list is GitHub's list now, known what the log holds of this run.
	list  []verdict
	known []runner.Reviewed
	// repository, run and environment name what new sightings are of.
	repository, environment string
	run                     int64
	// checkRun is the job that is decided on, 0 if unknown.
	checkRun int64
	now      time.Time
}

var errReviewsContradict = errors.New("the log knows a review that GitHub's list does not show")

// attribute returns the reviews that count for this attempt, and the sightings
// that the log does not hold yet. It is pure.
func (r reviews) attribute() (counted []runner.Approval, fresh []runner.Reviewed, err error) {
	counted = []runner.Approval{}
	shown := map[reviewKey][]verdict{}
	var order []reviewKey
	for _, v := range r.list {
		key := reviewKey{v.by.ID, v.state}
		if shown[key] == nil {
			order = append(order, key)
		}
		shown[key] = append(shown[key], v)
	}
	told, seen := r.sorted()
	for _, known := range []map[reviewKey][]runner.Reviewed{told, seen} {
		for key, list := range known {
			if len(list) > len(shown[key]) {
				// The list lags behind, or somebody changed history.
				return nil, nil, errReviewsContradict
			}
		}
	}
	for _, key := range order {
		by := shown[key][0].by
		for _, review := range told[key] {
			if review.RunAttempt == r.attempt && covers(review, r.checkRun) {
				counted = append(counted, approvalOf(by, review, review.State))
			}
		}
		// What no webhook explains is a sighting of the list.
		approvals, news := r.sightings(key, by, len(shown[key])-len(told[key]), seen[key])
		counted, fresh = append(counted, approvals...), append(fresh, news...)
	}
	return counted, fresh, nil
}

// sightings are n reviews of one account and state that only the list shows.
func (r reviews) sightings(key reviewKey, by runner.Person, n int, seen []runner.Reviewed) (counted []runner.Approval, fresh []runner.Reviewed) {
	for i := range n {
		var s runner.Reviewed
		if i < len(seen) {
			s = seen[i]
		} else {
			s = runner.Reviewed{
				Repository: r.repository, RunID: r.run, Environment: r.environment, By: by, State: key.state,
				Source: runner.SourceREST, Nth: i, SeenAt: r.now,
			}
			if r.attempt == 1 {
				s.RunAttempt = 1
			}
			fresh = append(fresh, s)
		}
		switch s.RunAttempt {
		case r.attempt:
			counted = append(counted, approvalOf(by, s, s.State))
		case 0:
			counted = append(counted, approvalOf(by, s, runner.StateUnattributed))
		}
	}
	return counted, fresh
}

// covers says that the review was of this job: a webhook names the jobs that it
// decided. Where either is unknown the environment alone counts.
func covers(r runner.Reviewed, checkRun int64) bool {
	return checkRun == 0 || len(r.Jobs) == 0 || slices.Contains(r.Jobs, checkRun)
}

// sorted is what the log knows of this environment: what webhooks told, by time,
// and what the list showed, by its number.
func (r reviews) sorted() (told, seen map[reviewKey][]runner.Reviewed) {
	told, seen = map[reviewKey][]runner.Reviewed{}, map[reviewKey][]runner.Reviewed{}
	for _, k := range r.known {
		if k.RunID != r.run || !strings.EqualFold(k.Environment, r.environment) {
			continue
		}
		key := reviewKey{k.By.ID, k.State}
		if k.Source == runner.SourceWebhook {
			told[key] = append(told[key], k)
		} else {
			seen[key] = append(seen[key], k)
		}
	}
	for _, list := range told {
		slices.SortStableFunc(list, func(a, b runner.Reviewed) int { return a.SeenAt.Compare(b.SeenAt) })
	}
	for _, list := range seen {
		slices.SortStableFunc(list, func(a, b runner.Reviewed) int { return cmp.Compare(a.Nth, b.Nth) })
	}
	return told, seen
}

// approvalOf names the account as it is called now.
func approvalOf(by runner.Person, r runner.Reviewed, state string) runner.Approval {
	return runner.Approval{
		By: by, State: state, Source: r.Source, Delivery: r.Delivery, NotBefore: r.NotBefore, SeenAt: r.SeenAt,
	}
}
