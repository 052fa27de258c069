package certs_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/runnerward/runnerward/pkg/certs"
)

// follow serves TLS 1.2 and later with these files.
func follow(t *testing.T, files certs.Files, logger *zap.Logger) *tls.Config {
	t.Helper()
	config, err := certs.Follow(files, &tls.Config{MinVersion: tls.VersionTLS12}, logger)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// shake connects a client to a server and returns what the server thinks of
// it: under TLS 1.3 a client is done before its certificate is verified.
func shake(t *testing.T, server, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	type outcome struct {
		state tls.ConnectionState
		err   error
	}
	ended := make(chan outcome, 1)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			ended <- outcome{err: err}
			return
		}
		defer conn.Close()
		secure := tls.Server(conn, server)
		err = secure.HandshakeContext(t.Context())
		ended <- outcome{secure.ConnectionState(), err}
		secure.Close()
	}()
	conn, err := tls.Dial("tcp", ln.Addr().String(), client)
	if err == nil {
		// A session ticket comes after the handshake: read until the server closes.
		conn.Read(make([]byte, 1))
		conn.Close()
	}
	got := <-ended
	return got.state, got.err
}

// serial is that of the certificate which the server presents.
func serial(t *testing.T, server *tls.Config) int64 {
	t.Helper()
	var got int64
	_, err := shake(t, server, &tls.Config{InsecureSkipVerify: true, VerifyConnection: func(s tls.ConnectionState) error {
		got = s.PeerCertificates[0].SerialNumber.Int64()
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestARotationIsFollowedAndHalfOfOneIsNot(t *testing.T) {
	a := newAuthority(t)
	one, two, three := a.issue(t, 1), a.issue(t, 2), a.issue(t, 3)
	files := certs.Files{Cert: a.file("tls.crt"), Key: a.file("tls.key"), ClientCA: a.file("ca.crt")}
	write(t, files.Cert, one.cert)
	write(t, files.Key, one.key)
	core, logs := observer.New(zap.InfoLevel)
	config := follow(t, files, zap.New(core))

	for _, step := range []struct {
		name   string
		change func()
		serial int64
		log    string // the one line that all handshakes after the change make
	}{
		{"nothing changed", func() {}, 1, ""},
		{"the same certificate again", func() { write(t, files.Cert, one.cert) }, 1, ""},
		{"a certificate without its key", func() { write(t, files.Cert, two.cert) }, 1, "not reloaded"},
		{"and its key", func() { write(t, files.Key, two.key) }, 2, "certificates reloaded"},
		{"a key without its certificate", func() { write(t, files.Key, three.key) }, 2, "not reloaded"},
		{"back again", func() { write(t, files.Key, two.key) }, 2, ""},
		{"half a file", func() { write(t, files.Cert, two.cert[:40]) }, 2, "not reloaded"},
		{"no file", func() { remove(t, files.Cert) }, 2, "not reloaded"},
		{"a whole rotation", func() { write(t, files.Cert, three.cert); write(t, files.Key, three.key) }, 3, "certificates reloaded"},
		{"a pair with authorities that are none", func() {
			write(t, files.Cert, one.cert)
			write(t, files.Key, one.key)
			write(t, files.ClientCA, []byte("none"))
		}, 3, "not reloaded"},
		{"authorities that are gone", func() { remove(t, files.ClientCA) }, 3, "not reloaded"},
		{"authorities that are back", func() { write(t, files.ClientCA, a.pem) }, 1, "certificates reloaded"},
	} {
		step.change()
		for range 3 {
			if got := serial(t, config); got != step.serial {
				t.Errorf("%s: serial = %d, want %d", step.name, got, step.serial)
			}
		}
		var lines []string
		for _, entry := range logs.TakeAll() {
			lines = append(lines, entry.Message)
			if failed := strings.Contains(entry.Message, "not reloaded"); failed != (entry.Level == zap.ErrorLevel) {
				t.Errorf("%s: %q was logged as %s", step.name, entry.Message, entry.Level)
			}
		}
		if all := strings.Join(lines, "\n"); (step.log == "") != (all == "") || !strings.Contains(all, step.log) || len(lines) > 1 {
			t.Errorf("%s: logged %q, want one line with %q", step.name, lines, step.log)
		}
	}
}

func TestFilesThatCannotBeUsedAreRefusedAtOnce(t *testing.T) {
	a := newAuthority(t)
	for name, made := range map[string]pair{"server": a.issue(t, 1), "other": a.issue(t, 2)} {
		write(t, a.file(name+".crt"), made.cert)
		write(t, a.file(name+".key"), made.key)
	}
	crt, key, ca, none := a.file("server.crt"), a.file("server.key"), a.file("ca.crt"), a.file("none")
	for _, tc := range []struct {
		name  string
		files certs.Files
		want  string
	}{
		{"no certificate", certs.Files{Cert: none, Key: key, ClientCA: ca}, none},
		{"no key", certs.Files{Cert: crt, Key: none, ClientCA: ca}, none},
		{"no name of a key", certs.Files{Cert: crt}, "read certificates"},
		{"another certificate's key", certs.Files{Cert: crt, Key: a.file("other.key"), ClientCA: ca}, "other.key: tls: private key does not match"},
		{"no authority", certs.Files{Cert: crt, Key: key, ClientCA: none}, none},
		{"an authority file without a certificate", certs.Files{Cert: crt, Key: key, ClientCA: key}, "no certificate in " + key},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := certs.Follow(tc.files, &tls.Config{}, zap.NewNop())
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Follow = %v, want an error with %q", err, tc.want)
			}
		})
	}
}

func TestClientCertificatesAreVerifiedWhenGiven(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	files := a.server(t)
	verifying := files
	verifying.ClientCA = a.file("ca.crt")
	config := follow(t, verifying, zap.NewNop())
	with := func(p pair) *tls.Config {
		// GetClientCertificate ignores which authorities the server names, as a
		// client that tries its luck does.
		return &tls.Config{InsecureSkipVerify: true, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			made, err := tls.X509KeyPair(p.cert, p.key)
			return &made, err
		}}
	}
	ours, theirs := with(a.issue(t, 7)), with(stranger.issue(t, 8))

	if got, err := shake(t, config, &tls.Config{InsecureSkipVerify: true}); err != nil || len(got.PeerCertificates) != 0 {
		t.Errorf("a client without a certificate = %d certificates, %v, want none and no error", len(got.PeerCertificates), err)
	}
	if got, err := shake(t, config, ours); err != nil || len(got.VerifiedChains) != 1 {
		t.Errorf("a client of our authority = %d chains, %v, want one", len(got.VerifiedChains), err)
	}
	if _, err := shake(t, config, theirs); !unknownAuthority(err) {
		t.Errorf("a client of another authority = %v, want its authority unknown", err)
	}
	write(t, verifying.ClientCA, stranger.pem)
	if _, err := shake(t, config, ours); !unknownAuthority(err) {
		t.Errorf("a client whose authority was taken out = %v, want its authority unknown", err)
	}
	if got, err := shake(t, config, theirs); err != nil || len(got.VerifiedChains) != 1 {
		t.Errorf("a client of the new authority = %d chains, %v, want one", len(got.VerifiedChains), err)
	}
	if got, err := shake(t, follow(t, files, zap.NewNop()), ours); err != nil || len(got.PeerCertificates) != 0 {
		t.Errorf("without authorities = %d certificates, %v, want none asked for", len(got.PeerCertificates), err)
	}
}

