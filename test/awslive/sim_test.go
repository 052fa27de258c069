package awslive

import (
	"encoding/pem"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/runnerward/runnerward/pkg/cluster"
	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
	sims3 "github.com/runnerward/runnerward/pkg/sim/s3"
)

const (
	account     = "111122223333"
	secret      = "a secret that must not be printed"
	examplePath = "../../configs/aws-live.example.yaml"
)

// sandbox is the account of the example's settings, simulated over TLS behind
// the policy that the suite is to be run under.
type sandbox struct {
	sim      *simaws.Server
	role     *role
	settings Settings
	ops      *s3Ops
	lines    []string
}

// s3Ops are the operations that S3 was asked for.
type s3Ops struct {
	mu  sync.Mutex
	all []sims3.Op
}

func (o *s3Ops) saw(op sims3.Op, _ string) sims3.Fault {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all = append(o.all, op)
	return sims3.Fault{}
}

// newSandbox starts the example's world; change alters it first.
func newSandbox(t *testing.T, change func(*simaws.Group)) *sandbox {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", secret)
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	s, err := Load(examplePath)
	if err != nil {
		t.Fatal(err)
	}
	sim := simaws.New(simaws.Config{
		Region: s.Region, AccountID: account, AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: secret, Seed: 3,
		ShuttingDown: 400 * time.Millisecond, AgeOut: time.Second, RefillDelay: 20 * time.Millisecond,
	})
	group := simaws.Group{
		Name: s.Hosts.Group, Min: 2, Max: 4, Desired: 2, SubnetIDs: s.Hosts.Subnets,
		ImageID: "ami-0123456789abcdef0", ImageName: "bottlerocket-aws-k8s-1.35-x86_64-v1.57.0-abcdef01",
		ImageOwnerAlias: "amazon", ImageOwnerID: "092701018921", InstanceType: "m6i.large",
		Tags:       map[string]string{"Purpose": "runnerward-live-test", "eks:nodegroup-name": s.Hosts.Nodegroup},
		HTTPTokens: "required", HopLimit: 1, BootMode: "uefi", Profile: s.Hosts.InstanceProfiles[0],
		TerminateHook: 400 * time.Millisecond, Pool: &simaws.WarmPool{},
	}
	if change != nil {
		change(&group)
	}
	sim.AddGroup(group)
	sim.AddBottlerocket(simaws.Bottlerocket{Variant: "aws-k8s-1.35", Arch: "x86_64", Version: "1.57.0", Build: "abcdef01", ImageID: group.ImageID, Latest: true})
	example := s.KMS
	s.KMS = KMS{newKey(t, sim, simaws.SpecP256), newKey(t, sim, simaws.SpecEd25519)}

	ops := &s3Ops{}
	buckets := sims3.New(map[string]sims3.Bucket{s.S3.Bucket: {Owner: account, Versioned: true, Locked: true}, s.S3.ViewBucket: {Owner: account}})
	buckets.Fault = ops.saw
	swap := []string{example.RecordKey, s.KMS.RecordKey, example.CheckpointKey, s.KMS.CheckpointKey}
	p := newRole(t, sim, buckets, swap...)
	server := httptest.NewTLSServer(p)
	t.Cleanup(server.Close)
	s.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(s.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Endpoint, s.S3.Endpoint = server.URL, server.URL
	s.Hosts.Poll, s.Hosts.EndBy, s.Hosts.AgeOutBy = 5*time.Millisecond, time.Minute, time.Minute
	s.Hosts.EndInstance = sim.Instances()[0].ID
	return &sandbox{sim: sim, role: p, settings: s, ops: ops}
}

func newKey(t *testing.T, sim *simaws.Server, spec string) string {
	t.Helper()
	arn, err := sim.AddKey(simaws.Key{Spec: spec})
	if err != nil {
		t.Fatal(err)
	}
	return arn
}

// run goes the way of TestLive, through a file of settings.
func (b *sandbox) run(t *testing.T, change string) (*Report, error) {
	t.Helper()
	s, err := Load(b.file(t))
	if err != nil {
		t.Fatal(err)
	}
	report, err := Run(t.Context(), s, change, func(format string, args ...any) { b.lines = append(b.lines, fmt.Sprintf(format, args...)) })
	if said := strings.Join(b.lines, "\n"); strings.Contains(said, secret) {
		t.Error("a secret was printed")
	}
	return report, err
}

// file holds the settings.
func (b *sandbox) file(t *testing.T) string {
	t.Helper()
	data, err := yaml.Marshal(b.settings)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "settings.yaml")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// writes are the calls that change something.
func (b *sandbox) writes() []string {
	var out []string
	for _, r := range b.sim.Requests() {
		read := slices.ContainsFunc([]string{"Describe", "Get", "List"}, func(verb string) bool { return strings.HasPrefix(r.Action, verb) })
		if !read && r.Code == "" {
			out = append(out, r.Action)
		}
	}
	b.ops.mu.Lock()
	defer b.ops.mu.Unlock()
	for _, op := range b.ops.all {
		if !strings.HasPrefix(string(op), "Get") && !strings.HasPrefix(string(op), "List") {
			out = append(out, string(op))
		}
	}
	return out
}

// TestTheSuiteAsItIsStarted starts this program once more, as make test-aws-live
// does, with the environment of an owner.
func TestTheSuiteAsItIsStarted(t *testing.T) {
	b := newSandbox(t, nil)
	b.settings.Hosts.EndInstance = ""
	settings := b.file(t)
	for name, tc := range map[string]struct {
		path, change string
		fails        bool
		says         []string
	}{
		"without settings":   {says: []string{"--- SKIP: TestLive", "docs/aws-live.md"}},
		"of a missing file":  {path: settings + ".none", fails: true, says: []string{EnvSettings}},
		"dry":                {path: settings, says: []string{"--- PASS: TestLive", "== dry run", "left behind: nothing"}},
		"with a wrong word":  {path: settings, change: "true", fails: true, says: []string{"refused", EnvChange}},
		"with the right one": {path: settings, change: Phrase, says: []string{"--- PASS: TestLive", "== change", "left behind: s3://"}},
	} {
		t.Setenv(EnvSettings, tc.path)
		t.Setenv(EnvChange, tc.change)
		out, err := exec.CommandContext(t.Context(), os.Args[0], "-test.count=1", "-test.v", "-test.run=Live").CombinedOutput()
		if (err != nil) != tc.fails {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		for _, want := range tc.says {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s: it does not say %q:\n%s", name, want, out)
			}
		}
		if strings.Contains(string(out), secret) {
			t.Errorf("%s: a secret was printed", name)
		}
	}
}

func TestADryRunAnswersAndChangesNothing(t *testing.T) {
	b := newSandbox(t, nil)
	report, err := b.run(t, "")
	if err != nil {
		t.Fatalf("Run() = %v\n%s", err, strings.Join(b.lines, "\n"))
	}
	if got := b.writes(); len(got) != 0 {
		t.Errorf("a dry run called %q", got)
	}
	for _, row := range []string{rowCalls, rowPolicy, rowAttach, rowParameters, rowKMS, rowLock} {
		if !slices.ContainsFunc(report.Answers, func(a Answer) bool { return a.Row == row && a.Verdict == Yes }) {
			t.Errorf("no answer about %s", row)
		}
	}
	said := strings.Join(b.lines, "\n")
	for _, want := range []string{"may end " + b.settings.Hosts.EndInstance, "DryRunOperation", "092701018921", "END it through group", "locked for a day", "left behind: nothing"} {
		if !strings.Contains(said, want) {
			t.Errorf("it does not say %q:\n%s", want, said)
		}
	}
}

// TestBothStagesUnderThePolicy: the policy allows exactly what both stages call,
// on the resources and under the conditions that they call it.
func TestBothStagesUnderThePolicy(t *testing.T) {
	b := newSandbox(t, nil)
	report, err := b.run(t, Phrase)
	said := strings.Join(b.lines, "\n")
	if err != nil {
		t.Fatalf("Run() = %v\n%s", err, said)
	}
	var allows []string
	for _, s := range b.role.statements {
		allows = append(allows, s.Action...)
	}
	slices.Sort(allows)
	if got := b.role.allowed(); !slices.Equal(got, slices.Compact(allows)) {
		t.Errorf("the suite used %q, the policy allows %q", got, allows)
	}
	for _, row := range Rows {
		if !slices.ContainsFunc(report.Answers, func(a Answer) bool { return a.Row == row }) &&
			!slices.ContainsFunc(report.Measures, func(m Measure) bool { return m.Row == row }) {
			t.Errorf("nothing about %s", row)
		}
	}
	for _, a := range report.Answers {
		if skipped := a.Row == rowTrail; a.Verdict != Yes && !(skipped && a.Verdict == Skipped) {
			t.Errorf("%s: %s, %s", a.Question, a.Verdict, a.Detail)
		}
	}
	if in, _ := b.sim.Instance(b.settings.Hosts.EndInstance); in.State != "terminated" {
		t.Errorf("the host is %s", in.State)
	}
	ended := slices.DeleteFunc(b.writes(), func(a string) bool { return a != "TerminateInstanceInAutoScalingGroup" && a != "TerminateInstances" })
	if !slices.Equal(ended, []string{"TerminateInstanceInAutoScalingGroup"}) {
		t.Errorf("hosts were ended by %q, want once", ended)
	}
	for _, want := range []string{
		"running, Terminating:Wait in its group", "shutting-down", "terminated,", "no longer lists it", "volumes are gone", "new member is InService",
		"| Measured | Took | Row |", "left behind: s3://" + b.settings.S3.Bucket + "/live/live-", "left behind: a delete marker", "/once --version-id version-",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("it does not say %q:\n%s", want, said)
		}
	}
}

