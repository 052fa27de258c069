// Package supervisor is the shell around the pure core of pkg/runner: the only
// goroutines and the only clock. It writes every fact to the ledger before it
// acts on it, asks the core what is outstanding, and does that.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/runnerward/runnerward/pkg/runner"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// One job's way. Every arrow into the ledger is durable before the line below
// it happens; after a crash the same state gives the same outstanding work.
//
//	GitHub queue ─▶ Observe ──▶ offered ─▶ acknowledged
//	                Next: decide ─ facts, policy ──▶ authorized │ denied ─▶ run cancelled
//	                Next: claim a vetted host ─────▶ claimed ─▶ node cordoned, host protected, pod pinned to it
//	agent in pod ─▶ Claim  ─ TokenReview ──────────▶ bound ─▶ JIT config generated
//	                                                 released ─▶ JIT config handed over
//	job's hook ───▶ Start  ─ OIDC token, policy ───▶ started │ refused ─▶ pod killed, run cancelled
//	                Next: watch ─ pod and registration over ─▶ completed │ retired
//	                Next: tear down ───────────────▶ teardown ─▶ pod, registration, instance ended
//	                      observed gone ───────────▶ terminated
//	                Next: seal ────────────────────▶ sealed, the job-to-host statement

// Options are what a supervisor is made of. All ports but Documents are required.
type Options struct {
	Ledger    Ledger
	Queue     Queue
	Registrar Registrar
	GitHub    GitHub
	Identity  Identity
	Policy    Policy
	Cluster   Cluster
	Hosts     Hosts
	// Documents is nil where no host has a witness.
	Documents Documents

	Pool   runner.Pool
	Limits runner.Limits
	Rules  runner.VetRules

	// Tick is how often the world is looked at while something is outstanding.
	Tick time.Duration
	// CallTimeout bounds one task's calls to the outside.
	CallTimeout time.Duration
	// History is how long finished jobs stay in the view.
	History time.Duration
	// NewsEvery is how often GitHub is asked what it told our App; 0 is never.
	NewsEvery time.Duration
	// AnswerDeployments says that we answer as a custom deployment protection
	// rule, with the policy's reasons in the words of Explain.
	AnswerDeployments bool
	Explain           func(code string) string

	// NewName returns a name that was never used and cannot be guessed.
	NewName func() runner.Name

	Version, Instance string
	FIPS              FIPS
	// Config is the configuration in effect and Root what verifies the log.
	// Both are stored in the ledger and hold no secret.
	Config, Root []byte
	// Rotation makes the next record by which a signing key of the log hands
	// over to another at this time, nil when none is to be made. It is called
	// at the start only, never concurrently with the ledger.
	Rotation  func(ctx context.Context, at time.Time) (runner.Event, error)
	ServerURL string // of GitHub, for links

	Logger *zap.Logger
	// OnRecord is told of every record after it is durable and folded, in
	// order; it must be quick. State must not be kept or changed.
	OnRecord func(rec runner.Record, state *runner.State)
	// OnRebuff is told of every refusal at a gate that is the caller's doing,
	// also of those that are on record already. cause is empty where it could
	// not be found out. It must be quick and safe for concurrent use.
	OnRebuff func(gate runner.Gate, cause runner.RebuffCause)
}

// Supervisor runs one pool. Its methods are safe for concurrent use.
type Supervisor struct {
	Options
	started time.Time

	// turn holds one token: whoever has it may read and change state and write
	// to the ledger. A channel and not a mutex, so that waiting for it ends
	// with the caller's context.
	turn  chan struct{}
	state *runner.State
	// unsure is set while an append failed and may or may not have happened,
	// and while records wait in the spool; then it is an ErrAway.
	unsure error
	// drainAt is when the store is asked again whether it takes what waits in
	// the spool, drains how often it did not.
	drainAt time.Time
	drains  int

	poke  chan struct{}
	lanes *lanes
	gate  *gates
	// rebuffs are refusals at the gates that are to be recorded.
	rebuffs rebuffs
	sight   *sightings
	pool    *poolLooks
	unfit   *unfits
	// silence are the hosts in use of whose kubelet nothing is heard.
	silence silences
	// witnesses are the identity documents of hosts.
	witnesses *witnesses
	hosts     atomic.Pointer[[]HostView]
	view      atomic.Pointer[View]
	rows      rows
	// looked is when the settle loop last looked at its work.
	looked atomic.Pointer[time.Time]
	// hearing holds one token while the news are read.
	hearing chan struct{}
	// heard is until when the news of the App were read, nil before the first time.
	heard atomic.Pointer[time.Time]
	// unheard is what of the news could not be understood last, nil for none.
	unheard atomic.Pointer[unheard]
	fatal   chan error
}

