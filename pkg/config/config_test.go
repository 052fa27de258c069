package config_test

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/config"
	"github.com/runnerward/runnerward/pkg/runner"
)

var update = flag.Bool("update", false, "write the expected messages anew")

const examplePath = "../../configs/runnerward.example.yaml"

func example(tb testing.TB) string {
	tb.Helper()
	b, err := os.ReadFile(examplePath)
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

// replaced is the example with one thing changed.
func replaced(tb testing.TB, old, new string) string {
	tb.Helper()
	text := example(tb)
	if strings.Count(text, old) != 1 {
		tb.Fatalf("%q stands %d times in the example, want once", old, strings.Count(text, old))
	}
	return strings.Replace(text, old, new, 1)
}

func parse(tb testing.TB, text string, env ...string) (*config.Config, error) {
	tb.Helper()
	return config.Parse("c.yaml", []byte(text), env, config.Offline())
}

func TestTheExampleIsComplete(t *testing.T) {
	c, err := config.Load(examplePath, nil, config.Offline())
	if err != nil {
		t.Fatalf("Load(example) = %v, want nil", err)
	}
	effective, err := c.Effective()
	if err != nil {
		t.Fatal(err)
	}
	key := regexp.MustCompile(`(?m)^ *(?:- )?([A-Za-z]+):(?: |$)`)
	for _, m := range key.FindAllSubmatch(effective, -1) {
		if !regexp.MustCompile(`(?m)^ *(?:- )?` + string(m[1]) + `:`).MatchString(example(t)) {
			t.Errorf("the example does not show the key %s", m[1])
		}
	}
}

func TestTheExampleConvertsToWhatTheCoreNeeds(t *testing.T) {
	c, err := parse(t, example(t))
	if err != nil {
		t.Fatalf("Parse(example) = %v, want nil", err)
	}
	if got, want := c.RunnerPool(), (runner.Pool{
		Organization: "hipaa-app-org", OrganizationID: 90012345, Group: "hipaa-prod",
		Labels:       []string{"self-hosted", "hipaa-prod", "linux", "x64"},
		Repositories: []runner.Repository{{Name: "hipaa-app-org/clinical-platform", ID: 70012345}},
		Workflows: []runner.Workflow{{
			Ref: "hipaa-app-org/compliance-workflows/.github/workflows/deploy-prod.yml@refs/tags/v1.4.2",
			SHA: "3f1c9a5d7be24680aced13579bdf02468ace1357",
		}},
		Environment: "production", ApproverTeams: []string{"release-managers"}, Events: []string{"push"},
		MaxFactsAgeSeconds: 120, MaxTokenAgeSeconds: 300, MaxStartAgeSeconds: 3600,
	}); !reflect.DeepEqual(got, want) {
		t.Errorf("RunnerPool() = %+v, want %+v", got, want)
	}
	if err := runner.Validate(c.RunnerPool()); err != nil {
		t.Errorf("the pool may not be recorded: %v", err)
	}
	if got, want := c.RunnerLimits(), (runner.Limits{
		MaxRunners: 6, MaxAttempts: 3, AuthorizedFor: time.Hour, DecideBy: 10 * time.Minute, BindBy: 5 * time.Minute, ReleaseBy: 2 * time.Minute,
		IdleTTL: 4 * time.Minute, SurplusGrace: 30 * time.Second, HookGrace: 2 * time.Minute, JobTTL: 2 * time.Hour, SilentFor: 10 * time.Minute,
		EscalateAfter: 5 * time.Minute, TeardownBy: 15 * time.Minute, ConcludeGrace: 2 * time.Minute,
	}); got != want {
		t.Errorf("RunnerLimits() = %+v, want %+v", got, want)
	}
	rules := c.VetRules()
	if got := rules.Labels["stonebridge.io/runner-pool"]; got != "hipaa-prod" || rules.Provider != "aws" {
		t.Errorf("VetRules() = provider %q, label %q, want aws, hipaa-prod", rules.Provider, got)
	}
	if want := []string{"arn:aws:iam::111122223333:instance-profile/eks-00c0ffee-1111-2222-3333-444455556666"}; !slices.Equal(rules.Profiles, want) {
		t.Errorf("VetRules().Profiles = %v, want %v", rules.Profiles, want)
	}
	if got := rules.InstanceTags["Compliance"]; got != "HIPAA" {
		t.Errorf("VetRules().InstanceTags[Compliance] = %q, want HIPAA", got)
	}
	if want := (runner.Taint{Key: "workload", Value: "hipaa-runner", Effect: "NoSchedule"}); rules.Taint != want {
		t.Errorf("VetRules().Taint = %+v, want %+v", rules.Taint, want)
	}
	if !rules.OSImage.MatchString("Bottlerocket OS 1.42.0 (aws-k8s-1.33)") || rules.OSImage.MatchString("not Bottlerocket OS 1.42.0") {
		t.Errorf("VetRules().OSImage = %s does not tell Bottlerocket from others", rules.OSImage)
	}
}

func TestADevelopmentHostNeedsNoCloud(t *testing.T) {
	text := regexp.MustCompile(`(?m)^hosts:\n(?:[ ].*\n|\n)+`).ReplaceAllString(example(t), "hosts:\n  driver: none\n")
	c, err := parse(t, text)
	if err != nil {
		t.Fatalf("Parse(driver none) = %v, want nil", err)
	}
	if rules := c.VetRules(); rules.Provider != "none" || rules.OSImage != nil || len(rules.Accounts) != 0 {
		t.Errorf("VetRules() = %+v, want provider none and no rule of the cloud", rules)
	}
}

func TestANodegroupStandsInForItsGroups(t *testing.T) {
	text := strings.Replace(example(t), "groups: [eks-hipaa-prod-runners-00c0ffee-1111-2222-3333-444455556666]", "groups: []", 1)
	text = strings.Replace(text, "    cluster: \"\"\n    name: \"\"", "    cluster: hipaa-prod-east\n    name: hipaa-prod-runners", 1)
	c, err := parse(t, text)
	if err != nil {
		t.Fatal(err)
	}
	if want := (config.Nodegroup{Cluster: "hipaa-prod-east", Name: "hipaa-prod-runners"}); c.Hosts.Nodegroup != want || len(c.Hosts.Groups) != 0 {
		t.Errorf("hosts = %+v, %q, want %+v", c.Hosts.Nodegroup, c.Hosts.Groups, want)
	}
}

func TestWhatTheFileLeavesOutHasADefault(t *testing.T) {
	text := example(t)
	for _, section := range []string{"limits", "supervisor", "log"} {
		text = regexp.MustCompile(`(?m)^`+section+`:\n(?:[ ].*\n|\n)+`).ReplaceAllString(text, "")
	}
	for _, line := range []string{"maxFactsAge", "maxTokenAge", "maxStartAge", "oidcIssuer", "runnerCommand"} {
		text = regexp.MustCompile(`(?m)^ +`+line+`:.*\n`).ReplaceAllString(text, "")
	}
	got, err := parse(t, text)
	if err != nil {
		t.Fatalf("Parse(short) = %v, want nil", err)
	}
	want, err := parse(t, example(t))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("Parse(short) = %+v, want the example's values %+v", got, want)
	}
}

