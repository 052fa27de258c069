package runner_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/runnerward/runnerward/pkg/runner"
)

// rotated hands over between keys whose ids are made of these digits.
func rotated(use runner.KeyUse, from, to string) runner.Rotated {
	return runner.Rotated{
		Origin: "ledger.example.org/hipaa-prod/2026", Use: use, Old: strings.Repeat(from, 64), New: strings.Repeat(to, 64),
		PublicKey: "00", SignedAt: epoch, Signature: "00",
	}
}

func TestKeysHandOverInOrder(t *testing.T) {
	w := newWorld()
	for _, step := range []struct {
		e    runner.Rotated
		want string
	}{
		{rotated(runner.RecordKey, "a", "b"), "yes"},
		{rotated(runner.RecordKey, "a", "b"), "again"},
		{rotated(runner.RecordKey, "a", "c"), "7/rotation"},
		{rotated(runner.RecordKey, "b", "b"), "7/rotation"},
		{rotated(runner.CheckpointKey, "1", "2"), "yes"},
		{rotated(runner.RecordKey, "b", "c"), "yes"},
		{rotated("tokens", "a", "b"), "7/rotation"},
	} {
		err := w.add(step.e)
		if got := cell(err); got != step.want {
			t.Errorf("%s from %.1s to %.1s: %s, want %s", step.e.Use, step.e.Old, step.e.New, got, step.want)
		}
		if err == nil && w.Rotated[step.e.Use].Event != step.e {
			t.Errorf("the state holds %+v, want %+v", w.Rotated[step.e.Use].Event, step.e)
		}
	}
}

func TestAHandoverHoldsKeysAndNothingElse(t *testing.T) {
	for name, change := range map[string]func(*runner.Rotated){
		"an origin with a scheme":  func(e *runner.Rotated) { e.Origin = "https://ledger.example.org" },
		"an id that is no digest":  func(e *runner.Rotated) { e.New = "alias/records" },
		"half a byte":              func(e *runner.Rotated) { e.PublicKey = "abc" },
		"a signature in base64":    func(e *runner.Rotated) { e.Signature = "MEUCIQ==" },
		"a signature without end":  func(e *runner.Rotated) { e.Signature = strings.Repeat("00", 257) },
		"a use that is a sentence": func(e *runner.Rotated) { e.Use = "to sign with" },
	} {
		e := rotated(runner.RecordKey, "a", "b")
		change(&e)
		err := newWorld().add(e)
		if v, ok := errors.AsType[*runner.Violation](err); !ok || v.Rule != "closed-fields" && v.Rule != "rotation" {
			t.Errorf("%s: %v, want a refusal", name, err)
		}
	}
}
