package endtoend

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/runnerward/runnerward/pkg/agent"
	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/identitydoc"
	"github.com/runnerward/runnerward/pkg/ledger"
	"github.com/runnerward/runnerward/pkg/runner"
	simimds "github.com/runnerward/runnerward/pkg/sim/imds"
	"github.com/runnerward/runnerward/pkg/sim/memnet"
	"github.com/runnerward/runnerward/pkg/sim/world"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// witnessAccount is the witness's namespace and service account.
const witnessAccount = "runnerward-witness"

// signsDocuments signs identity documents in the world's region.
var signsDocuments = sync.OnceValues(func() (*simimds.Authority, error) {
	key, err := signingKey()
	if err != nil {
		return nil, err
	}
	return simimds.NewAuthority(world.Region, key)
})

func pinned(t *testing.T, a *simimds.Authority) *identitydoc.Certificates {
	t.Helper()
	c, err := identitydoc.ParseCertificates(a.Pinned())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// authority signs the documents of a test, and the daemon pins it.
func authority(t *testing.T) *simimds.Authority {
	t.Helper()
	a, err := signsDocuments()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// witnesses is the DaemonSet: a witness on every node, as nodes come. Each
// reads the metadata service of its own instance, as change leaves it. The
// result ends them all.
func (b *bench) witnesses(a *simimds.Authority, change func(*simimds.Instance)) (stop func()) {
	ctx, cancel := context.WithCancel(b.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		seen := map[string]bool{}
		for ctx.Err() == nil {
			nodes, err := b.world.Cluster.Client().CoreV1().Nodes().List(ctx, metav1.ListOptions{})
			if err != nil {
				b.t.Error(err)
				return
			}
			for _, n := range nodes.Items {
				if !seen[string(n.UID)] {
					seen[string(n.UID)] = true
					wg.Go(func() { b.witness(ctx, a, n, change) })
				}
			}
			pause(ctx, time.Second)
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

func (b *bench) witness(ctx context.Context, a *simimds.Authority, node corev1.Node, change func(*simimds.Instance)) {
	in, ok := b.world.AWS.Instance(node.Spec.ProviderID[strings.LastIndex(node.Spec.ProviderID, "/")+1:])
	if !ok {
		b.t.Errorf("node %s is no instance", node.Name)
		return
	}
	says := world.Metadata(in)
	change(&says)
	document := simimds.Document(says)
	signature, err := a.Sign(document)
	if err != nil {
		b.t.Error(err)
		return
	}
	line := memnet.Listen()
	stop := line.Serve(simimds.NewServer(document, signature))
	defer stop()
	w, err := b.newWitness(node, line)
	if err != nil {
		b.t.Error(err)
		return
	}
	_ = w.Run(ctx) // ends with the context alone
}

// newWitness is the agent in a pod of the DaemonSet, with its projected token.
func (b *bench) newWitness(node corev1.Node, imds *memnet.Listener) (*agent.Witness, error) {
	pod, err := b.world.Cluster.AddDaemonPod(witnessAccount, witnessAccount, node.Name)
	if err != nil {
		return nil, err
	}
	token, err := b.world.Cluster.Mint(pod, supervisor.HostAudience, 24*time.Hour)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(b.dir, pod.Name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	for name, content := range map[string]string{"token": token, "boot_id": node.Status.NodeInfo.BootID + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			return nil, err
		}
	}
	return agent.NewWitness(agent.WitnessConfig{
		URL: "https://admission.sim", TokenFile: filepath.Join(dir, "token"), BootIDFile: filepath.Join(dir, "boot_id"),
		Client: &http.Client{Transport: b.gate}, Dial: imds.DialContext, Every: time.Minute,
	})
}

// audit verifies the ledger as it stands with these certificates.
func (b *bench) audit(certificates *identitydoc.Certificates) *evidence.Report {
	b.t.Helper()
	keys, err := ledger.OpenKeys(b.dir+"/keys", "runnerward.test/hipaa-prod/2026", time.Now().UTC())
	if err != nil {
		b.t.Fatal(err)
	}
	rep, err := evidence.VerifyOptions{Documents: certificates.Verify}.Verify(os.DirFS(b.dir+"/ledger"), keys.Root())
	if err != nil {
		b.t.Fatal(err)
	}
	return rep
}

func unchanged(*simimds.Instance) {}

func TestAHostWithAWitnessIsSealedAtL2(t *testing.T) {
	a := authority(t)
	certificates := pinned(t, a)
	run(t, options{at: -1, documents: certificates, documentsRequired: true}, func(t *testing.T, b *bench) {
		defer b.witnesses(a, unchanged)()
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 20*time.Second), "carol")
		b.until("sealed", 20*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })
		seal := b.sealed(deploy.JobID).Sealed.Event
		id := seal.Host.Identity
		if seal.Assurance.Host != runner.L2 || id == nil || id.InstanceID != seal.Host.InstanceID || id.BootID != seal.Host.BootID ||
			id.AccountID != world.Account || id.Certificate != runner.DigestOf(a.Cert.Raw) || id.WitnessPod == "" {
			t.Errorf("sealed at %s with %+v, want L2 and the host's own document", seal.Assurance.Host, id)
		}
		rep := b.audit(certificates)
		if !rep.OK() || !slices.ContainsFunc(rep.Notes, func(n evidence.Note) bool { return strings.Contains(n.Detail, "verified again") }) {
			t.Errorf("findings = %v, notes = %v, want none and a note about the documents", rep.Findings, rep.Notes)
		}
		other, err := simimds.NewAuthority(world.Region, nil)
		if err != nil {
			t.Fatal(err)
		}
		if rep := b.audit(pinned(t, other)); len(rep.Findings) == 0 || rep.Findings[0].Rule != "identity-document" {
			t.Errorf("with another certificate: findings = %v, want that the document does not verify", rep.Findings)
		}
	})
}

func TestAHostWithoutAWitnessIsSealedAtL1(t *testing.T) {
	certificates := pinned(t, authority(t))
	run(t, options{at: -1, documents: certificates}, func(t *testing.T, b *bench) {
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 20*time.Second), "carol")
		b.until("sealed", 20*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })
		if seal := b.sealed(deploy.JobID).Sealed.Event; seal.Assurance.Host != runner.L1 || seal.Host.Identity != nil {
			t.Errorf("sealed at %s with %+v, want L1 and no identity", seal.Assurance.Host, seal.Host.Identity)
		}
		if rep := b.audit(certificates); !rep.OK() {
			t.Errorf("findings = %v", rep.Findings)
		}
	})
}

