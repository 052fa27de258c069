package simgithub

import (
	"bytes"
	"net/http"
	"strings"
)

// Answered is an answer of the REST API, before any fault spoilt it.
type Answered struct {
	Request *http.Request // its Pattern names the route
	Status  int
	Header  http.Header
	Body    []byte
}

// Observe tells f of every REST answer from now on. f runs on the goroutine of
// the request, without the lock.
func (s *Server) Observe(f func(Answered)) {
	inner := s.mux
	s.mux = http.NewServeMux()
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, restPath+"/") {
			inner.ServeHTTP(w, r)
			return
		}
		rec := &recorder{head: w.Header().Clone()}
		inner.ServeHTTP(rec, r)
		body := bytes.Clone(rec.body.Bytes())
		f(Answered{r, max(rec.status, http.StatusOK), rec.head.Clone(), body})
		rec.replay(w, body)
	})
}
