// Package world puts the simulators together: a GitHub organization with a
// restricted runner group, an Auto Scaling group whose instances join a
// pretend cluster as nodes, and a kubelet that runs the real agent around a
// stand-in for the runner application. The demo serves it over TLS on
// loopback; the end-to-end tests serve it over pipes.
package world

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/runnerward/runnerward/pkg/agent"
	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
	simcluster "github.com/runnerward/runnerward/pkg/sim/cluster"
	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	simimds "github.com/runnerward/runnerward/pkg/sim/imds"
	"github.com/runnerward/runnerward/pkg/sim/memnet"
)

// The reference deployment that the world is populated with.
const (
	Org            = "hipaa-app-org"
	Repository     = "clinical-platform"
	Group          = "hipaa-prod"
	Environment    = "production"
	Team           = "prod-approvers"
	Namespace      = "gha-runners"
	ServiceAccount = "hipaa-prod-runner"
	Region         = "us-east-1"
	Account        = "111122223333"
	NodeGroup      = "hipaa-prod-runners"
	Subnet         = "subnet-0a1b2c3d4e5f60718"
	Profile        = "arn:aws:iam::111122223333:instance-profile/hipaa-prod-runners"
	AccessKeyID    = "AKIDRUNNERWARDSIM"
	SecretKey      = "a-secret-that-signs-requests-to-a-simulator"
	CAConfigMap    = "runnerward-admission-ca"
	PoolLabelKey   = "stonebridge.io/runner-pool"
	PoolLabelValue = "hipaa-prod"

	deployPath = Org + "/compliance-workflows/.github/workflows/deploy-prod.yml"
	// DeployWorkflow is pinned to a tag; BranchWorkflow is the same file on a
	// branch, which somebody has let into the runner group.
	DeployWorkflow = deployPath + "@refs/tags/v1.4.0"
	BranchWorkflow = deployPath + "@refs/heads/main"
	// DeploySHA is the commit that the tag names.
	DeploySHA = "4f2c1d9a7b3e5f60718293a4b5c6d7e8f9012345"
	branchSHA = "9e8d7c6b5a493827160f5e4d3c2b1a0987654321"
	headSHA   = "0c1d2e3f405162738495a6b7c8d9eaf0b1c2d3e4"
)

// Labels are what deploy jobs ask for.
func Labels() []string { return []string{"self-hosted", "hipaa-prod", "linux", "x64"} }

// Options say how fast the world is and how it is reached.
type Options struct {
	// Dir is where pods keep their files.
	Dir string
	// GitHubURL is the external URL of the simulated GitHub.
	GitHubURL string
	AppKey    *rsa.PublicKey
	Token     string // of GitHub's REST API, instead of the App
	// ClusterToken is the bearer token of the Kubernetes API.
	ClusterToken string
	// AdmissionCA is the PEM that pods trust for the admission API.
	AdmissionCA []byte
	// GitHub carries what the runner application and the hook say to GitHub;
	// Admission what the agent says to the supervisor, nil to follow
	// AdmissionCA and the URL in the pod.
	GitHub, Admission *http.Client
	// SigningKey signs GitHub's ID tokens; nil makes one.
	SigningKey   *rsa.PrivateKey
	Assign       simgithub.Assign
	GHES         bool
	PollHold     time.Duration
	SessionTTL   time.Duration
	Lease        time.Duration // of a job whose runner is silent; 10 min on GitHub
	ShuttingDown time.Duration // shutting-down to terminated
	Refill       time.Duration // until the group replaces a host
	Boot         time.Duration // until a new host's kubelet is ready
	CancelGrace  time.Duration // a cancelled hook's life; 10 s on GitHub
	Hosts        int
	// Join and Leave are told of instances that run and that are terminated, in
	// place of the pretend cluster: then there is none. They must not block.
	Join, Leave func(simaws.Instance)
	// GitHubServer changes the simulated GitHub before it is made.
	GitHubServer func(*simgithub.Config)
	// Karpenter launches the hosts: then there is no Auto Scaling group.
	Karpenter bool
	// HostGroup changes the Auto Scaling group before it is made.
	HostGroup func(*simaws.Group)
	// HookEnv changes the environment that the runner gives to the hook.
	HookEnv func(env map[string]string)
	// OnPod is told of every runner pod whose container starts, with its node.
	OnPod func(pod, node string)
	// NodeLoss is how long after an instance died its node object goes; 0 is soon.
	NodeLoss time.Duration
	// Exit changes the exit code of a runner pod's container.
	Exit func(pod string, code int) int
	// JobLog receives what a job's log would show.
	JobLog func(runner, line string)
	Seed   uint64
}

