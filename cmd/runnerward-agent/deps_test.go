package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// What runs beside a job with production credentials is small enough to read.
func TestTheAgentLinksNothingButTheStandardLibraryAndItself(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v: %s", err, out)
	}
	const module = "github.com/runnerward/runnerward/"
	want := []string{module + "cmd/runnerward-agent", module + "pkg/admission/wire", module + "pkg/agent", module + "pkg/runner"}
	got := strings.Fields(string(out))
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("packages = %q, want %q", got, want)
	}
}
