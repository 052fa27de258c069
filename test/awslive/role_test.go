package awslive

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
)

// list is one string or several, as IAM writes both.
type list []string

func (l *list) UnmarshalJSON(b []byte) error {
	var one string
	if err := json.Unmarshal(b, &one); err == nil {
		*l = list{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(l))
}

type statement struct {
	Sid, Effect      string
	Action, Resource list
	Condition        map[string]map[string]string
}

// role lets through what configs/iam-policy-live.json allows and refuses the
// rest in each service's own words, as far as IAM goes in that file: an action
// needs one statement that names it and its resource and whose conditions hold.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
type role struct {
	statements []statement
	sim        *simaws.Server
	s3         http.Handler

	mu   sync.Mutex
	used map[string]bool // actions that were allowed
}

// newRole puts the keys of the simulator in the place of those of the file.
func newRole(t *testing.T, sim *simaws.Server, s3 http.Handler, replace ...string) *role {
	t.Helper()
	b, err := os.ReadFile("../../configs/iam-policy-live.json")
	if err != nil {
		t.Fatal(err)
	}
	var policy struct{ Statement []statement }
	if err := json.Unmarshal([]byte(strings.NewReplacer(replace...).Replace(string(b))), &policy); err != nil {
		t.Fatal(err)
	}
	return &role{statements: policy.Statement, sim: sim, s3: s3, used: map[string]bool{}}
}

func (p *role) allowed() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.used))
}

// need is an action on a resource under the values of condition keys.
type need struct {
	action, resource string
	context          map[string]string
}

var scope = regexp.MustCompile(`Credential=[A-Z0-9]+/[0-9]+/([a-z0-9-]+)/([a-z0-9]+)/aws4_request`)

func (p *role) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	signed := scope.FindStringSubmatch(r.Header.Get("Authorization"))
	if signed == nil {
		http.Error(w, "not signed", http.StatusForbidden)
		return
	}
	for _, n := range p.needs(r, body, signed[1], signed[2]) {
		if !p.allows(n) {
			refuseCall(w, signed[2])
			return
		}
	}
	if signed[2] == "s3" {
		p.s3.ServeHTTP(w, r)
		return
	}
	p.sim.ServeHTTP(w, r)
}

func (p *role) allows(n need) bool {
	// "No permissions are required to perform this operation":
	// https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
	if n.action == "sts:GetCallerIdentity" {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.statements {
		if s.Effect == "Allow" && slices.Contains(s.Action, n.action) && matchesOne(s.Resource, n.resource) && holds(s.Condition, n.context) {
			p.used[n.action] = true
			return true
		}
	}
	return false
}

// matchesOne: * stands for anything, slashes and colons included.
func matchesOne(patterns []string, value string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		return regexp.MustCompile(`\A` + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, `.*`) + `\z`).MatchString(value)
	})
}

// holds: every operator and every key of it must hold.
func holds(conditions map[string]map[string]string, context map[string]string) bool {
	for operator, keys := range conditions {
		for key, want := range keys {
			got, present := context[key]
			var ok bool
			switch operator {
			case "Null":
				ok = want == strconv.FormatBool(!present)
			case "StringEquals":
				ok = present && got == want
			case "StringLike":
				ok = present && matchesOne([]string{want}, got)
			case "NumericLessThanEquals":
				n, err := strconv.Atoi(got)
				most, bad := strconv.Atoi(want)
				ok = err == nil && bad == nil && n <= most
			}
			if !ok {
				return false
			}
		}
	}
	return true
}

func (p *role) needs(r *http.Request, body []byte, region, service string) []need {
	context := map[string]string{"aws:RequestedRegion": region, "aws:ResourceAccount": account}
	switch service {
	case "s3":
		return needsOfS3(r, body, context)
	case "ssm", "kms":
		return needsOfJSON(r, body, context, region)
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return []need{{action: "none"}}
	}
	n := need{service + ":" + form.Get("Action"), "*", context}
	in, _ := p.sim.Instance(form.Get("InstanceId"))
	switch form.Get("Action") {
	case "SetInstanceProtection":
		n.resource = groupARN(region, form.Get("AutoScalingGroupName"))
	case "TerminateInstanceInAutoScalingGroup":
		n.resource = groupARN(region, in.Group)
	case "TerminateInstances":
		in, _ = p.sim.Instance(form.Get("InstanceId.1"))
		n.resource = "arn:aws:ec2:" + region + ":" + account + ":instance/" + in.ID
		for key, value := range in.Tags {
			context["aws:ResourceTag/"+key] = value
		}
	}
	return []need{n}
}

