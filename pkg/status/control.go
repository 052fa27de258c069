package status

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"

	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/runner"
)

// maxControlBody bounds what a control request may send, in bytes.
const maxControlBody = 4 << 10

// refusal is why a control request was not carried out, for the one who sent it.
type refusal struct {
	status  int
	message string
}

func (r *refusal) Error() string { return r.message }

func refuse(status int, format string, args ...any) error {
	return &refusal{status, fmt.Sprintf(format, args...)}
}

// answer is the body of every control answer.
type answer struct {
	OK    bool   `json:"ok"`
	By    string `json:"by,omitempty"`
	Error string `json:"error,omitempty"`
}

// control wraps an operation with what all of them need: a caller that is no
// web page, a verified administrator, and an end in time. A client that hangs
// up does not take the operation back.
func (s *Server) control(operate func(ctx context.Context, by string, body io.Reader) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		by, err := s.admit(r)
		if err == nil {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), controlTimeout)
			defer cancel()
			err = operate(ctx, by, http.MaxBytesReader(w, r.Body, maxControlBody))
		}
		if err == nil {
			s.opts.Logger.Info("control request carried out", zap.String("path", r.URL.Path), zap.String("by", by))
			s.json(w, http.StatusOK, answer{OK: true, By: by})
			return
		}
		s.opts.Logger.Warn("control request not carried out",
			zap.String("path", r.URL.Path), zap.String("by", by), zap.Error(err))
		status := http.StatusServiceUnavailable
		if refused, ok := errors.AsType[*refusal](err); ok {
			status = refused.status
		} else if !errors.Is(err, ErrUntouched) {
			err = fmt.Errorf("it may or may not be in the ledger, look at /statusz before repeating it: %w", err)
		}
		if status == http.StatusUnauthorized {
			// RFC 9110, section 15.5.2: a 401 names what would be accepted.
			w.Header().Set("WWW-Authenticate", `ClientCertificate realm="runnerward"`)
		}
		s.json(w, status, answer{Error: err.Error()})
	}
}

// admit names the administrator who sent the request. A browser that holds a
// client certificate sends it along with whatever a hostile page asks for:
// such a request is cross-origin, and none can set a JSON content type
// without a preflight that is never answered.
func (s *Server) admit(r *http.Request) (string, error) {
	if err := http.NewCrossOriginProtection().Check(r); err != nil {
		return "", refuse(http.StatusForbidden, "a web page may not send this request: use the command line")
	}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/json" {
		return "", refuse(http.StatusUnsupportedMediaType, "send the header Content-Type: application/json")
	}
	if s.opts.Control == nil || len(s.opts.Admins) == 0 {
		return "", refuse(http.StatusForbidden, "nobody may change anything here: the configuration names no administrator")
	}
	return s.administrator(r.TLS)
}

func (s *Server) administrator(state *tls.ConnectionState) (string, error) {
	if state == nil || len(state.VerifiedChains) == 0 {
		return "", refuse(http.StatusUnauthorized,
			"present a client certificate of the configured client authority (curl: --cert and --key)")
	}
	leaf := state.VerifiedChains[0][0]
	for _, name := range names(leaf) {
		if !slices.Contains(s.opts.Admins, name) {
			continue
		}
		by := "cert:" + name
		if err := runner.Validate(runner.Unfrozen{By: by}); err != nil {
			return "", refuse(http.StatusForbidden,
				"the certificate's name %q cannot be recorded: the ledger takes letters, digits and ._:/- only", name)
		}
		return by, nil
	}
	return "", refuse(http.StatusForbidden,
		"the certificate of %q is genuine but not an administrator's: ask for its name to be listed in the configuration",
		leaf.Subject.CommonName)
}

// names are what a certificate may be listed as, the common name first.
func names(cert *x509.Certificate) []string {
	var all []string
	if cert.Subject.CommonName != "" {
		all = append(all, cert.Subject.CommonName)
	}
	all = append(all, cert.DNSNames...)
	for _, u := range cert.URIs {
		all = append(all, u.String())
	}
	return all
}

func (s *Server) freeze(ctx context.Context, by string, body io.Reader) error {
	var request struct {
		Reason string `json:"reason"`
	}
	if err := decode(body, &request); err != nil {
		return err
	}
	if err := runner.Validate(runner.Frozen{By: by, Reason: request.Reason}); err != nil {
		return refuse(http.StatusBadRequest,
			"the reason must be one word such as incident-4711: it must match ^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$ "+
				"and not look like a credential, because the ledger takes no free text: nobody can delete from it")
	}
	return s.opts.Control.Freeze(ctx, by, request.Reason)
}

func (s *Server) unfreeze(ctx context.Context, by string, body io.Reader) error {
	var request struct{}
	if err := decode(body, &request); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return s.opts.Control.Unfreeze(ctx, by)
}

// decode reads exactly one JSON object with no member that v does not know.
// An empty body is io.EOF and a refusal at once.
func decode(body io.Reader, v any) error {
	dec := json.NewDecoder(body)
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if tooLong, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return refuse(http.StatusRequestEntityTooLarge, "the body is longer than %d bytes", tooLong.Limit)
	}
	if errors.Is(err, io.EOF) {
		return errors.Join(refuse(http.StatusBadRequest, `the body is empty: send a JSON object such as {"reason":"incident-4711"}`), io.EOF)
	}
	if err != nil {
		return refuse(http.StatusBadRequest, `the body is not the JSON object that is expected, such as {"reason":"incident-4711"}`)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return refuse(http.StatusBadRequest, "the body goes on after its JSON object")
	}
	return nil
}