func TestTheEffectiveConfigurationLoadsAgain(t *testing.T) {
	c, err := parse(t, example(t), "RUNNERWARD_LOG_LEVEL=debug", "RUNNERWARD_LIMITS_MAX_RUNNERS=2", "PATH=/bin",
		"RUNNERWARD_PORT_8443_TCP=tcp://10.0.0.1:8443", "RUNNERWARD_SERVICE_HOST=10.0.0.1", "RUNNERWARD_SERVICE_PORT_STATUS=9443")
	if err != nil {
		t.Fatalf("Parse(example, env) = %v, want nil", err)
	}
	if c.Log.Level != "debug" || c.Limits.MaxRunners != 2 {
		t.Errorf("level, runners = %s, %d, want those of the environment, debug, 2", c.Log.Level, c.Limits.MaxRunners)
	}
	again, effective := reload(t, c)
	if _, same := reload(t, again); !bytes.Equal(effective, same) {
		t.Errorf("Effective changes when it is loaded again:\n%s\n%s", effective, same)
	}
	plain, err := parse(t, example(t))
	if err != nil {
		t.Fatal(err)
	}
	if other, err := plain.Effective(); err != nil || bytes.Equal(other, effective) {
		t.Errorf("Effective() without the environment = %v, %s, want another", err, other)
	}
}

