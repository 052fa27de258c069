// Package certs serves certificates in files that are rotated under us, such
// as a mounted Kubernetes Secret: a rotation needs no restart, and half a
// rotation does no harm.
package certs

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync"

	"go.uber.org/zap"
)

// Files names the PEM files of one endpoint.
type Files struct {
	// Cert is the certificate with its chain, Key its private key.
	Cert, Key string
	// ClientCA holds the authorities of client certificates. If empty, no
	// client certificate is asked for.
	ClientCA string
}

// Follow makes the configuration of a server from settings, which it copies
// and to which it adds what the files hold. With a ClientCA, client
// certificates that are given are verified; a client without one is still
// served, so what needs one must look for it. Follow fails when the files
// cannot be used as they are.
//
// The files are read on every handshake. What cannot be used, such as a new
// certificate whose key has not come yet, is logged once, and everything loaded
// before it stays in use. Sessions are never resumed: neither a certificate
// nor an authority that was taken out may live on in one.
//
// The configuration is safe for concurrent use by any number of listeners.
func Follow(files Files, settings *tls.Config, logger *zap.Logger) (*tls.Config, error) {
	settings = settings.Clone()
	settings.SessionTicketsDisabled = true
	f := &follower{files: files, settings: settings, logger: logger}
	var err error
	if f.loaded, err = files.read(); err != nil {
		return nil, err
	}
	if f.current, err = f.configure(f.loaded); err != nil {
		return nil, err
	}
	outer := settings.Clone()
	outer.GetConfigForClient = f.config
	return outer, nil
}

// follower holds the configuration made of the newest usable contents.
type follower struct {
	files    Files
	settings *tls.Config
	logger   *zap.Logger

	mu      sync.Mutex
	loaded  contents // what current was made of
	current *tls.Config
	failure string // why the files as last read are not in use, "" if they are
}

// contents of the files. They are compared rather than the files' times: a
// file may be written twice within one tick of the file system's clock.
type contents struct{ cert, key, clientCA string }

func (f Files) read() (contents, error) {
	cert, certErr := os.ReadFile(f.Cert)
	key, keyErr := os.ReadFile(f.Key)
	var clientCA []byte
	var caErr error
	if f.ClientCA != "" {
		clientCA, caErr = os.ReadFile(f.ClientCA)
	}
	if err := cmp.Or(certErr, keyErr, caErr); err != nil {
		return contents{}, fmt.Errorf("read certificates: %w", err)
	}
	return contents{string(cert), string(key), string(clientCA)}, nil
}

func (f *follower) configure(c contents) (*tls.Config, error) {
	pair, err := tls.X509KeyPair([]byte(c.cert), []byte(c.key))
	if err != nil {
		return nil, fmt.Errorf("load certificate %s with key %s: %w", f.files.Cert, f.files.Key, err)
	}
	config := f.settings.Clone()
	config.Certificates = []tls.Certificate{pair}
	if f.files.ClientCA == "" {
		return config, nil
	}
	config.ClientCAs = x509.NewCertPool()
	if !config.ClientCAs.AppendCertsFromPEM([]byte(c.clientCA)) {
		return nil, fmt.Errorf("load client authorities: no certificate in %s", f.files.ClientCA)
	}
	config.ClientAuth = tls.VerifyClientCertIfGiven
	return config, nil
}

// config is the newest configuration that could be made. It never fails: a
// handshake under the certificate before is better than none.
func (f *follower) config(*tls.ClientHelloInfo) (*tls.Config, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	failure := ""
	if err := f.refresh(); err != nil {
		failure = err.Error()
		if failure != f.failure {
			f.logger.Error("certificates not reloaded, those before them stay in use", zap.Error(err))
		}
	}
	f.failure = failure
	return f.current, nil
}

func (f *follower) refresh() error {
	now, err := f.files.read()
	if err != nil || now == f.loaded {
		return err
	}
	next, err := f.configure(now)
	if err != nil {
		return err
	}
	f.loaded, f.current = now, next
	f.logger.Info("certificates reloaded")
	return nil
}
