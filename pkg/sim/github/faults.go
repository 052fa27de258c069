package simgithub

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
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
	FaultThrottled        FaultKind = "throttled"         // 429, Retry-After RetryAfter or 2 s
	FaultRateLimited      FaultKind = "rate-limited"      // 403, nothing remains until RetryAfter or 30 s from now
	FaultSecondaryLimit   FaultKind = "secondary-limit"   // 403, Retry-After RetryAfter or 5 s
	FaultTruncated        FaultKind = "truncated"         // rewrite: half of the body
	FaultNull             FaultKind = "null"              // 200 and null
	FaultWrongType        FaultKind = "wrong-type"        // 200 and ["surprise"]
	FaultRedirect         FaultKind = "redirect"          // 302 to another host
	FaultEcho             FaultKind = "echo"              // 400 that repeats credential and body
	FaultClockSkew        FaultKind = "clock-skew"        // rewrite: Date is Duration ahead, ten minutes unless told
	FaultStaleStatistics  FaultKind = "stale-statistics"  // rewrite: counters of ghosts
	FaultSessionGone      FaultKind = "session-gone"      // the session ends, then the request goes on
	FaultPoisonItem       FaultKind = "poison-item"       // rewrite: one more item with a field of a wrong type
	FaultReversed         FaultKind = "reversed"          // rewrite: the items in reverse order
	FaultEarlyEnd         FaultKind = "early-end"         // rewrite: JobCompleted beside each JobStarted
	FaultCountOnly        FaultKind = "count-only"        // rewrite: count 1, empty value
	FaultNoToken          FaultKind = "no-token"          // rewrite: token is null
	FaultNoExpiry         FaultKind = "no-expiry"         // rewrite: token is a JWT without exp
)

// Fault is one entry of the menu, for requests that match.
type Fault struct {
	Kind FaultKind
	// Method is the HTTP method, empty for any.
	Method string
	// Path is a prefix of whole segments, with /api/v3 for REST; a segment *
	// matches any one segment.
	Path string
	// Whole says that Path is the whole path.
	Whole bool
	// Caller is the kind of credential, as [Request] has it; empty for any.
	Caller string
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
	if f.Caller != "" && f.Caller != callerOf(r).kind {
		return false
	}
	if f.Path == "" || f.Path == "/" {
		return true
	}
	want := strings.Split(strings.Trim(f.Path, "/"), "/")
	have := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if len(want) > len(have) || f.Whole && len(want) != len(have) {
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
	case FaultSessionGone:
		s.endSessions()
		s.mux.ServeHTTP(w, r)
	case FaultClockSkew:
		rec := effect()
		ahead := f.Duration
		if ahead == 0 {
			ahead = 10 * time.Minute
		}
		w.Header().Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
		rec.replay(w, rec.body.Bytes())
	default:
		if f.Kind.rewrites() {
			rec := effect()
			rec.replay(w, s.rewrite(f.Kind, rec))
			return
		}
		var rec *recorder
		if f.AfterEffect {
			rec = effect()
		}
		s.fail(f, w, r, body, rec)
	}
}

// rewrites says that the kind spoils an answer that was given.
func (k FaultKind) rewrites() bool {
	for _, spec := range Menu() {
		if spec.Kind == k {
			return spec.Rewrites
		}
	}
	return false
}

