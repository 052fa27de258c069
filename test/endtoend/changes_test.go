package endtoend

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/runnerward/runnerward/pkg/runner"
	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
	simcluster "github.com/runnerward/runnerward/pkg/sim/cluster"
	"github.com/runnerward/runnerward/pkg/sim/world"
)

// longTick is so long that what is done within seconds was not done by it.
const longTick = 5 * time.Minute

// TestAPodsEndIsRecordedBeforeTheNextTick: the watch tells, the tick need not come.
func TestAPodsEndIsRecordedBeforeTheNextTick(t *testing.T) {
	run(t, options{at: -1, tick: longTick}, func(t *testing.T, b *bench) {
		b.until("listening", time.Minute, func() bool { return b.view().Queue.Session == "open" })
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 20*time.Second), "carol")
		b.until("started", 20*time.Minute, func() bool { return b.phase(runner.KindStarted) != nil })
		pods, err := b.world.Cluster.Client().CoreV1().Pods(world.Namespace).Watch(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer pods.Stop()
		var ended time.Time
		for ended.IsZero() {
			if pod, ok := (<-pods.ResultChan()).Object.(*corev1.Pod); ok && pod.Status.Phase == corev1.PodSucceeded {
				ended = time.Now()
			}
		}
		b.until("completed", 2*longTick, func() bool {
			r := b.of(deploy.JobID)
			return r != nil && r.Completed != nil
		})
		if took := b.of(deploy.JobID).Completed.At.Sub(ended); took > 2*time.Second {
			t.Errorf("the end of the pod was recorded after %s, want within 2 s", took)
		}
		b.until("sealed", time.Hour, func() bool { return b.sealed(deploy.JobID) != nil })
	})
}

// of is the runner that the job started on.
func (b *bench) of(job string) *runner.Runner {
	for _, r := range b.state().Runners {
		if r.Started != nil && r.Started.Event.Job == runner.JobID(job) {
			return r
		}
	}
	return nil
}

// TestAHostIsClaimedWhenItsNodeJoins: three jobs come and two hosts are there.
// The third is served as soon as the next node is.
func TestAHostIsClaimedWhenItsNodeJoins(t *testing.T) {
	run(t, options{at: -1, tick: longTick, limits: func(l *runner.Limits) { l.AuthorizedFor = 3 * time.Hour }}, func(t *testing.T, b *bench) {
		b.until("listening", time.Minute, func() bool { return b.view().Queue.Session == "open" })
		for _, tag := range []string{"v1.0.0", "v1.0.1", "v1.0.2"} {
			b.dispatch(world.Deploy(tag, "bob", "bob", 20*time.Second), "carol")
		}
		b.until("all are claimed", 3*time.Hour, func() bool { return len(b.state().Runners) == 3 })
		var last runner.Claimed
		var at time.Time
		for _, r := range b.state().Runners {
			if r.Claimed.At.After(at) {
				last, at = r.Claimed.Event, r.Claimed.At
			}
		}
		node, err := b.world.Cluster.Client().CoreV1().Nodes().Get(t.Context(), last.Host.NodeName, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if took := at.Sub(node.CreationTimestamp.Time); took > 5*time.Second {
			t.Errorf("the host was claimed %s after its node joined, want within 5 s", took)
		}
		b.until("all are sealed", 3*time.Hour, b.quiet)
	})
}

// TestDeploysGoOnWhileTheClusterCannotBeWatched has no watch from the start on,
// as where the rights to it are missing, and breaks one amid a deploy.
func TestDeploysGoOnWhileTheClusterCannotBeWatched(t *testing.T) {
	run(t, options{at: -1}, func(t *testing.T, b *bench) {
		b.until("listening", time.Minute, func() bool { return b.view().Queue.Session == "open" })
		broken := func() {
			b.world.Cluster.Inject(simcluster.Fault{Verb: "watch", Count: 1 << 30})
			b.world.Cluster.BreakWatches()
		}
		first := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", time.Minute), "carol")
		b.until("started", 20*time.Minute, func() bool { return b.phase(runner.KindStarted) != nil })
		broken()
		b.until("the first is sealed", 20*time.Minute, func() bool { return b.sealed(first.JobID) != nil })
		if v := b.view(); len(v.Warnings) != 2 || !v.CanDeploy {
			t.Errorf("warnings = %q, can deploy = %t: want one warning for each watch, and to deploy", v.Warnings, v.CanDeploy)
		}
		second := b.dispatch(world.Deploy("v1.0.1", "bob", "bob", time.Minute), "carol")
		b.until("the second is sealed", 20*time.Minute, func() bool { return b.sealed(second.JobID) != nil })
		b.world.Cluster.Mend()
		b.until("it is watched again", 5*time.Minute, func() bool { return len(b.view().Warnings) == 0 })
	})
}

// TestEveryDecisionIsAnEvent reads what kubectl shows of a deploy, and counts
// what it costs.
func TestEveryDecisionIsAnEvent(t *testing.T) {
	run(t, options{at: -1}, func(t *testing.T, b *bench) {
		b.until("listening", time.Minute, func() bool { return b.view().Queue.Session == "open" })
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 20*time.Second), "carol")
		b.until("sealed", 20*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })
		pause(t.Context(), time.Second)
		r := b.sealed(deploy.JobID)
		for namespace, want := range map[string][]string{
			world.Namespace:         {"Bound", "Released", "Started", "Completed", "Teardown", "Terminated"},
			metav1.NamespaceDefault: {"Claimed", "Bound", "Released", "Started", "Completed", "Teardown", "Terminated"},
		} {
			list, err := b.world.Cluster.Client().EventsV1().Events(namespace).List(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			seen := map[string]int{}
			for _, e := range list.Items {
				seen[e.Reason]++
				uid := r.Bound.Event.PodUID
				if e.Regarding.Kind == "Node" {
					uid = r.Bound.Event.NodeUID
				}
				if string(e.Regarding.UID) != uid {
					t.Errorf("%s is about the %s with UID %q, want %q", e.Reason, e.Regarding.Kind, e.Regarding.UID, uid)
				}
			}
			for _, reason := range want {
				if seen[reason] != 1 {
					t.Errorf("%d events %s in %s, want 1", seen[reason], reason, namespace)
				}
			}
			if len(list.Items) != len(want) {
				t.Errorf("%d events in %s, want %d: %v", len(list.Items), namespace, len(want), seen)
			}
		}
		calls := map[string]int{}
		for _, q := range b.world.Cluster.Requests() {
			calls[q.Verb+" "+q.Resource]++
		}
		t.Logf("one deploy took these calls of the API server: %v", calls)
		// Without a copy a pod is read and the nodes are listed with every tick.
		for call, most := range map[string]int{"create pods": 1, "update nodes": 1, "get nodes": 4, "get pods": 4, "list nodes": 5, "list pods": 4} {
			if calls[call] > most {
				t.Errorf("%d calls to %s, want %d at most", calls[call], call, most)
			}
		}
	})
}

