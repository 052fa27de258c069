package main

import (
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/config"
	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
)

// TestHostsAreThoseOfTheNodegroup: groups that are left out come from EKS, and
// those that are given do not need it at start.
func TestHostsAreThoseOfTheNodegroup(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "a secret of the test")
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	sim := simaws.New(simaws.Config{Region: "us-east-1", AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "a secret of the test"})
	server := httptest.NewTLSServer(sim)
	t.Cleanup(server.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	sim.AddGroup(simaws.Group{Name: "eks-runners", Max: 2, SubnetIDs: []string{"subnet-0a1b2c3d4e5f60718"}})
	sim.AddNodegroup(simaws.Nodegroup{
		Cluster: "prod", Name: "runners", Group: "eks-runners", AMIType: "BOTTLEROCKET_x86_64", Labels: map[string]string{"pool": "prod"},
		Taints: []simaws.NodegroupTaint{{Effect: "NO_SCHEDULE", Key: "workload", Value: "runner"}},
	})
	cfg := &config.Config{
		Cluster: config.Cluster{NodeLabels: []config.KeyValue{{Key: "pool", Value: "prod"}}, Taint: config.Taint{Key: "workload", Value: "runner", Effect: "NoSchedule"}},
		Hosts: config.Hosts{Driver: "autoscaling", Region: "us-east-1", Endpoint: server.URL, CAFile: ca,
			Nodegroup: config.Nodegroup{Cluster: "prod", Name: "runners"}},
	}
	driver, groups, err := newHosts(t.Context(), cfg, zap.NewNop())
	if err != nil || !slices.Equal(groups, []string{"eks-runners"}) {
		t.Fatalf("newHosts = %q, %v, want the node group's", groups, err)
	}
	if pool, err := driver.Preflight(t.Context()); err != nil || len(pool.Problems) > 0 || len(pool.Groups) != 1 {
		t.Errorf("Preflight = %+v, %v, want the group without problems", pool, err)
	}
	cfg.Cluster.Taint.Value = "other"
	if driver, _, err = newHosts(t.Context(), cfg, zap.NewNop()); err != nil {
		t.Fatal(err)
	}
	if pool, err := driver.Preflight(t.Context()); err != nil || !strings.Contains(strings.Join(pool.Problems, "\n"), "workload=other:NoSchedule") {
		t.Errorf("Preflight = %+v, %v, want the taint refused", pool, err)
	}

	sim.Deny("eks:DescribeNodegroup", true)
	if _, _, err := newHosts(t.Context(), cfg, zap.NewNop()); err == nil || !strings.Contains(err.Error(), "hosts.nodegroup: ") {
		t.Errorf("newHosts while EKS refuses = %v, want an error that names the key", err)
	}
	cfg.Hosts.Groups = []string{"given"}
	if _, groups, err := newHosts(t.Context(), cfg, zap.NewNop()); err != nil || !slices.Equal(groups, []string{"given"}) {
		t.Errorf("newHosts with groups = %q, %v, want those", groups, err)
	}
}
