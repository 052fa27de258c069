package cluster_test

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	authv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/runnerward/runnerward/pkg/cluster"
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
	for name, c := range map[string]struct {
		cause  runner.RebuffCause
		caller string // namespace/account, and whether it is a pod
		make   func(*testing.T, world) string
	}{
		"no token":                {runner.RebuffRejected, "", func(*testing.T, world) string { return "" }},
		"noise":                   {runner.RebuffRejected, "", func(*testing.T, world) string { return "a.b.c" }},
		"another namespace":       {runner.RebuffOtherAccount, "default/runner", unbound("runner", "default")},
		"another service account": {runner.RebuffOtherAccount, "gha-runners/other", unbound("other", namespace)},
		"a token of no pod":       {runner.RebuffNoPod, "gha-runners/runner", unbound("runner", namespace)},
		"another audience": {runner.RebuffOtherAudience, "gha-runners/runner pod", func(t *testing.T, w world) string {
			w.token(t, "runner-a", time.Hour)
			token, err := w.sim.Mint(w.pod(t, "runner-a"), "sts.amazonaws.com", time.Hour)
			must(t, "Mint", err)
			return token
		}},
		"another signature": {runner.RebuffRejected, "", func(t *testing.T, w world) string {
			return tampered(w.token(t, "runner-a", time.Hour), w.token(t, "runner-b", time.Hour))
		}},
		"a pod that is gone": {runner.RebuffRejected, "", func(t *testing.T, w world) string {
			token := w.token(t, "runner-a", time.Hour)
			must(t, "DeletePod", w.DeletePod(t.Context(), "runner-a", 0))
			return token
		}},
		"a new pod under the name": {runner.RebuffRejected, "", func(t *testing.T, w world) string {
			token := w.token(t, "runner-a", time.Hour)
			must(t, "DeletePod", w.DeletePod(t.Context(), "runner-a", 0))
			w.token(t, "runner-a", time.Hour)
			return token
		}},
		"a pod of another service account": {runner.RebuffOtherAccount, "gha-runners/other pod", func(t *testing.T, w world) string {
			pod := w.Manifest(podSpec("runner-c"))
			pod.Spec.ServiceAccountName = "other"
			created, err := w.client.CoreV1().Pods(namespace).Create(t.Context(), pod, createOptions)
			must(t, "create", err)
			token, err := w.sim.Mint(created, audience, time.Hour)
			must(t, "Mint", err)
			return token
		}},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, w world) {
				id, err := w.Review(t.Context(), c.make(t, w), audience)
				no, ok := errors.AsType[*supervisor.Rebuff](err)
				if !ok || !errors.Is(err, supervisor.ErrTokenRejected) || id != (runner.PodIdentity{}) {
					t.Fatalf("Review = %+v, %v, want ErrTokenRejected", id, err)
				}
				if got := said(no.Caller); no.Cause != c.cause || got != c.caller {
					t.Errorf("Review = %s of %q, want %s of %q", no.Cause, got, c.cause, c.caller)
				}
			})
		})
	}
}

// said is a caller in short.
func said(c *runner.Caller) string {
	switch {
	case c == nil:
		return ""
	case c.PodUID != "" && c.NodeName != "" && c.NodeUID != "":
		return c.Namespace + "/" + c.ServiceAccount + " pod"
	}
	return c.Namespace + "/" + c.ServiceAccount
}

// reviewer is an API server that answers TokenReviews in this order.
func reviewer(t *testing.T, answers ...any) (*cluster.Cluster, *[][]string) {
	t.Helper()
	asked := [][]string{}
	client := fake.NewSimpleClientset()
	client.PrependReactor("create", "tokenreviews", func(action clienttesting.Action) (bool, runtime.Object, error) {
		review := action.(clienttesting.CreateAction).GetObject().(*authv1.TokenReview).DeepCopy()
		if asked = append(asked, review.Spec.Audiences); len(asked) > len(answers) {
			t.Fatalf("asked %d times, want %d", len(asked), len(answers))
		}
		if err, ok := answers[len(asked)-1].(error); ok {
			return true, nil, err
		}
		review.Status = answers[len(asked)-1].(authv1.TokenReviewStatus)
		return true, review, nil
	})
	c, err := cluster.New(client, options(), zap.NewNop())
	must(t, "New", err)
	return c, &asked
}

