package scaleset_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/sim/memnet"
	"github.com/runnerward/runnerward/pkg/supervisor"
	"github.com/runnerward/runnerward/scaleset"
)

// service is a small scale set service for answers that the real one gives
// only on a bad day. Each route can be overridden.
type service struct {
	*http.ServeMux
	net *memnet.Listener

	mu      sync.Mutex
	log     []string // "METHOD route" in order of arrival
	headers []http.Header
	odd     map[string]http.HandlerFunc
	queue   []string // message JSON, unacknowledged
	ids     []int
	wake    chan struct{}
	agents  map[string]int
	next    int
}

const (
	routeToken    = "POST registration-token"
	routeRegister = "POST runner-registration"
	routeGroups   = "GET runnergroups"
	routeFind     = "GET runnerscalesets"
	routeCreate   = "POST runnerscalesets"
	routeOpen     = "POST sessions"
	routeRefresh  = "PATCH sessions"
	routeClose    = "DELETE sessions"
	routePoll     = "GET message"
	routeAck      = "DELETE message"
	routeAcquire  = "POST acquirejobs"
	routeJIT      = "POST generatejitconfig"
	routeLookUp   = "GET agents"
	routeRemove   = "DELETE agents"
	stats         = `{"totalAvailableJobs":0,"totalAssignedJobs":1,"totalRunningJobs":0}`
	scaleSetJSON  = `{"id":7,"name":"hipaa-prod","runnerGroupId":3,"runnerGroupName":"hipaa-prod",` +
		`"labels":[{"type":"System","name":"hipaa-prod"}],"runnerSetting":{"disableUpdate":true}}`
	sessionJSON = `{"sessionId":"73fd14d2-67cc-4a16-ab46-73188915f837","ownerName":"host-1",` +
		`"messageQueueUrl":"http://sim/scalesets/message?sessionId=1","messageQueueAccessToken":"q","statistics":` + stats + `}`
)

// jwt is a token of the shape that the client parses and never verifies.
func jwt(claims string) string {
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + enc([]byte(claims)) + "." + enc([]byte("signature"))
}

// newService serves over in-memory connections, so that it works in a
// synctest bubble.
func newService(t *testing.T) *service {
	t.Helper()
	s := &service{ServeMux: http.NewServeMux(), odd: map[string]http.HandlerFunc{}, wake: make(chan struct{}, 1), agents: map[string]int{}}
	const actions = "/rest/_apis/runtime/runnerscalesets"
	s.route(routeToken, "POST /api/v3/orgs/acme/actions/runners/registration-token", answer(201, `{"token":"AABB"}`))
	s.route(routeRegister, "POST /api/v3/actions/runner-registration", func(w http.ResponseWriter, _ *http.Request) {
		answer(200, fmt.Sprintf(`{"url":"http://sim/rest/","token":%q}`, jwt(fmt.Sprintf(`{"exp":%d}`, time.Now().Add(time.Hour).Unix()))))(w, nil)
	})
	s.route(routeGroups, "GET /rest/_apis/runtime/runnergroups/", answer(200, `{"count":1,"value":[{"id":3,"name":"hipaa-prod"}]}`))
	s.route(routeFind, "GET "+actions, answer(200, `{"count":1,"value":[`+scaleSetJSON+`]}`))
	s.route(routeCreate, "POST "+actions, answer(200, scaleSetJSON))
	s.route(routeOpen, "POST "+actions+"/{set}/sessions", answer(200, sessionJSON))
	s.route(routeRefresh, "PATCH "+actions+"/{set}/sessions/{id}", answer(200, sessionJSON))
	s.route(routeClose, "DELETE "+actions+"/{set}/sessions/{id}", answer(204, ""))
	s.route(routePoll, "GET /scalesets/message", s.poll)
	s.route(routeAck, "DELETE /scalesets/message/{id}", s.ack)
	s.route(routeAcquire, "POST "+actions+"/{set}/acquirejobs", answer(200, `{"count":1,"value":[42]}`))
	s.route(routeJIT, "POST "+actions+"/{set}/generatejitconfig", s.jit)
	s.route(routeLookUp, "GET /rest/_apis/distributedtask/pools/0/agents", s.lookUp)
	s.route(routeRemove, "DELETE /rest/_apis/distributedtask/pools/0/agents/{id}", s.remove)
	s.net = listen(t, s)
	return s
}

func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

func (s *service) route(name, pattern string, h http.HandlerFunc) {
	s.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.log = append(s.log, name)
		s.headers = append(s.headers, r.Header.Clone())
		odd := s.odd[name]
		s.mu.Unlock()
		if odd != nil {
			odd(w, r)
			return
		}
		h(w, r)
	})
}

// answers overrides a route; nil restores it.
func (s *service) answers(route string, h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.odd[route] = h
}

