package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/runnerward/runnerward/pkg/config"
)

// TestAnElectionOverFoldersIsWarnedOf: daemons on two machines share none, and each
// would begin a log of its own. Nothing but a person can tell where they run.
func TestAnElectionOverFoldersIsWarnedOf(t *testing.T) {
	example, err := os.ReadFile("../../configs/runnerward.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	const off, says = "    enabled: false\n    # Another one", "would begin a log of its own"
	if !bytes.Contains(example, []byte(off)) {
		t.Fatalf("the example has no %q", off)
	}
	for name, c := range map[string]struct {
		text []byte
		want int
	}{
		"no election":  {example, 0},
		"over folders": {bytes.Replace(example, []byte(off), []byte(strings.Replace(off, "false", "true", 1)), 1), 1},
	} {
		path := file(t, c.text)
		var out, errs bytes.Buffer
		if code := run(t.Context(), []string{"check-config", "--offline", "--config", path}, &out, &errs); code != exitOK || strings.Count(errs.String(), says) != c.want {
			t.Errorf("%s: check-config = %d with %q on stderr, want %d warnings", name, code, errs.String(), c.want)
		}
		cfg, err := config.Load(path, nil, config.Offline())
		if err != nil {
			t.Fatal(err)
		}
		core, logs := observer.New(zapcore.WarnLevel)
		// Here is no cluster to elect in; the warning comes before.
		_, _ = newElection(cfg, zap.New(core), nil, nil)
		warned := 0
		for _, entry := range logs.All() {
			if text, ok := entry.ContextMap()["warning"].(string); ok && strings.Contains(text, says) {
				warned++
			}
		}
		if warned != c.want {
			t.Errorf("%s: the start log has %d warnings, want %d", name, warned, c.want)
		}
	}
}