// World is a populated world.
type World struct {
	GitHub *simgithub.Server
	AWS    *simaws.Server
	// Cluster is nil when [Options.Join] stands for another.
	Cluster *simcluster.Cluster
	// Karpenter is nil without [Options.Karpenter].
	Karpenter *Karpenter
	// RepositoryID and OrgID are what the configuration has to name.
	RepositoryID, OrgID int64
	// GroupID is the restricted runner group.
	GroupID int64
	opts    Options
}

// AppClientID and AppInstallationID are of the App that the world knows.
const (
	AppClientID       = "Iv23simulated0000000"
	AppInstallationID = 4711
	orgID             = 990011
)

// New makes and populates a world. It starts nothing; see [World.Run].
func New(opts Options) (*World, error) {
	w := &World{opts: opts, OrgID: orgID}
	github := simgithub.Config{
		BaseURL: opts.GitHubURL, Org: Org, OrgID: orgID, GHES: opts.GHES, PollHold: opts.PollHold, SessionTTL: opts.SessionTTL, LeaseTTL: opts.Lease,
		Token: opts.Token, AppClientID: AppClientID, AppInstallationID: AppInstallationID, AppKey: opts.AppKey,
		SigningKey: opts.SigningKey, Assign: opts.Assign, Seed: opts.Seed,
	}
	if opts.GitHubServer != nil {
		opts.GitHubServer(&github)
	}
	w.GitHub = simgithub.New(github)
	w.populate()
	join, leave := opts.Join, opts.Leave
	if join == nil {
		var err error
		w.Cluster, err = simcluster.New(simcluster.Options{
			Namespace: Namespace, ServiceAccounts: []string{ServiceAccount}, Token: opts.ClusterToken,
			ConfigMaps: map[string]map[string]string{CAConfigMap: {"ca.crt": string(opts.AdmissionCA)}},
			Issuer:     "https://oidc.eks.us-east-1.amazonaws.com/id/SIMULATED", Seed: opts.Seed, Container: w.Container,
			NodeLoss: opts.NodeLoss,
		})
		if err != nil {
			return nil, fmt.Errorf("make the pretend cluster: %w", err)
		}
		join, leave = w.join, w.leave
	}
	w.AWS = simaws.New(simaws.Config{
		Region: Region, AccountID: Account, AccessKeyID: AccessKeyID, SecretAccessKey: SecretKey,
		ShuttingDown: opts.ShuttingDown, RefillDelay: opts.Refill, LaunchTime: opts.Boot, Seed: opts.Seed,
		OnLaunch: join,
		OnTerminated: func(id string) {
			if in, ok := w.AWS.Instance(id); ok && leave != nil {
				leave(in)
			}
		},
	})
	group := simaws.Group{
		Name: NodeGroup, Min: 2, Max: 6, Desired: max(opts.Hosts, 2), SubnetIDs: []string{Subnet},
		ImageID: "ami-0b0771e0c4e7b0771", ImageName: "bottlerocket-aws-k8s-1.35-x86_64-v1.57.0-8a1b2c3d",
		ImageOwnerAlias: "amazon", ImageOwnerID: "092701018921", InstanceType: "m6i.large",
		Tags:       map[string]string{"Compliance": "HIPAA", "Boundary": "production"},
		HTTPTokens: "required", HopLimit: 1, BootMode: "uefi", Profile: Profile,
	}
	if opts.HostGroup != nil {
		opts.HostGroup(&group)
	}
	if opts.Karpenter {
		var err error
		w.Karpenter, err = newKarpenter(w, group)
		return w, err
	}
	w.AWS.AddGroup(group)
	return w, nil
}

