package runner

import "strings"

// The kinds of event between two years of a log, of the log's own chain.
const (
	KindClosed    Kind = "closed"
	KindContinued Kind = "continued"
)

// Closed is the last record of a year of the log. It stands where a writer who
// has not seen the year end would write next, so that such a writer is fenced.
type Closed struct {
	// Year is the calendar year in UTC whose folder the log goes on in.
	Year int `json:"year"`
}

// Continued is the first record of a year of the log, after another year. What
// it says of that year is what its last checkpoint signs.
type Continued struct {
	// Origin, Size and Root are those of the year before: the name of its
	// tree, its records, and the hash over them.
	Origin string `json:"origin" pat:"origin"`
	Size   uint64 `json:"size,string"`
	Root   Digest `json:"root" pat:"digest"`
	// Checkpoint is the digest of the last checkpoint of that year.
	Checkpoint Digest `json:"checkpoint" pat:"digest"`
	// Before is how many records the log has before this one, in all years.
	Before uint64 `json:"before,string"`
	// InEffect are the attachments that the last opened record names, which are
	// in this year too: it can be read without the years before.
	InEffect []Digest `json:"inEffect,omitempty" pat:"digest"`
}

func (Closed) Kind() Kind      { return KindClosed }
func (Closed) Chain() Chain    { return LogChain }
func (Continued) Kind() Kind   { return KindContinued }
func (Continued) Chain() Chain { return LogChain }

// checkYear wants nothing between the end of one year and the beginning of the
// next, and no beginning without an end. Whether each stands in the right place
// of the right tree is checked where trees are read, by the evidence package.
func (s *State) checkYear(v verdict, e Event) error {
	continued, begins := e.(Continued)
	closed, ends := e.(Closed)
	switch {
	case begins && s.Closed == nil:
		return v.breaks(7, "year", "a year begins and none was closed before it")
	case !begins && s.Closed != nil:
		return v.breaks(7, "year", "%s after record %d, which closed the year", e.Kind(), s.Closed.Index)
	case begins && continued.Before != s.Size:
		return v.breaks(7, "year", "the year is said to begin after %d records, there are %d", continued.Before, s.Size)
	case ends && (s.Size == 0 || closed.Year < 1 || closed.Year > 9999):
		return v.breaks(7, "year", "a log of %d records goes on in year %d", s.Size, closed.Year)
	}
	return nil
}

// Resume stands before this record, which begins a year of a log whose years
// before are not at hand. What happened in them is not in the state.
func (s *State) Resume(rec Record) {
	s.Size = rec.Index
	s.Closed = &Of[Closed]{}
}

// Skip goes past a record without folding it: what it follows happened in years
// that are not at hand, see [State.Resume].
func (s *State) Skip(rec Record) {
	s.Size++
	s.LastAt, s.Last = rec.At, rec.Digest
}

// Follows says whether the state holds what the event follows and rests on, so
// that [State.Check] can judge it. elsewhere says of a chain that its first
// records are not at hand.
func (s *State) Follows(e Event, elsewhere func(Chain) bool) bool {
	switch e := e.(type) {
	case Offered, Reviewed, Asked, Stray:
		return true
	case Authorized:
		_, missing := s.unrecorded(e.Facts)
		if missing && (s.Runs[e.Facts.RunID] == nil || elsewhere(RunChain(e.Facts.RunID))) {
			return false
		}
		return s.Jobs[e.Job] != nil
	case Denied:
		return s.Jobs[e.Job] != nil
	case Reported:
		return s.Jobs[e.Job] != nil
	case Concluded:
		return s.Jobs[e.Job] != nil
	case Claimed:
		return s.authorized(e.Cause)
	case Started:
		return s.Runners[e.Runner] != nil && s.authorized(e.Job)
	case Ruled:
		return s.ask(e.RunID, e.Delivery) != nil
	case Answered:
		return s.ask(e.RunID, e.Delivery) != nil
	case Swept:
		return s.Strays[StrayKey(e.What, e.ID)] != nil
	case Cancelled:
		if e.Runner == "" {
			return s.Jobs[e.Job] != nil
		}
	}
	if e.Chain() == LogChain {
		return true
	}
	name, _ := strings.CutPrefix(string(e.Chain()), string(RunnerChain("")))
	return s.Runners[Name(name)] != nil
}

func (s *State) authorized(id JobID) bool { return s.Jobs[id] != nil && s.Jobs[id].Authorized != nil }
