// Package cluster is the Kubernetes API as far as runners need it: it
// implements the supervisor's Cluster port with client-go.
//
// While [Cluster.Run] runs, shared informers keep a copy of the pool's nodes and
// of the runners' pods, and changes are told at once. Which read may come from
// the copy follows from what hangs on it:
//
//   - Nodes, Pods, and Pod for a pod that is there: the copy, as long as it may
//     be believed: it was listed, its watch is open and speaks, and it has all
//     that we wrote. Otherwise the API server is asked, as if there were no
//     copy. What is late there only delays.
//   - That a pod is gone, that a node is gone ([Cluster.NodeGone]), whose a token
//     is, [Cluster.PodNow], [Cluster.NodeNow] and [Cluster.NodesNow]: the API
//     server, always. These are evidence, or a job ends by them.
//   - [Cluster.ClaimNode] reads the node and updates it only if it is unchanged;
//     [Cluster.EnsurePod] creates, and the API server says whether it was there.
//     The copy only spares the repetition of what has been done and still shows.
//
// A node is claimed with one guarded update and never released; a pod is
// pinned to the claimed node; a pod proves what it is with a projected
// service-account token whose audience names the record that authorized it.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// What the supervisor writes on nodes and pods.
const (
	// ClaimedBy is the annotation and the taint key of a claimed node; the
	// taint's value and the annotation are the runner's name.
	ClaimedBy    = "runnerward.io/claimed-by"
	ClaimedTaint = "runnerward.io/claimed"

	// Annotations of a runner's pod.
	AnnotationAuthorized = "runnerward.io/authorized"
	AnnotationRepository = "runnerward.io/repository"
	AnnotationRunID      = "runnerward.io/run-id"
	AnnotationRunAttempt = "runnerward.io/run-attempt"
	AnnotationCauseJob   = "runnerward.io/cause-job"
	AnnotationCluster    = "runnerward.io/cluster"
)

// Options configure a [Cluster]. They are not changed after [New].
type Options struct {
	// Namespace is where runner pods live; nothing else should.
	Namespace string
	// NodeLabels select the pool's nodes; all must match.
	NodeLabels map[string]string
	// Taint is the pool's taint, which runner pods tolerate.
	Taint runner.Taint
	// NodeFinalizers are of whoever launches the nodes, and wait for nothing but
	// the end of a node's machine.
	NodeFinalizers []string
	// ServiceAccount is the pods' account, and the only one whose tokens count.
	ServiceAccount string
	// WitnessNamespace and WitnessServiceAccount are the account of the hosts'
	// witnesses; empty where hosts have none.
	WitnessNamespace, WitnessServiceAccount string
	// RunnerImage and AgentImage should be pinned by digest.
	RunnerImage, AgentImage string
	// AdmissionURL is where the agent finds the supervisor.
	AdmissionURL string
	// AdmissionCAConfigMap is a ConfigMap of the namespace whose key ca.crt
	// holds the PEM certificates that vouch for AdmissionURL. Empty means
	// the image's own roots.
	AdmissionCAConfigMap string
	// RunnerCommand is what the agent runs; /home/runner/run.sh when empty.
	RunnerCommand []string
	// CPU and Memory are requests and limits at once (guaranteed QoS).
	CPU, Memory      string
	ImagePullSecrets []string
	// PodTTLSlack is added to a job's time limit before the kubelet kills the
	// pod on its own: the supervisor should come first.
	PodTTLSlack time.Duration
	// Cluster, ScaleSet and Organization name where the pod belongs, for people
	// and dashboards.
	Cluster, ScaleSet, Organization string
	// EventSource is the reporting controller of events and EventInstance
	// the replica. The defaults are runnerward.io/supervisor and Cluster.
	EventSource, EventInstance string
	// AWSRole is the ARN of an IAM role for the runner, or empty for none.
	AWSRole string
	// EventQueue is how many events may wait; 256 when 0.
	EventQueue int
	// OnChange is told by Run what changed in the pool, coalesced, at most every
	// 250 ms. It must be quick. Nil is nobody.
	OnChange func(supervisor.Change)
	// Requests are the counted calls of the client, for [Cluster.Health]; nil
	// when it does not count them.
	Requests *Requests
}