func (s *service) send(id int, items string) {
	body, _ := json.Marshal(items)
	s.mu.Lock()
	s.queue = append(s.queue, fmt.Sprintf(`{"messageId":%d,"messageType":"RunnerScaleSetJobMessages","body":%s,"statistics":%s}`, id, body, stats))
	s.ids = append(s.ids, id)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// poll holds a request 50 s, as the real service does.
func (s *service) poll(w http.ResponseWriter, r *http.Request) {
	hold := time.After(50 * time.Second)
	for {
		s.mu.Lock()
		head := ""
		if len(s.queue) > 0 {
			head = s.queue[0]
		}
		s.mu.Unlock()
		if head != "" {
			answer(200, head)(w, r)
			return
		}
		select {
		case <-s.wake:
		case <-hold:
			answer(202, "")(w, r)
			return
		case <-r.Context().Done():
			return
		}
	}
}

func (s *service) ack(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ids) == 0 || r.PathValue("id") != fmt.Sprint(s.ids[0]) {
		answer(404, `{}`)(w, r)
		return
	}
	s.queue, s.ids = s.queue[1:], s.ids[1:]
	answer(204, "")(w, r)
}

func (s *service) jit(w http.ResponseWriter, r *http.Request) {
	var in struct{ Name, WorkFolder string }
	_ = json.NewDecoder(r.Body).Decode(&in)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.agents[in.Name] != 0 || in.WorkFolder != "_work" {
		exception(409, "GitHub.DistributedTask.WebApi.TaskAgentExistsException")(w, r)
		return
	}
	s.next++
	s.agents[in.Name] = s.next
	answer(200, fmt.Sprintf(`{"runner":{"id":%d,"name":%q,"runnerScaleSetId":7},"encodedJITConfig":"eyJhIjoiYiJ9"}`, s.next, in.Name))(w, r)
}

func (s *service) lookUp(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := r.FormValue("agentName")
	if id := s.agents[name]; id != 0 {
		answer(200, fmt.Sprintf(`{"count":1,"value":[{"id":%d,"name":%q,"runnerScaleSetId":7}]}`, id, name))(w, r)
		return
	}
	answer(200, `{"count":0,"value":[]}`)(w, r)
}

func (s *service) remove(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, id := range s.agents {
		if r.PathValue("id") == fmt.Sprint(id) {
			delete(s.agents, name)
			answer(204, "")(w, r)
			return
		}
	}
	exception(404, "GitHub.DistributedTask.WebApi.TaskAgentNotFoundException")(w, r)
}

func exception(status int, typeName string) http.HandlerFunc {
	return answer(status, fmt.Sprintf(`{"message":"m","typeName":%q}`, typeName+", GitHub.X"))
}

func (s *service) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log)
}

func (s *service) count(route string) int {
	n := 0
	for _, r := range s.requests() {
		if r == route {
			n++
		}
	}
	return n
}

// listen serves h over in-memory connections until the test ends.
func listen(t *testing.T, h http.Handler) *memnet.Listener {
	t.Helper()
	l := memnet.Listen()
	t.Cleanup(l.Serve(h))
	return l
}

// pipe carries the adapter's requests over in-memory connections.
func pipe(t *testing.T, l *memnet.Listener) http.RoundTripper {
	transport := l.Transport()
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

func (s *service) config(t *testing.T) scaleset.Config {
	return scaleset.Config{
		URL: "http://sim/acme", Name: "hipaa-prod", Group: "hipaa-prod", Owner: "host-1",
		Token: supervisor.NewSecret("ghp_secret"), Version: "test", Transport: pipe(t, s.net),
	}
}

func open(t *testing.T, cfg scaleset.Config) *scaleset.ScaleSet {
	t.Helper()
	set, err := scaleset.Open(t.Context(), cfg, zap.NewNop())
	if err != nil {
		t.Fatalf("Open() = %v", err)
	}
	return set
}

// listener runs a scale set and keeps what it observed.
type listener struct {
	*scaleset.ScaleSet
	stop func(error)
	done chan error

	mu       sync.Mutex
	observed []supervisor.Message
	fail     error
	capacity int
	observe  func()
}

func listenTo(t *testing.T, cfg scaleset.Config) *listener {
	t.Helper()
	l := &listener{ScaleSet: open(t, cfg), done: make(chan error, 1), capacity: 2}
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(t.Context()))
	l.stop = cancel
	go func() { l.done <- l.Run(ctx, l.room, l.record) }()
	t.Cleanup(func() {
		cancel(context.Canceled)
		<-l.done
	})
	return l
}

func (l *listener) room() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.capacity
}

func (l *listener) record(_ context.Context, m supervisor.Message) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.observe != nil {
		l.observe()
	}
	if l.fail != nil {
		return l.fail
	}
	l.observed = append(l.observed, m)
	return nil
}

func (l *listener) messages() []supervisor.Message {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.observed)
}

func (l *listener) failWith(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail = err
}

const jobID = "23b2785d-8345-5b9e-b726-a0e97794469f"

func item(kind, extra string) string {
	if extra != "" {
		extra = "," + extra
	}
	return fmt.Sprintf(`{"messageType":%q,"runnerRequestId":42,"repositoryName":"deploy","ownerName":"acme","jobId":%q,`+
		`"jobWorkflowRef":"acme/w/.github/workflows/d.yml@refs/tags/v1.2.3","jobDisplayName":"free text",`+
		`"workflowRunId":1234,"eventName":"push","requestLabels":["hipaa-prod"],"queueTime":"2026-01-02T03:04:05Z"%s}`, kind, jobID, extra)
}

func items(list ...string) string { return "[" + strings.Join(list, ",") + "]" }

// pass lets the bubble's time go by.
func pass(d time.Duration) { <-time.After(d) }
