package cluster_test

import (
	"errors"
	"testing"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"

	"github.com/runnerward/runnerward/pkg/cluster"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

func (w world) daemonPod(t *testing.T, namespace, account string) *corev1.Pod {
	t.Helper()
	pod, err := w.sim.AddDaemonPod(namespace, account, "node-1")
	must(t, "AddDaemonPod", err)
	return pod
}

func (w world) mint(t *testing.T, pod *corev1.Pod, audience string) string {
	t.Helper()
	token, err := w.sim.Mint(pod, audience, time.Hour)
	must(t, "Mint", err)
	return token
}

func TestReviewWitnessNamesItsNode(t *testing.T) {
	both(t, func(t *testing.T, w world) {
		pod := w.daemonPod(t, "witness", "host")
		token := w.mint(t, pod, supervisor.HostAudience)
		got, err := w.ReviewWitness(t.Context(), token, supervisor.HostAudience)
		must(t, "ReviewWitness", err)
		want := runner.PodIdentity{
			Namespace: "witness", ServiceAccount: "host", PodName: pod.Name, PodUID: string(pod.UID),
			NodeName: "node-1", NodeUID: string(w.node.UID), Token: runner.DigestOf([]byte(token)),
		}
		if got != want {
			t.Errorf("ReviewWitness = %+v, want %+v", got, want)
		}
	})
}

func TestReviewWitnessRejects(t *testing.T) {
	for what, token := range map[string]func(*testing.T, world) string{
		"a runner's pod": func(t *testing.T, w world) string {
			must(t, "EnsurePod", w.EnsurePod(t.Context(), podSpec("runner-a")))
			return w.mint(t, w.pod(t, "runner-a"), supervisor.HostAudience)
		},
		"another account": func(t *testing.T, w world) string {
			return w.mint(t, w.daemonPod(t, "witness", "other"), supervisor.HostAudience)
		},
		"another namespace": func(t *testing.T, w world) string {
			return w.mint(t, w.daemonPod(t, "default", "host"), supervisor.HostAudience)
		},
		"another audience": func(t *testing.T, w world) string { return w.mint(t, w.daemonPod(t, "witness", "host"), audience) },
		"a token of no pod": func(t *testing.T, w world) string {
			token, err := w.sim.MintUnbound("witness", "host", supervisor.HostAudience, time.Hour)
			must(t, "MintUnbound", err)
			return token
		},
	} {
		t.Run(what, func(t *testing.T) {
			both(t, func(t *testing.T, w world) {
				id, err := w.ReviewWitness(t.Context(), token(t, w), supervisor.HostAudience)
				if !errors.Is(err, supervisor.ErrTokenRejected) || id != (runner.PodIdentity{}) {
					t.Errorf("ReviewWitness = %+v, %v, want ErrTokenRejected", id, err)
				}
			})
		})
	}
	t.Run("a witness does not pass for a runner", func(t *testing.T) {
		w := newWorld(t, nil, inProcess)
		token := w.mint(t, w.daemonPod(t, "witness", "host"), audience)
		if _, err := w.Review(t.Context(), token, audience); !errors.Is(err, supervisor.ErrTokenRejected) {
			t.Errorf("Review = %v, want ErrTokenRejected", err)
		}
	})
	t.Run("no witness is configured", func(t *testing.T) {
		w := newWorld(t, nil, inProcess)
		o := options()
		o.WitnessNamespace, o.WitnessServiceAccount = "", ""
		c, err := cluster.New(w.client, o, zap.NewNop())
		must(t, "New", err)
		token := w.mint(t, w.daemonPod(t, "witness", "host"), supervisor.HostAudience)
		if _, err := c.ReviewWitness(t.Context(), token, supervisor.HostAudience); !errors.Is(err, supervisor.ErrTokenRejected) {
			t.Errorf("ReviewWitness = %v, want ErrTokenRejected", err)
		}
	})
}
