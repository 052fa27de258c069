package config

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	capacityType = "karpenter.sh/capacity-type"
	spot         = "spot"
)

func (v *validation) karpenter() {
	k := v.Hosts.Karpenter
	if len(v.Hosts.Groups) > 0 || v.Hosts.Nodegroup != (Nodegroup{}) {
		v.report("hosts.groups", "hosts of Karpenter are of no group", "set it to [], and leave hosts.nodegroup empty")
	}
	v.shaped("hosts.karpenter.nodeClass", k.NodeClass, isDNSName)
	v.between("hosts.karpenter.max", k.Max, v.Limits.MaxRunners, 1000)
	if d := k.RegisterBy; d < time.Minute || d > time.Hour {
		v.report("hosts.karpenter.registerBy", fmt.Sprintf("%s is out of range", d), "give 1m0s to 1h0m0s")
	}
	v.wholeSeconds("hosts.karpenter.terminationGracePeriod", k.TerminationGracePeriod, time.Minute, 30*24*time.Hour)
	// Who deletes a NodeClaim under a deploy then waits for the deploy.
	v.before("limits.jobTTL", v.Limits.JobTTL, "hosts.karpenter.terminationGracePeriod", k.TerminationGracePeriod)
	for i, l := range v.Cluster.NodeLabels {
		if claimless(l.Key) {
			v.report(fmt.Sprintf("cluster.nodeLabels[%d].key", i), fmt.Sprintf("%q is no label that a NodeClaim may carry, so no host would ever have it", l.Key),
				"choose a label of your own, like example.com/runner-pool")
		}
		if domain, _, _ := strings.Cut(l.Key, "/"); domain == "karpenter.sh" || strings.HasSuffix(domain, ".karpenter.sh") {
			v.report(fmt.Sprintf("cluster.nodeLabels[%d].key", i), fmt.Sprintf("%q is Karpenter's own", l.Key), "choose a label of your own: a NodeClaim of a NodePool may be consolidated away")
		}
	}
	for i, t := range k.StartupTaints {
		at := fmt.Sprintf("hosts.karpenter.startupTaints[%d]", i)
		v.shaped(at+".key", t.Key, isLabelKey)
		v.oneOf(at+".effect", t.Effect, "NoSchedule", "NoExecute")
	}
	v.requirements()
}

// claimless says that a NodeClaim may not carry the label and that neither a
// kubelet nor Karpenter sets it: it is of Kubernetes or of EKS, and none of those
// that every node has (https://kubernetes.io/docs/reference/labels-annotations-taints/).
func claimless(key string) bool {
	switch key {
	case "kubernetes.io/os", "kubernetes.io/arch", "node.kubernetes.io/instance-type",
		"topology.kubernetes.io/zone", "topology.kubernetes.io/region":
		return false
	}
	domain, _, _ := strings.Cut(key, "/")
	return slices.ContainsFunc([]string{"kubernetes.io", "k8s.io", "eks.amazonaws.com"}, func(of string) bool {
		return domain == of || strings.HasSuffix(domain, "."+of)
	})
}

// requirements are those of nodes: Karpenter refuses others only once a machine
// is to be launched.
func (v *validation) requirements() {
	if len(v.Hosts.Karpenter.Requirements) == 0 {
		v.report("hosts.karpenter.requirements", "missing", "list at least the architecture of the runner's image: kubernetes.io/arch In [amd64]")
	}
	for i, r := range v.Hosts.Karpenter.Requirements {
		at := fmt.Sprintf("hosts.karpenter.requirements[%d]", i)
		v.shaped(at+".key", r.Key, isLabelKey)
		domain, _, _ := strings.Cut(r.Key, "/")
		if r.Key != capacityType && (domain == "karpenter.sh" || r.Key == "kubernetes.io/hostname") {
			v.report(at+".key", fmt.Sprintf("%q is no choice of machines", r.Key), "leave it out")
		}
		v.oneOf(at+".operator", r.Operator, "In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt", "Gte", "Lte")
		switch few := len(r.Values); {
		case strings.HasSuffix(r.Operator, "In") && few == 0, len(r.Operator) <= 3 && strings.ContainsAny(r.Operator, "GL") && few != 1:
			v.report(at+".values", fmt.Sprintf("%d values for %s", few, r.Operator), "give at least one, and just one to compare with")
		case strings.HasSuffix(r.Operator, "xist") && few > 0, strings.HasSuffix(r.Operator, "xists") && few > 0:
			v.report(at+".values", fmt.Sprintf("%d values for %s", few, r.Operator), "give none")
		}
		v.eachOf(at+".values", r.Values, isLabelVal)
		if r.Key == capacityType && (r.Operator != "In" || slices.Contains(r.Values, spot)) {
			v.report(at+".values", "lets AWS take a host away under its job", "say operator In and values [on-demand] or [on-demand, reserved]")
		}
	}
}