// New folds the records that are already in the ledger. Nothing is written or
// called before [Supervisor.Run].
func New(opts Options, records []runner.Record) (*Supervisor, error) {
	if err := opts.validate(); err != nil {
		return nil, err
	}
	s := &Supervisor{
		Options:   opts,
		started:   time.Now(),
		turn:      make(chan struct{}, 1),
		state:     runner.NewState(),
		poke:      make(chan struct{}, 1),
		lanes:     newLanes(opts.Tick),
		gate:      newGates(),
		sight:     newSightings(),
		witnesses: newWitnesses(),
		hearing:   make(chan struct{}, 1),
		fatal:     make(chan error, 1),
		pool:      newPoolLooks(),
		unfit:     newUnfits(),
	}
	for _, rec := range records {
		if err := s.state.Apply(rec); err != nil {
			return nil, fmt.Errorf("record %d of the ledger: %w", rec.Index, err)
		}
	}
	if s.Ledger.Spool().Kept > 0 {
		s.unsure = errUntold
	}
	s.hosts.Store(&[]HostView{})
	s.looked.Store(&s.started)
	s.turn <- struct{}{}
	s.publish()
	return s, nil
}

func (o Options) validate() error {
	var missing []error
	for name, port := range map[string]any{
		"Ledger": o.Ledger, "Queue": o.Queue, "Registrar": o.Registrar, "GitHub": o.GitHub, "Identity": o.Identity,
		"Policy": o.Policy, "Cluster": o.Cluster, "Hosts": o.Hosts, "Logger": o.Logger,
	} {
		if port == nil {
			missing = append(missing, fmt.Errorf("supervisor: no %s given", name))
		}
	}
	if o.Rules.IdentityRequired && o.Documents == nil {
		missing = append(missing, errors.New("supervisor: identity documents are required, and no Documents given"))
	}
	if o.NewName == nil {
		missing = append(missing, errors.New("supervisor: no NewName given"))
	}
	if o.Tick <= 0 || o.CallTimeout <= 0 || o.Limits.MaxRunners <= 0 || o.Limits.AuthorizedFor <= 0 {
		missing = append(missing, errors.New("supervisor: Tick, CallTimeout, Limits.MaxRunners and Limits.AuthorizedFor must be positive"))
	}
	return errors.Join(missing...)
}

// Run works until the context ends or the log is lost to another writer. It
// returns nil after an orderly end, and [ErrFenced] when another supervisor
// writes: then this process must end and start nothing more.
func (s *Supervisor) Run(parent context.Context) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		select {
		case err := <-s.fatal:
			return err
		case <-ctx.Done():
			return nil
		}
	})
	if err := s.open(ctx); err != nil {
		cancel(nil)
		// Being fenced off ends the context too, and is no orderly end.
		switch fatal := group.Wait(); {
		case fatal != nil:
			return fatal
		case parent.Err() != nil:
			return nil
		}
		return err
	}
	group.Go(func() error { return s.settle(ctx) })
	group.Go(func() error { return s.listen(ctx) })
	err := group.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// Leave waits for whoever writes to the ledger, and sees to it that nobody does
// again: it takes the turn for good, and a call that needs it fails when its
// context ends. It is for the time after Run, when questions may still be under
// way. With an error the ledger is still being written and must not be closed.
func (s *Supervisor) Leave(ctx context.Context) error {
	select {
	case <-s.turn:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("a record is still being written: %w", context.Cause(ctx))
	}
}

