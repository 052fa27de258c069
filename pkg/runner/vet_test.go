package runner_test

import (
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

func goodNode() runner.Node {
	return runner.Node{
		Name: "ip-10-0-1-2", UID: "uid", BootID: "boot", ProviderID: "aws:///us-east-1a/i-0123456789abcdef0",
		OSImage: "Bottlerocket OS 1.52.0 (aws-k8s-1.37)", InternalIP: "10.0.1.2", Ready: true,
		Labels: map[string]string{"stonebridge.io/runner-pool": "hipaa-prod"},
		Taints: []runner.Taint{{Key: "workload", Value: "hipaa-runner", Effect: "NoSchedule"}},
	}
}

func goodInstance() runner.Instance {
	return runner.Instance{
		ID: "i-0123456789abcdef0", AccountID: "111122223333", Region: "us-east-1", State: "running",
		ImageID: "ami-1", ImageName: "bottlerocket-aws-k8s-1.37-x86_64-v1.52.0", ImageOwner: "092701018921", ImageOwnerAlias: "amazon",
		Subnet: "subnet-1", PrivateIP: "10.0.1.2", HTTPTokens: "required", HopLimit: 1, BootMode: "uefi",
		Group: "hipaa-prod-runners", Tags: map[string]string{"Compliance": "HIPAA"},
		Lifecycle: "InService", Profile: "arn:aws:iam::111122223333:instance-profile/pool", PrivateSubnet: new(true),
		InterfaceAt: epoch, Attachments: []runner.Attachment{{"vol-1", true, epoch.Add(time.Second)}, {"vol-2", false, epoch.Add(2 * time.Second)}},
	}
}

func vetRules() runner.VetRules {
	return runner.VetRules{
		Provider: "aws", Labels: map[string]string{"stonebridge.io/runner-pool": "hipaa-prod"},
		Taint:    runner.Taint{Key: "workload", Value: "hipaa-runner", Effect: "NoSchedule"},
		Accounts: []string{"111122223333"}, Regions: []string{"us-east-1"}, Subnets: []string{"subnet-1"},
		ImageNames: []string{"bottlerocket-aws-k8s-"}, ImageOwners: []string{"amazon"}, BootModes: []string{"uefi"},
		OSImage: regexp.MustCompile(`^Bottlerocket OS `), Groups: []string{"hipaa-prod-runners"},
		InstanceTags: map[string]string{"Compliance": "HIPAA"}, Profiles: []string{"arn:aws:iam::111122223333:instance-profile/pool"},
	}
}

// TestVetANodeClaim: where Karpenter launches hosts there is no group, and a
// claim of the pool that EC2 names too takes its place.
func TestVetANodeClaim(t *testing.T) {
	rules := vetRules()
	rules.Groups, rules.NodeClaims = nil, true
	for name, tc := range map[string]struct {
		breakIt func(*runner.Instance)
		check   string
		want    runner.Verdict
	}{
		"good":                  {func(*runner.Instance) {}, "", runner.Pass},
		"claims not learned":    {func(in *runner.Instance) { in.NodeClaim = nil }, "host.nodeClaim", runner.Unknown},
		"no claim of the pool":  {func(in *runner.Instance) { in.NodeClaim = &runner.NodeClaim{} }, "host.nodeClaim", runner.Fail},
		"not tagged yet":        {func(in *runner.Instance) { delete(in.Tags, "karpenter.sh/nodeclaim") }, "host.nodeClaimTag", runner.Unknown},
		"tag of another claim":  {func(in *runner.Instance) { in.Tags["karpenter.sh/nodeclaim"] = "other" }, "host.nodeClaimTag", runner.Fail},
		"claim being deleted":   {func(in *runner.Instance) { in.NodeClaim.State = runner.NodeClaimDeleting }, "host.nodeClaimReady", runner.Fail},
		"not yet initialized":   {func(in *runner.Instance) { in.NodeClaim.State = runner.NodeClaimStarting }, "host.nodeClaimReady", runner.Fail},
		"state not said":        {func(in *runner.Instance) { in.NodeClaim.State = "" }, "host.nodeClaimReady", runner.Unknown},
		"the rest counts still": {func(in *runner.Instance) { in.HopLimit = 2 }, "host.hopLimit", runner.Fail},
	} {
		t.Run(name, func(t *testing.T) {
			in := goodInstance()
			in.Group, in.Lifecycle = "", ""
			in.NodeClaim = &runner.NodeClaim{Name: "hipaa-prod-1", State: runner.NodeClaimReady}
			in.Tags["karpenter.sh/nodeclaim"] = "hipaa-prod-1"
			tc.breakIt(&in)
			checks := runner.Vet(goodNode(), &in, rules)
			if tc.check == "" {
				if h := runner.HostOf(goodNode(), &in, rules); !runner.Vetted(checks) || h.NodeClaim != "hipaa-prod-1" {
					t.Fatalf("vetted %t as %+v, want the claim's name on it", runner.Vetted(checks), h)
				}
				return
			}
			if !slices.Contains(checks, runner.Check{Name: tc.check, Verdict: tc.want}) {
				t.Errorf("checks = %v, want %s: %s", checks, tc.check, tc.want)
			}
			if slices.ContainsFunc(checks, func(c runner.Check) bool { return c.Name == "host.group" }) {
				t.Error("a group is asked for")
			}
		})
	}
}

func TestVet(t *testing.T) {
	node, in := goodNode(), goodInstance()
	if checks := runner.Vet(node, &in, vetRules()); !runner.Vetted(checks) {
		t.Fatalf("the good host fails: %v", checks)
	}
	if runner.Vetted(nil) {
		t.Error("Vetted(no checks) = true, want false")
	}
	tests := map[string]struct {
		breakIt func(*runner.Node, *runner.Instance)
		check   string
		want    runner.Verdict
	}{
		"not ready":                    {func(n *runner.Node, _ *runner.Instance) { n.Ready = false }, "node.ready", runner.Fail},
		"cordoned by somebody":         {func(n *runner.Node, _ *runner.Instance) { n.Cordoned = true }, "node.uncordoned", runner.Fail},
		"claimed before":               {func(n *runner.Node, _ *runner.Instance) { n.ClaimedBy = "r1" }, "node.unclaimed", runner.Fail},
		"no boot id":                   {func(n *runner.Node, _ *runner.Instance) { n.BootID = "" }, "node.bootId", runner.Unknown},
		"label missing":                {func(n *runner.Node, _ *runner.Instance) { n.Labels = nil }, "node.labels", runner.Fail},
		"taint of another effect":      {func(n *runner.Node, _ *runner.Instance) { n.Taints[0].Effect = "NoExecute" }, "node.taint", runner.Fail},
		"another operating system":     {func(n *runner.Node, _ *runner.Instance) { n.OSImage = "Ubuntu 24.04" }, "node.osImage", runner.Fail},
		"fargate":                      {func(n *runner.Node, _ *runner.Instance) { n.ProviderID = "aws:///us-east-1a/fargate-ip-10" }, "host.providerId", runner.Fail},
		"another instance answered":    {func(_ *runner.Node, in *runner.Instance) { in.ID = "i-0fffffffffffffff0" }, "host.described", runner.Unknown},
		"stopping":                     {func(_ *runner.Node, in *runner.Instance) { in.State = "stopping" }, "host.running", runner.Fail},
		"address of another machine":   {func(_ *runner.Node, in *runner.Instance) { in.PrivateIP = "10.0.9.9" }, "host.address", runner.Fail},
		"account outside the BAA list": {func(_ *runner.Node, in *runner.Instance) { in.AccountID = "999" }, "host.account", runner.Fail},
		"region":                       {func(_ *runner.Node, in *runner.Instance) { in.Region = "eu-west-1" }, "host.region", runner.Fail},
		"public subnet":                {func(_ *runner.Node, in *runner.Instance) { in.Subnet = "subnet-2" }, "host.subnet", runner.Fail},
		"public address":               {func(_ *runner.Node, in *runner.Instance) { in.PublicIP = "8.8.8.8" }, "host.noPublicIp", runner.Fail},
		"no group":                     {func(_ *runner.Node, in *runner.Instance) { in.Group = "" }, "host.group", runner.Unknown},
		"tags":                         {func(_ *runner.Node, in *runner.Instance) { in.Tags = nil }, "host.tags", runner.Fail},
		"IMDSv1":                       {func(_ *runner.Node, in *runner.Instance) { in.HTTPTokens = "optional" }, "host.imdsv2", runner.Fail},
		"hop limit 2":                  {func(_ *runner.Node, in *runner.Instance) { in.HopLimit = 2 }, "host.hopLimit", runner.Fail},
		"legacy boot":                  {func(_ *runner.Node, in *runner.Instance) { in.BootMode = "legacy-bios" }, "host.bootMode", runner.Fail},
		"image of another family":      {func(_ *runner.Node, in *runner.Instance) { in.ImageName = "ubuntu-24" }, "image.allowed", runner.Fail},
		"image metadata missing":       {func(_ *runner.Node, in *runner.Instance) { in.ImageName = "" }, "image.allowed", runner.Unknown},
		"leaving its group":            {func(_ *runner.Node, in *runner.Instance) { in.Lifecycle = "Terminating:Wait" }, "host.lifecycle", runner.Fail},
		"retained by its group":        {func(_ *runner.Node, in *runner.Instance) { in.Lifecycle = "Terminating:Retained" }, "host.lifecycle", runner.Fail},
		"in a warm pool":               {func(_ *runner.Node, in *runner.Instance) { in.Lifecycle = "Warmed:Running" }, "host.lifecycle", runner.Fail},
		"lifecycle not learned":        {func(_ *runner.Node, in *runner.Instance) { in.Lifecycle = "" }, "host.lifecycle", runner.Unknown},
		"another profile":              {func(_ *runner.Node, in *runner.Instance) { in.Profile += "2" }, "host.profile", runner.Fail},
		"no profile":                   {func(_ *runner.Node, in *runner.Instance) { in.Profile = "" }, "host.profile", runner.Unknown},
		"subnet open to the world":     {func(_ *runner.Node, in *runner.Instance) { in.PrivateSubnet = new(false) }, "host.privateSubnet", runner.Fail},
		"subnet not learned":           {func(_ *runner.Node, in *runner.Instance) { in.PrivateSubnet = nil }, "host.privateSubnet", runner.Unknown},
		"root volume replaced":         {func(_ *runner.Node, in *runner.Instance) { in.Attachments[0].At = epoch.Add(61 * time.Second) }, "host.volumes", runner.Fail},
		"root volume older":            {func(_ *runner.Node, in *runner.Instance) { in.Attachments[0].At = epoch.Add(-61 * time.Second) }, "host.volumes", runner.Fail},
		"volume attached later":        {func(_ *runner.Node, in *runner.Instance) { in.Attachments[1].At = epoch.Add(time.Hour) }, "host.volumes", runner.Fail},
		"a late volume and unknown": {func(_ *runner.Node, in *runner.Instance) {
			in.Attachments[0].At, in.Attachments[1].At = time.Time{}, epoch.Add(time.Hour)
		}, "host.volumes", runner.Fail},
		"attach time missing":    {func(_ *runner.Node, in *runner.Instance) { in.Attachments[0].At = time.Time{} }, "host.volumes", runner.Unknown},
		"interface time missing": {func(_ *runner.Node, in *runner.Instance) { in.InterfaceAt = time.Time{} }, "host.volumes", runner.Unknown},
		"no root volume":         {func(_ *runner.Node, in *runner.Instance) { in.Attachments = in.Attachments[1:] }, "host.volumes", runner.Unknown},
		"no volumes":             {func(_ *runner.Node, in *runner.Instance) { in.Attachments = nil }, "host.volumes", runner.Unknown},
		"image of somebody":      {func(_ *runner.Node, in *runner.Instance) { in.ImageOwner, in.ImageOwnerAlias = "666", "" }, "image.owner", runner.Fail},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			node, in := goodNode(), goodInstance()
			tc.breakIt(&node, &in)
			checks := runner.Vet(node, &in, vetRules())
			if runner.Vetted(checks) {
				t.Fatalf("vetted although %s", name)
			}
			for _, c := range checks {
				if c.Name == tc.check && c.Verdict == tc.want {
					return
				}
			}
			t.Errorf("checks = %v, want %s to say %s", checks, tc.check, tc.want)
		})
	}
	t.Run("the cloud said nothing", func(t *testing.T) {
		if checks := runner.Vet(goodNode(), nil, vetRules()); runner.Vetted(checks) {
			t.Errorf("vetted without an instance: %v", checks)
		}
	})
}

