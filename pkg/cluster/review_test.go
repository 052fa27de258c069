package cluster_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

var audience = runner.DigestOf([]byte("authorized")).Audience()

// token is the claim token of the runner's pod.
func (w world) token(t *testing.T, name runner.Name, lifetime time.Duration) string {
	t.Helper()
	must(t, "EnsurePod", w.EnsurePod(t.Context(), podSpec(name)))
	token, err := w.sim.Mint(w.pod(t, name), audience, lifetime)
	must(t, "Mint", err)
	return token
}

func TestReviewNamesThePodAndNode(t *testing.T) {
	both(t, func(t *testing.T, w world) {
		token := w.token(t, "runner-a", time.Hour)
		got, err := w.Review(t.Context(), token, audience)
		must(t, "Review", err)
		want := runner.PodIdentity{
			Namespace: namespace, ServiceAccount: "runner", PodName: "runner-a", PodUID: string(w.pod(t, "runner-a").UID),
			NodeName: "node-1", NodeUID: string(w.node.UID), Token: runner.DigestOf([]byte(token)),
		}
		if got != want {
			t.Errorf("Review = %+v, want %+v", got, want)
		}
	})
}

func TestReviewRejects(t *testing.T) {
	// tampered puts the first claims under the signature of the second.
	tampered := func(a, b string) string {
		x, y := strings.Split(a, "."), strings.Split(b, ".")
		return x[0] + "." + x[1] + "." + y[2]
	}
	unbound := func(account, ns string) func(*testing.T, world) string {
		return func(t *testing.T, w world) string {
			token, err := w.sim.MintUnbound(ns, account, audience, time.Hour)
			must(t, "MintUnbound", err)
			return token
		}
	}
	for name, make := range map[string]func(*testing.T, world) string{
		"no token":                func(*testing.T, world) string { return "" },
		"noise":                   func(*testing.T, world) string { return "a.b.c" },
		"another namespace":       unbound("runner", "default"),
		"another service account": unbound("other", namespace),
		"a token of no pod":       unbound("runner", namespace),
		"another audience": func(t *testing.T, w world) string {
			w.token(t, "runner-a", time.Hour)
			token, err := w.sim.Mint(w.pod(t, "runner-a"), "sts.amazonaws.com", time.Hour)
			must(t, "Mint", err)
			return token
		},
		"another signature": func(t *testing.T, w world) string {
			return tampered(w.token(t, "runner-a", time.Hour), w.token(t, "runner-b", time.Hour))
		},
		"a pod that is gone": func(t *testing.T, w world) string {
			token := w.token(t, "runner-a", time.Hour)
			must(t, "DeletePod", w.DeletePod(t.Context(), "runner-a", 0))
			return token
		},
		"a new pod under the name": func(t *testing.T, w world) string {
			token := w.token(t, "runner-a", time.Hour)
			must(t, "DeletePod", w.DeletePod(t.Context(), "runner-a", 0))
			w.token(t, "runner-a", time.Hour)
			return token
		},
		"a pod of another service account": func(t *testing.T, w world) string {
			pod := w.Manifest(podSpec("runner-c"))
			pod.Spec.ServiceAccountName = "other"
			created, err := w.client.CoreV1().Pods(namespace).Create(t.Context(), pod, createOptions)
			must(t, "create", err)
			token, err := w.sim.Mint(created, audience, time.Hour)
			must(t, "Mint", err)
			return token
		},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, w world) {
				id, err := w.Review(t.Context(), make(t, w), audience)
				if !errors.Is(err, supervisor.ErrTokenRejected) || id != (runner.PodIdentity{}) {
					t.Errorf("Review = %+v, %v, want ErrTokenRejected", id, err)
				}
			})
		})
	}
}

func TestATokenIsGoodUntilItExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil, inProcess)
		token := w.token(t, "runner-a", 10*time.Minute)
		advance(10*time.Minute - time.Second)
		if _, err := w.Review(t.Context(), token, audience); err != nil {
			t.Errorf("Review before the end = %v, want nil", err)
		}
		advance(2 * time.Second)
		if _, err := w.Review(t.Context(), token, audience); !errors.Is(err, supervisor.ErrTokenRejected) {
			t.Errorf("Review after the end = %v, want ErrTokenRejected", err)
		}
	})
}
