package leader

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/runnerward/runnerward/pkg/sim/stage"
)

// TestWhatBefallsTheLeader plays every scenario against a pretend cluster.
func TestWhatBefallsTheLeader(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "runnerward")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "github.com/runnerward/runnerward/cmd/runnerward").CombinedOutput(); err != nil {
		t.Fatalf("build the daemon: %v\n%s", err, out)
	}
	for name, play := range map[string]func(*Pair){
		"it ends": (*Pair).Ended, "it is killed": (*Pair).Killed, "it is stopped and goes on": (*Pair).Stopped,
		"it loses the API server": (*Pair).Partitioned, "it loses the API server for a moment": (*Pair).Flaky,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they wait for most of their time
			s, err := stage.New(t.Context(), stage.Options{Dir: t.TempDir(), Binary: binary})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
			play(NewPair(t, s, strings.TrimPrefix(s.ClusterURL, "https://"), func(url string) []byte {
				kubeconfig, err := s.World.Cluster.Kubeconfig(url, s.CA.PEM)
				if err != nil {
					t.Fatal(err)
				}
				return kubeconfig
			}))
		})
	}
}
