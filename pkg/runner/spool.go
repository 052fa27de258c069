package runner

import "time"

// KindSpooled is of the log's own chain.
const KindSpooled Kind = "spooled"

// Spooled says that the records from First to Last were kept on the daemon's
// own disk while the log's store could not be written, and came into the store
// later, in this order and with the bytes that they were signed with. Each
// carries the time at which it was made; an outside witness can have seen none
// of them before Until.
type Spooled struct {
	First uint64 `json:"first,string"`
	Last  uint64 `json:"last,string"`
	Count uint64 `json:"count"`
	// Since is the time of the first of them, Until when the last was in the store.
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
}

func (Spooled) Kind() Kind   { return KindSpooled }
func (Spooled) Chain() Chain { return LogChain }

// Spoolable says whether an event of this kind may be acted on while it is on
// the daemon's own disk only. Those that end something may, and those that
// explain them: a host outlives its job otherwise. None that lets something
// begin may, and none that a queue message brings: it comes again. A year may
// end: the endings that follow have their place in the next one.
func Spoolable(k Kind) bool {
	switch k {
	case KindRefused, KindRetired, KindCompleted, KindCancelled,
		KindTeardown, KindOverdue, KindEnding, KindTerminated,
		KindFrozen, KindGap, KindClosed, KindContinued:
		return true
	}
	return false
}

func (s *State) checkSpooled(v verdict, e Spooled) error {
	switch {
	case e.Last < e.First || e.Count != e.Last-e.First+1:
		return v.breaks(7, "spooled", "%d records from %d to %d", e.Count, e.First, e.Last)
	case e.Last >= s.Size:
		return v.breaks(7, "spooled", "record %d is said to have been in the spool and is not in the log", e.Last)
	case e.Until.Before(e.Since):
		return v.breaks(7, "spooled", "spooled since %s until %s", stamp(e.Since), stamp(e.Until))
	case len(s.Outages) > 0 && e.First <= s.Outages[len(s.Outages)-1].Event.Last:
		return ErrRecorded
	}
	return nil
}

// Answerable is when a wait began that only we can end, for a wait that began
// at this time. While the log's store was away we could end none, so it does
// not count: nobody loses a runner or a verdict to our outage.
func (s *State) Answerable(since time.Time) time.Time {
	if n := len(s.Outages); n > 0 && s.Outages[n-1].Event.Until.After(since) {
		return s.Outages[n-1].Event.Until
	}
	return since
}
