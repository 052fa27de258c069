package supervisor_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"

	"github.com/runnerward/runnerward/pkg/cluster"
	"github.com/runnerward/runnerward/pkg/runner"
	simcluster "github.com/runnerward/runnerward/pkg/sim/cluster"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// docs verifies as if every document were signed whose signature says
// "signed": what a document is, is tested where it is verified.
type docs struct{ regions string }

var errDocument = errors.New("nobody signed this")

func (d docs) Verify(document, signature []byte) (runner.HostIdentity, error) {
	instance, region, _ := strings.Cut(string(document), " ")
	if string(signature) != "signed" || !strings.Contains(d.regions, region) {
		return runner.HostIdentity{}, errDocument
	}
	return runner.HostIdentity{
		Document: runner.DigestOf(document), Signature: runner.DigestOf(signature), Certificate: runner.DigestOf([]byte("certificate")),
		InstanceID: instance, AccountID: "111122223333", Region: region, ImageID: "ami-1", InstanceType: "m6i.large",
		PrivateIP: "10.0.0.7", PendingTime: time.Now(),
	}, nil
}

type queue struct{ supervisor.Queue }

func (queue) Health() supervisor.QueueHealth { return supervisor.QueueHealth{} }

// Spool implements supervisor.Ledger: nothing waits.
func (noLedger) Spool() supervisor.Spool { return supervisor.Spool{} }

// Ports that a witness's question must not touch: a call of one panics.
type (
	noLedger    struct{ supervisor.Ledger }
	noRegistrar struct{ supervisor.Registrar }
	noGitHub    struct{ supervisor.GitHub }
	noIdentity  struct{ supervisor.Identity }
	noPolicy    struct{ supervisor.Policy }
	noHosts     struct{ supervisor.Hosts }
)

func (noGitHub) Health() supervisor.GitHubHealth { return supervisor.GitHubHealth{} }

// away is a cluster that does not answer.
type away struct{ supervisor.Cluster }

var errAway = errors.New("the API server is away")

func (away) Nodes(context.Context) ([]runner.Node, error) { return nil, errAway }

// pool is a supervisor with a pretend cluster of two nodes of the pool, and
// one that is not of it.
type pool struct {
	sup *supervisor.Supervisor
	sim *simcluster.Cluster
}