// open records that this daemon writes from here on, and lets new keys take
// over. It keeps trying while the ledger or the keys are away: until then
// nothing else happens.
func (s *Supervisor) open(ctx context.Context) error {
	for _, write := range []func(context.Context) error{s.recordOpened, s.rotate} {
		err := s.insist(ctx, func() error {
			// Opened is what fences another daemon: it counts only in the store, and
			// until it is there nothing is ended either. A handover that went into
			// the spool must leave it before the next one: nobody else drains yet.
			if err := s.locked(ctx, func() error { return s.drain(ctx) }); err != nil {
				return err
			}
			return write(ctx)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// insist writes to the log until it succeeds or cannot.
func (s *Supervisor) insist(ctx context.Context, write func() error) error {
	for {
		err := write()
		if err == nil || errors.Is(err, ErrFenced) || ctx.Err() != nil {
			return err
		}
		if _, ok := errors.AsType[*runner.Violation](err); ok {
			return fmt.Errorf("open the log: %w", err)
		}
		s.Logger.Error("cannot open the log, trying again", zap.Error(err))
		if !wait(ctx, s.Tick) {
			return ctx.Err()
		}
	}
}

// recordOpened stores what is in effect from here on and then says so.
func (s *Supervisor) recordOpened(ctx context.Context) error {
	opened := runner.Opened{Version: s.Version, Instance: s.Instance, FIPS: s.FIPS.Enabled, FIPSModule: s.FIPS.Module}
	for _, document := range []struct {
		content []byte
		digest  *runner.Digest
	}{{s.Config, &opened.ConfigDigest}, {s.Policy.Archive(), &opened.PolicyDigest}, {s.Root, &opened.RootDigest}} {
		var err error
		if *document.digest, err = s.Ledger.PutBlob(ctx, document.content); err != nil {
			return fmt.Errorf("store what is in effect: %w", err)
		}
	}
	return s.record(ctx, opened)
}

func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// listen waits for the first look at the pool of hosts: before it no job is
// wanted, and a poll that says so cannot be cut short.
func (s *Supervisor) listen(ctx context.Context) error {
	select {
	case <-s.pool.tried:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return s.Queue.Run(ctx, s.capacity, s.Observe)
}

// Unbound says whether a runner waits for a job: GitHub's word that one
// started does not wake the long poll, so the queue is asked more often then.
func (s *Supervisor) Unbound() bool { return s.view.Load().unbound }

// capacity is how many jobs GitHub may assign to us. Zero is the fail-closed
// switch: frozen, unsure of the log, a clock that cannot be trusted, a boundary
// that is not what it should be, or pods that do not start.
func (s *Supervisor) capacity() int {
	v := s.view.Load()
	if v.Frozen != nil || v.Ledger.LastError != "" || s.clockProblem(v.Ledger.LastAt) != "" || len(v.Closed) > 0 || v.HeldBack != "" {
		return 0
	}
	if len(s.Queue.Health().Problems) > 0 || len(s.pool.problems(time.Now())) > 0 {
		return 0
	}
	return s.Limits.MaxRunners
}

// Observe makes what a message said durable. Events that the log already holds
// are passed over, so a redelivered message changes nothing. An error means
// that the message must not be acknowledged.
func (s *Supervisor) Observe(ctx context.Context, msg Message) error {
	events, err := s.inOrder(ctx, msg)
	if err != nil {
		return err
	}
	for _, e := range events {
		err := s.record(ctx, e)
		switch violation, ok := errors.AsType[*runner.Violation](err); {
		case err == nil:
		case ok && violation.Invariant != 8:
			// GitHub said something that cannot be true of the log. It stays
			// without effect; refusing the message would block all after it.
			s.Logger.Error("message contradicts the log", zap.Int64("message", msg.ID),
				zap.String("kind", string(e.Kind())), zap.Error(err))
		default:
			return fmt.Errorf("record %s of message %d: %w", e.Kind(), msg.ID, err)
		}
	}
	return nil
}

// inOrder puts the end of a job's earlier assignment before its new one.
// GitHub takes back a job that found no runner and assigns it again, at times
// in one message, and the client hands us such a message without its order.
func (s *Supervisor) inOrder(ctx context.Context, msg Message) ([]runner.Event, error) {
	concluded := map[runner.JobID]runner.Event{}
	for _, e := range msg.Events {
		if c, ok := e.(runner.Concluded); ok {
			concluded[c.Job] = c
		}
	}
	var first []runner.Event
	err := s.locked(ctx, func() error {
		for _, e := range msg.Events {
			offered, ok := e.(runner.Offered)
			if !ok || offered.Implied || concluded[offered.Job] == nil {
				continue
			}
			job := s.state.Jobs[offered.Job]
			if job != nil && job.Runner == "" && job.Concluded == nil && job.Offered.Event.MessageID < msg.ID {
				first = append(first, concluded[offered.Job])
			}
		}
		return nil
	})
	return append(first, msg.Events...), err
}