func reload(tb testing.TB, c *config.Config) (*config.Config, []byte) {
	tb.Helper()
	effective, err := c.Effective()
	if err != nil {
		tb.Fatal(err)
	}
	again, err := parse(tb, string(effective))
	if err != nil {
		tb.Fatalf("Parse(Effective) = %v, want nil; it is\n%s", err, effective)
	}
	return again, effective
}

// Each testdata/NAME.bad.yaml is the example with a mistake, NAME.want holds the
// messages. Only those called unreadable look at other files.
func TestEveryMistakeIsNamedWithItsPlaceAndItsMend(t *testing.T) {
	files, err := filepath.Glob("testdata/*.bad.yaml")
	if err != nil || len(files) < 10 {
		t.Fatalf("found %d files, %v, want at least 10", len(files), err)
	}
	for _, file := range files {
		var opts []config.Option
		if !strings.Contains(file, "unreadable") {
			opts = append(opts, config.Offline())
		}
		_, err := config.Load(file, nil, opts...)
		problems, ok := errors.AsType[*config.Problems](err)
		if !ok {
			t.Errorf("Load(%s) = %v, want problems", file, err)
			continue
		}
		golden := strings.TrimSuffix(file, ".bad.yaml") + ".want"
		got := problems.Error() + "\n"
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil || got != string(want) {
			t.Errorf("Load(%s) says\n%swant\n%s%v", file, got, want, err)
		}
	}
}

func TestValuesThatCannotWorkAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ old, new, want string }{
		"an integer as a fraction":       {"maxRunners: 6", "maxRunners: 6.0", "limits.maxRunners: the fraction 6.0 where a whole number is wanted"},
		"an integer in quotes":           {"maxRunners: 6", `maxRunners: "6"`, `limits.maxRunners: the text "6" where a whole number is wanted`},
		"a huge id":                      {"organizationId: 90012345", "organizationId: 99999999999999999999", "pool.organizationId: "},
		"a negative id":                  {"id: 70012345", "id: -1", "pool.repositories[0].id: -1 is not an id"},
		"no runners":                     {"maxRunners: 6", "maxRunners: 0", "limits.maxRunners: 0 is out of range"},
		"a null":                         {"idleTTL: 4m", "idleTTL:", "limits.idleTTL: no value, which would hide the default"},
		"a duration of letters":          {"idleTTL: 4m", "idleTTL: soon", `limits.idleTTL: "soon" is not a duration`},
		"a negative duration":            {"idleTTL: 4m", "idleTTL: -4m", "limits.idleTTL: -4m0s is not a time to wait"},
		"silent for a blink":             {"silentFor: 10m", "silentFor: 119s", "limits.silentFor: 1m59s is shorter than a kubelet that is well may be unheard (give 2m0s or more"},
		"never silent":                   {"silentFor: 10m", "silentFor: 0s", "limits.silentFor: 0s is shorter than a kubelet that is well may be unheard"},
		"silent between two looks":       {"tick: 2s", "tick: 60s", "limits.silentFor: 10m0s is not longer than 10 times supervisor.tick (1m0s) (give more than 10m0s or shorten supervisor.tick)"},
		"silent longer than a job":       {"silentFor: 10m", "silentFor: 3h", "limits.silentFor: 3h0m0s is not shorter than limits.jobTTL (2h0m0s)"},
		"idle longer than a job":         {"idleTTL: 4m", "idleTTL: 3h", "limits.idleTTL: 3h0m0s is not shorter than limits.jobTTL (2h0m0s)"},
		"half a second":                  {"maxFactsAge: 2m", "maxFactsAge: 1500ms", "pool.maxFactsAge: 1.5s is not a number of whole seconds"},
		"an account without quotes":      {`accounts: ["111122223333"]`, "accounts: [111122223333]", `(put it in quotes: "111122223333")`},
		"a list that is a text":          {"events: [push]", "events: push", `pool.events: the text "push" where a list is wanted`},
		"an empty list":                  {"events: [push]", "events: []", "pool.events: missing"},
		"a label twice":                  {"events: [push]", "events: [push, push]", `pool.events[1]: "push" is listed twice`},
		"a workflow on a branch":         {"@refs/tags/v1.4.2", "@refs/heads/main", "pool.workflows[0].ref: "},
		"a workflow on a floating tag":   {"@refs/tags/v1.4.2", "@refs/tags/v1", "pool.workflows[0].ref: "},
		"a short commit":                 {"3f1c9a5d7be24680aced13579bdf02468ace1357", "3f1c9a5", "pool.workflows[0].sha: "},
		"an image by tag":                {"actions-runner@sha256:" + strings.Repeat("0", 64), "actions-runner:latest", "cluster.runnerImage: "},
		"a pattern without an end":       {`^Bottlerocket OS 1\..*$`, `^Bottlerocket`, "hosts.osImage: matches a part of the text"},
		"a pattern anchored half":        {`^Bottlerocket OS 1\..*$`, `^Bottlerocket|Ubuntu$`, "hosts.osImage: an alternative that is anchored on one side only"},
		"a pattern that is none":         {`^Bottlerocket OS 1\..*$`, `^($`, "hosts.osImage: not a regular expression"},
		"an unknown driver":              {"driver: autoscaling", "driver: nomad", `hosts.driver: "nomad" is not a choice (choose autoscaling, karpenter, none)`},
		"Karpenter beside a group":       {"nodeClass: \"\"", "nodeClass: runners", `hosts.karpenter.nodeClass: given, and hosts.driver is "autoscaling"`},
		"EKS' spelling of the effect":    {"effect: NoSchedule", "effect: NO_SCHEDULE", "(choose NoSchedule, NoExecute)"},
		"a region that is not allowed":   {"regions: [us-east-1]", "regions: [us-west-2]", `hosts.regions: does not allow "us-east-1"`},
		"no image rule":                  {"imageNames: [bottlerocket-aws-k8s-]", "imageNames: []", "neither imageIds nor imageNames"},
		"a parameter of somebody":        {"imageParameters: []", "imageParameters: [/ours/ami]", "hosts.imageParameters[0]: "},
		"a profile by its name":          {"arn:aws:iam::111122223333:instance-profile/", "", "hosts.instanceProfiles[0]: "},
		"no profile":                     {`instanceProfiles: ["arn:aws:iam::111122223333:instance-profile/eks-00c0ffee-1111-2222-3333-444455556666"]`, "instanceProfiles: []", "hosts.instanceProfiles: missing"},
		"no group and no node group":     {"groups: [eks-hipaa-prod-runners-00c0ffee-1111-2222-3333-444455556666]", "groups: []", "hosts.groups: missing"},
		"a node group of no cluster":     {"    cluster: \"\"\n    name: \"\"", "    name: runners", "hosts.nodegroup.cluster: "},
		"a node group by its ARN":        {"    cluster: \"\"\n    name: \"\"", "    cluster: prod\n    name: arn:aws:eks:us-east-1:1:nodegroup/x", "hosts.nodegroup.name: "},
		"more warm hosts than may run":   {"warm: 0", "warm: 7", "hosts.warm: 7 is out of range (give 0 to 6)"},
		"started ahead unasked":          {"prelaunchFor: 0s", "prelaunchFor: 1h", "hosts.prelaunchFor: nobody tells us that a deployment waits (set github.answerDeployments"},
		"started ahead for days":         {"prelaunchFor: 0s", "prelaunchFor: 25h", "hosts.prelaunchFor: 25h0m0s is out of range"},
		"a lease that has no name":       {"leaseName: runnerward", "leaseName: Runner_Ward", `supervisor.leaderElection.leaseName: "Runner_Ward" does not have the right form`},
		"a lease of no whole seconds":    {"leaseDuration: 15s", "leaseDuration: 15500ms", "supervisor.leaderElection.leaseDuration: 15.5s is not a number of whole seconds (round it)"},
		"a lease without end":            {"leaseDuration: 15s", "leaseDuration: 1h", "supervisor.leaderElection.leaseDuration: 1h0m0s is out of range (give 2s to 10m0s)"},
		"a leader outstaying its lease":  {"renewDeadline: 10s", "renewDeadline: 15s", "supervisor.leaderElection.renewDeadline: 15s is not shorter than supervisor.leaderElection.leaseDuration (15s)"},
		"a lease tried for once":         {"retryPeriod: 2s", "retryPeriod: 9s", "supervisor.leaderElection.retryPeriod: 1.2 times 9s is not shorter than supervisor.leaderElection.renewDeadline (10s)"},
		"a lease asked for all the time": {"retryPeriod: 2s", "retryPeriod: 0s", "supervisor.leaderElection.retryPeriod: 0s is not a time to wait"},
		"an escalation after the alarm":  {"escalateAfter: 5m", "escalateAfter: 15m", "limits.escalateAfter: 15m0s is not shorter than limits.teardownBy (15m0s)"},
		"plain http":                     {"admissionURL: https:", "admissionURL: http:", "cluster.admissionURL: plain http"},
		"a URL without a host":           {"url: https://github.com/hipaa-app-org", "url: https:///hipaa-app-org", "github.url: "},
		"a URL of no organization":       {"url: https://github.com/hipaa-app-org", "url: https://github.com", "does not name an organization"},
		"a URL with a password":          {"url: https://github.com/hipaa-app-org", "url: https://u:p@github.com/hipaa-app-org", "has a user, query or fragment"},
		"a proxy without a scheme":       {`proxy: ""`, `proxy: proxy:3128`, "github.proxy: "},
		"a port that is none":            {"listen: :9443", "listen: :94430", "status.listen: "},
		"admins without a CA":            {"clientCAFile: /etc/runnerward/status/clients.crt", `clientCAFile: ""`, "status.admins: nobody can prove"},
		"keys among the evidence":        {"keysDir: /var/lib/runnerward/keys", "keysDir: /var/lib/runnerward/ledger", "ledger.keysDir: the same folder"},
		"a spool among the evidence":     {`spoolDir: /var/lib/runnerward/spool`, "spoolDir: /var/lib/runnerward/ledger/spool", "ledger.spoolDir: in one folder with ledger.dir"},
		"a spool around the keys":        {`spoolDir: /var/lib/runnerward/spool`, "spoolDir: /var/lib/runnerward", "ledger.spoolDir: in one folder with ledger.keysDir"},
		"a spool that wanders":           {`spoolDir: /var/lib/runnerward/spool`, "spoolDir: spool", `ledger.spoolDir: "spool" depends on where the daemon is started`},
		"two ways to sign in":            {`tokenFile: ""`, "tokenFile: /t", "github.tokenFile: given besides app"},
		"an alias":                       {"events: [push]", "events: *e", "not YAML: "},
		"a label of a node as a map":     {"    - key: stonebridge.io/runner-pool\n      value: hipaa-prod", "    stonebridge.io/runner-pool: hipaa-prod", "cluster.nodeLabels: a section where a list is wanted"},
		"capitals in a key":              {"maxRunners: 6", "MaxRunners: 6", "limits.MaxRunners: unknown key (did you mean maxRunners?)"},
		"a key in both spellings":        {"maxRunners: 6", "maxRunners: 6\n  MaxRunners: 7", "limits.MaxRunners: unknown key"},
		"a key of another planet":        {"maxRunners: 6", "maxRunners: 6\n  quux: 7", "limits.quux: unknown key (remove it; the keys here are maxRunners,"},
		"a text that is true":            {"level: info", "level: yes", `log.level: "yes" is not a choice`},
		"a level that does not exist":    {"level: info", "level: trace", `log.level: "trace" is not a choice`},
		"a date for a text":              {"name: hipaa-prod-east", "name: 2026-01-01", "cluster.name: the date 2026-01-01 where a text is wanted"},
		"a section that is a text":       {"supervisor:\n", "supervisor: now\n_:\n", `supervisor: the text "now" where a section is wanted`},
		"an authorization shorter-lived": {"maxStartAge: 1h", "maxStartAge: 1m", "limits.idleTTL: 4m0s is not shorter than pool.maxStartAge (1m0s)"},
	} {
		_, err := parse(t, replaced(t, c.old, c.new))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: Parse = %v, want it to say %q", name, err, c.want)
		}
	}
}

