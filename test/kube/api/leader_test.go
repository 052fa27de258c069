package api

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/runnerward/runnerward/pkg/sim/stage"
	"github.com/runnerward/runnerward/pkg/sim/world"
	"github.com/runnerward/runnerward/test/kube/plane"
	"github.com/runnerward/runnerward/test/leader"
)

// TestWhatBefallsTheLeader plays every scenario of two daemons whose Lease is in
// a real API server, with the rights that the chart gives. Nodes and pods are
// those of the pretend cluster, whose kubelets run the agent: one address serves
// both, by path.
func TestWhatBefallsTheLeader(t *testing.T) {
	t.Parallel()
	bin := os.Getenv(binaries)
	if bin == "" {
		t.Skip("needs a real API server: make test-api")
	}
	p, err := plane.Start(t.Context(), plane.Options{Bin: bin, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	c, err := p.Client()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: world.Namespace}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	binary := leader.Build(t)
	t.Run("all", func(t *testing.T) {
		for name, play := range leader.Scenarios() {
			t.Run(name, func(t *testing.T) {
				t.Parallel() // they wait for most of their time
				s, err := stage.New(t.Context(), stage.Options{Dir: t.TempDir(), Binary: binary})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := s.Close(); err != nil {
						t.Error(err)
					}
				})
				lease := strings.ToLower(strings.ReplaceAll(name, " ", "-"))
				tokens := candidates(t, c, lease)
				play(leader.NewPair(t, s, leader.Options{
					API:        bothClusters(t, p, s).Listener.Addr().String(),
					Kubeconfig: func(name, url string) []byte { return kubeconfigOf(url, s.CA.PEM, tokens[name]) },
					Change:     func(c stage.Config) { c.Set("supervisor.leaderElection.leaseName", lease) },
				}))
				wroteTheLease(t, p, c, lease)
			})
		}
	})
}

// candidates are accounts of the names of the two daemons, with the chart's
// rights on this lease and no other, and their tokens.
func candidates(t *testing.T, c kubernetes.Interface, lease string) map[string]string {
	t.Helper()
	ctx, tokens := t.Context(), map[string]string{}
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: lease}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"create"}},
		{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, ResourceNames: []string{lease}, Verbs: []string{"get", "update"}},
	}}
	if _, err := c.RbacV1().Roles(world.Namespace).Create(ctx, role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	binding := &rbacv1.RoleBinding{ObjectMeta: role.ObjectMeta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: lease}}
	for _, name := range leader.Names {
		account, err := c.CoreV1().ServiceAccounts(world.Namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: lease + "-" + name}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		binding.Subjects = append(binding.Subjects, rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: world.Namespace, Name: account.Name})
		token, err := c.CoreV1().ServiceAccounts(world.Namespace).CreateToken(ctx, account.Name, &authv1.TokenRequest{}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		tokens[name] = token.Status.Token
	}
	if _, err := c.RbacV1().RoleBindings(world.Namespace).Create(ctx, binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return tokens
}

// bothClusters serves leases from the real API server, to whoever its
// authorizer lets through, and everything else from the pretend one.
func bothClusters(t *testing.T, p *plane.Plane, s *stage.Stage) *httptest.Server {
	t.Helper()
	transport, err := rest.TransportFor(&rest.Config{Host: p.URL, TLSClientConfig: rest.TLSClientConfig{CAData: p.CA}})
	if err != nil {
		t.Fatal(err)
	}
	to, err := url.Parse(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	leases := &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }}
	pretend := s.World.Cluster.Handler()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/apis/coordination.k8s.io/") {
			leases.ServeHTTP(w, r)
			return
		}
		r.Header.Set("Authorization", "Bearer demo")
		pretend.ServeHTTP(w, r)
	}))
	if server.TLS, err = s.CA.Server("clusters"); err != nil {
		t.Fatal(err)
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

func kubeconfigOf(url string, ca []byte, token string) []byte {
	return fmt.Appendf(nil, `{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}],
 clusters: [{name: c, cluster: {server: %q, certificate-authority-data: %s}}], users: [{name: u, user: {token: %q}}]}`,
		url, base64.StdEncoding.EncodeToString(ca), token)
}

// wroteTheLease reads the audit log: both held the lease, each wrote it only
// with its own name, nothing was denied, and nothing but the three verbs was
// ever asked for.
func wroteTheLease(t *testing.T, p *plane.Plane, c kubernetes.Interface, lease string) {
	t.Helper()
	requests, err := p.Audit()
	if err != nil {
		t.Fatal(err)
	}
	wrote := map[string]bool{}
	for _, r := range requests {
		account, ours := strings.CutPrefix(r.User.Username, "system:serviceaccount:"+world.Namespace+":"+lease+"-")
		// The name of a lease may begin with that of another.
		if !ours || !slices.Contains(leader.Names[:], account) {
			continue
		}
		if r.ObjectRef.Resource != "leases" || r.Verb != "get" && r.Verb != "create" && r.Verb != "update" || r.ResponseStatus.Code == http.StatusForbidden {
			t.Errorf("%s asked to %s %s %s: %d", account, r.Verb, r.ObjectRef.Resource, r.ObjectRef.Name, r.ResponseStatus.Code)
		}
		if r.Verb != "get" && r.ResponseStatus.Code < http.StatusMultipleChoices {
			wrote[account] = true
		}
	}
	if len(wrote) != len(leader.Names) {
		t.Errorf("the lease was written by %v, want both in their turn", wrote)
	}
	l, err := c.CoordinationV1().Leases(world.Namespace).Get(context.WithoutCancel(t.Context()), lease, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// Both have ended in order by now, and gave it back.
	if l.Spec.HolderIdentity != nil && *l.Spec.HolderIdentity != "" || l.Spec.LeaseTransitions == nil || *l.Spec.LeaseTransitions < 1 {
		t.Errorf("the lease is %+v, want it free and to have changed hands", l.Spec)
	}
}
