package configs_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestKarpenterPolicyIsThePolicyWithoutGroups: what the driver calls of EC2 and of
// Systems Manager, and no group, which it has none of.
func TestKarpenterPolicyIsThePolicyWithoutGroups(t *testing.T) {
	var want []string
	for service, calls := range called(t) {
		if service == "ec2" || service == "ssm" {
			for _, call := range calls {
				want = append(want, service+":"+call)
			}
		}
	}
	var got []string
	for _, s := range iamPolicy(t, "iam-policy-karpenter.json") {
		if s.Effect != "Allow" {
			t.Errorf("%s: %s", s.Sid, s.Effect)
		}
		got = append(got, s.Action...)
	}
	slices.Sort(want)
	slices.Sort(got)
	if len(want) < 6 || !slices.Equal(got, want) {
		t.Errorf("iam-policy-karpenter.json allows %q, want %q", got, want)
	}
}

// TestKarpenterPolicyEndsOnlyHostsOfTheNodeClass: Karpenter tags a machine with its
// cluster and its node class at launch (karpenter-provider-aws v1.15.1,
// pkg/utils/utils.go, GetTags), and nobody may name these tags in a node class.
func TestKarpenterPolicyEndsOnlyHostsOfTheNodeClass(t *testing.T) {
	var example struct {
		Hosts struct {
			Region   string
			Accounts []string
			Tags     []struct{ Key, Value string }
		}
		Cluster struct{ Name string }
	}
	b, err := os.ReadFile("runnerward.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(b, &example); err != nil {
		t.Fatal(err)
	}
	h, ends := example.Hosts, 0
	for _, s := range iamPolicy(t, "iam-policy-karpenter.json") {
		condition := s.Condition["StringEquals"]
		switch s.Action[0] {
		case "ssm:GetParameters":
			if want := "arn:aws:ssm:" + h.Region + "::parameter/aws/service/bottlerocket/*"; s.Resource[0] != want {
				t.Errorf("%s: resource %s, want %s", s.Sid, s.Resource, want)
			}
		case "ec2:TerminateInstances":
			ends++
			if want := "arn:aws:ec2:" + h.Region + ":" + h.Accounts[0] + ":instance/*"; !slices.Equal(s.Resource, list{want}) || len(s.Action) != 1 {
				t.Errorf("%s: %s of %s, want of %s alone", s.Sid, s.Action, s.Resource, want)
			}
			want := map[string]string{"eks:eks-cluster-name": example.Cluster.Name, "karpenter.k8s.aws/ec2nodeclass": "hipaa-prod-runners"}
			for _, tag := range h.Tags {
				want[tag.Key] = tag.Value
			}
			for key, value := range want {
				if got := condition["aws:ResourceTag/"+key]; got != value {
					t.Errorf("%s: tag %s is %q, want %q", s.Sid, key, got, value)
				}
			}
		default:
			if condition["aws:RequestedRegion"] != h.Region || slices.ContainsFunc(s.Action, func(a string) bool { return !strings.HasPrefix(a, "ec2:Describe") }) {
				t.Errorf("%s: %s for every resource, want descriptions in %s", s.Sid, s.Action, h.Region)
			}
		}
	}
	if ends != 1 {
		t.Errorf("%d statements end instances, want one", ends)
	}
}
