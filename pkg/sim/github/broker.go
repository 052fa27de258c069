package simgithub

import (
	"crypto/rsa"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// brokerPath is where the runner's side is. Clients resolve names against it
// with a slash at its end.
const brokerPath = "/broker"

// routeBroker mounts the runner's side, protocol V2: actions/runner
// BrokerHttpClient.cs, RunServiceHttpClient.cs and ResultsHttpClient.cs.
func (s *Server) routeBroker() {
	s.mux.HandleFunc("POST "+brokerPath+"/oauth2/token", s.public(s.runnerToken))
	s.mux.HandleFunc("POST "+brokerPath+"/session", s.allow(s.withRunner(s.connect), kindRunner))
	s.mux.HandleFunc("DELETE "+brokerPath+"/session", s.allow(s.disconnect, kindRunner))
	s.mux.HandleFunc("GET "+brokerPath+"/message", s.handleRunnerPoll)
	s.mux.HandleFunc("POST "+brokerPath+"/acknowledge", s.allow(s.withRunner(s.acknowledgeOffer), kindRunner))
	s.mux.HandleFunc("POST "+runPath+"/acquirejob", s.allow(s.acquireJob, kindRunner))
	s.mux.HandleFunc("POST "+runPath+"/renewjob", s.allow(s.withJob(s.renewJob), kindJob))
	s.mux.HandleFunc("POST "+runPath+"/completejob", s.allow(s.withJob(s.completeJob), kindJob))
	s.routeResults()
}

func oauthError(code, msg string) answer {
	return answer{status: http.StatusBadRequest, body: map[string]any{"error": code, "error_description": msg}}
}

// runnerToken gives a runner a token for a JWT signed with its key (RFC 7523).
// A registration that was deleted gets none.
func (s *Server) runnerToken(r *http.Request) answer {
	r.Body = http.MaxBytesReader(nil, r.Body, 1<<16)
	if r.ParseForm() != nil || r.PostForm.Get("grant_type") != "client_credentials" ||
		r.PostForm.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
		return oauthError("invalid_request", "client_credentials with a JWT assertion expected")
	}
	jws, err := jose.ParseSignedCompact(r.PostForm.Get("client_assertion"), []jose.SignatureAlgorithm{s.runnerAlgorithm()})
	if err != nil {
		return oauthError("invalid_request", "the assertion is not a JWT")
	}
	var c assertion
	if json.Unmarshal(jws.UnsafePayloadWithoutVerification(), &c) != nil {
		return oauthError("invalid_request", "the assertion is not a JWT")
	}
	for _, a := range s.state.agents {
		if a.client != c.Issuer {
			continue
		}
		if err := s.checkAssertion(jws, c, &a.key.PublicKey); err != nil {
			return oauthError("invalid_client", err.Error())
		}
		token := s.issue(credential{kind: kindRunner, agent: a.id}, time.Hour)
		return ok(map[string]any{"access_token": token, "token_type": "JWT", "expires_in": 3600})
	}
	return oauthError("invalid_client", "Registration "+c.Issuer+" was not found.")
}

// runnerAlgorithm is how the runners' .credentials make them sign: PS256 (PSS)
// with requireFipsCryptography, RS256 (PKCS #1 v1.5) without. The runner names
// the algorithm that it uses in the header (actions/runner
// VssSigningCredentials.cs, RSASigningToken.SignatureAlgorithm), so that the
// other one is refused.
func (s *Server) runnerAlgorithm() jose.SignatureAlgorithm {
	if s.cfg.PKCS1Runners {
		return jose.RS256
	}
	return jose.PS256
}

// assertion has the claims of actions/runner VssOAuthJwtBearerAssertion.cs: it
// lives five minutes and has no iat.
type assertion struct {
	Issuer    string `json:"iss"`
	Subject   string `json:"sub"`
	Audience  string `json:"aud"`
	ID        string `json:"jti"`
	NotBefore int64  `json:"nbf"`
	Expires   int64  `json:"exp"`
}

