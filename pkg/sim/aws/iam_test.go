package simaws_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
)

func TestTheTrustPolicyOfARoleIsURLEncoded(t *testing.T) {
	s, c := newServer(), newCluster(t)
	arn := trusting(s, c)
	s.AddRole(simaws.Role{Name: "pods", Pods: true, MaxSession: 6 * time.Hour})
	client := iam.NewFromConfig(clientConfig(s))
	out, err := client.GetRole(t.Context(), &iam.GetRoleInput{RoleName: aws.String(roleName)})
	if err != nil || *out.Role.Arn != arn || *out.Role.MaxSessionDuration != 3600 || *out.Role.Path != "/" || out.Role.CreateDate == nil {
		t.Fatalf("GetRole = %+v, %v", out, err)
	}
	var policy struct {
		Statement []struct {
			Principal struct{ Federated, Service string }
			Condition map[string]map[string]string
		}
	}
	read := func(encoded string) {
		t.Helper()
		text, err := url.PathUnescape(encoded)
		if err != nil || encoded == text || json.Unmarshal([]byte(text), &policy) != nil {
			t.Fatalf("policy %q = %v, want a URL-encoded document", encoded, err)
		}
	}
	read(*out.Role.AssumeRolePolicyDocument)
	host := issuerURL[len("https://"):]
	if got := policy.Statement[0]; got.Principal.Federated != "arn:aws:iam::"+account+":oidc-provider/"+host ||
		got.Condition["StringEquals"][host+":aud"] != "sts.amazonaws.com" ||
		got.Condition["StringLike"][host+":sub"] != "system:serviceaccount:gha-*:runnerward" {
		t.Errorf("trust = %+v, want the issuer, audience and subject", got)
	}
	pods, err := client.GetRole(t.Context(), &iam.GetRoleInput{RoleName: aws.String("pods")})
	if err != nil {
		t.Fatal(err)
	}
	read(*pods.Role.AssumeRolePolicyDocument)
	if policy.Statement[0].Principal.Service != "pods.eks.amazonaws.com" || *pods.Role.MaxSessionDuration != 6*3600 {
		t.Errorf("trust = %+v for %d s, want the service of Pod Identity", policy, *pods.Role.MaxSessionDuration)
	}
}

func TestTheSDKSeesRefusalsAndFaultsOfIAM(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.AddRole(simaws.Role{Name: roleName})
		client := iam.NewFromConfig(clientConfig(s))
		get := func(name string) error {
			ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
			defer cancel()
			_, err := client.GetRole(ctx, &iam.GetRoleInput{RoleName: &name})
			return err
		}
		if _, typed := errors.AsType[*types.NoSuchEntityException](get("none")); !typed {
			t.Errorf("GetRole of none = %v, want NoSuchEntity", get("none"))
		}
		if err := get("a/b"); errorCode(err) != "ValidationError" {
			t.Errorf("GetRole of a bad name = %v, want ValidationError", err)
		}
		if _, err := client.ListRoles(t.Context(), &iam.ListRolesInput{}); errorCode(err) != "InvalidAction" {
			t.Errorf("ListRoles = %v, want InvalidAction", err)
		}
		mine := func() error { return get(roleName) }
		faultsAreTold(t, s, "GetRole", map[simaws.FaultKind]string{
			simaws.Throttle: "Throttling", simaws.Unavailable: "ServiceUnavailable",
			simaws.Unauthorized: "AccessDenied", simaws.Stale: "NoSuchEntity",
		}, mine)
		hangs(t, s, "GetRole", mine)
	})
}
