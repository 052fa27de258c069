package admission

import (
	"context"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/admission/wire"
	"github.com/runnerward/runnerward/pkg/runner"
)

// Limits bound what callers can cost. The zero value of a field takes the
// default that [DefaultLimits] shows.
type Limits struct {
	// Call bounds one question to the gate.
	Call time.Duration
	// Burst questions of a kind may come from one runner at once, and one
	// more for each Refill.
	Burst  int
	Refill time.Duration
	// Runners is how many callers are remembered, Calls how many questions
	// are before the gate at once.
	Runners, Calls int
}

// DefaultLimits suit a pool of some hundred runners. An agent asks at most
// every half second, so only a broken or hostile one meets the rate limit.
func DefaultLimits() Limits {
	return Limits{Call: 45 * time.Second, Burst: 20, Refill: time.Second, Runners: 4096, Calls: 64}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	pick := func(have *int, otherwise int) {
		if *have <= 0 {
			*have = otherwise
		}
	}
	pick(&l.Burst, d.Burst)
	pick(&l.Runners, d.Runners)
	pick(&l.Calls, d.Calls)
	if l.Call <= 0 {
		l.Call = d.Call
	}
	if l.Refill <= 0 {
		l.Refill = d.Refill
	}
	return l
}

type handler struct {
	gate   Gate
	log    *zap.Logger
	limits Limits
	pace   *limiter
	calls  chan struct{}
}

// question is one request to the gate. secrets are kept out of the log.
type question struct {
	name    runner.Name // empty when a host's witness asks
	pod     string
	secrets []string
}

// answerer reads the body of a request and asks the gate.
type answerer func(ctx context.Context, q *question, body *http.Request) (answer any, fields []zap.Field, r *refusal)

// NewHandler serves the admission API. It logs who asked, what was answered
// and how long it took, and never a token or a JIT config.
func NewHandler(gate Gate, log *zap.Logger, limits Limits) http.Handler {
	limits = limits.withDefaults()
	h := &handler{
		gate: gate, log: log, limits: limits,
		pace:  newLimiter(limits.Burst, limits.Refill, limits.Runners),
		calls: make(chan struct{}, limits.Calls),
	}
	mux := http.NewServeMux()
	mux.Handle(wire.ClaimPattern, h.serve("claim", h.claim))
	mux.Handle(wire.StartPattern, h.serve("start", h.start))
	mux.Handle(wire.HostPattern, h.serve("host", h.host))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, final(http.StatusNotFound, "no such path"))
	})
	return mux
}

func (h *handler) serve(verb string, ask answerer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		log := h.log.With(zap.String("question", verb))
		answer, fields, no := h.answer(log, verb, ask, w, r)
		fields = append(fields, zap.Duration("latency", time.Since(began)))
		if no != nil {
			log.Warn("admission question not answered", append(fields,
				zap.Int("status", no.status), zap.String("answer", no.Error.Error), zap.Bool("final", no.Final))...)
			refuse(w, no)
			return
		}
		log.Info("admission question answered", fields...)
		reply(w, http.StatusOK, answer)
	})
}

// answer asks the gate once the request is well-formed and its turn has come.
func (h *handler) answer(log *zap.Logger, verb string, ask answerer, w http.ResponseWriter, r *http.Request) (_ any, fields []zap.Field, no *refusal) {
	defer func() {
		// Nothing was written yet. The panic's value may quote a token; the
		// stack holds addresses only.
		if recover() != nil {
			log.Error("admission question panicked", append(fields, zap.ByteString("stack", debug.Stack()))...)
			no = unknown()
		}
	}()
	q, no := h.question(r)
	if no != nil {
		return nil, nil, no
	}
	fields = q.fields()
	leave, ok := h.pace.enter(verb+"/"+q.caller(), time.Now())
	if !ok {
		return nil, fields, later(http.StatusTooManyRequests, "asked too often, or while a question is open")
	}
	defer leave()
	select {
	case h.calls <- struct{}{}:
		defer func() { <-h.calls }()
	default:
		return nil, fields, unknown()
	}
	r.Body = http.MaxBytesReader(w, r.Body, wire.MaxBody)
	ctx, cancel := context.WithTimeoutCause(r.Context(), h.limits.Call, errors.New("the question took too long"))
	defer cancel()
	answer, more, no := ask(ctx, q, r)
	return answer, append(fields, more...), no
}

