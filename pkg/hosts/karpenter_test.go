package hosts_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/runnerward/runnerward/pkg/hosts"
	"github.com/runnerward/runnerward/pkg/runner"
	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
	simcluster "github.com/runnerward/runnerward/pkg/sim/cluster"
	simworld "github.com/runnerward/runnerward/pkg/sim/world"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// TestANodeClaimHasAllThatAHostNeeds, because its spec can never be changed. The
// stand-in takes it under the schemas of Karpenter's own definitions.
func TestANodeClaimHasAllThatAHostNeeds(t *testing.T) {
	startup := func(o *hosts.KarpenterOptions) {
		o.StartupTaints = []runner.Taint{{Key: "node.cilium.io/agent-not-ready", Value: "true", Effect: "NoExecute"}}
	}
	onKarpenter(t, startup, func(k *karpenter) {
		if err := k.Ensure(k.t.Context(), supervisor.Demand{Ready: 1}); err != nil {
			t.Fatal(err)
		}
		c := k.list()[0]
		if _, pooled := c.GetLabels()["karpenter.sh/nodepool"]; pooled || len(c.GetOwnerReferences()) != 0 {
			t.Errorf("labels %v, owners %v: a NodePool would take it", c.GetLabels(), c.GetOwnerReferences())
		}
		if l := c.GetLabels(); c.GetName() != "hipaa-prod-1" || l[hosts.LabelPool] != "hipaa-prod" || l[hosts.LabelManagedBy] != "runnerward" ||
			l[simworld.PoolLabelKey] != simworld.PoolLabelValue || l["kubernetes.io/os"] != "" {
			t.Errorf("%s has labels %v, want ours and the pool's, and none that only kubelet sets", c.GetName(), l)
		}
		if a := c.GetAnnotations(); a["karpenter.sh/do-not-disrupt"] != "true" || a["karpenter.sh/do-not-repair"] != "true" {
			t.Errorf("annotations = %v", a)
		}
		spec, _, _ := unstructured.NestedMap(c.Object, "spec")
		for field, want := range map[string]string{
			"expireAfter": "Never", "terminationGracePeriod": "7200s",
			"taints":        "[map[effect:NoSchedule key:workload value:hipaa-runner]]",
			"startupTaints": "[map[effect:NoExecute key:node.cilium.io/agent-not-ready value:true]]",
			"requirements":  "[map[key:kubernetes.io/arch operator:In values:[amd64]] map[key:karpenter.sh/capacity-type operator:In values:[on-demand]]]",
			"nodeClassRef":  "map[group:karpenter.k8s.aws kind:EC2NodeClass name:hipaa-prod-runners]",
		} {
			if got := fmt.Sprint(spec[field]); got != want {
				t.Errorf("spec.%s = %s, want %s", field, got, want)
			}
		}
	})
}

// TestEnsureCountsNodeClaims: a claim counts from the moment it exists; one that is
// in use or of no use is made up for within the maximum; those of others are
// neither counted nor touched.
func TestEnsureCountsNodeClaims(t *testing.T) {
	onKarpenter(t, nil, func(k *karpenter) {
		foreign := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "metadata": map[string]any{"name": "somebodys"},
			"spec": map[string]any{"requirements": []any{}, "nodeClassRef": map[string]any{"group": "g", "kind": "OtherNodeClass", "name": "n"}},
		}}
		if _, err := k.claims.Create(k.t.Context(), foreign, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		in, _ := k.host()
		for _, step := range []struct {
			d    supervisor.Demand
			want int // claims, somebody's among them
			says string
		}{
			{supervisor.Demand{Ready: 1}, 2, ""},
			{supervisor.Demand{Ready: 1, Used: []string{in.ID}}, 3, ""},
			{supervisor.Demand{Ready: 1, Used: []string{in.ID}}, 3, ""}, // it is on its way
			{supervisor.Demand{Ready: 3, Used: []string{in.ID}}, 4, ""}, // no more than three
			{supervisor.Demand{Ready: 3, Unfit: []string{in.ID}}, 4, "take up room"},
			{supervisor.Demand{}, 4, ""}, // none is ended for want of demand
		} {
			err := k.Ensure(k.t.Context(), step.d)
			if got := len(k.list()); got != step.want || (step.says == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), step.says) {
				t.Errorf("Ensure(%+v) = %v with %d claims, want %d and %q", step.d, err, got, step.want, step.says)
			}
			wait(k.t, time.Minute)
		}
		if got := k.states(); len(got) != 3 {
			t.Errorf("instances are %v, want three", got)
		}
	})
}

