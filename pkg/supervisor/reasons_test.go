package supervisor_test

import (
	"os"
	"regexp"
	"testing"

	"github.com/runnerward/runnerward/pkg/policy"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// TestEveryReasonIsExplained reads the reasons from the sources: those that
// the supervisor names, and the rules of a start, which it gives as reasons
// when a start would break one.
func TestEveryReasonIsExplained(t *testing.T) {
	checked := 0
	for file, shape := range map[string]string{
		"reasons.go":         `reason\w+\s+= "([a-z-]+)"`,
		"../runner/check.go": `breaks\(3, "([a-z-]+)", "(?:job %s was started|started under|job %s already|the job's token|the token is of|job %s on a runner)`,
	} {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(shape).FindAllStringSubmatch(string(src), -1) {
			checked++
			if code := m[1]; policy.Explain(code) == "" && supervisor.Explain(code) == "" {
				t.Errorf("the reason %s is explained nowhere", code)
			}
		}
	}
	if checked < 10 {
		t.Errorf("only %d reasons found: the test does not look", checked)
	}
}
