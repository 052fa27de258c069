package cluster

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/runnerward/runnerward/pkg/supervisor"
)

// Where things are in the pod.
const (
	agentDir  = "/runnerward"
	agentPath = agentDir + "/runnerward-agent"
	hookPath  = agentDir + "/job-started.sh"
	runDir    = "/run/runnerward" // where the agent leaves the bound digest for its hook
	tokenDir  = "/var/run/runnerward-identity"
	tokenPath = tokenDir + "/token"
	caPath    = tokenDir + "/ca.crt"
	// awsDir is where amazon-eks-pod-identity-webhook puts the token too.
	awsDir  = "/var/run/secrets/eks.amazonaws.com/serviceaccount"
	awsPath = awsDir + "/token"
)

const (
	// runnerUID is the user runner of ghcr.io/actions/actions-runner.
	runnerUID int64 = 1001
	// tokenSeconds is how long a projected token lives; the kubelet renews it
	// at 80 % of that.
	tokenSeconds int64 = 3600
	// graceSeconds lets the runner's listener cancel the job and report it.
	graceSeconds int64 = 30
)

// Manifest is the pod of this runner. It is a pure function of the options and
// the spec, and holds no secret.
func (c *Cluster) Manifest(spec supervisor.PodSpec) *corev1.Pod {
	return &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Name: string(spec.Runner), Namespace: c.opts.Namespace,
			Labels: c.labels(), Annotations: c.annotations(spec),
		},
		Spec: c.podSpec(spec),
	}
}

// marks are the labels by which the pods of this pool's runners are found. They
// stay as they are: a pod that an earlier version made has to be found too.
func (c *Cluster) marks() map[string]string {
	labels := map[string]string{
		"app.kubernetes.io/name":       "runnerward",
		"app.kubernetes.io/component":  "runner",
		"app.kubernetes.io/managed-by": "runnerward",
		"app.kubernetes.io/part-of":    "runnerward",
	}
	if c.opts.ScaleSet != "" {
		labels["actions.github.com/scale-set-name"] = c.opts.ScaleSet
	}
	return labels
}

// labels are the marks, and those that the runner controller gives its runners:
// dashboards and policies go by them. All are the same for every pod of the
// pool. What differs between pods is in annotations: the repository, run and job
// that a runner was made for may not be those that it serves, and metrics that
// carry labels along must not grow with every run.
// https://docs.github.com/en/actions/hosting-your-own-runners/managing-self-hosted-runners-with-actions-runner-controller/troubleshooting-actions-runner-controller-errors#runner-pod
func (c *Cluster) labels() map[string]string {
	labels := c.marks()
	labels["actions-ephemeral-runner"] = "True"
	labels["actions.github.com/scale-set-namespace"] = c.opts.Namespace
	if c.opts.Organization != "" {
		labels["actions.github.com/organization"] = c.opts.Organization
	}
	return labels
}

func (c *Cluster) annotations(spec supervisor.PodSpec) map[string]string {
	annotations := map[string]string{
		// https://karpenter.sh/docs/concepts/disruption/#pod-level-controls
		"karpenter.sh/do-not-disrupt": "true",
		// https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/FAQ.md
		"cluster-autoscaler.kubernetes.io/safe-to-evict": "false",

		AnnotationAuthorized: string(spec.Authorized),
		AnnotationCauseJob:   string(spec.Cause),
	}
	if spec.Repository != "" {
		annotations[AnnotationRepository] = spec.Repository
	}
	if spec.RunID != 0 {
		annotations[AnnotationRunID] = strconv.FormatInt(spec.RunID, 10)
		annotations[AnnotationRunAttempt] = strconv.FormatInt(spec.RunAttempt, 10)
	}
	if c.opts.Cluster != "" {
		annotations[AnnotationCluster] = c.opts.Cluster
	}
	return annotations
}

func (c *Cluster) podSpec(spec supervisor.PodSpec) corev1.PodSpec {
	pod := corev1.PodSpec{
		// The kubelet of this node or none: no scheduler chooses.
		NodeName:                      spec.NodeName,
		Affinity:                      onlyNode(spec.NodeName),
		Tolerations:                   c.tolerations(spec),
		RestartPolicy:                 corev1.RestartPolicyNever,
		ServiceAccountName:            c.opts.ServiceAccount,
		AutomountServiceAccountToken:  new(false),
		EnableServiceLinks:            new(false),
		ActiveDeadlineSeconds:         new(max(1, seconds(spec.JobTTL+c.opts.PodTTLSlack))),
		TerminationGracePeriodSeconds: new(graceSeconds),
		SecurityContext: &corev1.PodSecurityContext{
			RunAsNonRoot: new(true), RunAsUser: new(runnerUID), RunAsGroup: new(runnerUID), FSGroup: new(runnerUID),
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		InitContainers: []corev1.Container{{
			Name: "agent", Image: c.opts.AgentImage,
			Command:         []string{"/runnerward-agent", "install", agentDir},
			Resources:       c.resources(),
			SecurityContext: restricted(true),
			VolumeMounts:    []corev1.VolumeMount{{Name: "agent", MountPath: agentDir}},
		}},
		Containers: []corev1.Container{c.runnerContainer(spec)},
		Volumes:    c.volumes(spec),
	}
	for _, name := range c.opts.ImagePullSecrets {
		pod.ImagePullSecrets = append(pod.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
	}
	return pod
}

// onlyNode says the pin once more where people and schedulers look for it. It
// goes by the node's name: the hostname label may differ from it.
func onlyNode(name string) *corev1.Affinity {
	return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchFields: []corev1.NodeSelectorRequirement{{
					Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{name},
				}},
			}},
		},
	}}
}

