package scaleset

import (
	"fmt"
	"time"

	upstream "github.com/actions/scaleset"
	"go.uber.org/zap"

	"github.com/runnerward/runnerward/pkg/supervisor"
)

// The states of the message session, as supervisor.QueueHealth names them.
const (
	sessionNone     = "none"
	sessionConflict = "conflict"
	sessionOpen     = "open"
)

// Health implements supervisor.Queue. LastError tells of a fault that lasts,
// Warnings for a day of a job that had to be skipped.
func (s *ScaleSet) Health() supervisor.QueueHealth {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.health
	if s.skips.count > 0 && time.Since(s.skips.at) < skipShown {
		h.Warnings = []string{fmt.Sprintf("%d jobs of queue messages were skipped and will not run here, the last at %s: %v",
			s.skips.count, s.skips.at.UTC().Format(time.RFC3339), s.skips.last)}
	}
	if s.drift != nil {
		h.Problems = []string{s.drift.Error()}
	}
	h.ClockSkew, h.Rates = s.tap.seen()
	return h
}

func (s *ScaleSet) setSession(state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.health.Session != state {
		s.health.Session, s.health.SessionAge = state, time.Now()
	}
}

// failing notes the n-th failure in a row. The log gets the first ones and
// then every tenth, Health always the latest.
func (s *ScaleSet) failing(err error, n int) {
	s.mu.Lock()
	s.health.LastError = err.Error()
	if n > 1 {
		s.health.LastError = fmt.Sprintf("%v (%d times in a row)", err, n)
	}
	s.mu.Unlock()
	if n <= 3 || n%10 == 0 {
		s.log.Warn("the message queue fails", zap.Error(err), zap.Int("failures", n))
	}
}

// polled notes a poll that was answered and handled.
func (s *ScaleSet) polled() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.health.LastPoll = time.Now()
}

// handled notes that a poll was dealt with to the end; id is the message that
// was acknowledged, 0 when there was none.
func (s *ScaleSet) handled(id int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.health.LastError = ""
	if id != 0 {
		s.health.LastID = int64(id)
	}
}

// skip tells loudly of a job that a message named and nobody can record.
// Nothing can be authorized for it, so it cannot run here.
func (s *ScaleSet) skip(messageID int, err error) {
	s.mu.Lock()
	s.skips.count++
	s.skips.last, s.skips.at = err, time.Now()
	s.mu.Unlock()
	s.log.Error("skipped a job that cannot be recorded", zap.Int("message_id", messageID), zap.Error(err))
}

// count keeps GitHub's counters. A message without
// counters says nothing about them.
func (s *ScaleSet) count(st *upstream.RunnerScaleSetStatistic) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st != nil {
		s.health.Statistics = supervisor.Statistics{
			Available: st.TotalAvailableJobs, Acquired: st.TotalAcquiredJobs,
			Assigned: st.TotalAssignedJobs, Running: st.TotalRunningJobs,
			Registered: st.TotalRegisteredRunners, Busy: st.TotalBusyRunners, Idle: st.TotalIdleRunners,
		}
	}
}
