package simaws

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Config describes the account and how long things take in it. Zero durations
// mean "at once", except AgeOut and HealthCheck.
type Config struct {
	Region          string // "us-east-1" if empty
	AccountID       string // "111122223333" if empty
	AccessKeyID     string // requests must be signed by this key
	SecretAccessKey string
	// ShuttingDown is the time between shutting-down and terminated.
	ShuttingDown time.Duration
	// RefillDelay is the time until a group replaces a member that it ends.
	RefillDelay time.Duration
	// LaunchTime is the time between pending and running.
	LaunchTime time.Duration
	// AgeOut is how long a terminated instance stays listed; one hour if zero.
	AgeOut time.Duration
	// Unseen is how long a new instance is missing from every description:
	// https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html
	Unseen time.Duration
	// VolumeDeleting is how long a volume is shown as deleting.
	VolumeDeleting time.Duration
	// HealthCheck is the time until a group notices that a member was ended
	// behind its back; 30 s if zero.
	HealthCheck time.Duration
	// Seed makes every id; equal seeds and calls give equal ids.
	Seed uint64
	// OnLaunch is called when an instance is running: its kubelet may start.
	// OnTerminated is called when an instance is terminated. Both are called
	// without any lock, by whoever moved the clock on, and may call back;
	// those that concurrent callers moved may interleave.
	OnLaunch     func(Instance)
	OnTerminated func(id string)
}

// Request is one call that the simulator answered. It never holds credentials.
type Request struct {
	Seq       int
	At        time.Time
	Service   string // "ec2", "autoscaling", "sts", "iam", "kms", "ssm" or "eks"
	Action    string
	IDs       []string // what it names: instances, volumes, keys, roles; in the order sent
	Status    int      // 0 when it was never answered
	Code      string   // the error code, empty on success
	RequestID string
}

// Server is the simulator. It is safe for concurrent use.
type Server struct {
	cfg Config

	mu         sync.Mutex
	rng        *rand.Rand
	instances  []*instance // in order of launch
	volumes    map[string]*volume
	groups     []*group
	subnets    []*subnet
	mainRoutes []Route
	activities []*activity
	faults     []Fault
	requests   []Request
	hooks      []func() // to call once the lock is released
	account             // what there is besides instances and groups
}

// New starts an account without groups.
func New(cfg Config) *Server {
	if cfg.Region == "" {
		cfg.Region = "us-east-1"
	}
	if cfg.AccountID == "" {
		cfg.AccountID = "111122223333"
	}
	if cfg.AgeOut == 0 {
		// "Terminated instances remain visible after termination (for
		// approximately one hour)", API reference of TerminateInstances.
		cfg.AgeOut = time.Hour
	}
	if cfg.HealthCheck == 0 {
		cfg.HealthCheck = 30 * time.Second
	}
	return &Server{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0)), volumes: map[string]*volume{}, mainRoutes: privateRoutes(), account: newAccount()}
}

// Requests are all calls so far, oldest first.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// apiError is an answer that is not a success.
type apiError struct {
	status  int
	code    string
	message string
}

func (e *apiError) Error() string { return e.code + ": " + e.message }

// call is one parsed request.
type call struct {
	service string
	action  string
	form    url.Values // of the query protocols
	body    []byte     // of the JSON protocols
	path    []string   // of the REST protocol, unescaped
	caller  principal
	id      string // of the answer
}

// maxBody bounds what is read; the services take at most 1 MiB by POST.
const maxBody = 1 << 20

// ServeHTTP answers one request for any of the services. [addressed] says for
// which.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, "read the request", http.StatusBadRequest)
		return
	}
	now := time.Now()
	c, refused := s.parse(r, body, now)

	s.mu.Lock()
	s.advance(now)
	c.id = s.uuid()
	fault := s.takeFault(c.action)
	if fault.Kind == Hang {
		if fault.After {
			// Only the effect counts: nobody hears the answer.
			_, _ = s.answer(c, refused, fault, now)
		}
		s.log(c, now, 0, "")
		s.release()
		<-r.Context().Done()
		return
	}
	answer, failure := s.answer(c, refused, fault, now)
	status, code := http.StatusOK, ""
	if failure != nil {
		status, code = failure.status, failure.code
		answer = errorBody(c, failure)
	}
	s.log(c, now, status, code)
	s.advance(now)
	s.release()
	write(w, c, status, answer)
}