// Where documents are required, a job waits for the witness; and a document
// that disagrees with EC2 keeps its host out of service for good.
func TestARequiredDocumentHoldsTheJob(t *testing.T) {
	a := authority(t)
	for what, tc := range map[string]struct {
		change func(*simimds.Instance)
		check  string // of the hosts, that does not pass
		want   runner.Verdict
	}{
		"no witness":      {nil, "identity.document", runner.Unknown},
		"another image":   {func(in *simimds.Instance) { in.ImageID = "ami-0fffffffffffffff0" }, "identity.image", runner.Fail},
		"another account": {func(in *simimds.Instance) { in.AccountID = "999999999999" }, "identity.account", runner.Fail},
		"launched before": {func(in *simimds.Instance) { in.LaunchedAt = in.LaunchedAt.Add(-6 * time.Minute) }, "identity.pendingTime", runner.Fail},
	} {
		t.Run(what, func(t *testing.T) {
			run(t, options{at: -1, documents: pinned(t, a), documentsRequired: true}, func(t *testing.T, b *bench) {
				if tc.change != nil {
					defer b.witnesses(a, tc.change)()
				}
				deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 20*time.Second), "carol")
				b.until("authorized", 5*time.Minute, func() bool {
					j := b.state().Jobs[runner.JobID(deploy.JobID)]
					return j != nil && j.Authorized != nil
				})
				b.until("every host waits", 5*time.Minute, func() bool { return b.failing(tc.check, tc.want) >= 2 })
				if n := len(b.state().Runners); n != 0 {
					t.Errorf("%d runners were made on hosts that did not identify themselves", n)
				}
				if tc.change != nil {
					return
				}
				defer b.witnesses(a, unchanged)()
				b.until("sealed", 20*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })
				if seal := b.sealed(deploy.JobID).Sealed.Event; seal.Assurance.Host != runner.L2 {
					t.Errorf("sealed at %s, want L2", seal.Assurance.Host)
				}
			})
		})
	}
}

