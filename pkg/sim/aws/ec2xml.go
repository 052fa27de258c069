package simaws

import (
	"encoding/xml"
	"maps"
	"slices"
	"time"
)

// The elements of EC2's answers, as the API reference spells them:
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_Types.html

// items is a list in the ec2 protocol.
type items[T any] struct {
	Item []T `xml:"item"`
}

type describeInstancesResponse struct {
	XMLName      xml.Name           `xml:"http://ec2.amazonaws.com/doc/2016-11-15/ DescribeInstancesResponse"`
	RequestID    string             `xml:"requestId"`
	Reservations items[reservation] `xml:"reservationSet"`
	NextToken    string             `xml:"nextToken,omitempty"`
}

type describeImageMetadataResponse struct {
	XMLName   xml.Name             `xml:"http://ec2.amazonaws.com/doc/2016-11-15/ DescribeInstanceImageMetadataResponse"`
	RequestID string               `xml:"requestId"`
	Instances items[imageMetadata] `xml:"instanceImageMetadataSet"`
	NextToken string               `xml:"nextToken,omitempty"`
}

type describeVolumesResponse struct {
	XMLName   xml.Name         `xml:"http://ec2.amazonaws.com/doc/2016-11-15/ DescribeVolumesResponse"`
	RequestID string           `xml:"requestId"`
	Volumes   items[volumeXML] `xml:"volumeSet"`
	NextToken string           `xml:"nextToken,omitempty"`
}

type terminateInstancesResponse struct {
	XMLName   xml.Name           `xml:"http://ec2.amazonaws.com/doc/2016-11-15/ TerminateInstancesResponse"`
	RequestID string             `xml:"requestId"`
	Instances items[stateChange] `xml:"instancesSet"`
}

type stateChange struct {
	InstanceID string    `xml:"instanceId"`
	Current    codedName `xml:"currentState"`
	Previous   codedName `xml:"previousState"`
}

type codedName struct {
	Code int    `xml:"code"`
	Name string `xml:"name"`
}

func stateOf(name string) codedName { return codedName{stateCode(name), name} }

type reservation struct {
	ID        string             `xml:"reservationId"`
	OwnerID   string             `xml:"ownerId"`
	Groups    items[string]      `xml:"groupSet"`
	Instances items[instanceXML] `xml:"instancesSet"`
}

type instanceXML struct {
	ID              string             `xml:"instanceId"`
	ImageID         string             `xml:"imageId"`
	State           codedName          `xml:"instanceState"`
	PrivateDNS      string             `xml:"privateDnsName"`
	DNS             string             `xml:"dnsName"`
	Reason          string             `xml:"reason"`
	AMILaunchIndex  int                `xml:"amiLaunchIndex"`
	Type            string             `xml:"instanceType"`
	LaunchTime      string             `xml:"launchTime"`
	Placement       placement          `xml:"placement"`
	SubnetID        string             `xml:"subnetId,omitempty"`
	VPCID           string             `xml:"vpcId,omitempty"`
	PrivateIP       string             `xml:"privateIpAddress,omitempty"`
	StateReason     *codedMessage      `xml:"stateReason"`
	Architecture    string             `xml:"architecture"`
	RootDeviceType  string             `xml:"rootDeviceType"`
	RootDeviceName  string             `xml:"rootDeviceName"`
	BlockDevices    items[blockDevice] `xml:"blockDeviceMapping"`
	Tags            items[tagXML]      `xml:"tagSet"`
	Hypervisor      string             `xml:"hypervisor"`
	Interfaces      items[eniXML]      `xml:"networkInterfaceSet"`
	Profile         *profileXML        `xml:"iamInstanceProfile"`
	BootMode        string             `xml:"bootMode,omitempty"`
	CurrentBootMode string             `xml:"currentInstanceBootMode,omitempty"`
	MetadataOptions *metadataOptions   `xml:"metadataOptions"`
}

type placement struct {
	Zone    string `xml:"availabilityZone"`
	Tenancy string `xml:"tenancy,omitempty"`
}

type codedMessage struct {
	Code    string `xml:"code"`
	Message string `xml:"message"`
}

type tagXML struct {
	Key   string `xml:"key"`
	Value string `xml:"value"`
}

type blockDevice struct {
	Name                string `xml:"deviceName"`
	VolumeID            string `xml:"ebs>volumeId"`
	Status              string `xml:"ebs>status"`
	AttachTime          string `xml:"ebs>attachTime"`
	DeleteOnTermination bool   `xml:"ebs>deleteOnTermination"`
}

type eniXML struct {
	ID         string `xml:"networkInterfaceId"`
	SubnetID   string `xml:"subnetId"`
	VPCID      string `xml:"vpcId"`
	OwnerID    string `xml:"ownerId"`
	Status     string `xml:"status"`
	PrivateIP  string `xml:"privateIpAddress"`
	AttachTime string `xml:"attachment>attachTime"`
	Device     int    `xml:"attachment>deviceIndex"`
}

