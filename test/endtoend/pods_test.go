package endtoend

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/runnerward/runnerward/pkg/runner"
	simcluster "github.com/runnerward/runnerward/pkg/sim/cluster"
	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/sim/world"
)

const (
	agentImage  = "runnerward-agent:test"
	runnerImage = "ghcr.io/actions/actions-runner:2.336.0"
)

// deletePod is somebody with rights to the namespace.
func (b *bench) deletePod(name string, grace int64) bool {
	err := b.world.Cluster.Client().CoreV1().Pods(world.Namespace).Delete(b.t.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: &grace})
	return err == nil
}

// TestHoweverAPodEndsItIsRecordedAndItsHostGoes: a job runs and its pod ends in
// each way that a cluster has. None makes the job a success, each ends in a
// record with the cluster's word, a host that is seen gone, and a seal.
func TestHoweverAPodEndsItIsRecordedAndItsHostGoes(t *testing.T) {
	for name, c := range map[string]struct {
		end    func(b *bench, pod string) bool
		phases []runner.PodPhase
		reason string
	}{
		"out of memory": {func(b *bench, pod string) bool { return b.world.Cluster.EndContainer(pod, simcluster.OOMKilled) },
			[]runner.PodPhase{runner.PodFailed}, "OOMKilled"},
		"the listener out of memory, which the runner's script answers with 0": {func(b *bench, pod string) bool { return b.world.Cluster.EndContainer(pod, 0) },
			[]runner.PodPhase{runner.PodSucceeded}, ""},
		"a crash": {func(b *bench, pod string) bool { return b.world.Cluster.EndContainer(pod, 139) },
			[]runner.PodPhase{runner.PodFailed}, "Error"},
		"evicted by its kubelet": {func(b *bench, pod string) bool { return b.world.Cluster.Evict(pod) },
			[]runner.PodPhase{runner.PodFailed}, "Evicted"},
		"evicted through the API": {func(b *bench, pod string) bool {
			return b.world.Cluster.Disrupt(pod, simcluster.EvictionByEvictionAPI)
		}, []runner.PodPhase{runner.PodFailed, runner.PodGone}, "EvictionByEvictionAPI"},
		"taken by the taint manager": {func(b *bench, pod string) bool {
			return b.world.Cluster.Disrupt(pod, simcluster.DeletionByTaintManager)
		}, []runner.PodPhase{runner.PodFailed, runner.PodGone}, "DeletionByTaintManager"},
		"preempted": {func(b *bench, pod string) bool {
			return b.world.Cluster.Disrupt(pod, simcluster.PreemptionByScheduler)
		}, []runner.PodPhase{runner.PodFailed, runner.PodGone}, "PreemptionByScheduler"},
		"deleted by somebody": {func(b *bench, pod string) bool { return b.deletePod(pod, 30) },
			[]runner.PodPhase{runner.PodGone}, ""},
		"deleted by force": {func(b *bench, pod string) bool { return b.deletePod(pod, 0) },
			[]runner.PodPhase{runner.PodGone}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			// A runner that is asked to stop takes some seconds to tell GitHub.
			reports := func(_ string, code int) int {
				pause(context.WithoutCancel(t.Context()), 5*time.Second)
				return code
			}
			run(t, options{at: -1, exit: reports}, func(t *testing.T, b *bench) {
				deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 40*time.Minute), "carol")
				b.until("started", 10*time.Minute, func() bool { return b.phase(runner.KindStarted) != nil })
				r := b.phase(runner.KindStarted)
				if !c.end(b, string(r.Name())) {
					t.Fatal("the pod could not be ended")
				}
				b.until("sealed", time.Hour, func() bool { return b.sealed(deploy.JobID) != nil })
				r = b.sealed(deploy.JobID)
				if e := r.Completed; e == nil || !slices.Contains(c.phases, e.Event.PodPhase) || e.Event.PodReason != c.reason {
					t.Errorf("completed = %+v, want one of %v because %q", e, c.phases, c.reason)
				}
				b.gone(r)
				if seal := r.Sealed.Event; seal.Outcome != runner.OutcomeCompleted || seal.Job.Result == runner.ResultSucceeded {
					t.Errorf("sealed %s with result %s, want completed and no success", seal.Outcome, seal.Job.Result)
				}
				if job, _ := b.world.GitHub.Job(deploy.JobID); job.Conclusion == "success" || job.Conclusion == "" {
					t.Errorf("GitHub says %q, want an end without success", job.Conclusion)
				}
				b.explains(deploy.JobID, strings.TrimSpace(fmt.Sprintf("pod %s %s", r.Completed.Event.PodPhase, c.reason)))
			})
		})
	}
}

