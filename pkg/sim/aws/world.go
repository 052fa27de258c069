package simaws

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// The states of an instance, with the codes of the API:
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_InstanceState.html
const (
	statePending      = "pending"
	stateRunning      = "running"
	stateShuttingDown = "shutting-down"
	stateTerminated   = "terminated"
)

func stateCode(state string) int {
	return map[string]int{statePending: 0, stateRunning: 16, stateShuttingDown: 32, stateTerminated: 48}[state]
}

// stuckFor is the "several hours" after which EC2 forces a stuck instance.
const stuckFor = 6 * time.Hour

// Instance is what the simulator knows of an instance. Unlike the API it still
// tells a terminated instance's addresses, volumes and group.
type Instance struct {
	ID, State                         string
	StateReason, TransitionReason     string
	AccountID, Region, Zone           string
	VPC, Subnet                       string
	PrivateIP, PrivateDNS             string
	ImageID, InstanceType             string
	Group                             string // of which it is a member, empty if none
	LaunchedAt, EndedAt, TerminatedAt time.Time
	Volumes, NetworkInterfaces        []string
	Tags                              map[string]string
}

// ProviderID is the id that the cloud provider writes on the node:
// https://github.com/kubernetes/cloud-provider-aws
func (in Instance) ProviderID() string { return "aws:///" + in.Zone + "/" + in.ID }

// instance moves pending → running → shutting-down → terminated → unlisted.
type instance struct {
	Instance
	spec      Group // how it was launched
	protected bool  // disableApiTermination
	// due is when the state changes by itself, zero if it does not.
	due time.Time
	// endAt is when a lifecycle hook lets it go, zero if none holds it.
	endAt     time.Time
	lifecycle string // of a group's member
	scaleIn   bool   // protected from scale in
	aged      bool
	stuck     bool
}

// volume is an EBS volume.
type volume struct {
	id, zone, instance, device string
	deleteOnTermination        bool
	attachedAt                 time.Time
	createdAt, deletedAt       time.Time
}

// Advance moves the world on to now and calls the hooks that became due.
// Everything that happened in between happens in order and at its own time.
func (s *Server) Advance() {
	s.mu.Lock()
	s.advance(time.Now())
	s.release()
}

// Instances are all instances ever launched, in order of launch.
func (s *Server) Instances() []Instance {
	s.mu.Lock()
	s.advance(time.Now())
	var out []Instance
	for _, in := range s.instances {
		out = append(out, in.copy())
	}
	s.release()
	return out
}

// Instance is one instance, whether the API still lists it or not.
func (s *Server) Instance(id string) (Instance, bool) {
	for _, in := range s.Instances() {
		if in.ID == id {
			return in, true
		}
	}
	return Instance{}, false
}

func (in *instance) copy() Instance {
	out := in.Instance
	out.Volumes, out.NetworkInterfaces = slices.Clone(in.Volumes), slices.Clone(in.NetworkInterfaces)
	out.Tags = maps.Clone(in.Tags)
	return out
}

// AttachVolume attaches a volume to a running instance, as a CSI driver would.
// By default such a volume outlives the instance: "volumes attached after
// instance launch continue running", API reference of TerminateInstances.
func (s *Server) AttachVolume(instanceID string) (string, error) {
	s.mu.Lock()
	defer s.release()
	s.advance(time.Now())
	in := s.find(instanceID)
	if in == nil || in.State != stateRunning {
		return "", fmt.Errorf("attach a volume to %s: not running", instanceID)
	}
	return s.newVolume(in, "/dev/xvdba", false, time.Now()), nil
}

// ReplaceRoot swaps the root volume of a running instance, which gets a new
// volume with a new attach time:
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/replace-root.html
func (s *Server) ReplaceRoot(instanceID string) error {
	s.mu.Lock()
	defer s.release()
	now := time.Now()
	s.advance(now)
	in := s.find(instanceID)
	if in == nil || in.State != stateRunning {
		return fmt.Errorf("replace the root volume of %s: not running", instanceID)
	}
	old := in.Volumes[0]
	s.volumes[old].instance, s.volumes[old].deletedAt = "", now
	fresh := s.newVolume(in, "/dev/xvda", true, now)
	in.Volumes = append([]string{fresh}, in.Volumes[1:len(in.Volumes)-1]...)
	return nil
}

