package simaws_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eks"
	"github.com/aws/aws-sdk-go-v2/service/eks/types"

	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
)

func nodegroup(s *simaws.Server) {
	s.AddGroup(simaws.Group{Name: "eks-pool-1", Min: 2, Max: 6, Desired: 3, SubnetIDs: []string{"subnet-a", "subnet-b"}, InstanceType: "m6i.large"})
	s.AddNodegroup(simaws.Nodegroup{
		Cluster: "prod", Name: "pool", Group: "eks-pool-1", AMIType: "BOTTLEROCKET_x86_64_FIPS",
		Labels: map[string]string{"pool": "hipaa"}, Taints: []simaws.NodegroupTaint{{Effect: "NO_SCHEDULE", Key: "workload", Value: "runner"}},
		Version: "1.35", Release: "1.57.0-bbbbbbbb", Role: "arn:aws:iam::" + account + ":role/node",
	})
	s.AddNodegroup(simaws.Nodegroup{Cluster: "prod", Name: "lost", Group: "none"})
}

func describe(cluster, name string) *eks.DescribeNodegroupInput {
	return &eks.DescribeNodegroupInput{ClusterName: &cluster, NodegroupName: &name}
}

func TestTheSDKReadsANodegroup(t *testing.T) {
	s := newServer()
	nodegroup(s)
	client := eks.NewFromConfig(clientConfig(s))
	out, err := client.DescribeNodegroup(t.Context(), describe("prod", "pool"))
	if err != nil {
		t.Fatal(err)
	}
	n := out.Nodegroup
	if *n.Resources.AutoScalingGroups[0].Name != "eks-pool-1" || n.AmiType != types.AMITypesBottlerocketX8664Fips || n.Status != types.NodegroupStatusActive {
		t.Errorf("node group = %+v, want the group, the image type and active", n)
	}
	if c := n.ScalingConfig; *c.MinSize != 2 || *c.DesiredSize != 3 || *c.MaxSize != 6 || len(n.Subnets) != 2 || n.InstanceTypes[0] != "m6i.large" {
		t.Errorf("sizes = %+v, subnets %v, want those of the Auto Scaling group", c, n.Subnets)
	}
	if n.Labels["pool"] != "hipaa" || n.Taints[0].Effect != types.TaintEffectNoSchedule || *n.Taints[0].Key != "workload" || n.CreatedAt == nil {
		t.Errorf("labels = %v, taints = %+v, created %v", n.Labels, n.Taints, n.CreatedAt)
	}
	lost, err := client.DescribeNodegroup(t.Context(), describe("prod", "lost"))
	if err != nil || lost.Nodegroup.Status != types.NodegroupStatusDegraded ||
		lost.Nodegroup.Health.Issues[0].Code != types.NodegroupIssueCodeAutoScalingGroupNotFound {
		t.Errorf("a node group without its group = %+v, %v, want degraded", lost, err)
	}
	calls := s.Requests()
	if first := calls[0]; first.Service != "eks" || first.Action != "DescribeNodegroup" || first.IDs[1] != "pool" {
		t.Errorf("the log says %+v", first)
	}
}

func TestTheSDKSeesRefusalsOfEKS(t *testing.T) {
	s := newServer()
	nodegroup(s)
	client := eks.NewFromConfig(clientConfig(s))
	for _, names := range [][2]string{{"prod", "none"}, {"none", "pool"}, {"prod", "a b:c"}} {
		_, err := client.DescribeNodegroup(t.Context(), describe(names[0], names[1]))
		e, ok := errors.AsType[*types.ResourceNotFoundException](err)
		if !ok || aws.ToString(e.ClusterName) != names[0] || aws.ToString(e.NodegroupName) != names[1] {
			t.Errorf("DescribeNodegroup(%v) = %v, want ResourceNotFoundException that names both", names, err)
		}
	}
	if _, err := client.ListClusters(t.Context(), &eks.ListClustersInput{}); errorCode(err) != "UnknownOperationException" {
		t.Errorf("ListClusters = %v, want UnknownOperationException", err)
	}
	cfg := clientConfig(s)
	cfg.Credentials = aws.AnonymousCredentials{}
	if _, err := eks.NewFromConfig(cfg).DescribeNodegroup(t.Context(), describe("prod", "pool")); errorCode(err) != "MissingAuthenticationTokenException" {
		t.Errorf("unsigned = %v, want MissingAuthenticationTokenException", err)
	}
}

func TestFaultsOfEKS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		nodegroup(s)
		client := eks.NewFromConfig(clientConfig(s))
		get := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
			defer cancel()
			_, err := client.DescribeNodegroup(ctx, describe("prod", "pool"))
			return err
		}
		faultsAreTold(t, s, "DescribeNodegroup", map[simaws.FaultKind]string{
			simaws.Throttle: "ThrottlingException", simaws.Unavailable: "ServiceUnavailableException",
			simaws.Unauthorized: "AccessDeniedException", simaws.Stale: "ResourceNotFoundException",
		}, get)
		hangs(t, s, "DescribeNodegroup", get)
	})
}
