package status

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/certs"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

// Source is what is shown. View returns a copy, does not block on the network
// and is safe for concurrent use.
type Source interface {
	View() supervisor.View
}

// ErrUntouched is in an error of a [Control] that recorded nothing.
var ErrUntouched = errors.New("nothing was recorded")

// Control is what an operator may change. Both calls return nil only when the
// change is durable in the ledger; on an error other than [ErrUntouched] it may
// or may not be. They are safe for concurrent use and may be repeated.
type Control interface {
	Freeze(ctx context.Context, by, reason string) error
	Unfreeze(ctx context.Context, by string) error
}

// Labels tell this scale set from others on every gha_* gauge. Organization
// and Enterprise are as in githubConfigUrl; Repository is empty unless the
// scale set belongs to one repository.
type Labels struct {
	Enterprise, Organization, Repository string
	Name, Namespace                      string
}

// Options configure a [Server]. Source and Logger are required.
type Options struct {
	Source Source
	// Control is nil when nothing may be changed over this endpoint.
	Control Control
	// Admins are the certificate names (common name, DNS or URI SAN) that may
	// use Control. Empty means nobody.
	Admins []string
	Logger *zap.Logger
	Labels Labels
	// Version and FIPS go into runnerward_build_info and the page's footer.
	Version string
	FIPS    supervisor.FIPS
	// Registry receives the metrics and is what /metrics shows. Nil makes one
	// that also holds the Go runtime's and the process's metrics.
	Registry *prometheus.Registry
	// Explain says a reason code in plain words, or "" if it knows none.
	Explain func(code string) string
	// TLS is what Serve serves with; [TLSConfig] makes it.
	TLS *tls.Config
}

// Server is the status endpoint. Its methods are safe for concurrent use.
type Server struct {
	opts     Options
	registry *prometheus.Registry
	metrics  *metrics
	pages    *template.Template
}

// New makes the endpoint and registers its metrics. It panics if the registry
// already holds metrics of the same names, which only wiring it twice can do.
func New(opts Options) *Server {
	s := &Server{opts: opts, registry: opts.Registry, pages: newPage(opts.Explain)}
	if s.registry == nil {
		s.registry = prometheus.NewRegistry()
		s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	}
	s.metrics = newMetrics(opts)
	s.metrics.register(s.registry)
	return s
}

// Limits of one connection. A scrape or page takes milliseconds; a freeze
// waits for the ledger.
const (
	readTimeout     = 15 * time.Second
	controlTimeout  = 30 * time.Second
	writeTimeout    = controlTimeout + readTimeout
	idleTimeout     = 2 * time.Minute
	shutdownTimeout = 5 * time.Second
	maxHeaderBytes  = 16 << 10
	maxScrapes      = 4
)

// Handler is the endpoint without its listener.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", s.livez)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /healthz", s.readyz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{
		ErrorLog:            zap.NewStdLog(s.opts.Logger.Named("metrics")),
		ErrorHandling:       promhttp.HTTPErrorOnError,
		MaxRequestsInFlight: maxScrapes,
	}))
	mux.HandleFunc("GET /statusz", s.statusz)
	mux.Handle("GET /{$}", http.RedirectHandler("/statusz", http.StatusFound))
	mux.HandleFunc("POST /v1/freeze", s.control(s.freeze))
	mux.HandleFunc("POST /v1/unfreeze", s.control(s.unfreeze))
	return guarded(mux)
}

// guarded sets what every answer carries. There is no
// Strict-Transport-Security: people reach this endpoint through a port-forward
// on localhost, where the header would outlive it for every other program.
func guarded(next http.Handler) http.Handler {
	policy := contentSecurityPolicy()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if r.TLS == nil {
			http.Error(w, "this endpoint speaks HTTPS only", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Serve answers on ln, under TLS, until ctx ends; then it lets requests in
// flight finish for a few seconds and returns nil. Any other end of serving is
// an error: the caller must not go on without its status endpoint. It closes ln.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	if s.opts.TLS == nil {
		return errors.Join(errors.New("serve status: no TLS configuration"), ln.Close())
	}
	srv := &http.Server{
		Handler:           s.Handler(),
		TLSConfig:         s.opts.TLS,
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          zap.NewStdLog(s.opts.Logger.Named("http")),
	}
	died := make(chan error, 1)
	go func() { died <- srv.ServeTLS(ln, "", "") }()
	select {
	case err := <-died:
		return fmt.Errorf("serve status: %w", errors.Join(err, srv.Close()))
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := srv.Shutdown(last); err != nil {
		s.opts.Logger.Warn("status requests cut off at shutdown", zap.Error(errors.Join(err, srv.Close())))
	}
	<-died
	return nil
}

// TLSConfig serves the certificate in these files, which may be rotated; see
// [certs.Follow]. TLS 1.3 is preferred, 1.2 the least, because browsers and
// scrapers are not ours.
func TLSConfig(files certs.Files, logger *zap.Logger) (*tls.Config, error) {
	return certs.Follow(files, &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
	}, logger)
}
