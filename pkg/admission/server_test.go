package admission_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/runnerward/runnerward/pkg/admission"
	"github.com/runnerward/runnerward/pkg/certs"
)

// issue makes a self-signed certificate with this serial number.
func issue(t *testing.T, serial int64) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

// write replaces the file, as a rotation does.
func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func TestServe(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	cert, key := issue(t, 1)
	write(t, certFile, cert)
	write(t, keyFile, key)
	core, logs := observer.New(zapcore.DebugLevel)
	log := zap.New(core)
	config, err := admission.TLSConfig(certs.Files{Cert: certFile, Key: keyFile}, log)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	server := admission.Server{Handler: http.NotFoundHandler(), TLS: config, Log: log, Grace: time.Second}
	go func() { ended <- server.Serve(ctx, ln) }()

	serial := func() int64 {
		t.Helper()
		conn, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if got := conn.ConnectionState().NegotiatedProtocol; got != "http/1.1" {
			t.Errorf("protocol = %q, want http/1.1", got)
		}
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	if got := serial(); got != 1 {
		t.Errorf("serial = %d, want 1", got)
	}
	if _, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}); err == nil {
		t.Error("TLS 1.2 was accepted")
	}
	cert, key = issue(t, 2)
	write(t, certFile, cert)
	if got := serial(); got != 1 {
		t.Errorf("serial in the middle of a rotation = %d, want the old 1", got)
	}
	if logs.FilterLevelExact(zapcore.ErrorLevel).Len() != 1 {
		t.Error("half a rotation was not logged")
	}
	write(t, keyFile, key)
	if got := serial(); got != 2 {
		t.Errorf("serial after a rotation = %d, want 2", got)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("Serve = %v, want nil after its context ended", err)
	}
}

func TestServeFailsWhenItsListenerDies(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	server := admission.Server{Handler: http.NotFoundHandler(), TLS: &tls.Config{}, Log: zap.NewNop(), Grace: time.Second}
	if err := server.Serve(t.Context(), ln); err == nil {
		t.Error("Serve = nil on a dead listener")
	}
}
