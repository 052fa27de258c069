// Package api holds the tests against a real API server: "make test-api".
package api

import (
	"os"
	"testing"

	"github.com/runnerward/runnerward/test/kube/plane"
)

// binaries names the folder that test/kube/build.sh filled.
const binaries = "RUNNERWARD_KUBE"

// start is a control plane that ends with the test.
func start(t *testing.T) *plane.Plane {
	t.Helper()
	bin := os.Getenv(binaries)
	if bin == "" {
		t.Skip("needs a real API server: make test-api")
	}
	p, err := plane.Start(t.Context(), plane.Options{Bin: bin, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	return p
}
