// Package conformance says what GitHub's runner scale set service does, as rules
// that run against the simulator through any client: plain HTTP (this package),
// the official client (test/conformance here) and an older one of it (the nested
// module v010). The simulator is thus measured by clients that we did not write.
package conformance

import (
	"context"
	"net/http"
	"time"
)

// Client is a scale set client as far as the rules need one. Errors must hold the
// HTTP status and the service's exception in their text.
type Client interface {
	GroupID(ctx context.Context, name string) (int, error)
	// FindSet is nil for a scale set that does not exist.
	FindSet(ctx context.Context, group int, name string) (*Set, error)
	CreateSet(ctx context.Context, set Set) (*Set, error)
	DeleteSet(ctx context.Context, id int) error
	// Register makes a just-in-time registration.
	Register(ctx context.Context, set int, name string) (Registration, error)
	// FindRunner is 0 for a runner that does not exist.
	FindRunner(ctx context.Context, name string) (int, error)
	RemoveRunner(ctx context.Context, id int) error
	Open(ctx context.Context, set int, owner string) (Session, error)
}

// Session is an open message session.
type Session interface {
	// Poll is nil when there is no message.
	Poll(ctx context.Context, last, capacity int) (*Message, error)
	Acknowledge(ctx context.Context, id int) error
	Close(ctx context.Context) error
}

// Acquirer is a session that can take jobs on offer; the client of February 2026
// could not.
type Acquirer interface {
	Acquire(ctx context.Context, ids []int64) ([]int64, error)
}

// Set is a runner scale set.
type Set struct {
	ID, GroupID int
	Name        string
	Labels      []string
}

// Registration is a just-in-time runner.
type Registration struct {
	ID      int
	Encoded string
}

// Message is what the queue said, with the ids of jobs by the kind of news.
type Message struct {
	ID                                     int
	Available                              []int64
	Assigned, Started, Completed           []string
	TotalAssigned, TotalRunning, TotalIdle int
	// NoStatistics says that the message came without counters.
	NoStatistics bool
}

// Target is where a client connects to and as whom.
type Target struct {
	// URL is that of the organization.
	URL, Token string
	// HTTP reaches it.
	HTTP *http.Client
	// Service reaches the TLS server, for clients that take no HTTP client.
	RootsPEM []byte
	Timeout  time.Duration
	// wire keeps what plain HTTP saw.
	wire *wire
}
