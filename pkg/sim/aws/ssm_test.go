package simaws_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"

	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
)

const bottlerocketRoot = "/aws/service/bottlerocket/aws-k8s-1.35-fips/x86_64/"

func publish(s *simaws.Server) {
	s.AddBottlerocket(simaws.Bottlerocket{
		Variant: "aws-k8s-1.35-fips", Arch: "x86_64", Version: "1.56.0", Build: "aaaaaaaa", ImageID: "ami-0aaaaaaaaaaaaaaaa",
	})
	s.AddBottlerocket(simaws.Bottlerocket{
		Variant: "aws-k8s-1.35-fips", Arch: "x86_64", Version: "1.57.0", Build: "bbbbbbbb", ImageID: "ami-0bbbbbbbbbbbbbbbb", Latest: true,
	})
	s.AddParameter("/own/parameter", "mine")
}

func TestPublicParametersOfBottlerocket(t *testing.T) {
	s := newServer()
	publish(s)
	client := ssm.NewFromConfig(clientConfig(s))
	for name, want := range map[string]string{
		bottlerocketRoot + "latest/image_id":                                              "ami-0bbbbbbbbbbbbbbbb",
		bottlerocketRoot + "latest/image_version":                                         "1.57.0-bbbbbbbb",
		bottlerocketRoot + "1.56.0/image_id":                                              "ami-0aaaaaaaaaaaaaaaa",
		bottlerocketRoot + "1.56.0-aaaaaaaa/image_id":                                     "ami-0aaaaaaaaaaaaaaaa",
		bottlerocketRoot + "1.57.0/image_id:1":                                            "ami-0bbbbbbbbbbbbbbbb",
		"arn:aws:ssm:us-east-1::parameter" + bottlerocketRoot + "1.57.0/image_id":         "ami-0bbbbbbbbbbbbbbbb",
		"arn:aws:ssm:us-east-1:" + account + ":parameter" + bottlerocketRoot + "1.57.0/x": "",
		bottlerocketRoot + "1.55.0/image_id":                                              "",
		"/aws/service/bottlerocket/aws-k8s-1.35/x86_64/latest/image_id":                   "",
		"/own/parameter": "mine",
	} {
		out, err := client.GetParameter(t.Context(), &ssm.GetParameterInput{Name: &name})
		if want == "" {
			if _, ok := errors.AsType[*types.ParameterNotFound](err); !ok {
				t.Errorf("GetParameter(%s) = %v, want ParameterNotFound", name, err)
			}
			continue
		}
		if err != nil || *out.Parameter.Value != want || out.Parameter.Type != types.ParameterTypeString || out.Parameter.LastModifiedDate == nil {
			t.Errorf("GetParameter(%s) = %+v, %v, want %s", name, out, err, want)
			continue
		}
		account := strings.Split(*out.Parameter.ARN, ":")[4]
		if own := strings.HasPrefix(name, "/own/"); own != (account != "") {
			t.Errorf("ARN = %s, want an account only for our own", *out.Parameter.ARN)
		}
	}
	_, err := client.GetParameter(t.Context(), &ssm.GetParameterInput{Name: aws.String("/own/parameter:2")})
	if _, ok := errors.AsType[*types.ParameterVersionNotFound](err); !ok {
		t.Errorf("GetParameter of version 2 = %v, want ParameterVersionNotFound", err)
	}
}

func TestGetParametersListsTheInvalidOnes(t *testing.T) {
	s := newServer()
	publish(s)
	client := ssm.NewFromConfig(clientConfig(s))
	out, err := client.GetParameters(t.Context(), &ssm.GetParametersInput{Names: []string{
		bottlerocketRoot + "1.56.0/image_id", "/none", bottlerocketRoot + "latest/image_id", "/none",
	}})
	if err != nil || len(out.Parameters) != 2 || !slices.Equal(out.InvalidParameters, []string{"/none"}) {
		t.Errorf("GetParameters = %+v, %v, want two and one invalid", out, err)
	}
	ten := slices.Repeat([]string{"/own/parameter"}, 10)
	if _, err := client.GetParameters(t.Context(), &ssm.GetParametersInput{Names: ten}); err != nil {
		t.Errorf("GetParameters of ten = %v", err)
	}
	for _, names := range [][]string{append(ten, "/own/parameter"), {}} {
		if _, err := client.GetParameters(t.Context(), &ssm.GetParametersInput{Names: names}); errorCode(err) != "ValidationException" {
			t.Errorf("GetParameters of %d = %v, want ValidationException", len(names), err)
		}
	}
	if _, err := client.DescribeParameters(t.Context(), &ssm.DescribeParametersInput{}); errorCode(err) != "UnknownOperationException" {
		t.Errorf("DescribeParameters = %v, want UnknownOperationException", err)
	}
}

func TestFaultsOfSSM(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		publish(s)
		client := ssm.NewFromConfig(clientConfig(s))
		get := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
			defer cancel()
			_, err := client.GetParameter(ctx, &ssm.GetParameterInput{Name: aws.String("/own/parameter")})
			return err
		}
		faultsAreTold(t, s, "GetParameter", map[simaws.FaultKind]string{
			simaws.Throttle: "ThrottlingException", simaws.Unavailable: "InternalServerError",
			simaws.Unauthorized: "AccessDeniedException", simaws.Stale: "ParameterNotFound",
		}, get)
		hangs(t, s, "GetParameter", get)
	})
}