func groupARN(region, name string) string {
	return "arn:aws:autoscaling:" + region + ":" + account + ":autoScalingGroup:00000000-0000-4000-8000-000000000000:autoScalingGroupName/" + name
}

func needsOfJSON(r *http.Request, body []byte, context map[string]string, region string) []need {
	_, action, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	var in struct {
		Names                                []string
		KeyID                                string `json:"KeyId"`
		MessageType, SigningAlgorithm, Other string
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return []need{{action: "none"}}
	}
	if in.KeyID == "" {
		var out []need
		for _, name := range in.Names {
			out = append(out, need{"ssm:" + action, "arn:aws:ssm:" + region + "::parameter" + name, context})
		}
		return out
	}
	if action == "Sign" {
		context["kms:MessageType"], context["kms:SigningAlgorithm"] = in.MessageType, in.SigningAlgorithm
	}
	return []need{{"kms:" + action, in.KeyID, context}}
}

// needsOfS3: https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
func needsOfS3(r *http.Request, body []byte, context map[string]string) []need {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	q, resource := r.URL.Query(), "arn:aws:s3:::"+bucket
	if key != "" {
		resource += "/" + key
	}
	version := ""
	if q.Has("versionId") {
		version = "Version"
	}
	one := func(action string) []need { return []need{{"s3:" + action, resource, context}} }
	switch {
	case key == "" && q.Has("versioning"):
		return one("GetBucketVersioning")
	case key == "" && q.Has("object-lock"):
		return one("GetBucketObjectLockConfiguration")
	case key == "" && q.Has("versions"):
		context["s3:prefix"] = q.Get("prefix")
		return one("ListBucketVersions")
	case key == "":
		context["s3:prefix"] = q.Get("prefix")
		return one("ListBucket")
	case q.Has("retention") && r.Method == http.MethodGet:
		return one("GetObjectRetention")
	case q.Has("retention"):
		until := regexp.MustCompile(`<RetainUntilDate>(.*)</RetainUntilDate>`).FindSubmatch(body)
		mode := regexp.MustCompile(`<Mode>(.*)</Mode>`).FindSubmatch(body)
		context["s3:object-lock-mode"], context["s3:object-lock-remaining-retention-days"] = string(mode[1]), days(string(until[1]))
		return one("PutObjectRetention")
	case r.Method == http.MethodDelete:
		return one("DeleteObject" + version)
	case r.Method == http.MethodGet:
		return one("GetObject" + version)
	}
	if match := r.Header.Get("If-None-Match"); match != "" {
		context["s3:if-none-match"] = match
	}
	if mode := r.Header.Get("X-Amz-Object-Lock-Mode"); mode != "" {
		context["s3:object-lock-mode"] = mode
		context["s3:object-lock-remaining-retention-days"] = days(r.Header.Get("X-Amz-Object-Lock-Retain-Until-Date"))
		return append(one("PutObject"), one("PutObjectRetention")...)
	}
	return one("PutObject")
}

// days are whole days from now, rounded up: the harder reading for a policy
// that allows so many at most.
func days(until string) string {
	at, err := time.Parse(time.RFC3339, until)
	if err != nil {
		return "none"
	}
	return strconv.Itoa(int(math.Ceil(time.Until(at).Hours() / 24)))
}

func refuseCall(w http.ResponseWriter, service string) {
	w.Header().Set("Content-Type", "text/xml")
	switch service {
	case "ssm", "kms":
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"__type":"AccessDeniedException","message":"not authorized"}`)
	case "s3":
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `<Error><Code>AccessDenied</Code><Message>not authorized</Message></Error>`)
	case "ec2":
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>not authorized</Message></Error></Errors></Response>`)
	default:
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>not authorized</Message></Error></ErrorResponse>`)
	}
}
