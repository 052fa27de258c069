package endtoend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// flavour is what goes wrong with one operation.
type flavour struct {
	name    string
	applied bool // the operation takes effect, and is reported failed
	crash   bool // the daemon dies with it
	stops   bool // the daemon is stopped, and goes on when it is told to
}

var flavours = []flavour{
	{name: "fails, not applied", applied: false, crash: false},
	{name: "fails, but applied", applied: true, crash: false},
	{name: "daemon dies before it", applied: false, crash: true},
	{name: "daemon dies after it", applied: true, crash: true},
}

// errDead is what the remains of a killed daemon see.
var errDead = errors.New("the process is dead")

// errInjected is the failure of the chosen operation.
var errInjected = errors.New("injected fault")

// faults stands between the supervisor and every port and spoils exactly one
// operation, the one with the number at; -1 spoils none.
type faults struct {
	mu      sync.Mutex
	at      int
	flavour flavour
	only    string
	log     []string
	fired   string
	crash   func()
	jits    []string // every JIT configuration that was made
	// away makes the store refuse everything.
	away bool
	// slow says which objects take slowFor to be created, storing how many of
	// them are under way.
	slow    func(data []byte) bool
	storing int
	// panics counts down the calls of an operation that end in a panic.
	panics map[string]int
	// trap takes the store away with the creation of a record of this kind,
	// which takes effect or not.
	trap        runner.Kind
	trapApplied bool
	// dead is closed when the daemon that makes the calls is killed.
	dead <-chan struct{}
	// asleep is open while the daemon that makes the calls is stopped, nil
	// before; halt is told of it. woke is how much of the log is older than its
	// waking. stopWith stops it at the first record of this kind.
	asleep   chan struct{}
	halt     func()
	woke     int
	stopWith runner.Kind
}

// revive belongs to the next daemon.
func (f *faults) revive(dead <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dead = dead
}

func (f *faults) around(ctx context.Context, op string, call func(context.Context) error) error {
	f.rest()
	f.mu.Lock()
	dead := f.dead
	select {
	case <-dead:
		f.mu.Unlock()
		return errDead
	default:
	}
	n, counts := len(f.log), strings.HasPrefix(op, f.only)
	if counts {
		f.log = append(f.log, op)
	}
	spoil := counts && n == f.at
	if spoil {
		f.fired = op
	}
	falls := f.panics[op] > 0
	if falls {
		f.panics[op]--
	}
	f.mu.Unlock()
	if falls {
		panic("a library that fell over " + op)
	}
	if !spoil {
		return call(ctx)
	}
	if f.flavour.stops {
		return f.overtaken(ctx, call)
	}
	if f.flavour.applied {
		if err := call(ctx); err != nil {
			return err
		}
	}
	if f.flavour.crash {
		f.crash()
		return errDead
	}
	return fmt.Errorf("%s: %w", op, errInjected)
}

// errAway is what a store says that is away.
var errAway = errors.New("503 Service Unavailable")

func (f *faults) isAway() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.away
}

// setAway takes the store away, or brings it back.
func (f *faults) setAway(away bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.away = away
}

// faultyStore spoils what lies under the log, so that the log's own recovery
// is part of what is tested.
type faultyStore struct {
	ledger.Store
	*faults
}

func (s faultyStore) Create(ctx context.Context, name string, data []byte) error {
	shard, plain := evidence.SplitShard(name)
	folder, _, _ := strings.Cut(plain, "/")
	if !pause(ctx, storeLatency) {
		return context.Cause(ctx)
	}
	if !s.takesLong(ctx, data) {
		return context.Cause(ctx)
	}
	if folder == "seg" && s.springs(data) {
		if s.trapApplied {
			if err := s.Store.Create(ctx, name, data); err != nil {
				return err
			}
		}
		return errAway
	}
	if s.isAway() {
		return errAway
	}
	if folder == "seg" && s.stopsWith(data) {
		return s.overtaken(ctx, func(ctx context.Context) error { return s.Store.Create(ctx, name, data) })
	}
	return s.around(ctx, "create "+shard.Folder()+folder, func(ctx context.Context) error { return s.Store.Create(ctx, name, data) })
}

func (s faultyStore) Read(ctx context.Context, name string) ([]byte, error) {
	s.rest()
	if s.isAway() {
		return nil, errAway
	}
	return s.Store.Read(ctx, name)
}

func (s faultyStore) List(ctx context.Context, prefix string) ([]string, error) {
	s.rest()
	if s.isAway() {
		return nil, errAway
	}
	return s.Store.List(ctx, prefix)
}

func (s faultyStore) Publish(ctx context.Context, name string, data []byte) error {
	return s.around(ctx, "publish view", func(ctx context.Context) error { return s.Store.Publish(ctx, name, data) })
}

// slowFor is less than the daemon gives one task.
const slowFor = 30 * time.Second

