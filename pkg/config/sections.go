package config

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

func (v *validation) github() {
	g := v.GitHub
	if u := v.https("github.url", g.URL); u != nil {
		if !isOrg.pattern.MatchString(organization(g.URL)) {
			v.report("github.url", fmt.Sprintf("%q does not name an organization", g.URL), "write it as https://github.com/ORGANIZATION")
		}
		if host := strings.ToLower(u.Host); host != u.Host {
			// The official client knows GHE.com by its lower case only.
			v.report("github.url", fmt.Sprintf("the host %q has capitals", u.Host), "write it as "+host)
		}
		v.issuer(u)
	}
	if g.Proxy != "" {
		v.url("github.proxy", g.Proxy, "http", "https")
	}
	v.readable("github.caFile", g.CAFile, optional)
	switch app := g.App != (App{}); {
	case app && g.TokenFile != "":
		v.report("github.tokenFile", "given besides app", "keep one of them; app is the safer one")
	case !app && g.TokenFile == "":
		v.report("github", "neither app nor tokenFile says how to sign in", "give github.app.clientId, installationId and privateKeyFile")
	case app:
		v.app()
	default:
		v.readable("github.tokenFile", g.TokenFile, secret)
		if g.AnswerDeployments {
			v.report("github.answerDeployments", "only an App is asked about deployments", "sign in with github.app, or set it to false")
		}
	}
	if d := g.DeliveriesEvery; d != 0 && (d < 5*time.Second || d > 10*time.Minute) {
		v.report("github.deliveriesEvery", fmt.Sprintf("%s is out of range", d), "give 5s to 10m0s, or 0s to ask for nothing")
	}
	if g.AnswerDeployments && g.DeliveriesEvery == 0 {
		v.report("github.answerDeployments", "GitHub's questions are not read", "give github.deliveriesEvery")
	}
}

// hostedIssuer signs the tokens of jobs on github.com, and only there.
// https://docs.github.com/en/actions/reference/security/oidc
const hostedIssuer = "https://token.actions.githubusercontent.com"

// issuer compares who is to sign the tokens of jobs with where the jobs are. A
// wrong one would refuse every job at its start.
func (v *validation) issuer(server *url.URL) {
	got := v.https("github.oidcIssuer", v.GitHub.OIDCIssuer)
	host := strings.TrimPrefix(strings.ToLower(server.Hostname()), "www.")
	sub, isGHE := strings.CutSuffix(host, ".ghe.com")
	switch {
	case got == nil:
	case host == "github.com":
		if got.Host != "token.actions.githubusercontent.com" {
			v.report("github.oidcIssuer", fmt.Sprintf("%q does not sign for github.com", v.GitHub.OIDCIssuer), "give "+hostedIssuer)
		}
	case isGHE && got.Host != "token.actions."+sub+".ghe.com":
		v.report("github.oidcIssuer", fmt.Sprintf("%q does not sign for %s", v.GitHub.OIDCIssuer, host), "give https://token.actions."+sub+".ghe.com")
	case strings.HasPrefix(v.GitHub.OIDCIssuer, hostedIssuer):
		v.report("github.oidcIssuer", "it signs for github.com, and github.url is another server", "give https://"+server.Host+"/_services/token")
	}
}

func (v *validation) app() {
	app := v.GitHub.App
	v.shaped("github.app.clientId", app.ClientID, isLabel)
	v.id("github.app.installationId", app.InstallationID)
	switch {
	case app.PrivateKeyKMS != "" && app.PrivateKeyFile != "":
		v.report("github.app.privateKeyKMS", "given besides privateKeyFile", "keep one of them")
	case app.PrivateKeyKMS != "":
		v.shaped("github.app.privateKeyKMS", app.PrivateKeyKMS, isKMSKey)
	default:
		v.readable("github.app.privateKeyFile", app.PrivateKeyFile, secret)
	}
}

func (v *validation) id(key string, id int64) {
	switch {
	case id == 0:
		v.report(key, "missing", "give the numeric id")
	case id < 0:
		v.report(key, fmt.Sprintf("%d is not an id", id), "give the numeric id")
	}
}

