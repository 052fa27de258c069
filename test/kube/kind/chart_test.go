package kind

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"sigs.k8s.io/yaml"

	simaws "github.com/runnerward/runnerward/pkg/sim/aws"
	"github.com/runnerward/runnerward/pkg/sim/world"
	"github.com/runnerward/runnerward/pkg/supervisor"
)

const (
	release       = "runnerward"
	admissionHost = release + "-admission." + world.Namespace + ".svc"

	// What the images are called. Nothing is pulled: they are loaded.
	daemonImage = "runnerward.test/runnerward"
	agentImage  = "ghcr.io/runnerward/runnerward-agent"

	// The versions of the daemon, whose binaries are bin/VERSION/runnerward.
	oldVersion, newVersion = "v0.0.1-test", "v0.0.2-test"

	// volumes is where those of claims are, in the control plane's container.
	volumes = "/var/local"

	// secrets is where the chart mounts them, authority what it mounts of ours.
	secrets   = "/run/secrets/runnerward/"
	authority = secrets + "github/ca.crt"
)

// buildImages makes the images by the repository's Dockerfile, on an empty base:
// every authority that they need comes with the configuration.
func (c *cluster) buildImages(ctx context.Context) error {
	dockerfile := filepath.Join(c.root, "Dockerfile")
	for _, image := range []struct{ name, stage, version string }{
		{daemonImage, "runnerward", oldVersion}, {daemonImage, "runnerward", newVersion}, {agentImage, "runnerward-agent", oldVersion},
	} {
		tag := image.name + ":" + image.version
		if _, err := c.run(ctx, "docker", "build", "--file", dockerfile, "--target", image.stage, "--build-arg", "BASE=scratch",
			"--tag", tag, c.file(image.version)); err != nil {
			return err
		}
		if _, err := c.run(ctx, "docker", "save", "--output", c.file("images/"+image.stage+"-"+image.version+".tar"), tag); err != nil {
			return err
		}
	}
	return nil
}

// loadImages gives the control plane the daemon's images, and says what the
// agent's is called by digest.
func (c *cluster) loadImages(ctx context.Context) (agent string, err error) {
	for _, version := range []string{oldVersion, newVersion} {
		if _, err := c.run(ctx, "kind", "load", "image-archive", c.file("images/runnerward-"+version+".tar"),
			"--name", clusterName, "--nodes", controller); err != nil {
			return "", err
		}
	}
	if _, err := c.in(ctx, controller, importAgent...); err != nil {
		return "", err
	}
	names, err := c.in(ctx, controller, "ctr", "-n", "k8s.io", "images", "ls", "-q")
	if err != nil {
		return "", err
	}
	for name := range strings.FieldsSeq(names) {
		if strings.HasPrefix(name, agentImage+"@") {
			return name, nil
		}
	}
	return "", fmt.Errorf("the agent's image has no name by digest among\n%s", names)
}

// importAgent and importRunner are commands of a node. The archive of docker
// holds no digest: containerd names what it makes of it.
var (
	importAgent = []string{"ctr", "-n", "k8s.io", "images", "import", "--digests", "--base-name", agentImage,
		"/images/runnerward-agent-" + oldVersion + ".tar"}
	importRunner = []string{"ctr", "-n", "k8s.io", "images", "import", "/images/runner.tar"}
)

// identityWebhook stands for what EKS's webhook adds to the pods of an account
// with a role: github.com/aws/amazon-eks-pod-identity-webhook.
const identityWebhook = `apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: pod-identity-webhook}
spec:
  failurePolicy: Fail
  reinvocationPolicy: Never
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
  matchConditions: [{name: account, expression: 'object.spec.serviceAccountName == "%[1]s"'}]
  mutations:
    - patchType: JSONPatch
      jsonPatch:
        expression: >
          [JSONPatch{op: "add", path: "/spec/volumes/-", value: Object.spec.volumes{name: "aws-iam-token",
             projected: Object.spec.volumes.projected{sources: [Object.spec.volumes.projected.sources{
               serviceAccountToken: Object.spec.volumes.projected.sources.serviceAccountToken{
                 audience: "sts.amazonaws.com", expirationSeconds: 86400, path: "token"}}]}}},
           JSONPatch{op: "add", path: "/spec/containers/0/volumeMounts/-", value: Object.spec.containers.volumeMounts{
             name: "aws-iam-token", readOnly: true, mountPath: "/var/run/secrets/eks.amazonaws.com/serviceaccount"}},
           JSONPatch{op: "add", path: "/spec/containers/0/env", value: [
             Object.spec.containers.env{name: "AWS_ROLE_ARN", value: "%[2]s"},
             Object.spec.containers.env{name: "AWS_WEB_IDENTITY_TOKEN_FILE",
               value: "/var/run/secrets/eks.amazonaws.com/serviceaccount/token"}]}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: pod-identity-webhook}
spec: {policyName: pod-identity-webhook}
`

