package awslive

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestSettingsAreChecked(t *testing.T) {
	example, err := os.ReadFile(examplePath)
	if err != nil {
		t.Fatal(err)
	}
	for old, tc := range map[string]struct{ becomes, says string }{
		"region: us-east-1\n":                           {"", "region is missing"},
		`account: "111122223333"`:                       {`account: "1111"`, "12 digits"},
		"  prefix: live":                                {"  prefix: live/", "s3.prefix"},
		"viewBucket: runnerward-sandbox-view":           {"viewBucket: runnerward-sandbox-evidence", "another bucket"},
		"recordKey: arn:aws:kms:us-east-1:111122223333": {"recordKey: arn:aws:kms:us-east-1:444455556666", "kms.recordKey"},
		"    Purpose: runnerward-live-test\n":           {"", "hosts.tags"},
		`endInstance: ""`:                               {`endInstance: any`, "hosts.endInstance"},
		"allowProduction: false":                        {"allowproduction: true", "allowproduction"},
	} {
		path := filepath.Join(t.TempDir(), "settings.yaml")
		changed := strings.Replace(string(example), old, tc.becomes, 1)
		if err := os.WriteFile(path, []byte(changed), 0o600); err != nil || changed == string(example) {
			t.Fatalf("%q is not in the example: %v", old, err)
		}
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("without %q: Load() = %v, want %q", old, err, tc.says)
		}
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), EnvSettings) {
		t.Errorf("Load() of no file = %v", err)
	}
}

// TestDocumentsNameTheRows: the rows are those of docs/unverified.md, and the
// page about the suite explains each.
func TestDocumentsNameTheRows(t *testing.T) {
	rows, err := os.ReadFile("../../docs/unverified.md")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/aws-live.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range Rows {
		if strings.Count(string(rows), "\n| "+row) != 1 {
			t.Errorf("docs/unverified.md has not exactly one row %q", row)
		}
		if !strings.Contains(string(page), row) {
			t.Errorf("docs/aws-live.md does not explain %q", row)
		}
	}
	for _, want := range []string{EnvSettings, EnvChange, Phrase, "make test-aws-live", "configs/iam-policy-live.json", "configs/aws-live.example.yaml"} {
		if !strings.Contains(string(page), want) {
			t.Errorf("docs/aws-live.md does not name %s", want)
		}
	}
}

// TestNeverInCI: only an owner runs the suite.
func TestNeverInCI(t *testing.T) {
	ci, err := os.ReadFile("../../.ci/run")
	if err != nil {
		t.Fatal(err)
	}
	if regexp.MustCompile(`aws-live|RUNNERWARD_AWS_LIVE`).Match(ci) {
		t.Error(".ci/run runs the suite")
	}
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`(?m)^test-aws-live:.*##.*\n\tgo test -count=1 -v .*\./test/awslive -run Live$`).Match(makefile) {
		t.Error("make test-aws-live does not run the suite")
	}
}

// TestThePolicyIsThatOfTheExample: what it allows to change is named in the
// example settings, and nothing more.
func TestThePolicyIsThatOfTheExample(t *testing.T) {
	s, err := Load(examplePath)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("../../configs/iam-policy-live.json")
	if err != nil {
		t.Fatal(err)
	}
	var policy struct{ Statement []statement }
	if err := json.Unmarshal(b, &policy); err != nil {
		t.Fatal(err)
	}
	belongs := []string{
		"autoScalingGroupName/" + s.Hosts.Group, ":instance/*", "::parameter/aws/service/bottlerocket/*",
		":::" + s.S3.Bucket, ":::" + s.S3.Bucket + "/" + s.S3.Prefix + "/*", ":::" + s.S3.ViewBucket, ":::" + s.S3.ViewBucket + "/" + s.S3.Prefix + "/*",
		s.KMS.RecordKey, s.KMS.CheckpointKey,
	}
	for _, st := range policy.Statement {
		for _, a := range st.Action {
			_, verb, _ := strings.Cut(a, ":")
			if st.Resource[0] == "*" && (!strings.HasPrefix(verb, "Describe") || st.Condition["StringEquals"]["aws:RequestedRegion"] != s.Region) {
				t.Errorf("%s: %s is allowed everywhere", st.Sid, a)
			}
			if strings.Contains(a, "*") {
				t.Errorf("%s: %s is more than one action", st.Sid, a)
			}
		}
		for _, r := range st.Resource {
			if r != "*" && !slices.ContainsFunc(belongs, func(end string) bool { return strings.HasSuffix(r, end) }) {
				t.Errorf("%s: %s is not of the example's sandbox", st.Sid, r)
			}
		}
		if st.Action[0] == "ec2:TerminateInstances" && st.Condition["StringEquals"]["aws:ResourceTag/Purpose"] != s.Hosts.Tags["Purpose"] {
			t.Errorf("%s: ends hosts without the tag of hosts.tags", st.Sid)
		}
	}
}