func (v *validation) pool() {
	p := v.Pool
	v.shaped("pool.name", p.Name, isLabel)
	v.shaped("pool.group", p.Group, isLabel)
	v.each("pool.labels", p.Labels, isLabel)
	v.id("pool.organizationId", p.OrganizationID)
	v.shaped("pool.environment", p.Environment, isLabel)
	v.each("pool.approverTeams", p.ApproverTeams, isSlug)
	v.each("pool.events", p.Events, isWord)
	v.wholeSeconds("pool.coolOff", p.CoolOff, 0, 24*time.Hour)
	v.wholeSeconds("pool.maxFactsAge", p.MaxFactsAge, time.Second, time.Hour)
	v.wholeSeconds("pool.maxTokenAge", p.MaxTokenAge, time.Second, time.Hour)
	v.wholeSeconds("pool.maxStartAge", p.MaxStartAge, time.Second, 35*24*time.Hour)
	if len(p.Repositories) == 0 {
		v.report("pool.repositories", "missing", "list at least one; an empty list allows nothing")
	}
	for i, r := range p.Repositories {
		at := fmt.Sprintf("pool.repositories[%d]", i)
		v.shaped(at+".name", r.Name, isRepo)
		v.id(at+".id", r.ID)
	}
	if len(p.Workflows) == 0 {
		v.report("pool.workflows", "missing", "list at least one; an empty list allows nothing")
	}
	for i, w := range p.Workflows {
		at := fmt.Sprintf("pool.workflows[%d]", i)
		v.shaped(at+".ref", w.Ref, isWorkflow)
		v.shaped(at+".sha", w.SHA, isCommit)
	}
}

func (v *validation) limits() {
	l := v.Limits
	v.between("limits.maxRunners", l.MaxRunners, 1, 1000)
	v.between("limits.maxAttempts", l.MaxAttempts, 1, 20)
	for _, d := range []struct {
		key string
		d   time.Duration
	}{
		{"decideBy", l.DecideBy}, {"bindBy", l.BindBy}, {"releaseBy", l.ReleaseBy}, {"idleTTL", l.IdleTTL},
		{"surplusGrace", l.SurplusGrace}, {"hookGrace", l.HookGrace}, {"jobTTL", l.JobTTL},
		{"escalateAfter", l.EscalateAfter}, {"teardownBy", l.TeardownBy}, {"concludeGrace", l.ConcludeGrace},
	} {
		v.positive("limits."+d.key, d.d)
	}
	v.before("limits.idleTTL", l.IdleTTL, "limits.jobTTL", l.JobTTL)
	v.silentFor()
	v.before("limits.surplusGrace", l.SurplusGrace, "limits.idleTTL", l.IdleTTL)
	v.before("limits.hookGrace", l.HookGrace, "limits.jobTTL", l.JobTTL)
	v.before("limits.escalateAfter", l.EscalateAfter, "limits.teardownBy", l.TeardownBy)
	// After a restart an approval is young again; the hook has to outwait that.
	v.before("pool.coolOff", v.Pool.CoolOff, "limits.hookGrace", l.HookGrace)
	// The authorization has to last until a runner that was made for it idles out.
	v.before("limits.idleTTL", l.IdleTTL, "pool.maxStartAge", v.Pool.MaxStartAge)
	if t := v.Supervisor.Tick; t < 10*time.Millisecond || t > time.Minute {
		v.report("supervisor.tick", fmt.Sprintf("%s is out of range", t), "give 10ms to 1m0s")
	}
	v.leaderElection()
}

// minSilence is longer than a kubelet that is well can be unheard: the cluster
// shows its node as not ready after 50 s without a word, and a restart or an
// update of the kubelet takes about as long.
// https://kubernetes.io/docs/reference/command-line-tools-reference/kube-controller-manager/ (--node-monitor-grace-period)
const minSilence = 2 * time.Minute

// silentFor wants a time in which the host is looked at more than twice, which is
// every five ticks: a running job ends by it.
func (v *validation) silentFor() {
	const key = "limits.silentFor"
	d := v.Limits.SilentFor
	if d < minSilence {
		v.report(key, fmt.Sprintf("%s is shorter than a kubelet that is well may be unheard", d), fmt.Sprintf("give %s or more; 10m is how long GitHub waits for a silent runner", minSilence))
	} else if least := 10 * v.Supervisor.Tick; d <= least && !v.file.doubtful("supervisor.tick") {
		v.report(key, fmt.Sprintf("%s is not longer than 10 times supervisor.tick (%s)", d, v.Supervisor.Tick), fmt.Sprintf("give more than %s or shorten supervisor.tick", least))
	}
	v.before(key, d, "limits.jobTTL", v.Limits.JobTTL)
}