// storageClass is of disks of the control plane's, as there are no cloud's. The
// kubelet gives a local volume to the pod's group, as it does EBS's, and not a
// host path.
const storageClass = `apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: evidence}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
`

// volume is one of these disks, for one claim.
const volume = `apiVersion: v1
kind: PersistentVolume
metadata: {name: %[2]s}
spec:
  storageClassName: evidence
  accessModes: [ReadWriteOnce]
  capacity: {storage: 1Gi}
  persistentVolumeReclaimPolicy: Retain
  claimRef: {namespace: %[1]s, name: %[2]s}
  local: {path: %[3]s}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [%[4]s]}]}]}}
`

// claims are those of one daemon, and of each of two. Uninstalling leaves them.
var claims = []string{"ledger-" + release + "-0", "ledger-" + release + "-1", release + "-ledger"}

func (s *story) makeVolume(ctx context.Context, claim string) error {
	dir := volumes + "/" + claim
	if _, err := s.in(ctx, controller, "mkdir", "-p", dir); err != nil {
		return err
	}
	return s.apply(ctx, fmt.Sprintf(volume, world.Namespace, claim, dir, controller))
}

func (s *story) apply(ctx context.Context, objects string) error {
	_, err := s.feed(ctx, strings.NewReader(objects), "kubectl", "apply", "-f", "-")
	return err
}

// prepare is what an owner does before the chart is installed: docs/install.md,
// 2 and A. IRSA is the cluster's issuer and a role that trusts it.
func (s *story) prepare(ctx context.Context) (role string, err error) {
	issuer, err := s.issuer(ctx)
	if err != nil {
		return "", err
	}
	s.World.AWS.AddIssuer(issuer)
	role = s.World.AWS.AddRole(simaws.Role{
		Name: release, Issuer: issuer.URL, Subject: "system:serviceaccount:" + world.Namespace + ":" + release,
	})
	for _, objects := range []string{fmt.Sprintf(identityWebhook, release, role), storageClass} {
		if err := s.apply(ctx, objects); err != nil {
			return "", err
		}
	}
	for _, claim := range claims {
		if err := s.makeVolume(ctx, claim); err != nil {
			return "", err
		}
	}
	ns := "--namespace=" + world.Namespace
	for _, args := range [][]string{
		{"create", "namespace", world.Namespace},
		{"label", "namespace", world.Namespace, "pod-security.kubernetes.io/enforce=restricted"},
		// The chart mounts the whole Secret, so that the authority of GitHub and AWS can be in it.
		{"create", ns, "secret", "generic", "runnerward-github-app", "--from-file=private-key.pem=" + s.File("github-app.pem"),
			"--from-file=ca.crt=" + s.File("tls/ca.pem")},
		{"create", ns, "secret", "tls", "runnerward-admission-tls", "--cert=" + s.File("tls/admission.pem"), "--key=" + s.File("tls/admission.key")},
		{"create", ns, "secret", "generic", "runnerward-status-tls", "--type=kubernetes.io/tls", "--from-file=tls.crt=" + s.File("tls/status.pem"),
			"--from-file=tls.key=" + s.File("tls/status.key"), "--from-file=ca.crt=" + s.File("tls/ca.pem")},
	} {
		if _, err := s.run(ctx, append([]string{"kubectl"}, args...)...); err != nil {
			return "", err
		}
	}
	return role, nil
}

