package api

import (
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/runnerward/runnerward/test/kube/plane"
)

func TestTheAuditLogNamesWhoAskedForWhat(t *testing.T) {
	name := namespace(t, "restricted")
	if _, err := admin(t).CoreV1().ConfigMaps(name).List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	requests, err := planeOf(t).Audit()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(requests, func(r plane.Request) bool {
		return r.User.Username == "admin" && r.Verb == "list" && r.ObjectRef.Resource == "configmaps" &&
			r.ObjectRef.Namespace == name && r.ResponseStatus.Code == 200
	}) {
		t.Error("the audit log does not show that admin listed the config maps")
	}
}