// TestWhatIsNoSandboxIsRefused before anything is changed.
func TestWhatIsNoSandboxIsRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		group    func(*simaws.Group)
		settings func(*sandbox)
		change   string
		says     string
	}{
		"another account": {
			settings: func(b *sandbox) { b.settings.Account, b.settings.KMS = "444455556666", KMS{} },
			change:   Phrase, says: "of account 111122223333, the settings name 444455556666",
		},
		"another phrase": {change: "yes", says: "must be \"yes-this-is-a-sandbox\""},
		"another tag": {
			settings: func(b *sandbox) { b.settings.Hosts.Tags["Purpose"] = "another" },
			change:   Phrase, says: "does not bear the tag Purpose=another",
		},
		"production": {
			group:  func(g *simaws.Group) { g.Tags["Boundary"] = "production" },
			change: Phrase, says: "allowProduction",
		},
		"production in a dry run": {
			group: func(g *simaws.Group) { g.Tags["Boundary"] = "Production" },
			says:  "allowProduction",
		},
		"no member": {
			settings: func(b *sandbox) {
				b.sim.AddGroup(simaws.Group{Name: "empty", Max: 2, SubnetIDs: b.settings.Hosts.Subnets})
				b.settings.Hosts.Group = "empty"
			},
			change: Phrase, says: "no member InService",
		},
		"no group": {settings: func(b *sandbox) { b.settings.Hosts.Group = "other" }, change: Phrase, says: "there is no group other"},
		"a host of nobody's choice": {
			settings: func(b *sandbox) { b.settings.Hosts.EndInstance = "i-0123456789abcdef0" },
			change:   Phrase, says: "is no member InService",
		},
		"a claimed host": {
			group:  func(g *simaws.Group) { g.Tags[cluster.ClaimedBy] = "hipaa-prod-1" },
			change: Phrase, says: "it is claimed",
		},
		"a protected host": {group: func(g *simaws.Group) { g.ProtectsNew = true }, change: Phrase, says: "protected from scale-in"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newSandbox(t, tc.group)
			if tc.settings != nil {
				tc.settings(b)
			}
			_, err := b.run(t, tc.change)
			if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("Run() = %v, want ErrRefused with %q", err, tc.says)
			}
			if got := b.writes(); len(got) != 0 {
				t.Errorf("it was refused after %q", got)
			}
		})
	}
}

