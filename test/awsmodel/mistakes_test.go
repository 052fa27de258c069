package awsmodel

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// mistakesAreFound makes deliberate mistakes in copies of good answers. Each
// has to be found, and nothing else.
func mistakesAreFound(t *testing.T, described map[string]model) {
	for _, tt := range []struct {
		operation string // the first drive of it
		from, to  string // in the answer
		want      string // the problem
	}{
		{"DescribeInstances", "<privateIpAddress>10.0.0.10</privateIpAddress>", "<privateIP>10.0.0.10</privateIP>", "instancesSet[].privateIP: unknown"},
		{"DescribeInstances", "<name>running</name>", "<name>walking</name>", `"walking" is none of [`},
		{"DescribeInstances", "<launchTime>20", "<launchTime>Wed 20", "is not a timestamp"},
		{"DescribeInstances", "<amiLaunchIndex>0<", "<amiLaunchIndex>first<", "is not a integer"},
		{"DescribeInstances", "<reservationSet><item>", "<reservationSet><member></member><item>", "member in a list of item"},
		{"DescribeInstances", "<requestId>", "<requestId>x", "requestId is not that of the header"},
		{"DescribeAutoScalingGroups", "<MinSize>1</MinSize>", "", "MinSize: required but missing"},
		{"DescribeAutoScalingGroups", "<MinSize>1</MinSize>", "<MinSize>1</MinSize><MinSize>1</MinSize>", "MinSize: twice"},
		{"DescribeAutoScalingGroups", "DescribeAutoScalingGroupsResult>", "Result>", "no DescribeAutoScalingGroupsResult"},
		{"GetRole", "http", "ftp", "answered by GetRoleResponse of"},
		{"Sign", `"Signature":"`, `"Signature":"%`, "is not a blob"},
		{"DescribeKey", `"KeyState":"Enabled"`, `"KeyState":"Fine"`, `"Fine" is none of [`},
		{"DescribeKey", `"Enabled":true`, `"Enabled":"true"`, "DescribeKey.KeyMetadata.Enabled: true is not a boolean"},
		{"DescribeKey", `"KeyId":`, `"KeyID":`, "DescribeKey.KeyMetadata.KeyId: required but missing"},
		{"DescribeNodegroup", `"createdAt":`, `"createdAt":"2026-01-01T00:00:00Z","x":`, "nodegroup.createdAt: 2026-01-01T00:00:00Z is not a timestamp"},
		{"DescribeNodegroup", `"effect":"NO_EXECUTE"`, `"effect":"NoExecute"`, `"NoExecute" is none of [`},
	} {
		d := drives()[slices.IndexFunc(drives(), func(d drive) bool { return d.operation == tt.operation })]
		w := newWorld(t)
		if err := d.call(t.Context(), w); err != nil {
			t.Fatal(err)
		}
		w.last.operation = d.operation
		whole, times := w.last.body, 1
		if strings.HasSuffix(tt.from, "Result>") {
			times = 2 // the start and the end of an element
		}
		w.last.body = bytes.Replace(whole, []byte(tt.from), []byte(tt.to), times)
		if bytes.Equal(w.last.body, whole) {
			t.Fatalf("no %q in %s", tt.from, whole)
		}
		problems := described[d.service].check(w.last)
		if !slices.ContainsFunc(problems, func(p string) bool { return strings.Contains(p, tt.want) }) || len(problems) > 2 {
			t.Errorf("%s with %q for %q: problems %q, want %q\n%s", tt.operation, tt.to, tt.from, problems, tt.want, whole)
		}
	}
	for _, tt := range []struct {
		service, operation, code, want string
		status                         int
	}{
		{"sts", "AssumeRoleWithWebIdentity", "NoSuchBucket", "neither modelled nor common", 400},
		{"sts", "AssumeRoleWithWebIdentity", "InvalidIdentityTokenException", "goes by InvalidIdentityToken on the wire", 400},
		{"iam", "GetRole", "NoSuchEntity", "with status 400, want 404", 400},
	} {
		body := "<ErrorResponse><Error><Type>Sender</Type><Code>" + tt.code + "</Code><Message>m</Message></Error><RequestId>r</RequestId></ErrorResponse>"
		header := http.Header{"X-Amzn-Requestid": {"r"}}
		problems := described[tt.service].check(answer{tt.operation, tt.status, header, []byte(body)})
		if len(problems) != 1 || !strings.Contains(problems[0], tt.want) {
			t.Errorf("error %s of %s: problems %q, want %q", tt.code, tt.operation, problems, tt.want)
		}
	}
}
