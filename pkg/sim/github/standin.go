package simgithub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// StandIn is a [Runner] to connect inside the simulator's process, so that a
// scale set client can be tested without any runner.
type StandIn struct {
	// Name of a registered runner whose JIT config nobody has used. JITConfig
	// stands for it and is what a client got.
	Name, JITConfig string
	// HookFails makes its job-started hook end with an error.
	HookFails bool
}

// standIns are those that run.
type standIns struct {
	mu     sync.Mutex
	all    map[string]*running // by lower-case name
	closed bool
	group  sync.WaitGroup
}

type running struct {
	stop func()             // SIGTERM
	kill context.CancelFunc // SIGKILL
	done chan struct{}      // closed at its end
}

// ConnectRunner starts the stand-in and returns once its session is open, or an
// error if there is no such registration, its JIT config was used already, or
// the runner ended instead. The runner lives until its job is over, or
// [Server.StopRunner] or [Server.Close].
func (s *Server) ConnectRunner(ctx context.Context, in StandIn) error {
	a, jit, err := s.unusedJIT(in)
	if err != nil {
		return err
	}
	name := strings.ToLower(a.name)
	life, kill := context.WithCancel(context.WithoutCancel(ctx))
	sigterm := make(chan struct{})
	r := &running{stop: sync.OnceFunc(func() { close(sigterm) }), kill: kill, done: make(chan struct{})}
	var hook func(context.Context, map[string]string) error
	if in.HookFails {
		hook = func(context.Context, map[string]string) error { return errors.New("the hook is to fail") }
	}
	if err := s.standIns.start(name, r, func() {
		defer kill()
		Runner{Client: &http.Client{Transport: inProcess{s}}, Stop: sigterm}.Run(life, jit, hook)
	}); err != nil {
		kill()
		return err
	}
	return s.awaitSession(ctx, a, r.done)
}

// start runs a stand-in and lists it until its end.
func (all *standIns) start(name string, r *running, run func()) error {
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.closed {
		return errClosed
	}
	if all.all == nil {
		all.all = map[string]*running{}
	}
	all.all[name] = r
	all.group.Go(func() {
		run()
		all.mu.Lock()
		delete(all.all, name)
		all.mu.Unlock()
		close(r.done)
	})
	return nil
}

// unusedJIT is the configuration of the runner that is meant.
func (s *Server) unusedJIT(in StandIn) (a *agent, jit string, err error) {
	name := in.Name
	if in.JITConfig != "" {
		var file runnerFile
		if err := decodeJIT(in.JITConfig, map[string]any{".runner": &file}); err != nil {
			return nil, "", fmt.Errorf("read the JIT config: %w", err)
		}
		name = file.AgentName
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	switch a = s.state.agentByName(name); {
	case a == nil:
		return nil, "", fmt.Errorf("no runner %q is registered", name)
	case a.used:
		return nil, "", fmt.Errorf("the JIT config of %s was used already", name)
	case in.JITConfig != "":
		return a, in.JITConfig, nil
	}
	jit, err = s.jitConfig(a)
	return a, jit, err
}

// awaitSession returns when the runner's session was opened, be it over already.
func (s *Server) awaitSession(ctx context.Context, a *agent, ended <-chan struct{}) error {
	over := false
	for {
		s.mu.Lock()
		opened, wake := a.used, s.wake
		s.mu.Unlock()
		switch {
		case opened:
			return nil
		case over:
			return fmt.Errorf("the runner %s ended: GET %srequests shows why", a.name, controlPath)
		}
		select {
		case <-wake:
		case <-ended:
			over = true
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// StopRunner sends a stand-in SIGTERM, or kills it so that it reports nothing
// more. It returns an error if no such stand-in runs.
func (s *Server) StopRunner(name string, kill bool) error {
	s.standIns.mu.Lock()
	r := s.standIns.all[strings.ToLower(name)]
	s.standIns.mu.Unlock()
	switch {
	case r == nil:
		return fmt.Errorf("no stand-in %q runs", name)
	case kill:
		r.kill()
		<-r.done
	default:
		r.stop()
	}
	return nil
}

// StandIns are the names of the stand-ins that run.
func (s *Server) StandIns() []string {
	s.standIns.mu.Lock()
	defer s.standIns.mu.Unlock()
	return slices.Sorted(maps.Keys(s.standIns.all))
}

// endStandIns kills all and waits for their end.
func (s *Server) endStandIns() {
	s.standIns.mu.Lock()
	s.standIns.closed = true
	for _, r := range s.standIns.all {
		r.kill()
	}
	s.standIns.mu.Unlock()
	s.standIns.group.Wait()
}

// inProcess carries requests to the simulator without a network.
type inProcess struct{ s *Server }

// RoundTrip returns an error for a connection that the simulator dropped.
func (t inProcess) RoundTrip(r *http.Request) (resp *http.Response, err error) {
	defer func() {
		if p := recover(); p == http.ErrAbortHandler {
			resp, err = nil, io.ErrUnexpectedEOF
		} else if p != nil {
			panic(p)
		}
	}()
	in := r.Clone(r.Context())
	if in.Body == nil {
		in.Body = http.NoBody
	}
	defer in.Body.Close()
	in.Host, in.RequestURI = r.URL.Host, r.URL.RequestURI()
	rec := &recorder{head: http.Header{}}
	t.s.ServeHTTP(rec, in)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return &http.Response{
		Status: http.StatusText(max(rec.status, http.StatusOK)), StatusCode: max(rec.status, http.StatusOK), Proto: "HTTP/1.1",
		ProtoMajor: 1, ProtoMinor: 1, Header: rec.head, Body: io.NopCloser(&rec.body), ContentLength: int64(rec.body.Len()), Request: r,
	}, nil
}