// gone wants the host observed gone, in the record and in the cloud.
func (b *bench) gone(r *runner.Runner) {
	b.t.Helper()
	host := r.Claimed.Event.Host
	if e := r.Terminated; e == nil || !e.Event.PodGone || !e.Event.NodeGone || !e.Event.RegistrationGone || len(e.Event.States) == 0 {
		b.t.Errorf("terminated = %+v, want everything seen gone", e)
	}
	if in, ok := b.world.AWS.Instance(host.InstanceID); ok && in.State != "terminated" {
		b.t.Errorf("host %s is %s, want terminated", host.InstanceID, in.State)
	}
}

// TestAnExitCodeSaysNothing: whatever the runner's container exits with after its
// job, the verdict is GitHub's, both ways.
func TestAnExitCodeSaysNothing(t *testing.T) {
	for _, succeeds := range []bool{true, false} {
		for _, code := range []int{0, 1, 7, 137, simcluster.OOMKilled} {
			t.Run(fmt.Sprintf("succeeds=%t exit=%d", succeeds, code), func(t *testing.T) {
				run(t, options{at: -1, exit: func(string, int) int { return code }}, func(t *testing.T, b *bench) {
					spec := world.Deploy("v1.0.0", "bob", "bob", 20*time.Second)
					want := runner.ResultSucceeded
					if !succeeds {
						spec.Conclusion, want = "failure", runner.ResultFailed
					}
					deploy := b.dispatch(spec, "carol")
					b.until("sealed", time.Hour, func() bool { return b.sealed(deploy.JobID) != nil })
					r := b.sealed(deploy.JobID)
					if seal := r.Sealed.Event; seal.Outcome != runner.OutcomeCompleted || seal.Job.Result != want {
						t.Errorf("sealed %s with result %s, want completed and %s", seal.Outcome, seal.Job.Result, want)
					}
					if failed := r.Completed.Event.PodPhase == runner.PodFailed; failed != (code != 0) {
						t.Errorf("pod %s at exit %d", r.Completed.Event.PodPhase, code)
					}
					b.gone(r)
				})
			})
		}
	}
}

// TestAPodThatDiesBeforeItsJobCostsOneHost: before it is bound, and while it waits
// for a job.
func TestAPodThatDiesBeforeItsJobCostsOneHost(t *testing.T) {
	for _, phase := range []runner.Kind{runner.KindClaimed, runner.KindReleased} {
		t.Run(string(phase), func(t *testing.T) {
			var held, once atomic.Bool
			held.Store(true)
			run(t, options{at: -1, hosts: 3, assign: func(_ string, idle []string) string {
				if held.Load() {
					return ""
				}
				return idle[0]
			}, onRecord: func(b *bench, rec runner.Record) {
				if rec.Event.Kind() == runner.KindClaimed && phase == runner.KindClaimed && once.CompareAndSwap(false, true) {
					b.world.Cluster.Inject(simcluster.Fault{Verb: "create", Resource: "tokenreviews", Count: 20})
				}
			}}, func(t *testing.T, b *bench) {
				deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 10*time.Second), "carol")
				var name runner.Name
				b.until("the pod dies", 10*time.Minute, func() bool {
					r := b.phase(phase)
					if r == nil {
						return false
					}
					name = r.Name()
					return b.world.Cluster.EndContainer(string(name), simcluster.OOMKilled)
				})
				held.Store(false)
				b.until("sealed on another host", time.Hour, func() bool { return b.sealed(deploy.JobID) != nil && b.quiet() })
				r := b.state().Runners[name]
				if e := r.Retired; e == nil || e.Event.Cause != runner.CausePodFailed || e.Event.PodReason != "OOMKilled" || r.Started != nil {
					t.Errorf("retired = %+v, want pod-failed, OOMKilled", e)
				}
				b.gone(r)
				b.explains(string(name), "pod-failed", "pod, as the cluster said OOMKilled")
				if n := len(b.state().Runners); n != 2 {
					t.Errorf("%d hosts were used, want 2", n)
				}
			})
		})
	}
}

