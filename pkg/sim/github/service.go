package simgithub

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	apisPath = "/rest/_apis"
	setsPath = apisPath + "/runtime/runnerscalesets"
	poolPath = apisPath + "/distributedtask/pools/0/agents"
)

// routeService mounts the Actions service; the paths are those of
// actions/scaleset client.go.
func (s *Server) routeService() {
	admin := func(pattern string, h func(*http.Request) answer) {
		s.mux.HandleFunc(pattern, s.allow(h, kindAdmin))
	}
	admin("GET "+apisPath+"/runtime/runnergroups/{$}", s.listServiceGroups)
	admin("GET "+apisPath+"/runtime/runnergroups", s.listServiceGroups)
	admin("GET "+setsPath, s.listSets)
	admin("POST "+setsPath, s.createSet)
	admin("GET "+setsPath+"/{id}", s.withSet(s.getSet))
	admin("PATCH "+setsPath+"/{id}", s.withSet(s.updateSet))
	admin("DELETE "+setsPath+"/{id}", s.withSet(s.removeSet))
	admin("POST "+setsPath+"/{id}/generatejitconfig", s.withSet(s.generateJIT))
	admin("POST "+setsPath+"/{id}/sessions", s.withSet(s.createSession))
	admin("PATCH "+setsPath+"/{id}/sessions/{session}", s.withSet(s.refreshSession))
	admin("DELETE "+setsPath+"/{id}/sessions/{session}", s.withSet(s.deleteSession))
	s.mux.HandleFunc("POST "+setsPath+"/{id}/acquirejobs", s.allow(s.withSet(s.acquireJobs), kindQueue))
	admin("GET "+poolPath, s.listAgents)
	admin("GET "+poolPath+"/{id}", s.withAgent(s.getAgent))
	admin("DELETE "+poolPath+"/{id}", s.withAgent(s.removeAgent))
	s.mux.HandleFunc("GET "+queuePath, s.handlePoll)
	s.mux.HandleFunc("DELETE "+queuePath+"/{message}", s.allow(s.acknowledge, kindQueue))
}

func list[T any](items []T) answer {
	if items == nil {
		items = []T{}
	}
	return ok(map[string]any{"count": len(items), "value": items})
}

func (s *Server) listServiceGroups(r *http.Request) answer {
	var out []map[string]any
	name, filtered := r.URL.Query()["groupName"]
	for _, id := range sortedKeys(s.state.groups) {
		g := s.state.groups[id]
		if filtered && !strings.EqualFold(g.Name, name[0]) {
			continue
		}
		size := 0
		for _, a := range s.state.agents {
			if a.groupID == id {
				size++
			}
		}
		out = append(out, map[string]any{"id": id, "name": g.Name, "size": size, "isDefaultGroup": g.isDefault})
	}
	return list(out)
}

func setNotFound(id string) answer {
	return vssError(http.StatusNotFound, "RunnerScaleSetNotFoundException",
		"No runner scale set found with identifier "+id+".")
}

func (s *Server) withSet(h func(*http.Request, *scaleSet) answer) func(*http.Request) answer {
	return func(r *http.Request) answer {
		id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
		if set := s.state.sets[id]; err == nil && set != nil {
			return h(r, set)
		}
		return setNotFound(r.PathValue("id"))
	}
}

type setJSON struct {
	ID              int64          `json:"id"`
	Name            string         `json:"name"`
	RunnerGroupID   int64          `json:"runnerGroupId"`
	RunnerGroupName string         `json:"runnerGroupName"`
	Labels          []label        `json:"labels"`
	RunnerSetting   map[string]any `json:"runnerSetting"`
	CreatedOn       time.Time      `json:"createdOn"`
	JITConfigURL    string         `json:"runnerJitConfigUrl"`
	Statistics      *statistics    `json:"statistics"`
}

func (s *Server) showSet(set *scaleSet) setJSON {
	name := ""
	if g := s.state.groups[set.groupID]; g != nil {
		name = g.Name
	}
	st := s.statistics(set)
	return setJSON{
		ID: set.id, Name: set.name, RunnerGroupID: set.groupID, RunnerGroupName: name, Labels: set.labels,
		RunnerSetting: map[string]any{"disableUpdate": set.disable, "ephemeral": true, "isElastic": true},
		CreatedOn:     set.created.UTC(), Statistics: &st,
		JITConfigURL: s.cfg.BaseURL + setsPath + "/" + strconv.FormatInt(set.id, 10) + "/generatejitconfig",
	}
}

func (s *Server) listSets(r *http.Request) answer {
	q := r.URL.Query()
	var out []setJSON
	for _, id := range sortedKeys(s.state.sets) {
		set := s.state.sets[id]
		if n := q.Get("name"); n != "" && !strings.EqualFold(n, set.name) {
			continue
		}
		if g := q.Get("runnerGroupId"); g != "" && g != strconv.FormatInt(set.groupID, 10) {
			continue
		}
		out = append(out, s.showSet(set))
	}
	return list(out)
}

func (s *Server) getSet(_ *http.Request, set *scaleSet) answer { return ok(s.showSet(set)) }

