package hosts_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"

	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
)

// The tests in this file hold the simulator to the real SDK's idea of the
// wire. They live here because service/ec2 is too heavy to link twice.

func code(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	return ""
}

func TestTheSimulatorRefusesToDecrementAtMinimumSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		groups := autoscaling.NewFromConfig(awsConfig(w.sim))
		in := &autoscaling.TerminateInstanceInAutoScalingGroupInput{
			InstanceId: aws.String(w.first.ID), ShouldDecrementDesiredCapacity: aws.Bool(true),
		}
		_, err := groups.TerminateInstanceInAutoScalingGroup(t.Context(), in)
		if code(err) != "ValidationError" || !strings.Contains(err.Error(), "Currently, desiredSize equals minSize (2).") {
			t.Errorf("Terminate with decrement = %v, want the ValidationError about minSize", err)
		}
		if now, _ := w.sim.Instance(w.first.ID); now.State != "running" {
			t.Errorf("the instance is %s after the refusal, want running", now.State)
		}
	})
}

func TestTheSimulatorDecrementsAboveMinimumSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := simaws.New(simConfig())
		g := testGroup()
		g.Min = 1
		sim.AddGroup(g)
		groups := autoscaling.NewFromConfig(awsConfig(sim))
		out, err := groups.TerminateInstanceInAutoScalingGroup(t.Context(), &autoscaling.TerminateInstanceInAutoScalingGroupInput{
			AutoScalingGroupName: aws.String(groupName), InstanceIds: []string{sim.Instances()[0].ID},
			ShouldDecrementDesiredCapacity: aws.Bool(true),
		})
		if err != nil || len(out.Activities) != 1 || out.Activity != nil {
			t.Fatalf("Terminate by InstanceIds = %+v, %v, want one entry in Activities", out, err)
		}
		wait(t, 5*time.Minute)
		if n := len(sim.Instances()); n != 2 {
			t.Errorf("%d instances were launched, want 2: no refill after a decrement", n)
		}
	})
}

func TestTheSDKReadsGroupsActivitiesAndProtection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		groups := autoscaling.NewFromConfig(awsConfig(w.sim))
		if _, err := groups.SetInstanceProtection(t.Context(), &autoscaling.SetInstanceProtectionInput{
			AutoScalingGroupName: aws.String(groupName), InstanceIds: []string{w.first.ID}, ProtectedFromScaleIn: aws.Bool(true),
		}); err != nil {
			t.Fatal(err)
		}
		// Scale-in protection does not stop a termination by hand.
		if _, err := w.driver.Terminate(t.Context(), w.first.ID, plainly); err != nil {
			t.Fatal(err)
		}
		g, err := groups.DescribeAutoScalingGroups(t.Context(), &autoscaling.DescribeAutoScalingGroupsInput{AutoScalingGroupNames: []string{groupName, "none"}})
		if err != nil || len(g.AutoScalingGroups) != 1 {
			t.Fatalf("DescribeAutoScalingGroups = %+v, %v, want one group", g, err)
		}
		group := g.AutoScalingGroups[0]
		if *group.MinSize != 2 || *group.DesiredCapacity != 2 || *group.MaxSize != 6 || len(group.Instances) != 2 {
			t.Errorf("group = %+v, want 2, 2, 6 with two instances", group)
		}
		if m := group.Instances[0]; m.LifecycleState != "Terminating" || !*m.ProtectedFromScaleIn || *m.InstanceId != w.first.ID {
			t.Errorf("member = %+v, want %s protected and Terminating", m, w.first.ID)
		}
		wait(t, time.Minute)
		a, err := groups.DescribeScalingActivities(t.Context(), &autoscaling.DescribeScalingActivitiesInput{AutoScalingGroupName: aws.String(groupName)})
		if err != nil || len(a.Activities) != 4 {
			t.Fatalf("DescribeScalingActivities = %+v, %v, want four", a, err)
		}
		ended := a.Activities[1]
		if !strings.Contains(*ended.Cause, w.first.ID+" was taken out of service in response to a user request") ||
			ended.StatusCode != "Successful" || *ended.Progress != 100 || ended.EndTime.Sub(*ended.StartTime) != 40*time.Second {
			t.Errorf("activity = %+v, want a user request that took 40 s", ended)
		}
	})
}

func TestTheSDKReadsPagesOfInstancesByTagAndState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		big := testGroup()
		big.Name, big.Desired, big.Max = "big", 12, 12
		w.sim.AddGroup(big)
		client := ec2.NewFromConfig(awsConfig(w.sim))
		pages := ec2.NewDescribeInstancesPaginator(client, &ec2.DescribeInstancesInput{
			MaxResults: aws.Int32(5),
			Filters: []types.Filter{
				{Name: aws.String("tag:aws:autoscaling:groupName"), Values: []string{"b?g", "x"}},
				{Name: aws.String("instance-state-name"), Values: []string{"pend*"}},
			},
		})
		var sizes []int
		for pages.HasMorePages() {
			page, err := pages.NextPage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			sizes = append(sizes, len(page.Reservations))
		}
		if !slices.Equal(sizes, []int{5, 5, 2}) {
			t.Errorf("pages = %v, want 5, 5, 2", sizes)
		}
	})
}