// TestAnImageThatCannotBeHadIsSaid: at once to on-call, in the record when the
// runner is given up, and the deploy goes on when it can be had again.
func TestAnImageThatCannotBeHadIsSaid(t *testing.T) {
	for name, c := range map[string]struct{ image, reason, shown string }{
		"of the init container":      {agentImage, "ErrImagePull", "ImagePullBackOff"},
		"of the runner":              {runnerImage, "ErrImagePull", "ImagePullBackOff"},
		"a Secret that is not there": {runnerImage, "CreateContainerConfigError", "CreateContainerConfigError"},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, options{at: -1, hosts: 3}, func(t *testing.T, b *bench) {
				b.world.Cluster.FailPull(c.image, c.reason)
				deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 10*time.Second), "carol")
				b.until("claimed", 10*time.Minute, func() bool { return b.phase(runner.KindClaimed) != nil })
				r := b.phase(runner.KindClaimed)
				b.until("the status shows it", time.Minute, func() bool {
					v := b.view()
					return len(v.Runners) == 1 && v.Runners[0].Pod == "the pod does not start: "+c.shown &&
						slices.ContainsFunc(v.Warnings, func(w string) bool { return strings.Contains(w, c.shown) })
				})
				b.until("an event shows it", time.Minute, func() bool { return b.event(string(r.Name()), "PodTrouble", c.reason) })
				b.until("given up", 10*time.Minute, func() bool { return b.state().Runners[r.Name()].Retired != nil })
				e := b.state().Runners[r.Name()].Retired
				if e.Event.Cause != runner.CauseNeverBound || e.Event.PodReason != c.shown && e.Event.PodReason != c.reason {
					t.Errorf("retired = %+v, want never-bound, %s", e.Event, c.shown)
				}
				if waited := e.At.Sub(r.Claimed.At); waited < b.limits().BindBy || waited > b.limits().BindBy+time.Minute {
					t.Errorf("given up after %s, want bindBy: it may come back", waited)
				}
				b.world.Cluster.MendPull(c.image)
				b.until("sealed on another host", time.Hour, func() bool { return b.sealed(deploy.JobID) != nil && b.quiet() })
				b.gone(b.state().Runners[r.Name()])
				b.explains(string(r.Name()), "ended without a job: never-bound", "pod, as the cluster said "+e.Event.PodReason)
			})
		})
	}
}

// event says that the cluster has an event about this object.
func (b *bench) event(object, reason, note string) bool {
	b.t.Helper()
	for _, namespace := range []string{world.Namespace, metav1.NamespaceDefault} {
		list, err := b.world.Cluster.Client().EventsV1().Events(namespace).List(b.t.Context(), metav1.ListOptions{})
		if err != nil {
			b.t.Fatal(err)
		}
		for _, e := range list.Items {
			if e.Regarding.Name == object && e.Reason == reason && e.Type == "Warning" && strings.Contains(e.Note, note) {
				return true
			}
		}
	}
	return false
}

// TestAnImageThatIsWrongForEverybodyDoesNotBurnHosts: four deploys wait and no pod
// ever starts. The first hosts are given up at once, the next one at a time and
// less and less often, and the status says why. The configuration is mended by a
// restart, and then nothing is held back.
func TestAnImageThatIsWrongForEverybodyDoesNotBurnHosts(t *testing.T) {
	run(t, options{at: -1, hosts: 4}, func(t *testing.T, b *bench) {
		b.world.Cluster.FailPull(runnerImage, "InvalidImageName")
		for i := range 4 {
			b.dispatch(world.Deploy(fmt.Sprintf("v1.0.%d", i), "bob", "bob", 10*time.Second), "carol")
		}
		b.until("the status says why", 15*time.Minute, func() bool { return b.why("the runners' pods do not start (InvalidImageName") })
		began := b.state().LastAt
		pause(t.Context(), time.Hour)
		st := b.state()
		for _, r := range st.Runners {
			if e := r.Retired; e == nil || e.Event.Cause != runner.CauseNeverBound || e.Event.PodReason != "InvalidImageName" || e.At.Sub(r.Claimed.At) > time.Minute {
				t.Errorf("retired = %+v, want never-bound within the minute: it cannot come back", e)
			}
		}
		// Four at once, and then after 10, 20 and 40 minutes.
		if n := len(st.Runners); n < 5 || n > 7 {
			t.Errorf("%d hosts were used in an hour from %s, want 5 to 7\n%s", n, began, b.describe())
		}
		b.world.Cluster.MendPull(runnerImage)
		b.kill()
		b.start()
		deploy := b.dispatch(world.Deploy("v1.1.0", "bob", "bob", 10*time.Second), "carol")
		b.until("sealed", 20*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })
		b.until("nothing is held back", time.Minute, func() bool { return !b.why("do not start") })
	})
}

// TestARegistryThatComesBackIsFoundOut: nobody restarts anything.
func TestARegistryThatComesBackIsFoundOut(t *testing.T) {
	run(t, options{at: -1, hosts: 4}, func(t *testing.T, b *bench) {
		b.world.Cluster.FailPull(runnerImage, "ErrImagePull")
		for i := range 3 {
			b.dispatch(world.Deploy(fmt.Sprintf("v1.0.%d", i), "bob", "bob", 10*time.Second), "carol")
		}
		b.until("hosts are held back", 20*time.Minute, func() bool { return b.why("do not start (") })
		b.world.Cluster.MendPull(runnerImage)
		b.until("all jobs are over", time.Hour, func() bool {
			return !slices.ContainsFunc(b.world.GitHub.Jobs(), func(j simgithub.JobState) bool { return j.Conclusion != "success" })
		})
	})
}

