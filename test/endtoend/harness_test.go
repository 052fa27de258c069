// Package endtoend runs the daemon's real parts (the official scale set
// client, go-github, the AWS SDK, client-go, the agent) against the simulators
// inside testing/synctest, so that minutes of polling, booting and terminating
// pass in milliseconds and every schedule can be repeated.
package endtoend

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"go.uber.org/zap"
	"k8s.io/client-go/rest"

	"github.com/runnerward/runnerward/configs"
	"github.com/runnerward/runnerward/pkg/admission"
	"github.com/runnerward/runnerward/pkg/cluster"
	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/ghapp"
	"github.com/runnerward/runnerward/pkg/github"
	"github.com/runnerward/runnerward/pkg/hosts"
	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/policy"
	"github.com/runnerward/runnerward/pkg/runner"
	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/sim/memnet"
	"github.com/runnerward/runnerward/pkg/sim/world"
	"github.com/runnerward/runnerward/pkg/supervisor"
	"github.com/runnerward/runnerward/scaleset"
)

const (
	gitHubURL = "http://github.sim"
	// storeLatency makes durability visible: a record is durable this long
	// after the time that it carries, twice over (segment, checkpoint).
	storeLatency = 20 * time.Millisecond
)

// bundle is compiled once; it holds no state.
var bundle = sync.OnceValues(func() (*policy.Bundle, error) {
	files, err := configs.Policy()
	if err != nil {
		return nil, err
	}
	return policy.Load(files)
})

// signingKey is made once: making one takes longer than a whole deploy.
var signingKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// options vary the world of one test.
type options struct {
	assign    simgithub.Assign
	ghes      bool
	at        int // which operation goes wrong, -1 for none
	flavour   flavour
	only      string        // the first letters of the operations that are counted
	spool     bool          // the log has one
	tick      time.Duration // 2 s when 0
	limits    func(*runner.Limits)
	pool      func(*runner.Pool)
	hosts     int
	group     func(*simaws.Group)
	karpenter func(*hosts.KarpenterOptions) // launches the hosts instead of a group
	onPod     func(pod, node string)
	onRecord  func(b *bench, rec runner.Record) // must not wait
	onRebuff  func(runner.Gate, runner.RebuffCause)
	exit      func(pod string, code int) int
	nodeLoss  time.Duration
	stepsHook func(runner, line string)
	logger    *zap.Logger
	// documents are taken from the witnesses of hosts; required as configured.
	documents         supervisor.Documents
	documentsRequired bool
	// begin is how long after 2000-01-01, the first moment of a bubble, the
	// world begins.
	begin time.Duration
	// rotation stands between the daemon and its keys.
	rotation func(rotation) rotation
}

// rotation makes the next handover of a key.
type rotation = func(context.Context, time.Time) (runner.Event, error)

// bench is a world with a daemon in it.
type bench struct {
	t      *testing.T
	opts   options
	world  *world.World
	dir    string
	faults *faults
	bundle *policy.Bundle
	keyPEM []byte

	github, aws *memnet.Listener
	kube        *memnet.Listener // nil without Karpenter
	gate        *switchboard

	mu     sync.Mutex
	daemon *daemon
	deaths int
	heard  map[string]bool // credentials that went over the wires

	seen     *runner.State
	seenSize int
}

