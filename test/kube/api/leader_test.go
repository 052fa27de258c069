package api

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	authv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/runnerward/runnerward/pkg/sim/stage"
	"github.com/runnerward/runnerward/test/leader"
)

// TestWhatBefallsTheLeader plays what is worst of two daemons whose Lease, nodes
// and pods are in a real API server, with the rights that the chart gives to
// daemons that elect a leader. The hosts of all theatres have the same names, so
// none is beside another.
func TestWhatBefallsTheLeader(t *testing.T) {
	for _, befalls := range []struct {
		what string
		play func(*leader.Pair)
	}{
		{"it is killed", (*leader.Pair).Killed},
		{"it is stopped and goes on", (*leader.Pair).Stopped},
		{"it loses the API server", (*leader.Pair).Partitioned},
	} {
		t.Run(befalls.what, func(t *testing.T) {
			p, ns := planeOf(t), namespace(t, "restricted")
			th := newTheatre(t, ns, nil, nil)
			befalls.play(leader.NewPair(t, th.Stage, leader.Options{
				API: strings.TrimPrefix(p.URL, "https://"),
				Kubeconfig: func(_, url string) []byte {
					return p.Kubeconfig(url, token(t, ns, account, authv1.TokenRequestSpec{}))
				},
				Change: func(c stage.Config) { c.Set("cluster.namespace", ns) },
			}))
			th.release.changedHands(t)
		})
	}
}

// changedHands looks at the lease and at the audit log: it was held by one after
// the other and given back by the last, and no right was missing or is too many.
func (r *release) changedHands(t *testing.T) {
	t.Helper()
	l, err := admin(t).CoordinationV1().Leases(r.namespace).Get(t.Context(), account, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if l.Spec.HolderIdentity != nil && *l.Spec.HolderIdentity != "" || l.Spec.LeaseTransitions == nil || *l.Spec.LeaseTransitions < 1 {
		t.Errorf("the lease is %+v, want it free and to have changed hands", l.Spec)
	}
	requests, err := planeOf(t).Audit()
	if err != nil {
		t.Fatal(err)
	}
	verbs := map[string]bool{}
	for _, q := range requests {
		if q.User.Username != r.daemon {
			continue
		}
		if q.ResponseStatus.Code == http.StatusForbidden {
			t.Errorf("the daemon may not %s %s %s", q.Verb, q.ObjectRef.Resource, q.ObjectRef.Name)
		}
		if q.ObjectRef.Resource == "leases" {
			verbs[q.Verb] = true
		}
	}
	for _, verb := range []string{"get", "create", "update"} {
		if !verbs[verb] {
			t.Errorf("leases were never asked to %s: the role grants it", verb)
		}
		delete(verbs, verb)
	}
	if len(verbs) > 0 {
		t.Errorf("leases were also asked to %v", slices.Sorted(maps.Keys(verbs)))
	}
}
