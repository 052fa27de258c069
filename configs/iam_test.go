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

// list is one action or resource or several, as IAM writes both.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html
type list []string

func (l *list) UnmarshalJSON(b []byte) error {
	var one string
	if err := json.Unmarshal(b, &one); err == nil {
		*l = list{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(l))
}

type statement struct {
	Sid, Effect, Principal string
	Action, Resource       list
	Condition              map[string]map[string]string
}

func (s statement) ofS3() bool { return strings.HasPrefix(s.Action[0], "s3:") }

func iamPolicy(t *testing.T, file string) []statement {
	t.Helper()
	b, err := os.ReadFile(file)
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
		t.Fatalf("%s: %v", file, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		t.Fatalf("%s: after the policy: %v, want nothing", file, err)
	}
	if policy.Version != "2012-10-17" {
		t.Errorf("version = %q, want the current policy language", policy.Version)
	}
	return policy.Statement
}

// called are the API operations in the drivers' source, by service.
func called(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for service, in := range map[string]struct{ files, pattern string }{
		"ec2":         {"../pkg/hosts/*.go", `\bec2\.New(\w+)Paginator\(|\bm\.ec2\.([A-Z]\w+)\(`},
		"autoscaling": {"../pkg/hosts/*.go", `\bautoscaling\.New(\w+)Paginator\(|\ba\.groups\.([A-Z]\w+)\(`},
		"eks":         {"../pkg/hosts/*.go", `\beks\.New(\w+)Paginator\(|\bclient\.(Describe[A-Z]\w+)\(`},
		"ssm":         {"../pkg/hosts/*.go", `\bssm\.New(\w+)Paginator\(|\bm\.ssm\.([A-Z]\w+)\(`},
		"sts":         {"../pkg/hosts/*.go", `\bsts\.New(\w+)Paginator\(|\bm\.sts\.([A-Z]\w+)\(`},
		"s3":          {"../pkg/ledger/s3store/*.go", `\bs3\.New(\w+)Paginator\(|\bs\.client\.([A-Z]\w+)\(`},
	} {
		files, err := filepath.Glob(in.files)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(in.pattern).FindAllStringSubmatch(string(src), -1) {
				out[service] = append(out[service], m[1]+m[2])
			}
		}
		slices.Sort(out[service])
		out[service] = slices.Compact(out[service])
	}
	return out
}

// s3Actions are the actions that a call of S3 needs, where they are called
// otherwise: a version is read under a right of its own, and lock headers need
// the right to lock.
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
var s3Actions = map[string][]string{
	"GetObject":                  {"GetObject", "GetObjectVersion"},
	"GetObjectLockConfiguration": {"GetBucketObjectLockConfiguration"},
	"ListObjectVersions":         {"ListBucketVersions"},
	"ListObjectsV2":              {"ListBucket"},
	"PutObject":                  {"PutObject", "PutObjectRetention"},
}

func TestIAMPolicyAllowsExactlyWhatTheDriversCall(t *testing.T) {
	var want []string
	for service, calls := range called(t) {
		for _, call := range calls {
			needs := []string{call}
			if more, ok := s3Actions[call]; ok && service == "s3" {
				needs = more
			}
			for _, action := range needs {
				want = append(want, service+":"+action)
			}
		}
	}
	slices.Sort(want)
	// "No permissions are required to perform this operation":
	// https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
	want = slices.DeleteFunc(slices.Compact(want), func(a string) bool { return a == "sts:GetCallerIdentity" })
	if len(want) != 26 {
		t.Errorf("the drivers call for %d actions: %q", len(want), want)
	}
	var got []string
	for _, s := range iamPolicy(t, "iam-policy.json") {
		if s.Effect == "Allow" {
			got = append(got, s.Action...)
		}
	}
	slices.Sort(got)
	if got = slices.Compact(got); !slices.Equal(got, want) {
		t.Errorf("iam-policy.json allows %q, want %q", got, want)
	}
}

const (
	evidenceBucket = "arn:aws:s3:::hipaa-app-runner-evidence"
	lockDays       = "s3:object-lock-remaining-retention-days"
)

