package simgithub

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// FaultKind is what goes wrong.
type FaultKind string

// The fault menu. Those that rewrite an answer come after the effect of the
// request, and those that disturb the world before it; both spend their count
// only where they changed something: a poll that says 202 cannot be spoilt, and
// a session that does not exist cannot end. Mind that Go's HTTP transport itself
// repeats a GET that is dropped on a kept connection: it takes two drops to be
// seen.
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
	FaultSessionGone      FaultKind = "session-gone"      // disturb: every message session ends
	FaultPoisonItem       FaultKind = "poison-item"       // rewrite: one more item with a field of a wrong type
	FaultReversed         FaultKind = "reversed"          // rewrite: the items in reverse order
	FaultEarlyEnd         FaultKind = "early-end"         // rewrite: JobCompleted beside each JobStarted
	FaultCountOnly        FaultKind = "count-only"        // rewrite: count 1, empty value
	FaultNoToken          FaultKind = "no-token"          // rewrite: token is null
	FaultNoExpiry         FaultKind = "no-expiry"         // rewrite: token is a JWT without exp
	FaultLateStart        FaultKind = "late-start"        // rewrite: JobStarted comes once JobCompleted was acknowledged
	FaultFalseEnd         FaultKind = "false-end"         // disturb: running jobs are reported completed, in a message of their own
	FaultGroupRenamed     FaultKind = "group-renamed"     // disturb: Group gets another name
	FaultGroupOpened      FaultKind = "group-opened"      // disturb: Group admits every repository and workflow
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
	// lost or replaced. BeforeEffect is the opposite. Neither is what the kind
	// supports, before rather than after; see [FaultSpec].
	AfterEffect, BeforeEffect bool
	// Group is the runner group that the group kinds change, by name; empty is
	// every one but the default one.
	Group      string
	Status     int           // for FaultStatus (default 500) and FaultHTML
	RetryAfter time.Duration // whole seconds
	Duration   time.Duration // for FaultHang: then go on; 0 means never
}

// Check returns what is wrong with a fault: a kind that is not on the menu, or a
// moment that the kind does not support.
func (f Fault) Check() error {
	spec, known := f.Kind.spec()
	switch {
	case !known:
		return fmt.Errorf("no fault %q: GET %smenu lists them", f.Kind, controlPath)
	case f.AfterEffect && f.BeforeEffect:
		return fmt.Errorf("the fault %s cannot come both before and after the effect: say one", f.Kind)
	case f.AfterEffect && !spec.After():
		return fmt.Errorf("the fault %s comes before the effect of a request only: leave afterEffect out", f.Kind)
	case f.BeforeEffect && !spec.Before():
		return fmt.Errorf("the fault %s spoils an answer, so the effect comes first: leave beforeEffect out", f.Kind)
	case f.Skip < 0:
		return fmt.Errorf("the fault %s skips %d requests: say 0 or more", f.Kind, f.Skip)
	}
	return nil
}

// Inject adds a fault; the first one that matches a request is used. It panics
// for a fault that [Fault.Check] refuses: a test that asks for what cannot happen
// must not pass.
func (s *Server) Inject(f Fault) {
	if err := f.Check(); err != nil {
		panic("simgithub: " + err.Error())
	}
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

// takeFault finds the fault for a request and spends one of its count, except
// of kinds that may find nothing to spoil: those are spent by [Server.spend].
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
		if spec, _ := f.Kind.spec(); spec.Rewrites || spec.Disturbs {
			return f
		}
		if f.Count > 0 {
			f.Count--
		}
		return new(*f)
	}
	return nil
}

// spend takes one from the count of a fault that found something to spoil. It is
// false when another request was faster. The caller holds the lock.
func (f *Fault) spend() bool {
	if f.Count > 0 {
		f.Count--
		return true
	}
	return f.Count < 0
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
	spec, _ := f.Kind.spec()
	switch {
	case f.Kind == FaultHang:
		s.hang(f, w, r, effect)
	case spec.Disturbs:
		s.disturb(f)
		s.mux.ServeHTTP(w, r)
	case spec.Rewrites:
		rec := effect()
		rec.replay(w, s.spoil(f, r, rec))
	default:
		var rec *recorder
		if f.AfterEffect {
			rec = effect()
		}
		s.fail(f, w, r, body, rec)
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
		if rec == nil || rec.status < http.StatusBadRequest { // nothing of its own to complain about
			rec = &recorder{head: http.Header{}}
			complaint(r).write(rec)
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(cmp.Or(f.Status, rec.status))
		_, _ = w.Write(rec.body.Bytes())
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

// complaint is an error that clients have to understand at this endpoint, for
// the faults that give it in a form in which they cannot.
func complaint(r *http.Request) answer {
	path := r.URL.Path
	switch {
	case strings.HasPrefix(path, restPath+"/"):
		return restError(http.StatusServiceUnavailable, "Service unavailable")
	case strings.HasSuffix(path, "/generatejitconfig"):
		return vssError(http.StatusConflict, "TaskAgentExistsException", "A runner exists with the same name.")
	case r.Method == http.MethodPost && strings.HasSuffix(path, "/sessions"):
		return vssError(http.StatusConflict, "RunnerScaleSetSessionConflictException", "The actions runner scaleset already has an active session.")
	case strings.HasPrefix(path, queuePath):
		return sessionExpired()
	case r.Method == http.MethodDelete && strings.HasPrefix(path, poolPath+"/"):
		return vssError(http.StatusBadRequest, "TaskAgentJobStillRunningException", "The runner is still running a job.")
	}
	return vssError(http.StatusInternalServerError, "VssServiceException", "An internal error occurred.")
}
