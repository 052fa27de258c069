package supervisor

import (
	"errors"
	"fmt"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

// maxSkew is how far GitHub's clock and ours may be apart. The lifetimes of
// tokens and the age of approvals are counted across both.
const maxSkew = 2 * time.Minute

// errClosed says that nothing new may begin.
var errClosed = errors.New("nothing new may begin")

// skewProblem says that GitHub's clock and ours disagree, empty if not.
func (s *Supervisor) skewProblem() string {
	for _, skew := range []time.Duration{s.Queue.Health().ClockSkew, s.GitHub.Health().ClockSkew} {
		if skew.Abs() > maxSkew {
			return fmt.Sprintf("GitHub's clock and ours are %s apart", skew.Abs().Round(time.Second))
		}
	}
	return ""
}

// closed lists what forbids new work although the log and the clock are right:
// a scale set that is not what it was when the restrictions of its group were
// checked, and runners in the group that could take our jobs and are not ours.
// What was begun goes on to its end.
func closed(health QueueHealth, strays map[string]*runner.Of[runner.Stray]) []string {
	why := append([]string{}, health.Problems...)
	for _, rec := range strays {
		if rec.Event.What != runner.StrayPod {
			why = append(why, strayText(rec.Event))
		}
	}
	return why
}

func strayText(e runner.Stray) string {
	switch e.What {
	case runner.StrayPod:
		return fmt.Sprintf("pod %s has our label and no runner of ours", e.Name)
	case runner.StrayRegistration:
		return fmt.Sprintf("runner %s (%s) is registered in our scale set and not by us", e.ID, e.Name)
	}
	return fmt.Sprintf("runner %s (%s) is in our runner group and not of our scale set", e.ID, e.Name)
}
