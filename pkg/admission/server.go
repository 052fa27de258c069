package admission

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/certs"
)

// Server serves the admission API over TLS.
type Server struct {
	// Handler is that of [NewHandler].
	Handler http.Handler
	// TLS is that of [TLSConfig].
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
	protocols.SetHTTP1(true) // as in TLSConfig
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

// TLSConfig serves the certificate in these files, which may be rotated; see
// [certs.Follow]. TLS 1.3 only, because we own both ends, and HTTP/1.1 only,
// because nothing needs HTTP/2's larger surface.
func TLSConfig(files certs.Files, log *zap.Logger) (*tls.Config, error) {
	return certs.Follow(files, &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"http/1.1"},
	}, log)
}