// TestWhatATokenSaysOfItselfIsOnlyAsked: its audiences are read without trust and
// become a cause only by the API server's own yes.
func TestWhatATokenSaysOfItselfIsOnlyAsked(t *testing.T) {
	jwt := func(claims string) string {
		return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
	}
	no, yes := authv1.TokenReviewStatus{Error: "token audiences"}, authv1.TokenReviewStatus{
		Authenticated: true, Audiences: []string{"sts.amazonaws.com"}, User: authv1.UserInfo{Username: "system:serviceaccount:prod:web"},
	}
	deaf := yes
	deaf.Audiences = nil // an authenticator that knows no audiences
	person := yes
	person.User.Username = "jane.doe@example.org"
	for name, c := range map[string]struct {
		token   string
		answers []any
		cause   runner.RebuffCause
		caller  string
		asked   []string
	}{
		"one audience":            {jwt(`{"aud":"sts.amazonaws.com"}`), []any{no, yes}, runner.RebuffOtherAudience, "prod/web", []string{"sts.amazonaws.com"}},
		"a list":                  {jwt(`{"aud":["a","sts.amazonaws.com"]}`), []any{no, yes}, runner.RebuffOtherAudience, "prod/web", []string{"a", "sts.amazonaws.com"}},
		"a person's":              {jwt(`{"aud":"sts.amazonaws.com"}`), []any{no, person}, runner.RebuffOtherAudience, "/", []string{"sts.amazonaws.com"}},
		"its word is not true":    {jwt(`{"aud":"sts.amazonaws.com"}`), []any{no, no}, runner.RebuffRejected, "", []string{"sts.amazonaws.com"}},
		"nobody knows":            {jwt(`{"aud":"sts.amazonaws.com"}`), []any{no, errors.New("503")}, "", "", []string{"sts.amazonaws.com"}},
		"an answer without any":   {jwt(`{"aud":"sts.amazonaws.com"}`), []any{no, deaf}, runner.RebuffRejected, "", []string{"sts.amazonaws.com"}},
		"the right one, expired":  {jwt(`{"aud":"` + audience + `"}`), []any{no}, runner.RebuffRejected, "", nil},
		"more than are asked for": {jwt(`{"aud":["1","2","3","4","5","6","7","8","9"]}`), []any{no, no}, runner.RebuffRejected, "", []string{"1", "2", "3", "4", "5", "6", "7", "8"}},
		"none":                    {jwt(`{}`), []any{no}, runner.RebuffRejected, "", nil},
		"an empty one":            {jwt(`{"aud":""}`), []any{no}, runner.RebuffRejected, "", nil},
		"a number":                {jwt(`{"aud":7}`), []any{no}, runner.RebuffRejected, "", nil},
		"no JWT":                  {"opaque", []any{no}, runner.RebuffRejected, "", nil},
		"no base64":               {"a.!.c", []any{no}, runner.RebuffRejected, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			cluster, asked := reviewer(t, c.answers...)
			_, err := cluster.Review(t.Context(), c.token, audience)
			no, ok := errors.AsType[*supervisor.Rebuff](err)
			if !ok || !errors.Is(err, supervisor.ErrTokenRejected) {
				t.Fatalf("Review = %v, want ErrTokenRejected", err)
			}
			if got := said(no.Caller); no.Cause != c.cause || got != c.caller {
				t.Errorf("Review = %q of %q, want %q of %q", no.Cause, got, c.cause, c.caller)
			}
			if len(*asked) != len(c.answers) || c.asked != nil && !slices.Equal((*asked)[1], c.asked) {
				t.Errorf("asked about %q, want %q", *asked, c.asked)
			}
		})
	}
	cluster, _ := reviewer(t, errors.New("503"))
	if _, err := cluster.Review(t.Context(), jwt(`{"aud":"sts.amazonaws.com"}`), audience); err == nil || errors.Is(err, supervisor.ErrTokenRejected) {
		t.Errorf("Review = %v, want unknown", err)
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
