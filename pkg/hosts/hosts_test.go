package hosts_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/runnerward/runnerward/pkg/hosts"
	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

const (
	region    = "us-east-1"
	account   = "111122223333"
	keyID     = "AKIDEXAMPLE"
	keySecret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
	groupName = "hipaa-prod-runners"
)

// inProcess carries requests straight to a handler, so that the real SDK can
// run in a synctest bubble, where sockets do not work.
type inProcess struct{ handler http.Handler }

func (p inProcess) RoundTrip(out *http.Request) (*http.Response, error) {
	in := out.Clone(out.Context())
	if in.Host == "" {
		in.Host = out.URL.Host
	}
	if in.Body == nil {
		in.Body = http.NoBody
	}
	w := httptest.NewRecorder()
	p.handler.ServeHTTP(w, in)
	if err := out.Context().Err(); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

// awsConfig is the real SDK's configuration against the simulator.
func awsConfig(sim *simaws.Server) aws.Config {
	return aws.Config{
		Region:       region,
		Credentials:  credentials.NewStaticCredentialsProvider(keyID, keySecret, ""),
		HTTPClient:   &http.Client{Transport: inProcess{sim}},
		BaseEndpoint: aws.String("https://aws.example"),
		Retryer: func() aws.Retryer {
			return retry.NewStandard(func(o *retry.StandardOptions) { o.MaxBackoff = time.Second })
		},
	}
}

func simConfig() simaws.Config {
	return simaws.Config{
		Region: region, AccountID: account, AccessKeyID: keyID, SecretAccessKey: keySecret, Seed: 7,
		ShuttingDown: 40 * time.Second, RefillDelay: 20 * time.Second, LaunchTime: 30 * time.Second,
	}
}

func testGroup() simaws.Group {
	return simaws.Group{
		Name: groupName, Min: 2, Max: 6, Desired: 2,
		SubnetIDs: []string{"subnet-0aaaaaaaaaaaaaaaa", "subnet-0bbbbbbbbbbbbbbbb"},
		ImageID:   "ami-0123456789abcdef0", ImageName: "bottlerocket-aws-k8s-1.35-x86_64-v1.57.0-abcdef01",
		ImageOwnerAlias: "amazon", ImageOwnerID: "092701018921", InstanceType: "m6i.large",
		Tags:       map[string]string{"Compliance": "HIPAA", "Boundary": "production"},
		HTTPTokens: "required", HopLimit: 1, BootMode: "uefi",
		Profile: "arn:aws:iam::111122223333:instance-profile/hipaa-prod-runners",
	}
}

// plainly ends a host as it is ended first.
var plainly = supervisor.TerminateOptions{}

// world is a running group of two and the driver that looks at it.
type world struct {
	sim    *simaws.Server
	driver *hosts.AutoScaling
	first  simaws.Instance
}

// newWorld must be called in a bubble: it waits until the group runs.
func newWorld(t *testing.T, change func(*simaws.Config)) world {
	t.Helper()
	return newWorldOf(t, change, nil)
}

// newWorldOf is newWorld with another group.
func newWorldOf(t *testing.T, change func(*simaws.Config), group func(*simaws.Group)) world {
	t.Helper()
	cfg, g := simConfig(), testGroup()
	if change != nil {
		change(&cfg)
	}
	if group != nil {
		group(&g)
	}
	sim := simaws.New(cfg)
	sim.AddGroup(g)
	wait(t, cfg.LaunchTime)
	driver, err := hosts.NewAutoScaling(awsConfig(sim), hosts.Options{
		Region: region, Groups: []string{groupName}, CallTimeout: 10 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	return world{sim, driver, sim.Instances()[0]}
}

// wait lets the bubble's clock advance.
func wait(t *testing.T, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	<-ctx.Done()
}

// actions are the calls so far to EC2 and Auto Scaling, in order, with their
// error codes. Whether STS says who we are changes nothing.
func actions(sim *simaws.Server) []string {
	var out []string
	for _, r := range sim.Requests() {
		s := r.Action
		if s == "GetCallerIdentity" {
			continue
		}
		if r.Code != "" {
			s += " " + r.Code
		}
		out = append(out, s)
	}
	return out
}