// Protect sets the instance's disableApiTermination attribute.
func (s *Server) Protect(instanceID string, on bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.find(instanceID)
	if in == nil {
		return fmt.Errorf("protect %s: no such instance", instanceID)
	}
	in.protected = on
	return nil
}

func (s *Server) find(id string) *instance {
	i := slices.IndexFunc(s.instances, func(in *instance) bool { return in.ID == id })
	if i < 0 {
		return nil
	}
	return s.instances[i]
}

// listed says whether the API admits that the instance exists.
func (s *Server) listed(in *instance, now time.Time) bool {
	return !in.aged && !now.Before(in.LaunchedAt.Add(s.cfg.Unseen))
}

// advance lets everything happen that is due by now, earliest first.
func (s *Server) advance(now time.Time) {
	for {
		var next func(time.Time)
		var at time.Time
		consider := func(due time.Time, step func(time.Time)) {
			if !due.IsZero() && !due.After(now) && (next == nil || due.Before(at)) {
				next, at = step, due
			}
		}
		for _, in := range s.instances {
			consider(in.due, func(at time.Time) { s.step(in, at) })
			consider(in.endAt, func(at time.Time) { s.end(in, false, at) })
		}
		for _, g := range s.groups {
			consider(g.nextLaunch(), func(at time.Time) { s.refill(g, at) })
			consider(g.nextCheck(), func(at time.Time) { s.healthCheck(g, at) })
		}
		if next == nil {
			return
		}
		next(at)
	}
}

// step is a change of state that needs nobody.
func (s *Server) step(in *instance, at time.Time) {
	in.due = time.Time{}
	switch in.State {
	case statePending:
		in.State = stateRunning
		switch in.lifecycle {
		case lifecyclePending:
			in.lifecycle = lifecycleInService
			s.finish(in.ID, launchActivity, at)
		case lifecycleWarmedPending:
			in.lifecycle = lifecycleWarmed
		}
		if snapshot := in.copy(); s.cfg.OnLaunch != nil {
			s.hooks = append(s.hooks, func() { s.cfg.OnLaunch(snapshot) })
		}
	case stateShuttingDown:
		in.State = stateTerminated
		in.TerminatedAt = at
		in.due = at.Add(s.cfg.AgeOut)
		s.releaseVolumes(in, at)
		s.leave(in, at)
		if s.cfg.OnTerminated != nil {
			s.hooks = append(s.hooks, func() { s.cfg.OnTerminated(in.ID) })
		}
	case stateTerminated:
		in.aged = true
	}
}

// end begins the shutdown. The wording of the transition reason and the code
// are EC2's: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StateReason.html
// A hook that is abandoned under a policy to retain ends nothing, unless the end
// is forced: TerminateInstances asks no hook.
func (s *Server) end(in *instance, forced bool, at time.Time) {
	in.endAt = time.Time{}
	if in.State == stateShuttingDown || in.State == stateTerminated {
		return
	}
	if hook := s.group(in.Group); hook != nil && in.lifecycle == lifecycleWait && hook.HookAbandons && hook.Retains && !forced {
		// "Set to retain to move instances to a retained state": RetentionTriggers.
		in.lifecycle = lifecycleRetained
		return
	}
	in.State = stateShuttingDown
	in.EndedAt = at
	in.StateReason = "Client.UserInitiatedShutdown"
	in.TransitionReason = "User initiated (" + at.UTC().Format("2006-01-02 15:04:05") + " GMT)"
	in.due = at.Add(s.cfg.ShuttingDown)
	if in.stuck {
		in.due = at.Add(stuckFor)
	}
	if in.lifecycle == lifecycleWait || in.lifecycle == lifecycleRetained {
		in.lifecycle = lifecycleProceed
	}
}