// answer runs the action, unless a fault comes first, and says what to send.
func (s *Server) answer(c call, auth *apiError, f Fault, now time.Time) (any, *apiError) {
	if auth != nil {
		return nil, auth
	}
	refusal := f.refusal(c.service)
	if refusal != nil && !f.After {
		return nil, refusal
	}
	if denied := s.denial(c); denied != nil {
		return nil, denied
	}
	answer, err := s.act(c, f.Kind, now)
	if err != nil {
		if e, ok := errors.AsType[*apiError](err); ok {
			return nil, e
		}
		return nil, &apiError{http.StatusInternalServerError, "InternalError", err.Error()}
	}
	if refusal != nil {
		return nil, refusal
	}
	return answer, nil
}

// act finds the action in the service for which the request was signed.
func (s *Server) act(c call, kind FaultKind, now time.Time) (any, error) {
	switch c.service {
	case serviceEC2:
		return s.ec2(c, kind, now)
	case serviceAutoScaling:
		return s.autoScaling(c, kind, now)
	}
	return s.other(c, kind, now)
}

func (s *Server) log(c call, now time.Time, status int, code string) {
	s.requests = append(s.requests, Request{
		Seq: len(s.requests) + 1, At: now, Service: c.service, Action: c.action, IDs: c.names(),
		Status: status, Code: code, RequestID: c.id,
	})
}

// namedIDs are the instances and volumes that a request names.
func namedIDs(form url.Values) []string {
	ids := slices.Concat(list(form, "InstanceId"), list(form, "VolumeId"), list(form, "InstanceIds.member"))
	if id := form.Get("InstanceId"); id != "" {
		ids = append(ids, id)
	}
	for _, f := range parseFilters(form) {
		if f.name == "instance-id" || f.name == "volume-id" {
			ids = append(ids, f.values...)
		}
	}
	return ids
}

// list reads prefix.1, prefix.2, ….
func list(form url.Values, prefix string) []string {
	var out []string
	for n := 1; ; n++ {
		v, ok := form[prefix+"."+strconv.Itoa(n)]
		if !ok {
			return out
		}
		out = append(out, v[0])
	}
}

// release gives up the lock and calls the hooks that became due under it.
func (s *Server) release() {
	hooks := s.hooks
	s.hooks = nil
	s.mu.Unlock()
	for _, hook := range hooks {
		hook()
	}
}

func write(w http.ResponseWriter, c call, status int, answer any) {
	if speaks(c.service) == jsonRPC || speaks(c.service) == restJSON {
		writeJSON(w, c, status, answer)
		return
	}
	var b bytes.Buffer
	b.WriteString(xml.Header)
	if err := xml.NewEncoder(&b).Encode(answer); err != nil {
		http.Error(w, "encode the answer", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/xml;charset=UTF-8")
	w.Header().Set("X-Amzn-Requestid", c.id)
	w.WriteHeader(status)
	// A client that went away is no concern of the service.
	_, _ = w.Write(b.Bytes())
}

// errorBody is the service's own form of an error:
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
// https://docs.aws.amazon.com/autoscaling/ec2/APIReference/CommonErrors.html
func errorBody(c call, e *apiError) any {
	switch speaks(c.service) {
	case jsonRPC, restJSON:
		return jsonError(c, e)
	case ec2Query:
		type detail struct {
			Code    string
			Message string
		}
		return struct {
			XMLName   xml.Name `xml:"Response"`
			Errors    []detail `xml:"Errors>Error"`
			RequestID string   `xml:"RequestID"`
		}{Errors: []detail{{e.code, e.message}}, RequestID: c.id}
	}
	fault := "Sender"
	if e.status >= http.StatusInternalServerError {
		fault = "Receiver"
	}
	return struct {
		XMLName   xml.Name
		Type      string `xml:"Error>Type"`
		Code      string `xml:"Error>Code"`
		Message   string `xml:"Error>Message"`
		RequestID string `xml:"RequestId"`
	}{
		XMLName: xml.Name{Space: namespace(c.service), Local: "ErrorResponse"},
		Type:    fault, Code: e.code, Message: e.message, RequestID: c.id,
	}
}

// flag reads a boolean as both services do: true or false, nothing else.
func flag(form url.Values, key string) (value, present bool, err error) {
	if !form.Has(key) {
		return false, false, nil
	}
	switch strings.ToLower(form.Get(key)) {
	case "true":
		return true, true, nil
	case "false":
		return false, true, nil
	}
	return false, true, &apiError{http.StatusBadRequest, "InvalidParameterValue",
		"Invalid value '" + form.Get(key) + "' for " + key}
}