func (c *Cluster) tolerations(spec supervisor.PodSpec) []corev1.Toleration {
	claim := claimTaint(spec.Runner)
	return []corev1.Toleration{
		{Key: c.opts.Taint.Key, Operator: corev1.TolerationOpEqual, Value: c.opts.Taint.Value, Effect: corev1.TaintEffect(c.opts.Taint.Effect)},
		{Key: claim.Key, Operator: corev1.TolerationOpEqual, Value: claim.Value, Effect: claim.Effect},
	}
}

func (c *Cluster) runnerContainer(spec supervisor.PodSpec) corev1.Container {
	mounts := []corev1.VolumeMount{
		{Name: "agent", MountPath: agentDir, ReadOnly: true},
		{Name: "identity", MountPath: tokenDir, ReadOnly: true},
		{Name: "run", MountPath: runDir},
	}
	if c.opts.AWSRole != "" {
		mounts = append(mounts, corev1.VolumeMount{Name: "aws", MountPath: awsDir, ReadOnly: true})
	}
	return corev1.Container{
		Name: "runner", Image: c.opts.RunnerImage,
		Command:         append([]string{agentPath, "run", "--"}, c.opts.RunnerCommand...),
		Env:             c.env(spec),
		Resources:       c.resources(),
		SecurityContext: restricted(false),
		VolumeMounts:    mounts,
		// Never FallbackToLogsOnError: it would copy job output into the API server.
		TerminationMessagePolicy: corev1.TerminationMessageReadFile,
	}
}

func (c *Cluster) env(spec supervisor.PodSpec) []corev1.EnvVar {
	env := []corev1.EnvVar{
		{Name: "RUNNERWARD_URL", Value: c.opts.AdmissionURL},
		{Name: "RUNNERWARD_RUNNER", Value: string(spec.Runner)},
		{Name: "RUNNERWARD_AUDIENCE", Value: spec.Authorized.Audience()},
		{Name: "RUNNERWARD_TOKEN_FILE", Value: tokenPath},
	}
	if c.opts.AdmissionCAConfigMap != "" {
		env = append(env, corev1.EnvVar{Name: "RUNNERWARD_CA_FILE", Value: caPath})
	}
	if c.opts.AWSRole != "" {
		env = append(env,
			corev1.EnvVar{Name: "AWS_ROLE_ARN", Value: c.opts.AWSRole},
			corev1.EnvVar{Name: "AWS_WEB_IDENTITY_TOKEN_FILE", Value: awsPath})
	}
	return append(env,
		corev1.EnvVar{Name: "ACTIONS_RUNNER_HOOK_JOB_STARTED", Value: hookPath},
		// Without it a runner that GitHub no longer accepts exits with 0.
		corev1.EnvVar{Name: "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE", Value: "1"},
		fromField("POD_NAME", "metadata.name"),
		fromField("POD_UID", "metadata.uid"),
		fromField("NODE_NAME", "spec.nodeName"),
	)
}

func fromField(name, path string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{
		FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path},
	}}
}

// resources are equal requests and limits, so that the pod's QoS class is
// guaranteed and the kubelet evicts it last. [New] has parsed them once.
func (c *Cluster) resources() corev1.ResourceRequirements {
	list := func() corev1.ResourceList {
		return corev1.ResourceList{
			corev1.ResourceCPU:    resource.MustParse(c.opts.CPU),
			corev1.ResourceMemory: resource.MustParse(c.opts.Memory),
		}
	}
	return corev1.ResourceRequirements{Requests: list(), Limits: list()}
}

// restricted is what the restricted Pod Security Standard asks of containers.
// The runner writes into its own home, so only its root stays writable.
// https://kubernetes.io/docs/concepts/security/pod-security-standards/
func restricted(readOnlyRoot bool) *corev1.SecurityContext {
	sc := &corev1.SecurityContext{
		AllowPrivilegeEscalation: new(false),
		Privileged:               new(false),
		RunAsNonRoot:             new(true),
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
	if readOnlyRoot {
		sc.ReadOnlyRootFilesystem = new(true)
	}
	return sc
}

func (c *Cluster) volumes(spec supervisor.PodSpec) []corev1.Volume {
	identity := []corev1.VolumeProjection{projectedToken(spec.Authorized.Audience())}
	if c.opts.AdmissionCAConfigMap != "" {
		identity = append(identity, corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{
			LocalObjectReference: corev1.LocalObjectReference{Name: c.opts.AdmissionCAConfigMap},
			Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
		}})
	}
	volumes := []corev1.Volume{
		{Name: "agent", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: new(resource.MustParse("256Mi"))}}},
		projected("identity", identity...),
		{Name: "run", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{
			Medium: corev1.StorageMediumMemory, SizeLimit: new(resource.MustParse("1Mi")),
		}}},
	}
	if c.opts.AWSRole != "" {
		volumes = append(volumes, projected("aws", projectedToken("sts.amazonaws.com")))
	}
	return volumes
}

func projected(name string, sources ...corev1.VolumeProjection) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: sources}}}
}

func projectedToken(audience string) corev1.VolumeProjection {
	return corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
		Audience: audience, ExpirationSeconds: new(tokenSeconds), Path: "token",
	}}
}