func TestVetTakesAnImageThatAPublicParameterNames(t *testing.T) {
	const parameter, other = "/aws/service/bottlerocket/aws-k8s-1.37/x86_64/latest/image_id", "/aws/service/bottlerocket/aws-k8s-1.36/x86_64/latest/image_id"
	tests := map[string]struct {
		names []string // prefixes of image names
		now   map[string]string
		want  runner.Verdict
		match string
	}{
		"named":                         {nil, map[string]string{parameter: "ami-1", other: "ami-2"}, runner.Pass, parameter},
		"named, another unresolved":     {nil, map[string]string{parameter: "ami-1"}, runner.Pass, parameter},
		"of another release":            {nil, map[string]string{parameter: "ami-3", other: "ami-2"}, runner.Fail, ""},
		"not named, another unresolved": {nil, map[string]string{other: "ami-2"}, runner.Unknown, ""},
		"nothing resolved":              {nil, nil, runner.Unknown, ""},
		"resolved to nothing":           {nil, map[string]string{parameter: "", other: "ami-2"}, runner.Unknown, ""},
		"allowed by its name":           {[]string{"bottlerocket-"}, nil, runner.Pass, ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			in, rules := goodInstance(), vetRules()
			in.ParameterImages = tc.now
			rules.ImageNames, rules.ImageParameters = tc.names, []string{other, parameter}
			host := runner.HostOf(goodNode(), &in, rules)
			if !slices.Contains(host.Checks, runner.Check{Name: "image.allowed", Verdict: tc.want}) {
				t.Errorf("checks = %v, want image.allowed to say %s", host.Checks, tc.want)
			}
			if host.ImageParameter != tc.match {
				t.Errorf("the record names parameter %q, want %q", host.ImageParameter, tc.match)
			}
		})
	}
}

// TestHostOfKeepsWhatAnAuditorJoins: every key of the cloud's own trails goes
// into the record, and has a shape that the record takes.
func TestHostOfKeepsWhatAnAuditorJoins(t *testing.T) {
	in := goodInstance()
	in.VPC, in.NetworkInterfaces, in.Volumes = "vpc-1", []string{"eni-1"}, []string{"vol-1", "vol-2"}
	h := runner.HostOf(goodNode(), &in, vetRules())
	if h.VPC != "vpc-1" || !slices.Equal(h.NetworkInterfaces, in.NetworkInterfaces) || h.Profile != in.Profile || h.PrivateIP != in.PrivateIP {
		t.Errorf("host = %+v, want network, address and profile of %+v", h, in)
	}
	if err := runner.Validate(h); err != nil {
		t.Errorf("Validate = %v, want nil", err)
	}
}