// leaderElection wants what client-go wants of it, also while it is off: a
// second daemon must not be the one who finds out.
// https://pkg.go.dev/k8s.io/client-go/tools/leaderelection#LeaderElectionConfig
func (v *validation) leaderElection() {
	const key = "supervisor.leaderElection."
	l := v.Supervisor.LeaderElection
	v.shaped(key+"leaseName", l.LeaseName, isDNSName)
	v.wholeSeconds(key+"leaseDuration", l.LeaseDuration, 2*time.Second, 10*time.Minute)
	v.positive(key+"retryPeriod", l.RetryPeriod)
	v.before(key+"renewDeadline", l.RenewDeadline, key+"leaseDuration", l.LeaseDuration)
	// The wait between two tries is up to 1.2 times as long (leaderelection.JitterFactor).
	if jittered := l.RetryPeriod * 12 / 10; jittered >= l.RenewDeadline && !v.file.doubtful(key+"renewDeadline") {
		v.report(key+"retryPeriod", fmt.Sprintf("1.2 times %s is not shorter than %srenewDeadline (%s)", l.RetryPeriod, key, l.RenewDeadline),
			"shorten it, so that a renewal that fails can be tried again in time")
	}
}

func (v *validation) cluster() {
	c := v.Cluster
	v.shaped("cluster.name", c.Name, isLabel)
	v.readable("cluster.kubeconfigFile", c.KubeconfigFile, optional)
	v.shaped("cluster.namespace", c.Namespace, isDNSLabel)
	v.shaped("cluster.serviceAccount", c.ServiceAccount, isDNSName)
	if len(c.NodeLabels) == 0 {
		v.report("cluster.nodeLabels", "missing", "list the label that makes a node one of the pool")
	}
	for i, l := range c.NodeLabels {
		at := fmt.Sprintf("cluster.nodeLabels[%d]", i)
		v.shaped(at+".key", l.Key, isLabelKey)
		if !isLabelVal.pattern.MatchString(l.Value) {
			v.report(at+".value", fmt.Sprintf("%.100q does not have the right form", l.Value), "give "+isLabelVal.words)
		}
		for _, other := range c.NodeLabels[:i] {
			if other.Key == l.Key {
				v.report(at+".key", fmt.Sprintf("%q is listed twice", l.Key), "keep one of them")
			}
		}
	}
	v.shaped("cluster.taint.key", c.Taint.Key, isLabelKey)
	v.oneOf("cluster.taint.effect", c.Taint.Effect, "NoSchedule", "NoExecute")
	v.shaped("cluster.runnerImage", c.RunnerImage, isImage)
	v.shaped("cluster.agentImage", c.AgentImage, isImage)
	v.https("cluster.admissionURL", c.AdmissionURL)
	v.shaped("cluster.admissionCAConfigMap", c.AdmissionCAConfigMap, isDNSName)
	v.shaped("cluster.cpu", c.CPU, isCPU)
	v.shaped("cluster.memory", c.Memory, isMemory)
}

