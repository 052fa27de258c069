package cluster_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/runnerward/runnerward/pkg/cluster"
	simcluster "github.com/runnerward/runnerward/pkg/sim/cluster"
)

func TestOnlyTheBearerOfTheTokenIsServed(t *testing.T) {
	w := newWorld(t, nil, inProcess)
	for name, c := range map[string]struct {
		authorization, path string
		want                int
	}{
		"no token":             {"", "/api/v1/nodes", http.StatusUnauthorized},
		"another token":        {"Bearer guess", "/api/v1/nodes", http.StatusUnauthorized},
		"the token":            {"Bearer s3cret", "/api/v1/nodes", http.StatusOK},
		"a path that is none":  {"Bearer s3cret", "/api/v2", http.StatusNotFound},
		"a bad label selector": {"Bearer s3cret", "/api/v1/nodes?labelSelector=%3D%3D", http.StatusBadRequest},
		"a watch of leases":    {"Bearer s3cret", "/apis/coordination.k8s.io/v1/namespaces/runners/leases?watch=true", http.StatusMethodNotAllowed},
	} {
		r := httptest.NewRequest(http.MethodGet, c.path, nil)
		r.Header.Set("Authorization", c.authorization)
		rec := httptest.NewRecorder()
		w.sim.Handler().ServeHTTP(rec, r)
		if rec.Code != c.want {
			t.Errorf("%s: GET %s = %d, want %d: %s", name, c.path, rec.Code, c.want, rec.Body)
		}
	}
}

func TestDiscoveryNamesWhatIsServed(t *testing.T) {
	w := newWorld(t, nil, overTLS)
	v, err := w.client.Discovery().ServerVersion()
	must(t, "version", err)
	if v.GitVersion != simcluster.Version {
		t.Errorf("version = %s, want %s", v.GitVersion, simcluster.Version)
	}
	list, err := w.client.Discovery().ServerResourcesForGroupVersion("coordination.k8s.io/v1")
	must(t, "resources", err)
	if len(list.APIResources) != 1 || list.APIResources[0].Name != "leases" {
		t.Errorf("resources of coordination.k8s.io/v1 = %+v, want leases", list.APIResources)
	}
}

func TestLeasesAreUpdatedOnlyFromWhatWasRead(t *testing.T) {
	both(t, func(t *testing.T, w world) {
		leases := w.client.CoordinationV1().Leases(namespace)
		first, err := leases.Create(t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "leader"}}, createOptions)
		must(t, "create", err)
		mine := first.DeepCopy()
		mine.Spec.HolderIdentity = new("a")
		second, err := leases.Update(t.Context(), mine, metav1.UpdateOptions{})
		must(t, "update", err)
		mine.Spec.HolderIdentity = new("b")
		if _, err := leases.Update(t.Context(), mine, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
			t.Errorf("update from a stale read = %v, want 409", err)
		}
		for name, spoil := range map[string]func(*coordinationv1.LeaseSpec){
			"no duration":       func(s *coordinationv1.LeaseSpec) { s.LeaseDurationSeconds = new(int32(0)) },
			"fewer transitions": func(s *coordinationv1.LeaseSpec) { s.LeaseTransitions = new(int32(-1)) },
		} {
			bad := second.DeepCopy()
			spoil(&bad.Spec)
			if _, err := leases.Update(t.Context(), bad, metav1.UpdateOptions{}); !apierrors.IsInvalid(err) {
				t.Errorf("update with %s = %v, want 422", name, err)
			}
		}
		at := time.Date(2026, 3, 2, 12, 0, 0, 123456789, time.UTC)
		second.Spec.RenewTime = new(metav1.NewMicroTime(at))
		second, err = leases.Update(t.Context(), second, metav1.UpdateOptions{})
		must(t, "renew", err)
		if got := second.Spec.RenewTime.Time; !got.Equal(at.Truncate(time.Microsecond)) {
			t.Errorf("renewed at %s, want %s in microseconds", got, at)
		}
		second.ResourceVersion = ""
		if _, err := leases.Update(t.Context(), second, metav1.UpdateOptions{}); !apierrors.IsInvalid(err) {
			t.Errorf("update without a resource version = %v, want 422", err)
		}
		got, err := leases.Get(t.Context(), "leader", metav1.GetOptions{})
		must(t, "get", err)
		if *got.Spec.HolderIdentity != "a" {
			t.Errorf("holder = %s, want a", *got.Spec.HolderIdentity)
		}
	})
}

func TestAKubeconfigThatCannotBeReadIsAnError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if _, err := cluster.NewClient(file, nil); err == nil {
		t.Error("NewClient(missing file) = nil, want an error")
	}
	must(t, "write", os.WriteFile(file, []byte("clusters: 7"), 0o600))
	if _, err := cluster.NewClient(file, nil); err == nil {
		t.Error("NewClient(noise) = nil, want an error")
	}
}
