// Package stage puts the production binary into a world: the simulators of
// GitHub and AWS over TLS, a pretend or a real cluster, and daemons as child
// processes with an ordinary configuration. The demo plays its story on it, and
// the tests against real clusters theirs.
package stage

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
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/sim/pki"
	"github.com/runnerward/runnerward/pkg/sim/port"
	"github.com/runnerward/runnerward/pkg/sim/world"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// How fast this world is. A real host boots in a minute or more and takes as
// long to terminate; nothing else is different.
const (
	bootTime     = 1500 * time.Millisecond
	shuttingDown = 1500 * time.Millisecond
	refill       = 500 * time.Millisecond
	pollHold     = 2 * time.Second
	cancelGrace  = 2 * time.Second
	// SessionTTL is how long GitHub keeps the session of a daemon that died.
	SessionTTL = 3 * time.Second
)

// Options describe a [Stage].
type Options struct {
	// Dir is a folder for everything, an absolute path; Binary is runnerward.
	Dir, Binary string
	// Address is where simulators and daemons listen; 127.0.0.1 when empty.
	// Names are what else they are called, by whoever calls them from elsewhere.
	Address string
	Names   []string
	// Kubeconfig is the one of a real cluster. Empty serves the pretend one.
	Kubeconfig []byte
	// World changes the world before it is made.
	World func(*world.Options)
	// OnRecord is told of every record that a daemon says it has written.
	OnRecord func(index uint64, kind, chain string)
	// OnDispatch and OnApprove are told what people are about to do; they may be nil.
	OnDispatch func(simgithub.RunSpec)
	OnApprove  func(login string)
}

// Stage is a world with room for daemons.
type Stage struct {
	World    *world.World
	Director *Director
	CA       *pki.Authority
	// Client trusts the authority and is an administrator of the status endpoint.
	Client *http.Client
	// GitHubURL, AWSURL and ClusterURL are the simulators'; the last one is
	// empty with a real cluster.
	GitHubURL, AWSURL, ClusterURL string
	// Ask is the view of whichever daemon serves, of the last one started
	// unless somebody sets it.
	Ask func(context.Context) (supervisor.View, error)

	opts    Options
	daemons []*Daemon
	servers []*http.Server
	ports   []*port.Reservation
	stop    context.CancelFunc
	ended   chan struct{}
}

// New makes the world and keeps it going until [Stage.Close].
func New(ctx context.Context, opts Options) (*Stage, error) {
	if opts.Address == "" {
		opts.Address = "127.0.0.1"
	}
	s := &Stage{opts: opts, Director: &Director{}, ended: make(chan struct{})}
	for _, dir := range []string{"", "tls", "pods"} {
		if err := os.MkdirAll(s.File(dir), 0o700); err != nil {
			return nil, err
		}
	}
	key, err := s.secrets()
	if err != nil {
		return nil, err
	}
	listeners, err := s.listen()
	if err != nil {
		return nil, err
	}
	if err := s.populate(key); err != nil {
		return nil, err
	}
	if err := s.kubeconfig(); err != nil {
		return nil, err
	}
	s.serve(listeners)
	worldCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	go func() {
		defer close(s.ended)
		_ = s.World.Run(worldCtx) // ends with its context
	}()
	return s, nil
}

// File is a path in the stage's folder.
func (s *Stage) File(name string) string { return filepath.Join(s.opts.Dir, name) }

// secrets writes the certificates and the GitHub App's key.
func (s *Stage) secrets() (key *rsa.PrivateKey, err error) {
	if s.CA, err = pki.New("runnerward demo CA"); err != nil {
		return nil, err
	}
	problems := []error{os.WriteFile(s.File("tls/ca.pem"), s.CA.PEM, 0o644)}
	for _, name := range []string{"admission", "status", "oncall"} {
		problems = append(problems, s.CA.Write(s.File("tls"), name, pki.Subject{Name: name}, s.names()...))
	}
	if key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return nil, err
	}
	block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	problems = append(problems, os.WriteFile(s.File("github-app.pem"), pem.EncodeToMemory(block), 0o600))
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	s.Client, err = s.CA.Client(s.File("tls/oncall.pem"), s.File("tls/oncall.key"))
	return key, err
}