func newPool(t *testing.T, change func(*supervisor.Options)) pool {
	t.Helper()
	sim, err := simcluster.New(simcluster.Options{Namespace: "runners", ServiceAccounts: []string{"runner"}, Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	for i, label := range []string{"prod", "prod", "other"} {
		_, err := sim.AddNode(simcluster.NodeSpec{
			Name: fmt.Sprintf("node-%d", i), ProviderID: fmt.Sprintf("aws:///us-east-1a/i-000000000000000%02d", i), InternalIP: "10.0.0.7",
			Labels: map[string]string{"pool": label}, BootID: fmt.Sprintf("boot-%d", i),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	nodes, err := cluster.New(sim.Client(), cluster.Options{
		Namespace: "runners", ServiceAccount: "runner", WitnessNamespace: "witness", WitnessServiceAccount: "host",
		NodeLabels: map[string]string{"pool": "prod"}, Taint: runner.Taint{Key: "workload", Effect: "NoSchedule"},
		RunnerImage: "runner", AgentImage: "agent", AdmissionURL: "https://a.example", CPU: "1", Memory: "1Gi",
	}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	opts := supervisor.Options{
		Ledger: noLedger{}, Queue: queue{}, Registrar: noRegistrar{}, GitHub: noGitHub{}, Identity: noIdentity{}, Policy: noPolicy{},
		Cluster: nodes, Hosts: noHosts{}, Documents: docs{"us-east-1"}, Logger: zap.NewNop(),
		NewName: func() runner.Name { return "runner-a" }, Tick: time.Second, CallTimeout: time.Second,
		Limits: runner.Limits{MaxRunners: 1, AuthorizedFor: time.Hour},
	}
	if change != nil {
		change(&opts)
	}
	sup, err := supervisor.New(opts, nil)
	if err != nil {
		t.Fatal(err)
	}
	return pool{sup, sim}
}

// token is that of a fresh witness pod on this node.
func (p pool) token(t *testing.T, node int) string {
	t.Helper()
	return p.mint(t, "witness", "host", node, supervisor.HostAudience)
}

func (p pool) mint(t *testing.T, namespace, account string, node int, audience string) string {
	t.Helper()
	pod, err := p.sim.AddDaemonPod(namespace, account, fmt.Sprintf("node-%d", node))
	if err != nil {
		t.Fatal(err)
	}
	token, err := p.sim.Mint(pod, audience, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// claimOf is what an honest witness on this node presents.
func claimOf(node int) supervisor.HostClaim {
	return supervisor.HostClaim{
		Document: fmt.Appendf(nil, "i-000000000000000%02d us-east-1", node), Signature: []byte("signed"), BootID: fmt.Sprintf("boot-%d", node),
	}
}

func TestAWitnessIdentifiesItsHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, nil)
		for range 3 { // it presents itself again and again
			id, err := p.sup.Host(t.Context(), p.token(t, 0), claimOf(0))
			if err != nil || id.InstanceID != "i-00000000000000000" || id.BootID != "boot-0" || id.WitnessPod == "" || !id.SeenAt.Equal(time.Now()) {
				t.Fatalf("Host = %+v, %v, want the host's identity, seen now", id, err)
			}
			<-time.After(time.Minute)
		}
		if _, err := p.sup.Host(t.Context(), p.token(t, 1), claimOf(1)); err != nil {
			t.Errorf("Host of the other node = %v, want nil", err)
		}
	})
}

func TestHostRefuses(t *testing.T) {
	with := func(change func(*supervisor.HostClaim)) supervisor.HostClaim {
		c := claimOf(0)
		change(&c)
		return c
	}
	for what, tc := range map[string]struct {
		token func(*testing.T, pool) string
		claim supervisor.HostClaim
		opts  func(*supervisor.Options)
		want  error
	}{
		"another audience": {token: func(t *testing.T, p pool) string {
			return p.mint(t, "witness", "host", 0, runner.DigestOf([]byte("authorized")).Audience())
		}, claim: claimOf(0), want: supervisor.ErrTokenRejected},
		"another account": {token: func(t *testing.T, p pool) string {
			return p.mint(t, "witness", "default", 0, supervisor.HostAudience)
		}, claim: claimOf(0), want: supervisor.ErrTokenRejected},
		"the runners' account": {token: func(t *testing.T, p pool) string {
			return p.mint(t, "witness", "runner", 0, supervisor.HostAudience)
		}, claim: claimOf(0), want: supervisor.ErrTokenRejected},
		"the account's name in another namespace": {token: func(t *testing.T, p pool) string {
			return p.mint(t, "default", "host", 0, supervisor.HostAudience)
		}, claim: claimOf(0), want: supervisor.ErrTokenRejected},
		"a token of no pod": {token: func(t *testing.T, p pool) string {
			token, err := p.sim.MintUnbound("witness", "host", supervisor.HostAudience, time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			return token
		}, claim: claimOf(0), want: supervisor.ErrTokenRejected},
		"a document of another instance": {claim: with(func(c *supervisor.HostClaim) { c.Document = claimOf(1).Document }), want: supervisor.ErrConflict},
		"another boot":                   {claim: with(func(c *supervisor.HostClaim) { c.BootID = "boot-1" }), want: supervisor.ErrConflict},
		"a document that nobody signed":  {claim: with(func(c *supervisor.HostClaim) { c.Signature = []byte("x") }), want: errDocument},
		"a region that is not pinned":    {claim: claimOf(0), opts: func(o *supervisor.Options) { o.Documents = docs{"eu-west-1"} }, want: errDocument},
		"a node outside of the pool": {token: func(t *testing.T, p pool) string { return p.token(t, 2) },
			claim: claimOf(2), want: supervisor.ErrConflict},
		"no certificates":             {claim: claimOf(0), opts: func(o *supervisor.Options) { o.Documents = nil }, want: supervisor.ErrConflict},
		"nodes that cannot be listed": {claim: claimOf(0), opts: func(o *supervisor.Options) { o.Cluster = away{o.Cluster} }, want: errAway},
	} {
		t.Run(what, func(t *testing.T) {
			p := newPool(t, tc.opts)
			if tc.token == nil {
				tc.token = func(t *testing.T, p pool) string { return p.token(t, 0) }
			}
			id, err := p.sup.Host(t.Context(), tc.token(t, p), tc.claim)
			if !errors.Is(err, tc.want) || id != (runner.HostIdentity{}) {
				t.Errorf("Host = %+v, %v, want %v", id, err, tc.want)
			}
			// What a new token or a mended cluster would change is not refused for good.
			if final := errors.Is(err, supervisor.ErrConflict); final != (tc.want == supervisor.ErrConflict || tc.want == errDocument) {
				t.Errorf("Host = %v, refused for good: %t", err, final)
			}
		})
	}
}

// A document has no nonce: whoever has read it once can present it. The node
// object of an instance may be made anew, by whoever can register nodes, with
// the instance's own provider id.
func TestADocumentStaysWithTheNodeThatPresentedItFirst(t *testing.T) {
	p := newPool(t, nil)
	if _, err := p.sup.Host(t.Context(), p.token(t, 0), claimOf(0)); err != nil {
		t.Fatal(err)
	}
	_, err := p.sim.AddNode(simcluster.NodeSpec{
		Name: "node-9", ProviderID: "aws:///us-east-1a/i-00000000000000000", Labels: map[string]string{"pool": "prod"}, BootID: "boot-0",
		Taints: []corev1.Taint{{Key: "workload", Effect: corev1.TaintEffectNoSchedule}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if id, err := p.sup.Host(t.Context(), p.token(t, 9), claimOf(0)); !errors.Is(err, supervisor.ErrConflict) {
		t.Errorf("replay from another node = %+v, %v, want ErrConflict", id, err)
	}
	if _, err := p.sup.Host(t.Context(), p.token(t, 0), claimOf(0)); err != nil {
		t.Errorf("the first node again = %v, want nil", err)
	}
}

func TestDocumentsThatAreRequiredNeedCertificates(t *testing.T) {
	_, err := supervisor.New(supervisor.Options{Rules: runner.VetRules{IdentityRequired: true}}, nil)
	if err == nil || !strings.Contains(err.Error(), "identity documents are required") {
		t.Errorf("New = %v, want it to ask for Documents", err)
	}
}
