// Package plane starts a real Kubernetes control plane for tests: etcd,
// kube-apiserver, kube-controller-manager and kube-scheduler as processes of
// this machine, with an authority of their own, RBAC, Pod Security, tokens that
// are bound to pods, and an audit log that can be read back.
//
// The binaries are those of test/kube/build.sh, or the user's own.
package plane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/runnerward/runnerward/pkg/sim/pki"
	"github.com/runnerward/runnerward/pkg/sim/port"
)

// Options configure a [Plane].
type Options struct {
	// Bin is the folder of the binaries, Dir an existing folder for everything
	// else, of which paths are taken as they are.
	Bin, Dir string
	// Address is where the API server listens; 127.0.0.1 when empty.
	Address string
	// Port is the API server's; a free one when 0. The others get free ones.
	Port int
	// APIServer, Controllers and Scheduler are flags beyond ours.
	APIServer, Controllers, Scheduler []string
	// Names are further names and addresses of the API server's certificate.
	Names []string
}

// Plane is a control plane that runs. Its methods are safe for concurrent use.
type Plane struct {
	// URL is the API server's, CA the PEM that vouches for it.
	URL string
	CA  []byte
	// Admin has all rights; its requests are not limited in rate.
	Admin *rest.Config

	opts  Options
	ca    *pki.Authority
	etcd  string
	procs []*process
	ports []*port.Reservation
}

// serviceRange is the range of cluster addresses; the API server takes the first.
const serviceRange, serviceAddress = "10.96.0.0/16", "10.96.0.1"

// startLimit bounds the start of one component.
const startLimit = 2 * time.Minute

// Start returns when every component says that it is ready. On an error
// nothing is left running, and the error holds the end of the log of what failed.
func Start(ctx context.Context, opts Options) (p *Plane, err error) {
	if opts.Address == "" {
		opts.Address = "127.0.0.1"
	}
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
		if _, err := os.Stat(filepath.Join(opts.Bin, name)); err != nil {
			return nil, fmt.Errorf("the control plane needs %s: %w (test/kube/build.sh api)", name, err)
		}
	}
	p = &Plane{opts: opts}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Stop())
		}
	}()
	if err := p.prepare(); err != nil {
		return nil, err
	}
	for _, start := range []func(context.Context) error{p.startEtcd, p.startAPIServer, p.startControllers, p.startScheduler} {
		if err := start(ctx); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// prepare writes keys, certificates, kubeconfigs and the audit policy.
func (p *Plane) prepare() (err error) {
	for _, dir := range []string{"pki", "log"} {
		if err := os.MkdirAll(p.file(dir), 0o700); err != nil {
			return err
		}
	}
	if p.ca, err = pki.New("runnerward test cluster"); err != nil {
		return err
	}
	p.CA = p.ca.PEM
	if p.opts.Port == 0 {
		if p.opts.Port, err = p.reserve(p.opts.Address); err != nil {
			return err
		}
	}
	p.URL = "https://" + net.JoinHostPort(p.opts.Address, strconv.Itoa(p.opts.Port))
	names := append([]string{p.opts.Address, serviceAddress, "kubernetes", "kubernetes.default", "kubernetes.default.svc"}, p.opts.Names...)
	problems := []error{
		os.WriteFile(p.file("pki/ca.pem"), p.ca.PEM, 0o600),
		p.ca.WriteKey(p.file("pki/ca.key")),
		pki.WriteRSA(p.file("pki/accounts.key"), p.file("pki/accounts.pub")),
		p.ca.Write(p.file("pki"), "apiserver", pki.Subject{Name: "kube-apiserver"}, names...),
		p.ca.Write(p.file("pki"), "kubelet-client", pki.Subject{Name: "apiserver-kubelet-client", Groups: []string{"system:masters"}}),
		os.WriteFile(p.file("audit.yaml"), []byte(auditPolicy), 0o600),
	}
	for name, subject := range map[string]pki.Subject{
		"admin":       {Name: "admin", Groups: []string{"system:masters"}},
		"controllers": {Name: "system:kube-controller-manager"},
		"scheduler":   {Name: "system:kube-scheduler"},
	} {
		problems = append(problems, p.ca.Write(p.file("pki"), name, subject))
		content := kubeconfig(p.URL, p.ca.PEM, fmt.Sprintf("{client-certificate: %q, client-key: %q}", p.file("pki/"+name+".pem"), p.file("pki/"+name+".key")))
		problems = append(problems, os.WriteFile(p.file(name+".kubeconfig"), content, 0o600))
	}
	p.Admin = &rest.Config{Host: p.URL, QPS: -1, TLSClientConfig: rest.TLSClientConfig{
		CAData: p.ca.PEM, CertFile: p.file("pki/admin.pem"), KeyFile: p.file("pki/admin.key"),
	}}
	return errors.Join(problems...)
}

func (p *Plane) file(name string) string { return filepath.Join(p.opts.Dir, name) }

// AdminKubeconfig is a file with all rights, for kubectl, helm and kubelets.
func (p *Plane) AdminKubeconfig() string { return p.file("admin.kubeconfig") }

// CAFile is the authority's certificate in a file.
func (p *Plane) CAFile() string { return p.file("pki/ca.pem") }

// Client is a client with all rights.
func (p *Plane) Client() (kubernetes.Interface, error) { return kubernetes.NewForConfig(p.Admin) }

// Kubeconfig is one that signs in with a bearer token, as an account does; url
// is the API server's when empty.
func (p *Plane) Kubeconfig(url, token string) []byte {
	if url == "" {
		url = p.URL
	}
	return kubeconfig(url, p.ca.PEM, fmt.Sprintf("{token: %q}", token))
}

// NodeKubeconfig is one of the kubelet of this node, with the rights of a node.
// https://kubernetes.io/docs/reference/access-authn-authz/node/
func (p *Plane) NodeKubeconfig(node string) ([]byte, error) {
	name := "node-" + node
	if err := p.ca.Write(p.file("pki"), name, pki.Subject{Name: "system:node:" + node, Groups: []string{"system:nodes"}}); err != nil {
		return nil, err
	}
	return kubeconfig(p.URL, p.ca.PEM, fmt.Sprintf("{client-certificate: %q, client-key: %q}", p.file("pki/"+name+".pem"), p.file("pki/"+name+".key"))), nil
}

// Stop ends every component, the API server before its store: one whose etcd
// is gone does not end when asked.
func (p *Plane) Stop() error {
	var problems []error
	for _, proc := range slices.Backward(p.procs) {
		problems = append(problems, proc.stop())
	}
	for _, r := range p.ports {
		problems = append(problems, r.Close())
	}
	p.procs, p.ports = nil, nil
	return errors.Join(problems...)
}

// reserve is a port for as long as the control plane stands.
func (p *Plane) reserve(address string) (int, error) {
	r, err := port.Reserve(address)
	if err != nil {
		return 0, err
	}
	p.ports = append(p.ports, r)
	return r.Port, nil
}
