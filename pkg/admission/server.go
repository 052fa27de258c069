package admission

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Server serves the admission API over TLS.
type Server struct {
	// Handler is that of [NewHandler].
	Handler http.Handler
	// TLS is that of [Keypair.TLS].
	TLS *tls.Config
	Log *zap.Logger
	// Grace is how long open questions may take once serving is to end.
	Grace time.Duration
}

// Serve accepts connections until the context ends or serving dies. It owns
// ln. It returns nil when the context ended and every open question was
// answered within Grace, else an error; a daemon whose Serve failed must end,
// because runner pods can no longer ask.
func (s Server) Serve(ctx context.Context, ln net.Listener) error {
	errorLog, err := zap.NewStdLogAt(s.Log, zap.WarnLevel)
	if err != nil {
		return errors.Join(fmt.Errorf("make the server's logger: %w", err), ln.Close())
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true) // both ends are ours: nothing needs HTTP/2's larger surface
	server := &http.Server{
		Handler:           s.Handler,
		Protocols:         &protocols,
		ErrorLog:          errorLog,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       20 * time.Second,
		WriteTimeout:      90 * time.Second, // above Limits.Call
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    32 << 10,
	}
	died := make(chan error, 1)
	go func() { died <- server.Serve(tls.NewListener(ln, s.TLS)) }()
	select {
	case err := <-died:
		return fmt.Errorf("serve the admission API: %w", errors.Join(err, server.Close()))
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.Grace)
	defer cancel()
	err = server.Shutdown(stop)
	if err != nil {
		err = fmt.Errorf("end the admission API: %w", errors.Join(err, server.Close()))
	}
	<-died
	return err
}

// Keypair is a certificate and its key in two files. It follows changes of the
// files, such as a rotated Kubernetes secret. It is safe for concurrent use.
type Keypair struct {
	certFile, keyFile string
	log               *zap.Logger

	mu      sync.Mutex
	current *tls.Certificate
	seen    [2]os.FileInfo
}

// LoadKeypair reads the PEM files. It fails when they are not a pair.
func LoadKeypair(certFile, keyFile string, log *zap.Logger) (*Keypair, error) {
	k := &Keypair{certFile: certFile, keyFile: keyFile, log: log}
	if err := k.refresh(); err != nil {
		return nil, err
	}
	return k, nil
}

// TLS is the configuration of a server: TLS 1.3 only, because we own both ends.
func (k *Keypair) TLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return k.certificate(), nil
		},
	}
}

// certificate is the newest pair that could be read: half a rotation, or a
// broken file, leaves the old one in force.
func (k *Keypair) certificate() *tls.Certificate {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.refresh(); err != nil {
		k.log.Error("admission certificate not reloaded", zap.Error(err))
	}
	return k.current
}

func (k *Keypair) refresh() error {
	var now [2]os.FileInfo
	changed := false
	for i, path := range []string{k.certFile, k.keyFile} {
		info, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("look at the certificate: %w", err)
		}
		now[i] = info
		changed = changed || k.seen[i] == nil || !os.SameFile(info, k.seen[i]) ||
			!info.ModTime().Equal(k.seen[i].ModTime()) || info.Size() != k.seen[i].Size()
	}
	if !changed {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(k.certFile, k.keyFile)
	if err != nil {
		return fmt.Errorf("load the certificate: %w", err)
	}
	k.current, k.seen = &pair, now
	return nil
}
