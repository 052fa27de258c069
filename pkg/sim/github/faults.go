package simgithub

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// FaultKind is what goes wrong.
type FaultKind string

// The fault menu. Those that rewrite an answer always let the request have
// its effect and leave an answer other than 200 alone. Mind that Go's HTTP
// transport itself repeats a GET that is dropped on a kept connection: it takes
// two drops to be seen.
const (
	FaultStatus           FaultKind = "status"            // Status, with Retry-After if RetryAfter > 0
	FaultUnauthorized     FaultKind = "unauthorized"      // 401 as the service gives it
	FaultDrop             FaultKind = "drop"              // the connection ends without an answer; see above
	FaultHang             FaultKind = "hang"              // for Duration, or until the client gives up
	FaultEmpty            FaultKind = "empty"             // 200 without a body (actions-runner-controller#4285)
	FaultHTML             FaultKind = "html"              // Status (default 503) with an HTML page
	FaultText             FaultKind = "text"              // the service's own error body, but as text/plain
	FaultNullStatistics   FaultKind = "null-statistics"   // rewrite: statistics are null
	FaultNoQueueURL       FaultKind = "no-queue-url"      // rewrite: messageQueueUrl is empty (actions-runner-controller#4370)
	FaultDuplicateMessage FaultKind = "duplicate-message" // the same items come again under a new id
	FaultUnknownMessage   FaultKind = "unknown-message"   // rewrite: unknown outer messageType
	FaultUnknownItem      FaultKind = "unknown-item"      // rewrite: one more item of an unknown type
	FaultByteOrderMark    FaultKind = "byte-order-mark"   // rewrite: a UTF-8 BOM before the body
)

// Fault is one entry of the menu, for requests that match.
type Fault struct {
	Kind FaultKind
	// Method is the HTTP method, empty for any.
	Method string
	// Path is a prefix of whole segments, with /api/v3 for REST; a segment *
	// matches any one segment.
	Path string
	// Skip lets this many matching requests pass first.
	Skip int
	// Count is how many matching requests fail: 0 is 1, negative is all.
	Count int
	// AfterEffect lets the request have its effect first; only the answer is
	// lost or replaced.
	AfterEffect bool
	Status      int           // for FaultStatus (default 500) and FaultHTML
	RetryAfter  time.Duration // whole seconds
	Duration    time.Duration // for FaultHang: then go on; 0 means never
}

// Inject adds a fault; the first one that matches a request is used.
func (s *Server) Inject(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.Count == 0 {
		f.Count = 1
	}
	s.faults = append(s.faults, &f)
}

// ClearFaults takes all faults back.
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

func (f *Fault) matches(r *http.Request) bool {
	if f.Method != "" && f.Method != r.Method {
		return false
	}
	want := strings.Split(strings.Trim(f.Path, "/"), "/")
	have := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if f.Path == "" || f.Path == "/" {
		return true
	}
	if len(want) > len(have) {
		return false
	}
	for i, w := range want {
		if w != "*" && w != have[i] {
			return false
		}
	}
	return true
}

func (s *Server) takeFault(r *http.Request) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.faults {
		if f.Count == 0 || !f.matches(r) {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			continue
		}
		if f.Count > 0 {
			f.Count--
		}
		return new(*f)
	}
	return nil
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	f := s.takeFault(r)
	if f == nil {
		s.mux.ServeHTTP(w, r)
		return
	}
	// The body is read at once: net/http notices that a client went away
	// only after the body has been read.
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	effect := func() *recorder {
		rec := &recorder{head: w.Header().Clone()}
		s.mux.ServeHTTP(rec, r)
		return rec
	}
	switch f.Kind {
	case FaultHang:
		s.hang(f, w, r, effect)
	case FaultNullStatistics, FaultNoQueueURL, FaultUnknownMessage, FaultUnknownItem,
		FaultDuplicateMessage, FaultByteOrderMark:
		rec := effect()
		rec.replay(w, s.rewrite(f.Kind, rec))
	default:
		if f.AfterEffect {
			effect()
		}
		s.fail(f, w, r)
	}
}

func (s *Server) hang(f *Fault, w http.ResponseWriter, r *http.Request, effect func() *recorder) {
	var rec *recorder
	if f.AfterEffect {
		rec = effect()
	}
	var elapsed <-chan time.Time
	if f.Duration > 0 {
		t := time.NewTimer(f.Duration)
		defer t.Stop()
		elapsed = t.C
	}
	select {
	case <-r.Context().Done():
		panic(http.ErrAbortHandler)
	case <-elapsed:
	}
	if rec == nil {
		s.mux.ServeHTTP(w, r)
		return
	}
	rec.replay(w, rec.body.Bytes())
}

func (s *Server) fail(f *Fault, w http.ResponseWriter, r *http.Request) {
	switch f.Kind {
	case FaultUnauthorized:
		s.unauthorized(r).write(w)
	case FaultDrop:
		panic(http.ErrAbortHandler)
	case FaultEmpty:
		w.Header().Set("Content-Type", jsonType)
		w.WriteHeader(http.StatusOK)
	case FaultHTML:
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(max(f.Status, http.StatusServiceUnavailable))
		_, _ = io.WriteString(w, "<!DOCTYPE html><html><body><h1>Unicorn!</h1></body></html>")
	case FaultText:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(max(f.Status, http.StatusConflict))
		_, _ = io.WriteString(w, `{"message":"injected","typeName":"GitHub.DistributedTask.WebApi.TaskAgentExistsException"}`)
	default:
		if f.RetryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(f.RetryAfter.Seconds())))
		}
		status := f.Status
		if status == 0 {
			status = http.StatusInternalServerError
		}
		restError(status, fmt.Sprintf("injected %d", status)).write(w)
	}
}

// rewrite spoils a JSON answer.
func (s *Server) rewrite(kind FaultKind, rec *recorder) []byte {
	body := rec.body.Bytes()
	var doc map[string]any
	if rec.status != http.StatusOK || json.Unmarshal(body, &doc) != nil {
		return body
	}
	switch kind {
	case FaultByteOrderMark:
		return append([]byte("\xef\xbb\xbf"), body...)
	case FaultNullStatistics:
		doc["statistics"] = nil
	case FaultNoQueueURL:
		doc["messageQueueUrl"] = ""
	case FaultUnknownMessage:
		doc["messageType"] = "RunnerScaleSetNews"
	case FaultUnknownItem:
		if inner, isString := doc["body"].(string); isString {
			doc["body"] = strings.TrimSuffix(inner, "]") + `,{"messageType":"JobPondered","jobId":"x"}]`
		}
	case FaultDuplicateMessage:
		if id, isNumber := doc["messageId"].(float64); isNumber {
			s.repeat(int64(id))
		}
		return body
	}
	out, err := json.Marshal(doc)
	if err != nil {
		return body
	}
	return out
}
