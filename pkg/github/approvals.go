package github

import (
	"errors"
	"sync"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

// ledger remembers when each review of a run was first seen, and in which
// attempt: GitHub's list has neither, and keeps the reviews of all attempts.
// It lives in memory. After a restart an attempt beyond the first has reviews
// that cannot be attributed, and those say so. It is safe for concurrent use.
type ledger struct {
	mu   *sync.Mutex
	runs map[runKey]*runRecord
}

// runKey is a run's environment.
type runKey struct{ run, environment int64 }

// runRecord is what was seen of one environment's reviews in one run.
type runRecord struct {
	at      time.Time // of the last look
	attempt int64     // at the last look
	seen    map[reviewKey][]sighting
}

// reviewKey is what tells reviews apart. A login can be renamed, so it is not
// part of it.
type reviewKey struct {
	account int64
	state   string
}

// sighting is when one review was first seen. The list has no ids, so equal
// reviews are told apart by their number only.
type sighting struct {
	attempt           int64
	notBefore, seenAt time.Time
	attributed        bool
}

// ledgerKeeps is how long a run is remembered: GitHub allows re-runs for 30
// days after the first.
// https://docs.github.com/en/actions/how-tos/manage-workflow-runs/re-run-workflows-and-jobs
const ledgerKeeps = 32 * 24 * time.Hour

// stateUnattributed marks a review that may belong to an earlier attempt.
const stateUnattributed = "unattributed"

func newLedger() ledger {
	return ledger{mu: new(sync.Mutex), runs: map[runKey]*runRecord{}}
}

// look notes what the list shows now and returns the reviews that count for
// this attempt. A review that was first seen in an earlier attempt was spent
// there. A new one belongs to this attempt if this is the first, or if we
// looked in this attempt or the one before and it was not there.
func (l ledger) look(run, environment, attempt int64, list []verdict, now time.Time) ([]runner.Approval, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := runKey{run, environment}
	rec := l.runs[key]
	if rec == nil {
		l.forget(now)
		rec = &runRecord{seen: map[reviewKey][]sighting{}}
		l.runs[key] = rec
	}
	if attempt < rec.attempt {
		return nil, errors.New("the run's attempt went back")
	}
	attributed := attempt == 1 || rec.attempt >= attempt-1 && !rec.at.IsZero()
	out := []runner.Approval{}
	count := map[reviewKey]int{}
	for _, v := range list {
		id := reviewKey{v.by.ID, v.state}
		n := count[id]
		count[id]++
		if n == len(rec.seen[id]) {
			rec.seen[id] = append(rec.seen[id], sighting{attempt, rec.at, now, attributed})
		}
		s := rec.seen[id][n]
		if s.attempt != attempt {
			continue
		}
		a := runner.Approval{By: v.by, State: v.state, Source: "rest", NotBefore: s.notBefore, SeenAt: s.seenAt}
		if !s.attributed {
			a.State = stateUnattributed
		}
		out = append(out, a)
	}
	rec.at, rec.attempt = now, attempt
	return out, nil
}

// forget drops runs that can no longer be re-run.
func (l ledger) forget(now time.Time) {
	for key, rec := range l.runs {
		if now.Sub(rec.at) > ledgerKeeps {
			delete(l.runs, key)
		}
	}
}
