package leader

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/runnerward/runnerward/pkg/sim/stage"
)

// TestMain lets all scenarios play at once, whatever the number of processors:
// they wait for most of their time.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err) // the flag is gone
	}
	os.Exit(m.Run())
}

// TestWhatBefallsTheLeader plays every scenario against a pretend cluster.
func TestWhatBefallsTheLeader(t *testing.T) {
	binary := Build(t)
	for name, play := range Scenarios() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := stage.New(t.Context(), stage.Options{Dir: t.TempDir(), Binary: binary})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
			play(NewPair(t, s, Options{API: strings.TrimPrefix(s.ClusterURL, "https://"), Kubeconfig: func(_, url string) []byte {
				kubeconfig, err := s.World.Cluster.Kubeconfig(url, s.CA.PEM)
				if err != nil {
					t.Fatal(err)
				}
				return kubeconfig
			}}))
		})
	}
}