func (s *Server) checkAssertion(jws *jose.JSONWebSignature, c assertion, key *rsa.PublicKey) error {
	if _, err := jws.Verify(key); err != nil {
		return errors.New("the signature is not valid")
	}
	now := time.Now().Unix()
	if c.Subject != c.Issuer || c.Audience != s.tokenURL() || c.ID == "" || c.Expires <= now || c.NotBefore > now+60 {
		return errors.New("the assertion's claims are not valid")
	}
	return nil
}

// The kinds of error of the broker that a runner acts on: actions/runner
// BrokerErrorKind.cs. It looks at a body only if source is the listener's
// (BrokerHttpClient.cs, TryParseErrorBody), and at nothing but the kind; the
// status codes are assumed.
const (
	brokerSource      = "actions-broker-listener"
	brokerJobNotFound = "AcknowledgeJobNotFound"
	brokerNoRunner    = "RunnerNotFound"
	brokerVersion     = "RunnerVersionTooOld"
	brokerNoSession   = "RunnerSessionInvalid"
	runnerVersionNews = "Runner version v2.336.0 is deprecated and cannot receive messages."
)

// FaultVersion is 403: the broker refuses the version of the runner. It is for
// the session and the messages of runners.
const FaultVersion FaultKind = "runner-version-deprecated"

// brokerFailure is actions/runner BrokerError.cs.
type brokerFailure struct {
	Source  string `json:"source"`
	Kind    string `json:"errorKind"`
	Status  int    `json:"statusCode"`
	Message string `json:"errorMessage"`
}

func brokerError(status int, kind, msg string) answer {
	return answer{status: status, header: map[string]string{"ActivityId": newGUID()}, body: brokerFailure{brokerSource, kind, status, msg}}
}

func agentGone() answer {
	return brokerError(http.StatusNotFound, brokerNoRunner, "The runner no longer exists on the server.")
}

func (s *Server) withRunner(h func(*http.Request, *agent) answer) func(*http.Request) answer {
	return func(r *http.Request) answer {
		if a := s.state.agents[callerOf(r).cred.agent]; a != nil {
			return h(r, a)
		}
		return agentGone()
	}
}

// connect opens the runner's session, once for each JIT config.
func (s *Server) connect(r *http.Request, a *agent) answer {
	var b struct {
		OwnerName string `json:"ownerName"`
		Agent     struct {
			ID   int64  `json:"id"`
			Name string `json:"name"`
		} `json:"agent"`
	}
	if decode(r, &b) != nil || b.Agent.ID != a.id || b.Agent.Name != a.name {
		return badRequest("the session is not for the runner that the token belongs to")
	}
	if a.used {
		return vssError(http.StatusConflict, "TaskAgentSessionConflictException",
			"The runner "+a.name+" already has an active session.")
	}
	a.used, a.session, a.seen, a.standIn = true, newGUID(), s.now(), b.OwnerName == standInOwner
	s.changed()
	return ok(map[string]any{
		"sessionId": a.session, "ownerName": b.OwnerName, "agent": s.showAgent(a), "encryptionKey": nil,
	})
}

func (s *Server) disconnect(r *http.Request) answer {
	if a := s.state.agents[callerOf(r).cred.agent]; a != nil {
		a.session = ""
		s.changed()
	}
	return noContent()
}

func runnerSessionExpired() answer {
	return brokerError(http.StatusBadRequest, brokerNoSession, "The session has expired.")
}

