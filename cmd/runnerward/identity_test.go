package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/runnerward/runnerward/pkg/config"
	"github.com/runnerward/runnerward/pkg/runner/runnertest"
	simimds "github.com/runnerward/runnerward/pkg/sim/imds"
)

func newAWS(t *testing.T, region string) *simimds.Authority {
	t.Helper()
	a, err := simimds.NewAuthority(region, nil)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// file writes a file of certificates for a flag or a configuration.
func file(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "aws.pem")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// witnessed is a ledger of one deploy on a host whose document this authority
// signed.
func witnessed(t *testing.T, a *simimds.Authority, change func(*simimds.Instance)) (books, runnertest.Cast) {
	t.Helper()
	c := runnertest.NewCast(0)
	h := c.Host
	in := simimds.Instance{
		ID: h.InstanceID, AccountID: h.AccountID, Region: h.Region, Zone: h.Zone, ImageID: h.ImageID,
		Type: h.InstanceType, PrivateIP: h.PrivateIP, LaunchedAt: h.LaunchedAt,
	}
	change(&in)
	document := simimds.Document(in)
	signature, err := a.Sign(document)
	if err != nil {
		t.Fatal(err)
	}
	c = c.Identified(document, signature, a.Cert.Raw)
	return keep(t, func(s *runnertest.Script) {
		if err := s.Open(); err != nil {
			t.Fatal(err)
		}
		for _, b := range [][]byte{document, signature} {
			if _, err := s.PutBlob(b); err != nil {
				t.Fatal(err)
			}
		}
		tell(t, s, c, runnertest.CompletedStory())
	}), c
}

func TestVerifyWithTheCertificatesOfAWS(t *testing.T) {
	east, west, other := newAWS(t, "us-east-1"), newAWS(t, "us-west-2"), newAWS(t, "us-east-1")
	b, c := witnessed(t, east, func(*simimds.Instance) {})
	b.verify(t).want(t, exitOK, "1 identity document of hosts not verified again", "result no findings")
	b.verify(t, "--aws-certificates", file(t, append(west.Pinned(), east.Pinned()...))).
		want(t, exitOK, "1 identity document of hosts verified again", "result no findings")
	for what, pinned := range map[string][]byte{"another certificate": other.Pinned(), "another region": west.Pinned()} {
		t.Run(what, func(t *testing.T) {
			b.verify(t, "--aws-certificates", file(t, pinned)).
				want(t, exitUnproven, "FINDING record 4, blobs/sha256/", "invariant 10 (identity-document)", "DOES NOT VERIFY")
		})
	}
	b.explain(t, string(c.Runner), "--aws-certificates", file(t, east.Pinned())).want(t, exitOK, "assurance L2", "AWS signed "+c.Host.InstanceID)
	t.Run("a daemon that recorded something else", func(t *testing.T) {
		b, _ := witnessed(t, east, func(in *simimds.Instance) { in.Type = "t2.nano" })
		b.verify(t).want(t, exitOK)
		b.verify(t, "--aws-certificates", file(t, east.Pinned())).
			want(t, exitUnproven, "invariant 10 (identity-content)", `instanceType is "m7i.large" and signed is "t2.nano"`)
	})
	t.Run("a file that is none", func(t *testing.T) {
		for path, says := range map[string]string{
			filepath.Join(t.TempDir(), "missing"):            "no such file",
			file(t, []byte("# us-east-1\n\nAAAA\n")):         "line 3: ",
			file(t, []byte("-----BEGIN CERTIFICATE-----\n")): "line 1: ",
		} {
			r := b.verify(t, "--aws-certificates", path)
			if r.code != exitUsage || !strings.Contains(r.errors, "--aws-certificates: ") || !strings.Contains(r.errors, says) {
				t.Errorf("exit %d, stderr %q, want %d and %q", r.code, r.errors, exitUsage, says)
			}
		}
	})
}

func TestTheDaemonsCertificatesCoverItsRegions(t *testing.T) {
	east := file(t, newAWS(t, "us-east-1").Pinned())
	for what, tc := range map[string]struct {
		file    string
		regions []string
		says    string
	}{
		"no witness":         {"", []string{"us-east-1"}, ""},
		"covered":            {east, []string{"us-east-1"}, ""},
		"a region more":      {east, []string{"us-east-1", "us-west-2"}, "no certificate for us-west-2 of hosts.regions"},
		"not the right form": {file(t, []byte("x")), []string{"us-east-1"}, "hosts.identity.certificatesFile: "},
	} {
		cfg := &config.Config{Hosts: config.Hosts{Regions: tc.regions, Identity: config.HostIdentity{CertificatesFile: tc.file}}}
		got, err := loadCertificates(cfg)
		switch {
		case tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says)):
			t.Errorf("%s: loadCertificates = %v, want it to say %q", what, err, tc.says)
		case tc.says == "" && (err != nil || (got == nil) != (tc.file == "")):
			t.Errorf("%s: loadCertificates = %v, %v", what, got, err)
		}
	}
}