func TestTheShortestSilenceThatWorksIsTaken(t *testing.T) {
	for old, shortest := range map[string]string{"silentFor: 10m": "silentFor: 2m", "tick: 2s": "tick: 59s"} {
		if _, err := parse(t, replaced(t, old, shortest)); err != nil {
			t.Errorf("Parse(%s) = %v, want nil", shortest, err)
		}
	}
}

func TestTheEnvironmentIsAsStrictAsTheFile(t *testing.T) {
	for variable, want := range map[string]string{
		"RUNNERWARD_LOG_LEVLE=debug":                         "environment: RUNNERWARD_LOG_LEVLE: unknown variable (did you mean RUNNERWARD_LOG_LEVEL?)",
		"RUNNERWARD_PASSWORD=x":                              "environment: RUNNERWARD_PASSWORD: unknown variable (unset it;",
		"RUNNERWARD_LOG_LEVEL=":                              "environment: RUNNERWARD_LOG_LEVEL: empty",
		"RUNNERWARD_LOG_LEVEL=loud":                          `environment: log.level: "loud" is not a choice`,
		"RUNNERWARD_LIMITS_MAX_RUNNERS=6.9":                  "environment: RUNNERWARD_LIMITS_MAX_RUNNERS: the fraction 6.9 where a whole number is wanted",
		"RUNNERWARD_LIMITS_MAX_RUNNERS=true":                 "environment: RUNNERWARD_LIMITS_MAX_RUNNERS: the truth value true",
		"RUNNERWARD_LIMITS_MAX_RUNNERS=99999999999999999999": "environment: RUNNERWARD_LIMITS_MAX_RUNNERS: ",
		"RUNNERWARD_GITHUB_PROXY=proxy.example:3128":         "environment: github.proxy: ",
	} {
		_, err := parse(t, example(t), variable)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%s) = %v, want it to say %q", variable, err, want)
		}
	}
}

