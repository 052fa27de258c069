package simaws

import (
	"context"
	"encoding/xml"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const (
	testKey    = "AKIDEXAMPLE"
	testSecret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
)

// The example of AWS's own guide, signed by AWS: "Create a signed AWS API
// request", General Reference.
func TestSignatureOfThePublishedExample(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08", nil)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	r.Header.Set("X-Amz-Date", "20150830T123600Z")
	c := credential{
		key: testKey, date: "20150830", region: "us-east-1", service: "iam",
		headers: []string{"content-type", "host", "x-amz-date"},
	}
	const want = "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
	if got := signature(r, nil, c, testSecret); got != want {
		t.Errorf("signature = %s, want %s", got, want)
	}
}

// answer is what a test looks at in a response.
type answer struct {
	status    int
	code      string
	requestID string
	body      string
}

// do signs a request as a client would and sends it.
func do(t *testing.T, s *Server, service string, params ...string) answer {
	t.Helper()
	return send(t, s, request(t, service, params...))
}

func request(t *testing.T, service string, params ...string) *http.Request {
	t.Helper()
	form := url.Values{}
	for i := 0; i < len(params); i += 2 {
		form.Set(params[i], params[i+1])
	}
	body := form.Encode()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "https://aws.example/", strings.NewReader(body))
	sign(r, body, service, time.Now())
	return r
}

func sign(r *http.Request, body, service string, at time.Time) {
	r.Header.Set("X-Amz-Date", at.UTC().Format(amzDate))
	c := credential{
		key: testKey, date: at.UTC().Format("20060102"), region: "us-east-1", service: service,
		headers: []string{"content-length", "host", "x-amz-date"},
	}
	r.Header.Set("Authorization", algorithm+" Credential="+strings.Join([]string{c.key, c.date, c.region, service, "aws4_request"}, "/")+
		", SignedHeaders="+strings.Join(c.headers, ";")+", Signature="+signature(r, []byte(body), c, testSecret))
}

func send(t *testing.T, s *Server, r *http.Request) answer {
	t.Helper()
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	a := answer{status: w.Code, requestID: w.Header().Get("X-Amzn-Requestid"), body: w.Body.String()}
	var failure struct {
		EC2 string `xml:"Errors>Error>Code"`
		ASG string `xml:"Error>Code"`
	}
	if err := xml.Unmarshal(w.Body.Bytes(), &failure); err != nil {
		t.Fatalf("answer %q: %v", a.body, err)
	}
	a.code = failure.EC2 + failure.ASG
	if !strings.Contains(a.body, a.requestID) || a.requestID == "" {
		t.Errorf("answer %q does not name its request %q", a.body, a.requestID)
	}
	return a
}

func ec2Params(action string, params ...string) []string {
	return append([]string{"Action", action, "Version", versionEC2}, params...)
}

func scalingParams(action string, params ...string) []string {
	return append([]string{"Action", action, "Version", versionAutoScaling}, params...)
}

func config() Config {
	return Config{
		AccessKeyID: testKey, SecretAccessKey: testSecret, Seed: 3,
		ShuttingDown: 40 * time.Second, RefillDelay: 20 * time.Second, LaunchTime: 30 * time.Second,
	}
}

func pool() Group {
	return Group{Name: "pool", Min: 2, Max: 4, Desired: 2, SubnetIDs: []string{"subnet-a", "subnet-b"}, ImageID: "ami-1"}
}

func pass(t *testing.T, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	<-ctx.Done()
}

// started is a group of two running instances; it must be made in a bubble.
func started(t *testing.T, cfg Config) (*Server, Instance) {
	t.Helper()
	s := New(cfg)
	s.AddGroup(pool())
	pass(t, cfg.LaunchTime)
	return s, s.Instances()[0]
}

