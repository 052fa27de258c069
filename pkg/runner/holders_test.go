package runner_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/runnerward/runnerward/pkg/runner"
)

// TestMayHold: before the run of a job is cancelled, the pods that may hold the
// job have to be over, and no others.
func TestMayHold(t *testing.T) {
	begun := []string{"offer a", "authorize a", "offer b", "authorize b", "claim r1 a h1", "bind r1", "claim r2 b h2", "bind r2", "release r2", "offer c"}
	for name, tc := range map[string]struct {
		more []string
		job  runner.JobID
		want []runner.Name
	}{
		"nobody knows where it is":       {nil, "c", []runner.Name{"r1", "r2"}},
		"another job started on one":     {[]string{"start r2 b"}, "c", []runner.Name{"r1"}},
		"GitHub says which it is":        {[]string{"report c r2"}, "c", []runner.Name{"r2"}},
		"GitHub says that it is foreign": {[]string{"report c elsewhere"}, "c", nil},
		"our name with another number":   {[]string{"report c r2 renumbered"}, "c", []runner.Name{"r2"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			for _, line := range append(slices.Clone(begun), tc.more...) {
				if answer, err := w.command(strings.Fields(line)); err != nil || !strings.HasPrefix(answer, "#") {
					t.Fatalf("%s: %s %v", line, answer, err)
				}
			}
			if got := w.MayHold(tc.job); !slices.Equal(got, tc.want) {
				t.Errorf("MayHold(%s) = %v, want %v", tc.job, got, tc.want)
			}
		})
	}
}