func TestTheExampleListsTheVariablesThatThereAre(t *testing.T) {
	_, err := parse(t, example(t), "RUNNERWARD_=x")
	if err == nil {
		t.Fatal("Parse(RUNNERWARD_=x) = nil, want the variables that there are")
	}
	name := regexp.MustCompile(`RUNNERWARD_[A-Z_]+[A-Z]`)
	known, shown := name.FindAllString(err.Error(), -1), name.FindAllString(example(t), -1)
	slices.Sort(shown)
	if !slices.Equal(known, shown) {
		t.Errorf("the example shows %v, there are %v", shown, known)
	}
	for _, variable := range known {
		c, err := parse(t, example(t), variable+"="+map[string]string{
			"RUNNERWARD_ADMISSION_LISTEN": ":1", "RUNNERWARD_STATUS_LISTEN": ":1",
			"RUNNERWARD_LOG_FORMAT": "console", "RUNNERWARD_LOG_LEVEL": "warn",
			"RUNNERWARD_GITHUB_PROXY":            "http://proxy.example:3128",
			"RUNNERWARD_LIMITS_MAX_RUNNERS":      "5",
			"RUNNERWARD_CLUSTER_KUBECONFIG_FILE": "/kubeconfig",
		}[variable])
		if err != nil {
			t.Errorf("Parse(%s) = %v, want nil", variable, err)
			continue
		}
		if same, err := parse(t, example(t)); err != nil || reflect.DeepEqual(c, same) {
			t.Errorf("Parse(%s) changes nothing, %v", variable, err)
		}
	}
}