func TestProductionMayBeAllowed(t *testing.T) {
	b := newSandbox(t, func(g *simaws.Group) { g.Tags["Boundary"] = "production" })
	b.settings.AllowProduction = true
	if _, err := b.run(t, ""); err != nil {
		t.Errorf("Run() = %v", err)
	}
}

// TestChangeNeedsACleanDryRun: what is not as assumed is said, and nothing is
// changed on top of it.
func TestChangeNeedsACleanDryRun(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*testing.T, *sandbox)
		says   string
	}{
		"a host that is not vetted": {func(_ *testing.T, b *sandbox) { b.settings.Hosts.BootModes = []string{"legacy-bios"} }, "vet i-"},
		"a right that is missing":   {func(_ *testing.T, b *sandbox) { b.sim.Deny("ec2:TerminateInstances", true) }, "may end i-"},
		"a parameter of no image": {func(_ *testing.T, b *sandbox) {
			b.settings.Hosts.ImageParameters = []string{"/aws/service/bottlerocket/none"}
		}, "parameter /aws"},
		"a bucket of no lock": {func(_ *testing.T, b *sandbox) {
			b.settings.S3.Bucket, b.settings.S3.ViewBucket = b.settings.S3.ViewBucket, b.settings.S3.Bucket
		}, "buckets fit"},
		"a key of another spec":   {func(t *testing.T, b *sandbox) { b.settings.KMS.RecordKey = b.settings.KMS.CheckpointKey }, "record key"},
		"a node group of no name": {func(_ *testing.T, b *sandbox) { b.settings.Hosts.Nodegroup = "other" }, "eks:nodegroup-name"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newSandbox(t, nil)
			tc.change(t, b)
			_, err := b.run(t, Phrase)
			if err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("Run() = %v, want %q", err, tc.says)
			}
			if got := b.writes(); len(got) != 0 {
				t.Errorf("it changed something all the same: %q", got)
			}
		})
	}
}

