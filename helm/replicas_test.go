package helm

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/runnerward/runnerward/pkg/config"
)

// TestReplicasElectALeader: the values ask for two replicas and say nothing of
// an election.
func TestReplicasElectALeader(t *testing.T) {
	const key = "config.ledger.kms.recordKey=arn:aws:kms:us-east-1:111122223333:key/1,config.ledger.kms.checkpointKey=arn:aws:kms:us-east-1:111122223333:key/2"
	out, err := render(t, "--values", "testdata/full-values.yaml", "--set", "replicas=2,config.ledger.keysDir=,config.supervisor.leaderElection.leaseName=rw,"+key)
	if err != nil {
		t.Fatalf("helm template: %v\n%s", err, out)
	}
	docs := documents(t, out)
	s, ok := docs["StatefulSet gha-runners/rw"].(*appsv1.StatefulSet)
	if !ok {
		t.Fatal("no StatefulSet")
	}
	checkPod(t, s.Spec.Template)
	if *s.Spec.Replicas != 2 || s.Spec.PodManagementPolicy != appsv1.ParallelPodManagement || s.Spec.UpdateStrategy.Type != appsv1.RollingUpdateStatefulSetStrategyType {
		t.Errorf("spec = %d replicas, %s, %s, want 2 that start beside each other", *s.Spec.Replicas, s.Spec.PodManagementPolicy, s.Spec.UpdateStrategy.Type)
	}
	// Two pods never share a volume: it is ReadWriteOnce, and a spool is locked.
	claims := s.Spec.VolumeClaimTemplates
	if len(claims) != 1 || claims[0].Name != "ledger" || claims[0].Spec.AccessModes[0] != corev1.ReadWriteOnce || *claims[0].Spec.StorageClassName != "gp3-encrypted" {
		t.Errorf("claims = %+v, want one of its own for each pod", claims)
	}
	if _, shared := docs["PersistentVolumeClaim gha-runners/rw-ledger"]; shared || strings.Contains(out, "persistentVolumeClaim") {
		t.Error("a claim is rendered that the pods would share")
	}
	if _, ok := docs["Deployment gha-runners/rw"]; ok {
		t.Error("a Deployment is rendered beside the StatefulSet")
	}
	if spread := s.Spec.Template.Spec.TopologySpreadConstraints; len(spread) != 1 || spread[0].TopologyKey != corev1.LabelHostname {
		t.Errorf("spread = %+v, want over nodes", spread)
	}
	c, err := config.Parse("config.yaml", []byte(docs["ConfigMap gha-runners/rw"].(*corev1.ConfigMap).Data["config.yaml"]), nil, config.Offline())
	if err != nil {
		t.Fatalf("the daemon refuses the rendered configuration: %v", err)
	}
	election := c.Supervisor.LeaderElection
	if !election.Enabled || volumeAt(&s.Spec.Template.Spec, c.Ledger.SpoolDir) != "ledger" {
		t.Errorf("election = %+v, spool %s, want it on and the spool on the pod's own volume", election, c.Ledger.SpoolDir)
	}
	checkLeaseRules(t, docs["Role gha-runners/rw"].(*rbacv1.Role), election.LeaseName)
	for name, want := range map[string]map[string]string{
		"admission": s.Spec.Template.Labels, "status": s.Spec.Template.Labels,
	} {
		svc := docs["Service gha-runners/rw-"+name].(*corev1.Service)
		for k, v := range svc.Spec.Selector {
			if want[k] != v {
				t.Errorf("service %s selects %s=%s, the pods have %q", name, k, v, want[k])
			}
		}
	}
	if pdb := docs["PodDisruptionBudget gha-runners/rw"].(*policyv1.PodDisruptionBudget); pdb.Spec.MaxUnavailable.IntVal != 1 {
		t.Errorf("budget = %+v, want one pod moved at a time", pdb.Spec)
	}
}

// checkLeaseRules wants the daemon to read and write its own lease only.
func checkLeaseRules(t *testing.T, role *rbacv1.Role, lease string) {
	t.Helper()
	verbs := map[string]string{}
	for _, rule := range role.Rules {
		if rule.Resources[0] == "leases" {
			for _, verb := range rule.Verbs {
				verbs[verb] = strings.Join(rule.ResourceNames, ",")
			}
		}
	}
	if len(verbs) != 3 || verbs["get"] != lease || verbs["update"] != lease || verbs["create"] != "" {
		t.Errorf("verbs on leases = %v, want get and update of %s, and create", verbs, lease)
	}
}

func TestOneReplicaHasNoRightsOnLeases(t *testing.T) {
	out, err := render(t)
	if err != nil {
		t.Fatalf("helm template: %v\n%s", err, out)
	}
	if strings.Contains(out, "leases") {
		t.Error("a daemon that is alone may write leases")
	}
}