// takesLong waits where an object takes long. False says that the caller went
// away meanwhile.
func (f *faults) takesLong(ctx context.Context, data []byte) bool {
	f.mu.Lock()
	slow := f.slow != nil && f.slow(data)
	if slow {
		f.storing++
	}
	f.mu.Unlock()
	if !slow {
		return true
	}
	stayed := pause(ctx, slowFor)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.storing--
	return stayed
}

// storesSlowly says that an object is being created that takes long.
func (f *faults) storesSlowly() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.storing > 0
}

// springs says that this segment is the one that the store goes away with.
func (f *faults) springs(segment []byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.trap == "" || f.away || kindOf(segment) != f.trap {
		return false
	}
	f.away, f.trap = true, ""
	return true
}

// kindOf is the kind of the record in a segment.
func kindOf(segment []byte) runner.Kind {
	var envelope struct{ Payload []byte }
	var statement evidence.Statement
	if err := json.Unmarshal(segment[2:], &envelope); err != nil {
		return ""
	}
	if err := json.Unmarshal(envelope.Payload, &statement); err != nil {
		return ""
	}
	return statement.Predicate.Event
}

// faultySpool spoils what is on the daemon's own disk.
type faultySpool struct {
	ledger.Spool
	*faults
}

func (s faultySpool) Put(index uint64, envelope []byte) error {
	return s.around(context.Background(), "spool put", func(context.Context) error { return s.Spool.Put(index, envelope) })
}

func (s faultySpool) Remove(index uint64) error {
	return s.around(context.Background(), "spool remove", func(context.Context) error { return s.Spool.Remove(index) })
}

type faultyRegistrar struct {
	supervisor.Registrar
	*faults
}

func (r faultyRegistrar) Register(ctx context.Context, name runner.Name) (reg supervisor.Registration, err error) {
	err = r.around(ctx, "register", func(ctx context.Context) (err error) {
		reg, err = r.Registrar.Register(ctx, name)
		return err
	})
	if jit := reg.JITConfig.Reveal(); jit != "" {
		r.mu.Lock()
		r.jits = append(r.jits, jit)
		r.mu.Unlock()
	}
	return reg, err
}

func (r faultyRegistrar) Registered(ctx context.Context, name runner.Name) (yes bool, err error) {
	err = r.around(ctx, "registered?", func(ctx context.Context) (err error) {
		yes, err = r.Registrar.Registered(ctx, name)
		return err
	})
	return yes, err
}

func (r faultyRegistrar) Deregister(ctx context.Context, name runner.Name, scaleSet int64) error {
	return r.around(ctx, "deregister", func(ctx context.Context) error { return r.Registrar.Deregister(ctx, name, scaleSet) })
}

type faultyGitHub struct {
	supervisor.GitHub
	*faults
}

func (g faultyGitHub) Facts(ctx context.Context, job runner.Offered, known []runner.Reviewed) (facts runner.Facts, fresh []runner.Reviewed, err error) {
	err = g.around(ctx, "facts", func(ctx context.Context) (err error) {
		facts, fresh, err = g.GitHub.Facts(ctx, job, known)
		return err
	})
	return facts, fresh, err
}

func (g faultyGitHub) DeploymentFacts(ctx context.Context, ask runner.Asked) (facts runner.Facts, err error) {
	err = g.around(ctx, "deployment facts", func(ctx context.Context) (err error) {
		facts, err = g.GitHub.DeploymentFacts(ctx, ask)
		return err
	})
	return facts, err
}

func (g faultyGitHub) Answer(ctx context.Context, ask runner.Asked, state, comment string) error {
	return g.around(ctx, "answer", func(ctx context.Context) error { return g.GitHub.Answer(ctx, ask, state, comment) })
}

func (g faultyGitHub) News(ctx context.Context, since time.Time) (events []runner.Event, err error) {
	err = g.around(ctx, "news", func(ctx context.Context) (err error) {
		events, err = g.GitHub.News(ctx, since)
		return err
	})
	return events, err
}

func (g faultyGitHub) Runners(ctx context.Context) (list []supervisor.RegisteredRunner, err error) {
	err = g.around(ctx, "list runners", func(ctx context.Context) (err error) {
		list, err = g.GitHub.Runners(ctx)
		return err
	})
	return list, err
}

func (g faultyGitHub) CancelRun(ctx context.Context, repository string, runID int64, force bool) error {
	return g.around(ctx, "cancel run", func(ctx context.Context) error { return g.GitHub.CancelRun(ctx, repository, runID, force) })
}

type faultyIdentity struct {
	supervisor.Identity
	*faults
}

func (i faultyIdentity) Verify(ctx context.Context, token, audience string, now time.Time) (claims runner.Claims, err error) {
	err = i.around(ctx, "verify job token", func(ctx context.Context) (err error) {
		claims, err = i.Identity.Verify(ctx, token, audience, now)
		return err
	})
	return claims, err
}

type faultyCluster struct {
	supervisor.Cluster
	*faults
}

