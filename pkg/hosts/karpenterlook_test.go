package hosts_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/runnerward/runnerward/pkg/hosts"
	simcluster "github.com/runnerward/runnerward/pkg/sim/cluster"
	simworld "github.com/runnerward/runnerward/pkg/sim/world"
)

// TestPreflightOfKarpenter: what would have every host refused is said once, with
// its mend; what cannot be learned is an error.
func TestPreflightOfKarpenter(t *testing.T) {
	spec := func(patch string) func(*karpenter) {
		return func(k *karpenter) {
			_, err := k.classes.Patch(k.t.Context(), simworld.NodeClass, types.MergePatchType, []byte(`{"spec":`+patch+`}`), metav1.PatchOptions{})
			k.must(err)
		}
	}
	status := func(patch string) func(*karpenter) {
		return func(k *karpenter) {
			_, err := k.classes.Patch(k.t.Context(), simworld.NodeClass, types.MergePatchType, []byte(`{"status":`+patch+`}`), metav1.PatchOptions{}, "status")
			k.must(err)
		}
	}
	for want, spoil := range map[string]func(*karpenter){
		"": func(*karpenter) {},
		"EC2NodeClass hipaa-prod-runners does not exist: make it": func(k *karpenter) {
			k.must(k.classes.Delete(k.t.Context(), simworld.NodeClass, metav1.DeleteOptions{}))
		},
		`launches "AL2023": set amiFamily`:                             spec(`{"amiFamily":"AL2023","amiSelectorTerms":[{"id":"ami-1"}]}`),
		"allows IMDSv1":                                                spec(`{"metadataOptions":{"httpTokens":"optional"}}`),
		"lets pods reach the instance metadata":                        spec(`{"metadataOptions":{"httpPutResponseHopLimit":2}}`),
		"gives hosts a public address":                                 spec(`{"associatePublicIPAddress":true}`),
		"does not tag its instances Compliance=HIPAA":                  spec(`{"tags":{"Compliance":null}}`),
		"is not known to be ready":                                     spec(`{"detailedMonitoring":true}`), // not looked at since
		"is not ready (SubnetsNotFound: none matched)":                 status(`{"conditions":[{"type":"Ready","status":"False","reason":"SubnetsNotFound","message":"none matched","lastTransitionTime":"2026-01-01T00:00:00Z"}]}`),
		"launches in subnet-0ffffffffffffffff: narrow":                 status(`{"subnets":[{"id":"subnet-0ffffffffffffffff","zone":"us-east-1a"}]}`),
		"launches with the instance profile other":                     status(`{"instanceProfile":"other"}`),
		"launches image ami-0ffffffffffffffff (ubuntu)":                status(`{"amis":[{"id":"ami-0ffffffffffffffff","name":"ubuntu","requirements":[{"key":"kubernetes.io/arch","operator":"In","values":["amd64"]}]}]}`),
		"the daemon's account may not create nodeclaims.karpenter.sh":  func(k *karpenter) { k.world.Karpenter.API.Deny("create", "nodeclaims", true) },
		"the daemon's account may not delete nodeclaims.karpenter.sh":  func(k *karpenter) { k.world.Karpenter.API.Deny("delete", "nodeclaims", true) },
		"the daemon's account may not patch nodeclaims.karpenter.sh":   func(k *karpenter) { k.world.Karpenter.API.Deny("patch", "nodeclaims", true) },
		"the daemon's account may not list nodeclaims.karpenter.sh":    func(k *karpenter) { k.world.Karpenter.API.Deny("list", "nodeclaims", true) },
		"may not get ec2nodeclasses.karpenter.k8s.aws":                 func(k *karpenter) { k.world.Karpenter.API.Deny("get", "ec2nodeclasses", true) },
		"Karpenter is not installed: the cluster serves no nodeclaims": func(k *karpenter) { k.connect(k.world.Cluster.Handler(), nil) },
		"takes no NodeClaim as hosts.karpenter says it: NodeClaim.karpen": func(k *karpenter) {
			k.connect(k.world.Karpenter.Handler(), func(o *hosts.KarpenterOptions) {
				o.Requirements = []hosts.Requirement{{Key: "karpenter.k8s.aws/mood", Operator: "Exists"}}
			})
		},
	} {
		t.Run(want, func(t *testing.T) {
			onKarpenter(t, nil, func(k *karpenter) {
				spoil(k)
				pool, err := k.Preflight(k.t.Context())
				if err != nil {
					t.Fatalf("Preflight = %v", err)
				}
				all := strings.Join(pool.Problems, "\n")
				if want == "" && all != "" || !strings.Contains(all, want) {
					t.Errorf("problems = %q, want %q", pool.Problems, want)
				}
				if n := len(k.world.AWS.Instances()); n != 0 {
					t.Errorf("%d instances after a look, want none", n)
				}
			})
		})
	}
}

func TestPreflightOfKarpenterThatLearnsNothing(t *testing.T) {
	onKarpenter(t, nil, func(k *karpenter) {
		in, _ := k.host()
		pool, err := k.Preflight(k.t.Context())
		if err != nil || len(pool.Groups) != 1 || pool.Groups[0].Max != 3 || !slices.Equal(pool.Groups[0].InService, []string{in.ID}) {
			t.Errorf("Preflight = %+v, %v, want the host in service", pool, err)
		}
		k.world.Karpenter.API.Fail(simcluster.Unavailable())
		if _, err := k.Preflight(k.t.Context()); err == nil {
			t.Error("Preflight while the API is away = nil, want an error")
		}
	})
}

// TestANodeClaimThatStaysIsNoted: Karpenter is down.
func TestANodeClaimThatStaysIsNoted(t *testing.T) {
	onKarpenter(t, nil, func(k *karpenter) {
		_, claim := k.host()
		k.world.Karpenter.Controller.SetDown(true)
		k.must(k.claims.Delete(k.t.Context(), claim.GetName(), metav1.DeleteOptions{}))
		wait(k.t, 11*time.Minute)
		pool, err := k.Preflight(k.t.Context())
		if err != nil || len(pool.Problems) != 0 || !strings.Contains(strings.Join(pool.Notes, " "), "has not ended NodeClaim "+claim.GetName()) {
			t.Errorf("Preflight = %+v, %v, want a note of %s", pool, err, claim.GetName())
		}
	})
}