func TestRequestsThatTheServicesRefuse(t *testing.T) {
	tests := []struct {
		name    string
		service string
		params  []string
		status  int
		code    string
	}{
		{"no action", "ec2", []string{"Version", versionEC2}, 400, "MissingParameter"},
		{"no version", "ec2", []string{"Action", "DescribeInstances"}, 400, "MissingParameter"},
		{"another version", "ec2", []string{"Action", "DescribeInstances", "Version", "2010-01-01"}, 400, "NoSuchVersion"},
		{"an unknown action", "ec2", ec2Params("RunEverything"), 400, "InvalidAction"},
		{"an action of the other service", "ec2", ec2Params("SetInstanceProtection"), 400, "InvalidAction"},
		{"an unknown parameter", "ec2", ec2Params("DescribeInstances", "Colour", "red"), 400, "UnknownParameter"},
		{"terminate nothing", "ec2", ec2Params("TerminateInstances"), 400, "MissingParameter"},
		{"a bad boolean", "ec2", ec2Params("TerminateInstances", "DryRun", "maybe"), 400, "InvalidParameterValue"},
		{"a malformed volume id", "ec2", ec2Params("DescribeVolumes", "VolumeId.1", "vol-x"), 400, "InvalidVolumeID.Malformed"},
		{"too small a page", "ec2", ec2Params("DescribeInstances", "MaxResults", "2"), 400, "InvalidParameterValue"},
		{"no action of groups", "autoscaling", []string{"Version", versionAutoScaling}, 400, "MissingAction"},
		{"an unknown action of groups", "autoscaling", scalingParams("Explode"), 400, "InvalidAction"},
		{"no decrement flag", "autoscaling", scalingParams("TerminateInstanceInAutoScalingGroup", "InstanceId", "i-0ffffffffffffffff"), 400, "ValidationError"},
		{"no managed instance", "autoscaling", scalingParams("TerminateInstanceInAutoScalingGroup", "InstanceId", "i-0ffffffffffffffff",
			"ShouldDecrementDesiredCapacity", "false"), 400, "ValidationError"},
		{"many without a group", "autoscaling", scalingParams("TerminateInstanceInAutoScalingGroup", "InstanceIds.member.1", "i-0ffffffffffffffff",
			"ShouldDecrementDesiredCapacity", "false"), 400, "ValidationError"},
		{"a group that is not", "autoscaling", scalingParams("DescribeScalingActivities", "AutoScalingGroupName", "none"), 400, "ValidationError"},
		{"a token that is not", "autoscaling", scalingParams("DescribeAutoScalingGroups", "NextToken", "?"), 400, "InvalidNextToken"},
		{"another service", "sqs", []string{"Action", "ListQueues", "Version", "2012-11-05"}, 401, "AuthFailure"},
	}
	s := New(config())
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := do(t, s, tt.service, tt.params...); got.status != tt.status || got.code != tt.code {
				t.Errorf("answer = %d %s, want %d %s", got.status, got.code, tt.status, tt.code)
			}
		})
	}
}

func TestATamperedOrOldRequestIsRefused(t *testing.T) {
	s := New(config())
	body := url.Values{"Action": {"DescribeInstances"}, "Version": {versionEC2}}.Encode()
	old := httptest.NewRequest(http.MethodPost, "https://aws.example/", strings.NewReader(body))
	sign(old, body, "ec2", time.Now().Add(-time.Hour))
	tampered := httptest.NewRequest(http.MethodPost, "https://aws.example/", strings.NewReader(body+"&x=y"))
	sign(tampered, body, "ec2", time.Now())
	unsigned := httptest.NewRequest(http.MethodPost, "https://aws.example/", strings.NewReader(body))
	for want, r := range map[string]*http.Request{"RequestExpired": old, "AuthFailure": tampered, "MissingAuthenticationToken": unsigned} {
		if got := send(t, s, r); got.code != want {
			t.Errorf("answer = %d %s, want %s", got.status, got.code, want)
		}
	}
	for _, r := range s.Requests() {
		if r.Status < 400 || r.Code == "" {
			t.Errorf("the log says %+v, want a refusal", r)
		}
	}
}

func TestEqualSeedsGiveEqualIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, _ := started(t, config())
		two, _ := started(t, config())
		other := config()
		other.Seed++
		three, first := started(t, other)
		a, b := one.Instances(), two.Instances()
		if a[0].ID != b[0].ID || a[1].Volumes[0] != b[1].Volumes[0] {
			t.Errorf("ids = %v and %v, want equal ones", a, b)
		}
		if three.Instances()[0].ID == a[0].ID || !instanceIDShape.MatchString(first.ID) || first.PrivateDNS != "ip-10-0-0-10.ec2.internal" {
			t.Errorf("instance = %+v, want another well-formed id", first)
		}
	})
}

func TestLifeOfAMemberAndOfItsReplacement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var events []string
		start := time.Now()
		note := func(what string) {
			mu.Lock()
			defer mu.Unlock()
			events = append(events, time.Since(start).String()+" "+what)
		}
		cfg := config()
		cfg.OnLaunch = func(in Instance) { note("launch " + in.PrivateIP) }
		cfg.OnTerminated = func(string) { note("terminated") }
		s, first := started(t, cfg)
		do(t, s, "autoscaling", scalingParams("TerminateInstanceInAutoScalingGroup", "InstanceId", first.ID, "ShouldDecrementDesiredCapacity", "false")...)
		second := do(t, s, "autoscaling", scalingParams("TerminateInstanceInAutoScalingGroup", "InstanceId", first.ID, "ShouldDecrementDesiredCapacity", "false")...)
		if second.code != "ScalingActivityInProgress" {
			t.Errorf("second termination = %s, want ScalingActivityInProgress", second.code)
		}
		for range 60 {
			pass(t, time.Second)
			s.Advance()
		}
		want := []string{"30s launch 10.0.0.10", "30s launch 10.0.1.11", "1m10s terminated", "1m20s launch 10.0.0.12"}
		if !slices.Equal(events, want) {
			t.Errorf("events = %v, want %v", events, want)
		}
		describe := ec2Params("DescribeInstances", "InstanceId.1", first.ID)
		pass(t, time.Hour-21*time.Second)
		if got := do(t, s, "ec2", describe...); got.code != "" || !strings.Contains(got.body, "<name>terminated</name>") {
			t.Errorf("within the hour = %+v, want terminated", got)
		}
		pass(t, time.Minute)
		if got := do(t, s, "ec2", describe...); got.code != "InvalidInstanceID.NotFound" {
			t.Errorf("after the hour = %+v, want NotFound", got)
		}
	})
}

func TestALateLookFindsWhatHappenedAtItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, first := started(t, config())
		do(t, s, "autoscaling", scalingParams("TerminateInstanceInAutoScalingGroup", "InstanceId", first.ID, "ShouldDecrementDesiredCapacity", "false")...)
		asked := time.Now()
		pass(t, 24*time.Hour)
		gone, _ := s.Instance(first.ID)
		all := s.Instances()
		if gone.TerminatedAt.Sub(asked) != 40*time.Second || len(all) != 3 || all[2].LaunchedAt.Sub(asked) != 20*time.Second {
			t.Errorf("terminated after %s, %d instances, want 40 s and a third after 20 s", gone.TerminatedAt.Sub(asked), len(all))
		}
	})
}

func TestAGroupNoticesLateWhatWasEndedBehindItsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, first := started(t, config())
		do(t, s, "ec2", ec2Params("TerminateInstances", "InstanceId.1", first.ID)...)
		members := scalingParams("DescribeAutoScalingInstances", "InstanceIds.member.1", first.ID)
		pass(t, 29*time.Second)
		if got := do(t, s, "autoscaling", members...); !strings.Contains(got.body, "<LifecycleState>InService<") {
			t.Errorf("before the health check = %s, want InService", got.body)
		}
		pass(t, 12*time.Second)
		if got := do(t, s, "autoscaling", members...); strings.Contains(got.body, first.ID) {
			t.Errorf("after its end = %s, want no member", got.body)
		}
		pass(t, 10*time.Second)
		if n := len(s.Instances()); n != 3 {
			t.Errorf("%d instances, want a third 20 s after the health check", n)
		}
	})
}