func TestTheSDKSeesRefusalsOfEC2(t *testing.T) {
	const unknown, other = "i-0ffffffffffffffff", "i-0eeeeeeeeeeeeeeee"
	type describe = ec2.DescribeInstancesInput
	tests := []struct {
		name string
		call func(*testing.T, *ec2.Client, string) error
		want string
	}{
		{"an unknown id fails the call", func(t *testing.T, c *ec2.Client, id string) error {
			_, err := c.DescribeInstances(t.Context(), &describe{InstanceIds: []string{id, unknown, other}})
			return err
		}, "InvalidInstanceID.NotFound"},
		{"a malformed id", func(t *testing.T, c *ec2.Client, _ string) error {
			_, err := c.DescribeInstances(t.Context(), &describe{InstanceIds: []string{"i-xyz"}})
			return err
		}, "InvalidInstanceID.Malformed"},
		{"ids and pages", func(t *testing.T, c *ec2.Client, id string) error {
			_, err := c.DescribeInstances(t.Context(), &describe{InstanceIds: []string{id}, MaxResults: aws.Int32(5)})
			return err
		}, "InvalidParameterCombination"},
		{"an unknown filter", func(t *testing.T, c *ec2.Client, _ string) error {
			_, err := c.DescribeInstances(t.Context(), &describe{Filters: []types.Filter{{Name: aws.String("colour"), Values: []string{"red"}}}})
			return err
		}, "InvalidParameterValue"},
		{"a page token of somebody else", func(t *testing.T, c *ec2.Client, _ string) error {
			_, err := c.DescribeInstances(t.Context(), &describe{NextToken: aws.String("?")})
			return err
		}, "InvalidPaginationToken"},
		{"a dry run", func(t *testing.T, c *ec2.Client, id string) error {
			_, err := c.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{id}, DryRun: aws.Bool(true)})
			return err
		}, "DryRunOperation"},
		{"one bad id saves the others", func(t *testing.T, c *ec2.Client, id string) error {
			_, err := c.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{id, unknown}})
			return err
		}, "InvalidInstanceID.NotFound"},
		{"an unknown volume", func(t *testing.T, c *ec2.Client, _ string) error {
			_, err := c.DescribeVolumes(t.Context(), &ec2.DescribeVolumesInput{VolumeIds: []string{"vol-0fffffffffffffff0"}})
			return err
		}, "InvalidVolume.NotFound"},
		{"an action that is not simulated", func(t *testing.T, c *ec2.Client, _ string) error {
			_, err := c.DescribeVpcs(t.Context(), &ec2.DescribeVpcsInput{})
			return err
		}, "InvalidAction"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				err := tt.call(t, ec2.NewFromConfig(awsConfig(w.sim)), w.first.ID)
				if code(err) != tt.want {
					t.Errorf("error = %v, want %s", err, tt.want)
				}
				if now, _ := w.sim.Instance(w.first.ID); now.State != "running" {
					t.Errorf("the instance is %s, want running", now.State)
				}
			})
		})
	}
}

func TestTheWaiterOfTheSDKAgreesThatAnInstanceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		client := ec2.NewFromConfig(awsConfig(w.sim))
		out, err := client.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{w.first.ID}})
		if err != nil || out.TerminatingInstances[0].CurrentState.Name != "shutting-down" ||
			*out.TerminatingInstances[0].PreviousState.Code != 16 {
			t.Fatalf("TerminateInstances = %+v, %v, want running to shutting-down", out, err)
		}
		waiter := ec2.NewInstanceTerminatedWaiter(client)
		got, err := waiter.WaitForOutput(t.Context(), &ec2.DescribeInstancesInput{InstanceIds: []string{w.first.ID}}, 5*time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		in := got.Reservations[0].Instances[0]
		if len(in.BlockDeviceMappings) != 0 || len(in.NetworkInterfaces) != 0 || in.PrivateIpAddress != nil ||
			!strings.HasPrefix(*in.StateTransitionReason, "User initiated (20") {
			t.Errorf("terminated instance = %+v, want no devices and a user's reason", in)
		}
	})
}

func TestSignaturesOfAnotherKeyRegionOrSecretAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		for name, tt := range map[string]struct {
			change   func(*aws.Config)
			ec2, asg string
		}{
			"key": {func(c *aws.Config) {
				c.Credentials = credentials.NewStaticCredentialsProvider("AKIDOTHER", keySecret, "")
			}, "AuthFailure", "InvalidClientTokenId"},
			"secret": {func(c *aws.Config) {
				c.Credentials = credentials.NewStaticCredentialsProvider(keyID, "x"+keySecret, "")
			}, "AuthFailure", "SignatureDoesNotMatch"},
			"region": {func(c *aws.Config) { c.Region = "eu-west-1" }, "AuthFailure", "SignatureDoesNotMatch"},
			"none":   {func(c *aws.Config) { c.Credentials = aws.AnonymousCredentials{} }, "MissingAuthenticationToken", ""},
		} {
			cfg := awsConfig(w.sim)
			tt.change(&cfg)
			_, err := ec2.NewFromConfig(cfg).DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{})
			if code(err) != tt.ec2 {
				t.Errorf("%s: ec2 = %v, want %s", name, err, tt.ec2)
			}
			_, err = autoscaling.NewFromConfig(cfg).DescribeAutoScalingGroups(t.Context(), &autoscaling.DescribeAutoScalingGroupsInput{})
			if tt.asg != "" && code(err) != tt.asg {
				t.Errorf("%s: autoscaling = %v, want %s", name, err, tt.asg)
			}
		}
	})
}