func (v *validation) hosts() {
	h := v.Hosts
	v.oneOf("hosts.driver", h.Driver, driverAutoscaling, driverKarpenter, driverNone)
	v.readable("hosts.caFile", h.CAFile, optional)
	if h.Endpoint != "" {
		v.https("hosts.endpoint", h.Endpoint)
	}
	v.osImage(h.OSImage)
	for i, tag := range h.Tags {
		v.shaped(fmt.Sprintf("hosts.tags[%d].key", i), tag.Key, isAnyText)
	}
	v.identity()
	if h.Driver != driverKarpenter && h.Karpenter.NodeClass != "" {
		v.report("hosts.karpenter.nodeClass", fmt.Sprintf("given, and hosts.driver is %q", h.Driver), "leave it empty, or choose the driver karpenter")
	}
	if h.Driver != driverAutoscaling && h.Driver != driverKarpenter {
		if h.Warm != 0 || h.PrelaunchFor != 0 {
			v.report("hosts", "warm and prelaunchFor need a cloud that starts hosts", "set both to 0, or choose another driver")
		}
		return
	}
	v.between("hosts.warm", h.Warm, 0, v.Limits.MaxRunners)
	switch d := h.PrelaunchFor; {
	case d < 0 || d > 24*time.Hour:
		v.report("hosts.prelaunchFor", fmt.Sprintf("%s is out of range", d), "give 0s to 24h0m0s; 0s starts no host ahead")
	case d > 0 && !v.GitHub.AnswerDeployments:
		v.report("hosts.prelaunchFor", "nobody tells us that a deployment waits", "set github.answerDeployments, or set it to 0s")
	}
	v.shaped("hosts.region", h.Region, isRegion)
	v.each("hosts.accounts", h.Accounts, isAccount)
	v.each("hosts.regions", h.Regions, isRegion)
	if !slices.Contains(h.Regions, h.Region) {
		v.report("hosts.regions", fmt.Sprintf("does not allow %q, where hosts are looked for", h.Region), "list hosts.region too")
	}
	v.each("hosts.subnets", h.Subnets, isSubnet)
	switch {
	case h.Driver == driverKarpenter:
		v.karpenter()
	case h.Nodegroup == (Nodegroup{}):
		v.each("hosts.groups", h.Groups, isAnyText)
	default:
		v.eachOf("hosts.groups", h.Groups, isAnyText)
		v.shaped("hosts.nodegroup.cluster", h.Nodegroup.Cluster, isLabel)
		v.shaped("hosts.nodegroup.name", h.Nodegroup.Name, isLabel)
	}
	v.each("hosts.imageOwners", h.ImageOwners, isOwner)
	switch {
	case len(h.ImageIDs) == 0 && len(h.ImageNames) == 0 && len(h.ImageParameters) == 0:
		v.report("hosts", "neither imageIds nor imageNames nor imageParameters says which images may run", "list one of them")
	default:
		v.eachOf("hosts.imageParameters", h.ImageParameters, isImageParameter)
		v.eachOf("hosts.imageIds", h.ImageIDs, isImageID)
		v.eachOf("hosts.imageNames", h.ImageNames, isImageName)
	}
	v.each("hosts.instanceProfiles", h.InstanceProfiles, isProfile)
	if len(h.BootModes) == 0 {
		v.report("hosts.bootModes", "missing", "list at least one; an empty list allows nothing")
	}
	for i, mode := range h.BootModes {
		v.oneOf(fmt.Sprintf("hosts.bootModes[%d]", i), mode, "uefi", "uefi-preferred", "legacy-bios")
	}
}

// eachOf is each of a list that may be empty.
func (v *validation) eachOf(key string, list []string, s shape) {
	if len(list) > 0 {
		v.each(key, list, s)
	}
}

// osImage must match the whole text: an alternative outside of a group would
// be anchored on one side only, so the whole is wrapped before it is tried.
func (v *validation) osImage(pattern string) {
	if pattern == "" {
		return
	}
	inner, start := strings.CutPrefix(pattern, "^")
	inner, end := strings.CutSuffix(inner, "$")
	switch _, err := regexp.Compile(pattern); {
	case err != nil:
		v.report("hosts.osImage", "not a regular expression: "+err.Error(), "see https://pkg.go.dev/regexp/syntax")
	case !start || !end || strings.HasSuffix(inner, `\`):
		v.report("hosts.osImage", "matches a part of the text", "start it with ^ and end it with $")
	case strings.Contains(inner, "|") && !grouped(inner):
		v.report("hosts.osImage", "an alternative that is anchored on one side only", "put the alternatives in parentheses: ^(a|b)$")
	}
}

// grouped says that every | stands inside parentheses.
func grouped(pattern string) bool {
	depth := 0
	for _, r := range pattern {
		switch r {
		case '(':
			depth++
		case ')':
			depth--
		case '|':
			if depth == 0 {
				return false
			}
		}
	}
	return true
}

func (v *validation) endpoints() {
	v.listen("admission.listen", v.Admission.Listen)
	v.readable("admission.certFile", v.Admission.CertFile, required)
	v.readable("admission.keyFile", v.Admission.KeyFile, secret)
	v.listen("status.listen", v.Status.Listen)
	v.readable("status.certFile", v.Status.CertFile, required)
	v.readable("status.keyFile", v.Status.KeyFile, secret)
	v.readable("status.clientCAFile", v.Status.ClientCAFile, optional)
	v.eachOf("status.admins", v.Status.Admins, isAnyText)
	if len(v.Status.Admins) > 0 && v.Status.ClientCAFile == "" {
		v.report("status.admins", "nobody can prove to be one of them", "give status.clientCAFile")
	}
	v.oneOf("log.level", v.Log.Level, "debug", "info", "warn", "error")
	v.oneOf("log.format", v.Log.Format, "json", "console")
}
