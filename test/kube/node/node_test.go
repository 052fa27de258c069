package node

import (
	"os"
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/sim/world"
)

func TestNode(t *testing.T) {
	if os.Getenv(binaries) == "" {
		t.Skip("needs a kubelet and a container runtime: make test-node")
	}
	began := time.Now()
	b := newBench(t)
	t.Logf("ready after %s", time.Since(began).Round(100*time.Millisecond))
	run, err := b.Deploy(world.Deploy("v2.0.0", "bob", "bob", time.Second), "carol")
	if err != nil {
		t.Fatal(err)
	}
	r, err := b.Sealed(t.Context(), run.JobID, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v after %s", r, time.Since(began))
}
