package simgithub

import (
	"crypto/rsa"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Config is what a simulated GitHub is made of. The zero value of a duration
// means its default.
type Config struct {
	// BaseURL is the external scheme://host[:port], without a path. It is
	// used in every URL that the simulator hands out.
	BaseURL string
	Org     string
	OrgID   int64
	// GHES selects the older flow: JobAvailable, acquirejobs, JobAssigned.
	// Otherwise jobs are assigned to a scale set at once, as on github.com.
	GHES bool
	// PollHold is how long a poll without news is held, default 50 s.
	PollHold time.Duration
	// SessionTTL is how long a session lives without a call, default 5 min.
	SessionTTL time.Duration
	// AdminTokenTTL is the life of the Actions service token, default 1 h.
	AdminTokenTTL time.Duration
	// QueueTokenTTL is the life of a session's queue token, default 50 min.
	QueueTokenTTL time.Duration
	// OIDCTokenTTL is the life of a job's ID token, default 5 min.
	OIDCTokenTTL time.Duration
	// AssignTimeout is how long an assigned job waits for a runner before it
	// is taken back, default 5 min.
	AssignTimeout time.Duration
	// LeaseTTL is the life of a job's lease after acquisition or renewal,
	// default 10 min.
	LeaseTTL time.Duration
	// IdleReap, if positive, is the age at which a runner that never got a
	// job is deleted (actions/runner#4726 reports 2 to 6 min).
	IdleReap time.Duration
	// Token is a personal access token that REST calls may carry.
	Token string
	// TokenUser is whose token it is, empty for nobody's: then it cannot review.
	TokenUser string
	// AppClientID, AppInstallationID and AppKey admit a GitHub App.
	AppClientID       string
	AppInstallationID int64
	AppKey            *rsa.PublicKey
	// AppSlug names the App where environments list it, default runnerward.
	AppSlug string
	Webhook Webhook
	// SigningKey signs ID tokens until [Server.RotateKeys]; nil makes one. Many
	// simulators of one test binary may share a key.
	SigningKey *rsa.PrivateKey
	// Assign picks the runner for a job, default [AssignRandom] by Seed, as
	// GitHub promises no order. It is called with the simulator's lock held and
	// must not call the simulator.
	Assign Assign
	// PKCS1Runners makes runners sign their requests for a token with PKCS #1
	// v1.5 (RS256), as registrations without requireFipsCryptography have it.
	// Otherwise they use PSS (PS256).
	PKCS1Runners bool
	// ShuffleJobs considers assigned jobs in a random order instead of oldest
	// first: GitHub promises neither.
	ShuffleJobs bool
	// StrictRedelivery repeats an unacknowledged message whatever
	// lastMessageId says, as the README of actions/scaleset has it. Otherwise
	// it is repeated for a lastMessageId below its id.
	StrictRedelivery bool
	// JobStillRunningStatus answers the removal of a busy runner: 400, as
	// ARC's controller expects (the default), or 409, as the unit tests of
	// actions/scaleset do.
	JobStillRunningStatus int
	// RateLimit is the number of REST calls per hour, default 5000.
	RateLimit int
	// Enterprise is the slug of the enterprise that the organization is of;
	// it is in ID tokens.
	Enterprise   string
	EnterpriseID int64
	// EnterpriseIssuer gives the enterprise an issuer of its own, with its slug:
	// docs, "Customizing the issuer value for an enterprise".
	EnterpriseIssuer bool
	// Seed feeds everything that is random but not a credential.
	Seed uint64
}

// Assign picks one of the idle runners, named in the order in which they
// connected, for a job. An empty or unknown name leaves the job waiting until
// something changes.
type Assign func(job string, idle []string) string

// AssignOldest picks the runner that has been connected longest.
func AssignOldest(_ string, idle []string) string { return idle[0] }

// AssignRandom picks any idle runner: README of actions/scaleset, "GitHub
// assigns a pending job to any idle runner in the scale set".
func AssignRandom(seed uint64) Assign {
	rng := rand.New(rand.NewPCG(seed, 1))
	return func(_ string, idle []string) string { return idle[rng.IntN(len(idle))] }
}

const (
	maxRequeues     = 3
	offerTTL        = time.Minute
	offlineAfter    = time.Minute
	queueLimit      = 24 * time.Hour // docs: a job queued for 24 h is cancelled
	dormancy        = 7 * 24 * time.Hour
	cancelTimeout   = 5 * time.Minute // docs: workflow cancellation reference
	firstMessageID  = 100000001
	maxMessageItems = 50 // README of actions/scaleset
	installationTTL = time.Hour
	jobTokenTTL     = 5 * 24 * time.Hour // docs: the longest a self-hosted job may run
	registrationTTL = time.Hour
)

func (c *Config) defaults() {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&c.PollHold, 50*time.Second)
	set(&c.SessionTTL, 5*time.Minute)
	set(&c.AdminTokenTTL, time.Hour)
	set(&c.QueueTokenTTL, 50*time.Minute)
	set(&c.OIDCTokenTTL, 5*time.Minute)
	set(&c.AssignTimeout, 5*time.Minute)
	set(&c.LeaseTTL, 10*time.Minute)
	if c.Assign == nil {
		c.Assign = AssignRandom(c.Seed)
	}
	if c.JobStillRunningStatus == 0 {
		c.JobStillRunningStatus = http.StatusBadRequest
	}
	if c.RateLimit <= 0 {
		c.RateLimit = 5000
	}
	if c.Org == "" {
		c.Org = "octo-org"
	}
	if c.OrgID == 0 {
		c.OrgID = 65
	}
	if c.AppSlug == "" {
		c.AppSlug = "runnerward"
	}
	c.BaseURL = strings.TrimRight(c.BaseURL, "/")
}

