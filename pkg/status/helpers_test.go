package status_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/certs"
	"github.com/runnerward/runnerward/pkg/runner"
	"github.com/runnerward/runnerward/pkg/status"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// source is a View that a test may replace.
type source struct {
	mu   sync.Mutex
	view supervisor.View
}

func (s *source) View() supervisor.View {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view
}

func (s *source) set(v supervisor.View) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.view = v
}

// lever records what was asked of the supervisor.
type lever struct {
	calls []string
	err   error
}

func (l *lever) Freeze(_ context.Context, by, reason string) error {
	l.calls = append(l.calls, "freeze "+by+" "+reason)
	return l.err
}

func (l *lever) Unfreeze(_ context.Context, by string) error {
	l.calls = append(l.calls, "unfreeze "+by)
	return l.err
}

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func healthy() supervisor.View {
	return supervisor.View{
		Now: noon, Version: "v0.1.0", StartedAt: noon.Add(-26 * time.Hour), Leading: true, CanDeploy: true,
		Checks: []supervisor.HealthCheck{
			{Name: "queue", OK: true, Detail: "last poll 4 s ago"},
			{Name: "ledger", OK: true, Detail: "1234 records"},
		},
		Queue: supervisor.QueueHealth{Session: "open", LastPoll: noon.Add(-4 * time.Second), ScaleSetID: 7},
		Ledger: supervisor.LedgerView{Size: 1234, Head: "sha256:" + strings.Repeat("ab", 32),
			LastAt: noon.Add(-90 * time.Second)},
		Capacity: 4, Max: 4,
		Hosts: []supervisor.HostView{{Node: "ip-10-0-1-5.ec2.internal", Instance: "i-0aaaaaaaaaaaaaaa1", Vetted: true}},
	}
}

// busy has one of everything that can be shown.
func busy() supervisor.View {
	v := healthy()
	v.CanDeploy, v.Why = false, []string{"1 host is overdue for teardown", "check posture fails: runner group open to all repositories"}
	v.Checks = append(v.Checks, supervisor.HealthCheck{Name: "posture", Detail: "runner group open to all repositories"})
	v.Capacity = 0
	v.Queue.LastError = "get message: 502 Bad Gateway"
	v.Warnings = []string{"1 jobs of queue messages were skipped and will not run here, the last at 2026-03-02T08:00:00Z: no job id"}
	v.Queue.ClockSkew, v.HeardAt = 3*time.Second, noon.Add(-12*time.Second)
	v.Queue.Rates = []supervisor.Rate{{Resource: "service", Throttled: 2}}
	v.GitHub.Rates = []supervisor.Rate{{Resource: "core", Limit: 5000, Remaining: 4711, Reset: noon.Add(20 * time.Minute)}}
	v.Asks = []supervisor.AskView{{Repository: "hipaa-app-org/clinical-platform", RunID: 905, URL: "https://github.com/hipaa-app-org/clinical-platform/actions/runs/905",
		Environment: "production", Since: noon.Add(-40 * time.Second), Problem: "gather facts of the deployment: HTTP 503"}}
	v.Strays = []supervisor.StrayView{
		{What: runner.StrayForeign, ID: "4711", Since: noon.Add(-3 * time.Minute)},
		{What: runner.StrayPod, ID: "0b2f", Name: "rw-nobody", Node: "ip-10-0-1-9.ec2.internal", Since: noon.Add(-5 * time.Second)},
	}
	v.Queue.Statistics = supervisor.Statistics{Available: 1, Acquired: 2, Assigned: 9, Running: 3, Registered: 6, Busy: 5, Idle: 8}
	url := "https://github.com/hipaa-app-org/clinical-platform/actions/runs/"
	v.Jobs = []supervisor.JobView{
		{ID: "6a0f-1", Repository: "hipaa-app-org/clinical-platform", RunID: 901, URL: url + "901", Phase: runner.KindStarted,
			Since: noon.Add(-192 * time.Second), Runner: "rw-7c4kq"},
		{ID: "6a0f-2", Repository: "hipaa-app-org/clinical-platform", RunID: 902, URL: url + "902", Phase: runner.KindOffered,
			Since: noon.Add(-61 * time.Minute), Problem: "approvals could not be read: 503"},
		{ID: "6a0f-3", Repository: "hipaa-app-org/billing", RunID: 903, URL: url + "903", Phase: runner.KindDenied,
			Since: noon.Add(-50 * time.Hour), Reasons: []string{"approval.self", "workflow.unpinned"}},
		{ID: "6a0f-4", Repository: "hipaa-app-org/clinical-platform", RunID: 904, URL: url + "904", Phase: runner.KindConcluded,
			Since: noon.Add(-9 * time.Second), Result: runner.ResultSucceeded, Runner: "rw-old"},
	}
	v.Runners = []supervisor.RunnerView{
		{Name: "rw-7c4kq", Phase: runner.KindStarted, Since: noon.Add(-192 * time.Second), Instance: "i-0bbbbbbbbbbbbbbb2",
			Node: "ip-10-0-1-6.ec2.internal", Job: "6a0f-1", Cause: "6a0f-2",
			Rebuffed: []supervisor.RebuffView{{Gate: runner.GateClaim, Cause: runner.RebuffOtherPod, Since: noon.Add(-time.Minute), Caller: &runner.Caller{PodUID: "0b2f"}}}},
		{Name: "rw-old", Phase: runner.KindTeardown, Since: noon.Add(-20 * time.Minute), Instance: "i-0ccccccccccccccc3",
			Node: "ip-10-0-1-7.ec2.internal", Job: "6a0f-4", Cause: "6a0f-4", Outcome: "completed", Overdue: true,
			Pending: []runner.Stage{runner.StageInstance, runner.StageVolumes}, Problem: "terminate: UnauthorizedOperation"},
		{Name: "rw-new", Phase: runner.KindClaimed, Since: noon, Instance: "i-0ddddddddddddddd4",
			Node: "ip-10-0-1-8.ec2.internal", Cause: "6a0f-2", Pod: "the pod does not start: ImagePullBackOff"},
		{Name: "rw-late", Phase: runner.KindSealed, Since: noon.Add(-3 * time.Hour), Instance: "i-0fffffffffffffff6",
			Node: "ip-10-0-1-2.ec2.internal", Job: "6a0f-0", Cause: "6a0f-0", Outcome: "completed", Overdue: true},
	}
	v.Pool = supervisor.HostsPool{
		Groups: []supervisor.GroupView{{Name: "eks-hipaa-prod-runners", Min: 2, Desired: 3, Max: 6}},
		Notes:  []string{"group eks-hipaa-prod-runners rebalances over 2 zones: hosts in use are protected from it"},
	}
	v.Hosts = append(v.Hosts, supervisor.HostView{Node: "ip-10-0-1-9.ec2.internal", Instance: "i-0eeeeeeeeeeeeeee5",
		Failing: []runner.Check{{Name: "host.imdsv2", Verdict: runner.Fail}, {Name: "image.owner", Verdict: runner.Unknown}}})
	return v
}