type profileXML struct {
	ARN string `xml:"arn"`
	ID  string `xml:"id"`
}

type metadataOptions struct {
	State    string `xml:"state"`
	Tokens   string `xml:"httpTokens"`
	HopLimit int    `xml:"httpPutResponseHopLimit"`
	Endpoint string `xml:"httpEndpoint"`
}

type imageMetadata struct {
	InstanceID string        `xml:"instanceId"`
	Type       string        `xml:"instanceType"`
	LaunchTime string        `xml:"launchTime"`
	Zone       string        `xml:"availabilityZone"`
	State      codedName     `xml:"instanceState"`
	OwnerID    string        `xml:"instanceOwnerId"`
	Tags       items[tagXML] `xml:"tagSet"`
	Image      imageXML      `xml:"imageMetadata"`
}

type imageXML struct {
	ID         string `xml:"imageId"`
	Name       string `xml:"name"`
	OwnerID    string `xml:"imageOwnerId"`
	State      string `xml:"imageState"`
	OwnerAlias string `xml:"imageOwnerAlias,omitempty"`
	IsPublic   bool   `xml:"isPublic"`
}

type volumeXML struct {
	ID          string               `xml:"volumeId"`
	Zone        string               `xml:"availabilityZone"`
	Status      string               `xml:"status"`
	CreateTime  string               `xml:"createTime"`
	Attachments items[attachmentXML] `xml:"attachmentSet"`
}

type attachmentXML struct {
	VolumeID            string `xml:"volumeId"`
	InstanceID          string `xml:"instanceId"`
	Device              string `xml:"device"`
	Status              string `xml:"status"`
	DeleteOnTermination bool   `xml:"deleteOnTermination"`
}

func timestamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

func tagsOf(in *instance) items[tagXML] {
	var out items[tagXML]
	for _, k := range sortedKeys(in.Tags) {
		out.Item = append(out.Item, tagXML{k, in.Tags[k]})
	}
	return out
}

// reservationOf describes one instance in a reservation of its own. A
// terminated instance has lost its network interfaces, addresses and volumes,
// so whoever needs them must have asked before.
func (s *Server) reservationOf(in *instance) reservation {
	x := instanceXML{
		ID: in.ID, ImageID: in.ImageID, State: stateOf(in.State), Reason: in.TransitionReason,
		Type: in.InstanceType, LaunchTime: timestamp(in.LaunchedAt), Placement: placement{in.Zone, "default"},
		Architecture: "x86_64", RootDeviceType: "ebs", RootDeviceName: "/dev/xvda", Hypervisor: "xen",
		Tags: tagsOf(in), BootMode: in.spec.BootMode, CurrentBootMode: in.spec.BootMode,
		MetadataOptions: &metadataOptions{"applied", in.spec.HTTPTokens, in.spec.HopLimit, "enabled"},
	}
	if in.StateReason != "" {
		x.StateReason = &codedMessage{in.StateReason, in.StateReason + ": User initiated shutdown"}
	}
	if in.State != stateTerminated {
		s.attached(&x, in)
	}
	id := "r-" + in.ID[len("i-"):]
	return reservation{ID: id, OwnerID: in.AccountID, Instances: items[instanceXML]{[]instanceXML{x}}}
}

// attached adds what an instance has until it is terminated.
func (s *Server) attached(x *instanceXML, in *instance) {
	x.SubnetID, x.VPCID, x.PrivateIP, x.PrivateDNS = in.Subnet, in.VPC, in.PrivateIP, in.PrivateDNS
	if in.spec.Profile != "" {
		x.Profile = &profileXML{in.spec.Profile, "AIPA0123456789EXAMPLE"}
	}
	for _, id := range in.Volumes {
		v := s.volumes[id]
		x.BlockDevices.Item = append(x.BlockDevices.Item, blockDevice{v.device, v.id, "attached", timestamp(v.attachedAt), v.deleteOnTermination})
	}
	for i, id := range in.NetworkInterfaces {
		x.Interfaces.Item = append(x.Interfaces.Item, eniXML{id, in.Subnet, in.VPC, in.AccountID, "in-use", in.PrivateIP, timestamp(in.LaunchedAt), i})
	}
}

func imageMetadataOf(in *instance) imageMetadata {
	return imageMetadata{
		InstanceID: in.ID, Type: in.InstanceType, LaunchTime: timestamp(in.LaunchedAt), Zone: in.Zone,
		State: stateOf(in.State), OwnerID: in.AccountID, Tags: tagsOf(in),
		Image: imageXML{in.ImageID, in.spec.ImageName, in.spec.ImageOwnerID, "available", in.spec.ImageOwnerAlias, true},
	}
}

func volumeItem(v *volume, status string) volumeXML {
	x := volumeXML{ID: v.id, Zone: v.zone, Status: status, CreateTime: timestamp(v.createdAt)}
	if v.instance != "" {
		x.Attachments.Item = []attachmentXML{{v.id, v.instance, v.device, "attached", v.deleteOnTermination}}
	}
	return x
}