// TestIAMPolicyWritesRecordsOnceAndLocked: whoever has the daemon's role and
// not its code can add records, and cannot overwrite, unlock or remove one.
func TestIAMPolicyWritesRecordsOnceAndLocked(t *testing.T) {
	denied := false
	for _, s := range iamPolicy(t, "iam-policy.json") {
		switch {
		case !s.ofS3():
			continue
		case s.Effect == "Deny":
			denied = denied || slices.Contains(s.Action, "s3:DeleteObject") && slices.Contains(s.Action, "s3:DeleteObjectVersion") &&
				slices.Equal(s.Resource, list{evidenceBucket, evidenceBucket + "/*"}) && s.Condition == nil
			continue
		case s.Condition["StringEquals"]["aws:ResourceAccount"] == "":
			t.Errorf("%s: no account of the bucket, which somebody else could take", s.Sid)
		case s.Action[0] == "s3:ListBucket" && len(s.Condition) != 1:
			// Without the right to list the whole bucket, S3 answers 403 and not
			// 404 about an object that is not there, such as the view of a new log.
			// https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html
			t.Errorf("%s: lists under more conditions than the account", s.Sid)
		}
		writes := slices.ContainsFunc(s.Action, func(a string) bool { return strings.HasPrefix(a, "s3:Put") || strings.HasPrefix(a, "s3:Delete") })
		if !writes || !strings.HasPrefix(s.Resource[0], evidenceBucket) {
			continue
		}
		if s.Condition["StringEquals"]["s3:object-lock-mode"] != "COMPLIANCE" || s.Condition["NumericGreaterThanEquals"][lockDays] != "2192" {
			t.Errorf("%s: writes without a lock in COMPLIANCE mode for six years", s.Sid)
		}
		if slices.Contains(s.Action, "s3:PutObject") && s.Condition["Null"]["s3:if-none-match"] != "false" {
			t.Errorf("%s: writes over what is there", s.Sid)
		}
		if slices.Contains(s.Action, "s3:DeleteObject") {
			t.Errorf("%s: deletes records", s.Sid)
		}
	}
	if !denied {
		t.Error("nothing denies the removal of records")
	}
}

// TestBucketPolicyDeniesWhateverWeakensARecord. Two keys under one operator of
// a Deny must both match, so every rule is a statement of its own.
func TestBucketPolicyDeniesWhateverWeakensARecord(t *testing.T) {
	rules := map[string]bool{}
	for _, s := range iamPolicy(t, "evidence-bucket-policy.json") {
		if s.Effect != "Deny" || s.Principal != "*" || len(s.Condition) > 1 {
			t.Errorf("%s: %s of %s under %v, want to deny everybody, under one condition", s.Sid, s.Effect, s.Principal, s.Condition)
		}
		for _, r := range s.Resource {
			if !strings.HasPrefix(r, evidenceBucket) {
				t.Errorf("%s: resource %s is of another bucket", s.Sid, r)
			}
		}
		condition := ""
		for operator, keys := range s.Condition {
			if len(keys) != 1 {
				t.Errorf("%s: %v, want one key", s.Sid, keys)
			}
			for key, value := range keys {
				condition = " if " + operator + " " + key + " " + value
			}
		}
		for _, a := range s.Action {
			rules[a+condition] = true
		}
	}
	for _, want := range []string{
		"s3:* if Bool aws:SecureTransport false", "s3:* if NumericLessThan s3:TlsVersion 1.2",
		"s3:DeleteObject", "s3:DeleteObjectVersion", "s3:BypassGovernanceRetention", "s3:PutLifecycleConfiguration",
		"s3:PutObject if Null s3:if-none-match true", "s3:PutObject if StringNotEquals s3:object-lock-mode COMPLIANCE",
		"s3:PutObjectRetention if StringNotEquals s3:object-lock-mode COMPLIANCE", "s3:PutObject if NumericLessThan " + lockDays + " 2192",
	} {
		if !rules[want] {
			t.Errorf("evidence-bucket-policy.json does not deny %s", want)
		}
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
	for _, s := range iamPolicy(t, "iam-policy.json") {
		if s.ofS3() {
			continue
		}
		condition := s.Condition["StringEquals"]
		switch s.Action[0] {
		case "autoscaling:SetInstanceProtection", "autoscaling:SetDesiredCapacity":
			if want := "arn:aws:autoscaling:" + where + "autoScalingGroup:*:autoScalingGroupName/" + h.Groups[0]; s.Resource[0] != want {
				t.Errorf("%s: resource %s, want %s", s.Sid, s.Resource, want)
			}
		case "eks:DescribeNodegroup":
			// https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonelastickubernetesservice.html
			if want := "arn:aws:eks:" + where + "nodegroup/"; !strings.HasPrefix(s.Resource[0], want) {
				t.Errorf("%s: resource %s, want one of %s", s.Sid, s.Resource, want)
			}
		case "ssm:GetParameters":
			// AWS's public parameters belong to no account.
			if want := "arn:aws:ssm:" + h.Region + "::parameter/aws/service/bottlerocket/*"; s.Resource[0] != want {
				t.Errorf("%s: resource %s, want %s", s.Sid, s.Resource, want)
			}
		case "ec2:TerminateInstances":
			if want := "arn:aws:ec2:" + where + "instance/*"; s.Resource[0] != want {
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
