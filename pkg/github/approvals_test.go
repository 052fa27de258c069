package github

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

func minute(n int) time.Time { return time.Date(2026, 1, 2, 3, n, 0, 0, time.UTC) }

func by(id int64) verdict { return verdict{runner.Person{ID: id, Login: "x"}, "approved"} }

func told(id, attempt int64, at int, jobs ...int64) runner.Reviewed {
	return runner.Reviewed{
		Repository: "o/r", RunID: 9, Environment: "Production", By: runner.Person{ID: id, Login: "old-name"}, State: "approved",
		Source: runner.SourceWebhook, RunAttempt: attempt, Delivery: fmt.Sprintf("guid-%d-%d", id, at), Jobs: jobs, SeenAt: minute(at),
	}
}

func seen(id, attempt int64, nth, at int) runner.Reviewed {
	return runner.Reviewed{
		Repository: "o/r", RunID: 9, Environment: "production", By: runner.Person{ID: id, Login: "x"}, State: "approved",
		Source: runner.SourceREST, RunAttempt: attempt, Nth: nth, SeenAt: minute(at),
	}
}

func TestReviewsCountForTheirAttempt(t *testing.T) {
	type counted struct {
		id     int64
		state  string
		source string
		at     time.Time
	}
	for _, test := range []struct {
		name    string
		attempt int64
		list    []verdict
		known   []runner.Reviewed
		want    []counted
		fresh   []runner.Reviewed
	}{
		{"the first attempt needs nothing but the list", 1, []verdict{by(1), by(2)}, nil,
			[]counted{{1, "approved", "rest", minute(30)}, {2, "approved", "rest", minute(30)}},
			[]runner.Reviewed{seen(1, 1, 0, 30), seen(2, 1, 0, 30)}},
		{"a sighting keeps its time", 1, []verdict{by(1)}, []runner.Reviewed{seen(1, 1, 0, 3)},
			[]counted{{1, "approved", "rest", minute(3)}}, nil},
		{"a webhook has the time and the attempt", 2, []verdict{by(1)}, []runner.Reviewed{told(1, 2, 7)},
			[]counted{{1, "approved", "webhook", minute(7)}}, nil},
		{"a webhook that comes after the sighting replaces it", 1, []verdict{by(1)}, []runner.Reviewed{seen(1, 1, 0, 3), told(1, 1, 2)},
			[]counted{{1, "approved", "webhook", minute(2)}}, nil},
		{"an approval is spent by its attempt", 2, []verdict{by(1)}, []runner.Reviewed{told(1, 1, 2)}, nil, nil},
		{"a sighting is spent by its attempt", 2, []verdict{by(1)}, []runner.Reviewed{seen(1, 1, 0, 3)}, nil, nil},
		{"the same account approves each attempt", 2, []verdict{by(1), by(1)}, []runner.Reviewed{told(1, 1, 2), told(1, 2, 9)},
			[]counted{{1, "approved", "webhook", minute(9)}}, nil},
		{"a later attempt cannot attribute what no webhook told", 2, []verdict{by(1)}, nil,
			[]counted{{1, "unattributed", "rest", minute(30)}}, []runner.Reviewed{seen(1, 0, 0, 30)}},
		{"not even when the attempt before was looked at", 3, []verdict{by(1), by(2)}, []runner.Reviewed{seen(1, 1, 0, 3)},
			[]counted{{2, "unattributed", "rest", minute(30)}}, []runner.Reviewed{seen(2, 0, 0, 30)}},
		{"a review of a run of another number does not count", 1, []verdict{by(1)}, []runner.Reviewed{func() runner.Reviewed {
			r := told(1, 1, 2)
			r.RunID = 10
			return r
		}()}, []counted{{1, "approved", "rest", minute(30)}}, []runner.Reviewed{seen(1, 1, 0, 30)}},
		{"nor one that decided another job", 2, []verdict{by(1)}, []runner.Reviewed{told(1, 2, 7, 555)}, nil, nil},
		{"one that names this job does", 2, []verdict{by(1)}, []runner.Reviewed{told(1, 2, 7, 555, 26)},
			[]counted{{1, "approved", "webhook", minute(7)}}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			approvals, fresh, err := reviews{
				attempt: test.attempt, list: test.list, known: test.known, repository: "o/r", environment: "production",
				run: 9, checkRun: 26, now: minute(30),
			}.attribute()
			var got []counted
			for _, a := range approvals {
				got = append(got, counted{a.By.ID, a.State, a.Source, a.SeenAt})
				if a.By.Login != "x" {
					t.Errorf("an approval is by %q, want the account's name of now", a.By.Login)
				}
			}
			if err != nil || !reflect.DeepEqual(got, test.want) || !reflect.DeepEqual(fresh, test.fresh) {
				t.Errorf("attribute() = %+v, %+v, %v\nwant %+v, %+v", got, fresh, err, test.want, test.fresh)
			}
		})
	}
}