// run gives f a populated world with a running daemon, inside a bubble, and
// afterwards verifies the ledger with the auditor's own code.
func run(t *testing.T, opts options, f func(t *testing.T, b *bench)) {
	t.Helper()
	rules, err := bundle()
	if err != nil {
		t.Fatal(err)
	}
	key, err := signingKey()
	if err != nil {
		t.Fatal(err)
	}
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	dir := memoryDir(t)
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, opts: opts, dir: dir, bundle: rules, keyPEM: keyPEM, github: memnet.Listen(), aws: memnet.Listen(), gate: &switchboard{}, heard: map[string]bool{}}
		b.faults = &faults{at: opts.at, flavour: opts.flavour, only: opts.only, crash: b.crash, halt: b.halt}
		pause(t.Context(), opts.begin)
		ctx, cancel := context.WithCancel(t.Context())
		client := &http.Client{Transport: b.overhear(overPipe{b.github.Transport()})}
		b.world, err = world.New(world.Options{
			Dir: dir, GitHubURL: gitHubURL, AppKey: &key.PublicKey, AdmissionCA: []byte("none"), GitHub: client,
			ClusterToken: clusterToken, Karpenter: opts.karpenter != nil,
			Admission: &http.Client{Transport: b.overhear(b.gate)}, SigningKey: key, Assign: opts.assign, GHES: opts.ghes, SessionTTL: 20 * time.Second,
			ShuttingDown: 30 * time.Second, Refill: 20 * time.Second, Boot: 40 * time.Second, Hosts: max(opts.hosts, 2), HostGroup: opts.group, OnPod: opts.onPod, Exit: opts.exit, NodeLoss: opts.nodeLoss, JobLog: opts.stepsHook,
			// The agent asks for tokens over https only; the pipe carries it as http.
			HookEnv: func(env map[string]string) {
				const name = "ACTIONS_ID_TOKEN_REQUEST_URL"
				env[name] = strings.Replace(env[name], "http://", "https://", 1)
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		stopGitHub, stopAWS, stopKube := b.github.Serve(b.world.GitHub), b.aws.Serve(b.world.AWS), func() {}
		if b.world.Karpenter != nil {
			b.kube = memnet.Listen()
			stopKube = b.kube.Serve(b.world.Karpenter.Handler())
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = b.world.Run(ctx)
		}()
		defer func() {
			b.kill()
			cancel()
			<-ended
			b.world.GitHub.Close()
			client.CloseIdleConnections()
			stopGitHub()
			stopAWS()
			stopKube()
			b.verify()
			if unknown := b.world.GitHub.UnknownRequests(); len(unknown) > 0 {
				t.Errorf("the simulated GitHub has no route for %q: what was answered there proves nothing", unknown)
			}
		}()
		b.start()
		f(t, b)
	})
}

// memoryDir is a folder in memory where there is one: what these tests break
// are operations, not disks, and most of their time would go into fsync.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "runnerward-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// daemon is what serve wires, with the network of one process.
type daemon struct {
	sup     *supervisor.Supervisor
	log     *ledger.Log
	store   *ledger.Dir
	cluster *cluster.Cluster
	net     *network
	cancel  context.CancelFunc
	ended   chan struct{}
	err     error
	// startErr is why the last start failed, nil once it did not.
	startErr error
	dead     chan struct{}
}

// start brings a daemon up on the ledger as it stands.
func (b *bench) start() {
	ctx, cancel := context.WithCancel(b.t.Context())
	d := &daemon{net: &network{}, cancel: cancel, ended: make(chan struct{}), dead: make(chan struct{})}
	b.mu.Lock()
	b.daemon = d
	b.mu.Unlock()
	b.faults.revive(d.dead)
	go func() {
		defer close(d.ended)
		d.err = b.life(ctx, d)
	}()
}

// life is the daemon's process: build, run, end. A start that fails is tried
// again, as a process manager would.
func (b *bench) life(ctx context.Context, d *daemon) error {
	for {
		err := b.buildAndRun(ctx, d)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if errors.Is(err, supervisor.ErrFenced) {
			return err
		}
		b.mu.Lock()
		d.startErr = err
		b.mu.Unlock()
		if !pause(ctx, 2*time.Second) {
			return ctx.Err()
		}
	}
}

func (b *bench) buildAndRun(ctx context.Context, d *daemon) error {
	keys, err := ledger.OpenKeys(b.dir+"/keys", "runnerward.test/hipaa-prod/2026", time.Now().UTC())
	if err != nil {
		return err
	}
	if d.store, err = ledger.OpenDir(b.dir + "/ledger"); err != nil {
		return err
	}
	defer d.store.Close()
	logOpts := ledger.Options{Recorder: evidence.Recorder{ID: "https://runnerward.test", Version: "test"}}
	if b.opts.spool {
		spool, err := ledger.OpenSpoolDir(b.dir + "/spool")
		if err != nil {
			return err
		}
		defer spool.Close()
		logOpts.Spool = faultySpool{spool, b.faults}
	}
	var records []runner.Record
	d.log, records, err = ledger.Open(ctx, faultyStore{d.store, b.faults}, keys, logOpts)
	if err != nil {
		return err
	}
	opts, err := b.wire(ctx, d)
	if err != nil {
		return err
	}
	if opts.Root, err = d.log.Root().Encode(); err != nil {
		return err
	}
	opts.Rotation = d.log.Rotation
	if b.opts.rotation != nil {
		opts.Rotation = b.opts.rotation(opts.Rotation)
	}
	if d.sup, err = supervisor.New(opts, records); err != nil {
		return err
	}
	var events sync.WaitGroup
	defer events.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	events.Go(func() { _ = d.cluster.Run(ctx) }) // ends with the context and has nothing else to say
	defer b.gate.connect(admission.NewHandler(d.sup, b.logger(), admission.Limits{}))()
	b.mu.Lock()
	d.startErr = nil
	b.mu.Unlock()
	return d.sup.Run(ctx)
}

