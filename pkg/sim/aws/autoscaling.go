package simaws

import (
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// versionAutoScaling is the only version of the API that is spoken.
const versionAutoScaling = "2011-01-01"

// The most ids that one call may name: API reference of
// DescribeAutoScalingInstances, SetInstanceProtection and
// TerminateInstanceInAutoScalingGroup.
const (
	maxDescribedMembers  = 50
	maxProtectedMembers  = 50
	maxTerminatedMembers = 100
)

// autoScaling runs one action of EC2 Auto Scaling:
// https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_Operations.html
func (s *Server) autoScaling(c call, kind FaultKind, now time.Time) (any, error) {
	run, known := map[string]func(call, FaultKind, time.Time) (any, error){
		"DescribeAutoScalingGroups":           s.describeGroups,
		"DescribeAutoScalingInstances":        s.describeMembers,
		"DescribeLifecycleHooks":              s.describeHooks,
		"DescribeScalingActivities":           s.describeActivities,
		"DescribeWarmPool":                    s.describeWarmPool,
		"SetDesiredCapacity":                  s.setDesired,
		"SetInstanceProtection":               s.setProtection,
		"TerminateInstanceInAutoScalingGroup": s.terminateMember,
	}[c.action]
	version := c.form.Get("Version")
	switch {
	case c.action == "":
		return nil, &apiError{http.StatusBadRequest, "MissingAction", "The request is missing an action or a required parameter."}
	case !known || version != versionAutoScaling:
		return nil, &apiError{http.StatusBadRequest, "InvalidAction",
			"Could not find operation " + c.action + " for version " + version}
	}
	return run(c, kind, now)
}

func validation(format string, args ...any) error {
	return &apiError{http.StatusBadRequest, "ValidationError", fmt.Sprintf(format, args...)}
}

// required reads a parameter in the service's own words when it is missing.
func required(form url.Values, key string) error {
	if form.Has(key) {
		return nil
	}
	member := strings.ToLower(key[:1]) + key[1:]
	return validation("1 validation error detected: Value null at '%s' failed to satisfy constraint: Member must not be null", member)
}

// scalingPage is a page in the words of this service.
func scalingPage[T any](all []T, form url.Values, most int) ([]T, string, error) {
	out, next, err := page(all, form, "MaxRecords", limits{1, most, min(most, 50)})
	if e, ok := errors.AsType[*apiError](err); ok && e.code == "InvalidPaginationToken" {
		return nil, "", &apiError{http.StatusBadRequest, "InvalidNextToken", "The NextToken value is not valid."}
	}
	if err != nil {
		return nil, "", validation("%v", err)
	}
	return out, next, nil
}

func (s *Server) describeGroups(c call, _ FaultKind, _ time.Time) (any, error) {
	names := list(c.form, "AutoScalingGroupNames.member")
	var found []*group
	for _, g := range s.groups {
		// A name that does not exist is left out without an error.
		if len(names) == 0 || slices.Contains(names, g.Name) {
			found = append(found, g)
		}
	}
	found, next, err := scalingPage(found, c.form, 100)
	if err != nil {
		return nil, err
	}
	result := describeGroupsResult{NextToken: next}
	for _, g := range found {
		result.Groups.Member = append(result.Groups.Member, s.groupXML(g))
	}
	return respond(c, result), nil
}

// describeMembers: "if you specify an ID that does not exist, it is ignored
// with no error", API reference of DescribeAutoScalingInstances.
func (s *Server) describeMembers(c call, kind FaultKind, now time.Time) (any, error) {
	ids := list(c.form, "InstanceIds.member")
	if len(ids) > maxDescribedMembers {
		return nil, validation("The number of instance ids that may be passed in is limited to %d", maxDescribedMembers)
	}
	var found []*instance
	for _, in := range s.instances {
		wanted := len(ids) == 0 || slices.Contains(ids, in.ID)
		if in.Group != "" && wanted && kind != Stale && s.listed(in, now) {
			found = append(found, in)
		}
	}
	found, next, err := scalingPage(found, c.form, maxDescribedMembers)
	if err != nil {
		return nil, err
	}
	result := describeMembersResult{NextToken: next}
	for _, in := range found {
		m := memberXML(in)
		m.Group = in.Group
		result.Instances.Member = append(result.Instances.Member, m)
	}
	return respond(c, result), nil
}

func (s *Server) describeActivities(c call, kind FaultKind, _ time.Time) (any, error) {
	name, ids := c.form.Get("AutoScalingGroupName"), list(c.form, "ActivityIds.member")
	if name != "" && s.group(name) == nil {
		return nil, validation("AutoScalingGroup name not found - AutoScalingGroup '%s' not found", name)
	}
	var found []*activity
	// "Activities are sorted by start time, newest first."
	for _, a := range slices.Backward(s.activities) {
		if kind != Stale && (name == "" || a.group == name) && (len(ids) == 0 || slices.Contains(ids, a.id)) {
			found = append(found, a)
		}
	}
	found, next, err := scalingPage(found, c.form, 100)
	if err != nil {
		return nil, err
	}
	result := describeActivitiesResult{NextToken: next}
	for _, a := range found {
		result.Activities.Member = append(result.Activities.Member, s.activityXML(a))
	}
	return respond(c, result), nil
}

// setProtection protects from scale in only: manual termination and health
// replacement go on.
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-instance-protection.html
func (s *Server) setProtection(c call, _ FaultKind, _ time.Time) (any, error) {
	name, ids := c.form.Get("AutoScalingGroupName"), list(c.form, "InstanceIds.member")
	protect, _, err := flag(c.form, "ProtectedFromScaleIn")
	switch missing := required(c.form, "ProtectedFromScaleIn"); {
	case missing != nil:
		return nil, missing
	case err != nil:
		return nil, err
	case len(ids) == 0:
		return nil, required(c.form, "InstanceIds")
	case len(ids) > maxProtectedMembers:
		return nil, &apiError{http.StatusBadRequest, "LimitExceeded", "The number of instance ids is limited to 50"}
	case s.group(name) == nil:
		return nil, validation("AutoScalingGroup name not found - null")
	}
	var protected []*instance
	for _, id := range ids {
		in := s.find(id)
		if in == nil || in.Group != name {
			return nil, notPartOf(id, name)
		}
		// Members of a warm pool are none of these either: "this operation cannot
		// be called on instances in a warm pool". The wording:
		// github.com/guardian/riff-raff#510.
		if in.lifecycle != lifecycleInService {
			return nil, validation("The instance %s is not in InService or EnteringStandby or Standby.", id)
		}
		protected = append(protected, in)
	}
	for _, in := range protected {
		in.scaleIn = protect
	}
	return respond(c, setProtectionResult{}), nil
}

// notPartOf is the service's wording: github.com/reproio/ecs_deploy#56.
func notPartOf(id, group string) error {
	return validation("The instance %s is not part of Auto Scaling group %s.", id, group)
}

// terminateMember ends members of a group, one by InstanceId or many of a
// named group by InstanceIds.
func (s *Server) terminateMember(c call, kind FaultKind, now time.Time) (any, error) {
	if err := required(c.form, "ShouldDecrementDesiredCapacity"); err != nil {
		return nil, err
	}
	decrement, _, err := flag(c.form, "ShouldDecrementDesiredCapacity")
	if err != nil {
		return nil, err
	}
	one, many := c.form.Get("InstanceId"), list(c.form, "InstanceIds.member")
	name := c.form.Get("AutoScalingGroupName")
	switch {
	case one == "" && len(many) == 0:
		return nil, required(c.form, "InstanceId")
	case one != "" && len(many) > 0:
		return nil, validation("Only one of InstanceId and InstanceIds may be specified")
	case len(many) > 0 && name == "":
		return nil, required(c.form, "AutoScalingGroupName")
	case len(many) > maxTerminatedMembers:
		return nil, validation("The number of instance ids that may be passed in is limited to %d", maxTerminatedMembers)
	}
	ids := many
	if one != "" {
		ids = []string{one}
	}
	doomed, err := s.terminable(ids, name, decrement)
	if err != nil {
		return nil, err
	}
	var activities []activityXML
	for _, in := range doomed {
		activities = append(activities, s.activityXML(s.terminateOne(in, decrement, kind, now)))
	}
	if one != "" {
		return respond(c, terminateMemberResult{Activity: &activities[0]}), nil
	}
	return respond(c, terminateMemberResult{Activities: &members[activityXML]{activities}}), nil
}

// terminable are the members with these ids, or why they may not be ended.
func (s *Server) terminable(ids []string, name string, decrement bool) ([]*instance, error) {
	var out []*instance
	for _, id := range ids {
		in := s.find(id)
		switch {
		case in == nil || in.Group == "":
			// The wording: github.com/yaybu/touchdown#51.
			return nil, validation("Instance Id not found - No managed instance found for instance ID: %s", id)
		case name != "" && in.Group != name:
			return nil, notPartOf(id, name)
		case in.warmed():
			// "This operation cannot be called on instances in a warm pool", API
			// reference. The wording is not published.
			return nil, validation("The instance %s is in a warm pool.", id)
		case in.leaving() && in.lifecycle != lifecycleRetained:
			// The reference does not say what a second call meets; the fault
			// that it documents is the harder answer for a caller.
			return nil, &apiError{http.StatusBadRequest, "ScalingActivityInProgress",
				"Activity to terminate " + id + " is in progress."}
		}
		out = append(out, in)
		// The wording: github.com/aws/aws-cli#47 and
		// github.com/buildkite/elastic-ci-stack-for-aws#1261.
		if g := s.group(in.Group); decrement && g.Desired-len(out) < g.Min {
			return nil, validation("Currently, desiredSize equals minSize (%d). Terminating instance without replacement will violate group's min size constraint. Either set shouldDecrementDesiredCapacity flag to false or lower group's min size.", g.Min)
		}
	}
	return out, nil
}

func (s *Server) terminateOne(in *instance, decrement bool, kind FaultKind, now time.Time) *activity {
	g := s.group(in.Group)
	if kind == Ignored {
		a := ended(g, in, now, userRequest)
		s.begin(a)
		return a
	}
	if decrement {
		g.Desired--
	}
	in.stuck = in.stuck || kind == Stuck
	if in.lifecycle == lifecycleRetained {
		// "Retained instances ... remain until you call
		// TerminateInstanceInAutoScalingGroup"; the hook had its time.
		in.lifecycle, in.endAt = lifecycleProceed, now
		a := ended(g, in, now, userRequest)
		s.begin(a)
		return a
	}
	return s.retire(g, in, now, userRequest)
}

// response is the frame of the query protocol: XResponse around XResult.
type response struct {
	XMLName   xml.Name
	Result    any
	RequestID string `xml:"ResponseMetadata>RequestId"`
}

func respond(c call, result any) response {
	return response{
		XMLName: xml.Name{Space: "http://autoscaling.amazonaws.com/doc/2011-01-01/", Local: c.action + "Response"},
		Result:  result, RequestID: c.id,
	}
}
