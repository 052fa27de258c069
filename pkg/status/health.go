package status

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/supervisor"
)

// livez says that the process serves. It asks nothing else: what a restart
// does not mend must not cause one.
func (s *Server) livez(w http.ResponseWriter, _ *http.Request) {
	s.text(w, http.StatusOK, "ok\n")
}

// readiness is the JSON form of /readyz.
type readiness struct {
	Ready  bool                     `json:"ready"`
	Checks []supervisor.HealthCheck `json:"checks"`
}

// ready says that there are checks and none fails. A daemon that has not
// checked anything yet is not ready.
func ready(checks []supervisor.HealthCheck) bool {
	return len(checks) > 0 && !slices.ContainsFunc(checks, func(c supervisor.HealthCheck) bool { return !c.OK })
}

// readyz answers in the form of the Kubernetes API server's health endpoints.
// https://kubernetes.io/docs/reference/using-api/health-checks/
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	checks := s.opts.Source.View().Checks
	ok := ready(checks)
	status := http.StatusOK
	if !ok {
		status = http.StatusServiceUnavailable
	}
	switch {
	case wantsJSON(r):
		s.json(w, status, readiness{ok, checks})
	case ok && !r.URL.Query().Has("verbose"):
		s.text(w, status, "ok\n")
	default:
		s.text(w, status, verbose(strings.TrimPrefix(r.URL.Path, "/"), ok, checks))
	}
}

func verbose(endpoint string, ok bool, checks []supervisor.HealthCheck) string {
	var b strings.Builder
	for _, c := range checks {
		mark, word := "-", "failed"
		if c.OK {
			mark, word = "+", "ok"
		}
		fmt.Fprintf(&b, "[%s]%s %s", mark, oneLine(c.Name), word)
		if c.Detail != "" {
			fmt.Fprintf(&b, ": %s", oneLine(c.Detail))
		}
		b.WriteByte('\n')
	}
	if len(checks) == 0 {
		b.WriteString("no check has run yet\n")
	}
	outcome := "failed"
	if ok {
		outcome = "passed"
	}
	fmt.Fprintf(&b, "%s check %s\n", endpoint, outcome)
	return b.String()
}

// oneLine keeps a detail that holds a line break from posing as a check.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// wantsJSON says that JSON was asked for by ?format=json, or by an Accept
// header that names it and does not name HTML, as browsers do.
func wantsJSON(r *http.Request) bool {
	if f := r.URL.Query().Get("format"); f != "" {
		return f == "json"
	}
	json := false
	for part := range strings.SplitSeq(strings.Join(r.Header.Values("Accept"), ","), ",") {
		switch kind, _, _ := mime.ParseMediaType(part); kind {
		case "application/json":
			json = true
		case "text/html":
			return false
		}
	}
	return json
}

func (s *Server) text(w http.ResponseWriter, status int, body string) {
	s.body(w, status, "text/plain; charset=utf-8", []byte(body))
}

func (s *Server) json(w http.ResponseWriter, status int, v any) {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		s.opts.Logger.Error("status answer not encoded", zap.Error(err))
		s.text(w, http.StatusInternalServerError, "the answer could not be encoded\n")
		return
	}
	s.body(w, status, "application/json", append(body, '\n'))
}

// body writes an answer that is complete. That the client has gone away
// meanwhile is nobody's concern.
func (s *Server) body(w http.ResponseWriter, status int, kind string, body []byte) {
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	if _, err := w.Write(body); err != nil {
		s.opts.Logger.Debug("status answer not delivered", zap.Error(err))
	}
}