func (w *World) populate() {
	g := w.GitHub
	for _, login := range []string{"alice", "bob", "carol", "dave"} {
		g.AddUser(login)
	}
	g.AddTeam(Team, "alice", "carol", "dave")
	w.RepositoryID = g.AddRepository(Repository)
	g.SetWorkflowTag(DeployWorkflow, DeploySHA)
	g.SetWorkflowTag(BranchWorkflow, branchSHA)
	w.GroupID = g.AddGroup(simgithub.Group{
		Name: Group, Visibility: "selected", Repositories: []string{Repository},
		RestrictedToWorkflows: true, Workflows: []string{DeployWorkflow, BranchWorkflow},
	})
	g.SetEnvironment(Repository, simgithub.Environment{
		Name: Environment, ReviewerTeams: []string{Team}, PreventSelfReview: true,
		Policies: []simgithub.BranchPolicy{{Name: "v*.*.*", Type: "tag"}},
	})
}

// Metadata is what the instance's metadata service knows of it.
func Metadata(in simaws.Instance) simimds.Instance {
	return simimds.Instance{
		ID: in.ID, AccountID: in.AccountID, Region: in.Region, Zone: in.Zone, ImageID: in.ImageID,
		Type: in.InstanceType, PrivateIP: in.PrivateIP, LaunchedAt: in.LaunchedAt,
	}
}

// Node is how the instance's kubelet registers it.
func Node(in simaws.Instance) simcluster.NodeSpec {
	return simcluster.NodeSpec{
		Name: in.PrivateDNS, ProviderID: in.ProviderID(), InternalIP: in.PrivateIP,
		Labels:  map[string]string{PoolLabelKey: PoolLabelValue, "kubernetes.io/hostname": in.PrivateDNS},
		Taints:  []corev1.Taint{{Key: "workload", Value: "hipaa-runner", Effect: corev1.TaintEffectNoSchedule}},
		OSImage: "Bottlerocket OS 1.57.0 (aws-k8s-1.35)", KubeletVersion: "v1.35.2-eks-1a2b3c4",
		BootID: "boot-" + in.ID, MachineID: "machine-" + in.ID,
	}
}

// join makes a running instance a node, as its kubelet would.
func (w *World) join(in simaws.Instance) {
	spec, joins := w.joinFrom(Node(in), in.ID)
	if !joins {
		return
	}
	if _, err := w.Cluster.AddNode(spec); err != nil {
		panic(fmt.Sprintf("instance %s cannot join: %v", in.ID, err)) // a mistake of the world itself
	}
}

// Rejoin registers the node of a running instance again, as its kubelet does
// when somebody deleted the node object: under the same name, with a new UID,
// neither cordoned nor marked.
func (w *World) Rejoin(instanceID string) error {
	in, ok := w.AWS.Instance(instanceID)
	if !ok || in.State != "running" {
		return fmt.Errorf("instance %s is not running", instanceID)
	}
	w.join(in)
	return nil
}

// leave is the cloud controller's view of a dead instance.
func (w *World) leave(in simaws.Instance) { w.Cluster.RemoveNode(in.PrivateDNS) }

// Run keeps the world going until the context ends.
func (w *World) Run(ctx context.Context) error {
	ended := make(chan error, 1)
	go func() {
		if w.Cluster != nil {
			ended <- w.Cluster.Run(ctx)
			return
		}
		<-ctx.Done()
		ended <- context.Cause(ctx)
	}()
	var karpenter sync.WaitGroup
	defer karpenter.Wait()
	if w.Karpenter != nil {
		karpenter.Go(func() { w.Karpenter.run(ctx) })
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		w.AWS.Advance()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return <-ended
		}
	}
}

