package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/runnerward/runnerward/pkg/config"
)

const (
	noCertificates = "    certificatesFile: \"\"\n"
	someFile       = "    certificatesFile: /etc/runnerward/aws.pem\n"
)

func TestHostIdentity(t *testing.T) {
	for what, tc := range map[string]struct {
		edits [][2]string
		says  string // empty when it is accepted
	}{
		"as in the example":      {nil, ""},
		"documents are taken":    {[][2]string{{noCertificates, someFile}}, ""},
		"documents are required": {[][2]string{{noCertificates, someFile}, {"required: false", "required: true"}}, ""},
		"required and none taken": {[][2]string{{"required: false", "required: true"}},
			"hosts.identity.required: no documents are taken, so no host could serve a job"},
		"in the namespace of runners": {[][2]string{{noCertificates, someFile}, {"namespace: runnerward-witness", "namespace: gha-runners"}},
			"hosts.identity.namespace: the namespace of runner pods"},
		"an account that cannot be": {[][2]string{{"serviceAccount: runnerward-witness", "serviceAccount: Witness"}},
			"hosts.identity.serviceAccount: \"Witness\" does not have the right form"},
		"without instances": {[][2]string{{noCertificates, someFile}, {"driver: autoscaling", "driver: none"}},
			"hosts.identity.certificatesFile: the driver \"none\" knows no instances"},
	} {
		t.Run(what, func(t *testing.T) {
			text := example(t)
			for _, e := range tc.edits {
				if strings.Count(text, e[0]) != 1 {
					t.Fatalf("%q is not once in the example", e[0])
				}
				text = strings.Replace(text, e[0], e[1], 1)
			}
			c, err := parse(t, text)
			switch {
			case tc.says == "" && err != nil:
				t.Errorf("Parse = %v, want nil", err)
			case tc.says == "":
				if got, want := c.VetRules().IdentityRequired, strings.Contains(text, "required: true"); got != want {
					t.Errorf("IdentityRequired = %t, want %t", got, want)
				}
			case err == nil || !strings.Contains(err.Error(), tc.says):
				t.Errorf("Parse = %v, want it to say %s", err, tc.says)
			}
		})
	}
}

func TestTheWitnessHasANameByDefault(t *testing.T) {
	text := example(t)
	at, end := strings.Index(text, "  identity:\n"), strings.Index(text, "# The evidence.")
	c, err := parse(t, text[:at]+text[end:])
	if err != nil {
		t.Fatal(err)
	}
	if id := c.Hosts.Identity; id != (config.HostIdentity{Namespace: "runnerward-witness", ServiceAccount: "runnerward-witness"}) {
		t.Errorf("hosts.identity by default = %+v", id)
	}
}

func TestCertificatesHaveToBeThere(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "aws.pem")
	text := replaced(t, noCertificates, "    certificatesFile: "+missing+"\n")
	_, err := config.Parse("c.yaml", []byte(text), nil)
	if err == nil || !strings.Contains(err.Error(), "hosts.identity.certificatesFile: "+missing+" does not exist") {
		t.Errorf("Parse = %v, want it to miss the certificates", err)
	}
	if err := os.WriteFile(missing, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err = config.Parse("c.yaml", []byte(text), nil); strings.Contains(err.Error(), "hosts.identity") {
		t.Errorf("Parse = %v, want nothing about the certificates", err)
	}
}
