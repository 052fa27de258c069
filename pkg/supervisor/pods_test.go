package supervisor

import (
	"slices"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
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
			if slices.Contains(s.saw(silent, began.Add(look.after)), "r1") {
				fresh++
			}
		}
		if was, ok := s.of("r1"); !ok || was.last.Sub(was.since) != c.want || fresh != c.fresh {
			t.Errorf("%s: silent for %s, news %d times, want %s and %d", name, was.last.Sub(was.since), fresh, c.want, c.fresh)
		}
	}
}

// TestTheCloudIsAskedNowAndThen about a host that is silent, and never about
// another.
func TestTheCloudIsAskedNowAndThen(t *testing.T) {
	now := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	s := &silences{}
	s.saw([]runner.Name{"r1"}, now)
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