// TestAClaimIsTrueOfItsMoment: the watch is open and believed, and brings nothing of
// a drain. What is signed of the host is what the API server says.
func TestAClaimIsTrueOfItsMoment(t *testing.T) {
	run(t, options{at: -1}, func(t *testing.T, b *bench) {
		b.until("hosts are known", 10*time.Minute, func() bool { return len(b.view().Hosts) == 2 && b.view().Hosts[1].Vetted })
		pause(t.Context(), 10*time.Second)
		b.world.Cluster.Mute(true)
		nodes := b.world.Cluster.Client().CoreV1().Nodes()
		drained, err := nodes.Get(t.Context(), b.view().Hosts[0].Node, metav1.GetOptions{}) // the first to be claimed
		if err != nil {
			t.Fatal(err)
		}
		drained.Spec.Unschedulable = true
		if _, err := nodes.Update(t.Context(), drained, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 20*time.Second), "carol")
		b.until("claimed", 2*time.Minute, func() bool { return len(b.state().Runners) == 1 })
		b.world.Cluster.Mute(false)
		for _, r := range b.state().Runners {
			if r.Claimed.Event.Host.NodeName == drained.Name {
				t.Errorf("%s was claimed while it was drained, with %v", drained.Name, r.Claimed.Event.Host.Checks)
			}
		}
	})
}

// TestAHostIsClaimedWhenEC2VouchesForIt: no node changes when an instance gets
// the tag that it lacked. A job that has waited for minutes must not wait out its
// last pause then.
func TestAHostIsClaimedWhenEC2VouchesForIt(t *testing.T) {
	untagged := func(g *simaws.Group) { g.Tags = map[string]string{"Boundary": "production"} }
	for _, minutes := range []int{4, 5, 6} { // pauses of up to a minute, met at different points
		run(t, options{at: -1, group: untagged}, func(t *testing.T, b *bench) {
			deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 20*time.Second), "carol")
			b.until("a claim has failed", 5*time.Minute, func() bool {
				j := b.state().Jobs[runner.JobID(deploy.JobID)]
				return j != nil && j.Authorized != nil
			})
			pause(t.Context(), time.Duration(minutes)*time.Minute+11*time.Second)
			if b.phase(runner.KindClaimed) != nil {
				t.Fatal("a host without its tag was claimed")
			}
			tagged := time.Now()
			for _, in := range b.world.AWS.Instances() {
				if err := b.world.AWS.Tag(in.ID, map[string]string{"Compliance": "HIPAA"}); err != nil {
					t.Fatal(err)
				}
			}
			b.until("sealed", time.Hour, func() bool { return b.sealed(deploy.JobID) != nil })
			// The survey comes every five ticks, of 2 s each.
			if took := b.of(deploy.JobID).Claimed.At.Sub(tagged); took > 15*time.Second {
				t.Errorf("claimed %s after the host could be, want within 15 s", took)
			}
		})
	}
}
