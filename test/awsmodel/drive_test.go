package awsmodel

import (
	"bytes"
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/eks"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	kmstypes "github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
)

// drive is one call of the real SDK. Every action that the simulator serves
// needs at least one that succeeds.
type drive struct {
	service, operation string
	name               string
	call               func(context.Context, *world) error
	code               string // of the error that is wanted, empty for success
}

func drives() []drive {
	var out []drive
	for _, d := range [][]drive{ec2Drives(), autoScalingDrives(), stsDrives(), iamDrives(), kmsDrives(), ssmDrives(), eksDrives()} {
		out = append(out, d...)
	}
	return out
}

func ec2Drives() []drive {
	instances := func(ids ...string) func(context.Context, *world) error {
		return func(ctx context.Context, w *world) error {
			_, err := w.ec2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: ids})
			return err
		}
	}
	terminate := func(ctx context.Context, w *world) error {
		_, err := w.ec2.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{w.instance}})
		return err
	}
	return []drive{
		{"ec2", "DescribeInstances", "all", instances(), ""},
		{"ec2", "DescribeInstances", "a page", func(ctx context.Context, w *world) error {
			_, err := w.ec2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{MaxResults: aws.Int32(5)})
			return err
		}, ""},
		{"ec2", "DescribeInstances", "one that is ending", func(ctx context.Context, w *world) error {
			if err := terminate(ctx, w); err != nil {
				return err
			}
			return instances(w.instance)(ctx, w)
		}, ""},
		{"ec2", "DescribeInstances", "none", instances("i-0ffffffffffffffff"), "InvalidInstanceID.NotFound"},
		{"ec2", "DescribeInstanceImageMetadata", "all", func(ctx context.Context, w *world) error {
			_, err := w.ec2.DescribeInstanceImageMetadata(ctx, &ec2.DescribeInstanceImageMetadataInput{})
			return err
		}, ""},
		{"ec2", "DescribeVolumes", "all", func(ctx context.Context, w *world) error {
			if _, err := w.sim.AttachVolume(w.instance); err != nil {
				return err
			}
			_, err := w.ec2.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{})
			return err
		}, ""},
		{"ec2", "DescribeVolumes", "none", func(ctx context.Context, w *world) error {
			_, err := w.ec2.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{VolumeIds: []string{"vol-0ffffffffffffffff"}})
			return err
		}, "InvalidVolume.NotFound"},
		{"ec2", "DescribeSubnets", "all", func(ctx context.Context, w *world) error {
			_, err := w.ec2.DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{})
			return err
		}, ""},
		{"ec2", "DescribeSubnets", "none", func(ctx context.Context, w *world) error {
			_, err := w.ec2.DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{SubnetIds: []string{"subnet-0ffffffffffffffff"}})
			return err
		}, "InvalidSubnetID.NotFound"},
		{"ec2", "DescribeRouteTables", "main and own", func(ctx context.Context, w *world) error {
			w.sim.SetRoutes("subnet-0aaaaaaaaaaaaaaaa", simaws.Route{Destination: "0.0.0.0/0", Gateway: "igw-0a1b2c3d4e5f60718"}, simaws.Route{Destination: "::/0", Gateway: "igw-0a1b2c3d4e5f60718"})
			_, err := w.ec2.DescribeRouteTables(ctx, &ec2.DescribeRouteTablesInput{})
			return err
		}, ""},
		{"ec2", "TerminateInstances", "one", terminate, ""},
		{"ec2", "TerminateInstances", "a dry run", func(ctx context.Context, w *world) error {
			_, err := w.ec2.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{w.instance}, DryRun: aws.Bool(true)})
			return err
		}, "DryRunOperation"},
	}
}

