package main

import (
	"context"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"time"

	simstage "github.com/runnerward/runnerward/pkg/sim/stage"
	"github.com/runnerward/runnerward/pkg/sim/world"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// TestServeOnHostsOfKarpenter: the program as it ships, from its configuration
// file to the evidence, with a host that Karpenter launches for the job.
func TestServeOnHostsOfKarpenter(t *testing.T) {
	binary, err := exec.LookPath("runnerward") // this test binary: see TestMain
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	s, err := simstage.New(ctx, simstage.Options{Dir: t.TempDir(), Binary: binary, World: func(o *world.Options) { o.Karpenter = true }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	d, err := s.NewDaemon("karpenter", func(c simstage.Config) {
		c.Set("hosts.driver", "karpenter")
		c.Set("hosts.groups", []string{})
		c.Set("hosts.karpenter.nodeClass", world.NodeClass)
		c.Set("hosts.karpenter.requirements", []any{map[string]any{"key": "kubernetes.io/arch", "operator": "In", "values": []string{"amd64"}}})
	})
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			out, _, _ := s.CLI(ctx, "check-config", "--config", d.Config)
			t.Fatalf("%v\n%s", err, out)
		}
	}
	must(d.Start())
	must(s.Until(ctx, "somebody can deploy", time.Minute, func() (bool, error) {
		v, err := d.View(ctx)
		return err == nil && v.CanDeploy, nil // it may not be up yet
	}))
	if n := len(s.World.AWS.Instances()); n != 0 {
		t.Errorf("%d hosts before a job waits, want none", n)
	}
	run, err := s.Deploy(world.Deploy("v1.4.2", "alice", "bob", time.Second), "carol")
	must(err)
	sealed, err := s.Sealed(ctx, run.JobID, 2*time.Minute)
	must(err)
	must(s.Succeeded(run))
	must(s.Gone(sealed))
	must(s.Verify(ctx))
	out, code, err := s.CLI(ctx, "explain", "--ledger", s.File("ledger"), "--root", s.File("root.json"), "-o", "json", run.JobID)
	must(err)
	if text := string(out); code != 0 || !json.Valid(out) || !strings.Contains(text, `"hipaa-prod-`) || !strings.Contains(text, "host.nodeClaimTag") {
		t.Errorf("explain exits %d and does not tell of the NodeClaim:\n%s", code, out)
	}
	must(s.Until(ctx, "the pool is seen as it is", time.Minute, func() (bool, error) {
		v, err := d.View(ctx)
		return err == nil && poolOf(v) == "NodeClaims of hipaa-prod", nil
	}))
}

func poolOf(v supervisor.View) string {
	if len(v.Pool.Groups) != 1 {
		return ""
	}
	return v.Pool.Groups[0].Name
}
