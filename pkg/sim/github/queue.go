package simgithub

import (
	"encoding/json"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"
)

const queuePath = "/scalesets/message"

// capacityHeader bounds how many jobs the server assigns to the set.
const capacityHeader = "X-ScaleSetMaxCapacity"

// jobMessage is an item of a message with every field that GitHub sends
// (actions/scaleset types.go).
type jobMessage struct {
	MessageType        string    `json:"messageType"`
	AcquireJobURL      string    `json:"acquireJobUrl,omitempty"`
	RunnerRequestID    int64     `json:"runnerRequestId"`
	RepositoryName     string    `json:"repositoryName"`
	OwnerName          string    `json:"ownerName"`
	JobID              string    `json:"jobId"`
	JobWorkflowRef     string    `json:"jobWorkflowRef"`
	JobDisplayName     string    `json:"jobDisplayName"`
	WorkflowRunID      int64     `json:"workflowRunId"`
	EventName          string    `json:"eventName"`
	RequestLabels      []string  `json:"requestLabels"`
	QueueTime          time.Time `json:"queueTime"`
	ScaleSetAssignTime time.Time `json:"scaleSetAssignTime"`
	RunnerAssignTime   time.Time `json:"runnerAssignTime"`
	FinishTime         time.Time `json:"finishTime"`
	Result             string    `json:"result,omitempty"`
	RunnerID           *int64    `json:"runnerId,omitempty"`
	RunnerName         *string   `json:"runnerName,omitempty"`
}

func (s *Server) jobMessage(j *job, kind, result string) jobMessage {
	m := jobMessage{
		MessageType: kind, RepositoryName: j.run.repo.name, OwnerName: s.cfg.Org, JobID: j.JobID,
		JobWorkflowRef: s.jobWorkflowRef(j), JobDisplayName: j.Name, WorkflowRunID: j.RunID,
		EventName: j.run.spec.Event, RequestLabels: slices.Clone(j.Labels), QueueTime: j.QueuedAt.UTC(),
		ScaleSetAssignTime: j.AssignedAt.UTC(), RunnerAssignTime: j.StartedAt.UTC(),
		FinishTime: j.CompletedAt.UTC(), Result: result,
	}
	// The request id is 0 on github.com since July 2025 (cloudbase/garm PR 459).
	if s.cfg.GHES {
		m.RunnerRequestID = j.reqID
	}
	switch kind {
	case "JobAvailable":
		m.AcquireJobURL = s.cfg.BaseURL + setsPath + "/" + strconv.FormatInt(j.availableTo, 10) + "/acquirejobs"
	case "JobStarted", "JobCompleted":
		m.RunnerID, m.RunnerName = &j.RunnerID, &j.RunnerName
	}
	return m
}

// announce puts news of a job into the queue of its set. On github.com the
// held poll is not woken for JobStarted (actions/scaleset#122).
func (s *Server) announce(j *job, kind, result string) {
	set := s.state.sets[j.ScaleSetID]
	if set == nil {
		return
	}
	m := s.jobMessage(j, kind, result)
	m.RunnerID, m.RunnerName = clonePtr(m.RunnerID), clonePtr(m.RunnerName)
	s.enqueue(set, m, kind == "JobStarted" && !s.cfg.GHES)
}

func clonePtr[T any](p *T) *T {
	if p == nil {
		return nil
	}
	return new(*p)
}

func (s *Server) enqueue(set *scaleSet, m jobMessage, quiet bool) {
	set.pending = append(set.pending, event{m, quiet})
	if !quiet {
		s.changed()
	}
}

// Forge puts a message of this type (JobStarted, JobCompleted, ...) about a
// job into the queue although the job is elsewhere in its life: GitHub has
// reported completion of running jobs (actions/runner#4492). It returns false
// if the job is unknown or assigned to no set.
func (s *Server) Forge(jobID, kind, result string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	j := s.state.job(jobID)
	if j == nil || s.state.sets[j.ScaleSetID] == nil {
		return false
	}
	s.announce(j, kind, result)
	s.changed()
	return true
}

// sessionOf finds the session that a queue token was made for.
func (s *Server) sessionOf(c caller) (*scaleSet, *session) {
	for _, set := range s.state.sets {
		if set.session != nil && set.session.id == c.cred.session {
			return set, set.session
		}
	}
	return nil, nil
}

func sessionExpired() answer {
	return vssError(http.StatusBadRequest, "RunnerScaleSetSessionExpiredException", "The session has expired or does not exist.")
}

// handlePoll is GET of the message queue: 200 with a message, or 202 when the
// hold has passed without news.
func (s *Server) handlePoll(w http.ResponseWriter, r *http.Request) {
	if !s.carries(r, kindQueue) {
		s.unauthorized(r).write(w)
		return
	}
	capacity, last := math.MaxInt, int64(0)
	var err error
	if h := r.Header.Get(capacityHeader); h != "" {
		if capacity, err = strconv.Atoi(h); err != nil || capacity < 0 {
			badRequest(capacityHeader + " is not a number").write(w)
			return
		}
	}
	if q := r.URL.Query().Get("lastMessageId"); q != "" {
		if last, err = strconv.ParseInt(q, 10, 64); err != nil {
			badRequest("lastMessageId is not a number").write(w)
			return
		}
	}
	p, refused := s.beginPoll(r, capacity)
	if p == nil {
		refused.write(w)
		return
	}
	defer s.endPoll(p)
	out := answer{status: http.StatusAccepted}
	first := true
	err = s.await(r.Context(), s.cfg.PollHold, func(expired bool) bool {
		if p.set.session != p.session {
			out = sessionExpired()
			return true
		}
		m := s.next(p.set, last, first || expired)
		first = false
		if m == nil {
			return false
		}
		out = ok(s.showMessage(p.set, m))
		return true
	})
	writePoll(w, out, err)
}

