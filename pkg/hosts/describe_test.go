package hosts_test

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/runnerward/runnerward/pkg/hosts"
	"github.com/runnerward/runnerward/pkg/runner"
	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
)

func TestDescribeMapsEverythingThatVettingNeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		got, err := w.driver.Describe(t.Context(), []string{w.first.ID})
		if err != nil {
			t.Fatal(err)
		}
		g := testGroup()
		root, data := w.first.Volumes[0], w.first.Volumes[1]
		slices.Sort(w.first.Volumes)
		want := runner.Instance{
			ID: w.first.ID, AccountID: account, Region: region, Zone: "us-east-1a", State: "running",
			ImageID: g.ImageID, ImageName: g.ImageName, ImageOwner: g.ImageOwnerID, ImageOwnerAlias: "amazon",
			Type: "m6i.large", BootMode: "uefi", Profile: g.Profile, VPC: w.first.VPC, Subnet: g.SubnetIDs[0],
			PrivateIP: w.first.PrivateIP, HTTPTokens: "required", HopLimit: 1, LaunchedAt: w.first.LaunchedAt.UTC(),
			Volumes: w.first.Volumes, NetworkInterfaces: w.first.NetworkInterfaces, Group: groupName, Lifecycle: "InService",
			Attachments: []runner.Attachment{
				{Volume: root, Root: true, At: w.first.LaunchedAt.UTC()}, {Volume: data, At: w.first.LaunchedAt.UTC()},
			},
			InterfaceAt: w.first.LaunchedAt.UTC(), PrivateSubnet: new(true),
			Tags: map[string]string{"Compliance": "HIPAA", "Boundary": "production", "aws:autoscaling:groupName": groupName},
		}
		if !reflect.DeepEqual(got[w.first.ID], want) || len(got) != 1 {
			t.Errorf("Describe = %+v\nwant %+v", got, want)
		}
		vet(t, w, got[w.first.ID])
	})
}

// vet runs the core's own checks over what the driver said.
func vet(t *testing.T, w world, in runner.Instance) {
	t.Helper()
	node := runner.Node{Name: w.first.PrivateDNS, BootID: "b", ProviderID: w.first.ProviderID(), InternalIP: w.first.PrivateIP, Ready: true}
	rules := runner.VetRules{
		Provider: "aws", Accounts: []string{account}, Regions: []string{region}, Subnets: testGroup().SubnetIDs,
		ImageNames: []string{"bottlerocket-aws-k8s-"}, ImageOwners: []string{"amazon"}, Groups: []string{groupName},
		InstanceTags: map[string]string{"Boundary": "production"}, BootModes: []string{"uefi"}, Profiles: []string{testGroup().Profile},
	}
	for _, c := range runner.Vet(node, &in, rules) {
		// The node here is no part of the test and carries no taint.
		if c.Verdict != runner.Pass && c.Name != "node.taint" {
			t.Errorf("check %s = %s, want pass", c.Name, c.Verdict)
		}
	}
}

func TestDescribeAnswersForTheKnownWhenOthersAreNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		got, err := w.driver.Describe(t.Context(), []string{"i-0ffffffffffffffff", w.first.ID})
		if err != nil {
			t.Fatal(err)
		}
		if _, known := got["i-0ffffffffffffffff"]; known || got[w.first.ID].State != "running" {
			t.Errorf("Describe = %v, want only %s", got, w.first.ID)
		}
	})
}

func TestDescribeRefusesWhatIsNotAnID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		if got, err := w.driver.Describe(t.Context(), []string{"i-*"}); err == nil {
			t.Errorf("Describe(i-*) = %v, want an error", got)
		}
		if got, err := w.driver.VolumesGone(t.Context(), []string{"vol-*"}); err == nil {
			t.Errorf("VolumesGone(vol-*) = %v, want an error", got)
		}
		if n := len(w.sim.Requests()); n != 0 {
			t.Errorf("%d requests were made, want none", n)
		}
	})
}

func TestDescribeAsksInChunksAndFollowsPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		big := testGroup()
		big.Name, big.Desired, big.Max = "big", 120, 120
		w.sim.AddGroup(big)
		wait(t, 30*time.Second)
		var ids []string
		for _, in := range w.sim.Instances() {
			ids = append(ids, in.ID)
		}
		got, err := w.driver.Describe(t.Context(), ids)
		if err != nil {
			t.Fatal(err)
		}
		grouped := 0
		for _, in := range got {
			if in.Group != "" && in.ImageName != "" {
				grouped++
			}
		}
		if len(got) != 122 || grouped != 122 {
			t.Errorf("Describe(122 ids) = %d instances, %d with image and group, want all", len(got), grouped)
		}
		if got, want := len(w.sim.Requests()), 2+2+3+3; got != want {
			t.Errorf("%d requests = %v, want %d", got, actions(w.sim), want)
		}
	})
}

func TestDescribeStillSeesTheStateWhenImageAndGroupAreDenied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.sim.Inject(simaws.Fault{Action: "DescribeInstanceImageMetadata", Kind: simaws.Unauthorized})
		w.sim.Inject(simaws.Fault{Action: "DescribeAutoScalingInstances", Kind: simaws.Unauthorized})
		got, err := w.driver.Describe(t.Context(), []string{w.first.ID})
		in := got[w.first.ID]
		if err != nil || in.State != "running" || in.ImageName != "" || in.ImageOwner != "" || in.Group != "" {
			t.Errorf("Describe = %+v, %v, want running with image and group unknown", in, err)
		}
	})
}

func TestDescribeFailsWhenEC2DoesNotAnswer(t *testing.T) {
	for _, kind := range []simaws.FaultKind{simaws.Throttle, simaws.Unavailable, simaws.Unauthorized, simaws.Hang} {
		t.Run(string(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				w.sim.Inject(simaws.Fault{Action: "DescribeInstances", Kind: kind, Count: 3})
				if got, err := w.driver.Describe(t.Context(), []string{w.first.ID}); err == nil {
					t.Errorf("Describe = %v, want an error: unknown is not absent", got)
				}
			})
		})
	}
}

func TestDescribeTakesContradictingAnswersForUnknown(t *testing.T) {
	for _, tt := range []struct{ name, action, old, replacement string }{
		{"image", "DescribeInstanceImageMetadata", testGroup().ImageID, "ami-0eeeeeeeeeeeeeeee"},
		{"group", "DescribeAutoScalingInstances", "Name>" + groupName, "Name>another"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				driver := w.rewritten(t, tt.action, tt.old, tt.replacement)
				got, err := driver.Describe(t.Context(), []string{w.first.ID})
				in := got[w.first.ID]
				if err != nil || in.State != "running" || (in.ImageName == "") != (tt.name == "image") || (in.Group == "") != (tt.name == "group") {
					t.Errorf("Describe = %+v, %v, want only the %s unknown", in, err, tt.name)
				}
			})
		})
	}
}

// rewritten is a driver that hears one word changed in the answers to an action.
func (w world) rewritten(t *testing.T, action, old, replacement string) *hosts.AutoScaling {
	t.Helper()
	return w.with(t, nil, func(cfg *aws.Config, _ *hosts.Options) {
		cfg.HTTPClient = &http.Client{Transport: inProcess{rewriting{w.sim, action, old, replacement}}}
	})
}

// rewriting changes a word in the answers to one action.
type rewriting struct {
	http.Handler
	action, old, replacement string
}

func (h rewriting) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := httptest.NewRecorder()
	h.Handler.ServeHTTP(rec, r)
	body := rec.Body.String()
	if strings.Contains(body, h.action+"Response") {
		body = strings.ReplaceAll(body, h.old, h.replacement)
	}
	maps.Copy(w.Header(), rec.Header())
	w.WriteHeader(rec.Code)
	_, _ = io.WriteString(w, body)
}

func TestNewAutoScalingRefusesAWrongRegionAndNoGroup(t *testing.T) {
	cfg := awsConfig(simaws.New(simConfig()))
	for _, o := range []hosts.Options{{Region: "eu-west-1", Groups: []string{"g"}}, {Groups: []string{"g"}}, {Region: region}} {
		if _, err := hosts.NewAutoScaling(cfg, o); err == nil {
			t.Errorf("NewAutoScaling(%+v) = nil, want an error", o)
		}
	}
}
