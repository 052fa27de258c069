package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/runnerward/runnerward/pkg/config"
)

// onDisk is the example with every file that it names made under a temporary folder.
func onDisk(t *testing.T) (text, dir string) {
	t.Helper()
	dir = t.TempDir()
	text = strings.NewReplacer("/etc/runnerward", dir, "/var/lib/runnerward", dir, `spoolDir: ""`, "spoolDir: "+dir+"/spool").Replace(example(t))
	for _, name := range []string{"github-app.pem", "admission/tls.crt", "admission/tls.key", "status/tls.crt", "status/tls.key", "status/clients.crt"} {
		write(t, filepath.Join(dir, name), "x", 0o400)
	}
	return text, dir
}

func write(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func TestTheFilesThatAreNamedAreLookedAt(t *testing.T) {
	for name, c := range map[string]struct {
		change func(dir string) error
		want   []string
	}{
		"all are there": {func(string) error { return nil }, nil},
		"a key is missing": {func(dir string) error { return os.Remove(filepath.Join(dir, "github-app.pem")) },
			[]string{"github.app.privateKeyFile: ", "does not exist (create it"}},
		"a key is open to its group, as a mounted Secret is": {func(dir string) error { return os.Chmod(filepath.Join(dir, "status/tls.key"), 0o440) }, nil},
		"a key is open to the world": {func(dir string) error { return os.Chmod(filepath.Join(dir, "status/tls.key"), 0o644) },
			[]string{"status.keyFile: ", "has mode 0644: others may read the secret (chmod 0400 "}},
		"a certificate is empty": {func(dir string) error {
			return errors.Join(os.Chmod(filepath.Join(dir, "status/tls.crt"), 0o600), os.Truncate(filepath.Join(dir, "status/tls.crt"), 0))
		}, []string{"status.certFile: ", "is empty"}},
		"a file is a folder": {func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "status/clients.crt")), os.Mkdir(filepath.Join(dir, "status/clients.crt"), 0o700))
		}, []string{"status.clientCAFile: ", "not a regular file"}},
		"the keys are open": {func(dir string) error { return os.Mkdir(filepath.Join(dir, "keys"), 0o755) },
			[]string{"ledger.keysDir: ", "has mode 0755"}},
		"the spool is a file": {func(dir string) error { return os.WriteFile(filepath.Join(dir, "spool"), nil, 0o600) },
			[]string{"ledger.spoolDir: ", "is not a folder"}},
		"two at once": {func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "admission/tls.key")), os.Remove(filepath.Join(dir, "admission/tls.crt")))
		}, []string{"admission.certFile: ", "admission.keyFile: "}},
	} {
		text, dir := onDisk(t)
		if err := c.change(dir); err != nil {
			t.Fatal(err)
		}
		_, err := config.Parse("c.yaml", []byte(text), nil)
		if c.want == nil && err != nil {
			t.Errorf("%s: Parse = %v, want nil", name, err)
		}
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: Parse = %v, want it to say %q", name, err, want)
			}
		}
	}
	text, _ := onDisk(t)
	text = strings.Replace(text, `dir: ""`, "dir: /no/such/policy", 1)
	if _, err := config.Parse("c.yaml", []byte(text), nil); err == nil || !strings.Contains(err.Error(), "policy.dir: /no/such/policy does not exist") {
		t.Errorf("Parse(policy.dir missing) = %v, want it to say so", err)
	}
}
