package simcluster

import (
	"errors"
	"io"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Request is one call that was answered. Status is the HTTP status, 0 when the
// connection was dropped.
type Request struct {
	Seq                  int
	Time                 time.Time
	Verb, Resource, Name string
	Status               int
}

// Requests is the log of all calls so far, in order.
func (c *Cluster) Requests() []Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Request(nil), c.requests...)
}

func (c *Cluster) log(r request, err error) {
	name := r.name
	if name == "" && r.object != nil {
		name = nameOf(r.object)
	}
	c.requests = append(c.requests, Request{
		Seq: len(c.requests) + 1, Time: time.Now(), Verb: r.verb, Resource: r.resource, Name: name, Status: statusOf(r.verb, err),
	})
}

func statusOf(verb string, err error) int {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	switch {
	case ok:
		return int(status.ErrStatus.Code)
	case err != nil:
		return 0
	case verb == "create":
		return http.StatusCreated
	}
	return http.StatusOK
}

// Fault is a failure of the API server for the next Count calls with this
// verb and resource; an empty verb or resource means any. With After the call
// is carried out and only its answer is lost. Err is one of [Unavailable]
// (when nil), [TimedOut], [Dropped] or any error of apimachinery.
type Fault struct {
	Verb, Resource string
	Count          int
	After          bool
	Err            error
}

// Dropped closes the connection without an answer.
func Dropped() error { return io.ErrUnexpectedEOF }

// Unavailable is what a load balancer says when no API server is up.
func Unavailable() error { return apierrors.NewServiceUnavailable("apiserver not ready") }

// TimedOut is what an API server says that has lost its etcd in the middle.
func TimedOut() error {
	return apierrors.NewTimeoutError("request did not complete within the allotted timeout", 0)
}

// Inject adds a fault; faults are used in the order in which they were added.
func (c *Cluster) Inject(f Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.Count <= 0 {
		f.Count = 1
	}
	if f.Err == nil {
		f.Err = Unavailable()
	}
	c.faults = append(c.faults, &f)
}

// Mend takes away the faults that are left.
func (c *Cluster) Mend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = nil
}

// take finds the fault that applies to this call and uses it up by one.
func (c *Cluster) take(r request) *Fault {
	for _, f := range c.faults {
		if f.Count > 0 && (f.Verb == "" || f.Verb == r.verb) && (f.Resource == "" || f.Resource == r.resource) {
			f.Count--
			return f
		}
	}
	return nil
}