func autoScalingDrives() []drive {
	terminate := func(ctx context.Context, w *world) error {
		_, err := w.autoscaling.TerminateInstanceInAutoScalingGroup(ctx, &autoscaling.TerminateInstanceInAutoScalingGroupInput{
			InstanceId: aws.String(w.instance), ShouldDecrementDesiredCapacity: aws.Bool(false),
		})
		return err
	}
	return []drive{
		{"autoscaling", "DescribeAutoScalingGroups", "all", func(ctx context.Context, w *world) error {
			_, err := w.autoscaling.DescribeAutoScalingGroups(ctx, &autoscaling.DescribeAutoScalingGroupsInput{})
			return err
		}, ""},
		{"autoscaling", "DescribeAutoScalingGroups", "with a member that is ending", func(ctx context.Context, w *world) error {
			if err := terminate(ctx, w); err != nil {
				return err
			}
			_, err := w.autoscaling.DescribeAutoScalingGroups(ctx, &autoscaling.DescribeAutoScalingGroupsInput{})
			return err
		}, ""},
		{"autoscaling", "DescribeAutoScalingGroups", "a bad token", func(ctx context.Context, w *world) error {
			_, err := w.autoscaling.DescribeAutoScalingGroups(ctx, &autoscaling.DescribeAutoScalingGroupsInput{NextToken: aws.String("?")})
			return err
		}, "InvalidNextToken"},
		{"autoscaling", "DescribeAutoScalingInstances", "a page", func(ctx context.Context, w *world) error {
			_, err := w.autoscaling.DescribeAutoScalingInstances(ctx, &autoscaling.DescribeAutoScalingInstancesInput{MaxRecords: aws.Int32(2)})
			return err
		}, ""},
		{"autoscaling", "DescribeScalingActivities", "begun and ended", func(ctx context.Context, w *world) error {
			if err := terminate(ctx, w); err != nil {
				return err
			}
			_, err := w.autoscaling.DescribeScalingActivities(ctx, &autoscaling.DescribeScalingActivitiesInput{})
			return err
		}, ""},
		{"autoscaling", "SetInstanceProtection", "one", func(ctx context.Context, w *world) error {
			_, err := w.autoscaling.SetInstanceProtection(ctx, &autoscaling.SetInstanceProtectionInput{
				AutoScalingGroupName: aws.String(group), InstanceIds: []string{w.instance}, ProtectedFromScaleIn: aws.Bool(true),
			})
			return err
		}, ""},
		{"autoscaling", "SetInstanceProtection", "too many", func(ctx context.Context, w *world) error {
			_, err := w.autoscaling.SetInstanceProtection(ctx, &autoscaling.SetInstanceProtectionInput{
				AutoScalingGroupName: aws.String(group), InstanceIds: make([]string, 51), ProtectedFromScaleIn: aws.Bool(true),
			})
			return err
		}, "LimitExceeded"},
		{"autoscaling", "SetDesiredCapacity", "within bounds", func(ctx context.Context, w *world) error {
			_, err := w.autoscaling.SetDesiredCapacity(ctx, &autoscaling.SetDesiredCapacityInput{AutoScalingGroupName: aws.String(group), DesiredCapacity: aws.Int32(7)})
			return err
		}, ""},
		{"autoscaling", "SetDesiredCapacity", "beyond them", func(ctx context.Context, w *world) error {
			_, err := w.autoscaling.SetDesiredCapacity(ctx, &autoscaling.SetDesiredCapacityInput{AutoScalingGroupName: aws.String(group), DesiredCapacity: aws.Int32(99)})
			return err
		}, "ValidationError"},
		{"autoscaling", "DescribeLifecycleHooks", "all", func(ctx context.Context, w *world) error {
			_, err := w.autoscaling.DescribeLifecycleHooks(ctx, &autoscaling.DescribeLifecycleHooksInput{AutoScalingGroupName: aws.String(group)})
			return err
		}, ""},
		{"autoscaling", "DescribeWarmPool", "none", func(ctx context.Context, w *world) error {
			_, err := w.autoscaling.DescribeWarmPool(ctx, &autoscaling.DescribeWarmPoolInput{AutoScalingGroupName: aws.String(group)})
			return err
		}, ""},
		{"autoscaling", "TerminateInstanceInAutoScalingGroup", "one", terminate, ""},
		{"autoscaling", "TerminateInstanceInAutoScalingGroup", "many", func(ctx context.Context, w *world) error {
			_, err := w.autoscaling.TerminateInstanceInAutoScalingGroup(ctx, &autoscaling.TerminateInstanceInAutoScalingGroupInput{
				AutoScalingGroupName: aws.String(group), InstanceIds: []string{w.instance}, ShouldDecrementDesiredCapacity: aws.Bool(true),
			})
			return err
		}, ""},
		{"autoscaling", "TerminateInstanceInAutoScalingGroup", "twice", func(ctx context.Context, w *world) error {
			if err := terminate(ctx, w); err != nil {
				return err
			}
			return terminate(ctx, w)
		}, "ScalingActivityInProgress"},
	}
}

func stsDrives() []drive {
	assume := func(life time.Duration, audienceRole string) func(context.Context, *world) error {
		return func(ctx context.Context, w *world) error {
			token, err := w.token(life)
			if err != nil {
				return err
			}
			_, err = w.sts.AssumeRoleWithWebIdentity(ctx, &sts.AssumeRoleWithWebIdentityInput{
				RoleArn: aws.String(w.roleARN + audienceRole), RoleSessionName: aws.String("pod"), WebIdentityToken: &token,
			})
			return err
		}
	}
	return []drive{
		{"sts", "GetCallerIdentity", "", func(ctx context.Context, w *world) error {
			_, err := w.sts.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
			return err
		}, ""},
		{"sts", "AssumeRoleWithWebIdentity", "", assume(time.Hour, ""), ""},
		{"sts", "AssumeRoleWithWebIdentity", "an old token", assume(-time.Hour, ""), "ExpiredTokenException"},
		{"sts", "AssumeRoleWithWebIdentity", "no such role", assume(time.Hour, "x"), "AccessDenied"},
		{"sts", "AssumeRoleWithWebIdentity", "no token", func(ctx context.Context, w *world) error {
			_, err := w.sts.AssumeRoleWithWebIdentity(ctx, &sts.AssumeRoleWithWebIdentityInput{
				RoleArn: &w.roleARN, RoleSessionName: aws.String("pod"), WebIdentityToken: aws.String("garbage"),
			})
			return err
		}, "InvalidIdentityToken"},
	}
}

