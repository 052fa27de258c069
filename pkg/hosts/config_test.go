package hosts_test

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/smithy-go"

	"github.com/runnerward/runnerward/pkg/hosts"
	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
)

// served is the simulator behind TLS on loopback, with credentials in the
// environment as an operator would give them.
func served(t *testing.T, secret string) (*simaws.Server, *httptest.Server) {
	t.Helper()
	cfg := simConfig()
	cfg.LaunchTime = 0
	sim := simaws.New(cfg)
	sim.AddGroup(testGroup())
	srv := httptest.NewTLSServer(sim)
	t.Cleanup(srv.Close)
	t.Setenv("AWS_ACCESS_KEY_ID", keyID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", secret)
	t.Setenv("AWS_SESSION_TOKEN", "")
	t.Setenv("AWS_PROFILE", "")
	t.Setenv("AWS_CA_BUNDLE", "")
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(t.TempDir(), "none"))
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	return sim, srv
}

func connect(t *testing.T, o hosts.ConfigOptions) *hosts.AutoScaling {
	t.Helper()
	cfg, err := hosts.LoadConfig(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	driver, err := hosts.NewAutoScaling(cfg, hosts.Options{Region: region, Groups: []string{groupName}, CallTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return driver
}

func TestLoadConfigReachesAnEndpointWithItsOwnCA(t *testing.T) {
	sim, srv := served(t, keySecret)
	caFile := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(caFile, block, 0o600); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(srv.Certificate())
	id := sim.Instances()[0].ID
	for name, o := range map[string]hosts.ConfigOptions{
		"file": {Region: region, Endpoint: srv.URL, CAFile: caFile},
		"pool": {Region: region, Endpoint: srv.URL, RootCAs: pool},
	} {
		got, err := connect(t, o).Describe(t.Context(), []string{id})
		if err != nil || got[id].State != "running" || got[id].Group != groupName {
			t.Errorf("%s: Describe = %v, %v, want a running member", name, got, err)
		}
	}
	if got, err := connect(t, hosts.ConfigOptions{Region: region, Endpoint: srv.URL}).Describe(t.Context(), []string{id}); err == nil {
		t.Errorf("Describe without the CA = %v, want an error", got)
	}
}

func TestLoadConfigRefusesWhatItCannotUse(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]hosts.ConfigOptions{
		"no region":              {},
		"no such CA file":        {Region: region, CAFile: empty + ".missing"},
		"no certificate in file": {Region: region, CAFile: empty},
	} {
		if _, err := hosts.LoadConfig(t.Context(), o); err == nil {
			t.Errorf("%s: LoadConfig = nil, want an error", name)
		}
	}
}

func TestAWrongSecretIsAnErrorAndNotAnAbsence(t *testing.T) {
	sim, srv := served(t, "not-the-secret-key")
	driver := connect(t, hosts.ConfigOptions{Region: region, Endpoint: srv.URL, HTTPClient: srv.Client()})
	got, err := driver.Describe(t.Context(), []string{sim.Instances()[0].ID})
	if e, ok := errors.AsType[smithy.APIError](err); !ok || e.ErrorCode() != "AuthFailure" {
		t.Errorf("Describe = %v, %v, want AuthFailure", got, err)
	}
}

func TestASilentServiceCostsOneResponseTimeout(t *testing.T) {
	sim, srv := served(t, keySecret)
	pool := x509.NewCertPool()
	pool.AddCert(srv.Certificate())
	driver := connect(t, hosts.ConfigOptions{
		Region: region, Endpoint: srv.URL, RootCAs: pool, ResponseTimeout: 50 * time.Millisecond,
	})
	sim.Inject(simaws.Fault{Action: "DescribeInstances", Kind: simaws.Hang})
	_, err := driver.Describe(t.Context(), []string{sim.Instances()[0].ID})
	if err == nil || !strings.Contains(err.Error(), "timeout awaiting response headers") {
		t.Errorf("Describe = %v, want the response timeout, not the call's deadline", err)
	}
}