func TestAFileThatIsMissingIsNotAProblemOfItsContent(t *testing.T) {
	_, err := config.Load(filepath.Join(t.TempDir(), "none.yaml"), nil)
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Load(missing) = %v, want os.ErrNotExist", err)
	}
}

func TestProblemsComeInTheOrderOfTheFile(t *testing.T) {
	text := replaced(t, "level: info", "level: trace")
	text = strings.Replace(text, "maxRunners: 6", "maxRunners: 0", 1)
	_, err := parse(t, text)
	problems, ok := errors.AsType[*config.Problems](err)
	if !ok || len(problems.List) != 2 {
		t.Fatalf("Parse = %v, want two problems", err)
	}
	keys := []string{problems.List[0].Key, problems.List[1].Key}
	if want := []string{"limits.maxRunners", "log.level"}; !slices.Equal(keys, want) || problems.List[0].Line == 0 {
		t.Errorf("problems at %v, line %d, want %v with lines", keys, problems.List[0].Line, want)
	}
}

// FuzzParse: no file makes it panic, and what it accepts loads again from its
// effective form as the same configuration.
func FuzzParse(f *testing.F) {
	f.Add([]byte(example(f)))
	for _, seed := range []string{"", "a", "- a", "{}", "---\n---\n", "github: &a {}\npool: *a", "<<: {}", "? [a]\n: b", "pool: !!binary aa==",
		"log: {level: !!str 1}", "limits: {idleTTL: .inf}", "limits: {maxRunners: 0x10}", "\x00", "a: b: c", "!!null", "%YAML 1.1\n--- {}", "{? {}: 1}"} {
		f.Add([]byte(seed))
	}
	f.Add([]byte(replaced(f, "maxRunners: 6", "maxRunners: 0x06")))
	f.Add([]byte(replaced(f, "level: info", "level: !!str info")))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := config.Parse("f.yaml", data, nil, config.Offline())
		if err != nil {
			return
		}
		again, effective := reload(t, c)
		if _, same := reload(t, again); !bytes.Equal(effective, same) {
			t.Errorf("Effective changes when it is loaded again:\n%s\n%s", effective, same)
		}
	})
}

// Who signs the tokens of jobs follows from where the jobs are.
func TestTheIssuerFitsTheServer(t *testing.T) {
	const issuer = "oidcIssuer: https://token.actions.githubusercontent.com"
	for _, test := range []struct{ url, issuer, says string }{
		{"https://github.com/hipaa-app-org", issuer, ""},
		{"https://github.com/hipaa-app-org", issuer + "/hipaa-enterprise", ""},
		{"https://github.com/hipaa-app-org", "oidcIssuer: https://issuer.example", "does not sign for github.com"},
		{"https://acme.ghe.com/hipaa-app-org", "oidcIssuer: https://token.actions.acme.ghe.com", ""},
		{"https://acme.ghe.com/hipaa-app-org", issuer, "give https://token.actions.acme.ghe.com"},
		{"https://ACME.ghe.com/hipaa-app-org", "oidcIssuer: https://token.actions.acme.ghe.com", "write it as acme.ghe.com"},
		{"https://github.internal:8443/hipaa-app-org", "oidcIssuer: https://github.internal:8443/_services/token", ""},
		{"https://github.internal/hipaa-app-org", issuer, "give https://github.internal/_services/token"},
	} {
		text := strings.Replace(replaced(t, "url: https://github.com/hipaa-app-org", "url: "+test.url), issuer, test.issuer, 1)
		_, err := parse(t, text)
		switch {
		case test.says == "" && err != nil:
			t.Errorf("%s with %s: %v, want it taken", test.url, test.issuer, err)
		case test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)):
			t.Errorf("%s with %s: %v, want one problem that says %q", test.url, test.issuer, err, test.says)
		}
	}
}

