package simcluster

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func invalid(k kind, name, path, detail string) error {
	return apierrors.NewInvalid(k.gk(), name, field.ErrorList{field.Invalid(field.NewPath(path), "", detail)})
}

// admit defaults and checks an object that is to be created. The caller holds
// the lock.
func (c *Cluster) admit(k kind, obj runtime.Object) error {
	m := accessor(obj)
	errs := validation.ValidateLabels(m.GetLabels(), field.NewPath("metadata", "labels"))
	if problems := utilvalidation.IsDNS1123Subdomain(m.GetName()); len(problems) > 0 {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), m.GetName(), problems[0]))
	}
	// A prefix is judged by itself, and may end in a dash but not in a dot:
	// ValidateObjectMetaAccessor in apimachinery/pkg/api/validation.
	if prefix := m.GetGenerateName(); prefix != "" {
		for _, problem := range apivalidation.NameIsDNSSubdomain(prefix, true) {
			errs = append(errs, field.Invalid(field.NewPath("metadata", "generateName"), prefix, problem))
		}
	}
	switch obj := obj.(type) {
	case *corev1.Pod:
		defaults(obj)
		errs = append(errs, validatePod(obj)...)
		if len(errs) > 0 {
			break
		}
		return c.admitPod(k, obj)
	case *eventsv1.Event:
		errs = append(errs, validateEvent(obj)...)
	case *coordinationv1.Lease:
		errs = append(errs, validateLease(obj)...)
	}
	if len(errs) > 0 {
		return apierrors.NewInvalid(k.gk(), m.GetName(), errs)
	}
	return nil
}

// validateLease is a part of pkg/apis/coordination/validation.ValidateLeaseSpec.
// Times are kept in microseconds, as they are on the wire (metav1.MicroTime).
func validateLease(l *coordinationv1.Lease) field.ErrorList {
	var errs field.ErrorList
	if d := l.Spec.LeaseDurationSeconds; d != nil && *d <= 0 {
		errs = append(errs, field.Invalid(field.NewPath("spec", "leaseDurationSeconds"), *d, "must be greater than 0"))
	}
	if n := l.Spec.LeaseTransitions; n != nil && *n < 0 {
		errs = append(errs, field.Invalid(field.NewPath("spec", "leaseTransitions"), *n, "must be greater than or equal to 0"))
	}
	for _, at := range []*metav1.MicroTime{l.Spec.AcquireTime, l.Spec.RenewTime} {
		if at != nil {
			at.Time = at.Truncate(time.Microsecond)
		}
	}
	return errs
}

// defaults are those of the API server and of the DefaultTolerationSeconds
// admission plugin, as far as anything here reads them.
func defaults(pod *corev1.Pod) {
	if pod.Spec.TerminationGracePeriodSeconds == nil {
		pod.Spec.TerminationGracePeriodSeconds = new(int64(corev1.DefaultTerminationGracePeriodSeconds))
	}
	if pod.Spec.RestartPolicy == "" {
		pod.Spec.RestartPolicy = corev1.RestartPolicyAlways
	}
	for _, taint := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{
			Key: taint, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: new(int64(300)),
		})
	}
	pod.Status = corev1.PodStatus{Phase: corev1.PodPending, QOSClass: corev1.PodQOSBurstable}
}

