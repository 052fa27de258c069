package configs_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// calls are the API operations that the package's source calls on a client.
func calls(t *testing.T, dir, client string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	pattern := regexp.MustCompile(regexp.QuoteMeta(client) + `\.([A-Z]\w+)\(ctx`)
	found := map[string]bool{}
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range pattern.FindAllStringSubmatch(string(src), -1) {
			found[m[1]] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// TestKMSPolicyAllowsWhatTheSignersCallAndNoOtherWayToSign: the conditions are
// in the Allow. In a Deny, conditions on two keys are joined by "and": a call
// that breaks only one of them would pass.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-logic-multiple-context-keys-or-values.html
func TestKMSPolicyAllowsWhatTheSignersCallAndNoOtherWayToSign(t *testing.T) {
	if got := calls(t, "../pkg/kms", "k.client"); !slices.Equal(got, []string{"GetPublicKey", "Sign"}) {
		t.Errorf("pkg/kms calls %q, want GetPublicKey and Sign", got)
	}
	b, err := os.ReadFile("iam-policy-kms.json")
	if err != nil {
		t.Fatal(err)
	}
	var policy struct {
		Statement []struct {
			Sid, Effect      string
			Action, Resource list
			Condition        map[string]map[string]string
		}
	}
	if err := json.Unmarshal(b, &policy); err != nil {
		t.Fatal(err)
	}
	signs := map[string]string{} // key to algorithm and message type
	var seen []string
	for _, s := range policy.Statement {
		if s.Effect != "Allow" {
			t.Errorf("%s: effect %q, want Allow", s.Sid, s.Effect)
		}
		for _, arn := range s.Resource {
			if strings.Contains(arn, "*") {
				t.Errorf("%s: resource %s is not one key", s.Sid, arn)
			}
		}
		switch {
		case slices.Equal(s.Action, list{"kms:GetPublicKey"}):
			seen = s.Resource
		case slices.Equal(s.Action, list{"kms:Sign"}) && len(s.Resource) == 1:
			how := s.Condition["StringEquals"]
			signs[s.Resource[0]] = how["kms:SigningAlgorithm"] + " " + how["kms:MessageType"]
		default:
			t.Errorf("%s: %q on %q is more than the signers need", s.Sid, s.Action, s.Resource)
		}
	}
	ways := slices.Sorted(maps.Values(signs))
	if !slices.Equal(ways, []string{"ECDSA_SHA_256 DIGEST", "ED25519_SHA_512 RAW"}) {
		t.Errorf("signing is allowed as %q, want records by digest and checkpoints raw", ways)
	}
	if !slices.Equal(seen, slices.Sorted(maps.Keys(signs))) {
		t.Errorf("public keys are seen of %q, signed with %q", seen, slices.Sorted(maps.Keys(signs)))
	}
}
