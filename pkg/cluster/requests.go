package cluster

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/runnerward/runnerward/pkg/supervisor"
)

// Requests counts the calls of a client by verb, resource and answer. The zero
// value is ready, nil counts nothing; it is safe for concurrent use.
type Requests struct {
	mu    sync.Mutex
	calls map[supervisor.RequestCount]int64 // keyed with a Count of 0
}

// Wrap counts what goes through a transport.
func (q *Requests) Wrap(next http.RoundTripper) http.RoundTripper { return counted{q, next} }

// Counts are the calls so far, ordered by resource, verb and answer.
func (q *Requests) Counts() []supervisor.RequestCount {
	if q == nil {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	out := make([]supervisor.RequestCount, 0, len(q.calls))
	for call, n := range q.calls {
		call.Count = n
		out = append(out, call)
	}
	slices.SortFunc(out, func(a, b supervisor.RequestCount) int {
		return cmp.Or(cmp.Compare(a.Resource, b.Resource), cmp.Compare(a.Verb, b.Verb), cmp.Compare(a.Code, b.Code))
	})
	return out
}

type counted struct {
	requests *Requests
	next     http.RoundTripper
}

// RoundTrip implements [http.RoundTripper].
func (c counted) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := c.next.RoundTrip(r)
	call := callOf(r)
	if err == nil {
		call.Code = answer.StatusCode
	}
	c.requests.mu.Lock()
	defer c.requests.mu.Unlock()
	if c.requests.calls == nil {
		c.requests.calls = map[supervisor.RequestCount]int64{}
	}
	c.requests.calls[call]++
	return answer, err
}

// callOf reads verb and resource off a path of the API.
// https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-uris
func callOf(r *http.Request) supervisor.RequestCount {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	skip := 2 // api/v1
	if parts[0] == "apis" {
		skip = 3 // apis/GROUP/v1
	}
	rest := parts[min(skip, len(parts)):]
	if len(rest) > 2 && rest[0] == "namespaces" {
		rest = rest[2:]
	}
	if (parts[0] != "api" && parts[0] != "apis") || len(rest) == 0 {
		return supervisor.RequestCount{Verb: strings.ToLower(r.Method)} // of no resource, such as /version
	}
	call := supervisor.RequestCount{Resource: rest[0]}
	switch named := len(rest) > 1; {
	case r.Method == http.MethodGet && watches(r):
		call.Verb = "watch"
	case r.Method == http.MethodGet && named:
		call.Verb = "get"
	case r.Method == http.MethodGet:
		call.Verb = "list"
	case r.Method == http.MethodPost:
		call.Verb = "create"
	case r.Method == http.MethodPut:
		call.Verb = "update"
	default:
		call.Verb = strings.ToLower(r.Method) // patch, delete
	}
	return call
}