// TestAHostThatFallsSilentIsGivenUp: its kubelet is cut off while its job runs.
// The pod is said to run for ever; after the limit the host is ended all the
// same, and people were told at once.
func TestAHostThatFallsSilentIsGivenUp(t *testing.T) {
	run(t, options{at: -1}, func(t *testing.T, b *bench) {
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 50*time.Minute), "carol")
		b.until("started", 10*time.Minute, func() bool { return b.phase(runner.KindStarted) != nil })
		r := b.phase(runner.KindStarted)
		node := r.Claimed.Event.Host.NodeName
		if !b.world.Cluster.SilenceNode(node) {
			t.Fatalf("no node %s", node)
		}
		silent := time.Now()
		b.until("the status warns", 3*time.Minute, func() bool {
			return slices.ContainsFunc(b.view().Warnings, func(w string) bool { return strings.Contains(w, "its kubelet has said nothing") })
		})
		b.until("an event warns", time.Minute, func() bool { return b.event(node, "HostSilent", "after 10m") })
		pause(t.Context(), 9*time.Minute-time.Since(silent))
		if r := b.state().Runners[r.Name()]; r.Retired != nil {
			t.Errorf("given up after less than 9m: %+v", r.Retired)
		}
		b.until("sealed", time.Hour, func() bool { return b.sealed(deploy.JobID) != nil })
		r = b.sealed(deploy.JobID)
		if e := r.Retired; e == nil || e.Event.Cause != runner.CauseHostSilent || e.Event.PodReason != simcluster.DeletionByTaintManager || e.At.Sub(silent) > 12*time.Minute {
			t.Errorf("retired = %+v, %s after it fell silent, want host-silent within 12m", e, e.At.Sub(silent))
		}
		b.gone(r)
		if seal := r.Sealed.Event; seal.Outcome != runner.OutcomeRetired || seal.Cause != runner.CauseHostSilent || seal.Job.Result == runner.ResultSucceeded {
			t.Errorf("sealed %s %s, result %s", seal.Outcome, seal.Cause, seal.Job.Result)
		}
		b.until("its run is over on GitHub", time.Minute, func() bool {
			job, _ := b.world.GitHub.Job(deploy.JobID)
			return job.Status == "completed" && job.Conclusion != "success"
		})
	})
}

// TestAHostWhoseNodeIsRegisteredAnewKeepsItsJob: the node object is another one,
// and the kubelet on the host speaks.
func TestAHostWhoseNodeIsRegisteredAnewKeepsItsJob(t *testing.T) {
	run(t, options{at: -1}, func(t *testing.T, b *bench) {
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 30*time.Minute), "carol")
		b.until("started", 10*time.Minute, func() bool { return b.phase(runner.KindStarted) != nil })
		host := b.phase(runner.KindStarted).Claimed.Event.Host
		if err := nodeRegisteredAgain(t.Context(), b, host.InstanceID, host.NodeName); err != nil {
			t.Fatal(err)
		}
		b.until("sealed", time.Hour, func() bool { return b.sealed(deploy.JobID) != nil })
		if r := b.sealed(deploy.JobID); r.Completed == nil || r.Sealed.Event.Job.Result != runner.ResultSucceeded {
			t.Errorf("sealed %s, result %s, want completed and succeeded", r.Sealed.Event.Outcome, r.Sealed.Event.Job.Result)
		}
	})
}

// TestAHostThatTheCloudShowsOverIsGivenUpAtOnce: its node and pod stay as they
// were, because nothing in the cluster removes them.
func TestAHostThatTheCloudShowsOverIsGivenUpAtOnce(t *testing.T) {
	run(t, options{at: -1, hosts: 3, nodeLoss: 24 * time.Hour}, func(t *testing.T, b *bench) {
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 50*time.Minute), "carol")
		b.until("started", 10*time.Minute, func() bool { return b.phase(runner.KindStarted) != nil })
		r := b.phase(runner.KindStarted)
		if err := b.world.AWS.Replace(r.Claimed.Event.Host.InstanceID); err != nil {
			t.Fatal(err)
		}
		lost := time.Now()
		b.until("sealed", time.Hour, func() bool { return b.sealed(deploy.JobID) != nil })
		r = b.sealed(deploy.JobID)
		if e := r.Retired; e == nil || e.Event.Cause != runner.CauseHostEnded || e.At.Sub(lost) > 2*time.Minute {
			t.Errorf("retired = %+v, want host-ended within 2m of %s", e, lost)
		}
		b.gone(r)
	})
}