// releaseVolumes: "when you terminate an instance, any attached EBS volumes
// with the DeleteOnTermination block device mapping parameter set to true are
// automatically deleted", API reference of TerminateInstances.
func (s *Server) releaseVolumes(in *instance, at time.Time) {
	for _, id := range in.Volumes {
		v := s.volumes[id]
		if v.deleteOnTermination {
			v.deletedAt = at
		}
		v.instance = ""
	}
}

// volumeStatus is the volume's status now, empty once it no longer exists.
func (s *Server) volumeStatus(v *volume, now time.Time) string {
	switch {
	case v.instance != "":
		return "in-use"
	case v.deletedAt.IsZero():
		return "available"
	case now.Before(v.deletedAt.Add(s.cfg.VolumeDeleting)):
		return "deleting"
	}
	return ""
}

// launch makes an instance with fresh ids.
func (s *Server) launch(g Group, member bool, at time.Time) *instance {
	n := len(s.instances)
	subnets := max(len(g.SubnetIDs), 1)
	subnet := n % subnets
	ip := fmt.Sprintf("10.0.%d.%d", subnet+subnets*(n/200), 10+n%200)
	in := &instance{spec: g, due: at.Add(s.cfg.LaunchTime)}
	in.Instance = Instance{
		ID: s.resource("i-"), State: statePending, AccountID: s.cfg.AccountID,
		Region: s.cfg.Region, Zone: s.zone(subnet), VPC: vpcID, PrivateIP: ip,
		PrivateDNS: s.privateDNS(ip), ImageID: g.ImageID, InstanceType: g.InstanceType,
		LaunchedAt: at, NetworkInterfaces: []string{s.resource("eni-")}, Tags: maps.Clone(g.Tags),
	}
	if len(g.SubnetIDs) > 0 {
		in.Subnet = g.SubnetIDs[subnet]
	}
	if in.Tags == nil {
		in.Tags = map[string]string{}
	}
	if member {
		in.Group = g.Name
		in.lifecycle, in.scaleIn = lifecyclePending, g.ProtectsNew
		// Auto Scaling tags what it launches; nobody else can write aws: tags.
		// https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-tagging.html
		in.Tags["aws:autoscaling:groupName"] = g.Name
	}
	s.instances = append(s.instances, in)
	// Bottlerocket has a volume for the system and one for data.
	s.newVolume(in, "/dev/xvda", true, at)
	s.newVolume(in, "/dev/xvdb", true, at)
	return in
}

func (s *Server) newVolume(in *instance, device string, deleteOnTermination bool, at time.Time) string {
	v := &volume{
		id: s.resource("vol-"), zone: in.Zone, instance: in.ID, device: device,
		deleteOnTermination: deleteOnTermination, createdAt: at, attachedAt: at,
	}
	s.volumes[v.id] = v
	in.Volumes = append(in.Volumes, v.id)
	return v.id
}

func (s *Server) zone(n int) string { return s.cfg.Region + string(rune('a'+n%3)) }

// privateDNS is the IP-based name:
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-naming.html
func (s *Server) privateDNS(ip string) string {
	name := "ip-" + strings.ReplaceAll(ip, ".", "-")
	if s.cfg.Region == "us-east-1" {
		return name + ".ec2.internal"
	}
	return name + "." + s.cfg.Region + ".compute.internal"
}

func (s *Server) hex(n int) string {
	const digits = "0123456789abcdef"
	b := make([]byte, n)
	for i := range b {
		b[i] = digits[s.rng.IntN(len(digits))]
	}
	return string(b)
}

// resource is a new id in the long format, 17 digits since 2018:
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/resource-ids.html
func (s *Server) resource(prefix string) string { return prefix + "0" + s.hex(16) }

func (s *Server) uuid() string {
	return s.hex(8) + "-" + s.hex(4) + "-4" + s.hex(3) + "-8" + s.hex(3) + "-" + s.hex(12)
}
