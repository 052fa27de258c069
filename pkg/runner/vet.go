package runner

import (
	"regexp"
	"slices"
	"strings"
	"time"
)

// VetRules say what a host must be to serve a runner. Empty lists allow
// nothing, except where a field says otherwise.
type VetRules struct {
	Provider    string // "aws" or "none"
	Cluster     string
	Labels      map[string]string
	Taint       Taint
	Accounts    []string // the BAA list
	Regions     []string
	Subnets     []string
	ImageIDs    []string // exact AMI ids; with ImageNames, either may match
	ImageNames  []string // prefixes of EC2's own image name
	ImageOwners []string // owner aliases or account ids
	// ImageParameters are names of public parameters; an image that one of
	// them names is allowed as one of ImageIDs is.
	ImageParameters []string
	Profiles        []string // ARNs of instance profiles
	OSImage         *regexp.Regexp
	InstanceTags    map[string]string
	Groups          []string // Auto Scaling groups
	// NodeClaims: hosts are of NodeClaims of the pool instead of groups.
	NodeClaims bool
	BootModes  []string // such as "uefi"
	// IdentityRequired: a host without an identity document is not vetted.
	IdentityRequired bool
}

var providerID = regexp.MustCompile(`\Aaws:///[a-z0-9-]*/(i-[0-9a-f]{8,17})\z`)

// InstanceID is the EC2 instance a node says it runs on: the last part of
// aws:///zone/i-…. Fargate and hybrid nodes have none.
func (n Node) InstanceID() (string, bool) {
	m := providerID.FindStringSubmatch(n.ProviderID)
	if m == nil {
		return "", false
	}
	return m[1], true
}

// CheckNodeReady says that the cluster hears from the node's kubelet.
const CheckNodeReady = "node.ready"

// Vet asks whether this node on this instance may serve a runner. Every check
// that applies is listed, passed or not; the host is vetted when all pass. The
// instance is what the cloud says, nil when it said nothing.
func Vet(n Node, in *Instance, rules VetRules) []Check {
	v := vetting{}
	v.is(CheckNodeReady, n.Ready)
	v.is("node.uncordoned", !n.Cordoned)
	v.is("node.unclaimed", n.ClaimedBy == "")
	v.known("node.bootId", n.BootID != "", true)
	v.is("node.labels", containsAll(n.Labels, rules.Labels))
	v.is("node.taint", slices.Contains(n.Taints, rules.Taint))
	if rules.OSImage != nil {
		v.known("node.osImage", n.OSImage != "", rules.OSImage.MatchString(n.OSImage))
	}
	if rules.Provider == "aws" {
		v.aws(n, in, rules)
	}
	return v.checks
}

// Vetted says that there were checks and all passed.
func Vetted(checks []Check) bool {
	return len(checks) > 0 && !slices.ContainsFunc(checks, func(c Check) bool { return c.Verdict != Pass })
}

type vetting struct{ checks []Check }

func (v *vetting) is(name string, ok bool) { v.known(name, true, ok) }

func (v *vetting) known(name string, known, ok bool) {
	verdict := Unknown
	switch {
	case known && ok:
		verdict = Pass
	case known:
		verdict = Fail
	}
	v.checks = append(v.checks, Check{name, verdict})
}

func (v *vetting) aws(n Node, in *Instance, rules VetRules) {
	id, ok := n.InstanceID()
	v.known("host.providerId", n.ProviderID != "", ok)
	if in == nil || in.ID != id {
		v.known("host.described", false, false)
		return
	}
	v.is("host.described", true)
	v.is("host.running", in.State == "running")
	v.known("host.address", in.PrivateIP != "" && n.InternalIP != "", in.PrivateIP == n.InternalIP)
	v.listed("host.account", in.AccountID, rules.Accounts)
	v.listed("host.region", in.Region, rules.Regions)
	v.listed("host.subnet", in.Subnet, rules.Subnets)
	v.is("host.noPublicIp", in.PublicIP == "")
	v.known("host.privateSubnet", in.PrivateSubnet != nil, in.PrivateSubnet != nil && *in.PrivateSubnet)
	if rules.NodeClaims {
		v.nodeClaim(in)
	} else {
		v.listed("host.group", in.Group, rules.Groups)
		// Every other state is one that the group is about to end, or has not begun.
		v.known("host.lifecycle", in.Lifecycle != "", in.Lifecycle == "InService")
	}
	v.listed("host.profile", in.Profile, rules.Profiles)
	v.volumes(in)
	v.is("host.tags", containsAll(in.Tags, rules.InstanceTags))
	v.known("host.imdsv2", in.HTTPTokens != "", in.HTTPTokens == "required")
	v.known("host.hopLimit", in.HopLimit != 0, in.HopLimit == 1)
	v.listed("host.bootMode", in.BootMode, rules.BootModes)
	v.image(in, rules)
}

