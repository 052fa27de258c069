package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/agent"
	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
	simcluster "github.com/runnerward/runnerward/pkg/sim/cluster"
	simimds "github.com/runnerward/runnerward/pkg/sim/imds"
	"github.com/runnerward/runnerward/pkg/sim/memnet"
	"github.com/runnerward/runnerward/pkg/sim/stage"
	"github.com/runnerward/runnerward/pkg/sim/world"
)

// witnessAccount is that of the chart's witnesses.
const witnessAccount = "runnerward-witness"

// witnesses are the chart's, one on each host: the DaemonSet controller makes
// their pods, the kubelets ask for their tokens, the real agent presents what
// the instance's metadata service says.
type witnesses struct {
	t         *testing.T
	namespace string
	aws       *simimds.Authority
	file      string // of the certificates that the daemon and the auditor pin
	// ready is closed when the others are set.
	ready chan struct{}
	th    *theatre
	door  string // where the daemon listens to agents
}

func newWitnesses(t *testing.T, namespace string) *witnesses {
	t.Helper()
	makeNamespace(t, namespace, "privileged")
	authority, err := simimds.NewAuthority(world.Region, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &witnesses{t: t, namespace: namespace, aws: authority, file: filepath.Join(t.TempDir(), "certificates.pem"), ready: make(chan struct{})}
	if err := os.WriteFile(w.file, authority.Pinned(), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

// configure has the daemon ask for documents before it takes a host. It is
// called for one daemon.
func (w *witnesses) configure(t *testing.T, th *theatre, c stage.Config) {
	t.Helper()
	c.Set("hosts.identity", map[string]any{
		"certificatesFile": w.file, "namespace": w.namespace, "serviceAccount": witnessAccount, "required": true,
	})
	w.th, w.door = th, c["admission"].(map[string]any)["listen"].(string)
	close(w.ready)
}

// container is a witness's, until its pod is stopped.
func (w *witnesses) container(ctx context.Context, ct simcluster.Container) int {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-ct.Stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	select {
	case <-w.ready:
	case <-ctx.Done():
		return 0
	}
	err := w.present(ctx, ct)
	if ctx.Err() != nil {
		return 0
	}
	w.t.Errorf("the witness of %s ended: %v", ct.Pod.Spec.NodeName, err)
	return 1
}

// present runs the agent with the pod's own files. No Service leads to the
// daemon here, and the machine has no metadata service.
func (w *witnesses) present(ctx context.Context, ct simcluster.Container) error {
	node := ct.Pod.Spec.NodeName
	instances := w.th.World.AWS.Instances()
	i := slices.IndexFunc(instances, func(in simaws.Instance) bool { return in.PrivateDNS == node })
	kubelet := w.th.fleet.Kubelet(node)
	if i < 0 || kubelet == nil {
		return fmt.Errorf("there is no host %s", node)
	}
	document := simimds.Document(world.Metadata(instances[i]))
	signature, err := w.aws.Sign(document)
	if err != nil {
		return err
	}
	imds := memnet.Listen()
	defer imds.Serve(simimds.NewServer(document, signature))()
	dir := filepath.Join(w.th.File("pods"), string(ct.Pod.UID))
	cfg, err := agent.WitnessFromEnv(func(name string) string { return ct.Env[name] })
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(ct.Files[cfg.CAFile]))
	cfg.Client = &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, ServerName: "127.0.0.1"},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, w.door)
		},
	}}
	defer cfg.Client.CloseIdleConnections()
	token := ct.Files[cfg.TokenFile]
	cfg.TokenFile, cfg.BootIDFile = filepath.Join(dir, "token"), filepath.Join(dir, "boot_id")
	cfg.Dial, cfg.Every = imds.DialContext, 5*time.Second
	if err := errors.Join(
		os.MkdirAll(dir, 0o700),
		os.WriteFile(cfg.TokenFile, []byte(token), 0o600),
		os.WriteFile(cfg.BootIDFile, []byte(kubelet.Node().Status.NodeInfo.BootID+"\n"), 0o600),
	); err != nil {
		return err
	}
	witness, err := agent.NewWitness(cfg)
	if err != nil {
		return err
	}
	return witness.Run(ctx)
}

// vouched asks the auditor's tool: every host is known by its own document.
func (th *theatre) vouched(t *testing.T) {
	ledger := []string{"--ledger", th.File("ledger"), "--root", th.File("root.json"), "--aws-certificates", th.witnesses.file}
	out, code, err := th.CLI(t.Context(), append([]string{"verify"}, ledger...)...)
	if err != nil || code != 0 || !strings.Contains(string(out), "verified again") {
		t.Errorf("verify exits %d, %v, want the documents to be verified again:\n%s", code, err, out)
	}
	v, err := th.Ask(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var known int
	for _, r := range v.Runners {
		if r.Job == "" {
			continue // nobody asks about a runner that ran no job
		}
		out, code, err := th.CLI(t.Context(), append(append([]string{"explain"}, ledger...), string(r.Job))...)
		if err != nil || code != 0 || !strings.Contains(string(out), r.Instance+", assurance L2") {
			t.Errorf("explain exits %d, %v, and does not say that host %s is L2:\n%s", code, err, r.Instance, out)
		}
		known++
	}
	if known < 3 {
		t.Errorf("%d runners ran a job, want those of this test", known)
	}
}