func TestSettingsAreKept(t *testing.T) {
	settings := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}}
	config, err := certs.Follow(newAuthority(t).server(t), settings, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if settings.Certificates != nil || settings.GetConfigForClient != nil || settings.SessionTicketsDisabled {
		t.Error("Follow changed the settings it was given")
	}
	client := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}}
	if got, err := shake(t, config, client); err != nil || got.NegotiatedProtocol != "http/1.1" {
		t.Errorf("protocol = %q, %v, want http/1.1", got.NegotiatedProtocol, err)
	}
	client.MaxVersion = tls.VersionTLS12
	if got, err := shake(t, config, client); err == nil {
		t.Errorf("a client of TLS 1.2 got version %x, want a refusal", got.Version)
	}
}

func TestSessionsAreNotResumed(t *testing.T) {
	config := follow(t, newAuthority(t).server(t), zap.NewNop())
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		client := &tls.Config{
			InsecureSkipVerify: true, ServerName: "localhost", MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(4),
		}
		for range 2 {
			if got, err := shake(t, config, client); err != nil || got.DidResume || got.Version != version {
				t.Errorf("a connection of version %x: resumed %t, version %x, %v, want a new session", version, got.DidResume, got.Version, err)
			}
		}
	}
}

// write replaces the file at once, as a rotation does.
func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func unknownAuthority(err error) bool {
	_, ok := errors.AsType[x509.UnknownAuthorityError](err)
	return ok
}