// handleRunnerPoll is GET of the runner's messages: an offer of a job while
// idle, a cancellation while busy, or 202 after the hold.
func (s *Server) handleRunnerPoll(w http.ResponseWriter, r *http.Request) {
	if !s.carries(r, kindRunner) {
		s.unauthorized(r).write(w)
		return
	}
	id := callerOf(r).cred.agent
	a, session, refused := s.beginRunnerPoll(r, id)
	if a == nil {
		refused.write(w)
		return
	}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		a.polls--
		a.seen = s.now()
	}()
	out := answer{status: http.StatusAccepted}
	err := s.await(r.Context(), s.cfg.PollHold, func(bool) bool {
		if s.state.agents[id] != a {
			// A poll that goes on beside the end of its runner's job is not
			// broken off: the runner ends by itself and would take the error
			// for the loss of its registration. Assumed.
			if a.finished {
				return false
			}
			out = agentGone()
			return true
		}
		if a.session != session {
			out = runnerSessionExpired()
			return true
		}
		m := s.nextForRunner(a)
		if m != nil {
			out = ok(m)
		}
		return m != nil
	})
	writePoll(w, out, err)
}

// beginRunnerPoll returns the runner and the session that it polls with.
func (s *Server) beginRunnerPoll(r *http.Request, id int64) (*agent, string, answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	a := s.state.agents[id]
	if a == nil {
		return nil, "", agentGone()
	}
	if a.session == "" || r.URL.Query().Get("sessionId") != a.session {
		return nil, "", runnerSessionExpired()
	}
	a.polls++
	if a.idleAt.IsZero() {
		a.idleAt = s.now()
	}
	return a, a.session, answer{}
}

func (s *Server) nextForRunner(a *agent) any {
	j := s.state.job(a.jobID)
	if j == nil {
		return nil
	}
	var kind string
	var body any
	switch {
	case j.offered == a.id && !j.delivered:
		j.delivered = true
		kind = "RunnerJobRequest"
		body = offerBody{
			ID: newGUID(), RunnerRequestID: j.JobID, ShouldAcknowledge: true,
			RunServiceURL: s.runURL(), BillingOwnerID: "O_" + s.cfg.Org,
		}
	case j.RunnerID == a.id && j.tellCancel:
		j.tellCancel = false
		kind, body = "JobCancellation", cancelBody{j.JobID, "00:05:00"}
	case j.RunnerID == a.id && j.tellFinish != "":
		// Not of GitHub: how the simulator ends the steps of its own runner.
		kind, body = finishMessage, finishBody{j.JobID, j.tellFinish}
		j.tellFinish = ""
	default:
		return nil
	}
	b, err := json.Marshal(body)
	if err != nil {
		panic(err) // strings always marshal
	}
	m := runnerMessage{ID: a.nextMsg, Type: kind, Body: string(b)}
	a.nextMsg++
	return m
}

const finishMessage = "SimulatedFinish"

type runnerMessage struct {
	ID   int64  `json:"messageId"`
	Type string `json:"messageType"`
	Body string `json:"body"`
}

type offerBody struct {
	ID                string `json:"id"`
	RunnerRequestID   string `json:"runner_request_id"`
	ShouldAcknowledge bool   `json:"should_acknowledge"`
	RunServiceURL     string `json:"run_service_url"`
	BillingOwnerID    string `json:"billing_owner_id"`
}

type cancelBody struct {
	JobID   string `json:"jobId"`
	Timeout string `json:"timeout"`
}

type finishBody struct {
	JobID      string `json:"jobId"`
	Conclusion string `json:"conclusion"`
}

// acknowledgeOffer says that the runner has the offer; it still has to acquire.
// One for a job that is not on offer any more makes an ephemeral runner end
// (actions/runner Runner.cs, RunnerRequestJobNotFoundException).
func (s *Server) acknowledgeOffer(r *http.Request, a *agent) answer {
	if a.session == "" || r.URL.Query().Get("sessionId") != a.session {
		return runnerSessionExpired()
	}
	var b struct {
		RunnerRequestID string `json:"runnerRequestId"`
	}
	if decode(r, &b) != nil {
		return badRequest("the body is not JSON")
	}
	if !strings.EqualFold(b.RunnerRequestID, a.jobID) {
		return brokerError(http.StatusNotFound, brokerJobNotFound, "this job is not on offer to the runner")
	}
	return ok(map[string]any{})
}