// Validate says everything that is wrong with the options.
func (o Options) Validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for field, value := range map[string]string{
		"namespace": o.Namespace, "service account": o.ServiceAccount, "runner image": o.RunnerImage,
		"agent image": o.AgentImage, "admission URL": o.AdmissionURL, "taint key": o.Taint.Key, "taint effect": o.Taint.Effect,
	} {
		if value == "" {
			wrong("no %s", field)
		}
	}
	if len(o.NodeLabels) == 0 {
		wrong("no node labels: every node of the cluster would be in the pool")
	}
	if _, err := labels.ValidatedSelectorFromSet(o.NodeLabels); err != nil {
		wrong("node labels: %w", err)
	}
	for field, value := range map[string]string{"CPU": o.CPU, "memory": o.Memory} {
		if q, err := resource.ParseQuantity(value); err != nil || q.Sign() <= 0 {
			wrong("%s is %q, want a positive quantity", field, value)
		}
	}
	for field, value := range map[string]string{"scale set name": o.ScaleSet, "organization": o.Organization} {
		for _, problem := range validation.IsValidLabelValue(value) {
			wrong("%s %q: %s", field, value, problem)
		}
	}
	if o.PodTTLSlack < 0 {
		wrong("pod TTL slack is %s, want 0 or more", o.PodTTLSlack)
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

// Cluster implements the supervisor's port. It is safe for concurrent use.
type Cluster struct {
	client kubernetes.Interface
	opts   Options
	logger *zap.Logger
	events queue

	nodes, pods *mirror
	changes     *changes
	// podUIDs and nodeUIDs outlive the objects, for events about them.
	podUIDs  memory[runner.Name]
	nodeUIDs memory[string]
	// What this process has done and seen: the nodes claimed, the pods that were
	// asked to go, and those that the API server had no more.
	claims, deleted, gone memory[runner.Name]
}

var _ supervisor.Cluster = (*Cluster)(nil)

// New checks the options and wraps the client. Events are sent, and the cluster
// is watched, only while [Cluster.Run] runs; before that every read is a call.
func New(client kubernetes.Interface, opts Options, logger *zap.Logger) (*Cluster, error) {
	if err := opts.Validate(); err != nil {
		return nil, fmt.Errorf("cluster options: %w", err)
	}
	opts.NodeLabels = maps.Clone(opts.NodeLabels)
	if len(opts.RunnerCommand) == 0 {
		opts.RunnerCommand = []string{"/home/runner/run.sh"}
	}
	if opts.EventSource == "" {
		opts.EventSource = "runnerward.io/supervisor"
	}
	if opts.EventInstance == "" {
		opts.EventInstance = opts.EventSource
		if opts.Cluster != "" {
			opts.EventInstance = opts.Cluster
		}
	}
	if opts.EventQueue <= 0 {
		opts.EventQueue = 256
	}
	c := &Cluster{client: client, opts: opts, logger: logger, events: newQueue(opts.EventQueue), changes: newChanges()}
	var err error
	if c.nodes, err = newMirror("nodes", &corev1.Node{}, logger, strip, c.nodeHandler()); err != nil {
		return nil, err
	}
	c.nodes.listAll = func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
		opts.LabelSelector = c.nodeSelector()
		return client.CoreV1().Nodes().List(ctx, opts)
	}
	c.nodes.watchAll = func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
		opts.LabelSelector = c.nodeSelector()
		return client.CoreV1().Nodes().Watch(ctx, opts)
	}
	if c.pods, err = newMirror("pods", &corev1.Pod{}, logger, strip, c.podHandler()); err != nil {
		return nil, err
	}
	c.pods.listAll = func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
		opts.LabelSelector = c.podSelector()
		return client.CoreV1().Pods(c.opts.Namespace).List(ctx, opts)
	}
	c.pods.watchAll = func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
		opts.LabelSelector = c.podSelector()
		return client.CoreV1().Pods(c.opts.Namespace).Watch(ctx, opts)
	}
	return c, nil
}

// Run watches the cluster, tells what changed and sends queued events until the
// context ends, and returns its cause. Nothing that it began goes on then. It
// runs once.
func (c *Cluster) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	defer parts.Wait()
	parts.Go(func() { c.nodes.run(ctx) })
	parts.Go(func() { c.pods.run(ctx) })
	parts.Go(func() { c.changes.tell(ctx, c.onChange) })
	return c.sendEvents(ctx)
}

func (c *Cluster) onChange(ch supervisor.Change) {
	if c.opts.OnChange != nil {
		c.opts.OnChange(ch)
	}
}

// Health says how the cluster is followed and what is asked of it. It never
// waits and is safe for concurrent use.
func (c *Cluster) Health() supervisor.ClusterHealth {
	return supervisor.ClusterHealth{
		Watches:       []supervisor.WatchHealth{c.nodes.health(), c.pods.health()},
		Requests:      c.opts.Requests.Counts(),
		DroppedEvents: c.DroppedEvents(),
	}
}
