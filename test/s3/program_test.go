package s3test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/runner/runnertest"
)

// TestTheProgramReadsABucket runs the binary as an auditor does.
func TestTheProgramReadsABucket(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "runnerward")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./cmd/runnerward")
	build.Dir = gateway.module
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	p, keys := told(t)
	root, err := keys.Root().Encode()
	if err != nil {
		t.Fatal(err)
	}
	rootFile := filepath.Join(t.TempDir(), "root.json")
	if err := os.WriteFile(rootFile, root, 0o600); err != nil {
		t.Fatal(err)
	}
	ask := func(command string, more ...string) (string, int) {
		cmd := exec.CommandContext(t.Context(), binary, append([]string{
			command, "--root", rootFile, "--ledger", "s3://" + p.bucket + "/" + prefix, "--view", "s3://" + p.view,
			"--region", region, "--endpoint", gateway.endpoint, "--ca-file", gateway.caFile, "--bucket-owner", accessKey,
		}, more...)...)
		cmd.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID="+accessKey, "AWS_SECRET_ACCESS_KEY="+secretKey,
			"AWS_CONFIG_FILE="+os.DevNull, "AWS_SHARED_CREDENTIALS_FILE="+os.DevNull)
		out, err := cmd.CombinedOutput()
		if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
			t.Fatal(err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	if out, code := ask("verify"); code != 0 || !strings.Contains(out, "no findings") || strings.Contains(out, "note ") {
		t.Errorf("verify exits %d, want 0 and neither finding nor note:\n%s", code, out)
	}
	if out, code := ask("explain", string(runnertest.NewCast(0).Job)); code != 0 || !strings.Contains(out, "terminated") {
		t.Errorf("explain exits %d, want 0 and the end of the host:\n%s", code, out)
	}
	p.Overwrite(t, evidence.SegmentName(3), []byte("another record"))
	if out, code := ask("verify"); code != 3 || !strings.Contains(out, "(versions)") {
		t.Errorf("verify after a second version exits %d, want 3 and the finding:\n%s", code, out)
	}
}
