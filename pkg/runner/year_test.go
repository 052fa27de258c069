package runner_test

import (
	"errors"
	"testing"

	"github.com/runnerward/runnerward/pkg/runner"
)

func TestAYearEndsOnceAndTheNextBeginsAtOnce(t *testing.T) {
	begins := func(before uint64) runner.Continued {
		return runner.Continued{Origin: "a.example/b", Size: before, Root: runner.DigestOf(nil), Checkpoint: runner.DigestOf(nil), Before: before}
	}
	for name, c := range map[string]struct {
		before []runner.Event
		e      runner.Event
		ok     bool
	}{
		"the end":                            {[]runner.Event{runner.Heartbeat{}}, runner.Closed{Year: 2027}, true},
		"the end of nothing":                 {nil, runner.Closed{Year: 2027}, false},
		"an end that goes nowhere":           {[]runner.Event{runner.Heartbeat{}}, runner.Closed{}, false},
		"a year of five digits":              {[]runner.Event{runner.Heartbeat{}}, runner.Closed{Year: 10000}, false},
		"the beginning":                      {[]runner.Event{runner.Heartbeat{}, runner.Closed{Year: 2027}}, begins(2), true},
		"a beginning without an end":         {[]runner.Event{runner.Heartbeat{}}, begins(1), false},
		"a beginning at the beginning":       {nil, begins(0), false},
		"a beginning that counts less":       {[]runner.Event{runner.Heartbeat{}, runner.Closed{Year: 2027}}, begins(1), false},
		"a record between the years":         {[]runner.Event{runner.Heartbeat{}, runner.Closed{Year: 2027}}, runner.Heartbeat{}, false},
		"two ends":                           {[]runner.Event{runner.Heartbeat{}, runner.Closed{Year: 2027}}, runner.Closed{Year: 2028}, false},
		"a record after the beginning":       {[]runner.Event{runner.Heartbeat{}, runner.Closed{Year: 2027}, begins(2)}, runner.Heartbeat{}, true},
		"a second beginning after the first": {[]runner.Event{runner.Heartbeat{}, runner.Closed{Year: 2027}, begins(2)}, begins(3), false},
	} {
		w := newWorld()
		for _, e := range c.before {
			if err := w.add(e); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		err := w.add(c.e)
		violation, broken := errors.AsType[*runner.Violation](err)
		if c.ok && err != nil || !c.ok && (!broken || violation.Invariant != 7 || violation.Rule != "year") {
			t.Errorf("%s: %v, want it allowed: %t", name, err, c.ok)
		}
	}
}