func TestALedgerInS3LoadsWithItsDefaultSlack(t *testing.T) {
	text := strings.Replace(example(t), "  dir: /var/lib/runnerward/ledger\n", "", 1)
	for key, value := range map[string]string{
		"bucket": "evidence", "viewBucket": "evidence-view", "prefix": "prod/runnerward", "region": "us-east-1", "bucketOwner": `"111122223333"`,
	} {
		text = strings.Replace(text, "\n    "+key+": \"\"\n", "\n    "+key+": "+value+"\n", 1)
	}
	c, err := parse(t, strings.Replace(text, "    slackDays: 30\n", "", 1))
	if err != nil {
		t.Fatal(err)
	}
	want := config.S3{Bucket: "evidence", ViewBucket: "evidence-view", Prefix: "prod/runnerward", Region: "us-east-1", BucketOwner: "111122223333", SlackDays: 30}
	if c.Ledger.S3 != want || c.Ledger.Dir != "" {
		t.Errorf("ledger = %+v, want only %+v", c.Ledger, want)
	}
}

func TestHostsAreStartedAheadOnlyWhereACloudStartsThem(t *testing.T) {
	text := regexp.MustCompile(`(?m)^hosts:\n(?:[ ].*\n|\n)+`).ReplaceAllString(example(t), "hosts:\n  driver: none\n  warm: 1\n")
	if _, err := parse(t, text); err == nil || !strings.Contains(err.Error(), "hosts: warm and prelaunchFor need a cloud that starts hosts") {
		t.Errorf("Parse(driver none, warm 1) = %v, want a refusal", err)
	}
	asks := strings.Replace(replaced(t, "answerDeployments: false", "answerDeployments: true"), "prelaunchFor: 0s", "prelaunchFor: 45m", 1)
	c, err := parse(t, strings.Replace(asks, "warm: 0", "warm: 2", 1))
	if err != nil {
		t.Fatal(err)
	}
	if lim := c.RunnerLimits(); lim.Warm != 2 || lim.PrelaunchFor != 45*time.Minute || !lim.Scales() {
		t.Errorf("RunnerLimits() = %+v, want 2 warm and 45m ahead", lim)
	}
}

// TestOnlyWhatIsSharedIsElectedOverInSilence: a ledger in a folder, or keys in one,
// is another one on another machine.
func TestOnlyWhatIsSharedIsElectedOverInSilence(t *testing.T) {
	for name, c := range map[string]struct {
		enabled bool
		ledger  config.Ledger
		want    int
	}{
		"no election":                {false, config.Ledger{Dir: "/l", KeysDir: "/k"}, 0},
		"folders":                    {true, config.Ledger{Dir: "/l", KeysDir: "/k"}, 1},
		"a bucket and keys in files": {true, config.Ledger{S3: config.S3{Bucket: "b"}, KeysDir: "/k"}, 1},
		"a bucket and KMS":           {true, config.Ledger{S3: config.S3{Bucket: "b"}, KMS: config.LedgerKMS{Region: "us-east-1"}}, 0},
	} {
		cfg := config.Config{Ledger: c.ledger}
		cfg.Supervisor.LeaderElection.Enabled = c.enabled
		if got := cfg.Warnings(); len(got) != c.want {
			t.Errorf("%s: warnings are %q, want %d", name, got, c.want)
		}
	}
}