func (b *bench) wire(ctx context.Context, d *daemon) (supervisor.Options, error) {
	opts := supervisor.Options{
		Ledger: d.log, Policy: b.bundle, Pool: b.pool(), Limits: b.limits(), Rules: rules(),
		Tick: cmp.Or(b.opts.tick, 2*time.Second), CallTimeout: 45 * time.Second, History: 24 * time.Hour, Version: "test", Instance: "test",
		Config: []byte("config"), ServerURL: gitHubURL, Logger: b.logger(),
		NewsEvery: 15 * time.Second, AnswerDeployments: true,
		NewName:   func() runner.Name { return runner.Name(fmt.Sprintf("hipaa-prod-%d", time.Now().UnixNano())) },
		Documents: b.opts.documents,
		OnRebuff:  b.opts.onRebuff,
		OnRecord: func(rec runner.Record, _ *runner.State) {
			if b.opts.onRecord != nil {
				b.opts.onRecord(b, rec)
			}
		},
	}
	opts.Rules.IdentityRequired = b.opts.documentsRequired
	transport := b.overhear(&http.Transport{DialContext: d.net.dial(b.github)})
	app, err := b.app(transport)
	if err != nil {
		return opts, err
	}
	client, err := github.New(github.Config{
		URL: gitHubURL, Org: world.Org, App: app, InstallationID: world.AppInstallationID, Transport: transport, Environment: world.Environment,
		ApproverTeams: []string{world.Team}, Group: world.Group, Labels: world.Labels(), RunnerScaleSetName: "hipaa-prod",
		Workflows: []string{world.DeployWorkflow}, Repositories: []runner.Repository{{Name: world.Org + "/" + world.Repository, ID: b.world.RepositoryID}},
	}, b.logger())
	if err != nil {
		return opts, err
	}
	identity, err := github.NewIdentity(github.IdentityConfig{Issuer: b.world.GitHub.Issuer(), Transport: transport})
	if err != nil {
		return opts, err
	}
	if b.opts.karpenter != nil {
		opts.Rules.Groups, opts.Rules.NodeClaims = nil, true
	}
	nodes, err := cluster.New(b.world.Cluster.Client(), cluster.Options{
		NodeFinalizers: []string{hosts.NodeFinalizer},
		Namespace:      world.Namespace, NodeLabels: rules().Labels, Taint: rules().Taint, ServiceAccount: world.ServiceAccount,
		WitnessNamespace: witnessAccount, WitnessServiceAccount: witnessAccount,
		RunnerImage: "ghcr.io/actions/actions-runner:2.336.0", AgentImage: "runnerward-agent:test", AdmissionURL: "https://admission.sim",
		AdmissionCAConfigMap: world.CAConfigMap, CPU: "1", Memory: "1Gi", Cluster: "hipaa-prod-east", ScaleSet: "hipaa-prod",
		OnChange: func(ch supervisor.Change) { d.sup.Changed(ch) },
	}, b.logger())
	if err != nil {
		return opts, err
	}
	machines, err := b.machines(d, opts.Rules)
	if err != nil {
		return opts, err
	}
	set, err := scaleset.Open(ctx, scaleset.Config{
		URL: gitHubURL + "/" + world.Org, Name: "hipaa-prod", Group: world.Group, Labels: world.Labels(), Owner: "test",
		App: app, Version: "test", Transport: transport,
		Boundary: client.Boundary,
		PollFor: func() time.Duration {
			if d.sup != nil && d.sup.Unbound() {
				return 5 * time.Second
			}
			return 0
		},
	}, b.logger())
	if err != nil {
		return opts, err
	}
	d.cluster = nodes
	opts.Queue, opts.Registrar = set, faultyRegistrar{set, b.faults}
	opts.GitHub, opts.Identity = faultyGitHub{client, b.faults}, faultyIdentity{identity, b.faults}
	opts.Cluster, opts.Hosts = faultyCluster{nodes, b.faults}, faultyHosts{machines, b.faults}
	return opts, nil
}

