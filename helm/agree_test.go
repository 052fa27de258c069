package helm

import (
	"strconv"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/runnerward/runnerward/pkg/config"
)

// checkAgreement loads the rendered configuration as the daemon would and
// compares it with the objects around it.
func checkAgreement(t *testing.T, docs map[string]runtime.Object, full string) {
	t.Helper()
	const namespace = "gha-runners"
	cm, ok := docs["ConfigMap "+namespace+"/"+full].(*corev1.ConfigMap)
	if !ok {
		t.Fatal("no ConfigMap")
	}
	c, err := config.Parse("config.yaml", []byte(cm.Data["config.yaml"]), nil, config.Offline())
	if err != nil {
		t.Fatalf("the daemon refuses the rendered configuration: %v", err)
	}
	if _, ok := docs["ServiceAccount "+c.Cluster.Namespace+"/"+c.Cluster.ServiceAccount]; !ok {
		t.Errorf("the runners' account %s/%s is not rendered", c.Cluster.Namespace, c.Cluster.ServiceAccount)
	}
	admission := strings.TrimPrefix(c.Admission.Listen, ":")
	if want := "https://" + full + "-admission." + namespace + ".svc:" + admission; c.Cluster.AdmissionURL != want {
		t.Errorf("cluster.admissionURL = %s, want %s", c.Cluster.AdmissionURL, want)
	}
	d, ok := docs["Deployment "+namespace+"/"+full].(*appsv1.Deployment)
	if !ok {
		t.Fatal("no Deployment")
	}
	checkFiles(t, c, &d.Spec.Template.Spec)
	ports := map[string]int32{}
	for _, p := range d.Spec.Template.Spec.Containers[0].Ports {
		ports[p.Name] = p.ContainerPort
	}
	for name, listen := range map[string]string{"admission": c.Admission.Listen, "status": c.Status.Listen} {
		svc, ok := docs["Service "+namespace+"/"+full+"-"+name].(*corev1.Service)
		if !ok || len(svc.Spec.Ports) != 1 {
			t.Errorf("no service of one port for %s", name)
			continue
		}
		// The VPC CNI's network policies want the service's port to be the
		// container's: https://docs.aws.amazon.com/eks/latest/userguide/cni-network-policy.html
		if p := svc.Spec.Ports[0]; p.Port != ports[name] || p.TargetPort.StrVal != name || listen != ":"+strconv.Itoa(int(p.Port)) {
			t.Errorf("%s: service port %d to %s, container port %d, listens on %s: want one number", name, p.Port, p.TargetPort.String(), ports[name], listen)
		}
	}
	policy, ok := docs["NetworkPolicy "+namespace+"/"+full].(*networkingv1.NetworkPolicy)
	rules := 2
	if c.Hosts.Identity.CertificatesFile != "" {
		rules = 3 // and the hosts' witnesses
		if got := volumeAt(&d.Spec.Template.Spec, c.Hosts.Identity.CertificatesFile); got != "aws-certificates" {
			t.Errorf("hosts.identity.certificatesFile is on volume %q, want aws-certificates", got)
		}
	}
	if !ok || len(policy.Spec.Ingress) != rules || policy.Spec.Ingress[0].Ports[0].Port.IntVal != ports["admission"] || policy.Spec.Ingress[1].Ports[0].Port.IntVal != ports["status"] {
		t.Errorf("the daemon's network policy = %+v, want the ports %v", policy, ports)
	}
}

// checkFiles wants every path of the configuration below a mount, and what the
// daemon writes below the volume that is kept.
func checkFiles(t *testing.T, c *config.Config, pod *corev1.PodSpec) {
	t.Helper()
	files := map[string]string{
		c.GitHub.App.PrivateKeyFile: "github",
		c.Admission.CertFile:        "admission-tls",
		c.Admission.KeyFile:         "admission-tls",
		c.Status.CertFile:           "status-tls",
		c.Status.KeyFile:            "status-tls",
		c.Status.ClientCAFile:       "status-tls",
		c.Ledger.KeysDir:            "ledger",
		c.Ledger.RootFile:           "ledger",
	}
	if c.Ledger.S3.Bucket == "" {
		files[c.Ledger.Dir] = "ledger"
	}
	for path, want := range files {
		if got := volumeAt(pod, path); got != want {
			t.Errorf("%s is on volume %q, want %q", path, got, want)
		}
	}
}

// volumeAt is the volume that the daemon finds this path on, empty if none.
func volumeAt(pod *corev1.PodSpec, path string) string {
	for _, m := range pod.Containers[0].VolumeMounts {
		if strings.HasPrefix(path, m.MountPath+"/") {
			return m.Name
		}
	}
	return ""
}

// inS3 are two replicas whose ledger is in a bucket.
const inS3 = "replicas=2,config.ledger.dir=,config.ledger.s3.bucket=evidence"

func TestHelmRefusesAConfigurationThatDisagrees(t *testing.T) {
	for _, tc := range []struct{ name, set, says string }{
		{"another namespace", "config.cluster.namespace=elsewhere", "config.cluster.namespace"},
		{"replicas that share no folder", "replicas=2", "config.ledger.dir"},
		{"replicas without the same keys", inS3, "config.ledger.keysDir"},
		{"replicas without the same previous keys", inS3 + ",config.ledger.keysDir=,config.ledger.kms.previousKeysDir=/var/lib/runnerward/keys", "config.ledger.kms.previousKeysDir"},
		{"replicas on one claim", inS3 + ",persistence.existingClaim=ledger", "persistence.existingClaim"},
		{"replicas that compete for another lease", inS3 + ",config.ledger.keysDir=,config.ledger.kms.recordKey=x,config.supervisor.leaderElection.leaseName=other", "config.supervisor.leaderElection.leaseName"},
		{"a lease that the role does not name", "config.supervisor.leaderElection.enabled=true,config.supervisor.leaderElection.leaseName=other", "config.supervisor.leaderElection.leaseName"},
		{"another account of runners", "runnerServiceAccount.name=other", "config.cluster.serviceAccount"},
		{"another name of the release", "fullnameOverride=other", "config.cluster.admissionURL"},
		{"another port", "ports.status=10444", "config.status.listen"},
		{"a folder besides no bucket", "config.ledger.dir=", "config.ledger.dir"},
		{"keys on a read-only root", "config.ledger.keysDir=/etc/keys", "config.ledger.keysDir"},
		{"spool that a restart loses", "config.ledger.spoolDir=/tmp/spool", "config.ledger.spoolDir"},
		{"another key file", "config.admission.keyFile=/etc/key", "config.admission.keyFile"},
		{"another scale set", "scaleSet.name=other", "config.pool.name"},
		{"a witness whose documents nobody verifies", "hostWitness.enabled=true,hostWitness.from[0].ipBlock.cidr=10.0.0.0/8", "config.hosts.identity.certificatesFile"},
		{"a witness beside the runners", "hostWitness.enabled=true,hostWitness.namespace=gha-runners", "hostWitness.namespace"},
		{"a witness that a network policy keeps out", "hostWitness.enabled=true", "hostWitness.from"},
		{"a witness of another account", "hostWitness.enabled=true,hostWitness.from[0].ipBlock.cidr=10.0.0.0/8,hostWitness.serviceAccount=other", "config.hosts.identity.serviceAccount"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, err := render(t, "--set", tc.set)
			if err == nil || !strings.Contains(out, tc.says) || !strings.Contains(out, "and ") {
				t.Errorf("helm template --set %s = %v, %.300s, want a refusal that names %s", tc.set, err, out, tc.says)
			}
		})
	}
}