type setBody struct {
	Name          string  `json:"name"`
	RunnerGroupID int64   `json:"runnerGroupId"`
	Labels        []label `json:"labels"`
	RunnerSetting struct {
		DisableUpdate *bool `json:"disableUpdate"`
	} `json:"runnerSetting"`
}

// badRequest is an error of the runner's SDK for values that do not do
// (actions/runner, PropertyExceptions.cs). That the service gives this one for
// these mistakes is assumed; clients look at the status.
func badRequest(msg string) answer {
	return vssError(http.StatusBadRequest, "VssPropertyValidationException", msg)
}

func (s *Server) createSet(r *http.Request) answer {
	var b setBody
	if err := decode(r, &b); err != nil {
		return badRequest(err.Error())
	}
	if b.RunnerGroupID == 0 {
		b.RunnerGroupID = 1
	}
	if b.Name == "" || len(b.Labels) == 0 {
		return badRequest("a runner scale set needs a name and a label")
	}
	if a, refused := s.refuseSet(0, b.Name, b.RunnerGroupID); refused {
		return a
	}
	set := &scaleSet{
		id: s.state.nextSet, name: b.Name, groupID: b.RunnerGroupID, labels: b.Labels,
		created: s.now(), lastSeen: s.now(), nextID: firstMessageID,
	}
	if b.RunnerSetting.DisableUpdate != nil {
		set.disable = *b.RunnerSetting.DisableUpdate
	}
	s.state.nextSet++
	s.state.sets[set.id] = set
	return ok(s.showSet(set))
}

// refuseSet applies that a name is unique within a runner group and only
// there (actions-runner-controller PR 2413), and that the group exists.
func (s *Server) refuseSet(self int64, name string, groupID int64) (answer, bool) {
	if s.state.groups[groupID] == nil {
		// The words are those of actions/runner#634. The runner's SDK calls a
		// group a pool (actions/runner ConfigurationManager.cs); that its
		// exception goes with these words here is assumed.
		return vssError(http.StatusNotFound, "TaskAgentPoolNotFoundException", fmt.Sprintf("No runner group found with identifier %d.", groupID)), true
	}
	for _, o := range s.state.sets {
		if o.id != self && o.groupID == groupID && strings.EqualFold(o.name, name) {
			// Status and words as in macstadium/orka-github-actions-integration#63;
			// clients that meet the real service look for this name.
			return vssError(http.StatusBadRequest, "RunnerScaleSetExistsException",
				"The runner scale set already exists in runner group "+s.state.groups[groupID].Name+"."), true
		}
	}
	return answer{}, false
}

func (s *Server) updateSet(r *http.Request, set *scaleSet) answer {
	b := setBody{Name: set.name, RunnerGroupID: set.groupID, Labels: set.labels}
	if err := decode(r, &b); err != nil {
		return badRequest(err.Error())
	}
	if a, refused := s.refuseSet(set.id, b.Name, b.RunnerGroupID); refused {
		return a
	}
	set.name, set.groupID, set.labels = b.Name, b.RunnerGroupID, b.Labels
	if b.RunnerSetting.DisableUpdate != nil {
		set.disable = *b.RunnerSetting.DisableUpdate
	}
	return ok(s.showSet(set))
}

func (s *Server) removeSet(_ *http.Request, set *scaleSet) answer {
	for _, a := range s.state.agentsOf(set.id) {
		if a.busy {
			// That it is refused is ARC's ADR 2022-10-27; status and name are assumed.
			return vssError(http.StatusBadRequest, "RunnerScaleSetBusyException",
				"The runner scale set has a job assigned to a runner.")
		}
	}
	s.deleteSet(set, s.now())
	return noContent()
}

// deleteSet removes a set with its runners; its jobs go back to the queue.
func (s *Server) deleteSet(set *scaleSet, at time.Time) {
	for _, a := range s.state.agentsOf(set.id) {
		s.deregister(a)
	}
	for _, j := range s.state.jobs {
		if j.Status != "completed" && (j.ScaleSetID == set.id || j.availableTo == set.id) {
			j.ScaleSetID, j.availableTo, j.AssignedAt = 0, 0, time.Time{}
		}
	}
	s.endSession(set, at)
	delete(s.state.sets, set.id)
	s.changed()
}

type statistics struct {
	Available  int `json:"totalAvailableJobs"`
	Acquired   int `json:"totalAcquiredJobs"`
	Assigned   int `json:"totalAssignedJobs"`
	Running    int `json:"totalRunningJobs"`
	Registered int `json:"totalRegisteredRunners"`
	Busy       int `json:"totalBusyRunners"`
	Idle       int `json:"totalIdleRunners"`
}

// statistics counts as the README of actions/scaleset says: assigned jobs are
// those that wait for a runner and those that run.
func (s *Server) statistics(set *scaleSet) statistics {
	var st statistics
	for _, j := range s.state.jobs {
		switch {
		case j.Status == "completed":
		case j.availableTo == set.id:
			st.Available++
		case j.ScaleSetID == set.id:
			st.Assigned++
			if j.Status == "in_progress" {
				st.Running++
			}
		}
	}
	for _, a := range s.state.agentsOf(set.id) {
		st.Registered++
		switch {
		case a.busy:
			st.Busy++
		case a.online(s.now()):
			st.Idle++
		}
	}
	return st
}
