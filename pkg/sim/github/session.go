package simgithub

import (
	"net/http"
	"time"
)

// createSession opens the set's one message session. A session whose client
// died without deleting it stays until it expires.
func (s *Server) createSession(r *http.Request, set *scaleSet) answer {
	var b struct {
		OwnerName string `json:"ownerName"`
	}
	if err := decode(r, &b); err != nil || b.OwnerName == "" {
		return badRequest("a session needs an owner")
	}
	if set.session != nil {
		return vssError(http.StatusConflict, "RunnerScaleSetSessionConflictException",
			"The actions runner scaleset "+set.name+" already has an active session.")
	}
	set.session = &session{id: newGUID(), owner: b.OwnerName, seen: s.now()}
	s.reoffer(set)
	return ok(s.showSession(set))
}

// reoffer announces jobs on offer again to a new session: the former one may
// have deleted the message and never acquired them.
func (s *Server) reoffer(set *scaleSet) {
	queued := map[string]bool{}
	for _, e := range set.pending {
		queued[e.body.JobID] = queued[e.body.JobID] || e.body.MessageType == "JobAvailable"
	}
	for _, m := range set.messages {
		for _, item := range m.items {
			queued[item.JobID] = queued[item.JobID] || item.MessageType == "JobAvailable"
		}
	}
	for _, j := range s.state.jobs {
		if j.availableTo == set.id && !queued[j.JobID] {
			s.enqueue(set, s.jobMessage(j, "JobAvailable", ""), false)
		}
	}
}

// showSession is the whole session with a fresh queue token.
func (s *Server) showSession(set *scaleSet) any {
	return map[string]any{
		"sessionId": set.session.id, "ownerName": set.session.owner,
		"runnerScaleSet":  s.showSet(set),
		"messageQueueUrl": s.cfg.BaseURL + queuePath + "?sessionId=" + set.session.id,
		"messageQueueAccessToken": s.issue(
			credential{kind: kindQueue, session: set.session.id}, s.cfg.QueueTokenTTL),
		"statistics": s.statistics(set),
	}
}

func (s *Server) refreshSession(r *http.Request, set *scaleSet) answer {
	if set.session == nil || set.session.id != r.PathValue("session") {
		// The message of the real service, actions/scaleset#123.
		return vssError(http.StatusNotFound, "RunnerAdminException",
			"runner referenced a session ID that doesn't exist in redis")
	}
	set.session.seen = s.now()
	return ok(s.showSession(set))
}

func (s *Server) deleteSession(r *http.Request, set *scaleSet) answer {
	if set.session == nil || set.session.id != r.PathValue("session") {
		return sessionExpired()
	}
	s.endSession(set, s.now())
	return noContent()
}

// endSession closes the set's session. What was not acknowledged stays for
// the next one.
func (s *Server) endSession(set *scaleSet, at time.Time) {
	if set.session == nil {
		return
	}
	set.session, set.lastSeen = nil, at
	s.changed()
}
