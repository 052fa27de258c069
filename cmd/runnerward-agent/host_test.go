package main

import (
	"bytes"
	"net/http/httptest"
	"syscall"
	"testing"

	simimds "github.com/runnerward/runnerward/pkg/sim/imds"
)

func TestHostPresentsUntilASignalEndsIt(t *testing.T) {
	p := newPod(t, nil)
	document, signature := []byte("{\n}"), []byte("MIAG\nAA==")
	imds := httptest.NewServer(simimds.NewServer(document, signature))
	t.Cleanup(imds.Close)
	p.write(t, "boot_id", []byte("0f5f2a5c-7c7d-4d5e-9f57-7d1f6f6f0001\n"))
	cmd, lines := p.start(t, "host", "--imds", imds.URL, "--boot-id", p.path("boot_id"))
	got := <-p.gate.hosts
	if !bytes.Equal(got.Document, document) || !bytes.Equal(got.Signature, signature) || got.BootID != "0f5f2a5c-7c7d-4d5e-9f57-7d1f6f6f0001" {
		t.Errorf("presented %+v, want the bytes of the instance", got)
	}
	until(t, lines, "host presented")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	until(t, lines, "ended by a signal: terminated")
	until(t, lines, "")
	if code := exitCode(cmd.Wait()); code != 0 {
		t.Errorf("exit code = %d, want 0", code)
	}
}

func TestHostUsage(t *testing.T) {
	p := newPod(t, nil)
	for what, args := range map[string][]string{
		"an argument":                 {"host", "now"},
		"an unknown flag":             {"host", "--region", "us-east-1"},
		"a service that cannot be it": {"host", "--imds", "https://169.254.169.254"},
		"a number without a unit":     {"host", "--every", "5"},
	} {
		if out, code := p.runAgent(t, args...); code != exitUsage {
			t.Errorf("%s: exit code = %d, want %d: %s", what, code, exitUsage, out)
		}
	}
	p.env = append(p.env, "RUNNERWARD_CA_FILE=")
	if out, code := p.runAgent(t, "host"); code != exitUsage || !bytes.Contains([]byte(out), []byte("RUNNERWARD_CA_FILE is not set")) {
		t.Errorf("without a CA: exit code = %d, want %d: %s", code, exitUsage, out)
	}
}
