package config

import (
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
)

// The conversions are total for a configuration that [Load] returned.

// RunnerPool is the pool as the policy sees it. The organization is the one
// that github.url names.
func (c *Config) RunnerPool() runner.Pool {
	p := runner.Pool{
		Organization: organization(c.GitHub.URL), OrganizationID: c.Pool.OrganizationID,
		Group: c.Pool.Group, Labels: c.Pool.Labels, Environment: c.Pool.Environment,
		ApproverTeams: c.Pool.ApproverTeams, Events: c.Pool.Events,
		MaxFactsAgeSeconds: seconds(c.Pool.MaxFactsAge), MaxTokenAgeSeconds: seconds(c.Pool.MaxTokenAge),
		MaxStartAgeSeconds: seconds(c.Pool.MaxStartAge), CoolOffSeconds: seconds(c.Pool.CoolOff),
	}
	for _, r := range c.Pool.Repositories {
		p.Repositories = append(p.Repositories, runner.Repository{Name: r.Name, ID: r.ID})
	}
	for _, w := range c.Pool.Workflows {
		p.Workflows = append(p.Workflows, runner.Workflow{Ref: w.Ref, SHA: w.SHA})
	}
	return p
}

// RunnerLimits are the limits of the pure core. An authorization lasts as long
// as the start gate honours it.
func (c *Config) RunnerLimits() runner.Limits {
	l := c.Limits
	return runner.Limits{
		MaxRunners: l.MaxRunners, MaxAttempts: l.MaxAttempts, AuthorizedFor: c.Pool.MaxStartAge,
		DecideBy: l.DecideBy, BindBy: l.BindBy, ReleaseBy: l.ReleaseBy, IdleTTL: l.IdleTTL, SurplusGrace: l.SurplusGrace,
		HookGrace: l.HookGrace, JobTTL: l.JobTTL, SilentFor: l.SilentFor, EscalateAfter: l.EscalateAfter, TeardownBy: l.TeardownBy, ConcludeGrace: l.ConcludeGrace,
		Warm: c.Hosts.Warm, PrelaunchFor: c.Hosts.PrelaunchFor, OnDemand: c.Hosts.Driver == driverKarpenter,
	}
}

// VetRules are what a host must be.
func (c *Config) VetRules() runner.VetRules {
	rules := runner.VetRules{
		Provider: "none", Cluster: c.Cluster.Name, Labels: asMap(c.Cluster.NodeLabels),
		Taint:    runner.Taint(c.Cluster.Taint),
		Accounts: c.Hosts.Accounts, Regions: c.Hosts.Regions, Subnets: c.Hosts.Subnets,
		ImageIDs: c.Hosts.ImageIDs, ImageNames: c.Hosts.ImageNames, ImageOwners: c.Hosts.ImageOwners,
		ImageParameters: c.Hosts.ImageParameters, Profiles: c.Hosts.InstanceProfiles,
		InstanceTags: asMap(c.Hosts.Tags), Groups: c.Hosts.Groups, BootModes: c.Hosts.BootModes,
		IdentityRequired: c.Hosts.Identity.Required,
	}
	if c.Hosts.Driver != driverNone {
		rules.Provider = "aws"
	}
	rules.NodeClaims = c.Hosts.Driver == driverKarpenter
	if c.Hosts.OSImage != "" {
		rules.OSImage = regexp.MustCompile(c.Hosts.OSImage)
	}
	return rules
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

func asMap(list []KeyValue) map[string]string {
	out := make(map[string]string, len(list))
	for _, kv := range list {
		out[kv.Key] = kv.Value
	}
	return out
}

// organization is the only part of the path, empty when there are more.
func organization(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	name := strings.Trim(u.Path, "/")
	if strings.Contains(name, "/") {
		return ""
	}
	return name
}