func TestFaultsOfTheWorld(t *testing.T) {
	for _, tt := range []struct {
		kind   FaultKind
		after  time.Duration
		state  string
		reason string
	}{
		{Stuck, 5 * time.Hour, "shutting-down", "Client.UserInitiatedShutdown"},
		{Stuck, 6 * time.Hour, "terminated", "Client.UserInitiatedShutdown"},
		{Ignored, 5 * time.Hour, "running", ""},
	} {
		t.Run(string(tt.kind)+" "+tt.state, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, first := started(t, config())
				s.Inject(Fault{Action: "TerminateInstances", Kind: tt.kind})
				if got := do(t, s, "ec2", ec2Params("TerminateInstances", "InstanceId.1", first.ID)...); got.status != 200 {
					t.Errorf("answer = %+v, want accepted", got)
				}
				pass(t, tt.after)
				if got, _ := s.Instance(first.ID); got.State != tt.state || got.StateReason != tt.reason {
					t.Errorf("after %s: %s %s, want %s %s", tt.after, got.State, got.StateReason, tt.state, tt.reason)
				}
			})
		})
	}
}

func TestAFaultHitsOnceBeforeOrAfterTheCall(t *testing.T) {
	for _, tt := range []struct {
		after bool
		want  string
	}{{false, "running"}, {true, "shutting-down"}} {
		synctest.Test(t, func(t *testing.T) {
			s, first := started(t, config())
			s.Inject(Fault{Action: "TerminateInstances", Kind: Throttle, After: tt.after})
			terminate := ec2Params("TerminateInstances", "InstanceId.1", first.ID)
			if got := do(t, s, "ec2", terminate...); got.code != "RequestLimitExceeded" || got.status != 503 {
				t.Errorf("answer = %d %s, want 503 RequestLimitExceeded", got.status, got.code)
			}
			if got, _ := s.Instance(first.ID); got.State != tt.want {
				t.Errorf("after %t: state = %s, want %s", tt.after, got.State, tt.want)
			}
			if got := do(t, s, "ec2", terminate...); got.code != "" {
				t.Errorf("next call = %s, want success", got.code)
			}
		})
	}
}

func TestANewInstanceIsUnseenForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config()
		cfg.Unseen = 3 * time.Second
		s := New(cfg)
		s.AddGroup(pool())
		describe := ec2Params("DescribeInstances", "InstanceId.1", s.Instances()[0].ID)
		if got := do(t, s, "ec2", describe...); got.code != "InvalidInstanceID.NotFound" {
			t.Errorf("at once = %+v, want NotFound", got)
		}
		pass(t, 3*time.Second)
		if got := do(t, s, "ec2", describe...); got.code != "" {
			t.Errorf("after 3 s = %+v, want success", got)
		}
	})
}

func TestTheLogOfRequestsHoldsNoCredentials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, first := started(t, config())
		do(t, s, "ec2", ec2Params("DescribeInstances", "Filter.1.Name", "instance-id", "Filter.1.Value.1", first.ID)...)
		got := s.Requests()
		want := Request{
			Seq: 1, At: time.Now(), Service: "ec2", Action: "DescribeInstances", IDs: []string{first.ID},
			Status: 200, RequestID: got[0].RequestID,
		}
		if len(got) != 1 || got[0].RequestID == "" || !reflect.DeepEqual(got[0], want) {
			t.Errorf("Requests() = %+v, want %+v", got, want)
		}
	})
}
