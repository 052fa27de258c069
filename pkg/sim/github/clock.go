package simgithub

import (
	"errors"
	"time"
)

// now is the simulator's clock: the machine's and what [Server.Advance] added.
// Everything that falls due is computed from it. The machine's own clock is
// used only for what is measured while a client waits (the hold of a poll, the
// rate limit's hour) and for what a client compares with its own clock: the
// claims of tokens and the JWTs that it signs.
func (s *Server) now() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) }

// Advance moves the simulator's clock ahead: sessions, leases, offers, waiting
// jobs and tokens grow older by d, each thing that falls due happens at its own
// time, and held polls are woken. It returns the new time, or an error if d is
// negative: facts that have been told cannot be taken back.
func (s *Server) Advance(d time.Duration) (time.Time, error) {
	if d < 0 {
		return time.Time{}, errors.New("the clock goes forward only")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	s.ahead.Add(int64(d))
	s.settle()
	s.changed()
	return s.now(), nil
}