// Deploy describes a run of the caller workflow on a release tag.
func Deploy(tag, triggeredBy, author string, duration time.Duration) simgithub.RunSpec {
	return simgithub.RunSpec{
		Repository: Repository, Tag: tag, HeadSHA: headSHA, Actor: triggeredBy, HeadAuthor: author, Event: "push",
		WorkflowPath: ".github/workflows/release.yml", JobWorkflowRef: DeployWorkflow, Environment: Environment,
		Labels: Labels(), Group: Group, Job: "deploy_prod", Duration: duration, IDToken: true,
	}
}

// Container is a runner pod's main container: the real agent, which claims the
// JIT config, starts the stand-in runner and is the job-started hook. It returns
// the exit code. It is safe for concurrent use.
func (w *World) Container(ctx context.Context, ct simcluster.Container) int {
	code, err := w.runPod(ctx, ct)
	if err != nil {
		w.say(ct, "pod ends: "+err.Error())
		code = 1
	}
	if w.opts.Exit != nil {
		code = w.opts.Exit(ct.Pod.Name, code)
	}
	return code
}

func (w *World) runPod(ctx context.Context, ct simcluster.Container) (int, error) {
	if w.opts.OnPod != nil {
		w.opts.OnPod(ct.Pod.Name, ct.Pod.Spec.NodeName)
	}
	dir, err := os.MkdirTemp(w.opts.Dir, "pod-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	env, err := w.mount(dir, ct)
	if err != nil {
		return 0, err
	}
	getenv := func(name string) string { return env[name] }
	cfg, err := agent.FromEnv(getenv)
	if err != nil {
		return 0, err
	}
	cfg.HookScript = filepath.Join(dir, "job-started.sh")
	cfg.Client, cfg.GitHub, cfg.Out = w.opts.Admission, w.opts.GitHub, jobLog{w, ct}
	line := memnet.Listen() // the pod's Unix socket
	cfg.Listen = func() (net.Listener, error) { return line, nil }
	cfg.Dial = func(ctx context.Context) (net.Conn, error) { return line.DialContext(ctx, "", "") }
	a, err := agent.New(cfg)
	if err != nil {
		return 0, err
	}
	return a.Run(ctx, func(ctx context.Context, runnerEnv map[string]string) (int, error) {
		app := simgithub.Runner{Client: w.opts.GitHub, Stop: ct.Stop, CancelGrace: w.opts.CancelGrace}
		return app.Run(ctx, runnerEnv["ACTIONS_RUNNER_INPUT_JITCONFIG"], func(ctx context.Context, hookEnv map[string]string) error {
			if w.opts.HookEnv != nil {
				w.opts.HookEnv(hookEnv)
			}
			return a.Hook(ctx, func(name string) string { return hookEnv[name] })
		}), nil
	})
}

// mount lays the pod's projected files into a folder and points the pod's
// environment at them.
func (w *World) mount(dir string, ct simcluster.Container) (map[string]string, error) {
	env := map[string]string{}
	for name, value := range ct.Env {
		env[name] = value
	}
	var problems []error
	for path, content := range ct.Files {
		file := filepath.Join(dir, strings.ReplaceAll(strings.Trim(path, "/"), "/", "_"))
		problems = append(problems, os.WriteFile(file, []byte(content), 0o600))
		for name, value := range env {
			if value == path {
				env[name] = file
			}
		}
	}
	env[agent.EnvBoundFile] = filepath.Join(dir, "bound")
	problems = append(problems, os.WriteFile(filepath.Join(dir, "job-started.sh"), []byte("#!/bin/bash\n"), 0o755))
	return env, errors.Join(problems...)
}

func (w *World) say(ct simcluster.Container, line string) {
	if w.opts.JobLog != nil {
		w.opts.JobLog(ct.Pod.Name, strings.TrimSpace(line))
	}
}

type jobLog struct {
	w  *World
	ct simcluster.Container
}

func (l jobLog) Write(b []byte) (int, error) {
	l.w.say(l.ct, string(b))
	return len(b), nil
}
