package main

import (
	"context"
	"crypto/fips140"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/runnerward/runnerward/pkg/admission"
	"github.com/runnerward/runnerward/pkg/cluster"
	"github.com/runnerward/runnerward/pkg/config"
	"github.com/runnerward/runnerward/pkg/hosts"
	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
	"github.com/runnerward/runnerward/scaleset"
)

const (
	// callTimeout bounds one task's calls to GitHub, the cluster and the cloud.
	callTimeout = 45 * time.Second
	// history is how long finished jobs stay on the status page.
	history = 24 * time.Hour
	// shutdownGrace is how long open questions of agents may take at the end.
	shutdownGrace = 5 * time.Second
	// lastRecord is how long the last record may take at the end, above
	// ledger.DefaultPatience for its segment and again for its checkpoint.
	lastRecord = 25 * time.Second
	// unboundPoll is how long a poll lasts while a runner waits for its job.
	unboundPoll = 5 * time.Second
	// podTTLSlack lets the supervisor end a job before the kubelet does.
	podTTLSlack = 10 * time.Minute
)

// daemon is everything that serve runs.
type daemon struct {
	log        *ledger.Log
	root       []byte // what verifies the log
	closeStore func() error
	// documents are in effect while this daemon runs.
	documents  [][]byte
	spool      *ledger.SpoolDir // nil without one
	cluster    *cluster.Cluster
	supervisor *supervisor.Supervisor
	admission  admission.Server
}

// close publishes the view, once nothing is written any more: a question whose
// connection was cut off at the end is not over with it, and a log takes one
// caller at a time. If one does not end, the view is published by the next start.
func (d *daemon) close() error {
	return errors.Join(d.closeLog(), d.closeStore(), d.closeSpool())
}