const clusterToken = "a-token-of-the-pretend-cluster"

// machines is the driver of hosts.
func (b *bench) machines(d *daemon, rules runner.VetRules) (supervisor.Hosts, error) {
	cfg := aws.Config{
		Region: world.Region, BaseEndpoint: aws.String("http://aws.sim"),
		Credentials: credentials.NewStaticCredentialsProvider(world.AccessKeyID, world.SecretKey, ""),
		HTTPClient:  &http.Client{Transport: b.overhear(wholeBody{&http.Transport{DialContext: d.net.dial(b.aws)}})},
	}
	if b.opts.karpenter == nil {
		return hosts.NewAutoScaling(cfg, hosts.Options{Region: world.Region, Groups: []string{world.NodeGroup}, Logger: b.logger()})
	}
	api, err := hosts.NewNodeClaims(&rest.Config{
		Host: "http://cluster.sim", BearerToken: clusterToken, QPS: -1, Transport: &http.Transport{DialContext: d.net.dial(b.kube)},
	})
	if err != nil {
		return nil, err
	}
	opt := hosts.KarpenterOptions{
		Region: world.Region, Pool: "hipaa-prod", NodeClass: world.NodeClass, Max: 4, RegisterBy: 5 * time.Minute,
		TerminationGracePeriod: 2 * time.Hour, Rules: rules, Logger: b.logger(),
		NewName: func() string { return fmt.Sprintf("hipaa-prod-%d", time.Now().UnixNano()) },
	}
	b.opts.karpenter(&opt)
	return hosts.NewKarpenter(cfg, api, opt)
}

// app signs in as the App that the world knows; its key signs job tokens too,
// because making keys takes longer than a deploy.
func (b *bench) app(transport http.RoundTripper) (*ghapp.App, error) {
	key, err := ghapp.ParseKey(b.keyPEM)
	if err != nil {
		return nil, err
	}
	api, err := ghapp.APIBase(gitHubURL)
	if err != nil {
		return nil, err
	}
	return ghapp.New(ghapp.Config{API: api, ClientID: world.AppClientID, InstallationID: world.AppInstallationID, Key: key, Transport: transport})
}

func (b *bench) logger() *zap.Logger {
	if b.opts.logger != nil {
		return b.opts.logger
	}
	return zap.NewNop()
}

func (b *bench) limits() runner.Limits {
	lim := runner.Limits{
		MaxRunners: 4, MaxAttempts: 3, AuthorizedFor: time.Hour, DecideBy: 10 * time.Minute, BindBy: 5 * time.Minute, ReleaseBy: 2 * time.Minute,
		IdleTTL: 4 * time.Minute, SurplusGrace: 30 * time.Second, HookGrace: 2 * time.Minute, JobTTL: time.Hour, SilentFor: 10 * time.Minute,
		EscalateAfter: 5 * time.Minute, TeardownBy: 20 * time.Minute, ConcludeGrace: 2 * time.Minute,
	}
	lim.OnDemand = b.opts.karpenter != nil
	if b.opts.limits != nil {
		b.opts.limits(&lim)
	}
	return lim
}

func (b *bench) pool() runner.Pool {
	pool := runner.Pool{
		Organization: world.Org, OrganizationID: b.world.OrgID, Group: world.Group, Labels: world.Labels(),
		Repositories: []runner.Repository{{Name: world.Org + "/" + world.Repository, ID: b.world.RepositoryID}},
		Workflows:    []runner.Workflow{{Ref: world.DeployWorkflow, SHA: world.DeploySHA}}, Environment: world.Environment,
		ApproverTeams: []string{world.Team}, Events: []string{"push"},
		MaxFactsAgeSeconds: 120, MaxTokenAgeSeconds: 300, MaxStartAgeSeconds: 3600,
	}
	if b.opts.pool != nil {
		b.opts.pool(&pool)
	}
	return pool
}

