package hosts

import (
	"context"
	"fmt"
	"regexp"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	astypes "github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/runner"
)

// EC2's names of the two states that an instance does not come back from.
const (
	stateShuttingDown = "shutting-down"
	stateTerminated   = "terminated"
)

// Describe says what EC2 and Auto Scaling know of these instances. What EC2
// does not list is missing. Image, group, subnet and the images of public
// parameters serve only to vet a host: if they cannot be learned they stay
// empty, which is unknown, and the rest is still said, so that the end of a host
// can be observed whatever else fails.
//
// The id filter is used and not the id parameter, because with the parameter
// one id that aged out fails the call for all (InvalidInstanceID.NotFound):
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstances.html
func (a *AutoScaling) Describe(ctx context.Context, ids []string) (map[string]runner.Instance, error) {
	return a.describe(ctx, ids, facts{"groups", a.addGroups})
}

// facts are what is learned of instances that live.
type facts struct {
	what string
	add  func(context.Context, []string, map[string]runner.Instance) error
}

// describe says what EC2 knows, and of those that live what the pool that they
// are of adds to it.
func (m *machines) describe(ctx context.Context, ids []string, ofPool facts) (map[string]runner.Instance, error) {
	if err := wellFormed(instanceID, ids); err != nil {
		return nil, fmt.Errorf("describe instances: %w", err)
	}
	out := map[string]runner.Instance{}
	for chunk := range slices.Chunk(ids, filterChunk) {
		if err := m.describeChunk(ctx, chunk, out); err != nil {
			return nil, fmt.Errorf("describe instances: %w", err)
		}
	}
	alive := slices.DeleteFunc(slices.Clone(ids), func(id string) bool {
		in, listed := out[id]
		return !listed || ending(in.State)
	})
	for _, fact := range []facts{{"images", m.addImages}, ofPool, {"subnets", m.addSubnets}, {"public parameters", m.addParameters}} {
		if err := fact.add(ctx, alive, out); err != nil {
			m.logger.Warn("facts of instances unknown", zap.String("facts", fact.what), zap.Error(err))
		}
	}
	return out, nil
}

func ending(state string) bool { return state == stateShuttingDown || state == stateTerminated }

func wellFormed(shape *regexp.Regexp, ids []string) error {
	for _, id := range ids {
		if !shape.MatchString(id) {
			return fmt.Errorf("%.40q is not an id", id)
		}
	}
	return nil
}

func byID(filter string, ids []string) []types.Filter {
	return []types.Filter{{Name: aws.String(filter), Values: ids}}
}

func (m *machines) describeChunk(ctx context.Context, ids []string, into map[string]runner.Instance) error {
	pages := ec2.NewDescribeInstancesPaginator(m.ec2, &ec2.DescribeInstancesInput{Filters: byID("instance-id", ids)})
	for pages.HasMorePages() {
		page, err := nextPage(ctx, m, pages.NextPage)
		if err != nil {
			return err
		}
		for _, r := range page.Reservations {
			for _, in := range r.Instances {
				into[aws.ToString(in.InstanceId)] = m.instanceOf(aws.ToString(r.OwnerId), in)
			}
		}
	}
	return nil
}

// nextPage fetches one page under a deadline of its own.
func nextPage[Page, Option any](ctx context.Context, m *machines, next func(context.Context, ...Option) (Page, error)) (Page, error) {
	ctx, cancel := m.call(ctx)
	defer cancel()
	page, err := next(ctx)
	return page, because(ctx, err)
}

func (m *machines) addImages(ctx context.Context, ids []string, into map[string]runner.Instance) error {
	for chunk := range slices.Chunk(ids, filterChunk) {
		pages := ec2.NewDescribeInstanceImageMetadataPaginator(m.ec2,
			&ec2.DescribeInstanceImageMetadataInput{Filters: byID("instance-id", chunk)})
		for pages.HasMorePages() {
			page, err := nextPage(ctx, m, pages.NextPage)
			if err != nil {
				return fmt.Errorf("describe image metadata: %w", err)
			}
			for _, m := range page.InstanceImageMetadata {
				addImage(m, into)
			}
		}
	}
	return nil
}

// addImage takes the image's name and owner, if it is the image that the
// instance runs.
func addImage(m types.InstanceImageMetadata, into map[string]runner.Instance) {
	in, ok := into[aws.ToString(m.InstanceId)]
	if !ok || m.ImageMetadata == nil || aws.ToString(m.ImageMetadata.ImageId) != in.ImageID {
		return
	}
	in.ImageName = aws.ToString(m.ImageMetadata.Name)
	in.ImageOwner = aws.ToString(m.ImageMetadata.OwnerId)
	in.ImageOwnerAlias = aws.ToString(m.ImageMetadata.ImageOwnerAlias)
	into[in.ID] = in
}

