package runner

import (
	"slices"
	"strings"
	"time"
)

// Run is all that the log says about one workflow run as such.
type Run struct {
	// Reviews are in the order in which they were recorded.
	Reviews []Of[Reviewed]
	// Asks are by delivery.
	Asks map[string]*Ask
}

// Ask is one question of GitHub and what became of it.
type Ask struct {
	Asked    Of[Asked]
	Ruled    *Of[Ruled]
	Answered *Of[Answered]
}

// ReviewsOf are the reviews of a run that the log knows, in its order.
func (s *State) ReviewsOf(runID int64) []Reviewed {
	var out []Reviewed
	if run := s.Runs[runID]; run != nil {
		for _, r := range run.Reviews {
			out = append(out, r.Event)
		}
	}
	return out
}

// AskLife is how long a deployment waits for its rules before GitHub fails it.
// https://docs.github.com/en/actions/reference/workflows-and-actions/deployments-and-environments
const AskLife = 30 * 24 * time.Hour

// asks plans the questions about one run. Nothing is ruled while admission is
// frozen: GitHub waits, and a ruling cannot be taken back.
func (p *planner) asks(id int64, run *Run) {
	for _, delivery := range sortedKeys(run.Asks) {
		ask := run.Asks[delivery]
		switch {
		case ask.Answered != nil || p.now.Sub(ask.Asked.Event.AskedAt) > AskLife:
		case ask.Ruled != nil:
			p.add(Task{Kind: TaskAnswer, Run: id, Delivery: delivery})
		case p.Frozen == nil:
			p.add(Task{Kind: TaskRule, Run: id, Delivery: delivery})
		}
	}
}

// StrayKey names a stray among all strays.
func StrayKey(what StrayKind, id string) string { return string(what) + "/" + id }

func (s *State) run(id int64) *Run {
	if s.Runs[id] == nil {
		s.Runs[id] = &Run{Asks: map[string]*Ask{}}
	}
	return s.Runs[id]
}

func (s *State) foldRun(rec Record) {
	switch e := rec.Event.(type) {
	case Reviewed:
		run := s.run(e.RunID)
		run.Reviews = append(run.Reviews, *of(rec, e))
	case Asked:
		s.run(e.RunID).Asks[e.Delivery] = &Ask{Asked: *of(rec, e)}
	case Ruled:
		s.Runs[e.RunID].Asks[e.Delivery].Ruled = of(rec, e)
	case Answered:
		s.Runs[e.RunID].Asks[e.Delivery].Answered = of(rec, e)
	case Stray:
		s.Strays[StrayKey(e.What, e.ID)] = of(rec, e)
	case Swept:
		delete(s.Strays, StrayKey(e.What, e.ID))
	}
}

func (s *State) checkReviewed(v verdict, e Reviewed) error {
	switch {
	case e.RunID <= 0 || e.By.ID <= 0 || e.SeenAt.IsZero():
		return v.breaks(9, "review", "a review without its run, its author or its time")
	case e.State != StateApproved && e.State != StateRejected:
		return v.breaks(9, "review", "a review that is neither approved nor rejected")
	case e.Source == SourceWebhook && (e.Delivery == "" || e.RunAttempt <= 0 || e.Nth != 0):
		return v.breaks(9, "review", "a review told by webhook without its delivery or attempt")
	case e.Source == SourceREST && (e.Delivery != "" || len(e.Jobs) > 0 || e.RunAttempt < 0 || e.Nth < 0):
		return v.breaks(9, "review", "a review read from a list with what a list does not have")
	case e.Source != SourceWebhook && e.Source != SourceREST:
		return v.breaks(9, "review", "a review of no known source")
	}
	if run := s.Runs[e.RunID]; run != nil && slices.ContainsFunc(run.Reviews, func(old Of[Reviewed]) bool { return sameReview(old.Event, e) }) {
		return ErrRecorded
	}
	return nil
}

// unrecorded is an approval that a decision rests on and that the log does not
// hold for this attempt: an approval of an earlier attempt, or one that nobody
// ever recorded.
func (s *State) unrecorded(f Facts) (Approval, bool) {
	for _, a := range f.Approvals {
		known := func(r Reviewed) bool {
			return r.By.ID == a.By.ID && r.State == a.State && r.Source == a.Source && r.Delivery == a.Delivery &&
				r.RunAttempt == f.RunAttempt && strings.EqualFold(r.Environment, a.Environment)
		}
		if a.State == StateApproved && !slices.ContainsFunc(s.ReviewsOf(f.RunID), known) {
			return a, true
		}
	}
	return Approval{}, false
}

// sameReview says that both tell of one review from one source.
func sameReview(a, b Reviewed) bool {
	if a.Source != b.Source {
		return false
	}
	if a.Source == SourceWebhook {
		// One delivery tells of one review of one environment.
		return a.Delivery == b.Delivery && a.Environment == b.Environment
	}
	return a.Environment == b.Environment && a.By.ID == b.By.ID && a.State == b.State && a.Nth == b.Nth
}

func (s *State) ask(runID int64, delivery string) *Ask {
	if run := s.Runs[runID]; run != nil {
		return run.Asks[delivery]
	}
	return nil
}

func (s *State) checkAsked(v verdict, e Asked) error {
	switch {
	case e.RunID <= 0:
		return v.breaks(9, "asked", "asked about no run")
	case s.ask(e.RunID, e.Delivery) != nil:
		return ErrRecorded
	}
	return nil
}

func (s *State) checkRuled(v verdict, e Ruled) error {
	ask := s.ask(e.RunID, e.Delivery)
	switch {
	case ask == nil:
		return v.breaks(3, "unasked", "ruled without having been asked")
	case ask.Ruled != nil:
		return ErrRecorded
	case e.State == StateApproved && !e.Decision.Allowed():
		return v.breaks(10, "decision", "approved although the policy gave reasons against it")
	case e.State == StateRejected && len(e.Decision.Reasons) == 0:
		return v.breaks(10, "decision", "rejected without a reason")
	case e.State != StateApproved && e.State != StateRejected:
		return v.breaks(10, "decision", "ruled neither approved nor rejected")
	case e.State == StateApproved && s.Frozen != nil:
		return v.breaks(8, "frozen", "approved while admission is frozen")
	}
	return nil
}

func (s *State) checkAnswered(v verdict, e Answered) error {
	ask := s.ask(e.RunID, e.Delivery)
	switch {
	case ask == nil || ask.Ruled == nil:
		return v.breaks(1, "unruled", "answered before a ruling was recorded")
	case ask.Answered != nil:
		return ErrRecorded
	}
	return nil
}

// checkStray refuses above all to call astray what a live runner needs: what is
// recorded as a stray is removed.
func (s *State) checkStray(v verdict, e Stray) error {
	if s.Strays[StrayKey(e.What, e.ID)] != nil {
		return ErrRecorded
	}
	switch e.What {
	case StrayPod, StrayRegistration, StrayForeign:
	default:
		return v.breaks(9, "stray", "a stray of no known kind")
	}
	if r := s.Runners[Name(e.Name)]; r != nil && r.Terminated == nil && e.What != StrayForeign {
		return v.breaks(3, "not-astray", "%s %s belongs to runner %s, which is not over", e.What, e.ID, e.Name)
	}
	return nil
}

func (s *State) checkSwept(e Swept) error {
	if s.Strays[StrayKey(e.What, e.ID)] == nil {
		return ErrRecorded
	}
	return nil
}
