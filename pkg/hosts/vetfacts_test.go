package hosts_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/runnerward/runnerward/pkg/hosts"
	"github.com/runnerward/runnerward/pkg/runner"
	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
)

// verdict is what the core's check of this name says of the world's first
// instance, as the driver describes it now.
func verdict(t *testing.T, w world, driver *hosts.AutoScaling, check string, rules runner.VetRules) runner.Verdict {
	t.Helper()
	got, err := driver.Describe(t.Context(), []string{w.first.ID})
	if err != nil {
		t.Fatal(err)
	}
	in, rules := got[w.first.ID], rules
	rules.Provider = "aws"
	for _, c := range runner.Vet(runner.Node{ProviderID: w.first.ProviderID()}, &in, rules) {
		if c.Name == check {
			return c.Verdict
		}
	}
	t.Fatalf("no check %s", check)
	return ""
}

func TestASubnetIsPrivateIfNothingLeadsInFromTheInternet(t *testing.T) {
	const subnet = "subnet-0aaaaaaaaaaaaaaaa"
	local := simaws.Route{Destination: "10.0.0.0/16", Gateway: "local"}
	tests := map[string]struct {
		change func(*simaws.Server)
		want   runner.Verdict
	}{
		"follows a private main table": {func(*simaws.Server) {}, runner.Pass},
		"follows a public main table": {func(s *simaws.Server) {
			s.SetRoutes("", local, simaws.Route{Destination: "0.0.0.0/0", Gateway: "igw-1"})
		}, runner.Fail},
		"has a public table": {func(s *simaws.Server) {
			s.SetRoutes(subnet, local, simaws.Route{Destination: "0.0.0.0/0", Gateway: "igw-1"})
		}, runner.Fail},
		"has a public table for IPv6": {func(s *simaws.Server) {
			s.SetRoutes(subnet, local, simaws.Route{Destination: "::/0", Gateway: "igw-1"})
		}, runner.Fail},
		"has an egress-only way for v6": {func(s *simaws.Server) {
			s.SetRoutes(subnet, local, simaws.Route{Destination: "::/0", Gateway: "eigw-1"})
		}, runner.Pass},
		"reaches one range by a gateway": {func(s *simaws.Server) {
			s.SetRoutes(subnet, local, simaws.Route{Destination: "198.51.100.0/24", Gateway: "igw-1"})
		}, runner.Fail},
		"reaches the world by its two halves": {func(s *simaws.Server) {
			s.SetRoutes(subnet, local, simaws.Route{Destination: "0.0.0.0/0", Gateway: "nat-1"},
				simaws.Route{Destination: "0.0.0.0/1", Gateway: "igw-1"}, simaws.Route{Destination: "128.0.0.0/1", Gateway: "igw-1"})
		}, runner.Fail},
		"reaches a prefix list by a gateway": {func(s *simaws.Server) {
			s.SetRoutes(subnet, local, simaws.Route{Destination: "pl-0a1b2c3d4e5f60718", Gateway: "igw-1"})
		}, runner.Fail},
		"reaches S3 by its endpoint": {func(s *simaws.Server) {
			s.SetRoutes(subnet, local, simaws.Route{Destination: "pl-0a1b2c3d4e5f60718", Gateway: "vpce-1"})
		}, runner.Pass},
		"its own table is private": {func(s *simaws.Server) {
			s.SetRoutes("", local, simaws.Route{Destination: "0.0.0.0/0", Gateway: "igw-1"})
			s.SetRoutes(subnet, local, simaws.Route{Destination: "0.0.0.0/0", Gateway: "nat-1"})
		}, runner.Pass},
		"gives out public addresses": {func(s *simaws.Server) { s.SetPublicIPs(subnet, true) }, runner.Fail},
		"cannot be described":        {func(s *simaws.Server) { s.Inject(simaws.Fault{Action: "DescribeSubnets", Kind: simaws.Unauthorized}) }, runner.Unknown},
		"its table is not told": {func(s *simaws.Server) {
			s.Inject(simaws.Fault{Action: "DescribeRouteTables", Kind: simaws.Unauthorized})
		}, runner.Unknown},
		"is not listed": {func(s *simaws.Server) { s.Inject(simaws.Fault{Action: "DescribeSubnets", Kind: simaws.Stale}) }, runner.Unknown},
		"no table is listed": {func(s *simaws.Server) {
			s.Inject(simaws.Fault{Action: "DescribeRouteTables", Kind: simaws.Stale, Count: 2})
		}, runner.Unknown},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				tc.change(w.sim)
				if got := verdict(t, w, w.driver, "host.privateSubnet", runner.VetRules{}); got != tc.want {
					t.Errorf("host.privateSubnet = %s, want %s", got, tc.want)
				}
			})
		})
	}
}

