package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"text/template"
	"time"

	"github.com/runnerward/runnerward/pkg/sim/world"
)

// stage is the world on loopback, and the daemon in it.
type stage struct {
	opts  options
	tell  *narrator
	world *world.World
	pairs *director

	client                 *http.Client // trusts the demo's CA and is an administrator
	statusURL, admission   string
	statusAddr, config     string
	daemon                 *daemon
	servers                []*http.Server
	stopWorld              context.CancelFunc
	worldEnded             chan struct{}
	gitHubURL, awsURL, k8s string
}

// How fast this world is. A real host boots in a minute or more and takes as
// long to terminate; nothing else is different.
const (
	bootTime     = 1500 * time.Millisecond
	shuttingDown = 1500 * time.Millisecond
	refill       = 500 * time.Millisecond
	pollHold     = 2 * time.Second
	sessionTTL   = 3 * time.Second
	cancelGrace  = 2 * time.Second
)

func newStage(ctx context.Context, opts options, out io.Writer) (*stage, error) {
	s := &stage{opts: opts, tell: newNarrator(out), pairs: &director{}, worldEnded: make(chan struct{})}
	for _, dir := range []string{opts.dir, filepath.Join(opts.dir, "tls"), filepath.Join(opts.dir, "pods")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	ca, err := newAuthority()
	if err != nil {
		return nil, err
	}
	key, err := s.secrets(ca)
	if err != nil {
		return nil, err
	}
	listeners, err := s.listen(ca)
	if err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(s.file("tls/oncall.pem"), s.file("tls/oncall.key"))
	if err != nil {
		return nil, err
	}
	s.client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: ca.pool, Certificates: []tls.Certificate{pair}},
	}}
	s.world, err = world.New(world.Options{
		Dir: s.file("pods"), GitHubURL: s.gitHubURL, AppKey: &key.PublicKey, ClusterToken: "demo", AdmissionCA: ca.pem,
		GitHub: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: ca.pool}}},
		Assign: s.pairs.assign, PollHold: pollHold, SessionTTL: sessionTTL, ShuttingDown: shuttingDown, Refill: refill, Boot: bootTime,
		CancelGrace: cancelGrace, Hosts: 3, JobLog: s.tell.job, Seed: uint64(time.Now().UnixNano()),
	})
	if err != nil {
		return nil, err
	}
	if err := s.configure(ca); err != nil {
		return nil, err
	}
	s.serve(listeners)
	worldCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stopWorld = stop
	go func() {
		defer close(s.worldEnded)
		_ = s.world.Run(worldCtx) // ends with its context
	}()
	return s, nil
}

func (s *stage) file(name string) string { return filepath.Join(s.opts.dir, name) }

// secrets writes the certificates and the GitHub App's key.
func (s *stage) secrets(ca *authority) (*rsa.PrivateKey, error) {
	problems := []error{os.WriteFile(s.file("tls/ca.pem"), ca.pem, 0o644)}
	for _, name := range []string{"admission", "status", "oncall"} {
		problems = append(problems, ca.write(s.file("tls"), name))
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	problems = append(problems, os.WriteFile(s.file("github-app.pem"), pem.EncodeToMemory(block), 0o600))
	return key, errors.Join(problems...)
}

// listen opens the simulators' ports, and finds free ones for the daemon.
func (s *stage) listen(ca *authority) ([]net.Listener, error) {
	var listeners []net.Listener
	for _, url := range []*string{&s.gitHubURL, &s.awsURL, &s.k8s} {
		config, err := ca.server("simulator")
		if err != nil {
			return nil, err
		}
		l, err := tls.Listen("tcp", "127.0.0.1:0", config)
		if err != nil {
			return nil, fmt.Errorf("listen on loopback: %w", err)
		}
		*url = "https://" + l.Addr().String()
		listeners = append(listeners, l)
	}
	for _, addr := range []*string{&s.admission, &s.statusAddr} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("listen on loopback: %w", err)
		}
		*addr = l.Addr().String()
		if err := l.Close(); err != nil {
			return nil, err
		}
	}
	s.statusURL = "https://" + s.statusAddr
	return listeners, nil
}

func (s *stage) serve(listeners []net.Listener) {
	for i, h := range []http.Handler{s.world.GitHub, s.world.AWS, s.world.Cluster.Handler()} {
		server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ErrorLog: s.tell.quiet()}
		s.servers = append(s.servers, server)
		go func() { _ = server.Serve(listeners[i]) }() // ends with close
	}
}

