package endtoend

import (
	"fmt"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/sim/world"
)

// TestCrashAtEveryOperation runs one deploy over and over. Each time another
// operation goes wrong, in each flavour: it fails without effect, it takes
// effect and is reported failed, and the daemon dies before or after it. Every
// time the deploy must succeed, every host must be seen gone, every runner
// must be sealed, and the ledger must verify. A crash is the same with a spool
// and without one; a store that fails is not. By default it is every third
// operation, another one for each flavour; see [share].
func TestCrashAtEveryOperation(t *testing.T) {
	type kind struct {
		flavour
		spool bool
	}
	kinds := []kind{{flavours[0], true}, {flavours[1], true}}
	for _, f := range flavours {
		kinds = append(kinds, kind{f, false})
	}
	every, first := share(t, 3)
	for i, f := range kinds {
		t.Run(fmt.Sprintf("%s, spool=%t", f.name, f.spool), func(t *testing.T) {
			t.Parallel()
			operations := 0
			// A later operation goes wrong until a life has no such operation.
			for at := (first + i) % every; ; at += every {
				fired := ""
				ok := t.Run(fmt.Sprint(at), func(t *testing.T) {
					run(t, options{at: at, flavour: f.flavour, hosts: 3, spool: f.spool}, func(t *testing.T, b *bench) {
						fired = b.oneDeploy()
					})
				})
				if !ok {
					t.Fatalf("operation %d (%s) %s", at, fired, f.name)
				}
				if fired == "" {
					break
				}
				operations++
			}
			t.Logf("%d operations, each of which %s", operations, f.name)
			if operations*every < 40 {
				t.Errorf("only %d operations went wrong: the faults do not reach the daemon", operations)
			}
		})
	}
}

// oneDeploy takes an approved deploy to its end and says which operation went
// wrong on the way, empty if none did.
func (b *bench) oneDeploy() string {
	b.t.Helper()
	return b.toItsEnd(b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 20*time.Second), "carol"))
}

// toItsEnd waits for the end of a deploy and says which operation went wrong.
func (b *bench) toItsEnd(deploy simgithub.Run) string {
	b.t.Helper()
	b.poll("the deploy is sealed and every host is gone", 2*time.Hour, 20*time.Second, func() bool {
		return b.sealed(deploy.JobID) != nil && b.quiet()
	})
	b.faults.mu.Lock()
	fired := b.faults.fired
	b.faults.mu.Unlock()
	if job, _ := b.world.GitHub.Job(deploy.JobID); job.Conclusion != "success" {
		b.t.Errorf("after %q: GitHub says %q, want success", fired, job.Conclusion)
	}
	if n := len(b.world.GitHub.Runners()); n != 0 {
		b.t.Errorf("after %q: %d registrations are left over", fired, n)
	}
	b.singleUse(fired)
	return fired
}

// singleUse checks with EC2 and the ledger that each host served one runner
// and is gone.
func (b *bench) singleUse(fired string) {
	b.t.Helper()
	used := map[string]runner.Name{}
	for name, r := range b.state().Runners {
		id := r.Claimed.Event.Host.InstanceID
		if other, twice := used[id]; twice {
			b.t.Errorf("after %q: host %s served %s and %s", fired, id, other, name)
		}
		used[id] = name
		if in, ok := b.world.AWS.Instance(id); !ok || in.State != "terminated" {
			b.t.Errorf("after %q: host %s is %s in EC2, want terminated", fired, id, in.State)
		}
	}
}
