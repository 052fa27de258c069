package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/runnerward/runnerward/pkg/admission/wire"
	"github.com/runnerward/runnerward/pkg/runner"
	simcluster "github.com/runnerward/runnerward/pkg/sim/cluster"
	"github.com/runnerward/runnerward/pkg/sim/world"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// guest is a runner pod whose agent waits for the test.
type guest struct {
	pod *corev1.Pod
	// token is the one that the kubelet mounted, audience what it is for.
	token, audience string
	// leave lets the agent go on.
	leave func()
}

// invite has the next pod wait before its agent starts, and hands it over.
func (th *theatre) invite() <-chan guest {
	guests := make(chan guest, 1)
	first := func(ctx context.Context, ct simcluster.Container) {
		gone := make(chan struct{})
		token, err := ct.Token(ct.Env["RUNNERWARD_TOKEN_FILE"])
		if err != nil {
			token = "" // which no test accepts
		}
		guests <- guest{pod: ct.Pod, token: token, audience: ct.Env["RUNNERWARD_AUDIENCE"], leave: func() { close(gone) }}
		select {
		case <-gone:
		case <-ctx.Done():
		}
	}
	th.first.Store(&first)
	return guests
}

// container is a pod's main container: what the test wants first, then the agent.
func (th *theatre) container(ctx context.Context, ct simcluster.Container) int {
	if ct.Pod.Labels["app.kubernetes.io/component"] == "witness" {
		return th.witnesses.container(ctx, ct)
	}
	if first := th.first.Swap(nil); first != nil {
		(*first)(ctx, ct)
	}
	return th.World.Container(ctx, ct)
}

// claim presents a token at the daemon's door, as an agent does.
func (th *theatre) claim(t *testing.T, name, token string) (status int, answer wire.Error) {
	t.Helper()
	until(t, "the daemon has time for the question", patience, func() (bool, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, th.admission+wire.ClaimPath(runner.Name(name)), bytes.NewBufferString("{}"))
		if err != nil {
			return false, err
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", "application/json")
		resp, err := th.Client.Do(req)
		if err != nil {
			return false, err
		}
		defer resp.Body.Close()
		answer = wire.Error{}
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
			return false, err
		}
		status = resp.StatusCode
		return status != http.StatusTooManyRequests, nil
	})
	return status, answer
}