// Server is a simulated GitHub. It is safe for concurrent use.
type Server struct {
	cfg Config
	mux *http.ServeMux

	mu      sync.Mutex
	state   state
	settled time.Time     // up to when transitions have been made
	wake    chan struct{} // closed and replaced at each change
	closed  bool
	rng     *rand.Rand
	keys    []signingKey
	secret  []byte
	creds   map[string]credential
	log     []Request
	faults  []*Fault
	limit   rateWindow

	ahead        atomic.Int64 // nanoseconds; see now
	deliveries   []delivery
	nextDelivery int64
	orgSubject   []string // the organization's template for sub
	orgImmutable bool
	// claimedProperties are the custom properties that ID tokens show.
	claimedProperties []string
	unknown           []string // requests that no route answers

	standIns standIns // its lock is never held together with mu
}

// New makes a GitHub with one organization and its default runner group.
func New(cfg Config) *Server {
	cfg.defaults()
	s := &Server{
		cfg:     cfg,
		wake:    make(chan struct{}),
		rng:     rand.New(rand.NewPCG(cfg.Seed, 2)),
		secret:  randomBytes(32),
		creds:   map[string]credential{},
		state:   newState(),
		settled: time.Now(),
	}
	s.state.groups[1] = &group{id: 1, isDefault: true, Group: Group{Name: "Default", Visibility: "all"}}
	s.mux = http.NewServeMux()
	s.routeREST()
	s.routeService()
	s.routeBroker()
	s.routeOIDC()
	s.mux.HandleFunc("/", s.handleUnknown)
	return s
}

// Close ends every held poll with 503, so that an HTTP server around the
// simulator can shut down, and every runner of [Server.ConnectRunner]. Requests
// after it are served as before, except that no poll is held any more.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	s.changed()
	s.mu.Unlock()
	s.endStandIns()
}

// changed wakes every held poll. The caller holds the lock.
func (s *Server) changed() {
	close(s.wake)
	s.wake = make(chan struct{})
}
