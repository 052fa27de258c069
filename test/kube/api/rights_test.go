package api

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/runnerward/runnerward/test/kube/plane"
)

// right is one verb on one resource somewhere.
type right struct {
	group, resource, verb string
	// where is a namespace, or empty for the whole cluster; name is the one object
	// that a grant is for, or empty.
	where, name string
}

func (r right) String() string {
	return strings.Join([]string{cmp.Or(r.where, "cluster"), cmp.Or(r.group, "core"), r.resource + strings.TrimSuffix("/"+r.name, "/"), r.verb}, "\t")
}

// granted is all that roles give to the account, by the bindings that the
// cluster holds, whoever made them.
func granted(t *testing.T, namespace, account string) map[right]bool {
	t.Helper()
	c, out := admin(t), map[right]bool{}
	ours := func(subjects []rbacv1.Subject) bool {
		return slices.ContainsFunc(subjects, func(s rbacv1.Subject) bool {
			return s.Kind == "ServiceAccount" && s.Namespace == namespace && s.Name == account ||
				s.Kind == "User" && s.Name == "system:serviceaccount:"+namespace+":"+account
		})
	}
	give := func(where string, ref rbacv1.RoleRef) {
		for _, rule := range rulesOf(t, where, ref) {
			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					for _, verb := range rule.Verbs {
						for _, name := range names(rule) {
							out[right{group, resource, verb, where, name}] = true
						}
					}
				}
			}
			for _, url := range rule.NonResourceURLs {
				t.Errorf("%s may have %s, which no daemon needs", account, url)
			}
		}
	}
	bindings, err := c.RbacV1().RoleBindings("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range bindings.Items {
		if ours(b.Subjects) {
			give(b.Namespace, b.RoleRef)
		}
	}
	everywhere, err := c.RbacV1().ClusterRoleBindings().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range everywhere.Items {
		if ours(b.Subjects) {
			give("", b.RoleRef)
		}
	}
	return out
}

// names are those of the objects that a rule is for, one empty name for all.
func names(rule rbacv1.PolicyRule) []string {
	if len(rule.ResourceNames) == 0 {
		return []string{""}
	}
	return rule.ResourceNames
}

func rulesOf(t *testing.T, where string, ref rbacv1.RoleRef) []rbacv1.PolicyRule {
	t.Helper()
	if ref.Kind == "ClusterRole" {
		role, err := admin(t).RbacV1().ClusterRoles().Get(t.Context(), ref.Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return role.Rules
	}
	role, err := admin(t).RbacV1().Roles(where).Get(t.Context(), ref.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return role.Rules
}

// covers says that the grant allows what was asked for.
func (r right) covers(q plane.Request) bool {
	ref := q.ObjectRef
	resource := ref.Resource + strings.TrimSuffix("/"+ref.Subresource, "/")
	return r.group == ref.APIGroup && r.resource == resource && r.verb == q.Verb &&
		(r.where == "" || r.where == ref.Namespace) && (r.name == "" || r.name == ref.Name)
}

// requests are all that this user asked for so far.
func requests(t *testing.T, user string) (all []plane.Request) {
	t.Helper()
	log, err := planeOf(t).Audit()
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range log {
		if q.User.Username == user {
			all = append(all, q)
		}
	}
	return all
}

// proveRights holds what the daemon's account asked for against what it was
// granted: every right was used, nothing else was asked for, nothing was denied
// or malformed.
// The daemon has ended, so that its watches are in the log. The table is what an
// owner may compare with the chart.
func proveRights(t *testing.T, r *release) {
	t.Helper()
	grants := granted(t, r.namespace, account)
	if len(grants) == 0 {
		t.Fatalf("%s has no rights at all", r.daemon)
	}
	used := map[right]int{}
	var strange []string
	until(t, "every right that the chart grants was used", patience, func() (bool, error) {
		clear(used)
		strange = nil
		for _, q := range requests(t, r.daemon) {
			known := false
			for grant := range grants {
				if grant.covers(q) {
					known = true
					used[grant]++
				}
			}
			// 404 and 409 are answers; these say that a request was wrong.
			if !known || slices.Contains([]int{400, 401, 403, 405, 415, 422}, q.ResponseStatus.Code) {
				code := q.ResponseStatus.Code
				strange = append(strange, fmt.Sprintf("%d %s %s", code, q.Verb, q.RequestURI))
			}
		}
		var missing []string
		for grant := range grants {
			if used[grant] == 0 {
				missing = append(missing, strings.ReplaceAll(grant.String(), "\t", " "))
			}
		}
		slices.Sort(missing)
		if len(missing) > 0 {
			return false, fmt.Errorf("granted and never used: %s", strings.Join(missing, "; "))
		}
		return true, nil
	})
	for _, s := range slices.Compact(slices.Sorted(slices.Values(strange))) {
		t.Errorf("%s asked for what it was not granted, or was refused: %s", r.daemon, s)
	}
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "where\tgroup\tresource\tverb\tused")
	for _, grant := range slices.SortedFunc(maps.Keys(grants), func(a, b right) int { return strings.Compare(a.String(), b.String()) }) {
		fmt.Fprintf(w, "%s\t%d\n", grant, used[grant])
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Logf("the rights of %s:\n%s", r.daemon, table.String())
}