// TestASubnetIsLookedAtAgain: what was learned is believed for some minutes
// only.
func TestASubnetIsLookedAtAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		asked := func() (n int) {
			for _, a := range actions(w.sim) {
				if a == "DescribeSubnets" {
					n++
				}
			}
			return n
		}
		for range 3 {
			verdict(t, w, w.driver, "host.privateSubnet", runner.VetRules{})
		}
		if n := asked(); n != 1 {
			t.Errorf("the subnet was asked about %d times, want once", n)
		}
		w.sim.SetPublicIPs("subnet-0aaaaaaaaaaaaaaaa", true)
		wait(t, 6*time.Minute)
		if got := verdict(t, w, w.driver, "host.privateSubnet", runner.VetRules{}); got != runner.Fail || asked() != 2 {
			t.Errorf("host.privateSubnet = %s after %d looks, want fail after a second", got, asked())
		}
	})
}

func TestVolumesThatWereNotThereAtLaunchAreFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		if got := verdict(t, w, w.driver, "host.volumes", runner.VetRules{}); got != runner.Pass {
			t.Errorf("host.volumes after launch = %s, want pass", got)
		}
		wait(t, 5*time.Minute)
		if _, err := w.sim.AttachVolume(w.first.ID); err != nil {
			t.Fatal(err)
		}
		if got := verdict(t, w, w.driver, "host.volumes", runner.VetRules{}); got != runner.Fail {
			t.Errorf("host.volumes with a late volume = %s, want fail", got)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		wait(t, 5*time.Minute)
		if err := w.sim.ReplaceRoot(w.first.ID); err != nil {
			t.Fatal(err)
		}
		if got := verdict(t, w, w.driver, "host.volumes", runner.VetRules{}); got != runner.Fail {
			t.Errorf("host.volumes with another root volume = %s, want fail", got)
		}
	})
}

func TestImagesAreThoseThatPublicParametersName(t *testing.T) {
	name := func(release string) string {
		return "/aws/service/bottlerocket/aws-k8s-1.35/x86_64/" + release + "/image_id"
	}
	latest := name("latest")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		store := &parameters{values: map[string]string{latest: testGroup().ImageID}}
		driver := w.with(t, map[string]http.Handler{"ssm": store}, func(_ *aws.Config, o *hosts.Options) { o.ImageParameters = []string{latest} })
		rules := runner.VetRules{ImageParameters: []string{latest}}
		for range 3 {
			if got := verdict(t, w, driver, "image.allowed", rules); got != runner.Pass {
				t.Errorf("image.allowed = %s, want pass", got)
			}
		}
		if len(store.asked) != 1 {
			t.Errorf("the parameter was read %d times, want once", len(store.asked))
		}
		// The next release comes: the old image is allowed no more, soon.
		store.values[latest] = "ami-0eeeeeeeeeeeeeeee"
		wait(t, 6*time.Minute)
		if got := verdict(t, w, driver, "image.allowed", rules); got != runner.Fail {
			t.Errorf("image.allowed after a release = %s, want fail", got)
		}
		store.down = true
		wait(t, 6*time.Minute)
		if got := verdict(t, w, driver, "image.allowed", rules); got != runner.Unknown {
			t.Errorf("image.allowed while parameters cannot be read = %s, want unknown", got)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		var names []string
		for i := range 23 {
			names = append(names, name(fmt.Sprint("1.5", i, ".0")))
		}
		store := &parameters{values: map[string]string{names[22]: testGroup().ImageID, names[3]: "no image"}}
		driver := w.with(t, map[string]http.Handler{"ssm": store}, func(_ *aws.Config, o *hosts.Options) { o.ImageParameters = names })
		got, err := driver.Describe(t.Context(), []string{w.first.ID})
		if err != nil || len(got[w.first.ID].ParameterImages) != 1 || got[w.first.ID].ParameterImages[names[22]] != testGroup().ImageID {
			t.Errorf("Describe = %v, %v, want the one parameter that names an image", got[w.first.ID].ParameterImages, err)
		}
		if sizes := []int{len(store.asked[0]), len(store.asked[1]), len(store.asked[2])}; !slices.Equal(sizes, []int{10, 10, 3}) {
			t.Errorf("parameters were read by %v, want 10, 10, 3", sizes)
		}
	})
}

func TestTheLifecycleInTheGroupIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldOf(t, nil, func(g *simaws.Group) { g.TerminateHook = 15 * time.Minute })
		if got := verdict(t, w, w.driver, "host.lifecycle", runner.VetRules{}); got != runner.Pass {
			t.Errorf("host.lifecycle in service = %s, want pass", got)
		}
		if err := w.sim.Replace(w.first.ID); err != nil {
			t.Fatal(err)
		}
		if in, _ := w.sim.Instance(w.first.ID); in.State != "running" {
			t.Fatalf("the instance is %s, want running in its hook", in.State)
		}
		if got := verdict(t, w, w.driver, "host.lifecycle", runner.VetRules{}); got != runner.Fail {
			t.Errorf("host.lifecycle while its group ends it = %s, want fail", got)
		}
	})
}
