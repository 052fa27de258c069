package config

import (
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The drivers of hosts.
const (
	driverAutoscaling = "autoscaling"
	driverKarpenter   = "karpenter"
	driverNone        = "none"
)

// defaultSlackDays lets a daemon be away for the turn of a year.
const defaultSlackDays = 30

// shape is a pattern that a value must have, with words for it. The patterns
// are no wider than those of the ledger's records, where the values go.
type shape struct {
	pattern *regexp.Regexp
	words   string
}

var (
	isLabel          = shape{regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9._-]{0,99}\z`), "letters, digits, dots, dashes and underscores"}
	isSlug           = isLabel
	isDNSLabel       = shape{regexp.MustCompile(`\A[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\z`), "lower-case letters, digits and dashes"}
	isDNSName        = shape{regexp.MustCompile(`\A[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\z`), "lower-case letters, digits, dashes and dots"}
	isWord           = shape{regexp.MustCompile(`\A[A-Za-z0-9_]{1,64}\z`), "one word"}
	isRepo           = shape{regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}\z`), "owner/name"}
	isOrg            = shape{regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9-]{0,38}\z`), "an organization's name"}
	isWorkflow       = shape{regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}/\.github/workflows/[A-Za-z0-9._-]+\.ya?ml@refs/tags/v[0-9]+\.[0-9]+\.[0-9]+\z`), "owner/repo/.github/workflows/file.yml@refs/tags/vX.Y.Z"}
	isCommit         = shape{regexp.MustCompile(`\A[0-9a-f]{40}\z`), "40 lower-case hexadecimal digits"}
	isImage          = shape{regexp.MustCompile(`\A[a-z0-9][A-Za-z0-9._:/-]*@sha256:[0-9a-f]{64}\z`), "name@sha256:digest, because a tag can be moved"}
	isLabelKey       = shape{regexp.MustCompile(`\A([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?\z`), "a Kubernetes label key"}
	isLabelVal       = shape{regexp.MustCompile(`\A([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?\z`), "a Kubernetes label value"}
	isCPU            = shape{regexp.MustCompile(`\A[1-9][0-9]{0,4}m?\z`), "a number of cores like 2 or 1500m"}
	isMemory         = shape{regexp.MustCompile(`\A[1-9][0-9]{0,5}(Mi|Gi)\z`), "a size like 4Gi or 512Mi"}
	isRegion         = shape{regexp.MustCompile(`\A[a-z]{2}(-[a-z]+)+-[0-9]\z`), "an AWS region like us-east-1"}
	isAccount        = shape{regexp.MustCompile(`\A[0-9]{12}\z`), "12 digits in quotes"}
	isKMSKey         = shape{regexp.MustCompile(`\Aarn:aws(-[a-z]+)*:kms:[a-z]{2}(-[a-z]+)+-[0-9]:[0-9]{12}:key/[A-Za-z0-9-]{1,64}\z`), "the ARN of a KMS key like arn:aws:kms:us-east-1:111122223333:key/UUID"}
	isSubnet         = shape{regexp.MustCompile(`\Asubnet-[0-9a-f]{8,17}\z`), "a subnet id like subnet-0123456789abcdef0"}
	isImageID        = shape{regexp.MustCompile(`\Aami-[0-9a-f]{8,17}\z`), "an image id like ami-0123456789abcdef0"}
	isOwner          = shape{regexp.MustCompile(`\A([0-9]{12}|amazon|aws-marketplace|self)\z`), "an account id in quotes, amazon, aws-marketplace or self"}
	isImageName      = shape{regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9 .()_/+-]{2,99}\z`), "the first letters of an image name"}
	isBucket         = shape{regexp.MustCompile(`\A[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\z`), "a bucket's name: 3 to 63 lower-case letters, digits, dots and dashes"}
	isPrefix         = shape{regexp.MustCompile(`\A[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}){0,7}\z`), "folders like prod/runnerward, without a slash at either end"}
	isOrigin         = shape{regexp.MustCompile(`\A[a-z0-9][a-z0-9.-]{0,99}(/[a-z0-9._-]{1,50}){0,4}\z`), "a host name and path without a scheme"}
	isAnyText        = shape{regexp.MustCompile(`\A[^\x00-\x1f\x7f]{1,256}\z`), "one line of text"}
	isProfile        = shape{regexp.MustCompile(`\Aarn:aws(-[a-z]+)*:iam::[0-9]{12}:instance-profile/[A-Za-z0-9/_+=,.@-]{1,300}\z`), "the ARN of an instance profile like arn:aws:iam::111122223333:instance-profile/NAME"}
	isImageParameter = shape{regexp.MustCompile(`\A/aws/service/bottlerocket/[A-Za-z0-9._/-]{1,200}/image_id\z`), "a public parameter like /aws/service/bottlerocket/aws-k8s-1.35/x86_64/latest/image_id"}
)

// validation collects what is wrong with a configuration that has the right
// form.
type validation struct {
	*Config
	file      *strict
	overrides map[string]any
	offline   bool
}

func (v *validation) all() {
	v.github()
	v.pool()
	v.limits()
	v.cluster()
	v.hosts()
	v.ledger()
	v.endpoints()
}

// report names the key's own place, or that of the section it is missing from.
func (v *validation) report(key, what, mend string) {
	if v.file.doubtful(key) {
		return
	}
	p := Problem{File: v.file.file, Key: key, What: what, Mend: mend}
	if _, fromEnv := v.overrides[key]; fromEnv {
		p.File = "environment"
		v.file.problems.add(p)
		return
	}
	for path := key; path != ""; path = parent(path) {
		if at, ok := v.file.places[path]; ok {
			p.Line, p.Col = at.line, at.col
			break
		}
	}
	v.file.problems.add(p)
}

func parent(path string) string { return path[:max(0, strings.LastIndexAny(path, ".["))] }

func (v *validation) shaped(key, value string, s shape) {
	switch {
	case value == "":
		v.report(key, "missing", "give "+s.words)
	case !s.pattern.MatchString(value):
		v.report(key, fmt.Sprintf("%.100q does not have the right form", value), "give "+s.words)
	}
}

// each wants a list with entries of this form and none twice.
func (v *validation) each(key string, list []string, s shape) {
	if len(list) == 0 {
		v.report(key, "missing", "list at least one; an empty list allows nothing")
	}
	for i, value := range list {
		at := fmt.Sprintf("%s[%d]", key, i)
		v.shaped(at, value, s)
		if slices.Contains(list[:i], value) {
			v.report(at, fmt.Sprintf("%.100q is listed twice", value), "keep one of them")
		}
	}
}

func (v *validation) oneOf(key, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		v.report(key, fmt.Sprintf("%.100q is not a choice", value), "choose "+strings.Join(allowed, ", "))
	}
}

func (v *validation) between(key string, n, low, high int) {
	if n < low || n > high {
		v.report(key, fmt.Sprintf("%d is out of range", n), fmt.Sprintf("give %d to %d", low, high))
	}
}

func (v *validation) positive(key string, d time.Duration) {
	if d <= 0 {
		v.report(key, fmt.Sprintf("%s is not a time to wait", d), "give more than 0s")
	}
}

// wholeSeconds bounds a duration that the policy gets as a number of seconds.
func (v *validation) wholeSeconds(key string, d, low, high time.Duration) {
	switch {
	case d < low || d > high:
		v.report(key, fmt.Sprintf("%s is out of range", d), fmt.Sprintf("give %s to %s", low, high))
	case d%time.Second != 0:
		v.report(key, fmt.Sprintf("%s is not a number of whole seconds", d), "round it")
	}
}

func (v *validation) before(key string, d time.Duration, otherKey string, other time.Duration) {
	if d >= other && !v.file.doubtful(otherKey) {
		v.report(key, fmt.Sprintf("%s is not shorter than %s (%s)", d, otherKey, other), "shorten it or lengthen "+otherKey)
	}
}

// https wants the URL of a TLS server, without credentials.
func (v *validation) https(key, raw string) *url.URL {
	return v.url(key, raw, "https")
}

func (v *validation) url(key, raw string, schemes ...string) *url.URL {
	u, err := url.Parse(raw)
	switch {
	case raw == "":
		v.report(key, "missing", "give a URL that starts with https://")
	case err != nil:
		v.report(key, fmt.Sprintf("%.100q is not a URL", raw), "give one that starts with https://")
	case u.Scheme == "http" && !slices.Contains(schemes, "http"):
		v.report(key, "plain http, which anybody on the way can read and change", "use https://, with caFile for a private certificate authority")
	case !slices.Contains(schemes, u.Scheme):
		v.report(key, fmt.Sprintf("%.100q has no scheme that works here", raw), "start it with "+strings.Join(schemes, ":// or ")+"://")
	case u.Hostname() == "":
		v.report(key, fmt.Sprintf("%.100q names no host", raw), "write it as https://host/path")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		v.report(key, "has a user, query or fragment", "give scheme, host and path only")
	default:
		return u
	}
	return nil
}

func (v *validation) listen(key, addr string) {
	_, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		v.report(key, fmt.Sprintf("%.100q is not an address to listen on", addr), "give host:port or :port")
	}
}
