package simaws

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	notFoundEKS       = "ResourceNotFoundException"
	describeNodegroup = "DescribeNodegroup"
)

// Nodegroup is a managed node group: what EKS says of an Auto Scaling group.
type Nodegroup struct {
	Cluster, Name string
	// Group is the Auto Scaling group, from which its sizes and subnets are.
	Group   string
	AMIType string // such as BOTTLEROCKET_x86_64_FIPS
	Labels  map[string]string
	Taints  []NodegroupTaint
	Status  string // ACTIVE if empty
	// Version is that of Kubernetes, Release that of the image.
	Version, Release string
	Role             string // ARN of the nodes' role

	createdAt time.Time
	arn       string
}

// NodegroupTaint has the effects NO_SCHEDULE, NO_EXECUTE and PREFER_NO_SCHEDULE.
type NodegroupTaint struct {
	Effect string `json:"effect"`
	Key    string `json:"key"`
	Value  string `json:"value,omitempty"`
}

// AddNodegroup makes a node group over a group that exists already. One of the
// same name in the same cluster is replaced.
func (s *Server) AddNodegroup(n Nodegroup) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n.createdAt, n.Status = time.Now(), cmp.Or(n.Status, "ACTIVE")
	n.arn = "arn:aws:eks:" + s.cfg.Region + ":" + s.cfg.AccountID + ":nodegroup/" + n.Cluster + "/" + n.Name + "/" + s.uuid()
	s.nodegroups = append(slices.DeleteFunc(s.nodegroups, func(other Nodegroup) bool {
		return other.Cluster == n.Cluster && other.Name == n.Name
	}), n)
}

// route finds the action of a request to EKS, whose protocol has it in method
// and path.
func route(r *http.Request) (action string, names []string) {
	parts := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
	if r.Method != http.MethodGet || len(parts) != 4 || parts[0] != "clusters" || parts[2] != "node-groups" {
		return "", nil
	}
	for _, part := range []string{parts[1], parts[3]} {
		name, err := url.PathUnescape(part)
		if err != nil || name == "" {
			return "", nil
		}
		names = append(names, name)
	}
	return describeNodegroup, names
}

// eks runs one action of EKS:
// https://docs.aws.amazon.com/eks/latest/APIReference/API_DescribeNodegroup.html
// The wording: github.com/terraform-aws-modules/terraform-aws-eks#793 and
// github.com/aws-samples/eks-workshop-v2#915.
func (s *Server) eks(c call, kind FaultKind) (any, error) {
	if c.action != describeNodegroup {
		return nil, &apiError{http.StatusNotFound, "UnknownOperationException", "Unknown operation"}
	}
	cluster, name := c.path[0], c.path[1]
	if !slices.ContainsFunc(s.nodegroups, func(n Nodegroup) bool { return n.Cluster == cluster }) {
		return nil, &apiError{http.StatusNotFound, notFoundEKS, "No cluster found for name: " + cluster + "."}
	}
	i := slices.IndexFunc(s.nodegroups, func(n Nodegroup) bool { return n.Cluster == cluster && n.Name == name })
	if i < 0 || kind == Stale {
		return nil, &apiError{http.StatusNotFound, notFoundEKS, "No node group found for name: " + name + "."}
	}
	return struct {
		Nodegroup nodegroupItem `json:"nodegroup"`
	}{s.nodegroupItem(s.nodegroups[i])}, nil
}

type nodegroupItem struct {
	AMIType       string            `json:"amiType"`
	CapacityType  string            `json:"capacityType"`
	Cluster       string            `json:"clusterName"`
	CreatedAt     epoch             `json:"createdAt"`
	Health        nodegroupHealth   `json:"health"`
	InstanceTypes []string          `json:"instanceTypes,omitempty"`
	Labels        map[string]string `json:"labels"`
	ModifiedAt    epoch             `json:"modifiedAt"`
	Role          string            `json:"nodeRole"`
	ARN           string            `json:"nodegroupArn"`
	Name          string            `json:"nodegroupName"`
	Release       string            `json:"releaseVersion"`
	Resources     nodegroupParts    `json:"resources"`
	Scaling       nodegroupScaling  `json:"scalingConfig"`
	Status        string            `json:"status"`
	Subnets       []string          `json:"subnets"`
	Tags          map[string]string `json:"tags"`
	Taints        []NodegroupTaint  `json:"taints,omitempty"`
	Version       string            `json:"version"`
}

type nodegroupHealth struct {
	Issues []nodegroupIssue `json:"issues"`
}

type nodegroupIssue struct {
	Code      string   `json:"code"`
	Message   string   `json:"message"`
	Resources []string `json:"resourceIds"`
}

type nodegroupParts struct {
	Groups []nodegroupGroup `json:"autoScalingGroups"`
}

type nodegroupGroup struct {
	Name string `json:"name"`
}

type nodegroupScaling struct {
	Desired int `json:"desiredSize"`
	Max     int `json:"maxSize"`
	Min     int `json:"minSize"`
}

func (s *Server) nodegroupItem(n Nodegroup) nodegroupItem {
	out := nodegroupItem{
		AMIType: n.AMIType, CapacityType: "ON_DEMAND", Cluster: n.Cluster, CreatedAt: epoch(n.createdAt),
		Health: nodegroupHealth{[]nodegroupIssue{}}, Labels: map[string]string{}, ModifiedAt: epoch(n.createdAt),
		Role: n.Role, ARN: n.arn, Name: n.Name, Release: n.Release, Status: n.Status, Subnets: []string{},
		Resources: nodegroupParts{[]nodegroupGroup{{n.Group}}}, Tags: map[string]string{}, Taints: n.Taints, Version: n.Version,
	}
	if n.Labels != nil {
		out.Labels = n.Labels
	}
	g := s.group(n.Group)
	if g == nil {
		// "We couldn't find the Auto Scaling group associated with the managed
		// node group."
		// https://docs.aws.amazon.com/eks/latest/APIReference/API_Issue.html
		out.Status = "DEGRADED"
		out.Health.Issues = append(out.Health.Issues, nodegroupIssue{
			"AutoScalingGroupNotFound", "We couldn't find the Auto Scaling group associated with the managed node group.", []string{n.Group},
		})
		return out
	}
	out.Scaling = nodegroupScaling{g.Desired, g.Max, g.Min}
	out.Subnets = slices.Clone(g.SubnetIDs)
	if g.InstanceType != "" {
		out.InstanceTypes = []string{g.InstanceType}
	}
	return out
}
