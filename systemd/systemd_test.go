// Package systemd holds the tests of the unit and of what its README says.
package systemd

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/runnerward/runnerward/pkg/config"
)

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// overlay puts every leaf of over onto base.
func overlay(base, over map[string]any) {
	for key, value := range over {
		section, isSection := value.(map[string]any)
		if inner, ok := base[key].(map[string]any); ok && isSection {
			overlay(inner, section)
			continue
		}
		base[key] = value
	}
}

var block = regexp.MustCompile("(?s)```yaml\n(.*?)```")

// hinted is the example configuration with the README's changes.
func hinted(t *testing.T) []byte {
	t.Helper()
	blocks := block.FindAllStringSubmatch(read(t, "README.md"), -1)
	if len(blocks) != 1 {
		t.Fatalf("README.md has %d YAML blocks, want 1", len(blocks))
	}
	var base, over map[string]any
	if err := yaml.Unmarshal([]byte(read(t, "../configs/runnerward.example.yaml")), &base); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte(blocks[0][1]), &over); err != nil {
		t.Fatalf("README.md: %v", err)
	}
	overlay(base, over)
	b, err := yaml.Marshal(base)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestConfigurationOfTheReadmeIsAccepted(t *testing.T) {
	if _, err := config.Parse("README.md", hinted(t), nil, config.Offline()); err != nil {
		t.Errorf("the README's configuration is refused: %v", err)
	}
}

func TestEveryCredentialIsLoadedAndNamed(t *testing.T) {
	unit, doc := read(t, "runnerward.service"), string(hinted(t))
	loaded, named := map[string]bool{}, map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^LoadCredential=([a-z.-]+):/etc/runnerward/secrets/([a-z.-]+)$`).FindAllStringSubmatch(unit, -1) {
		loaded[m[1]] = true
		if m[1] != m[2] {
			t.Errorf("credential %s comes from a file called %s", m[1], m[2])
		}
	}
	for _, m := range regexp.MustCompile(`/run/credentials/runnerward\.service/([a-z.-]+)`).FindAllStringSubmatch(doc, -1) {
		named[m[1]] = true
	}
	if len(loaded) == 0 || !maps.Equal(loaded, named) {
		t.Errorf("the unit loads %q, the configuration names %q", slices.Sorted(maps.Keys(loaded)), slices.Sorted(maps.Keys(named)))
	}
	if strings.Contains(doc, "/etc/runnerward/") {
		t.Error("the configuration names a file that root alone may read")
	}
}

func TestTheLedgerIsInTheStateDirectory(t *testing.T) {
	c, err := config.Parse("README.md", hinted(t), nil, config.Offline())
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{c.Ledger.Dir, c.Ledger.KeysDir, c.Ledger.RootFile} {
		if !strings.HasPrefix(path, "/var/lib/runnerward/") {
			t.Errorf("%s is outside of StateDirectory=runnerward, the only folder that may be written", path)
		}
	}
	if !strings.Contains(read(t, "runnerward.service"), "\nStateDirectory=runnerward\n") {
		t.Error("the unit has no StateDirectory=runnerward")
	}
}