// TestAClaimThatMayHaveBecomeANodeStays: one that is late is looked at again when it
// has changed between the look and its deletion.
func TestAClaimThatMayHaveBecomeANodeStays(t *testing.T) {
	onKarpenter(t, nil, func(k *karpenter) {
		k.world.Karpenter.Controller.SetDown(true)
		k.must(k.Ensure(k.t.Context(), supervisor.Demand{Ready: 1}))
		name := k.list()[0].GetName()
		wait(k.t, 6*time.Minute)
		api, late := k.world.Karpenter.Handler(), true
		k.connect(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodDelete && late {
				late = false
				_, err := k.claims.Patch(r.Context(), name, types.MergePatchType, []byte(`{"metadata":{"annotations":{"a":"b"}}}`), metav1.PatchOptions{})
				k.must(err)
			}
			api.ServeHTTP(w, r)
		}), nil)
		for _, want := range []int{1, 0} {
			k.must(k.Ensure(k.t.Context(), supervisor.Demand{}))
			if got := len(k.list()); got != want {
				t.Errorf("%d claims are left, want %d", got, want)
			}
		}
	})
}

// TestAMachineThatIsGoneFreesItsClaim, whoever ended it; and one whose claim is
// being deleted while Karpenter is down takes up its room until EC2 ends it.
func TestAMachineThatIsGoneFreesItsClaim(t *testing.T) {
	onKarpenter(t, func(o *hosts.KarpenterOptions) { o.Max = 1 }, func(k *karpenter) {
		in, first := k.host()
		k.world.Karpenter.Controller.SetDown(true)
		if err := k.claims.Delete(k.t.Context(), first.GetName(), metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := k.Ensure(k.t.Context(), supervisor.Demand{Ready: 1}); err != nil || len(k.list()) != 1 {
			t.Errorf("Ensure = %v with %d claims while the one machine there may be still runs, want no other", err, len(k.list()))
		}
		if err := k.world.AWS.Terminate(in.ID); err != nil {
			t.Fatal(err)
		}
		if err := k.Ensure(k.t.Context(), supervisor.Demand{Ready: 1}); err != nil || len(k.list()) != 2 {
			t.Errorf("Ensure = %v with %d claims, want another in its room", err, len(k.list()))
		}
		k.world.Karpenter.Controller.SetDown(false)
		wait(k.t, 5*time.Minute)
		if left := k.list(); len(left) != 1 || left[0].GetName() == first.GetName() {
			t.Errorf("%d claims are left, want the new one", len(left))
		}
		second := k.list()[0]
		if err := k.world.AWS.Terminate(instanceOf(second)); err != nil {
			t.Fatal(err)
		}
		if err := k.Ensure(k.t.Context(), supervisor.Demand{}); err != nil {
			t.Fatal(err)
		}
		if left := k.list(); len(left) != 1 || left[0].GetDeletionTimestamp() == nil {
			t.Errorf("claims = %v, want the one without a machine deleted", left)
		}
	})
}

func instanceOf(claim unstructured.Unstructured) string {
	id := text(claim, "status", "providerID")
	return id[strings.LastIndexByte(id, '/')+1:]
}

// TestTerminateAHostOfKarpenter: what is asked of whom.
func TestTerminateAHostOfKarpenter(t *testing.T) {
	const claimed, direct = "karpenter.sh/nodeclaims:delete", "ec2:TerminateInstances"
	for name, tc := range map[string]struct {
		before func(k *karpenter, in simaws.Instance, claim string)
		force  bool
		calls  []string
		err    error
	}{
		"alive":  {calls: []string{claimed}},
		"forced": {force: true, calls: []string{claimed, direct}},
		"being deleted": {before: func(k *karpenter, _ simaws.Instance, claim string) {
			k.must(k.claims.Delete(k.t.Context(), claim, metav1.DeleteOptions{}))
		}},
		"being deleted, forced": {force: true, calls: []string{direct}, before: func(k *karpenter, _ simaws.Instance, claim string) {
			k.must(k.claims.Delete(k.t.Context(), claim, metav1.DeleteOptions{}))
		}},
		"ending already, forced": {force: true, calls: []string{claimed}, before: func(k *karpenter, in simaws.Instance, _ string) {
			k.must(k.world.AWS.Terminate(in.ID))
		}},
		"the finalizer was stripped": {calls: []string{direct}, before: func(k *karpenter, _ simaws.Instance, claim string) { k.strip(claim) }},
		"and it ends": {before: func(k *karpenter, in simaws.Instance, claim string) {
			k.strip(claim)
			k.must(k.world.AWS.Terminate(in.ID))
		}},
		"and it is of another class": {err: hosts.ErrForeignMachine, before: func(k *karpenter, in simaws.Instance, claim string) {
			k.strip(claim)
			k.must(k.world.AWS.Tag(in.ID, map[string]string{"karpenter.k8s.aws/ec2nodeclass": "default"}))
		}},
		"and it is of another pool": {err: hosts.ErrForeignMachine, before: func(k *karpenter, in simaws.Instance, claim string) {
			k.strip(claim)
			k.must(k.world.AWS.Tag(in.ID, map[string]string{"karpenter.sh/nodeclaim": "hipaa-test-1"}))
		}},
		"a forged claim of a machine of others, forced": {force: true, calls: []string{claimed}, err: hosts.ErrForeignMachine,
			before: func(k *karpenter, in simaws.Instance, _ string) {
				k.must(k.world.AWS.Tag(in.ID, map[string]string{"aws:autoscaling:groupName": "production"}))
			}},
	} {
		t.Run(name, func(t *testing.T) {
			onKarpenter(t, nil, func(k *karpenter) {
				in, claim := k.host()
				k.world.Karpenter.Controller.SetDown(true)
				if tc.before != nil {
					tc.before(k, in, claim.GetName())
				}
				receipt, err := k.Terminate(k.t.Context(), in.ID, supervisor.TerminateOptions{Force: tc.force})
				var calls []string
				for _, q := range receipt.Requests {
					calls = append(calls, q.Call)
					if q.RequestID == "" || q.Code != "" || (q.Call == direct) != (q.AccessKeyID == simworld.AccessKeyID) {
						t.Errorf("request = %+v, want its id, and a key only of AWS", q)
					}
					if err := runner.Validate(q); err != nil {
						t.Errorf("the request may not be recorded: %v", err)
					}
				}
				if !errors.Is(err, tc.err) || (err == nil) != (tc.err == nil) || !slices.Equal(calls, tc.calls) {
					t.Errorf("Terminate = %v after %q, want %v after %q", err, calls, tc.err, tc.calls)
				}
				asked := k.terminations()
				if want := strings.Count(strings.Join(tc.calls, " "), direct); asked != want {
					t.Errorf("EC2 was asked %d times, want %d", asked, want)
				}
			})
		})
	}
}

func (k *karpenter) must(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

// strip removes a claim as somebody does who has no patience.
func (k *karpenter) strip(claim string) {
	k.t.Helper()
	_, err := k.claims.Patch(k.t.Context(), claim, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
	k.must(err)
	if err := k.claims.Delete(k.t.Context(), claim, metav1.DeleteOptions{}); !apierrors.IsNotFound(err) { // it was being deleted
		k.must(err)
	}
}

// TestAnInstanceThatNobodyListsIsUnknown: that is no end.
func TestAnInstanceThatNobodyListsIsUnknown(t *testing.T) {
	onKarpenter(t, nil, func(k *karpenter) {
		for _, force := range []bool{false, true} {
			if _, err := k.Terminate(k.t.Context(), "i-0123456789abcdef0", supervisor.TerminateOptions{Force: force}); err == nil {
				t.Errorf("Terminate, force %t, of what nobody lists = nil, want an error", force)
			}
		}
		if _, err := k.Terminate(k.t.Context(), "i-*", supervisor.TerminateOptions{}); err == nil || k.terminations() != 0 {
			t.Errorf("Terminate of a wildcard = %v, want it refused", err)
		}
	})
}

// TestDescribeSaysOfWhichNodeClaimAHostIs; when that cannot be learned it is
// unknown, and EC2's part is said all the same.
func TestDescribeSaysOfWhichNodeClaimAHostIs(t *testing.T) {
	onKarpenter(t, nil, func(k *karpenter) {
		in, claim := k.host()
		describe := func() runner.Instance {
			got, err := k.Describe(k.t.Context(), []string{in.ID})
			k.must(err)
			return got[in.ID]
		}
		if got := describe().NodeClaim; got == nil || *got != (runner.NodeClaim{Name: claim.GetName(), State: runner.NodeClaimReady}) {
			t.Errorf("NodeClaim = %+v, want %s, ready", got, claim.GetName())
		}
		k.world.Karpenter.API.Fail(simcluster.Unavailable())
		if got := describe(); got.NodeClaim != nil || got.State != "running" {
			t.Errorf("instance = %+v, want it running of a claim that is unknown", got)
		}
		k.world.Karpenter.API.Fail(nil)
		k.world.Karpenter.Controller.SetDown(true)
		k.must(k.claims.Delete(k.t.Context(), claim.GetName(), metav1.DeleteOptions{}))
		if got := describe().NodeClaim; got == nil || got.State != runner.NodeClaimDeleting {
			t.Errorf("NodeClaim = %+v, want it being deleted", got)
		}
		k.strip(claim.GetName())
		if got := describe().NodeClaim; got == nil || got.Name != "" {
			t.Errorf("NodeClaim = %+v, want none", got)
		}
	})
}

// TestProtectAHostOfKarpenter: somebody took the annotations away.
func TestProtectAHostOfKarpenter(t *testing.T) {
	onKarpenter(t, nil, func(k *karpenter) {
		in, claim := k.host()
		nodes := k.world.Cluster.Client().CoreV1().Nodes()
		protectedBy := func() (claimed, noded string) {
			got, err := k.claims.Get(k.t.Context(), claim.GetName(), metav1.GetOptions{})
			k.must(err)
			node, err := nodes.Get(k.t.Context(), in.PrivateDNS, metav1.GetOptions{})
			k.must(err)
			return got.GetAnnotations()["karpenter.sh/do-not-disrupt"], node.Annotations["karpenter.sh/do-not-disrupt"]
		}
		_, err := k.claims.Patch(k.t.Context(), claim.GetName(), types.MergePatchType,
			[]byte(`{"metadata":{"annotations":{"karpenter.sh/do-not-disrupt":null}}}`), metav1.PatchOptions{})
		k.must(err)
		node, err := nodes.Get(k.t.Context(), in.PrivateDNS, metav1.GetOptions{})
		k.must(err)
		delete(node.Annotations, "karpenter.sh/do-not-disrupt")
		_, err = nodes.Update(k.t.Context(), node, metav1.UpdateOptions{})
		k.must(err)
		if a, b := protectedBy(); a != "" || b != "" {
			t.Fatalf("still protected: %q, %q", a, b)
		}
		for range 2 {
			k.must(k.Protect(k.t.Context(), in.ID))
			if a, b := protectedBy(); a != "true" || b != "true" {
				t.Errorf("the claim says %q, its node %q, want both to be protected", a, b)
			}
		}
		k.world.Karpenter.Controller.SetDown(true)
		k.must(k.claims.Delete(k.t.Context(), claim.GetName(), metav1.DeleteOptions{}))
		if err := k.Protect(k.t.Context(), in.ID); !errors.Is(err, supervisor.ErrConflict) {
			t.Errorf("Protect while its claim is deleted = %v, want ErrConflict", err)
		}
		k.strip(claim.GetName())
		if err := k.Protect(k.t.Context(), in.ID); !errors.Is(err, supervisor.ErrConflict) {
			t.Errorf("Protect without a claim = %v, want ErrConflict", err)
		}
		k.world.Karpenter.API.Fail(simcluster.Unavailable())
		if err := k.Protect(k.t.Context(), in.ID); err == nil || errors.Is(err, supervisor.ErrConflict) {
			t.Errorf("Protect while the API is away = %v, want it unknown", err)
		}
	})
}
