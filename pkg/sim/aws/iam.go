package simaws

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// versionIAM is the only version of the API that is spoken.
const versionIAM = "2010-05-08"

// Role is a role and who may assume it.
type Role struct {
	Name string
	// Issuer is the URL of the provider whose tokens it trusts, Subject the
	// subject that they must have, with the wildcards * and ? of StringLike,
	// and Audience their audience; sts.amazonaws.com if empty.
	Issuer, Subject, Audience string
	// Pods lets EKS Pod Identity assume it.
	Pods bool
	// MaxSession is the longest session, one hour if zero.
	MaxSession time.Duration
}

// role is a role with the ids that IAM gave it.
type role struct {
	Role
	arn, id   string
	createdAt time.Time
}

var roleNameShape = regexp.MustCompile(`\A[\w+=,.@-]{1,64}\z`)

// AddRole makes a role and returns its ARN. A role of that name must not exist.
func (s *Server) AddRole(r Role) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.MaxSession = r.maxSession()
	if r.Audience == "" {
		r.Audience = audienceSTS
	}
	made := &role{
		Role: r, arn: "arn:aws:iam::" + s.cfg.AccountID + ":role/" + r.Name, id: "AROA" + s.upper(17), createdAt: time.Now(),
	}
	s.roles = append(s.roles, made)
	return made.arn
}

func (s *Server) roleByARN(arn string) *role {
	i := slices.IndexFunc(s.roles, func(r *role) bool { return r.arn == arn })
	if i < 0 {
		return nil
	}
	return s.roles[i]
}

// trusts says whether the role's policy lets the subject assume it.
func (r *role) trusts(issuer, subject, audience string) bool {
	return r.Issuer != "" && r.Issuer == issuer && r.Audience == audience && filter{values: []string{r.Subject}}.accepts(subject)
}

// providerARN is that of the OpenID Connect provider:
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-arns
func (s *Server) providerARN(issuer string) string {
	return "arn:aws:iam::" + s.cfg.AccountID + ":oidc-provider/" + strings.TrimPrefix(issuer, "https://")
}

// iam runs one action of IAM:
// https://docs.aws.amazon.com/IAM/latest/APIReference/API_Operations.html
func (s *Server) iam(c call, kind FaultKind) (any, error) {
	version := c.form.Get("Version")
	if c.action != "GetRole" || version != versionIAM {
		return nil, &apiError{http.StatusBadRequest, "InvalidAction", "Could not find operation " + c.action + " for version " + version}
	}
	if err := required(c.form, "RoleName"); err != nil {
		return nil, err
	}
	name := c.form.Get("RoleName")
	if !roleNameShape.MatchString(name) {
		return nil, validation("The specified value for roleName is invalid. It must contain only alphanumeric characters and/or the following: +=,.@_-")
	}
	i := slices.IndexFunc(s.roles, func(r *role) bool { return r.Name == name })
	// "IAM ... uses a distributed computing model called eventual consistency",
	// https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot.html#troubleshoot_general_eventually-consistent
	if i < 0 || kind == Stale {
		return nil, &apiError{http.StatusNotFound, "NoSuchEntity", fmt.Sprintf("The role with name %s cannot be found.", name)}
	}
	r := s.roles[i]
	policy, err := s.trustPolicy(r)
	if err != nil {
		return nil, err
	}
	return answerOf(c, getRoleResult{
		Path: "/", Name: r.Name, ID: r.id, Arn: r.arn, CreateDate: r.createdAt.UTC().Format(time.RFC3339),
		// "Policies returned by this operation are URL-encoded compliant with
		// RFC 3986", API reference of GetRole.
		TrustPolicy: strings.ReplaceAll(url.QueryEscape(policy), "+", "%20"), MaxSession: int(r.MaxSession / time.Second),
	}), nil
}

type getRoleResult struct {
	XMLName     xml.Name `xml:"GetRoleResult"`
	Path        string   `xml:"Role>Path"`
	Name        string   `xml:"Role>RoleName"`
	ID          string   `xml:"Role>RoleId"`
	Arn         string   `xml:"Role>Arn"`
	CreateDate  string   `xml:"Role>CreateDate"`
	TrustPolicy string   `xml:"Role>AssumeRolePolicyDocument"`
	MaxSession  int      `xml:"Role>MaxSessionDuration"`
}

// trustPolicy is the role's trust as a policy document, in the two forms that
// the EKS user guide has service accounts and Pod Identity use:
// https://docs.aws.amazon.com/eks/latest/userguide/associate-service-account-role.html
// https://docs.aws.amazon.com/eks/latest/userguide/pod-id-role.html
func (s *Server) trustPolicy(r *role) (string, error) {
	var statements []any
	if r.Issuer != "" {
		host := strings.TrimPrefix(r.Issuer, "https://")
		statements = append(statements, map[string]any{
			"Effect": "Allow", "Principal": map[string]string{"Federated": s.providerARN(r.Issuer)},
			"Action": "sts:AssumeRoleWithWebIdentity",
			"Condition": map[string]any{
				"StringEquals": map[string]string{host + ":aud": r.Audience},
				"StringLike":   map[string]string{host + ":sub": r.Subject},
			},
		})
	}
	if r.Pods {
		statements = append(statements, map[string]any{
			"Effect": "Allow", "Principal": map[string]string{"Service": audiencePods},
			"Action": []string{"sts:AssumeRole", "sts:TagSession"},
		})
	}
	b, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": statements})
	if err != nil {
		return "", fmt.Errorf("encode the trust policy: %w", err)
	}
	return string(b), nil
}