func (d *daemon) closeLog() error {
	if d.supervisor != nil {
		last, cancel := context.WithTimeout(context.Background(), lastRecord)
		defer cancel()
		if err := d.supervisor.Leave(last); err != nil {
			return fmt.Errorf("close the ledger: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	return d.log.Close(ctx)
}

// build makes the parts in the order of their dependence: the policy and the
// log first, because without them nothing may be asked for at all.
// The status endpoint is already served, from front, which says how far it is.
func build(ctx context.Context, cfg *config.Config, logger *zap.Logger, front *front) (*daemon, error) {
	bundle, err := loadPolicy(cfg)
	if err != nil {
		return nil, failWith(exitUsage, err)
	}
	certificates, err := loadCertificates(cfg)
	if err != nil {
		return nil, failWith(exitUsage, err)
	}
	d := &daemon{}
	records, err := d.openLedger(ctx, cfg, func(away error) {
		front.waits(away)
		logger.Error("the log's store or its keys are away; nothing is begun or ended before they are back", zap.Error(away))
	})
	if err != nil {
		return nil, err
	}
	front.goesOn("the cluster, the cloud and GitHub are asked for what is needed")
	opts := supervisor.Options{
		Ledger: d.log, Policy: bundle, Pool: cfg.RunnerPool(), Limits: cfg.RunnerLimits(), Rules: cfg.VetRules(),
		Tick: cfg.Supervisor.Tick, CallTimeout: callTimeout, History: history,
		NewName: func() runner.Name { return newName(cfg.Pool.Name) },
		Version: buildVersion(), Instance: hostname(), FIPS: fips(),
		Rotation: d.log.Rotation, Logger: logger.Named("supervisor"),
	}
	if certificates != nil { // a nil pointer in the interface would not be nil
		opts.Documents = certificates
	}
	opts.Root = d.root
	if opts.Config, err = cfg.Effective(); err != nil {
		return nil, errors.Join(err, d.close())
	}
	d.documents = [][]byte{opts.Config, bundle.Archive(), opts.Root}
	if err := d.connect(ctx, cfg, logger, &opts, hasUnfinished(records)); err != nil {
		return nil, errors.Join(err, d.close())
	}
	meter, publishRoot := &meter{to: front.server}, d.rootFollower(cfg, logger)
	opts.OnRecord = func(rec runner.Record, state *runner.State) {
		meter.record(rec, state)
		publishRoot(rec)
	}
	opts.OnRebuff = front.server.Rebuffed
	if d.supervisor, err = supervisor.New(opts, records); err != nil {
		return nil, errors.Join(err, d.close())
	}
	if d.admission, err = admissionServer(cfg, d.supervisor, logger); err != nil {
		return nil, errors.Join(err, d.close())
	}
	front.stands(d.supervisor)
	return d, nil
}

// hasUnfinished says that the log holds a runner that is not sealed.
func hasUnfinished(records []runner.Record) bool {
	open := 0
	for _, rec := range records {
		switch rec.Event.Kind() {
		case runner.KindClaimed:
			open++
		case runner.KindSealed:
			open--
		}
	}
	return open > 0
}

// recorderID names this program in every statement that it signs.
const recorderID = "https://github.com/runnerward/runnerward"

// connect makes the adapters. GitHub is asked for the scale set here: a wrong
// group, label or credential ends the start with a clear message.
func (d *daemon) connect(ctx context.Context, cfg *config.Config, logger *zap.Logger, opts *supervisor.Options, unfinished bool) error {
	roots, err := readPool("github.caFile", cfg.GitHub.CAFile)
	if err != nil {
		return err
	}
	proxy, err := proxyOf(cfg.GitHub.Proxy)
	if err != nil {
		return err
	}
	if opts.Hosts, opts.Rules.Groups, err = newHosts(ctx, cfg, logger); err != nil {
		return err
	}
	if d.cluster, err = newCluster(cfg, logger, d.changed); err != nil {
		return err
	}
	opts.Cluster = d.cluster
	gh, err := connectGitHub(ctx, cfg, roots, proxy, logger)
	if err != nil {
		return err
	}
	opts.GitHub, opts.Identity, opts.ServerURL = gh.client, gh.identity, serverOf(cfg.GitHub.URL)
	opts.AnswerDeployments, opts.Explain = cfg.GitHub.AnswerDeployments, inPlainWords
	if cfg.GitHub.TokenFile == "" { // only an App is told anything
		opts.NewsEvery = cfg.GitHub.DeliveriesEvery
	}
	set := gh.set
	set.PollFor = func() time.Duration {
		if d.supervisor != nil && d.supervisor.Unbound() {
			return unboundPoll
		}
		return 0
	}
	scaleSet, err := scaleset.New(set, logger.Named("scaleset"))
	if err != nil {
		return failWith(exitUsage, err)
	}
	if err := scaleSet.Ensure(ctx); err != nil {
		err = fmt.Errorf("open the runner scale set at github.url, %s: %w", cfg.GitHub.URL, err)
		if !unfinished {
			return err
		}
		// Hosts wait to be ended: that must not wait for GitHub.
		logger.Error("the scale set cannot be had; going on with what is unfinished", zap.Error(err))
	}
	opts.Queue, opts.Registrar = scaleSet, scaleSet
	return nil
}

// newHosts makes the driver, and says which groups' instances are hosts, none
// where there are no groups. Those that the configuration leaves out are asked of
// EKS: without them nobody could tell a host from another machine, so the start
// waits for EKS then.
func newHosts(ctx context.Context, cfg *config.Config, logger *zap.Logger) (supervisor.Hosts, []string, error) {
	if cfg.Hosts.Driver == "none" {
		return hosts.None{}, nil, nil
	}
	aws, err := hosts.LoadConfig(ctx, hosts.ConfigOptions{Region: cfg.Hosts.Region, Endpoint: cfg.Hosts.Endpoint, CAFile: cfg.Hosts.CAFile})
	if err != nil {
		return nil, nil, err
	}
	if cfg.Hosts.Driver == "karpenter" {
		driver, err := newKarpenter(cfg, aws, logger)
		return driver, nil, err
	}
	opt := hosts.Options{
		Region: cfg.Hosts.Region, Groups: cfg.Hosts.Groups, ImageParameters: cfg.Hosts.ImageParameters, Logger: logger.Named("hosts"),
	}
	if of := cfg.Hosts.Nodegroup; of != (config.Nodegroup{}) {
		rules := cfg.VetRules()
		opt.Nodegroup = &hosts.Nodegroup{Cluster: of.Cluster, Name: of.Name, Labels: rules.Labels, Taint: rules.Taint}
		if len(opt.Groups) == 0 {
			if opt.Groups, err = hosts.FindGroups(ctx, aws, *opt.Nodegroup); err != nil {
				return nil, nil, fmt.Errorf("hosts.nodegroup: %w", err)
			}
		}
	}
	driver, err := hosts.NewAutoScaling(aws, opt)
	return driver, opt.Groups, err
}

// changed passes on what changed in the cluster, which is watched only once there
// is a supervisor.
func (d *daemon) changed(ch supervisor.Change) { d.supervisor.Changed(ch) }

func newCluster(cfg *config.Config, logger *zap.Logger, onChange func(supervisor.Change)) (*cluster.Cluster, error) {
	requests := &cluster.Requests{}
	client, err := cluster.NewClient(cfg.Cluster.KubeconfigFile, requests)
	if err != nil {
		return nil, failWith(exitUsage, fmt.Errorf("cluster.kubeconfigFile: %w", err))
	}
	rules := cfg.VetRules()
	var finalizers []string
	if rules.NodeClaims {
		finalizers = []string{hosts.NodeFinalizer}
	}
	return cluster.New(client, cluster.Options{
		NodeFinalizers: finalizers,
		Namespace:      cfg.Cluster.Namespace, NodeLabels: rules.Labels, Taint: rules.Taint, ServiceAccount: cfg.Cluster.ServiceAccount,
		WitnessNamespace: cfg.Hosts.Identity.Namespace, WitnessServiceAccount: cfg.Hosts.Identity.ServiceAccount,
		RunnerImage: cfg.Cluster.RunnerImage, AgentImage: cfg.Cluster.AgentImage, AdmissionURL: cfg.Cluster.AdmissionURL,
		AdmissionCAConfigMap: cfg.Cluster.AdmissionCAConfigMap, RunnerCommand: cfg.Cluster.RunnerCommand,
		CPU: cfg.Cluster.CPU, Memory: cfg.Cluster.Memory, PodTTLSlack: podTTLSlack,
		Cluster: cfg.Cluster.Name, ScaleSet: cfg.Pool.Name, Organization: cfg.RunnerPool().Organization, EventInstance: hostname(),
		OnChange: onChange, Requests: requests,
	}, logger.Named("cluster"))
}

// newName is the pool's name and 80 random bits.
func newName(pool string) runner.Name {
	var b [10]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic(err) // crypto/rand.Read never returns an error
	}
	return runner.Name(poolPrefix(pool) + "-" + strings.ToLower(base32.StdEncoding.EncodeToString(b[:])))
}

// poolPrefix is the pool's name as names in the cluster may begin.
func poolPrefix(pool string) string {
	prefix := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '-'
	}, strings.ToLower(pool))
	return strings.Trim(prefix[:min(len(prefix), 40)], "-")
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "unknown"
	}
	return name
}

// fips is what Go's FIPS 140-3 module is in this binary. A build with
// GOFIPS140=v1.0.0 has the validated one and enables it.
func fips() supervisor.FIPS {
	return supervisor.FIPS{Module: fips140.Version(), Enabled: fips140.Enabled(), Enforced: fips140.Enforced()}
}

func newLogger(cfg config.Log) (*zap.Logger, error) {
	level, err := zapcore.ParseLevel(cfg.Level)
	if err != nil {
		return nil, fmt.Errorf("log.level: %w", err)
	}
	zc := zap.NewProductionConfig()
	zc.Level = zap.NewAtomicLevelAt(level)
	zc.Encoding = cfg.Format
	zc.DisableStacktrace = true
	zc.EncoderConfig.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	zc.EncoderConfig.EncodeDuration = zapcore.StringDurationEncoder
	zc.Sampling = nil // what happened to a deploy is never sampled away
	return zc.Build()
}
