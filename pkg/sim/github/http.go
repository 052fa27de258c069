package simgithub

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"time"
)

// answer is what a handler says; it is written after the lock is released.
type answer struct {
	status int
	body   any // nil: no body
	header map[string]string
}

const jsonType = "application/json; charset=utf-8"

func (a answer) write(w http.ResponseWriter) {
	for k, v := range a.header {
		w.Header().Set(k, v)
	}
	if a.body == nil {
		w.WriteHeader(a.status)
		return
	}
	b, err := json.Marshal(a.body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", jsonType)
	w.WriteHeader(a.status)
	_, _ = w.Write(b) // a client that is gone is no event here
}

func ok(body any) answer { return answer{status: http.StatusOK, body: body} }

func noContent() answer { return answer{status: http.StatusNoContent} }

// ServeHTTP serves every path space.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r = s.canonical(r)
	kind, cred := s.identify(r)
	r = r.WithContext(withCaller(r.Context(), caller{kind, cred}))
	seq := s.begin(r, kind)
	rec := &statusWriter{ResponseWriter: w}
	status := -1
	defer func() { s.end(seq, status) }()
	w.Header().Set("X-GitHub-Request-Id", fmt.Sprintf("%04X:%06X", seq, seq))
	s.serve(rec, r)
	if r.Context().Err() == nil || rec.status != 0 {
		status = max(rec.status, http.StatusOK)
	}
}

// canonical gives REST requests to api.github.com the path prefix that they
// have everywhere else.
func (s *Server) canonical(r *http.Request) *http.Request {
	host, _, _ := strings.Cut(r.Host, ":")
	if host != "api.github.com" || strings.HasPrefix(r.URL.Path, "/api/v3/") {
		return r
	}
	r = r.Clone(r.Context())
	r.URL.Path = "/api/v3" + r.URL.Path
	if r.URL.RawPath != "" {
		r.URL.RawPath = "/api/v3" + r.URL.RawPath
	}
	return r
}

func (s *Server) begin(r *http.Request, kind string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, Request{
		Seq: len(s.log) + 1, Time: time.Now(), Method: r.Method, Path: r.URL.Path,
		Query: r.URL.RawQuery, Caller: kind,
	})
	return len(s.log)
}

func (s *Server) end(seq, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log[seq-1].Status = status
}

// Requests returns the log of requests in the order of their arrival.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.log...)
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(code int) {
	w.status = code
	w.ResponseWriter.WriteHeader(code)
}

// recorder keeps a whole answer, for faults that change or drop it.
type recorder struct {
	head   http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.head }
func (r *recorder) WriteHeader(code int)        { r.status = code }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }

func (r *recorder) replay(w http.ResponseWriter, body []byte) {
	maps.Copy(w.Header(), r.head)
	w.WriteHeader(max(r.status, http.StatusOK))
	_, _ = w.Write(body)
}

// UnknownRequests are the requests so far that no route of the simulator answers,
// as method and path: what a client of ours asks for and GitHub would know.
func (s *Server) UnknownRequests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.unknown...)
}

func (s *Server) handleUnknown(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.unknown = append(s.unknown, r.Method+" "+r.URL.Path)
	s.mu.Unlock()
	if strings.HasPrefix(r.URL.Path, "/api/v3/") {
		restError(http.StatusNotFound, "Not Found").write(w)
		return
	}
	vssError(http.StatusNotFound, "VssResourceNotFoundException", "no such resource: "+r.Method+" "+r.URL.Path).write(w)
}

// restError is an error as the REST API gives it.
// https://docs.github.com/en/rest/using-the-rest-api/troubleshooting-the-rest-api
func restError(status int, msg string) answer {
	return answer{status: status, body: map[string]any{
		"message": msg, "documentation_url": "https://docs.github.com/rest", "status": fmt.Sprint(status),
	}}
}

// vssError is an error as the Actions service gives it: a wrapped exception of
// which clients read typeName and message (actions/scaleset errors.go).
// The namespace goes with the name: GitHub.Actions.Runtime.WebApi for what is about
// scale sets (seen in actions-runner-controller#3935 and actions/scaleset),
// GitHub.Services.Common and GitHub.DistributedTask.WebApi as in the runner's SDK.
func vssError(status int, typeName, msg string) answer {
	space := "GitHub.DistributedTask.WebApi"
	switch {
	case strings.HasPrefix(typeName, "RunnerScaleSet"), strings.HasPrefix(typeName, "RunnerAdmin"):
		space = "GitHub.Actions.Runtime.WebApi"
	case strings.HasPrefix(typeName, "Vss"):
		space = "GitHub.Services.Common"
	}
	return answer{
		status: status,
		header: map[string]string{"ActivityId": newGUID()},
		body: map[string]any{
			"$id": "1", "innerException": nil, "message": msg,
			"typeName": space + "." + typeName + ", " + space,
			"typeKey":  typeName, "errorCode": 0, "eventId": 3000,
		},
	}
}

// decode reads a JSON body of at most 1 MB.
func decode(r *http.Request, v any) error {
	b, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: crypto/rand documents it
	return b
}

func newGUID() string {
	b := randomBytes(16)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// stamp is a time as GitHub's REST API shows it, nil for none.
func stamp(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format(time.RFC3339)
}