func rules() runner.VetRules {
	return runner.VetRules{
		Provider: "aws", Labels: map[string]string{world.PoolLabelKey: world.PoolLabelValue},
		Taint:    runner.Taint{Key: "workload", Value: "hipaa-runner", Effect: "NoSchedule"},
		Accounts: []string{world.Account}, Regions: []string{world.Region}, Subnets: []string{world.Subnet},
		Groups: []string{world.NodeGroup}, ImageNames: []string{"bottlerocket-aws-k8s-"}, ImageOwners: []string{"amazon"},
		Profiles: []string{world.Profile}, BootModes: []string{"uefi"}, InstanceTags: map[string]string{"Compliance": "HIPAA"},
	}
}

// crash kills the daemon as SIGKILL does, and a process manager starts it
// again. It is called from inside the operation that was to be the last.
func (b *bench) crash() {
	b.mu.Lock()
	d := b.daemon
	b.deaths++
	b.mu.Unlock()
	close(d.dead)
	d.net.cut()
	b.gate.cut()
	d.cancel()
	go func() {
		<-d.ended
		b.start()
	}()
}

// halt takes a stopped daemon's connections away: what it has asked for is not
// answered any more, and its session with the queue runs out.
func (b *bench) halt() {
	b.mu.Lock()
	d := b.daemon
	b.mu.Unlock()
	d.net.cut()
}

// kill ends the daemon for good.
func (b *bench) kill() {
	b.mu.Lock()
	d := b.daemon
	b.mu.Unlock()
	d.cancel()
	<-d.ended
	d.net.cut()
}

// until waits for a condition, for at most this long of the bubble's time.
func (b *bench) until(what string, limit time.Duration, ok func() bool) {
	b.t.Helper()
	b.poll(what, limit, 500*time.Millisecond, ok)
}

