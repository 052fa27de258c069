package config_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/runnerward/runnerward/pkg/config"
)

// underKarpenter is the example with hosts of Karpenter, some lines of it replaced.
func underKarpenter(t *testing.T, changes ...string) string {
	t.Helper()
	text := replaced(t, "driver: autoscaling", "driver: karpenter")
	pairs := append([]string{
		"groups: [eks-hipaa-prod-runners-00c0ffee-1111-2222-3333-444455556666]", "groups: []",
		`nodeClass: ""`, "nodeClass: hipaa-prod-runners",
		"requirements: []", "requirements:\n      - {key: kubernetes.io/arch, operator: In, values: [amd64]}",
	}, changes...)
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("the example has no %q", pairs[i])
		}
		text = strings.Replace(text, pairs[i], pairs[i+1], 1)
	}
	return text
}

// TestHostsMayBeOfKarpenter: there is no group to vet them by, and no host that
// nobody asks for.
func TestHostsMayBeOfKarpenter(t *testing.T) {
	c, err := parse(t, underKarpenter(t, "startupTaints: []", "startupTaints:\n      - {key: node.cilium.io/agent-not-ready, value: \"true\", effect: NoExecute}"))
	if err != nil {
		t.Fatal(err)
	}
	rules, lim := c.VetRules(), c.RunnerLimits()
	if rules.Provider != "aws" || !rules.NodeClaims || len(rules.Groups) != 0 || !lim.OnDemand || !lim.Scales() {
		t.Errorf("rules = %+v, limits = %+v, want NodeClaims on demand", rules, lim)
	}
	k := c.Hosts.Karpenter
	if k.NodeClass != "hipaa-prod-runners" || len(k.Requirements) != 1 || !slices.Equal(k.Requirements[0].Values, []string{"amd64"}) ||
		!slices.Equal(k.StartupTaints, []config.Taint{{Key: "node.cilium.io/agent-not-ready", Value: "true", Effect: "NoExecute"}}) {
		t.Errorf("hosts.karpenter = %+v", k)
	}
	reload(t, c)
}

func TestNodeClaimsThatCannotWorkAreRefused(t *testing.T) {
	const arch = "{key: kubernetes.io/arch, operator: In, values: [amd64]}"
	for want, changes := range map[string][]string{
		`cluster.nodeLabels[0].key: "eks.amazonaws.com/nodegroup" is no label that a NodeClaim may carry`:         {"key: stonebridge.io/runner-pool", "key: eks.amazonaws.com/nodegroup"},
		`cluster.nodeLabels[0].key: "node-role.kubernetes.io/runner" is no label that a NodeClaim may carry`:      {"key: stonebridge.io/runner-pool", "key: node-role.kubernetes.io/runner"},
		`cluster.nodeLabels[0].key: "kops.k8s.io/instancegroup" is no label that a NodeClaim may carry, so no ho`: {"key: stonebridge.io/runner-pool", "key: kops.k8s.io/instancegroup"},
		"hosts.groups: hosts of Karpenter are of no group":                                                        {"groups: []", "groups: [a]"},
		"hosts.karpenter.nodeClass: missing":                                                                      {"nodeClass: hipaa-prod-runners", `nodeClass: ""`},
		"hosts.karpenter.requirements: missing (list at least the architecture":                                   {"requirements:\n      - " + arch, "requirements: []"},
		"hosts.karpenter.max: 5 is out of range (give 6 to 1000)":                                                 {"max: 8", "max: 5"},
		"hosts.karpenter.registerBy: 5s is out of range":                                                          {"registerBy: 10m", "registerBy: 5s"},
		"limits.jobTTL: 2h0m0s is not shorter than hosts.karpenter.terminationGracePeriod":                        {"terminationGracePeriod: 3h", "terminationGracePeriod: 1h"},
		`cluster.nodeLabels[0].key: "karpenter.sh/nodepool" is Karpenter's own`:                                   {"key: stonebridge.io/runner-pool", "key: karpenter.sh/nodepool"},
		`requirements[0].key: "karpenter.sh/nodepool" is no choice of machines`:                                   {"key: kubernetes.io/arch", "key: karpenter.sh/nodepool"},
		"hosts.karpenter.requirements[0].operator: \"Is\" is not a choice":                                        {"operator: In", "operator: Is"},
		"hosts.karpenter.requirements[0].values: 0 values for In":                                                 {"values: [amd64]", "values: []"},
		"hosts.karpenter.requirements[0].values: 2 values for Gt":                                                 {"In, values: [amd64]", `Gt, values: ["1", "2"]`},
		"hosts.karpenter.requirements[0].values: 1 values for Exists":                                             {"operator: In", "operator: Exists"},
		"hosts.karpenter.requirements[0].values: lets AWS take a host away under its job":                         {arch, "{key: karpenter.sh/capacity-type, operator: In, values: [on-demand, spot]}"},
		"hosts.karpenter.startupTaints[0].effect: \"PreferNoSchedule\" is not a choice":                           {"startupTaints: []", "startupTaints: [{key: a, effect: PreferNoSchedule}]"},
		"hosts.karpenter.requirements[0].vaules: unknown key (did you mean values?)":                              {"values: [amd64]", "vaules: [amd64]"},
		"hosts.karpenter.terminationGracePeriod: 3h0m0.5s is not a number of whole seconds":                       {"terminationGracePeriod: 3h", "terminationGracePeriod: 3h0m0.5s"},
	} {
		_, err := parse(t, underKarpenter(t, changes...))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse = %v, want it to say %q", err, want)
		}
	}
}
