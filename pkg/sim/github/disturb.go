package simgithub

import (
	"strings"
)

// disturb lets something happen to the world just before a request. What finds
// nothing to happen to costs the fault nothing.
func (s *Server) disturb(f *Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	if f.Count == 0 { // another request was faster
		return
	}
	happened := false
	switch f.Kind {
	case FaultSessionGone:
		happened = s.endSessions()
	case FaultFalseEnd:
		happened = s.endFalsely()
	case FaultGroupRenamed:
		happened = s.changeGroups(f.Group, rename)
	case FaultGroupOpened:
		happened = s.changeGroups(f.Group, open)
	}
	if happened {
		f.spend()
		s.changed()
	}
}

// endSessions ends every message session, as a server that lost its memory.
func (s *Server) endSessions() (found bool) {
	for _, set := range s.state.sets {
		found = found || set.session != nil
		s.endSession(set, s.now())
	}
	return found
}

// endFalsely reports every job that runs as completed, and leaves it running
// (actions/runner#4492).
func (s *Server) endFalsely() (found bool) {
	for _, j := range s.state.jobs {
		if j.Status == "in_progress" && s.state.sets[j.ScaleSetID] != nil {
			s.announce(j, "JobCompleted", "canceled")
			found = true
		}
	}
	return found
}

// renamed is what a group's name ends with once it was renamed by a fault.
const renamed = "-renamed"

func rename(g *Group) bool {
	if strings.HasSuffix(g.Name, renamed) {
		return false
	}
	g.Name += renamed
	return true
}

func open(g *Group) bool {
	if g.Visibility == "all" && !g.RestrictedToWorkflows {
		return false
	}
	g.Visibility, g.RestrictedToWorkflows = "all", false
	return true
}

// changeGroups changes the group of this name, or every one but the default one.
func (s *Server) changeGroups(name string, change func(*Group) bool) (found bool) {
	for _, g := range s.state.groups {
		if strings.EqualFold(g.Name, name) || name == "" && !g.isDefault {
			found = change(&g.Group) || found
		}
	}
	return found
}
