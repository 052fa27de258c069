package stage

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"text/template"

	"sigs.k8s.io/yaml"

	"github.com/runnerward/runnerward/pkg/sim/world"
)

// Config is the configuration of a daemon, as its file has it.
type Config map[string]any

// Set gives the key, such as "cluster.runnerImage", another value.
func (c Config) Set(key string, value any) {
	section := map[string]any(c)
	path := strings.Split(key, ".")
	for _, name := range path[:len(path)-1] {
		next, ok := section[name].(map[string]any)
		if !ok {
			next = map[string]any{}
			section[name] = next
		}
		section = next
	}
	section[path[len(path)-1]] = value
}

// Config is what an owner of this world would write for a daemon that listens
// at these addresses. Its files are in the stage's folder.
func (s *Stage) Config(admission, status string) (Config, error) {
	var text bytes.Buffer
	err := configuration.Execute(&text, map[string]any{
		"GitHub": s.GitHubURL, "Org": world.Org, "Client": world.AppClientID, "Installation": world.AppInstallationID,
		"Issuer": s.World.GitHub.Issuer(), "Dir": s.opts.Dir, "Labels": world.Labels(), "OrgID": s.World.OrgID,
		"Repository": world.Org + "/" + world.Repository, "RepositoryID": s.World.RepositoryID, "Environment": world.Environment,
		"Workflow": world.DeployWorkflow, "SHA": world.DeploySHA, "Team": world.Team, "Group": world.Group,
		"Namespace": world.Namespace, "ServiceAccount": world.ServiceAccount, "LabelKey": world.PoolLabelKey, "LabelValue": world.PoolLabelValue,
		"Admission": admission, "Status": status, "CAConfigMap": world.CAConfigMap, "AWS": s.AWSURL, "Region": world.Region,
		"Account": world.Account, "Subnet": world.Subnet, "Profile": world.Profile, "NodeGroup": world.NodeGroup,
	})
	if err != nil {
		return nil, err
	}
	var c Config
	if err := yaml.Unmarshal(text.Bytes(), &c); err != nil {
		return nil, fmt.Errorf("the stage's own configuration: %w", err)
	}
	return c, nil
}

// write keeps the configuration as a file.
func (c Config) write(file string) error {
	text, err := yaml.Marshal(c)
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o600)
}

var configuration = template.Must(template.New("configuration").Parse(`
github:
  url: {{.GitHub}}/{{.Org}}
  app:
    clientId: {{.Client}}
    installationId: {{.Installation}}
    privateKeyFile: {{.Dir}}/github-app.pem
  caFile: {{.Dir}}/tls/ca.pem
  oidcIssuer: {{.Issuer}}
pool:
  name: hipaa-prod
  group: {{.Group}}
  labels: [{{range $i, $l := .Labels}}{{if $i}}, {{end}}{{$l}}{{end}}]
  organizationId: {{.OrgID}}
  repositories:
    - name: {{.Repository}}
      id: {{.RepositoryID}}
  environment: {{.Environment}}
  workflows:
    - ref: {{.Workflow}}
      sha: {{.SHA}}
  approverTeams: [{{.Team}}]
  events: [push]
limits:
  maxRunners: 6
  surplusGrace: 10s
  concludeGrace: 10s
supervisor:
  tick: 200ms
cluster:
  name: hipaa-prod-east
  kubeconfigFile: {{.Dir}}/kubeconfig
  namespace: {{.Namespace}}
  serviceAccount: {{.ServiceAccount}}
  nodeLabels:
    - key: {{.LabelKey}}
      value: {{.LabelValue}}
  taint:
    key: workload
    value: hipaa-runner
    effect: NoSchedule
  runnerImage: ghcr.io/actions/actions-runner@sha256:1111111111111111111111111111111111111111111111111111111111111111
  agentImage: ghcr.io/runnerward/runnerward-agent@sha256:2222222222222222222222222222222222222222222222222222222222222222
  admissionURL: https://{{.Admission}}
  admissionCAConfigMap: {{.CAConfigMap}}
  cpu: "2"
  memory: 4Gi
hosts:
  driver: autoscaling
  region: {{.Region}}
  endpoint: {{.AWS}}
  caFile: {{.Dir}}/tls/ca.pem
  accounts: ["{{.Account}}"]
  regions: [{{.Region}}]
  subnets: [{{.Subnet}}]
  groups: [{{.NodeGroup}}]
  imageNames: [bottlerocket-aws-k8s-]
  imageOwners: [amazon]
  bootModes: [uefi]
  instanceProfiles: ["{{.Profile}}"]
  osImage: ^Bottlerocket OS \d+\.\d+\.\d+ \(aws-k8s-\d+\.\d+\)$
  tags:
    - key: Compliance
      value: HIPAA
ledger:
  dir: {{.Dir}}/ledger
  keysDir: {{.Dir}}/keys
  rootFile: {{.Dir}}/root.json
  origin: runnerward.demo/hipaa-prod
admission:
  listen: {{.Admission}}
  certFile: {{.Dir}}/tls/admission.pem
  keyFile: {{.Dir}}/tls/admission.key
status:
  listen: {{.Status}}
  certFile: {{.Dir}}/tls/status.pem
  keyFile: {{.Dir}}/tls/status.key
  clientCAFile: {{.Dir}}/tls/ca.pem
  admins: [oncall]
log:
  level: info
  format: json
`))
