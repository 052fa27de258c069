package simaws

import (
	"cmp"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// versionEC2 is the only version of the API that is spoken.
const versionEC2 = "2016-11-15"

var (
	instanceIDShape = regexp.MustCompile(`\Ai-([0-9a-f]{8}|[0-9a-f]{17})\z`)
	volumeIDShape   = regexp.MustCompile(`\Avol-([0-9a-f]{8}|[0-9a-f]{17})\z`)
)

// ec2 runs one action of EC2. The error codes are those of
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
func (s *Server) ec2(c call, kind FaultKind, now time.Time) (any, error) {
	switch {
	case c.action == "":
		return nil, missing("Action")
	case c.form.Get("Version") == "":
		return nil, missing("Version")
	case c.form.Get("Version") != versionEC2:
		return nil, &apiError{http.StatusBadRequest, "NoSuchVersion", "The specified API version does not exist"}
	}
	run, known := map[string]func(call, FaultKind, time.Time) (any, error){
		"DescribeInstances":             s.describeInstances,
		"DescribeInstanceImageMetadata": s.describeImageMetadata,
		"DescribeRouteTables":           s.describeRouteTables,
		"DescribeSubnets":               s.describeSubnets,
		"DescribeVolumes":               s.describeVolumes,
		"TerminateInstances":            s.terminateInstances,
	}[c.action]
	if !known {
		return nil, &apiError{http.StatusBadRequest, "InvalidAction", "The action " + c.action + " is not valid for this web service."}
	}
	if err := knownParameters(c); err != nil {
		return nil, err
	}
	dryRun, _, err := flag(c.form, "DryRun")
	if err != nil {
		return nil, err
	}
	if dryRun {
		return nil, &apiError{http.StatusPreconditionFailed, "DryRunOperation", "Request would have succeeded, but DryRun flag is set."}
	}
	return run(c, kind, now)
}

func missing(parameter string) error {
	return &apiError{http.StatusBadRequest, "MissingParameter", "The request must contain the parameter " + parameter}
}

// knownParameters refuses what the action does not take (UnknownParameter).
func knownParameters(c call) error {
	takes := map[string][]string{
		"DescribeInstances":             {"InstanceId", "Filter", "MaxResults", "NextToken", "IncludeManagedResources"},
		"DescribeInstanceImageMetadata": {"InstanceId", "Filter", "MaxResults", "NextToken"},
		"DescribeVolumes":               {"VolumeId", "Filter", "MaxResults", "NextToken", "IncludeManagedResources"},
		"DescribeSubnets":               {"SubnetId", "Filter", "MaxResults", "NextToken"},
		"DescribeRouteTables":           {"RouteTableId", "Filter", "MaxResults", "NextToken"},
		"TerminateInstances":            {"InstanceId", "Force", "SkipOsShutdown"},
	}[c.action]
	for key := range c.form {
		name, _, _ := strings.Cut(key, ".")
		if !slices.Contains(takes, name) && !slices.Contains([]string{"Action", "Version", "DryRun"}, name) {
			return &apiError{http.StatusBadRequest, "UnknownParameter", "The parameter " + name + " is not recognized"}
		}
	}
	return nil
}

var instanceFilters = []string{
	"instance-id", "instance-state-name", "image-id", "instance-type", "subnet-id", "vpc-id",
	"availability-zone", "private-dns-name", "private-ip-address", "tag-key", "tag:",
}

// selectInstances are the instances that a description is about. An id that
// does not exist fails the call; a filter value that does not, matches nothing.
func (s *Server) selectInstances(form url.Values, now time.Time) ([]*instance, error) {
	fs, err := filters(form, instanceFilters...)
	if err != nil {
		return nil, err
	}
	ids := list(form, "InstanceId")
	if err := s.checkInstanceIDs(ids, now); err != nil {
		return nil, err
	}
	var out []*instance
	for _, in := range s.instances {
		wanted := len(ids) == 0 || slices.Contains(ids, in.ID)
		if wanted && s.listed(in, now) && matches(fs, in.filterValues) {
			out = append(out, in)
		}
	}
	return out, nil
}

func (in *instance) filterValues(name string) []string {
	if key, ok := strings.CutPrefix(name, "tag:"); ok {
		if v, ok := in.Tags[key]; ok {
			return []string{v}
		}
		return nil
	}
	switch name {
	case "instance-id":
		return []string{in.ID}
	case "instance-state-name":
		return []string{in.State}
	case "image-id":
		return []string{in.ImageID}
	case "instance-type":
		return []string{in.InstanceType}
	case "availability-zone":
		return []string{in.Zone}
	case "tag-key":
		return sortedKeys(in.Tags)
	}
	if in.State == stateTerminated {
		return nil
	}
	switch name {
	case "subnet-id":
		return []string{in.Subnet}
	case "vpc-id":
		return []string{in.VPC}
	case "private-dns-name":
		return []string{in.PrivateDNS}
	default:
		return []string{in.PrivateIP}
	}
}

func (s *Server) checkInstanceIDs(ids []string, now time.Time) error {
	var unknown []string
	for _, id := range ids {
		if !instanceIDShape.MatchString(id) {
			return &apiError{http.StatusBadRequest, "InvalidInstanceID.Malformed", `Invalid id: "` + id + `"`}
		}
		if in := s.find(id); in == nil || !s.listed(in, now) {
			unknown = append(unknown, id)
		}
	}
	switch len(unknown) {
	case 0:
		return nil
	case 1:
		return &apiError{http.StatusBadRequest, "InvalidInstanceID.NotFound", "The instance ID '" + unknown[0] + "' does not exist"}
	}
	return &apiError{http.StatusBadRequest, "InvalidInstanceID.NotFound", "The instance IDs '" + strings.Join(unknown, ", ") + "' do not exist"}
}

func (s *Server) describeInstances(c call, kind FaultKind, now time.Time) (any, error) {
	if c.form.Has("InstanceId.1") && (c.form.Has("MaxResults") || c.form.Has("NextToken")) {
		// "You cannot specify this parameter and the instance IDs parameter in
		// the same request", API reference of DescribeInstances.
		return nil, &apiError{http.StatusBadRequest, "InvalidParameterCombination",
			"The parameter instancesSet cannot be used with the parameter maxResults"}
	}
	found, err := s.selectInstances(c.form, now)
	if err != nil {
		return nil, err
	}
	if kind == Stale {
		found = nil
	}
	found, next, err := page(found, c.form, "MaxResults", limits{5, 1000, 0})
	if err != nil {
		return nil, err
	}
	out := describeInstancesResponse{RequestID: c.id, NextToken: next}
	for _, in := range found {
		out.Reservations.Item = append(out.Reservations.Item, s.reservationOf(in))
	}
	return out, nil
}

// describeImageMetadata: "describes the AMI that was used to launch an
// instance, even if the AMI is deprecated, deregistered, made private".
func (s *Server) describeImageMetadata(c call, kind FaultKind, now time.Time) (any, error) {
	found, err := s.selectInstances(c.form, now)
	if err != nil {
		return nil, err
	}
	if kind == Stale {
		found = nil
	}
	found, next, err := page(found, c.form, "MaxResults", limits{5, 1000, 1000})
	if err != nil {
		return nil, err
	}
	out := describeImageMetadataResponse{RequestID: c.id, NextToken: next}
	for _, in := range found {
		out.Instances.Item = append(out.Instances.Item, imageMetadataOf(in))
	}
	return out, nil
}

var volumeFilters = []string{"volume-id", "status", "attachment.instance-id", "availability-zone"}

func (s *Server) describeVolumes(c call, kind FaultKind, now time.Time) (any, error) {
	fs, err := filters(c.form, volumeFilters...)
	if err != nil {
		return nil, err
	}
	ids := list(c.form, "VolumeId")
	for _, id := range ids {
		if !volumeIDShape.MatchString(id) {
			return nil, &apiError{http.StatusBadRequest, "InvalidVolumeID.Malformed", `Invalid id: "` + id + `"`}
		}
		if v := s.volumes[id]; v == nil || s.volumeStatus(v, now) == "" {
			return nil, &apiError{http.StatusBadRequest, "InvalidVolume.NotFound", "The volume '" + id + "' does not exist."}
		}
	}
	var found []*volume
	for _, v := range s.volumes {
		status := s.volumeStatus(v, now)
		wanted := len(ids) == 0 || slices.Contains(ids, v.id)
		if status != "" && wanted && kind != Stale && matches(fs, func(name string) []string {
			return map[string][]string{
				"volume-id": {v.id}, "status": {status}, "attachment.instance-id": {v.instance}, "availability-zone": {v.zone},
			}[name]
		}) {
			found = append(found, v)
		}
	}
	slices.SortFunc(found, func(a, b *volume) int { return cmp.Compare(a.id, b.id) })
	found, next, err := page(found, c.form, "MaxResults", limits{5, 1000, 0})
	if err != nil {
		return nil, err
	}
	out := describeVolumesResponse{RequestID: c.id, NextToken: next}
	for _, v := range found {
		out.Volumes.Item = append(out.Volumes.Item, volumeItem(v, s.volumeStatus(v, now)))
	}
	return out, nil
}

// terminateInstances: "this operation is idempotent"; "if you specify multiple
// instances and the request fails (for example, because of a single incorrect
// instance ID), none of the instances are terminated".
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_TerminateInstances.html
func (s *Server) terminateInstances(c call, kind FaultKind, now time.Time) (any, error) {
	ids := list(c.form, "InstanceId")
	if len(ids) == 0 {
		return nil, missing("InstanceId")
	}
	if err := s.checkInstanceIDs(ids, now); err != nil {
		return nil, err
	}
	for _, id := range ids {
		if s.find(id).protected {
			return nil, &apiError{http.StatusBadRequest, "OperationNotPermitted", "The instance '" + id +
				"' may not be terminated. Modify its 'disableApiTermination' instance attribute and try again."}
		}
	}
	out := terminateInstancesResponse{RequestID: c.id}
	for _, id := range ids {
		in := s.find(id)
		was := in.State
		if kind != Ignored {
			in.stuck = in.stuck || kind == Stuck
			s.end(in, true, now)
			if g := s.group(in.Group); g != nil && (!in.leaving() || in.lifecycle == lifecycleRetained) {
				g.checks = append(g.checks, now.Add(s.cfg.HealthCheck))
			}
		}
		is := in.State
		if kind == Ignored && was != stateTerminated {
			is = stateShuttingDown
		}
		out.Instances.Item = append(out.Instances.Item, stateChange{id, stateOf(is), stateOf(was)})
	}
	return out, nil
}