func empty() supervisor.View {
	return supervisor.View{Now: noon, StartedAt: noon.Add(-2 * time.Second), Max: 4}
}

func frozen() supervisor.View {
	v := healthy()
	v.CanDeploy, v.Why, v.Capacity = false, []string{"admission is frozen"}, 0
	v.Frozen = &supervisor.FreezeView{By: "cert:oncall", Reason: "CVE-2026-0001", Since: noon.Add(-7 * time.Minute)}
	return v
}

func explain(code string) string {
	return map[string]string{"approval.self": "The author of the change approved it."}[code]
}

// authority signs certificates for one test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir(), key: newKey(t)}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority " + rand.Text()}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	a.cert = sign(t, tmpl, tmpl, &a.key.PublicKey, a.key)
	writePEM(t, a.file("ca.pem"), "CERTIFICATE", a.cert.Raw)
	return a
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// server names the files of the certificate called server.
func (a *authority) server() certs.Files {
	return certs.Files{Cert: a.file("server.crt"), Key: a.file("server.key"), ClientCA: a.file("ca.pem")}
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// issue signs a leaf and writes name.crt and name.key.
func (a *authority) issue(t *testing.T, name, commonName string, uris ...string) tls.Certificate {
	t.Helper()
	key := newKey(t)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: commonName}, DNSNames: []string{"localhost"},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	for _, raw := range uris {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		tmpl.URIs = append(tmpl.URIs, u)
	}
	leaf := sign(t, tmpl, a.cert, &key.PublicKey, a.key)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, a.file(name+".crt"), "CERTIFICATE", leaf.Raw)
	writePEM(t, a.file(name+".key"), "PRIVATE KEY", der)
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t *testing.T, tmpl, parent *x509.Certificate, pub *ecdsa.PublicKey, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func writePEM(t *testing.T, name, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// world is an endpoint under TLS with its own authority.
type world struct {
	*authority
	src    *source
	lever  *lever
	status *status.Server
	url    string
}

// start serves view with admins allowed to freeze.
func start(t *testing.T, view supervisor.View, admins ...string) *world {
	t.Helper()
	w := &world{authority: newAuthority(t), src: &source{view: view}, lever: &lever{}}
	w.issue(t, "server", "localhost")
	config, err := status.TLSConfig(w.server(), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	w.status = status.New(status.Options{
		Source: w.src, Control: w.lever, Admins: admins, Logger: zap.NewNop(), Explain: explain, Version: "v0.1.0",
		Labels: status.Labels{Organization: "hipaa-app-org", Name: "hipaa-prod", Namespace: "gha-runners"},
	})
	srv := httptest.NewUnstartedServer(w.status.Handler())
	srv.TLS = config
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	w.url = srv.URL
	return w
}

// client trusts the authority and presents the certificates given.
func (w *world) client(certs ...tls.Certificate) *http.Client {
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
			RootCAs: w.pool(), ServerName: "localhost", Certificates: certs, MinVersion: tls.VersionTLS12}},
	}
}

// reply is an answer read to its end.
type reply struct {
	code   int
	body   string
	header http.Header
}

func (w *world) do(t *testing.T, c *http.Client, method, path, body string, header ...string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, w.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: read the answer: %v", method, path, err)
	}
	return reply{resp.StatusCode, string(b), resp.Header}
}

func (w *world) get(t *testing.T, path string, header ...string) reply {
	t.Helper()
	return w.do(t, w.client(), http.MethodGet, path, "", header...)
}