func (s *Stage) names() []string { return append([]string{s.opts.Address}, s.opts.Names...) }

// listen opens the simulators' ports.
func (s *Stage) listen() ([]net.Listener, error) {
	urls := []*string{&s.GitHubURL, &s.AWSURL}
	if s.opts.Kubeconfig == nil {
		urls = append(urls, &s.ClusterURL)
	}
	var listeners []net.Listener
	for _, url := range urls {
		config, err := s.CA.Server("simulator", s.names()...)
		if err != nil {
			return nil, err
		}
		l, err := tls.Listen("tcp", net.JoinHostPort(s.opts.Address, "0"), config)
		if err != nil {
			return nil, fmt.Errorf("listen for a simulator: %w", err)
		}
		*url = "https://" + l.Addr().String()
		listeners = append(listeners, l)
	}
	return listeners, nil
}

// reserve is an address for a daemon, for as long as the stage stands: daemons
// end and start again.
func (s *Stage) reserve() (string, error) {
	r, err := port.Reserve(s.opts.Address)
	if err != nil {
		return "", err
	}
	s.ports = append(s.ports, r)
	return r.Address, nil
}

func (s *Stage) populate(key *rsa.PrivateKey) (err error) {
	client, err := s.CA.Client("", "")
	if err != nil {
		return err
	}
	client.Timeout = 0 // messages are waited for
	options := world.Options{
		Dir: s.File("pods"), GitHubURL: s.GitHubURL, AppKey: &key.PublicKey, ClusterToken: "demo", AdmissionCA: s.CA.PEM, GitHub: client,
		Assign: s.Director.assign, PollHold: pollHold, SessionTTL: SessionTTL, ShuttingDown: shuttingDown, Refill: refill, Boot: bootTime,
		CancelGrace: cancelGrace, Hosts: 3, Seed: uint64(time.Now().UnixNano()),
	}
	if s.opts.World != nil {
		s.opts.World(&options)
	}
	s.World, err = world.New(options)
	return err
}

// kubeconfig writes the one that daemons use unless told otherwise.
func (s *Stage) kubeconfig() (err error) {
	content := s.opts.Kubeconfig
	if content == nil {
		if content, err = s.World.Cluster.Kubeconfig(s.ClusterURL, s.CA.PEM); err != nil {
			return err
		}
	}
	return os.WriteFile(s.File("kubeconfig"), content, 0o600)
}

func (s *Stage) serve(listeners []net.Listener) {
	handlers := []http.Handler{s.World.GitHub, s.World.AWS}
	switch {
	case s.World.Karpenter != nil:
		handlers = append(handlers, s.World.Karpenter.Handler())
	case s.World.Cluster != nil:
		handlers = append(handlers, s.World.Cluster.Handler())
	}
	for i, l := range listeners {
		// Connections break when a daemon is killed; that is no news.
		server := &http.Server{Handler: handlers[i], ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
		s.servers = append(s.servers, server)
		go func() { _ = server.Serve(l) }() // ends with Close
	}
}

// Close ends the daemons first, so that they say goodbye to a world that answers.
func (s *Stage) Close() error {
	var problems []error
	for _, d := range s.daemons {
		problems = append(problems, d.End())
	}
	s.stop()
	<-s.ended
	s.World.GitHub.Close()
	for _, server := range s.servers {
		problems = append(problems, server.Close())
	}
	for _, r := range s.ports {
		problems = append(problems, r.Close())
	}
	return errors.Join(problems...)
}

// Until polls a condition. The error names what did not happen.
func (s *Stage) Until(ctx context.Context, what string, limit time.Duration, ok func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not within %s: %s", limit, what))
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if yes, err := ok(); yes || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
