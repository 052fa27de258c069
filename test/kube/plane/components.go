package plane

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

func (p *Plane) startEtcd(ctx context.Context) error {
	port, err := p.reserve("127.0.0.1")
	if err != nil {
		return err
	}
	peer, err := p.reserve("127.0.0.1")
	if err != nil {
		return err
	}
	p.etcd = fmt.Sprintf("http://127.0.0.1:%d", port)
	peers := fmt.Sprintf("http://127.0.0.1:%d", peer)
	return p.start(ctx, "etcd", p.etcd+"/health", &http.Client{},
		"--data-dir="+p.file("etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls="+p.etcd, "--advertise-client-urls="+p.etcd,
		"--listen-peer-urls="+peers, "--initial-advertise-peer-urls="+peers, "--initial-cluster=default="+peers)
}

func (p *Plane) startAPIServer(ctx context.Context) error {
	client, err := p.ca.Client(p.file("pki/admin.pem"), p.file("pki/admin.key"))
	if err != nil {
		return err
	}
	return p.start(ctx, "kube-apiserver", p.URL+"/readyz", client, append([]string{
		"--etcd-servers=" + p.etcd, "--bind-address=" + p.opts.Address, "--advertise-address=" + p.opts.Address,
		"--secure-port=" + strconv.Itoa(p.opts.Port), "--endpoint-reconciler-type=none",
		"--tls-cert-file=" + p.file("pki/apiserver.pem"), "--tls-private-key-file=" + p.file("pki/apiserver.key"),
		"--client-ca-file=" + p.file("pki/ca.pem"), "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--service-cluster-ip-range=" + serviceRange,
		// As every installer has it: Pod Security decides, by namespace.
		"--allow-privileged=true",
		// Tokens as EKS issues them: bound to their pod, for the audience asked for.
		"--service-account-issuer=" + p.URL, "--service-account-key-file=" + p.file("pki/accounts.pub"),
		"--service-account-signing-key-file=" + p.file("pki/accounts.key"),
		"--api-audiences=https://kubernetes.default.svc",
		"--kubelet-client-certificate=" + p.file("pki/kubelet-client.pem"), "--kubelet-client-key=" + p.file("pki/kubelet-client.key"),
		// Names of test nodes are in no DNS.
		"--kubelet-preferred-address-types=InternalIP",
		"--audit-policy-file=" + p.file("audit.yaml"), "--audit-log-path=" + p.file("audit.jsonl"), "--audit-log-mode=blocking",
		"--profiling=false",
	}, p.opts.APIServer...)...)
}

func (p *Plane) startControllers(ctx context.Context) error {
	config := "--kubeconfig=" + p.file("controllers.kubeconfig")
	return p.startController(ctx, "kube-controller-manager", append([]string{
		config, "--authentication-" + config[2:], "--authorization-" + config[2:], "--leader-elect=false",
		"--service-account-private-key-file=" + p.file("pki/accounts.key"), "--root-ca-file=" + p.file("pki/ca.pem"),
		"--cluster-signing-cert-file=" + p.file("pki/ca.pem"), "--cluster-signing-key-file=" + p.file("pki/ca.key"),
		"--use-service-account-credentials", "--allocate-node-cidrs", "--cluster-cidr=10.244.0.0/16",
	}, p.opts.Controllers...))
}

func (p *Plane) startScheduler(ctx context.Context) error {
	config := "--kubeconfig=" + p.file("scheduler.kubeconfig")
	return p.startController(ctx, "kube-scheduler", append([]string{
		config, "--authentication-" + config[2:], "--authorization-" + config[2:], "--leader-elect=false",
	}, p.opts.Scheduler...))
}

// startController starts one with an endpoint of its own on loopback, for
// which it makes a certificate that nobody vouches for.
func (p *Plane) startController(ctx context.Context, name string, args []string) error {
	port, err := p.reserve("127.0.0.1")
	if err != nil {
		return err
	}
	unverified := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	return p.start(ctx, name, "https://"+net.JoinHostPort("127.0.0.1", strconv.Itoa(port))+"/healthz", unverified,
		append(args, "--bind-address=127.0.0.1", "--secure-port="+strconv.Itoa(port), "--cert-dir="+p.file(name))...)
}

// process is one component.
type process struct {
	name  string
	cmd   *exec.Cmd
	log   string
	ended chan struct{}
}

// start runs a component and waits until its address answers 200.
func (p *Plane) start(ctx context.Context, name, ready string, client *http.Client, args ...string) error {
	proc := &process{name: name, log: p.file("log/" + name + ".log"), ended: make(chan struct{})}
	log, err := os.Create(proc.log)
	if err != nil {
		return err
	}
	proc.cmd = exec.Command(filepath.Join(p.opts.Bin, name), args...)
	proc.cmd.Stdout, proc.cmd.Stderr = log, log
	// What the test forgets, or cannot end because it was killed, ends with it.
	proc.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := proc.cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", name, err), log.Close())
	}
	go func() {
		_ = proc.cmd.Wait() // how it ended is in its log
		_ = log.Close()
		close(proc.ended)
	}()
	p.procs = append(p.procs, proc)
	defer client.CloseIdleConnections()
	return proc.wait(ctx, ready, client)
}

func (proc *process) wait(ctx context.Context, ready string, client *http.Client) error {
	client.Timeout = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, ready, nil)
		if err != nil {
			return err
		}
		if resp, err := client.Do(req); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-proc.ended:
			return fmt.Errorf("%s ended: %s\n%s", proc.name, proc.cmd.ProcessState, proc.tail())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready after %s: %w\n%s", proc.name, startLimit, context.Cause(ctx), proc.tail())
		}
	}
}

// tail is the end of the log.
func (proc *process) tail() []byte {
	content, err := os.ReadFile(proc.log)
	if err != nil {
		return []byte(err.Error())
	}
	const most = 4 << 10
	return bytes.ToValidUTF8(content[max(0, len(content)-most):], nil)
}

// stopGrace is how long a component may take to end.
const stopGrace = 3 * time.Second

func (proc *process) stop() error {
	if err := proc.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end %s: %w", proc.name, err)
	}
	select {
	case <-proc.ended:
		return nil
	case <-time.After(stopGrace):
	}
	if err := proc.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", proc.name, err)
	}
	<-proc.ended
	return nil
}

func kubeconfig(url string, ca []byte, user string) []byte {
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
  - name: test
    cluster: {server: %q, certificate-authority-data: %s}
users:
  - name: test
    user: %s
contexts:
  - name: test
    context: {cluster: test, user: test}
current-context: test
`, url, base64.StdEncoding.EncodeToString(ca), user)
}