type poll struct {
	set     *scaleSet
	session *session
}

func (s *Server) beginPoll(r *http.Request, capacity int) (*poll, answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	set, ses := s.sessionOf(callerOf(r))
	if set == nil || r.URL.Query().Get("sessionId") != ses.id {
		return nil, sessionExpired()
	}
	ses.polls++
	ses.capacity, ses.seen = capacity, s.now()
	return &poll{set, ses}, answer{}
}

func (s *Server) endPoll(p *poll) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.session.polls--
	p.session.seen = s.now()
}

// next is the message to deliver now, if any. A message is repeated until it
// is deleted. Quiet news makes a message only at the start or end of a hold.
func (s *Server) next(set *scaleSet, last int64, all bool) *message {
	for _, m := range set.messages {
		if s.cfg.StrictRedelivery || m.id > last {
			return m
		}
	}
	loud := slices.ContainsFunc(set.pending, func(e event) bool { return !e.quiet })
	if len(set.pending) == 0 || !loud && !all {
		return nil
	}
	n := min(len(set.pending), maxMessageItems)
	m := &message{id: set.nextID}
	for _, e := range set.pending[:n] {
		m.items = append(m.items, e.body)
	}
	set.pending = slices.Clone(set.pending[n:])
	set.nextID++
	set.messages = append(set.messages, m)
	return m
}

// showMessage is the message with the counters of now.
func (s *Server) showMessage(set *scaleSet, m *message) any {
	body, err := json.Marshal(m.items)
	if err != nil {
		panic(err) // strings, numbers and times always marshal
	}
	return map[string]any{
		"messageId": m.id, "messageType": "RunnerScaleSetJobMessages", "body": string(body),
		"statistics": s.statistics(set),
	}
}

// acknowledge is DELETE of a message. Deleting one that is gone is 404.
func (s *Server) acknowledge(r *http.Request) answer {
	set, ses := s.sessionOf(callerOf(r))
	if set == nil || r.URL.Query().Get("sessionId") != ses.id {
		return sessionExpired()
	}
	ses.seen = s.now()
	for i, m := range set.messages {
		if strconv.FormatInt(m.id, 10) == r.PathValue("message") {
			set.messages = slices.Delete(set.messages, i, i+1)
			s.release(set, m)
			return noContent()
		}
	}
	// The status is what the official client was seen to stop at; the name is
	// assumed, no public source has one.
	return vssError(http.StatusNotFound, "MessageNotFoundException", "no such message")
}

// repeat makes the items of a message come again in a message of their own. The
// caller holds the lock.
func (s *Server) repeat(r *http.Request, id int64) {
	if set, m := s.polled(r, id); m != nil {
		for _, item := range m.items {
			s.enqueue(set, item, false)
		}
	}
}

// withhold takes what a message says of jobs that start out of it, until their
// completion was acknowledged. The caller holds the lock.
func (s *Server) withhold(r *http.Request, id int64) {
	set, m := s.polled(r, id)
	if m == nil {
		return
	}
	kept := []jobMessage{}
	for _, item := range m.items {
		if item.MessageType == "JobStarted" {
			set.withheld = append(set.withheld, item)
			continue
		}
		kept = append(kept, item)
	}
	m.items = kept
}

// release gives out what was withheld of the jobs that a message completed.
func (s *Server) release(set *scaleSet, m *message) {
	set.withheld = slices.DeleteFunc(set.withheld, func(held jobMessage) bool {
		over := slices.ContainsFunc(m.items, func(item jobMessage) bool {
			return item.MessageType == "JobCompleted" && item.JobID == held.JobID
		})
		if over {
			s.enqueue(set, held, false)
		}
		return over
	})
}

// polled is the message that a poll was answered with, nil once it is
// acknowledged.
func (s *Server) polled(r *http.Request, id int64) (*scaleSet, *message) {
	set, _ := s.sessionOf(callerOf(r))
	if set == nil {
		return nil, nil
	}
	i := slices.IndexFunc(set.messages, func(m *message) bool { return m.id == id })
	if i < 0 {
		return nil, nil
	}
	return set, set.messages[i]
}

// acquireJobs is the second step of the older flow; it returns the ids that
// were acquired. It takes the queue token.
func (s *Server) acquireJobs(r *http.Request, set *scaleSet) answer {
	own, ses := s.sessionOf(callerOf(r))
	if own != set {
		return sessionExpired()
	}
	ses.seen = s.now()
	var ids []int64
	if err := decode(r, &ids); err != nil {
		return badRequest(err.Error())
	}
	var got []int64
	for _, j := range s.state.jobs {
		if j.Status == "queued" && j.availableTo == set.id && slices.Contains(ids, j.reqID) {
			got = append(got, j.reqID)
			s.assignTo(set, j, s.now())
		}
	}
	return list(got)
}