// TestAnEndThatFailsIsSaidAndListed: the owner is left with a command for what
// the run leaves behind.
func TestAnEndThatFailsIsSaidAndListed(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil        func(*sandbox)
		question     string // that is answered with unknown
		left, remove string
	}{
		"the group may not be asked": {
			func(b *sandbox) { b.sim.Deny("autoscaling:TerminateInstanceInAutoScalingGroup", true) },
			"end a protected member", "scale-in protection of i-", "--no-protected-from-scale-in",
		},
		"the instance is stuck": {
			func(b *sandbox) {
				b.sim.Inject(simaws.Fault{Action: "TerminateInstanceInAutoScalingGroup", Kind: simaws.Stuck, Count: 1})
				b.settings.Hosts.EndBy = time.Second
			},
			"the end of i-", "perhaps instance i-", "aws ec2 terminate-instances --instance-ids i-",
		},
		"EC2 lists it for longer": {
			func(b *sandbox) { b.settings.Hosts.AgeOutBy = 10 * time.Millisecond },
			"aging out of i-", "", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newSandbox(t, nil)
			b.settings.S3, b.settings.KMS = S3{}, KMS{}
			tc.spoil(b)
			report, err := b.run(t, Phrase)
			if err == nil || !slices.ContainsFunc(report.Answers, func(a Answer) bool { return a.Verdict == Unknown && strings.HasPrefix(a.Question, tc.question) }) {
				t.Errorf("Run() = %v, want %q unknown", err, tc.question)
			}
			if tc.left == "" && len(report.Left) == 0 {
				return
			}
			if len(report.Left) != 1 || !strings.HasPrefix(report.Left[0].What, tc.left) || !strings.Contains(report.Left[0].Remove, tc.remove) {
				t.Errorf("left behind = %+v, want %q", report.Left, tc.left)
			}
		})
	}
}

// TestAWeakerPolicyIsFound: under an administrator's rights the conditions that
// the daemon's policies rest on are not shown, and the run says so.
func TestAWeakerPolicyIsFound(t *testing.T) {
	b := newSandbox(t, nil)
	b.settings.Hosts = Hosts{}
	for i := range b.role.statements {
		b.role.statements[i].Condition = nil
	}
	report, err := b.run(t, Phrase)
	if err == nil {
		t.Fatal("Run() = nil")
	}
	for _, want := range []string{"put without If-None-Match", "put without a lock", "record key with MessageType RAW"} {
		if !slices.ContainsFunc(report.Answers, func(a Answer) bool { return a.Question == want && a.Verdict == No }) {
			t.Errorf("%s is not answered with no: %v", want, err)
		}
	}
	if !slices.ContainsFunc(report.Left, func(l Leftover) bool { return strings.Contains(l.What, "/unlocked") }) {
		t.Error("what should have been refused is not listed as left behind")
	}
}
