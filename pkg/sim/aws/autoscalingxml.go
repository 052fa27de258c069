package simaws

import (
	"encoding/xml"
	"strings"
)

// The elements of Auto Scaling's answers, as the API reference spells them:
// https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_Types.html

// members is a list in the query protocol.
type members[T any] struct {
	Member []T `xml:"member"`
}

type describeGroupsResult struct {
	XMLName   xml.Name          `xml:"DescribeAutoScalingGroupsResult"`
	Groups    members[groupXML] `xml:"AutoScalingGroups"`
	NextToken string            `xml:"NextToken,omitempty"`
}

type describeMembersResult struct {
	XMLName   xml.Name            `xml:"DescribeAutoScalingInstancesResult"`
	Instances members[memberItem] `xml:"AutoScalingInstances"`
	NextToken string              `xml:"NextToken,omitempty"`
}

type describeActivitiesResult struct {
	XMLName    xml.Name             `xml:"DescribeScalingActivitiesResult"`
	Activities members[activityXML] `xml:"Activities"`
	NextToken  string               `xml:"NextToken,omitempty"`
}

type setProtectionResult struct {
	XMLName xml.Name `xml:"SetInstanceProtectionResult"`
}

// terminateMemberResult has Activity for InstanceId, Activities for InstanceIds.
type terminateMemberResult struct {
	XMLName    xml.Name              `xml:"TerminateInstanceInAutoScalingGroupResult"`
	Activity   *activityXML          `xml:"Activity"`
	Activities *members[activityXML] `xml:"Activities"`
}

type groupXML struct {
	ARN         string                `xml:"AutoScalingGroupARN"`
	Name        string                `xml:"AutoScalingGroupName"`
	Zones       members[string]       `xml:"AvailabilityZones"`
	CreatedTime string                `xml:"CreatedTime"`
	Cooldown    int                   `xml:"DefaultCooldown"`
	Desired     int                   `xml:"DesiredCapacity"`
	HealthCheck string                `xml:"HealthCheckType"`
	Instances   members[memberItem]   `xml:"Instances"`
	Max         int                   `xml:"MaxSize"`
	Min         int                   `xml:"MinSize"`
	Protects    bool                  `xml:"NewInstancesProtectedFromScaleIn"`
	Policy      *lifecyclePolicyXML   `xml:"InstanceLifecyclePolicy"`
	Suspended   members[suspendedXML] `xml:"SuspendedProcesses"`
	WarmPool    *warmPoolXML          `xml:"WarmPoolConfiguration"`
	Subnets     string                `xml:"VPCZoneIdentifier"`
}

// memberItem is an Instance of a group, and with its group's name an
// AutoScalingInstanceDetails.
type memberItem struct {
	Group     string `xml:"AutoScalingGroupName,omitempty"`
	Zone      string `xml:"AvailabilityZone"`
	Health    string `xml:"HealthStatus"`
	ID        string `xml:"InstanceId"`
	Type      string `xml:"InstanceType"`
	Lifecycle string `xml:"LifecycleState"`
	Protected bool   `xml:"ProtectedFromScaleIn"`
}

type activityXML struct {
	ID          string `xml:"ActivityId"`
	Group       string `xml:"AutoScalingGroupName"`
	Cause       string `xml:"Cause"`
	Description string `xml:"Description"`
	StartTime   string `xml:"StartTime"`
	EndTime     string `xml:"EndTime,omitempty"`
	Progress    int    `xml:"Progress"`
	Status      string `xml:"StatusCode"`
}

func (s *Server) groupXML(g *group) groupXML {
	x := groupXML{
		ARN: "arn:aws:autoscaling:" + s.cfg.Region + ":" + s.cfg.AccountID +
			":autoScalingGroup:00000000-0000-4000-8000-000000000000:autoScalingGroupName/" + g.Name,
		Name: g.Name, CreatedTime: timestamp(g.createdAt), Cooldown: 300, HealthCheck: "EC2",
		Desired: g.Desired, Max: g.Max, Min: g.Min, Subnets: strings.Join(g.SubnetIDs, ","),
	}
	for i := range min(len(g.SubnetIDs), 3) {
		x.Zones.Member = append(x.Zones.Member, s.zone(i))
	}
	x.Protects, x.WarmPool = g.ProtectsNew, warmPoolOf(g)
	if g.Retains {
		x.Policy = &lifecyclePolicyXML{"retain"}
	}
	for _, name := range g.Suspended {
		x.Suspended.Member = append(x.Suspended.Member, suspendedXML{name, "User suspended at 2026-01-01T00:00:00Z"})
	}
	for _, in := range s.members(g) {
		// What is in the warm pool, DescribeWarmPool lists.
		if !in.warmed() {
			x.Instances.Member = append(x.Instances.Member, memberXML(in))
		}
	}
	return x
}

func memberXML(in *instance) memberItem {
	health := "Healthy"
	if in.State == stateShuttingDown || in.State == stateTerminated {
		health = "Unhealthy"
	}
	return memberItem{
		Zone: in.Zone, Health: health, ID: in.ID, Type: in.InstanceType, Lifecycle: in.lifecycle, Protected: in.scaleIn,
	}
}

func (s *Server) activityXML(a *activity) activityXML {
	x := activityXML{
		ID: a.id, Group: a.group, Cause: a.cause, Description: a.description,
		StartTime: timestamp(a.startedAt), Progress: 50, Status: "InProgress",
	}
	if !a.endedAt.IsZero() {
		x.EndTime, x.Progress, x.Status = timestamp(a.endedAt), 100, "Successful"
	}
	return x
}