// issuer is what AWS would read of the cluster's tokens.
func (s *story) issuer(ctx context.Context) (simaws.Issuer, error) {
	var found struct {
		Issuer string `json:"issuer"`
	}
	var keys jose.JSONWebKeySet
	for path, v := range map[string]any{"/.well-known/openid-configuration": &found, "/openid/v1/jwks": &keys} {
		text, err := s.client.Discovery().RESTClient().Get().AbsPath(path).DoRaw(ctx)
		if err != nil {
			return simaws.Issuer{}, fmt.Errorf("read %s: %w", path, err)
		}
		if err := json.Unmarshal(text, v); err != nil {
			return simaws.Issuer{}, fmt.Errorf("read %s: %w", path, err)
		}
	}
	return simaws.Issuer{URL: found.Issuer, Keys: keys}, nil
}

// runnerImage is what the stand-in's image is called by digest.
func (c *cluster) runnerImage() (string, error) {
	name, err := os.ReadFile(filepath.Join(c.bin, "images", "runner.name"))
	return strings.TrimSpace(string(name)), err
}

// owned is what an owner finds out once: the names of images by digest, and the
// role of the daemon's account.
type owned struct{ runner, agent, role string }

// writeValues writes those of an owner: the configuration of the stage with the
// chart's own paths, and what this cluster lacks or has otherwise; then what this
// release changes of them, of its configuration by key.
func (s *story) writeValues(name string, values, changes map[string]any) error {
	config, err := s.Config(":8443", ":9443")
	if err != nil {
		return err
	}
	own := map[string]any{
		"github.app.privateKeyFile": secrets + "github/private-key.pem", "github.caFile": authority,
		"hosts.caFile": authority, "cluster.kubeconfigFile": "",
		"cluster.admissionURL": "https://" + admissionHost + ":8443",
		"cluster.runnerImage":  s.owned.runner, "cluster.agentImage": s.owned.agent,
		"cluster.cpu": "250m", "cluster.memory": "128Mi", // of machines with two processors
		"admission.certFile": secrets + "admission/tls.crt", "admission.keyFile": secrets + "admission/tls.key",
		"status.certFile": secrets + "status/tls.crt", "status.keyFile": secrets + "status/tls.key", "status.clientCAFile": secrets + "status/ca.crt",
		"ledger.dir": "/var/lib/runnerward/ledger", "ledger.keysDir": "/var/lib/runnerward/keys", "ledger.rootFile": "/var/lib/runnerward/root.json",
	}
	maps.Copy(own, changes)
	for key, value := range own {
		config.Set(key, value)
	}
	all := map[string]any{
		"image":          map[string]any{"repository": daemonImage, "tag": oldVersion},
		"config":         config,
		"serviceAccount": map[string]any{"annotations": map[string]string{"eks.amazonaws.com/role-arn": s.owned.role}},
		"persistence":    map[string]any{"storageClass": "evidence", "size": "1Gi"},
		// Nothing but the control plane runs beside the pool's hosts here.
		"tolerations": []map[string]string{{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"}},
	}
	maps.Copy(all, values)
	text, err := yaml.Marshal(all)
	if err != nil {
		return err
	}
	s.values = s.file(name)
	return os.WriteFile(s.values, text, 0o600)
}

// helm runs a command on the release. The chart is the repository's.
func (s *story) helm(ctx context.Context, command string, args ...string) error {
	all := []string{"helm", command, release}
	if command != "uninstall" {
		all = append(all, filepath.Join(s.root, "helm", "runnerward"), "--values", s.values,
			"--set-file", "admissionCA="+s.File("tls/ca.pem"))
	}
	_, err := s.run(ctx, append(append(all, "--namespace", world.Namespace, "--wait", "--timeout", "90s"), args...)...)
	return err
}

// view asks the status endpoint.
func (s *story) view(ctx context.Context) (supervisor.View, error) {
	return s.viewAt(ctx, "services", "https:"+release+"-status:status")
}

// viewAt asks through the API server, which needs no pod that stays.
func (s *story) viewAt(ctx context.Context, resource, name string) (supervisor.View, error) {
	var v supervisor.View
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	text, err := s.client.CoreV1().RESTClient().Get().Namespace(world.Namespace).Resource(resource).Name(name).
		SubResource("proxy").Suffix("statusz").SetHeader("Accept", "application/json").DoRaw(ctx)
	if err != nil {
		return v, fmt.Errorf("ask the status endpoint: %w", err)
	}
	return v, json.Unmarshal(text, &v)
}