// tagNodeClaim is what Karpenter writes on an instance once its node has
// registered (karpenter-provider-aws, pkg/controllers/nodeclaim/tagging).
const tagNodeClaim = "karpenter.sh/nodeclaim"

// nodeClaim says that the instance was launched for a NodeClaim of the pool, that
// EC2 names the same one, and that nobody has asked for its end.
func (v *vetting) nodeClaim(in *Instance) {
	var claim NodeClaim
	if in.NodeClaim != nil {
		claim = *in.NodeClaim
	}
	v.known("host.nodeClaim", in.NodeClaim != nil, claim.Name != "")
	tag := in.Tags[tagNodeClaim]
	v.known("host.nodeClaimTag", tag != "" && in.NodeClaim != nil, tag == claim.Name)
	v.known("host.nodeClaimReady", claim.State != "", claim.State == NodeClaimReady)
}

// image goes by EC2's own image metadata; the node's osImage is a claim.
func (v *vetting) image(in *Instance, rules VetRules) {
	named := slices.ContainsFunc(rules.ImageNames, func(prefix string) bool {
		return prefix != "" && strings.HasPrefix(in.ImageName, prefix)
	})
	_, resolved := imageParameter(in, rules)
	allowed := named || slices.Contains(rules.ImageIDs, in.ImageID) || resolved == Pass
	v.known("image.allowed", in.ImageID != "" && in.ImageName != "" && (allowed || resolved == Fail), allowed)
	owned := slices.Contains(rules.ImageOwners, in.ImageOwner) || slices.Contains(rules.ImageOwners, in.ImageOwnerAlias)
	v.known("image.owner", in.ImageOwner != "" || in.ImageOwnerAlias != "", owned)
}

// imageParameter is the first of the rules' parameters that names the image.
// It is unknown whether one does while one is not resolved.
func imageParameter(in *Instance, rules VetRules) (string, Verdict) {
	verdict := Fail
	for _, name := range rules.ImageParameters {
		switch image, ok := in.ParameterImages[name]; {
		case !ok || image == "":
			verdict = Unknown
		case image == in.ImageID:
			return name, Pass
		}
	}
	return "", verdict
}

// attachWindow is how far the primary network interface and a volume may be
// apart in time when both were attached at launch. A volume outside of it was
// attached, or the root volume replaced, afterwards. It is the window of SPIRE's
// node attestor aws_iid.
const attachWindow = time.Minute

// volumes says that every EBS volume was attached at launch, so that it ends
// with the instance and nobody has swapped the system.
func (v *vetting) volumes(in *Instance) {
	known, launched, root := !in.InterfaceAt.IsZero(), true, false
	for _, a := range in.Attachments {
		root = root || a.Root
		switch {
		case a.At.IsZero():
			known = false
		case !in.InterfaceAt.IsZero() && a.At.Sub(in.InterfaceAt).Abs() > attachWindow:
			launched = false
		}
	}
	v.known("host.volumes", known && root || !launched, launched)
}

func (v *vetting) listed(name, value string, allowed []string) {
	v.known(name, value != "", slices.Contains(allowed, value))
}

func containsAll(have, want map[string]string) bool {
	for k, v := range want {
		if got, ok := have[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// HostOf is the host as it goes into the claimed record.
func HostOf(n Node, in *Instance, rules VetRules) Host {
	h := Host{
		Provider: rules.Provider, NodeName: n.Name, NodeUID: n.UID, BootID: n.BootID,
		ProviderID: n.ProviderID, OSImage: n.OSImage, Kubelet: n.KubeletVersion,
		Assurance: L0, Checks: Vet(n, in, rules), InstanceID: n.UID,
	}
	if in != nil {
		h.InstanceID, h.AccountID, h.Region, h.Zone = in.ID, in.AccountID, in.Region, in.Zone
		h.ImageID, h.ImageName, h.InstanceType = in.ImageID, in.ImageName, in.Type
		h.PrivateIP, h.Subnet, h.LaunchedAt = in.PrivateIP, in.Subnet, in.LaunchedAt
		h.VPC, h.Profile, h.NetworkInterfaces = in.VPC, in.Profile, in.NetworkInterfaces
		h.Volumes = in.Volumes
		if in.NodeClaim != nil {
			h.NodeClaim = in.NodeClaim.Name
		}
		h.ImageParameter, _ = imageParameter(in, rules)
		h.Assurance = L1
	}
	return h
}
