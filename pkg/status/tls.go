package status

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"
)

// TLSConfig serves the certificate in these PEM files and, when clientCAFile
// is not empty, verifies the client certificates that are given against it; a
// client without one may still read. TLS 1.3 is preferred, 1.2 the least.
//
// The files are looked at on every handshake and read again when one changed,
// so a rotated Secret needs no restart. A change that cannot be loaded is
// logged once and the certificate before it stays in use.
func TLSConfig(certFile, keyFile, clientCAFile string, logger *zap.Logger) (*tls.Config, error) {
	r := &reloader{cert: certFile, key: keyFile, ca: clientCAFile, logger: logger}
	seen, err := r.stamp()
	if err != nil {
		return nil, err
	}
	if r.current, err = r.load(); err != nil {
		return nil, err
	}
	r.seen = seen
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: r.config,
	}, nil
}

// reloader holds the configuration made of three files.
type reloader struct {
	cert, key, ca string
	logger        *zap.Logger

	mu      sync.Mutex
	seen    stamp // of the files as last tried, loaded or not
	current *tls.Config
}

// stamp tells one state of the files from another.
type stamp [3]struct {
	modified time.Time
	size     int64
}

func (r *reloader) files() []string {
	if r.ca == "" {
		return []string{r.cert, r.key}
	}
	return []string{r.cert, r.key, r.ca}
}

func (r *reloader) stamp() (stamp, error) {
	var s stamp
	for i, name := range r.files() {
		info, err := os.Stat(name)
		if err != nil {
			return stamp{}, fmt.Errorf("look at status certificate: %w", err)
		}
		s[i].modified, s[i].size = info.ModTime(), info.Size()
	}
	return s, nil
}

func (r *reloader) load() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(r.cert, r.key)
	if err != nil {
		return nil, fmt.Errorf("load status certificate: %w", err)
	}
	// No session tickets: a client certificate whose authority was taken out
	// must not live on in a resumed session.
	config := &tls.Config{
		MinVersion:             tls.VersionTLS12,
		Certificates:           []tls.Certificate{pair},
		NextProtos:             []string{"h2", "http/1.1"},
		SessionTicketsDisabled: true,
	}
	if r.ca == "" {
		return config, nil
	}
	pem, err := os.ReadFile(r.ca)
	if err != nil {
		return nil, fmt.Errorf("load client authorities: %w", err)
	}
	config.ClientCAs = x509.NewCertPool()
	if !config.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("load client authorities: no certificate in %s", r.ca)
	}
	config.ClientAuth = tls.VerifyClientCertIfGiven
	return config, nil
}

// config is the configuration of the files as they are now. The files are
// looked at before they are read: one that changes in between is read again at
// the next handshake.
func (r *reloader) config(*tls.ClientHelloInfo) (*tls.Config, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, err := r.stamp()
	if err != nil {
		now = stamp{}
	}
	if now == r.seen {
		return r.current, nil
	}
	r.seen = now
	if err == nil {
		var next *tls.Config
		if next, err = r.load(); err == nil {
			r.current = next
			r.logger.Info("status certificate reloaded")
			return next, nil
		}
	}
	r.logger.Error("status certificate not reloaded, the one before it stays in use", zap.Error(err))
	return r.current, nil
}