// failing is how many waiting hosts this check keeps from service.
func (b *bench) failing(check string, verdict runner.Verdict) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.daemon.sup == nil {
		return 0
	}
	for _, h := range b.daemon.sup.View().Hosts {
		if slices.Contains(h.Failing, runner.Check{Name: check, Verdict: verdict}) {
			n++
		}
	}
	return n
}

// A claim rests on the document's bytes: they are durable before it, whatever
// goes wrong while they are stored. The ledger is verified after each run.
func TestNothingGoesWrongWhileADocumentIsKept(t *testing.T) {
	a := authority(t)
	certificates := pinned(t, a)
	deploy := func(t *testing.T, at int, f flavour) (fired string, log []string) {
		run(t, options{at: at, flavour: f, hosts: 3, documents: certificates, documentsRequired: true}, func(t *testing.T, b *bench) {
			defer b.witnesses(a, unchanged)()
			fired = b.oneDeploy()
			b.faults.mu.Lock()
			log = slices.Clone(b.faults.log)
			b.faults.mu.Unlock()
			for _, r := range b.state().Runners {
				if r.Claimed.Event.Host.Assurance != runner.L2 {
					t.Errorf("after %q: host %s was claimed at %s", fired, r.Claimed.Event.Host.InstanceID, r.Claimed.Event.Host.Assurance)
				}
			}
			if rep := b.audit(certificates); !rep.OK() {
				t.Errorf("after %q: findings = %v", fired, rep.Findings)
			}
		})
		return fired, log
	}
	_, log := deploy(t, -1, flavours[0])
	var blobs []int
	for i, op := range log {
		if op == "create blobs" {
			blobs = append(blobs, i)
		}
	}
	if len(blobs) < 4 {
		t.Fatalf("%d attachments were stored, want the inputs of two decisions and two parts of a document", len(blobs))
	}
	for _, f := range flavours {
		for _, at := range blobs {
			t.Run(fmt.Sprint(f.name, " ", at), func(t *testing.T) {
				if fired, _ := deploy(t, at, f); fired == "" {
					t.Error("no operation went wrong")
				}
			})
		}
	}
}

// TestNobodyWaitsWhileADocumentIsKept: a store that takes half a minute for a
// host's document holds up its own job and nothing else, and what is decided
// meanwhile holds.
func TestNobodyWaitsWhileADocumentIsKept(t *testing.T) {
	a := authority(t)
	run(t, options{at: -1, documents: pinned(t, a), documentsRequired: true}, func(t *testing.T, b *bench) {
		defer b.witnesses(a, unchanged)()
		b.faults.mu.Lock()
		b.faults.slow = func(data []byte) bool { return bytes.Contains(data, []byte(`"privateIp"`)) }
		b.faults.mu.Unlock()
		deploy := b.dispatch(world.Deploy("v1.0.0", "bob", "bob", 20*time.Second), "carol")
		b.until("the document is being stored", 20*time.Minute, b.faults.storesSlowly)
		began := time.Now()
		if err := b.daemon.sup.Freeze(t.Context(), "cert:oncall", "CVE-2026-0001"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("the freeze waited %s for the document", took)
		}
		pause(t.Context(), 5*time.Minute)
		if n := len(b.state().Runners); n != 0 {
			t.Errorf("%d runners were claimed after the freeze", n)
		}
		if err := b.daemon.sup.Unfreeze(t.Context(), "cert:oncall"); err != nil {
			t.Fatal(err)
		}
		b.until("sealed", 20*time.Minute, func() bool { return b.sealed(deploy.JobID) != nil })
	})
}
