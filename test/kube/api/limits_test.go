package api

import (
	"net/http"
	"strings"
	"testing"

	authv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/runnerward/runnerward/pkg/sim/world"
)

// proveLimits asks with the daemon's own token for what would make it worth
// stealing, and for its rights elsewhere: every request has to be forbidden, by
// the verdict that the API server gives on request and by what it does.
func proveLimits(t *testing.T, r *release) {
	config, err := clientcmd.RESTConfigFromKubeConfig(r.kubeconfig(t))
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	own := "/api/v1/namespaces/" + r.namespace
	for _, path := range []string{
		"GET " + own + "/secrets",
		"GET " + own + "/secrets/runnerward-github-app",
		"GET " + own + "/configmaps",
		"PUT " + own + "/configmaps/runnerward",
		"POST " + own + "/pods/some-runner/exec",
		"GET " + own + "/pods/some-runner/log",
		"POST " + own + "/pods/some-runner/attach",
		"POST " + own + "/pods/some-runner/portforward",
		"PUT " + own + "/pods/some-runner/ephemeralcontainers",
		"PATCH " + own + "/pods/some-runner",
		"PUT " + own + "/pods/some-runner",
		"PUT " + own + "/pods/some-runner/status",
		"DELETE " + own + "/pods",
		"POST " + own + "/serviceaccounts/" + world.ServiceAccount + "/token",
		"POST " + own + "/serviceaccounts",
		"POST " + own + "/services",
		"PATCH " + "/apis/apps/v1/namespaces/" + r.namespace + "/deployments/runnerward",
		"POST " + "/apis/rbac.authorization.k8s.io/v1/namespaces/" + r.namespace + "/rolebindings",
		"POST " + "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
		"DELETE " + "/apis/networking.k8s.io/v1/namespaces/" + r.namespace + "/networkpolicies/runnerward-runners",
		"PATCH " + own,
		"PATCH " + "/api/v1/nodes/some-node",
		"PUT " + "/api/v1/nodes/some-node/status",
		"POST " + "/api/v1/nodes",
		"DELETE " + "/api/v1/nodes",
		"GET " + "/api/v1/nodes/some-node/proxy",
		"GET " + "/api/v1/pods",
		"GET " + "/api/v1/namespaces/kube-system/pods",
		"GET " + "/api/v1/namespaces/default/pods/some-pod",
		"POST " + "/api/v1/namespaces/default/pods",
		"DELETE " + "/api/v1/namespaces/kube-system/pods/some-pod",
		"POST " + "/apis/events.k8s.io/v1/namespaces/kube-system/events",
		"GET " + "/apis/events.k8s.io/v1/namespaces/" + r.namespace + "/events",
		"GET " + "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases",
		"GET " + "/api/v1/secrets",
		"GET " + "/api/v1/namespaces",
		"GET " + "/metrics",
	} {
		t.Run(path, func(t *testing.T) {
			verb, path, _ := strings.Cut(path, " ")
			err := client.CoreV1().RESTClient().Verb(verb).AbsPath(path).SetHeader("Content-Type", contentType(verb)).Body([]byte("{}")).Do(t.Context()).Error()
			if !apierrors.IsForbidden(err) {
				t.Errorf("the API server says %v, want forbidden", err)
			}
		})
	}
	// What nobody may do who could become somebody else by it.
	for _, ask := range []authv1.ResourceAttributes{
		{Verb: "impersonate", Resource: "serviceaccounts", Namespace: r.namespace, Name: world.ServiceAccount},
		{Verb: "impersonate", Resource: "users", Name: "admin"},
		{Verb: "bind", Group: "rbac.authorization.k8s.io", Resource: "clusterroles", Name: "cluster-admin"},
		{Verb: "escalate", Group: "rbac.authorization.k8s.io", Resource: "roles", Namespace: r.namespace},
		{Verb: "*", Group: "*", Resource: "*"},
	} {
		review, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(t.Context(), &authv1.SelfSubjectAccessReview{
			Spec: authv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &ask},
		}, metav1.CreateOptions{})
		if err != nil || review.Status.Allowed {
			t.Errorf("may %s %s: %v, %v, want no", ask.Verb, ask.Resource, review.Status, err)
		}
	}
}

func contentType(verb string) string {
	if verb == http.MethodPatch {
		return "application/merge-patch+json"
	}
	return "application/json"
}
