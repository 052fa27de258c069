package simgithub

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"strconv"
	"strings"
	"sync"
)

// runnerKeyBits is the least that a runner signs with: actions/runner
// VssSigningCredentials.cs refuses a smaller key before it sends anything.
const runnerKeyBits = 2048

func makeAgentKey() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, runnerKeyBits) }

// agentKeys are the keys of simulated runners, each made when it is first asked
// for. They guard nothing but a simulated token and take long to make, so the
// simulators of a process share them, and runners that are registered one after
// the other differ.
var agentKeys = [...]func() (*rsa.PrivateKey, error){
	sync.OnceValues(makeAgentKey), sync.OnceValues(makeAgentKey), sync.OnceValues(makeAgentKey), sync.OnceValues(makeAgentKey),
}

func agentKey(id int64) (*rsa.PrivateKey, error) { return agentKeys[id%int64(len(agentKeys))]() }

// jitConfig is base64 of a JSON map from file name to base64 of the file, as
// actions/runner Runner.cs writes them to its root. Every URL that the runner
// resolves a name against ends in a slash: BrokerHttpClient.cs, new
// Uri(BaseAddress, "session").
//
// ServerUrl equals ServerUrlV2: BrokerMessageListener.cs connects to the former
// as well only if it is another, and that takes the location service of the
// older protocol (_apis/connectionData), which is not simulated.
func (s *Server) jitConfig(a *agent) (string, error) {
	work := a.work
	if work == "" {
		work = "_work"
	}
	files := map[string]any{
		".runner": runnerFile{
			AgentID: a.id, AgentName: a.name, PoolID: 1, PoolName: "Default", WorkFolder: work,
			ServerURL: s.cfg.BaseURL + brokerPath + "/", ServerURLV2: s.cfg.BaseURL + brokerPath + "/",
			GitHubURL: s.cfg.BaseURL + "/" + s.cfg.Org, UseV2Flow: true, Ephemeral: true, DisableUpdate: netBool(a.noUpdate),
		},
		".credentials": credentialsFile{Scheme: "OAuth", Data: credentialsData{
			ClientID: a.client, AuthorizationURL: s.tokenURL(), RequireFipsCryptography: netBool(!s.cfg.PKCS1Runners),
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

func (s *Server) tokenURL() string { return s.cfg.BaseURL + brokerPath + "/oauth2/token" }

// The files of a runner's root; names as in actions/runner ConfigurationStore.cs.
// Every value is text, which .NET reads as the number or truth value that it
// names: other runners rely on it (ChristopherHX/github-act-runner
// actions_runner_compat.go, DotnetAgent).
type runnerFile struct {
	AgentID       int64   `json:"AgentId,string"`
	AgentName     string  `json:"AgentName"`
	PoolID        int64   `json:"PoolId,string"`
	PoolName      string  `json:"PoolName"`
	ServerURL     string  `json:"ServerUrl"`
	ServerURLV2   string  `json:"ServerUrlV2"`
	GitHubURL     string  `json:"GitHubUrl"`
	WorkFolder    string  `json:"WorkFolder"`
	UseV2Flow     netBool `json:"UseV2Flow"`
	Ephemeral     netBool `json:"Ephemeral"`
	DisableUpdate netBool `json:"DisableUpdate"`
}

// netBool is a truth value as .NET writes it: "True" or "False".
type netBool bool

// MarshalJSON writes it as text.
func (b netBool) MarshalJSON() ([]byte, error) {
	if b {
		return []byte(`"True"`), nil
	}
	return []byte(`"False"`), nil
}

// UnmarshalJSON reads a text or a truth value.
func (b *netBool) UnmarshalJSON(text []byte) error {
	v, err := strconv.ParseBool(strings.Trim(string(text), `"`))
	*b = netBool(v)
	return err
}

// credentialsFile is actions/runner CredentialData.cs. The runner signs its
// request for a token by RequireFipsCryptography (OAuthCredential.cs,
// VssSigningCredentials.cs): PSS under the header PS256 if it is True, PKCS #1
// v1.5 under RS256 otherwise.
type credentialsFile struct {
	Scheme string          `json:"scheme"`
	Data   credentialsData `json:"data"`
}

type credentialsData struct {
	ClientID                string  `json:"clientId"`
	AuthorizationURL        string  `json:"authorizationUrl"`
	RequireFipsCryptography netBool `json:"requireFipsCryptography"`
}

// rsaParams is .NET's RSAParameters as the runner stores it (IRSAKeyManager.cs).
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

// exportKey gives every number its full width: RSA.ImportParameters wants D as
// long as the modulus and P, Q, DP, DQ and InverseQ half as long, leading zeros
// included. https://learn.microsoft.com/dotnet/api/system.security.cryptography.rsaparameters
func exportKey(k *rsa.PrivateKey) rsaParams {
	whole := (k.N.BitLen() + 7) / 8
	wide := func(n *big.Int, width int) []byte { return n.FillBytes(make([]byte, width)) }
	half := (whole + 1) / 2
	return rsaParams{
		D: wide(k.D, whole), DP: wide(k.Precomputed.Dp, half), DQ: wide(k.Precomputed.Dq, half),
		Exponent: big.NewInt(int64(k.E)).Bytes(), InverseQ: wide(k.Precomputed.Qinv, half),
		Modulus: wide(k.N, whole), P: wide(k.Primes[0], half), Q: wide(k.Primes[1], half),
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