func iamDrives() []drive {
	get := func(name string) func(context.Context, *world) error {
		return func(ctx context.Context, w *world) error {
			_, err := w.iam.GetRole(ctx, &iam.GetRoleInput{RoleName: &name})
			return err
		}
	}
	return []drive{
		{"iam", "GetRole", "", get(role), ""},
		{"iam", "GetRole", "none", get("none"), "NoSuchEntity"},
		{"iam", "GetRole", "a bad name", get("/"), "ValidationError"},
	}
}

func kmsDrives() []drive {
	state := func(s simaws.KeyState, then func(context.Context, *world) error) func(context.Context, *world) error {
		return func(ctx context.Context, w *world) error {
			d, err := w.kms.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: aws.String("alias/p256")})
			if err != nil {
				return err
			}
			if err := w.sim.SetKeyState(*d.KeyMetadata.Arn, s); err != nil {
				return err
			}
			return then(ctx, w)
		}
	}
	describe := func(ctx context.Context, w *world) error {
		_, err := w.kms.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: aws.String("alias/p256")})
		return err
	}
	public := func(ctx context.Context, w *world) error {
		_, err := w.kms.GetPublicKey(ctx, &kms.GetPublicKeyInput{KeyId: aws.String("alias/p256")})
		return err
	}
	sign := func(key string, algorithm kmstypes.SigningAlgorithmSpec, size int) func(context.Context, *world) error {
		return func(ctx context.Context, w *world) error {
			_, err := w.kms.Sign(ctx, &kms.SignInput{KeyId: &key, Message: bytes.Repeat([]byte{1}, size), SigningAlgorithm: algorithm})
			return err
		}
	}
	p256 := sign("alias/p256", kmstypes.SigningAlgorithmSpecEcdsaSha256, 9)
	return []drive{
		{"kms", "DescribeKey", "", describe, ""},
		{"kms", "DescribeKey", "pending deletion", state(simaws.KeyPendingDeletion, describe), ""},
		{"kms", "GetPublicKey", "", public, ""},
		{"kms", "GetPublicKey", "disabled", state(simaws.KeyDisabled, public), "DisabledException"},
		{"kms", "Sign", "P-256", p256, ""},
		{"kms", "Sign", "Ed25519", sign("alias/ed25519", kmstypes.SigningAlgorithmSpecEd25519Sha512, 9), ""},
		{"kms", "Sign", "disabled", state(simaws.KeyDisabled, p256), "DisabledException"},
		{"kms", "Sign", "pending deletion", state(simaws.KeyPendingDeletion, p256), "KMSInvalidStateException"},
		{"kms", "Sign", "another algorithm", sign("alias/p256", kmstypes.SigningAlgorithmSpecRsassaPssSha256, 9), "InvalidKeyUsageException"},
		{"kms", "Sign", "too long", sign("alias/p256", kmstypes.SigningAlgorithmSpecEcdsaSha256, 4097), "ValidationException"},
		{"kms", "Sign", "no key", sign("alias/none", kmstypes.SigningAlgorithmSpecEcdsaSha256, 9), "NotFoundException"},
	}
}

func ssmDrives() []drive {
	one := func(name string) func(context.Context, *world) error {
		return func(ctx context.Context, w *world) error {
			_, err := w.ssm.GetParameter(ctx, &ssm.GetParameterInput{Name: &name})
			return err
		}
	}
	many := func(names ...string) func(context.Context, *world) error {
		return func(ctx context.Context, w *world) error {
			_, err := w.ssm.GetParameters(ctx, &ssm.GetParametersInput{Names: names})
			return err
		}
	}
	return []drive{
		{"ssm", "GetParameter", "", one(parameter), ""},
		{"ssm", "GetParameter", "the first version", one(parameter + ":1"), ""},
		{"ssm", "GetParameter", "none", one("/none"), "ParameterNotFound"},
		{"ssm", "GetParameter", "no such version", one(parameter + ":7"), "ParameterVersionNotFound"},
		{"ssm", "GetParameters", "one and none", many(parameter, "/none"), ""},
		{"ssm", "GetParameters", "too many", many(make([]string, 11)...), "ValidationException"},
	}
}

func eksDrives() []drive {
	describe := func(cluster, name string) func(context.Context, *world) error {
		return func(ctx context.Context, w *world) error {
			_, err := w.eks.DescribeNodegroup(ctx, &eks.DescribeNodegroupInput{ClusterName: &cluster, NodegroupName: &name})
			return err
		}
	}
	return []drive{
		{"eks", "DescribeNodegroup", "", describe("prod", "pool"), ""},
		{"eks", "DescribeNodegroup", "without its group", describe("prod", "lost"), ""},
		{"eks", "DescribeNodegroup", "no cluster", describe("none", "pool"), "ResourceNotFoundException"},
		{"eks", "DescribeNodegroup", "none", describe("prod", "none"), "ResourceNotFoundException"},
	}
}