// validatePod is a part of pkg/apis/core/validation.ValidatePodCreate.
func validatePod(pod *corev1.Pod) field.ErrorList {
	var errs field.ErrorList
	spec := field.NewPath("spec")
	if len(pod.Spec.Containers) == 0 {
		errs = append(errs, field.Required(spec.Child("containers"), ""))
	}
	if d := pod.Spec.ActiveDeadlineSeconds; d != nil && *d < 1 {
		errs = append(errs, field.Invalid(spec.Child("activeDeadlineSeconds"), *d, "must be between 1 and 2147483647"))
	}
	volumes := map[string]bool{}
	for i, v := range pod.Spec.Volumes {
		volumes[v.Name] = true
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			// https://kubernetes.io/docs/concepts/storage/projected-volumes/#serviceaccounttoken
			if t := s.ServiceAccountToken; t != nil && t.ExpirationSeconds != nil && *t.ExpirationSeconds < 600 {
				errs = append(errs, field.Invalid(spec.Child("volumes").Index(i), *t.ExpirationSeconds, "may not specify a duration less than 10 minutes"))
			}
		}
	}
	for i, ct := range allContainers(pod) {
		path := spec.Child("containers").Index(i)
		if ct.Image == "" {
			errs = append(errs, field.Required(path.Child("image"), ""))
		}
		for _, m := range ct.VolumeMounts {
			if !volumes[m.Name] {
				errs = append(errs, field.NotFound(path.Child("volumeMounts"), m.Name))
			}
		}
		for name, request := range ct.Resources.Requests {
			if limit, ok := ct.Resources.Limits[name]; ok && request.Cmp(limit) > 0 {
				errs = append(errs, field.Invalid(path.Child("resources", "requests"), request.String(), "must be less than or equal to "+string(name)+" limit"))
			}
		}
	}
	return errs
}

// validateEvent is pkg/apis/core/validation.ValidateEventCreate for
// events.k8s.io/v1.
func validateEvent(e *eventsv1.Event) field.ErrorList {
	var errs field.ErrorList
	want := e.Regarding.Namespace
	if want == "" {
		want = metav1.NamespaceDefault
	}
	if e.Namespace != want {
		errs = append(errs, field.Invalid(field.NewPath("involvedObject", "namespace"), e.Regarding.Namespace, "does not match event.namespace"))
	}
	if e.EventTime.IsZero() {
		errs = append(errs, field.Required(field.NewPath("eventTime"), ""))
	}
	if len(utilvalidation.IsQualifiedName(e.ReportingController)) > 0 {
		errs = append(errs, field.Invalid(field.NewPath("reportingController"), e.ReportingController, "must be a qualified name"))
	}
	for name, value := range map[string]string{"reportingInstance": e.ReportingInstance, "action": e.Action, "reason": e.Reason} {
		if value == "" || len(value) > 128 {
			errs = append(errs, field.Invalid(field.NewPath(name), value, "must have between 1 and 128 characters"))
		}
	}
	if len(e.Note) > 1024 {
		errs = append(errs, field.Invalid(field.NewPath("note"), "", "can have at most 1024 characters"))
	}
	if e.Type != corev1.EventTypeNormal && e.Type != corev1.EventTypeWarning {
		errs = append(errs, field.Invalid(field.NewPath("type"), e.Type, "has invalid value"))
	}
	return append(errs, validateSeries(e)...)
}

// validateSeries is validateV1EventSeries of the same file.
func validateSeries(e *eventsv1.Event) field.ErrorList {
	var errs field.ErrorList
	if s := e.Series; s != nil && s.Count < 2 {
		errs = append(errs, field.Invalid(field.NewPath("series.count"), s.Count, "should be at least 2"))
	}
	if s := e.Series; s != nil && s.LastObservedTime.IsZero() {
		errs = append(errs, field.Required(field.NewPath("series.lastObservedTime"), ""))
	}
	return errs
}

// immutableEvent is ValidateEventUpdate of the same file: all but the series
// stays as it is.
func immutableEvent(k kind, old, e *eventsv1.Event) error {
	errs := validateSeries(e)
	for path, changed := range map[string]bool{
		"involvedObject": e.Regarding != old.Regarding, "reason": e.Reason != old.Reason, "message": e.Note != old.Note,
		"type": e.Type != old.Type, "action": e.Action != old.Action, "reportingController": e.ReportingController != old.ReportingController,
		"reportingInstance": e.ReportingInstance != old.ReportingInstance,
		"eventTime":         !e.EventTime.Truncate(time.Microsecond).Equal(old.EventTime.Truncate(time.Microsecond)),
	} {
		if changed {
			errs = append(errs, field.Invalid(field.NewPath(path), "", "field is immutable"))
		}
	}
	if len(errs) > 0 {
		return apierrors.NewInvalid(k.gk(), e.Name, errs)
	}
	return nil
}

