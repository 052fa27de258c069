package supervisor

import (
	"slices"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
	"go.uber.org/zap"
)

// TestSilenceIsMeasuredBetweenLooks: a host that speaks in between, and a time in
// which nobody could look, begin it anew.
func TestSilenceIsMeasuredBetweenLooks(t *testing.T) {
	began := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	type look struct {
		after  time.Duration
		silent bool
	}
	for name, c := range map[string]struct {
		looks []look
		want  time.Duration // from the first to the last look that counts
		fresh int           // how often it was news
	}{
		"silent all along":  {[]look{{0, true}, {time.Minute, true}, {3 * time.Minute, true}}, 3 * time.Minute, 1},
		"spoke in between":  {[]look{{0, true}, {time.Minute, false}, {2 * time.Minute, true}, {3 * time.Minute, true}}, time.Minute, 2},
		"nobody could look": {[]look{{0, true}, {time.Hour, true}, {time.Hour + time.Minute, true}}, time.Minute, 2},
	} {
		s, fresh := &silences{}, 0
		for _, look := range c.looks {
			silent := []runner.Name{"other"}
			if look.silent {
				silent = append(silent, "r1")
			}
			if slices.Contains(s.saw(silent, began.Add(look.after), 2*time.Minute), "r1") {
				fresh++
			}
		}
		if was, ok := s.of("r1"); !ok || was.last.Sub(was.since) != c.want || fresh != c.fresh {
			t.Errorf("%s: silent for %s, news %d times, want %s and %d", name, was.last.Sub(was.since), fresh, c.want, c.fresh)
		}
	}
}

// TestSilenceAddsUpAtEveryTick that the configuration allows: people are told of
// it once, also when a survey fails in between.
func TestSilenceAddsUpAtEveryTick(t *testing.T) {
	now := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	for _, tick := range []time.Duration{10 * time.Millisecond, 2 * time.Second, 25 * time.Second, time.Minute} {
		cluster := &told{}
		s := &Supervisor{Options: Options{Cluster: cluster, Tick: tick, Logger: zap.NewNop()}, state: runner.NewState()}
		s.state.Runners["r1"] = &runner.Runner{}
		looks := []int{0, 1, 3, 4} // the third failed
		for _, n := range looks {
			s.noteSilence(nil, now.Add(time.Duration(n)*(s.surveyEvery()+tick)))
		}
		was, _ := s.silence.of("r1")
		if want := 4 * (s.surveyEvery() + tick); was.last.Sub(was.since) != want || len(cluster.events) != 1 {
			t.Errorf("tick %s: silent for %s, told %d times, want %s and once", tick, was.last.Sub(was.since), len(cluster.events), want)
		}
	}
}

// TestTheCloudIsAskedNowAndThen about a host that is silent, and never about
// another.
func TestTheCloudIsAskedNowAndThen(t *testing.T) {
	now := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	s := &silences{}
	s.saw([]runner.Name{"r1"}, now, time.Minute)
	for _, c := range []struct {
		name  runner.Name
		after time.Duration
		want  bool
	}{{"r1", 0, true}, {"r1", askCloud - 1, false}, {"r1", askCloud, true}, {"r1", askCloud + 1, false}, {"r2", time.Hour, false}} {
		if got := s.due(c.name, now.Add(c.after), askCloud); got != c.want {
			t.Errorf("due(%s) after %s = %t, want %t", c.name, c.after, got, c.want)
		}
	}
}

func TestTroubleIsWhatSomebodyCanMend(t *testing.T) {
	for want, pods := range map[string][]podSight{
		"": {
			{}, {phase: runner.PodRunning}, {phase: runner.PodPending}, {phase: runner.PodPending, reason: "ContainerCreating"},
			{phase: runner.PodPending, reason: "PodInitializing"}, {phase: runner.PodFailed, reason: "OOMKilled"}, {phase: runner.PodGone, deleting: true},
		},
		"the pod does not start: ErrImagePull":                             {{phase: runner.PodPending, reason: "ErrImagePull"}},
		"somebody deletes the pod":                                         {{phase: runner.PodRunning, deleting: true}},
		"the cluster takes the pod away: EvictionByEvictionAPI":            {{phase: runner.PodRunning, reason: "EvictionByEvictionAPI", deleting: true}},
		"the cluster is about to take the pod away: PreemptionByScheduler": {{phase: runner.PodRunning, reason: "PreemptionByScheduler"}},
	} {
		for _, p := range pods {
			if got := p.trouble(); got != want {
				t.Errorf("%+v: trouble %q, want %q", p, got, want)
			}
		}
	}
}