func TestReviewsThatTheListDoesNotShowAreUnknown(t *testing.T) {
	for _, known := range [][]runner.Reviewed{{told(1, 1, 2)}, {seen(1, 1, 0, 2)}, {told(1, 1, 2), told(1, 1, 3)}} {
		_, _, err := reviews{attempt: 1, list: []verdict{by(2)}, known: known, environment: "production", run: 9}.attribute()
		if !errors.Is(err, errReviewsContradict) {
			t.Errorf("attribute() with %+v = %v, want a contradiction", known, err)
		}
	}
}

// history is what happened in a run, and what we know of it.
type history struct {
	attempt int64
	list    []verdict // as GitHub shows it
	given   []int64   // in which attempt each was given
	known   []runner.Reviewed
	late    []runner.Reviewed // webhooks that are still to come
}

// more are the histories that one more thing makes of this one: the next
// attempt, a webhook that comes late, a look whose findings the log took, or a
// review, told by webhook at once, later, or never.
func (h history) more(fresh []runner.Reviewed, step int) (out []history) {
	next := func(edit func(*history)) {
		n := history{h.attempt, slices.Clone(h.list), slices.Clone(h.given), slices.Clone(h.known), slices.Clone(h.late)}
		edit(&n)
		out = append(out, n)
	}
	if h.attempt < 3 {
		next(func(n *history) { n.attempt++ })
	}
	if len(h.late) > 0 {
		next(func(n *history) { n.known, n.late = append(n.known, n.late[0]), n.late[1:] })
	}
	if len(fresh) > 0 {
		next(func(n *history) { n.known = append(n.known, fresh...) })
	}
	for id := int64(1); id <= 2 && len(h.list) < 3; id++ {
		give := func(n *history) { n.list, n.given = append(n.list, by(id)), append(n.given, h.attempt) }
		webhook := told(id, h.attempt, step)
		next(give)
		next(func(n *history) { give(n); n.known = append(n.known, webhook) })
		next(func(n *history) { give(n); n.late = append(n.late, webhook) })
	}
	return out
}

// Every history of up to three reviews by two accounts over three attempts: what
// counts as an approval of an attempt was given in that attempt.
func TestNoReviewCountsForAnotherAttempt(t *testing.T) {
	histories, counted, missed := 0, 0, 0
	var walk func(h history, step int)
	walk = func(h history, step int) {
		histories++
		approvals, fresh, err := reviews{
			attempt: h.attempt, list: h.list, known: h.known, repository: "o/r", environment: "production", run: 9, now: minute(step),
		}.attribute()
		if err != nil {
			t.Fatalf("%+v: %v", h, err)
		}
		for id := int64(1); id <= 2; id++ {
			given, approved := 0, 0
			for i, v := range h.list {
				if v.by.ID == id && h.given[i] == h.attempt {
					given++
				}
			}
			for _, a := range approvals {
				if a.By.ID == id && a.State == runner.StateApproved {
					approved++
				}
			}
			if approved > given {
				t.Fatalf("account %d counts %d times and approved %d times in %+v", id, approved, given, h)
			}
			counted, missed = counted+approved, missed+given-approved
		}
		for _, n := range h.more(fresh, step) {
			if step < 6 {
				walk(n, step+1)
			}
		}
	}
	walk(history{attempt: 1}, 0)
	t.Logf("%d histories, %d approvals counted, %d not counted for want of proof", histories, counted, missed)
	if counted == 0 || missed == 0 {
		t.Error("the histories do not hold what they should")
	}
}
