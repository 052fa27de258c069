package api

import (
	"errors"
	"testing"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/runnerward/runnerward/pkg/cluster"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/sim/world"
	"github.com/runnerward/runnerward/pkg/supervisor"
	"github.com/runnerward/runnerward/test/kube/kubelet"
)

// bench is a node and the adapter, with the runners' account.
type bench struct {
	*cluster.Cluster
	namespace string
	kubelet   *kubelet.Kubelet
}

func newBench(t *testing.T) bench {
	t.Helper()
	ns := runnersNamespace(t)
	return bench{adapter(t, ns), ns, join(t, "node-"+ns, ns)}
}

// pod makes the runner's pod as the supervisor does.
func (b bench) pod(t *testing.T, name runner.Name) *corev1.Pod {
	t.Helper()
	if err := b.EnsurePod(t.Context(), podSpec(name, b.kubelet.Node().Name)); err != nil {
		t.Fatal(err)
	}
	pod, err := admin(t).CoreV1().Pods(b.namespace).Get(t.Context(), string(name), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

// claimToken is what the pod's kubelet mounts for the agent.
func (b bench) claimToken(t *testing.T, pod *corev1.Pod) (value string) {
	t.Helper()
	for _, v := range pod.Spec.Volumes {
		if v.Projected == nil || v.Projected.Sources[0].ServiceAccountToken == nil {
			continue
		}
		until(t, "the node authorizer knows the pod", patience, func() (ok bool, err error) {
			value, _, err = b.kubelet.Token(t.Context(), pod, v.Projected.Sources[0].ServiceAccountToken)
			return err == nil, err
		})
		return value
	}
	t.Fatalf("pod %s mounts no token", pod.Name)
	return ""
}

// bound asks for a token of this pod for any audience, which no kubelet gets.
func (b bench) bound(t *testing.T, pod *corev1.Pod, audience string) string {
	t.Helper()
	return token(t, b.namespace, pod.Spec.ServiceAccountName, authv1.TokenRequestSpec{
		Audiences: []string{audience}, BoundObjectRef: &authv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	})
}

func TestAPodsTokenNamesPodAndNode(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	pod := b.pod(t, "runner-a")
	value := b.claimToken(t, pod)
	got, err := b.Review(t.Context(), value, authorized.Audience())
	if err != nil {
		t.Fatal(err)
	}
	want := runner.PodIdentity{
		Namespace: b.namespace, ServiceAccount: world.ServiceAccount, PodName: pod.Name, PodUID: string(pod.UID),
		NodeName: b.kubelet.Node().Name, NodeUID: string(b.kubelet.Node().UID), Token: runner.DigestOf([]byte(value)),
	}
	if got != want {
		t.Errorf("Review = %+v, want %+v", got, want)
	}
}

// claims are those of a token, for [plane.Plane.SignToken].
// https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#schema-for-service-account-private-claims
func (b bench) claims(t *testing.T, pod *corev1.Pod, from time.Time, life time.Duration) map[string]any {
	t.Helper()
	sa, err := admin(t).CoreV1().ServiceAccounts(b.namespace).Get(t.Context(), world.ServiceAccount, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	node := b.kubelet.Node()
	ref := func(name string, uid any) map[string]any { return map[string]any{"name": name, "uid": uid} }
	return map[string]any{
		"aud": []string{authorized.Audience()}, "iss": planeOf(t).URL, "sub": "system:serviceaccount:" + b.namespace + ":" + sa.Name,
		"iat": from.Unix(), "nbf": from.Unix(), "exp": from.Add(life).Unix(), "jti": string(pod.UID),
		"kubernetes.io": map[string]any{
			"namespace": b.namespace, "serviceaccount": ref(sa.Name, sa.UID), "pod": ref(pod.Name, pod.UID), "node": ref(node.Name, node.UID),
		},
	}
}

func (b bench) signed(t *testing.T, claims map[string]any) string {
	t.Helper()
	value, err := planeOf(t).SignToken(claims)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestTokensThatTheClusterDoesNotVouchFor(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	makeAccount(t, b.namespace, "other")
	elsewhere := b.namespace + "-elsewhere"
	makeNamespace(t, elsewhere, "restricted")
	makeAccount(t, elsewhere, world.ServiceAccount)
	live := b.pod(t, "runner-a")
	hourAgo := time.Now().Add(-time.Hour)
	// The same claims with an end to come are good: what follows is refused for
	// its end alone.
	if _, err := b.Review(t.Context(), b.signed(t, b.claims(t, live, hourAgo, 2*time.Hour)), authorized.Audience()); err != nil {
		t.Fatalf("a token signed by the test: %v", err)
	}
	for name, tt := range map[string]struct {
		cause runner.RebuffCause
		make  func(t *testing.T) string
	}{
		"another audience":            {runner.RebuffOtherAudience, func(t *testing.T) string { return b.bound(t, live, runner.DigestOf([]byte("another")).Audience()) }},
		"the API server's audience":   {runner.RebuffOtherAudience, func(t *testing.T) string { return b.bound(t, live, "https://kubernetes.default.svc") }},
		"expired":                     {runner.RebuffRejected, func(t *testing.T) string { return b.signed(t, b.claims(t, live, hourAgo, 59*time.Minute)) }},
		"bound to no pod":             {runner.RebuffNoPod, func(t *testing.T) string { return token(t, b.namespace, world.ServiceAccount, audienceOnly()) }},
		"of another service account":  {runner.RebuffOtherAccount, func(t *testing.T) string { return token(t, b.namespace, "other", audienceOnly()) }},
		"of another namespace":        {runner.RebuffOtherAccount, func(t *testing.T) string { return token(t, elsewhere, world.ServiceAccount, audienceOnly()) }},
		"signed by somebody else":     {runner.RebuffRejected, func(t *testing.T) string { return foreign(b.claimToken(t, live)) }},
		"of a pod that is deleted":    {runner.RebuffRejected, func(t *testing.T) string { return b.ofDeleted(t, "runner-b", false) }},
		"of the former pod of a name": {runner.RebuffRejected, func(t *testing.T) string { return b.ofDeleted(t, "runner-c", true) }},
		"naming a pod that never was": {runner.RebuffRejected, func(t *testing.T) string { return b.renamed(t, live) }},
		"of a pod of another account": {runner.RebuffOtherAccount, func(t *testing.T) string { return b.ofAccount(t, "other") }},
		"nothing that looks like one": {runner.RebuffRejected, func(t *testing.T) string { return "a.b.c" }},
		"without an audience of its own": {runner.RebuffOtherAudience, func(t *testing.T) string {
			return token(t, b.namespace, world.ServiceAccount, authv1.TokenRequestSpec{})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			id, err := b.Review(t.Context(), tt.make(t), authorized.Audience())
			if !errors.Is(err, supervisor.ErrTokenRejected) || id != (runner.PodIdentity{}) {
				t.Errorf("Review = %+v, %v, want ErrTokenRejected", id, err)
			}
			if no, ok := errors.AsType[*supervisor.Rebuff](err); !ok || no.Cause != tt.cause {
				t.Errorf("the cause is %+v, want %s", no, tt.cause)
			}
		})
	}
}

func audienceOnly() authv1.TokenRequestSpec {
	return authv1.TokenRequestSpec{Audiences: []string{authorized.Audience()}}
}

// foreign spoils the signature of a token.
func foreign(token string) string {
	last := []byte(token)
	at := len(last) - 20
	if last[at] == 'A' {
		last[at] = 'B'
	} else {
		last[at] = 'A'
	}
	return string(last)
}

// ofDeleted is the token of a pod that is gone, as the API server's own view of
// pods knows by now; again makes another pod of its name. Each of the probes is
// shown once, for an answer of yes would be kept for a while.
func (b bench) ofDeleted(t *testing.T, name runner.Name, again bool) string {
	t.Helper()
	pod := b.pod(t, name)
	value := b.claimToken(t, pod)
	var probes []string
	for range 20 {
		probes = append(probes, b.bound(t, pod, authorized.Audience()))
	}
	remove(t, pod)
	if again {
		b.pod(t, name)
	}
	until(t, "the API server's view of pods is up to date", patience, func() (bool, error) {
		if len(probes) == 0 {
			return false, errors.New("every token was vouched for")
		}
		probe := probes[0]
		probes = probes[1:]
		_, err := b.Review(t.Context(), probe, authorized.Audience())
		return errors.Is(err, supervisor.ErrTokenRejected), nil
	})
	return value
}

func (b bench) renamed(t *testing.T, pod *corev1.Pod) string {
	t.Helper()
	other := pod.DeepCopy()
	other.Name = "runner-z"
	return b.signed(t, b.claims(t, other, time.Now(), time.Hour))
}

func (b bench) ofAccount(t *testing.T, account string) string {
	t.Helper()
	pod := b.Manifest(podSpec("runner-other", b.kubelet.Node().Name))
	pod.Spec.ServiceAccountName = account
	pod, err := admin(t).CoreV1().Pods(b.namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return b.bound(t, pod, authorized.Audience())
}

// TestATokenOutlivesItsPodByTheCacheAlone measures how long the API server
// vouches for a token that it has just seen: it keeps a yes for 10 s
// (TokenSuccessCacheTTL, pkg/kubeapiserver/options/authentication.go). That is
// why a claim also needs a runner that has no other pod and no config yet.
func TestATokenOutlivesItsPodByTheCacheAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	pod := b.pod(t, "runner-a")
	value := b.claimToken(t, pod)
	if _, err := b.Review(t.Context(), value, authorized.Audience()); err != nil {
		t.Fatal(err)
	}
	remove(t, pod)
	began := time.Now()
	until(t, "the token of a deleted pod is refused", 20*time.Second, func() (bool, error) {
		_, err := b.Review(t.Context(), value, authorized.Audience())
		return errors.Is(err, supervisor.ErrTokenRejected), nil
	})
	t.Logf("a token that was reviewed before was refused %.1f s after its pod was gone", time.Since(began).Seconds())
}

// TestAKubeletGetsOnlyTheTokensOfItsPods is what the assurance of a claim rests
// on: who holds a token of a pod was given it by the kubelet of that pod's node.
func TestAKubeletGetsOnlyTheTokensOfItsPods(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	pod := b.pod(t, "runner-a")
	b.claimToken(t, pod) // from here on the node authorizer knows the pod
	other := join(t, "other-"+b.namespace, b.namespace)
	want := func(what string, k *kubelet.Kubelet, pod *corev1.Pod, audience string) {
		t.Helper()
		_, _, err := k.Token(t.Context(), pod, &corev1.ServiceAccountTokenProjection{Audience: audience})
		if !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v, want forbidden", what, err)
		}
	}
	want("another node", other, pod, authorized.Audience())
	want("an audience that the pod does not name", b.kubelet, pod, "https://kubernetes.default.svc")
	former := pod.DeepCopy()
	former.UID = "00000000-0000-0000-0000-000000000000"
	if _, _, err := b.kubelet.Token(t.Context(), former, &corev1.ServiceAccountTokenProjection{Audience: authorized.Audience()}); err == nil {
		t.Error("a kubelet got a token of a pod with another UID")
	}
}
