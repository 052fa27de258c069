package runnertest_test

import (
	"testing"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/runner/runnertest"
)

func TestEveryStoryIsValidAndEndsWhereItSays(t *testing.T) {
	stories := map[string][]runner.Kind{
		"completed": runnertest.CompletedStory(),
		"refused":   runnertest.RefusedStory(),
		"retired":   runnertest.RetiredStory(),
	}
	n := 0
	s := runnertest.NewScript(runnertest.Memory(), nil)
	if err := s.Open(); err != nil {
		t.Fatal(err)
	}
	for name, story := range stories {
		c := runnertest.NewCast(n)
		n++
		if err := s.Tell(c, story); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		seal := s.State.Runners[c.Runner].Sealed
		if seal == nil || string(seal.Event.Outcome) != name {
			t.Errorf("outcome of the %s story = %+v", name, seal)
		}
	}
	denied := runnertest.NewCast(n)
	if err := s.Tell(denied, runnertest.DeniedStory()); err != nil {
		t.Fatal(err)
	}
	if got := s.State.Jobs[denied.Job].Phase(); got != runner.KindDenied {
		t.Errorf("phase of the denied job = %s", got)
	}
}

func TestAnEventOutOfPlaceIsToldAndLeftOutOfTheFold(t *testing.T) {
	s := runnertest.NewScript(runnertest.Memory(), nil)
	early, err := s.Next(runnertest.NewCast(0), runner.KindReleased)
	if err != nil {
		t.Fatal(err)
	}
	_, refused, err := s.Say(early)
	if err != nil || refused == nil {
		t.Fatalf("Say(released before bound) = %v, %v, want a refusal", refused, err)
	}
	if len(s.Records) != 1 || s.State.Size != 0 {
		t.Errorf("records = %d, folded = %d, want 1 and 0", len(s.Records), s.State.Size)
	}
}
