package supervisor

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

func TestWitnessesAreBounded(t *testing.T) {
	w, start := newWitnesses(), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	take := func(node, instance, minute int) error {
		return w.take(fmt.Sprint("node-", node), runner.HostIdentity{
			InstanceID: fmt.Sprint("i-", instance), SeenAt: start.Add(time.Duration(minute) * time.Minute),
		}, HostClaim{})
	}
	for i := range maxWitnesses {
		if err := take(i, i, i); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(take(0, 0, maxWitnesses), take(9999, 9999, maxWitnesses+1)); err != nil {
		t.Fatal(err)
	}
	if len(w.byNode) != maxWitnesses || w.of("node-1") != nil || w.of("node-0") == nil || w.of("node-9999") == nil {
		t.Errorf("%d witnesses, want %d without the one that was not seen for longest", len(w.byNode), maxWitnesses)
	}
	for what, err := range map[string]error{
		"another instance on a known node": take(0, 77777, 0),
		"a known instance on a new node":   take(77777, 0, 0),
		"two known ones, crossed":          take(2, 3, 0),
	} {
		if !errors.Is(err, ErrConflict) {
			t.Errorf("%s: take = %v, want ErrConflict", what, err)
		}
	}
}