// configure writes the daemon's configuration, such as an owner would.
func (s *stage) configure(ca *authority) error {
	kubeconfig, err := s.world.Cluster.Kubeconfig(s.k8s, ca.pem)
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.file("kubeconfig"), kubeconfig, 0o600); err != nil {
		return err
	}
	s.config = s.file("runnerward.yaml")
	f, err := os.OpenFile(s.config, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = configuration.Execute(f, map[string]any{
		"GitHub": s.gitHubURL, "Org": world.Org, "Client": world.AppClientID, "Installation": world.AppInstallationID,
		"Issuer": s.world.GitHub.Issuer(), "Dir": s.opts.dir, "Labels": world.Labels(), "OrgID": s.world.OrgID,
		"Repository": world.Org + "/" + world.Repository, "RepositoryID": s.world.RepositoryID, "Environment": world.Environment,
		"Workflow": world.DeployWorkflow, "SHA": world.DeploySHA, "Team": world.Team, "Group": world.Group,
		"Namespace": world.Namespace, "ServiceAccount": world.ServiceAccount, "LabelKey": world.PoolLabelKey, "LabelValue": world.PoolLabelValue,
		"Admission": s.admission, "Status": s.statusAddr, "CAConfigMap": world.CAConfigMap, "AWS": s.awsURL, "Region": world.Region,
		"Account": world.Account, "Subnet": world.Subnet, "Profile": world.Profile, "NodeGroup": world.NodeGroup,
	})
	return errors.Join(err, f.Close())
}

// close ends the daemon first, so that it says goodbye to a world that answers.
func (s *stage) close() error {
	err := s.daemon.end()
	s.stopWorld()
	<-s.worldEnded
	s.world.GitHub.Close()
	for _, server := range s.servers {
		err = errors.Join(err, server.Close())
	}
	return err
}

var configuration = template.Must(template.New("configuration").Parse(`# Written by runnerward-demo. configs/runnerward.example.yaml explains every key.
github:
  url: {{.GitHub}}/{{.Org}}
  app:
    clientId: {{.Client}}
    installationId: {{.Installation}}
    privateKeyFile: {{.Dir}}/github-app.pem
  caFile: {{.Dir}}/tls/ca.pem
  oidcIssuer: {{.Issuer}}
pool:
  name: hipaa-prod
  group: {{.Group}}
  labels: [{{range $i, $l := .Labels}}{{if $i}}, {{end}}{{$l}}{{end}}]
  organizationId: {{.OrgID}}
  repositories:
    - name: {{.Repository}}
      id: {{.RepositoryID}}
  environment: {{.Environment}}
  workflows:
    - ref: {{.Workflow}}
      sha: {{.SHA}}
  approverTeams: [{{.Team}}]
  events: [push]
limits:
  maxRunners: 6
  surplusGrace: 10s
  concludeGrace: 10s
supervisor:
  tick: 200ms
cluster:
  name: hipaa-prod-east
  kubeconfigFile: {{.Dir}}/kubeconfig
  namespace: {{.Namespace}}
  serviceAccount: {{.ServiceAccount}}
  nodeLabels:
    - key: {{.LabelKey}}
      value: {{.LabelValue}}
  taint:
    key: workload
    value: hipaa-runner
    effect: NoSchedule
  runnerImage: ghcr.io/actions/actions-runner@sha256:1111111111111111111111111111111111111111111111111111111111111111
  agentImage: ghcr.io/runnerward/runnerward-agent@sha256:2222222222222222222222222222222222222222222222222222222222222222
  admissionURL: https://{{.Admission}}
  admissionCAConfigMap: {{.CAConfigMap}}
  cpu: "2"
  memory: 4Gi
hosts:
  driver: autoscaling
  region: {{.Region}}
  endpoint: {{.AWS}}
  caFile: {{.Dir}}/tls/ca.pem
  accounts: ["{{.Account}}"]
  regions: [{{.Region}}]
  subnets: [{{.Subnet}}]
  groups: [{{.NodeGroup}}]
  imageNames: [bottlerocket-aws-k8s-]
  imageOwners: [amazon]
  bootModes: [uefi]
  instanceProfiles: ["{{.Profile}}"]
  osImage: ^Bottlerocket OS \d+\.\d+\.\d+ \(aws-k8s-\d+\.\d+\)$
  tags:
    - key: Compliance
      value: HIPAA
ledger:
  dir: {{.Dir}}/ledger
  keysDir: {{.Dir}}/keys
  rootFile: {{.Dir}}/root.json
  origin: runnerward.demo/hipaa-prod
admission:
  listen: {{.Admission}}
  certFile: {{.Dir}}/tls/admission.pem
  keyFile: {{.Dir}}/tls/admission.key
status:
  listen: {{.Status}}
  certFile: {{.Dir}}/tls/status.pem
  keyFile: {{.Dir}}/tls/status.key
  clientCAFile: {{.Dir}}/tls/ca.pem
  admins: [oncall]
log:
  level: info
  format: json
`))
