package endtoend

import (
	"slices"
	"testing"
	"time"

	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
	"github.com/runnerward/runnerward/pkg/sim/world"
)

// TestAClaimAsksOnAfterHostsThatAreUnfit has more unfit hosts than a claim asks
// the cloud about at first, and one good one, the youngest.
func TestAClaimAsksOnAfterHostsThatAreUnfit(t *testing.T) {
	const hosts = 20
	run(t, options{at: -1, hosts: hosts, group: func(g *simaws.Group) { g.Max = hosts }}, func(t *testing.T, b *bench) {
		var all []simaws.Instance
		b.until("every host runs", 20*time.Minute, func() bool {
			all = b.world.AWS.Instances()
			return len(all) == hosts && !slices.ContainsFunc(all, func(in simaws.Instance) bool { return in.State != "running" })
		})
		booted := time.Now()
		b.until("the hosts have run for a while", 20*time.Minute, func() bool { return time.Since(booted) > 5*time.Minute })
		good := all[hosts-1].ID
		for _, in := range all[:hosts-1] {
			// An instance whose disk came later is not one that booted from the image.
			if err := b.world.AWS.ReplaceRoot(in.ID); err != nil {
				t.Fatal(err)
			}
		}
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 20*time.Second), "carol")
		b.until("sealed", 20*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })
		if got := b.sealed(deploy.JobID).Claimed.Event.Host.InstanceID; got != good {
			t.Errorf("the job ran on %s, want %s, the only host that is fit", got, good)
		}
	})
}
