package api

import (
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/runnerward/runnerward/pkg/hosts"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
	"github.com/runnerward/runnerward/test/kube/plane"
)

const (
	karpenterPool  = "hipaa-prod"
	karpenterClass = "hipaa-prod-runners"
	poolLabel      = "stonebridge.io/runner-pool"
	hostSubnet     = "subnet-0a1b2c3d4e5f60718"
	hostProfile    = "arn:aws:iam::111122223333:instance-profile/hipaa-prod-runners"
	daemonAccount  = "runnerward"
)

var (
	claimResource = schema.GroupVersionResource{Group: "karpenter.sh", Version: "v1", Resource: "nodeclaims"}
	classResource = schema.GroupVersionResource{Group: "karpenter.k8s.aws", Version: "v1", Resource: "ec2nodeclasses"}
	crdResource   = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
)

// TestKarpenterDriver: Karpenter's own definitions, with their rules in CEL, the
// rights of the chart, and the driver's every call; once with Karpenter's own
// controllers, and once with the stand-in of the other tests, which has to do
// the same.
func TestKarpenterDriver(t *testing.T) {
	t.Parallel()
	for name, own := range map[string]bool{"its own controllers": true, "the stand-in": false} {
		t.Run(name, func(t *testing.T) { drive(t, start(t), own) })
	}
}

func drive(t *testing.T, p *plane.Plane, own bool) {
	b := newKarpenterBench(t, p, own)
	driver := b.driver(b.account(true), nil)

	t.Run("preflight finds nothing", func(t *testing.T) {
		pool, err := driver.Preflight(t.Context())
		if err != nil || len(pool.Problems) != 0 {
			t.Fatalf("Preflight = %+v, %v, want no problem", pool, err)
		}
	})
	t.Run("preflight names a claim that the rules refuse", func(t *testing.T) {
		moody := b.driver(b.token, func(o *hosts.KarpenterOptions) {
			o.Requirements = []hosts.Requirement{{Key: "karpenter.k8s.aws/mood", Operator: "Exists"}}
		})
		pool, err := moody.Preflight(t.Context())
		if all := strings.Join(pool.Problems, "\n"); err != nil || !strings.Contains(all, `label domain "karpenter.k8s.aws" is restricted`) {
			t.Errorf("Preflight = %q, %v, want the rule", pool.Problems, err)
		}
	})
	t.Run("a host comes", func(t *testing.T) {
		if err := driver.Ensure(t.Context(), supervisor.Demand{Ready: 1}); err != nil {
			t.Fatal(err)
		}
		b.until("the NodeClaim is ready", func() bool { return b.stateOf(driver) == runner.NodeClaimReady })
	})
	claim := b.claim()
	id := b.cloud.sim.Instances()[0].ID
	t.Run("its spec cannot be changed", func(t *testing.T) {
		_, err := b.admin.Resource(claimResource).Patch(t.Context(), claim.GetName(), types.MergePatchType, []byte(`{"spec":{"expireAfter":"1h"}}`), metav1.PatchOptions{})
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "spec is immutable") {
			t.Errorf("changing the spec = %v, want it refused", err)
		}
	})
	t.Run("it is protected, again and again", func(t *testing.T) {
		unprotect := []byte(`{"metadata":{"annotations":{"karpenter.sh/do-not-disrupt":null}}}`)
		node, _, _ := unstructured.NestedString(claim.Object, "status", "nodeName")
		for range 2 {
			if _, err := b.admin.Resource(claimResource).Patch(t.Context(), claim.GetName(), types.MergePatchType, unprotect, metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
			if _, err := b.core.CoreV1().Nodes().Patch(t.Context(), node, types.MergePatchType, unprotect, metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
			b.until("it is protected", func() bool { return driver.Protect(t.Context(), id) == nil }) // a node changes under it
			n, err := b.core.CoreV1().Nodes().Get(t.Context(), node, metav1.GetOptions{})
			if err != nil || n.Annotations["karpenter.sh/do-not-disrupt"] != "true" || b.claim().GetAnnotations()["karpenter.sh/do-not-disrupt"] != "true" {
				t.Errorf("node %v (%v) and claim %v, want both to be protected", n.Annotations, err, b.claim().GetAnnotations())
			}
		}
	})
	pod := b.undisturbed(claim)
	t.Run("it ends, and the audit log knows who asked", func(t *testing.T) {
		receipt, err := driver.Terminate(t.Context(), id, supervisor.TerminateOptions{})
		if err != nil || len(receipt.Requests) != 1 || receipt.ActivityID != string(claim.GetUID()) {
			t.Fatalf("Terminate = %+v, %v, want one request for %s", receipt, err, claim.GetUID())
		}
		log, err := p.Audit()
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(log, func(r plane.Request) bool { return r.AuditID == receipt.Requests[0].RequestID })
		if i < 0 || log[i].Verb != "delete" || log[i].ObjectRef.Name != claim.GetName() || log[i].User.Username != "system:serviceaccount:default:"+daemonAccount {
			t.Errorf("request %+v is not in the audit log as the daemon's", receipt.Requests[0])
		}
		b.until("its node is drained", func() bool { return b.tainted(claim, "karpenter.sh/disrupted") })
		deadline := b.claim().GetDeletionTimestamp().Add(3 * time.Hour).UTC().Format(time.RFC3339)
		if got := b.claim().GetAnnotations()["karpenter.sh/nodeclaim-termination-timestamp"]; got != deadline {
			t.Errorf("Karpenter drains until %q, want %s", got, deadline)
		}
		// Longer than a drain takes that waits for nobody (MinDrainTime).
		for until := time.Now().Add(8 * time.Second); time.Now().Before(until); <-time.After(500 * time.Millisecond) {
			if in := b.cloud.sim.Instances()[0]; in.State != "running" {
				t.Fatalf("the machine is %s under a pod that may not be disrupted", in.State)
			}
		}
		if err := b.core.CoreV1().Pods("default").Delete(t.Context(), pod, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}); err != nil {
			t.Fatalf("the pod is not there to be deleted: %v", err)
		}
		b.until("EC2 says that it terminated", func() bool {
			found, err := driver.Describe(t.Context(), []string{id})
			return err == nil && found[id].State == "terminated"
		})
		b.until("the NodeClaim and its node are gone", func() bool {
			nodes, err := b.core.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
			return err == nil && len(nodes.Items) == 0 && len(b.claims()) == 0
		})
	})
	t.Run("the daemon was refused nothing, and asked for nothing else", func(t *testing.T) { b.checkAudit(p) })
}

// TestKarpenterDriverWithoutItsRights: the chart of another driver.
func TestKarpenterDriverWithoutItsRights(t *testing.T) {
	t.Parallel()
	b := newKarpenterBench(t, start(t), false)
	pool, err := b.driver(b.account(false), nil).Preflight(t.Context())
	if all := strings.Join(pool.Problems, "\n"); err != nil || !strings.Contains(all, "may not list nodeclaims.karpenter.sh") {
		t.Errorf("Preflight = %q, %v, want the right that is missing", pool.Problems, err)
	}
}