func (c faultyCluster) Nodes(ctx context.Context) (nodes []runner.Node, err error) {
	err = c.around(ctx, "list nodes", func(ctx context.Context) (err error) {
		nodes, err = c.Cluster.Nodes(ctx)
		return err
	})
	return nodes, err
}

func (c faultyCluster) Pods(ctx context.Context) (pods []runner.Pod, err error) {
	err = c.around(ctx, "list pods", func(ctx context.Context) (err error) {
		pods, err = c.Cluster.Pods(ctx)
		return err
	})
	return pods, err
}

func (c faultyCluster) ClaimNode(ctx context.Context, host runner.Host, name runner.Name) error {
	return c.around(ctx, "claim node", func(ctx context.Context) error { return c.Cluster.ClaimNode(ctx, host, name) })
}

func (c faultyCluster) EnsurePod(ctx context.Context, spec supervisor.PodSpec) error {
	return c.around(ctx, "ensure pod", func(ctx context.Context) error { return c.Cluster.EnsurePod(ctx, spec) })
}

func (c faultyCluster) Pod(ctx context.Context, name runner.Name) (pod runner.Pod, err error) {
	err = c.around(ctx, "get pod", func(ctx context.Context) (err error) {
		pod, err = c.Cluster.Pod(ctx, name)
		return err
	})
	return pod, err
}

func (c faultyCluster) PodNow(ctx context.Context, name runner.Name) (pod runner.Pod, err error) {
	err = c.around(ctx, "get pod now", func(ctx context.Context) (err error) {
		pod, err = c.Cluster.PodNow(ctx, name)
		return err
	})
	return pod, err
}

func (c faultyCluster) NodesNow(ctx context.Context) (nodes []runner.Node, err error) {
	err = c.around(ctx, "list nodes now", func(ctx context.Context) (err error) {
		nodes, err = c.Cluster.NodesNow(ctx)
		return err
	})
	return nodes, err
}

func (c faultyCluster) NodeNow(ctx context.Context, name string) (node runner.Node, there bool, err error) {
	err = c.around(ctx, "get node now", func(ctx context.Context) (err error) {
		node, there, err = c.Cluster.NodeNow(ctx, name)
		return err
	})
	return node, there, err
}

func (c faultyCluster) DeletePod(ctx context.Context, name runner.Name, grace time.Duration) error {
	return c.around(ctx, "delete pod", func(ctx context.Context) error { return c.Cluster.DeletePod(ctx, name, grace) })
}

func (c faultyCluster) DeleteNode(ctx context.Context, name, uid string) error {
	return c.around(ctx, "delete node", func(ctx context.Context) error { return c.Cluster.DeleteNode(ctx, name, uid) })
}

func (c faultyCluster) NodeGone(ctx context.Context, name, uid string) (gone bool, err error) {
	err = c.around(ctx, "node gone?", func(ctx context.Context) (err error) {
		gone, err = c.Cluster.NodeGone(ctx, name, uid)
		return err
	})
	return gone, err
}

func (c faultyCluster) Review(ctx context.Context, token, audience string) (id runner.PodIdentity, err error) {
	err = c.around(ctx, "review pod token", func(ctx context.Context) (err error) {
		id, err = c.Cluster.Review(ctx, token, audience)
		return err
	})
	return id, err
}

type faultyHosts struct {
	supervisor.Hosts
	*faults
}

func (h faultyHosts) Describe(ctx context.Context, ids []string) (out map[string]runner.Instance, err error) {
	err = h.around(ctx, "describe instances", func(ctx context.Context) (err error) {
		out, err = h.Hosts.Describe(ctx, ids)
		return err
	})
	return out, err
}

func (h faultyHosts) Protect(ctx context.Context, id string) error {
	return h.around(ctx, "protect", func(ctx context.Context) error { return h.Hosts.Protect(ctx, id) })
}

func (h faultyHosts) Ensure(ctx context.Context, d supervisor.Demand) error {
	return h.around(ctx, "ensure hosts", func(ctx context.Context) error { return h.Hosts.Ensure(ctx, d) })
}

func (h faultyHosts) Preflight(ctx context.Context) (pool supervisor.HostsPool, err error) {
	err = h.around(ctx, "preflight", func(ctx context.Context) (err error) {
		pool, err = h.Hosts.Preflight(ctx)
		return err
	})
	return pool, err
}

func (h faultyHosts) Terminate(ctx context.Context, id string, opt supervisor.TerminateOptions) (receipt supervisor.TerminateReceipt, err error) {
	err = h.around(ctx, "terminate", func(ctx context.Context) (err error) {
		receipt, err = h.Hosts.Terminate(ctx, id, opt)
		return err
	})
	return receipt, err
}

func (h faultyHosts) VolumesGone(ctx context.Context, ids []string) (gone []string, err error) {
	err = h.around(ctx, "volumes gone?", func(ctx context.Context) (err error) {
		gone, err = h.Hosts.VolumesGone(ctx, ids)
		return err
	})
	return gone, err
}