// addGroups sets the group of which Auto Scaling says that the instance is a
// member. The tag that Auto Scaling writes must not name another one.
func (a *AutoScaling) addGroups(ctx context.Context, ids []string, into map[string]runner.Instance) error {
	for chunk := range slices.Chunk(ids, memberChunk) {
		members, err := a.members(ctx, chunk)
		if err != nil {
			return err
		}
		for _, m := range members {
			in, ok := into[aws.ToString(m.InstanceId)]
			group := aws.ToString(m.AutoScalingGroupName)
			if tag, tagged := in.Tags[tagGroup]; !ok || tagged && tag != group {
				continue
			}
			in.Group, in.Lifecycle = group, aws.ToString(m.LifecycleState)
			into[in.ID] = in
		}
	}
	return nil
}

// members asks Auto Scaling about instances; one that is in no group is left
// out without an error.
func (a *AutoScaling) members(ctx context.Context, ids []string) ([]astypes.AutoScalingInstanceDetails, error) {
	var out []astypes.AutoScalingInstanceDetails
	pages := autoscaling.NewDescribeAutoScalingInstancesPaginator(a.groups,
		&autoscaling.DescribeAutoScalingInstancesInput{InstanceIds: ids})
	for pages.HasMorePages() {
		page, err := nextPage(ctx, &a.machines, pages.NextPage)
		if err != nil {
			return nil, fmt.Errorf("describe group members: %w", err)
		}
		out = append(out, page.AutoScalingInstances...)
	}
	return out, nil
}

func (m *machines) instanceOf(owner string, in types.Instance) runner.Instance {
	out := runner.Instance{
		ID: aws.ToString(in.InstanceId), AccountID: owner, Region: m.region,
		ImageID: aws.ToString(in.ImageId), Type: string(in.InstanceType), BootMode: string(in.CurrentInstanceBootMode),
		VPC: aws.ToString(in.VpcId), Subnet: aws.ToString(in.SubnetId),
		PrivateIP: aws.ToString(in.PrivateIpAddress), PublicIP: aws.ToString(in.PublicIpAddress),
		LaunchedAt: aws.ToTime(in.LaunchTime).UTC(), Tags: map[string]string{},
	}
	if in.Placement != nil {
		out.Zone = aws.ToString(in.Placement.AvailabilityZone)
	}
	if in.State != nil {
		out.State = string(in.State.Name)
	}
	if in.StateReason != nil {
		out.StateReason = aws.ToString(in.StateReason.Code)
	}
	if in.IamInstanceProfile != nil {
		out.Profile = aws.ToString(in.IamInstanceProfile.Arn)
	}
	if m := in.MetadataOptions; m != nil {
		out.HTTPTokens, out.HopLimit = string(m.HttpTokens), int64(aws.ToInt32(m.HttpPutResponseHopLimit))
	}
	for _, t := range in.Tags {
		out.Tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	addDevices(&out, in)
	return out
}

// addDevices lists volumes and interfaces. An interface with a public address
// makes the instance public, whichever one it is.
func addDevices(out *runner.Instance, in types.Instance) {
	for _, d := range in.BlockDeviceMappings {
		if d.Ebs != nil {
			out.Volumes = append(out.Volumes, aws.ToString(d.Ebs.VolumeId))
			out.Attachments = append(out.Attachments, runner.Attachment{
				Volume: aws.ToString(d.Ebs.VolumeId), At: aws.ToTime(d.Ebs.AttachTime).UTC(),
				Root: d.DeviceName != nil && aws.ToString(d.DeviceName) == aws.ToString(in.RootDeviceName),
			})
		}
	}
	for _, n := range in.NetworkInterfaces {
		out.NetworkInterfaces = append(out.NetworkInterfaces, aws.ToString(n.NetworkInterfaceId))
		if out.PublicIP == "" && n.Association != nil {
			out.PublicIP = aws.ToString(n.Association.PublicIp)
		}
		if at := n.Attachment; at != nil && at.DeviceIndex != nil && *at.DeviceIndex == 0 && aws.ToInt32(at.NetworkCardIndex) == 0 {
			out.InterfaceAt = aws.ToTime(at.AttachTime).UTC()
		}
	}
	slices.Sort(out.Volumes)
	slices.Sort(out.NetworkInterfaces)
}

// VolumesGone says which of these volumes EC2 no longer lists. A volume that
// is still "deleting" is listed and not gone. As in [AutoScaling.Describe] the
// filter is used, because one volume that is gone would fail the call for all
// (InvalidVolume.NotFound). Absence counts here, and only here, because the
// caller saw the volumes in this account and region before.
func (m *machines) VolumesGone(ctx context.Context, ids []string) ([]string, error) {
	if err := wellFormed(volumeID, ids); err != nil {
		return nil, fmt.Errorf("describe volumes: %w", err)
	}
	var gone []string
	for chunk := range slices.Chunk(ids, filterChunk) {
		listed := map[string]bool{}
		pages := ec2.NewDescribeVolumesPaginator(m.ec2, &ec2.DescribeVolumesInput{Filters: byID("volume-id", chunk)})
		for pages.HasMorePages() {
			page, err := nextPage(ctx, m, pages.NextPage)
			if err != nil {
				return nil, fmt.Errorf("describe volumes: %w", err)
			}
			for _, v := range page.Volumes {
				listed[aws.ToString(v.VolumeId)] = true
			}
		}
		for _, id := range chunk {
			if !listed[id] {
				gone = append(gone, id)
			}
		}
	}
	return gone, nil
}