func (c *Cluster) admitPod(k kind, pod *corev1.Pod) error {
	account := pod.Spec.ServiceAccountName
	if account == "" {
		account = "default"
		pod.Spec.ServiceAccountName = account
	}
	// The ServiceAccount admission plugin.
	if !slices.Contains(c.opts.ServiceAccounts, account) {
		return apierrors.NewForbidden(k.gr(), pod.Name, fmt.Errorf("error looking up service account %s/%s: serviceaccount %q not found", pod.Namespace, account, account))
	}
	if violations := Restricted(pod); len(violations) > 0 {
		return apierrors.NewForbidden(k.gr(), pod.Name, errors.New(`violates PodSecurity "restricted:latest": `+strings.Join(violations, ", ")))
	}
	return nil
}

func allContainers(pod *corev1.Pod) []corev1.Container {
	return slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers)
}

// Restricted says how the pod violates the restricted Pod Security Standard.
// https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
func Restricted(pod *corev1.Pod) []string {
	var out []string
	deny := func(bad bool, what string) {
		if bad && !slices.Contains(out, what) {
			out = append(out, what)
		}
	}
	spec := &pod.Spec
	deny(spec.HostNetwork || spec.HostPID || spec.HostIPC, "host namespaces")
	for _, v := range spec.Volumes {
		s := v.VolumeSource
		deny(s.ConfigMap == nil && s.CSI == nil && s.DownwardAPI == nil && s.EmptyDir == nil && s.Ephemeral == nil &&
			s.PersistentVolumeClaim == nil && s.Projected == nil && s.Secret == nil, "restricted volume types")
	}
	ps := spec.SecurityContext
	if ps == nil {
		ps = &corev1.PodSecurityContext{}
	}
	deny(ps.RunAsUser != nil && *ps.RunAsUser == 0, "runAsUser=0")
	deny(len(ps.Sysctls) > 0, "forbidden sysctls")
	deny(ps.SELinuxOptions != nil && !plainSELinux(ps.SELinuxOptions), "seLinuxOptions")
	for _, ct := range allContainers(pod) {
		sc := ct.SecurityContext
		if sc == nil {
			sc = &corev1.SecurityContext{}
		}
		deny(sc.Privileged != nil && *sc.Privileged, "privileged")
		deny(sc.AllowPrivilegeEscalation == nil || *sc.AllowPrivilegeEscalation, "allowPrivilegeEscalation != false")
		deny(sc.Capabilities == nil || !slices.Contains(sc.Capabilities.Drop, "ALL") ||
			slices.ContainsFunc(sc.Capabilities.Add, func(add corev1.Capability) bool { return add != "NET_BIND_SERVICE" }), "unrestricted capabilities")
		deny(!either(sc.RunAsNonRoot, ps.RunAsNonRoot), "runAsNonRoot != true")
		deny(sc.RunAsUser != nil && *sc.RunAsUser == 0, "runAsUser=0")
		deny(!seccomp(sc.SeccompProfile, ps.SeccompProfile), "seccompProfile")
		deny(sc.SELinuxOptions != nil && !plainSELinux(sc.SELinuxOptions), "seLinuxOptions")
		deny(sc.ProcMount != nil && *sc.ProcMount != corev1.DefaultProcMount, "procMount")
		deny(slices.ContainsFunc(ct.Ports, func(p corev1.ContainerPort) bool { return p.HostPort != 0 }), "hostPort")
	}
	return out
}

// either is the container's own setting, else the pod's.
func either(own, pods *bool) bool {
	if own == nil {
		own = pods
	}
	return own != nil && *own
}

func seccomp(own, pods *corev1.SeccompProfile) bool {
	if own == nil {
		own = pods
	}
	return own != nil && (own.Type == corev1.SeccompProfileTypeRuntimeDefault || own.Type == corev1.SeccompProfileTypeLocalhost)
}

func plainSELinux(o *corev1.SELinuxOptions) bool {
	types := []string{"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
	return o.User == "" && o.Role == "" && slices.Contains(types, o.Type)
}
