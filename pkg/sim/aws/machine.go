package simaws

import (
	"fmt"
	"maps"
	"time"
)

// Terminate ends an instance as TerminateInstances does that somebody else calls,
// such as Karpenter: no credentials of ours are asked for.
func (s *Server) Terminate(instanceID string) error {
	s.mu.Lock()
	defer s.release()
	now := time.Now()
	s.advance(now)
	in := s.find(instanceID)
	switch {
	case in == nil || !s.listed(in, now):
		return fmt.Errorf("terminate %s: no such instance", instanceID)
	case in.protected:
		return fmt.Errorf("terminate %s: protected by disableApiTermination", instanceID)
	}
	s.end(in, true, now)
	s.advance(now)
	return nil
}

// Tag adds tags to an instance, as CreateTags does.
func (s *Server) Tag(instanceID string, tags map[string]string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.find(instanceID)
	if in == nil || !s.listed(in, time.Now()) {
		return fmt.Errorf("tag %s: no such instance", instanceID)
	}
	maps.Copy(in.Tags, tags)
	return nil
}
