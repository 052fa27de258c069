package simgithub

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// runnerKeyBits is small because it is made at each registration and guards
// nothing: the runner's key signs only its request for a simulated token.
const runnerKeyBits = 1024

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
	key, err := rsa.GenerateKey(rand.Reader, runnerKeyBits)
	if err != nil {
		return vssError(http.StatusInternalServerError, "Exception", err.Error())
	}
	a := &agent{
		id: s.state.nextAgent, name: b.Name, setID: set.id, groupID: set.groupID,
		created: time.Now(), key: key, client: newGUID(), nextMsg: 1,
	}
	s.state.nextAgent++
	s.state.agents[a.id] = a
	jit, err := s.jitConfig(a, b.WorkFolder, set.disable)
	if err != nil {
		return vssError(http.StatusInternalServerError, "Exception", err.Error())
	}
	return ok(map[string]any{"runner": s.showAgent(a), "encodedJITConfig": jit})
}

// jitConfig is base64 of a JSON map from file name to base64 of the file, as
// actions/runner Runner.cs writes them to its root.
func (s *Server) jitConfig(a *agent, work string, noUpdate bool) (string, error) {
	if work == "" {
		work = "_work"
	}
	files := map[string]any{
		".runner": runnerFile{
			AgentID: a.id, AgentName: a.name, PoolID: 1, PoolName: "Default", WorkFolder: work,
			ServerURL: s.cfg.BaseURL + "/rest/", ServerURLV2: s.cfg.BaseURL + brokerPath + "/",
			GitHubURL: s.cfg.BaseURL + "/" + s.cfg.Org, UseV2Flow: true, Ephemeral: true, DisableUpdate: noUpdate,
		},
		".credentials": credentialsFile{Scheme: "OAuth", Data: credentialsData{
			ClientID: a.client, AuthorizationURL: s.cfg.BaseURL + brokerPath + "/oauth2/token",
			RequireFipsCryptography: "True",
		}},
		".credentials_rsaparams": exportKey(a.key),
	}
	encoded := map[string][]byte{}
	for name, f := range files {
		b, err := json.Marshal(f)
		if err != nil {
			return "", err
		}
		encoded[name] = b
	}
	b, err := json.Marshal(encoded)
	return base64.StdEncoding.EncodeToString(b), err
}

// The files of a runner's root; names as in actions/runner ConfigurationStore.cs.
type runnerFile struct {
	AgentID       int64  `json:"AgentId"`
	AgentName     string `json:"AgentName"`
	PoolID        int64  `json:"PoolId"`
	PoolName      string `json:"PoolName"`
	ServerURL     string `json:"ServerUrl"`
	ServerURLV2   string `json:"ServerUrlV2"`
	GitHubURL     string `json:"GitHubUrl"`
	WorkFolder    string `json:"WorkFolder"`
	UseV2Flow     bool   `json:"UseV2Flow"`
	Ephemeral     bool   `json:"Ephemeral"`
	DisableUpdate bool   `json:"DisableUpdate"`
}

type credentialsFile struct {
	Scheme string          `json:"scheme"`
	Data   credentialsData `json:"data"`
}

type credentialsData struct {
	ClientID                string `json:"clientId"`
	AuthorizationURL        string `json:"authorizationUrl"`
	RequireFipsCryptography string `json:"requireFipsCryptography"`
}

// rsaParams is .NET's RSAParameters as the runner stores it.
type rsaParams struct {
	D        []byte `json:"d"`
	DP       []byte `json:"dp"`
	DQ       []byte `json:"dq"`
	Exponent []byte `json:"exponent"`
	InverseQ []byte `json:"inverseQ"`
	Modulus  []byte `json:"modulus"`
	P        []byte `json:"p"`
	Q        []byte `json:"q"`
}

func exportKey(k *rsa.PrivateKey) rsaParams {
	return rsaParams{
		D: k.D.Bytes(), DP: k.Precomputed.Dp.Bytes(), DQ: k.Precomputed.Dq.Bytes(),
		Exponent: big.NewInt(int64(k.E)).Bytes(), InverseQ: k.Precomputed.Qinv.Bytes(),
		Modulus: k.N.Bytes(), P: k.Primes[0].Bytes(), Q: k.Primes[1].Bytes(),
	}
}

func (p rsaParams) key() (*rsa.PrivateKey, error) {
	n := func(b []byte) *big.Int { return new(big.Int).SetBytes(b) }
	k := &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: n(p.Modulus), E: int(n(p.Exponent).Int64())},
		D:         n(p.D), Primes: []*big.Int{n(p.P), n(p.Q)},
	}
	k.Precompute()
	return k, k.Validate()
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
	if a.online() {
		status = "online"
	}
	var labels []label
	if set := s.state.sets[a.setID]; set != nil {
		labels = set.labels
	}
	return map[string]any{
		"id": a.id, "name": a.name, "runnerScaleSetId": a.setID, "createdOn": a.created.UTC(),
		"runnerGroupId": a.groupID, "runnerGroupName": group, "version": "2.336.0", "enabled": true,
		"ephemeral": true, "status": status, "disableUpdate": true, "provisioningState": "Provisioned",
		"busy": a.busy, "osDescription": "Linux", "labels": labels,
	}
}
