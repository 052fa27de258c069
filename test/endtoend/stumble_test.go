package endtoend

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/sim/world"
)

// TestABusyRegistrationIsAskedForLessAndLess kills a runner in the middle of
// its job. GitHub holds the lease of the job for ten minutes and refuses to
// remove the runner; every attempt costs two calls of a limited rate.
func TestABusyRegistrationIsAskedForLessAndLess(t *testing.T) {
	run(t, options{at: -1}, func(t *testing.T, b *bench) {
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", time.Hour), "carol")
		b.until("started", 10*time.Minute, func() bool { return b.phase(runner.KindStarted) != nil })
		pause(t.Context(), time.Minute)
		name := string(b.phase(runner.KindStarted).Name())
		if err := b.world.Cluster.Client().CoreV1().Pods(world.Namespace).Delete(t.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}); err != nil {
			t.Fatal(err)
		}
		killed := time.Now()
		b.until("sealed", time.Hour, func() bool { return b.sealed(deploy.JobID) != nil })
		asked, gone := 0, time.Time{}
		for _, r := range b.world.GitHub.Requests() {
			if r.Method == "DELETE" && strings.Contains(r.Path, "/pools/0/agents/") && r.Time.After(killed) {
				asked++
				gone = r.Time
			}
		}
		held := gone.Sub(killed)
		if held < 5*time.Minute {
			t.Fatalf("the registration was gone after %s: GitHub did not hold it, nothing was tested", held)
		}
		// Doubling from two seconds to a minute: 2+4+8+16+32 s, then one a minute.
		if most := 7 + int(held/time.Minute); asked < 3 || asked > most {
			t.Errorf("GitHub was asked %d times in %s to remove the runner, want 3 to %d", asked, held, most)
		}
	})
}

// TestAPanicCostsOneTryOfOneTask lets libraries fall over in tasks of every
// sort: each is told as the subject's problem and tried again.
func TestAPanicCostsOneTryOfOneTask(t *testing.T) {
	run(t, options{at: -1}, func(t *testing.T, b *bench) {
		b.faults.mu.Lock()
		b.faults.panics = map[string]int{
			"facts": 2, "list nodes": 1, "claim node": 1, "ensure pod": 1, "list runners": 1, "news": 1,
			"terminate": 2, "describe instances": 1, "deregister": 1, "delete node": 1,
		}
		b.faults.mu.Unlock()
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 20*time.Second), "carol")
		told := false
		b.until("sealed", time.Hour, func() bool {
			for _, j := range b.view().Jobs {
				told = told || strings.Contains(j.Problem, "panicked")
			}
			return b.sealed(deploy.JobID) != nil
		})
		if !told {
			t.Error("the status never said that a task panicked")
		}
		b.faults.mu.Lock()
		defer b.faults.mu.Unlock()
		for op, left := range b.faults.panics {
			if left != 0 {
				t.Errorf("%q was not reached: %d panics left", op, left)
			}
		}
	})
}
