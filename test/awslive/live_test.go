package awslive

import (
	"os"
	"testing"
)

// TestLive is the suite itself: make test-aws-live. See docs/aws-live.md.
func TestLive(t *testing.T) {
	path := os.Getenv(EnvSettings)
	if path == "" {
		t.Skipf("%s names no settings: docs/aws-live.md says how to run this in a sandbox account", EnvSettings)
	}
	s, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), s, os.Getenv(EnvChange), t.Logf); err != nil {
		t.Fatal(err)
	}
}