// poll is until with a first step of its own; later steps are longer.
func (b *bench) poll(what string, limit, step time.Duration, ok func() bool) {
	b.t.Helper()
	for waited := time.Duration(0); waited < limit; waited += step {
		if ok() {
			return
		}
		if waited > 100*step {
			step *= 2
		}
		pause(b.t.Context(), step)
	}
	b.t.Fatalf("not within %s: %s\n%s", limit, what, b.describe())
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// report reads the ledger as an auditor does.
func (b *bench) report() *evidence.Report {
	b.t.Helper()
	keys, err := ledger.OpenKeys(b.dir+"/keys", "runnerward.test/hipaa-prod/2026", time.Now().UTC())
	if err != nil {
		b.t.Fatal(err)
	}
	rep, err := evidence.Verify(os.DirFS(b.dir+"/ledger"), keys.Root())
	if errors.Is(err, fs.ErrNotExist) {
		return &evidence.Report{State: runner.NewState()}
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return rep
}

func (b *bench) verify() {
	b.t.Helper()
	for _, finding := range b.report().Findings {
		b.t.Errorf("the ledger does not verify: %s", finding)
	}
}

// state is the fold of the ledger as it stands, verified anew when it grew.
func (b *bench) state() *runner.State {
	size := b.segments()
	if size == 0 {
		return runner.NewState()
	}
	if b.seen == nil || size != b.seenSize {
		b.seen, b.seenSize = b.report().State, size
	}
	return b.seen
}

func (b *bench) describe() string {
	out := ""
	for _, rec := range b.report().Records {
		out += fmt.Sprintf("  #%d %s %s on %s %+v\n", rec.Index, rec.At.Format("15:04:05.000"), rec.Event.Kind(), rec.Event.Chain(), short(rec.Event))
	}
	for _, j := range b.world.GitHub.Jobs() {
		out += fmt.Sprintf("  github: job %s run %d %s %s on %q\n", j.JobID, j.RunID, j.Status, j.Conclusion, j.RunnerName)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.daemon.sup != nil {
		v := b.daemon.sup.View()
		out += fmt.Sprintf("  daemon: %v %+v\n", v.Why, v.Queue)
		for _, j := range v.Jobs {
			out += fmt.Sprintf("  job %s %s: %s\n", j.ID, j.Phase, j.Problem)
		}
		for _, h := range v.Hosts {
			out += fmt.Sprintf("  host %s %s vetted=%t %v\n", h.Node, h.Instance, h.Vetted, h.Failing)
		}
		for _, r := range v.Runners {
			out += fmt.Sprintf("  runner %s %s: %s %v\n", r.Name, r.Phase, r.Problem, r.Pending)
		}
	}
	return out
}

func short(e runner.Event) any {
	switch e := e.(type) {
	case runner.Denied:
		return e.Decision.Reasons
	case runner.Refused:
		return e.Decision.Reasons
	case runner.Retired:
		return e.Cause
	case runner.Overdue:
		return e.Pending
	}
	return ""
}

// switchboard connects agents to the admission API of the daemon that was
// connected last, of those that are.
type switchboard struct {
	mu   sync.Mutex
	open []*exchange
}

type exchange struct {
	stop func()
	http *http.Transport
}

// connect sends agents to this daemon from now on. What is asked of another
// stays with it, until its connections are ended by what connect returned then.
func (s *switchboard) connect(h http.Handler) (disconnect func()) {
	l := memnet.Listen()
	x := &exchange{http: l.Transport(), stop: l.Serve(h)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = append(s.open, x)
	return func() { s.end(x) }
}

// last is nil when none is connected.
func (s *switchboard) last() *exchange {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.open) == 0 {
		return nil
	}
	return s.open[len(s.open)-1]
}

// cut ends the connections of the daemon that was connected last.
func (s *switchboard) cut() {
	if x := s.last(); x != nil {
		s.end(x)
	}
}

func (s *switchboard) end(x *exchange) {
	s.mu.Lock()
	i := slices.Index(s.open, x)
	if i >= 0 {
		s.open = slices.Delete(s.open, i, i+1)
	}
	s.mu.Unlock()
	if i >= 0 {
		x.http.CloseIdleConnections()
		x.stop()
	}
}

// RoundTrip takes the agent's https request over the pipe.
func (s *switchboard) RoundTrip(req *http.Request) (*http.Response, error) {
	x := s.last()
	if x == nil {
		return nil, &net.OpError{Op: "dial", Net: "memory", Err: errors.New("connection refused")}
	}
	return overPipe{x.http}.RoundTrip(req)
}

// overPipe takes https requests over a pipe, which needs no TLS.
type overPipe struct{ *http.Transport }

func (p overPipe) RoundTrip(req *http.Request) (*http.Response, error) {
	plain := req.Clone(req.Context())
	plain.URL.Scheme = "http"
	return p.Transport.RoundTrip(plain)
}

// canary stands in headers of GitHub's answers, where a careless error or log
// line would take it from.
const canary = "CANARYofAnAnswersHeader"

// listener notes the credentials of all requests.
type listener struct {
	http.RoundTripper
	b *bench
}

func (b *bench) overhear(next http.RoundTripper) http.RoundTripper { return listener{next, b} }

func (l listener) RoundTrip(req *http.Request) (*http.Response, error) {
	said := req.Header.Values("Authorization")
	if req.Body != nil && strings.HasSuffix(req.URL.Path, "/start") { // the job's token is in the body
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		said = append(said, strings.Split(string(body), `"`)...)
		req = req.Clone(req.Context())
		req.Body = io.NopCloser(bytes.NewReader(body))
	}
	l.b.mu.Lock()
	for _, text := range said {
		for _, word := range strings.FieldsFunc(text, func(c rune) bool { return c == ' ' || c == ',' || c == '=' }) {
			if len(word) > 30 {
				l.b.heard[word] = true
			}
		}
	}
	l.b.mu.Unlock()
	resp, err := l.RoundTripper.RoundTrip(req)
	if err == nil && !strings.Contains(req.URL.Host, "aws") {
		for _, name := range []string{"X-GitHub-Request-Id", "ActivityId", "Set-Cookie", "Server", "X-OAuth-Scopes", "X-Canary"} {
			resp.Header.Set(name, canary)
		}
	}
	return resp, err
}

// wholeBody reads an answer to its end before the SDK sees it. The SDK closes a
// request's body as soon as it has the head of the answer (smithy-go,
// ClientHandler). A peer in the same process answers so soon that the transport
// may not have seen the end of that body yet; then it drops the connection in
// the middle of the answer.
type wholeBody struct{ *http.Transport }

func (w wholeBody) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := w.Transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// network is the network of one process: cut, nothing comes or goes.
type network struct {
	mu    sync.Mutex
	down  bool
	conns []net.Conn
}

func (n *network) dial(l *memnet.Listener) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := l.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.down {
			_ = conn.Close()
			return nil, net.ErrClosed
		}
		n.conns = append(n.conns, conn)
		return conn, nil
	}
}

func (n *network) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = true
	for _, c := range n.conns {
		_ = c.Close()
	}
}

// mend lets new connections through.
func (n *network) mend() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = false
}