// question reads the head of a request.
func (h *handler) question(r *http.Request) (*question, *refusal) {
	name := runner.Name(r.PathValue("name"))
	if err := wire.CheckName(name); err != nil && r.Pattern != wire.HostPattern {
		return nil, final(http.StatusNotFound, "no such runner")
	}
	if r.Method != http.MethodPost {
		return nil, final(http.StatusMethodNotAllowed, "POST only")
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, final(http.StatusUnsupportedMediaType, "application/json only")
	}
	token, ok := bearer(r.Header.Values("Authorization"))
	if !ok {
		return nil, later(http.StatusUnauthorized, "no bearer token")
	}
	return &question{name: name, pod: token, secrets: []string{token}}, nil
}

// bearer reads a token as RFC 6750 section 2.1 writes it.
func bearer(headers []string) (string, bool) {
	if len(headers) != 1 {
		return "", false
	}
	scheme, token, ok := strings.Cut(headers[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", false
	}
	return token, tokenShaped(token)
}

func tokenShaped(token string) bool {
	return len(token) <= wire.MaxToken && !strings.ContainsFunc(token, func(c rune) bool {
		return c <= ' ' || c > '~'
	})
}

func (h *handler) claim(ctx context.Context, q *question, r *http.Request) (any, []zap.Field, *refusal) {
	if no := readBody(r, &wire.ClaimRequest{}); no != nil {
		return nil, nil, no
	}
	got, err := h.gate.Claim(ctx, q.name, q.pod)
	if err != nil {
		return nil, []zap.Field{q.errorField(err)}, classify(err)
	}
	answer := wire.ClaimAnswer{JITConfig: got.JITConfig.Reveal(), Bound: got.Bound}
	if err := answer.Check(); err != nil {
		return nil, []zap.Field{zap.String("error", "the gate's answer is unusable")}, unknown()
	}
	return answer, []zap.Field{zap.String("bound", string(got.Bound))}, nil
}

func (h *handler) start(ctx context.Context, q *question, r *http.Request) (any, []zap.Field, *refusal) {
	var body wire.StartRequest
	if no := readBody(r, &body); no != nil {
		return nil, nil, no
	}
	if !tokenShaped(body.Token) {
		return nil, nil, final(http.StatusBadRequest, "the job's token is malformed")
	}
	q.secrets = append(q.secrets, body.Token)
	got, err := h.gate.Start(ctx, q.name, q.pod, body.Token)
	if err != nil {
		return nil, []zap.Field{q.errorField(err)}, classify(err)
	}
	answer := wire.StartAnswer{Verdict: wire.Verdict(got.Verdict), Reasons: got.Reasons, Record: got.Record}
	if answer.Reasons == nil {
		answer.Reasons = []string{}
	}
	if err := answer.Check(); err != nil {
		return nil, []zap.Field{zap.String("error", "the gate's answer is unusable")}, unknown()
	}
	return answer, []zap.Field{
		zap.String("verdict", string(answer.Verdict)),
		zap.Strings("reasons", answer.Reasons),
		zap.String("record", string(answer.Record)),
	}, nil
}

func readBody(r *http.Request, into any) *refusal {
	err := wire.DecodeStrict(r.Body, into)
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return final(http.StatusRequestEntityTooLarge, "the body is too large")
	}
	if err != nil {
		return final(http.StatusBadRequest, "the body is not the JSON object that is wanted")
	}
	return nil
}

// errorField is the error without the tokens of the question. A JWT is also cut
// at its dots, because an error may quote its header or payload alone.
func (q *question) errorField(err error) zap.Field {
	text := err.Error()
	for _, secret := range q.secrets {
		for _, part := range append([]string{secret}, strings.Split(secret, ".")...) {
			if len(part) >= 8 {
				text = strings.ReplaceAll(text, part, "[token]")
			}
		}
	}
	return zap.String("error", text)
}

func refuse(w http.ResponseWriter, no *refusal) {
	switch no.status {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", "Bearer") // RFC 9110 section 15.5.2
	case http.StatusMethodNotAllowed:
		w.Header().Set("Allow", http.MethodPost) // RFC 9110 section 15.5.6
	}
	reply(w, no.status, no.Error)
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	// A caller that went away asks again; there is nobody left to tell.
	_ = json.NewEncoder(w).Encode(body)
}
