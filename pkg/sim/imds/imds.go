// Package simimds is a pretend EC2 instance metadata service, version 2 only,
// and an authority that signs instance identity documents as AWS does. It
// keeps its session tokens and refuses what the real service refuses.
package simimds

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The headers of IMDSv2.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html
const (
	headerTTL   = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"
	headerToken = "X-Aws-Ec2-Metadata-Token"
	maxTTL      = 21600 // seconds, six hours
)

// identityPath is where the documents are.
const identityPath = "/latest/dynamic/instance-identity/"

// Server serves one instance's identity. It is safe for concurrent use.
type Server struct {
	mu       sync.Mutex
	files    map[string][]byte
	tokens   map[string]time.Time // until when each is good
	issued   int
	answer   func(w http.ResponseWriter, r *http.Request) bool
	requests []string
}

// NewServer serves this document and its rsa2048 signature. A nil signature is
// an instance whose service has none: its path is 404.
func NewServer(document, signature []byte) *Server {
	s := &Server{files: map[string][]byte{identityPath + "document": document}, tokens: map[string]time.Time{}}
	if signature != nil {
		s.files[identityPath+"rsa2048"] = signature
	}
	return s
}

// Answer lets f answer requests instead: it says whether it did.
func (s *Server) Answer(f func(w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = f
}

// Forget makes every token invalid, as a restart of the service does.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tokens)
}

// Requests are all requests so far, as "METHOD PATH STATUS".
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.requests...)
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	answer := s.answer
	s.mu.Unlock()
	if answer != nil && answer(w, r) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	status, body := s.serve(r)
	s.requests = append(s.requests, fmt.Sprintf("%s %s %d", r.Method, r.URL.Path, status))
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(status)
	_, _ = w.Write(body) // a caller that went away is its own affair
}

func (s *Server) serve(r *http.Request) (status int, body []byte) {
	if r.URL.Path == "/latest/api/token" {
		return s.issue(r)
	}
	if r.Method != http.MethodGet {
		return http.StatusMethodNotAllowed, nil
	}
	// HttpTokens=required: no token, an unknown or an old one are all 401.
	until, known := s.tokens[r.Header.Get(headerToken)]
	if !known || !time.Now().Before(until) {
		return http.StatusUnauthorized, nil
	}
	file, ok := s.files[r.URL.Path]
	if !ok {
		return http.StatusNotFound, nil
	}
	return http.StatusOK, file
}

// issue makes a session token. The service refuses a PUT that came through a
// proxy: one with X-Forwarded-For.
func (s *Server) issue(r *http.Request) (status int, body []byte) {
	switch {
	case r.Method != http.MethodPut:
		return http.StatusMethodNotAllowed, nil
	case len(r.Header.Values("X-Forwarded-For")) > 0:
		return http.StatusForbidden, nil
	}
	ttl, err := strconv.Atoi(strings.TrimSpace(r.Header.Get(headerTTL)))
	if err != nil || ttl < 1 || ttl > maxTTL {
		return http.StatusBadRequest, nil
	}
	s.issued++
	token := fmt.Sprintf("AQAEA-simulated-%d==", s.issued)
	s.tokens[token] = time.Now().Add(time.Duration(ttl) * time.Second)
	return http.StatusOK, []byte(token)
}
