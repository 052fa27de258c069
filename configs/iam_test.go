package configs_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// actions is one action or a list of them, as IAM writes both.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html
type actions []string

func (a *actions) UnmarshalJSON(b []byte) error {
	var one string
	if err := json.Unmarshal(b, &one); err == nil {
		*a = actions{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(a))
}

type statement struct {
	Sid, Effect, Resource string
	Action                actions
	Condition             map[string]map[string]string
}

func iamPolicy(t *testing.T) []statement {
	t.Helper()
	b, err := os.ReadFile("iam-policy.json")
	if err != nil {
		t.Fatal(err)
	}
	var policy struct {
		Version   string
		Statement []statement
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&policy); err != nil {
		t.Fatalf("iam-policy.json: %v", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		t.Fatalf("iam-policy.json: after the policy: %v, want nothing", err)
	}
	if policy.Version != "2012-10-17" {
		t.Errorf("version = %q, want the current policy language", policy.Version)
	}
	return policy.Statement
}

// called are the API operations in the driver's source, as IAM names them.
func called(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../pkg/hosts/*.go")
	if err != nil {
		t.Fatal(err)
	}
	patterns := map[string]*regexp.Regexp{
		"ec2:":         regexp.MustCompile(`\bec2\.New(\w+)Paginator\(|\ba\.ec2\.([A-Z]\w+)\(`),
		"autoscaling:": regexp.MustCompile(`\bautoscaling\.New(\w+)Paginator\(|\ba\.groups\.([A-Z]\w+)\(`),
		"ssm:":         regexp.MustCompile(`\bssm\.New(\w+)Paginator\(|\ba\.ssm\.([A-Z]\w+)\(`),
		"sts:":         regexp.MustCompile(`\bsts\.New(\w+)Paginator\(|\ba\.sts\.([A-Z]\w+)\(`),
	}
	var out []string
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for prefix, pattern := range patterns {
			for _, m := range pattern.FindAllStringSubmatch(string(src), -1) {
				out = append(out, prefix+m[1]+m[2])
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func TestIAMPolicyAllowsExactlyWhatTheDriverCalls(t *testing.T) {
	// "No permissions are required to perform this operation":
	// https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
	const free = "sts:GetCallerIdentity"
	want := []string{
		"autoscaling:DescribeAutoScalingGroups", "autoscaling:DescribeAutoScalingInstances", "autoscaling:DescribeLifecycleHooks",
		"autoscaling:DescribeScalingActivities", "autoscaling:DescribeWarmPool", "autoscaling:SetDesiredCapacity", "autoscaling:SetInstanceProtection",
		"autoscaling:TerminateInstanceInAutoScalingGroup",
		"ec2:DescribeInstanceImageMetadata", "ec2:DescribeInstances", "ec2:DescribeRouteTables", "ec2:DescribeSubnets", "ec2:DescribeVolumes",
		"ec2:TerminateInstances", "ssm:GetParameters",
	}
	if got := called(t); !slices.Equal(got, append(slices.Clone(want), free)) {
		t.Errorf("pkg/hosts calls %q, want %q and %s", got, want, free)
	}
	var got []string
	for _, s := range iamPolicy(t) {
		if s.Effect != "Allow" {
			t.Errorf("%s: effect %q", s.Sid, s.Effect)
		}
		got = append(got, s.Action...)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("iam-policy.json allows %q, want %q", got, want)
	}
}

// TestIAMPolicyEndsOnlyHostsOfThePool compares the policy with the example
// configuration: what may be ended is what is vetted.
func TestIAMPolicyEndsOnlyHostsOfThePool(t *testing.T) {
	var example struct {
		Hosts struct {
			Region           string
			Accounts, Groups []string
			Tags             []struct{ Key, Value string }
		}
	}
	b, err := os.ReadFile("runnerward.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(b, &example); err != nil {
		t.Fatal(err)
	}
	h := example.Hosts
	where := h.Region + ":" + h.Accounts[0] + ":"
	for _, s := range iamPolicy(t) {
		condition := s.Condition["StringEquals"]
		switch s.Action[0] {
		case "autoscaling:SetInstanceProtection", "autoscaling:SetDesiredCapacity":
			if want := "arn:aws:autoscaling:" + where + "autoScalingGroup:*:autoScalingGroupName/" + h.Groups[0]; s.Resource != want {
				t.Errorf("%s: resource %s, want %s", s.Sid, s.Resource, want)
			}
		case "ssm:GetParameters":
			// AWS's public parameters belong to no account.
			if want := "arn:aws:ssm:" + h.Region + "::parameter/aws/service/bottlerocket/*"; s.Resource != want {
				t.Errorf("%s: resource %s, want %s", s.Sid, s.Resource, want)
			}
		case "ec2:TerminateInstances":
			if want := "arn:aws:ec2:" + where + "instance/*"; s.Resource != want {
				t.Errorf("%s: resource %s, want %s", s.Sid, s.Resource, want)
			}
			for _, tag := range h.Tags {
				if got := condition["aws:ResourceTag/"+tag.Key]; got != tag.Value {
					t.Errorf("%s: tag %s is %q, want %q as in hosts.tags", s.Sid, tag.Key, got, tag.Value)
				}
			}
			if group := condition["aws:ResourceTag/eks:nodegroup-name"]; group == "" || !strings.HasPrefix(h.Groups[0], "eks-"+group+"-") {
				t.Errorf("%s: node group %q is not that of %s", s.Sid, group, h.Groups[0])
			}
		default:
			if got := condition["aws:RequestedRegion"]; got != h.Region {
				t.Errorf("%s: region %q, want %q", s.Sid, got, h.Region)
			}
			for _, a := range s.Action {
				if _, verb, _ := strings.Cut(a, ":"); !strings.HasPrefix(verb, "Describe") {
					t.Errorf("%s: %s is allowed for every resource", s.Sid, a)
				}
			}
		}
	}
}