// endSessions ends every message session, as a server that lost its memory.
func (s *Server) endSessions() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, set := range s.state.sets {
		s.endSession(set, s.now())
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

func seconds(d, otherwise time.Duration) string {
	if d <= 0 {
		d = otherwise
	}
	return strconv.Itoa(int(d.Seconds()))
}

func (s *Server) fail(f *Fault, w http.ResponseWriter, r *http.Request, body []byte, rec *recorder) {
	switch f.Kind {
	case FaultThrottled:
		w.Header().Set("Retry-After", seconds(f.RetryAfter, 2*time.Second))
		restError(http.StatusTooManyRequests, "Too many requests").write(w)
	case FaultRateLimited:
		until := time.Now().Add(max(f.RetryAfter, 30*time.Second))
		for name, value := range map[string]string{
			"X-RateLimit-Limit": "5000", "X-RateLimit-Remaining": "0", "X-RateLimit-Resource": "core",
			"X-RateLimit-Reset": strconv.FormatInt(until.Unix(), 10),
		} {
			w.Header().Set(name, value)
		}
		restError(http.StatusForbidden, "API rate limit exceeded for installation.").write(w)
	case FaultSecondaryLimit:
		w.Header().Set("Retry-After", seconds(f.RetryAfter, 5*time.Second))
		a := restError(http.StatusForbidden, "You have exceeded a secondary rate limit.")
		a.body.(map[string]any)["documentation_url"] = "https://docs.github.com/rest/overview/rate-limits-for-the-rest-api#about-secondary-rate-limits"
		a.write(w)
	case FaultNull, FaultWrongType:
		w.Header().Set("Content-Type", jsonType)
		_, _ = io.WriteString(w, map[FaultKind]string{FaultNull: "null", FaultWrongType: `["surprise"]`}[f.Kind])
	case FaultRedirect:
		w.Header().Set("Location", "https://elsewhere.invalid"+r.URL.Path)
		restError(http.StatusFound, "Found").write(w)
	case FaultEcho:
		restError(http.StatusBadRequest, "cannot handle "+r.Header.Get("Authorization")+" "+string(body)).write(w)
	case FaultVersion:
		brokerError(http.StatusForbidden, brokerVersion, runnerVersionNews).write(w)
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
		if rec != nil && rec.status >= http.StatusBadRequest { // the service's own complaint
			w.WriteHeader(rec.status)
			_, _ = w.Write(rec.body.Bytes())
			return
		}
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

// spoilItems changes the list that a queue message holds as text.
func spoilItems(doc map[string]any, change func([]map[string]any) []map[string]any) {
	text, isText := doc["body"].(string)
	var items []map[string]any
	if !isText || json.Unmarshal([]byte(text), &items) != nil {
		return
	}
	if spoilt, err := json.Marshal(change(items)); err == nil {
		doc["body"] = string(spoilt)
	}
}

// endEarly reports each job that starts as completed as well.
func endEarly(items []map[string]any) []map[string]any {
	for _, item := range slices.Clone(items) {
		if item["messageType"] == "JobStarted" {
			end := maps.Clone(item)
			end["messageType"], end["result"] = "JobCompleted", "canceled"
			items = append(items, end)
		}
	}
	return items
}

// rewrite spoils a JSON answer.
func (s *Server) rewrite(kind FaultKind, rec *recorder) []byte {
	body := rec.body.Bytes()
	if kind == FaultTruncated && rec.status < 300 {
		return body[:len(body)/2]
	}
	var doc map[string]any
	if rec.status >= 300 || json.Unmarshal(body, &doc) != nil {
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
		spoilItems(doc, func(items []map[string]any) []map[string]any {
			return append(items, map[string]any{"messageType": "JobPondered", "jobId": "x"})
		})
	case FaultPoisonItem:
		spoilItems(doc, func(items []map[string]any) []map[string]any {
			return append(items, map[string]any{"messageType": "JobAssigned", "workflowRunId": "not a number"})
		})
	case FaultReversed:
		spoilItems(doc, func(items []map[string]any) []map[string]any { slices.Reverse(items); return items })
	case FaultEarlyEnd:
		spoilItems(doc, endEarly)
	case FaultStaleStatistics:
		doc["statistics"] = map[string]any{
			"totalAvailableJobs": 0, "totalAcquiredJobs": 9, "totalAssignedJobs": 9, "totalRunningJobs": 0,
			"totalRegisteredRunners": 9, "totalBusyRunners": 0, "totalIdleRunners": 9,
		}
	case FaultCountOnly:
		doc["count"], doc["value"] = 1, []any{}
	case FaultNoToken:
		doc["token"] = nil
	case FaultNoExpiry:
		doc["token"] = "eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl"
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