// intruder is another pod of the runners' account beside the guest, made by
// somebody who may make pods.
func (th *theatre) intruder(t *testing.T, g guest, name string) *corev1.Pod {
	t.Helper()
	pod, err := admin(t).CoreV1().Pods(th.release.namespace).Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       *g.pod.Spec.DeepCopy(),
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

// claims presents every wrong token in place of a runner's own, before and after
// the runner's own claim.
func (th *theatre) claims(t *testing.T) {
	ns := th.release.namespace
	guests := th.invite()
	run, err := th.World.GitHub.Dispatch(world.Deploy("v3.1.0", "bob", "bob", time.Second))
	if err != nil {
		t.Fatal(err)
	}
	th.Director.HoldBack(run.JobID, true)
	if err := th.World.GitHub.Approve(run.ID, "carol"); err != nil {
		t.Fatal(err)
	}
	g := awaitGuest(t, guests)
	name := g.pod.Name
	bound := func(audience string, pod *corev1.Pod, account string) string {
		spec := authv1.TokenRequestSpec{Audiences: []string{audience}}
		if pod != nil {
			spec.BoundObjectRef = &authv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}
		}
		return token(t, ns, account, spec)
	}
	// The intruder is not of the daemon's making, and is bound to a node of another
	// pool, where nothing runs it.
	elsewhere := g
	elsewhere.pod = g.pod.DeepCopy()
	elsewhere.pod.Spec.NodeName = join(t, "elsewhere-"+ns, "another-pool").Node().Name
	other := th.intruder(t, elsewhere, "intruder")
	for _, tt := range []struct {
		name, token string
		cause       runner.RebuffCause
	}{
		{"another audience", bound(runner.DigestOf([]byte("another record")).Audience(), g.pod, world.ServiceAccount), runner.RebuffOtherAudience},
		{"another pod of the account", bound(g.audience, other, world.ServiceAccount), runner.RebuffOtherPod},
		{"no pod", bound(g.audience, nil, world.ServiceAccount), runner.RebuffNoPod},
		{"another account", bound(g.audience, nil, account), runner.RebuffOtherAccount},
		{"spoiled", foreign(g.token), runner.RebuffRejected},
	} {
		if status, answer := th.claim(t, name, tt.token); status != http.StatusUnauthorized || answer.Final {
			t.Errorf("a claim with a token of %s is answered %d (final: %t), want 401", tt.name, status, answer.Final)
		}
		th.recorded(t, name, tt.cause)
	}
	remove(t, other)
	if v, err := th.Ask(t.Context()); err != nil || !inPhase(v, name, runner.KindClaimed) {
		t.Errorf("the runner is not as it was: %v, %v", v.Runners, err)
	}
	g.leave()
	if _, err := th.Runner(t.Context(), "the runner has its config", patience, func(r supervisor.RunnerView) bool {
		return string(r.Name) == name && r.Phase == runner.KindReleased
	}); err != nil {
		t.Fatal(err)
	}
	if status, answer := th.claim(t, name, g.token); status != http.StatusConflict || !answer.Final {
		t.Errorf("a token that was used is answered %d (final: %t), want 409", status, answer.Final)
	}
	th.recorded(t, name, runner.RebuffReplay)
	th.secondPod(t, g)
	th.Director.HoldBack(run.JobID, false)
	if r, err := th.Ends(t.Context(), run, patience); err != nil || string(r.Name) == name {
		t.Errorf("the job ran on %s, %v, want another host than that of the replaced pod", r.Name, err)
	}
}

// secondPod deletes the guest's pod and makes another of its name, as somebody
// would who is after its config.
func (th *theatre) secondPod(t *testing.T, g guest) {
	t.Helper()
	guests := th.invite()
	remove(t, g.pod)
	again := th.intruder(t, g, g.pod.Name)
	if again.UID == g.pod.UID {
		t.Fatal("the second pod has the UID of the first")
	}
	second := awaitGuest(t, guests)
	if second.pod.UID != again.UID || second.token == "" {
		t.Fatalf("the guest is %s with token %q, want the second pod", second.pod.UID, second.token)
	}
	if status, answer := th.claim(t, g.pod.Name, second.token); status != http.StatusConflict || !answer.Final {
		t.Errorf("the claim of a second pod of the name is answered %d (final: %t), want 409", status, answer.Final)
	}
	th.recorded(t, g.pod.Name, runner.RebuffSecondPod)
	second.leave()
}

// recorded waits until the log says that somebody was turned away at the
// runner's gate for this cause.
func (th *theatre) recorded(t *testing.T, name string, cause runner.RebuffCause) {
	t.Helper()
	until(t, "the log says who was turned away for "+string(cause), patience, func() (bool, error) {
		v, err := th.Ask(t.Context())
		if err != nil {
			return false, err
		}
		for _, r := range v.Runners {
			if string(r.Name) != name {
				continue
			}
			for _, b := range r.Rebuffed {
				if b.Gate == runner.GateClaim && b.Cause == cause {
					return true, nil
				}
			}
			return false, fmt.Errorf("the log has %+v", r.Rebuffed)
		}
		return false, nil
	})
}

func awaitGuest(t *testing.T, guests <-chan guest) guest {
	t.Helper()
	select {
	case g := <-guests:
		return g
	case <-time.After(patience):
		t.Fatalf("no pod after %s", patience)
		return guest{}
	}
}

func inPhase(v supervisor.View, name string, phase runner.Kind) bool {
	for _, r := range v.Runners {
		if string(r.Name) == name {
			return r.Phase == phase
		}
	}
	return false
}

// remove deletes a pod at once.
func remove(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	err := admin(t).CoreV1().Pods(pod.Namespace).Delete(t.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))})
	if err != nil {
		t.Fatal(err)
	}
}
