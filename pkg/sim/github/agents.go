package simgithub

import (
	"net/http"
	"strconv"
	"strings"
)

// generateJIT registers a runner and returns its just-in-time configuration.
// The name is unique in the organization.
func (s *Server) generateJIT(r *http.Request, set *scaleSet) answer {
	var b struct {
		Name       string `json:"name"`
		WorkFolder string `json:"workFolder"`
	}
	if err := decode(r, &b); err != nil {
		return badRequest(err.Error())
	}
	if b.Name == "" || len(b.Name) > 64 {
		return badRequest("the name of a runner has 1 to 64 characters")
	}
	if s.state.agentByName(b.Name) != nil {
		return vssError(http.StatusConflict, "TaskAgentExistsException",
			"A runner exists with the same name "+b.Name+".")
	}
	key, err := agentKey(s.state.nextAgent)
	if err != nil {
		return vssError(http.StatusInternalServerError, "Exception", err.Error())
	}
	a := &agent{
		id: s.state.nextAgent, name: b.Name, setID: set.id, groupID: set.groupID, work: b.WorkFolder,
		noUpdate: set.disable, created: s.now(), key: key, client: newGUID(), nextMsg: 1,
	}
	s.state.nextAgent++
	s.state.agents[a.id] = a
	jit, err := s.jitConfig(a)
	if err != nil {
		return vssError(http.StatusInternalServerError, "Exception", err.Error())
	}
	return ok(map[string]any{"runner": s.showAgent(a), "encodedJITConfig": jit})
}

// deregister removes a runner's registration. A session that it has ends, and
// a job that was only offered to it goes back to its set.
func (s *Server) deregister(a *agent) {
	if j := s.state.job(a.jobID); j != nil && j.offered == a.id {
		s.withdraw(j)
	}
	delete(s.state.agents, a.id)
	s.changed()
}

func (s *Server) listAgents(r *http.Request) answer {
	var out []map[string]any
	name, filtered := r.URL.Query()["agentName"]
	for _, id := range sortedKeys(s.state.agents) {
		if a := s.state.agents[id]; !filtered || strings.EqualFold(a.name, name[0]) {
			out = append(out, s.showAgent(a))
		}
	}
	return list(out)
}

func (s *Server) withAgent(h func(*http.Request, *agent) answer) func(*http.Request) answer {
	return func(r *http.Request) answer {
		id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
		if a := s.state.agents[id]; err == nil && a != nil {
			return h(r, a)
		}
		return vssError(http.StatusNotFound, "TaskAgentNotFoundException",
			"No agent found with identifier "+r.PathValue("id")+".")
	}
}

func (s *Server) getAgent(_ *http.Request, a *agent) answer { return ok(s.showAgent(a)) }

// removeAgent deletes a registration; while the runner's job holds its lease
// GitHub refuses.
func (s *Server) removeAgent(_ *http.Request, a *agent) answer {
	if a.busy {
		return vssError(s.cfg.JobStillRunningStatus, "TaskAgentJobStillRunningException",
			"Agent "+a.name+" is still running a job.")
	}
	s.deregister(a)
	return noContent()
}

func (s *Server) showAgent(a *agent) map[string]any {
	group := ""
	if g := s.state.groups[a.groupID]; g != nil {
		group = g.Name
	}
	status := "offline"
	if a.online(s.now()) {
		status = "online"
	}
	var labels []label
	if set := s.state.sets[a.setID]; set != nil {
		labels = set.labels
	}
	return map[string]any{
		"id": a.id, "name": a.name, "runnerScaleSetId": a.setID, "createdOn": a.created.UTC(),
		"runnerGroupId": a.groupID, "runnerGroupName": group, "version": "2.336.0", "enabled": true,
		"ephemeral": true, "status": status, "disableUpdate": a.noUpdate, "provisioningState": "Provisioned",
		"busy": a.busy, "osDescription": "Linux", "labels": labels,
	}
}
